"""Cross-entropy and mean squared error, each as (sum over the examples, number of examples).

The mean is left to the caller, who alone knows how many examples the whole optimizer step has: summing
over micro-batches and ranks first and dividing once makes the gradient independent of how a batch is cut
up. (A mean per micro-batch, averaged, weighs the examples of a short last micro-batch more.)

What this file does not do: it skips no examples. A label outside the classes, -100 included, is an error.

Source: the loss of BertForSequenceClassification, the LabelSmoother of the Trainer (`trainer_pt_utils.py`),
both transformers 5.23. Label smoothing: Szegedy et al. 2015, arXiv 1512.00567, section 7.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from minitrain.errors import MinitrainError

# F.cross_entropy silently leaves out labels equal to `ignore_index` (-100 unless told otherwise), but we
# count every example: no label can be this number, so a -100 raises like every other label out of range.
_IGNORE_NOTHING = torch.iinfo(torch.int64).min


def cross_entropy(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, examples: int | None = None
) -> tuple[Tensor, int]:
    """Sum of the negative log-likelihoods of the right classes, and the number of examples.

    Args:
        logits: (B, C), any float dtype; computed in float32.
        labels: (B,) int64, class ids in [0, C).
        label_smoothing: share of the target, in [0, 1), that is spread evenly over all C classes.
        examples: what the sum will be divided by, where that is not B; decides the last bit of a smoothed loss.

    Returns:
        The loss in nats, a 0-dim tensor with graph, and B. float32, or float64 when smoothed.

    Raises:
        MinitrainError: if the shapes or dtypes do not fit, a label is no class, or the smoothing is outside [0, 1).
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
            loss = _smoothed(logits.float(), labels, label_smoothing, examples or labels.shape[0])
    except (IndexError, RuntimeError) as error:
        _check_classes(labels, logits.shape[1])
        raise error
    return loss, labels.shape[0]


def _check_tensors(where: str, logits: Tensor, labels: Tensor) -> None:
    for name, value in (("logits", logits), ("labels", labels)):
        if not isinstance(value, Tensor):
            raise MinitrainError(
                f"{where} got {name} as {type(value).__name__}, expected a tensor: collate makes one of labels"
            )


def _check_classes(labels: Tensor, classes: int) -> None:
    """Name the first label that is no class. Asked when it is too late: on a GPU looking would take longer."""
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
    # The LabelSmoother rounds after dividing. In float64 the way to the sum and back is exact: its bits stay.
    return ((1 - epsilon) * nll + epsilon * uniform).double() * examples


def mean_squared_error(logits: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Sum of the squared errors of a one-number head, and the number of examples.

    Args:
        logits: (B, 1), any float dtype; computed in float32.
        labels: (B,) float scores, computed in float32.

    Returns:
        The loss in squared units of the labels, a 0-dim float32 tensor with graph, and B.

    Raises:
        MinitrainError: if the shapes or dtypes do not fit.
    """
    _check_tensors("mean_squared_error", logits, labels)
    # Without this check (B, 1) - (B,) would broadcast to (B, B) and train on nonsense.
    if logits.shape != (*labels.shape, 1) or labels.ndim != 1 or not labels.is_floating_point():
        raise MinitrainError(
            "mean_squared_error needs logits (B, 1) and float labels (B,), got "
            f"{tuple(logits.shape)} and {tuple(labels.shape)} of {labels.dtype}; "
            "labels that are class ids go with cross_entropy"
        )
    loss = F.mse_loss(logits.float().squeeze(-1), labels.float(), reduction="sum")
    return loss, labels.shape[0]


def loss_of(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, examples: int | None = None
) -> tuple[Tensor, int]:
    """Cross-entropy for classes (int64), squared error for scores (float): (sum of losses, number of examples).

    Raises:
        MinitrainError: Scores cannot be smoothed.
    """
    if not labels.dtype.is_floating_point:
        return cross_entropy(logits, labels, label_smoothing, examples)
    if label_smoothing:
        raise MinitrainError(
            f"--label_smoothing_factor {label_smoothing} spreads a target over classes, but these labels are "
            "scores: leave it out"
        )
    return mean_squared_error(logits, labels)
