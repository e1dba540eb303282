"""Accuracy, F1, Matthews, Pearson and Spearman, and which of them a GLUE task reports.

Metrics gather sums and counts, merge across ranks, and divide last: a mean of per-batch means would depend
on how the examples were cut up. Classification needs only the confusion matrix. Regression keeps every
score, because a rank, and with it Spearman, depends on all the others.

What this file does not do: it moves nothing between processes.

Source: the glue metric of evaluate 0.4.6 on scikit-learn 1.9 and scipy 1.17, equal to them to the last digit.
That digit depends on the order of a sum: four functions take numpy's (it comes with `datasets`).
"""

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from minitrain.errors import MinitrainError
from minitrain.training.regression_metrics import mean_absolute_error, r2, root_mean_squared_error
from minitrain.training.values import Values, class_ids, scores

GLUE_METRICS: dict[str, tuple[str, ...]] = {
    "cola": ("matthews_correlation",),
    "sst2": ("accuracy",),
    "mrpc": ("accuracy", "f1"),
    "qqp": ("accuracy", "f1"),
    "stsb": ("pearson", "spearmanr"),
    "mnli": ("accuracy",),
    "mnli_matched": ("accuracy",),
    "mnli_mismatched": ("accuracy",),
    "qnli": ("accuracy",),
    "rte": ("accuracy",),
    "wnli": ("accuracy",),
    "hans": ("accuracy",),
}


class Confusion:
    """How often each true class was predicted as each class; every classification metric follows from it."""

    def __init__(self, num_classes: int) -> None:
        """Start at zero for class ids 0 to num_classes - 1."""
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)  # (true, predicted)

    def update(self, predictions: Values, labels: Values) -> None:
        """Count one batch of (B,) int64 class ids, which may be empty.

        Raises MinitrainError for two lengths, or an id that is no class (GLUE's hidden test labels are -1).
        """
        num_classes = len(self.counts)
        predicted, true = class_ids(predictions, labels, num_classes)
        cells = torch.bincount(true * num_classes + predicted, minlength=num_classes**2)
        self.counts += cells.view(num_classes, num_classes)

    def merge(self, other: "Confusion") -> None:
        """Add the counts of another share of the same examples."""
        if self.counts.shape != other.counts.shape:
            raise MinitrainError(f"cannot merge counts of {len(other.counts)} classes into {len(self.counts)}")
        self.counts += other.counts

    def accuracy(self) -> float:
        """Share of the examples whose class was predicted."""
        return int(self.counts.trace()) / self._total()

    def f1(self, positive: int = 1) -> float:
        """F1 of class `positive` of two, 0.0 if it was never hit; MinitrainError if a third class was seen."""
        if int(self.counts[:2, :2].sum()) < self._total():
            raise MinitrainError("f1 is for classes 0 and 1, but a class above 1 was seen; use macro_f1")
        hits, predicted, true = self._per_class()[positive]
        if predicted + true == 0:
            warnings.warn(f"f1 is 0/0, set to 0.0: class {positive} is never label nor prediction", stacklevel=2)
        return _ratio(2 * hits, predicted + true)

    def macro_f1(self) -> float:
        """Mean of the F1 of all classes that were seen, as a label or as a prediction."""
        import numpy

        self._total()
        seen = [(hits, both) for hits, predicted, true in self._per_class() if (both := predicted + true)]
        return float(numpy.mean([2 * hits / both for hits, both in seen]))

    def matthews(self) -> float:
        """Correlation of label and prediction, in [-1, 1]; 0.0 if either is always the same class.

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
        """Of each class: how many were predicted and true, predicted, true."""
        hits, predicted, true = self.counts.diag(), self.counts.sum(dim=0), self.counts.sum(dim=1)
        return list(zip(hits.tolist(), predicted.tolist(), true.tolist(), strict=True))

    def _total(self) -> int:
        return _at_least(1, int(self.counts.sum()))


def _at_least(needed: int, examples: int) -> int:
    if examples < needed:
        raise MinitrainError(f"this metric needs at least {needed} examples, got {examples}: is the split empty?")
    return examples


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else 0.0


def accuracy(predictions: Values, labels: Values) -> float:
    """Share of equal pairs of (N,) class ids; MinitrainError for none, two lengths or a negative id."""
    predicted, true = class_ids(predictions, labels)
    return int((predicted == true).sum()) / _at_least(1, len(true))


def f1(predictions: Values, labels: Values) -> float:
    """F1 of class 1, from (N,) class ids 0 and 1; MinitrainError for any other id, none or two lengths."""
    confusion = Confusion(2)
    confusion.update(predictions, labels)
    return confusion.f1()


def matthews_correlation(predictions: Values, labels: Values) -> float:
    """Matthews correlation of (N,) class ids; MinitrainError for none, two lengths or a negative id."""
    both = torch.stack(class_ids(predictions, labels))
    classes, both = both.unique(return_inverse=True)  # only the classes that occur get a row
    confusion = Confusion(len(classes))
    confusion.update(both[0], both[1])
    return confusion.matthews()


def pearson(predictions: Values, labels: Values) -> float:
    """Pearson correlation in [-1, 1], in float32 and operation by operation as `scipy.stats.pearsonr`.

    Takes (N,) scores of any number type and casts them to float32, as evaluate does. NaN, with a warning, if
    predictions or labels do not vary; MinitrainError for two lengths, or fewer than two examples.
    """
    import numpy

    predicted, true = scores(predictions, labels)
    _at_least(2, len(true))
    if _does_not_vary("pearson", predicted, true):
        return math.nan
    x, y = predicted.numpy(), true.numpy()
    with numpy.errstate(invalid="ignore", divide="ignore", over="ignore"):
        xm, ym = x - x.mean(), y - y.mean()
        # Dividing by the largest first keeps the squares within float32.
        xmax, ymax = abs(xm).max(), abs(ym).max()
        norm_x = xmax * numpy.linalg.norm(xm / xmax, ord=2, axis=-1)
        norm_y = ymax * numpy.linalg.norm(ym / ymax, ord=2, axis=-1)
        r = float(numpy.dot(xm / norm_x, ym / norm_y).clip(-1.0, 1.0))
    return r if len(x) > 2 or math.isnan(r) else float(round(r))


def spearman(predictions: Values, labels: Values) -> float:
    """Pearson's, in float64, of the ranks, as `scipy.stats.spearmanr`; NaN also for one example or NaN scores."""
    import numpy

    x, y = scores(predictions, labels)
    if _at_least(1, len(x)) == 1 or bool(x.isnan().any() | y.isnan().any()) or _does_not_vary("spearmanr", x, y):
        return math.nan
    return float(numpy.corrcoef(_ranks(x).numpy(), _ranks(y).numpy())[1, 0])


def _ranks(values: Tensor) -> Tensor:
    """Places from 1 in ascending order, float64: [10., 30., 10., 20.] -> [1.5, 4., 1.5, 3.]."""
    _, inverse, counts = torch.unique(values, sorted=True, return_inverse=True, return_counts=True)
    return (counts.cumsum(dim=0) - (counts.double() - 1) / 2)[inverse]  # the last place among equals, less half


def mean_squared_error(predictions: Values, labels: Values) -> float:
    """Mean squared difference of (N,) scores, float32 as scikit-learn's; MinitrainError for none or two lengths."""
    import numpy

    x, y = scores(predictions, labels)
    _at_least(1, len(x))
    return float(numpy.average((y - x).square().numpy()[:, None], axis=0)[0])  # (N,) would add up in another order


def _does_not_vary(metric: str, predictions: Tensor, labels: Tensor) -> bool:
    for name, values in (("predictions", predictions), ("labels", labels)):
        if (values == values[0]).all():
            warnings.warn(f"{metric} is NaN: all {len(values)} {name} are {values[0]}", stacklevel=3)
            return True
    return False


class Metric:
    """Named metrics over all examples of a split, whatever batches and ranks they come in."""

    def __init__(self, names: tuple[str, ...], num_classes: int | None, positive: int = 1) -> None:
        """Start with no examples.

        Args:
            names: accuracy, f1, macro_f1, matthews_correlation of classes; pearson, spearmanr, mse, rmse,
                mae, r2 of scores; any other raises MinitrainError.
            num_classes: number of classes, None for scores. positive: the class that f1 is about.
        """
        names = (names,) if isinstance(names, str) else tuple(names)
        known = _OF_SCORES.keys() if num_classes is None else _OF_CLASSES.keys()
        if unknown := [name for name in names if name not in known]:
            raise MinitrainError(f"no metric {unknown[0]!r} for this kind of label; there are {', '.join(known)}")
        self.names, self.positive = names, positive
        self.confusion = None if num_classes is None else Confusion(num_classes)
        self.scores: list[Tensor] = []  # (2, B) float32 each: predictions, labels

    def update(self, predictions: Values, labels: Values) -> None:
        """Add one batch: (B,) class ids, or (B,) scores; it may be empty."""
        if self.confusion is None:
            self.scores.append(torch.stack(scores(predictions, labels)))
        else:
            self.confusion.update(predictions, labels)

    def merge(self, other: "Metric") -> None:
        """Add the examples of another share, after ours: the last digit of Pearson depends on their order."""
        if self.names != other.names:
            raise MinitrainError(f"cannot merge metrics {other.names} into {self.names}")
        if self.confusion is not None and other.confusion is not None:
            self.confusion.merge(other.confusion)
        self.scores += other.scores

    def compute(self) -> dict[str, float]:
        """The metrics by name, in the order given; raises MinitrainError if there are too few examples."""
        if self.confusion is not None:
            return {name: _OF_CLASSES[name](self.confusion, self.positive) for name in self.names}
        predictions, labels = torch.cat([torch.empty(2, 0), *self.scores], dim=1)
        return {name: _OF_SCORES[name](predictions, labels) for name in self.names}


_OF_CLASSES: dict[str, Callable[[Confusion, int], float]] = {
    "accuracy": lambda confusion, _: confusion.accuracy(),
    "f1": Confusion.f1,
    "macro_f1": lambda confusion, _: confusion.macro_f1(),
    "matthews_correlation": lambda confusion, _: confusion.matthews(),
}
_OF_SCORES: dict[str, Callable[[Tensor, Tensor], float]] = {
    # Of one example, as a split may have, no correlation is known; the other values are.
    **{
        "pearson": lambda x, y: math.nan if len(y) == 1 else pearson(x, y),
        "spearmanr": spearman,
        "mse": mean_squared_error,
    },
    **{"rmse": root_mean_squared_error, "mae": mean_absolute_error, "r2": r2},
}


class GlueMetric(Metric):
    """The metrics that GLUE reports for a task."""

    def __init__(self, task: str) -> None:
        """Start with no examples of `task`, one of `GLUE_METRICS`; any other raises MinitrainError."""
        if not isinstance(task, str) or task not in GLUE_METRICS:
            raise MinitrainError(
                f"no GLUE task {task!r}; there are {', '.join(GLUE_METRICS)}. For data of your own: "
                "Metric(('accuracy', 'macro_f1'), num_classes=3), or Metric(('pearson',), None) for scores"
            )
        # hans has two classes, but is made to question models of mnli.
        num_classes = 3 if task == "hans" or task.startswith("mnli") else 2
        super().__init__(GLUE_METRICS[task], None if task == "stsb" else num_classes)


def metric_for(task: str | None, num_classes: int | None, positive: int = 1) -> Metric:
    """What GLUE reports for a task; else (None) what suits 2 classes, more, or (None) scores."""
    of_classes = ("accuracy", "f1" if num_classes == 2 else "macro_f1")
    names = tuple(_OF_SCORES) if num_classes is None else of_classes
    return Metric(GLUE_METRICS[task] if task else names, num_classes, positive)
