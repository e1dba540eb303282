"""Weights of linear layers made ready once, for forward passes between which none of them changes.

Layers with one input are joined, and in bfloat16 cast: for a training step all at once, to where they were before,
which on a GPU is one kernel. For an evaluation on a CPU they are laid out, too, as oneDNN has them for itself,
which otherwise each product does anew. Nothing here notices that a weight has changed after all: hence `with`
blocks around the passes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from minitrain.kernels.matmul import lay_out, onednn_multiplies, onednn_product, output

LAID_OUT_FROM = 4  # forward passes: what it costs, three of them do not gain


class PrepackedWeights:
    """Weight and bias of layers, as products take them, made when they are first asked for.

    passes: how many forward passes there will be.
    """

    def __init__(self, passes: int) -> None:
        self.passes = passes
        self._made: dict[tuple[tuple[nn.Linear, ...], torch.dtype], tuple[Tensor, Tensor | None]] = {}

    def multiply(self, x: Tensor, layers: tuple[nn.Linear, ...], dtype: torch.dtype, gelu: bool = False) -> Tensor:
        """(..., in) -> (..., out of all layers), in that dtype. gelu: of the result, only `by_onednn`."""
        if (layers, dtype) not in self._made:
            self._made[layers, dtype] = self._make(layers, dtype)
        weight, bias = self._made[layers, dtype]
        rows = x.reshape(-1, x.size(-1)).to(dtype)
        if by_onednn(dtype, x.device):
            out = onednn_product(rows, weight, bias, "gelu" if gelu else "none")
        else:
            out = output(rows, weight, bias)
        return out.view(*x.shape[:-1], -1)

    def _make(self, layers: tuple[nn.Linear, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        weight = joined([layer.weight for layer in layers], dtype)
        biases = [layer.bias for layer in layers if layer.bias is not None]
        if by_onednn(dtype, weight.device) and self.passes >= LAID_OUT_FROM:
            weight = lay_out(weight)
        return weight, joined(biases, dtype) if biases else None


def by_onednn(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether packed weights go to oneDNN, which takes a GELU along: in bfloat16 on a CPU that is quicker."""
    return device.type == "cpu" and dtype == torch.bfloat16 and onednn_multiplies(dtype)


def joined(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """(out, ...) of each -> (out of all, ...), cast on the way."""
    if len(parts) == 1:
        return parts[0].to(dtype)
    sizes = [len(part) for part in parts]
    whole = parts[0].new_empty(sum(sizes), *parts[0].shape[1:], dtype=dtype)
    torch._foreach_copy_(list(whole.split(sizes)), list(parts))
    return whole


class CastWeights:
    """Joined weights and biases of another dtype, cast anew at every step, all of them at once.

    Where a weight was cast to stays the same place, so that a recorded step finds it again.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[tuple[nn.Linear, ...], torch.dtype], tuple[Tensor, Tensor | None]] = {}
        self._parts: list[Tensor] = []  # of what was made, a view for each parameter
        self._parameters: list[Tensor] = []

    def of(self, layers: tuple[nn.Linear, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """Weight (out of all, in) and bias (out of all,) of layers with one input."""
        if (layers, dtype) not in self._made:
            biases = [layer.bias for layer in layers if layer.bias is not None]
            weight = self._add([layer.weight for layer in layers], dtype)
            self._made[layers, dtype] = weight, self._add(biases, dtype) if biases else None
        return self._made[layers, dtype]

    @torch.no_grad()
    def refresh(self) -> None:
        """Cast all that was ever asked for from what the parameters are now."""
        if self._parts:
            torch._foreach_copy_(self._parts, self._parameters)

    @torch.no_grad()
    def _add(self, parameters: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        whole = torch.cat([parameter.to(dtype) for parameter in parameters])
        self._parts += whole.split([len(parameter) for parameter in parameters])
        self._parameters += parameters
        return whole


_cast: ContextVar[CastWeights | None] = ContextVar("cast", default=None)


@contextmanager
def casting(weights: CastWeights | None) -> Iterator[None]:
    """Around the passes of a training step: weights are cast here and now; None leaves that to every pass."""
    if weights is not None:
        weights.refresh()
    token = _cast.set(weights)
    try:
        yield
    finally:
        _cast.reset(token)


@torch.no_grad()
def ready_weights(layers: tuple[nn.Linear, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Joined weight and bias for a pass with gradients: those of the step around it, or made for this call."""
    if (cast := _cast.get()) is not None:
        return cast.of(layers, dtype)
    biases = [layer.bias for layer in layers if layer.bias is not None]
    return joined([layer.weight for layer in layers], dtype), joined(biases, dtype) if biases else None


_packed: ContextVar[PrepackedWeights | None] = ContextVar("packed", default=None)


@contextmanager
def unchanged_weights(passes: int) -> Iterator[None]:
    """Around so many forward passes between which no weight changes: what is made of weights is made once."""
    token = _packed.set(PrepackedWeights(passes))
    try:
        yield
    finally:
        _packed.reset(token)


def prepacked_weights() -> PrepackedWeights | None:
    """Those of the block around this call; None outside of one, and where gradients are wanted."""
    return None if torch.is_grad_enabled() else _packed.get()
