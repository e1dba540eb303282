"""Data in memory: the same classes, ids and errors as the same rows in a file, whatever holds them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy
import pandas
import pyarrow
import pytest
import torch
from test_loop import reviews

from minitrain.config.inference_config import EvaluateConfig
from minitrain.config.train_config import TrainConfig
from minitrain.data.batch import collate
from minitrain.data.dataset import Split
from minitrain.data.load import load_splits, tokenize
from minitrain.data.tokenizer.tokenizer import Tokenizer
from minitrain.errors import MinitrainError
from minitrain.model.weights import load_classifier
from minitrain.run.evaluate import evaluate_run
from minitrain.run.main import train
from minitrain.training.evaluation import evaluate, predict
from minitrain.training.loop import fit
from minitrain.training.metrics import metric_for

TEXTS, NUMBERS = reviews(24)
ROWS: list[dict[str, Any]] = [
    {"id": i, "text": t, "label": ("no", "yes")[n]} for i, (t, n) in enumerate(zip(TEXTS, NUMBERS, strict=True))
]
COLUMNS: dict[str, Any] = {name: [row[name] for row in ROWS] for name in ROWS[0]}
FRAME = pandas.DataFrame(ROWS, index=list(range(100, 124)))

HOLDERS: dict[str, Callable[[], Any]] = {
    "rows": lambda: ROWS,
    "tuple of rows": lambda: tuple(ROWS),
    "columns": lambda: COLUMNS,
    "arrays": lambda: {name: numpy.array(values) for name, values in COLUMNS.items()},
    "frame": lambda: FRAME,
    "string dtype": lambda: FRAME.convert_dtypes(),
    "categories": lambda: FRAME.assign(label=FRAME["label"].astype("category")),
    "dataset": lambda: datasets.Dataset.from_list(ROWS),
    "torch format": lambda: datasets.Dataset.from_list(ROWS).with_format("torch"),
    "transform": lambda: datasets.Dataset.from_list(ROWS).with_transform(lambda batch: {"x": batch["id"]}),
    "shuffled twice": lambda: datasets.Dataset.from_list(ROWS[::-1]).select(list(range(24))[::-1]),
    "arrow": lambda: pyarrow.Table.from_pylist(ROWS),
}


@pytest.fixture(scope="module")
def of_file(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Split:
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return load_splits(tokenizer=tokenizer, train_file=str(path), text_columns=("text",)).train


@pytest.mark.parametrize("holder", HOLDERS)
def test_rows_in_memory_are_those_of_a_file(tokenizer: Tokenizer, of_file: Split, holder: str) -> None:
    splits = load_splits(train=HOLDERS[holder](), tokenizer=tokenizer, text_columns=("text",))
    assert splits.labels.names == ("no", "yes")
    assert splits.train.checksum() == of_file.checksum()
    assert load_splits(HOLDERS[holder](), tokenizer=tokenizer).train.checksum() == of_file.checksum()


@pytest.mark.parametrize("column", [numpy.array, torch.tensor, pandas.Series, list], ids=lambda kind: kind.__name__)
def test_numbers_of_any_library_are_classes(tokenizer: Tokenizer, column: Any) -> None:
    splits = load_splits(train={"text": TEXTS, "label": column(NUMBERS)}, tokenizer=tokenizer)
    assert splits.labels.names == ("0", "1") and splits.train.labels is not None
    assert splits.train.labels.tolist() == NUMBERS


def test_scalars_of_libraries_in_rows_are_plain(tokenizer: Tokenizer) -> None:
    for scalar in (numpy.int64, torch.tensor):
        rows = [{"text": numpy.str_(t), "label": scalar(n)} for t, n in zip(TEXTS, NUMBERS, strict=True)]
        assert load_splits(train=rows, tokenizer=tokenizer, text_columns=("text",)).labels.names == ("0", "1")
    scores = [{"text": t, "label": numpy.float32(n + 0.5)} for t, n in zip(TEXTS, NUMBERS, strict=True)]
    assert load_splits(train=scores, tokenizer=tokenizer).labels.names is None


def test_names_of_the_classes_of_a_dataset_are_heeded(tokenizer: Tokenizer) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["z", "a"])})
    data = datasets.Dataset.from_dict({"text": TEXTS, "label": NUMBERS}, features=features)
    splits = load_splits(train=data, tokenizer=tokenizer)
    assert splits.labels.names == ("z", "a") and splits.train.labels is not None
    assert splits.train.labels.tolist() == NUMBERS


def test_all_splits_at_once(tokenizer: Tokenizer) -> None:
    part = datasets.Dataset.from_list(ROWS)
    splits: dict[str, Any] = {"train": part, "validation": part.select(range(9)), "test": part.select(range(5))}
    for given in (datasets.DatasetDict(splits), {name: d.to_list() for name, d in splits.items()}):
        for found in (load_splits(given, tokenizer=tokenizer), load_splits(train=given, tokenizer=tokenizer)):
            assert {name: len(split) for name, split in found.all.items()} == {
                "train": 24,
                "validation": 9,
                "test": 5,
            }
    beside = load_splits(
        train=FRAME, evaluation=ROWS[:9], test=COLUMNS, tokenizer=tokenizer, text_columns=("text",)
    )
    assert {name: len(split) for name, split in beside.all.items()} == {"train": 24, "validation": 9, "test": 24}
    held = load_splits(train=FRAME, tokenizer=tokenizer, eval_fraction=0.25, max_train_samples=9)
    assert {name: len(split) for name, split in held.all.items()} == {"train": 9, "validation": 6}


GAPS: dict[str, tuple[Any, str]] = {
    "no text in a row": (
        [*ROWS[:6], {"text": None, "label": "no"}],
        r"train data, row 7, column 'text': .*NoneType",
    ),
    "no field in a row": ([*ROWS[:6], {"label": "no"}], r"train data, row 7: has no field 'text'; it has label"),
    "NaN in a frame": (
        FRAME.assign(text=FRAME["text"].where(FRAME["id"] != 4)),
        r"train data, row 5, column 'text': .*NoneType",
    ),
    "NA in a frame": (
        FRAME.convert_dtypes().assign(label=FRAME["label"].astype("string").where(FRAME["id"] != 4)),
        r"train data, row 5, column 'label': the label is None",
    ),
    "two columns of one name": (
        pandas.concat([FRAME, FRAME["text"]], axis=1),
        "2 columns are called 'text'; .*df.columns = ",
    ),
    "columns of two lengths": ({"text": TEXTS, "label": [0, 1]}, "unequal length: 'text' has 24, 'label' has 2"),
    "a text for a column": (
        {"text": "abc", "label": [0, 1, 1]},
        "column 'text': expected a list, a value a row, got str",
    ),
    "texts alone": (TEXTS, r"train data, row 1: expected a dict, as \{'text'.*got str"),
    "no rows": ([], "train data: has no rows"),
    "an empty frame": (FRAME[:0], "train data: has no rows"),
    "a stream": (
        datasets.Dataset.from_list(ROWS).to_iterable_dataset(),
        "got IterableDataset, .* pass list\\(rows\\)",
    ),
    "a generator": ((row for row in ROWS), "got generator, which can be read only once: pass list\\(rows\\)"),
    "a path": ("rows.csv", "got the text 'rows.csv'; pass a file as train_file"),
    "a number": (5, "got int; expected a list of dicts, a dict of columns, a pandas DataFrame"),
    "no train": (
        datasets.DatasetDict(test=datasets.Dataset.from_list(ROWS)),
        "have no split 'train'; they have test",
    ),
}


@pytest.mark.parametrize("case", GAPS)
def test_what_is_wrong_in_memory_is_said_with_its_place(tokenizer: Tokenizer, case: str) -> None:
    data, said = GAPS[case]
    with pytest.raises(MinitrainError, match=said):
        load_splits(train=data, tokenizer=tokenizer, text_columns=("text",))


def test_ways_out_of_the_errors_work(tokenizer: Tokenizer) -> None:
    stream = datasets.Dataset.from_list(ROWS).to_iterable_dataset()
    twice = pandas.concat([FRAME, FRAME["id"]], axis=1)  # nobody asks for that column
    for data in (list(stream), twice):
        assert len(load_splits(train=data, tokenizer=tokenizer, text_columns=("text",)).train) == 24


def test_two_sets_of_data_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(MinitrainError, match="a.csv and data in memory are two sets of data: pass one"):
        load_splits(train=ROWS, train_file="a.csv", tokenizer=tokenizer)
    with pytest.raises(MinitrainError, match="the first argument and train"):
        load_splits(FRAME, train=ROWS, tokenizer=tokenizer)
    with pytest.raises(MinitrainError, match="evaluation and test go with train"):
        load_splits(evaluation=ROWS, tokenizer=tokenizer)
    with pytest.raises(MinitrainError, match="evaluation data are given twice"):
        load_splits(train={"train": ROWS, "validation": ROWS}, evaluation=ROWS, tokenizer=tokenizer)


def test_a_run_trains_on_what_is_in_memory(model: Path, tmp_path: Path) -> None:
    flags: dict[str, Any] = {"model": str(model), "max_steps": 2, "text_columns": ("text",)}
    results = train(
        TrainConfig(output_dir=str(tmp_path / "a"), **flags), data={"train": FRAME, "validation": ROWS[:9]}
    )
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[:9]), encoding="utf-8")
    files = {"train_file": str(tmp_path / "t.jsonl"), "eval_file": str(tmp_path / "e.jsonl")}
    assert train(TrainConfig(output_dir=str(tmp_path / "b"), **files, **flags))["results"] == results["results"]
    assert results["dataset"] is None
    with pytest.raises(MinitrainError, match="does not say what it was trained on; pass --dataset or --eval_file"):
        evaluate_run(EvaluateConfig(run=str(tmp_path / "a")))
    (result,) = evaluate_run(EvaluateConfig(run=str(tmp_path / "a"), eval_file=files["eval_file"])).values()
    assert {"examples": 9, **result.values} == results["results"]["validation"]
    with pytest.raises(MinitrainError, match="t.jsonl and data in memory are two sets of data"):
        train(TrainConfig(output_dir=str(tmp_path / "c"), **files, **flags), data=ROWS)


def test_a_held_back_part_of_memory_is_asked_for_as_a_file(model: Path, tmp_path: Path) -> None:
    flags: dict[str, Any] = {"model": str(model), "max_steps": 1, "text_columns": ("text",), "eval_fraction": 0.25}
    train(TrainConfig(output_dir=str(tmp_path / "run"), **flags), data=ROWS)
    with pytest.raises(MinitrainError, match="does not say what it was trained on; pass --dataset or --eval_file"):
        evaluate_run(EvaluateConfig(run=str(tmp_path / "run")))
    way = EvaluateConfig(run=str(tmp_path / "run"), eval_file=str(tmp_path / "run/predictions.jsonl"))
    assert next(iter(evaluate_run(way).values())).examples == 6


# --- Examples and tables for the functions of a loop ---


def test_examples_are_taken_where_a_split_is(model: Path, of_file: Split) -> None:
    classifier, examples = load_classifier(model, 2), [of_file[row] for row in range(len(of_file))]
    assert predict(classifier, examples).equal(predict(classifier, of_file))
    assert (
        evaluate(classifier, examples, metric_for(None, 2)).values
        == evaluate(classifier, of_file, metric_for(None, 2)).values
    )
    losses = []
    for rows in (examples, of_file):
        trained = load_classifier(model, 2)
        torch.manual_seed(0)
        fit(trained, rows, {"validation": rows}, TrainConfig(max_steps=2))
        losses.append(predict(trained, of_file))
    assert losses[0].shape == losses[1].shape and losses[0].isfinite().all()


def test_scores_of_examples_stay_scores(tokenizer: Tokenizer, model: Path) -> None:
    split = tokenize(pandas.DataFrame({"text": TEXTS}), tokenizer, ("text",))
    assert split.labels is None and len(collate([split[0]], 0).input_ids) == 1
    scored = load_splits(
        train=[{"text": t, "label": n + 0.5} for t, n in zip(TEXTS, NUMBERS, strict=True)], tokenizer=tokenizer
    ).train
    examples = [scored[row] for row in range(24)]
    assert evaluate(load_classifier(model, 1), examples, metric_for(None, None)).examples == 24


@pytest.mark.parametrize(("data", "said"), [(TEXTS, "got list of str"), (FRAME, "got DataFrame"), ([], "got list")])
def test_what_is_not_tokenized_is_answered_with_how(model: Path, data: Any, said: str) -> None:
    classifier = load_classifier(model, 2)
    with pytest.raises(
        MinitrainError, match=rf"{said}; tokenizer\(texts\) or tokenize\(rows, tokenizer, \('text',\)\) makes one"
    ):
        predict(classifier, data)
    with pytest.raises(MinitrainError, match=said):
        fit(classifier, data, {}, TrainConfig(eval_strategy="no", max_steps=1))


def test_what_has_no_labels_cannot_be_scored(model: Path, tokenizer: Tokenizer, of_file: Split) -> None:
    with pytest.raises(MinitrainError, match="no labels to score by; predict"):
        evaluate(load_classifier(model, 2), tokenizer(TEXTS), metric_for(None, 2))
    some = [of_file[0], *tokenizer(TEXTS[:2])]
    with pytest.raises(MinitrainError, match="2 of 3 Examples have no label"):
        predict(load_classifier(model, 2), some)
    with pytest.raises(MinitrainError, match="train data: is tokenized already"):
        load_splits(train=some, tokenizer=tokenizer)
