"""Attention computed faster than by PyTorch's own choice of kernel, (B, N, L, D) three times -> (B, N, L, D).

`reference.attention` is the plain form, and says what the arguments are.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel

from minitrain.kernels.dropout import is_half, keep_mask
from minitrain.kernels.reference import attention

# Keys of a query, and tokens of a batch, from which cuDNN's attention is faster (measured on an H200).
CUDNN_KEYS, CUDNN_TOKENS = 64, 2048


def fast_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float) -> Tensor:
    """`reference.attention` in less time, equal up to rounding and dropout's random numbers."""
    if q.device.type != "cpu":
        return _gpu_attention(q, k, v, mask, dropout_p)
    if dropout_p == 0.0:
        if k.dtype == torch.bfloat16 and not torch.is_grad_enabled():
            k, v, mask = _pad_keys(k, v, mask)
        return attention(q, k, v, mask, dropout_p)
    # Autocast would make the softmax float32, in which it computes internally anyway.
    with torch.autocast("cpu", enabled=False):
        out: Tensor = _AttentionWithDropout.apply(q, k, v, mask, dropout_p)
        return out


def _gpu_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float) -> Tensor:
    """cuDNN, PyTorch's choice in bfloat16, generates code for each shape (0.15 s) and is slower for small ones."""
    large = k.size(2) > CUDNN_KEYS and q.size(0) * q.size(2) > CUDNN_TOKENS
    if large or torch.compiler.is_compiling() or q.device.type == "mps":
        return attention(q, k, v, mask, dropout_p)
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        return attention(q, k, v, mask, dropout_p)


def _pad_keys(k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Pad the keys with masked ones to a multiple of 16, which PyTorch's bf16 kernel packs faster.

    The mask becomes a bias: PyTorch would expand a boolean one to a row for each query first.
    """
    batch, heads, length, size = k.shape
    if mask is not None:
        mask = torch.where(mask, 0.0, -math.inf).to(k.dtype)
    if length % 16:
        both = k.new_empty(2, batch, heads, length + -length % 16, size)
        both[:, :, :, length:] = 0.0  # uninitialised memory may be NaN, and 0 * NaN is NaN
        both[0, :, :, :length], both[1, :, :, :length] = k, v
        k, v = both
        mask = F.pad(k.new_zeros(1, 1, 1, length) if mask is None else mask, (0, -length % 16), value=-math.inf)
    return k, v, mask


class _AttentionWithDropout(torch.autograd.Function):
    """Attention with dropout, for which PyTorch has no fused CPU kernel.

    Mask and scale are fused into the first product. In bfloat16, which rounds 1/0.9 to 1.109375, dropout's scale is
    fused into the other products, which sum in float32. Of the (B N, Q, L) tensors only the weights and the dropout
    mask are kept for backward.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float) -> Tensor:
        batch, heads, queries, size = q.shape
        q, k, v = (part.reshape(batch * heads, -1, size) for part in (q, k, v))
        bias = q.new_zeros(())
        if mask is not None:
            lowest = torch.finfo(q.dtype).min  # -inf would give NaN for a query that may look nowhere
            bias = torch.where(mask, 0.0, lowest).to(q.dtype).expand(-1, heads, -1, -1).flatten(0, 1)
        scores = torch.baddbmm(bias, q, k.transpose(1, 2), beta=int(mask is not None), alpha=size**-0.5)
        # PyTorch's bf16 softmax computes the rest of a row after a multiple of 32 number by number.
        ragged = scores.dtype == torch.bfloat16 and scores.size(2) % 32
        weights = scores.softmax(dim=-1, dtype=torch.float32 if ragged else None).to(scores.dtype)
        kept, scale = keep_mask((batch, heads, queries, k.size(1)), dropout_p, weights.dtype)
        kept = kept.view_as(weights)
        if not is_half(weights.dtype):
            kept, scale = kept.mul_(scale), 1.0
        ctx.save_for_backward(q, k, v, weights, kept)
        ctx.batch_heads, ctx.scale = (batch, heads), scale
        return _scaled_bmm(weights * kept, v, scale).view(batch, heads, queries, size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights, kept = ctx.saved_tensors
        g = gradients[0].reshape(q.shape)
        dv = _scaled_bmm((weights * kept).transpose(1, 2), g, ctx.scale)
        dweights = _scaled_bmm(g, v.transpose(1, 2), ctx.scale).mul_(kept)
        # The softmax's: weights * (gradients - their mean, weighted by the weights).
        dscores = torch._softmax_backward_data(dweights, weights, -1, weights.dtype).mul_(q.size(-1) ** -0.5)
        dq, dk, dv = (part.unflatten(0, ctx.batch_heads) for part in (dscores @ k, dscores.transpose(1, 2) @ q, dv))
        return dq, dk, dv, None, None


def _scaled_bmm(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """(B, R, S) @ (B, S, C) * scale, in one operation."""
    return a @ b if scale == 1.0 else torch.baddbmm(a.new_zeros(()), a, b, beta=0, alpha=scale)
