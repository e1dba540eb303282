"""The matrix products of a linear layer, each in two ways, and which of them this processor is quicker at.

MKL, PyTorch's choice, keeps to AVX2 on AMD's processors; oneDNN does not. The two differ in last bits, so whoever
wants the bits of another process, as a run that goes on does, takes its choice too.
"""

import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]
_chosen: dict[str, int] = {}  # of this process: which way each product takes, in each dtype


def onednn_product(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """(M, in), (out, in) or what `lay_out` made of it -> (M, out). activation: of the result, none or gelu."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "none")
    return out


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
        plain, *others = ways
        first, second = torch.ones(2, 512, 512, dtype=dtype)
        quicker = [1.3 * _seconds(other, first, second) < _seconds(plain, first, second) for other in others]
        _chosen[key] = int(any(quicker))
    return ways[_chosen[key]]


def chosen_products(dtype: torch.dtype) -> dict[str, int]:
    """Which way each product takes in this process, those of the dtype tried out where they were not yet."""
    for name in PRODUCTS:
        product(name, dtype)
    return dict(_chosen)


def choose_products(chosen: Mapping[str, int]) -> None:
    """Take the ways of another process, as `chosen_products` tells them, where they are there."""
    for name in PRODUCTS:
        for dtype in (torch.float32, torch.bfloat16):
            key = f"{name}, {dtype}"
            if chosen.get(key, -1) in range(len(products(name, dtype))):
                _chosen[key] = chosen[key]


@torch.no_grad()
def _seconds(product: Product, first: Tensor, second: Tensor) -> float:
    """Of the quickest of some calls: what else the machine does only adds to the others."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        product(first, second, None)
        times.append(time.perf_counter() - start)
    return min(times)
