"""95% intervals of metrics that are shares, or follow from one: accuracy, and F1, precision and recall of a class.

Not here: macro averages, losses, rankings and regressions.
"""

import math

from minitrain.training.evaluation import Evaluation

SHARES = ("accuracy", "subset_accuracy")  # metrics that are shares of the examples


def interval(share: float, count: int) -> tuple[float, float]:
    """The 95% confidence interval of a proportion of `count` examples (Wilson 1927).

    >>> low, high = interval(0.9, 100)
    >>> print(f"{low:.3f} to {high:.3f}")
    0.826 to 0.945
    """
    z = 1.959963984540054
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return centre - half, centre + half


def metric_interval(name: str, result: Evaluation, positive: int = 1) -> tuple[float, float] | None:
    """The interval of a metric (Wilson 1927); None if it is not a share, or a user's number of that name.

    F1 is 2J / (1 + J) with J = hits / (hits + misses + false alarms), a share (Hand, Christen and Kirielle 2021,
    doi 10.1007/s10994-021-05964-1), and rises with J.

    Args:
        positive: The class that F1, precision and recall are about.
    """
    if name in result.own or not result.examples:
        return None
    if name in SHARES:
        return interval(result.metrics[name], result.examples)
    if result.confusion is None or name not in ("f1", "precision", "recall"):
        return None
    counts = result.confusion.counts
    hits, predicted, true = (
        int(count) for count in (counts[positive, positive], counts[:, positive].sum(), counts[positive].sum())
    )
    of = {"f1": predicted + true - hits, "precision": predicted, "recall": true}[name]
    if not of:
        return None
    low, high = interval(hits / of, of)
    return (2 * low / (1 + low), 2 * high / (1 + high)) if name == "f1" else (low, high)


def intervals(result: Evaluation, positive: int = 1) -> dict[str, list[float]]:
    """The 95% interval of each metric of an evaluation that has one. positive: As for `metric_interval`."""
    found = {name: metric_interval(name, result, positive) for name in result.metrics}
    return {name: list(ends) for name, ends in found.items() if ends is not None}
