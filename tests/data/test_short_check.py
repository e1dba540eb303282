"""Rows that a run is trained on and scored on."""

import time
from pathlib import Path
from typing import Any

import pytest
from test_tables import write

from minitrain.data.load import load_splits
from minitrain.data.check.short import overlap_notes
from minitrain.data.tables.table import Table
from minitrain.data.tokenizer.tokenizer import load_tokenizer


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


def test_a_run_says_so(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", {"text": ["a", "b", "c"], "label": [0, 1, 0]})
    evaluation = write(tmp_path / "eval.csv", {"text": ["a", "x", "c"], "label": [0, 1, 1]})
    splits = load_splits(train_file=str(train), eval_file=str(evaluation), tokenizer=load_tokenizer("demo"))
    assert splits.notes == ["validation: 1 of 3 rows stand in the training data too, text and label"]


def test_a_million_rows_take_little_time() -> None:
    texts = [f"a text of some words, number {i}" for i in range(1_000_000)]
    train = table(text=texts, label=[0] * len(texts))
    start = time.process_time()
    notes = overlap_notes(
        train, {"test": table(text=[*texts[:5000], *map(str, range(5000))], label=[0] * 10_000)}, ("text",), "label"
    )
    assert "5000 of 10000" in notes[0]
    assert time.process_time() - start < 1.5
