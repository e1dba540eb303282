"""Signals that ask a run to stop: all processes finish the same step, save, and exit."""

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

import torch

from minitrain.distributed.world import World

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SAME_REQUEST = 1.0  # seconds


class StopRequests:
    """Keeps the first SIGTERM or SIGINT for the end of the step, where `agreed` tells all processes of it.

    A second signal acts at once. Within a second of the first it counts as the same request: the terminal may send
    one and torchrun another. Only the main thread may install handlers; in another one signals act as before.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequests":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked and time.monotonic() - self._since < SAME_REQUEST:
            return
        if self.asked:
            for each, handler in self._before.items():
                signal.signal(each, handler)
            os.kill(os.getpid(), number)
        elif os.environ.get("RANK", "0") == "0":
            name = signal.Signals(number).name
            # A signal may interrupt a print.
            os.write(2, f"{name}: leaving as soon as all is safe; again to leave now\n".encode())
        self.asked, self._since = number, time.monotonic()

    def agreed(self, world: World) -> int:
        """The signal that any process got, the same number in all of them; 0 for none."""
        return self.asked if world.size == 1 else int(world.all_gather(torch.tensor(self.asked)).max())
