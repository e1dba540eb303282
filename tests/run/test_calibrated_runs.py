"""A run with --calibrate: what it stores, who applies it, and that the file of another model is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_main import config, named_reviews, read_results, write_csv
from test_predict import records_of
from test_resume import floats

from minitrain.config.inference_config import EvaluateConfig, PredictConfig
from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.run import predict as predict_module
from minitrain.run.evaluate import evaluate_run
from minitrain.run.main import train
from minitrain.run.predict import predict_run
from minitrain.training.calibration import calibrate, expected_calibration_error, negative_log_likelihood

MORE: dict[str, Any] = {"max_steps": 6, "eval_strategy": "steps", "eval_steps": 3, "calibrate": True}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, reviews of two and of three classes, and a calibrated run of the first."""
    from test_loop import write_tiny_model

    folder = tmp_path_factory.mktemp("place")
    write_tiny_model(folder / "tiny")
    for name, seed in (("train", 0), ("eval", 1), ("test", 2)):
        texts, labels = named_reviews(60, seed)
        noisy = [label if row % 5 else "awful" for row, label in enumerate(labels)]
        write_csv(folder / f"{name}.csv", texts, noisy)
    write_csv(folder / "three.csv", *named_reviews(60, classes=3))
    train(run_config(folder, folder / "run"))
    return folder


def run_config(place: Path, out: Path, **flags: Any) -> TrainConfig:
    return config(place / "tiny", place, out, **MORE | flags)


def predict(place: Path, run: Path, capsys: pytest.CaptureFixture[str], **flags: Any) -> list[dict[str, Any]]:
    capsys.readouterr()
    predict_run(PredictConfig(run=str(run), input=str(place / "test.csv"), **flags))
    return records_of(capsys.readouterr().out)


def logits_of(records: list[dict[str, Any]]) -> torch.Tensor:
    return torch.tensor([list(record["probabilities"].values()) for record in records]).double().log()


def test_the_file_holds_what_the_evaluation_split_gives(place: Path) -> None:
    results, stored = read_results(place / "run"), json.loads((place / "run/calibration.json").read_text())
    lines = (place / "run/predictions.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    logits = logits_of(rows)  # up to a constant for each row, which changes nothing
    labels = torch.tensor([["awful", "lovely"].index(row["label"]) for row in rows])
    fitted = calibrate(logits, labels)
    assert stored["temperature"] == pytest.approx(fitted.temperature, rel=1e-4)
    assert stored["thresholds"] == {"lovely": pytest.approx(fitted.thresholds and fitted.thresholds[0], rel=1e-4)}
    for when, scaled in (("before", logits), ("after", fitted.scaled(logits))):
        ece = expected_calibration_error(scaled.softmax(-1), labels)
        loss = negative_log_likelihood(scaled, labels)
        assert stored[when] == pytest.approx({"loss": loss, "ece": ece}, rel=1e-4)
    assert stored["after"]["loss"] <= stored["before"]["loss"]
    assert results["calibration"] == {name: stored[name] for name in results["calibration"]}
    assert (stored["split"], stored["rows"], stored["labels"]) == ("validation", 60, ["awful", "lovely"])


def test_the_model_is_saved_as_trained_and_nothing_is_stored_unasked(place: Path, tmp_path: Path) -> None:
    train(run_config(place, tmp_path / "plain", calibrate=False))
    assert (tmp_path / "plain/model.safetensors").read_bytes() == (place / "run/model.safetensors").read_bytes()
    assert not (tmp_path / "plain/calibration.json").exists()
    assert "calibration" not in read_results(tmp_path / "plain")


def test_predictions_have_the_temperature_and_the_threshold_when_asked(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = json.loads((place / "run/calibration.json").read_text())
    plain, calibrated = (
        predict(place, place / "run", capsys),
        predict(place, place / "run", capsys, calibrated=True),
    )
    expected = (logits_of(plain) / stored["temperature"]).softmax(-1)
    torch.testing.assert_close(logits_of(calibrated).exp(), expected, rtol=1e-6, atol=1e-9)
    for record in calibrated:
        over = record["probabilities"]["lovely"] >= stored["thresholds"]["lovely"]
        assert record["label"] == ("lovely" if over else "awful")
        assert record["probability"] == record["probabilities"][record["label"]]
    assert {r["label"] != p["label"] for r, p in zip(calibrated, plain, strict=True)} == {True, False}


def test_an_evaluation_shows_what_the_threshold_and_the_temperature_give(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {"run": str(place / "run"), "eval_file": str(place / "test.csv")}
    plain = evaluate_run(EvaluateConfig(**flags))["test.csv"]
    found = evaluate_run(EvaluateConfig(**flags, calibrated=True))["test.csv"]
    shown = capsys.readouterr()
    assert "test.csv, calibrated" in shown.out and "ece_before" in shown.out
    assert "fitted on these rows" not in shown.err
    stored = json.loads((place / "run/calibration.json").read_text())
    rows = predict(place, place / "run", capsys, calibrated=True)
    lines = (place / "test.csv").read_text().splitlines()[1:]
    truth = [line.rsplit(",", 1)[1] for line in lines]
    assert found.metrics["accuracy"] == sum(r["label"] == t for r, t in zip(rows, truth, strict=True)) / 60
    labels = torch.tensor([["awful", "lovely"].index(label) for label in truth])
    scaled = plain.logits.double() / stored["temperature"]
    assert found.loss == pytest.approx(negative_log_likelihood(scaled, labels), rel=1e-9)
    assert found.metrics["ece"] == expected_calibration_error(scaled.softmax(-1), labels)
    before = expected_calibration_error(plain.logits.double().softmax(-1), labels)
    assert found.metrics["ece_before"] == before
    evaluate_run(EvaluateConfig(run=str(place / "run"), calibrated=True))
    assert "fitted on these rows" in capsys.readouterr().err


def test_three_classes_have_a_temperature_alone(place: Path, tmp_path: Path) -> None:
    files = {"train_file": str(place / "three.csv"), "eval_file": str(place / "three.csv")}
    results = train(run_config(place, tmp_path / "three", **files))
    assert results["calibration"]["thresholds"] == {} and results["calibration"]["temperature"] > 0
    found = evaluate_run(EvaluateConfig(run=str(tmp_path / "three"), calibrated=True))
    assert found["three.csv" if "three.csv" in found else "validation"].metrics["ece"] >= 0


def test_few_rows_are_named(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(run_config(place, tmp_path / "run"))
    assert "calibrated on validation (60 examples; few rows" in capsys.readouterr().out


# ---- the file of another model


def test_the_file_of_another_model_is_refused_and_both_are_named(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    weights = load_file(tmp_path / "run/model.safetensors")
    save_file({n: w + 0.5 for n, w in weights.items()}, tmp_path / "run/model.safetensors", {"format": "pt"})
    fitted_to = json.loads((place / "run/calibration.json").read_text())["model"]
    with pytest.raises(
        MinitrainError, match=rf"is of another model: .*{fitted_to}.*the one beside it has '[0-9a-f]{{64}}'"
    ):
        predict_run(PredictConfig(run=str(tmp_path / "run"), input=str(place / "test.csv"), calibrated=True))


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "labels": (
        {"labels": ["bad", "good"]},
        r"of the labels \['bad', 'good'\], the model has \['awful', 'lovely'\]",
    ),
    "temperature": ({"temperature": 0}, "'temperature' is 0; expected a number above 0"),
    "a text": ({"temperature": "1.5"}, "'temperature' is '1.5'"),
    "thresholds": ({"thresholds": {"lovely": 1.5}}, "'thresholds' is .*1.5"),
    "one too many": ({"thresholds": {"lovely": 0.5, "awful": 0.5}}, "'thresholds' is"),
    "none": ({"thresholds": None}, "'thresholds' is None"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_damaged_file_is_refused(place: Path, tmp_path: Path, fault: str) -> None:
    change, message = BROKEN[fault]
    shutil.copytree(place / "run", tmp_path / "run")
    path = tmp_path / "run/calibration.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(MinitrainError, match=message):
        evaluate_run(EvaluateConfig(run=str(tmp_path / "run"), calibrated=True))


def test_a_run_without_one_says_how_to_get_one_and_replacing_a_run_removes_it(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    train(run_config(place, tmp_path / "run", calibrate=False, overwrite_output_dir=True))
    with pytest.raises(MinitrainError, match=r"holds no calibration.json: train it with --calibrate"):
        evaluate_run(EvaluateConfig(run=str(tmp_path / "run"), calibrated=True))


def test_scores_and_a_run_without_evaluation_data_are_refused_before_training(place: Path, tmp_path: Path) -> None:
    texts, _ = named_reviews(20)
    scores = str(write_csv(tmp_path / "scores.csv", texts, [0.5 + len(text) for text in texts]))
    with pytest.raises(MinitrainError, match="--calibrate is for classes; the labels are scores"):
        train(run_config(place, tmp_path / "run", train_file=scores, eval_file=scores))
    bare = {"eval_file": None, "eval_strategy": "no", "eval_steps": None, "do_eval": True}
    with pytest.raises(MinitrainError, match="and there is none: pass --eval_fraction 0.1"):
        train(run_config(place, tmp_path / "run", **bare, test_file=str(place / "test.csv")))
    with pytest.raises(MinitrainError, match="--calibrate is fitted on the last evaluation: pass --do_eval"):
        TrainConfig(calibrate=True, eval_strategy="no")


# ---- interrupted


def test_a_run_that_is_resumed_is_calibrated_to_the_same_bits(place: Path, tmp_path: Path) -> None:
    out, saving = tmp_path / "out", {"save_strategy": "steps", "save_steps": 2}
    train(run_config(place, out, **saving))
    shutil.rmtree(out / "checkpoints/step-00000006")
    shutil.rmtree(out / "checkpoints/step-00000004")
    for path in out.iterdir():
        if path.is_file():
            path.unlink()
    train(run_config(place, out, **saving, resume="newest"))
    for name in ("calibration.json", "model.safetensors", "predictions.jsonl"):
        assert (out / name).read_bytes() == (place / "run" / name).read_bytes(), name
    assert floats(out)[-1] == floats(place / "run")[-1]


def test_a_finished_run_is_not_taken_for_a_calibrated_one(place: Path, tmp_path: Path) -> None:
    train(run_config(place, tmp_path / "run", calibrate=False))
    with pytest.raises(MinitrainError, match="trained without --calibrate"):
        train(run_config(place, tmp_path / "run", resume="newest"))


def test_a_prediction_is_not_continued_with_another_calibration(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    monkeypatch.setattr(predict_module, "WINDOWS", (1,))
    flags: dict[str, Any] = {
        "run": str(tmp_path / "run"),
        "input": str(place / "test.csv"),
        "output": str(tmp_path / "out.jsonl"),
        "per_device_eval_batch_size": 16,
        "calibrated": True,
    }
    real, windows = predict_module.predict, []

    def interrupted(*words: Any, **more: Any) -> torch.Tensor:
        if len(windows) == 2:
            raise KeyboardInterrupt
        windows.append(1)
        return real(*words, **more)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(predict_module, "predict", interrupted)
        predict_run(PredictConfig(**flags))
    path = tmp_path / "run/calibration.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), "temperature": 2.0}))
    with pytest.raises(MinitrainError, match="another calibration.json in the run"):
        predict_run(PredictConfig(**flags, resume=True))
    path.write_text(before)
    predict_run(PredictConfig(**flags, resume=True))
    predict_run(PredictConfig(**flags | {"output": str(tmp_path / "whole.jsonl")}))
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_each_of_several_labels_has_a_threshold(place: Path, tmp_path: Path) -> None:
    file, run, output = tmp_path / "several.jsonl", tmp_path / "run", tmp_path / "rows.jsonl"
    words = ["apple", "pear"] * 20
    rows = [{"text": f"{word} {i}", "label": [word] if i % 3 else []} for i, word in enumerate(words)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train(run_config(place, run, train_file=str(file), eval_file=str(file)))
    stored = json.loads((run / "calibration.json").read_text())
    assert list(stored["thresholds"]) == ["apple", "pear"] and stored["multi_label"] is True
    [scored] = evaluate_run(EvaluateConfig(run=str(run), eval_file=str(file), calibrated=True)).values()
    predict_run(PredictConfig(run=str(run), input=str(file), output=str(output), calibrated=True))
    hits = given = true = 0
    for row, line in zip(rows, output.read_text().splitlines(), strict=True):
        record = json.loads(line)
        over = {name for name, p in record["probabilities"].items() if p >= stored["thresholds"][name]}
        assert set(record["labels"]) == over
        hits, given, true = hits + len(over & set(row["label"])), given + len(over), true + len(row["label"])
    assert scored.metrics["micro_f1"] == pytest.approx(2 * hits / (given + true), abs=1e-15)


def test_each_kept_fold_is_calibrated_on_its_own_part(place: Path, tmp_path: Path) -> None:
    flags = {"folds": 2, "keep_folds": True, "eval_file": None, "eval_strategy": "epoch", "eval_steps": None}
    train(run_config(place, tmp_path / "run", **flags))
    stored = [json.loads((tmp_path / f"run/fold-{n}/calibration.json").read_text()) for n in (1, 2)]
    assert [each["rows"] for each in stored] == [30, 30]
