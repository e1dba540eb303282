"""What is known of an optimizer step once it is done, and the steps whose results nobody has read yet."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class StepLog:
    """One optimizer step: loss (mean over its examples), gradient norm before clipping, learning rate used."""

    step: int
    epoch: float
    loss: float
    grad_norm: float
    learning_rate: float
    examples: int  # in all processes
    padding: float  # share of positions, 0 to 1
    shapes: tuple[tuple[int, int], ...]  # (B, L) of each micro-batch of this process
    seconds: float  # wall time since it began, or since the step before it was done, if that was later


class Result(Protocol):
    """Of a step; reading it may wait for a GPU."""

    @property
    def loss(self) -> float: ...
    @property
    def grad_norm(self) -> float: ...


class InFlight:
    """Passes the log of each step to `tell`, at once or `lag` steps later.

    With a lag of 1 a GPU that works by itself has its next step before Python waits for the numbers of the last.
    """

    def __init__(self, tell: Callable[[StepLog], None], lag: int) -> None:
        self.tell, self.lag = tell, lag
        self._waiting: deque[tuple[float, Result, Callable[..., StepLog]]] = deque()
        self._ended = 0.0

    def add(self, start: float, result: Result, log: Callable[..., StepLog]) -> None:
        """Add a step that began at `start`, by `time.perf_counter`. log: Takes what its result says."""
        self._waiting.append((start, result, log))
        self._deliver(self.lag)

    def drain(self) -> None:
        """Wait for all steps."""
        self._deliver(0)

    def _deliver(self, keep: int) -> None:
        while len(self._waiting) > keep:
            start, result, log = self._waiting.popleft()
            loss, grad_norm = result.loss, result.grad_norm
            now = time.perf_counter()
            begun, self._ended = max(start, self._ended), now
            self.tell(log(loss=loss, grad_norm=grad_norm, seconds=now - begun))
