"""`--metrics`, `compute_metrics` and `observers` in whole runs: shown, compared by, saved, and used again."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from sklearn.metrics import average_precision_score, roc_auc_score  # type: ignore[import-untyped]
from test_label_runs import trained, words, write

from minitrain.config.inference_config import EvaluateConfig
from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.run.evaluate import evaluate_run
from minitrain.run.main import train
from minitrain.training.metrics import metric_for, metric_names

ASKED = ("balanced_accuracy", "roc_auc", "average_precision", "weighted_precision", "macro_recall")


class Watcher:
    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def on_evaluation(self, step: int, epoch: float, results: dict[str, Any], is_best: bool) -> None:
        self.seen.append(next(iter(results.values())).values)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_metrics_asked_for_are_shown_saved_and_used_again(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags: dict[str, Any] = {"metric_for_best_model": "eval_roc_auc", "load_best_model_at_end": True}
    run = trained(tmp_path, model, words(30), metrics=ASKED, positive_label="fraud", num_train_epochs=2, **flags)
    said = capsys.readouterr().out
    head = next(line for line in said.splitlines() if line.startswith("evaluation  "))
    assert head.split()[1:] == ["loss", *ASKED]  # a word for each: no two run together
    assert "  average_precision     " in said and "   of 'fraud'" in said and "best roc_auc of 'fraud'" in said

    results = json.loads((run / "results.json").read_text())
    values = results["results"]["validation"]
    assert list(values) == ["examples", "loss", *ASKED]
    assert "roc_auc" in results["best"]
    records = lines_of(run / "predictions.jsonl")
    scores, fraud = ([r["probabilities"]["fraud"] for r in records], [r["label"] == "fraud" for r in records])
    assert values["roc_auc"] == roc_auc_score(fraud, scores)  # as anyone can compute from the saved predictions
    assert values["average_precision"] == average_precision_score(fraud, scores)
    card = ModelCard.load(run / "README.md").data.eval_results
    assert [(r.metric_type, r.metric_value) for r in card] == [(name, values[name]) for name in ASKED]
    assert "Roc auc of fraud" in [r.metric_name for r in card]

    again = evaluate_run(EvaluateConfig(run=str(run)))["train.csv"]
    assert again.metrics == {name: values[name] for name in ASKED}
    other = evaluate_run(EvaluateConfig(run=str(run), metrics=("accuracy", "cohen_kappa")))["train.csv"]
    assert list(other.metrics) == ["accuracy", "cohen_kappa"]


@pytest.mark.filterwarnings("ignore:roc_auc is NaN")
@pytest.mark.parametrize("epochs", [9, 2])
def test_a_metric_that_is_never_a_number_has_no_best_and_says_so(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], epochs: int
) -> None:
    one_class = write(tmp_path / "one.csv", ["fraud"] * 9)
    asked: dict[str, Any] = {"metrics": ("accuracy", "roc_auc"), "metric_for_best_model": "roc_auc"}
    run = trained(
        tmp_path,
        model,
        words(30),
        eval_file=one_class,
        num_train_epochs=epochs,
        early_stopping_patience=2,
        load_best_model_at_end=True,
        **asked,
    )
    said = capsys.readouterr().out
    assert "\nWARNING  roc_auc was not a number in any evaluation: the last step is saved\n" in said
    ended = "\nended by --early_stopping_patience 2: no better roc_auc in as many evaluations\n"
    assert (ended in said) == (epochs == 9)
    results = json.loads((run / "results.json").read_text())
    assert (results["epochs"], results["saved"], results["best"]["roc_auc"]) == (2.0, "last", None)


def test_metrics_and_own_ones_go_with_folds_and_calibration(model: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "train.csv", words(24))
    flags: dict[str, Any] = {
        "model": str(model),
        "train_file": file,
        "metrics": ("roc_auc",),
        "num_train_epochs": 1,
    }
    config = TrainConfig(**flags, folds=2, output_dir=str(tmp_path / "folds"))
    watcher = Watcher()
    train(config, compute_metrics=lambda both: {"rows": len(both[0])}, observers=[watcher])
    assert [list(seen) for seen in watcher.seen] == [["loss", "roc_auc", "rows"]] * 2
    run = str(tmp_path / "calibrated")
    train(TrainConfig(**flags, eval_file=file, calibrate=True, output_dir=run))
    plain, calibrated = (
        evaluate_run(EvaluateConfig(run=run, calibrated=on))["train.csv"].metrics["roc_auc"] for on in (False, True)
    )
    # A temperature keeps the order of two classes.
    assert plain == pytest.approx(calibrated, abs=1e-6)


def test_a_metric_that_does_not_fit_is_refused_before_training(model: Path, tmp_path: Path) -> None:
    with pytest.raises(MinitrainError, match="--metrics pearson: of these labels there are accuracy"):
        trained(tmp_path, model, words(8), metrics=("pearson",))
    assert not (tmp_path / "run").exists()
    way_out = (
        "--metric_for_best_model roc_auc: expected loss, accuracy, f1; --metrics accuracy,f1,roc_auc computes it"
    )
    with pytest.raises(MinitrainError, match=way_out):
        trained(tmp_path, model, words(8), metric_for_best_model="roc_auc")
    with pytest.raises(MinitrainError, match="--positive_label fraud: f1 is not among accuracy.*--metrics f1,"):
        trained(tmp_path, model, words(8), metrics=("accuracy",), positive_label="fraud")


def test_own_metrics_and_observers_of_a_run(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path, model, words(24))  # writes the data
    file, out = str(tmp_path / "train.csv"), tmp_path / "own"
    watcher = Watcher()

    def own(eval_preds: Any) -> dict[str, Any]:
        logits, labels = eval_preds
        return {"eval_hits": np.int64((logits.argmax(-1) == labels).sum()), "accuracy": 200.0}

    config = TrainConfig(
        model=str(model),
        train_file=file,
        eval_file=file,
        test_file=file,
        output_dir=str(out),
        num_train_epochs=2,
        metric_for_best_model="eval_hits",
    )
    returned = train(config, compute_metrics=own, observers=[watcher])
    said = capsys.readouterr().out
    assert "hits" in said and "200.0000\n" in said  # no interval of what is not ours
    values = returned["results"]["test"]
    assert list(values) == ["examples", "loss", "accuracy", "f1", "hits"]
    assert values["accuracy"] == 200.0 and values["hits"] == returned["best"]["hits"]
    assert [seen["hits"] for seen in watcher.seen] == [
        line["hits"] for line in lines_of(out / "log.jsonl") if line["event"] == "evaluation"
    ]
    assert len(watcher.seen) == 2


def test_what_cannot_be_called_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    config = TrainConfig(train_file="nowhere.csv", output_dir=str(tmp_path / "run"))
    with pytest.raises(MinitrainError, match="observers is <.*expected a list"):
        train(config, observers=Watcher())  # type: ignore[arg-type]
    with pytest.raises(MinitrainError, match="compute_metrics is 'accuracy'"):
        train(config, compute_metrics="accuracy")  # type: ignore[arg-type]


def test_example_of_the_page_runs(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs/quality.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    file = write(tmp_path / "train.csv", words(24))
    for old, new in {
        'model="demo"': f"model={str(model)!r}",
        'dataset="demo"': f"train_file={file!r}, eval_file={file!r}",
        'output_dir="runs/cost"': f"output_dir={str(tmp_path / 'run')!r}",
    }.items():
        assert code.count(old) == 1
        code = code.replace(old, new)
    (tmp_path / "script.py").write_text(code, encoding="utf-8")
    runpy.run_path(str(tmp_path / "script.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert re.search(r"^4 \{'loss': .*'cost': ", said, flags=re.MULTILINE) and "best cost" in said


def test_every_metric_is_on_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs/quality.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| ")}
    kinds = {"two classes": (2, False), "more classes": (3, False), "several labels a row": (3, True)}
    kinds["scores"] = (None, False)  # type: ignore[assignment]
    for title, kind in kinds.items():
        row = rows[title] + (rows["more classes"] if title == "two classes" else "")
        for name in metric_names(*kind):
            average, _, ratio = name.partition("_")
            assert f"`{name}`" in row or (f"`{average}_`" in row and f"`{ratio}`" in row), name
        assert f"`{'`, `'.join(metric_for(None, kind[0], multi_label=kind[1]).names)}`" in row
