"""Learning-rate schedules as pure functions of the step: a factor for the base rate, with no state to save.

Source: `optimization.py` of transformers 5.23.
"""

import math
from collections.abc import Callable

# (step, total_steps, warmup_steps) -> factor of the base learning rate.
Schedule = Callable[[int, int, int], float]


def linear_schedule(step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """Rise from 0 to 1 over the warm-up, then fall linearly to 0 at `total_steps`.

    Args:
        step: Optimizer steps done before this one.
        total_steps: Optimizer steps of the whole run.
        warmup_steps: Steps of the rise; with any, the first step has factor 0.

    >>> [linear_schedule(step, total_steps=6, warmup_steps=2) for step in range(7)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if step < warmup_steps:
        return step / warmup_steps
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))


def cosine_schedule(step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """Rise from 0 to 1 over the warm-up, then fall along half a cosine to 0 at `total_steps`.

    Source: Loshchilov & Hutter 2016 (arXiv 1608.03983).

    >>> [round(cosine_schedule(step, total_steps=6, warmup_steps=2), 3) for step in range(7)]
    [0.0, 0.5, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < warmup_steps:
        return step / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


def constant_schedule(step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """Rise from 0 to 1 over the warm-up, then stay.

    >>> [constant_schedule(step, total_steps=6, warmup_steps=2) for step in range(7)]
    [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    return step / warmup_steps if step < warmup_steps else 1.0


# Trainer's names. Its "constant" ignores the warm-up: for the same run, pass 0.
SCHEDULES: dict[str, Schedule] = {
    "linear": linear_schedule,
    "cosine": cosine_schedule,
    "constant": constant_schedule,
    "constant_with_warmup": constant_schedule,
}
