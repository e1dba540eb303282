"""Probabilities that mean what they say: temperature, thresholds, and how far confidence is from accuracy.

All are functions of logits and labels in float64, without randomness: the same logits give the same bits. The model
is never changed; a temperature divides its logits when probabilities are asked for.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

LOWEST, HIGHEST = 0.01, 100.0  # temperatures
BINS = 15  # of confidence, as in the paper


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How logits become probabilities and labels.

    Attributes:
        temperature: Divides the logits.
        thresholds: Two classes: one, the probability from which the class `positive` is the label. Multi-label: one
            per label. None: the most probable class is the label.
        positive: Of two classes, the id of the one that has the threshold.
    """

    temperature: float = 1.0
    thresholds: tuple[float, ...] | None = None
    positive: int = 1
    multi_label: bool = False

    def scaled(self, logits: Tensor) -> Tensor:
        """(N, C) logits -> (N, C) float64 logits divided by the temperature."""
        return logits.double() / self.temperature

    def probabilities(self, logits: Tensor) -> Tensor:
        """(N, C) logits -> (N, C) float64: of classes, which sum to 1, or of each label."""
        scaled = self.scaled(logits)
        return scaled.sigmoid() if self.multi_label else scaled.softmax(-1)

    def predictions(self, logits: Tensor) -> Tensor:
        """(N, C) logits -> (N,) int64 class ids; multi-label: (N, C) int64, 1 from the threshold on.

        >>> Calibration(thresholds=(0.2,)).predictions(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
        tensor([1, 0])
        """
        probabilities = self.probabilities(logits)
        if self.multi_label:
            return (probabilities >= torch.tensor(self.thresholds or 0.5, dtype=torch.float64)).long()
        if self.thresholds is None:
            return probabilities.argmax(-1)
        reached = probabilities[:, self.positive] >= self.thresholds[0]
        return torch.where(reached, self.positive, 1 - self.positive)


def calibrate(logits: Tensor, labels: Tensor, positive: int = 1) -> Calibration:
    """Fit the temperature and, for two classes or multi-label, the thresholds on its probabilities.

    Args:
        logits: (N, C) float32.
        labels: (N,) int64 class ids, or (N, C) float32 with 1 for each label of a row.
        positive: Of two classes, the id of the one that gets a threshold.
    """
    multi_label = labels.ndim == 2
    fitted = Calibration(temperature=fit_temperature(logits, labels), positive=positive, multi_label=multi_label)
    probabilities = fitted.probabilities(logits)
    if multi_label:
        pairs = [(probabilities[:, i], labels[:, i] == 1) for i in range(labels.size(1))]
    elif logits.size(1) == 2:
        pairs = [(probabilities[:, positive], labels == positive)]
    else:
        return fitted
    thresholds = tuple(fit_threshold(*pair) for pair in pairs)
    return Calibration(
        temperature=fitted.temperature, thresholds=thresholds, positive=positive, multi_label=multi_label
    )


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> float:
    """Mean over rows (classes), or over rows and labels (multi-label), in nats, in float64."""
    if labels.ndim == 2:
        signs = 2 * labels.double() - 1
        return -logsigmoid(signs * logits.double()).mean().item()
    return cross_entropy(logits.double(), labels).item()


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature with the smallest negative log-likelihood, within 0.01 to 100.

    The likelihood is concave in 1/T, so that the slope has one root: Newton's method finds it, with bisection where
    a step would leave the bracket. 1.0 if the likelihood grows without end because every row is right: no
    probability below 1 would be too high for such data.
    """
    low, high = 1 / HIGHEST, 1 / LOWEST  # of 1/T
    if _slope(logits, labels, high)[0] <= 0:
        return 1.0
    if _slope(logits, labels, low)[0] >= 0:
        return HIGHEST
    inverse = 1.0
    for _ in range(200):
        slope, curvature = _slope(logits, labels, inverse)
        if slope == 0:
            break
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        step = inverse - slope / curvature if curvature > 0 else low
        following = step if low < step < high else (low + high) / 2
        if abs(following - inverse) <= 1e-14 * inverse:
            break
        inverse = following
    return 1 / inverse


def _slope(logits: Tensor, labels: Tensor, inverse: float) -> tuple[float, float]:
    """First and second derivative of the negative log-likelihood by the inverse temperature."""
    logits = logits.double()
    if labels.ndim == 2:
        p = (inverse * logits).sigmoid()
        return ((p - labels) * logits).mean().item(), (p * (1 - p) * logits**2).mean().item()
    p = (inverse * logits).softmax(-1)
    expected = (p * logits).sum(-1)  # (N,)
    chosen = logits.gather(1, labels[:, None])[:, 0]
    variance = (p * (logits - expected[:, None]) ** 2).sum(-1)
    return (expected - chosen).mean().item(), variance.mean().item()


def fit_threshold(probabilities: Tensor, positives: Tensor) -> float:
    """The threshold with the highest F1: a row is positive if its probability reaches it.

    All thresholds between two neighbouring probabilities decide alike: of them 0.5 is taken if it is there, else
    the middle. Of equal F1 the threshold nearest to 0.5 is taken, then the lower one; 0.5 if no row is positive.

    Args:
        probabilities: (N,) float64.
        positives: (N,) bool.
    """
    if not positives.any():
        return 0.5
    values, order = probabilities.sort(descending=True, stable=True)
    hits = positives[order].cumsum(0)  # of the first 1, 2, ... rows
    last = torch.cat([values[1:] != values[:-1], torch.tensor([True])])  # equal probabilities go together
    counts = torch.arange(1, len(values) + 1)[last]
    f1 = 2 * hits[last].double() / (counts + positives.sum())
    upper = values[last]
    lower = torch.cat([upper[1:], torch.zeros(1, dtype=torch.float64)])
    middle = (lower + upper) / 2
    middle = torch.where(middle > lower, middle, upper)  # neighbours among floats have none
    thresholds = torch.where((lower < 0.5) & (upper >= 0.5), 0.5, middle)
    best = thresholds[f1 == f1.max()].tolist()
    return float(min(best, key=lambda threshold: (abs(threshold - 0.5), threshold)))


class Reliability:
    """Confidence beside accuracy: decisions in bins ((m - 1)/15, m/15] of confidence, added batch by batch.

    Attributes:
        counts, right: (bins,) float64: decisions, and those that are right.
        confidence: (bins,) float64: their summed confidence.
    """

    def __init__(self, bins: int = BINS) -> None:
        """Start without decisions."""
        self.edges = torch.arange(1, bins, dtype=torch.float64) / bins
        self.counts, self.right, self.confidence, self.gaps = torch.zeros(4, bins, dtype=torch.float64)

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Add rows, as for `expected_calibration_error`."""
        if labels.ndim == 2:
            confidence = torch.maximum(probabilities, 1 - probabilities).flatten()
            right = ((probabilities >= 0.5) == (labels == 1)).flatten()
        else:
            confidence, predicted = probabilities.max(-1)
            right = predicted == labels
        bin_of = torch.bucketize(confidence, self.edges)
        self.counts.index_add_(0, bin_of, torch.ones_like(confidence))
        self.right.index_add_(0, bin_of, right.double())
        self.confidence.index_add_(0, bin_of, confidence)
        self.gaps.index_add_(0, bin_of, right.double() - confidence)

    def error(self) -> float:
        """The expected calibration error of what was added."""
        return self.gaps.abs().sum().item() / int(self.counts.sum())


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """How far confidence is from accuracy: the mean of |accuracy - confidence| over bins, weighted by their rows.

    The confidence of a row is its highest probability, and the bins ((m - 1)/15, m/15] are of equal width. For
    multi-label every pair of row and label counts as a decision: whether p is at least 0.5, with max(p, 1 - p).

    Args:
        probabilities: (N, C) float64.
        labels: (N,) int64 class ids, or (N, C) with 1 for each label of a row.
    """
    reliability = Reliability(bins)
    reliability.update(probabilities, labels)
    return reliability.error()
