"""Signals that ask a run to stop: it finishes its step, saves, and leaves, in all processes at the same step."""

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

import torch

from minitrain.distributed.world import World

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SAME_REQUEST = 1.0  # seconds


class StopRequests:
    """Keeps the first SIGTERM or SIGINT for the end of the step; a later one acts at once, as if nobody cared.

    Within a second of the first it is the same request: one from the terminal, say, and one that torchrun hands on.

    `with StopRequests() as stop:`, and `stop.agreed(world)` after every step; where nobody asks for it, as in the
    final evaluation, what is under way is finished. In a thread other than the main one,
    where Python allows no handlers, signals do what they did.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequests":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and time.monotonic() - self._since < SAME_REQUEST:
            return
        if self.asked:
            for each, handler in self._before.items():
                signal.signal(each, handler)
            os.kill(os.getpid(), number)
        elif os.environ.get("RANK", "0") == "0":
            name = signal.Signals(number).name
            # Not by print, which a signal may interrupt.
            os.write(2, f"{name}: leaving as soon as all is safe; again to leave now\n".encode())
        self.asked, self._since = number, time.monotonic()

    def agreed(self, world: World) -> int:
        """The signal that any process was asked by, the same in all of them; 0 for none."""
        return int(world.all_gather(torch.tensor(self.asked)).max())
