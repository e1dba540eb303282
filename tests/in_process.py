"""Runs a script in this process: the same flags, output and exit status without a second import of torch."""

import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Done:
    """Named as in `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def script(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Call it with the script's path in the checkout and its flags. What child processes print is captured too."""

    def run(name: str, *words: Any) -> Done:
        path = str(ROOT / name)
        monkeypatch.setattr(sys, "argv", [path, *map(str, words)])
        status: Any = 0
        capfd.readouterr()
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as exit:
            status = exit.code or 0
        out, err = capfd.readouterr()
        if isinstance(status, str):
            return Done(1, out, f"{err}{status}\n")
        return Done(status, out, err)

    return run
