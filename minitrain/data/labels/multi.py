"""Rows with any number of labels: which classes there are, and which of them each row has.

A row lists names; or numbers that stand for named classes, as datasets' Sequence(ClassLabel) does; or 0 and 1 for
each class in order. `lists.py` takes a value apart, `label_columns.py` puts several columns together.
"""

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from minitrain.config.label_map import as_flag
from minitrain.config.problem_types import MULTI_LABEL
from minitrain.data.labels.ids import OWN_NAMES, Labels, default_names, quoted
from minitrain.data.labels.lists import is_number, listed_labels
from minitrain.data.labels.values import Name, alike, class_names, is_integer, is_missing, raw_values, renamed
from minitrain.data.tables.table import Table, writable
from minitrain.errors import MinitrainError, listed, shown

LabelSet = tuple[int, ...]  # the ids of a row's labels, ascending


def is_multi_label(table: Table, column: str, problem_type: str | None, separator: str | None) -> bool:
    """Whether a training table has several labels a row: as the flags say, or because it lists names."""
    if problem_type is not None or separator is not None:
        return problem_type in (None, MULTI_LABEL)
    first = [listed_labels(value) for value in table.column(column)[:1]]
    if not first or first[0] is None:
        return False
    names = (label for value in table.column(column)[:] for label in listed_labels(value) or ())
    return column in table.class_names or any(isinstance(label, str) for label in names)


def infer_label_sets(
    table: Table,
    column: str,
    known: tuple[str, ...] | None = None,
    *,
    label_map: Mapping[str, str] | None = None,
    separator: str | None = None,
) -> Labels:
    """The classes of a training table whose rows have several; arguments as of `infer_labels`.

    Names are in alphabetical order, or that of the data's own classes, or of a trained head that has them all.

    Raises:
        MinitrainError: Names source, row, column and value; or every row has the same labels.
    """
    rows = _Rows.read(table, column, label_map, separator)
    ordered = tuple(dict.fromkeys(rows.own)) or _in_order({str(name) for row in rows.labels for name in row})
    if not ordered:
        raise MinitrainError(f"{rows.where}: no row has a label; {_ways_out(rows)}")
    names, by_place = ordered, False
    if known:
        by_name = set(ordered) == set(known) or (not rows.own and set(ordered) <= set(known))
        by_place = not by_name and rows.width == len(known) and rows.own == default_names(len(known))
        names = known if by_name or by_place else ordered
    labels = Labels(
        names=names,
        numbers_are_ids=by_place or names == rows.own,
        label_map=label_map,
        multi_label=True,
        separator=separator,
    )
    distinct = set(label_sets(table, column, labels))
    if len(distinct) == 1:
        has = quoted([names[i] for i in distinct.pop()]) or "no label"
        raise MinitrainError(f"{rows.where}: every row has {has}, which leaves nothing to learn")
    return labels


def _in_order(names: set[str]) -> tuple[str, ...]:
    """Numbers by value, other names by the alphabet, as classes are."""
    return tuple(sorted(names, key=int if all(map(is_integer, names)) else None))


def label_sets(table: Table, column: str, labels: Labels) -> list[LabelSet]:
    """The ids of each row's labels. Raises MinitrainError naming source, row, column and value."""
    assert labels.names is not None
    rows = _Rows.read(table, column, labels.label_map, labels.separator)
    ids, counts = {name: i for i, name in enumerate(labels.names)}, Counter(labels.names)
    if rows.width is not None and not set(rows.own) <= set(ids):
        return [tuple(place for place, value in enumerate(row) if value) for row in _by_place(rows, labels)]
    if rows.own and (missing := [name for name in labels.names if name not in rows.own]):
        raise MinitrainError(
            f"{rows.where}: has the labels {quoted(rows.own)}, and none for {quoted(missing)}, which the model has "
            "too: name a column, or class, for each of its labels"
        )
    for number, row in enumerate(rows.labels):
        for name in row:
            if name not in ids:
                _refuse_unknown(rows, number, name, labels.names)
            if counts[name] > 1:
                raise MinitrainError(
                    f"{rows.where}: the head has {counts[name]} classes called {name!r}; {OWN_NAMES}"
                )
    return [tuple(sorted({ids[name] for name in row})) for row in rows.labels]


def _by_place(rows: "_Rows", labels: Labels) -> Sequence[Sequence[Any]]:
    """Rows of 0 and 1 for the classes in their order, if that is what the numbers stand for."""
    names = labels.names or ()
    if rows.width != len(names):
        raise MinitrainError(
            f"{rows.where}: has {rows.width} values a row, and there are {len(names)} labels, {quoted(names)}"
        )
    if not labels.by_place:
        pairs = as_flag({str(i): name for i, name in enumerate(names[:20])})
        raise MinitrainError(
            f"{rows.where}: its 0 and 1 do not tell which label is which, of {quoted(names)}; say it, as in "
            f"{pairs} (or in another order), or give the names"
        )
    return rows.raw


def multi_hot(sets: Sequence[LabelSet], count: int) -> "array[float]":
    """The labels of all rows, (rows, count) float32, end to end.

    >>> multi_hot([(0, 2), ()], 3)
    array('f', [1.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    """
    values = array("f", bytes(4 * count * len(sets)))
    for row, ids in enumerate(sets):
        for i in ids:
            values[row * count + i] = 1.0
    return values


@dataclass(frozen=True)
class _Rows:
    """The labels of a column's rows: by name after the map, and as the data has them.

    Attributes:
        labels: The names of each row's labels.
        own: The names that the data gives to its numbers, or to the places of its 0 and 1; else ().
        width: Of rows of 0 and 1; None if the rows are of names, or of numbers with names.
    """

    table: Table
    column: str
    raw: list[list[Any]]
    labels: list[list[str]]
    own: tuple[str, ...]
    width: int | None

    @property
    def where(self) -> str:
        return f"{self.table.source}, column {self.column!r}"

    @classmethod
    def read(cls, table: Table, column: str, label_map: Mapping[str, str] | None, separator: str | None) -> "_Rows":
        """Read a column. Raises MinitrainError for the first row that is no list of labels."""
        values = raw_values(table, column)
        raw = []
        for row, value in enumerate(values):
            labels = listed_labels(value, separator, table.untyped)
            if labels is None:
                _refuse_value(table, column, row, value)
            raw.append(labels)
        raw = _digits_as_numbers(raw) if separator is not None else raw
        own, width = class_names(table, column, label_map), None
        if not own and (width := _width(raw, table, label_map)) is not None:
            places = default_names(width)
            mapped = label_map or {}
            own = tuple(mapped.get(str(i), mapped.get(name, name)) for i, name in enumerate(places))
        naming = _Naming(table, column, label_map or {}, own, width)
        return cls(table, column, raw, [naming.names(row, labels) for row, labels in enumerate(raw)], own, width)


def _digits_as_numbers(rows: list[list[Any]]) -> list[list[Any]]:
    """Rows such as ["0", "1", "0"] as numbers: equally long, of 0 and 1 alone, and some twice in a row."""
    filled = [row for row in rows if row]
    vectors = len(set(map(len, filled))) == 1 and all({*row} <= {"0", "1"} for row in filled)
    if not vectors or all(len(set(row)) == len(row) for row in filled):
        return rows
    return [list(map(int, row)) for row in rows]


def _width(rows: list[list[Any]], table: Table, label_map: Mapping[str, str] | None) -> int | None:
    """The length of rows of 0 and 1; None if no row begins with a number, or a map names the numbers."""
    filled = [row for row in rows if row]
    first = next((row for row in filled if is_number(row[0])), None)
    if first is None:
        return None
    width = len(first)
    vectors = all(len(row) == width and all(is_number(v) and v in (0, 1) for v in row) for row in filled)
    # 0=a,1=b does not name the only place of rows such as [0], [1], but their numbers.
    if vectors and all(not key.isdecimal() or int(key) < width for key in label_map or {}):
        return width
    named = bool(label_map) and all(
        type(renamed(label, table, label_map or {})) is Name for row in filled for label in row
    )
    return None if named else width


@dataclass(frozen=True)
class _Naming:
    """Finds the names of a row's labels."""

    table: Table
    column: str
    label_map: Mapping[str, str]
    own: tuple[str, ...]
    width: int | None

    def names(self, row: int, labels: list[Any]) -> list[str]:
        """The names of a row's labels, as the map calls them. Raises MinitrainError for what is no label."""
        if self.width is not None:
            if labels and len(labels) != self.width:
                self._refuse(row, f"{len(labels)} values", f"{self.width} values, as in the first row, or none")
            return [name for name, value in zip(self.own, labels, strict=False) if self._is_on(row, value)]
        return [self._name(row, label) for label in labels]

    def _is_on(self, row: int, value: Any) -> bool:
        if not is_number(value) or value not in (0, 1):
            self._refuse(
                row,
                f"{shown(value)} ({type(value).__name__})",
                "0 or 1 for each class; if the numbers are ids, give the names, or say them all, as in "
                f"{as_flag({str(value): 'NAME'})}",
            )
        return bool(value)

    def _name(self, row: int, label: Any) -> str:
        if self.own and type(label) is int:
            if not 0 <= label < len(self.own):
                self._refuse(row, f"the number {label}", f"an id from 0 to {len(self.own) - 1}")
            return self.own[label]
        found = renamed(label, self.table, self.label_map)
        if not isinstance(found, str) or (type(found) is not Name and is_missing(found)) or not writable(found):
            expected = "names of labels; a text without any has an empty list"
            self._refuse(row, f"{shown(label)} ({type(label).__name__})", expected)
        return str(found)

    def _refuse(self, row: int, has: str, expected: str) -> NoReturn:
        where = f"{self.table.where(row)}, column {self.column!r}"
        raise MinitrainError(f"{where}: the labels hold {has}; expected {expected}")


def _refuse_value(table: Table, column: str, row: int, value: Any) -> NoReturn:
    """Raise MinitrainError for a row that is no list of labels, with what to do about such values."""
    way = "write a list of names"
    if is_missing(value):
        way = "leave the row out, or write an empty list or text if it has no label"
    elif isinstance(value, str):
        way = "write a list of names, or pass --label_separator ',' or whatever stands between the labels of a text"
    elif isinstance(value, Mapping):
        inside = ",".join(f"{column}.{name}" for name in value)
        way = f"for fields of 0 and 1 pass --label_columns {inside if len(inside) < 200 else 'a.b,a.c'}"
    elif is_number(value):
        way = "write a list of names; for one label a text leave out --problem_type and --label_separator"
    raise MinitrainError(
        f"{table.where(row)}, column {column!r}: the labels are {shown(value)} ({type(value).__name__}); {way}"
    )


def _refuse_unknown(rows: _Rows, row: int, name: str, names: tuple[str, ...]) -> NoReturn:
    """Raise MinitrainError for a label that is none of the run's."""
    same = [other for other in names if alike(other) == alike(name)]
    if len(same) == 1:
        way = (
            f"it differs from {shown(same[0])} by blanks, case or Unicode's form alone: {as_flag({name: same[0]})}"
        )
    else:
        short = name if len(name) <= 100 else "OLD"
        way = (
            f"the training data has no such label: leave it out, or say which one it is: {as_flag({short: 'NAME'})}"
        )
    raise MinitrainError(
        f"{rows.table.where(row)}, column {rows.column!r}: the label {shown(name)} is none of {quoted(names)}; "
        f"{way}"
    )


def _ways_out(rows: _Rows) -> str:
    return f"the columns are {rows.table.names_shown()}" if rows.table.columns else listed(())
