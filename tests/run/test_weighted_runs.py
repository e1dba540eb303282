"""Runs with class weights or an own loss: what they print and save, and what scores and resumes them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch.nn.functional as F
from datasets import ClassLabel, Dataset, Features, Value
from test_loop import write_tiny_model
from test_main import named_reviews, write_csv
from torch import Tensor

from minitrain.config.inference_config import EvaluateConfig
from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.run.evaluate import evaluate_run
from minitrain.run.main import train

WEIGHTS = {"awful": 0.5, "lovely": 30.0}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_tiny_model(folder / "tiny")
    texts, labels = named_reviews(40)
    write_csv(folder / "train.csv", texts[:30], labels[:20] + ["awful"] * 10)
    write_csv(folder / "eval.csv", *named_reviews(21, seed=1))
    write_csv(folder / "scores.csv", named_reviews(20)[0], [row + 0.5 for row in range(20)])
    return folder


def flags(place: Path, out: Path, **others: Any) -> dict[str, Any]:
    files = {
        "train_file": str(place / "train.csv"),
        "eval_file": str(place / "eval.csv"),
        "model": str(place / "tiny"),
    }
    return {**files, "output_dir": str(out), "learning_rate": 3e-3, "max_steps": 4, "device": "cpu", **others}


def focal(logits: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Lin et al. 2017, arXiv 1708.02002, gamma 2."""
    surprise = F.cross_entropy(logits, labels, reduction="none")
    return ((1 - (-surprise).exp()) ** 2 * surprise).sum(), len(labels)


def printed_by(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_a_weighted_run_names_its_weights_and_is_scored_by_them_again(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = train(TrainConfig(**flags(place, tmp_path / "run", class_weights=WEIGHTS)))
    assert "\nloss     class weights awful 0.5, lovely 30\n" in printed_by(capsys)
    saved = json.loads((tmp_path / "run" / "results.json").read_text())
    assert saved["class_weights"] == saved["config"]["class_weights"] == WEIGHTS and saved["loss_function"] is None
    assert "Trained with class weights awful 0.5, lovely 30." in (tmp_path / "run" / "README.md").read_text()
    again = evaluate_run(EvaluateConfig(run=str(tmp_path / "run"), device="cpu"))["eval.csv"].loss
    assert again == pytest.approx(results["results"]["validation"]["loss"], abs=1e-6)
    plain = train(TrainConfig(**flags(place, tmp_path / "plain")))["results"]["validation"]["loss"]
    assert abs(plain - again) > 0.05


def test_balanced_counts_the_rows_that_are_trained_on(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = train(TrainConfig(**flags(place, tmp_path, class_weights="balanced", max_steps=1)))
    assert results["class_weights"] == {"awful": 30 / (2 * 20), "lovely": 30 / (2 * 10)}
    assert "class weights awful 0.75, lovely 1.5" in printed_by(capsys)


@pytest.mark.parametrize(
    ("weights", "others", "message"),
    [
        ("lovly=2,awful=1", {}, r"no class 'lovly'; did you mean 'lovely'\? The classes are awful, lovely"),
        ("lovely=2", {}, r"no weight for 'awful'"),
        ("balanced", {"train_file": "scores.csv", "eval_file": "scores.csv"}, r"these labels are scores"),
    ],
)
def test_traps_stop_a_run_before_it_starts(
    place: Path, tmp_path: Path, weights: str, others: dict[str, Any], message: str
) -> None:
    others = {name: str(place / value) for name, value in others.items()}
    with pytest.raises(MinitrainError, match=message):
        train(TrainConfig(**flags(place, tmp_path / "run", class_weights=weights, **others)))
    assert not (tmp_path / "run" / "results.json").exists()


def test_balanced_needs_a_row_of_each_class_that_the_data_name(place: Path, tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes", "maybe"])})
    rows = Dataset.from_dict({"text": ["good", "bad"] * 4, "label": [0, 1] * 4}, features=features)
    config = TrainConfig(
        model=str(place / "tiny"), output_dir=str(tmp_path / "run"), class_weights="balanced", device="cpu"
    )
    with pytest.raises(MinitrainError, match="balanced: no training row has the label 'maybe'.*name the weights"):
        train(config, data={"train": rows, "validation": rows})


def test_an_own_loss_is_named_and_not_saved(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = train(TrainConfig(**flags(place, tmp_path / "run")), loss=focal)
    assert "\nloss     the loss function focal, which is not saved\n" in printed_by(capsys)
    assert results["loss_function"] == "focal" and results["class_weights"] is None
    assert "Trained with the loss function focal" in (tmp_path / "run" / "README.md").read_text()
    scored = evaluate_run(EvaluateConfig(run=str(tmp_path / "run"), device="cpu"))["eval.csv"]
    assert "trained with the loss function focal, which it does not hold: the loss below is cross-entropy" in (
        capsys.readouterr().err
    )
    assert scored.loss > results["results"]["validation"]["loss"]  # focal loss is below cross-entropy
    assert scored.metrics["accuracy"] == results["results"]["validation"]["accuracy"]


@pytest.mark.parametrize("kind", ["class weights", "an own loss"])
def test_a_run_resumes_with_the_loss_it_began_with(place: Path, tmp_path: Path, kind: str) -> None:
    first = {"class_weights": WEIGHTS} if kind == "class weights" else {}
    own = None if kind == "class weights" else focal
    begun = {**first, "save_strategy": "steps", "save_steps": 2}
    whole = train(TrainConfig(**flags(place, tmp_path / "whole", **begun)), loss=own)
    out, saved = tmp_path / "run", "checkpoints/step-00000002"
    shutil.copytree(tmp_path / "whole" / saved, out / saved)
    change = r"class_weights: \{.*\} -> balanced" if own is None else r"the loss function: focal -> None"
    with pytest.raises(MinitrainError, match=f"other settings: {change}"):
        other = {"class_weights": "balanced"} if own is None else {}
        train(TrainConfig(**flags(place, out, **begun | other, resume="newest")))
    results = train(TrainConfig(**flags(place, out, **begun, resume="newest")), loss=own)
    assert results["results"] == whole["results"]
    again = train(TrainConfig(**flags(place, out, **begun, resume="newest")), loss=own)
    assert again["training_seconds"] == results["training_seconds"]  # it was finished
