"""cleanlab's side of `benchmarks/label_noise.py`: the label issues that it finds in the same predictions."""

from importlib.metadata import version
from typing import Any


def cleanlab_issues(labels: Any, probabilities: Any) -> tuple[Any, str]:
    """(N,) bool, by its default `prune_by_noise_rate`, and its version.

    Args:
        labels: (N,) int64.
        probabilities: (N, C) float64, by models that did not train on the row.
    """
    from cleanlab.filter import find_label_issues

    return find_label_issues(labels, probabilities, n_jobs=1), version("cleanlab")
