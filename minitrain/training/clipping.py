"""The length of all gradients seen as one vector, and the longest that a step may take.

Source: Pascanu et al. 2012, "On the difficulty of training recurrent neural networks", arXiv 1211.5063.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from minitrain.errors import MinitrainError
from minitrain.training.param_groups import plain_number, tensors_of


@torch.no_grad()
def clip_grad_norm(parameters: Tensor | Iterable[Tensor] | Iterable[tuple[str, Tensor]], max_norm: float) -> Tensor:
    """Scale all gradients down by one factor, which keeps their direction, to an overall length of `max_norm`.

    Args:
        parameters: tensors, (name, tensor) pairs or one tensor alone, whose `.grad`, where there is one, is changed
            in place; all on one device.
        max_norm: longest L2 norm of all gradients seen as one vector; 0, less or infinity only measures.

    Returns:
        The norm before clipping, a 0-dim tensor; zero without any gradient. The order of the parameters
        decides its last bit.

    Raises:
        MinitrainError: for what holds no tensors, as a model does, and for a `max_norm` that is no number.

    Source: `torch.nn.utils.clip_grad_norm_`, torch 2.13.
    """
    longest = plain_number(max_norm, "max_norm")
    if math.isnan(longest):
        raise MinitrainError("max_norm is nan; expected a number, 0 or infinity to measure only")
    grads = _numbers(tensors_of(parameters, "clip_grad_norm"))
    total_norm = _norm(grads)
    if grads and 0.0 < longest < math.inf:
        # A factor clamped to 1 rather than `if total_norm > max_norm`: nobody waits for the device.
        torch._foreach_mul_(grads, torch.clamp(longest / (total_norm + 1e-6), max=1.0))
    return total_norm


@torch.no_grad()
def grad_norm(parameters: Iterable[Tensor]) -> Tensor:
    """What `clip_grad_norm` returns, up to rounding, in half the time on a CPU: no gradient is changed.

    There PyTorch's norm of a whole tensor is the work of one thread, a product of vectors that of all.
    """
    grads = _numbers(parameters)
    if not grads or grads[0].device.type != "cpu":
        return _norm(grads)
    vectors = [grad.flatten() for grad in grads]
    return torch.stack([vector.dot(vector) for vector in vectors]).sum().sqrt()


def _norm(grads: list[Tensor]) -> Tensor:
    if not grads:
        return torch.tensor(0.0)
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads, 2.0)))


def _numbers(parameters: Iterable[Tensor]) -> list[Tensor]:
    """The gradients there are, of a sparse one what stands in it, each row once; to be changed in place."""
    grads = []
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            grads.append(parameter.grad.values())
        elif parameter.grad is not None:
            grads.append(parameter.grad)
    return grads
