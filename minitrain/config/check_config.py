"""Settings and flags of check.py, and the names of what it can find."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from minitrain.config.data_config import DataConfig
from minitrain.config.options import flag
from minitrain.config.read_options import COMPRESSED, FILE_KINDS, files_of
from minitrain.errors import MinitrainError

ERROR, WARNING, NOTE = SEVERITIES = ("error", "warning", "note")
# Name of a finding: how bad it is, and what it means. An error is what train.py refuses.
FINDINGS = {
    "missing_text": (ERROR, "rows without a text, or with a value that is no text"),
    "missing_label": (ERROR, "rows without a label"),
    "unusable_labels": (ERROR, "labels that train.py refuses"),
    "unknown_label": (ERROR, "labels that no training row has"),
    "label_in_text": (WARNING, "the text names its label"),
    "telling_word": (WARNING, "one word tells a class"),
    "telling_length": (WARNING, "the length of a text tells its class"),
    "telling_column": (NOTE, "another column tells the class"),
    "split_overlap": (WARNING, "rows of another split that are training rows, too"),
    "near_split_overlap": (WARNING, "rows of another split that are nearly training rows"),
    "conflicting_labels": (WARNING, "the same text with different labels"),
    "duplicates": (WARNING, "rows that repeat the text of another"),
    "near_duplicates": (NOTE, "rows nearly equal to another"),
    "swapped_pairs": (NOTE, "pairs that also stand in the other order"),
    "label_spelling": (WARNING, "labels that differ by case, blanks or a letter"),
    "rare_class": (WARNING, "classes with very few training rows"),
    "label_drift": (WARNING, "labels are distributed otherwise in another split"),
    "length_drift": (WARNING, "texts have other lengths in another split"),
    "sorted_labels": (NOTE, "rows are sorted by label"),
    "blank_text": (WARNING, "empty or blank texts"),
    "one_word_text": (NOTE, "texts of one word"),
    "wrong_encoding": (WARNING, "texts that were read in a wrong encoding"),
    "other_script": (NOTE, "texts in another script than most"),
    "truncated": (WARNING, "texts longer than the model reads; needs --model"),
    "unknown_tokens": (WARNING, "texts with tokens that the model does not know; needs --model"),
}
ANY = "any"


@dataclass(frozen=True, kw_only=True)
class CheckConfig(DataConfig):
    """The data to look at, and what to do about what is found."""

    data: str | None = flag(None, "a file, several as a,b, a folder, a Hub id or 'demo': --train_file or --dataset")
    model: str | None = flag(
        None,
        "count tokens, truncated texts and unknown tokens as this model's tokenizer sees them; default: do not",
    )
    max_length: int | None = flag(None, "tokens that the model reads; default: all it can", bounds=(1, None))
    show: int = flag(3, "rows to show of each finding, on the console and in --json", bounds=(0, None))
    fail_on: tuple[str, ...] | None = flag(
        None, f"exit with status 1 if one of these is found: {ANY}, {ERROR}, or names: {', '.join(FINDINGS)}"
    )
    json: str | None = flag(None, "write what is found to this file, too")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_train_samples", "max_eval_samples", "group_column"):
            if getattr(self, name) is not None:
                raise MinitrainError(f"--{name}: check.py looks at all rows, one by one; leave it out")
        if self.max_length is not None and self.model is None:
            raise MinitrainError(f"--max_length {self.max_length} counts tokens of a model: pass --model NAME too")
        for name in self.fail_on or ():
            if name not in (ANY, ERROR, *FINDINGS):
                raise MinitrainError(f"--fail_on {name}: expected {ANY}, {ERROR}, or of {', '.join(FINDINGS)}")
        if self.json is not None:
            _check_json(self)

    def named(self) -> DataConfig:
        """The configuration with `data` as --train_file or --dataset."""
        if self.data is None:
            return self
        if self.dataset is not None or self.train_file is not None:
            raise MinitrainError(f"{self.data}: --dataset and --train_file name other data: pass one of them")
        if is_files(self.data):
            return replace(self, data=None, train_file=self.data)
        return replace(self, data=None, dataset=self.data)


def is_files(data: str) -> bool:
    """Whether this names files: one that exists, a pattern, several, or a name with the ending of one."""
    if os.path.isdir(data):
        return False
    suffixes = {suffix.lower() for suffix in Path(data).suffixes[-2:]}
    return os.path.lexists(data) or bool(suffixes & {*FILE_KINDS, *COMPRESSED}) or any(c in data for c in ",*?[")


def _check_json(config: CheckConfig) -> None:
    """Raise MinitrainError if the output is one of the files that are read."""
    named = [config.train_file, config.eval_file, config.test_file]
    named += [config.data] if config.data is not None and is_files(config.data) else []
    for files in filter(None, named):
        for name in files_of(files):
            if (
                os.path.isfile(str(config.json))
                and os.path.exists(name)
                and os.path.samefile(name, str(config.json))
            ):
                raise MinitrainError(f"--json {config.json}: is a file of the data; name another")
