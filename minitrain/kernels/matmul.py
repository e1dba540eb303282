"""The matrix products of a linear layer: on a CPU each in two ways, and which of them this processor is quicker at.

MKL, PyTorch's choice, keeps to AVX2 on AMD's processors; oneDNN does not. The two differ in last bits, so whoever
wants the bits of another process, as a run that goes on does, takes its choice too. A GPU has one way, cuBLAS.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]
_ONES = 1 << 18  # as many rows as a batch of any use has
_chosen: dict[str, int] = {}  # of this process: which way each product takes, in each dtype


def onednn_product(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """(M, in), (out, in) or what `lay_out` made of it -> (M, out). activation: of the result, none or gelu."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "none")
    return out


@cache
def onednn_multiplies(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there and takes the dtype on this processor."""
    if not torch.backends.mkldnn.is_available():
        return False
    native: bool = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return native or dtype == torch.float32


def lay_out(weight: Tensor) -> Tensor:
    """(out, in) -> the same as oneDNN has it for itself, opaque to all but `onednn_product`."""
    laid: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, 1024)  # for that many rows, but it takes any
    return laid


# The three products of a linear layer, first as PyTorch would compute them, then by oneDNN whatever the processor.
PRODUCTS: dict[str, tuple[Product, Product]] = {
    "output": (F.linear, onednn_product),  # of x, weight, bias
    "gradient of x": (lambda g, w, _: g @ w, lambda g, w, _: onednn_product(g, w.t(), None)),
    "gradient of weight": (lambda g, x, _: g.t() @ x, lambda g, x, _: onednn_product(g.t(), x.t(), None)),
}


def output(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (M, in), weight (out, in), bias (out,) or None -> (M, out)."""
    return (F.linear if x.device.type != "cpu" else product("output", x.dtype))(x, weight, bias)


def gradient_of_x(g: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """g (M, out), weight (out, in) -> (M, in) of a dtype."""
    if g.device.type != "cpu":
        return _product_of_dtype(g, weight, dtype)
    return product("gradient of x", g.dtype)(g, weight, None).to(dtype)


def gradient_of_weight(g: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    """g (M, out), x (M, in) -> (out, in) of a dtype."""
    if g.device.type != "cpu":
        return _product_of_dtype(g.t(), x, dtype)
    return product("gradient of weight", g.dtype)(g, x, None).to(dtype)


def gradient_of_bias(g: Tensor, dtype: torch.dtype) -> Tensor:
    """g (M, out) -> (out,) of a dtype."""
    if g.device.type == "cpu" or len(g) > _ONES:
        return g.sum(0).to(dtype)
    # On a GPU a product with ones takes half the time of a sum.
    return _product_of_dtype(_ones(g.device, g.dtype)[:, : len(g)], g, dtype)[0]


def _product_of_dtype(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """A GPU's product. It sums bfloat16 in float32, not rounded where float32 is wanted: one kernel less."""
    if dtype == torch.float32 and a.dtype == torch.bfloat16:
        return torch.mm(a, b, out_dtype=dtype)
    return (a @ b).to(dtype)


@cache
def _ones(device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.ones(1, _ONES, device=device, dtype=dtype)


class JointLinear(torch.autograd.Function):
    """Layers with one input as a single product, (M, in) x (in, out of all), in the dtype asked for.

    Autocast casts each weight by itself, and on a CPU brings each gradient back by a transposing copy that costs
    more than the product; here a weight is cast on its way into the joint matrix, and a gradient comes as it lies.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, count: int, *parameters: Tensor
    ) -> Tensor:
        """weight, bias: made of the parameters, whose gradients are wanted."""
        rows = x.reshape(-1, x.size(-1)).to(weight.dtype)
        ctx.save_for_backward(rows, weight)
        ctx.like, ctx.own = (x.shape, x.dtype), parameters[0].dtype
        ctx.sizes, ctx.biased = [len(part) for part in parameters[:count]], bias is not None
        return output(rows, weight, bias).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        shape, dtype = ctx.like
        g = gradients[0].reshape(-1, len(weight)).to(weight.dtype)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = gradient_of_x(g, weight, dtype).view(shape)
        if not any(ctx.needs_input_grad[4:]):
            return of_x, *[None] * (len(ctx.needs_input_grad) - 1)
        of_weight = gradient_of_weight(g, rows, ctx.own)
        of_biases = gradient_of_bias(g, ctx.own).split(ctx.sizes) if ctx.biased else ()
        return of_x, None, None, None, *of_weight.split(ctx.sizes), *of_biases


def products(name: str, dtype: torch.dtype) -> tuple[Product, ...]:
    """The ways to compute a product on this processor: PyTorch's, and oneDNN's where it takes the dtype."""
    return PRODUCTS[name] if onednn_multiplies(dtype) else PRODUCTS[name][:1]


def product(name: str, dtype: torch.dtype) -> Product:
    """The quicker of the two on this processor, in float32 tried out once.

    oneDNN must win clearly, so that the same machine chooses the same at every start. In bfloat16 PyTorch takes
    oneDNN too, but lays out a bias as a whole matrix first.
    """
    ways, key = products(name, dtype), f"{name}, {dtype}"
    if key not in _chosen and dtype == torch.bfloat16:
        _chosen[key] = int(name == "output" and len(ways) > 1)
    if key not in _chosen:
        plain, *others = _seconds(ways, *torch.ones(2, 384, 384, dtype=dtype))
        _chosen[key] = int(any(1.3 * other < plain for other in others))
    return ways[_chosen[key]]


def chosen_matmul(dtype: torch.dtype) -> dict[str, int]:
    """Which way each product takes in this process, those of the dtype tried out where they were not yet."""
    for name in PRODUCTS:
        product(name, dtype)
    return dict(_chosen)


def choose_matmul(chosen: Mapping[str, int]) -> None:
    """Take the ways of another process, as `chosen_matmul` tells them, where they are there."""
    for name in PRODUCTS:
        for dtype in (torch.float32, torch.bfloat16):
            key = f"{name}, {dtype}"
            if chosen.get(key, -1) in range(len(products(name, dtype))):
                _chosen[key] = chosen[key]


@torch.no_grad()
def _seconds(ways: Sequence[Product], first: Tensor, second: Tensor) -> list[float]:
    """Processor time of the quickest call of each way, called in turn, on one thread.

    Not wall time, and not that of threads that wait for each other: on a busy machine they would say anything.
    """

    def once(way: Product) -> float:
        start = time.thread_time()
        way(first, second, None)
        return time.thread_time() - start

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rounds = [[once(way) for way in ways] for _ in range(5)]
    finally:
        torch.set_num_threads(threads)
    return [min(times) for times in zip(*rounds, strict=True)]
