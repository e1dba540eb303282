"""The operations that exist in two arithmetics, each fast one beside its plain form.

`reference` calls the same PyTorch operations in the same order as transformers 5.23, bit for bit. `fast` computes
the same function in less time; only its random numbers and last bits differ. On a GPU `fast` joins products of
bfloat16, and leaves all else to PyTorch's own kernels. No other module knows which is used: they call the functions
of the `Kernels` they were given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitrain.kernels.attention import attention, fast_attention
from minitrain.kernels.dropout import dropout_from_bits, is_half, keep_mask
from minitrain.kernels.matmul import JointLinear
from minitrain.kernels.prepack import by_onednn, prepacked_weights, ready_weights

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """One arithmetic: functions for what a model computes, as the plain ones below are called."""

    cls_only: bool  # whether a classifier computes of its last block the first position alone, all that it reads
    linear: Callable[..., tuple[Tensor, ...]]
    linear_act: Callable[[Tensor, nn.Linear, Activation], Tensor]
    dropout: Callable[[Tensor, float, bool], Tensor]
    dropout_add: Callable[[Tensor, Tensor, float, bool], Tensor]
    attention: Callable[[Tensor, Tensor, Tensor, Tensor | None, float], Tensor]
    used_rows: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    relative_scores: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


# ---- linear layers: (B, L, in) -> (B, L, out) -----------------------------------------------------------------


def linear(x: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
    """What each of some linear layers makes of the same x."""
    return tuple(layer(x) for layer in layers)


def _fast_linear(x: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
    dtype = _dtype_of_product(x)
    if not _joins(x, layers, dtype):
        return linear(x, *layers)
    if torch.compiler.is_compiling():
        return _traceable_linear(x, layers, dtype)
    if (packed := prepacked_weights()) is not None:
        out = packed.multiply(x, layers, dtype)
    elif torch.is_autocast_enabled(_autocast_of(x)) and not torch.is_grad_enabled():
        return linear(x.to(dtype), *layers)  # autocast remembers each weight that it has cast
    else:
        weight, bias = ready_weights(layers, dtype)
        biases = [layer.bias for layer in layers if layer.bias is not None]
        out = JointLinear.apply(x, weight, bias, len(layers), *[layer.weight for layer in layers], *biases)
    return out.split([layer.out_features for layer in layers], dim=-1) if len(layers) > 1 else (out,)


def _traceable_linear(x: Tensor, layers: Sequence[nn.Linear], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """A joint product in operations that a compiler sees through, and whose gradients it finds by itself."""
    weight = torch.cat([layer.weight.to(dtype) for layer in layers])
    biases = [layer.bias.to(dtype) for layer in layers if layer.bias is not None]
    out = F.linear(x.to(dtype), weight, torch.cat(biases) if biases else None)
    return out.split([layer.out_features for layer in layers], dim=-1)


def linear_act(x: Tensor, layer: nn.Linear, activation: Activation) -> Tensor:
    """A linear layer and the function after it."""
    return activation(linear(x, layer)[0])


def _fast_linear_act(x: Tensor, layer: nn.Linear, activation: Activation) -> Tensor:
    packed, dtype = prepacked_weights(), _dtype_of_product(x)
    if packed is not None and activation is F.gelu and by_onednn(dtype, x.device) and _joins(x, (layer,), dtype):
        return packed.multiply(x, (layer,), dtype, gelu=True)
    return activation(_fast_linear(x, layer)[0])


def _autocast_of(x: Tensor) -> str:
    """Whose autocast decides about x: the CPU's or the GPU's."""
    return "cpu" if x.device.type == "cpu" else "cuda"


def _dtype_of_product(x: Tensor) -> torch.dtype:
    autocast = torch.is_autocast_enabled(_autocast_of(x)) and x.dtype != torch.float64
    return torch.get_autocast_dtype(_autocast_of(x)) if autocast else x.dtype


def _joins(x: Tensor, layers: Sequence[nn.Linear], dtype: torch.dtype) -> bool:
    """Whether layers may be taken together, and by other products than their own.

    On a GPU only where weights are cast in any case: joined on the way, they cost nothing more.
    """
    worth_it = x.device.type == "cpu" or dtype != layers[0].weight.dtype
    alike = len({layer.bias is None for layer in layers}) == 1
    return worth_it and alike and all(_is_plain(layer) for layer in layers)


def _is_plain(layer: nn.Linear) -> bool:
    """Whether weight and bias say all of it: no subclass, as of low-rank adapters, and no hook."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return type(layer) is nn.Linear and not any(hooks)


# ---- dropout --------------------------------------------------------------------------------------------------


def dropout_add(residual: Tensor, x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout of x, added to what went around the layers that made it."""
    return F.dropout(x, p, training) + residual


def _fast_dropout(x: Tensor, p: float, training: bool) -> Tensor:
    # A GPU draws in parallel inside the dropout kernel already.
    return dropout_from_bits(x, p, training) if x.device.type == "cpu" else F.dropout(x, p, training)


def _fast_dropout_add(residual: Tensor, x: Tensor, p: float, training: bool) -> Tensor:
    if not training or p == 0.0 or x.device.type != "cpu":
        return dropout_add(residual, x, p, training)
    if is_half(residual.dtype):  # where the value would be rounded on the way back
        return residual + dropout_from_bits(x, p, training)
    kept, scale = keep_mask(x.shape, p, residual.dtype)
    return torch.addcmul(residual, x, kept, value=scale)  # its backward pass multiplies by a value in any case


# ---- scores of distances: (B N, R, D) and a table (N, S, D) -> (B, N, R, C) ------------------------------------


def used_rows(table: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of a table (S, H) that are computed where `index` says which are read, and the index into them."""
    return table, index


def _fast_used_rows(table: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    if index.device.type != "cpu":
        return used_rows(table, index)  # a GPU is done with all rows before Python knows which
    lowest, highest = index.aminmax()
    return table[lowest : highest + 1], index - lowest


def relative_scores(x: Tensor, table: Tensor, index: Tensor, scale: Tensor) -> Tensor:
    """The products of each row with vectors of distances, by scale (He et al. 2020, arXiv 2006.03654, section 3.1).

    x is (B N, R, D), table (N, S, D), one for each head; index is (R, C), which vector: it depends on the distance
    from row to column alone. Returns (B, N, R, C).
    """
    products = torch.bmm(x, table.repeat(len(x) // len(table), 1, 1).transpose(1, 2))
    scores = products.gather(-1, index.expand(len(x), -1, -1)) / scale
    return scores.unflatten(0, (-1, len(table)))


def _fast_relative_scores(x: Tensor, table: Tensor, index: Tensor, scale: Tensor) -> Tensor:
    """A product for each of the R + C - 1 distances that occur: row r has its C one place left of those of r - 1.

    So nothing is gathered but vectors, and no gradient is scattered but theirs.
    """
    heads, (rows, columns) = len(table), index.shape
    distances = torch.cat([index[:, 0].flip(0), index[0, 1:]])
    table = (table / scale)[:, distances]
    x = x.unflatten(0, (-1, heads)).transpose(0, 1)  # (N, B, R, D)
    products = x.flatten(1, 2) @ table.transpose(1, 2)  # (N, B R, R + C - 1)
    width = rows + columns - 1
    sizes = (x.size(1), heads, rows, columns)
    return products.as_strided(sizes, (rows * width, x.size(1) * rows * width, width - 1, 1), rows - 1)


KERNELS = {
    "reference": Kernels(
        cls_only=False,
        linear=linear,
        linear_act=linear_act,
        dropout=F.dropout,
        dropout_add=dropout_add,
        attention=attention,
        used_rows=used_rows,
        relative_scores=relative_scores,
    ),
    "fast": Kernels(
        cls_only=True,
        linear=_fast_linear,
        linear_act=_fast_linear_act,
        dropout=_fast_dropout,
        dropout_add=_fast_dropout_add,
        attention=fast_attention,
        used_rows=_fast_used_rows,
        relative_scores=_fast_relative_scores,
    ),
}
