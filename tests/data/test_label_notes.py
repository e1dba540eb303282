"""What a run says of its labels unasked, and that it says nothing where nothing is odd."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from minitrain.config.label_map import read_label_map
from minitrain.data.labels.ids import Labels
from minitrain.data.labels.infer import infer_labels
from minitrain.data.labels.notes import in_table, label_notes, plain
from minitrain.data.load import load_splits
from minitrain.data.tables.table import Table
from minitrain.data.tokenizer.tokenizer import read_tokenizer


def table(labels: Sequence[Any], names: tuple[str, ...] | None = None, csv: bool = False) -> Table:
    """A table with these labels; `names` as a dataset has them; `csv` for a format where all is text."""
    class_names = {"label": names} if names else {}
    return Table(source="x", columns={"label": labels}, class_names=class_names, untyped=csv)


def notes(train: Table, evaluation: Table | None = None, **options: Any) -> list[str]:
    """What is said of a training table, and of one that is evaluated on."""
    tables = {"train": train} | ({} if evaluation is None else {"validation": evaluation})
    return label_notes(tables, "label", infer_labels(train, "label", **options))


# --- Which class F1 is of ---


@pytest.mark.parametrize("csv", [False, True])
def test_of_two_words_it_is_said_which_f1_is_of(csv: bool) -> None:
    words = table(["legit", "fraud"], csv=csv)
    said = "f1 is of 'legit', the second by the alphabet; --positive_label fraud makes it the other's"
    assert notes(words) == [said]
    assert notes(words, positive_label="fraud") == notes(words, positive_label="legit") == []
    assert infer_labels(words, "label", positive_label="fraud").positive_label == "fraud"
    assert infer_labels(table([0, 1]), "label", positive_label=0).positive_label == "0"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("train", "options"),
    [
        (table([0, 1]), {}),
        (table([True, False]), {}),
        (table([1.0, 0.0]), {"problem_type": "single_label_classification"}),
        (table(["0", "1"], csv=True), {"label_map": {"0": "b", "1": "a"}}),
        (table([0, 1], names=("b", "a")), {}),
        (table(["a", "b"]), {"known": ("b", "a")}),
        (table(["a", "b", "c"]), {}),
        (table([0.5, 1.5]), {}),
    ],
)
def test_where_the_data_numbers_its_classes_nothing_is_said(train: Table, options: dict[str, Any]) -> None:
    assert notes(train, **options) == []


# --- Numbers ---


def test_numbers_that_are_read_as_ids_of_words_are_said() -> None:
    said = ": 0 is 'neg', 1 is 'pos' (--label_map reads them otherwise)"
    assert notes(table([1, 0]), known=("neg", "pos")) == [f"numbers in train are read as ids{said}"]
    named = table([1, 0], names=("neg", "pos"))
    assert notes(named, table(["0", "1"], csv=True)) == [f"numbers in validation are read as ids{said}"]
    assert notes(named, named) == notes(named, table(["neg", "pos"])) == []
    assert notes(named, table([-1, -1])) == []


# --- Classes without rows, alike, too many, joined ---


def test_a_class_without_a_training_row_is_said() -> None:
    named = table([0, 2, 0], names=("a", "b", "c"))
    assert notes(named) == ["no training row has the label 'b', which the model cannot learn"]


def test_names_that_differ_by_blanks_or_case_are_counted_and_can_be_joined() -> None:
    labels = [" bad", "Bad", "bad", "bad", "good", "good "]
    first, second = notes(table(labels))
    assert "alone: ' bad' 1, 'Bad' 1, 'bad' 2; --label_map '\" bad\"=bad,Bad=bad' joins them" in first
    assert "alone: 'good' 1, 'good ' 1; --label_map '\"good \"=good' joins them" in second
    advised = read_label_map('" bad"=bad,Bad=bad,"good "=good')
    assert infer_labels(table(labels), "label", label_map=advised).names == ("bad", "good")


def test_ids_and_texts_given_for_labels_are_said() -> None:
    (ids,) = notes(table([f"id{i}" for i in range(2000)]))
    assert ids == "2000 classes in 2000 rows: does 'label' number the rows? --label_column names another"
    (texts,) = notes(table(["x " * 60, "y " * 70, "z"]))
    assert texts == "labels have up to 140 characters: is 'label' a column of texts? --label_column names another"
    assert notes(table([f"class {i % 150}" for i in range(600)])) == []


@pytest.mark.parametrize("as_text", [False, True])
def test_many_numbers_that_may_be_scores_are_said(as_text: bool) -> None:
    prices = [120 + i % 100 for i in range(500)]
    (said,) = notes(table([str(price) for price in prices] if as_text else prices))
    assert said.startswith("100 classes in 500 rows: are the numbers in 'label' scores? --problem_type regression")
    assert infer_labels(table(prices), "label", problem_type="regression").names is None
    assert notes(table([i % 100 for i in range(2000)])) == []


def test_one_name_of_several_classes_of_a_head_is_nothing_to_be_joined() -> None:
    head = Labels(names=("x", "x", "y"), numbers_are_ids=True)
    (said,) = label_notes({"train": table([0, 1, 2])}, "label", head)
    assert said.startswith("numbers in train are read as ids: 0 is 'x', 1 is 'x', 2 is 'y'")


@pytest.mark.parametrize(
    ("labels", "joined"),
    [
        (["x|y", "x"], "x|y"),
        (["x;y", "x", "z"], "x;y"),
        (["x,y", "x", "y"], "x,y"),
        (["a|b", "b|c", "a|c", "a|b|c"], "a|b"),
        (["Smith, John", "Doe, Jane", "Roe, Rick"], None),
        (["news, world", "news"], None),
        (["shop|phones|new", "shop|phones|used", "home|garden"], None),
        (["a|", "a", "|"], None),
        (["Q&A", "Q", "A"], None),
    ],
)
def test_names_that_may_be_several_labels_are_said(labels: list[str], joined: str | None) -> None:
    found = [note for note in notes(table(labels)) if "several labels in one" in note]
    assert [note.split(" may be")[0] for note in found] == ([] if joined is None else [f"'{joined}'"])


# --- Names at a terminal ---


def test_names_cannot_move_the_cursor_and_are_short() -> None:
    assert plain("a\x1b[31m\n\u202eb") == "a\\x1b[31m\\n\\u202eb"
    assert plain("größe 中 😀") == "größe 中 😀"
    assert len(plain("x" * 1000)) == 40 and plain("x" * 40) == "x" * 40
    assert (in_table(" a"), in_table("a b")) == ("' a'", "a b")


# --- A whole run's data ---


def test_notes_stand_with_the_splits(tmp_path: Path, demo_model: Path) -> None:
    file = tmp_path / "train.csv"
    file.write_text("text,label\n" + "a text,legit\na text,fraud\n" * 8)
    options: dict[str, Any] = {"train_file": str(file), "eval_fraction": 0.25}
    splits = load_splits(tokenizer=read_tokenizer(demo_model), **options)
    assert any("f1 is of 'legit'" in note for note in splits.notes)
    chosen = load_splits(tokenizer=read_tokenizer(demo_model), **options, positive_label="fraud")
    assert chosen.labels == Labels(names=("fraud", "legit"), positive=0)
    assert not any("f1 is of" in note for note in chosen.notes)
