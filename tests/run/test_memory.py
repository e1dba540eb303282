"""The estimate of a run's memory beside what the process then takes, and the refusal of a run that cannot fit."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.reference import save_checkpoint
from test_loop import VOCABULARY, write_tiny_model

from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.run import memory
from minitrain.run.main import train
from minitrain.run.memory import LIMIT, Estimate, available, check_fits, estimate
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
assert "torch._dynamo" not in sys.modules  # which would take seconds
fit(run.model, run.splits.train, run.splits.evaluation, run.config, pad_token_id=run.tokenizer.pad_token_id)
print(found, peak_memory_mb())
"""
GRID: dict[str, dict[str, Any]] = {
    "fast": {},
    "checkpointed": {"gradient_checkpointing": True},
    "reference": {"kernels": "reference", "per_device_train_batch_size": 4},
    "windows": {
        "long_texts": "windows",
        "max_length": 48,
        "stride": 30,
        "max_windows": 16,
        "per_device_train_batch_size": 4,
    },
    "evaluation": {"model": "deberta", "eval_strategy": "epoch", "max_length": 256, "freeze": "encoder"},
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
    if flags["model"] == "deberta":  # of a few small layers whose attention takes far more than all else
        sizes = {"vocab_size": len(VOCABULARY), "hidden_size": 48, "num_attention_heads": 12}
        write_tiny_model(tmp_path)  # its tokenizer
        save_checkpoint(tmp_path, "deberta-v2", **sizes, max_position_embeddings=256)
        flags |= {"model": str(tmp_path), "eval_file": str(file), "per_device_train_batch_size": 2}
    done = subprocess.run([sys.executable, "-c", PROCESS, json.dumps(flags)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, measured = map(float, done.stdout.split())
    assert found == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_an_estimate_leaves_no_trace(checkpointed: bool, place: Path) -> None:
    run = prepared(place, gradient_checkpointing=checkpointed)
    blocks = [set(vars(block)) for block in run.model.encoder.blocks]
    before, was = torch.get_rng_state(), run.model.training
    first, second = estimate(run), estimate(run)
    assert torch.equal(before, torch.get_rng_state()) and run.model.training is was
    assert (
        all(each.grad is None for each in run.model.parameters()) and not run.model.encoder.word_embeddings.sparse
    )
    assert blocks == [set(vars(block)) for block in run.model.encoder.blocks]
    assert first.step == second.step > 0


def test_more_is_estimated_for_more(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = estimate(prepared(place))
    larger = estimate(prepared(place, per_device_train_batch_size=16))
    assert larger.step > 1.5 * plain.step
    assert estimate(prepared(place, per_device_train_batch_size=16, gradient_checkpointing=True)).step < larger.step
    assert estimate(prepared(place, gradient_accumulation_steps=2)).step > plain.step
    assert estimate(prepared(place, kernels="reference")).step > plain.step  # the gradient of words is dense
    evaluated: dict[str, Any] = {"eval_strategy": "epoch", "eval_file": str(place / "train.csv")}
    few, many = (estimate(prepared(place, **evaluated, per_device_eval_batch_size=rows)) for rows in (16, 64))
    assert plain.evaluation == 0 and many.evaluation == pytest.approx(4 * few.evaluation, rel=0.1)
    monkeypatch.setattr(memory, "_resident", lambda: 0.0)
    kept, last = (estimate(prepared(place, **evaluated, load_best_model_at_end=best)) for best in (True, False))
    assert kept.program - last.program == kept.weights


def test_chunks_of_a_feed_forward_layer_do_not_confuse(place: Path, tmp_path: Path) -> None:
    """Their number depends on the length. Without them is an upper bound."""
    write_tiny_model(tmp_path, chunk_size_feed_forward=4)
    run = prepared(place, model=str(tmp_path))
    assert run.model.encoder.blocks[0].chunk_size == 4
    assert estimate(run).step == estimate(prepared(place)).step
    assert run.model.encoder.blocks[0].chunk_size == 4


def test_the_way_out_of_a_match_is_no_flag_that_it_excludes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepared(place, match_accelerate=True)
    monkeypatch.setenv(LIMIT, str(0.9 * estimate(run).needed))
    [_, warning] = check_fits(estimate(run), run)
    assert "accumulation" not in warning


def test_a_limit_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for named in ("2GB", "nan", "0"):
        monkeypatch.setenv(LIMIT, named)
        with pytest.raises(
            MinitrainError, match=f"MINITRAIN_MEMORY_LIMIT={named}: expected a number of bytes, such"
        ):
            available(torch.device("cpu"))


def test_a_run_that_cannot_fit_is_refused_with_what_does(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepared(place)

    # Of the tiny model all is nothing beside the program: take it as if a step and an evaluation were all.
    def scaled(run: PreparedRun, processes: int = 1) -> Estimate:
        step = run.config.per_device_train_batch_size * (4e6 if run.config.gradient_checkpointing else 8e6)
        evaluation = run.config.per_device_eval_batch_size * 1e6
        return Estimate(program=0.0, weights=1e6, moments=2e6, step=step, evaluation=evaluation)

    monkeypatch.setattr(memory, "estimate", scaled)
    found = scaled(run)  # 67 MB, of an evaluation 35; 35 MB checkpointed
    monkeypatch.setenv(LIMIT, "70e6")
    assert len(check_fits(found, run)) == 1
    monkeypatch.setenv(LIMIT, "60e6")  # within the margin: a warning
    assert "pass --gradient_checkpointing," in check_fits(found, run)[1]
    for limit, way in (
        ("42e6", "67 MB.*42 MB.*pass --gradient_checkpointing, which"),
        ("32e6", "batch_size 2 --gradient_accumulation_steps 4 --per_device_eval_batch_size 16, which is the same"),
        ("14e6", "batch_size 1 --gradient_accumulation_steps 8 --per_device_eval_batch_size 8"),
        (
            "9e6",
            "batch_size 1 --gradient_accumulation_steps 8 --gradient_checkpointing --per_device_eval_batch_size 4",
        ),
        ("1e6", "a smaller --model or --max_length"),
    ):
        monkeypatch.setenv(LIMIT, limit)
        with pytest.raises(MinitrainError, match=f"before step 1.*{way}"):
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
