"""Precision, recall and F1 at every threshold from 0.00 to 1.00, from counts of probabilities."""

import math

import torch
from torch import Tensor

from minitrain.training.confusion import quotient

STEPS = 100  # of the thresholds


class ThresholdCounts:
    """Decisions by their probability, added batch by batch; a decision is positive from the threshold on."""

    def __init__(self) -> None:
        """Start without decisions."""
        self.edges = torch.arange(STEPS + 1, dtype=torch.float64) / STEPS  # (101,): the thresholds
        # (2, 102) int64: negatives and positives by the number of thresholds that they reach
        self.counts = torch.zeros(2, STEPS + 2, dtype=torch.int64)

    def update(self, probabilities: Tensor, positives: Tensor) -> None:
        """Add (N,) float64 probabilities and (N,) bool labels."""
        reached = torch.bucketize(probabilities.contiguous(), self.edges, right=True)
        for row in (0, 1):
            self.counts[row] += torch.bincount(reached[positives == row], minlength=STEPS + 2)

    def curves(self) -> dict[str, list[float]]:
        """`threshold`, `precision`, `recall` and `f1`; precision is NaN where nothing is given."""
        # Those that reach more than k thresholds reach the one numbered k.
        above = self.counts.flip(1).cumsum(1).flip(1)[:, 1:].tolist()
        true = int(self.counts[1].sum())
        precision, recall, f1 = [], [], []
        for wrong, hits in zip(*above, strict=True):
            precision.append(hits / (hits + wrong) if hits + wrong else math.nan)
            recall.append(quotient(hits, true))
            f1.append(quotient(2 * hits, hits + wrong + true))
        return {"threshold": self.edges.tolist(), "precision": precision, "recall": recall, "f1": f1}
