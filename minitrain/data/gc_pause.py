"""Pause the garbage collector during large imports, which takes a quarter off the import of torch and datasets.

An import makes objects by the hundred thousand, hardly any of them garbage.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused(for_good: bool = False) -> Iterator[None]:
    """Collect no garbage inside the block.

    for_good: Also leave what exists by then out of later collections. Only for the start of a process: the garbage
    among it is never freed.
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
