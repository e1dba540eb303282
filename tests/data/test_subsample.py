"""Which rows are drawn, by seed and class; and that what a run was scored on can be had again."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sklearn.model_selection import StratifiedShuffleSplit  # type: ignore[import-untyped]
from test_loop import reviews
from test_main import config, files_of, named_reviews, read_results, write_csv

from minitrain.config.inference_config import EvaluateConfig, PredictConfig
from minitrain.data.load import load_splits
from minitrain.data.subsample import draw_rows
from minitrain.data.tokenizer.tokenizer import Tokenizer
from minitrain.errors import MinitrainError
from minitrain.run.evaluate import evaluate_run
from minitrain.run.main import train
from minitrain.run.predict import predict_run

SORTED = ["bad"] * 60 + ["good"] * 60


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_csv(folder / "train.csv", *named_reviews(65))
    write_csv(folder / "eval.csv", *named_reviews(21, seed=1))
    return folder


@pytest.fixture(scope="module")
def held(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was scored on rows of its own training file."""
    out = tmp_path_factory.mktemp("runs") / "held"
    train(config(model, data, out, eval_file=None, eval_fraction=0.3, num_train_epochs=1))
    return out


def table(path: Path, labels: list[Any]) -> str:
    return str(write_csv(path, [f"number {i}" for i in range(len(labels))], labels))


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


# --- What is drawn ---


def test_rows_drawn_are_a_function_of_the_seed_for_ever() -> None:
    assert draw_rows(10, 4, 42) == draw_rows(10, 4, 42) == [1, 3, 7, 9]
    assert draw_rows(10, 4, 43) != draw_rows(10, 4, 42)
    assert draw_rows(3, 9, 0) == [0, 1, 2]


def test_every_row_is_drawn_as_often_as_any() -> None:
    counts = Counter(row for seed in range(600) for row in draw_rows(12, 4, seed))
    assert set(counts) == set(range(12)) and all(150 < count < 250 for count in counts.values())


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_shares_of_classes_are_scikit_learns(fraction: float) -> None:
    classes = [0] * 500 + [1] * 300 + [2] * 37 + [3] * 3
    wanted = round(fraction * len(classes))
    ours = Counter(classes[row] for row in draw_rows(len(classes), wanted, 1, classes))
    ((_, theirs),) = StratifiedShuffleSplit(1, test_size=wanted, random_state=0).split(classes, classes)
    expected = Counter(classes[row] for row in theirs)
    assert sum(ours.values()) == wanted
    assert all(abs(ours[name] - expected[name]) <= 1 for name in expected)


def test_single_rows_stay_in_training_and_totals_hold() -> None:
    classes = [0] * 50 + [1] * 46 + [2, 3, 4, 5]
    rows = draw_rows(100, 10, 7, classes)
    assert len(rows) == 10 and Counter(classes[row] for row in rows) == {0: 5, 1: 5}
    assert draw_rows(100, 10, 7, classes) == rows == sorted(rows)
    assert len(draw_rows(4, 3, 0, [0, 1, 2, 3])) == 3  # no class can spare a row, and three are wanted


def test_numbering_of_classes_does_not_decide() -> None:
    classes = [0, 1, 1, 0, 2, 1, 0, 2, 2, 1]
    renamed = [{0: 2, 1: 0, 2: 1}[name] for name in classes]
    assert draw_rows(10, 4, 5, classes) == draw_rows(10, 4, 5, renamed)


# --- Samples ---


def test_a_sample_of_sorted_rows_has_both_classes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = table(tmp_path / "sorted.csv", SORTED)
    splits = load_splits(
        tokenizer=tokenizer, train_file=path, eval_file=path, max_train_samples=40, max_eval_samples=30
    )
    counts = Counter(splits.train.labels.tolist())  # type: ignore[union-attr]
    assert len(splits.train) == 40 and min(counts.values()) > 8
    assert set(splits.evaluation["validation"].labels.tolist()) == {0, 1}  # type: ignore[union-attr]
    assert "train: 40 of 120 rows, drawn at random (--sample first takes the first ones)" in splits.notes


def test_a_sample_is_another_by_another_seed_and_in_order(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = table(tmp_path / "a.csv", ["x", "y"] * 25)

    def texts(seed: int) -> list[int]:
        splits = load_splits(tokenizer=tokenizer, train_file=path, eval_file=path, max_eval_samples=9, seed=seed)
        return [int(text.split()[1]) for text in splits.texts["validation"].column("text")]

    assert texts(1) == texts(1) == sorted(texts(1)) and texts(1) != texts(2)


def test_first_rows_of_one_class_are_refused_with_a_way_out(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = table(tmp_path / "sorted.csv", SORTED)
    said = "every label of the 40 rows that --max_train_samples takes is 'bad'; .* pass --sample random"
    with pytest.raises(MinitrainError, match=said):
        load_splits(tokenizer=tokenizer, train_file=path, max_train_samples=40, sample="first")
    assert len(load_splits(tokenizer=tokenizer, train_file=path, max_train_samples=40, sample="random").train) == 40


def test_a_class_without_rows_is_said_loudly(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = table(tmp_path / "a.csv", [*SORTED[50:70], *["rare"] * 3])
    splits = load_splits(
        tokenizer=tokenizer,
        train_file=path,
        eval_file=path,
        max_train_samples=20,
        max_eval_samples=5,
        sample="first",
    )
    assert "WARNING class 'rare' has 0 of its 3 rows in training" in splits.notes
    assert "WARNING class 'good' has 0 of its 10 rows in validation" in splits.notes


def test_a_class_missing_from_either_side_of_a_split_is_said(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = table(tmp_path / "a.csv", ["a"] * 20 + ["b"] * 20 + ["rare1", "rare2"])
    splits = load_splits(tokenizer=tokenizer, train_file=path, eval_fraction=0.25)
    assert [note for note in splits.notes if "rare" in note] == [
        "WARNING class 'rare1' has 0 of its 1 rows in validation",
        "WARNING class 'rare2' has 0 of its 1 rows in validation",
    ]
    assert Counter(splits.train.labels.tolist()) == {0: 15, 1: 15, 2: 1, 3: 1}  # type: ignore[union-attr]
    assert len(splits.evaluation["validation"]) == 10


@pytest.mark.parametrize("flags", [{"eval_fraction": 0.5}, {"max_train_samples": 30}], ids=["split", "sample"])
def test_a_bad_text_has_its_number_in_the_file(tmp_path: Path, tokenizer: Tokenizer, flags: dict[str, Any]) -> None:
    rows = [{"text": f"t {i}", "label": i % 2} for i in range(40)] + [{"text": None, "label": 1}]
    path = tmp_path / "a.jsonl"
    found = set()
    for seed in range(4):
        order = rows[seed:] + rows[:seed]
        path.write_text("".join(json.dumps(row) + "\n" for row in order), encoding="utf-8")
        try:
            load_splits(tokenizer=tokenizer, train_file=str(path), seed=seed, **flags)
        except MinitrainError as error:
            found.add(str(error).partition(", column")[0] == f"{path}, row {order.index(rows[-1]) + 1}")
    assert found == {True}


def test_first_rows_are_what_a_match_takes(model: Path, data: Path, tmp_path: Path) -> None:
    matched = config(model, data, tmp_path / "run", match_trainer=True)
    assert matched.sample == "first" and config(model, data, tmp_path / "run").sample == "random"
    assert config(model, data, tmp_path / "run", match_trainer=True, sample="random").sample == "random"


# --- Held-out rows again ---


def test_predictions_are_those_of_the_saved_weights_row_by_row(held: Path, data: Path, tmp_path: Path) -> None:
    found = records(held)
    texts, labels = named_reviews(65)
    assert len(found) == 20 and [r["row"] for r in found] == sorted(r["row"] for r in found)
    assert all((r["text"], r["label"]) == (texts[r["row"] - 1], labels[r["row"] - 1]) for r in found)
    assert list(found[0]) == ["row", "text", "label", "prediction", "probability", "probabilities"]
    accuracy = sum(r["label"] == r["prediction"] for r in found) / len(found)
    assert accuracy == read_results(held)["results"]["validation"]["accuracy"]
    write_csv(tmp_path / "texts.csv", [r["text"] for r in found], [0] * 20)
    predict_run(PredictConfig(run=str(held), input=str(tmp_path / "texts.csv"), output=str(tmp_path / "out.jsonl")))
    again = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    for ours, theirs in zip(found, again, strict=True):
        assert ours["prediction"] == theirs["label"]
        assert ours["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-6)


def test_held_out_rows_are_scored_again(held: Path) -> None:
    (name, result), *_ = evaluate_run(EvaluateConfig(run=str(held))).items()
    assert name == "validation"
    assert {"examples": result.examples, **result.values} == read_results(held)["results"]["validation"]


def test_held_out_rows_of_a_changed_file_are_refused(held: Path, model: Path, data: Path, tmp_path: Path) -> None:
    own, folder = tmp_path / "data", tmp_path / "run"
    shutil.copytree(data, own)
    train(config(model, own, folder, eval_file=None, eval_fraction=0.3, max_steps=2))
    texts, labels = named_reviews(65)
    write_csv(own / "train.csv", texts[1:], labels[1:])
    with pytest.raises(MinitrainError, match=r"train.csv: has changed since the run; .* predictions.jsonl"):
        evaluate_run(EvaluateConfig(run=str(folder)))
    way = EvaluateConfig(run=str(folder), eval_file=str(folder / "predictions.jsonl"), label_column="label")
    (result,) = evaluate_run(way).values()
    assert {"examples": result.examples, **result.values} == read_results(folder)["results"]["validation"]


def test_held_out_rows_of_an_earlier_version_are_not_guessed(held: Path, tmp_path: Path) -> None:
    shutil.copytree(held, tmp_path / "run")
    results = read_results(held)
    del results["held_out"]
    (tmp_path / "run/results.json").write_text(json.dumps(results), encoding="utf-8")
    with pytest.raises(MinitrainError, match="does not say which rows it held back, .*: pass --eval_file"):
        evaluate_run(EvaluateConfig(run=str(tmp_path / "run")))


def test_a_sample_is_scored_again(model: Path, data: Path, tmp_path: Path) -> None:
    flags: dict[str, Any] = {"max_steps": 2, "max_eval_samples": 9, "max_train_samples": 30, "seed": 3}
    for out, own in (("files", {}), ("held", {"eval_file": None, "eval_fraction": 0.4})):
        results = train(config(model, data, tmp_path / out, **flags, **own))
        (result,) = evaluate_run(EvaluateConfig(run=str(tmp_path / out))).values()
        assert {"examples": 9, **result.values} == results["results"]["validation"]


def test_a_sample_of_the_training_split_needs_no_two_classes(held: Path) -> None:
    (result,) = evaluate_run(EvaluateConfig(run=str(held), split="train", max_eval_samples=1)).values()
    assert result.examples == 1


@pytest.mark.parametrize("how", ["file", "copy", "split"])
def test_scoring_what_was_trained_on_is_warned_of(
    held: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    shutil.copy(data / "train.csv", tmp_path / "copy.csv")
    paths = {"file": data / "train.csv", "copy": tmp_path / "copy.csv"}
    flags: dict[str, Any] = {"split": "train"} if how == "split" else {"eval_file": str(paths[how])}
    evaluate_run(EvaluateConfig(run=str(held), **flags))
    most = "" if how == "split" else "most of "
    assert re.search(rf"^WARNING  .*: the run was trained on {most}these rows", capsys.readouterr().err, re.M)
    evaluate_run(EvaluateConfig(run=str(held), eval_file=str(data / "eval.csv")))
    assert "WARNING" not in capsys.readouterr().err


def test_several_splits_are_told_apart_and_scores_have_no_probability(model: Path, tmp_path: Path) -> None:
    for name, count in (("train", 40), ("eval", 9), ("test", 7)):
        texts, labels = reviews(count)
        write_csv(tmp_path / f"{name}.csv", texts, [label + 0.3 for label in labels], header=("row", "label"))
    files = {"test_file": str(tmp_path / "test.csv"), "text_columns": ("row",)}
    train(config(model, tmp_path, tmp_path / "run", max_steps=2, **files))
    found = records(tmp_path / "run")
    assert Counter(record["split"] for record in found) == {"validation": 9, "test": 7}
    assert set(found[0]) == {"split", "row", "input_row", "label", "prediction"}
    assert found[0]["label"] == 0.3 and type(found[0]["prediction"]) is float


# --- What is scored ---


def test_without_evaluation_nothing_is_scored_unless_asked(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags: dict[str, Any] = {"eval_strategy": "no", "max_steps": 2}
    silent = train(config(model, data, tmp_path / "silent", **flags))
    assert silent["results"] == silent["baseline"] == {} and not (tmp_path / "silent/predictions.jsonl").exists()
    out = capsys.readouterr().out
    assert (
        "validation: 21 rows, not scored (--do_eval scores them)" in out and "validation (21 examples)" not in out
    )
    asked = train(config(model, data, tmp_path / "asked", do_eval=True, **flags))
    assert asked["results"]["validation"]["examples"] == 21
    test = train(config(model, data, tmp_path / "test", test_file=str(data / "eval.csv"), **flags))
    assert list(test["results"]) == ["test"]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("silent", "asked", "test")]
    assert weights[0] == weights[1] == weights[2]


def test_predictions_of_an_earlier_run_go(model: Path, data: Path, tmp_path: Path) -> None:
    train(config(model, data, tmp_path / "run", max_steps=1))
    assert "predictions.jsonl" in files_of(tmp_path / "run")
    train(config(model, data, tmp_path / "run", max_steps=1, eval_strategy="no", overwrite_output_dir=True))
    assert "predictions.jsonl" not in files_of(tmp_path / "run")


def test_held_back_rows_wait_for_evaluate(model: Path, data: Path, tmp_path: Path) -> None:
    flags: dict[str, Any] = {"eval_file": None, "eval_fraction": 0.3, "eval_strategy": "no", "max_steps": 2}
    results = train(config(model, data, tmp_path / "run", **flags))
    assert results["results"] == {}
    (result,) = evaluate_run(EvaluateConfig(run=str(tmp_path / "run"))).values()
    assert result.examples == 20


# --- Several fields as one text ---


@pytest.fixture(scope="module")
def mails(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mails")
    for name, count, seed in (("train", 40, 0), ("eval", 11, 1)):
        texts, labels = reviews(count, seed)
        cut = [(text[:9], text[9:], "" if i % 2 else "so so") for i, text in enumerate(texts)]
        lines = [
            json.dumps({"subject": a, "body": b, "notes": c, "label": n}) + "\n"
            for (a, b, c), n in zip(cut, labels, strict=True)
        ]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def mail_config(model: Path, mails: Path, out: Path, **flags: Any) -> Any:
    files = {"train_file": str(mails / "train.jsonl"), "eval_file": str(mails / "eval.jsonl")}
    return config(model, mails, out, text_columns=("subject", "body", "notes"), max_steps=2, **files, **flags)


def test_three_fields_are_one_text_here_and_later(
    model: Path, mails: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tokenizer: Tokenizer
) -> None:
    results = train(mail_config(model, mails, tmp_path / "run", join=" "))
    assert "printf 'a text' |" in capsys.readouterr().out
    assert (results["text_columns"], results["join"]) == (["subject", "body", "notes"], " ")
    (result,) = evaluate_run(EvaluateConfig(run=str(tmp_path / "run"))).values()
    assert result.values == {k: v for k, v in results["results"]["validation"].items() if k != "examples"}
    row = records(tmp_path / "run")[1]
    line = f"{row['subject']} {row['body']}"  # the notes are empty
    predict_run(
        PredictConfig(run=str(tmp_path / "run"), input=str(mails / "eval.jsonl"), output=str(tmp_path / "o.jsonl"))
    )
    (tmp_path / "line.txt").write_text(line + "\n", encoding="utf-8")
    predict_run(
        PredictConfig(run=str(tmp_path / "run"), input=str(tmp_path / "line.txt"), output=str(tmp_path / "l.jsonl"))
    )
    of_fields = json.loads((tmp_path / "o.jsonl").read_text(encoding="utf-8").splitlines()[1])
    of_line = json.loads((tmp_path / "l.jsonl").read_text(encoding="utf-8"))
    assert row["notes"] == "" and row["probabilities"] == pytest.approx(of_line["probabilities"], abs=1e-6)
    assert of_fields["probabilities"] == pytest.approx(of_line["probabilities"], abs=1e-6)


def test_two_fields_are_a_pair_unless_joined(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "a.csv"
    path.write_text("title,body,label\nlovely,so so,1\nawful,,0\n", encoding="utf-8")
    options: dict[str, Any] = {"train_file": str(path), "text_columns": ("title", "body")}
    pair, one = load_splits(tokenizer=tokenizer, **options), load_splits(tokenizer=tokenizer, join=" | ", **options)
    assert pair.is_pair and not one.is_pair
    assert pair.train[0].input_ids == tokenizer(["lovely"], ["so so"])[0].input_ids
    assert one.train[0].input_ids == tokenizer(["lovely | so so"])[0].input_ids
    assert one.train[1].input_ids == tokenizer(["awful"])[0].input_ids  # no separator before nothing


def test_three_columns_without_a_join_name_it(model: Path, mails: Path, tmp_path: Path) -> None:
    with pytest.raises(MinitrainError, match="subject,body,notes: expected one or two columns; pass --join"):
        mail_config(model, mails, tmp_path / "run")


def test_a_missing_field_of_a_joined_text_has_row_and_column(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = [{"a": "x", "b": "y", "c": "z", "label": i % 2} for i in range(9)]
    rows[6]["c"] = None  # type: ignore[assignment]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(MinitrainError, match=r"a.jsonl, row 7, column 'c': expected text, got NoneType .*fill in"):
        load_splits(tokenizer=tokenizer, train_file=str(path), text_columns=("a", "b", "c"), join=" ")
