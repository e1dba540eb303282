"""Speed of this checkout as a ratio to another one or to Trainer: `python benchmarks/slices.py --old CHECKOUT`.

Both sides stay alive as processes and take turns: ten optimizer steps of one, ten of the other, thirty turns each,
the order reversed every second turn. Each pair of slices gives a ratio, the other side's seconds by ours: above 1,
this checkout is faster; with `--freeze 4`, a training of frozen layers whose output is kept is faster than one of
all layers. Printed are the median of the ratios and its 95% bootstrap interval. A load on the machine
hits both sides of a pair, so that the ratios hold where seconds do not. Without `--old` the other side is Trainer.

`--start_up` measures whole processes that train a single step (`scripts/train.py --max_steps 1`) the same way.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from minitrain.config.options import flag
from minitrain.errors import MinitrainError
from minitrain.run.flags import command
from minitrain.run.output_file import check_writable, write_json
from minitrain.run.report import say

HERE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class SlicesConfig:
    """What is measured, and against what."""

    old: str | None = flag(None, "a checkout to compare with; by default Trainer is the other side")
    model: str = flag("demo", "Hub id, local folder, or 'demo'")
    dataset: str = flag("demo", "Hub id, local folder, or 'demo'")
    subset: str | None = flag(None, "configuration of the dataset, e.g. mrpc")
    rows: int | None = flag(
        None, "training rows; by default all, whose frozen layers' output takes minutes", bounds=(1, None)
    )
    per_device_train_batch_size: int = flag(8, "examples of an optimizer step", bounds=(1, None))
    bf16: bool = flag(False, "measure in bfloat16; Trainer then has its fastest flags")
    freeze: str | None = flag(None, "measure --freeze with --keep_activations against training all layers")
    evaluation: bool = flag(False, "measure evaluation instead of training")
    start_up: bool = flag(False, "measure whole processes that train a single step")
    slice: int = flag(10, "optimizer steps, or evaluation batches of 32 rows, in a slice", bounds=(1, None))
    turns: int = flag(30, "slices of each side", bounds=(2, None))
    threads: int = flag(2, "threads of each side", bounds=(1, None))
    json: str | None = flag(None, "also write the result to this file")

    def __post_init__(self) -> None:
        if self.old is not None and not (Path(self.old) / "minitrain").is_dir():
            raise MinitrainError(
                f"--old {self.old}: expected a checkout; make one with `git worktree add ../old main`"
            )
        if self.start_up and self.old is None:
            raise MinitrainError("--start_up compares two checkouts: pass --old")
        if self.freeze is not None and (self.old is not None or self.evaluation or self.start_up):
            raise MinitrainError(
                "--freeze compares two trainings of this checkout: pass it without the other modes"
            )


def environment(code: Path, config: SlicesConfig) -> dict[str, str]:
    """The variables of a process that runs the minitrain of that checkout."""
    return os.environ | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": str(config.threads), "HF_HUB_OFFLINE": "1"}


class Side:
    """A process that works for a slice at a time."""

    def __init__(self, code: Path, work: str, config: SlicesConfig, ours: bool = False) -> None:
        self.work = work
        flags = {} if config.freeze is None or not ours else {"freeze": config.freeze, "keep_activations": True}
        settings = json.dumps(asdict(config) | {"work": work, "flags": flags})
        self.process = subprocess.Popen(
            # -P: do not import from the folder of the file.
            [sys.executable, "-P", str(HERE / "scripts/references/turns.py"), settings],
            env=environment(code, config) | {"TRANSFORMERS_VERBOSITY": "error"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read()  # the slice that warms up

    def _read(self) -> float:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("seconds "):
                return float(line.split()[1])
        raise MinitrainError(f"the side {self.work!r} ended early, with status {self.process.wait()}")

    def slice(self) -> float:
        """Seconds of the next slice."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def start_up(code: Path, config: SlicesConfig) -> float:
    """Seconds of a process that trains one step and saves nothing but its run."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--model", config.model, "--dataset", config.dataset, "--max_steps", "1", "--eval_strategy", "no"]
        flags += ["--subset", config.subset] if config.subset else []
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, str(code / "scripts/train.py"), *flags, "--output_dir", f"{folder}/run"],
            env=environment(code, config), cwd=code, check=True, capture_output=True,
        )  # fmt: skip
        return time.perf_counter() - start


def alternate(ours: Callable[[], float], other: Callable[[], float], turns: int) -> list[tuple[float, float]]:
    """(seconds of ours, seconds of the other) of each turn."""
    pairs = []
    for turn in range(turns):
        first, second = (ours, other) if turn % 2 == 0 else (other, ours)
        a, b = first(), second()
        pairs.append((a, b) if turn % 2 == 0 else (b, a))
    return pairs


def bootstrap(ratios: list[float], draws: int = 10_000) -> tuple[float, float]:
    """The 95% interval of the median, from medians of samples drawn with replacement."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(draws))
    return medians[int(0.025 * draws)], medians[int(0.975 * draws)]


def measure(config: SlicesConfig) -> None:
    """Measure, print, write."""
    check_writable(config.json)
    code = HERE if config.old is None else Path(config.old).resolve()
    work = "evaluate" if config.evaluation else "train"
    with ExitStack() as stack:
        if config.start_up:
            pairs = alternate(lambda: start_up(HERE, config), lambda: start_up(code, config), config.turns)
        else:
            ours = Side(HERE, work, config, ours=True)
            stack.callback(ours.close)
            other = Side(code, work if config.old or config.freeze else f"{work} by Trainer", config)
            stack.callback(other.close)
            pairs = alternate(ours.slice, other.slice, config.turns)
    ratios = [other / ours for ours, other in pairs]
    low, high = bootstrap(ratios)
    what = "start-up" if config.start_up else f"{work}, {'bf16' if config.bf16 else 'fp32'}"
    name = config.old or ("the training of all layers" if config.freeze else "Trainer")
    say(f"{what}: {statistics.median(ratios):.3f} times as fast as {name} (95% interval {low:.3f} to {high:.3f})")
    result = {"ratio": statistics.median(ratios), "interval": [low, high], "pairs": pairs}
    write_json(config.json, result | {"settings": asdict(config)})


if __name__ == "__main__":
    command(SlicesConfig, measure, "Compare the speed of two checkouts, or with Trainer, in alternating slices.")
