"""The estimate of a run's memory beside what the process then takes, and the refusal of a run that cannot fit."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.run import memory
from minitrain.run.main import train
from minitrain.run.memory import LIMIT, Estimate, check_fits, estimate
from minitrain.run.prepare import PreparedRun, prepare

PROCESS = """
import json, sys
from minitrain.config.train_config import TrainConfig
from minitrain.run.memory import estimate
from minitrain.run.prepare import prepare
from minitrain.run.peak_memory import peak_memory_mb
from minitrain.training.loop import fit

run = prepare(TrainConfig(**json.loads(sys.argv[1])))
found = estimate(run).total / 1e6
fit(run.model, run.splits.train, {}, run.config, pad_token_id=run.tokenizer.pad_token_id)
print(found, peak_memory_mb())
"""
GRID: dict[str, dict[str, Any]] = {
    "fast": {},
    "checkpointed": {"gradient_checkpointing": True},
    "reference": {"kernels": "reference", "per_device_train_batch_size": 4},
}


def prepared(folder: Path, **flags: Any) -> PreparedRun:
    return prepare(TrainConfig(**settings(folder) | flags))


def settings(folder: Path) -> dict[str, Any]:
    return {
        "model": str(folder / "tiny"),
        "train_file": str(folder / "train.csv"),
        "text_columns": ("text",),
        "eval_strategy": "no",
        "output_dir": str(folder / "run"),
        "max_steps": 2,
    }


@pytest.mark.parametrize("kind", GRID)
def test_the_estimate_is_within_15_percent_of_what_the_process_takes(kind: str, tmp_path: Path) -> None:
    rows = [
        {"text": " ".join(f"good {row} film {word}" for word in range(60)), "label": row % 2} for row in range(24)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    flags = settings(tmp_path) | {"model": "demo", "train_file": str(file), "max_length": 128} | GRID[kind]
    done = subprocess.run([sys.executable, "-c", PROCESS, json.dumps(flags)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, measured = map(float, done.stdout.split())
    assert found == pytest.approx(measured, rel=0.15)


def test_an_estimate_leaves_no_trace(place: Path) -> None:
    run = prepared(place)
    before, was = torch.get_rng_state(), run.model.training
    first, second = estimate(run), estimate(run)
    assert torch.equal(before, torch.get_rng_state()) and run.model.training is was
    assert all(each.grad is None for each in run.model.parameters())
    assert first.activations == second.activations > 0


def test_more_is_estimated_for_more(place: Path) -> None:
    plain = estimate(prepared(place))
    assert estimate(prepared(place), batch_size=16).activations > 1.5 * plain.activations
    assert estimate(prepared(place, gradient_checkpointing=True)).activations < plain.activations
    assert estimate(prepared(place, kernels="reference")).gradients > plain.gradients  # those of words are dense
    assert (
        estimate(
            prepared(place, load_best_model_at_end=True, eval_strategy="epoch", eval_file=str(place / "train.csv"))
        ).program
        > 0
    )


def test_a_run_that_cannot_fit_is_refused_with_what_does(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepared(place)
    whole, checkpointed = estimate(run), estimate(prepared(place, gradient_checkpointing=True))
    # Of the tiny model the activations are nothing beside the program: take it as if it were all of them.
    large = {"program": 0.0, "weights": 1e6, "gradients": 1e6, "moments": 2e6}

    def scaled(run: PreparedRun, processes: int = 1, batch_size: int | None = None) -> Estimate:
        rows = batch_size or run.config.per_device_train_batch_size
        return Estimate(**large, activations=rows * (4e6 if run.config.gradient_checkpointing else 8e6))

    assert whole.activations > checkpointed.activations
    monkeypatch.setattr(memory, "estimate", scaled)
    found = scaled(run)  # 67 MB; 35 MB checkpointed
    monkeypatch.setenv(LIMIT, "70e6")
    assert len(check_fits(found, run)) == 1
    monkeypatch.setenv(LIMIT, "60e6")  # within the margin: a warning
    assert "pass --gradient_checkpointing" in check_fits(found, run)[1]
    monkeypatch.setenv(LIMIT, "40e6")
    with pytest.raises(MinitrainError, match="before step 1.*67 MB.*40 MB.*--gradient_checkpointing"):
        check_fits(found, run)
    monkeypatch.setenv(LIMIT, "20e6")
    with pytest.raises(MinitrainError, match="--per_device_train_batch_size 2 --gradient_accumulation_steps 4"):
        check_fits(found, run)
    monkeypatch.setenv(LIMIT, "1e6")
    with pytest.raises(MinitrainError, match="a smaller --model or --max_length"):
        check_fits(found, run)


def test_a_refused_run_has_taken_no_step(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, "1e6")
    with pytest.raises(MinitrainError, match="out of memory before step 1"):
        train(TrainConfig(**settings(place)))
    assert not (place / "run" / "results.json").exists()


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 100\n")
    assert list(memory._cgroup(tmp_path)) == [400]
    (tmp_path / "memory.max").write_text("max\n")
    assert list(memory._cgroup(tmp_path)) == []
