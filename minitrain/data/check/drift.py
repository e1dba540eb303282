"""Splits whose labels or lengths are distributed otherwise than those of the training rows.

Labels: the share of rows that would have to change class (total variation), if a chi-squared test says that it is
no chance. Lengths and scores: the largest distance of the cumulative shares (Kolmogorov and Smirnov).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from minitrain.data.check.corpus import Corpus, Finding
from minitrain.data.check.labels import class_counts
from minitrain.data.labels.notes import plain

SHIFTED = 0.1  # of the rows would have to change class
APART = 0.15  # of cumulative shares of lengths or scores
CHANCE = 0.001
Z = 3.0902  # of a normal distribution, exceeded with CHANCE
FEWEST = 20  # rows of a split
EFFECT = "What is measured on that split does not hold for texts as in training, nor the reverse."
WAY = "If that is not on purpose, draw it from the same rows: --train_file ALL.csv --eval_fraction 0.1"


def drift(corpus: Corpus) -> list[Finding]:
    """Findings of splits that differ from the training rows."""
    found: list[Finding] = []
    for name, rows in corpus.others.items():
        for finding, what in (
            ("label_drift", _labels(corpus, name, rows)),
            ("length_drift", _lengths(corpus, name, rows)),
        ):
            if what:
                found.append(Finding(name=finding, rows=rows, of=len(rows), what=what, effect=EFFECT, way_out=WAY))
    return found


def _labels(corpus: Corpus, name: str, rows: range) -> str | None:
    if corpus.has_scores:
        train, other = (
            [corpus.targets[i] for i in part if corpus.targets[i] is not None] for part in (corpus.train, rows)
        )
        gap = distance(train, other)
        if gap is None:
            return None
        means = " and ".join(f"{sum(part) / len(part):.3g}" for part in (train, other))
        return f"The scores of train and {name} have means of {means}, and distributions {gap:.2f} apart."
    counts, here = (class_counts(corpus, part) for part in (corpus.train, rows))
    if min(counts.total(), here.total()) < FEWEST:
        return None
    shares = {i: (counts[i] / counts.total(), here[i] / here.total()) for i in counts | here}
    moved = sum(abs(a - b) for a, b in shares.values()) / 2
    if moved < SHIFTED or not differs(counts, here):
        return None
    most = max(shares, key=lambda i: abs(shares[i][0] - shares[i][1]))
    before, after = shares[most]
    label = plain(corpus.names[most])
    return f"Labels of {name} are distributed otherwise: '{label}' is {after:.1%} there and {before:.1%} in train."


def differs(one: Mapping[int, int], other: Mapping[int, int]) -> bool:
    """Whether two lists of counts differ more than by chance: Pearson's chi-squared, p < 0.001.

    The quantile is that of Wilson and Hilferty 1931, exact to a percent.
    """
    sums = {i: one.get(i, 0) + other.get(i, 0) for i in {*one, *other}}
    total, freedom, statistic = sum(sums.values()), len(sums) - 1, 0.0
    if freedom < 1:
        return False
    for counts in (one, other):
        rows = sum(counts.values())
        statistic += sum(
            (counts.get(i, 0) - both * rows / total) ** 2 / (both * rows / total) for i, both in sums.items()
        )
    quantile: float = freedom * (1 - 2 / (9 * freedom) + Z * math.sqrt(2 / (9 * freedom))) ** 3
    return statistic > quantile


def _lengths(corpus: Corpus, name: str, rows: range) -> str | None:
    lengths = [_characters(corpus, part) for part in (corpus.train, rows)]
    gap = distance(*lengths)
    if gap is None:
        return None
    medians = [sorted(part)[len(part) // 2] for part in lengths]
    return (
        f"Texts of {name} have other lengths: {medians[1]} characters in the median there, {medians[0]} in train; "
        f"the distributions are {gap:.2f} apart."
    )


def _characters(corpus: Corpus, rows: range) -> list[int]:
    parts = [column[rows.start : rows.stop] for column in corpus.texts]
    return [sum(map(len, texts)) for texts in zip(*parts, strict=True)]


def distance(one: Sequence[float], other: Sequence[float]) -> float | None:
    """The largest distance of cumulative shares; None if it is small, or may be chance (p > 0.001)."""
    import numpy as np

    if min(len(one), len(other)) < FEWEST:
        return None
    first, second = np.sort(np.asarray(one, float)), np.sort(np.asarray(other, float))
    values: Any = np.concatenate([first, second])
    shares = [np.searchsorted(part, values, side="right") / len(part) for part in (first, second)]
    gap = float(np.abs(shares[0] - shares[1]).max())
    by_chance = math.sqrt(-math.log(CHANCE / 2) / 2 * (1 / len(one) + 1 / len(other)))
    return gap if gap >= max(APART, by_chance) else None
