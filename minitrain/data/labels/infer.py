"""Infer what the labels of a training table are: classes by number, classes by name, or scores.

Done once, on the training data (and the classes of a trained head, if there is one); the result holds for every
split, and `ids.py` refuses labels that it does not cover.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from minitrain.config.label_map import as_flag
from minitrain.config.problem_types import CLASSIFICATION, REGRESSION
from minitrain.data.labels.ids import Labels, class_counts, quoted
from minitrain.data.labels.multi import infer_label_sets, is_multi_label
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
    row_of,
    whole_number,
)
from minitrain.data.tables.table import Table, writable
from minitrain.errors import MinitrainError, shown

CHOOSE = f"for classes pass --problem_type {CLASSIFICATION}, for scores pass --problem_type {REGRESSION}"


def infer_labels(
    table: Table,
    column: str,
    problem_type: str | None = None,
    known: tuple[str, ...] | None = None,
    *,
    label_map: Mapping[str, str] | None = None,
    positive_label: str | None = None,
    separator: str | None = None,
) -> Labels:
    """Infer the classes of a training table, or that its labels are scores, or several a row.

    The order of `known`, the classes of a trained head, is kept if the data has the same classes. Raises
    MinitrainError naming source, column, row and value.

    >>> reviews = Table(source="reviews", columns={"stars": ["good", "bad", "good"]}, class_names={})
    >>> infer_labels(reviews, "stars").names
    ('bad', 'good')
    """
    if table.find(column) is None and column.split(".")[0] not in table.columns:
        raise MinitrainError(table.lacks(column))
    if problem_type == REGRESSION:
        return _scores_only(label_map, positive_label)
    if not len(table):
        raise MinitrainError(f"{table.source}: has no rows")
    if is_multi_label(table, column, problem_type, separator):
        labels = infer_label_sets(table, column, known, label_map=label_map, separator=separator)
        return with_positive(labels, positive_label)
    own, numbers = class_names(table, column, label_map), None
    if own:
        ordered, numbered = tuple(dict.fromkeys(own)), True
    else:
        kind, values, named = _typed(table, column, problem_type, label_map)
        if kind is float:
            _check_scores(table, column, values)
            return _scores_only(label_map, positive_label)
        numbers = values if kind is int and not named else None
        ordered, numbered = tuple(map(str, sorted(set(values)))), kind is not str
        if named and kind is str and (by_number := _ordered_by_number(table, column, values)):
            ordered, numbered = by_number, True
    names, by_place = _with_head(ordered, known, numbers) if known else (ordered, False)
    labels = Labels(
        names=names,
        positive=1 if by_place or not numbered or len(ordered) != 2 else names.index(ordered[1]),
        numbers_are_ids=by_place or names == own,
        label_map=label_map,
        alphabetical=not numbered and names == ordered and known is None,
    )
    _check_two_occur(table, column, labels)
    return with_positive(labels, positive_label)


def _check_two_occur(table: Table, column: str, labels: Labels) -> None:
    seen = class_counts(table, column, labels)
    if len(seen) < 2 and labels.names is not None:
        raise MinitrainError(
            f"{table.source}, column {column!r}: every label is {shown(labels.names[next(iter(seen))])}; a "
            f"classifier needs two classes. The columns are {table.names_shown()}"
        )


def _with_head(
    ordered: tuple[str, ...], known: tuple[str, ...], numbers: Sequence[int] | None
) -> tuple[tuple[str, ...], bool]:
    """The names in the order of a trained head, and whether numbers are places in it.

    numbers: The labels, if all are integers and no map names them. Transformers numbers a head's classes so.
    """
    if len(known) == len(ordered) and set(known) == set(ordered):
        return known, False
    fits = numbers is not None and min(numbers) >= 0 and max(numbers) < len(known)
    return (known, True) if fits and not any(map(is_integer, known)) else (ordered, False)


def with_positive(labels: Labels, positive_label: str | None) -> Labels:
    """The labels with F1 about the class of this name; unchanged for None.

    Raises:
        MinitrainError: It is not one of two classes.
    """
    if positive_label is None:
        return labels
    positive_label = str(positive_label)  # in Python it may be a number
    where = f"--positive_label {positive_label}"
    if labels.names is None:
        raise MinitrainError(f"{where}: the labels are scores, which have no F1; leave it out")
    if labels.multi_label:
        raise MinitrainError(f"{where}: is for texts with one of two classes, and these have several: leave it out")
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


def _check_scores(table: Table, column: str, values: Sequence[float]) -> None:
    """Refuse whole numbers stored as floats: they are classes as often as scores, and only the user can tell."""
    if not all(value.is_integer() for value in values if math.isfinite(value)):
        return
    raw = raw_values(table, column)
    row = next((i for i, value in enumerate(values) if not math.isfinite(value)), None)
    if row is not None:
        bad_label(table, column, row, raw[row], "a number as in the other rows")
    row = next((i for i, value in enumerate(raw) if type(value) is float or not is_integer(value)), 0)
    raise MinitrainError(
        f"{table.where(row)}, column {column!r}: the label is {shown(values[row])}; whole "
        f"numbers with a decimal point are classes or scores: {CHOOSE}"
    )


def _typed(
    table: Table, column: str, problem_type: str | None, label_map: Mapping[str, str] | None
) -> tuple[type, list[Any], bool]:
    """The type of a column's labels (int, bool, str; float for scores), its values, and whether a map named any."""
    values = label_values(table, column, label_map)
    for value in label_keys(table, column, values)[1].values():
        if (expected := _expected_instead(value)) is not None:
            bad_label(table, column, row_of(values, value), value, expected)
    kinds = set(map(type, values))
    if Name in kinds:
        return *_of_names(values, table.untyped), True
    kind = _type_of_texts(set(values)) if table.untyped else type(values[0])
    if problem_type == CLASSIFICATION and (kinds <= {int, float} or table.untyped and kind is float):
        return int, _whole(table, column, values), False
    if len(kinds) > 1:
        row = next(i for i, value in enumerate(values) if type(value) is not kind)
        numbers = f"; {CHOOSE}" if kinds <= {int, float} else "; write all labels in one type"
        bad_label(table, column, row, values[row], f"{kind.__name__} as in row 1, {shown(values[0])}{numbers}")
    if table.untyped:
        values = list(map(kind, values))
    if kind is int and problem_type != CLASSIFICATION and min(values) < 0:
        row = next(i for i, value in enumerate(values) if value < 0)
        names = dict(zip(map(str, sorted(set(values))), ("no", "yes", "perhaps"), strict=False))
        raise MinitrainError(
            f"{table.where(row)}, column {column!r}: the label is {values[row]} (int); expected a class counted "
            f"from 0. Leave out a row without a label; name a class, as in {as_flag(names)}, or pass "
            f"--problem_type {CLASSIFICATION} to call it {str(values[row])!r}; for scores pass "
            f"--problem_type {REGRESSION}"
        )
    return kind, values, False


def _expected_instead(value: Any) -> str | None:
    """What a message asks for instead of a value that is no label."""
    if type(value) not in (int, float, str, bool, Name) or is_missing(value):
        return "an integer, a string, true or false, or a number for regression"
    if isinstance(value, str) and not writable(value):
        return "a text without lone surrogates"
    return "a number of at most 100 digits" if type(value) is int and abs(value) >= LARGEST else None


def _of_names(values: Sequence[Any], untyped: bool) -> tuple[type, list[Any]]:
    """Labels of which a map has named some: texts, or integers if all of them are."""
    numbers = [None if type(value) is Name else whole_number(value, untyped) for value in values]
    texts = [str(value if number is None else number) for value, number in zip(values, numbers, strict=True)]
    return (int, [int(text) for text in texts]) if all(map(is_integer, set(texts))) else (str, texts)


def _ordered_by_number(table: Table, column: str, values: Sequence[str]) -> tuple[str, ...]:
    """The names of a map in the order of the numbers they rename (0=no,1=yes); () if some are no numbers."""
    raw = raw_values(table, column)
    numbers = [int(value) if type(value) is bool else whole_number(value, table.untyped) for value in raw]
    pairs = {(number, name) for number, name in zip(numbers, values, strict=True) if number is not None}
    return () if None in numbers else tuple(dict.fromkeys(name for _, name in sorted(pairs)))


def _whole(table: Table, column: str, values: Sequence[Any]) -> list[int]:
    """Floats, or texts of them, as the whole numbers that the user says they are."""
    numbers = []
    for row, value in enumerate(values):
        number = whole_number(value, table.untyped)
        if number is None:
            bad_label(table, column, row, value, f"a whole number; for scores pass --problem_type {REGRESSION}")
        numbers.append(number)
    return numbers


def _type_of_texts(texts: set[str]) -> type:
    """The type of labels in a format without types. 7 is a number; 007 and 1_000 are names.

    >>> [_type_of_texts(texts) for texts in ({"7", "8"}, {"007", "8"}, {"0.5", "8"}, {"a", "8"})]
    [<class 'int'>, <class 'str'>, <class 'float'>, <class 'str'>]
    """
    if all(map(is_integer, texts)):
        return int
    for parse, meaning in ((int, str), (float, float)):
        try:
            for text in texts:
                parse(text)
            return meaning
        except ValueError:
            continue
    return str
