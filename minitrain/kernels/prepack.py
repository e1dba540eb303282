"""Weights of linear layers, joined and cast once for several forward passes.

Layers with one input are joined into one matrix. In bfloat16 a training step casts all weights at once, and an
evaluation on a CPU also keeps them in oneDNN's layout, which oneDNN otherwise computes for each multiplication.
Nothing here notices when a weight changes: hence the `with` blocks around the passes.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from minitrain.kernels.matmul import forward_matmul, onednn_linear, onednn_supports, to_onednn_layout

ONEDNN_LAYOUT_FROM = 4  # forward passes: with fewer the conversion takes longer than it saves


class PrepackedWeights:
    """Weight and bias of layers with one input, made at first use and kept for `passes` forward passes."""

    def __init__(self, passes: int = 1) -> None:
        self.passes = passes
        self._made: dict[tuple[tuple[nn.Linear, ...], torch.dtype], tuple[Tensor, Tensor | None]] = {}

    def get(self, layers: tuple[nn.Linear, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """Weight (out of all layers, in) and bias (out of all layers,)."""
        if (layers, dtype) not in self._made:
            biases = [layer.bias for layer in layers if layer.bias is not None]
            weight = self._join([layer.weight for layer in layers], dtype)
            if by_onednn(dtype, weight.device) and self.passes >= ONEDNN_LAYOUT_FROM:
                weight = to_onednn_layout(weight)
            self._made[layers, dtype] = weight, self._join(biases, dtype) if biases else None
        return self._made[layers, dtype]

    def linear(self, x: Tensor, layers: tuple[nn.Linear, ...], dtype: torch.dtype, gelu: bool = False) -> Tensor:
        """(..., in) -> (..., out of all layers), without gradients. gelu: apply a GELU; only with `by_onednn`."""
        weight, bias = self.get(layers, dtype)
        rows = x.reshape(-1, x.size(-1)).to(dtype)
        if by_onednn(dtype, x.device):
            out = onednn_linear(rows, weight, bias, "gelu" if gelu else "none")
        else:
            out = forward_matmul(rows, weight, bias)
        return out.view(*x.shape[:-1], -1)

    def _join(self, parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        return joined(parts, dtype)


class CastWeights(PrepackedWeights):
    """Prepacked weights of another dtype, which every training step casts anew, all at once.

    They stay at one place in memory, so that a recorded CUDA graph finds them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[Tensor] = []  # views into what was made, one for each parameter
        self._parameters: list[Tensor] = []

    @torch.no_grad()
    def refresh(self) -> None:
        """Cast the parameters again."""
        if self._parts:
            torch._foreach_copy_(self._parts, self._parameters)

    def _join(self, parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        whole = joined(parts, dtype)
        for view, part in zip(whole.split([len(part) for part in parts]), parts, strict=True):
            if part.requires_grad:  # frozen ones never change
                self._parts.append(view)
                self._parameters.append(part)
        return whole


def by_onednn(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether oneDNN multiplies prepacked weights: in bfloat16 on a CPU, where it is faster."""
    return device.type == "cpu" and dtype == torch.bfloat16 and onednn_supports(dtype)


def joined(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """(out, ...) each -> (sum of out, ...), cast to the dtype."""
    if len(parts) == 1:
        return parts[0].to(dtype)
    sizes = [len(part) for part in parts]
    whole = parts[0].new_empty(sum(sizes), *parts[0].shape[1:], dtype=dtype)
    torch._foreach_copy_(list(whole.split(sizes)), list(parts))
    return whole


_weights: ContextVar[PrepackedWeights | None] = ContextVar("weights", default=None)


def current_weights() -> PrepackedWeights | None:
    """Those of the block around this call."""
    return _weights.get()


@contextmanager
def using(weights: PrepackedWeights) -> Iterator[None]:
    """Compute with these weights inside."""
    token = _weights.set(weights)
    try:
        yield
    finally:
        _weights.reset(token)


def casting(weights: CastWeights) -> AbstractContextManager[None]:
    """Cast the weights for the forward passes of one training step; without, every pass casts its own."""
    weights.refresh()
    return using(weights)


def unchanged_weights(passes: int) -> AbstractContextManager[None]:
    """Prepack the weights for a number of forward passes that none of them changes between."""
    return using(PrepackedWeights(passes))


@torch.no_grad()
def training_weights(layers: tuple[nn.Linear, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Joined weight and bias for a pass with gradients: the step's, or made for this call."""
    if isinstance(weights := _weights.get(), CastWeights):
        return weights.get(layers, dtype)
    biases = [layer.bias for layer in layers if layer.bias is not None]
    return joined([layer.weight for layer in layers], dtype), joined(biases, dtype) if biases else None


def prepacked_weights() -> PrepackedWeights | None:
    """Those of the block around this call; None outside one, and when gradients are on."""
    return None if torch.is_grad_enabled() else _weights.get()
