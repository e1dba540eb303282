"""What the loss of an optimizer step is divided by: one number for all its micro-batches and processes.

The number of examples; with class weights the sum of the weights of the labels. What a function of the user counts
is known only after the forward passes: they are divided by the examples, and loss and gradients rescaled then.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from minitrain.data.batch import Batch
from minitrain.distributed.world import World
from minitrain.errors import MinitrainError
from minitrain.training.loss import Loss, check_classes, weights_on


def total_weight(loss: Loss, micro_batches: Sequence[Batch], world: World) -> float:
    """The sum of the class weights of the labels of a whole step, in all processes."""
    assert loss.class_weights is not None
    weights = weights_on(loss.class_weights, torch.device("cpu"), torch.float64)
    total = 0.0
    for labels in (batch.labels for batch in micro_batches if batch.labels is not None):
        try:
            total += weights[labels.cpu()].sum().item()
        except IndexError:
            check_classes(labels, len(weights))
            raise
    return _over_processes(total, world)


def rescale(model: nn.Module, loss: Tensor, counts: Sequence[Any], divisor: float, world: World) -> None:
    """Divide loss and gradients by the counts of all micro-batches and processes instead of `divisor`, in place.

    Args:
        loss: Of the step, 0-dim.
        counts: Of the micro-batches of this process.

    Raises:
        MinitrainError: The counts sum to 0.
    """
    total = _over_processes(math.fsum(counts), world)
    if total == 0.0:
        raise MinitrainError("the loss returned the count 0 for a whole step; expected a number above 0")
    if total == divisor:
        return  # a mean over the examples keeps its bits
    loss *= divisor / total
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad *= divisor / total


def _over_processes(value: float, world: World) -> float:
    return world.all_reduce(torch.tensor(value, dtype=torch.float64)).item()
