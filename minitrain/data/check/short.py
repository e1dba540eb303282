"""The short check before every run: what costs a microsecond a row, and says nothing about clean data."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from minitrain.config.data_config import DataConfig
from minitrain.config.label_map import as_flag
from minitrain.data.check.keys import first_rows, groups_of, text_keys
from minitrain.data.labels.ids import Labels, class_counts
from minitrain.data.labels.notes import plain, rare_classes
from minitrain.data.labels.numbered import label_numbers
from minitrain.data.tables.table import Table
from minitrain.errors import MinitrainError

LONGEST = 300  # characters of a command


def short_check(
    train: Table,
    others: Mapping[str, Table],
    text_columns: Sequence[str],
    label_column: str,
    labels: Labels,
    config: DataConfig,
) -> list[str]:
    """Notes on rows of other splits that are training rows, texts with two labels, and rare classes.

    The last note is the command that shows the rows. The main process alone looks.
    """
    if os.environ.get("RANK", "0") != "0":
        return []
    try:
        keys = _keys(train, text_columns)
        notes = overlap_notes(train, others, text_columns, label_column, keys)
        notes += _conflicts(train, keys, label_column, labels) + _rare(train, label_column, labels)
    except (MinitrainError, TypeError):  # the code that uses a bad value reports it
        return []
    return notes + _command(config) if notes else []


def _keys(table: Table, text_columns: Sequence[str]) -> list[int | None]:
    """The keys of a table. Raises MinitrainError or TypeError if a column or text is missing."""
    columns = [table.column(name)[:] for name in text_columns]
    if any(set(map(type, column)) != {str} for column in columns):
        raise TypeError("a value is no text")
    return text_keys(columns)


def overlap_notes(
    train: Table,
    others: Mapping[str, Table],
    text_columns: Sequence[str],
    label_column: str,
    keys: Sequence[int | None] | None = None,
) -> list[str]:
    """A note on each table with rows (texts and label) that are training rows, too. keys: of the training rows."""
    keys = _keys(train, text_columns) if keys is None else keys
    known = set(keys) - {None}
    notes = []
    for name, table in others.items():
        try:
            theirs = _keys(table, text_columns)
        except (MinitrainError, TypeError):
            continue
        if not (common := known.intersection(theirs)):  # usually: then labels need not be looked at
            continue
        labels, their_labels = train.column(label_column)[:], table.column(label_column)[:]
        trained = {(key, str(label)) for key, label in zip(keys, labels, strict=True) if key in common}
        if shared := sum((key, str(label)) in trained for key, label in zip(theirs, their_labels, strict=True)):
            notes.append(f"{name}: {shared} of {len(table)} rows stand in the training data too, text and label")
    return notes


def _conflicts(train: Table, keys: Sequence[int | None], label_column: str, labels: Labels) -> list[str]:
    groups = groups_of(first_rows(keys)) if labels.names is not None else {}
    if not groups:
        return []
    numbers: Sequence[Any] = label_numbers(train, label_column, labels)
    found = [rows for rows in groups.values() if any(numbers[row] != numbers[rows[0]] for row in rows)]
    if not found:
        return []
    return [f"train: {sum(map(len, found))} rows share their text with rows of another label"]


def _rare(train: Table, label_column: str, labels: Labels) -> list[str]:
    if labels.names is None or labels.multi_label:
        return []
    counts = class_counts(train, label_column, labels)
    rare = rare_classes(counts, len(labels.names), len(train))
    if not rare:
        return []
    shown = ", ".join(f"'{plain(labels.names[i])}' {counts[i]}" for i in rare[:5])
    more = f" and {len(rare) - 5} more classes" if len(rare) > 5 else ""
    return [f"train: very few rows of {shown}{more}"]


def _command(config: DataConfig) -> list[str]:
    """The command that shows the rows; none for data in memory."""
    if config.dataset is None and config.train_file is None:
        return []
    words = ["python scripts/check.py"]
    for spec in fields(DataConfig):
        value = getattr(config, spec.name)
        if value != spec.default and spec.name not in ("max_train_samples", "max_eval_samples", "group_column"):
            words.append(as_flag(value) if isinstance(value, dict) else f"--{spec.name} {_quoted(value)}")
    text = " ".join(words)
    return [f"{text if len(text) <= LONGEST else f'{words[0]} with the same flags of data'} shows the rows"]


def _quoted(value: Any) -> str:
    if isinstance(value, tuple):
        value = json.dumps(value) if any("," in each or each != each.strip() for each in value) else ",".join(value)
    return shlex.quote(str(value))
