"""The facts about the data of a run that `results.json` keeps: counts of rows, labels and lengths.

The report and the model card take them from there, so that a saved run needs its data no more.
"""

import math
from collections import Counter
from typing import Any

from minitrain.data.dataset import Split, Splits
from minitrain.data.labels.ids import display_names

BARS = 50  # of the histogram of lengths, at most


def data_facts(splits: Splits) -> dict[str, Any]:
    """For each split, what its rows are like.

    `lengths` is a histogram of lengths in tokens, as the model reads them: `counts[i]` rows have more than
    `i * width` and at most `(i + 1) * width`. `labels` is rows by label; `scores` the range and mean of a
    regression.
    """
    return {name: _facts(split, splits) for name, split in splits.all.items()}


def _facts(split: Split, splits: Splits) -> dict[str, Any]:
    ordered = sorted(split.lengths)
    return {
        "examples": len(split),
        **_label_facts(split, splits),
        "lengths": histogram(ordered),
        "median_length": ordered[len(ordered) // 2] if ordered else 0,
        "longest": ordered[-1] if ordered else 0,
        "truncated": split.truncated,
        "blank": split.blank,
        "unknown": split.unknown,
        "text_tokens": split.text_tokens,
    }


def histogram(lengths: list[int]) -> dict[str, Any]:
    """Rows by length, in at most `BARS` bars of equal whole width.

    >>> histogram([3, 4, 4, 120])["width"], sum(histogram([3, 4, 4, 120])["counts"])
    (3, 4)
    """
    width = max(1, math.ceil(max(lengths, default=1) / BARS))
    found = Counter((length - 1) // width for length in lengths if length > 0)
    return {"width": width, "counts": [found[bar] for bar in range(max(found, default=-1) + 1)]}


def _label_facts(split: Split, splits: Splits) -> dict[str, Any]:
    labels, names = split.labels, splits.labels.names
    if labels is None or not len(labels):
        return {}
    if names is None:
        low, high, mean = labels.min().item(), labels.max().item(), labels.double().mean().item()
        return {"scores": {"min": low, "max": high, "mean": mean}}
    counts = (
        labels.sum(dim=0).int().tolist() if labels.ndim == 2 else labels.bincount(minlength=len(names)).tolist()
    )
    return {"labels": dict(zip(display_names(names), counts, strict=True))}
