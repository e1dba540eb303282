"""The loss scale of fp16: gradients below 6e-8 would be 0, so the loss is multiplied before the backward pass.

The scale grows until gradients overflow; a step that overflows is skipped and halves it. Numbers and rule are those
of `torch.amp.GradScaler`, torch 2.13. Source: Micikevicius et al. 2018, arXiv 1710.03740.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from minitrain.errors import MinitrainError

LOWEST = 2.0**-13  # a loss that overflows even then is broken
_LARGEST = torch.finfo(torch.float32).max


@dataclass
class LossScale:
    """The scale and what it depends on; all of it is in a checkpoint.

    Attributes:
        scale: The loss is multiplied by it; a power of 2, so that dividing the gradients by it is exact.
        good_steps: Steps in a row without an overflow, since the scale last changed.
        skipped: Steps that overflowed, and left weights, moments and learning rate as they were.
        overflowed: Whether the last `unscale` found a gradient that is infinite or NaN.
        growth_interval: Steps in a row without an overflow after which the scale doubles.
    """

    scale: float = 2.0**16
    good_steps: int = 0
    skipped: int = 0
    growth_interval: int = 2000
    overflowed: bool = False

    @torch.no_grad()
    def unscale(self, parameters: Iterable[Tensor]) -> bool:
        """Divide the gradients by the scale, in place; whether one of them is infinite or NaN.

        If none is, the step counts as a good one; otherwise `skips` has to follow.
        """
        gradients = [each.grad for each in parameters if each.grad is not None]
        values = [each._values() if each.is_sparse else each for each in gradients]
        found_inf, inverse = (torch.full((), number, device=values[0].device) for number in (0.0, 1.0 / self.scale))
        torch._amp_foreach_non_finite_check_and_unscale_(values, found_inf, inverse)
        self.overflowed = bool(found_inf.item())
        if not self.overflowed:
            self.update(overflowed=False)
        return self.overflowed

    def update(self, overflowed: bool) -> None:
        """Choose the scale of the next step."""
        if overflowed:
            self.scale, self.good_steps, self.skipped = self.scale * 0.5, 0, self.skipped + 1
        elif self.good_steps + 1 == self.growth_interval:
            self.scale, self.good_steps = self.scale * (2.0 if self.scale * 2.0 <= _LARGEST else 1.0), 0
        else:
            self.good_steps += 1

    def skips(self, step: int, loss: float) -> bool:
        """Whether a step is skipped, as its gradients overflowed and its loss did not; then it is counted.

        Raises:
            MinitrainError: The scale is so small that not it, but the gradients themselves overflow.
        """
        if not self.overflowed or not math.isfinite(loss):
            return False
        if self.scale <= LOWEST:
            raise MinitrainError(
                f"step {step}: the loss is {loss}, its gradients overflow in fp16 even with a loss scale of "
                f"{self.scale:g}; the weights are unchanged. Lower --learning_rate, or pass --bf16 or neither "
                "instead of --fp16"
            )
        self.update(overflowed=True)
        return True
