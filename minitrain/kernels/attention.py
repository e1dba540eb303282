"""Scaled dot-product attention, (B, N, L, D) three times -> (B, N, L, D), in PyTorch's way and in quicker ones.

Source: Vaswani et al. 2017, "Attention Is All You Need", arXiv 1706.03762, equation 1.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel

from minitrain.kernels.dropout import is_half, keep_mask

# Keys of a query, and tokens of a batch, beyond which cuDNN's attention is worth its start (measured on an H200).
CUDNN_KEYS, CUDNN_TOKENS = 64, 2048


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float) -> Tensor:
    """What each query makes of the values, by PyTorch's choice of kernel.

    q is (B, N, Q, D), k and v are (B, N, L, D); mask is boolean, (B, 1, Q or 1, L), True where a query may look,
    or what is added to the scores, or None. Returns (B, N, Q, D).
    """
    if mask is not None:
        mask = mask.expand(-1, -1, q.size(2), -1)
    scale = q.size(-1) ** -0.5
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p, scale=scale)


def fast_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float) -> Tensor:
    """The same, up to rounding and the random numbers of dropout, in less time."""
    if q.device.type != "cpu":
        return _gpu_attention(q, k, v, mask, dropout_p)
    if dropout_p == 0.0:
        if k.dtype == torch.bfloat16 and not torch.is_grad_enabled():
            k, v, mask = _as_packed(k, v, mask)
        return attention(q, k, v, mask, dropout_p)
    # Autocast would have the softmax in float32, which is how it computes inside anyway.
    with torch.autocast("cpu", enabled=False):
        out: Tensor = _Attention.apply(q, k, v, mask, dropout_p)
        return out


def _gpu_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float) -> Tensor:
    """PyTorch's choice, which in bfloat16 is cuDNN, or the memory-efficient kernel where that is quicker.

    cuDNN generates code for each shape, which takes 0.15 s.
    """
    large = k.size(2) > CUDNN_KEYS and q.size(0) * q.size(2) > CUDNN_TOKENS
    if large or torch.compiler.is_compiling():
        return attention(q, k, v, mask, dropout_p)
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        return attention(q, k, v, mask, dropout_p)


def _as_packed(k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Keys, values and mask as PyTorch's kernel takes them quickest in bfloat16.

    Keys that nobody looks at, up to a multiple of 16: it packs the rest of one slowly, 40 keys after 64. And a mask
    in numbers: of a boolean one PyTorch makes a row a query first.
    """
    batch, heads, length, size = k.shape
    if mask is not None:
        mask = torch.where(mask, 0.0, -math.inf).to(k.dtype)
    if length % 16:
        both = k.new_empty(2, batch, heads, length + -length % 16, size)
        both[:, :, :, length:] = 0.0  # of NaN, a share of nothing would be NaN
        both[0, :, :, :length], both[1, :, :, :length] = k, v
        k, v = both
        mask = F.pad(k.new_zeros(1, 1, 1, length) if mask is None else mask, (0, -length % 16), value=-math.inf)
    return k, v, mask


class _Attention(torch.autograd.Function):
    """Attention with dropout, for which the CPU has no fused kernel: PyTorch's steps, but for the draw.

    Mask and scale go into the first product, and in bfloat16, where 1/0.9 would be 1.109375, dropout's scale goes
    into the others, which multiply float32 sums by it. What backward can compute again is not kept: of the tensors
    of (B N, Q, L), the largest of a block, only the weights and the dropout's mask.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float) -> Tensor:
        batch, heads, queries, size = q.shape
        q, k, v = (part.reshape(batch * heads, -1, size) for part in (q, k, v))
        bias = q.new_zeros(())
        if mask is not None:
            lowest = torch.finfo(q.dtype).min  # not infinity: a row that may look nowhere would make NaN
            bias = torch.where(mask, 0.0, lowest).to(q.dtype).expand(-1, heads, -1, -1).flatten(0, 1)
        scores = torch.baddbmm(bias, q, k.transpose(1, 2), beta=int(mask is not None), alpha=size**-0.5)
        # Of rows that are no multiple of 32 numbers PyTorch's softmax in bfloat16 takes the rest one by one.
        ragged = scores.dtype == torch.bfloat16 and scores.size(2) % 32
        weights = scores.softmax(dim=-1, dtype=torch.float32 if ragged else None).to(scores.dtype)
        kept, scale = keep_mask((batch, heads, queries, k.size(1)), dropout_p, weights.dtype)
        kept = kept.view_as(weights)
        if not is_half(weights.dtype):
            kept, scale = kept.mul_(scale), 1.0
        ctx.save_for_backward(q, k, v, weights, kept)
        ctx.shape, ctx.scale = (batch, heads), scale
        return _scaled_product(weights * kept, v, scale).view(batch, heads, queries, size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights, kept = ctx.saved_tensors
        g = gradients[0].reshape(q.shape)
        of_v = _scaled_product((weights * kept).transpose(1, 2), g, ctx.scale)
        of_weights = _scaled_product(g, v.transpose(1, 2), ctx.scale).mul_(kept)
        # Of a softmax: weights * (gradients - their mean by the weights).
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype).mul_(q.size(-1) ** -0.5)
        return (
            *(part.unflatten(0, ctx.shape) for part in (of_scores @ k, of_scores.transpose(1, 2) @ q, of_v)),
            None,
            None,
        )


def _scaled_product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """(B, R, S) @ (B, S, C) * scale, which costs nothing."""
    return a @ b if scale == 1.0 else torch.baddbmm(a.new_zeros(()), a, b, beta=0, alpha=scale)
