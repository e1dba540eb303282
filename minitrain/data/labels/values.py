"""The labels of a column as plain Python values, after --label_map; `infer.py` finds out what they mean."""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from typing import Any, NoReturn

from minitrain.config.label_map import as_flag
from minitrain.config.options import plain_scalar
from minitrain.data.labels.lists import each_label
from minitrain.data.tables.table import Table
from minitrain.errors import MinitrainError, listed, shown

LARGEST = 10**100  # numbers this large cannot name a class
LARGEST_SCORE = (2 - 2**-23) * 2.0**127  # of float32
_PLAIN = {str, int, float, bool, type(None)}
_DIGITS = r"(?:[0-9]{1,3}(?:[.,' ][0-9]{3})+|[0-9]+)(?:[.,][0-9]+)?"
_WRITTEN = re.compile(rf"[$€£]?\s?[-+]?[$€£]?\s?{_DIGITS}\s?[%$€£]?")
_WHOLE = re.compile(r"\s*(-?(?:0|[1-9][0-9]*))\.0*\s*")


class Name(str):
    """A label that `--label_map` gave: the name of a class, never a number."""


def raw_values(table: Table, column: str) -> list[Any]:
    """The labels as the data has them, scalars of numpy and torch as Python's."""
    values = list(table.column(column)[:])
    return values if set(map(type, values)) <= _PLAIN else [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    value = plain_scalar(value)
    for kind in (str, int, float):  # members of an Enum, too
        if isinstance(value, kind) and not isinstance(value, bool):
            return kind.__str__(value) if kind is str else kind(value)
    return value


def label_values(table: Table, column: str, label_map: Mapping[str, str] | None = None) -> list[Any]:
    """The labels; those that the map renames are a `Name`. Integers of a column with class names stay."""
    values = raw_values(table, column)
    if not label_map:
        return values
    numbered = column in table.class_names
    return [value if numbered and type(value) is not str else renamed(value, table, label_map) for value in values]


def class_names(table: Table, column: str, label_map: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The class names that the data gives to the integers of a column, after the map; () if it gives none."""
    names = table.class_names.get(column, ())
    return tuple((label_map or {}).get(name, name) for name in names)


def renamed(value: Any, table: Table, label_map: Mapping[str, str]) -> Any:
    """A label after the map, in which "0" stands for 0, 0.0 and, in a CSV file, for "0.0"."""
    spellings = [str(value)] if isinstance(value, str | int | float) else []
    if isinstance(value, bool):
        spellings.append(str(value).lower())
    elif (number := whole_number(value, table.untyped)) is not None and abs(number) < LARGEST:
        spellings.append(str(number))
    return next((Name(label_map[text]) for text in spellings if text in label_map), value)


def check_label_map(
    tables: Sequence[Table], column: str, label_map: Mapping[str, str] | None, separator: str | None = None
) -> None:
    """Raise MinitrainError if the map renames no label that occurs in any table. separator: As in `Labels`."""
    tables = [table for table in tables if column in table.columns]
    if not label_map or not tables:
        return
    occurring: dict[str, None] = {}
    for table in tables:
        names = table.class_names.get(column, ())
        kinds = {str} if names else _PLAIN  # integers that have names go by them
        values = each_label([*names, *raw_values(table, column)], separator, table.untyped)
        found = {(type(v), v): v for v in values if type(v) in kinds}.values()
        if any(type(renamed(value, table, label_map)) is Name for value in found):
            return
        occurring |= {shown(value): None for value in found}
    raise MinitrainError(
        f"{as_flag(label_map)}: no label of column {column!r} is called {listed(map(repr, label_map))}; the data "
        f"has {listed(occurring)}; write old=new"
    )


def whole_number(value: Any, untyped: bool) -> int | None:
    """The integer that a label is: 1, 1.0 and, in a table without types, "1", " 1" and "1.0". "01" is a name.

    >>> [whole_number(value, untyped=True) for value in ("1.0", " 1", "01", "a")]
    [1, 1, None, None]
    """
    if type(value) is int:
        return value
    if type(value) is float:
        return int(value) if value.is_integer() else None
    if untyped and type(value) is str:
        found = _WHOLE.fullmatch(value)
        if found is not None or is_integer(value):
            return int(found[1] if found else value)
    return None


def is_written_number(text: str) -> bool:
    """Whether people read the text as a number, even if Python does not: 0,5 or 1,200.50 or 12% or $3."""
    return _WRITTEN.fullmatch(text.strip()) is not None


def is_integer(text: str) -> bool:
    """Whether the text is an integer as Python writes it: not 007, 1_000 or +1, which are names."""
    try:
        return str(int(text)) == text.strip()
    except ValueError:
        return False


def alike(name: str) -> str:
    """A form that names share which differ only by blanks, case or Unicode's form.

    >>> alike(" Sci-Fi  Movie")
    'sci-fi movie'
    """
    form = name if name.isascii() else unicodedata.normalize("NFKC", name)  # which leaves ASCII as it is
    return " ".join(form.casefold().split())


def is_missing(value: Any) -> bool:
    """Whether a row has no label: None, NaN, pandas' NA and NaT, or a blank text."""
    if type(value) is float:
        return math.isnan(value)
    if type(value) is str:
        return not value.strip()
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def bad_label(table: Table, column: str, row: int, value: Any, expected: str, classes: bool = True) -> NoReturn:
    """Raise MinitrainError for the label of a row (counted from 0), with what to do about such values.

    classes: whether the labels may be classes, which can be named.
    """
    hint = ""
    if is_missing(value):
        hint = "; the row has no label: leave it out, or fill it in"
        hint += f", or name it, as in {as_flag({value: 'none'})}" if type(value) is str and classes else ""
    elif isinstance(value, list | tuple | dict | set) or hasattr(value, "shape"):
        hint = "; for several labels a text pass --problem_type multi_label_classification"
    elif isinstance(value, bytes):
        hint = "; write it as text"
    elif isinstance(value, Decimal | date | time):
        hint = "; write it as text or as a number"
    raise MinitrainError(
        f"{table.where(row)}, column {column!r}: the label is {shown(value)} "
        f"({type(value).__name__}); expected {expected}{hint}"
    )


def scores(table: Table, column: str) -> list[float]:
    """The score of every row. Raises MinitrainError naming source, row, column and value."""
    result = []
    for row, value in enumerate(raw_values(table, column)):
        readable = type(value) in (int, float) or table.untyped and type(value) is str
        try:
            number = float(value) if readable else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not abs(number) <= LARGEST_SCORE:  # NaN, too
            way = "; write it as 0.5: a decimal point, and no other signs" if is_written_number(str(value)) else ""
            if way and type(value) is str and not table.untyped:
                way = "; write it as a number, without quotes"
            bad_label(table, column, row, value, f"a finite number, as regression needs{way}", classes=False)
        result.append(number)
    return result


def label_keys(table: Table, column: str, values: Sequence[Any]) -> tuple[Sequence[Any], dict[Any, Any]]:
    """A key for each label, which tells 1, True and 1.0 apart, and key -> label for the distinct ones, in order.

    Raises:
        MinitrainError: A label cannot be a key, such as a list.
    """
    # A million labels of one type need no pairs.
    keys = values if len(set(map(type, values))) == 1 else list(zip(map(type, values), values, strict=True))
    try:
        return keys, dict(zip(keys, values, strict=True))
    except TypeError:
        for row, value in enumerate(values):
            try:
                hash(value)
            except TypeError:
                bad_label(table, column, row, value, "one class a text")
        raise


def row_of(values: Sequence[Any], value: Any) -> int:
    """The first row with this label, counted from 0."""
    return next(i for i, other in enumerate(values) if type(other) is type(value) and other in (value,))
