"""`benchmarks/slices.py` runs both sides in turn and reports their ratio."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_layout import ROOT


@pytest.mark.parametrize(
    "words",
    [("--old", str(ROOT)), ("--evaluation", "--bf16"), ("--freeze", "encoder", "--rows", "64")],
    ids=["checkout", "Trainer", "frozen"],
)
def test_sides_take_turns_and_the_ratio_is_written(words: tuple[str, ...], tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    flags = ["--turns", "3", "--slice", "1", "--threads", "1", *words, "--json", str(result)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/slices.py"), *flags],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = json.loads(result.read_text(encoding="utf-8"))
    low, high = written["interval"]
    assert len(written["pairs"]) == 3 and 0 < low <= written["ratio"] <= high
    assert f"{written['ratio']:.3f} times as fast as" in done.stdout


def test_another_side_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/slices.py"), "--old", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "expected a checkout" in done.stderr
