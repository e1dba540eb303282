"""JSON -> columns: an object a line, a list of objects, or a list of objects inside of one object; pretty or not.

Of two fields of one name in an object the last counts, as everywhere in Python. Fields that some rows lack do no
harm until somebody asks for them.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from minitrain.data.tables.table import ABSENT, Table, field_of, has_field, named, writable
from minitrain.errors import MinitrainError, listed, shown


def read_json_rows(
    source: str, lines: Iterator[str], names: Sequence[str] | None, asked: Sequence[str] = ()
) -> Table:
    """The rows of a JSON file. names: the fields that every row must have, and all that are kept; None keeps all.

    asked: what will be asked for, if that is known. Raises MinitrainError naming the line, or the row of a list.
    """
    columns = _Columns(source, names)
    start: list[str] = []
    for line in lines:
        start.append(line)
        if line.strip():
            break
    if not start or not start[-1].strip():
        return columns.table(())
    if not isinstance(first := _object(start[-1]), dict):
        return _whole(source, start, lines, columns, asked)
    second = next((line for line in _numbered(lines, len(start) + 1) if line[1].strip()), None)
    if second is None:
        return _alone(source, first, columns, asked, len(start))
    columns.add(first, len(start))
    for number, line in chain((second,), _numbered(lines, second[0] + 1)):
        if not line.isspace():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise MinitrainError(
                    f"{source}, line {number}: is not valid JSON ({error}); write one object a line"
                ) from error
            columns.add(row, number)
    return columns.table(())


def _numbered(lines: Iterable[str], start: int) -> Iterator[tuple[int, str]]:
    return enumerate(lines, start)


def _object(text: str) -> Any:
    """The value of a line; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _whole(source: str, start: list[str], rest: Iterator[str], columns: "_Columns", asked: Sequence[str]) -> Table:
    """A file whose first line is no object: values over several lines, one after the other."""
    text = "".join(chain(start, rest))
    values: list[tuple[int, Any]] = []
    at, line, decoder = 0, 1, json.JSONDecoder()
    while True:
        begin = _next(text, at)
        line += _ends(text, at, begin)
        if begin >= len(text):
            break
        try:
            value, end = decoder.raw_decode(text, begin)
        except (ValueError, RecursionError) as error:
            broken = line
            if isinstance(error, json.JSONDecodeError) and start[-1].strip()[-1] in "{[,":
                broken = error.lineno
            way = "write one object a line, or all in one list"
            raise MinitrainError(f"{source}, line {broken}: is not valid JSON ({error}); {way}") from error
        values.append((line, value))
        line += _ends(text, begin, end)
        at = end
    if len(values) == 1 and isinstance(values[0][1], list):
        columns.unit = "row"
        for number, row in enumerate(values[0][1], start=1):
            columns.add(row, number)
        return columns.table(())
    if len(values) == 1 and isinstance(values[0][1], dict):
        return _alone(source, values[0][1], columns, asked, values[0][0])
    for number, row in values:
        columns.add(row, number)
    return columns.table(())


def _ends(text: str, start: int, end: int) -> int:
    """How many lines end in a part of the text."""
    return text.count("\n", start, end) or text.count("\r", start, end)


def _next(text: str, at: int) -> int:
    """Where the next value begins."""
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _alone(source: str, value: dict[str, Any], columns: "_Columns", asked: Sequence[str], line: int) -> Table:
    """A file of one object: the row itself, or what holds the rows as a list."""
    lists = [name for name, part in value.items() if isinstance(part, list) and _are_objects(part)]
    is_row = bool(asked) and all(has_field(value, name) for name in asked)
    if is_row or (not lists and not _looks_like_columns(value)):
        columns.add(value, line)
        return columns.table(())
    if len(lists) == 1:
        columns.unit = "row"
        for number, row in enumerate(value[lists[0]], start=1):
            columns.add(row, number)
        return columns.table((f"{source}: the rows are its list {lists[0]!r}",))
    if lists:
        raise MinitrainError(
            f"{source}: holds several lists of objects, {listed(lists)}; write each to a file of its own:\n"
            f"  python -c \"import json; json.dump(json.load(open('{source}'))['{lists[0]}'], "
            f"open('{lists[0]}.json', 'w'))\""
        )
    frame = _frame_of(value).format(f"json.load(open('{source}'))")
    raise MinitrainError(
        f"{source}: holds columns ({listed(value)}), not rows; write it as lines of objects:\n"
        f"  python -c \"import json, pandas; {frame}.to_json('rows.jsonl', orient='records', lines=True)\""
    )


def _frame_of(value: dict[str, Any]) -> str:
    """What makes a DataFrame of what pandas has written, by its ways to lay out a table (orient)."""
    if _is_split(value):
        return "pandas.DataFrame(**{})"
    rows = all(isinstance(part, dict) and not all(map(str.isdecimal, part)) for part in value.values())
    return "pandas.DataFrame.from_dict({}, orient='index')" if rows else "pandas.DataFrame({})"


def _is_split(value: dict[str, Any]) -> bool:
    """{"columns": ["text", "label"], "index": [0, 1], "data": [["a", 0], ["b", 1]]}"""
    return set(value) in ({"columns", "index", "data"}, {"columns", "data"}) and all(
        isinstance(part, list) for part in value.values()
    )


def _are_objects(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, dict) for value in values)


def _looks_like_columns(value: dict[str, Any]) -> bool:
    """{"text": ["a", "b"], "label": [0, 1]}, or with {"0": "a", "1": "b"} as pandas writes by default."""
    if _is_split(value):
        return True
    kinds = {type(part) for part in value.values()}
    if len(value) < 2 or len(kinds) != 1 or not kinds <= {list, dict}:
        return False
    return len({len(part) for part in value.values()}) == 1 and len(next(iter(value.values()))) > 0


def _names(row: dict[str, Any], inside: bool) -> Iterator[str]:
    """The fields of a row, and those inside of them where one of those was asked for."""
    for name, value in row.items():
        if inside and isinstance(value, dict):
            yield from (f"{name}.{other}" for other in value)
        else:
            yield name


class _Columns:
    """Rows of objects, turned into columns as they come."""

    def __init__(self, source: str, names: Sequence[str] | None) -> None:
        self.source, self.names, self.count = source, names, 0
        self.columns: dict[str, list[Any]] = {name: [] for name in names or ()}
        self.gaps: dict[str, str] = {}  # field -> which row has none
        self.first = ""  # where the first row is
        self.unit = "line"  # what places are counted in

    def add(self, row: Any, number: int) -> None:
        """One more row. Raises MinitrainError where it is no object, or lacks a field that is asked for."""
        if type(row) is not dict:
            raise MinitrainError(
                f"{self.source}, {self.unit} {number}: expected a JSON object, got {type(row).__name__}; write "
                'rows as {"text": ..., "label": ...}'
            )
        if self.names is not None:
            try:
                for name, column in self.columns.items():
                    column.append(row[name])
            except KeyError:  # blanks around it, or inside of another
                for name, column in self.columns.items():
                    column[self.count :] = [self._field(row, name, f"{self.unit} {number}")]
        else:
            if row.keys() != self.columns.keys():
                self._other_fields(row, f"{self.unit} {number}")
            for name, column in self.columns.items():
                column.append(row.get(name, ABSENT))
        self.count += 1

    def _field(self, row: dict[str, Any], name: str, where: str) -> Any:
        for alike in (name, *(other for other in row if other.strip() == name.strip())):
            try:
                return field_of(row, alike)
            except KeyError:
                continue
        raise MinitrainError(self._without(row, name, where))

    def _without(self, row: dict[str, Any], name: str, where: str) -> str:
        return f"{self.source}, {where}: has no field {shown(name)}; it has {listed(_names(row, '.' in name))}"

    def _other_fields(self, row: dict[str, Any], where: str) -> None:
        """A row whose fields are not those so far; the first row's are none."""
        self.first = self.first or where
        for name in self.columns.keys() - row.keys():
            self.gaps.setdefault(name, self._without(row, name, where))
        for name in row:
            if name in self.columns:
                continue
            if not writable(name):
                raise MinitrainError(
                    f"{self.source}, {where}: the field {shown(name)} has a lone surrogate; rename it"
                )
            self.columns[name] = [ABSENT] * self.count
            if self.count:
                self.gaps[name] = f"{self.source}, {self.first}: has no field {shown(name)}, which {where} has"

    def table(self, notes: tuple[str, ...]) -> Table:
        """The rows so far."""
        header = tuple(self.columns)
        names = {i: name for i, name in named(header).items()}
        return Table(
            source=self.source,
            columns={name: self.columns[header[i]] for i, name in names.items()},
            class_names={},
            header=header,
            gaps={name: self.gaps[header[i]] for i, name in names.items() if header[i] in self.gaps},
            notes=notes,
        )
