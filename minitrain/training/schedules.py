"""Learning rates as pure functions of the step: a factor for the base rate, nothing that has to be saved.

Source: `optimization.py` of transformers 5.23.
"""

import math
from collections.abc import Callable

# A schedule gives the factor for the base learning rate: (step, total_steps, warmup_steps) -> factor.
Schedule = Callable[[int, int, int], float]


def linear_schedule(step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """Rise from 0 to 1 over the warm-up, then fall in a straight line to 0 at `total_steps`.

    Args:
        step: optimizer steps done before this one, from 0.
        total_steps: optimizer steps of the whole run.
        warmup_steps: how many of them rise; the first has factor 0 if there are any.
    """
    if step < warmup_steps:
        return _warmup(step, warmup_steps)
    return max(0.0, float(total_steps - step) / float(max(1, total_steps - warmup_steps)))


def cosine_schedule(step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """Rise from 0 to 1 over the warm-up, then fall along half a cosine to 0 at `total_steps`.

    The arguments are those of `linear_schedule`. Source: Loshchilov & Hutter 2016 (arXiv 1608.03983).
    """
    if step < warmup_steps:
        return _warmup(step, warmup_steps)
    progress = float(step - warmup_steps) / float(max(1, total_steps - warmup_steps))
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


def constant_schedule(step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """Rise from 0 to 1 over the warm-up, then stay; the arguments are those of `linear_schedule`."""
    return _warmup(step, warmup_steps) if step < warmup_steps else 1.0


def _warmup(step: int, warmup_steps: int) -> float:
    return float(step) / float(max(1, warmup_steps))


# The Trainer's names. Its "constant" ignores the warm-up: for the same run, pass it none.
SCHEDULES: dict[str, Schedule] = {
    "linear": linear_schedule,
    "cosine": cosine_schedule,
    "constant": constant_schedule,
    "constant_with_warmup": constant_schedule,
}
