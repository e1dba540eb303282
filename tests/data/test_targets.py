"""Regression on targets of any scale: standardized for training, answered on their own scale by every reader."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from sklearn.metrics import (  # type: ignore[import-untyped]
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    root_mean_squared_error,
)
from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]
from test_loop import reviews
from test_main import read_log, read_results, write_csv
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from minitrain.config.inference_config import EvaluateConfig
from minitrain.config.train_config import TrainConfig
from minitrain.data.load import load_splits
from minitrain.data.targets import TargetScale, fold, folded, scale_of, unfold
from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.errors import MinitrainError
from minitrain.model.weights import load_classifier
from minitrain.run.evaluate import evaluate_run
from minitrain.run.main import train
from minitrain.run.prepare import prepare
from minitrain.training.evaluation import baseline, predict
from minitrain.training.metrics import metric_for


def prices(count: int, seed: int = 0) -> tuple[list[str], list[float]]:
    """Reviews whose price, 120 to 620, follows from how many of their words are good."""
    texts, labels = reviews(count, seed)
    return texts, [
        370.0 + (250 if label else -250) * len(set(text.split())) / 20
        for text, label in zip(texts, labels, strict=True)
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prices")
    for name, count, seed in (("train", 96, 0), ("eval", 31, 1)):
        write_csv(folder / f"{name}.csv", *prices(count, seed))
    return folder


def config(model: Path, data: Path, out: Path, **flags: Any) -> TrainConfig:
    fixed: dict[str, Any] = {
        "model": str(model),
        "train_file": str(data / "train.csv"),
        "eval_file": str(data / "eval.csv"),
        "problem_type": "regression",
        "output_dir": str(out),
        "num_train_epochs": 2,
        "learning_rate": 3e-3,
    }
    return TrainConfig(**(fixed | flags))


@pytest.fixture(scope="module")
def finished(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("runs") / "prices"
    return out, train(config(model, data, out, num_train_epochs=6))


def scores_of(folder: Path, texts: list[str]) -> torch.Tensor:
    """What transformers makes of the saved folder."""
    reader = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        scores: torch.Tensor = reader(**inputs).logits[:, 0]
    return scores


def test_scale_is_that_of_scikit_learn() -> None:
    targets = [120.5, 370.25, 620.0, 371.0]
    scaler = StandardScaler().fit(numpy.array(targets)[:, None])
    scale = scale_of(targets)
    assert scale is not None
    assert (scale.mean, scale.sd) == pytest.approx((scaler.mean_[0], scaler.scale_[0]), rel=1e-15)
    expected = scaler.transform(numpy.array(targets)[:, None])[:, 0].astype("float32")
    assert list(scale.standardize(targets)) == pytest.approx(expected.tolist(), rel=1e-6)


def test_fold_makes_scores_targets_and_unfold_takes_that_back(model: Path) -> None:
    classifier = load_classifier(model, 1)
    scale, ids = TargetScale(371.0, 88.0), torch.arange(8)[None]
    before = classifier(ids)
    fold(classifier, scale)
    assert torch.allclose(classifier(ids), before * 88.0 + 371.0, rtol=1e-6)
    unfold(classifier, scale)
    assert torch.allclose(classifier(ids), before, atol=1e-4)


def test_weights_are_the_same_bits_after_a_look_through_the_fold(model: Path) -> None:
    classifier = load_classifier(model, 1)
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    with pytest.raises(KeyError), folded(classifier, TargetScale(371.3, 88.7)):
        assert not classifier.state_dict()["head.output.weight"].equal(before["head.output.weight"])
        raise KeyError
    assert all(tensor.equal(before[name]) for name, tensor in classifier.state_dict().items())


def test_prices_are_learnt_and_saved_on_their_own_scale(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, results = finished
    texts, labels = prices(31, seed=1)
    found = results["results"]["validation"]
    assert found["rmse"] < 0.7 * results["baseline"]["validation"]["rmse"] and found["r2"] > 0.5
    theirs = scores_of(folder, texts)
    assert found["rmse"] == pytest.approx(root_mean_squared_error(labels, theirs.numpy()), rel=1e-5)
    assert found["mae"] == pytest.approx(mean_absolute_error(labels, theirs.numpy()), rel=1e-5)
    again = next(iter(evaluate_run(EvaluateConfig(run=str(folder))).values()))
    assert again.values == {name: value for name, value in found.items() if name != "examples"}


def test_same_prices_without_standardizing_stay_near_zero(model: Path, data: Path, tmp_path: Path) -> None:
    results = train(config(model, data, tmp_path / "run", standardize_targets=False))
    assert results["targets"] is None
    assert results["results"]["validation"]["rmse"] > 3 * results["baseline"]["validation"]["rmse"]
    assert float(scores_of(tmp_path / "run", ["so-so"])) < 100


def test_results_keep_the_scale_and_the_log_its_training_loss(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    scale = scale_of(prices(96)[1])
    assert scale is not None
    kept = read_results(folder)["targets"]
    assert (kept["mean"], kept["sd"]) == pytest.approx((scale.mean, scale.sd), rel=1e-6)
    first, *_ = (record for record in read_log(folder) if record["event"] == "step")
    assert first["loss"] < 5  # of standard scores; of prices it would be 150,000
    last = [record for record in read_log(folder) if record["event"] == "evaluation"][-1]
    assert last["rmse"] == read_results(folder)["results"]["validation"]["rmse"]


def test_header_says_what_the_loss_is_of(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(config(model, data, tmp_path / "run", max_steps=1))
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("targets"))
    assert "standardized: mean 3" in line and "the training loss is of standardized targets" in printed
    assert "labels   scores from " in printed and "always the training mean: " in printed


@pytest.mark.parametrize("kernels", ["fast", "reference"])
def test_best_weights_are_saved_folded(model: Path, data: Path, tmp_path: Path, kernels: str) -> None:
    flags = {"load_best_model_at_end": True, "metric_for_best_model": "mae", "kernels": kernels}
    results = train(config(model, data, tmp_path / "run", num_train_epochs=3, **flags))
    best = min(record["mae"] for record in read_log(tmp_path / "run") if record["event"] == "evaluation")
    assert results["best"]["mae"] == results["results"]["validation"]["mae"] == best
    texts, labels = prices(31, seed=1)
    theirs = mean_absolute_error(labels, scores_of(tmp_path / "run", texts).numpy())
    assert best == pytest.approx(theirs, rel=1e-5)


def test_a_trained_head_goes_on_from_what_it_answers(
    finished: tuple[Path, dict[str, Any]], model: Path, data: Path, tmp_path: Path
) -> None:
    folder, results = finished
    again = train(config(folder, data, tmp_path / "run", max_steps=1, learning_rate=0.0))
    before, after = results["results"]["validation"], again["results"]["validation"]
    assert after == pytest.approx(before, rel=1e-4)


def test_match_leaves_targets_as_they_are(model: Path, data: Path, tmp_path: Path) -> None:
    for match in ("match_trainer", "match_accelerate"):
        parts = prepare(config(model, data, tmp_path / "run", **{match: True}))
        assert parts.scale is None
        with pytest.raises(MinitrainError, match=f"--{match} means --standardize_targets False, not True"):
            config(model, data, tmp_path / "run", standardize_targets=True, **{match: True})


def test_targets_that_do_not_differ_are_refused_with_a_way_out(model: Path, data: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", ["a", "b", "c"], [5.5, 5.5, 5.5])
    flags: dict[str, Any] = {"train_file": str(tmp_path / "train.csv"), "max_steps": 1}
    with pytest.raises(
        MinitrainError, match=r"every label of the 3 training rows is 5.5; .* --standardize_targets false"
    ):
        train(config(model, data, tmp_path / "run", **flags))
    train(config(model, data, tmp_path / "run", standardize_targets=False, **flags))


def test_metrics_of_scores_are_scikit_learns() -> None:
    draw = torch.Generator().manual_seed(3)
    for count in (2, 3, 1001):
        labels = torch.rand(count, generator=draw) * 500 + 120
        predictions = labels + torch.randn(count, generator=draw) * 30
        metric = metric_for(None, None)
        metric.update(predictions, labels)
        x, y = predictions.numpy(), labels.numpy()
        found = metric.compute()
        assert found["mse"] == mean_squared_error(y, x)
        assert found["rmse"] == root_mean_squared_error(y, x)
        assert found["mae"] == mean_absolute_error(y, x)
        assert found["r2"] == r2_score(y, x)


@pytest.mark.parametrize(("predictions", "labels"), [([2.0, 2.0], [2.0, 2.0]), ([1.0, 2.0], [2.0, 2.0])])
def test_r2_of_labels_that_do_not_differ_is_scikit_learns(predictions: list[float], labels: list[float]) -> None:
    metric = metric_for(None, None)
    metric.update(predictions, labels)
    with pytest.warns(UserWarning):
        assert metric.compute()["r2"] == r2_score(labels, predictions)


def test_r2_of_one_example_is_nan() -> None:
    from minitrain.training.regression_metrics import r2

    assert math.isnan(r2(torch.ones(1), torch.ones(1)))


def test_baseline_of_scores_names_the_training_mean(data: Path, model: Path) -> None:
    files = {"train_file": str(data / "train.csv"), "eval_file": str(data / "eval.csv")}
    splits = load_splits(tokenizer=load_tokenizer(model), problem_type="regression", **files)
    found = baseline(splits.train, splits.evaluation["validation"])
    mean = numpy.full(31, numpy.mean(prices(96)[1]))
    assert found == pytest.approx(
        {
            "rmse": root_mean_squared_error(prices(31, 1)[1], mean),
            "mae": mean_absolute_error(prices(31, 1)[1], mean),
        }
    )


def test_cross_encoders_are_told_to_leave_scores_alone(finished: tuple[Path, dict[str, Any]], model: Path) -> None:
    folder, _ = finished
    key = json.loads((folder / "config.json").read_text())["sentence_transformers"]
    assert key == {"activation_fn": "torch.nn.modules.linear.Identity"}
    module, _, name = key["activation_fn"].rpartition(".")
    assert getattr(__import__(module, fromlist=[name]), name) is torch.nn.Identity


def test_every_family_ends_in_the_layer_that_is_folded(finished: tuple[Path, dict[str, Any]], model: Path) -> None:
    from minitrain.model.families import FAMILIES

    for family in FAMILIES.values():
        assert "head.output" in [ours for _, ours in family.key_map]


def test_predictions_here_are_those_of_transformers(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    texts, labels = prices(9, seed=5)
    from test_loop import split_of

    ours = predict(load_classifier(folder), split_of(folder, texts, labels))[:, 0]
    assert torch.allclose(ours, scores_of(folder, texts), rtol=1e-5)


def test_years_are_told_apart_in_bfloat16(model: Path, tmp_path: Path) -> None:
    for name, count, seed in (("train", 96, 0), ("eval", 31, 1)):
        texts, labels = prices(count, seed)
        write_csv(tmp_path / f"{name}.csv", texts, [2020.01 + (price - 370) / 100 for price in labels])
    results = train(config(model, tmp_path, tmp_path / "run", num_train_epochs=6, bf16=True))
    found = results["results"]["validation"]
    assert found["rmse"] < 0.5 * results["baseline"]["validation"]["rmse"]  # 2020 is followed by 2024 in bfloat16
    (again,) = evaluate_run(EvaluateConfig(run=str(tmp_path / "run"), bf16=True)).values()
    assert again.values == {name: value for name, value in found.items() if name != "examples"}
    theirs = scores_of(tmp_path / "run", prices(31, 1)[0])
    assert found["mae"] == pytest.approx(
        float((theirs - torch.tensor(prices(31, 1)[1]) / 100 - 2016.31).abs().mean()), abs=0.1
    )


def test_a_resumed_run_ends_with_the_same_bits(model: Path, data: Path, tmp_path: Path) -> None:
    flags: dict[str, Any] = {"save_strategy": "steps", "save_steps": 5, "num_train_epochs": 1}
    train(config(model, data, tmp_path / "whole", **flags))
    train(config(model, data, tmp_path / "again", **flags))
    for file in ("results.json", "model.safetensors"):
        (tmp_path / "again" / file).unlink()
    shutil.rmtree(tmp_path / "again/checkpoints/step-00000010")
    (tmp_path / "again/log.jsonl").rename(tmp_path / "again/log.jsonl.part")
    train(config(model, data, tmp_path / "again", resume="newest", **flags))
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "again")]
    assert weights[0] == weights[1]
    assert (tmp_path / "whole/predictions.jsonl").read_bytes() == (
        tmp_path / "again/predictions.jsonl"
    ).read_bytes()


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("end", [True, False])
def test_a_run_that_resumes_learns_on_the_scale_that_it_began_with(
    model: Path, data: Path, tmp_path: Path, before: bool, end: bool
) -> None:
    """Its head answers on the one scale and would be read on the other, and so would the best one so far."""
    flags: dict[str, Any] = {"save_strategy": "epoch", "num_train_epochs": 1}
    train(config(model, data, tmp_path / "run", standardize_targets=before, **flags))
    if not end:
        (tmp_path / "run/results.json").unlink()
    saved = (tmp_path / "run/model.safetensors").read_bytes()
    flags |= {"num_train_epochs": 2, "resume": "newest", "resume_changed": True}
    with pytest.raises(MinitrainError, match="the targets.*--standardize_targets as it was"):
        train(config(model, data, tmp_path / "run", standardize_targets=not before, **flags))
    assert (tmp_path / "run/model.safetensors").read_bytes() == saved
    train(config(model, data, tmp_path / "run", standardize_targets=before, **flags))


def test_standardized_rows_are_padded_as_their_tokenizer_says(model: Path, data: Path) -> None:
    tokenizer = load_tokenizer(model)
    tokenizer.padding_side = "left"
    split = load_splits(tokenizer=tokenizer, train_file=str(data / "train.csv"), problem_type="regression").train
    made = split.standardized(split.target_scale())
    kept = ("pad_token_id", "padding_side", "unknown", "text_tokens", "lengths")
    assert {name: getattr(made, name) for name in kept} == {name: getattr(split, name) for name in kept}
    assert made.padding_side == "left"
