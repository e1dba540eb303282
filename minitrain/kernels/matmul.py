"""The matrix multiplications of a linear layer; on a CPU by the faster of PyTorch's own choice and oneDNN.

PyTorch's choice is MKL, which uses only AVX2 on AMD's processors; oneDNN does not. The two round differently, so a
resumed run must use the library that the interrupted run chose. A GPU always uses cuBLAS.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Matmul = Callable[[Tensor, Tensor, Tensor | None], Tensor]
_LONGEST = 1 << 18  # rows of a batch whose bias gradient is a product with ones
_chosen: dict[str, int] = {}  # by name and dtype, an index into MATMULS; the same for the whole process


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """(M, in), (out, in) or what `to_onednn_layout` gives -> (M, out), then "none" or "gelu"."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "none")
    return out


@cache
def onednn_supports(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies this dtype on this processor."""
    if not torch.backends.mkldnn.is_available():
        return False
    native: bool = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return native or dtype == torch.float32


def to_onednn_layout(weight: Tensor) -> Tensor:
    """A weight (out, in) in oneDNN's layout, which only `onednn_linear` reads."""
    laid: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, 1024)  # for 1024 rows, but it takes any number
    return laid


# By PyTorch, then by oneDNN. The names stand in the checkpoints of runs.
MATMULS: dict[str, tuple[Matmul, Matmul]] = {
    "output": (F.linear, onednn_linear),  # x, weight, bias
    "gradient of x": (lambda g, w, _: g @ w, lambda g, w, _: onednn_linear(g, w.t(), None)),
    "gradient of weight": (lambda g, x, _: g.t() @ x, lambda g, x, _: onednn_linear(g.t(), x.t(), None)),
}


def forward_matmul(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (M, in), weight (out, in), bias (out,) or None -> (M, out)."""
    return (F.linear if x.device.type != "cpu" else fastest_matmul("output", x.dtype))(x, weight, bias)


def grad_input(g: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """g (M, out), weight (out, in) -> (M, in) in a dtype."""
    if g.device.type != "cpu":
        return _gpu_matmul(g, weight, dtype)
    return fastest_matmul("gradient of x", g.dtype)(g, weight, None).to(dtype)


def grad_weight(g: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    """g (M, out), x (M, in) -> (out, in) in a dtype."""
    if g.device.type != "cpu":
        return _gpu_matmul(g.t(), x, dtype)
    return fastest_matmul("gradient of weight", g.dtype)(g, x, None).to(dtype)


def grad_bias(g: Tensor, dtype: torch.dtype) -> Tensor:
    """g (M, out) -> (out,) in a dtype."""
    if g.device.type == "cpu" or len(g) > _LONGEST:
        return g.sum(0).to(dtype)
    # On a GPU a product with ones takes half the time of a sum.
    return _gpu_matmul(_ones(g.device, g.dtype)[:, : len(g)], g, dtype)[0]


def _gpu_matmul(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """16 bits are summed in float32; asking for float32 spares the rounding and a kernel."""
    if dtype == torch.float32 and a.dtype in (torch.bfloat16, torch.float16):
        return torch.mm(a, b, out_dtype=dtype)
    return (a @ b).to(dtype)


@cache
def _ones(device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.ones(1, _LONGEST, device=device, dtype=dtype)


class JointLinear(torch.autograd.Function):
    """Linear layers with one input as a single multiplication in the dtype of the joint weight.

    Autocast casts each weight separately, and on a CPU their gradients pass a transposing copy that takes longer
    than the multiplication.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, count: int, *parameters: Tensor
    ) -> Tensor:
        """weight and bias are joined from the parameters, `count` weights and then biases, which get gradients."""
        rows = x.reshape(-1, x.size(-1)).to(weight.dtype)  # (M, in)
        ctx.save_for_backward(rows, weight)
        ctx.x_like, ctx.param_dtype = (x.shape, x.dtype), parameters[0].dtype
        ctx.sizes, ctx.biased = [len(part) for part in parameters[:count]], bias is not None
        return forward_matmul(rows, weight, bias).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        shape, dtype = ctx.x_like
        g = gradients[0].reshape(-1, len(weight)).to(weight.dtype)  # (M, out)
        dx = grad_input(g, weight, dtype).view(shape) if ctx.needs_input_grad[0] else None
        if not any(ctx.needs_input_grad[4:]):
            return dx, *[None] * (len(ctx.needs_input_grad) - 1)
        dw = grad_weight(g, rows, ctx.param_dtype).split(ctx.sizes)
        db = grad_bias(g, ctx.param_dtype).split(ctx.sizes) if ctx.biased else ()
        return dx, None, None, None, *dw, *db


def available_matmuls(name: str, dtype: torch.dtype) -> tuple[Matmul, ...]:
    """PyTorch's, and oneDNN's if it supports the dtype on this processor."""
    return MATMULS[name] if onednn_supports(dtype) else MATMULS[name][:1]


def fastest_matmul(name: str, dtype: torch.dtype) -> Matmul:
    """The faster of the two on this processor; in float32 they are timed once.

    oneDNN must win clearly, so that the same machine chooses the same at every start. In bfloat16 PyTorch calls
    oneDNN too, but first copies the bias into a whole matrix.
    """
    matmuls, key = available_matmuls(name, dtype), f"{name}, {dtype}"
    if key not in _chosen and dtype in (torch.bfloat16, torch.float16):
        _chosen[key] = int(name == "output" and len(matmuls) > 1)
    if key not in _chosen:
        plain, *others = _seconds(matmuls, *torch.ones(2, 384, 384, dtype=dtype))
        _chosen[key] = int(any(1.3 * other < plain for other in others))
    return matmuls[_chosen[key]]


def chosen_matmul(dtype: torch.dtype) -> dict[str, int]:
    """The choices of this process; those of a dtype are made now if they were not yet."""
    for name in MATMULS:
        fastest_matmul(name, dtype)
    return dict(_chosen)


def choose_matmul(chosen: Mapping[str, int]) -> None:
    """Make the choices of another process, from its `chosen_matmul`, as far as this processor has them."""
    for name in MATMULS:
        for dtype in (torch.float32, torch.bfloat16):
            key = f"{name}, {dtype}"
            if chosen.get(key, -1) in range(len(available_matmuls(name, dtype))):
                _chosen[key] = chosen[key]


@torch.no_grad()
def _seconds(matmuls: Sequence[Matmul], first: Tensor, second: Tensor) -> list[float]:
    """The least processor time of each, called in turn on one thread: wall time depends on what else is running."""

    def once(matmul: Matmul) -> float:
        start = time.thread_time()
        matmul(first, second, None)
        return time.thread_time() - start

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rounds = [[once(matmul) for matmul in matmuls] for _ in range(5)]
    finally:
        torch.set_num_threads(threads)
    return [min(times) for times in zip(*rounds, strict=True)]
