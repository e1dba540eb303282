"""Regression on targets of any scale: trained as standard scores, answered on their own scale.

AdamW moves a weight by about the learning rate a step, so a new head, which begins near 0, would need thousands of
steps to reach a price of 370. Hence the targets are standardized with mean and standard deviation of the training
rows, and what undoes that is folded into the head's last layer: whoever loads the saved folder, transformers
included, reads the original scale without knowing of any of this.
"""

import math
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class TargetScale:
    """Mean and standard deviation of the training targets, in their own units: target = mean + sd * score."""

    mean: float
    sd: float

    def standardize(self, targets: Sequence[float]) -> "array[float]":
        """Targets -> standard scores, float32, computed in float64: (100, 200, 300) -> (-1.22, 0, 1.22)."""
        return array("f", ((target - self.mean) / self.sd for target in targets))


def scale_of(targets: Sequence[float]) -> TargetScale | None:
    """Mean and standard deviation (of the population, as scikit-learn's StandardScaler), in float64.

    None where the targets do not differ: there is nothing to divide by, and nothing to learn.
    """
    mean = math.fsum(targets) / len(targets)
    sd = math.sqrt(math.fsum((target - mean) ** 2 for target in targets) / len(targets))
    return TargetScale(mean, sd) if sd > 0 and max(targets) > min(targets) else None


def fold(model: "nn.Module", scale: TargetScale) -> None:
    """Make a model of standard scores one of targets: w -> sd * w, b -> sd * b + mean, in its head's last layer."""
    _rescale(model, scale.sd, scale.mean)


def unfold(model: "nn.Module", scale: TargetScale) -> None:
    """Make a model of targets one of standard scores, as a trained head needs to go on: the inverse of `fold`."""
    _rescale(model, 1 / scale.sd, -scale.mean / scale.sd)


@contextmanager
def folded(model: "nn.Module", scale: TargetScale | None) -> Iterator[None]:
    """Inside, a model in training answers as the saved one will; afterwards its weights are back, bit for bit."""
    if scale is None:
        yield
        return
    import torch

    layer = _output(model)
    kept = layer.weight.detach().clone(), layer.bias.detach().clone()
    fold(model, scale)
    try:
        yield
    finally:
        with torch.no_grad():
            layer.weight.copy_(kept[0])
            layer.bias.copy_(kept[1])


def _rescale(model: "nn.Module", factor: float, shift: float) -> None:
    import torch

    layer = _output(model)
    with torch.no_grad():
        layer.weight.copy_(_in_float64(layer.weight) * factor)
        layer.bias.copy_(_in_float64(layer.bias) * factor + shift)


def _in_float64(tensor: "Tensor") -> "Tensor":
    return tensor.detach().to("cpu").double()


def _output(model: "nn.Module") -> "nn.Linear":
    head: Any = model.head
    return cast("nn.Linear", head.output)
