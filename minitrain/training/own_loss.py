"""A loss of the user's own, (logits, labels) -> (sum, count): called, checked, divided by the step's total count.

The count of a step is known only after its forward passes. So the backward passes run on sums divided by the number
of examples, and loss and gradients are multiplied by examples / count afterwards.

Here too: sums over the processes. Not here: the losses of minitrain (`loss.py`).
"""

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from minitrain.config.options import plain
from minitrain.distributed.world import World
from minitrain.errors import MinitrainError, shown

EXPECTED = "expected (sum, count): a 0-dim float tensor with a gradient, and a number"


def own_loss(function: Callable[[Tensor, Tensor], Any], logits: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """Call the user's function on a micro-batch, or on a batch of an evaluation, and check what it returns.

    Args:
        function: Gets logits (B, C) in float32 and labels on the same device: (B,) int64 class ids, (B,) float32
            scores (in training standardized, with --standardize_targets) or (B, C) float32 of 0 and 1. Returns the
            sum of the losses, 0-dim, and the number to divide it by, of a whole step or evaluation: B for a mean.

    Raises:
        MinitrainError: Says what was returned.
    """
    returned = function(logits.float(), labels)
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


def divide_by_counts(model: nn.Module, loss: Tensor, counts: Sequence[Any], examples: int, world: World) -> None:
    """Turn loss and gradients that were divided by `examples` into those divided by the counts, in place.

    Args:
        counts: Those of the micro-batches of this process.

    Raises:
        MinitrainError: The counts of all micro-batches and processes sum to 0.
    """
    total = over_processes(math.fsum(counts), world)
    if total == 0.0:
        raise MinitrainError("the loss returned the count 0 for a whole step; expected a number above 0")
    if total == examples:
        return  # a mean over the examples keeps its bits
    loss *= examples / total
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad *= examples / total


def over_processes(value: float, world: World) -> float:
    """The sum of a number over all processes."""
    return world.all_reduce(torch.tensor(value, dtype=torch.float64)).item()


def name_of(function: Callable[..., Any] | None) -> str | None:
    """How messages and `results.json` call a function."""
    return None if function is None else str(getattr(function, "__qualname__", type(function).__qualname__))
