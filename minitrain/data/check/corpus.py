"""The rows of all splits as the checks see them, good and bad, and what a check finds in them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from minitrain.config.check_config import FINDINGS
from minitrain.data.check.keys import text_keys
from minitrain.data.labels.ids import Labels, display_names
from minitrain.data.tables.table import Table


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that a check found.

    Attributes:
        name: One of `FINDINGS`.
        rows: The rows concerned, as numbers in the corpus; a check may give each row only once.
        of: Rows that were looked at.
        what: What was found, in a sentence.
        effect: What it does to a model.
        way_out: What to do: a command or flag, where there is one.
        notes: By row, what is special about it.
        twins: By row, the one that it is like.
        at_least: Not all rows were looked at closely, so that there may be more.
    """

    name: str
    rows: Sequence[int]
    of: int
    what: str
    effect: str
    way_out: str
    notes: Mapping[int, str] = field(default_factory=dict)
    twins: Mapping[int, int] = field(default_factory=dict)
    at_least: bool = False

    @property
    def severity(self) -> str:
        return FINDINGS[self.name][0]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """All rows, split after split, the training rows first.

    Attributes:
        tables: By split, as they were read.
        text_columns: Names of the columns of `texts`.
        texts: For each text column, the text of each row; "" for a value that is no text.
        no_text: Row -> what it has instead of a text.
        labels: What the labels are; None if they are unknown, or there is no column of labels.
        targets: The class id of each row, its score, or the ids of its labels; None for a row without one.
        findings: What reading found already.
        left_out: What cannot be checked, and why.
    """

    tables: dict[str, Table]
    text_columns: tuple[str, ...]
    label_column: str
    texts: tuple[list[str], ...]
    no_text: dict[int, str]
    labels: Labels | None
    targets: list[Any]
    findings: tuple[Finding, ...] = ()
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts[0])

    @cached_property
    def rows_of(self) -> dict[str, range]:
        """The rows of each split."""
        found, start = {}, 0
        for name, table in self.tables.items():
            found[name] = range(start, start + len(table))
            start += len(table)
        return found

    @cached_property
    def keys(self) -> list[int | None]:
        """A key for the text of each row, as `text_keys` says."""
        return text_keys(self.texts)

    @cached_property
    def swapped_keys(self) -> list[int | None]:
        """Those of pairs in the other order."""
        return text_keys(self.texts[::-1])

    @property
    def train(self) -> range:
        """The training rows, which come first."""
        return self.rows_of["train"]

    @property
    def others(self) -> dict[str, range]:
        """The rows of the other splits."""
        return {name: rows for name, rows in self.rows_of.items() if name != "train"}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the classes, all different; () for scores and unknown labels."""
        return display_names(self.labels.names) if self.labels is not None and self.labels.names else ()

    @property
    def has_classes(self) -> bool:
        """Whether a row has one class."""
        return self.labels is not None and self.labels.names is not None and not self.labels.multi_label

    @property
    def has_scores(self) -> bool:
        """Whether a row has a score."""
        return self.labels is not None and self.labels.names is None

    def split_of(self, row: int) -> str:
        """The split of a row."""
        return next(name for name, rows in self.rows_of.items() if row in rows)

    def place(self, row: int) -> tuple[str, str, int]:
        """The split of a row, its file or source, and its number there (from 1)."""
        split = self.split_of(row)
        return split, *self.tables[split].place(row - self.rows_of[split].start)

    def where(self, row: int) -> str:
        """The place of a row for a message: `a.csv, row 3`."""
        _, source, number = self.place(row)
        return f"{source}, row {number}"

    def by_split(self, rows: Iterable[int]) -> dict[str, int]:
        """How many of these rows each split has."""
        ends = [(rows_of.stop, name) for name, rows_of in self.rows_of.items()]
        counts: Counter[str] = Counter()
        for row in rows:
            counts[next(name for stop, name in ends if row < stop)] += 1
        return {name: counts[name] for name in self.rows_of if counts[name]}

    def label_shown(self, row: int) -> str | None:
        """The label of a row as text; None if it has none, or none that is known."""
        target = self.targets[row]
        if target is None or self.labels is None:
            return None
        if isinstance(target, tuple):
            return ", ".join(self.names[i] for i in target)
        return f"{target:g}" if self.has_scores else self.names[target]

    @property
    def unit(self) -> str:
        """What a row is: text or pair."""
        return "pair" if len(self.texts) == 2 else "text"

    def pieces(self, size: int = 20_000) -> Iterator[tuple[int, list[str]]]:
        """The texts of all rows in pieces, those of a pair with a line end between, each with its first row."""
        for start in range(0, len(self), size):
            part = [column[start : start + size] for column in self.texts]
            yield start, part[0] if len(part) == 1 else ["\n".join(row) for row in zip(*part, strict=True)]
