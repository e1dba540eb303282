"""A loss of the user's own, (logits, labels) -> (sum, count): called, and checked.

Not here: its division by the count of the step (`loss_count.py`); the losses of minitrain (`loss.py`).
"""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from minitrain.config.options import plain
from minitrain.errors import MinitrainError, shown

EXPECTED = "expected (sum, count): a 0-dim float tensor with a gradient, and a number"


def own_loss(function: Callable[[Tensor, Tensor], Any], logits: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """Call the user's function on a micro-batch, or on a batch of an evaluation, and check what it returns.

    Args:
        function: Gets logits (B, C) in float32 and labels on the same device: (B,) int64 class ids or (B, C) of 0
            and 1; of scores both are (B,) float32 (in training standardized, with --standardize_targets).
            Returns the sum of the losses, 0-dim, and the number to divide it by, of a whole step or evaluation: B
            for a mean.

    Raises:
        MinitrainError: Says what was returned.
    """
    scores = labels.ndim == 1 and labels.is_floating_point()
    # (B, 1) beside (B,) would broadcast to (B, B), and the model train on nonsense.
    returned = function(logits.float().squeeze(-1) if scores else logits.float(), labels)
    name = name_of(function)
    if not isinstance(returned, tuple) or len(returned) != 2:
        what = f"a tensor of shape {tuple(returned.shape)}" if isinstance(returned, Tensor) else shown(returned)
        raise MinitrainError(
            f"the loss {name} returned {what}; {EXPECTED}. For a mean: return loss.sum(), len(labels)"
        )
    total, count = returned
    if not isinstance(total, Tensor) or total.shape != () or not total.is_floating_point():
        what = (
            f"a tensor of shape {tuple(total.shape)} and {total.dtype}"
            if isinstance(total, Tensor)
            else shown(total)
        )
        raise MinitrainError(f"the loss {name} returned as the sum {what}; {EXPECTED}")
    if logits.requires_grad and torch.is_grad_enabled() and not total.requires_grad:
        raise MinitrainError(
            f"the loss {name} returned a sum without a gradient; compute it from the logits with operations of "
            "torch, without detach(), item() or numpy"
        )
    if isinstance(count, Tensor) and count.requires_grad:
        raise MinitrainError(
            f"the loss {name} returned a count with a gradient, which is not followed: detach() it"
        )
    number = plain(count)
    if not isinstance(number, Real) or isinstance(number, bool) or not 0 <= float(number) < math.inf:
        raise MinitrainError(
            f"the loss {name} returned as the count {shown(count)}; expected a finite number above 0"
        )
    return total, float(number)


def name_of(function: Callable[..., Any] | None) -> str | None:
    """How messages and `results.json` call a function."""
    return None if function is None else str(getattr(function, "__qualname__", type(function).__qualname__))
