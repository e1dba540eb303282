"""What is known of an optimizer step when it is done, and of those that are not done yet."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class StepLog:
    """One optimizer step: loss (see `accumulate_gradients`), gradient norm before clipping, learning rate used."""

    step: int
    epoch: float
    loss: float
    grad_norm: float
    learning_rate: float
    examples: int
    padding: float  # share of positions, 0 to 1
    seconds: float  # wall time: since it began, or since the one before it was done, if that was later
    phases: Mapping[str, float]  # seconds of each phase (`profiling.py`)
    flops: float  # of matrix products


class InFlight:
    """Steps that were begun and of which nobody was told yet: none, or where a device works by itself, one.

    So the device has its next step before Python waits for the numbers of the last.
    """

    def __init__(self, behind: bool) -> None:
        """behind: whether a step stays under way until the next one is begun."""
        self.behind = behind
        self._waiting: list[tuple[float, Callable[[], StepLog]]] = []
        self._ended = 0.0

    def begun(self, start: float, read: Callable[[], StepLog]) -> list[StepLog]:
        """Take in a step. start: when it began, by `time.perf_counter`. Returns those that are done now."""
        self._waiting.append((start, read))
        return self._done(keep=int(self.behind))

    def finished(self) -> list[StepLog]:
        """Wait for all that are under way."""
        return self._done(keep=0)

    def _done(self, keep: int) -> list[StepLog]:
        logs = []
        while len(self._waiting) > keep:
            start, read = self._waiting.pop(0)
            log = read()
            now = time.perf_counter()
            logs.append(replace(log, seconds=now - max(start, self._ended)))
            self._ended = now
        return logs
