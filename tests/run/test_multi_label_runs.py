"""Whole runs of texts with several labels: saved, scored, used, resumed, and read by transformers."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import reviews
from transformers import AutoConfig, pipeline

from minitrain.config.inference_config import EvaluateConfig, PredictConfig
from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.model.weights import load_classifier
from minitrain.run.answers import answers
from minitrain.run.evaluate import evaluate_run
from minitrain.run.main import train
from minitrain.run.predict import predict_run
from minitrain.run.saved_run import load_run
from minitrain.training.calibration import Calibration
from minitrain.training.multi_label_baseline import multi_label_baseline

NAMES = ("short", "kind", "music")


def labels_of(text: str) -> list[str]:
    words = text.split()
    has = (len(words) < 8, bool({"great", "good", "superb"} & {*words}), "music" in words)
    return [name for name, is_there in zip(NAMES, has, strict=True) if is_there]


def write(folder: Path, name: str, count: int, seed: int) -> None:
    rows = [(text, labels_of(text)) for text in reviews(count, seed)[0]]
    lines = [json.dumps({"text": text, "label": labels}) + "\n" for text, labels in rows]
    (folder / f"{name}.jsonl").write_text("".join(lines))
    with (folder / f"{name}.csv").open("w", newline="") as file:
        columns = [("text", *NAMES), *((text, *(int(n in labels) for n in NAMES)) for text, labels in rows)]
        csv.writer(file).writerows(columns)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    write(folder, "train", 64, 0)
    write(folder, "eval", 22, 1)
    return folder


def config(model: Path, data: Path, out: Path, **flags: Any) -> TrainConfig:
    given = {"train_file": str(data / "train.csv"), "eval_file": str(data / "eval.csv"), "label_columns": NAMES}
    fixed: dict[str, Any] = {"model": str(model), "learning_rate": 3e-3, "device": "cpu", "output_dir": str(out)}
    return TrainConfig(**fixed | given | flags)


@pytest.fixture(scope="module")
def run(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "columns"
    train(config(model, data, out))
    return out


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_says_what_it_found_and_scored(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = train(config(model, data, tmp_path / "run", max_steps=2))
    said = capsys.readouterr().out
    count = {name: sum(name in row["label"] for row in records(data / "train.jsonl")) for name in NAMES}
    empty = sum(not row["label"] for row in records(data / "train.jsonl"))
    assert f"labels   {', '.join(f'{n} {count[n]}' for n in NAMES)}; {empty} of 64 rows without a label" in said
    assert "always the most frequent labels: " in said and "always the most frequent combination: " in said
    table = said[said.index("\n  label ") :].splitlines()[1:5]
    assert [line.split()[0] for line in table] == ["label", *NAMES]
    scores = results["label_scores"]["validation"]
    assert list(scores) == list(NAMES) and scores["short"]["examples"] > 0
    assert results["best"]["micro_f1"] == results["results"]["validation"]["micro_f1"]


def test_all_forms_are_scored_alike_and_continue_a_trained_head(
    run: Path, model: Path, data: Path, tmp_path: Path
) -> None:
    """Lists alone would be in alphabetical order; a trained head keeps its own."""
    first = json.loads((run / "results.json").read_text())
    assert first["labels"] == list(NAMES) and first["results"]["validation"]["micro_f1"] > 0.5
    files = {"train_file": str(data / "train.jsonl"), "eval_file": str(data / "eval.jsonl"), "label_columns": None}
    again = train(config(run, data, tmp_path / "more", **files, max_steps=1))
    assert again["labels"] == NAMES and again["weights"]["new"] == []
    scored = evaluate_run(EvaluateConfig(run=str(run)))["eval.csv"]
    expected = {name: value for name, value in first["results"]["validation"].items() if name != "examples"}
    assert scored.values == pytest.approx(expected, abs=1e-5)
    for options in (
        {"eval_file": str(data / "eval.jsonl"), "label_column": "label"},
        {"eval_file": str(run / "predictions.jsonl"), "label_column": "label"},
        {"eval_file": str(data / "eval.csv"), "label_columns": NAMES[::-1]},
    ):
        other = evaluate_run(EvaluateConfig(run=str(run), **options))
        assert [result.values for result in other.values()] == [scored.values]


def test_what_was_saved_is_what_transformers_and_predict_say(run: Path, tmp_path: Path, data: Path) -> None:
    assert AutoConfig.from_pretrained(run).problem_type == "multi_label_classification"
    for name in ("out.jsonl", "out.csv"):
        predict_run(PredictConfig(run=str(run), input=str(data / "eval.jsonl"), output=str(tmp_path / name)))
    rows = records(tmp_path / "out.jsonl")
    theirs = pipeline("text-classification", str(run), top_k=None, device="cpu")([row["text"] for row in rows])
    for row, found in zip(rows, theirs, strict=True):
        assert row["probabilities"] == pytest.approx({e["label"]: e["score"] for e in found}, abs=1e-5)
        assert row["labels"] == [name for name in NAMES if row["probabilities"][name] > 0.5]
        assert row["label"] == labels_of(row["text"])  # the input's own column
    with (tmp_path / "out.csv").open(newline="") as file:
        header, *cells = csv.reader(file)
    assert header == ["text", "label", "labels", *(f"probability_{name}" for name in NAMES)]
    assert [json.loads(cell[2]) for cell in cells] == [row["labels"] for row in rows]
    saved = records(run / "predictions.jsonl")
    assert [row["prediction"] for row in saved] == [row["labels"] for row in rows]
    evaluate_run(EvaluateConfig(run=str(run), output=str(tmp_path / "scored.jsonl")))
    scored = records(tmp_path / "scored.jsonl")
    assert [row["true_label"] for row in scored] == [row["label"] for row in rows]
    assert list(scored[0]) == ["text", *NAMES, "true_label", "labels", "probabilities"]


def test_a_threshold_decides_which_labels_are_given(run: Path) -> None:
    labels = load_run(PredictConfig(run=str(run))).labels
    logits = torch.tensor([[0.0, 1e-30, 2.0]])
    assert [row["labels"] for row in answers(logits, labels)] == [["kind", "music"]]
    for threshold, given in ((0.8, ["music"]), (0.4, list(NAMES))):
        calibration = Calibration(thresholds=(threshold,) * 3, multi_label=True)
        assert [row["labels"] for row in answers(logits, labels, calibration)] == [given]


def test_the_baseline_is_the_best_constant_answer() -> None:
    torch.manual_seed(0)
    train_labels, labels = ((torch.rand(40, 4) < torch.tensor([0.6, 0.4, 0.2, 0.0])).float() for _ in range(2))
    constants = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)

    def micro_f1(constant: torch.Tensor, rows: torch.Tensor) -> float:
        return float(2 * (rows * constant).sum() / (constant.sum() * len(rows) + rows.sum()))

    def subset(constant: torch.Tensor, rows: torch.Tensor) -> float:
        return float((rows == constant).all(dim=1).float().mean())

    found = multi_label_baseline(train_labels, labels)
    for name, score in (("micro_f1", micro_f1), ("subset_accuracy", subset)):
        best = max(constants, key=lambda constant: score(constant, train_labels))
        assert found[name] == pytest.approx(score(best, labels))


def test_one_label_is_a_yes_or_no_with_a_sigmoid(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "one"
    results = train(config(model, data, out, label_columns=("kind",), text_columns=("text",)))
    assert results["labels"] == ("kind",) and results["results"]["validation"]["micro_f1"] > 0.5
    assert load_classifier(out).config.is_multi_label and not load_classifier(out).config.is_regression
    predict_run(PredictConfig(run=str(out), input=str(data / "eval.jsonl"), output=str(tmp_path / "out.jsonl")))
    rows = records(tmp_path / "out.jsonl")
    theirs = pipeline("text-classification", str(out), device="cpu")([row["text"] for row in rows])
    for row, found in zip(rows, theirs, strict=True):
        assert row["probabilities"] == pytest.approx({found["label"]: found["score"]}, abs=1e-5)


def test_a_run_resumes_to_the_same_bits_and_not_with_other_labels(model: Path, data: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config(model, data, whole, max_steps=6))
    steps: dict[str, Any] = {"save_strategy": "steps", "save_steps": 3, "resume": "newest"}
    first = config(model, data, cut, max_steps=6, **steps)
    calls = iter([False] * 3 + [True])

    import minitrain.run.resume as resume

    real = resume.Checkpointer.after_step

    def stop(self: Any, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **kwargs)
        if next(calls):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(resume.Checkpointer, "after_step", stop)
        train(first)
    swapped = tmp_path / "swapped.csv"
    swapped.write_text((data / "train.csv").read_text().replace(",1,0,", ",0,1,"))
    with pytest.raises(MinitrainError, match="--resume: the checkpoint is of the train data .*, this run has"):
        train(config(model, data, cut, max_steps=6, **steps | {"resume_changed": True, "train_file": str(swapped)}))
    train(first)
    assert (whole / "model.safetensors").read_bytes() == (cut / "model.safetensors").read_bytes()


def test_what_does_not_go_with_several_labels_is_refused(
    model: Path, data: Path, run: Path, tmp_path: Path
) -> None:
    for flags, said in (
        (
            {"label_smoothing_factor": 0.1},
            "--label_smoothing_factor 0.1 spreads a target over classes .* leave it out",
        ),
        ({"metric_for_best_model": "accuracy"}, "--metric_for_best_model accuracy: expected loss, micro_f1"),
        ({"positive_label": "kind"}, "--positive_label kind: is for texts with one of two classes"),
    ):
        with pytest.raises(MinitrainError, match=said):
            train(config(model, data, tmp_path / "run", **flags))
    one = {"train_file": str(data / "one.csv"), "eval_strategy": "no", "eval_file": None, "label_columns": None}
    (data / "one.csv").write_text("text,label\na film,short\na plot,kind\nthe music,music\n")
    with pytest.raises(
        MinitrainError, match="the trained head is of multi_label_classification, the data of single"
    ):
        train(config(run, data, tmp_path / "run", **one))
    results = train(config(run, data, tmp_path / "run", **one, new_head=True, max_steps=1))
    assert results["weights"]["new"]
    for flag in ("label_columns", "label_separator"):
        with pytest.raises(MinitrainError, match=f"--{flag}: .* was trained with one label a text"):
            options: dict[str, Any] = {flag: ("short",) if flag == "label_columns" else ","}
            evaluate_run(EvaluateConfig(run=str(tmp_path / "run"), eval_file=str(data / "eval.csv"), **options))
    (data / "new.jsonl").write_text('{"text": "a film", "label": ["kind", "new"]}\n')
    with pytest.raises(MinitrainError, match=r"new\.jsonl, row 1, column 'label': the label 'new' is none of"):
        evaluate_run(EvaluateConfig(run=str(run), eval_file=str(data / "new.jsonl"), label_column="label"))
