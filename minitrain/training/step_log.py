"""What is known of an optimizer step once it is done, and the steps whose results nobody has read yet."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import nan
from typing import Any


@dataclass(frozen=True, kw_only=True)
class StepLog:
    """One optimizer step; loss, norm and seconds are filled in when it is done."""

    step: int
    epoch: float
    learning_rate: float
    examples: int  # in all processes
    padding: float  # share of positions, 0 to 1
    shapes: tuple[tuple[int, int], ...]  # (B, L) of each micro-batch of this process
    loss: float = nan  # mean over the examples
    grad_norm: float = nan  # before clipping
    seconds: float = nan  # wall time since it began, or since the step before it was done, if that was later


class InFlight:
    """Passes the log of each step to `tell`, at once or `lag` steps later.

    With a lag of 1 a GPU that works by itself has its next step before Python waits for the numbers of the last.
    """

    def __init__(self, tell: Callable[[StepLog], None], lag: int) -> None:
        self.tell, self.lag = tell, lag
        self._waiting: deque[tuple[StepLog, Callable[[], Any], float]] = deque()
        self._ended = 0.0

    def add(self, log: StepLog, read: Callable[[], Any], start: float) -> None:
        """Add a step that began at `start`, by `time.perf_counter`. read: Waits for its `StepResult`."""
        self._waiting.append((log, read, start))
        self._deliver(self.lag)

    def drain(self) -> None:
        """Wait for all steps."""
        self._deliver(0)

    def _deliver(self, keep: int) -> None:
        while len(self._waiting) > keep:
            log, read, start = self._waiting.popleft()
            result = read()._asdict()
            seconds, self._ended = time.perf_counter() - max(start, self._ended), time.perf_counter()
            self.tell(replace(log, **result, seconds=seconds))
