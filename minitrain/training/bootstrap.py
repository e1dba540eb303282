"""The paired bootstrap (Efron 1979): how much a metric, and the difference of two models', moves with the rows.

A resample draws as many rows as there are, with replacement, and computes the metrics of every model on the same
drawn rows. The spread over many resamples stands for the spread over other test sets of this size.

The metrics are those of `metrics.py`, by its own code. Source: scipy 1.17 `scipy.stats.bootstrap(paired=True,
method="percentile")`, whose resamples these are for the same seed.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from minitrain.training.metrics import Metric

LEVEL = 0.95
MOST, FEWEST = 10_000, 1_000  # resamples
COUNTED, SORTED = 200_000_000, 20_000_000  # values that all resamples hold at most, seconds of work


class ScoredRows:
    """What one model predicts for N rows, and their labels, so that metrics of drawn rows are quick to compute."""

    def __init__(
        self,
        metric: Callable[[], Metric],
        predictions: Tensor,
        labels: Tensor,
        probabilities: Tensor | None = None,
    ) -> None:
        """Prepare the rows.

        Args:
            metric: Makes the metrics to compute, without examples.
            predictions, labels: (N,) int64 class ids, (N,) float32 scores, or (N, C) bool of several labels.
            probabilities: (N, C) float64; metrics that rank need them.
        """
        self.metric, self.labels, self.ranked = metric, labels, None
        whole = metric()
        if whole.label_counts is not None:
            whole.label_counts.update(predictions, labels)
            # (N, 3 C), so that the sum over drawn rows is one product
            self.per_label = torch.stack([predictions & labels, predictions, labels], dim=-1).flatten(1).double()
            self.per_row = whole.label_counts.per_row[0]
            self.ranked = probabilities
        elif whole.confusion is not None:
            whole.confusion.update(predictions, labels)  # checks the ids
            cells = labels * len(whole.confusion.counts) + predictions
            self.cells = cells.byte() if whole.confusion.counts.numel() <= 256 else cells.int()  # fits the cache
            # Metrics that rank take a softmax of logits, which undoes this logarithm.
            self.ranked = None if probabilities is None else probabilities.log()
        else:
            self.scores = torch.stack([predictions, labels])

    def metrics(self, drawn: Tensor | None = None) -> dict[str, float]:
        """The metrics by name of the rows at the places `drawn`, which may repeat; by default of all rows."""
        drawn = torch.arange(len(self.labels)) if drawn is None else drawn
        metric = self.metric()
        if metric.label_counts is not None:
            times = torch.bincount(drawn, minlength=len(self.labels)).double()
            metric.label_counts.per_label = (times @ self.per_label).long().view(-1, 3)
            metric.label_counts.per_row = [self.per_row[drawn]]
        elif metric.confusion is not None:
            counts = metric.confusion.counts
            metric.confusion.counts = torch.bincount(
                self.cells.index_select(0, drawn), minlength=counts.numel()
            ).view_as(counts)
        else:
            metric.scores = [self.scores[:, drawn]]
        if self.ranked is not None:
            metric.logits = [(self.ranked[drawn], self.labels[drawn])]
        return metric.compute()


def enough_resamples(rows: int, columns: int, counts: bool) -> int:
    """How many resamples to draw: `MOST`, or fewer of many rows, which need fewer for an interval as good.

    Args:
        columns: Values of a row that a metric reads.
        counts: Whether the metrics count rows, and sort none.

    >>> enough_resamples(408, 1, True), enough_resamples(100_000, 1, True), enough_resamples(100_000, 1, False)
    (10000, 2000, 1000)
    """
    return max(FEWEST, min(MOST, (COUNTED if counts else SORTED) // max(1, rows * columns)))


def resampled(
    models: Sequence[ScoredRows],
    rows: int,
    resamples: int,
    seed: int,
    on_resample: Callable[[int], object] = lambda count: None,
) -> Any:
    """The metrics of each model on the same resamples of the rows.

    Returns:
        An array (resamples, models, metrics), float64; NaN where a metric has no value, as without rows of a class.
    """
    import numpy

    rng, values = numpy.random.default_rng(seed), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about resamples without some class
        for _ in range(resamples):
            drawn = torch.from_numpy(rng.integers(0, rows, rows))
            values.append([list(model.metrics(drawn).values()) for model in models])
            on_resample(1)
    return numpy.array(values)


class Spread(NamedTuple):
    """What resamples say of a metric or a difference."""

    low: float  # the 95% percentile interval
    high: float
    p_value: float  # two-sided, of no difference
    resamples: int  # in which it has a value


def spread(values: Any) -> Spread | None:
    """The spread of resampled values (resamples,); None if more than one in twenty has no value.

    The p-value is the level at which the percentile interval would begin to hold zero; one resample counts as
    beyond zero by default, so that it is never 0 (Davison and Hinkley 1997, section 4.4).

    >>> import numpy
    >>> found = spread(numpy.arange(-2.0, 99.0))
    >>> print(f"{found.low:.1f} to {found.high:.1f}, p = {found.p_value:.3f}")
    0.5 to 95.5, p = 0.078
    """
    import numpy

    known = values[numpy.isfinite(values)]
    if len(known) < LEVEL * len(values):
        return None
    low, high = numpy.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    beyond = min(int((known <= 0).sum()), int((known >= 0).sum()))
    p_value = min(1.0, 2 * (beyond + 1) / (len(known) + 1))
    return Spread(float(low), float(high), p_value, len(known)) if math.isfinite(low) else None
