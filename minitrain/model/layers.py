"""The pieces of a Transformer encoder: attention, feed-forward, post-norm block.

Blind to the family and to the checkpoint: constructors take plain values, parameters are registered in the
reference's order, because a gradient norm depends on it in the last bit. Operations follow transformers 5.23
models/bert/modeling_bert.py, which follows Devlin et al. 2018 (arXiv 1810.04805).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitrain.kernels.reference import Kernels

# ---- activations, by the names that config.json has for them: (...) -> (...) ------------------------------------

# Some are one function in other steps, with other last bits: written as in activations.py of transformers 5.23.


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _gelu_new(x: Tensor) -> Tensor:
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


def _gelu_python_tanh(x: Tensor) -> Tensor:
    return x * 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


def _gelu_fast(x: Tensor) -> Tensor:
    return 0.5 * x * (1.0 + torch.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x)))


def _gelu_python(x: Tensor) -> Tensor:
    return x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))


def _gelu_10(x: Tensor) -> Tensor:
    return torch.clip(F.gelu(x), -10, 10)


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def _laplace(x: Tensor) -> Tensor:
    return 0.5 * (1.0 + torch.erf((x - 0.707107).div(0.282095 * math.sqrt(2.0))))


def _relu2(x: Tensor) -> Tensor:
    return torch.square(F.relu(x))


def _linear(x: Tensor) -> Tensor:
    return x


def _sqrtsoftplus(x: Tensor) -> Tensor:
    return F.softplus(x).sqrt()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_10": _gelu_10,
    "gelu_accurate": _gelu_new,
    "gelu_fast": _gelu_fast,
    "gelu_new": _gelu_new,
    "gelu_python": _gelu_python,
    "gelu_python_tanh": _gelu_python_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "hardswish": F.hardswish,
    "laplace": _laplace,
    "leaky_relu": F.leaky_relu,
    "linear": _linear,
    "mish": F.mish,
    "quick_gelu": _quick_gelu,
    "relu": F.relu,
    "relu2": _relu2,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "sqrtsoftplus": _sqrtsoftplus,
    "swish": F.silu,
    "tanh": torch.tanh,
}


@dataclass(frozen=True, kw_only=True)
class Context:
    """What every block of one forward pass shares: the mask and the arithmetic."""

    mask: Tensor | None  # (B, 1, 1, L) bool, True where every query may look; None when nothing is padding
    kernels: Kernels
    shared: Any = None  # what the family's `shared` made of this pass


def attention_context(attention_mask: Tensor | None, kernels: Kernels, shared: Any = None) -> Context:
    """Build the context from a padding mask (B, L), non-zero at real tokens, or None where all are real."""
    return Context(mask=padding_mask(attention_mask), kernels=kernels, shared=shared)


def padding_mask(attention_mask: Tensor | None) -> Tensor | None:
    """(B, L), non-zero at real tokens, -> (B, 1, 1, L) bool; None where all are real and asking costs nothing."""
    if attention_mask is None:
        return None
    # A GPU would have to be waited for, and compiled code does not branch on numbers.
    free = attention_mask.device.type == "cpu" and not torch.compiler.is_compiling()
    if free and bool(attention_mask.all()):
        return None
    return attention_mask.bool()[:, None, None, :]


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the points whose coordinates are the two halves of x: (B, L, N, D) -> (B, L, N, D).

    cos, sin: of the angles, (L, 1, D), the same for both halves. In float32 whatever x is, as the reference has it.
    Source: Su et al. 2021, "RoFormer", arXiv 2104.09864; modeling_modernbert.py of transformers 5.23.
    """
    first, second = x.float().chunk(2, dim=-1)
    # x is cast a second time: its two gradients are then rounded one by one, as in the reference.
    return (x.float() * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention and its output projection: (B, L, H) -> (B, L, H)."""

    def __init__(self, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, context: Context, queries: int | None = None) -> Tensor:
        linear = context.kernels.linear
        if queries is None:
            q, k, v = linear(x, self.query, self.key, self.value)
        else:
            (q,), (k, v) = linear(x[:, :queries], self.query), linear(x, self.key, self.value)
        mixed = self.mix(self._split(q), self._split(k), self._split(v), context)
        return linear(mixed.transpose(1, 2).flatten(2), self.output)[0]

    def mix(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """(B, N, queries, D) and twice (B, N, L, D) -> (B, N, queries, D); a family may have its own."""
        return context.kernels.attention(q, k, v, context.mask, self.dropout if self.training else 0.0)

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, H) -> (B, N, L, D)"""
        return x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2)


class FeedForward(nn.Module):
    """Two projections with an activation between: (B, L, H) -> (B, L, intermediate) -> (B, L, H)."""

    def __init__(self, hidden_size: int, intermediate_size: int, activation: str) -> None:
        super().__init__()
        self.intermediate = nn.Linear(hidden_size, intermediate_size)
        self.activation = ACTIVATIONS[activation]
        self.output = nn.Linear(intermediate_size, hidden_size)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        wide = context.kernels.linear_act(x, self.intermediate, self.activation)
        return context.kernels.linear(wide, self.output)[0]


def in_chunks(function: Callable[[Tensor], Tensor], x: Tensor, size: int) -> Tensor:
    """A function of each position, in parts of `size` positions, of all at once where that is not positive.

    (B, L, H) -> (B, L, H). Parts take less memory; the last may be shorter, which transformers 5.23 refuses.
    """
    if size <= 0:
        return function(x)
    return torch.cat([function(part) for part in x.split(size, dim=1)], dim=1)


class GatedFeedForward(nn.Module):
    """Half of a wide projection, activated, times the other half; projected back: (B, L, H) -> (B, L, H).

    dropout: of the product. Source: Shazeer 2020, "GLU Variants Improve Transformer", arXiv 2002.05202.
    """

    def __init__(
        self, hidden_size: int, intermediate_size: int, activation: str, dropout: float, bias: bool
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.activation = ACTIVATIONS[activation]
        self.intermediate = nn.Linear(hidden_size, 2 * intermediate_size, bias=bias)
        self.output = nn.Linear(intermediate_size, hidden_size, bias=bias)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        kernels = context.kernels
        active, gate = kernels.linear(x, self.intermediate)[0].chunk(2, dim=-1)
        wide = kernels.dropout(self.activation(active) * gate, self.dropout, self.training)
        return kernels.linear(wide, self.output)[0]


class Block(nn.Module):
    """Attention, then feed-forward, each with dropout, a residual and a LayerNorm after: (B, L, H) -> (B, L, H).

    attention: module (x, context, queries) -> (B, queries, H). attention_output_dropout, feed_forward_dropout: of
    what each of the two gives, before the residual is added. chunk_size: as of `in_chunks`.
    """

    def __init__(
        self,
        *,
        attention: nn.Module,
        hidden_size: int,
        intermediate_size: int,
        activation: str,
        attention_output_dropout: float,
        feed_forward_dropout: float,
        layer_norm_eps: float,
        chunk_size: int = 0,
    ) -> None:
        super().__init__()
        self.chunk_size = chunk_size
        self.attention_output_dropout = attention_output_dropout
        self.feed_forward_dropout = feed_forward_dropout
        self.attention = attention
        self.attention_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.feed_forward = FeedForward(hidden_size, intermediate_size, activation)
        self.feed_forward_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)

    def forward(self, x: Tensor, context: Context, queries: int | None = None) -> Tensor:
        """queries: compute only the first so many positions, (B, queries, H); None for all."""
        dropout_add = context.kernels.dropout_add
        # Before x is sliced: the gradients of x are summed in the order of these two lines, to the last bit.
        mixed = self.attention(x, context, queries)
        x = self.attention_norm(dropout_add(x[:, :queries], mixed, self.attention_output_dropout, self.training))

        def rest(x: Tensor) -> Tensor:
            wide = self.feed_forward(x, context)
            return self.feed_forward_norm(dropout_add(x, wide, self.feed_forward_dropout, self.training))

        return in_chunks(rest, x, self.chunk_size)
