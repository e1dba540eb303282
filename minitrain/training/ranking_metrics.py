"""ROC-AUC and average precision: how well scores rank the rows of a class before the others.

Both depend on the order of the scores and their ties alone, so not on the order of the rows.

Source: `metrics/_ranking.py` of scikit-learn 1.9, operation by operation, equal to the last digit.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor

Column = Callable[[Tensor, Tensor, str], float]


def roc_auc(scores: Tensor, labels: Tensor, name: str = "the positive class") -> float:
    """Area under the ROC curve: the share of pairs of a positive and a negative row that are in order.

    Args:
        scores: (N,), N >= 1, finite.
        labels: (N,) bool, whether a row is of the class.
        name: Of the class, for the warning.

    Returns:
        In [0, 1]; NaN, with a warning, if all labels are alike.

    >>> import torch
    >>> roc_auc(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([False, False, True, True]))
    0.75
    """
    import numpy

    if labels.all() or not labels.any():
        which = "every row is" if labels.all() else "no row is"
        warnings.warn(f"roc_auc is NaN: {which} of {name}", stacklevel=2)
        return math.nan
    hits, false_alarms = _hits_and_false_alarms(scores, labels)
    if len(hits) > 2:  # a point on the line between its neighbours adds no area, but rounds
        corner = numpy.logical_or(numpy.diff(false_alarms, 2), numpy.diff(hits, 2))
        kept = numpy.concatenate([[True], corner, [True]])
        hits, false_alarms = hits[kept], false_alarms[kept]
    y = numpy.concatenate([[0.0], hits]) / hits[-1]
    x = numpy.concatenate([[0.0], false_alarms]) / false_alarms[-1]
    return float((numpy.diff(x) * (y[1:] + y[:-1]) / 2.0).sum())


def average_precision(scores: Tensor, labels: Tensor, name: str = "the positive class") -> float:
    """Mean of the precision at each distinct score, weighted by the gain in recall; as `roc_auc` otherwise.

    Returns:
        In [0, 1]; 0.0, with a warning, if no label is positive.

    >>> import torch
    >>> average_precision(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([False, False, True, True]))
    0.8333333333333333
    """
    import numpy

    if not labels.any():
        warnings.warn(f"average_precision is set to 0.0: no row is of {name}", stacklevel=2)
        return 0.0
    hits, false_alarms = _hits_and_false_alarms(scores, labels)
    precision = (hits / (hits + false_alarms))[::-1]
    recall = numpy.concatenate([(hits / hits[-1])[::-1], [0.0]])
    return float(max(0.0, -numpy.sum(numpy.diff(recall) * precision)))


def _hits_and_false_alarms(scores: Tensor, labels: Tensor) -> tuple[Any, Any]:
    """Of the rows with at least each distinct score, highest first, how many are positive and how many not."""
    import numpy

    values = scores.numpy()
    order = numpy.argsort(values)[::-1]
    values, true = values[order], labels.numpy()[order]
    last = numpy.append(numpy.nonzero(numpy.diff(values))[0], len(values) - 1)  # of each tie
    hits = numpy.cumsum(true, dtype=numpy.float64)[last]
    return hits, 1 + last - hits


def over_columns(
    column: Column, scores: Tensor, labels: Tensor, weighted: bool = False, kind: str = "class"
) -> float:
    """Mean of a ranking metric over columns, each against the rest.

    Args:
        scores: (N, C).
        labels: (N, C) bool.
        weighted: By the positive labels of each column; one without any is left out.
    """
    import numpy

    counts = labels.sum(dim=0)
    columns = range(scores.size(1))
    left_out = [weighted and not counts[c] for c in columns]
    values = [
        0.0 if left_out[c] else column(scores[:, c].contiguous(), labels[:, c], f"{kind} {c}") for c in columns
    ]
    if weighted:
        return float(numpy.average(values, weights=counts.numpy())) if counts.sum() else 0.0
    return float(numpy.average(values))


def _of_classes(column: Column, weighted: bool = False) -> Callable[[Tensor, Tensor, int], float]:
    def value(logits: Tensor, labels: Tensor, positive: int) -> float:
        probabilities = logits.double().softmax(-1)  # as in predictions.jsonl
        one_hot = labels[:, None] == labels.new_tensor(range(logits.size(1)))
        if logits.size(1) == 2:
            return column(probabilities[:, positive].contiguous(), one_hot[:, positive], f"class {positive}")
        return over_columns(column, probabilities, one_hot, weighted)

    return value


# From (N, C) float32 logits, (N,) int64 class ids and the positive class of two.
RANKING_METRICS: dict[str, Callable[[Tensor, Tensor, int], float]] = {
    "roc_auc": _of_classes(roc_auc),
    "weighted_roc_auc": _of_classes(roc_auc, weighted=True),
    "average_precision": _of_classes(average_precision),
    "weighted_average_precision": _of_classes(average_precision, weighted=True),
}
