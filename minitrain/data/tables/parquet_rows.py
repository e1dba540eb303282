"""Parquet, and whatever else `datasets` has read -> columns, checked for what Python cannot hold."""

from pathlib import Path
from typing import Any

from minitrain.data.gc_pause import gc_paused
from minitrain.data.tables.table import Table, named
from minitrain.errors import MinitrainError
from minitrain.storage.hub_datasets import first_lines

MISSING = (
    "a cell that is empty or says None, NA, nan or null is missing to `datasets`. Get the file and pass it as "
    "--train_file, which reads what the cell says"
)


def read_parquet(path: Path) -> Table:
    """The rows of a parquet file. Raises MinitrainError naming the file, and the row that cannot be read."""
    with gc_paused():
        import datasets

    datasets.disable_progress_bars()  # reading says how far it is where that takes long
    try:
        datasets.disable_progress_bars()  # of seconds, and `progress` says what takes longer
        rows = datasets.Dataset.from_parquet(str(path))
    except Exception as error:  # pyarrow's and datasets' errors share no type
        cause = error.__cause__ or error
        raise MinitrainError(
            f"{path}: is no valid parquet file, or has no rows ({first_lines(cause)}); write it again"
        ) from error
    return arrow_table(str(path), rows)


def arrow_table(source: str, rows: Any, commit: str | None = None, from_text: bool = False) -> Table:
    """The table of a `datasets.Dataset`. from_text: of CSV or JSON, so that words may have become missing values.

    Raises MinitrainError naming row and column of what Python cannot hold.
    """
    features = rows.features
    for name in rows.column_names:
        _check_values(source, name, rows.data[name])
    places = named(rows.column_names)
    header = tuple(rows.column_names)
    return Table(
        source=source,
        columns={name: rows[header[i]] for i, name in places.items()},
        class_names={
            name: tuple(features[header[i]].names)
            for i, name in places.items()
            if hasattr(features[header[i]], "names")
        },
        commit=commit,
        header=header,
        gaps=_missing(source, rows, places) if from_text else {},
    )


def _missing(source: str, rows: Any, places: dict[int, str]) -> dict[str, str]:
    gaps = {}
    for i, name in places.items():
        column = rows.data[rows.column_names[i]]
        if column.null_count:
            row = next(row for row, value in enumerate(column, start=1) if not value.is_valid)
            gaps[name] = f"{source}, row {row}, column {name!r}: is None; {MISSING}"
    return gaps


def _check_values(source: str, name: str, column: Any) -> None:
    """Find what a parquet file can hold and Python cannot: text that is no UTF-8, dates after the year 9999."""
    try:
        column.validate(full=True)
        if str(column.type).startswith(("timestamp", "date", "duration")):
            column.to_pylist()
    except (ValueError, OverflowError) as error:
        row = next((i for i, value in enumerate(column, start=1) if not _can_be_read(value)), None)
        where = source if row is None else f"{source}, row {row}"
        raise MinitrainError(
            f"{where}, column {name!r}: is no valid value ({error}); write the file again"
        ) from error


def _can_be_read(value: Any) -> bool:
    try:
        value.as_py()
    except (ValueError, OverflowError):
        return False
    return True
