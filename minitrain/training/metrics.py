"""Accuracy, F1, Matthews correlation and the regression metrics, accumulated over batches and ranks.

Metrics accumulate counts or scores, merge across ranks, and divide last: a mean of per-batch means would depend on
how the examples were split. Classification needs only the confusion matrix. Regression keeps every score, because
a rank correlation depends on all of them.

Not here: communication between processes.

Source: the glue metric of evaluate 0.4.6 on scikit-learn 1.9 and scipy 1.17, equal to the last digit.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from minitrain.config.options import plain
from minitrain.errors import MinitrainError, shown
from minitrain.training.regression_metrics import REGRESSION_METRICS

_LARGEST = torch.iinfo(torch.int64).max
Values = Tensor | Sequence[int] | Sequence[float]


def class_ids(predictions: Values, labels: Values, num_classes: int | None = None) -> tuple[Tensor, Tensor]:
    """Both as (B,) int64 on the CPU; without `num_classes` any id from 0 is valid."""
    predicted, true = _pair(predictions, labels)
    for name, values in (("predictions", predicted), ("labels", true)):
        if values.is_floating_point() and len(values):
            raise MinitrainError(f"{name} are {values.dtype}; class ids are integers: the argmax of the logits")
        wrong = values < 0 if num_classes is None else (values < 0) | (values >= num_classes)
        if wrong.any():
            index = int(wrong.nonzero()[0])
            limit = "upwards" if num_classes is None else f"to {num_classes - 1}"
            raise MinitrainError(
                f"{name}[{index}] is {values[index]}; class ids go from 0 {limit}. GLUE's test splits hide their "
                "labels as -1: evaluate on the validation split"
            )
    return predicted.long(), true.long()


def scores(predictions: Values, labels: Values) -> list[Tensor]:
    """Both as (B,) float32 on the CPU."""
    return [values.float() for values in _pair(predictions, labels)]


def _pair(predictions: Values, labels: Values) -> tuple[Tensor, Tensor]:
    predicted, true = _vector(predictions, "predictions"), _vector(labels, "labels")
    if predicted.ndim != 1 or predicted.shape != true.shape:
        shapes = f"predictions {tuple(predicted.shape)}, labels {tuple(true.shape)}"
        hint = ": of logits (B, C) take .argmax(-1)" if predicted.ndim == 2 and true.ndim == 1 else ""
        raise MinitrainError(f"got {shapes}; both must be (B,), of one length{hint}")
    return predicted, true


def _vector(values: Any, name: str) -> Tensor:
    tensor: Tensor = (values if isinstance(values, Tensor) else _numbers(values, name)).detach().cpu()
    if tensor.is_complex():
        raise MinitrainError(f"{name} are {tensor.dtype}; expected real numbers")
    return tensor.long() if tensor.dtype == torch.bool or not tensor.dtype.is_signed else tensor


def _numbers(values: Any, name: str) -> Tensor:
    if isinstance(values, str | bytes | Mapping | set | frozenset) or not isinstance(values, Iterable):
        kind = f"{shown(values)} ({type(values).__name__})"
        raise MinitrainError(f"{name} are {kind}; expected (B,) numbers: a tensor, an array, or a list")
    items = values.tolist() if hasattr(values, "tolist") else list(values)
    if not isinstance(items, list):  # a 0-dim array
        return torch.tensor(_number(items, name))
    if items and all(isinstance(item, list | tuple) for item in items):
        return torch.empty(len(items), len(items[0]))  # refused by its shape, whatever it holds
    return torch.tensor([_number(item, f"{name}[{place}]") for place, item in enumerate(items)])


def _number(item: Any, name: str) -> int | float:
    number = plain(item)
    if isinstance(number, Integral) and abs(int(number)) <= _LARGEST:
        return int(number)
    if isinstance(number, Real) and not isinstance(number, Integral):
        return float(number)
    hint = "class ids, the positions of the label names" if isinstance(item, str) else "a number"
    raise MinitrainError(f"{name} is {shown(item)} ({type(item).__name__}); expected {hint}")


GLUE_METRICS: dict[str, tuple[str, ...]] = {
    "cola": ("matthews_correlation",),
    "stsb": ("pearson", "spearmanr"),
    **dict.fromkeys(("mrpc", "qqp"), ("accuracy", "f1")),
    **dict.fromkeys(("sst2", "mnli", "mnli_matched", "mnli_mismatched"), ("accuracy",)),
    **dict.fromkeys(("qnli", "rte", "wnli", "hans"), ("accuracy",)),
}


class Confusion:
    """The confusion matrix, from which every classification metric follows."""

    def __init__(self, num_classes: int) -> None:
        """Start at zero."""
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)  # (C, C), (true, predicted)

    def update(self, predictions: Values, labels: Values) -> None:
        """Count one batch of (B,) class ids, which may be empty.

        Raises MinitrainError for different lengths, or an id that is not a class.
        """
        num_classes = len(self.counts)
        predicted, true = class_ids(predictions, labels, num_classes)
        cells = torch.bincount(true * num_classes + predicted, minlength=num_classes**2)
        self.counts += cells.view(num_classes, num_classes)

    def accuracy(self) -> float:
        """Share of the examples whose class was predicted."""
        return int(self.counts.trace()) / self._total()

    def f1(self, positive: int = 1) -> float:
        """F1 of one class of two, 0.0 if it was never hit; MinitrainError if a third class was seen."""
        if int(self.counts[:2, :2].sum()) < self._total():
            raise MinitrainError("f1 is for classes 0 and 1, but a class above 1 was seen; use macro_f1")
        hits, predicted, true = self._per_class()[positive]
        if predicted + true == 0:
            warnings.warn(f"f1 is 0/0, set to 0.0: class {positive} is never label nor prediction", stacklevel=2)
        return _ratio(2 * hits, predicted + true)

    def macro_f1(self) -> float:
        """Mean F1 of the classes that were seen, as a label or as a prediction."""
        import numpy

        self._total()
        seen = [(hits, both) for hits, predicted, true in self._per_class() if (both := predicted + true)]
        return float(numpy.mean([2 * hits / both for hits, both in seen]))

    def matthews(self) -> float:
        """Correlation of labels and predictions, in [-1, 1]; 0.0 if either is always the same class.

        For more than two classes: Gorodkin 2004, doi 10.1016/j.compbiolchem.2004.09.006.
        """
        total, correct = self._total(), int(self.counts.trace())
        rows = self._per_class()
        covariance = correct * total - sum(predicted * true for _, predicted, true in rows)
        variance_predicted = total**2 - sum(predicted**2 for _, predicted, _ in rows)
        variance_true = total**2 - sum(true**2 for _, _, true in rows)
        variances = variance_predicted * variance_true
        if variances == 0:
            which = "predictions" if variance_predicted == 0 else "labels"
            warnings.warn(
                f"matthews_correlation is 0/0, set to 0.0: all {total} {which} are of one class", stacklevel=2
            )
            return 0.0
        return covariance / math.sqrt(variances)

    def precision_recall_f1(self) -> list[tuple[float, float, float, int]]:
        """Precision, recall, F1 and number of examples of each class; a ratio of 0/0 is 0.0."""
        return [
            (_ratio(hits, predicted), _ratio(hits, true), _ratio(2 * hits, predicted + true), true)
            for hits, predicted, true in self._per_class()
        ]

    def _per_class(self) -> list[tuple[int, int, int]]:
        """Of each class the numbers of hits, predictions and labels."""
        hits, predicted, true = self.counts.diag(), self.counts.sum(dim=0), self.counts.sum(dim=1)
        return list(zip(hits.tolist(), predicted.tolist(), true.tolist(), strict=True))

    def _total(self) -> int:
        return _some(int(self.counts.sum()))


def _some(examples: int) -> int:
    if not examples:
        raise MinitrainError("a metric needs examples, got 0: is the split empty?")
    return examples


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else 0.0


def accuracy(predictions: Values, labels: Values) -> float:
    """Share of equal pairs of (N,) class ids.

    Raises MinitrainError for no examples, different lengths, or a negative id.

    >>> accuracy([1, 0, 1, 1], [1, 0, 0, 1])
    0.75
    """
    predicted, true = class_ids(predictions, labels)
    return int((predicted == true).sum()) / _some(len(true))


def f1(predictions: Values, labels: Values) -> float:
    """F1 of class 1, from (N,) class ids 0 and 1.

    Raises MinitrainError for no examples, different lengths, or any other id.

    >>> f1([1, 0, 1, 1], [1, 0, 0, 1])  # precision 2/3, recall 1
    0.8
    """
    confusion = Confusion(2)
    confusion.update(predictions, labels)
    return confusion.f1()


class Metric:
    """Named metrics over all examples of a split, however they are split into batches and ranks.

    >>> metric = Metric(("accuracy", "macro_f1"), num_classes=3)
    >>> metric.update([0, 1], [0, 1])
    >>> metric.update([2, 2], [2, 0])
    >>> metric.compute()
    {'accuracy': 0.75, 'macro_f1': 0.7777777777777777}
    """

    def __init__(self, names: tuple[str, ...], num_classes: int | None, positive: int = 1) -> None:
        """Start with no examples.

        Args:
            names: For classes accuracy, f1, macro_f1, matthews_correlation; for scores pearson, spearmanr, mse,
                rmse, mae, r2.
            num_classes: None for scores.
            positive: The class that f1 is about.

        Raises:
            MinitrainError: A name is unknown, or of the other kind.
        """
        names = (names,) if isinstance(names, str) else tuple(names)
        known = REGRESSION_METRICS.keys() if num_classes is None else CLASSIFICATION_METRICS.keys()
        if unknown := [name for name in names if name not in known]:
            raise MinitrainError(f"no metric {unknown[0]!r} for this kind of label; there are {', '.join(known)}")
        self.names, self.num_classes, self.positive = names, num_classes, positive
        self.confusion = None if num_classes is None else Confusion(num_classes)
        self.scores: list[Tensor] = []  # (2, B) float32 each: predictions, labels

    def update(self, predictions: Values, labels: Values) -> None:
        """Add one batch of (B,) class ids or (B,) scores, which may be empty."""
        if self.confusion is None:
            self.scores.append(torch.stack(scores(predictions, labels)))
        else:
            self.confusion.update(predictions, labels)

    def merge(self, other: "Metric") -> None:
        """Add another rank's examples after ours: the last digit of Pearson depends on their order."""
        if (self.names, self.num_classes) != (other.names, other.num_classes):
            raise MinitrainError(
                f"cannot merge metrics {other.names} of {other.num_classes} classes into {self.names} of "
                f"{self.num_classes}"
            )
        if self.confusion is not None and other.confusion is not None:
            self.confusion.counts += other.confusion.counts
        self.scores += other.scores

    def compute(self) -> dict[str, float]:
        """The metrics by name, in the order given. Raises MinitrainError if there are no examples."""
        if self.confusion is not None:
            return {name: CLASSIFICATION_METRICS[name](self.confusion, self.positive) for name in self.names}
        predictions, labels = torch.cat([torch.empty(2, 0), *self.scores], dim=1)
        _some(len(labels))
        return {name: REGRESSION_METRICS[name](predictions, labels) for name in self.names}


CLASSIFICATION_METRICS: dict[str, Callable[[Confusion, int], float]] = {
    "accuracy": lambda confusion, _: confusion.accuracy(),
    "f1": Confusion.f1,
    "macro_f1": lambda confusion, _: confusion.macro_f1(),
    "matthews_correlation": lambda confusion, _: confusion.matthews(),
}


class GlueMetric(Metric):
    """The metrics that GLUE reports for a task.

    >>> metric = GlueMetric("mrpc")
    >>> metric.update([1, 0, 1, 1], [1, 0, 0, 1])
    >>> metric.compute()
    {'accuracy': 0.75, 'f1': 0.8}
    """

    def __init__(self, task: str) -> None:
        """Start with no examples. Raises MinitrainError unless `task` is in `GLUE_METRICS`."""
        if not isinstance(task, str) or task not in GLUE_METRICS:
            raise MinitrainError(
                f"no GLUE task {task!r}; there are {', '.join(GLUE_METRICS)}. For other data: "
                "Metric(('accuracy', 'macro_f1'), num_classes=3), or Metric(('pearson',), None) for scores"
            )
        # hans has two classes, but evaluates models of mnli.
        num_classes = 3 if task == "hans" or task.startswith("mnli") else 2
        super().__init__(GLUE_METRICS[task], None if task == "stsb" else num_classes)


def metric_for(task: str | None, num_classes: int | None, positive: int = 1) -> Metric:
    """The metrics of a GLUE task, or without one those that suit 2 classes, more classes, or scores (None)."""
    of_classes = ("accuracy", "f1" if num_classes == 2 else "macro_f1")
    names = tuple(REGRESSION_METRICS) if num_classes is None else of_classes
    return Metric(GLUE_METRICS[task] if task else names, num_classes, positive)
