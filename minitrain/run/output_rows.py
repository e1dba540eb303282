"""Rows of input with their predictions as JSON lines or CSV. This module formats text and opens no file.

    {"id": 7, "text": "great film", "label": "positive", "probability": 0.9, "probabilities": {"negative": 0.1, ..}}

CSV has one column per class instead: probability_negative, probability_positive. Of several labels a row, `labels`
lists those above the threshold. An input column with the name of an output is renamed: input_label.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from torch import Tensor

from minitrain.data.labels.ids import Labels, display_names
from minitrain.data.tables.table import ABSENT, Table, writable
from minitrain.errors import MinitrainError, listed
from minitrain.run.answers import answers
from minitrain.run.output_file import OutputFile
from minitrain.run.report import as_json
from minitrain.run.saved_run import print_notes
from minitrain.training.calibration import Calibration

OUTPUTS = ("label", "probability", "probabilities", "score")  # of a prediction
OF_SEVERAL = ("labels", "probabilities")  # of a prediction of several labels a row
TRUE = "true_label"  # added by an evaluation
SPLIT = "split"
LONG = 500  # characters; columns with longer texts are left out by default
CHUNK = 1000  # rows read at once from a lazy column


def kept_columns(table: Table, texts: Sequence[str], asked: tuple[str, ...] | None) -> tuple[list[str], str | None]:
    """The columns of the output in the table's order, and a note about those left out.

    Args:
        table: The input.
        texts: Columns that are always kept.
        asked: Names, ("all",), ("none",), or None for all columns without long texts.

    Raises:
        MinitrainError: `asked` names a column that the table lacks.
    """
    others = [name for name in table.columns if name not in texts]
    if asked is None:
        long = [name for name in others if not _is_short(table.columns[name])]
        note = f"left out {listed(long)}, of more than {LONG} characters; --keep_columns all keeps every column"
        return [name for name in table.columns if name not in long], note if long else None
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
        for start in range(0, len(values), CHUNK):
            for value in values[start : start + CHUNK]:
                if not isinstance(value, int | float | None):
                    text = value if isinstance(value, str) else _cell(value)
                    if len(text) > LONG:
                        return False
    except (ImportError, OSError, ValueError):  # images and audio that `datasets` cannot decode here
        return False
    return True


def _cell(value: Any) -> str:
    """A CSV field: text unchanged, null as nothing, anything else as JSON."""
    value = None if value is ABSENT else as_json(value)
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if writable(text) else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _json_line(record: Mapping[str, Any]) -> str:
    line = json.dumps(record, ensure_ascii=False)
    return f"{line if writable(line) else json.dumps(record)}\n"  # escapes a lone surrogate


@lru_cache(maxsize=1000)  # rows of JSON lines share few sets of fields
def _keys(names: tuple[str, ...], outputs: tuple[str, ...]) -> tuple[str, ...]:
    """Output names of input columns: the name of an output gets the prefix input_."""
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


class RowWriter:
    """Writes rows of input with their predictions to `file`: the header of CSV, then a line per row.

    `format` is jsonl, csv or tsv; `added` names further values of a row: `TRUE` and `SPLIT` in an evaluation.
    """

    def __init__(
        self,
        file: OutputFile,
        format: str,
        labels: Labels,
        added: tuple[str, ...] = (),
        calibration: Calibration | None = None,
    ) -> None:
        self.file, self.format, self.labels, self.added = file, format, labels, added
        self.calibration = calibration
        # The input columns of all rows; None takes those of each table, which only JSON lines can.
        self.columns: tuple[str, ...] | None = None
        nested = format == "jsonl" or labels.names is None
        flat = [] if nested else [f"probability_{name}" for name in display_names(labels.names or ())]
        self.outputs = (*added, *(OF_SEVERAL if labels.multi_label else OUTPUTS), *flat)
        self.flat = flat

    def choose_columns(self, table: Table, texts: Sequence[str], asked: tuple[str, ...] | None) -> None:
        """Keep the columns of `kept_columns`, and print a note about the others."""
        columns, note = kept_columns(table, texts, asked)
        print_notes(table.source, note)
        self.columns = tuple(columns)

    def write(self, table: Table, logits: Tensor, added: Sequence[Sequence[Any]] = (), more: bool = False) -> None:
        """Write the rows of a table.

        Args:
            table: The input.
            logits: (rows, C).
            added: One column of values per name in `self.added`.
            more: Other tables follow.
        """
        header = self._header() if self.file.rows == 0 else ""
        self.file.write(header + self._lines(table, logits, added), len(table), more)

    def _header(self) -> str:
        if self.format == "jsonl":
            return ""
        assert self.columns is not None
        made = ("score",) if self.labels.names is None else ("label", "probability", *self.flat)
        made = ("labels", *self.flat) if self.labels.multi_label else made
        return self._csv([[*map(_cell, _keys(self.columns, self.outputs)), *self.added, *map(_cell, made)]])

    def _lines(self, table: Table, logits: Tensor, added: Sequence[Sequence[Any]]) -> str:
        names = tuple(table.columns) if self.columns is None else self.columns
        blank: Sequence[Any] = [ABSENT] * len(table)
        values = [table.columns[name][:] if name in table.columns else blank for name in names]
        rows = zip(zip(*values, strict=True), zip(*added, strict=True) if added else [()] * len(table), strict=True)
        if self.format == "jsonl":
            return "".join(
                _json_line(self._kept(names, row) | dict(zip(self.added, more, strict=True)) | answer)
                for (row, more), answer in zip(rows, answers(logits, self.labels, self.calibration), strict=True)
            )
        return self._csv(
            [*map(_cell, row), *map(_cell, more), *map(_cell, _flat(answer))]
            for (row, more), answer in zip(rows, answers(logits, self.labels, self.calibration), strict=True)
        )

    def _kept(self, names: tuple[str, ...], row: tuple[Any, ...]) -> dict[str, Any]:
        there = tuple(name for name, value in zip(names, row, strict=True) if value is not ABSENT)
        kept = (as_json(value) for value in row if value is not ABSENT)
        return dict(zip(_keys(there, self.outputs), kept, strict=True))

    def _csv(self, rows: Iterable[Sequence[str]]) -> str:
        text = io.StringIO()
        csv.writer(text, delimiter="," if self.format == "csv" else "\t", lineterminator="\n").writerows(rows)
        return text.getvalue()


def _flat(answer: dict[str, Any]) -> list[Any]:
    """label, probability (or labels) and the probability of each class; or the score."""
    *first, last = answer.values()
    return [*first, *last.values()] if isinstance(last, dict) else [*first, last]
