"""Long work says how far it is, short work nothing."""

import os
import pty
import subprocess
import sys
import termios

import pytest

from minitrain.data import progress as module
from minitrain.data.progress import progress

WORK = """
import time
from minitrain.data import progress
progress.SILENCE = 0.05
with progress.progress("reading my.csv", total=800, unit="rows") as add:
    for _ in range(8):
        time.sleep(0.1)
        add(100)
print("done")
"""


def test_work_that_ends_within_two_seconds_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("reading", total=10) as add:
        for _ in range(10):
            add(1)
    assert capsys.readouterr() == ("", "")


def test_long_work_says_what_it_does_and_how_far_it_is_on_standard_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.0)
    with progress("tokenizing my.csv", total=3000) as add:
        add(1000)
    with progress("reading my.jsonl", unit="bytes") as add:
        add(2_500_000)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "tokenizing my.csv: 1,000 rows, 33%\nreading my.jsonl: 2,500,000 bytes\n"


def test_lines_become_rarer_the_longer_it_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(1, 1000))
    monkeypatch.setattr("minitrain.data.progress.time.monotonic", lambda: float(next(seconds)))
    with progress("reading", total=500) as add:
        for _ in range(500):
            add(1)
    assert len(capsys.readouterr().err.splitlines()) == 7  # after 2, 6, 14, 30, 62, 126 and 254 seconds


def test_a_process_that_another_one_speaks_for_is_silent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.0)
    with progress("reading", total=10, silent=True) as add:
        add(10)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_a_bar_moves_and_goes_away() -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))  # a new one has no width
    with subprocess.Popen(
        [sys.executable, "-c", WORK], stderr=theirs, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.read() == "done\n"
    assert process.returncode == 0
    shown = os.read(ours, 100_000).decode()  # while the other end is still open
    os.close(theirs)
    os.close(ours)
    assert "reading my.csv" in shown and "rows" in shown
    assert shown.endswith("\r")  # wiped, so that the next line stands alone
