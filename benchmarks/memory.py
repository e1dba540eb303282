"""Peak memory beside Trainer, with and without gradient checkpointing: `python benchmarks/memory.py`.

Four processes in turn, each for a few steps: Trainer and minitrain, both without and with
`--gradient_checkpointing`. The peak is the largest resident set size of the whole process, libraries included, as
the system counts it. By default the model has BERT base's shapes and random weights (`references/base_shapes.py`).
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minitrain.config.options import flag
from minitrain.errors import MinitrainError
from minitrain.run.flags import command
from minitrain.run.output_file import write_json
from minitrain.run.report import say

SCRIPTS = Path(__file__).parent.parent / "scripts"
RATIOS = {
    "memory_checkpointed_ratio": ("ours, checkpointed", "trainer"),
    "memory_checkpointed_ratio_vs_checkpointed": ("ours, checkpointed", "trainer, checkpointed"),
    "memory_ratio": ("ours", "trainer"),
}


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """What is trained, and where the figures go."""

    model: str | None = flag(None, "local folder; by default one of BERT base's shapes is made")
    per_device_train_batch_size: int = flag(8, "examples of a step", bounds=(1, None))
    max_length: int = flag(128, "tokens of each example", bounds=(1, 512))
    max_steps: int = flag(4, "optimizer steps of each process", bounds=(1, None))
    bf16: bool = flag(False, "compute in bfloat16, all four")
    json: str | None = flag(None, "write what was measured to this file too")


def peak_memory_mb(side: str, settings: Mapping[str, Any]) -> float:
    """Run a side of `references/memory.py`; the largest resident set size of its process, in MB (10**6 bytes)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "compare.memory", side, json.dumps(settings)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPTS), str(SCRIPTS.parent)])},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise MinitrainError(f"{side}: the process failed with {process.returncode}; its error is above")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def write_rows(path: Path, count: int) -> None:
    """Texts of more than 512 tokens, none like another, with two labels."""
    rows = [
        {"text": " ".join(f"good {row} film {word}" for word in range(200)), "label": row % 2}
        for row in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def measure(config: MemoryConfig) -> None:
    """Run the sides, print and write peaks and ratios."""
    peaks: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = config.model or f"{folder}/base"
        if config.model is None:
            subprocess.run(
                [sys.executable, str(SCRIPTS / "references" / "base_shapes.py"), model],
                check=True,
                env={**os.environ, "PYTHONPATH": str(SCRIPTS.parent)},
            )
        write_rows(Path(folder) / "rows.jsonl", config.per_device_train_batch_size * config.max_steps)
        names = ("per_device_train_batch_size", "max_length", "max_steps", "bf16")
        settings = {name: getattr(config, name) for name in names}
        settings |= {"model": model, "train_file": f"{folder}/rows.jsonl", "text_columns": ["text"]}
        for checkpointed in (False, True):
            for side in ("trainer", "ours"):
                name = f"{side}, checkpointed" if checkpointed else side
                peaks[name] = peak_memory_mb(side, settings | {"gradient_checkpointing": checkpointed})
                say(f"{name:<24}{peaks[name]:>8.0f} MB")
    ratios = {name: peaks[one] / peaks[other] for name, (one, other) in RATIOS.items()}
    for name, (one, other) in RATIOS.items():
        say(f"{ratios[name]:.3f}  {one} / {other}")
    write_json(config.json, {**asdict(config), "peak_memory_mb": peaks, **ratios})


if __name__ == "__main__":
    command(MemoryConfig, measure, "Measure peak memory beside Trainer.")
