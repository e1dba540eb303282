"""Progress of long work on standard error: a bar on a terminal, elsewhere a line now and then.

Work of less than two seconds shows nothing.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

SILENCE = 2.0  # seconds before the first line; each further line waits twice as long as the one before


@contextmanager
def progress(
    what: str, total: int | None = None, unit: str = "rows", silent: bool = False
) -> Iterator[Callable[[int], object]]:
    """Yield a function to call with the number of units done since the last call.

        with progress("reading my.csv", total=size, unit="bytes") as add:
            for line in lines:
                add(len(line))

    Args:
        total: All units; None if unknown.
        silent: Show nothing, because another process does.
    """
    if silent:
        yield lambda count: None
    elif sys.stderr.isatty():
        with tqdm(
            total=total, desc=what, unit=f" {unit}", unit_scale=True, delay=SILENCE, leave=False, dynamic_ncols=True
        ) as bar:
            yield bar.update
    else:
        yield _Lines(what, total, unit).add


class _Lines:
    """Progress as plain lines, for a file or a log."""

    def __init__(self, what: str, total: int | None, unit: str) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, 0
        self.wait, self.last = SILENCE, time.monotonic()

    def add(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.last < self.wait:
            return
        self.last, self.wait = now, 2 * self.wait
        share = f", {self.done / self.total:.0%}" if self.total else ""
        print(f"{self.what}: {self.done:,} {self.unit}{share}", file=sys.stderr, flush=True)
