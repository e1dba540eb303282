"""--label_columns: several columns of 0 and 1, one a label, as one column that lists the labels of each row."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from minitrain.data.labels.values import raw_values
from minitrain.data.tables.table import Table
from minitrain.errors import MinitrainError, shown

_WORDS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}  # in a format without types


def name_of_columns(columns: Sequence[str]) -> str:
    """The name of the column that `with_label_column` adds."""
    return " + ".join(columns) if len(columns) > 1 else f"{columns[0]} (0 or 1)"


def with_label_column(table: Table, columns: Sequence[str]) -> Table:
    """The table with a column that lists, for each row, the numbers of the label columns that are 1.

    Raises:
        MinitrainError: A column is missing, or a value is neither 0 nor 1; names row and column.
    """
    name, found = name_of_columns(columns), tuple(column.strip() for column in columns)
    if table.class_names.get(name) == found:
        return table
    if name in table.columns:
        raise MinitrainError(f"{table.source}: has a column {name!r}, which --label_columns would add; rename it")
    flags = [_flags(table, column) for column in columns]
    lists = [[i for i, on in enumerate(row) if on] for row in zip(*flags, strict=True)]
    return replace(table, columns={**table.columns, name: lists}, class_names={**table.class_names, name: found})


def with_label_columns(tables: Mapping[str, Table], columns: Sequence[str]) -> dict[str, Table]:
    """`with_label_column` for all splits; a test split whose labels are all -1, or all missing, is left alone."""
    return {
        name: table if _is_hidden(name, table, columns) else with_label_column(table, columns)
        for name, table in tables.items()
    }


def _is_hidden(split: str, table: Table, columns: Sequence[str]) -> bool:
    if split.startswith(("train", "validation")):
        return False
    if all(table.find(column) is None for column in columns):
        return True
    there = all(table.find(column) is not None for column in columns)
    return there and all(value in (-1, "-1") for column in columns for value in raw_values(table, column))


def _flags(table: Table, column: str) -> list[int]:
    return [_flag(table, column, row, value) for row, value in enumerate(raw_values(table, column))]


def _flag(table: Table, column: str, row: int, value: Any) -> int:
    if isinstance(value, int | float) and value in (0, 1):
        return int(value)
    if table.untyped and isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    hint = "leave the row out, or fill it in"
    if value in (-1, "-1"):
        hint = "-1 marks a hidden label: leave the row out"
    elif isinstance(value, str) and value.strip() in ("0", "1"):
        hint = "write it without quotes"
    raise MinitrainError(
        f"{table.where(row)}, column {column!r}: the value is {shown(value)} ({type(value).__name__}); expected 0 "
        f"or 1, or true or false, as in every one of --label_columns; {hint}"
    )
