"""Importing large libraries in less time.

An import makes objects by the hundred thousand, and hardly one of them is garbage. Python's collector looks for it
all the same, at ever greater expense: a quarter of the time that torch and datasets take to come.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused(for_good: bool = False) -> Iterator[None]:
    """Around imports: collect no garbage meanwhile.

    for_good: later collections too leave out whatever is there by then. For the owner of a process, at its start:
    what is garbage by then would stay.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if for_good:
            gc.freeze()
        if was_enabled:
            gc.enable()
