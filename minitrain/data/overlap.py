"""Whether a run is scored on rows that are in its training data, too."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from minitrain.data.tables.table import Table
from minitrain.errors import MinitrainError


def overlap_notes(
    train: Table, evaluation: Mapping[str, Table], text_columns: Sequence[str], label_column: str
) -> list[str]:
    """A note on each table with rows (texts and label) that are training rows, too."""
    notes = []
    columns = (*text_columns, label_column)
    for name, table in evaluation.items():
        try:
            rows = list(_rows(table, columns))
            common = set(rows).intersection(_rows(train, columns))
        except (MinitrainError, TypeError):  # whoever uses a bad value reports it
            continue
        if shared := sum(row in common for row in rows):
            notes.append(f"{name}: {shared} of {len(table)} rows stand in the training data too, text and label")
    return notes


def _rows(table: Table, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Texts and label of each row that has some text."""
    for *texts, label in zip(*(table.column(name)[:] for name in columns), strict=True):
        if any(texts):
            yield (*texts, str(label))
