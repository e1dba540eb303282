"""Which class a label is: never a guess, whatever the format. The oracle is scikit-learn's LabelEncoder."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import numpy
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import LabelEncoder  # type: ignore[import-untyped]

from minitrain.data.labels.ids import Labels, class_ids, display_names, hidden
from minitrain.data.labels.infer import infer_labels
from minitrain.data.labels.values import scores
from minitrain.data.load import load_splits
from minitrain.data.tables.load import read_file
from minitrain.data.tables.table import Table
from minitrain.data.tokenizer.tokenizer import read_tokenizer
from minitrain.errors import MinitrainError

CLASSES = "single_label_classification"


def table(labels: Sequence[Any], names: tuple[str, ...] | None = None, csv: bool = False) -> Table:
    """A table with these labels; `names` as a dataset has them; `csv` for a format where all is text."""
    return Table(
        source="some.csv" if csv else "some.jsonl",
        columns={"text": ["some text"] * len(labels), "label": labels},
        class_names={"label": names} if names else {},
        untyped=csv,
    )


def as_csv(folder: Path, labels: Sequence[Any]) -> Path:
    path = folder / "data.csv"
    pandas.DataFrame({"text": ["x"] * len(labels), "label": labels}).to_csv(path, index=False)
    return path


def as_tsv(folder: Path, labels: Sequence[Any]) -> Path:
    path = folder / "data.tsv"
    pandas.DataFrame({"text": ["x"] * len(labels), "label": labels}).to_csv(path, index=False, sep="\t")
    return path


def as_jsonl(folder: Path, labels: Sequence[Any]) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps({"text": "x", "label": label}) + "\n" for label in labels))
    return path


def as_parquet(folder: Path, labels: Sequence[Any]) -> Path:
    path = folder / "data.parquet"
    datasets.Dataset.from_dict({"text": ["x"] * len(labels), "label": list(labels)}).to_parquet(path)
    return path


FORMATS = [as_csv, as_tsv, as_jsonl, as_parquet]
Writer = Callable[[Path, Sequence[Any]], Path]


def read(write: Writer, folder: Path, labels: Sequence[Any]) -> Table:
    folder.mkdir(exist_ok=True)
    return read_file(write(folder, labels))


def refused(labels: Labels, data: Table) -> str:
    with pytest.raises(MinitrainError) as caught:
        class_ids(data, "label", labels)
    return str(caught.value)


# --- Numbers among names ---


@pytest.mark.parametrize("of_evaluation", FORMATS)
@pytest.mark.parametrize("of_training", FORMATS)
@pytest.mark.parametrize(
    ("train", "later", "unseen"),
    [
        (["1", "2", "3", "n/a"], [1, 3, 2], [0]),
        (["1", "2", "3", "n/a"], [2], [7]),
        (["101", "102", "bar", "foo"], [102, 101], [2]),
        (["1", "2", "3", "n/a"], ["n/a", "1"], ["0"]),
        ([1, 2, 3], ["1", "3"], ["0"]),
        ([0, 3, 46], [46, 0], [1]),
        (["0", "1"], [0, 1], [2]),
        (["bad", "good"], ["good"], [0]),
        (["bad", "good"], ["good"], ["1"]),
        ([True, False], [False, True], [1]),
        ([0, 1], [1], [True]),
    ],
)
def test_a_number_is_a_class_where_training_has_it_and_else_an_error(
    tmp_path: Path,
    of_training: Writer,
    of_evaluation: Writer,
    train: list[Any],
    later: list[Any],
    unseen: list[Any],
) -> None:
    labels = infer_labels(read(of_training, tmp_path / "train", train), "label")
    encoder = LabelEncoder().fit([str(label) for label in train])
    assert labels.names is not None
    found = class_ids(read(of_evaluation, tmp_path / "eval", later), "label", labels)
    assert [labels.names[i] for i in found] == encoder.inverse_transform(
        encoder.transform([*map(str, later)])
    ).tolist()
    with pytest.raises(ValueError, match="unseen labels"):
        encoder.transform([str(label) for label in unseen])
    said = refused(labels, read(of_evaluation, tmp_path / "unseen", [*later[:0], *unseen]))
    assert "row 1, column 'label': the label is " in said and "--label_map" in said and "or an id" not in said


@settings(deadline=None)  # a busy machine is no fault
@given(st.data())
def test_every_label_is_its_own_class_as_for_scikit_learn(data: st.DataObject) -> None:
    pool = st.sampled_from(["0", "1", "2", "10", "n/a", "bad", "good", "Bad", "01", "true", "1x", "１"])
    train = data.draw(st.lists(pool, min_size=2, max_size=12).filter(lambda values: len(set(values)) > 1))
    later = data.draw(st.lists(pool, min_size=1, max_size=6))
    csv = data.draw(st.booleans())
    encoder = LabelEncoder().fit(train)
    labels = infer_labels(table(train, csv=csv), "label")
    assert labels.names is not None and set(labels.names) == set(encoder.classes_)
    if set(later) <= set(train):
        assert [labels.names[i] for i in class_ids(table(later, csv=csv), "label", labels)] == later
    else:
        row = next(i for i, label in enumerate(later, start=1) if label not in train)
        assert f"row {row}, column 'label': the label is '{later[row - 1]}'" in refused(
            labels, table(later, csv=csv)
        )


def test_numbers_for_words_are_an_error_with_the_map_that_would_say_it() -> None:
    words = infer_labels(table(["bad", "good"]), "label")
    said = refused(words, table(["1", "0"], csv=True))
    assert "expected one of 'bad', 'good'; say which is which, as in --label_map 0=bad,1=good" in said
    mapped = infer_labels(table(["bad", "good"]), "label", label_map={"0": "good", "1": "bad"})
    assert class_ids(table(["0", "1", "good"], csv=True), "label", mapped) == [1, 0, 1]
    assert class_ids(table([0, 1]), "label", mapped) == [1, 0]


def test_numbers_are_ids_where_the_training_data_says_so() -> None:
    named = infer_labels(table([0, 1], names=("neg", "pos")), "label")
    head = infer_labels(table([0, 1]), "label", known=("neg", "pos"))
    for labels in (named, head, Labels(names=("LABEL_0", "LABEL_1"), numbers_are_ids=False)):
        assert class_ids(table([1, 0]), "label", labels) == [1, 0]
        assert class_ids(table(["1", "0"], csv=True), "label", labels) == [1, 0]
        assert "or an id from 0 to 1" in refused(labels, table([2]))
    foreign = Labels(names=("neg", "pos"), numbers_are_ids=False)
    assert "--label_map 0=neg,1=pos" in refused(foreign, table([1, 0]))


def test_a_head_of_numbers_is_met_by_name() -> None:
    stars = ("5", "4", "3", "2", "1")
    assert infer_labels(table([1, 5, 2, 3, 4]), "label", known=stars).numbers_are_ids is False
    # 0 to 4 are not the stars 1 to 5: never moved by one.
    assert infer_labels(table([0, 1, 2, 3, 4]), "label", known=stars).names == ("0", "1", "2", "3", "4")


def test_a_number_that_is_a_place_and_another_ones_name_is_an_error() -> None:
    stars = infer_labels(table([0, 1, 2], names=("1", "2", "3")), "label")
    said = refused(stars, table([1, 2]))
    assert "the number 1 is a place in the list of the classes, '1', '2', '3', and one of their names, too" in said
    mapped = replace(stars, label_map={"0": "1", "1": "2"})
    assert class_ids(table([1, 0]), "label", mapped) == [1, 0]


def test_a_split_of_some_classes_more_or_fewer_is_met_by_name() -> None:
    labels = infer_labels(table([0, 1], names=("neg", "pos")), "label")
    assert class_ids(table([0, 0], names=("pos",)), "label", labels) == [1, 1]
    assert class_ids(table([2, 0], names=("pos", "neutral", "neg")), "label", labels) == [0, 1]
    said = refused(labels, table([2, 1], names=("pos", "neutral", "neg")))
    assert "row 2" in said and "it stands for 'neutral' there: leave the row out, or say which class" in said
    assert "--label_map neutral=NAME" in said
    assert "-1 marks a hidden label: leave the row out" in refused(labels, table([0, -1], names=("neg", "pos")))
    said = refused(labels, table([0, 1], names=("Pos", "Neg")))
    assert "as in --label_map Pos=pos,Neg=neg" in said


def test_classes_numbered_in_another_order_are_met_by_name_and_others_are_an_error() -> None:
    labels = infer_labels(table([0, 1], names=("neg", "pos")), "label")
    assert class_ids(table([0, 1], names=("pos", "neg")), "label", labels) == [1, 0]
    said = refused(labels, table([0, 1], names=("bad", "good")))
    assert "numbers do not tell which is which. Say it, as in --label_map bad=neg,good=pos" in said
    mapped = infer_labels(table([0, 1], names=("neg", "pos")), "label", label_map={"bad": "neg", "good": "pos"})
    assert class_ids(table([1, 0], names=("bad", "good")), "label", mapped) == [1, 0]


# --- Blanks and case ---


@pytest.mark.parametrize("csv", [False, True])
@pytest.mark.parametrize("label", ["Bad", " bad", "bad ", "BAD", "b\u0061d\u00a0", "ｂａｄ"])
def test_a_label_that_differs_by_blanks_or_case_is_told_so(label: str, csv: bool) -> None:
    labels = infer_labels(table(["bad", "good"], csv=csv), "label")
    said = refused(labels, table(["good", label, "GOOD"], csv=csv))
    assert "row 2" in said and "it differs from 'bad' by blanks, case or Unicode's form alone: --label_map" in said
    assert "GOOD=good" in said


# --- Booleans and floats ---


@pytest.mark.parametrize("of_evaluation", FORMATS)
@pytest.mark.parametrize("of_training", FORMATS)
def test_booleans_are_two_classes_in_every_format(
    tmp_path: Path, of_training: Writer, of_evaluation: Writer
) -> None:
    labels = infer_labels(read(of_training, tmp_path / "train", [True, False, True]), "label")
    assert (labels.names, labels.positive_label) == (("False", "True"), "True")
    assert class_ids(read(of_evaluation, tmp_path / "eval", [False, True]), "label", labels) == [0, 1]


def test_booleans_meet_words_for_them_and_no_numbers() -> None:
    words = infer_labels(table(["true", "false"], csv=True), "label")
    assert class_ids(table([True, False]), "label", words) == [1, 0]
    assert "--label_map False=0,True=1" in refused(infer_labels(table([0, 1]), "label"), table([True]))
    with pytest.raises(MinitrainError, match=r"row 2, .* the label is 1 \(int\); expected bool as in row 1, True"):
        infer_labels(table([True, 1]), "label")
    assert "expected one of" in refused(Labels(names=("no", "yes")), table([True], names=("no", "yes")))


@pytest.mark.parametrize("write", FORMATS)
def test_whole_floats_are_classes_where_the_user_says_so(tmp_path: Path, write: Writer) -> None:
    data = read(write, tmp_path, [0.0, 1.0, 2.0, 1.0])
    labels = infer_labels(data, "label", CLASSES)
    assert (labels.names, class_ids(data, "label", labels)) == (("0", "1", "2"), [0, 1, 2, 1])
    for later in ([1, 0], [1.0, 0.0], ["1", "0"]):
        assert class_ids(table(later), "label", labels) == [1, 0]
    with pytest.raises(MinitrainError, match="row 1, .*: for classes pass --problem_type single_label_class"):
        infer_labels(data, "label")


@pytest.mark.parametrize("write", FORMATS)
def test_a_row_without_a_label_is_an_error_in_every_format(tmp_path: Path, write: Writer) -> None:
    with pytest.raises(MinitrainError, match=r"row 2, .* the row has no label: leave it out, or fill it in"):
        infer_labels(read(write, tmp_path, [0.0, None, 1.0]), "label", CLASSES)


def test_integers_among_whole_floats_are_classes_where_the_user_says_so() -> None:
    data = table([0, 1.0, 1, 2.0])
    labels = infer_labels(data, "label", CLASSES)
    assert (labels.names, class_ids(data, "label", labels)) == (("0", "1", "2"), [0, 1, 1, 2])
    with pytest.raises(
        MinitrainError, match="row 2, .* for classes pass --problem_type single_label_classification"
    ):
        infer_labels(data, "label")


@pytest.mark.parametrize("csv", [False, True])
def test_a_blank_label_is_missing_and_can_be_named(csv: bool) -> None:
    data = table(["a", "", "b", " "], csv=csv)
    with pytest.raises(MinitrainError, match="row 2, .* the row has no label"):
        infer_labels(data, "label")
    named = infer_labels(data, "label", label_map={"": "none", " ": "none"})
    assert (named.names, class_ids(data, "label", named)) == (("a", "b", "none"), [0, 2, 1, 2])


@pytest.mark.parametrize("value", [1.0, "1.0", " 1"])
def test_a_float_is_the_class_of_its_number_and_no_place(value: Any) -> None:
    csv = isinstance(value, str)
    assert class_ids(table([value], csv=csv), "label", infer_labels(table([0, 1]), "label")) == [1]
    assert "expected one of" in refused(
        Labels(names=("no", "yes")), table([value * 1.0 if not csv else "1.0"], csv=csv)
    )


# --- Negative numbers ---


@pytest.mark.parametrize(("labels", "csv"), [([-1, 1], False), (["-1", "1"], True), ([-1.0, 1.0], False)])
def test_minus_one_is_a_class_by_a_map_or_where_the_user_says_so(labels: list[Any], csv: bool) -> None:
    found = infer_labels(table(labels, csv=csv), "label", CLASSES)
    assert (found.names, found.positive_label, hidden(table([-1]), "label", found)) == (("-1", "1"), "1", False)
    mapped = infer_labels(table(labels, csv=csv), "label", label_map={"-1": "no", "1": "yes"})
    assert (mapped.names, mapped.positive_label) == (("no", "yes"), "yes")
    assert class_ids(table(labels, csv=csv), "label", mapped) == [0, 1]
    if not isinstance(labels[0], float):
        with pytest.raises(MinitrainError, match="--label_map -1=no,1=yes, or pass --problem_type") as caught:
            infer_labels(table(labels, csv=csv), "label")
        assert "GLUE" not in str(caught.value)


# --- Maps ---


@pytest.mark.parametrize(
    ("labels", "pairs", "names", "ids"),
    [
        ([1, 0], {"0": "negative", "1": "positive"}, ("negative", "positive"), [1, 0]),
        ([1, 0], {"0": "positive", "1": "negative"}, ("positive", "negative"), [1, 0]),
        ([2, 1, 0], {"2": "1"}, ("0", "1"), [1, 1, 0]),
        ([10, 9, 2], {"10": "x"}, ("2", "9", "x"), [2, 1, 0]),
        (["bad", "good"], {"bad": "1", "good": "0"}, ("0", "1"), [1, 0]),
        ([" bad", "Bad", "bad", "good"], {" bad": "bad", "Bad": "bad"}, ("bad", "good"), [0, 0, 0, 1]),
        ([True, False], {"true": "yes", "false": "no"}, ("no", "yes"), [1, 0]),
        ([True, False], {"True": "a", "False": "b"}, ("b", "a"), [1, 0]),
        ([0.0, 1.0], {"0": "a", "1.0": "b"}, ("a", "b"), [0, 1]),
    ],
)
@pytest.mark.parametrize("csv", [False, True])
def test_a_map_names_and_joins_classes(
    labels: list[Any], pairs: dict[str, str], names: tuple[str, ...], ids: list[int], csv: bool
) -> None:
    csv = csv and not isinstance(labels[0], bool)  # a CSV file has words for them
    data = table([str(label) for label in labels] if csv else labels, csv=csv)
    found = infer_labels(data, "label", label_map=pairs)
    assert (found.names, class_ids(data, "label", found)) == (names, ids)


def test_a_map_renames_the_classes_of_a_dataset_and_keeps_their_ids() -> None:
    data = table([0, 1, 2], names=("c", "b", "a"))
    joined = infer_labels(data, "label", label_map={"a": "c"})
    assert (joined.names, class_ids(data, "label", joined)) == (("c", "b"), [0, 1, 0])


def test_a_target_that_is_no_class_is_named_with_its_origin() -> None:
    labels = infer_labels(table(["bad", "good"]), "label", label_map={"0": "goood"})
    assert "the label is 'goood' (str); expected one of 'bad', 'good'" in refused(labels, table([0]))
    assert refused(labels, table([0])).endswith("(--label_map made it of 0)")


@pytest.mark.parametrize(("problem_type", "labels"), [("regression", [0, 1]), (None, [0.5, 1.5])])
@pytest.mark.parametrize("option", [{"label_map": {"0": "a"}}, {"positive_label": "a"}])
def test_scores_have_no_classes_to_name(
    problem_type: str | None, labels: list[Any], option: dict[str, Any]
) -> None:
    with pytest.raises(MinitrainError, match=f"--{next(iter(option))} .* scores"):
        infer_labels(table(labels), "label", problem_type, **option)


# --- Values of every type ---


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([numpy.int64(0), numpy.int64(1)], ("0", "1")),
        ([numpy.bool_(True), numpy.bool_(False)], ("False", "True")),
        ([numpy.str_("b"), numpy.str_("a")], ("a", "b")),
        ([torch.tensor(3), torch.tensor(0)], ("0", "3")),
        (numpy.array([2, 0]), ("0", "2")),
    ],
)
def test_scalars_of_numpy_and_torch_are_those_of_python(labels: Any, names: tuple[str, ...]) -> None:
    assert infer_labels(table(labels), "label").names == names


def test_scores_may_be_scalars_of_numpy_and_torch() -> None:
    assert scores(table([numpy.float32(0.5), torch.tensor(2), numpy.float64(1.25)]), "label") == [0.5, 2.0, 1.25]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "leave it out"),
        (float("nan"), "leave it out"),
        ("", """or name it, as in --label_map '""=none'"""),
        (" \t", "leave it out"),
        (pandas.NA, "leave it out"),
        (pandas.NaT, "leave it out"),
        (["x", "y"], "pass --problem_type multi_label_classification"),
        ({"a": 1}, "pass --problem_type multi_label_classification"),
        ((0, [1]), "pass --problem_type multi_label_classification"),
        (numpy.array([0, 1]), "pass --problem_type multi_label_classification"),
        (torch.tensor([0, 1]), "pass --problem_type multi_label_classification"),
        (b"x", "write it as text"),
        (Decimal("1.0"), "write it as text or as a number"),
        (pandas.Timestamp("2020-01-01"), "write it as text or as a number"),
        (10**100, "at most 100 digits"),
        (object, "expected"),
    ],
)
def test_what_is_no_label_is_one_error_with_its_row_and_what_to_do(value: Any, said: str) -> None:
    column = [0, value] if type(value) is int else ["a", value]
    for look in (
        lambda: infer_labels(table(column), "label"),
        lambda: class_ids(table(column), "label", Labels(names=("0", "a"))),
    ):
        with pytest.raises(MinitrainError, match="some.jsonl, row 2, column 'label': the label is ") as caught:
            look()
        assert said in str(caught.value) or "expected one of '0', 'a'" in str(caught.value)


# --- Names twice ---


def test_classes_of_one_name_are_told_apart_and_not_met_by_it() -> None:
    assert display_names(["a", "b", "a"]) == ("a (0)", "b", "a (2)")
    assert display_names(["a", "a", "a (0)"]) == ("a (0) (0)", "a (1)", "a (0)")
    assert display_names([]) == ()
    labels = Labels(names=("a", "a", "b"), numbers_are_ids=True)
    assert class_ids(table([0, 1, 2]), "label", labels) == [0, 1, 2]
    assert class_ids(table(["b"]), "label", labels) == [2]
    assert "the head has 2 classes called 'a'; give each its own name" in refused(labels, table(["a"]))


# --- Whole splits ---


@pytest.mark.parametrize("as_map", ["0=good,1=bad", {"0": "good", "1": "bad"}])
def test_a_map_holds_for_every_split(tmp_path: Path, demo_model: Path, as_map: Any) -> None:
    for name in ("train", "eval", "test"):
        (tmp_path / name).mkdir()
    train = as_csv(tmp_path / "train", ["bad", "good"])
    files = {
        "eval_file": as_jsonl(tmp_path / "eval", [0, 1]),
        "test_file": as_parquet(tmp_path / "test", [1, 0, 0]),
    }
    splits = load_splits(
        tokenizer=read_tokenizer(demo_model),
        train_file=str(train),
        label_map=as_map,
        **{name: str(path) for name, path in files.items()},
    )
    assert splits.labels.names == ("bad", "good")
    found = {name: [split[row].label for row in range(len(split))] for name, split in splits.all.items()}
    assert found == {"train": [0, 1], "validation": [1, 0], "test": [0, 1, 1]}
