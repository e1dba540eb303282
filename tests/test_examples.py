"""The course's chapter as a user runs it: on what is embedded, and on MRPC where it is to be had."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def course_loop(*flags: str) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples/course_loop.py"), "--model", "demo", "--max_steps", "3", *flags],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "3/3" in done.stderr  # the bar of the loop
    return done.stdout


def assert_scores(out: str, rows: int) -> None:
    assert f"predictions: ({rows}, 2)" in out
    scores = re.search(r"\{'accuracy': ([\d.]+), 'f1': ([\d.]+)\}\n$", out)
    assert scores is not None
    assert 0.3 < float(scores[1]) < 1.0 and 0.0 <= float(scores[2]) < 1.0


def test_course_runs_on_what_is_embedded() -> None:
    out = course_loop("--dataset", "demo")
    assert re.search(r"^loss of one batch of two sentences: 0\.\d{4}$", out, re.MULTILINE)
    assert "validation    1000 rows, columns text, label" in out
    assert_scores(out, 1000)


def test_course_on_mrpc_shows_the_numbers_of_the_course(glue: Path) -> None:
    out = course_loop("--dataset", str(glue), "--subset", "mrpc")
    sizes = dict(
        re.findall(r"^(train|validation|test) +(\d+) rows, columns sentence1, sentence2, label", out, re.M)
    )
    assert sizes == {"train": "3668", "validation": "408", "test": "1725"}
    assert "lengths of the first eight: [50, 59, 47, 67, 59, 50, 62, 32]" in out
    assert "collated: (8, 67)" in out
    assert_scores(out, 408)
