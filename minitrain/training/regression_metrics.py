"""Correlations and errors of (N,) float32 predictions and labels, N >= 1.

Equal to scipy 1.17 and scikit-learn 1.9 to the last digit, which depends on the order of a sum: so they use numpy
(it comes with `datasets`), and add columns of width 1 as scikit-learn does.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def pearson(predictions: Tensor, labels: Tensor) -> float:
    """Pearson correlation in [-1, 1], operation by operation as `scipy.stats.pearsonr` in float32.

    NaN for one example, and, with a warning, if predictions or labels do not vary.
    """
    import numpy

    if len(labels) == 1 or _is_constant("pearson", predictions, labels):
        return math.nan
    x, y = predictions.numpy(), labels.numpy()
    with numpy.errstate(invalid="ignore", divide="ignore", over="ignore"):
        xm, ym = x - x.mean(), y - y.mean()
        # Dividing by the largest first keeps the squares within float32.
        xmax, ymax = abs(xm).max(), abs(ym).max()
        norm_x = xmax * numpy.linalg.norm(xm / xmax, ord=2, axis=-1)
        norm_y = ymax * numpy.linalg.norm(ym / ymax, ord=2, axis=-1)
        r = float(numpy.dot(xm / norm_x, ym / norm_y).clip(-1.0, 1.0))
    return r if len(x) > 2 or math.isnan(r) else float(round(r))


def spearman(predictions: Tensor, labels: Tensor) -> float:
    """Pearson correlation of the ranks, in float64, as `scipy.stats.spearmanr`; NaN also for NaN scores."""
    import numpy

    x, y = predictions, labels
    if len(y) == 1 or bool(x.isnan().any() | y.isnan().any()) or _is_constant("spearmanr", x, y):
        return math.nan
    return float(numpy.corrcoef(_ranks(x).numpy(), _ranks(y).numpy())[1, 0])


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 1, float64, ties sharing their mean rank: [10., 30., 10., 20.] -> [1.5, 4., 1.5, 3.]."""
    _, inverse, counts = torch.unique(values, sorted=True, return_inverse=True, return_counts=True)
    return (counts.cumsum(dim=0) - (counts.double() - 1) / 2)[inverse]  # a tie's last rank, less half its width


def _is_constant(metric: str, predictions: Tensor, labels: Tensor) -> bool:
    for name, values in (("predictions", predictions), ("labels", labels)):
        if (values == values[0]).all():
            warnings.warn(f"{metric} is NaN: all {len(values)} {name} are {values[0]}", stacklevel=3)
            return True
    return False


def mean_squared_error(predictions: Tensor, labels: Tensor) -> float:
    """Mean squared difference."""
    return float(_mean((labels - predictions).square()))


def root_mean_squared_error(predictions: Tensor, labels: Tensor) -> float:
    """Root of the mean squared difference."""
    import numpy

    return float(numpy.sqrt(_mean((labels - predictions).square())))  # ** 0.5 of a float32 rounds otherwise


def mean_absolute_error(predictions: Tensor, labels: Tensor) -> float:
    """Mean absolute difference."""
    return float(_mean((predictions - labels).abs()))


def _mean(values: Tensor) -> Any:
    import numpy

    return numpy.average(values.numpy()[:, None], axis=0)[0]  # float32


def r2(predictions: Tensor, labels: Tensor) -> float:
    """Share of the labels' variance that the predictions explain; negative if their mean explains more.

    If the labels are all equal: 1.0 for perfect predictions, else 0.0. NaN for one example.
    """
    import numpy

    if len(labels) < 2:
        return math.nan
    y, x = labels.numpy()[:, None], predictions.numpy()[:, None]
    with numpy.errstate(over="ignore", invalid="ignore"):  # squares of scores beyond 1e19 are infinite
        residual = numpy.sum((y - x) ** 2, axis=0)[0]
        variance = numpy.sum((y - numpy.average(y, axis=0)) ** 2, axis=0)[0]
        if residual == 0 or variance == 0:
            return 1.0 if residual == 0 else 0.0
        return float(1 - residual / variance)


REGRESSION_METRICS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "pearson": pearson,
    "spearmanr": spearman,
    "mse": mean_squared_error,
    "rmse": root_mean_squared_error,
    "mae": mean_absolute_error,
    "r2": r2,
}
