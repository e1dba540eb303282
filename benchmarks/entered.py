"""What a reader has to read: the functions that a step and a run enter, in lines and files.

`python benchmarks/entered.py` trains the embedded model with reference kernels and counts, by a profile hook, the
lines of every function of minitrain that is entered: in one optimizer step (`train_step`), and in a whole run of
three steps from two CSV files. A function counts with its docstring; classes and modules do not.
"""

import csv
import inspect
import os
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import minitrain
from minitrain.config.options import flag
from minitrain.run.flags import command
from minitrain.run.report import say

ROOT = Path(minitrain.__file__).parent


@dataclass(frozen=True, kw_only=True)
class EnteredConfig:
    """How much is printed."""

    files: bool = flag(False, "list the files, each with its lines")


def last_line(code: CodeType) -> int:
    """The last line of a function and of what is defined inside it."""
    inner = [last_line(constant) for constant in code.co_consts if inspect.iscode(constant)]
    return max([line for *_, line in code.co_lines() if line] + inner)


class Entered:
    """The lines of each file that were entered."""

    def __init__(self) -> None:
        self.codes: set[CodeType] = set()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Take in an event of `sys.setprofile`."""
        if event == "call":
            self.codes.add(frame.f_code)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Watch all threads inside the block."""
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    @property
    def files(self) -> dict[str, int]:
        """Lines by file, the most first."""
        lines: dict[str, set[int]] = defaultdict(set)
        for code in self.codes:
            path = Path(code.co_filename)
            if ROOT in path.parents and code.co_name != "<module>":
                lines[str(path.relative_to(ROOT))] |= set(range(code.co_firstlineno, last_line(code) + 1))
        return {file: len(lines[file]) for file in sorted(lines, key=lambda file: -len(lines[file]))}


def train(folder: Path) -> None:
    """A run of three steps on two CSV files."""
    rows = [
        (f"a {'good' if row % 2 else 'bad'} film, number {row}", "fresh" if row % 2 else "rotten")
        for row in range(40)
    ]
    for name, some in (("train.csv", rows), ("eval.csv", rows[:10])):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *some])
    minitrain.train(
        minitrain.TrainConfig(
            model="demo",
            train_file=str(folder / "train.csv"),
            eval_file=str(folder / "eval.csv"),
            text_columns=("text",),
            label_column="label",
            kernels="reference",
            max_steps=3,
            output_dir=str(folder / "run"),
            device="cpu",
            report=False,
        )
    )


def entered_by_a_run(folder: Path) -> dict[str, int]:
    """The lines that a whole run enters, by file."""
    entered = Entered()
    with entered.watch():
        train(folder)
    return entered.files


def entered_by_a_step(folder: Path) -> dict[str, int]:
    """The lines that the second optimizer step of a run enters, by file."""
    from minitrain.training import loop, setup

    entered, original, steps = Entered(), setup.train_step, 0

    def watched(*args: Any, **options: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps != 2:
            return original(*args, **options)
        with entered.watch():
            return original(*args, **options)

    setup.train_step = loop.train_step = watched
    try:
        train(folder)
    finally:
        setup.train_step = loop.train_step = original
    return entered.files


def measure(config: EnteredConfig) -> None:
    """Count and print."""
    os.environ["MINITRAIN_CACHE"] = ""
    counts: dict[str, Callable[[Path], dict[str, int]]] = {
        "one optimizer step": entered_by_a_step,
        "a whole run from CSV files": entered_by_a_run,
    }
    found = {}
    for what, count in counts.items():
        with tempfile.TemporaryDirectory() as folder:
            found[what] = count(Path(folder))
    for what, files in found.items():
        say(f"{what} enters {sum(files.values())} lines in {len(files)} files")
        for file, lines in files.items() if config.files else ():
            say(f"  {lines:>5}  {file}")


if __name__ == "__main__":
    command(EnteredConfig, measure, "Count the lines and files that a step and a run enter.")
