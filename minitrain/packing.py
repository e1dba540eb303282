"""Weights of linear layers made ready once, for forward passes between which none of them changes.

Layers with one input are joined. In bfloat16 their weights are cast too, and laid out as oneDNN has them for
itself, which otherwise each product does anew. Nothing here notices that a weight has changed after all: hence a
`with` block, which an evaluation opens around its passes, and nothing that outlives it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from minitrain.products import lay_out, onednn_multiplies, onednn_product, product

LAID_OUT_FROM = 4  # forward passes: what it costs, three of them do not gain


class PackedWeights:
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
        if by_onednn(dtype):
            out = onednn_product(rows, weight, bias, "gelu" if gelu else "none")
        else:
            out = product("output", dtype)(rows, weight, bias)
        return out.view(*x.shape[:-1], -1)

    def _make(self, layers: tuple[nn.Linear, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        weight = joined([layer.weight for layer in layers], dtype)
        biases = [layer.bias for layer in layers if layer.bias is not None]
        if by_onednn(dtype) and self.passes >= LAID_OUT_FROM:
            weight = lay_out(weight)
        return weight, joined(biases, dtype) if biases else None


def by_onednn(dtype: torch.dtype) -> bool:
    """Whether packed weights go to oneDNN, which takes a GELU along: in bfloat16 that is quicker."""
    return dtype == torch.bfloat16 and onednn_multiplies(dtype)


def joined(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """(out, ...) of each -> (out of all, ...), cast on the way."""
    if len(parts) == 1:
        return parts[0].to(dtype)
    sizes = [len(part) for part in parts]
    whole = parts[0].new_empty(sum(sizes), *parts[0].shape[1:], dtype=dtype)
    torch._foreach_copy_(list(whole.split(sizes)), list(parts))
    return whole


_packed: ContextVar[PackedWeights | None] = ContextVar("packed", default=None)


@contextmanager
def unchanged_weights(passes: int) -> Iterator[None]:
    """Around so many forward passes between which no weight changes: what is made of weights is made once."""
    token = _packed.set(PackedWeights(passes))
    try:
        yield
    finally:
        _packed.reset(token)


def packed_weights() -> PackedWeights | None:
    """Those of the block around this call; None outside of one, and where gradients are wanted."""
    return None if torch.is_grad_enabled() else _packed.get()
