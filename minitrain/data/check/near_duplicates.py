"""Rows that are nearly equal: by MinHash over pairs of neighbouring words, verified word by word.

Broder 1997, "On the resemblance and containment of documents": the chance that two sets have the same smallest
hash is the share of what they have in common. Rows that agree in one of `BANDS` bands of `ROWS` such hashes are
compared: 996 of 1,000 rows with one word of ten replaced do. All steps are linear in the number of rows: a row is
compared with few of those it may resemble, however many there are.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from minitrain.data.check.corpus import Corpus, Finding
from minitrain.data.check.duplicates import LEAKED, REPEATED
from minitrain.data.check.keys import first_rows
from minitrain.data.check.words import LONGEST, hashed_words, mixed, words_of

SIMILAR = 0.8  # of the words of both together are in both
FEWEST = 5  # words; shorter rows are too often alike by chance
BANDS, ROWS = 14, 3
NEIGHBOURS = 3  # rows of a band that a row is compared with, beside the first
PROMISING = 0.45  # of the hashes agree
LARGE = 50  # rows of a band with the same hashes; what makes so many alike is often a common beginning or end
TRIES, TRIES_IN_LARGE = 3, 2  # comparisons of a row that may fail
MOST_WORDS = 500_000_000  # to compare, in all
CACHED = 1000  # rows whose words are kept: neighbours are compared several times
PIECE = 2_000_000  # characters that are hashed at once


def near_duplicates(corpus: Corpus) -> list[Finding]:
    """Findings of rows that are nearly equal to a row before them."""
    rows, signatures = _signatures(corpus)
    search = _Search(corpus, rows)
    for large in (False, True):
        for ones, others in _candidates(signatures, search.done, large):
            search.add(ones, others, TRIES_IN_LARGE if large else TRIES)
    what = f"more than {SIMILAR:.0%} of their words are in both"
    found = []
    for name, twins, of, effect in (
        ("near_split_overlap", search.across, len(corpus) - len(corpus.train), LEAKED),
        ("near_duplicates", search.within, len(corpus), REPEATED),
    ):
        where = "a training row" if twins is search.across else "an earlier row of their split"
        if twins:
            found.append(
                Finding(
                    name=name,
                    rows=sorted(twins),
                    of=of,
                    what=f"Rows are nearly equal to {where}: {what}.",
                    effect=effect,
                    way_out="Look at some of them; if they are copies, leave them out of one of the two places.",
                    notes={row: f"{share:.0%}" for row, (_, share) in twins.items()},
                    twins={row: twin for row, (twin, _) in twins.items()},
                    at_least=search.words > MOST_WORDS,
                )
            )
    return found


def _signatures(corpus: Corpus) -> tuple[Any, Any]:
    """The rows to compare, and (rows, BANDS * ROWS) uint32 of them: each text once, without short ones."""
    import numpy as np

    keys = corpus.keys
    if corpus.unit == "pair":  # in any order
        both = zip(keys, corpus.swapped_keys, strict=True)
        keys = [None if key is None or other is None else min(key, other) for key, other in both]
    once = [row for row, first in enumerate(first_rows(keys)) if first == row]
    rows, signatures = [], []
    for piece in _pieces(corpus, once):
        texts = [text_of(corpus, row) for row in piece]
        words, counts = hashed_words(texts)
        long_enough = counts >= FEWEST
        rows.append(np.array(piece, np.int64)[long_enough])
        signatures.append(_min_hashes(words, counts)[long_enough])
    width = (0, BANDS * ROWS)
    return np.concatenate([np.zeros(0, np.int64), *rows]), np.concatenate([np.zeros(width, np.uint32), *signatures])


def text_of(corpus: Corpus, row: int) -> str:
    """The text of a row, or both of a pair."""
    return " ".join(column[row][:LONGEST] for column in corpus.texts)


def _pieces(corpus: Corpus, rows: Sequence[int]) -> Iterator[list[int]]:
    piece: list[int] = []
    size = 0
    for row in rows:
        piece.append(row)
        size += 1 + sum(min(len(column[row]), LONGEST) for column in corpus.texts)
        if size > PIECE:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _min_hashes(words: Any, counts: Any) -> Any:
    """(texts, BANDS * ROWS) uint32: the smallest of each hash over the pairs of neighbouring words of a text."""
    import numpy as np

    starts = np.concatenate([[0], np.cumsum(counts + 1)[:-1]])  # of each text among its pairs, one more than words
    padded = np.zeros(len(words) + len(counts) + 1, np.uint64)  # a zero between texts: their start and end
    inside = np.ones(len(padded), bool)
    inside[starts], inside[-1] = False, False
    padded[inside] = words
    pairs = mixed(padded[:-1] * np.uint64(0xD6E8FEB86659FD93) + padded[1:])
    factors = np.random.default_rng(0).integers(0, 2**63, BANDS * ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(
        1
    )
    found = np.empty((len(counts), len(factors)), np.uint32)
    for i, factor in enumerate(factors):
        found[:, i] = np.minimum.reduceat(((pairs * factor) >> np.uint64(32)).astype(np.uint32), starts)
    return found


def _candidates(signatures: Any, done: Any, large: bool) -> Iterator[tuple[Any, Any]]:
    """Places of rows that may be alike, band by band: of each the later and the earlier.

    Args:
        done: Places to skip.
        large: Look where many rows have the same hashes, else where few have.
    """
    import numpy as np

    for band in range(BANDS):
        part = signatures[:, band * ROWS : (band + 1) * ROWS].astype(np.uint64)
        key = np.zeros(len(part), np.uint64)
        for i in range(ROWS):
            key = mixed(key ^ part[:, i])
        order = np.argsort(key, kind="stable")
        key = key[order]
        new = np.concatenate([[True], key[1:] != key[:-1]])
        heads = np.maximum.accumulate(np.where(new, np.arange(len(key)), 0))  # the first of the same key
        sizes = np.bincount(heads, minlength=len(key))[heads]
        for back in range(1, NEIGHBOURS + 2):
            places = np.arange(len(key))
            earlier = heads if back > NEIGHBOURS else places - back
            chosen = (earlier >= heads) & (earlier < places)
            if back > NEIGHBOURS:
                chosen &= places - heads > NEIGHBOURS
            chosen &= ~done[order] & ((sizes > LARGE) == large)
            ones, others = order[places[chosen]], order[earlier[chosen]]
            for start in range(0, len(ones), 100_000):
                one, other = ones[start : start + 100_000], others[start : start + 100_000]
                alike = (signatures[one] == signatures[other]).mean(axis=1) >= PROMISING
                yield one[alike], other[alike]


@dataclass
class _Search:
    """Compares candidates, and keeps the first row found for each."""

    corpus: Corpus
    rows: Any  # by place among the signatures
    across: dict[int, tuple[int, float]] = field(default_factory=dict)
    within: dict[int, tuple[int, float]] = field(default_factory=dict)
    failed: Counter[int] = field(default_factory=Counter)
    words: int = 0

    def __post_init__(self) -> None:
        import numpy as np

        self.done = np.zeros(len(self.rows), bool)
        self.words_of = lru_cache(CACHED)(lambda row: [words_of(column[row]) for column in self.corpus.texts])

    def add(self, ones: Any, others: Any, tries: int) -> None:
        """Compare pairs of places, each row until so many comparisons of it have failed."""
        train, places = self.corpus.train, ones.tolist()
        for place, row, earlier in zip(places, self.rows[ones].tolist(), self.rows[others].tolist(), strict=True):
            crosses = row not in train and earlier in train
            book = self.across if crosses else self.within
            if self.done[place] or row in book or self.failed[row] >= tries or self.words > MOST_WORDS:
                continue
            if not crosses and row not in train and self.corpus.split_of(row) != self.corpus.split_of(earlier):
                continue
            share = self._similarity(row, earlier)
            if share > SIMILAR:
                book[row] = earlier, share
            else:
                self.failed[row] += 1
            self.done[place] = self.failed[row] >= tries or row in (self.within if row in train else self.across)

    def _similarity(self, row: int, other: int) -> float:
        """The share of words that two rows have in common, if it is more than `SIMILAR`.

        For pairs the smaller share of the two texts, in the order that fits better.
        """
        first, second = self.words_of(row), self.words_of(other)
        self.words += sum(map(len, first)) + sum(map(len, second))
        orders = [second] if len(second) == 1 else [second, second[::-1]]
        return max(min(common_share(*pair, SIMILAR) for pair in zip(first, order, strict=True)) for order in orders)


def common_share(one: Sequence[bytes], other: Sequence[bytes], least: float = 0.0) -> float:
    """The words in both, as a share of all: repeated words count as often as they occur.

    least: If the share is no more than that, an upper bound of it is enough, which is far cheaper.

    >>> common_share([b"a", b"b", b"b"], [b"b", b"b", b"c"])
    0.5
    """
    size = len(one) + len(other)
    most = min(len(one) - len(set(one).difference(other)), len(other) - len(set(other).difference(one)))
    if not size or most <= least * (size - most):
        return most / (size - most) if size else 1.0
    common = sum((Counter(one) & Counter(other)).values())
    return common / (size - common)
