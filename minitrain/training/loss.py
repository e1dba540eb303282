"""Cross-entropy, binary cross-entropy and mean squared error, each as (sum, number of examples or decisions).

The caller divides, since only it knows how many examples the whole optimizer step has: dividing the sum over all
micro-batches and ranks once makes the gradient independent of how a batch is split. With class weights the count is
the sum of the weights of the labels; a function of the user returns its own (`own_loss.py`).

Not here: no example is skipped; a label outside the classes, -100 included, is an error.

Source: the loss of BertForSequenceClassification and Trainer's LabelSmoother (`trainer_pt_utils.py`), transformers
5.23. Label smoothing: Szegedy et al. 2015, arXiv 1512.00567, section 7.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minitrain.errors import MinitrainError
from minitrain.training.own_loss import own_loss

# F.cross_entropy skips labels equal to `ignore_index`, by default -100. No label can be this number, so that a
# -100 raises as any other label out of range.
_IGNORE_NOTHING = torch.iinfo(torch.int64).min


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What a run minimizes; by default cross-entropy for classes and squared error for scores.

    Attributes:
        label_smoothing: Share of the target of a cross-entropy, in [0, 1), spread evenly over all classes.
        class_weights: Of each class, by id; the loss is the mean weighted by those of the labels.
        function: (logits, labels) -> (sum, count) instead, as `own_loss` says.
    """

    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    function: Callable[[Tensor, Tensor], Any] | None = None


PLAIN = Loss()


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
        check_classes(labels, logits.shape[1])
        raise
    return loss, len(labels)


def _check_tensors(where: str, logits: Tensor, labels: Tensor) -> None:
    for name, value in (("logits", logits), ("labels", labels)):
        if not isinstance(value, Tensor):
            raise MinitrainError(
                f"{where} got {name} as {type(value).__name__}, expected a tensor: collate makes one of labels"
            )


def check_classes(labels: Tensor, classes: int) -> None:
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
    # LabelSmoother rounds to float32 after dividing: the caller's division must give these bits.
    return _wide((1 - epsilon) * nll + epsilon * uniform) * examples


def _wide(value: Tensor) -> Tensor:
    """In float64, where multiplying by a count is exact and dividing by it gives the bits back. MPS has none."""
    return value if value.device.type == "mps" else value.double()


def weighted_cross_entropy(
    logits: Tensor, labels: Tensor, class_weights: Sequence[float], label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross-entropy weighted by the classes of the labels, 0-dim in nats, and the sum of the weights of the labels.

    The quotient has the bits of `nn.CrossEntropyLoss(weight=class_weights, label_smoothing=label_smoothing)`, where
    smoothing weights the log-likelihood of each class by its own weight.

    Args:
        logits: (B, C), any float dtype; computed in float32.
        labels: (B,) int64.
        class_weights: (C,), by class id.

    >>> total, count = weighted_cross_entropy(torch.zeros(2, 2), torch.tensor([0, 1]), (1.0, 3.0))  # 4 * ln(2), 4
    >>> print(f"{total:.4f} {count:.1f}")
    2.7726 4.0
    """
    cross_entropy(logits.detach(), labels)  # checks both
    if len(class_weights) != logits.size(1):
        raise MinitrainError(f"got {len(class_weights)} class weights for {logits.size(1)} classes")
    weight, log_p = weights_on(tuple(class_weights), logits.device), F.log_softmax(logits.float(), dim=-1)
    # F.nll_loss with the sum of the weights that it divides by: weights[labels].sum() may have another last bit.
    nll, count = torch.ops.aten.nll_loss_forward(log_p, labels, weight, 2, _IGNORE_NOTHING)
    if label_smoothing == 0.0:
        return nll, count
    mean = F.cross_entropy(
        logits.float(), labels, weight, ignore_index=_IGNORE_NOTHING, label_smoothing=label_smoothing
    )
    return _wide(mean) * _wide(count), count


@lru_cache(maxsize=8)
def weights_on(weights: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Weights as a tensor. Made once: a CUDA graph cannot record a copy from the host."""
    return torch.tensor(weights, dtype=dtype, device=device)


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


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Sum over the rows of the mean negative log-likelihood of their C decisions, 0-dim float64 in nats, and B.

    Source: the loss of BertForSequenceClassification for `multi_label_classification`, BCEWithLogitsLoss.

    Args:
        logits: (B, C), any float dtype; computed in float32. A probability is the sigmoid of a logit.
        labels: (B, C) float, 0 or 1 for each class.

    >>> binary_cross_entropy(torch.zeros(2, 3), torch.ones(2, 3))  # 2 * ln(2)
    (tensor(1.3863, dtype=torch.float64), 2)
    """
    _check_tensors("binary_cross_entropy", logits, labels)
    if logits.ndim != 2 or labels.shape != logits.shape or not labels.is_floating_point():
        raise MinitrainError(
            "binary_cross_entropy needs logits (B, C) and float labels (B, C) of 0 and 1, got "
            f"{tuple(logits.shape)} and {tuple(labels.shape)} of {labels.dtype}; "
            "labels that are class ids go with cross_entropy"
        )
    mean = F.binary_cross_entropy_with_logits(logits.float(), labels.float())
    # The gradient of a mean divides by B * C, that of a sum multiplies by 1 / (B * C), which rounds otherwise.
    return _wide(mean) * len(labels), len(labels)


def loss_of(logits: Tensor, labels: Tensor, loss: Loss = PLAIN, examples: int | None = None) -> tuple[Tensor, Any]:
    """The loss for these labels, int64 (B,), float (B,) or float (B, C), or that of `loss`: (sum, count)."""
    if loss.class_weights is not None or loss.function is not None or labels.dtype.is_floating_point:
        return _other_loss(logits, labels, loss)
    return cross_entropy(logits, labels, loss.label_smoothing, examples)


def _other_loss(logits: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, Any]:
    if loss.function is not None:
        return own_loss(loss.function, logits, labels)
    if labels.dtype.is_floating_point:
        for flag, value in (
            ("label_smoothing_factor", loss.label_smoothing),
            ("class_weights", loss.class_weights),
        ):
            if value:
                are = "several a text, each decided by itself" if labels.ndim == 2 else "scores"
                raise MinitrainError(f"--{flag} {value} is about classes, but these labels are {are}: leave it out")
        return binary_cross_entropy(logits, labels) if labels.ndim == 2 else mean_squared_error(logits, labels)
    assert loss.class_weights is not None
    return weighted_cross_entropy(logits, labels, loss.class_weights, loss.label_smoothing)


def mean_loss(
    logits: Tensor,
    labels: Tensor,
    batches: Sequence[list[int]],
    loss: Loss,
    mean_of_means: bool,
    device: torch.device,
) -> float:
    """The loss of a whole split: the mean over its rows, or their sum divided by their count if `loss` has its own.

    Args:
        logits: (N, C) float32 on the CPU; labels: (N,).
        batches: Row numbers, each once. The last bit depends on them.
        mean_of_means: As in `EvalSettings`.
        device: Where a function of the user computes.
    """
    losses, total, counted = torch.empty(len(labels)), 0.0, 0.0
    for rows in batches:
        on = labels.device if loss.function is None else device
        loss_sum, count = loss_of(logits[rows].to(on), labels[rows].to(on), loss)
        total, counted = total + float(loss_sum), counted + float(count)
        losses[rows] = (loss_sum / count).float()  # rounded as in Trainer 5.23: each row has the mean of its batch
    if loss.function is None and (mean_of_means or loss.class_weights is None):
        return float(losses.numpy().mean())  # numpy, as in Trainer, sums in another order than torch
    if counted == 0.0:
        raise MinitrainError("the loss returned the count 0 for a whole split; expected a number above 0")
    return total / counted
