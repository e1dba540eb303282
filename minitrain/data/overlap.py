"""Whether rows that a run is scored on stand in its training data, too."""

from collections.abc import Mapping, Sequence
from typing import Any

from minitrain.data.tables.table import Table
from minitrain.errors import MinitrainError


def overlap_notes(
    train: Table, evaluation: Mapping[str, Table], text_columns: Sequence[str], label_column: str
) -> list[str]:
    """A note for each table some of whose rows, texts and label, are training rows, too.

    Rows without any text do not count. A million rows take a second.
    """
    notes = []
    for name, table in evaluation.items():
        try:
            shared = _shared(train, table, text_columns, label_column)
        except (MinitrainError, TypeError):  # what is wrong with a value is said where it is used
            continue
        if shared:
            notes.append(f"{name}: {shared} of {len(table)} rows stand in the training data too, text and label")
    return notes


def _shared(train: Table, table: Table, text_columns: Sequence[str], label_column: str) -> int:
    texts, ours = _texts(table, text_columns), _texts(train, text_columns)
    common = set(texts).intersection(ours)
    if not common:
        return 0
    labels = train.column(label_column)[:]
    trained = {(text, str(label)) for text, label in zip(ours, labels, strict=True) if text in common}
    own = zip(texts, table.column(label_column)[:], strict=True)
    return sum((text, str(label)) in trained for text, label in own if any(text))


def _texts(table: Table, columns: Sequence[str]) -> Sequence[Any]:
    """The text of each row, or its texts."""
    parts = [table.column(name)[:] for name in columns]
    return parts[0] if len(parts) == 1 else list(zip(*parts, strict=True))
