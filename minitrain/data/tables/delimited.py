"""CSV and TSV -> columns of text: RFC 4180 as the csv module reads it, without blank lines.

Also handles files as people have them: another delimiter than the suffix says, Excel's `sep=;`, empty cells after
the last column, columns without a name, and double quotes that are ordinary characters.
"""

import csv
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from itertools import chain, islice
from typing import Any

from minitrain.config.read_options import ReadOptions
from minitrain.data.tables.table import BETWEEN, Table, named
from minitrain.errors import MinitrainError, shown

SAMPLE = 100  # lines from which the delimiter is detected
BLOCK = 200  # rows transposed at once; the garbage collector would visit more of them
_EXCEL = re.compile(r'"?sep=(.)"?[\r\n]*', re.IGNORECASE)
_LINE_END = re.compile(r"\r\n|\r|\n")
Lines = Iterator[str]
NumberedRow = tuple[int, int, list[str]]  # first line, last line, fields


def read_delimited(
    source: str,
    lines: Lines,
    kind: str,
    options: ReadOptions,
    names: Sequence[str] | None,
    reopen: Callable[[], AbstractContextManager[Lines]],
) -> Table:
    """Read the rows of a CSV or TSV file.

    Args:
        source: Name of the file, for messages.
        kind: Its suffix.
        names: Columns to keep; None keeps all.
        reopen: Gives the lines again, to find the line where a quote opens.

    Raises:
        MinitrainError: Names the row and the line.
    """
    csv.field_size_limit(sys.maxsize)  # the default refuses texts of more than 131,072 characters
    sample = list(islice(lines, SAMPLE))
    delimiter, note, skipped = _delimiter(sample, kind, options, names or ())
    rows = _Rows(source, delimiter, options.quoting == "none", skipped, reopen)
    columns = rows.read(chain(sample[skipped:], lines), names)
    notes = [f"{source}: {note}"] if note else []
    if rows.swallowed:
        notes.append(rows.swallowed_note())
    return Table(
        source=source, columns=columns, class_names={}, untyped=True, header=tuple(rows.header), notes=tuple(notes)
    )


def _reader(lines: Iterable[str], delimiter: str, plain: bool) -> Any:
    if plain:
        return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=delimiter, strict=True)


def _delimiter(
    sample: list[str], kind: str, options: ReadOptions, names: Sequence[str]
) -> tuple[str, str | None, int]:
    """The delimiter, a note on it, and the number of lines to skip."""
    asked, usual = options.separator, "," if kind == ".csv" else "\t"
    excel = _EXCEL.fullmatch(sample[0]) if sample else None
    if asked is not None:
        return asked, None, int(excel is not None)
    if excel is not None:
        return excel[1], f"delimiter {excel[1]!r}, as its first line says", 1
    plain = options.quoting == "none"
    header = next((line for line in sample if line.strip()), "")
    others = [c for c in BETWEEN if c != usual and c in header]
    if others and not (names and _sampled(sample, usual, plain)[:1] == [[names[0]]]):
        fitting = [c for c in others if _fits(_sampled(sample, c, plain))]
        if len(fitting) == 1 and not _fits(_sampled(sample, usual, plain)):
            return fitting[0], f"delimiter {fitting[0]!r}, as its header shows; --delimiter sets another", 0
    return usual, None, 0


def _sampled(sample: list[str], delimiter: str, plain: bool) -> list[list[str]]:
    """The complete rows of the sample, with its header."""
    rows: list[list[str]] = []
    with suppress(csv.Error):  # usually because the sample ends inside a field
        rows.extend(row for row in _reader(sample, delimiter, plain) if row)
    return rows


def _fits(rows: list[list[str]]) -> bool:
    """Whether the header has at least two names, and every row its width."""
    if len(rows) < 2 or len([name for name in rows[0] if name.strip()]) < 2:
        return False
    return all(len(_cut(row, len(rows[0]))) == len(rows[0]) for row in rows)


def _cut(row: list[str], width: int) -> list[str]:
    """The row without empty cells after the last column, as spreadsheets leave them."""
    return row[:width] if len(row) > width and not any(map(str.strip, row[width:])) else row


class _Rows:
    """Reads rows in blocks, and counts lines for errors and notes."""

    def __init__(self, source: str, delimiter: str, plain: bool, skipped: int, reopen: Callable[[], Any]) -> None:
        self.source, self.delimiter, self.plain, self.reopen = source, delimiter, plain, reopen
        self.skipped = skipped
        self.header: list[str] = []
        self.count = 0
        self.swallowed: list[tuple[int, int, int]] = []  # first line, last line, lines that look like rows

    def read(self, lines: Lines, names: Sequence[str] | None) -> dict[str, list[str]]:
        """The columns, by name."""
        reader = _reader(lines, self.delimiter, self.plain)
        self.header = next((row for _, (row,) in self._blocks(reader, 1) if row), [])
        asked = None if names is None else {name.strip() for name in names}
        kept = {i: name for i, name in named(self.header).items() if asked is None or name.strip() in asked}
        columns: dict[str, list[str]] = {name: [] for name in kept.values()}
        for first, block in self._blocks(reader, BLOCK):
            rows = block
            if set(map(len, block)) != {len(self.header)}:
                rows = [row for *_, row in self._numbered(first, block)]
            whole = list(zip(*rows, strict=True))
            for i, name in kept.items() if whole else ():
                columns[name].extend(whole[i])
            if reader.line_num + self.skipped + 1 - first > len(block):  # more lines than rows
                self._look_for_swallowed(first, block, whole)
            self.count += len(rows)
        return columns

    def _blocks(self, reader: Any, size: int) -> Iterator[tuple[int, list[list[str]]]]:
        """The line where a block starts, and its rows; blank lines are empty rows."""
        while True:
            first = reader.line_num + self.skipped + 1
            block: list[list[str]] = []
            try:
                block.extend(islice(reader, size))  # keeps the rows before an invalid one
            except csv.Error as error:
                line = first + sum(map(_line_count, block))
                raise self._invalid(error, line, reader.line_num + self.skipped) from error
            if not block:
                return
            yield first, block

    def _numbered(self, first: int, block: list[list[str]]) -> list[NumberedRow]:
        """Number the lines of a block, without blank lines and without empty cells after the last column.

        Raises MinitrainError for a row of another width.
        """
        numbered: list[NumberedRow] = []
        width = len(self.header)
        for row in block:
            last = first + _line_count(row) - 1
            if row:
                row = _cut(row, width)
                if len(row) != width:
                    raise self._ragged(row, self.count + len(numbered) + 1, last)
                numbered.append((first, last, row))
            first = last + 1
        return numbered

    def _ragged(self, row: list[str], number: int, line: int) -> MinitrainError:
        width, d = len(self.header), self.delimiter
        way = f"put fields that hold a {d!r} in double quotes"
        if self.plain:
            way = f"with --quoting none no field can hold a {d!r}"
        elif any(re.match(r'\s+"', field) for field in row):
            way = f"take out the blanks between {d!r} and a double quote"
        elif width == 1 and number == 1 and len(row) > 1:
            way = f"take out what stands above the names of the columns, or {way}"
        elif len(row) == width + 1 and row[0].strip().isdecimal():
            way += "; if the first field only counts the rows, give it a name in the header"
        elif len(row) < width:
            way = f"write a {d!r} for each empty field"
        return MinitrainError(
            f"{self.source}, row {number} (line {line}): {len(row)} fields, the header has {width} "
            f"({shown(self.header)}); {way}"
        )

    def _invalid(self, error: csv.Error, first: int, last: int) -> MinitrainError:
        if "NUL" in str(error):  # Python 3.10's csv module refuses it
            return MinitrainError(f"{self.source}, line {last}: is no valid CSV ({error}); take it out")
        opened = self._opening_line(first)
        what = "the double quote that opens a field here is never closed"
        if "unexpected end" not in str(error):
            what = f"in the quoted field that opens here, {error}" + (f" in line {last}" if last != opened else "")
        return MinitrainError(
            f"{self.source}, line {opened}: is no valid CSV: {what}; close every quote, and double those inside "
            "a field, or pass --quoting none if a double quote is an ordinary character"
        )

    def _opening_line(self, first: int) -> int:
        """The line where the broken field opens, in the row that starts at line `first`."""
        with self.reopen() as lines:
            text = "".join(islice(lines, first - 1, None))
        quoted, bare = re.compile('"[^"]*(?:""[^"]*)*"'), re.compile(f"[^{re.escape(self.delimiter)}]*")
        at = 0
        while True:
            found = (quoted if text.startswith('"', at) else bare).match(text, at)
            end = len(text) if found is None else found.end()
            if not text.startswith(self.delimiter, end):
                return first + len(_LINE_END.findall(text[:at]))
            at = end + 1

    def _look_for_swallowed(self, first: int, block: list[list[str]], whole: list[tuple[str, ...]]) -> None:
        """Record the fields of several lines, each of which looks like a row. whole: the columns of the block."""
        numbered: list[NumberedRow] = []
        for place, column in enumerate(whole) if len(whole) > 1 else ():
            if "\n" not in (fields := "".join(column)) and "\r" not in fields:  # quicker than one by one
                continue
            for at in [i for i, field in enumerate(column) if "\n" in field or "\r" in field]:
                if count := _rows_inside(whole, at, place, self.delimiter):
                    numbered = numbered or self._numbered(first, block)
                    self.swallowed.append((*numbered[at][:2], count))

    def swallowed_note(self) -> str:
        """A note on the first of the swallowed rows."""
        first, last, count = min(self.swallowed)
        more = f"; {len(self.swallowed) - 1} more fields do" if len(self.swallowed) > 1 else ""
        return (
            f"{self.source}, line {first}: a double quote opens a field that runs to line {last} and swallows "
            f"{count} lines that look like rows{more}. {self.count} rows were read; pass --quoting none if a "
            "double quote is an ordinary character"
        )


def _line_count(row: list[str]) -> int:
    return 1 + sum(len(_LINE_END.findall(field)) for field in row if "\n" in field or "\r" in field)


def _rows_inside(whole: list[tuple[str, ...]], at: int, place: int, delimiter: str) -> int:
    """How many rows a field seems to hold: as many as its lines, if each has the delimiters of a row."""
    pieces = [piece.split(delimiter) for piece in _LINE_END.split(whole[place][at]) if piece.strip()]
    width, widths = len(whole), [len(piece) for piece in pieces]
    if len(pieces) < 2 or widths != [width - place, *[width] * (len(pieces) - 2), place + 1]:
        return 0
    if delimiter == "\t" or len(pieces) > 10:
        return len(pieces)
    # Prose has commas too, so what follows them must occur in those columns elsewhere, or be numbers throughout.
    cells = list(enumerate(pieces[0][1:], start=place + 1)) + list(enumerate(pieces[-1][:place]))
    cells += [(i, cell) for piece in pieces[1:-1] for i, cell in enumerate(piece) if i != place]
    numbers = all(_is_number(cell) and all(map(_is_number, whole[i])) for i, cell in cells)
    return len(pieces) if numbers or any(cell and cell in whole[i] for i, cell in cells) else 0


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
