"""Which data, and what is taken of it: the options that training, scoring and `load_splits` share."""

from dataclasses import dataclass

from minitrain.config.label_map import read_label_map
from minitrain.config.options import check_columns, check_flags, flag
from minitrain.config.read_options import (
    Files,
    check_reading,
    delimiter_flag,
    encoding_flag,
    quoting_flag,
)
from minitrain.errors import MinitrainError

GLUE_REPOSITORY = "nyu-mll/glue"  # the default dataset, with the subset mrpc
SAMPLES = ("random", "first")
PROBLEM_TYPES = ("single_label_classification", "regression")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data of a run: a dataset or files, their columns, and the rows that are used. A field is a flag."""

    dataset: str | None = flag(
        None, "Hub id, local folder, or 'demo' (embedded movie reviews); nyu-mll/glue if none"
    )
    subset: str | None = flag(None, "configuration of the dataset, e.g. a GLUE task; mrpc of nyu-mll/glue")
    dataset_revision: str | None = flag(None, "branch, tag or commit of a dataset of the Hub")
    train_file: Files | None = flag(
        None, "own training data: .csv, .tsv, .json, .jsonl or .parquet; several as a,b or 'folder/*.csv'"
    )
    eval_file: Files | None = flag(None, "own evaluation data, same columns")
    test_file: Files | None = flag(None, "own test data, scored once, after training")
    delimiter: str | None = delimiter_flag()
    quoting: str = quoting_flag()
    encoding: str = encoding_flag()
    text_columns: tuple[str, ...] | None = flag(None, "one column, or two (a pair): a,b or a JSON list of names")
    join: str | None = flag(None, "what to put between the text columns, to make one text of them; ' ' mostly")
    label_column: str | None = flag(None, "column of the labels; 'label' where nothing is said")
    eval_fraction: float = flag(
        0.0, "share of the training data, of each class alike, to hold back for evaluation", bounds=(0.0, 1.0)
    )
    label_map: dict[str, str] | None = flag(
        None, 'other names for labels, in all splits: 0=good,1=bad, or a .json file with {"0": "good", ...}'
    )
    positive_label: str | None = flag(None, "of two classes the one that f1 is about; by default the second")
    problem_type: str | None = flag(None, "what the labels are; by default as the data says", PROBLEM_TYPES)
    max_train_samples: int | None = flag(None, "use only so many training examples", bounds=(1, None))
    max_eval_samples: int | None = flag(None, "use only so many examples of each split scored", bounds=(1, None))
    sample: str = flag("random", "which of them: drawn by --seed, or the first", SAMPLES)
    seed: int = flag(42, "of the head, dropout, the order and the choice of examples", bounds=(0, 2**63 - 1))

    def __post_init__(self) -> None:
        check_flags(self)
        check_reading(self)
        object.__setattr__(self, "label_map", read_label_map(self.label_map))
        if self.text_columns is not None:
            check_columns(self.text_columns, self.join)
        if self.dataset is not None and self.train_file is not None:
            raise MinitrainError("--dataset and --train_file name two sets of data: pass one")
        if self.subset is not None and (self.dataset == "demo" or self.train_file is not None):
            raise MinitrainError(f"--subset {self.subset}: only a dataset of the Hub or of a folder has subsets")
        if self.dataset_revision is not None and self.train_file is not None:
            raise MinitrainError("--dataset_revision is of a dataset of the Hub; --train_file has none")
