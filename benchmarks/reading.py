"""Read a million rows of CSV with this code and another checkout: `python benchmarks/reading.py --old PATH`.

Each turn is a process with one thread, old and new in turn; the ratio of a pair is old seconds by new, so that load
on the machine meets both. Above 1 the new code is faster. `--tokenize` adds tokenization and labels: minutes per
turn.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minitrain.config.options import flag
from minitrain.errors import MinitrainError
from minitrain.run.flags import command
from minitrain.run.output_file import write_json
from minitrain.run.report import say

HERE = Path(__file__).resolve().parent.parent
WORDS = ["film", "plot", "actor", "a", "the", "good", "bad", "slow", "warm", "music", "was", "not", "very", "of"]
CHILD = """
import json, resource, sys, time
from minitrain import load_splits, load_tokenizer
try:
    from minitrain.data.tables.load import read_file
except ModuleNotFoundError:  # version 0.1.0
    from minitrain.tables import read_file
path, tokenize = sys.argv[1], sys.argv[2] == "True"
tokenizer = load_tokenizer("demo")
start = time.perf_counter()
if tokenize:
    rows = len(load_splits(train_file=path, text_columns=("text",), tokenizer=tokenizer, max_length=64).train)
else:
    rows = len(read_file(path))
seconds = time.perf_counter() - start
print(json.dumps([seconds, rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024]))
"""


@dataclass(frozen=True, kw_only=True)
class ReadingConfig:
    """How many rows, how often, and against which code."""

    old: str | None = flag(None, "a checkout of the code to compare with")
    rows: int = flag(1_000_000, "of the file", bounds=(1000, None))
    pairs: int = flag(5, "turns of old and new", bounds=(2, None))
    tokenize: bool = flag(False, "also tokenize the texts and number the labels")
    json: str | None = flag(None, "write the measurements to this file too")

    def __post_init__(self) -> None:
        if self.old is None or not (Path(self.old) / "minitrain").is_dir():
            raise MinitrainError(
                f"--old {self.old}: expected a checkout; make one with `git worktree add ../old main`"
            )


def write_rows(path: Path, rows: int) -> None:
    """A file of three columns; texts of 5 to 40 words, one in ten with a comma, one in fifty over two lines."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("id,text,label\n")
        for row in range(rows):
            text = " ".join(draw.choices(WORDS, k=draw.randint(5, 40)))
            if row % 10 == 0:
                text = f'"{text}, {text[:20]}"'
            elif row % 50 == 1:
                text = f'"{text}\n{text[:20]}"'
            file.write(f"{row},{text},{'good' if row % 2 else 'bad'}\n")


def turn(code: Path, path: Path, tokenize: bool) -> tuple[float, int, int]:
    """Seconds, rows and peak memory in MB of one process that runs that code."""
    environment = os.environ | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", "MINITRAIN_CACHE": ""}
    made = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), str(tokenize)],
        env=environment, cwd=code, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode:
        raise MinitrainError(f"{code}: the code there fails:\n{made.stderr[-1000:]}")
    seconds, rows, megabytes = json.loads(made.stdout.splitlines()[-1])
    return seconds, rows, megabytes


def measure(config: ReadingConfig) -> None:
    """Run the pairs, print every ratio, their geometric mean and its interval, and write them."""
    codes = {"old": Path(str(config.old)).resolve(), "new": HERE}
    found: dict[str, list[Any]] = {"old": [], "new": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        write_rows(path, config.rows)
        size = path.stat().st_size / 1e6
        for pair in range(config.pairs):
            for name in ("old", "new") if pair % 2 == 0 else ("new", "old"):
                found[name].append(turn(codes[name], path, config.tokenize))
            old, new = found["old"][-1], found["new"][-1]
            if old[1] != new[1]:
                raise MinitrainError(f"old read {old[1]} rows, new {new[1]}: they do different things")
            say(f"pair {pair + 1}: old {old[0]:.2f} s, {old[2]} MB; new {new[0]:.2f} s, {new[2]} MB")
    ratios = [old[0] / new[0] for old, new in zip(found["old"], found["new"], strict=True)]
    mean = statistics.geometric_mean(ratios)
    say(f"{config.rows:,} rows, {size:.0f} MB: old/new {mean:.3f}, from {min(ratios):.3f} to {max(ratios):.3f}")
    facts = {
        "rows": config.rows,
        "file_mb": size,
        "tokenize": config.tokenize,
        "ratio": mean,
        "interval": [min(ratios), max(ratios)],
        "ratios": ratios,
        **{f"{name}_seconds": [part[0] for part in parts] for name, parts in found.items()},
        **{f"{name}_mb": [part[2] for part in parts] for name, parts in found.items()},
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
    }
    write_json(config.json, facts)


if __name__ == "__main__":
    command(ReadingConfig, measure, "Measure how long a million rows take to read.")
