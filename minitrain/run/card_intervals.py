"""95% intervals of metrics that are shares, or follow from one: accuracy, and F1, precision and recall of a class.

Not here: macro averages, losses, rankings and regressions.
"""

from minitrain.run.report import interval
from minitrain.training.evaluation import Evaluation

OF_ALL = ("accuracy", "subset_accuracy")  # shares of the examples


def metric_interval(name: str, result: Evaluation, positive: int = 1) -> tuple[float, float] | None:
    """The interval of a metric (Wilson 1927); None if it is not a share, or a user's number of that name.

    F1 is 2J / (1 + J) with J = hits / (hits + misses + false alarms), a share (Hand, Christen and Kirielle 2021,
    doi 10.1007/s10994-021-05964-1), and rises with J.

    Args:
        positive: The class that F1, precision and recall are about.
    """
    if name in result.own or not result.examples:
        return None
    if name in OF_ALL:
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
