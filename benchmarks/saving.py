"""The cost of a checkpoint per epoch for the demo: `python benchmarks/saving.py`, a run of some minutes.

The seconds of every save (gathering, writing, fsync, verifying, rotating) are compared with those of the same run,
so that differences between runs do not matter.
"""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minitrain.config.options import flag
from minitrain.config.train_config import TrainConfig
from minitrain.run.flags import command
from minitrain.run.main import train
from minitrain.run.output_file import write_json
from minitrain.run.report import say
from minitrain.run.resume import Checkpointer


@dataclass(frozen=True, kw_only=True)
class SavingConfig:
    """For how long, and where the figures go."""

    num_train_epochs: int = flag(2, "of the demo, with a checkpoint after each")
    json: str | None = flag(None, "write what was measured to this file too")


def measure(config: SavingConfig) -> None:
    """Train once, time the saves, print and write their share."""
    seconds: list[float] = []
    save = Checkpointer.save

    def timed(self: Checkpointer, *state: Any) -> None:
        start = time.perf_counter()
        save(self, *state)
        seconds.append(time.perf_counter() - start)

    Checkpointer.save = timed  # type: ignore[method-assign, assignment]
    with tempfile.TemporaryDirectory(dir=".") as folder:
        run = TrainConfig(
            model="demo",
            dataset="demo",
            num_train_epochs=config.num_train_epochs,
            output_dir=f"{folder}/run",
            save_strategy="epoch",
            save_total_limit=1,
            report=False,
        )
        results = train(run)
        newest = max((Path(folder) / "run/checkpoints").iterdir())
        size = sum(file.stat().st_size for file in newest.iterdir())
    facts = {
        "saves": len(seconds),
        "seconds_of_saves": seconds,
        "seconds_of_training": results["training_seconds"],
        "share": sum(seconds) / results["training_seconds"],
        "checkpoint_mb": size / 1e6,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }
    say(
        f"{len(seconds)} saves of {size / 1e6:.0f} MB took {sum(seconds):.1f} s of "
        f"{results['training_seconds']:.0f} s of training, {facts['share']:.2%}"
    )
    write_json(config.json, facts)


if __name__ == "__main__":
    command(SavingConfig, measure, "Measure what saving costs.")
