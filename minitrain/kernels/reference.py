"""The operations of a model in plain PyTorch: those of transformers 5.23, in its order, bit for bit.

A model calls the functions of the `Kernels` it is given and does not know which these are. `fast.py` has a faster
twin for each function here; only its random numbers and last bits differ.

Shapes as in `model/layers.py`: B batch, L length, H hidden, N heads, D head size; Q queries, S distances.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """The functions that a model is computed with; each has the signature of the function of its name below."""

    cls_only: bool  # whether the last block computes only the first position where the head reads no other
    linear: Callable[..., tuple[Tensor, ...]]
    linear_act: Callable[[Tensor, nn.Linear, Activation], Tensor]
    dropout: Callable[[Tensor, float, bool], Tensor]  # as F.dropout
    dropout_add: Callable[[Tensor, Tensor, float, bool], Tensor]
    attention: Callable[[Tensor, Tensor, Tensor, Tensor | None, float], Tensor]
    used_rows: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    relative_scores: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def linear(x: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
    """The outputs of linear layers on the same x: (B, L, in) -> (B, L, out) each."""
    return tuple(layer(x) for layer in layers)


def linear_act(x: Tensor, layer: nn.Linear, activation: Activation) -> Tensor:
    """A linear layer, then an activation: (B, L, in) -> (B, L, out)."""
    return activation(layer(x))


def dropout_add(residual: Tensor, x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout of x, then the residual connection."""
    return F.dropout(x, p, training) + residual


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762, equation 1).

    Args:
        q: (B, N, Q, D).
        k: (B, N, L, D).
        v: (B, N, L, D).
        mask: (B, 1, Q or 1, L), True where a query may look, or a float bias for the scores.
        dropout_p: Probability of dropping an attention weight.

    Returns:
        (B, N, Q, D).
    """
    if mask is not None:
        mask = mask.expand(-1, -1, q.size(2), -1)
    scale = q.size(-1) ** -0.5
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p, scale=scale)


def used_rows(table: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of an embedding table (S, H) to compute when `index` is looked up, and the index into them."""
    return table, index


def relative_scores(x: Tensor, table: Tensor, index: Tensor, scale: Tensor) -> Tensor:
    """Attention scores of contents with relative positions (He et al. 2020, arXiv 2006.03654, section 3.1).

    Args:
        x: Queries or keys, (B N, Q, D).
        table: A vector for each distance, (N, S, D).
        index: The row of `table` for each query and key, (Q, L); it depends on their distance alone.
        scale: Divides the scores; 0-dim.

    Returns:
        (B, N, Q, L).
    """
    products = torch.bmm(x, table.repeat(len(x) // len(table), 1, 1).transpose(1, 2))  # (B N, Q, S)
    scores = products.gather(-1, index.expand(len(x), -1, -1)) / scale
    return scores.unflatten(0, (-1, len(table)))


REFERENCE = Kernels(
    cls_only=False,
    linear=linear,
    linear_act=linear_act,
    dropout=F.dropout,
    dropout_add=dropout_add,
    attention=attention,
    used_rows=used_rows,
    relative_scores=relative_scores,
)
