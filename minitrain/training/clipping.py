"""Gradient clipping by the L2 norm of all gradients together.

Source: Pascanu et al. 2012, "On the difficulty of training recurrent neural networks", arXiv 1211.5063.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from minitrain.errors import MinitrainError
from minitrain.training.param_groups import plain_number, tensors_of


def clip_grad_norm(parameters: Tensor | Iterable[Tensor] | Iterable[tuple[str, Tensor]], max_norm: float) -> Tensor:
    """Scale all gradients in place by one factor so that their overall L2 norm is at most `max_norm`.

    Args:
        parameters: Tensors, (name, tensor) pairs or one tensor, on one device; those without `.grad` are skipped.
        max_norm: 0, negative or infinity: only measure.

    Returns:
        The norm before clipping, a 0-dim tensor. The order of the parameters decides its last bit.

    Raises:
        MinitrainError: `parameters` holds no tensors (a model does not), or `max_norm` is not a number.

    Source: `torch.nn.utils.clip_grad_norm_`, torch 2.13.

    >>> w = torch.zeros(2, requires_grad=True)
    >>> w.grad = torch.tensor([3.0, 4.0])
    >>> clip_grad_norm([w], max_norm=1.0)
    tensor(5.)
    >>> w.grad
    tensor([0.6000, 0.8000])
    """
    longest = plain_number(max_norm, "max_norm")
    if math.isnan(longest):
        raise MinitrainError("max_norm is nan; expected a number, 0 or infinity to only measure")
    return clip_gradients(tensors_of(parameters, "clip_grad_norm"), longest)


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """`clip_grad_norm` without checks."""
    grads = _gradients(parameters)
    total_norm = _norm(grads)
    if grads and 0.0 < max_norm < math.inf:
        # A factor clamped to 1 instead of `if total_norm > max_norm` spares a wait for the device.
        torch._foreach_mul_(grads, torch.clamp(max_norm / (total_norm + 1e-6), max=1.0))
    return total_norm


@torch.no_grad()
def grad_norm(parameters: Iterable[Tensor]) -> Tensor:
    """The norm that `clip_grad_norm` returns, up to rounding, in half the time on a CPU; changes no gradient.

    PyTorch computes the norm of one CPU tensor in one thread, but a dot product in all of them.
    """
    grads = _gradients(parameters)
    if not grads or grads[0].device.type != "cpu":
        return _norm(grads)
    vectors = [grad.flatten() for grad in grads]
    return torch.stack([vector.dot(vector) for vector in vectors]).sum().sqrt()


def _norm(grads: list[Tensor]) -> Tensor:
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads, 2.0))) if grads else torch.tensor(0.0)


def _gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    """The gradients, of a sparse one its values with each row once; all can be changed in place."""
    grads = []
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            grads.append(parameter.grad.values())
        elif parameter.grad is not None:
            grads.append(parameter.grad)
    return grads
