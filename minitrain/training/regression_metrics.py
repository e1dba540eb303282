"""How far scores are off, in units of the labels, and how much of their variance is explained.

Equal to scikit-learn 1.9 on float32 to the last digit, so the sums are numpy's (it comes with `datasets`):
columns of width 1, as scikit-learn has them, add up in another order than vectors.
"""

import math

from torch import Tensor


def root_mean_squared_error(predictions: Tensor, labels: Tensor) -> float:
    """Root of the mean squared difference of (N,) float32 scores."""
    import numpy

    return float(numpy.sqrt(numpy.average((labels - predictions).square().numpy()[:, None], axis=0))[0])


def mean_absolute_error(predictions: Tensor, labels: Tensor) -> float:
    """Mean absolute difference of (N,) float32 scores."""
    import numpy

    return float(numpy.average((predictions - labels).abs().numpy()[:, None], axis=0)[0])


def r2(predictions: Tensor, labels: Tensor) -> float:
    """Share of the labels' variance that (N,) float32 predictions explain; negative where their mean explains more.

    1.0 for perfect predictions and 0.0 for others of labels that do not differ; NaN for fewer than two.
    """
    import numpy

    if len(labels) < 2:
        return math.nan
    y, x = labels.numpy()[:, None], predictions.numpy()[:, None]
    with numpy.errstate(over="ignore"):  # of scores beyond 1e19, whose squares are infinite
        missed = numpy.sum((y - x) ** 2, axis=0)[0]
        variance = numpy.sum((y - numpy.average(y, axis=0)) ** 2, axis=0)[0]
    if missed == 0 or variance == 0:
        return 1.0 if missed == 0 else 0.0
    with numpy.errstate(invalid="ignore"):
        return float(1 - missed / variance)
