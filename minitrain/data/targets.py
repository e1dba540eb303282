"""Regression on targets of any scale: trained as standard scores, answered on the original scale.

AdamW moves a weight by about the learning rate per step, so a new head, which starts near 0, would need thousands
of steps to reach a price of 370. Hence targets are standardized with mean and standard deviation of the training
rows, and the inverse is folded into the head's last layer: every program that loads the saved folder, transformers
included, answers on the original scale.
"""

import math
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class TargetScale:
    """Mean and standard deviation of the training targets, in their units: target = mean + sd * score."""

    mean: float
    sd: float

    def standardize(self, targets: Sequence[float]) -> "array[float]":
        """Targets -> standard scores, float32, computed in float64.

        >>> TargetScale(mean=200.0, sd=50.0).standardize([100, 200, 225])
        array('f', [-2.0, 0.0, 0.5])
        """
        return array("f", ((target - self.mean) / self.sd for target in targets))


def scale_of(targets: Sequence[float]) -> TargetScale | None:
    """Mean and population standard deviation, as in scikit-learn's StandardScaler, in float64.

    None if all targets are equal, which leaves nothing to learn.
    """
    mean = math.fsum(targets) / len(targets)
    sd = math.sqrt(math.fsum((target - mean) ** 2 for target in targets) / len(targets))
    return TargetScale(mean, sd) if sd > 0 and max(targets) > min(targets) else None


def fold(model: "nn.Module", scale: TargetScale) -> None:
    """Make a model of standard scores one of targets: w -> sd * w, b -> sd * b + mean in its head's last layer."""
    _rescale(model, scale.sd, scale.mean)


def unfold(model: "nn.Module", scale: TargetScale) -> None:
    """Make a model of targets one of standard scores: the inverse of `fold`."""
    _rescale(model, 1 / scale.sd, -scale.mean / scale.sd)


@contextmanager
def folded(model: "nn.Module", scale: TargetScale | None) -> Iterator[None]:
    """Inside, a model in training answers on the original scale; afterwards its weights are back, bit for bit."""
    if scale is None:
        yield
        return
    import torch

    parameters = _output_parameters(model)
    kept = [parameter.detach().clone() for parameter in parameters]
    fold(model, scale)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)


def _rescale(model: "nn.Module", factor: float, shift: float) -> None:
    import torch

    weight, bias = _output_parameters(model)
    with torch.no_grad():
        weight.copy_(weight.cpu().double() * factor)
        bias.copy_(bias.cpu().double() * factor + shift)


def _output_parameters(model: "nn.Module") -> "tuple[nn.Parameter, nn.Parameter]":
    head: Any = model.head
    return head.output.weight, head.output.bias
