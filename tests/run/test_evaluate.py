"""Labelling texts and scoring a saved run, beside transformers' pipeline and the run's own numbers."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import reviews
from test_main import config, named_reviews, read_results, write_csv, write_rows
from transformers import pipeline

from minitrain.config.inference_config import EvaluateConfig, PredictConfig
from minitrain.errors import MinitrainError
from minitrain.run.evaluate import evaluate_run
from minitrain.run.main import train
from minitrain.run.predict import predict_run
from minitrain.run.saved_run import load_run

Predict = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name, count in (("train", 65), ("eval", 21), ("test", 19)):
        write_csv(folder / f"{name}.csv", *named_reviews(count, seed=len(name)))
        rows = [{"a": t, "b": "the film", "label": n} for t, n in zip(*reviews(count, len(name)), strict=True)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        texts, labels = reviews(count)
        write_csv(folder / f"{name}-scores.csv", texts, [4 * label + 0.5 for label in labels])
    return folder


@pytest.fixture(scope="module")
def run(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on single texts with the classes awful and lovely."""
    out = tmp_path_factory.mktemp("runs") / "single"
    train(config(model, data, out, num_train_epochs=4, test_file=str(data / "test.csv")))
    return out


@pytest.fixture(scope="module")
def pairs(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on pairs of texts, in columns a and b."""
    out = tmp_path_factory.mktemp("runs") / "pairs"
    files = {"train_file": str(data / "train.jsonl"), "eval_file": str(data / "eval.jsonl")}
    train(config(model, data, out, num_train_epochs=2, text_columns=("a", "b"), **files))
    return out


@pytest.fixture(scope="module")
def scores(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on scores."""
    out = tmp_path_factory.mktemp("runs") / "scores"
    files = {"train_file": str(data / "train-scores.csv"), "eval_file": str(data / "eval-scores.csv")}
    train(config(model, data, out, num_train_epochs=2, **files))
    return out


@pytest.fixture
def predicted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Predict:
    """Feeds standard input, and reads the records from standard output."""

    def predict(folder: Path, text: str | bytes = b"", **flags: Any) -> list[dict[str, Any]]:
        raw = text.encode() if isinstance(text, str) else text
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw)))
        capsys.readouterr()
        predict_run(PredictConfig(run=str(folder), **flags))
        return read_lines(capsys.readouterr().out)

    return predict


def read_lines(text: str) -> list[dict[str, Any]]:
    assert text.endswith("\n")
    return [json.loads(line) for line in text.removesuffix("\n").split("\n")]


TEXTS = [
    "the film great plot superb",
    "awful",
    "",
    "bad 🎬 film",
    "a dull plot \U0001f468\u200d\U0001f469\u200d\U0001f467",
]


def test_record_has_text_label_and_probabilities_in_the_order_of_the_input(run: Path, predicted: Predict) -> None:
    records = predicted(run, "\n".join(TEXTS) + "\n")
    assert [record["text"] for record in records] == TEXTS
    for record in records:
        assert list(record) == ["text", "label", "probability", "probabilities"]
        assert list(record["probabilities"]) == ["awful", "lovely"]
        assert sum(record["probabilities"].values()) == pytest.approx(1.0, abs=1e-12)  # float64 softmax
        assert record["probability"] == record["probabilities"][record["label"]]
        assert record["probability"] == max(record["probabilities"].values())
    assert [record["label"] for record in records[:2]] == ["lovely", "awful"]


@pytest.mark.parametrize(
    ("raw", "texts"),
    [
        (b"good film\nbad film\n", ["good film", "bad film"]),
        (b"good film\nbad film", ["good film", "bad film"]),
        (b"good film\r\nbad film\r\n", ["good film", "bad film"]),
        (b"\xef\xbb\xbfgood film\n", ["good film"]),
        (b"good\n\nbad\n", ["good", "", "bad"]),
        (b"\n", [""]),
        (b"good\tfilm\n", ["good\tfilm"]),
        ("good\u2028film\x0bplot\x85 .\n".encode(), ["good\u2028film\x0bplot\x85 ."]),
        ("größe 数据 \u202eمرحبا 🎬\n".encode(), ["größe 数据 \u202eمرحبا 🎬"]),
    ],
)
def test_line_is_a_text_and_only_a_line_feed_ends_it(
    run: Path, predicted: Predict, raw: bytes, texts: list[str]
) -> None:
    assert [record["text"] for record in predicted(run, raw)] == texts


def test_probabilities_are_those_of_the_pipeline(run: Path, predicted: Predict) -> None:
    texts = [text for text in TEXTS if text] + reviews(20, seed=9)[0]
    records = predicted(run, "\n".join(texts) + "\n")
    classify: Any = pipeline("text-classification", str(run), top_k=None, device="cpu")
    for record, entries in zip(records, classify(texts), strict=True):
        theirs = {entry["label"]: entry["score"] for entry in entries}
        assert theirs == pytest.approx(record["probabilities"], abs=1e-6)  # float32, padded otherwise
        assert max(theirs, key=theirs.__getitem__) == record["label"]


def test_probabilities_of_pairs_are_those_of_the_pipeline(pairs: Path, predicted: Predict) -> None:
    texts = reviews(12, seed=9)[0]
    records = predicted(pairs, "".join(f"{text}\tthe film\n" for text in texts))
    assert list(records[0])[:2] == ["text", "text_pair"]
    assert [(record["text"], record["text_pair"]) for record in records] == [(text, "the film") for text in texts]
    classify: Any = pipeline("text-classification", str(pairs), top_k=None, device="cpu")
    expected = classify([{"text": text, "text_pair": "the film"} for text in texts])
    for record, entries in zip(records, expected, strict=True):
        theirs = {entry["label"]: entry["score"] for entry in entries}
        assert theirs == pytest.approx(record["probabilities"], abs=1e-6)  # float32, padded otherwise


def test_scores_are_those_of_the_pipeline(scores: Path, predicted: Predict) -> None:
    texts = reviews(12, seed=9)[0]
    records = predicted(scores, "\n".join(texts))
    assert {tuple(record) for record in records} == {("text", "score")}
    classify: Any = pipeline("text-classification", str(scores), device="cpu")
    expected = [entry["score"] for entry in classify(texts)]
    assert [record["score"] for record in records] == pytest.approx(expected, abs=1e-5)  # float32, of size 4


def test_line_without_a_tab_is_named_where_pairs_are_expected(pairs: Path, predicted: Predict) -> None:
    with pytest.raises(
        MinitrainError, match=r"^standard input, line 2: expected two texts with a tab .* 'no pair'"
    ):
        predicted(pairs, "good\tfilm\nno pair\n")
    (record,) = predicted(pairs, "good\tfilm\tplot\n")
    assert (record["text"], record["text_pair"]) == ("good", "film\tplot")


def test_first_line_tells_where_the_run_does_not(run: Path, predicted: Predict, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(run, bare)
    (bare / "results.json").unlink()
    assert "text_pair" in predicted(bare, "good\tfilm\nbad\tfilm\n")[0]
    assert "text_pair" not in predicted(bare, "good film\nbad\tfilm\n")[0]


def write_texts(path: Path) -> list[str]:
    texts, labels = named_reviews(9, seed=4)
    if path.suffix == ".txt":
        path.write_text("\n".join(texts), encoding="utf-8")
    else:
        write_rows(path, texts, labels)
    return texts


@pytest.mark.parametrize("kind", ["txt", "csv", "jsonl", "parquet"])
def test_kind_of_input_does_not_matter(run: Path, predicted: Predict, tmp_path: Path, kind: str) -> None:
    texts = write_texts(tmp_path / f"new.{kind}")
    expected = predicted(run, "\n".join(texts))
    flags: dict[str, Any] = {"input": str(tmp_path / f"new.{kind}"), "keep_columns": ("none",)}
    assert predicted(run, **flags) == expected
    output = tmp_path / "deeper/out.jsonl"
    predict_run(PredictConfig(run=str(run), output=str(output), **flags))
    assert read_lines(output.read_text(encoding="utf-8")) == expected
    assert [path.name for path in output.parent.iterdir()] == ["out.jsonl"]


def test_columns_come_from_the_run_or_the_flag(pairs: Path, data: Path, predicted: Predict, tmp_path: Path) -> None:
    records = predicted(pairs, input=str(data / "test.jsonl"))
    assert len(records) == 19 and list(records[0])[:2] == ["a", "b"]
    write_csv(tmp_path / "other.csv", ["good film"], ["the plot"], header=("title", "body"))
    (record,) = predicted(pairs, input=str(tmp_path / "other.csv"), text_columns=("title", "body"))
    assert (record["title"], record["body"]) == ("good film", "the plot")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_bad_row_leaves_no_file_and_keeps_the_older_one(run: Path, tmp_path: Path, kind: str) -> None:
    bad = tmp_path / f"bad.{kind}"
    bad.write_text(
        "text,label\ngood,1\nbad,1,1\n" if kind == "csv" else '{"text": "good"}\n{"text": 7}\n', encoding="utf-8"
    )
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    old.write_text("kept\n", encoding="utf-8")
    for output in (old, new):
        with pytest.raises(MinitrainError, match=rf"bad\.{kind}, row 2"):
            predict_run(PredictConfig(run=str(run), input=str(bad), output=str(output)))
    assert old.read_text(encoding="utf-8") == "kept\n"
    assert {path.name for path in tmp_path.iterdir()} == {bad.name, "old.jsonl"}


def test_output_that_cannot_be_written_is_named_at_once(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(MinitrainError, match=r"--output .*file/out\.jsonl: cannot be written"):
        # The missing input would be an error too, had it been looked for.
        predict_run(PredictConfig(run=str(run), input="/nowhere.txt", output=str(tmp_path / "file/out.jsonl")))
    (tmp_path / "folder").mkdir()
    write_texts(tmp_path / "new.txt")
    with pytest.raises(MinitrainError, match=r"--output .*folder: cannot be written \(Is a directory\)"):
        predict_run(PredictConfig(run=str(run), input=str(tmp_path / "new.txt"), output=str(tmp_path / "folder")))
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder", "new.txt"}
    for path, why in (("file/x.json", "Not a directory"), ("folder", "it is a folder")):
        with pytest.raises(MinitrainError, match=rf"--json .*{path}: cannot be written \({why}\)"):
            evaluate_run(EvaluateConfig(run="/nowhere", json=str(tmp_path / path)))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"input": "/nowhere.txt"}, r"--input /nowhere\.txt: cannot be read \(No such file"),
        ({"input": "/nowhere.csv"}, r"/nowhere\.csv: no such file"),
        ({"input": "texts.docx"}, r"texts\.docx: is of no known kind; expected one of \.csv"),
        ({"max_length": 65}, "--max_length 65: the model has 64 positions"),
        ({"max_length": 2}, "--max_length is 2"),
    ],
)
def test_input_that_cannot_be_had_is_named(
    run: Path, predicted: Predict, flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(MinitrainError, match=message):
        predicted(run, "good film\n", **flags)


def test_standard_input_must_be_utf8_and_hold_something(run: Path, predicted: Predict) -> None:
    with pytest.raises(MinitrainError, match="standard input, line 1: is not UTF-8 at byte 5"):
        predicted(run, b"good \xff film\n")
    with pytest.raises(MinitrainError, match="standard input: has no texts"):
        predicted(run, b"")


def test_max_length_is_that_of_the_run_unless_given(
    model: Path, data: Path, predicted: Predict, tmp_path: Path
) -> None:
    train(config(model, data, tmp_path / "run", max_length=5, max_steps=1))
    long, cut = "good film " * 9, "good film good"
    records = predicted(tmp_path / "run", f"{long}\n{cut}\n")
    assert records[0]["probabilities"] == pytest.approx(records[1]["probabilities"], abs=1e-7)  # the same ids
    records = predicted(tmp_path / "run", f"{long}\n{cut}\n", max_length=30)
    assert records[0]["probability"] != pytest.approx(records[1]["probability"], abs=1e-4)
    assert load_run(EvaluateConfig(run=str(tmp_path / "run"), device="cpu")).max_length == 5


@pytest.mark.parametrize("name", ["run", "pairs", "scores"])
def test_scoring_a_run_gives_the_numbers_it_was_saved_with(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    (result,) = evaluate_run(EvaluateConfig(run=str(folder))).values()
    saved = read_results(folder)["results"]["validation"]
    # Batches of 32 here and of 8 there: float32 sums in another order.
    assert {"examples": result.examples, **result.values} == pytest.approx(saved, abs=1e-5)


def test_test_file_of_the_run_is_scored_by_name(run: Path) -> None:
    results = evaluate_run(EvaluateConfig(run=str(run), split="test"))
    assert results["test.csv"].examples == 19
    assert results["test.csv"].values == pytest.approx(
        {k: v for k, v in read_results(run)["results"]["test"].items() if k != "examples"},
        abs=1e-5,  # float32 sums in another order
    )


def test_run_is_scored_on_another_file_and_the_values_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(tmp_path / "new.csv", *named_reviews(12, seed=7), header=("review", "verdict"))
    flags: dict[str, Any] = {"eval_file": str(tmp_path / "new.csv"), "json": str(tmp_path / "out/values.json")}
    result = evaluate_run(EvaluateConfig(run=str(run), text_columns=("review",), label_column="verdict", **flags))[
        "new.csv"
    ]
    written = json.loads((tmp_path / "out/values.json").read_text(encoding="utf-8"))
    assert written == {"new.csv": {"examples": 12, **result.values}}
    out = capsys.readouterr().out
    assert "new.csv (12 examples)" in out and "true / predicted" in out and "95% interval" in out


def test_run_on_a_dataset_is_scored_as_it_scored_itself(model: Path, data: Path, tmp_path: Path) -> None:
    flags: dict[str, Any] = {"train_file": None, "eval_file": None, "dataset": "demo"}
    results = train(
        config(model, data, tmp_path / "run", max_steps=2, max_train_samples=64, max_eval_samples=50, **flags)
    )
    assert {name: split["examples"] for name, split in results["results"].items()} == {
        "validation": 50,
        "test": 50,
    }
    (own,) = evaluate_run(EvaluateConfig(run=str(tmp_path / "run"))).values()
    expected = {k: v for k, v in results["results"]["validation"].items() if k != "examples"}
    assert own.examples == 50 and own.values == pytest.approx(expected, abs=1e-5)  # float32, batches of 32 and 8
    limited = evaluate_run(EvaluateConfig(run=str(tmp_path / "run"), split="test", max_eval_samples=7))
    assert limited["test"].examples == 7
    with pytest.raises(
        MinitrainError, match=r"demo: has no split 'dev'; pass --split, one of train, validation, test"
    ):
        evaluate_run(EvaluateConfig(run=str(tmp_path / "run"), split="dev"))


def test_trained_glue_task_brings_its_metrics(model: Path, glue: Path, tmp_path: Path) -> None:
    flags: dict[str, Any] = {"train_file": None, "eval_file": None, "dataset": str(glue), "subset": "mrpc"}
    limits = {"max_train_samples": 32, "max_eval_samples": 64, "max_steps": 1}
    results = train(config(model, tmp_path, tmp_path / "run", **limits, **flags))
    assert results["task"] == "mrpc" and results["text_columns"] == ["sentence1", "sentence2"]
    assert results["labels"] == ("not_equivalent", "equivalent")
    (own,) = evaluate_run(EvaluateConfig(run=str(tmp_path / "run"))).values()
    assert list(own.metrics) == ["accuracy", "f1"] and own.examples == 64
    assert own.metrics["accuracy"] == results["results"]["validation"]["accuracy"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"text_columns": ("review",)}, r"eval\.csv: has no column 'review'; it has text, label"),
        ({"label_column": "verdict"}, r"eval\.csv: has no column 'verdict'; it has text, label"),
        ({"eval_file": "/nowhere.csv"}, r"/nowhere\.csv: no such file"),
        ({"max_length": 65}, "--max_length 65: the model has 64 positions"),
    ],
)
def test_data_that_does_not_fit_is_named(run: Path, flags: dict[str, Any], message: str) -> None:
    with pytest.raises(MinitrainError, match=message):
        evaluate_run(EvaluateConfig(run=str(run), **flags))


def test_label_that_the_run_does_not_know_is_named(run: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "new.csv", ["good", "bad"], ["lovely", "meh"])
    with pytest.raises(
        MinitrainError, match=r"new\.csv, row 2, column 'label': the label is 'meh' .*'awful', 'lovely'"
    ):
        evaluate_run(EvaluateConfig(run=str(run), eval_file=str(tmp_path / "new.csv")))


@pytest.mark.parametrize("what", ["nowhere", "empty folder", "file"])
def test_what_is_no_run_is_said_to_be_none(tmp_path: Path, what: str) -> None:
    (tmp_path / "empty folder").mkdir()
    (tmp_path / "file").touch()
    for work in (
        lambda: evaluate_run(EvaluateConfig(run=str(tmp_path / what))),
        lambda: predict_run(PredictConfig(run=str(tmp_path / what))),
    ):
        expected = "is no model: expected " if what == "empty folder" else r"holds no saved model \(no "
        with pytest.raises(MinitrainError, match=rf"{what}: {expected}config\.json"):
            work()


def test_run_without_its_facts_asks_for_them(run: Path, data: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(run, bare)
    (bare / "results.json").unlink()
    with pytest.raises(MinitrainError, match="does not say what it was trained on; pass --dataset or --eval_file"):
        evaluate_run(EvaluateConfig(run=str(bare), text_columns=("text",)))
    with pytest.raises(MinitrainError, match="does not say which columns hold its texts; pass --text_columns"):
        evaluate_run(EvaluateConfig(run=str(bare), eval_file=str(data / "eval.csv")))
    with pytest.raises(MinitrainError, match="does not say which columns hold its texts; pass --text_columns"):
        predict_run(PredictConfig(run=str(bare), input=str(data / "eval.csv")))
    (result,) = evaluate_run(
        EvaluateConfig(run=str(bare), eval_file=str(data / "eval.csv"), text_columns=("text",))
    ).values()
    assert result.metrics["accuracy"] == read_results(run)["results"]["validation"]["accuracy"]


def test_run_without_evaluation_data_asks_for_a_file(model: Path, data: Path, tmp_path: Path) -> None:
    train(config(model, data, tmp_path / "run", eval_file=None, eval_strategy="no", max_steps=1))
    with pytest.raises(
        MinitrainError, match="was trained on files, none of them for 'validation': pass --eval_file"
    ):
        evaluate_run(EvaluateConfig(run=str(tmp_path / "run")))


def test_kernels_agree_on_predictions(run: Path, predicted: Predict) -> None:
    texts = "\n".join(reviews(20, seed=3)[0])
    fast, reference = predicted(run, texts), predicted(run, texts, kernels="reference")
    for a, b in zip(fast, reference, strict=True):
        assert a["probabilities"] == pytest.approx(
            b["probabilities"], abs=1e-5
        )  # the same function, other roundings


@pytest.mark.parametrize(("precision", "near"), [("bf16", 0.05), ("fp16", 0.005)])  # 8 and 11 bits
def test_predictions_in_16_bits_are_near_and_not_the_same(
    run: Path, predicted: Predict, precision: str, near: float
) -> None:
    texts = "\n".join(reviews(20, seed=3)[0])
    full, half = predicted(run, texts), predicted(run, texts, **{precision: True})
    assert full != half
    for a, b in zip(full, half, strict=True):
        assert a["probabilities"] == pytest.approx(b["probabilities"], abs=near)


def test_saved_model_is_ready_for_prediction(run: Path) -> None:
    loaded = load_run(EvaluateConfig(run=str(run), device="cpu"))
    assert not loaded.model.training
    assert loaded.text_columns == ("text",) and loaded.labels.names == ("awful", "lovely")
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
