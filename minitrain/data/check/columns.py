"""Columns of tables as they are: a row without a value is no error here."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from minitrain.data.tables.table import ABSENT, Table, field_of


def has_column(table: Table, name: str) -> bool:
    """Whether a table has a column, or one whose fields may be meant: `review.text`."""
    return table.find(name) is not None or "." in name and name.split(".")[0] in table.columns


def values_of(table: Table, name: str) -> list[Any]:
    """The values of a column or nested field; `ABSENT` for a row, or a table, that has no such field."""
    found = table.find(name)
    if found is not None:
        return list(table.columns[found][:])
    outer, dot, _ = name.partition(".")
    if dot and outer in table.columns:
        return [field_of({outer: value}, name) for value in table.columns[outer][:]]
    return [ABSENT] * len(table)


def with_column(table: Table, name: str) -> Table:
    """The table with this column alone, whatever rows lack it."""
    return replace(table, columns={name: values_of(table, name)}, gaps={})


def only(table: Table, rows: Sequence[int]) -> Table:
    """These rows of a table whose columns are lists, with the numbers they had."""
    columns = {name: [values[row] for row in rows] for name, values in table.columns.items()}
    numbers = [row if table.numbers is None else table.numbers[row] for row in rows]
    return replace(table, columns=columns, numbers=numbers, gaps={})
