"""The confusion matrix, and the metrics that follow from its counts: accuracy, precision, recall, F1, Matthews.

Not here: metrics that rank scores (`ranking_metrics.py`).

Source: scikit-learn 1.9, equal to the last digit; its sums are numpy's, so sums of ratios are numpy's here.
"""

import math
import warnings
from collections.abc import Callable

import torch

from minitrain.errors import MinitrainError
from minitrain.training.metric_inputs import Values, class_ids

AVERAGES = ("macro", "micro", "weighted")
# Of one class the numbers of hits, predictions and labels -> numerator and denominator.
_RATIOS: dict[str, Callable[[int, int, int], tuple[int, int]]] = {
    "precision": lambda hits, predicted, true: (hits, predicted),
    "recall": lambda hits, predicted, true: (hits, true),
    "f1": lambda hits, predicted, true: (2 * hits, predicted + true),
}
RATIOS = tuple(_RATIOS)


def quotient(numerator: int, denominator: int) -> float:
    """0.0 for 0/0."""
    return numerator / denominator if denominator else 0.0


def averaged(rows: list[tuple[int, int, int]], ratio: str, average: str) -> float:
    """Precision, recall or F1 of several classes as one number; a ratio of 0/0 is 0.0.

    Args:
        rows: Hits, predictions and labels of each class.
        average: "macro" for the mean over the classes, "weighted" weights it by labels, "micro" adds counts first.

    >>> averaged([(1, 1, 2), (3, 4, 3)], "recall", "macro")
    0.75
    """
    import numpy

    if average == "micro":
        hits, predicted, true = (sum(column) for column in zip(*rows, strict=True))
        return quotient(*_RATIOS[ratio](hits, predicted, true))
    values, labels = [quotient(*_RATIOS[ratio](*row)) for row in rows], [true for _, _, true in rows]
    weighted = average == "weighted" and any(labels)  # without any label scikit-learn weights all alike
    return float(numpy.average(values, weights=labels) if weighted else numpy.mean(values))


def some(examples: int) -> int:
    """The number of examples. Raises MinitrainError for 0."""
    if not examples:
        raise MinitrainError("a metric needs examples, got 0: is the split empty?")
    return examples


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
        return self._of_one("f1", positive)

    def precision(self, positive: int = 1) -> float:
        """Share of the predictions of one class of two that are right; as `f1` otherwise."""
        return self._of_one("precision", positive)

    def recall(self, positive: int = 1) -> float:
        """Share of the labels of one class of two that were predicted; as `f1` otherwise."""
        return self._of_one("recall", positive)

    def averaged(self, ratio: str, average: str) -> float:
        """`averaged` over the classes that were seen, as a label or as a prediction."""
        self._total()
        return averaged([row for row in self._per_class() if row[1] + row[2]], ratio, average)

    def macro_f1(self) -> float:
        """Mean F1 of the classes that were seen, as a label or as a prediction."""
        return self.averaged("f1", "macro")

    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that are labels."""
        import numpy

        self._total()
        return float(numpy.mean([hits / true for hits, _, true in self._per_class() if true]))

    def cohen_kappa(self) -> float:
        """Agreement beyond chance (Cohen 1960); NaN, with a warning, if only one class was seen."""
        import numpy

        total = self._total()
        seen = (self.counts.sum(dim=0) + self.counts.sum(dim=1)).nonzero()[:, 0]
        counts = self.counts[seen][:, seen].double().numpy()
        expected = numpy.outer(counts.sum(axis=0), counts.sum(axis=1)) / total
        differ = 1.0 - numpy.eye(len(counts))
        by_chance = numpy.sum(differ * expected)
        if by_chance == 0:
            warnings.warn(f"cohen_kappa is NaN: all {total} labels and predictions are one class", stacklevel=2)
            return math.nan
        return float(1 - numpy.sum(differ * counts) / by_chance)

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
            (quotient(hits, predicted), quotient(hits, true), quotient(2 * hits, predicted + true), true)
            for hits, predicted, true in self._per_class()
        ]

    def _of_one(self, ratio: str, positive: int) -> float:
        if int(self.counts[:2, :2].sum()) < self._total():
            raise MinitrainError(f"{ratio} is for classes 0 and 1, but a class above 1 was seen; use macro_{ratio}")
        numerator, denominator = _RATIOS[ratio](*self._per_class()[positive])
        if denominator == 0:
            never = {"f1": "never label nor prediction", "precision": "never predicted", "recall": "never a label"}
            warnings.warn(f"{ratio} is 0/0, set to 0.0: class {positive} is {never[ratio]}", stacklevel=3)
        return quotient(numerator, denominator)

    def _per_class(self) -> list[tuple[int, int, int]]:
        """Of each class the numbers of hits, predictions and labels."""
        hits, predicted, true = self.counts.diag(), self.counts.sum(dim=0), self.counts.sum(dim=1)
        return list(zip(hits.tolist(), predicted.tolist(), true.tolist(), strict=True))

    def _total(self) -> int:
        return some(int(self.counts.sum()))


def _averaged(ratio: str, average: str) -> Callable[[Confusion, int], float]:
    return lambda confusion, _: confusion.averaged(ratio, average)


CONFUSION_METRICS: dict[str, Callable[[Confusion, int], float]] = {
    "accuracy": lambda confusion, _: confusion.accuracy(),
    "f1": Confusion.f1,
    "macro_f1": lambda confusion, _: confusion.macro_f1(),
    "matthews_correlation": lambda confusion, _: confusion.matthews(),
    "balanced_accuracy": lambda confusion, _: confusion.balanced_accuracy(),
    "precision": Confusion.precision,
    "recall": Confusion.recall,
    **{f"{average}_{ratio}": _averaged(ratio, average) for ratio in RATIOS[::-1] for average in AVERAGES},
    "cohen_kappa": lambda confusion, _: confusion.cohen_kappa(),
}
