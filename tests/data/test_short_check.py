"""What the header of every run says about its rows, before the first step."""

import shlex
import time
from pathlib import Path
from typing import Any

import pytest
from test_tables import write

from minitrain.config.check_config import CheckConfig
from minitrain.config.data_config import DataConfig
from minitrain.data.check.short import overlap_notes, short_check
from minitrain.data.labels.infer import infer_labels
from minitrain.data.load import load_splits
from minitrain.data.tables.demo import demo_reviews
from minitrain.data.tables.table import Table
from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.run.check import check_data
from minitrain.run.flags import parse


def table(**columns: list[Any]) -> Table:
    return Table(source="rows", columns=columns, class_names={})


TRAIN = table(text=["a", "b", "c", "", "b"], other=["1", "2", "3", "", "9"], label=[0, 1, 0, 0, 1])


@pytest.mark.parametrize(
    ("text", "other", "label", "columns", "shared"),
    [
        (["a", "b", "x"], ["1", "2", "3"], [0, 1, 0], ("text",), 2),
        (["a", "b", "x"], ["1", "8", "3"], [0, 1, 0], ("text", "other"), 1),
        (["a", "b"], ["", ""], [1, 1], ("text",), 1),
        (["a", "b"], ["", ""], ["0", "1"], ("text",), 2),
        (["", "x"], ["", ""], [0, 0], ("text",), 0),
        (["", "x"], ["", ""], [0, 0], ("text", "other"), 0),
        ([None, ["a"]], ["", ""], [0, 0], ("text",), 0),
    ],
)
def test_rows_that_stand_in_both_are_counted(
    text: list[Any], other: list[Any], label: list[Any], columns: tuple[str, ...], shared: int
) -> None:
    notes = overlap_notes(TRAIN, {"validation": table(text=text, other=other, label=label)}, columns, "label")
    expected = f"validation: {shared} of {len(text)} rows stand in the training data too, text and label"
    assert notes == ([expected] if shared else [])


def notes_of(
    tmp_path: Path, train: dict[str, list[Any]], evaluation: dict[str, list[Any]], **flags: Any
) -> list[str]:
    files = {
        "train_file": str(write(tmp_path / "train.csv", train)),
        "eval_file": str(write(tmp_path / "eval.csv", evaluation)),
    }
    return load_splits(**files, **flags, tokenizer=load_tokenizer("demo")).notes


def command_of(notes: list[str]) -> list[str]:
    """The words behind `python scripts/check.py` in the last note."""
    start, end = "python scripts/check.py ", " shows the rows"
    assert notes[-1].startswith(start) and notes[-1].endswith(end)
    return shlex.split(notes[-1].removeprefix(start).removesuffix(end))


def test_a_run_says_so(tmp_path: Path) -> None:
    train = {"text": ["a", "b", "c"], "label": [0, 1, 0]}
    notes = notes_of(tmp_path, train, {"text": ["A ", "x", "c"], "label": [0, 1, 1]})
    assert notes[:-1] == ["validation: 1 of 3 rows stand in the training data too, text and label"]
    config = parse(CheckConfig, "", command_of(notes), positional=("data",))
    found = {each["name"]: each["count"] for each in check_data(config)["findings"]}
    assert found["split_overlap"] == 2 and found["conflicting_labels"] == 2  # of c, whatever its label


def test_texts_with_two_labels_and_rare_classes_are_named(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(300)]
    train = {"body, title": [*texts, "Text 4", "text  5"], "kind": ["x", "y"] * 149 + ["z"] * 2 + ["y", "y"]}
    notes = notes_of(
        tmp_path,
        train,
        {"body, title": ["n"], "kind": ["x"]},
        text_columns=("body, title",),
        label_column="kind",
        label_map={"z": "a=b"},
    )
    assert notes[:-1] == [
        "train: 2 rows share their text with rows of another label",
        "train: very few rows of 'a=b' 2",
    ]
    config = parse(CheckConfig, "", command_of(notes), positional=("data",))
    assert config.text_columns == ("body, title",) and config.label_map == {"z": "a=b"}
    report = check_data(config)
    assert {each["name"] for each in report["findings"]} >= {"conflicting_labels", "rare_class", "duplicates"}


def test_nothing_is_said_of_clean_data_or_by_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = demo_reviews()
    labels, others = infer_labels(tables["train"], "label"), {"test": tables["test"]}
    config = DataConfig(dataset="demo")
    assert short_check(tables["train"], others, ("text",), "label", labels, config) == []
    others = {"test": tables["train"]}
    notes = short_check(tables["train"], others, ("text",), "label", labels, config)
    assert "8566 of 8566" in notes[0] and command_of(notes) == ["--dataset", "demo"]
    monkeypatch.setenv("RANK", "1")
    assert short_check(tables["train"], others, ("text",), "label", labels, config) == []


def test_data_in_memory_have_no_command() -> None:
    rows = [{"text": text, "label": label} for text, label in (("a", 0), ("b", 1), ("a", 1))]
    splits = load_splits(train=rows, tokenizer=load_tokenizer("demo"))
    assert splits.notes == ["train: 2 rows share their text with rows of another label"]


def test_a_million_rows_take_little_time() -> None:
    texts = [f"a text of some words, number {i}" for i in range(1_000_000)]
    train = table(text=texts, label=[0] * len(texts))
    start = time.process_time()
    notes = overlap_notes(
        train, {"test": table(text=[*texts[:5000], *map(str, range(5000))], label=[0] * 10_000)}, ("text",), "label"
    )
    assert "5000 of 10000" in notes[0]
    assert time.process_time() - start < 15  # a second on an idle core; by pairs of rows it would take days
