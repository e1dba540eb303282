"""What scoring a saved run and labelling texts with one may be told."""

from dataclasses import MISSING, dataclass

from minitrain.config import ARITHMETICS
from minitrain.errors import MinitrainError
from minitrain.options import check_columns, check_flags, flag


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Scoring a saved run, on its own data or other."""

    run: str = flag(MISSING, "folder that a training run saved")
    dataset: str | None = flag(None, "other data than the run's: Hub id, local folder, or 'demo'")
    subset: str | None = flag(None, "configuration of the dataset")
    eval_file: str | None = flag(None, "own data: .csv, .tsv, .jsonl or .parquet")
    split: str | None = flag(None, "split of the dataset, e.g. test; by default what the run evaluated on")
    text_columns: tuple[str, ...] | None = flag(None, "by default the run's")
    join: str | None = flag(None, "as in training, to make one text of them; by default as the run")
    label_column: str | None = flag(None, "by default the run's")
    max_length: int | None = flag(None, "by default the run's", bounds=(1, None))
    max_eval_samples: int | None = flag(None, "use only so many examples, chosen as in training", bounds=(1, None))
    per_device_eval_batch_size: int = flag(32, "examples a forward pass", bounds=(1, None))
    bf16: bool = flag(False, "compute in bfloat16")
    device: str = flag("auto", "auto takes a GPU where there is one", ("auto", "cpu", "cuda"))
    kernels: str = flag("fast", "arithmetic", ARITHMETICS)
    json: str | None = flag(None, "write the values to this file too")

    def __post_init__(self) -> None:
        check_flags(self)
        if isinstance(self.text_columns, str):
            check_columns(self.text_columns)
        if self.dataset is not None and self.eval_file is not None:
            raise MinitrainError("--dataset and --eval_file name two sets of data: pass one")
        if self.split is not None and self.eval_file is not None:
            raise MinitrainError("--split is of a dataset or of the run's own files; --eval_file has none")


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Labels and probabilities for new texts, as JSON lines."""

    run: str = flag(MISSING, "folder that a training run saved, or any classifier in the Hub's layout")
    input: str | None = flag(None, ".txt, .csv, .tsv, .jsonl or .parquet; by default standard input, a text a line")
    output: str | None = flag(None, "JSON lines go here; by default to standard output")
    text_columns: tuple[str, ...] | None = flag(None, "columns of a table; by default the run's")
    join: str | None = flag(None, "as in training, to make one text of them; by default as the run")
    max_length: int | None = flag(None, "by default the run's", bounds=(1, None))
    per_device_eval_batch_size: int = flag(32, "examples a forward pass", bounds=(1, None))
    bf16: bool = flag(False, "compute in bfloat16")
    device: str = flag("auto", "auto takes a GPU where there is one", ("auto", "cpu", "cuda"))
    kernels: str = flag("fast", "arithmetic", ARITHMETICS)

    def __post_init__(self) -> None:
        check_flags(self)
        if isinstance(self.text_columns, str):
            check_columns(self.text_columns)
