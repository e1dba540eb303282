"""Could chance alone make one model look better than another? Tests for two models on the same data.

McNemar's test compares who is right in which row; the paired t-test compares the metrics of several runs (seeds or
folds). Any other metric of rows is compared by resampling, in `bootstrap.py`. A p-value is the probability of a
difference at least as large if both models were equally good.

Equal to statsmodels 0.15 and scipy 1.17, neither of which is needed to run.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

FEW = 25  # rows in which one model alone is right; with fewer the exact test, as statsmodels advises


class PValue(NamedTuple):
    """A two-sided p-value in [0, 1], and the name of the test that it is of."""

    p_value: float
    test: str


def mcnemar(only_first: int, only_second: int) -> PValue:
    """McNemar's test (1947): rows that both models get right, or both wrong, say nothing about which is better.

    If the models were equally good, each row that one alone gets right would be a fair coin's toss between them.
    The exact test sums the coin's probabilities; from `FEW` rows on chi-square, with continuity correction
    (Edwards 1948), is close enough.

    Args:
        only_first, only_second: Rows that the first model gets right and the second wrong, and the other way round.

    >>> mcnemar(1, 5)
    PValue(p_value=0.21875, test='McNemar, exact')
    """
    tosses = only_first + only_second
    if tosses < FEW:
        tail = sum(math.comb(tosses, heads) for heads in range(min(only_first, only_second) + 1)) / 2**tosses
        return PValue(min(1.0, 2 * tail), "McNemar, exact")
    # An equal number of rows is no difference at all: the correction must not make one of it.
    chi_square = max(0, abs(only_first - only_second) - 1) ** 2 / tosses
    return PValue(math.erfc(math.sqrt(chi_square / 2)), "McNemar, chi-square")


def paired_t(differences: Sequence[float], folds: int | None = None) -> PValue | None:
    """Whether the mean of the differences of paired runs, one a seed or fold, is other than zero.

    Folds train on mostly the same rows, so that their differences vary less than those of new data would: the
    variance of the mean is larger by the share of test to training rows, 1 / (folds - 1) (Nadeau and Bengio 2003,
    doi 10.1023/A:1024068626366).

    Args:
        differences: (runs,), of the same metric.
        folds: Parts into which the rows were divided; None if the runs differ by seed alone.

    Returns:
        None for a single pair, and if all differences are the same, which leaves nothing to judge them by.

    >>> found = paired_t([0.01, 0.03, 0.02])
    >>> print(f"{found.test}: {found.p_value:.4f}")
    paired t, 2 degrees of freedom: 0.0742
    """
    count = len(differences)
    if count < 2 or len(set(differences)) == 1:
        return None
    mean = math.fsum(differences) / count
    variance = math.fsum((value - mean) ** 2 for value in differences) / (count - 1)
    overlap = 0.0 if folds is None else 1 / (folds - 1)
    t = mean / math.sqrt(variance * (1 / count + overlap))
    corrected = "" if folds is None else " corrected for folds"
    return PValue(student_t(t, count - 1), f"paired t{corrected}, {count - 1} degrees of freedom")


def student_t(t: float, degrees: int) -> float:
    """The probability of a value at least as far from zero under Student's t distribution.

    Source: Abramowitz and Stegun 26.7.3 and 26.7.4, finite sums for a whole number of degrees of freedom.

    >>> student_t(1.0, 1)
    0.5
    """
    angle = math.atan(abs(t) / math.sqrt(degrees))
    cosine, odd = math.cos(angle), degrees % 2
    term = cosine if odd else 1.0
    terms = [] if degrees == 1 else [term]
    for power in range(2 + odd, degrees - 1, 2):
        term *= (power - 1) / power * cosine**2
        terms.append(term)
    within = math.sin(angle) * math.fsum(terms)
    return max(0.0, 1 - (2 / math.pi * (angle + within) if odd else within))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, each raised so that a false alarm in any of them is as rare as in one (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted
