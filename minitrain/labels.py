"""What the labels of a column mean: classes by number, classes by name, or scores; and their numbers.

The scheme is found once, on the training data (or comes with a trained head), and then holds for every split: a
label that it does not know is an error with its row, never a new class.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from minitrain.encoder_config import CLASSIFICATION, REGRESSION
from minitrain.errors import MinitrainError, listed, shown
from minitrain.tables import Table, writable

LARGEST_SCORE = (2 - 2**-23) * 2.0**127  # a float32 holds no larger number


@dataclass(frozen=True, kw_only=True)
class Labels:
    """names: the classes in order of their ids, or None for regression, where a label is a score.

    positive: the id of the class that F1 is about, of two.
    """

    names: tuple[str, ...] | None
    positive: int = 1

    @property
    def problem_type(self) -> str:
        return REGRESSION if self.names is None else CLASSIFICATION

    @property
    def num_labels(self) -> int:
        """Width of the head: one output a class, one alone for a score."""
        return self.num_classes or 1

    @property
    def num_classes(self) -> int | None:
        """How many classes there are to tell apart, as metrics ask it; None for scores."""
        return None if self.names is None else len(self.names)


def find_labels(
    table: Table, column: str, problem_type: str | None = None, known: tuple[str, ...] | None = None
) -> Labels:
    """Find out what the labels of a training table are.

    problem_type: what the user says they are, or None. known: the classes of a trained head, whose order is kept
    where the data has the same classes. Raises MinitrainError naming source, column, row and value.
    """
    if problem_type == REGRESSION:
        return Labels(names=None)
    if column in table.class_names:
        names = table.class_names[column]
        if known is not None and set(known) == set(names):
            names = known
    else:
        kind, values = _typed(table, column)
        if kind is float:
            return _scores(table, column, values, problem_type)
        names = tuple(str(value) for value in sorted(set(values)))
        fits = known is not None and kind is int and max(values) < len(known)
        if known is not None and (fits or set(known) == set(names)):
            names = known
    labels = Labels(names=names, positive=positive_class(table, column, names))
    _check_classes(table, column, labels)
    return labels


def positive_class(table: Table, column: str, names: tuple[str, ...] | None) -> int:
    """The id that the data's own class 1 has among `names`, where they are the same classes in another order."""
    own = table.class_names.get(column, ())
    return names.index(own[1]) if names is not None and len(own) == 2 and set(own) == set(names) else 1


def _check_classes(table: Table, column: str, labels: Labels) -> None:
    seen = set(class_ids(table, column, labels))
    if len(seen) < 2:
        only = labels.names[seen.pop()] if labels.names else ""
        raise MinitrainError(
            f"{table.source}, column {column!r}: every label is {shown(only)}; a classifier needs two classes. "
            f"The columns are {listed(table.columns)}"
        )


def _scores(table: Table, column: str, values: Sequence[float], problem_type: str | None) -> Labels:
    fraction = next((i for i, value in enumerate(values) if not float(value).is_integer()), None)
    if problem_type == CLASSIFICATION or fraction is None:
        # Whole numbers stored as floats are classes as often as scores; only the user can tell.
        row = fraction or 0
        if fraction is None and table.untyped:
            row = next(i for i, text in enumerate(table.column(column)[:]) if not _is_integer(text))
        raise MinitrainError(
            f"{table.source}, row {row + 1}, column {column!r}: the label is {shown(values[row])}; for classes "
            f"give integers or strings, for scores pass --problem_type {REGRESSION}"
        )
    return Labels(names=None)


def _typed(table: Table, column: str) -> tuple[type, list[Any]]:
    """The one type of a column's labels, int, float or str, and its values in it."""
    values = list(table.column(column)[:])
    if not values:
        raise MinitrainError(f"{table.source}: has no rows")
    kind = _kind(values) if table.untyped else type(values[0])
    if table.untyped:
        values = [kind(value) for value in values]
    for i, value in enumerate(values):
        if type(value) not in (int, float, str) or value == "":
            _bad(table, column, i, value, "an integer, a string, or a number for regression")
        if type(value) is str and not writable(value):
            _bad(table, column, i, value, "a text without lone surrogates")
        if type(value) is not kind:
            hint = "" if str in (kind, type(value)) else f"; for scores pass --problem_type {REGRESSION}"
            _bad(table, column, i, value, f"{kind.__name__} as in row 1, {shown(values[0])}{hint}")
        if type(value) is int and value < 0:
            _bad(table, column, i, value, "a class counted from 0 (-1 marks hidden labels in GLUE's test splits)")
    return kind, values


def _kind(texts: Sequence[str]) -> type:
    """What the labels of a format without types are. 7 is a number; 007 and 1_000 are names."""
    if all(_is_integer(text) for text in texts):
        return int
    for kind, meaning in ((int, str), (float, float)):
        try:
            for text in texts:
                kind(text)
            return meaning
        except ValueError:
            continue
    return str


def label_numbers(table: Table, column: str, labels: Labels) -> list[int] | list[float]:
    """Class ids, or scores, of every row. Raises MinitrainError naming source, row, column and value."""
    return scores(table, column) if labels.names is None else class_ids(table, column, labels)


def class_ids(table: Table, column: str, labels: Labels) -> list[int]:
    """The class id of every row. Raises MinitrainError naming source, row, column and value."""
    assert labels.names is not None
    by_name = {name: i for i, name in enumerate(labels.names)}
    # Classes called "1", "2", "5" are found by name; where names say nothing of numbers, a number is an id.
    numbers_are_names = column not in table.class_names and all(name.isdecimal() for name in labels.names)
    # A dataset that has the same classes in another order numbers them in its own.
    own = table.class_names.get(column, ())
    unnamed = all(re.fullmatch(r"LABEL_\d+|\d+", name) for name in labels.names)
    if own and set(own) != set(labels.names) and not unnamed:
        raise MinitrainError(
            f"{table.source}, column {column!r}: its classes are {_listed(own)}, those of the model "
            f"{_listed(labels.names)}; numbers do not tell which is which"
        )
    numbered = own if set(own) == set(labels.names) else labels.names
    ids = []
    for i, value in enumerate(table.column(column)[:]):
        found: int | None = None
        if type(value) is str:
            found = by_name.get(value)
        if found is None and (type(value) is int or (table.untyped and _is_integer(value))):
            number = int(value)
            if numbers_are_names:
                found = by_name.get(str(number))
            elif 0 <= number < len(numbered):
                found = by_name[numbered[number]]
        if found is None:
            _bad(table, column, i, value, f"one of {_listed(labels.names)}, or an id from 0 to {len(by_name) - 1}")
        ids.append(found)
    return ids


def scores(table: Table, column: str) -> list[float]:
    """The score of every row. Raises MinitrainError naming source, row, column and value."""
    result = []
    for i, value in enumerate(table.column(column)[:]):
        try:
            if type(value) not in (int, float) and not (table.untyped and type(value) is str):
                raise ValueError
            number = float(value)
            if not abs(number) <= LARGEST_SCORE:  # so that NaN fails too
                raise ValueError
        except (ValueError, OverflowError):
            _bad(table, column, i, value, "a finite number, as regression needs")
        result.append(number)
    return result


def hidden(table: Table, column: str) -> bool:
    """Whether all labels are -1, as in the test splits of GLUE whose labels are kept secret."""
    return column not in table.columns or all(v in (-1, "-1") for v in table.column(column)[:])


def _is_integer(text: str) -> bool:
    try:
        return str(int(text)) == text.strip()
    except ValueError:
        return False


def _listed(names: Sequence[str]) -> str:
    return listed(repr(name) for name in names)


def _bad(table: Table, column: str, index: int, value: Any, expected: str) -> NoReturn:
    raise MinitrainError(
        f"{table.source}, row {index + 1}, column {column!r}: the label is {shown(value)} "
        f"({type(value).__name__}); expected {expected}"
    )
