#!/usr/bin/env bash
# The peak memory that a new process reports of itself can be that of the process which started it.
#
# One would guess that resource.getrusage(RUSAGE_SELF).ru_maxrss of a fresh Python process is about 10 MB, whoever
# started it: exec replaces the program and its memory. What happens (Linux, Python 3.11 and later): started by
# subprocess from a process that holds 600 MB, it is 600 MB, so a benchmark that runs each side in its own process
# compares nothing but its own size once that is the larger one. wait4 and RUSAGE_CHILDREN tell the same. VmHWM in
# /proc/self/status is of the new program alone. psutil has no peak on Linux, and so no way out.
# Why: subprocess uses vfork, whose child shares its parent's memory until exec; exec then keeps the larger of the old
# and the new peak: setmax_mm_hiwater_rss(&tsk->signal->maxrss, old_mm) in exec_mmap, fs/exec.c, and ru_maxrss is
# signal->maxrss. VmHWM is hiwater_rss of the new mm.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check psutil==7.1.3
"$work/venv/bin/python" - <<'PYTHON'
import os
import subprocess
import sys

import psutil

CHILD = """
import re, resource
import psutil
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
own = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
print(peak, own, psutil.Process().memory_info().rss / 2**20)
"""


def child():
    process = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True)
    numbers = list(map(float, process.stdout.read().split()))
    process.stdout.close()
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    return [*numbers, usage.ru_maxrss / 1024]


small = child()
held = bytearray(600 * 2**20)
held[::4096] = b"x" * len(held[::4096])  # touch every page
large = child()
print("MB reported by a fresh child     ru_maxrss   VmHWM   rss now   wait4")
for what, row in (("of a small parent", small), ("of one that holds 600 MB", large)):
    print(f"{what:<32}" + "".join(f"{value:>10.0f}" for value in row))
same = small[0] < 100 and large[0] > 500 and large[3] > 500 and large[1] < 100 and large[2] < 100
print(f"Python {sys.version.split()[0]}, psutil {psutil.__version__}: {'as described' if same else 'CHANGED'}")
sys.exit(not same)
PYTHON
