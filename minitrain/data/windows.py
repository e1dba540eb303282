"""A long text as overlapping windows, each a whole example with the special tokens.

Windows are cut when a batch is made, from the tokens of the whole text and two numbers: nothing is stored but the
tokens. The model knows nothing of windows; `training/pooling.py` makes a text's logits of theirs.

Source: the overflowing pieces of `Encoding::truncate`, tokenizers 0.23.3, src/tokenizer/encoding.rs, of which
`return_overflowing_tokens=True, stride=` of transformers are made. As there, the stride is the overlap.
"""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain

from minitrain.config.long_texts import MAX_WINDOWS, LongTexts
from minitrain.data.tokenizer.tokenizer import Example, Tokenizer
from minitrain.errors import MinitrainError


@dataclass(frozen=True, kw_only=True)
class Windows:
    """How the tokens of a text are cut into windows.

    Args:
        prefix, suffix: Special tokens before and after a text.
        room: Tokens of a text in a window, beside the special ones.
        stride: Tokens that a window shares with the next, fewer than `room`.
        max_windows: Windows of a text that are read, the first ones.
        pooling: Of the logits of a text's windows: "mean" or "max".
    """

    prefix: int
    suffix: int
    room: int
    stride: int
    max_windows: int
    pooling: str = "mean"

    def all(self, length: int) -> int:
        """Windows of a text of `length` tokens, special ones included, however many are read."""
        beyond = length - self.prefix - self.suffix - self.room
        return 1 if beyond <= 0 else 1 - -beyond // (self.room - self.stride)

    def count(self, length: int) -> int:
        """Windows that are read of a text of `length` tokens, special ones included."""
        return min(self.all(length), self.max_windows)

    def lengths(self, length: int) -> list[int]:
        """Tokens of each window, special ones included.

        >>> Windows(prefix=1, suffix=1, room=6, stride=2, max_windows=9).lengths(14)
        [8, 8, 6]
        """
        special, step = self.prefix + self.suffix, self.room - self.stride
        text = length - special
        return [min(self.room, text - step * number) + special for number in range(self.count(length))]

    def read(self, length: int) -> int:
        """Tokens of a text, without special ones, that some window holds."""
        step = self.room - self.stride
        return min(length - self.prefix - self.suffix, self.room + step * (self.max_windows - 1))

    def cut(self, ids: Sequence[int], number: int) -> list[int]:
        """The ids, or type ids, of a window of a whole text, special tokens included."""
        end, start = len(ids) - self.suffix, self.prefix + number * (self.room - self.stride)
        return [*ids[: self.prefix], *ids[start : min(start + self.room, end)], *ids[end:]]


@dataclass(frozen=True, slots=True)
class Document(Example):
    """A whole text that is longer than a window; `collate` puts its windows into a batch."""

    windows: Windows = field(kw_only=True)

    def examples(self) -> list[Example]:
        """The windows, in order, without the label."""
        cut, numbers = self.windows.cut, range(self.windows.count(len(self.input_ids)))
        return [Example(cut(self.input_ids, number), cut(self.token_type_ids, number)) for number in numbers]


class WindowRows:
    """The windows of all rows of a split as rows of their own, in order, as `predict` reads them.

    Args:
        view: The ids and type ids of a row, whole, without a copy.
        lengths: Tokens of each row.

    Attributes:
        counts: Windows of each row.
        pooling: Of their logits.
        lengths: Tokens of each window.
    """

    def __init__(
        self, view: Callable[[int], Iterable[Sequence[int]]], lengths: Sequence[int], windows: Windows
    ) -> None:
        self._view, self._windows, self.pooling = view, windows, windows.pooling
        self.counts = array("i", map(windows.count, lengths))
        self.lengths = array("i", chain.from_iterable(map(windows.lengths, lengths)))
        self._firsts = array("q", accumulate(self.counts, initial=0))

    def __len__(self) -> int:
        return len(self.lengths)

    def row(self, window: int) -> int:
        """The row of a window."""
        return bisect_right(self._firsts, window) - 1

    def of(self, rows: Sequence[int]) -> list[int]:
        """The windows of these rows."""
        return [window for row in rows for window in range(self._firsts[row], self._firsts[row + 1])]

    def begun(self, windows: Iterable[int]) -> int:
        """How many of these are the first of their row."""
        return sum(self._firsts[self.row(window)] == window for window in windows)

    def __getitem__(self, window: int) -> Example:
        row = self.row(window)
        number, (ids, type_ids) = window - self._firsts[row], self._view(row)
        return Example(self._windows.cut(ids, number), self._windows.cut(type_ids, number))


def windows_of(options: LongTexts, tokenizer: Tokenizer, max_length: int | None, columns: Sequence[str]) -> Windows:
    """The windows of texts of a tokenizer.

    Args:
        max_length: Tokens of a window, special ones included; None for the tokenizer's own limit.
        columns: Of the texts, for the message.

    Raises:
        MinitrainError: The texts are pairs, there is no limit, or the windows would never move on.
    """
    if len(columns) == 2:
        raise MinitrainError(
            f"--long_texts windows cuts single texts, and these are pairs ({columns[0]}, {columns[1]}): pass "
            "--join ' ' to make one text of both, or --long_texts tail or head_tail"
        )
    limit = tokenizer.limit(max_length, pair=False)
    if limit is None:
        raise MinitrainError("--long_texts windows needs the length of a window: pass --max_length")
    prefix, suffix = tokenizer.template()
    room = limit - prefix - suffix
    stride = room // 4 if options.stride is None else options.stride
    if stride >= room:
        raise MinitrainError(
            f"--stride {stride}: a window of {limit} tokens holds {room} of a text beside special ones, and may "
            f"share {room - 1} with the next: lower --stride, or raise --max_length"
        )
    longest = MAX_WINDOWS if options.max_windows is None else options.max_windows
    return Windows(
        prefix=prefix, suffix=suffix, room=room, stride=stride, max_windows=longest, pooling=options.pooling
    )
