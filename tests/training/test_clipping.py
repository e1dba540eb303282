"""Clipping against torch, to the bit; the quicker norm against the exact one."""

import math

import pytest
import torch
from torch import Tensor, nn

from minitrain.training.clipping import clip_grad_norm, grad_norm

SHAPES = [(), (1,), (7,), (33, 5), (8, 16), (3, 4, 5), (64, 129)]


def with_gradients(step: int) -> list[Tensor]:
    """Parameters with gradients of a size of this step; every parameter lacks one at some steps."""
    torch.manual_seed(step)
    parameters = [torch.zeros(shape, requires_grad=True) for shape in SHAPES]
    for i, parameter in enumerate(parameters):
        gradient = torch.randn_like(parameter) * 10.0 ** (step % 5 - 3)
        parameter.grad = None if (step + i) % 7 == 0 else gradient
    return parameters


def gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]


@pytest.mark.parametrize("max_norm", [1.0, 0.01, 1e4, math.inf])
def test_clipping_has_the_bits_of_torch(max_norm: float) -> None:
    for step in range(10, 20):
        ours, theirs = with_gradients(step), with_gradients(step)
        before = [g.clone() for g in gradients(ours)]
        norm = clip_grad_norm(ours, max_norm)
        assert torch.equal(norm, nn.utils.clip_grad_norm_(theirs, max_norm))
        assert all(map(torch.equal, gradients(ours), gradients(theirs)))
        assert all(map(torch.equal, gradients(ours), before)) == (norm <= max_norm)


@pytest.mark.parametrize("max_norm", [0.0, -1.0, math.inf])
def test_without_a_longest_norm_the_gradients_are_only_measured(max_norm: float) -> None:
    weight = torch.zeros(2, requires_grad=True)
    weight.grad = torch.tensor([3.0, 4.0])
    assert clip_grad_norm(iter([weight]), max_norm) == 5.0
    assert torch.equal(weight.grad, torch.tensor([3.0, 4.0]))


def test_the_norm_of_no_gradients_is_zero() -> None:
    assert torch.equal(clip_grad_norm([torch.zeros(2, requires_grad=True)], 1.0), torch.tensor(0.0))


@pytest.mark.parametrize("step", range(5))
def test_quicker_norm_is_that_of_all_gradients_and_changes_none(step: int) -> None:
    parameters = with_gradients(step)
    embedding = nn.Embedding(50, 16, sparse=True)
    embedding(torch.tensor([3, 7, 3])).pow(2).sum().backward()  # row 3 twice
    parameters.append(embedding.weight)
    before = [g.clone() for g in gradients(parameters)]
    squares = [g.to_dense().double().pow(2).sum() for g in before]
    norm = grad_norm(parameters)
    # Some 9,000 squares are added in float32, a few at a time: each sum rounds by 6e-8.
    assert norm.item() == pytest.approx(math.sqrt(sum(squares)), rel=1e-6)
    assert norm.item() == pytest.approx(clip_grad_norm(parameters, 0.0).item(), rel=1e-6)
    assert all(torch.equal(g.to_dense(), b.to_dense()) for g, b in zip(gradients(parameters), before, strict=True))


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_quicker_norm_is_not_finite_where_a_gradient_is_not(broken: float) -> None:
    weight = torch.zeros(2, requires_grad=True)
    weight.grad = torch.tensor([3.0, broken])
    assert not grad_norm([weight]).isfinite()


def test_quicker_norm_of_gradients_that_do_not_lie_in_a_row() -> None:
    weight = torch.zeros(2, 3, requires_grad=True)
    weight.grad = torch.arange(6.0).view(3, 2).t()
    assert grad_norm([weight]).item() == pytest.approx(math.sqrt(55.0))


def test_quicker_norm_of_no_gradients_is_zero() -> None:
    assert torch.equal(grad_norm([torch.zeros(2, requires_grad=True)]), torch.tensor(0.0))
