"""Tokenized splits: examples by row, with numbered labels, and all the splits of a run.

Tokens are kept end to end: 5 bytes a token, no Python object an example. Nothing here imports torch before a split
is asked for its labels as a tensor.
"""

import operator
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, SupportsIndex, overload

from minitrain.data.labels.ids import Labels
from minitrain.data.tables.table import Table
from minitrain.data.targets import TargetScale, scale_of
from minitrain.data.tokenizer.tokenizer import Encoded, Example
from minitrain.errors import MinitrainError, shown
from minitrain.storage.token_cache import Tokens, in_memory

if TYPE_CHECKING:
    from torch import Tensor


class Split:
    """Tokenized examples of one split, by row: `split[3]` is an Example, `split[:8]` a list of them.

    `len(split)` is the number of rows.

    truncated, blank: how many rows were cut to the maximal length, and how many have a text with nothing in it.
    unknown: how many tokens are the unknown one; text_tokens: how many there are, without those of the template.
    pad_token_id, padding_side: how its tokenizer has rows padded. scale: where the labels are scores that were
    standardized, what undoes it.
    """

    def __init__(
        self,
        tokens: Tokens,
        labels: "array[int] | array[float] | None",
        scale: TargetScale | None = None,
        *,
        pad_token_id: int = 0,
        padding_side: str = "right",
        special: int = 0,
    ) -> None:
        """labels: int64 classes or float32 scores, `array` types q and f. special: tokens of a row's template."""
        self._tokens = tokens
        self._labels = labels
        self.scale = scale
        self.pad_token_id, self.padding_side, self._special = pad_token_id, padding_side, special
        self.lengths: list[int] = tokens.lengths.tolist()
        self.unknown, self.text_tokens = tokens.unknown, sum(self.lengths) - special * len(self.lengths)
        self._ends = array("q", accumulate(self.lengths))
        self.truncated, self.blank = tokens.truncated, tokens.blank

    @cached_property
    def labels(self) -> "Tensor | None":
        """(rows,) int64 classes or float32 scores."""
        import torch

        if self._labels is None:
            return None
        return torch.frombuffer(self._labels, dtype=torch.int64 if self._labels.typecode == "q" else torch.float32)

    @cached_property
    def highest_type_id(self) -> int:
        """Of all tokens; a model must have more embeddings of token types than that."""
        import numpy

        return int(numpy.frombuffer(self._tokens.type_ids, numpy.uint8).max(initial=0))

    def __len__(self) -> int:
        return len(self.lengths)

    def checksum(self) -> str:
        """Of tokens and labels, to tell one split from another (CRC-32)."""
        total = 0
        for part in (self._tokens.lengths, self._tokens.input_ids, self._tokens.type_ids, self._labels):
            if part is not None:
                total = zlib.crc32(part, total)
        return f"{total:08x}, {len(self)} rows"

    def target_scale(self) -> TargetScale:
        """Mean and standard deviation of the scores. Raises MinitrainError where they do not differ."""
        assert self._labels is not None
        if (scale := scale_of(self._labels)) is None:
            raise MinitrainError(
                f"every label of the {len(self)} training rows is {self._labels[0]}: nothing can be learnt from "
                "that; give scores that differ (--label_column names their column), or pass "
                "--standardize_targets false to train on them as they are"
            )
        return scale

    def standardized(self, scale: TargetScale) -> "Split":
        """The same rows with standard scores for labels, which `fit` trains on as such."""
        assert self._labels is not None
        return Split(
            self._tokens,
            scale.standardize(self._labels),
            scale,
            pad_token_id=self.pad_token_id,
            padding_side=self.padding_side,
            special=self._special,
        )

    @overload
    def __getitem__(self, row: int) -> Example: ...
    @overload
    def __getitem__(self, row: slice) -> list[Example]: ...

    def __getitem__(self, row: int | slice) -> Example | list[Example]:
        if isinstance(row, slice):
            return [self[each] for each in range(*row.indices(len(self)))]
        if not isinstance(row, SupportsIndex):
            raise MinitrainError(f"a split is asked for row {shown(row)} ({type(row).__name__}); give a number")
        row = operator.index(row)
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of a split of {len(self)} rows")
        end = self._ends[row]
        part = slice(end - self.lengths[row], end)
        label = None if self._labels is None else self._labels[row]
        return Example(self._tokens.input_ids[part].tolist(), self._tokens.type_ids[part].tolist(), label)


def as_split(rows: "Split | Sequence[Example]") -> Split:
    """A split as it is, or one made of Examples that were tokenized one by one.

    Raises MinitrainError for what is neither, and where only some Examples have labels.
    """
    if isinstance(rows, Split):
        return rows
    if not isinstance(rows, list | tuple) or not rows or not all(isinstance(row, Example) for row in rows):
        kind = (
            f"{type(rows).__name__} of {type(rows[0]).__name__}" if isinstance(rows, list | tuple) and rows else ""
        )
        raise MinitrainError(
            f"expected a Split, as load_splits and tokenize make, or a list of Example, got "
            f"{kind or type(rows).__name__}; tokenizer(texts) or tokenize(rows, tokenizer, ('text',)) makes one"
        )
    labels = [row.label for row in rows]
    if (unlabelled := labels.count(None)) not in (0, len(labels)):
        raise MinitrainError(f"{unlabelled} of {len(labels)} Examples have no label; give all of them one, or none")
    kinds = {float if isinstance(label, float) else int for label in labels}
    numbers = None if unlabelled else array("f" if float in kinds else "q", labels)
    return Split(in_memory([Encoded(examples=list(rows), truncated=0, blank=0)]), numbers)


@dataclass(frozen=True, kw_only=True)
class Splits:
    """What a run trains on, chooses by, and is finally scored on.

    evaluation has one entry, or two for MNLI. test has those splits whose labels are known. task is the GLUE task,
    where it is one.
    """

    train: Split
    evaluation: dict[str, Split]
    test: dict[str, Split]
    labels: Labels
    text_columns: tuple[str, ...]
    label_column: str
    task: str | None = None
    notes: list[str] = field(default_factory=list)  # what was decided that the user did not ask for
    commit: str | None = None  # of the dataset's repository on the Hub
    held_out: str | None = None  # checksum of the rows that --eval_fraction held back
    join: str | None = None  # what stands between the text columns, where they make one text
    texts: dict[str, Table] = field(default_factory=dict)  # of `scored`: text columns and labels, as they were read

    @property
    def is_pair(self) -> bool:
        """Whether an example is two texts."""
        return len(self.text_columns) == 2 and self.join is None

    @property
    def scored(self) -> dict[str, Split]:
        """The splits that a run is finally scored on, by name."""
        return self.evaluation | self.test

    @property
    def all(self) -> dict[str, Split]:
        """Every split, by name."""
        return {"train": self.train, **self.scored}
