"""Metrics of rows that have any number of labels: means over labels, over rows, or of all decisions.

Source: scikit-learn 1.9 on indicator matrices, equal to the last digit.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from minitrain.training.confusion import AVERAGES, RATIOS, averaged, quotient, some
from minitrain.training.metric_inputs import multi_hot
from minitrain.training.ranking_metrics import average_precision, over_columns, roc_auc


class LabelScore(NamedTuple):
    """Of one label; a ratio of 0/0 is 0.0."""

    precision: float
    recall: float
    f1: float
    examples: int  # that have it
    average_precision: float | None  # None without logits


class LabelCounts:
    """Hits, predictions and labels: of each label in all rows, and of each row over all labels."""

    def __init__(self, num_labels: int) -> None:
        """Start at zero."""
        self.per_label = torch.zeros(num_labels, 3, dtype=torch.int64)  # (C, 3)
        self.per_row: list[Tensor] = []  # (B, 3) int64 each

    def update(self, predictions: Any, labels: Any) -> None:
        """Count one batch of (B, C) zeros and ones, which may be empty."""
        predicted, true = multi_hot(predictions, labels, len(self.per_label))
        cells = torch.stack([predicted & true, predicted, true], dim=-1)  # (B, C, 3)
        self.per_label += cells.sum(dim=0)
        self.per_row.append(cells.sum(dim=1))

    def merge(self, other: "LabelCounts") -> None:
        """Add another rank's rows after ours."""
        self.per_label += other.per_label
        self.per_row += other.per_row

    def averaged(self, ratio: str, average: str) -> float:
        """`averaged` over the labels."""
        some(len(self._rows()))
        return averaged(self.triples(), ratio, average)

    def triples(self) -> list[tuple[int, int, int]]:
        """Of each label the numbers of hits, predictions and labels."""
        return [(hits, predicted, true) for hits, predicted, true in self.per_label.tolist()]

    def samples_f1(self) -> float:
        """Mean F1 of the rows; 0.0 for a row with neither labels nor predictions."""
        import numpy

        hits, predicted, true = self._rows().double().T
        return float(numpy.mean((2 * hits / (predicted + true)).nan_to_num(0.0).numpy()))

    def subset_accuracy(self) -> float:
        """Share of the rows whose labels are all right."""
        wrong = self._wrong()
        return int((wrong == 0).sum()) / len(wrong)

    def hamming_loss(self) -> float:
        """Share of all decisions, one a row and label, that are wrong."""
        wrong = self._wrong()
        return int(wrong.sum()) / (len(wrong) * len(self.per_label))

    def _wrong(self) -> Tensor:
        hits, predicted, true = self._rows().T
        return predicted + true - 2 * hits

    def _rows(self) -> Tensor:
        """(N, 3)"""
        rows = torch.cat([torch.empty(0, 3, dtype=torch.int64), *self.per_row])
        some(len(rows))
        return rows


def label_scores(
    counts: LabelCounts, logits: Tensor | None = None, labels: Tensor | None = None
) -> list[LabelScore]:
    """Precision, recall, F1, number of examples and average precision of each label.

    Args:
        logits, labels: (N, C), (N, C) zeros and ones; without them there is no average precision.
    """
    scores = []
    for place, (hits, predicted, true) in enumerate(counts.triples()):
        ranked: float | None = None
        if logits is not None and labels is not None:
            ranked = average_precision(logits[:, place].contiguous(), labels[:, place] == 1) if true else 0.0
        ratios = quotient(hits, predicted), quotient(hits, true), quotient(2 * hits, predicted + true)
        scores.append(LabelScore(*ratios, true, ranked))
    return scores


def _averaged(ratio: str, average: str) -> Callable[[LabelCounts], float]:
    return lambda counts: counts.averaged(ratio, average)


# By the counts of decisions.
MULTI_LABEL_METRICS: dict[str, Callable[[LabelCounts], float]] = {
    **{f"{average}_{ratio}": _averaged(ratio, average) for ratio in RATIOS[::-1] for average in AVERAGES},
    "samples_f1": LabelCounts.samples_f1,
    "subset_accuracy": LabelCounts.subset_accuracy,
    "hamming_loss": LabelCounts.hamming_loss,
}


def _of_labels(column: Callable[..., float], weighted: bool = False) -> Callable[[Tensor, Tensor, int], float]:
    return lambda logits, labels, _: over_columns(column, logits, labels == 1, weighted, "label")


# From (N, C) float32 logits and (N, C) zeros and ones. A sigmoid keeps the order, so logits are ranked.
MULTI_LABEL_RANKING: dict[str, Callable[[Tensor, Tensor, int], float]] = {
    "average_precision": _of_labels(average_precision),
    "weighted_average_precision": _of_labels(average_precision, weighted=True),
    "roc_auc": _of_labels(roc_auc),
    "weighted_roc_auc": _of_labels(roc_auc, weighted=True),
}
