"""The labels of a column as plain Python values, with `--label_map` applied; what they mean is for `labels.py`."""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from typing import Any, NoReturn

from minitrain.config.label_map import as_flag
from minitrain.data.tables.table import Table
from minitrain.errors import MinitrainError, listed, shown

LARGEST = 10**100  # of a number that is the name of a class
_PLAIN = {str, int, float, bool, type(None)}
_DIGITS = r"(?:[0-9]{1,3}(?:[.,' ][0-9]{3})+|[0-9]+)(?:[.,][0-9]+)?"
_WRITTEN = re.compile(rf"[$€£]?\s?[-+]?[$€£]?\s?{_DIGITS}\s?[%$€£]?")
_WHOLE = re.compile(r"\s*(-?(?:0|[1-9][0-9]*))\.0*\s*")


class Name(str):
    """A label that `--label_map` gave: the name of a class, and never a number."""


def raw_values(table: Table, column: str) -> list[Any]:
    """The labels as the data has them; scalars of numpy and torch as Python's."""
    values = list(table.column(column)[:])
    return values if set(map(type, values)) <= _PLAIN else [_plain(value) for value in values]


def label_values(table: Table, column: str, label_map: Mapping[str, str] | None = None) -> list[Any]:
    """The labels, a `Name` each that the map renames. Integers of a column with class names stay as they are."""
    values = raw_values(table, column)
    if not label_map:
        return values
    numbered = column in table.class_names
    return [value if numbered and type(value) is not str else renamed(value, table, label_map) for value in values]


def class_names(table: Table, column: str, label_map: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """What the integers of a column are known to stand for, as the map renames it; () where that is not known."""
    names = table.class_names.get(column, ())
    return tuple((label_map or {}).get(name, name) for name in names)


def renamed(value: Any, table: Table, label_map: Mapping[str, str]) -> Any:
    """One label as the map has it, by any way to write it: "0" stands for 0, 0.0 and, in a CSV file, for "0.0"."""
    for text in _spellings(value, table.untyped):
        if text in label_map:
            return Name(label_map[text])
    return value


def check_label_map(tables: Sequence[Table], column: str, label_map: Mapping[str, str] | None) -> None:
    """Raise MinitrainError where the map renames nothing that occurs in any table, naming what does."""
    tables = [table for table in tables if column in table.columns]
    if not label_map or not tables:
        return
    occurring: dict[str, None] = {}
    for table in tables:
        names = table.class_names.get(column, ())
        kinds = {str} if names else _PLAIN  # integers that have names go by them
        found = {(type(v), v): v for v in [*names, *raw_values(table, column)] if type(v) in kinds}.values()
        if any(type(renamed(value, table, label_map)) is Name for value in found):
            return
        occurring |= {shown(value): None for value in found}
    raise MinitrainError(
        f"{as_flag(label_map)}: no label of column {column!r} is called {listed(map(repr, label_map))}; the data "
        f"has {listed(occurring)}: write old=new with the old names as the data has them"
    )


def whole_number(value: Any, untyped: bool) -> int | None:
    """The number that a label is: 1, 1.0 and, where all values are text, "1", " 1" and "1.0". "01" is a name."""
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
    """Whether a text is a number to people, and maybe none to Python: 0,5 and 1,200.50 and 12% and $3."""
    return _WRITTEN.fullmatch(text.strip()) is not None


def is_integer(text: str) -> bool:
    """Whether a text is an integer as Python writes it: not 007, 1_000 or +1, which are names."""
    try:
        return str(int(text)) == text.strip()
    except ValueError:
        return False


def alike(name: str) -> str:
    """What names have in common that differ only by blanks or case, or by how Unicode writes a letter."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def is_missing(value: Any) -> bool:
    """Whether a row has no label: None, NaN, pandas' NA and NaT, or a text with nothing in it."""
    if type(value) is float:
        return math.isnan(value)
    if type(value) is str:
        return not value.strip()
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def bad_label(table: Table, column: str, index: int, value: Any, expected: str, classes: bool = True) -> NoReturn:
    """Raise MinitrainError for the label of a row, counted from 0, saying what to do about values of its kind.

    classes: whether the labels may be classes, which can be named.
    """
    hint = ""
    if is_missing(value):
        hint = "; the row has no label: leave it out, or fill it in"
        hint += f", or name it, as in {as_flag({value: 'none'})}" if type(value) is str and classes else ""
    elif isinstance(value, list | tuple | dict | set) or hasattr(value, "shape"):
        hint = "; a text has one label here: keep one of them, or train a model a label"
    elif isinstance(value, bytes):
        hint = "; write it as text"
    elif isinstance(value, Decimal | date | time):
        hint = "; write it as text or as a number"
    raise MinitrainError(
        f"{table.where(index)}, column {column!r}: the label is {shown(value)} "
        f"({type(value).__name__}); expected {expected}{hint}"
    )


def _can_be_key(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _spellings(value: Any, untyped: bool) -> list[str]:
    number = whole_number(value, untyped)
    if isinstance(value, bool):
        return [str(value), str(value).lower()]
    if not isinstance(value, str | int | float):
        return []
    return [str(value)] if number is None or abs(number) >= LARGEST else [str(value), str(number)]


def _plain(value: Any) -> Any:
    """numpy.int64(1) -> 1, torch.tensor(1) -> 1, numpy.str_("a") -> "a"; anything else as it is."""
    if callable(getattr(value, "item", None)) and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind.__str__(value) if kind is str else kind(value)
    return value


def label_keys(table: Table, column: str, values: Sequence[Any]) -> tuple[Sequence[Any], dict[Any, Any]]:
    """A key of each label, which keeps 1, True and 1.0 apart, and the distinct labels by key, as they appear.

    Raises MinitrainError for what no key can be, a list above all.
    """
    # A million labels of one type need no pairs.
    keys = values if len(set(map(type, values))) == 1 else list(zip(map(type, values), values, strict=True))
    try:
        return keys, dict(zip(keys, values, strict=True))
    except TypeError:
        row = next(row for row, value in enumerate(values) if not _can_be_key(value))
        bad_label(table, column, row, values[row], "one class a text")
