"""The functions of `reference.py`, computed faster; only random numbers and last bits differ.

On a CPU layers with one input become one matrix multiplication, and dropout takes 16 random bits an element. On a
GPU only bfloat16 multiplications are joined; the rest is PyTorch's own kernels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitrain.kernels import reference
from minitrain.kernels.attention import fast_attention
from minitrain.kernels.dropout import dropout_from_bits, is_half, keep_mask
from minitrain.kernels.matmul import JointLinear
from minitrain.kernels.prepack import by_onednn, prepacked_weights, training_weights
from minitrain.kernels.reference import Activation, Kernels


def linear(x: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
    """The outputs of linear layers on the same x, from one multiplication."""
    dtype = _autocast_dtype(x)
    if not _can_join(x, layers, dtype):
        return reference.linear(x, *layers)
    if torch.compiler.is_compiling():
        out = _traceable_linear(x, layers, dtype)
    elif (prepacked := prepacked_weights()) is not None:
        out = prepacked.linear(x, layers, dtype)
    elif torch.is_autocast_enabled(_autocast_device(x)) and not torch.is_grad_enabled():
        return reference.linear(x.to(dtype), *layers)  # autocast caches the casts of weights
    else:
        weight, bias = training_weights(layers, dtype)
        biases = [layer.bias for layer in layers if layer.bias is not None]
        out = JointLinear.apply(x, weight, bias, len(layers), *[layer.weight for layer in layers], *biases)
    return out.split([layer.out_features for layer in layers], dim=-1) if len(layers) > 1 else (out,)


def _traceable_linear(x: Tensor, layers: Sequence[nn.Linear], dtype: torch.dtype) -> Tensor:
    """The joint multiplication in operations that `torch.compile` traces and differentiates."""
    weight = torch.cat([layer.weight.to(dtype) for layer in layers])
    biases = [layer.bias.to(dtype) for layer in layers if layer.bias is not None]
    return F.linear(x.to(dtype), weight, torch.cat(biases) if biases else None)


def linear_act(x: Tensor, layer: nn.Linear, activation: Activation) -> Tensor:
    """A linear layer, then an activation; oneDNN fuses a GELU."""
    prepacked, dtype = prepacked_weights(), _autocast_dtype(x)
    if (
        prepacked is not None
        and activation is F.gelu
        and by_onednn(dtype, x.device)
        and _can_join(x, (layer,), dtype)
    ):
        return prepacked.linear(x, (layer,), dtype, gelu=True)
    return activation(linear(x, layer)[0])


def _autocast_device(x: Tensor) -> str:
    return x.device.type if x.device.type != "meta" else "cuda"  # the meta device, in tests, stands for a GPU


def _autocast_dtype(x: Tensor) -> torch.dtype:
    device = _autocast_device(x)
    autocast = torch.is_autocast_enabled(device) and x.dtype != torch.float64
    return torch.get_autocast_dtype(device) if autocast else x.dtype


def _can_join(x: Tensor, layers: Sequence[nn.Linear], dtype: torch.dtype) -> bool:
    """Whether one multiplication may replace the layers, and pays: on a GPU only when weights are cast anyway."""
    pays = x.device.type == "cpu" or (dtype != layers[0].weight.dtype and x.device.type != "mps")
    alike = len({layer.bias is None for layer in layers}) == 1
    return pays and alike and all(_is_plain(layer) for layer in layers)


def _is_plain(layer: nn.Linear) -> bool:
    """No subclass, such as a low-rank adapter's, and no hook."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return type(layer) is nn.Linear and not any(hooks)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout from 16 random bits an element on a CPU; a GPU's own kernel already draws in parallel."""
    return dropout_from_bits(x, p, training) if x.device.type == "cpu" else F.dropout(x, p, training)


def dropout_add(residual: Tensor, x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout of x and the residual connection, in one multiply-add."""
    if not training or p == 0.0 or x.device.type != "cpu":
        return reference.dropout_add(residual, x, p, training)
    if is_half(residual.dtype):  # addcmul's backward would round the scale
        return residual + dropout_from_bits(x, p, training)
    mask, scale = keep_mask(x.shape, p, residual.dtype)
    return torch.addcmul(residual, x, mask, value=scale)


def used_rows(table: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The range of rows that `index` reads. A GPU computes all rows sooner than Python learns the range."""
    if index.device.type != "cpu":
        return table, index
    lowest, highest = index.aminmax()
    return table[lowest : highest + 1], index - lowest


def relative_scores(x: Tensor, table: Tensor, index: Tensor, scale: Tensor) -> Tensor:
    """One product for each of the Q + L - 1 distances that occur, and a strided view of them as (B, N, Q, L).

    A row of scores is the row before it, shifted by one: only vectors are gathered, not scores.
    """
    heads, (rows, columns) = len(table), index.shape
    distances = torch.cat([index[:, 0].flip(0), index[0, 1:]])
    table = (table / scale)[:, distances]  # (N, Q + L - 1, D)
    x = x.unflatten(0, (-1, heads)).transpose(0, 1)  # (N, B, Q, D)
    products = x.flatten(1, 2) @ table.transpose(1, 2)  # (N, B Q, Q + L - 1)
    width = rows + columns - 1
    sizes = (x.size(1), heads, rows, columns)
    return products.as_strided(sizes, (rows * width, x.size(1) * rows * width, width - 1, 1), rows - 1)


FAST = Kernels(
    cls_only=True,
    linear=linear,
    linear_act=linear_act,
    dropout=dropout,
    dropout_add=dropout_add,
    attention=fast_attention,
    used_rows=used_rows,
    relative_scores=relative_scores,
)
