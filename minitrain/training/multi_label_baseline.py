"""What the best constant answers score if a row has any number of labels."""

import torch
from torch import Tensor


def multi_label_baseline(train: Tensor, labels: Tensor) -> dict[str, float]:
    """Micro F1 and subset accuracy, on `labels`, of the constant answers that are best on `train`.

    Of all constant answers with k labels, the k most frequent ones have the highest micro F1. Subset accuracy is
    best for the most frequent combination.

    Args:
        train, labels: (N, C) float32, 0 and 1.

    >>> train = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    >>> multi_label_baseline(train, torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    {'micro_f1': 0.6666666666666666, 'subset_accuracy': 0.5}
    """
    counts = train.double().sum(dim=0)  # (C,)
    order = counts.argsort(descending=True, stable=True)
    hits = counts[order].cumsum(dim=0)
    f1 = 2 * hits / (len(train) * torch.arange(1, len(order) + 1) + counts.sum())
    chosen = order[: int(f1.argmax()) + 1]
    found, true = labels[:, chosen].double().sum().item(), labels.double().sum().item()
    combinations, often = train.unique(dim=0, return_counts=True)
    return {
        "micro_f1": 2 * found / (len(chosen) * len(labels) + true),
        "subset_accuracy": (labels == combinations[often.argmax()]).all(dim=1).double().mean().item(),
    }
