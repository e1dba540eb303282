"""A run that is taken up again ends with the bits of one that never stopped: faults 12, 13, 15, 16, 17."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import write_tiny_model
from test_main import named_reviews, read_log, write_csv

from minitrain.config.train_config import FORMER_NAMES, TrainConfig
from minitrain.data.batch import collate
from minitrain.errors import MinitrainError
from minitrain.kernels.matmul import MATMULS, available_matmuls
from minitrain.run.main import train
from minitrain.run.resume_checks import changed_settings

STEPS = 14  # of 64 rows in batches of 12: an epoch has 6, the last one of 4 rows
KINDS: dict[str, dict[str, Any]] = {
    "default": {},
    "random order, decay": {"sampler": "random", "weight_decay": 0.1, "optim": "adamw_torch"},
    "reference kernels": {"kernels": "reference"},
    "match_trainer": {"match_trainer": True},
    "match_accelerate": {"match_accelerate": True},
    "accumulation": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3},
    "streams of examples": {"dropout_rng": "example"},
    "best and patience": {"load_best_model_at_end": True, "early_stopping_patience": 2},
    "bf16": {"bf16": True},
    "frozen and kept, rates by layer": {"freeze": 1, "keep_activations": True, "layerwise_lr_decay": 0.5},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_tiny_model(folder / "tiny")
    write_csv(folder / "train.csv", *named_reviews(64))
    write_csv(folder / "eval.csv", *named_reviews(21, seed=1))
    return folder


def flags(place: Path, out: Path, **more: Any) -> dict[str, Any]:
    fixed: dict[str, Any] = {
        "model": str(place / "tiny"),
        "train_file": str(place / "train.csv"),
        "eval_file": str(place / "eval.csv"),
        "output_dir": str(out),
        "per_device_train_batch_size": 12,
        "learning_rate": 3e-3,
        "max_steps": STEPS,
        "warmup_steps": 3,
        "eval_strategy": "steps",
        "eval_steps": 4,
        "logging_steps": 1,
    }
    return fixed | more


def floats(out: Path) -> list[tuple[Any, ...]]:
    """What the log says of every step and evaluation, times aside."""
    names = ("event", "step", "epoch", "loss", "grad_norm", "learning_rate", "accuracy")
    return [tuple(line.get(name) for name in names) for line in read_log(out)]


@pytest.mark.fault(12)
@pytest.mark.parametrize("kind", KINDS)
def test_resuming_at_every_step_ends_with_the_same_bits(place: Path, tmp_path: Path, kind: str) -> None:
    whole = tmp_path / "whole"
    saving = {"save_strategy": "steps", "save_steps": 1}
    expected = train(TrainConfig(**flags(place, whole, **KINDS[kind], **saving)))
    checkpoints = sorted((whole / "checkpoints").iterdir())
    assert len(checkpoints) == expected["steps"] > 5
    for checkpoint in checkpoints:
        out = tmp_path / checkpoint.name
        out.mkdir()
        step = int(checkpoint.name.removeprefix("step-"))
        # As it lay when that checkpoint was the newest: with a later line in the log, of a step that was lost.
        lines = (whole / "log.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if json.loads(line)["step"] <= step + 1]
        (out / "log.jsonl.part").write_text("".join(kept) + '{"event": "st', encoding="utf-8")
        shutil.copytree(checkpoint, out / "checkpoints" / checkpoint.name)
        found = train(TrainConfig(**flags(place, out, **KINDS[kind], resume="newest")))
        assert (found["steps"], found["results"]) == (expected["steps"], expected["results"])
        assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
        assert floats(out) == floats(whole)


@pytest.mark.fault(12)
def test_run_that_goes_on_multiplies_as_the_one_that_stopped(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process tries out which library is quicker, and on a busy machine finds the other one."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    other = {f"{name}, torch.float32": len(available_matmuls(name, torch.float32)) - 1 for name in MATMULS}
    monkeypatch.setattr("minitrain.kernels.matmul._chosen", dict(other))
    train(TrainConfig(**flags(place, whole, save_strategy="steps", save_steps=5)))
    shutil.copytree(whole / "checkpoints/step-00000005", out / "checkpoints/step-00000005")
    now = dict.fromkeys(other, 0)
    monkeypatch.setattr("minitrain.kernels.matmul._chosen", now)
    train(TrainConfig(**flags(place, out, resume="newest")))
    assert now == other
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_skipping_forward_computes_nothing(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    train(TrainConfig(**flags(place, out, save_strategy="steps", save_steps=13)))
    (out / "results.json").unlink()
    shutil.rmtree(out / "checkpoints/step-00000014")  # of the end
    taken = []

    def counted(examples: Any, *words: Any, **more: Any) -> Any:
        taken.append(examples)
        return collate(examples, *words, **more)

    monkeypatch.setattr("minitrain.training.loop.collate", counted)
    train(TrainConfig(**flags(place, out, resume="newest")))
    assert len(taken) == 1  # of 14


@pytest.fixture
def interrupted(place: Path, tmp_path: Path) -> Path:
    """A folder as a crash leaves it: checkpoints at steps 4 and 8, and no results."""
    out = tmp_path / "interrupted"
    train(TrainConfig(**flags(place, out, save_strategy="steps", save_steps=4, max_steps=8)))
    for name in ("results.json", "log.jsonl", "model.safetensors", "config.json", "README.md", "predictions.jsonl"):
        (out / name).unlink()
    return out


@pytest.mark.fault(15)
def test_changed_settings_are_listed_and_go_on_only_when_told_to(
    place: Path, interrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = flags(place, interrupted, resume="newest", max_steps=10, learning_rate=1e-3)
    with pytest.raises(MinitrainError, match="max_steps: 8 -> 10; learning_rate: 0.003 -> 0.001"):
        train(TrainConfig(**changed))
    assert train(TrainConfig(**changed, resume_changed=True))["steps"] == 10
    assert "changed  max_steps: 8 -> 10; learning_rate: 0.003 -> 0.001" in capsys.readouterr().out


def test_settings_that_a_run_of_version_0_1_0_saved_are_read_under_todays_names() -> None:
    config = asdict(TrainConfig(decay_all=True, sampler="global_rng"))
    names = {new: old for old, new in FORMER_NAMES.items()}
    former = {names.get(name, name): value for name, value in config.items()} | {
        "decay": "all",
        "sampler": "stream",
    }
    assert changed_settings({"config": former}, {"config": config}) == []
    del former["long_texts"]  # a setting that it does not know is at its default
    assert changed_settings({"config": former}, {"config": config}) == []
    assert changed_settings({"config": former}, {"config": config | {"long_texts": "tail"}}) == [
        "long_texts: head -> tail"
    ]
    former["decay"] = "matrices"
    assert changed_settings({"config": former}, {"config": config}) == ["decay_all: False -> True"]


def test_another_global_batch_is_a_changed_setting_and_another_cut_of_it_is_not(
    place: Path, interrupted: Path
) -> None:
    larger = flags(place, interrupted, resume="newest", max_steps=8, per_device_train_batch_size=8)
    with pytest.raises(MinitrainError, match="examples a step, in all processes: 12 -> 8"):
        train(TrainConfig(**larger))
    cut = larger | {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3}
    assert train(TrainConfig(**cut))["steps"] == 8


@pytest.mark.fault(16)
@pytest.mark.parametrize("what", ["train.csv", "eval.csv"])
def test_changed_data_are_refused(place: Path, interrupted: Path, tmp_path: Path, what: str) -> None:
    other = tmp_path / "other"
    shutil.copytree(place, other)
    write_csv(other / what, *named_reviews(64 if what == "train.csv" else 21, seed=9))
    name = "train" if what == "train.csv" else "validation"
    with pytest.raises(MinitrainError, match=f"the checkpoint is of the {name} data [0-9a-f]{{8}}, .* has"):
        train(TrainConfig(**flags(other, interrupted, resume="newest", resume_changed=True)))


@pytest.mark.fault(16)
def test_changed_tokenizer_is_refused(place: Path, interrupted: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(place, other)
    path = other / "tiny/tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | {"do_lower_case": False}), encoding="utf-8")
    with pytest.raises(MinitrainError, match="the checkpoint is of the tokenizer"):
        train(TrainConfig(**flags(other, interrupted, resume="newest", resume_changed=True)))


@pytest.mark.fault(16)
def test_changed_label_names_are_refused(place: Path, interrupted: Path, tmp_path: Path) -> None:
    """The same texts in the same order, of classes that are called otherwise."""
    other = tmp_path / "other"
    shutil.copytree(place, other)
    for name in ("train.csv", "eval.csv"):
        text = (other / name).read_text(encoding="utf-8")
        assert "lovely" in text
        (other / name).write_text(text.replace("lovely,", "fine,").replace(",lovely", ",fine"), encoding="utf-8")
    with pytest.raises(MinitrainError, match="the checkpoint is of the labels .*lovely.*, this run has .*fine"):
        train(TrainConfig(**flags(other, interrupted, resume="newest", resume_changed=True)))


@pytest.mark.fault(8)
def test_bit_flipped_in_every_file_of_a_real_checkpoint_is_found(
    place: Path, interrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = train(TrainConfig(**flags(place, tmp_path / "whole", max_steps=8)))
    files = sorted((interrupted / "checkpoints/step-00000008").iterdir())
    assert len(files) == 5
    for file in files:
        out = tmp_path / file.stem
        shutil.copytree(interrupted, out)
        damaged = out / "checkpoints/step-00000008" / file.name
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        damaged.write_bytes(data)
        capsys.readouterr()
        with pytest.raises(MinitrainError, match=r"step-00000008.*damaged|step-00000008.*(not valid JSON|twice)"):
            train(TrainConfig(**flags(place, out, resume=str(damaged.parent), max_steps=8)))
        found = train(TrainConfig(**flags(place, out, resume="newest", max_steps=8)))
        said = capsys.readouterr().out
        assert "not resumed from step-00000008: " in said and "resumed  at step 4" in said
        assert found["results"] == expected["results"]
        assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


@pytest.mark.fault(17)
def test_finished_run_says_so(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    results = train(TrainConfig(**flags(place, out, save_strategy="epoch")))
    before = (out / "model.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    assert train(TrainConfig(**flags(place, out, resume="newest"))) == json.loads(json.dumps(results))
    assert capsys.readouterr().out == f"finished {out}: this run went to its end; there is nothing to resume\n"
    assert (out / "model.safetensors").stat().st_mtime_ns == before


def test_finished_run_is_not_taken_for_another(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train(TrainConfig(**flags(place, out, save_strategy="steps", save_steps=7)))
    log = (out / "log.jsonl").read_text(encoding="utf-8")
    with pytest.raises(MinitrainError, match="with other settings: max_steps: 14 -> 20"):
        train(TrainConfig(**flags(place, out, resume="newest", max_steps=20)))
    with pytest.raises(MinitrainError, match="step-99: there is no such checkpoint"):
        train(TrainConfig(**flags(place, out, resume=str(out / "checkpoints/step-99"))))
    assert (out / "log.jsonl").read_text(encoding="utf-8") == log and not (out / "log.jsonl.part").exists()
    longer = train(TrainConfig(**flags(place, out, resume="newest", max_steps=20, resume_changed=True)))
    assert longer["steps"] == 20
    assert [line["step"] for line in read_log(out) if line["event"] == "step"] == list(range(1, 21))


def test_run_from_an_older_checkpoint_moves_the_newer_ones_out_of_its_way(
    place: Path, interrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older = str(interrupted / "checkpoints/step-00000004")
    changed = flags(place, interrupted, resume=older, learning_rate=1e-3, max_steps=8, resume_changed=True)
    train(TrainConfig(**changed, save_strategy="steps", save_steps=4, save_total_limit=1))
    assert "moved    step-00000008, which is newer, into" in capsys.readouterr().out
    kept = sorted(path.name for path in (interrupted / "checkpoints").iterdir())
    assert kept == ["left", "step-00000004", "step-00000008"]  # the best one, and the newest
    moments = [
        (interrupted / f"checkpoints/{place}step-00000008/optimizer.safetensors").read_bytes()
        for place in ("", "left/")
    ]
    assert moments[0] != moments[1]


def test_nothing_to_resume_starts_from_the_beginning(place: Path, tmp_path: Path) -> None:
    """What a command under `torchrun --max_restarts` has to do the first time."""
    first = train(TrainConfig(**flags(place, tmp_path / "first", resume="newest")))
    second = train(TrainConfig(**flags(place, tmp_path / "second")))
    assert first["results"] == second["results"] and first["steps"] == STEPS


@pytest.mark.fault(9)
@pytest.mark.parametrize("word", ["step-00000005", "elsewhere/step-00000004"])
def test_mistyped_path_is_an_error_and_no_fresh_start(place: Path, interrupted: Path, word: str) -> None:
    path = interrupted / "checkpoints" / word
    with pytest.raises(MinitrainError, match=f"{word}: there is no such checkpoint; in "):
        train(TrainConfig(**flags(place, interrupted, resume=str(path))))
    assert not (interrupted / "model.safetensors").exists()


def test_folder_of_an_interrupted_run_is_not_overwritten_unasked(place: Path, interrupted: Path) -> None:
    with pytest.raises(MinitrainError, match="holds checkpoints of an interrupted run; pass --resume"):
        train(TrainConfig(**flags(place, interrupted)))
    train(TrainConfig(**flags(place, interrupted, overwrite_output_dir=True)))
    assert not (interrupted / "checkpoints").exists()


def test_state_of_a_checkpoint_is_json_and_tensors(place: Path, interrupted: Path) -> None:
    newest = interrupted / "checkpoints/step-00000008"
    assert {path.name for path in newest.iterdir()} == {
        "manifest.json",
        "model.safetensors",
        "optimizer.safetensors",
        "random.safetensors",
        "state.json",
    }
    facts = json.loads((newest / "state.json").read_text(encoding="utf-8"))
    assert (facts["format"], facts["step"], facts["processes"], facts["global_batch"]) == (1, 8, 1, 12)
    assert facts["versions"]["torch"] == torch.__version__.split("+")[0] or facts["versions"]["torch"]
    assert facts["config"]["learning_rate"] == 3e-3 and facts["best"]["step"] in (4, 8)
