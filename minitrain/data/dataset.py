"""Tokenized splits: examples by row, with numbered labels, and all the splits of a run.

Tokens are kept end to end: 5 bytes per token, no Python object per example. torch is imported only when a split is
asked for its labels as a tensor.
"""

import copy
import operator
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex, overload

from minitrain.data.labels.ids import Labels
from minitrain.data.tables.table import Table
from minitrain.data.targets import TargetScale, scale_of
from minitrain.data.tokenizer.tokenizer import Example
from minitrain.data.windows import Document, WindowRows, Windows
from minitrain.errors import MinitrainError, shown
from minitrain.storage.token_cache import Tokens

if TYPE_CHECKING:
    from torch import Tensor


class Kept(Protocol):
    """Hidden states by row, and what computes logits from them."""

    model: Any

    def attach(self, batch: Any, rows: Sequence[int]) -> Any:
        """Give a batch the hidden states of its rows."""


class Split:
    """The tokenized examples of one split: `split[3]` is an Example, `split[:8]` a list, `len(split)` the rows.

    Args:
        tokens: Of all rows, end to end.
        labels: int64 classes or float32 scores, as arrays of type q and f.
        label_width: C, if a row has several labels: `labels` are then (rows, C) float32, 0 or 1, end to end.
        pad_token_id, padding_side: How its tokenizer pads.
        special: Tokens that the template adds to each row.
        windows: How rows longer than a window are read; None if they were cut to the maximal length.

    Attributes:
        lengths: Tokens of each row.
        truncated, blank: Rows of which only a part is read, and rows with a blank text.
        removed: Tokens of texts that are not read.
        unknown, text_tokens: Unknown tokens, and all tokens without those of the template.
        scale: Undoes the standardization of the labels; None if they are not standardized.
        kept: The output of frozen layers for each row (`training/kept_activations.py`); None if it is not kept.
    """

    def __init__(
        self,
        tokens: Tokens,
        labels: "array[int] | array[float] | None",
        *,
        label_width: int | None = None,
        pad_token_id: int = 0,
        padding_side: str = "right",
        special: int = 0,
        windows: Windows | None = None,
    ) -> None:
        self._tokens, self._labels, self.windows, self._label_width = tokens, labels, windows, label_width
        self._whole = True
        self.scale: TargetScale | None = None
        self.kept: Kept | None = None
        self.pad_token_id, self.padding_side = pad_token_id, padding_side
        self.lengths: list[int] = tokens.lengths.tolist()
        self._ends = array("q", accumulate(self.lengths))
        self.truncated, self.blank, self.unknown = tokens.truncated, tokens.blank, tokens.unknown
        self.removed, self.special = tokens.removed, special
        if windows is not None:
            left_out = [length - special - windows.read(length) for length in self.lengths]
            self.truncated, self.removed = sum(map(bool, left_out)), sum(left_out)
        self.text_tokens = sum(self.lengths) - special * len(self.lengths)

    @property
    def labels(self) -> "Tensor | None":
        """(rows,) int64 classes or float32 scores, or (rows, C) float32 of several labels a row."""
        import torch

        if self._labels is None:
            return None
        flat = torch.frombuffer(self._labels, dtype=torch.int64 if self._labels.typecode == "q" else torch.float32)
        return flat if self._label_width is None else flat.view(-1, self._label_width)

    @cached_property
    def highest_type_id(self) -> int:
        """A model must have more embeddings of token types than that."""
        import numpy

        return int(numpy.frombuffer(self._tokens.type_ids, numpy.uint8).max(initial=0))

    def different_ids(self, tokens: int) -> int:
        """How many different token ids the first tokens have."""
        import numpy

        return len(numpy.unique(numpy.frombuffer(self._tokens.input_ids, numpy.int32)[:tokens]))

    def __len__(self) -> int:
        return len(self.lengths)

    def checksum(self) -> str:
        """Differs between splits with different tokens or labels (CRC-32)."""
        total = zlib.crc32(array("i", self.lengths))
        for tokens in (self._tokens.input_ids, self._tokens.type_ids):
            for part in [slice(None)] if self._whole else map(self._part, range(len(self))):
                total = zlib.crc32(tokens[part], total)
        if self._labels is not None:
            total = zlib.crc32(self._labels, total)
        return f"{total:08x}, {len(self)} rows"

    def subset(self, rows: Sequence[int]) -> "Split":
        """These rows, without a copy of the tokens.

        Nothing records which rows were cut or unknown: `truncated`, `blank`, `unknown` are shares of the whole's.
        """
        split = copy.copy(self)
        for name, value in vars(Split).items():
            if isinstance(value, cached_property):
                split.__dict__.pop(name, None)
        split._whole, split.lengths = False, [self.lengths[row] for row in rows]
        split._ends = array("q", (self._ends[row] for row in rows))
        if self._labels is not None:
            width = len(self._labels) // max(1, len(self))  # of a row
            parts = (self._labels[row * width : (row + 1) * width] for row in rows)
            split._labels = array(self._labels.typecode, chain.from_iterable(parts))
        for name in ("truncated", "blank", "removed", "unknown", "text_tokens"):
            setattr(split, name, round(getattr(self, name) * len(rows) / max(1, len(self))))
        return split

    def target_scale(self) -> TargetScale:
        """Mean and standard deviation of the scores. Raises MinitrainError if all scores are equal."""
        assert self._labels is not None
        if (scale := scale_of(self._labels)) is None:
            raise MinitrainError(
                f"every label of the {len(self)} training rows is {self._labels[0]}; give scores that differ "
                "(--label_column names their column), or pass --standardize_targets false"
            )
        return scale

    def standardized(self, scale: TargetScale) -> "Split":
        """The same rows with standard scores as labels."""
        assert self._labels is not None
        split = copy.copy(self)
        split._labels, split.scale = scale.standardize(self._labels), scale
        return split

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
        part = self._part(row)
        label: Any = None if self._labels is None else self._labels[row]
        if self._label_width is not None:
            label = self._several_labels(row, self._label_width)
        ids, type_ids = self._tokens.input_ids[part].tolist(), self._tokens.type_ids[part].tolist()
        if self.windows is not None and self.windows.all(len(ids)) > 1:
            return Document(ids, type_ids, label, windows=self.windows)
        return Example(ids, type_ids, label)

    @cached_property
    def window_rows(self) -> WindowRows | None:
        """The windows of all rows as rows of their own; None if no row is cut into windows."""
        if self.windows is None:
            return None
        return WindowRows(self._views, self.lengths, self.windows)

    def names_and_lengths(self, rows: Sequence[int]) -> tuple[list[int | str], list[int]]:
        """Of each example or window of these rows: a name, by which its dropout is drawn, and its tokens."""
        if self.windows is None:
            return list(rows), [self.lengths[row] for row in rows]
        lengths = [self.windows.lengths(self.lengths[row]) for row in rows]
        names: list[int | str] = []
        for row, windows in zip(rows, lengths, strict=True):
            names += [row, *(f"{row}.{number}" for number in range(1, len(windows)))]
        return names, list(chain.from_iterable(lengths))

    def _views(self, row: int) -> list[memoryview]:
        part = self._part(row)
        return [self._tokens.input_ids[part], self._tokens.type_ids[part]]

    def _part(self, row: int) -> slice:
        """The place of a row's tokens."""
        return slice(self._ends[row] - self.lengths[row], self._ends[row])

    def _several_labels(self, row: int, width: int) -> list[float]:
        assert self._labels is not None
        return list(self._labels[row * width : (row + 1) * width])


@dataclass(frozen=True, kw_only=True)
class SplitsInfo:
    """What is known of the splits of a run, as text (`TextSplits`) and tokenized (`Splits`)."""

    labels: Labels
    text_columns: tuple[str, ...]
    label_column: str
    task: str | None = None  # of GLUE
    notes: list[str] = field(default_factory=list)  # decisions that the user did not ask for
    commit: str | None = None  # of the dataset's repository on the Hub
    held_out: str | None = None  # checksum of the rows that --eval_fraction held back
    join: str | None = None  # put between the text columns to make one text of them


@dataclass(frozen=True, kw_only=True)
class Splits(SplitsInfo):
    """The splits a run trains on, chooses its best weights by, and is finally scored on.

    evaluation has one entry, or two for MNLI. test has only splits whose labels are known. texts has the text and
    label columns of the scored splits.
    """

    train: Split
    evaluation: dict[str, Split]
    test: dict[str, Split]
    texts: dict[str, Table] = field(default_factory=dict)

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
