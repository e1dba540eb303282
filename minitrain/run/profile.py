"""`--profile`: where the time of a training step goes, and how much of the machine's speed it uses.

The phases are told apart by hooks of torch on model, parameters and optimizer, so the step does not know of it.
"""

import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch

from minitrain.kernels.matmul import MATMULS, available_matmuls
from minitrain.kernels.precision import device_of
from minitrain.model.classifier import SequenceClassifier
from minitrain.model.freezing import frozen_layers
from minitrain.training.evaluation import Evaluation
from minitrain.training.kept_activations import UpperLayers
from minitrain.training.loop import Observer, StepLog
from minitrain.training.step import TrainState

PHASES = ("data", "forward", "backward", "clip", "optimizer")


class Profiler:
    """An observer that adds up the seconds of each phase, of whole steps, and their operations.

    Passes what it is told on to another observer.
    """

    def __init__(self, state: TrainState, observer: Observer) -> None:
        self.model, self.device, self.observer = state.model, device_of(state.model), observer
        self.totals: defaultdict[str, float] = defaultdict(float)
        self._last = self._first_forward = 0.0
        self.kept = isinstance(state.parallel, UpperLayers)
        state.parallel.register_forward_pre_hook(lambda *_: self._forward_begins())
        state.parallel.register_forward_hook(lambda *_: self._ended("forward"))
        weights = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        torch.autograd.graph.register_multi_grad_hook(weights, lambda _: self._ended("backward"))
        state.optimizer.register_step_pre_hook(lambda *_: self._ended("clip"))
        state.optimizer.register_step_post_hook(lambda *_: self._ended("optimizer"))

    def _forward_begins(self) -> None:
        self._ended("between")
        if self.model.training:
            self._first_forward = self._first_forward or self._last

    def _ended(self, phase: str) -> None:
        if not self.model.training:  # an evaluation
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.totals[phase] += now - self._last
        self._last = now

    def on_step(self, log: StepLog) -> None:
        began = time.perf_counter() - log.seconds
        self.totals["steps"] += 1
        self.totals["step"] += log.seconds
        self.totals["data"] += self._first_forward - began
        self.totals["flops"] += sum(training_flops(self.model, *shape, kept=self.kept) for shape in log.shapes)
        self._first_forward = 0.0
        self.observer.on_step(log)

    def on_evaluation(self, step: int, epoch: float, results: dict[str, Evaluation], is_best: bool) -> None:
        self.observer.on_evaluation(step, epoch, results, is_best)


def training_flops(model: SequenceClassifier, rows: int, length: int, kept: bool = False) -> float:
    """Operations of the matrix products of one padded batch, forward and backward; multiplying and adding are two.

    Backward has two products for each of forward; frozen layers have none, and nothing at all if their output is
    kept. Embeddings and head are left out: less than a hundredth.
    """
    config = model.config
    hidden, tokens = config.hidden_size, rows * length
    feed_forward = config.feed_forward_products * hidden * config.intermediate_size

    def block(queries: int) -> int:
        keys_and_values, others = 2 * hidden**2 * tokens, (2 * hidden**2 + feed_forward) * queries
        return keys_and_values + others + 2 * hidden * length * queries

    layers, frozen = len(model.encoder.layer_order), frozen_layers(model.encoder) if model.encoder.frozen else 0
    products = [(0 if kept else 1) if layer < frozen else 3 for layer in range(layers)]
    *lower, last = products
    multiplications = sum(lower) * block(tokens) + last * block(rows if model.cls_only else tokens)
    return 2.0 * multiplications


def matrix_ceiling(dtype: torch.dtype, device: torch.device, size: int = 2048, repeats: int = 5) -> float:
    """Operations a second of the fastest of some large square products: the most that the machine reaches."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    for matmul in available_matmuls("output", dtype) if device.type == "cpu" else MATMULS["output"][:1]:
        for _ in range(repeats):
            start = time.perf_counter()
            matmul(a, b, None)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
    return 2.0 * size**3 / min(seconds)


def profile_lines(totals: Mapping[str, float], ceiling: float, dtype: str) -> list[str]:
    """The table of the phases from `Profiler.totals`; ceiling is what `matrix_ceiling` gives."""
    whole, steps = totals["step"], int(totals["steps"])
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
