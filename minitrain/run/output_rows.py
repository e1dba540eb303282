"""What is written of a labelled row: what came in, and what the model makes of it, as JSON lines or CSV.

    {"id": 7, "text": "great film", "label": "positive", "probability": 0.9, "probabilities": {"negative": 0.1, ..}}

In CSV, which has no nesting, each class has a column: probability_negative, probability_positive. A column of the
input that has the name of an output is called input_label and so on. No file is opened here.
"""

import base64
import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, time
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from minitrain.data.labels.ids import Labels, display_names
from minitrain.data.tables.table import ABSENT, Table, writable
from minitrain.errors import MinitrainError, listed

OUTPUTS = ("label", "probability", "probabilities", "score")  # what a prediction adds
TRUE = "true_label"  # what an evaluation adds to that
SPLIT = "split"
LONG = 500  # characters: columns with a longer text are left out where nobody asks for them
PIECE = 1000  # rows looked at together, of columns that are read as they are asked for


def kept_columns(table: Table, texts: Sequence[str], asked: tuple[str, ...] | None) -> tuple[list[str], str | None]:
    """The columns that records have, in the table's order, and what to tell the user of those left out.

    texts: columns that are always kept. asked: names, ("all",), ("none",), or None for all without long texts.
    Raises MinitrainError naming a column that is not there.
    """
    others = [name for name in table.columns if name not in texts]
    if asked is None:
        long = [name for name in others if not _is_short(table.columns[name])]
        note = (
            f"left out {listed(long)}, of more than {LONG} characters; --keep_columns all keeps every column"
            if long
            else None
        )
        return [name for name in table.columns if name not in long], note
    if asked == ("all",):
        return list(table.columns), None
    wanted = () if asked == ("none",) else asked
    if missing := [name for name in wanted if name not in table.columns]:
        raise MinitrainError(
            f"--keep_columns {','.join(asked)}: {table.source} has no column {missing[0]!r}; it has "
            f"{listed(table.columns)}"
        )
    return [name for name in table.columns if name in texts or name in wanted], None


def _is_short(values: Sequence[Any]) -> bool:
    try:
        for start in range(0, len(values), PIECE):
            for value in values[start : start + PIECE]:
                if not isinstance(value, int | float | None):
                    text = value if isinstance(value, str) else _cell(value)
                    if len(text) > LONG:
                        return False
    except (ImportError, OSError, ValueError):  # pictures and sounds, which `datasets` decodes with other libraries
        return False
    return True


def plain(value: Any) -> Any:
    """A value as JSON has it: dates as in ISO 8601, bytes in base64, null for what is no number (NaN, infinity)."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    if hasattr(value, "tolist"):  # numpy's
        return plain(value.tolist())
    return str(value)  # decimals, durations


def _cell(value: Any) -> str:
    """A value as CSV has it: text as it is, nothing for null, and JSON for the rest."""
    value = None if value is ABSENT else plain(value)
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if writable(text) else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _json_line(record: Mapping[str, Any]) -> str:
    line = json.dumps(record, ensure_ascii=False)
    return f"{line if writable(line) else json.dumps(record)}\n"  # half of a surrogate pair is written escaped


@lru_cache(maxsize=1000)  # rows of JSON lines have few different sets of fields
def _keys(names: tuple[str, ...], outputs: tuple[str, ...]) -> tuple[str, ...]:
    """What columns of the input are called beside outputs: a name that is taken gets input_ before it."""
    taken = {*names, *outputs}
    keys = []
    for name in names:
        key = name
        if name in outputs:
            while key in taken:
                key = f"input_{key}"
            taken.add(key)
        keys.append(key)
    return tuple(keys)


@dataclass(frozen=True, kw_only=True)
class Records:
    """How rows are written. format: jsonl, csv or tsv. columns: of the input; of CSV, in all rows the same.

    added: what each row has beside its prediction, `TRUE` and `SPLIT` in an evaluation.
    """

    format: str
    labels: Labels
    columns: tuple[str, ...] | None = None
    added: tuple[str, ...] = ()
    outputs: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        nested = self.format == "jsonl" or self.labels.names is None
        flat = [] if nested else [f"probability_{name}" for name in display_names(self.labels.names or ())]
        object.__setattr__(self, "outputs", (*self.added, *OUTPUTS, *flat))

    def of_columns(self, columns: Iterable[str]) -> "Records":
        """The same for these columns."""
        return replace(self, columns=tuple(columns))

    def header(self) -> str:
        """What stands before all rows: names of columns in CSV, nothing in JSON lines."""
        if self.format == "jsonl":
            return ""
        assert self.columns is not None
        names = self.labels.names
        made = ("score",) if names is None else ("label", "probability", *self.outputs[len(self.added) + 4 :])
        return self._csv([[*map(_cell, _keys(self.columns, self.outputs)), *self.added, *map(_cell, made)]])

    def lines(self, table: Table, logits: Tensor, added: Sequence[Sequence[Any]] = ()) -> str:
        """Rows as text. logits: (N, C) of them. added: a column of values for each name of `self.added`."""
        names = tuple(table.columns) if self.columns is None else self.columns
        blank: Sequence[Any] = [ABSENT] * len(table)
        values = [table.columns[name][:] if name in table.columns else blank for name in names]
        rows = zip(zip(*values, strict=True), zip(*added, strict=True) if added else [()] * len(table), strict=True)
        answers = self._answers(logits)
        if self.format == "jsonl":
            return "".join(
                _json_line(self._kept(names, row) | dict(zip(self.added, more, strict=True)) | answer)
                for (row, more), answer in zip(rows, answers, strict=True)
            )
        return self._csv(
            [*map(_cell, row), *map(_cell, more), *map(_cell, _flat(answer))]
            for (row, more), answer in zip(rows, answers, strict=True)
        )

    def _kept(self, names: tuple[str, ...], row: tuple[Any, ...]) -> dict[str, Any]:
        there = tuple(name for name, value in zip(names, row, strict=True) if value is not ABSENT)
        kept = (plain(value) for value in row if value is not ABSENT)
        return dict(zip(_keys(there, self.outputs), kept, strict=True))

    def _answers(self, logits: Tensor) -> Iterator[dict[str, Any]]:
        if self.labels.names is None:
            yield from ({"score": score} for score in logits[:, 0].tolist())
            return
        names = display_names(self.labels.names)
        chances = logits.double().softmax(-1)
        for best, row in zip(torch.argmax(logits, -1).tolist(), chances.tolist(), strict=True):
            probabilities = dict(zip(names, row, strict=True))
            yield {"label": names[best], "probability": row[best], "probabilities": probabilities}

    def _csv(self, rows: Iterable[Sequence[str]]) -> str:
        text = io.StringIO()
        csv.writer(text, delimiter="," if self.format == "csv" else "\t", lineterminator="\n").writerows(rows)
        return text.getvalue()


def _flat(answer: dict[str, Any]) -> list[Any]:
    """label, probability, and one of each class; or a score."""
    *first, last = answer.values()
    return [*first, *last.values()] if isinstance(last, dict) else [*first, last]
