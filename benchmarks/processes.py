"""Compare several processes with one on the same cores: `python benchmarks/processes.py`.

The same global batch in 1, 2 and 4 processes, which share the cores; each also without exchanging gradients, so
that the difference is the cost of the exchange; and one process with a dropout stream per example. The kinds take
turns in rounds; figures are medians of steps, with the spread of the rounds.
"""

import os
import statistics
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from minitrain import TrainConfig, collate, launch, process_group
from minitrain.config.options import flag
from minitrain.distributed.world import sync_gradients
from minitrain.run.flags import command
from minitrain.run.output_file import write_json
from minitrain.run.prepare import prepare
from minitrain.run.report import say
from minitrain.training.loop import step_batches
from minitrain.training.setup import make_sampler, make_state
from minitrain.training.step import StepSettings, train_step

WARMUP = 10
KINDS: dict[str, dict[str, Any]] = {
    "1 process": {"processes": 1},
    "1 process, streams of examples": {"processes": 1, "dropout_rng": "example"},
    "2 processes": {"processes": 2},
    "2 processes, no exchange": {"processes": 2, "exchange": False},
    "4 processes": {"processes": 4},
    "4 processes, no exchange": {"processes": 4, "exchange": False},
}


@dataclass(frozen=True, kw_only=True)
class ProcessesConfig:
    """What to measure on, and for how long."""

    model: str = flag("demo", "Hub id, local folder, or 'demo'")
    dataset: str = flag("demo", "Hub id, local folder, or 'demo'")
    subset: str | None = flag(None, "configuration of the dataset, e.g. mrpc")
    global_batch_size: int = flag(16, "examples per step, in all processes")
    steps: int = flag(40, "of each kind and round; the first 10 are not timed")
    rounds: int = flag(3, "runs of each kind")
    json: str | None = flag(None, "write what was measured to this file too")


def seconds_a_step(config: ProcessesConfig, exchange: bool, dropout_rng: str) -> float:
    """Median of one process's steps; those of a launch take equally long."""
    settings: dict[str, Any] = {
        "model": config.model,
        "dataset": config.dataset,
        "subset": config.subset,
        "global_batch_size": config.global_batch_size,
        "dropout_rng": dropout_rng,
    }
    times = []
    with process_group("cpu") as world:
        prepared = prepare(TrainConfig(**settings, eval_strategy="no", output_dir="never-written"), world)
        state, train = make_state(prepared.model.train(), prepared.config, world), prepared.splits.train
        step_settings = StepSettings.of(prepared.config)
        collate_fn = partial(collate, pad_token_id=prepared.tokenizer.pad_token_id)
        for rows in make_sampler(prepared.config, train, world.size).batches(0)[: config.steps]:
            start = time.perf_counter()
            batches, streams = step_batches(state, train, rows, prepared.config, collate_fn)
            with nullcontext() if exchange else sync_gradients(state.parallel, wanted=False):
                train_step(state, batches, 5e-5, step_settings, rows=rows, streams=streams)
            times.append(time.perf_counter() - start)
    return statistics.median(times[WARMUP:])


def measure(config: ProcessesConfig) -> None:
    """Run all kinds in turn, print and write them."""
    found: dict[str, list[float]] = {name: [] for name in KINDS}
    for number in range(1, config.rounds + 1):
        for name, kind in KINDS.items():
            work = (config, kind.get("exchange", True), kind.get("dropout_rng", "process"))
            found[name].append(max(launch(seconds_a_step, work, kind["processes"])))
            say(f"round {number}  {name:<32}{1000 * found[name][-1]:>7.0f} ms a step")
    say()
    facts: dict[str, Any] = {}
    for name, seconds in found.items():
        middle = statistics.median(seconds)
        facts[name] = {
            "milliseconds": 1000 * middle,
            "spread": [1000 * min(seconds), 1000 * max(seconds)],
            "examples_per_second": config.global_batch_size / middle,
        }
        say(f"{name:<32}{1000 * middle:>7.0f} ms a step {config.global_batch_size / middle:>7.1f} examples/s")
    circumstances = {"cores": os.cpu_count(), "torch": torch.__version__, "settings": asdict(config)}
    write_json(config.json, {"kinds": facts, **circumstances})


if __name__ == "__main__":
    command(ProcessesConfig, measure, "Compare several processes with one on the same cores.")
