"""What the labels of a column mean: classes by number, classes by name, or scores; and their numbers.

The scheme is found once, on the training data (or comes with a trained head), and then holds for every split: a
label that it does not know is an error with its row, never a new class and never a guess. A number is a class by
its name, and by its place only where the training data says what its numbers stand for.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from minitrain.config.label_map import as_flag
from minitrain.config.problem_types import CLASSIFICATION, REGRESSION
from minitrain.data.labels.ids import (
    Labels,
    class_counts,
    class_ids,
    display_names,
    hidden,
    label_numbers,
    quoted,
    scores,
)
from minitrain.data.labels.values import (
    LARGEST,
    Name,
    bad_label,
    class_names,
    is_integer,
    is_missing,
    label_keys,
    label_values,
    raw_values,
    whole_number,
)
from minitrain.data.tables.table import Table, writable
from minitrain.errors import MinitrainError, shown

__all__ = [
    "Labels",
    "class_ids",
    "display_names",
    "find_labels",
    "hidden",
    "label_numbers",
    "scores",
    "with_positive",
]

UNASKED = f"for classes pass --problem_type {CLASSIFICATION}, for scores pass --problem_type {REGRESSION}"


def find_labels(
    table: Table,
    column: str,
    problem_type: str | None = None,
    known: tuple[str, ...] | None = None,
    *,
    label_map: Mapping[str, str] | None = None,
    positive_label: str | None = None,
) -> Labels:
    """Find out what the labels of a training table are.

    problem_type: what the user says they are, or None. known: the classes of a trained head, whose order is kept
    where the data has the same classes. label_map: other names for the labels. positive_label: of two classes, the
    one that F1 is about. Raises MinitrainError naming source, column, row and value.
    """
    if table.find(column) is None and column.split(".")[0] not in table.columns:
        raise MinitrainError(f"{table.lacks(column)} (--label_column says which one holds the labels)")
    if problem_type == REGRESSION:
        return _scores_only(label_map, positive_label)
    own = class_names(table, column, label_map)
    if own:
        ordered, numbered, numbers = tuple(dict.fromkeys(own)), True, None
    else:
        kind, values, named = _typed(table, column, problem_type, label_map)
        if kind is float:
            _check_scores(table, column, values)
            return _scores_only(label_map, positive_label)
        numbers = None if named else values
        ordered, numbered = _order(table, column, kind, values, named)
    names, by_place = _with_head(ordered, known, numbers)
    labels = Labels(
        names=names,
        positive=1 if by_place or not numbered or len(ordered) != 2 else names.index(ordered[1]),
        numbers_are_ids=by_place or names == own,
        label_map=label_map,
        alphabetical=not numbered and names == ordered and known is None,
    )
    _check_classes(table, column, labels)
    return with_positive(labels, positive_label)


def _with_head(
    ordered: tuple[str, ...], known: tuple[str, ...] | None, numbers: Sequence[Any] | None
) -> tuple[tuple[str, ...], bool]:
    """The names in the order of a trained head, and whether numbers are places in it.

    numbers: the labels, where all are integers and no map names them. Transformers numbers a head's classes so.
    """
    if known is None:
        return ordered, False
    if len(known) == len(ordered) and set(known) == set(ordered):
        return known, False
    fits = numbers is not None and all(type(n) is int and 0 <= n < len(known) for n in set(numbers))
    fits = fits and not any(map(is_integer, known))
    return (known, True) if fits else (ordered, False)


def with_positive(labels: Labels, positive_label: str | None) -> Labels:
    """The labels with F1 about the class of that name; as they are where it is None.

    Raises MinitrainError unless it is one of two classes.
    """
    if positive_label is None:
        return labels
    positive_label = str(positive_label)  # in Python it may be a number
    where = f"--positive_label {positive_label}"
    if labels.names is None:
        raise MinitrainError(f"{where}: the labels are scores, which have no F1; leave it out")
    if len(labels.names) != 2:
        raise MinitrainError(
            f"{where}: there are {len(labels.names)} classes, {quoted(labels.names)}, and their F1 is the mean "
            "over all of them (macro_f1): leave it out, or make two classes of them with --label_map"
        )
    if labels.names.count(positive_label) != 1:
        raise MinitrainError(f"{where}: the classes are {quoted(labels.names)}; expected one of them")
    return replace(labels, positive=labels.names.index(positive_label), alphabetical=False)


def _scores_only(label_map: Mapping[str, str] | None, positive_label: str | None) -> Labels:
    if label_map:
        raise MinitrainError(f"{as_flag(label_map)}: names classes, and these labels are scores: leave it out")
    return with_positive(Labels(names=None), positive_label)


def _check_classes(table: Table, column: str, labels: Labels) -> None:
    seen = set(class_counts(table, column, labels))
    if len(seen) < 2:
        only = labels.names[seen.pop()] if labels.names else ""
        raise MinitrainError(
            f"{table.source}, column {column!r}: every label is {shown(only)}; a classifier needs two classes. "
            f"The columns are {table.names_shown()}"
        )


def _check_scores(table: Table, column: str, values: Sequence[float]) -> None:
    """Whole numbers stored as floats are classes as often as scores; only the user can tell."""
    if not all(value.is_integer() for value in values if math.isfinite(value)):
        return
    raw = raw_values(table, column)
    row = next((i for i, value in enumerate(values) if not math.isfinite(value)), None)
    if row is not None:
        bad_label(table, column, row, raw[row], "a number as in the other rows")
    row = next((i for i, value in enumerate(raw) if type(value) is float or not is_integer(value)), 0)
    raise MinitrainError(
        f"{table.where(row)}, column {column!r}: the label is {shown(values[row])}; whole "
        f"numbers with a decimal point are classes or scores: {UNASKED}"
    )


def _typed(
    table: Table, column: str, problem_type: str | None, label_map: Mapping[str, str] | None
) -> tuple[type, list[Any], bool]:
    """The type of a column's labels (int, bool, str; float for scores), its values, and whether a map named any."""
    values = label_values(table, column, label_map)
    if not values:
        raise MinitrainError(f"{table.source}: has no rows")
    for value in label_keys(table, column, values)[1].values():
        _check_value(table, column, values, value)
    kinds = set(map(type, values))
    if Name in kinds:
        return *_of_names(values, table.untyped), True
    kind = _kind(set(values)) if table.untyped else type(values[0])
    if kinds == {int, float} and problem_type == CLASSIFICATION:
        return int, _whole(table, column, values), False
    if not table.untyped and len(kinds) > 1:
        row = next(i for i, value in enumerate(values) if type(value) is not kind)
        numbers = f"; {UNASKED}" if kinds <= {int, float} else ""
        where = f"{kind.__name__} as in row 1, {shown(values[0])}"
        bad_label(table, column, row, values[row], f"{where}{numbers or '; write all labels in one type'}")
    if kind is float and problem_type == CLASSIFICATION:
        return int, _whole(table, column, values), False
    if table.untyped:
        by_text = {text: kind(text) for text in set(values)}
        values = [by_text[text] for text in values]
    if kind is int and problem_type != CLASSIFICATION and min(values) < 0:
        _refuse_negative(table, column, values)
    return kind, values, False


def _check_value(table: Table, column: str, values: Sequence[Any], value: Any) -> None:
    if type(value) not in (int, float, str, bool, Name) or is_missing(value):
        expected = "an integer, a string, true or false, or a number for regression"
        bad_label(table, column, _row_of(values, value), value, expected)
    if isinstance(value, str) and not writable(value):
        bad_label(table, column, _row_of(values, value), value, "a text without lone surrogates")
    if type(value) is int and abs(value) >= LARGEST:
        bad_label(table, column, _row_of(values, value), value, "a number of at most 100 digits")


def _row_of(values: Sequence[Any], value: Any) -> int:
    return next(i for i, other in enumerate(values) if type(other) is type(value) and other in (value,))


def _of_names(values: Sequence[Any], untyped: bool) -> tuple[type, list[Any]]:
    """The labels where a map has named some of them: texts, or integers where all of them are."""
    texts = [
        str(v) if (n := None if type(v) is Name else whole_number(v, untyped)) is None else str(n) for v in values
    ]
    return (int, [int(text) for text in texts]) if all(map(is_integer, set(texts))) else (str, texts)


def _order(
    table: Table, column: str, kind: type, values: Sequence[Any], named: bool
) -> tuple[tuple[str, ...], bool]:
    """The names of the classes in the order of their ids, and whether numbers put them so, not the alphabet."""
    distinct = set(values)
    if kind is not str:
        return tuple(str(value) for value in sorted(distinct)), True
    raw = raw_values(table, column) if named else [None]
    numbers = [int(v) if type(v) is bool else whole_number(v, table.untyped) for v in raw]
    known = [number for number in numbers if number is not None]
    if len(known) < len(values):
        return tuple(sorted(distinct)), False
    first = sorted(set(zip(known, values, strict=True)))  # 0=no,1=yes: in the order of the numbers they stand for
    return tuple(dict.fromkeys(name for _, name in first)), True


def _whole(table: Table, column: str, values: Sequence[Any]) -> list[int]:
    """Floats, or texts of them, as the whole numbers that the user says they are."""
    numbers = [whole_number(value, table.untyped) for value in values]
    if None in numbers:
        row = numbers.index(None)
        bad_label(table, column, row, values[row], f"a whole number; for scores pass --problem_type {REGRESSION}")
    return [number for number in numbers if number is not None]


def _refuse_negative(table: Table, column: str, values: Sequence[int]) -> NoReturn:
    row = next(i for i, value in enumerate(values) if value < 0)
    names = dict(zip(map(str, sorted(set(values))), ("no", "yes", "perhaps"), strict=False))
    raise MinitrainError(
        f"{table.where(row)}, column {column!r}: the label is {values[row]} (int); expected a class "
        f"counted from 0. If it marks a row without a label, leave the row out; if it is a class, name it, as in "
        f"{as_flag(names)}, or pass --problem_type {CLASSIFICATION} to call it {str(values[row])!r}; for scores "
        f"pass --problem_type {REGRESSION}"
    )


def _kind(texts: Iterable[str]) -> type:
    """What the labels of a format without types are. 7 is a number; 007 and 1_000 are names."""
    if all(is_integer(text) for text in texts):
        return int
    for kind, meaning in ((int, str), (float, float)):
        try:
            for text in texts:
                kind(text)
            return meaning
        except ValueError:
            continue
    return str
