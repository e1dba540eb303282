"""Lines of standard input or of a .txt file as rows: texts, pairs of texts, or JSON objects.

Without --input_format the first line decides the format; a later line of another format is an error. Lines of a
pipe are passed on as they arrive.
"""

import json
import os
import select
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from minitrain.config.inference_config import PredictConfig
from minitrain.data.tables.table import ABSENT, Table, field_of, writable
from minitrain.errors import MinitrainError, listed, naming_os_errors, shown
from minitrain.run.saved_run import SavedRun

GRACE = 0.02  # seconds to wait for the next line, to batch the lines of a fast pipe
NAMES = ("text", "text_pair")  # columns of plain lines


class LineParser:
    """Turns lines into tables as they arrive; `source` names them in errors."""

    def __init__(self, source: str, config: PredictConfig, run: SavedRun) -> None:
        self.source, self.format, self.pairs = source, config.input_format, run.pairs
        self.asked = config.text_columns is not None
        # None: text, and text_pair if the objects have it.
        self.columns = run.columns(config.text_columns) if self.asked or run.text_columns else None
        # A CSV has one header, so no row may have a column that the first lacks.
        self.one_header = config.format != "jsonl" and config.keep_columns in (None, ("all",))
        self.fields: tuple[str, ...] | None = None  # of the first JSON object
        self._is_told = config.input_format is not None
        self._number = 0  # of the last line

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns of the tables that hold texts, once a line was parsed."""
        if self.format == "text":
            return NAMES if self.pairs else NAMES[:1]
        return self._needed

    @property
    def _needed(self) -> tuple[str, ...]:
        return self.columns or NAMES[:1]

    def table(self, lines: Sequence[bytes]) -> tuple[Table, MinitrainError | None]:
        """The rows of the next lines, up to a bad one, and the error that names it."""
        rows: list[dict[str, Any]] = []
        error = None
        try:
            for line in lines:
                self._number += 1
                if (row := self._row(self._text(line))) is not None:
                    rows.append(row)
        except MinitrainError as found:
            error = found
        names = dict.fromkeys(name for row in rows for name in row)
        columns = {name: [row.get(name, ABSENT) for row in rows] for name in names}
        return Table(source=self.source, columns=columns, class_names={}), error

    @property
    def _where(self) -> str:
        return f"{self.source}, line {self._number}"

    def _text(self, line: bytes) -> str:
        if self._number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            return line.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise MinitrainError(
                f"{self._where}: is not UTF-8 at byte {error.start}; convert it, as iconv -f latin1 -t utf-8 does"
            ) from error

    def _row(self, line: str) -> dict[str, Any] | None:
        if self.format is None and (line.strip() or not self.asked):  # blank lines may come before JSON
            self._detect_format(line)
        if self.format == "text" and self.pairs is None:
            self.pairs = "\t" in line
        if self.format != "text":
            return self._fields_of(line) if line.strip() else None
        if not self._is_told and (found := _object(line)) and set(self._needed) <= set(self._unfolded(found)):
            raise MinitrainError(
                f"{self._where}: is a JSON object with {listed(self._needed)}, and line 1 is plain text; pass "
                "--input_format text or jsonl"
            )
        return self._pair(line) if self.pairs else {NAMES[0]: line}

    def _detect_format(self, line: str) -> None:
        if _object(line) is not None or (self.asked and line.lstrip().startswith("{")):  # it may be broken
            self.format = "jsonl"
            return
        if self.asked:
            raise MinitrainError(
                f"{self._where}: expected a JSON object with {listed(self._needed)}, as --text_columns asks, "
                f"got {shown(line)}; without that flag lines are texts"
            )
        self.format = "text"
        for delimiter in ("\t", ",", ";"):
            names = [name.strip('"') for name in line.split(delimiter)]
            prose = any(name != name.strip() for name in names)  # a space follows the comma
            if len(names) > 1 and not prose and self.columns and set(self.columns) <= set(names):
                raise MinitrainError(
                    f"{self._where}: is the header of a table ({listed(names)}), not a text: pass the table as a "
                    ".csv or .tsv file with --input, or pass --input_format text"
                )
        start = line.strip()
        if start in ("[", "{") or (start.startswith("[") and start[1:].lstrip().startswith("{")):
            raise MinitrainError(
                f"{self._where}: is the start of JSON that spans several lines; write one object per line, as "
                "jq -c '.[]' does for a list, or pass a .json file with --input, or pass --input_format text"
            )

    def _pair(self, line: str) -> dict[str, Any]:
        left, tab, right = line.partition("\t")
        if not tab:
            raise MinitrainError(f"{self._where}: expected two texts with a tab between them, got {shown(line)}")
        return dict(zip(NAMES, (left, right), strict=True))

    def _unfolded(self, row: dict[str, Any]) -> dict[str, Any]:
        """Add the nested fields that are text columns, as `review.text`."""
        for name in self._needed:
            if (value := field_of(row, name)) is not ABSENT:
                row = {**row, name: value}
        return row

    def _fields_of(self, line: str) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise MinitrainError(
                f"{self._where}: is not valid JSON ({error}); write one object per line, or "
                "pass --input_format text"
            ) from error
        if not isinstance(row, dict):
            raise MinitrainError(f"{self._where}: expected a JSON object, got {shown(row)}")
        if self.columns is None:
            self.columns = NAMES if NAMES[1] in row and self.pairs is not False else NAMES[:1]
        row = self._unfolded(row)
        for name in self.columns:
            if not isinstance(row.get(name), str) or not writable(row[name]):
                got = f"{shown(row[name])} ({type(row[name]).__name__})" if name in row else "no such field"
                raise MinitrainError(
                    f"{self._where}, field {name!r}: expected a text, got {got}; the object has {listed(row)}: "
                    "name those with texts by --text_columns, or pass --input_format text to label lines as such"
                )
        self.fields = self.fields or tuple(row)
        if self.one_header and (more := [name for name in row if name not in self.fields]):
            raise MinitrainError(
                f"{self._where}: has the field {more[0]!r}, which the first row lacks, and a CSV has one header; "
                "write JSON lines (--output_format jsonl), or name the columns with --keep_columns"
            )
        return row


def _object(line: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = None
    if line.lstrip().startswith("{"):
        with suppress(ValueError, RecursionError):
            found = json.loads(line)
    return found


def arriving(stream: BinaryIO, sizes: Iterator[int]) -> Iterator[list[bytes]]:
    """Yield lists of lines without line feeds as soon as any arrive; `sizes` gives their maximum lengths."""
    try:
        number = stream.fileno()
    except (OSError, AttributeError):  # a stream in memory
        yield from _pieces(whole_lines(stream.read()), sizes)
        return
    lines: list[bytes] = []
    rest: list[bytes] = []  # pieces of an unfinished line
    most = next(sizes)
    while True:
        if lines and (len(lines) >= most or not select.select([number], [], [], GRACE)[0]):
            yield lines[:most]
            lines, most = lines[most:], next(sizes)
            continue
        data = os.read(number, 2**16)
        if not data:
            break
        *ended, last = data.split(b"\n")
        if ended:
            ended[0] = b"".join([*rest, ended[0]])
            rest = []
            lines += ended
        rest.append(last)
    yield from _pieces([*lines, *whole_lines(b"".join(rest))], chain((most,), sizes))


def _pieces(lines: list[bytes], sizes: Iterator[int]) -> Iterator[list[bytes]]:
    while lines:
        most = next(sizes)
        yield lines[:most]
        lines = lines[most:]


def whole_lines(data: bytes) -> list[bytes]:
    """Split into lines without line feeds; the last one may lack it."""
    lines = data.split(b"\n")
    return lines if lines[-1] else lines[:-1]


@contextmanager
def opened(name: str | None) -> Iterator[BinaryIO]:
    """Open a pipe, or standard input for None. Raises MinitrainError naming it."""
    if name is None:
        if sys.stdin is None:
            raise MinitrainError("standard input is closed; pass --input, or texts, one per line")
        if sys.stdin.isatty():
            print("reading texts from the terminal, one per line; Ctrl-D ends", file=sys.stderr)
        yield sys.stdin.buffer
        return
    with naming_os_errors(f"--input {name}: cannot be read"), Path(name).open("rb", buffering=0) as stream:
        yield stream
