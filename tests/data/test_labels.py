"""What labels mean, and what is said of those that mean nothing."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitrain.data.labels.ids import Labels, class_ids, hidden
from minitrain.data.labels.infer import infer_labels
from minitrain.data.labels.values import scores
from minitrain.data.load import load_splits
from minitrain.data.tables.table import Table
from minitrain.data.tokenizer.tokenizer import read_tokenizer
from minitrain.errors import MinitrainError

NAMES = st.text(min_size=1, max_size=5).filter(lambda name: bool(name.strip()))
CLASSES, SCORES = "single_label_classification", "regression"


def table(labels: Sequence[Any], names: tuple[str, ...] | None = None, csv: bool = False) -> Table:
    """A table with these labels; `names` as a dataset has them; `csv` for a format where all is text."""
    return Table(
        source="reviews.csv" if csv else "reviews.jsonl",
        columns={"text": ["some text"] * len(labels), "stars": labels},
        class_names={"stars": names} if names else {},
        untyped=csv,
    )


def ids(
    labels: Sequence[Any],
    names: tuple[str, ...] | None = None,
    csv: bool = False,
    known: tuple[str, ...] | None = None,
) -> tuple[tuple[str, ...] | None, list[int]]:
    """The classes found in a training table, and its rows' ids."""
    data = table(labels, names, csv)
    found = infer_labels(data, "stars", known=known)
    return found.names, class_ids(data, "stars", found)


# --- Classes ---


@pytest.mark.fault(53)
def test_strings_become_classes_in_sorted_order() -> None:
    assert ids(["world", "sports", "world", "business"]) == (("business", "sports", "world"), [2, 1, 2, 0])


def test_integers_with_gaps_become_classes_named_by_them() -> None:
    assert ids([5, 1, 3, 4, 2, 1]) == (("1", "2", "3", "4", "5"), [4, 0, 2, 3, 1, 0])
    assert ids([10, 2, 10]) == (("2", "10"), [1, 0, 1])  # by value, not by spelling
    assert ids([0, 1, 1]) == (("0", "1"), [0, 1, 1])


def test_labels_of_a_csv_file_are_typed_by_what_all_of_them_are() -> None:
    assert ids(["5", "1", "10"], csv=True) == (("1", "5", "10"), [1, 0, 2])
    assert ids(["1", "2", "x"], csv=True) == (("1", "2", "x"), [0, 1, 2])
    assert ids(["no", "yes"], csv=True) == (("no", "yes"), [0, 1])
    assert ids(["True", "False"], csv=True) == (("False", "True"), [1, 0])
    assert infer_labels(table(["1", "2.5"], csv=True), "stars") == Labels(names=None)


def test_codes_with_leading_zeros_in_a_csv_file_are_names() -> None:
    assert ids(["01", "02", "10", "01"], csv=True) == (("01", "02", "10"), [0, 1, 2, 0])
    assert ids(["1_000", "2"], csv=True) == (("1_000", "2"), [0, 1])


@settings(deadline=None)  # a busy machine is no fault
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=20).filter(lambda values: len(set(values)) > 1))
def test_a_csv_file_and_typed_rows_have_the_same_classes(values: list[int]) -> None:
    assert ids([str(value) for value in values], csv=True) == ids(values)


@settings(deadline=None)
@given(st.lists(NAMES, min_size=2, max_size=20).filter(lambda names: len(set(names)) > 1))
def test_every_string_label_is_found_again_by_its_id(values: list[str]) -> None:
    names, numbers = ids(values)
    assert names is not None and [names[number] for number in numbers] == values
    assert list(names) == sorted(set(values))


def test_the_class_names_of_a_dataset_are_taken_with_their_ids() -> None:
    assert ids([1, 0, 1], names=("not_equivalent", "equivalent")) == (("not_equivalent", "equivalent"), [1, 0, 1])
    # Even those that no row has, and numbers as names are ids all the same.
    assert ids([4, 0], names=("1", "2", "3", "4", "5")) == (("1", "2", "3", "4", "5"), [4, 0])


def test_the_order_of_a_trained_head_is_kept() -> None:
    assert ids(["neg", "pos", "neg"], known=("pos", "neg")) == (("pos", "neg"), [1, 0, 1])
    assert ids([0, 1, 1], known=("pos", "neg")) == (("pos", "neg"), [0, 1, 1])
    assert ids([1, 5, 2, 3, 4], known=("5", "4", "3", "2", "1")) == (("5", "4", "3", "2", "1"), [4, 0, 3, 2, 1])
    # A dataset that numbers the same classes in another order: names count, not numbers.
    assert ids([0, 1, 1], names=("neg", "pos"), known=("pos", "neg")) == (("pos", "neg"), [1, 0, 0])


def test_a_trained_head_with_other_classes_does_not_count() -> None:
    assert ids(["a", "b"], known=("pos", "neg")) == (("a", "b"), [0, 1])
    assert ids([0, 1, 2], known=("pos", "neg")) == (("0", "1", "2"), [0, 1, 2])
    assert ids([0, 1], names=("neg", "pos"), known=("LABEL_0", "LABEL_1")) == (("neg", "pos"), [0, 1])


def test_a_split_numbered_in_another_order_is_scored_by_name() -> None:
    trained = Labels(names=("negative", "positive"))
    assert class_ids(table([0, 1, 1], names=("positive", "negative")), "stars", trained) == [1, 0, 0]
    unnamed = Labels(names=("LABEL_0", "LABEL_1"))
    assert class_ids(table([0, 1, 1], names=("bad", "good")), "stars", unnamed) == [0, 1, 1]
    with pytest.raises(
        MinitrainError, match="its classes are 'bad', 'good', those of the model 'negative', 'positive'"
    ):
        class_ids(table([0, 1, 1], names=("bad", "good")), "stars", trained)


def test_f1_is_about_the_class_that_the_data_numbers_1() -> None:
    kept = infer_labels(table([0, 1, 1], names=("no", "yes")), "stars", known=("yes", "no"))
    assert kept == Labels(names=("yes", "no"), positive=0)
    named = Labels(names=("no", "yes"), positive=1, numbers_are_ids=True)
    assert infer_labels(table([0, 1, 1], names=("no", "yes")), "stars") == named
    assert infer_labels(table([0, 1, 1]), "stars", known=("1", "0")).positive_label == "1"


def test_a_later_split_may_say_the_name_or_the_id() -> None:
    trained = Labels(names=("negative", "positive"), numbers_are_ids=True)
    for labels, csv in ((["positive", "negative"], False), ([1, 0], False), (["1", "0"], True)):
        assert class_ids(table(labels, csv=csv), "stars", trained) == [1, 0]
    stars = Labels(names=("1", "2", "3", "4", "5"))
    for labels, csv in (([5, 1], False), (["5", "1"], False), (["5", "1"], True)):
        assert class_ids(table(labels, csv=csv), "stars", stars) == [4, 0]


@pytest.mark.fault(53)
@pytest.mark.parametrize(
    ("labels", "row", "value"),
    [
        ([0, 1, -1], 3, "-1 (int)"),
        ([0, -100, 1], 2, "-100 (int)"),
        ([0, 1, True], 3, "True (bool)"),
        ([0, 1, 1.0], 3, "1.0 (float)"),
        ([0, 1, 0.5], 3, "0.5 (float)"),
        ([0.5, 1.5, 1], 3, "1 (int)"),
        ([0, 1, "1"], 3, "'1' (str)"),
        (["a", "b", 1], 3, "1 (int)"),
        (["a", "b", ""], 3, "'' (str)"),
        ([0, None, 1], 2, "None (NoneType)"),
        ([None, 0, 1], 1, "None (NoneType)"),
        (["a", None], 2, "None (NoneType)"),
        (["a", "\ud800b"], 2, r"'\ud800b' (str)"),
        ([[0], [1]], 1, "[0] (list)"),
        ([b"a", b"b"], 1, "b'a' (bytes)"),
    ],
)
def test_a_label_that_is_none_is_an_error_with_its_row(labels: list[Any], row: int, value: str) -> None:
    with pytest.raises(MinitrainError) as caught:
        infer_labels(table(labels), "stars")
    assert f"reviews.jsonl, row {row}, column 'stars': the label is {value}; expected " in str(caught.value)


def test_integers_among_fractions_are_told_the_flag_for_scores() -> None:
    for labels in ([0, 1, 0.5], [0.5, 1]):
        with pytest.raises(MinitrainError, match="for scores pass --problem_type regression"):
            infer_labels(table(labels), "stars")
    with pytest.raises(MinitrainError) as caught:
        infer_labels(table([0, "x"]), "stars")
    assert "regression" not in str(caught.value)


@pytest.mark.parametrize(("labels", "row", "value"), [(["0", "1", "-1"], 3, "-1 (int)"), (["1", "", "0"], 2, "''")])
def test_a_csv_file_has_the_same_errors(labels: list[str], row: int, value: str) -> None:
    with pytest.raises(MinitrainError) as caught:
        infer_labels(table(labels, csv=True), "stars")
    assert f"reviews.csv, row {row}, column 'stars': the label is {value}" in str(caught.value)


@pytest.mark.parametrize("label", [-1, -100, 2, 10**30, 1.0, True, None, "", "2", "Yes", float("nan")])
@pytest.mark.parametrize("names", [None, ("no", "yes")])
def test_a_label_that_training_does_not_have_is_an_error_with_its_row(
    label: Any, names: tuple[str, ...] | None
) -> None:
    with pytest.raises(MinitrainError) as caught:
        class_ids(table([0, 1, label], names=names), "stars", Labels(names=("no", "yes"), numbers_are_ids=True))
    assert "reviews.jsonl, row 3, column 'stars'" in str(caught.value)
    assert "expected one of 'no', 'yes', or an id from 0 to 1" in str(caught.value)


def test_stars_outside_of_those_trained_on_are_an_error_though_they_would_be_ids() -> None:
    with pytest.raises(MinitrainError, match=r"row 2, .* the label is 0 \(int\); expected one of '1', '2', '3'"):
        class_ids(table([1, 0]), "stars", Labels(names=("1", "2", "3")))


@pytest.mark.fault(54)
@pytest.mark.parametrize("labels", [[0, 0, 0], [7], ["a", "a"]])
def test_a_single_class_is_an_error_that_lists_the_columns(labels: list[Any]) -> None:
    with pytest.raises(MinitrainError) as caught:
        infer_labels(table(labels), "stars")
    assert f"every label is {str(labels[0])!r}; a classifier needs two classes" in str(caught.value)
    assert "The columns are text, stars" in str(caught.value)
    with pytest.raises(MinitrainError, match="every label is 'yes'"):
        infer_labels(table([1, 1], names=("no", "yes")), "stars")


@pytest.mark.fault(54)
def test_a_missing_column_lists_those_there_are() -> None:
    for problem_type in (None, CLASSES):
        with pytest.raises(
            MinitrainError,
            match=r"reviews\.jsonl: has no column 'label'; it has text, stars; --label_column names",
        ):
            infer_labels(table([0, 1]), "label", problem_type)
    with pytest.raises(MinitrainError, match="has no column 'label'; it has text, stars"):
        scores(table([0.5]), "label")


def test_no_rows_are_an_error() -> None:
    with pytest.raises(MinitrainError, match=r"reviews\.jsonl: has no rows"):
        infer_labels(table([]), "stars")


# --- Scores ---


def test_fractions_are_scores() -> None:
    found = infer_labels(table([3.8, 5.0, 0.0]), "stars")
    assert (found.names, found.problem_type, found.num_labels) == (None, SCORES, 1)
    assert scores(table([3.8, 5.0, 0.0]), "stars") == [3.8, 5.0, 0.0]
    assert scores(table(["3.8", "5", "1e-3"], csv=True), "stars") == [3.8, 5.0, 0.001]


def test_of_integers_and_whole_floats_in_a_csv_file_the_first_float_is_named() -> None:
    with pytest.raises(MinitrainError, match=r"row 3, .* the label is 1\.0; .* pass --problem_type regression"):
        infer_labels(table(["0", "1", "1.0"], csv=True), "stars")


@pytest.mark.parametrize("csv", [False, True])
def test_whole_floats_ask_whether_they_are_scores(csv: bool) -> None:
    labels: list[Any] = ["1.0", "2.0"] if csv else [1.0, 2.0]
    with pytest.raises(MinitrainError, match=r"row 1, .* the label is 1\.0; .* pass --problem_type regression"):
        infer_labels(table(labels, csv=csv), "stars")
    assert infer_labels(table(labels, csv=csv), "stars", SCORES) == Labels(names=None)
    assert scores(table(labels, csv=csv), "stars") == [1.0, 2.0]


def test_integers_are_scores_where_the_user_says_so() -> None:
    assert infer_labels(table([1, 2, -3]), "stars", SCORES).problem_type == SCORES
    assert scores(table([1, 2, -3]), "stars") == [1.0, 2.0, -3.0]
    assert scores(table(["1", "2", "-3"], csv=True), "stars") == [1.0, 2.0, -3.0]


def test_fractions_are_no_classes_though_the_user_says_so() -> None:
    with pytest.raises(
        MinitrainError,
        match=r"row 2, column 'stars': the label is 0\.5 .* for scores pass --problem_type regression",
    ):
        infer_labels(table([1.0, 0.5]), "stars", CLASSES)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, 1e39, 10**400, None, "2.5", True, b"1"])
def test_what_is_no_finite_number_is_no_score(score: Any) -> None:
    with pytest.raises(MinitrainError, match=r"reviews\.jsonl, row 2, column 'stars': .* expected a finite number"):
        scores(table([0.5, score]), "stars")


@pytest.mark.parametrize("score", ["nan", "inf", "-Infinity", "1e39", "-1e39", "", "2,5", "high"])
def test_what_is_no_finite_number_in_a_csv_file_is_no_score(score: str) -> None:
    with pytest.raises(MinitrainError, match=r"reviews\.csv, row 2, column 'stars': .* expected a finite number"):
        scores(table(["0.5", score], csv=True), "stars")


# --- Whole files ---


def jsonl(path: Path, labels: Sequence[Any]) -> str:
    path.write_text("".join(json.dumps({"text": f"text {i}", "label": x}) + "\n" for i, x in enumerate(labels)))
    return str(path)


@pytest.mark.fault(53)
def test_a_label_in_evaluation_that_training_lacks_is_an_error_with_its_row(
    tmp_path: Path, demo_model: Path
) -> None:
    train, other = jsonl(tmp_path / "train.jsonl", ["a", "b"]), jsonl(tmp_path / "other.jsonl", ["b", "a", "c"])
    tokenizer = read_tokenizer(demo_model)
    for flag in ("eval_file", "test_file"):
        with pytest.raises(MinitrainError) as caught:
            load_splits(tokenizer=tokenizer, train_file=train, **{flag: other})  # type: ignore[arg-type]
        expected = f"{other}, row 3, column 'label': the label is 'c' (str); expected one of 'a', 'b'"
        assert expected in str(caught.value)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_hidden_test_labels_are_noted_and_not_scored(tmp_path: Path, demo_model: Path, kind: str) -> None:
    if kind == "csv":
        train, test = tmp_path / "train.csv", tmp_path / "test.csv"
        train.write_text("text,label\nx,0\ny,1\n")
        test.write_text("text,label\nx,-1\ny,-1\n")
    else:
        jsonl(train := tmp_path / "train.jsonl", [0, 1])
        jsonl(test := tmp_path / "test.jsonl", [-1, -1])
    splits = load_splits(
        tokenizer=read_tokenizer(demo_model), train_file=str(train), eval_file=str(train), test_file=str(test)
    )
    assert splits.test == {} and list(splits.evaluation) == ["validation"]
    assert "test: labels are hidden, not scored" in splits.notes


def test_one_hidden_label_among_real_ones_is_an_error(tmp_path: Path, demo_model: Path) -> None:
    assert not hidden(table([-1, 0]), "stars") and hidden(table([-1, -1]), "stars")
    train, test = jsonl(tmp_path / "train.jsonl", [0, 1]), jsonl(tmp_path / "test.jsonl", [0, -1])
    with pytest.raises(MinitrainError, match=r"test\.jsonl, row 2, column 'label': the label is -1 \(int\)"):
        load_splits(tokenizer=read_tokenizer(demo_model), train_file=train, test_file=test)


def test_a_test_split_without_the_column_counts_as_hidden() -> None:
    assert hidden(table([0, 1]), "label")


def test_a_table_without_the_label_column_says_so_though_no_text_column_is_plain(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,warm,cold\na text,0,1\nanother,1,0\n")
    with pytest.raises(MinitrainError, match="has no column 'label'; it has .*; pass --text_columns a or a,b"):
        load_splits(tokenizer=None, train_file=str(tmp_path / "a.csv"))  # type: ignore[arg-type]


def test_columns_that_are_not_named_are_asked_for(tmp_path: Path, demo_model: Path) -> None:
    (tmp_path / "a.csv").write_text("title,body,topic\na,b,x\nc,d,y\n")
    (tmp_path / "a.jsonl").write_text('{"text": {"body": "a"}, "label": 1}\n{"text": {"body": "b"}, "label": 0}\n')

    def said(file: str, **flags: Any) -> str:
        with pytest.raises(MinitrainError) as error:
            load_splits(tokenizer=read_tokenizer(demo_model), train_file=str(tmp_path / file), **flags)
        return str(error.value)

    has = "it has title, body, topic; "
    assert f"has no column 'label'; {has}--label_column names" in said("a.csv", text_columns=("title",))
    assert f"has no column 'topik'; {has}did you mean 'topic'?; pass --text" in said("a.csv", label_column="topik")
    assert "name a field inside, as text.NAME, or convert" in said("a.jsonl", text_columns=("text",))
