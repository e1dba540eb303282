"""Run the sides of a speed measurement in turn, and report their ratios as a table and JSON."""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.run.output_file import check_writable, write_json
from minitrain.run.prepare import rows_of
from minitrain.run.report import say
from minitrain.storage.hub import resolve_model
from references.speed import IN_BF16, SIDES

GROWTH = (4_000, 40_000, 400_000, 1_000_000)
# Nats: the sides differ in row order and dropout. It finds a side that diverges or trains on wrong labels; whole
# runs compare quality (benchmarks/seeds.py).
SAME_LOSS = 0.05

Round = dict[str, dict[str, float]]  # side -> what it measured
# Of one round. Above 1 is better for minitrain; startup_ratio and memory_ratio are better below 1.
RATIOS: dict[str, Callable[[Round], float]] = {
    "train_fp32_ratio": lambda r: _speed(r, "ours-fp32", "train") / _speed(r, "trainer", "train"),
    "train_bf16_ratio": lambda r: _speed(r, "ours-bf16", "train") / _speed(r, "trainer", "train"),
    "train_bf16_ratio_vs_best": lambda r: _speed(r, "ours-bf16", "train") / _speed(r, "trainer-best", "train"),
    "evaluate_ratio": lambda r: _speed(r, "ours-fp32", "evaluate") / _speed(r, "trainer", "evaluate"),
    "evaluate_bf16_ratio": lambda r: _speed(r, "ours-bf16", "evaluate") / _speed(r, "trainer", "evaluate"),
    "evaluate_bf16_ratio_vs_best": lambda r: (
        _speed(r, "ours-bf16", "evaluate") / _speed(r, "trainer-best", "evaluate")
    ),
    "predict_ratio": lambda r: _speed(r, "ours-fp32", "predict") / _speed(r, "pipeline", "predict"),
    "predict_bf16_ratio": lambda r: _speed(r, "ours-bf16", "predict") / _speed(r, "pipeline", "predict"),
    "startup_ratio": lambda r: r["ours-fp32"]["startup_seconds"] / r["trainer"]["startup_seconds"],
    "memory_ratio": lambda r: r["ours-fp32"]["train_peak_memory_mb"] / r["trainer"]["train_peak_memory_mb"],
    "ceiling_share": lambda r: r["ours-fp32"]["ceiling_share"],
    "ceiling_share_bf16": lambda r: r["ours-bf16"]["ceiling_share"],
}


def _speed(measured: Round, side: str, what: str) -> float:
    return measured[side][f"{what}_examples_per_second"]


def run(config: Any) -> None:
    """Run every side in turn, print and write the ratios; `config` is a BenchmarkConfig."""
    check_writable(config.json)
    rounds: list[Round] = []
    sides = [side for side in SIDES if not (config.fp32_only and side in IN_BF16)]
    for number in range(1, config.rounds + 1):
        measured = {}
        for side in sides:
            measured[side] = _measure(side, config)
            say(f"round {number}  {side:<13} {_shown(measured[side])}")
        rounds.append(measured)
    check_losses(rounds)
    ratios = {
        name: [ratio(measured) for measured in rounds]
        for name, ratio in RATIOS.items()
        if not (config.fp32_only and "bf16" in name)
    }
    say(f"\n{'ratio':<26}{'median':>8}{'lowest':>8}{'highest':>8}")
    for name, values in ratios.items():
        say(f"{name:<26}{statistics.median(values):>8.2f}{min(values):>8.2f}{max(values):>8.2f}")
    facts = {
        **{name: statistics.median(values) for name, values in ratios.items()},
        "spread": {name: [min(values), max(values)] for name, values in ratios.items()},
        **_circumstances(config),
        "versions": {each: version(each) for each in ("torch", "transformers", "tokenizers", "datasets")},
        "rounds": rounds,
    }
    write_json(config.json, facts)


def run_growth(config: Any) -> None:
    """Measure speed and memory of the same training on more and more examples; `config` is a BenchmarkConfig."""
    check_writable(config.json)
    sizes: dict[int, list[dict[str, float]]] = {size: [] for size in GROWTH}
    with tempfile.TemporaryDirectory() as scratch:
        data = {size: write_rows(config, size, Path(scratch) / f"{size}.parquet") for size in GROWTH}
        for number in range(1, config.rounds + 1):
            for size, measured in sizes.items():
                measured.append(_measure("growth", config, {**data[size], "cache": scratch}))
                say(f"round {number}  {size:>7} examples  {_shown(measured[-1])}")
    names = next(iter(sizes.values()))[0]
    medians = {
        str(size): {name: statistics.median(each[name] for each in measured) for name in names}
        for size, measured in sizes.items()
    }

    def slowest_to_fastest(name: str) -> float:
        speeds = [each[name] for each in medians.values()]
        return min(speeds) / max(speeds)

    memories = [each["private_memory_mb"] for each in medians.values()]
    facts: dict[str, Any] = {
        "slowest_to_fastest_examples": slowest_to_fastest("train_examples_per_second"),
        "slowest_to_fastest_work": slowest_to_fastest("train_gflops_per_second"),
        "memory_growth_mb": memories[-1] - memories[0],
        "medians": medians,
        **_circumstances(config),
        "rounds": {str(size): measured for size, measured in sizes.items()},
    }
    say(
        f"\nslowest to fastest {facts['slowest_to_fastest_examples']:.3f} in examples, "
        f"{facts['slowest_to_fastest_work']:.3f} in matrix operations a second; memory grows by "
        f"{facts['memory_growth_mb']:.0f} MB"
    )
    write_json(config.json, facts)


def write_rows(config: Any, count: int, path: Path) -> dict[str, Any]:
    """Repeat the training rows of a dataset to a parquet file of `count` rows; return its flags."""
    import datasets

    settings = TrainConfig(model=config.model, dataset=config.dataset, subset=config.subset, eval_strategy="no")
    rows = rows_of(settings, resolve_model(config.model))
    columns = {name: list(rows.train.column(name)) for name in (*rows.text_columns, rows.label_column)}
    once = datasets.Dataset.from_dict(columns)
    again = datasets.concatenate_datasets([once] * -(-count // len(once)))
    datasets.disable_progress_bars()
    again.select(range(count)).to_parquet(path)
    return {
        "dataset": None,
        "subset": None,
        "train_file": str(path),
        "text_columns": rows.text_columns,
        "label_column": rows.label_column,
    }


def check_losses(rounds: list[Round]) -> None:
    """Raise MinitrainError unless all sides that train reach the same mean loss over all rounds."""
    losses = {
        side: statistics.mean(measured[side]["loss"] for measured in rounds)
        for side in rounds[0]
        if "loss" in rounds[0][side]
    }
    if max(losses.values()) - min(losses.values()) > SAME_LOSS:
        shown = ", ".join(f"{side} {loss:.4f}" for side, loss in losses.items())
        raise MinitrainError(f"the sides do not reach the same loss: {shown}; their speeds cannot be compared")


def _shown(measured: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in measured.items())


def _circumstances(config: Any) -> dict[str, Any]:
    settings = {name: value for name, value in asdict(config).items() if name != "json"}
    return {"settings": settings, "machine": machine(config.device)}


def machine(device: str = "cpu") -> dict[str, Any]:
    """The machine of the figures."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = named[0] if named else model
    gpu = {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda} if device == "cuda" else {}
    capability = torch.backends.cpu.get_cpu_capability()
    return {"processor": model, "capability": capability, "cores": os.cpu_count(), **gpu}


def _measure(side: str, config: Any, more: Mapping[str, Any] | None = None) -> dict[str, float]:
    """Run one side in its own process, with `more` settings; raises MinitrainError with its error output."""
    with tempfile.TemporaryDirectory() as scratch:
        settings = {
            "model": config.model,
            "dataset": config.dataset,
            "subset": config.subset,
            "per_device_train_batch_size": config.per_device_train_batch_size,
            "max_steps": config.steps,
            "device": config.device,
            "output_dir": scratch,
            "warmup": config.warmup,
            **(more or {}),
        }
        environment = (
            os.environ
            | {
                "OMP_NUM_THREADS": str(config.threads),
                "MINITRAIN_CACHE": "",  # both sides tokenize
                "PYTHONPATH": os.pathsep.join(filter(None, (*sys.path[:1], os.environ.get("PYTHONPATH")))),
                "TRANSFORMERS_VERBOSITY": "error",
                "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            }
        )
        done = subprocess.run(
            [sys.executable, "-m", "references.speed", side, str(time.time()), json.dumps(settings)],
            capture_output=True,
            text=True,
            env=environment,
        )
    if done.returncode:
        raise MinitrainError(f"the side {side} failed:\n{done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result
