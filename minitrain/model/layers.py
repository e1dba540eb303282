"""The parts of a Transformer encoder: attention, feed-forward, post-norm block.

Shapes, here and in all other files: B batch, L length, H hidden, N heads, D head size (H / N), V vocabulary,
C classes; Q queries, the first positions of L that are computed.

Constructors take plain values, not a checkpoint's configuration. Parameters are registered in the reference's
order, because the gradient norm depends on it in the last bit. Operations follow transformers 5.23
models/bert/modeling_bert.py, which follows Devlin et al. 2018 (arXiv 1810.04805).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitrain.kernels.reference import Kernels


@dataclass(frozen=True, kw_only=True)
class Context:
    """What all blocks of one forward pass get: the mask, the kernels, and what their family computes once."""

    mask: Tensor | None  # (B, 1, 1, L) bool, True at real tokens; None when nothing is padding
    kernels: Kernels
    shared: Any = None  # the output of `Family.per_forward`


def padding_mask(attention_mask: Tensor | None) -> Tensor | None:
    """(B, L), non-zero at real tokens -> (B, 1, 1, L) bool; None if all are real and finding out costs nothing."""
    if attention_mask is None:
        return None
    # On a GPU Python would wait for the answer, and compiled code does not branch on values.
    free = attention_mask.device.type == "cpu" and not torch.compiler.is_compiling()
    if free and bool(attention_mask.all()):
        return None
    return attention_mask.bool()[:, None, None, :]


def apply_rotary_emb(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding, (B, L, N, D) -> (B, L, N, D); cos and sin of the angles are (L, 1, D).

    Computed in float32, as in the reference. Source: Su et al. 2021, "RoFormer", arXiv 2104.09864;
    modeling_modernbert.py of transformers 5.23.
    """
    first, second = x.float().chunk(2, dim=-1)
    # The second cast of x makes autograd round its two gradients separately, as in the reference.
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
            q, k, v = linear(x, self.query, self.key, self.value)  # (B, L, H) each
        else:
            (q,), (k, v) = linear(x[:, :queries], self.query), linear(x, self.key, self.value)
        mixed = self.attend(self._split(q), self._split(k), self._split(v), context)  # (B, N, Q, D)
        return linear(mixed.transpose(1, 2).flatten(2), self.output)[0]  # (B, Q, H)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """(B, N, Q, D), (B, N, L, D), (B, N, L, D) -> (B, N, Q, D); some families override it."""
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


def apply_chunking(function: Callable[[Tensor], Tensor], x: Tensor, size: int) -> Tensor:
    """Apply a positionwise function to `size` positions at a time, which takes less memory; 0 for all at once.

    The last chunk may be shorter, which transformers 5.23 refuses.
    """
    if size <= 0:
        return function(x)
    return torch.cat([function(part) for part in x.split(size, dim=1)], dim=1)


class GatedFeedForward(nn.Module):
    """A gated linear unit with dropout, projected back: (B, L, H) -> (B, L, intermediate) -> (B, L, H).

    Source: Shazeer 2020, "GLU Variants Improve Transformer", arXiv 2002.05202.
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
    """Attention, then feed-forward, each followed by dropout, a residual connection and a LayerNorm.

    (B, L, H) -> (B, L, H), or (B, Q, H) when `queries` asks for the first positions alone. `attention` is a module
    (x, context, queries) -> (B, Q, H); `chunk_size` goes to `apply_chunking`.
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
        dropout_add = context.kernels.dropout_add
        # Before x is sliced: autograd sums the gradients of x in the order of these two lines.
        mixed = self.attention(x, context, queries)
        x = self.attention_norm(dropout_add(x[:, :queries], mixed, self.attention_output_dropout, self.training))

        def rest(x: Tensor) -> Tensor:
            wide = self.feed_forward(x, context)
            return self.feed_forward_norm(dropout_add(x, wide, self.feed_forward_dropout, self.training))

        return apply_chunking(rest, x, self.chunk_size)


def _gelu_new(x: Tensor) -> Tensor:
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


def _gelu_fast(x: Tensor) -> Tensor:
    return 0.5 * x * (1.0 + torch.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x)))


def _gelu_python(x: Tensor) -> Tensor:
    return x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))


def _gelu_10(x: Tensor) -> Tensor:
    return torch.clip(F.gelu(x), -10, 10)


def _laplace(x: Tensor) -> Tensor:
    return 0.5 * (1.0 + torch.erf((x - 0.707107).div(0.282095 * math.sqrt(2.0))))


def _linear(x: Tensor) -> Tensor:
    return x


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def _relu2(x: Tensor) -> Tensor:
    return torch.square(F.relu(x))


def _sqrtsoftplus(x: Tensor) -> Tensor:
    return F.softplus(x).sqrt()


# All that transformers 5.23 has under a name, except those with parameters (prelu, xielu).
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_10": _gelu_10,
    "gelu_accurate": _gelu_new,
    "gelu_fast": _gelu_fast,
    "gelu_new": _gelu_new,
    "gelu_python": _gelu_python,
    "gelu_python_tanh": _gelu_new,
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
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
