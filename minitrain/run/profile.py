"""Where the time of a training step goes, and how much of what the processor can do is used."""

import time
from collections.abc import Mapping
from typing import Any

import torch

from minitrain.kernels.matmul import MATMULS, Matmul, available_matmuls
from minitrain.model.encoder_config import EncoderConfig
from minitrain.model.families import FAMILIES

PHASES = ("data", "forward", "backward", "clip", "optimizer")


class Clock:
    """Seconds of each phase: `lap("forward")` says that the time since the last lap was the forward pass's.

    device: is waited for at every lap, where it computes on its own; None to wait for nothing.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """End a phase."""
        if self.device is not None and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now


def training_flops(config: EncoderConfig, rows: int, length: int, cls_only: bool) -> float:
    """Operations of the matrix products of one batch, forward and backward; multiplying and adding are two.

    rows, length: of the padded batch. cls_only: whether the last block computes its first position alone.
    Backward has two products for each of forward. Embeddings and head are left out: less than a hundredth.
    """
    hidden, tokens = config.hidden_size, rows * length
    feed_forward = config.feed_forward_products * hidden * config.intermediate_size

    def block(queries: int) -> int:
        keys_and_values, others = 2 * hidden**2 * tokens, (2 * hidden**2 + feed_forward) * queries
        return keys_and_values + others + 2 * hidden * length * queries

    blocks = len(FAMILIES[config.model_type].layer_order(config))
    multiplications = (blocks - 1) * block(tokens) + block(rows if cls_only else tokens)
    return 3.0 * 2.0 * multiplications


def matrix_ceiling(dtype: torch.dtype, device: torch.device, size: int = 2048, repeats: int = 5) -> float:
    """Operations a second of the quickest of some large square products: what the machine gives at best."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    matmuls = available_matmuls("output", dtype) if device.type == "cpu" else MATMULS["output"][:1]

    def seconds(matmul: Matmul) -> float:
        clock = Clock(device)
        matmul(a, b, None)
        clock.lap("product")
        return clock.seconds["product"]

    return 2.0 * size**3 / min(seconds(matmul) for matmul in matmuls for _ in range(repeats))


def profile_lines(totals: Mapping[str, float], steps: int, ceiling: float, dtype: str) -> list[str]:
    """One screen. totals: seconds by phase, `step` for the whole, and `flops`, over so many steps."""
    whole = totals["step"]
    rest = whole - sum(totals.get(phase, 0.0) for phase in PHASES)
    rows: list[tuple[str, Any]] = [(phase, totals.get(phase, 0.0)) for phase in PHASES]
    rows += [("the rest", rest), ("step", whole)]
    rate = totals["flops"] / whole
    return [
        f"where the time of a step goes, over {steps} steps",
        *(f"  {name:<12}{1000 * seconds / steps:>10.1f} ms {seconds / whole:>8.1%}" for name, seconds in rows),
        f"  {totals['flops'] / steps / 1e9:.1f} GFLOP of matrix products a step, {rate / 1e9:.0f} GFLOP/s: "
        f"{rate / ceiling:.0%} of the {ceiling / 1e9:.0f} that this machine reaches in {dtype}",
    ]
