"""Settings and flags of label_errors.py."""

from dataclasses import MISSING, dataclass

from minitrain.config.options import check_flags, flag
from minitrain.errors import MinitrainError
from minitrain.storage.files import is_device


@dataclass(frozen=True, kw_only=True)
class LabelErrorsConfig:
    """Find labels that are probably wrong among the rows that a saved run predicted."""

    run: str = flag(MISSING, "folder that a training run saved; one with --folds predicted all training rows")
    split: str | None = flag(None, "only rows of this split, e.g. test; default: all that were predicted")
    show: int = flag(10, "rows to print", bounds=(0, None))
    output: str | None = flag(None, "write the rows to this .jsonl file; default: label_errors.jsonl in the folder")

    def __post_init__(self) -> None:
        check_flags(self)
        if self.output is not None and not self.output.endswith(".jsonl") and not is_device(self.output):
            raise MinitrainError(
                f"--output {self.output}: the rows are JSON lines; name a file that ends with .jsonl"
            )
