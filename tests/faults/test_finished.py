"""A finished run is never replaced unasked: it goes on from its end, or is refused and left byte for byte."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import write_tiny_model
from test_main import named_reviews, read_log, read_results, write_csv
from test_resume import flags, floats

from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.run.main import train
from minitrain.run.resume_checks import other_machine

END = {"save_strategy": "epoch"}  # of 14 steps, 6 an epoch: checkpoints at 6, 12 and, since it is the end, 14
ON = {"resume": "newest", "resume_changed": True}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_tiny_model(folder / "tiny")
    write_csv(folder / "train.csv", *named_reviews(64))
    write_csv(folder / "eval.csv", *named_reviews(21, seed=1))
    shutil.copytree(folder, folder / "other")
    write_csv(folder / "other/train.csv", *named_reviews(64, seed=9))
    return folder


@pytest.fixture(scope="module")
def runs(place: Path) -> dict[str, Path]:
    """Finished runs of 14 steps: without checkpoints, with one of the end, best kept, and stopped early at 12."""
    kinds: dict[str, dict[str, Any]] = {
        "bare": {},
        "end": END,
        "best": {**END, "load_best_model_at_end": True},
        "early": {**END, "early_stopping_patience": 2, "learning_rate": 0.0},
    }
    for kind, more in kinds.items():
        train(TrainConfig(**flags(place, place / "runs" / kind, **more)))
    assert read_results(place / "runs/early")["steps"] == 12
    return {kind: place / "runs" / kind for kind in kinds}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def drop_checkpoints(out: Path) -> None:
    shutil.rmtree(out / "checkpoints")


def drop_the_end(out: Path) -> None:
    shutil.rmtree(out / "checkpoints/step-00000014")


def damage(out: Path, *steps: int) -> None:
    for step in steps:
        path = out / f"checkpoints/step-{step:08d}/model.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"?")


def nothing(out: Path) -> None:
    pass


CASES: dict[str, tuple[str, Callable[[Path], None], dict[str, Any], str]] = {
    "more steps, no checkpoint": ("bare", nothing, {**ON, "max_steps": 20}, "max_steps: 14 -> 20.*no checkpoint"),
    "not asked for changes": ("bare", nothing, {"resume": "newest", "max_steps": 20}, "it has no checkpoint"),
    "more epochs": ("bare", nothing, {**ON, "max_steps": -1, "num_train_epochs": 5}, "it has no checkpoint"),
    "fewer steps, no checkpoint": ("bare", nothing, {**ON, "max_steps": 5}, "it has no checkpoint"),
    "other data": ("bare", nothing, {**ON, "train_file": "other/train.csv"}, "it has no checkpoint"),
    "keep the best": ("bare", nothing, {**ON, "load_best_model_at_end": True}, "it has no checkpoint"),
    "another batch": ("bare", nothing, {**ON, "per_device_train_batch_size": 6}, "12 -> 6.*no checkpoint"),
    "checkpoints deleted": ("end", drop_checkpoints, {**ON, "max_steps": 20}, "it has no checkpoint"),
    "an older checkpoint": ("end", drop_the_end, {**ON, "max_steps": 20}, "newest whole checkpoint is of step 12"),
    "the end damaged": ("end", lambda out: damage(out, 14), {**ON, "max_steps": 20}, "checkpoint is of step 12"),
    "all damaged": ("end", lambda out: damage(out, 14, 12, 6), {**ON, "max_steps": 20}, "none of 3 checkpoints"),
    "end, other data": ("end", nothing, {**ON, "train_file": "other/train.csv", "max_steps": 20}, "the train data"),
    "end, as many steps": ("end", nothing, {**ON, "weight_decay": 0.1}, "14 are asked for, which is no more"),
    "end, fewer steps": ("end", nothing, {**ON, "max_steps": 13}, "13 are asked for, which is no more"),
    "end, fewer epochs": ("end", nothing, {**ON, "max_steps": -1, "num_train_epochs": 2}, "12 are asked for"),
    "stopped early": ("early", nothing, {**ON, "max_steps": 20}, "early: --early_stopping_patience 3 lets it"),
    "path of an older one": (
        "end",
        nothing,
        {"resume": "step-00000006"},
        "00000006 is a checkpoint of step 6",
    ),
    "path of the end": ("end", nothing, {"resume": "step-00000014"}, "14 are asked for"),
    "path of another run": ("bare", nothing, {"resume": "../../end/checkpoints/step-00000014"}, "of another"),
}


@pytest.mark.parametrize("case", CASES)
def test_finished_run_is_refused_with_the_ways_and_left_as_it_was(
    place: Path, runs: dict[str, Path], tmp_path: Path, case: str
) -> None:
    kind, prepare, more, said = CASES[case]
    out = tmp_path / "out"
    shutil.copytree(runs[kind], out)
    prepare(out)
    given = {"learning_rate": 0.0, "early_stopping_patience": 2} if kind == "early" else {}
    given |= more
    if "train_file" in more:
        given["train_file"] = str(place / more["train_file"])
    if more["resume"].endswith("0000014") and kind == "bare":
        given["resume"] = str(runs["end"] / "checkpoints/step-00000014")
    elif more["resume"] != "newest":
        given["resume"] = str(out / "checkpoints" / more["resume"])
    before = contents(out)
    with pytest.raises(MinitrainError, match=said) as caught:
        train(TrainConfig(**flags(place, out, **given)))
    assert contents(out) == before
    if "train data" not in said:
        assert "--overwrite_output_dir instead of --resume" in str(caught.value)
        assert f"--model {out} --output_dir OTHER" in str(caught.value) or "none of 3" in said


@pytest.mark.parametrize("kind", ["end", "best"])
def test_finished_run_goes_on_from_its_end(place: Path, runs: dict[str, Path], tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    shutil.copytree(runs[kind], out)
    given = {**END, "load_best_model_at_end": kind == "best", "max_steps": 20}
    before = floats(out)
    with pytest.raises(MinitrainError, match="other settings: max_steps: 14 -> 20.*--resume_changed"):
        train(TrainConfig(**flags(place, out, **given, resume="newest")))
    assert train(TrainConfig(**flags(place, out, **given, **ON)))["steps"] == 20
    assert floats(out)[: len(before)] == before
    assert [line["step"] for line in read_log(out) if line["event"] == "step"] == list(range(1, 21))


def test_same_settings_are_finished_even_where_changed_ones_are_allowed(
    place: Path, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(runs["bare"])
    results = train(TrainConfig(**flags(place, runs["bare"], **ON)))
    assert results["steps"] == 14 and contents(runs["bare"]) == before
    assert "this run went to its end; there is nothing to resume" in capsys.readouterr().out


def test_ways_that_a_refusal_names_are_open(place: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    weights = flags(place, tmp_path / "on", model=str(runs["bare"]), max_steps=3)
    assert train(TrainConfig(**weights))["labels"] == ("awful", "lovely")
    older = str(runs["end"] / "checkpoints/step-00000006")
    assert train(TrainConfig(**flags(place, tmp_path / "fork", resume=older)))["steps"] == 14
    out = tmp_path / "replaced"
    shutil.copytree(runs["bare"], out)
    assert train(TrainConfig(**flags(place, out, overwrite_output_dir=True, max_steps=3)))["steps"] == 3
    out = tmp_path / "early"
    shutil.copytree(runs["early"], out)
    patient = flags(place, out, learning_rate=0.0, early_stopping_patience=3, **ON, max_steps=20)
    assert train(TrainConfig(**patient))["steps"] == 16


def test_model_without_results_and_checkpoints_is_not_trained_over(
    place: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    """As a crash while saving leaves it."""
    out = tmp_path / "out"
    shutil.copytree(runs["bare"], out)
    (out / "results.json").unlink()
    (out / "log.jsonl").rename(out / "log.jsonl.part")
    before = contents(out)
    with pytest.raises(MinitrainError, match=r"holds .*config.json, model.safetensors.*, but no checkpoint"):
        train(TrainConfig(**flags(place, out, resume="newest")))
    assert contents(out) == before


@pytest.mark.parametrize(
    "text", ['{"steps": "14"}', '{"steps": 14, "config": []}', '{"steps": 14, "config": null}', "{", "[]"]
)
def test_results_of_something_else_are_named(place: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text, encoding="utf-8")
    with pytest.raises(MinitrainError, match=r"results\.json: "):
        train(TrainConfig(**flags(place, tmp_path, resume="newest")))
    assert contents(tmp_path) == {"results.json": text.encode()}


def test_best_without_its_weights_does_not_count_when_the_best_is_wanted(
    place: Path, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first run kept no weights of its best: a later, worse one is the best that can be saved."""
    out = tmp_path / "out"
    shutil.copytree(runs["end"], out)
    results = train(TrainConfig(**flags(place, out, **ON, load_best_model_at_end=True, max_steps=20)))
    assert results["best"]["step"] > 14 and results["saved"] == "best"
    assert "does not count, as the checkpoint lacks its weights" in capsys.readouterr().out


def test_a_best_f1_of_one_class_is_none_of_the_other(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {**END, "load_best_model_at_end": True, "metric_for_best_model": "f1"}
    train(TrainConfig(**flags(place, tmp_path, **kept, positive_label="awful")))
    results = train(TrainConfig(**flags(place, tmp_path, **kept, **ON, positive_label="lovely", max_steps=20)))
    assert results["best"]["step"] > 14
    assert "the best f1 so far does not count, as --positive_label is another" in capsys.readouterr().out
    assert results["best"]["f1"] == pytest.approx(read_results(tmp_path)["results"]["validation"]["f1"])


def test_another_number_of_threads_is_said_when_a_run_resumes(
    place: Path, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """torch.set_num_threads is left alone: what a user asked of this process holds."""
    for threads, said in (
        (1, ""),
        (2, "changed  threads 1 -> 2 (OMP_NUM_THREADS=1 has as many): last bits differ"),
    ):
        out = tmp_path / f"of-{threads}"
        shutil.copytree(runs["end"] / "checkpoints/step-00000012", out / "checkpoints/step-00000012")
        torch.set_num_threads(threads)
        try:
            train(TrainConfig(**flags(place, out, resume="newest")))
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(1)
        printed = capsys.readouterr().out
        assert said in printed and ("last bits differ" in printed) == bool(said)


def test_other_machine_names_what_differs_and_knows_older_checkpoints() -> None:
    old = {"threads": "4", "CPU": "AVX512", "torch": "2.12.0", "device": "cpu"}
    assert other_machine(old, old) == "" and other_machine({}, old) == ""
    assert other_machine(old, old | {"CPU": "AVX2", "device": "H200"}) == (
        "changed  CPU AVX512 -> AVX2, device cpu -> H200: last bits differ from those of a run that never stopped"
    )
