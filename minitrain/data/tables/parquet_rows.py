"""Parquet, and datasets that `datasets` has read -> columns, checked for values that Python cannot hold."""

from pathlib import Path
from typing import Any

from minitrain.data.gc_pause import gc_paused
from minitrain.data.tables.table import Table, class_names_of, named
from minitrain.errors import MinitrainError, cut
from minitrain.storage.hub_datasets import first_lines

MISSING = (
    "to `datasets` a cell that is empty or says None, NA, nan or null is missing; fill it in, leave the row out, "
    "or pass the file itself as --train_file, which reads words such as NA as they are"
)


def read_parquet(path: Path) -> Table:
    """Read the rows of a parquet file. Raises MinitrainError naming the file, and the row that cannot be read."""
    with gc_paused():
        import datasets

    try:
        datasets.disable_progress_bars()
        rows = datasets.Dataset.from_parquet(str(path))
    except Exception as error:  # the errors of pyarrow and datasets share no type
        cause = first_lines(error.__cause__ or error)
        raise MinitrainError(
            f"{path}: is no valid parquet file or has no rows ({cause}); write it again"
        ) from error
    return arrow_table(str(path), rows)


def arrow_table(source: str, rows: Any, commit: str | None = None, from_text: bool = False) -> Table:
    """The table of a `datasets.Dataset`.

    Args:
        from_text: `datasets` read it from CSV or JSON, so that words such as NA have become missing values.

    Raises:
        MinitrainError: Names row and column of a value that Python cannot hold.
    """
    for name in rows.column_names:
        _check_values(source, name, rows.data[name])
    header = tuple(rows.column_names)
    stored = {name: header[i] for i, name in named(header).items()}
    gaps = {}
    for name, own in stored.items() if from_text else ():
        if rows.data[own].null_count:
            row = next(row for row, value in enumerate(rows.data[own], start=1) if not value.is_valid)
            gaps[name] = f"{source}, row {row}, column {name!r}: is None; {MISSING}"
    return Table(
        source=source,
        columns={name: rows[own] for name, own in stored.items()},
        class_names=class_names_of({name: rows.features[own] for name, own in stored.items()}),
        commit=commit,
        header=header,
        gaps=gaps,
    )


def _check_values(source: str, name: str, column: Any) -> None:
    """Raise MinitrainError for text that is not UTF-8, and for dates after the year 9999."""
    try:
        column.validate(full=True)
        if str(column.type).startswith(("timestamp", "date", "duration")):
            column.to_pylist()
    except (ValueError, OverflowError) as error:
        row = next((i for i, value in enumerate(column, start=1) if not _can_be_read(value)), None)
        where = source if row is None else f"{source}, row {row}"
        what = f"is no valid value ({cut(error)}); write the file again"
        raise MinitrainError(f"{where}, column {name!r}: {what}") from error


def _can_be_read(value: Any) -> bool:
    try:
        value.as_py()
    except (ValueError, OverflowError):
        return False
    return True
