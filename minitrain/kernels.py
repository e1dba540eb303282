"""The operations that exist in two arithmetics, each fast one beside its plain form.

`reference` calls the same PyTorch operations in the same order as transformers 5.23, bit for bit. `fast` computes
the same function in less time; only its random numbers and last bits differ. No other module knows which is used:
they call the functions of the `Kernels` they were given.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """One arithmetic: `dropout(x, p, training)` and `attention(q, k, v, mask, dropout_p)`."""

    dropout: Callable[[Tensor, float, bool], Tensor]
    attention: Callable[[Tensor, Tensor, Tensor, Tensor | None, float], Tensor]


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762, equation 1).

    q, k, v are (B, N, L, D); mask is boolean, broadcastable to (B, N, L, L), True where a query may look, or None.
    Returns (B, N, L, D).
    """
    scale = q.size(-1) ** -0.5
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p, scale=scale)


def dropout_from_bits(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout (Srivastava et al. 2014) that decides each element by 16 random bits, drawn 64 at a time.

    PyTorch's generator on the CPU is sequential, and a Bernoulli draw takes 24 to 53 bits of it an element; this
    takes 16. The probability is p rounded to 1/65536, and the scale is exact for the rounded one, so the mean of x
    is kept. Draws from the global generator.
    """
    if not training or p == 0.0:
        return x
    threshold = round(p * 65536)
    if threshold == 65536:
        return x * 0.0
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[: x.numel()].view(x.shape)
    keep = bits >= threshold - 32768
    return x * keep.to(x.dtype).mul_(65536 / (65536 - threshold))


def _fast_dropout(x: Tensor, p: float, training: bool) -> Tensor:
    # A GPU draws in parallel inside the dropout kernel already.
    return dropout_from_bits(x, p, training) if x.device.type == "cpu" else F.dropout(x, p, training)


def _fast_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float) -> Tensor:
    if dropout_p == 0.0 or q.device.type != "cpu":
        return attention(q, k, v, mask, dropout_p)
    # With dropout the CPU has no fused attention: PyTorch takes these same steps, but for the draw.
    scores = (q * q.size(-1) ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return dropout_from_bits(scores.softmax(dim=-1), dropout_p, True) @ v


KERNELS = {
    "reference": Kernels(dropout=F.dropout, attention=attention),
    "fast": Kernels(dropout=_fast_dropout, attention=_fast_attention),
}
