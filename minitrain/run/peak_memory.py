"""The memory that this process has taken at most."""

import re
import resource
import sys
from contextlib import suppress
from pathlib import Path


def peak_memory_mb() -> float:
    """The largest resident set size of this process so far, in MB (10**6 bytes)."""
    with suppress(OSError):  # Linux; its ru_maxrss counts what the process that started this one had
        if found := re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE):
            return int(found[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
