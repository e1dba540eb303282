"""How long check.py takes for a million rows, and how much memory: `python benchmarks/checking.py --json FILE`.

The rows are made of the words of the embedded reviews, as frequent and as many a row as there; some are repeated,
or repeated with another word. The check runs in a process of its own, without --model.
"""

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from minitrain.config.options import flag
from minitrain.data.tables.demo import demo_reviews
from minitrain.errors import MinitrainError
from minitrain.run.flags import command
from minitrain.run.output_file import write_json
from minitrain.run.report import say

HERE = Path(__file__).resolve().parent.parent
KINDS = ("reviews", "boilerplate", "identical")


@dataclass(frozen=True, kw_only=True)
class CheckBenchmarkConfig:
    """The rows to check."""

    rows: int = flag(1_000_000, "of the training file", bounds=(1000, None))
    kind: str = flag("reviews", "random reviews; the same with 30 words before each; or one text for all", KINDS)
    json: str | None = flag(None, "write the measurements to this file too")


def write_rows(path: Path, rows: int, kind: str) -> None:
    """A CSV file; one row in 200 repeats an earlier one, one in 200 but for a word."""
    draw = random.Random(0)
    reviews = [str(text).split() for text in demo_reviews()["train"].columns["text"]]
    words, lengths = [word for review in reviews for word in review], list(map(len, reviews))
    before = [] if kind == "reviews" else words[:30]
    earlier = [words[:12]]
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("text,label\n")
        for row in range(rows):
            text = draw.choices(words, k=draw.choice(lengths))
            if row % 200 in (7, 8):
                text = list(draw.choice(earlier))
            if row % 200 == 8:
                text[draw.randrange(len(text))] = "other"
            if row % 100 == 0:
                earlier.append(text)
            joined = " ".join(before if kind == "identical" else before + text).replace('"', "")
            file.write(
                f'"{joined}",{("negative", "positive")[row % 2 if kind == "identical" else draw.random() < 0.5]}\n'
            )


def measure(config: CheckBenchmarkConfig) -> None:
    """Write the rows, check them, and print seconds and memory."""
    with tempfile.TemporaryDirectory() as folder:
        path, found = Path(folder) / "rows.csv", Path(folder) / "found.json"
        write_rows(path, config.rows, config.kind)
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        words = [sys.executable, str(HERE / "scripts/check.py"), str(path), "--json", str(found)]
        environment = os.environ | {"PYTHONPATH": str(HERE)}
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
        seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise MinitrainError(f"check.py fails: {done.stderr[-1000:]}")
        findings = json.loads(found.read_text(encoding="utf-8"))["findings"]
        facts = {
            "rows": config.rows,
            "kind": config.kind,
            "file_mb": path.stat().st_size / 1e6,
            "seconds": seconds,
            "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "peak_mb": after.ru_maxrss / 1024,
            "found": {finding["name"]: finding["count"] for finding in findings},
            "cores": os.cpu_count(),
            "python": sys.version.split()[0],
        }
    say(
        *(
            f"{name}: {value:,.1f}" if isinstance(value, float) else f"{name}: {value}"
            for name, value in facts.items()
        )
    )
    write_json(config.json, facts)


if __name__ == "__main__":
    command(CheckBenchmarkConfig, measure, "Measure how long the check of many rows takes.")
