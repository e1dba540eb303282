"""CSV and TSV -> columns of text, in the csv module's words: RFC 4180, blank lines aside.

What people's files do besides is settled here: another delimiter than the name says, Excel's `sep=;`, empty cells
behind the last column, columns without a name, and double quotes that are plain characters. A note says what was
decided; an error names the line, also the one where a quote opened.
"""

import csv
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import chain, islice
from typing import Any

from minitrain.config.read_options import Reading, delimiter_of
from minitrain.data.tables.table import BETWEEN, Table, named
from minitrain.errors import MinitrainError, shown

OWN = {".csv": ",", ".tsv": "\t"}
SAMPLE = 100  # lines that tell the delimiter
BLOCK = 200  # rows turned into columns at once: of more, the garbage collector visits them all
_EXCEL = re.compile(r'"?sep=(.)"?[\r\n]*', re.IGNORECASE)
_LINE_END = re.compile(r"\r\n|\r|\n")
Lines = Iterator[str]


def read_delimited(
    source: str,
    lines: Lines,
    kind: str,
    options: Reading,
    names: Sequence[str] | None,
    reopen: Callable[[], AbstractContextManager[Lines]],
) -> Table:
    """The rows of a CSV or TSV file. kind: its suffix. names: the columns to keep; None keeps all.

    reopen: the lines once more, to say where a quote opened. Raises MinitrainError naming row and line.
    """
    csv.field_size_limit(sys.maxsize)  # the default refuses a text of more than 131,072 characters
    sample = list(islice(lines, SAMPLE))
    delimiter, note, skipped = _delimiter(sample, kind, options, names or ())
    body = _Body(source, delimiter, options.quoting == "none", skipped, reopen)
    body.line_end = "\n" if any(line.endswith("\n") for line in sample) else "\r"
    columns = body.read(chain(sample[skipped:], lines), names)
    notes = [f"{source}: {note}"] if note else []
    return Table(
        source=source,
        columns=columns,
        class_names={},
        untyped=True,
        header=tuple(body.header),
        notes=(*notes, *body.notes()),
    )


def _reader(lines: Iterable[str], delimiter: str, plain: bool) -> Any:
    if plain:
        return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=delimiter, strict=True)


def _delimiter(sample: list[str], kind: str, options: Reading, names: Sequence[str]) -> tuple[str, str | None, int]:
    """The character between columns, what to say of it, and how many lines to skip."""
    asked, own = delimiter_of(options), OWN.get(kind, "\t")
    excel = _EXCEL.fullmatch(sample[0]) if sample else None
    if asked is not None:
        return asked, None, int(excel is not None)
    if excel is not None:
        return excel[1], f"delimiter {excel[1]!r}, as its first line says", 1
    plain = options.quoting == "none"
    header = next((line for line in sample if line.strip()), "")
    others = [c for c in BETWEEN if c != own and c in header]
    if not others or (names and _sampled(sample, own, plain)[:1] == [[names[0]]]):
        return own, None, 0
    fitting = [c for c in others if _fits(_sampled(sample, c, plain))]
    if len(fitting) == 1 and not _fits(_sampled(sample, own, plain)):
        return fitting[0], f"delimiter {fitting[0]!r}, as its header shows; --delimiter sets another", 0
    return own, None, 0


def _sampled(sample: list[str], delimiter: str, plain: bool) -> list[list[str]]:
    """The whole rows of the sample, with its header."""
    rows: list[list[str]] = []
    try:
        rows.extend(row for row in _reader(sample, delimiter, plain) if row)
    except csv.Error:  # where the sample ends inside of a field, above all
        return rows
    return rows


def _fits(rows: list[list[str]]) -> bool:
    """Whether header and rows are of one width, with two names at least."""
    if len(rows) < 2 or len([name for name in rows[0] if name.strip()]) < 2:
        return False
    return all(len(_cut(row, len(rows[0]))) == len(rows[0]) for row in rows)


def _cut(row: list[str], width: int) -> list[str]:
    """A row without the empty cells behind the last column, as spreadsheets leave them."""
    return row[:width] if len(row) > width and not any(map(str.strip, row[width:])) else row


class _Body:
    """Reads the rows in blocks, and keeps count of lines for errors and notes."""

    def __init__(self, source: str, delimiter: str, plain: bool, skipped: int, reopen: Callable[[], Any]) -> None:
        self.source, self.delimiter, self.plain, self.skipped, self.reopen = (
            source,
            delimiter,
            plain,
            skipped,
            reopen,
        )
        self.header: list[str] = []
        self.line_end = "\n"
        self.rows = 0
        self.swallowed: list[tuple[int, int, int]] = []  # first line, last line, lines that look like rows

    def read(self, lines: Lines, names: Sequence[str] | None) -> dict[str, list[str]]:
        reader = _reader(lines, self.delimiter, self.plain)
        self.header = next(self._block(reader, 1, skip_blank=True), [[]])[0]
        asked = None if names is None else {name.strip() for name in names}
        places = {i: name for i, name in named(self.header).items() if asked is None or name.strip() in asked}
        columns: dict[str, list[str]] = {name: [] for name in places.values()}
        first = reader.line_num + self.skipped + 1
        for raw in self._block(reader, BLOCK):
            after = reader.line_num + self.skipped + 1
            even = set(map(len, raw)) == {len(self.header)}
            whole = list(zip(*(raw if even else self._of_one_width(raw, first)), strict=True))
            if after - first > len(raw):
                self._look_for_swallowed(raw, whole, first)
            for i, name in places.items() if whole else ():
                columns[name].extend(whole[i])
            self.rows += len(whole[0]) if whole else 0
            first = after
        return columns

    def _block(self, reader: Any, size: int, skip_blank: bool = False) -> Iterator[list[list[str]]]:
        """Rows as they come, blank lines as empty ones."""
        source = filter(None, reader) if skip_blank else reader
        while True:
            first = reader.line_num + self.skipped + 1
            block: list[list[str]] = []
            try:
                block.extend(islice(source, size))  # keeps those before the one that is broken
            except csv.Error as error:
                last = reader.line_num + self.skipped
                raise self._no_csv(error, first + sum(map(_lines_of, block)), last) from error
            if not block:
                return
            yield block

    def _of_one_width(self, block: list[list[str]], first: int) -> list[list[str]]:
        """The block without blank lines and without empty cells beyond the header."""
        width, rows, line = len(self.header), [], first
        for row in block:
            line += _lines_of(row)
            if row:
                rows.append(cut := _cut(row, width))
                if len(cut) != width:
                    raise self._ragged(cut, self.rows + len(rows), line - 1)
        return rows

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

    def _no_csv(self, error: csv.Error, first: int, last: int) -> MinitrainError:
        if "NUL" in str(error):  # Python 3.10's csv module knows none
            return MinitrainError(f"{self.source}, line {last}: is no valid CSV ({error}); take it out")
        opened = self._opened(first)
        what = "the double quote that opens a field here is never closed"
        if "unexpected end" not in str(error):
            what = f"of the quoted field that opens here, {error}" + (f" in line {last}" if last != opened else "")
        return MinitrainError(
            f"{self.source}, line {opened}: is no valid CSV: {what}; close every quote, and double those inside "
            "of a field, or pass --quoting none if a double quote is a character like any other"
        )

    def _opened(self, first: int) -> int:
        """The line in which the field opens that cannot be read. first: the line of its row."""
        with self.reopen() as lines:
            text = "".join(islice(lines, first - 1, None))
        quoted, bare = re.compile('"[^"]*(?:""[^"]*)*"'), re.compile(f"[^{re.escape(self.delimiter)}]*")
        at = 0
        while True:
            opens = text.startswith('"', at)
            found = (quoted if opens else bare).match(text, at)
            end = len(text) if found is None else found.end()
            if not text.startswith(self.delimiter, end):
                return first + len(_LINE_END.findall(text[:at]))
            at = end + 1

    def _look_for_swallowed(self, raw: list[list[str]], whole: list[tuple[str, ...]], first: int) -> None:
        """Remember quoted fields over several lines that look as if each were a row.

        raw: the block as it was read, whose first line is `first`. whole: its columns.
        """
        end = self.line_end
        found = [(at, i) for i, column in enumerate(whole) for at, field in enumerate(column) if end in field]
        for at, place in found if len(whole) > 1 else ():
            if count := _rows_inside(whole, at, place, self.delimiter):
                nth = [i for i, row in enumerate(raw) if row][at]
                line = first + sum(map(_lines_of, raw[:nth]))
                self.swallowed.append((line, line + _lines_of(raw[nth]) - 1, count))

    def notes(self) -> list[str]:
        """What is to be said of fields that hold rows."""
        if not self.swallowed:
            return []
        first, last, count = self.swallowed[0]
        more = f"; {len(self.swallowed) - 1} more fields do" if len(self.swallowed) > 1 else ""
        return [
            f"{self.source}, line {first}: a double quote opens a field that goes on to line {last} and swallows "
            f"{count} lines that look like rows{more}. {self.rows} rows were read; pass --quoting none if a double "
            "quote is a character like any other"
        ]


def _lines_of(row: list[str]) -> int:
    """How many lines of the file a row takes."""
    return 1 + sum(len(_LINE_END.findall(field)) for field in row if "\n" in field or "\r" in field)


def _rows_inside(whole: list[tuple[str, ...]], at: int, place: int, delimiter: str) -> int:
    """How many lines of a field look like rows: if the delimiters in each are those of a row."""
    pieces = [piece for piece in _LINE_END.split(whole[place][at]) if piece.strip()]
    width, counts = len(whole), [piece.count(delimiter) for piece in pieces]
    if len(pieces) < 2 or counts != [width - 1 - place, *[width - 1] * (len(pieces) - 2), place]:
        return 0
    if delimiter == "\t" or len(pieces) > 10:
        return len(pieces)
    # Prose has commas, too: what stands behind them must be what that column holds elsewhere.
    cells = list(enumerate(pieces[0].split(delimiter)[1:], start=place + 1))
    cells += list(enumerate(pieces[-1].split(delimiter)[:place]))
    for piece in pieces[1:-1]:
        cells += [(i, cell) for i, cell in enumerate(piece.split(delimiter)) if i != place]
    numbers = all(
        _is_number(cell) and all(map(_is_number, whole[i])) for i, cell in cells
    )  # of which few are twice
    return len(pieces) if numbers or any(cell and cell in whole[i] for i, cell in cells) else 0


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
