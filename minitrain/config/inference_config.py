"""Settings and flags of evaluate.py and predict.py."""

import os
from dataclasses import MISSING, dataclass
from pathlib import Path

from minitrain.config.label_map import read_label_map
from minitrain.config.long_texts import LONG_TEXTS, POOLINGS
from minitrain.config.optimization import ARITHMETICS, DEVICES
from minitrain.config.options import check_label_flags, flag
from minitrain.config.read_options import Files, ReadOptions, files_of
from minitrain.errors import MinitrainError
from minitrain.storage.files import is_device

INPUT_FORMATS = ("text", "jsonl")
OUTPUT_FORMATS = ("jsonl", "csv", "tsv")


@dataclass(frozen=True, kw_only=True)
class InferenceConfig(ReadOptions):
    """How a saved run is used, and where the rows with its predictions are written."""

    run: str = flag(MISSING, "folder that a training run saved, or any classifier in the Hub's layout")
    text_columns: tuple[str, ...] | None = flag(None, "columns with the text or the two texts; default: the run's")
    join: str | None = flag(None, "join the text columns with this, as in training; default: as the run")
    max_length: int | None = flag(None, "cut texts to this many tokens; default: the run's", bounds=(1, None))
    long_texts: str | None = flag(None, "part of longer texts that is read; default: as the run", LONG_TEXTS)
    stride: int | None = flag(None, "tokens that windows share; default: as the run", bounds=(0, None))
    max_windows: int | None = flag(None, "windows of a text to read; default: as the run", bounds=(1, None))
    window_pooling: str | None = flag(None, "a text's logits from its windows'; default: as the run", POOLINGS)
    per_device_eval_batch_size: int = flag(32, "examples per forward pass", bounds=(1, None))
    calibrated: bool = flag(False, "apply the temperature and thresholds that train.py --calibrate fitted")
    bf16: bool = flag(False, "compute in bfloat16")
    fp16: bool = flag(False, "compute in float16")
    device: str = flag("auto", "auto: an NVIDIA GPU if there is one; mps: Apple's", DEVICES)
    kernels: str = flag("fast", "arithmetic", ARITHMETICS)
    output: str | None = flag(None, "write rows to this file: .jsonl, .csv or .tsv, with .gz compressed")
    output_format: str | None = flag(None, "format of the rows; default: the ending of --output", OUTPUT_FORMATS)
    keep_columns: tuple[str, ...] | None = flag(
        None, "other input columns to write: a,b or all or none; default: all without long texts"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output_format is None:
            self.format  # noqa: B018  # an unknown ending is an error before any work
        if self.bf16 and self.fp16:
            raise MinitrainError("--bf16 and --fp16 name two precisions: pass one")

    @property
    def format(self) -> str:
        """The format of the rows. Raises MinitrainError if the file's ending names none."""
        if self.output_format is not None:
            return self.output_format
        if self.output is None or os.path.isdir(self.output):
            return "jsonl"
        kind = Path(self.output.removesuffix(".gz")).suffix.lower().removeprefix(".")
        if kind in OUTPUT_FORMATS:
            return kind
        if is_device(self.output):
            return "jsonl"
        hint = " (.jsonl is JSON lines)" if kind == "json" else ""
        raise MinitrainError(
            f"--output {self.output}: its ending names no format; expected .jsonl, .csv or .tsv{hint}, each also "
            f"with .gz, or pass --output_format, one of {', '.join(OUTPUT_FORMATS)}"
        )


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(InferenceConfig):
    """Score a saved run, on its own data or other."""

    dataset: str | None = flag(None, "other data than the run's: Hub id, local folder, or 'demo'")
    subset: str | None = flag(None, "configuration of the dataset")
    eval_file: Files | None = flag(None, "own data: .csv, .tsv, .json, .jsonl or .parquet; several as a,b")
    split: str | None = flag(None, "split of the dataset, e.g. test; default: those the run evaluated on")
    label_column: str | None = flag(None, "default: the run's")
    label_columns: tuple[str, ...] | None = flag(None, "columns of 0 and 1, one a label; default: the run's")
    label_separator: str | None = flag(None, "split the labels of a text at this; default: the run's")
    label_map: dict[str, str] | None = flag(
        None, "other names for labels, beside the run's own: 0=good,1=bad, or a .json file"
    )
    positive_label: str | None = flag(None, "the class that f1 is about; default: the run's")
    metrics: tuple[str, ...] | None = flag(None, "metrics to compute, in this order; default: the run's")
    max_eval_samples: int | None = flag(None, "use this many examples, chosen as in training", bounds=(1, None))
    json: str | None = flag(None, "write the values to this file too")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "label_map", read_label_map(self.label_map))
        check_label_flags(self.label_column, self.label_columns, self.label_separator)
        if self.dataset is not None and self.eval_file is not None:
            raise MinitrainError("--dataset and --eval_file name two sets of data: pass one")
        if self.split is not None and self.eval_file is not None:
            raise MinitrainError("--split is of a dataset or of the run's own files; --eval_file has none")
        for name in ("output_format", "keep_columns"):
            if getattr(self, name) is not None and self.output is None:
                raise MinitrainError(f"--{name} is about the rows written by --output: pass --output rows.jsonl")
        _check_output(self.output, "eval_file", self.eval_file)
        _check_output(self.json, "eval_file", self.eval_file, "json")


@dataclass(frozen=True, kw_only=True)
class PredictConfig(InferenceConfig):
    """Labels and probabilities for new texts, as JSON lines or CSV."""

    input: str | None = flag(
        None,
        ".txt (a text per line), .csv, .tsv, .json, .jsonl or .parquet; default, or -: lines of standard input",
    )
    input_format: str | None = flag(None, "format of lines; default: as the first one looks", INPUT_FORMATS)
    resume: bool = flag(False, "continue the --output of an interrupted prediction")

    def __post_init__(self) -> None:
        for name in ("output", "input"):
            if getattr(self, name) == "-":
                object.__setattr__(self, name, None)
        super().__post_init__()
        if self.input_format == "text" and self.text_columns is not None:
            raise MinitrainError("--text_columns names fields, which lines of text do not have: drop one of them")
        if self.resume and self.output is None:
            raise MinitrainError("--resume continues a file: pass its --output")
        if self.resume and self.input is None:
            raise MinitrainError("--resume needs an --input that can be read again; standard input cannot")
        _check_output(self.output, "input", self.input)


def _check_output(output: str | None, flag: str, files: Files | None, output_flag: str = "output") -> None:
    """Raise MinitrainError if the output is one of the files that are read."""
    if output is not None and files is not None and any(same_file(output, name) for name in files_of(files)):
        itself = "itself" if isinstance(files, str) and os.path.lexists(files) else "too, by one of its files"
        raise MinitrainError(f"--{output_flag} {output}: is the --{flag} {itself}; name another file")


def same_file(one: str, other: str) -> bool:
    """Whether two names are one file that exists."""
    try:
        return os.path.isfile(one) and os.path.samefile(one, other)
    except OSError:
        return False
