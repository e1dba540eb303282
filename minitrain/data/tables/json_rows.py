"""JSON -> columns: one object per line, a list of objects, or an object with one list of objects; pretty or not.

A field that some rows lack is an error only for those who ask for it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from minitrain.data.tables.table import ABSENT, Table, field_of, named, writable
from minitrain.errors import MinitrainError, listed, literal, python_command, shown


def read_json_rows(
    source: str, lines: Iterator[str], names: Sequence[str] | None, asked: Sequence[str] = ()
) -> Table:
    """Read the rows of a JSON file.

    Args:
        source: Name of the file, for messages.
        names: Fields to keep, which every row must have; None keeps all.
        asked: Fields that will be used: an object that has them is a row, whatever else it holds.

    Raises:
        MinitrainError: Names the line, or the row of a list.
    """
    columns = _Columns(source, names)
    start, rest = list(_up_to_text(lines)), list(_up_to_text(lines))
    try:  # with one line of text alone, that line may hold all rows
        one_a_line = bool(rest and rest[-1].strip()) and isinstance(json.loads(start[-1]), dict)
    except (ValueError, RecursionError):
        one_a_line = False
    if not one_a_line:
        return _read_values(source, "".join(chain(start, rest, lines)), columns, asked)
    for number, line in enumerate(chain(start, rest, lines), start=1):
        if not line.isspace():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                said = f"is not valid JSON ({error}); write one object a line"
                raise MinitrainError(f"{source}, line {number}: {said}") from error
            columns.add(row, number)
    return columns.table()


def _up_to_text(lines: Iterator[str]) -> Iterator[str]:
    """The next lines, up to the first that is not blank."""
    for line in lines:
        yield line
        if line.strip():
            return


def _read_values(source: str, text: str, columns: "_Columns", asked: Sequence[str]) -> Table:
    """Read objects one after the other, or the only value, which holds the rows."""
    values = list(_values(source, text))
    if len(values) == 1:
        _, value = values[0]
        if isinstance(value, list):
            return columns.of_list(value)
        if isinstance(value, dict) and not (asked and all(field_of(value, name) is not ABSENT for name in asked)):
            lists, frame = _lists_of_objects(value), _dataframe_code(value)
            if lists or frame is not None:
                return _inside(source, value, columns, lists, frame or "")
    for line, value in values:
        columns.add(value, line)
    return columns.table()


def _values(source: str, text: str) -> Iterator[tuple[int, Any]]:
    """The values of a text, each with the line where it begins."""
    at, line, decoder = 0, 1, json.JSONDecoder()
    while True:
        begin = at
        while begin < len(text) and text[begin] in " \t\r\n":
            begin += 1
        line += _line_ends(text, at, begin)
        if begin >= len(text):
            return
        try:
            value, at = decoder.raw_decode(text, begin)
        except (ValueError, RecursionError) as error:
            # A value over several lines is broken where the decoder stopped, a single line where it begins.
            several = text[begin:].partition("\n")[0].rstrip().endswith(("{", "[", ","))
            broken = error.lineno if isinstance(error, json.JSONDecodeError) and several else line
            raise MinitrainError(
                f"{source}, line {broken}: is not valid JSON ({error}); write one object a line, or all in one list"
            ) from error
        yield line, value
        line += _line_ends(text, begin, at)


def _line_ends(text: str, start: int, end: int) -> int:
    return text.count("\n", start, end) or text.count("\r", start, end)


def _inside(source: str, value: dict[str, Any], columns: "_Columns", lists: list[str], frame: str) -> Table:
    """The rows in the only list of objects of an object. Raises MinitrainError if there are several, or columns."""
    if len(lists) == 1:
        return columns.of_list(value[lists[0]], f"{source}: the rows are its list {lists[0]!r}")
    whole = f"json.load(open({literal(source)}))"
    if lists:
        one = literal(lists[0])
        raise MinitrainError(
            f"{source}: holds several lists of objects, {listed(lists)}; write each to a file of its own:"
            + python_command(f"import json; json.dump({whole}[{one}], open({one} + '.json', 'w'))")
        )
    code = f"{frame.format(whole)}.to_json('rows.jsonl', orient='records', lines=True)"
    raise MinitrainError(
        f"{source}: holds columns ({listed(value)}), not rows; write it as lines of objects:"
        + python_command(f"import json, pandas; {code}")
    )


def _lists_of_objects(value: dict[str, Any]) -> list[str]:
    lists = {name: part for name, part in value.items() if isinstance(part, list) and part}
    return [name for name, part in lists.items() if all(isinstance(item, dict) for item in part)]


def _dataframe_code(value: dict[str, Any]) -> str | None:
    """The code that makes a DataFrame of an object that pandas wrote (`orient`); None if it is no such object."""
    parts = list(value.values())
    # {"columns": ["text", "label"], "index": [0, 1], "data": [["a", 0], ["b", 1]]}
    if set(value) - {"index"} == {"columns", "data"} and all(isinstance(part, list) for part in parts):
        return "pandas.DataFrame(**{})"
    if len(parts) < 2 or not parts[0] or type(parts[0]) not in (list, dict):
        return None
    if any(type(part) is not type(parts[0]) or len(part) != len(parts[0]) for part in parts):
        return None
    # {"text": ["a", "b"], "label": [0, 1]}, {"text": {"0": "a", "1": "b"}, ...} or {"0": {"text": "a", ...}, ...}
    by_row = isinstance(parts[0], dict) and not any(all(map(str.isdecimal, part)) for part in parts)
    return "pandas.DataFrame.from_dict({}, orient='index')" if by_row else "pandas.DataFrame({})"


def _field_names(row: Mapping[str, Any], nested: bool) -> Iterator[str]:
    """The fields of a row; those inside other fields too if a nested one was asked for."""
    for name, value in row.items():
        if nested and isinstance(value, dict):
            yield from (f"{name}.{other}" for other in value)
        else:
            yield name


class _Columns:
    """Turns objects into columns one by one, so that a long file never stands in memory as objects."""

    def __init__(self, source: str, names: Sequence[str] | None) -> None:
        self.source, self.names, self.count = source, names, 0
        self.columns: dict[str, list[Any]] = {name: [] for name in names or ()}
        self.gaps: dict[str, str] = {}  # field -> which row lacks it
        self.first = ""  # where the first row is

    def add(self, row: Any, number: int, unit: str = "line") -> None:
        """Add the row of a line or place. Raises MinitrainError if it is no object, or lacks one of `names`."""
        if type(row) is not dict:
            got = f"expected a JSON object, got {type(row).__name__}"
            way = 'write rows as {"text": ..., "label": ...}'
            raise MinitrainError(f"{self.source}, {unit} {number}: {got}; {way}")
        if self.names is not None:
            for name, column in self.columns.items():
                column.append(row[name] if name in row else self._field(row, name, f"{unit} {number}"))
        else:
            if row.keys() != self.columns.keys():
                self._other_fields(row, f"{unit} {number}")
            for name, column in self.columns.items():
                column.append(row.get(name, ABSENT))
        self.count += 1

    def of_list(self, rows: Iterable[Any], *notes: str) -> Table:
        """The table of a list of objects."""
        for number, row in enumerate(rows, start=1):
            self.add(row, number, "row")
        return self.table(*notes)

    def _field(self, row: dict[str, Any], name: str, place: str) -> Any:
        """A field whose name differs by blanks, or that is inside another."""
        for alike in (name, *(other for other in row if other.strip() == name.strip())):
            if (value := field_of(row, alike)) is not ABSENT:
                return value
        raise MinitrainError(self._without(row, name, place))

    def _without(self, row: dict[str, Any], name: str, place: str) -> str:
        has = listed(_field_names(row, "." in name))
        return f"{self.source}, {place}: has no field {shown(name)}; it has {has}"

    def _other_fields(self, row: dict[str, Any], place: str) -> None:
        """Note which fields this row lacks, and which the rows before it lack."""
        self.first = self.first or place
        for name in self.columns.keys() - row.keys():
            self.gaps.setdefault(name, self._without(row, name, place))
        for name in [name for name in row if name not in self.columns]:
            if not writable(name):
                raise MinitrainError(
                    f"{self.source}, {place}: the field {shown(name)} has a lone surrogate; rename"
                )
            self.columns[name] = [ABSENT] * self.count
            if self.count:
                self.gaps[name] = f"{self.source}, {self.first}: has no field {shown(name)}, which {place} has"

    def table(self, *notes: str) -> Table:
        """The rows so far."""
        header = tuple(self.columns)
        names = named(header)
        return Table(
            source=self.source,
            columns={name: self.columns[header[i]] for i, name in names.items()},
            class_names={},
            header=header,
            gaps={name: self.gaps[header[i]] for i, name in names.items() if header[i] in self.gaps},
            notes=notes,
        )
