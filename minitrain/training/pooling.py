"""The logits of a text out of those of its windows."""

from collections.abc import Sequence

import torch
from torch import Tensor


def pool_windows(logits: Tensor, windows: Sequence[int], pooling: str = "mean") -> Tensor:
    """(W, C) logits of windows -> (B, C) float32, the mean or the maximum over the windows of each document.

    Args:
        windows: Of each document, B numbers of at least 1 that sum to W.
        pooling: "mean" or "max"; the maximum is that of each class by itself.

    >>> pool_windows(torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 4.0]]), [2, 1]).tolist()
    [[2.0, 1.0], [5.0, 4.0]]
    """
    parts = logits.float().split(list(windows))
    # One by one: a sum over an index would add in any order on a GPU.
    return torch.stack([part.mean(0) if pooling == "mean" else part.amax(0) for part in parts])
