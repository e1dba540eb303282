"""Several labels a text: the forms in which a table has them, and what is refused with its row."""

import math
from collections.abc import Sequence
from typing import Any

import datasets
import numpy
import pandas
import pytest
import torch

from minitrain.data.batch import collate
from minitrain.data.examples import as_split
from minitrain.data.labels.ids import Labels
from minitrain.data.labels.infer import infer_labels
from minitrain.data.labels.label_columns import with_label_column
from minitrain.data.labels.lists import listed_labels
from minitrain.data.labels.multi import label_sets
from minitrain.data.labels.notes import label_notes
from minitrain.data.labels.values import check_label_map
from minitrain.data.load import load_splits
from minitrain.data.tables.in_memory import table_in_memory
from minitrain.data.tables.table import Table
from minitrain.data.tokenizer.tokenizer import Example, Tokenizer
from minitrain.errors import MinitrainError

MULTI = "multi_label_classification"
ROWS: list[list[str]] = [["toxic"], [], ["insult", "toxic"], ["insult"], ["threat"]]
NAMES = ("insult", "threat", "toxic")
SETS = [(2,), (), (0, 2), (0,), (1,)]
VECTORS = [[int(name in row) for name in NAMES] for row in ROWS]


def table(labels: Sequence[Any], names: tuple[str, ...] = (), csv: bool = False) -> Table:
    return Table(
        source="comments.csv" if csv else "comments.jsonl",
        columns={"text": ["some text"] * len(labels), "tags": list(labels)},
        class_names={"tags": names} if names else {},
        untyped=csv,
    )


def read(rows: Table, problem: str | None = None, **options: Any) -> tuple[tuple[str, ...] | None, list[Any]]:
    known = options.pop("known", None)
    labels = infer_labels(rows, "tags", problem, known, **options)
    assert labels.multi_label and labels.problem_type == MULTI and labels.num_labels == len(labels.names or ())
    return labels.names, label_sets(rows, "tags", labels)


FORMS: dict[str, tuple[Table, dict[str, Any]]] = {
    "lists": (table(ROWS), {}),
    "tuples": (table([tuple(row) for row in ROWS]), {}),
    "sets": (table([set(row) for row in ROWS]), {}),
    "arrays": (table([numpy.array(row, dtype=object) for row in ROWS]), {}),
    "a name twice": (table([row * 2 for row in ROWS]), {}),
    "a text": (table([",".join(row) for row in ROWS], csv=True), {"separator": ","}),
    "a text with blanks and a last separator": (table([" ; ".join(row) + ";" for row in ROWS]), {"separator": ";"}),
    "a long separator": (table([" || ".join(row) for row in ROWS]), {"separator": "||"}),
    "texts and lists": (table([*map(",".join, ROWS[:3]), *ROWS[3:]]), {"separator": ","}),
    "lists as text of Python": (table(list(map(str, ROWS)), csv=True), {"problem": MULTI}),
    "numbers with names": (table([[NAMES.index(n) for n in row] for row in ROWS], NAMES), {}),
    "vectors, named": (table(VECTORS), {"problem": MULTI, "label_map": dict(zip("012", NAMES, strict=True))}),
    "vectors of floats and a trained head": (
        table([list(map(float, row)) for row in VECTORS]),
        {"problem": MULTI, "known": NAMES},
    ),
    "vectors of bools": (
        table([numpy.array(row, dtype=bool) for row in VECTORS]),
        {"problem": MULTI, "known": NAMES},
    ),
    "vectors as text": (
        table([",".join(map(str, row)) for row in VECTORS], csv=True),
        {"separator": ",", "known": NAMES},
    ),
    "vectors as numpy writes them": (
        table([str(numpy.array(row)) for row in VECTORS], csv=True),
        {"problem": MULTI, "known": NAMES},
    ),
    "names as numpy writes them": (
        table([str(numpy.array(row, dtype=object)) for row in ROWS], csv=True),
        {"problem": MULTI},
    ),
    "bools as numpy writes them": (
        table([str(numpy.array(row, dtype=bool)) for row in VECTORS], csv=True),
        {"problem": MULTI, "known": NAMES},
    ),
    "ids, named": (
        table([[(7, 8, 9)[NAMES.index(n)] for n in row] for row in ROWS]),
        {"problem": MULTI, "label_map": {"7": "insult", "8": "threat", "9": "toxic"}},
    ),
    "other names, mapped": (
        table([[name.upper() for name in row] for row in ROWS]),
        {"label_map": {name.upper(): name for name in NAMES}},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_classes_and_rows(form: str) -> None:
    rows, options = FORMS[form]
    assert read(rows, **options) == (NAMES, SETS)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("['it''s' \n 'a, b']", ["it", "s", "a, b"]),
        ("""['a', "it's 'x' y"]""", ["a", "it's 'x' y"]),
        ("['a' 'b', 'c']", None),
        ("['a' ...  'c']", None),
        ("['a' 'b' None]", None),
        ("['a' 'b' 3]", None),
    ],
)
def test_labels_side_by_side_are_not_joined(text: str, labels: list[str] | None) -> None:
    assert listed_labels(text, untyped=True) == labels


def test_columns_of_0_and_1_keep_their_order() -> None:
    order = ("toxic", "insult", "threat")
    for spelling in ((0, 1), (0.0, 1.0), (False, True), ("0", "1"), ("0.0", "1.0"), ("false", "True")):
        csv = isinstance(spelling[0], str)
        columns = {name: [spelling[name in row] for row in ROWS] for name in order}
        rows = Table(source="a.csv", columns=columns, class_names={}, untyped=csv)
        added = with_label_column(rows, order)
        labels = infer_labels(added, "toxic + insult + threat")
        assert (labels.names, labels.multi_label) == (order, True)
        assert label_sets(added, "toxic + insult + threat", labels) == [(0,), (), (0, 1), (1,), (2,)]
        assert with_label_column(added, order) is added


def test_the_lists_of_a_dataset_keep_its_names_and_order(tokenizer: Tokenizer) -> None:
    order = ["toxic", "insult", "threat", "never"]
    feature = datasets.Sequence(datasets.ClassLabel(names=order))
    data = datasets.Dataset.from_dict(
        {"text": ["a film"] * 5, "label": [[order.index(name) for name in row] for row in ROWS]},
        features=datasets.Features({"text": datasets.Value("string"), "label": feature}),
    )
    splits = load_splits(data, tokenizer=tokenizer)
    assert splits.labels.names == tuple(order) and splits.labels.multi_label
    assert splits.train.labels is not None and splits.train.labels.shape == (5, 4)
    assert splits.train.labels.sum(dim=0).tolist() == [2.0, 2.0, 1.0, 0.0]
    assert any("no training row has the label 'never'" in note for note in splits.notes)


def test_a_trained_heads_order_wins_if_it_has_the_names() -> None:
    assert read(table(ROWS), known=("toxic", "insult", "threat"))[0] == ("toxic", "insult", "threat")
    assert read(table(ROWS), known=("toxic", "more", "insult", "threat"))[0] == (
        "toxic",
        "more",
        "insult",
        "threat",
    )
    assert read(table(ROWS), known=("a", "b", "c"))[0] == NAMES
    assert read(table(VECTORS), MULTI)[0] == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert read(table([["10"], ["9"]]))[0] == ("9", "10")


def test_what_is_not_clearly_several_labels_is_asked_for() -> None:
    for labels in (VECTORS, [[3, 17], [4]], [[], []]):
        with pytest.raises(MinitrainError, match="row 1, .* pass --problem_type multi_label_classification"):
            infer_labels(table(labels), "tags")
    joined = infer_labels(table(["a,b", "a", "b", "a,c", "c"], csv=True), "tags")
    assert not joined.multi_label
    (said,) = label_notes({"train": table(["a;b", "a", "b"], csv=True)}, "tags", Labels(names=("a", "a;b", "b")))
    assert said.endswith("--label_separator ';' trains with several a text")
    written = table(["['a']", "['b']", "[]", "['a', 'b']"], csv=True)
    (said,) = label_notes({"train": written}, "tags", infer_labels(written, "tags"))
    assert said.endswith("--problem_type multi_label_classification reads such texts as lists")


HOSTILE: list[tuple[Any, str]] = [
    (None, r"the labels are None .*; leave the row out, or write an empty list"),
    (math.nan, r"the labels are nan .*leave the row out"),
    ("toxic", r"the labels are 'toxic' \(str\); write a list of names, or pass --label_separator"),
    (["toxic", None], r"the labels hold None \(NoneType\); expected names of labels"),
    (["toxic", math.nan], r"the labels hold nan \(float\)"),
    ([["toxic"]], r"the labels hold \['toxic'\] \(list\)"),
    ([numpy.array(["toxic", "a"])], r"the labels hold array\("),
    (["toxic", " "], r"the labels hold ' ' \(str\)"),
    (["toxic", 1], r"the labels hold"),
    ([b"toxic"], r"the labels hold b'toxic' \(bytes\)"),
    (["\ud800"], r"the labels hold '\\ud800' \(str\)"),
    ({"toxic": 1, "insult": 0}, r"the labels are .*--label_columns tags\.toxic,tags\.insult"),
    (7, r"the labels are 7 \(int\); .* leave out --problem_type"),
    (numpy.zeros((2, 2)), r"the labels are array"),
]


@pytest.mark.parametrize(("value", "said"), HOSTILE, ids=[str(value) for value, _ in HOSTILE])
def test_what_lists_no_labels_is_an_error_with_its_row(value: Any, said: str) -> None:
    with pytest.raises(MinitrainError, match=rf"comments\.jsonl, row 4, column 'tags': {said}"):
        infer_labels(table([["toxic"], ["a"], [], value]), "tags", MULTI)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([[0, 1], [1, 0, 1]], r"row 2, .* hold 3 values; expected 2 values, as in the first row, or none"),
        ([[0, 1], [1, 2]], r"row 2, .* hold 2 \(int\); expected 0 or 1 .* --label_map 2=NAME"),
        ([[0, 1], [0.5, 1]], r"row 2, .* hold 0\.5 \(float\)"),
        ([[0, 1], ["a", "b"]], r"row 2, .* hold 'a' \(str\)"),
        ([[0, 1], [math.nan, 1]], r"row 2, .* hold nan"),
    ],
)
def test_rows_of_numbers_are_0_and_1_for_each_class(rows: list[Any], said: str) -> None:
    with pytest.raises(MinitrainError, match=said):
        infer_labels(table(rows), "tags", MULTI)


def test_ids_beyond_the_names_and_rows_that_teach_nothing_are_errors() -> None:
    with pytest.raises(MinitrainError, match=r"row 2, .* hold the number 3; expected an id from 0 to 2"):
        infer_labels(table([[0], [3]], NAMES), "tags")
    with pytest.raises(MinitrainError, match="every row has 'a', 'b', which leaves nothing to learn"):
        infer_labels(table([["a", "b"], ["b", "a"]]), "tags")
    with pytest.raises(MinitrainError, match="no row has a label; the columns are text, tags"):
        infer_labels(table([[], []]), "tags", MULTI)
    with pytest.raises(MinitrainError, match="--positive_label a: .* these have several: leave it out"):
        infer_labels(table([["a"], ["b"]]), "tags", positive_label="a")
    with pytest.raises(
        MinitrainError, match="--label_map x=y: no label of column 'tags' is called 'x'; .* 'insult'"
    ):
        check_label_map([table(ROWS)], "tags", {"x": "y"})
    check_label_map([table(["a,b"])], "tags", {"b": "y"}, ",")
    check_label_map([table(VECTORS)], "tags", {"LABEL_2": "y"})


def test_a_label_that_the_training_data_lacks_is_named_with_the_ways_out() -> None:
    labels = infer_labels(table(ROWS), "tags")
    for extra, said in (
        (
            "new",
            r"the label 'new' is none of 'insult', .* the training data has no such label: .* --label_map new=NAME",
        ),
        (
            " Toxic",
            "the label ' Toxic' is none of .* differs .* --label_map '\" Toxic\"=toxic'",
        ),
    ):
        with pytest.raises(MinitrainError, match=rf"row 6, column 'tags': {said}"):
            label_sets(table([*ROWS, [extra]]), "tags", labels)
    with pytest.raises(
        MinitrainError, match=r"its 0 and 1 do not tell which label is which, .* --label_map 0=insult"
    ):
        label_sets(table(VECTORS), "tags", labels)
    with pytest.raises(MinitrainError, match="has 2 values a row, and there are 3 labels"):
        label_sets(table([[0, 1]]), "tags", labels)
    with pytest.raises(
        MinitrainError, match="has the labels 'insult', 'toxic', and none for 'threat', which the model"
    ):
        label_sets(table([[0, 1]], ("insult", "toxic")), "tags", labels)
    twice = Labels(names=("a", "a", "b"), multi_label=True)
    with pytest.raises(MinitrainError, match="the head has 2 classes called 'a'"):
        label_sets(table([["a"]]), "tags", twice)


@pytest.mark.parametrize("value", ["2", "yes", "", "-1", "nan", "0.5", 2, -1, None, math.nan, 0.5, [1]])
def test_a_label_column_of_anything_but_0_and_1_is_an_error_with_row_and_column(value: Any) -> None:
    csv = isinstance(value, str)
    columns = {
        "toxic": ["0", "1", "1"] if csv else [0, 1, 1],
        "insult": ["1", "0", value] if csv else [1, 0, value],
    }
    rows = Table(source="a.csv", columns=columns, class_names={}, untyped=csv)
    with pytest.raises(MinitrainError, match=r"a\.csv, row 3, column 'insult': the value is .* expected 0 or 1"):
        with_label_column(rows, ("toxic", "insult"))


def test_flags_that_contradict_each_other_are_named(tokenizer: Tokenizer) -> None:
    rows = [{"text": "a film", "toxic": 0, "insult": 1}, {"text": "a plot", "toxic": 1, "insult": 0}]
    for options, said in (
        (
            {"label_columns": ("toxic",), "label_column": "insult"},
            "are two ways to say where the labels are: pass one",
        ),
        ({"label_columns": ("toxic", "toxic")}, "names a column twice"),
        (
            {"label_columns": ("toxic",), "problem_type": "regression"},
            "is for several labels a text, --problem_type",
        ),
        ({"label_columns": ("toxic", "text")}, "'text' is|column 'text': the value is 'a film'"),
        ({"label_columns": ("toxic", "other")}, "row 1: has no field 'other'; it has text, toxic, insult"),
    ):
        with pytest.raises(MinitrainError, match=said):
            load_splits(rows, tokenizer=tokenizer, text_columns=("text",), **options)
    splits = load_splits(rows, tokenizer=tokenizer, label_columns=("toxic", "insult"))  # the texts are found
    assert splits.train.labels is not None and splits.train.labels.tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_hidden_test_labels_are_not_scored(tokenizer: Tokenizer) -> None:
    rows = [{"text": "a film", "toxic": i % 2, "insult": 1} for i in range(4)]
    hidden = [{"text": "a plot", "toxic": -1, "insult": -1}]
    splits = load_splits(rows, test=hidden, tokenizer=tokenizer, label_columns=("toxic", "insult"))
    assert splits.test == {} and "test: labels are hidden, not scored" in splits.notes
    assert any("every training row has the label 'insult'" in note for note in splits.notes)


def test_names_that_hold_separators_and_names_alike_are_noted() -> None:
    rows = table([["toxic,insult"], ["toxic"], ["insult"], ["Toxic"], []])
    notes = label_notes({"train": rows}, "tags", infer_labels(rows, "tags"))
    assert notes[0] == "'toxic,insult' is one label here: names in a list are not split at ','"
    assert notes[1].startswith("classes that differ by blanks, case") and "toxic=Toxic" in notes[1]


def test_batches_of_several_labels_are_float_whatever_holds_them() -> None:
    for kind in (list, tuple, numpy.array, torch.tensor):
        examples = [Example([1, 2], [0, 0], kind(row)) for row in ([0.0, 1.0], [1, 1])]
        labels = collate(examples).labels
        assert labels is not None and labels.dtype == torch.float32 and labels.tolist() == [[0.0, 1.0], [1.0, 1.0]]
        split = as_split(examples)
        assert split.labels is not None and torch.equal(split.labels, labels) and split[1].label == [1.0, 1.0]
    for bad, said in (
        ([[0.0, 1.0], [1.0]], "example 2 of the batch has a label of 1 values, example 1 one of 2"),
        ([[0.0], [2.0]], r"example 2 of the batch has the label \[2\.0\] \(list\)"),
        ([[0.0], 1], r"example 2 of the batch has the label 1 \(int\)"),
        ([[0.0], None], r"example 2 of the batch has the label None"),
        ([[0.0], []], r"example 2 of the batch has the label \[\]"),
        ([[0.0], [math.nan]], r"example 2 of the batch has the label \[nan\]"),
    ):
        with pytest.raises(MinitrainError, match=said):
            collate([Example([1], [0], label) for label in bad])
    with pytest.raises(MinitrainError, match="have 1 to 2 values; give all as many"):
        as_split([Example([1], [0], [0.0]), Example([1], [0], [0.0, 1.0])])


def test_a_split_tells_other_labels_apart_and_holds_out_a_share_of_each(tokenizer: Tokenizer) -> None:
    frame = pandas.DataFrame({"text": ["a good film"] * 50, "label": (ROWS * 10)})
    splits = load_splits(frame, tokenizer=tokenizer, eval_fraction=0.2)
    held = splits.evaluation["validation"].labels
    assert held is not None and held.sum(dim=0).tolist() == [4.0, 2.0, 4.0] and len(held) == 10
    other = load_splits(frame.assign(label=ROWS[::-1] * 10), tokenizer=tokenizer)
    assert other.train.checksum() != load_splits(frame, tokenizer=tokenizer).train.checksum()
    few = load_splits(frame, tokenizer=tokenizer, max_train_samples=9).train.labels
    assert few is not None and few.shape == (9, 3)
    assert table_in_memory(frame, "rows").class_names == {}
