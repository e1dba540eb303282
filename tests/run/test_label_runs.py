"""Labels in whole runs: which class F1 is of, and that scoring and predicting read them as training did."""

import json
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas
import pytest
from huggingface_hub import ModelCard
from sklearn.metrics import f1_score  # type: ignore[import-untyped]
from test_loop import reviews

from minitrain.config.inference_config import EvaluateConfig, PredictConfig
from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.run.evaluate import evaluate_run
from minitrain.run.main import train
from minitrain.run.predict import predict_run
from minitrain.training.metrics import metric_for
from minitrain.training.setup import best_by

WORDS = ("fraud", "legit")


def write(path: Path, labels: Sequence[Any], seed: int = 0) -> str:
    texts, _ = reviews(len(labels), seed)
    pandas.DataFrame({"text": texts, "label": labels}).to_csv(path, index=False)
    return str(path)


def words(count: int) -> list[str]:
    return [WORDS[i % 2] for i in range(count)]


def numbers(count: int) -> list[int]:
    return [i % 2 for i in range(count)]


def trained(folder: Path, model: Path, labels: list[Any], **options: Any) -> Path:
    """A short run on these labels, evaluated on its own rows."""
    file = write(folder / "train.csv", labels)
    given = {"train_file": file, "eval_file": file, "output_dir": str(folder / "run"), "num_train_epochs": 1}
    train(TrainConfig(model=str(model), **(given | options)))
    return folder / "run"


@pytest.fixture(scope="module")
def of_words(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("words"), model, words(24))


def results_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "results.json").read_text())
    return found


def predicted(run: Path, file: str, out: Path) -> list[dict[str, Any]]:
    predict_run(PredictConfig(run=str(run), input=file, output=str(out)))
    return [json.loads(line) for line in out.read_text().splitlines()]


# --- Which class F1 is of ---


@pytest.mark.parametrize("positive", WORDS)
def test_f1_is_of_the_class_that_is_asked_for_in_training_and_after(
    tmp_path: Path, model: Path, positive: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"learning_rate": 1e-3, "num_train_epochs": 2, "metric_for_best_model": "f1"}
    run = trained(tmp_path, model, words(30), positive_label=positive, load_best_model_at_end=True, **options)
    said = capsys.readouterr().out
    file = str(tmp_path / "train.csv")
    labels = [record["label"] for record in predicted(run, file, tmp_path / "out.jsonl")]
    expected = {name: f1_score(words(30), labels, pos_label=name, zero_division=0) for name in WORDS}
    assert expected["fraud"] != expected["legit"]  # else this shows nothing
    results = results_of(run)
    assert results["positive_label"] == positive and results["best"]["f1"] == expected[positive]
    assert results["results"]["validation"]["f1"] == expected[positive]
    assert f"f1 of '{positive}'" in next(line for line in said.splitlines() if line.startswith("evaluation"))
    assert f"   of '{positive}'" in said and f"best f1 of '{positive}' {expected[positive]:.4f} at" in said
    assert f"F1 is of {positive}." in ModelCard.load(run / "README.md").text
    for asked in (None, *WORDS):
        scored = evaluate_run(EvaluateConfig(run=str(run), eval_file=file, positive_label=asked))
        assert scored["train.csv"].metrics["f1"] == expected[asked or positive]
        assert f"   of '{asked or positive}'" in capsys.readouterr().out


def test_a_positive_label_that_cannot_be_is_an_error_before_training(
    tmp_path: Path, model: Path, of_words: Path
) -> None:
    three = [("a", "b", "c")[i % 3] for i in range(12)]
    for labels, said in (
        (words(8), "the classes are 'fraud', 'legit'; expected one of them"),
        (three, "there are 3 classes, 'a', 'b', 'c', and .*leave it out"),
    ):
        with pytest.raises(MinitrainError, match=f"--positive_label spam: .*{said}"):
            trained(tmp_path, model, labels, positive_label="spam")
    assert not list((tmp_path / "run").glob("*"))
    with pytest.raises(MinitrainError, match="--positive_label spam: the classes are 'fraud', 'legit'"):
        evaluate_run(EvaluateConfig(run=str(of_words), positive_label="spam"))


def test_a_positive_label_without_an_f1_is_an_error(model: Path) -> None:
    config = TrainConfig(model=str(model), positive_label="1")
    assert best_by(config, metric_for("mrpc", 2)).name == "accuracy"
    with pytest.raises(MinitrainError, match="--positive_label 1: f1 is not among accuracy"):
        best_by(config, metric_for("sst2", 2))


# --- A saved run reads labels as its training did ---


def test_a_run_remembers_its_map_and_takes_more(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path, model, numbers(16), label_map={"0": "ham", "1": "spam"})
    config = results_of(run)
    assert (config["labels"], config["positive_label"]) == (["ham", "spam"], "spam")
    assert TrainConfig(**config["config"]).label_map == {"0": "ham", "1": "spam"}
    own = evaluate_run(EvaluateConfig(run=str(run)))["train.csv"]
    assert own.metrics["accuracy"] == config["results"]["validation"]["accuracy"]
    named = write(tmp_path / "named.csv", ["ham" if number == 0 else "spam" for number in numbers(16)])
    turned = write(tmp_path / "turned.csv", ["no" if number == 0 else "yes" for number in numbers(16)])
    for given in ({"eval_file": named}, {"eval_file": turned, "label_map": "no=ham,yes=spam"}):
        (other,) = evaluate_run(EvaluateConfig(run=str(run), **given)).values()  # type: ignore[arg-type]
        assert other.metrics == own.metrics
    with pytest.raises(MinitrainError, match=r"row 1, .* the label is 'no' .* which class: --label_map no=NAME"):
        evaluate_run(EvaluateConfig(run=str(run), eval_file=turned))
    with pytest.raises(MinitrainError, match="--label_map x=ham: no label of column 'label' is called 'x'"):
        evaluate_run(EvaluateConfig(run=str(run), eval_file=named, label_map={"x": "ham"}))


@pytest.mark.parametrize("foreign", [False, True])
def test_numbers_are_no_places_among_the_words_of_a_saved_head(
    tmp_path: Path, of_words: Path, foreign: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(of_words, tmp_path / "run")
    if foreign:  # a classifier that somebody else saved
        (run / "results.json").unlink()
    given: dict[str, Any] = {"run": str(run), "eval_file": write(tmp_path / "n.csv", numbers(24))}
    given |= {"text_columns": ("text",)}
    with pytest.raises(MinitrainError, match=r"row 1, .* the label is '0' .* as in --label_map 0=fraud,1=legit"):
        evaluate_run(EvaluateConfig(**given))
    scored = evaluate_run(EvaluateConfig(**given, label_map={"0": "fraud", "1": "legit"}))
    assert scored["n.csv"].metrics["accuracy"] == results_of(of_words)["results"]["validation"]["accuracy"]


def test_numbers_that_train_a_head_of_words_are_its_ids_and_said_to_be(
    tmp_path: Path, of_words: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "are read as ids: 0 is 'fraud', 1 is 'legit' (--label_map reads them otherwise)"
    run = trained(tmp_path, of_words, numbers(16))
    assert f"numbers in train {said}" in capsys.readouterr().out
    assert results_of(run)["labels"] == list(WORDS) and results_of(run)["numbers_are_ids"] is True
    by_number = evaluate_run(EvaluateConfig(run=str(run)))["train.csv"]
    assert f"numbers in train.csv {said}" in capsys.readouterr().out
    named = write(tmp_path / "named.csv", words(16))
    assert evaluate_run(EvaluateConfig(run=str(run), eval_file=named))["named.csv"].metrics == by_number.metrics


def test_classes_of_one_name_all_stand_in_the_predictions(tmp_path: Path, of_words: Path) -> None:
    run = shutil.copytree(of_words, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"id2label": {"0": "a", "1": "a"}}))
    file = write(tmp_path / "x.csv", words(4))
    (first, *_) = predicted(run, file, tmp_path / "out.jsonl")
    assert set(first["probabilities"]) == {"a (0)", "a (1)"} and first["label"] in first["probabilities"]
    assert sum(first["probabilities"].values()) == pytest.approx(1.0)
    named = write(tmp_path / "a.csv", ["a"] * 4)
    with pytest.raises(MinitrainError, match="the head has 2 classes called 'a'"):
        evaluate_run(EvaluateConfig(run=str(run), eval_file=named))


def test_other_names_for_the_classes_of_a_head_are_refused_with_a_way_that_works(
    of_words: Path, tmp_path: Path
) -> None:
    names = results_of(of_words)["labels"]
    other = [f"{name} indeed" for name in names]
    rows = [other[i % len(other)] for i in range(12)]
    for folder in ("refused", "taken"):
        (tmp_path / folder).mkdir()
    with pytest.raises(MinitrainError, match="--label_map") as caught:
        trained(tmp_path / "refused", of_words, rows)
    (way,) = re.findall(r"--label_map ('.*'|\S+) \(or", str(caught.value))
    run = trained(tmp_path / "taken", of_words, rows, label_map=shlex.split(way)[0])
    assert results_of(run)["labels"] == names


def test_numbers_are_not_matched_with_one_name_of_several_classes(of_words: Path, tmp_path: Path) -> None:
    shutil.copytree(of_words, tmp_path / "run")
    config = json.loads((tmp_path / "run/config.json").read_text())
    config["id2label"] = {"0": "x", "1": "x"}
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    file = write(tmp_path / "numbers.csv", numbers(6))
    with pytest.raises(MinitrainError, match="the head calls several classes 'x': give each its own name"):
        evaluate_run(EvaluateConfig(run=str(tmp_path / "run"), eval_file=file))
