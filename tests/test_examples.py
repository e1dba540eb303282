"""The course's chapter as a user runs it: on the embedded data, and on real MRPC if there is a copy."""

import re
from collections.abc import Callable
from pathlib import Path

from in_process import Done
from in_process import script as script

Script = Callable[..., Done]


def course_loop(script: Script, *flags: str) -> str:
    done = script("examples/course_loop.py", "--model", "demo", "--max_steps", "3", *flags)
    assert done.returncode == 0, done.stderr
    assert "3/3" in done.stderr  # the progress bar of the loop
    return done.stdout


def assert_scores(out: str, rows: int) -> None:
    assert f"predictions: ({rows}, 2)" in out
    scores = re.search(r"\{'accuracy': ([\d.]+), 'f1': ([\d.]+)\}\n$", out)
    assert scores is not None
    assert 0.3 < float(scores[1]) < 1.0 and 0.0 <= float(scores[2]) < 1.0


def test_course_runs_on_what_is_embedded(script: Script) -> None:
    out = course_loop(script, "--dataset", "demo")
    assert re.search(r"^loss of one batch of two sentences: 0\.\d{4}$", out, re.MULTILINE)
    assert "validation    1000 rows, columns text, label" in out
    assert_scores(out, 1000)


def test_course_on_mrpc_shows_the_numbers_of_the_course(script: Script, glue: Path) -> None:
    out = course_loop(script, "--dataset", str(glue), "--subset", "mrpc")
    sizes = dict(
        re.findall(r"^(train|validation|test) +(\d+) rows, columns sentence1, sentence2, label", out, re.M)
    )
    assert sizes == {"train": "3668", "validation": "408", "test": "1725"}
    assert "lengths of the first eight: [50, 59, 47, 67, 59, 50, 62, 32]" in out
    assert "collated: (8, 67)" in out
    assert_scores(out, 408)
