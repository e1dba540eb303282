"""Cross-entropy and mean squared error, each as (sum over the examples, number of examples).

The caller divides, since only it knows how many examples the whole optimizer step has: dividing the sum over all
micro-batches and ranks once makes the gradient independent of how a batch is split.

Not here: no example is skipped; a label outside the classes, -100 included, is an error.

Source: the loss of BertForSequenceClassification and Trainer's LabelSmoother (`trainer_pt_utils.py`), transformers
5.23. Label smoothing: Szegedy et al. 2015, arXiv 1512.00567, section 7.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from minitrain.errors import MinitrainError

# F.cross_entropy skips labels equal to `ignore_index`, by default -100. No label can be this number, so that a
# -100 raises as any other label out of range.
_IGNORE_NOTHING = torch.iinfo(torch.int64).min


def cross_entropy(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, examples: int | None = None
) -> tuple[Tensor, int]:
    """Sum of the negative log-likelihoods of (B,) int64 labels, 0-dim in nats, and B.

    Args:
        logits: (B, C), any float dtype; computed in float32.
        label_smoothing: Share of the target, in [0, 1), spread evenly over all classes.
        examples: Divisor the caller will use, if not B; decides the last bit of a smoothed loss, float64.

    >>> cross_entropy(torch.zeros(3, 2), torch.tensor([0, 1, 1]))  # 3 * ln(2)
    (tensor(2.0794), 3)
    """
    _check_tensors("cross_entropy", logits, labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or labels.dtype != torch.int64:
        raise MinitrainError(
            "cross_entropy needs logits (B, C) and labels (B,) of torch.int64, got "
            f"{tuple(logits.shape)} and {tuple(labels.shape)} of {labels.dtype}; "
            "labels that are scores go with mean_squared_error"
        )
    if not 0.0 <= label_smoothing < 1.0:
        raise MinitrainError(f"label_smoothing is {label_smoothing}; it must be in [0, 1)")
    try:
        if label_smoothing == 0.0:
            loss = F.cross_entropy(logits.float(), labels, reduction="sum", ignore_index=_IGNORE_NOTHING)
        else:
            loss = _smoothed(logits.float(), labels, label_smoothing, examples or len(labels))
    except (IndexError, RuntimeError):
        _check_classes(labels, logits.shape[1])
        raise
    return loss, len(labels)


def _check_tensors(where: str, logits: Tensor, labels: Tensor) -> None:
    for name, value in (("logits", logits), ("labels", labels)):
        if not isinstance(value, Tensor):
            raise MinitrainError(
                f"{where} got {name} as {type(value).__name__}, expected a tensor: collate makes one of labels"
            )


def _check_classes(labels: Tensor, classes: int) -> None:
    """Name the first label that is not a class. Runs after a failure only: a GPU would have to wait."""
    if labels.device.type != "cpu":
        return
    for row, label in enumerate(labels.tolist()):
        if not 0 <= label < classes:
            raise MinitrainError(
                f"labels[{row}] is {label}; class ids go from 0 to {classes - 1}. To leave rows out, as torch does "
                f"where the label is -100: kept = labels != {label}, then logits[kept] and labels[kept]"
            )


def _smoothed(logits: Tensor, labels: Tensor, epsilon: float, examples: int) -> Tensor:
    """(1 - epsilon) * nll + epsilon * (mean over the classes of -log p), summed over the examples."""
    surprise = -F.log_softmax(logits, dim=-1)  # (B, C), -log p of every class
    nll = surprise.gather(dim=-1, index=labels.unsqueeze(-1)).sum() / examples
    uniform = surprise.sum(dim=-1, keepdim=True).sum() / (examples * logits.size(-1))
    # LabelSmoother rounds to float32 after dividing. Multiplying back in float64 is exact, so its bits are kept.
    return ((1 - epsilon) * nll + epsilon * uniform).double() * examples


def mean_squared_error(logits: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Sum of the squared errors of logits (B, 1) against float labels (B,), 0-dim float32, and B.

    >>> mean_squared_error(torch.tensor([[1.0], [4.0]]), torch.tensor([1.0, 2.0]))
    (tensor(4.), 2)
    """
    _check_tensors("mean_squared_error", logits, labels)
    # Without this check (B, 1) - (B,) would broadcast to (B, B) and train on nonsense.
    if logits.shape != (*labels.shape, 1) or labels.ndim != 1 or not labels.is_floating_point():
        raise MinitrainError(
            "mean_squared_error needs logits (B, 1) and float labels (B,), got "
            f"{tuple(logits.shape)} and {tuple(labels.shape)} of {labels.dtype}; "
            "labels that are class ids go with cross_entropy"
        )
    return F.mse_loss(logits.float().squeeze(-1), labels.float(), reduction="sum"), len(labels)


def loss_of(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, examples: int | None = None
) -> tuple[Tensor, int]:
    """Cross-entropy for classes (int64), squared error for scores (float): (sum of losses, number of examples)."""
    if not labels.dtype.is_floating_point:
        return cross_entropy(logits, labels, label_smoothing, examples)
    if label_smoothing:
        raise MinitrainError(
            f"--label_smoothing_factor {label_smoothing} spreads a target over classes, but these labels are "
            "scores: leave it out"
        )
    return mean_squared_error(logits, labels)
