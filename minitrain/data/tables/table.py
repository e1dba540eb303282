"""A table: columns of equal length, where their rows came from, and how a column is found by its name.

Every reader of rows returns one; it is all that labels, splits and predictions see of a file.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from minitrain.config.data_config import LABEL
from minitrain.errors import MinitrainError, listed, shown

BETWEEN = (",", ";", "\t", "|")  # delimiters that are detected
ABSENT: Any = object()  # in a column, if the row has no such field


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns of equal length, and where their rows came from.

    Attributes:
        source: The file, or dataset and split, for messages.
        columns: Name -> values (lists or lazy columns of `datasets`), for columns that have a name of their own.
        class_names: Of integer columns whose values stand for named classes.
        untyped: All values are text, because the format has no types (CSV).
        commit: Of the Hub's repository.
        header: The names as the file has them, with blanks and repeats; empty if the same as `columns`.
        gaps: Column -> the error that `column` raises for it.
        notes: What the reader decided by itself.
        files: Of several files, each with its number of rows, in order.
        numbers: The original row of each row of a selection, from 0; None for a whole table.
    """

    source: str
    columns: Mapping[str, Sequence[Any]]
    class_names: Mapping[str, tuple[str, ...]]
    untyped: bool = False
    commit: str | None = None
    header: tuple[str, ...] = ()
    gaps: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    files: tuple[tuple[str, int], ...] = ()
    numbers: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def find(self, name: str) -> str | None:
        """The column of this name, or the only one whose name differs by outer blanks."""
        if name in self.columns:
            return name
        alike = [other for other in self.columns if other.strip() == name.strip()]
        return alike[0] if len(alike) == 1 and name.strip() else None

    def column(self, name: str) -> Sequence[Any]:
        """The values of a column; `review.text` is the field `text` of the objects in the column `review`.

        Raises:
            MinitrainError: There is no such column (the message lists them), or a row has no such field.
        """
        found = self.find(name)
        if found is not None and found in self.gaps:
            raise MinitrainError(self.gaps[found])
        if found is not None:
            return self.columns[found]
        outer, dot, rest = name.partition(".")
        if dot and outer in self.columns:
            return [self._inside(row, value, outer, rest) for row, value in enumerate(self.columns[outer][:])]
        raise MinitrainError(self.lacks(name))

    def _inside(self, row: int, value: Any, outer: str, rest: str) -> Any:
        if (found := field_of({outer: value}, f"{outer}.{rest}")) is not ABSENT:
            return found
        has = f"it has {listed(value)}" if isinstance(value, Mapping) else f"it holds {type(value).__name__}"
        raise MinitrainError(f"{self.where(row)}: the column {outer!r} has no field {rest!r} inside; {has}")

    def unfolded(self, names: Sequence[str]) -> "Table":
        """Add a column for each name that means a field inside another column; other names may be missing.

        Raises:
            MinitrainError: A row has no such field, or several columns share a name.
        """
        missing = [name for name in names if self.find(name) is None]
        for name in missing:
            if any(name.strip() == other.strip() for other in self.header):
                raise MinitrainError(self.lacks(name))
        inside = {name: self.column(name) for name in missing if name.split(".")[0] in self.columns}
        return replace(self, columns={**self.columns, **inside}) if inside else self

    def lacks(self, name: str) -> str:
        """The error message for a column that is not there."""
        header = self.header or tuple(self.columns)
        same = [str(i) for i, other in enumerate(header, start=1) if other.strip() == name.strip()]
        if same and not name.strip():
            return f"{self.source}: column {same[0]} has no name; give it one in the header, and ask for that"
        if len(same) > 1:
            places = " and ".join(same)
            return f"{self.source}: columns {places} are both called {name.strip()!r}; give each its own name"
        unnamed = [str(i) for i, other in enumerate(header, start=1) if not other.strip()]
        has = self.names_shown() + (f" (column {', '.join(unnamed)} has no name)" if unnamed else "")
        return f"{self.source}: has no column {shown(name)}; it has {has}{self._meant(name, header)}"

    def _meant(self, name: str, header: Sequence[str]) -> str:
        if len(header) == 1 and self.untyped and (between := [c for c in BETWEEN if c in header[0]]):
            return f"; if {between[0]!r} stands between its columns, pass --delimiter {between[0]!r}"
        lower = {other.strip().lower(): other.strip() for other in header if other.strip()}
        near = difflib.get_close_matches(name.strip().lower(), lower, n=1, cutoff=0.75)
        other = "; --label_column names the column of labels" if name == LABEL else ""
        return f"; did you mean {lower[near[0]]!r}?" if near else other

    def names_shown(self) -> str:
        """The names of the columns for a message, in quotes if blanks or commas would mislead."""
        names = [name for name in self.header or self.columns if name.strip()]
        return listed(repr(name) if name != name.strip() or "," in name else name for name in names)

    def place(self, row: int) -> tuple[str, int]:
        """The file or source of a row (counted from 0), and its number there (from 1)."""
        number = row if self.numbers is None else self.numbers[row]
        for source, rows in self.files:
            if number < rows:
                return source, number + 1
            number -= rows
        return self.source, number + 1

    def where(self, row: int) -> str:
        """The place of a row for a message: `a.csv, row 3`."""
        source, number = self.place(row)
        return f"{source}, row {number}"

    def pieces(self, size: int) -> Iterator[tuple[str, int, slice]]:
        """Slices of at most `size` rows, none across files, each with its source and first row there (from 1)."""
        start = 0
        files = self.files if self.files and self.numbers is None else ((self.source, len(self)),)
        for source, rows in files:
            for first in range(0, rows, size):
                yield source, first + 1, slice(start + first, start + min(first + size, rows))
            start += rows

    def select(self, rows: Sequence[int]) -> "Table":
        """These rows (counted from 0) in this order, with the numbers they had."""
        lazy: Mapping[str, Any] = self.columns  # a column of `datasets` reads a list of rows at once
        columns = {
            name: [values[row] for row in rows] if isinstance(values, list) else list(values[list(rows)])
            for name, values in lazy.items()
        }
        numbers = [row if self.numbers is None else self.numbers[row] for row in rows]
        return replace(self, columns=columns, numbers=numbers)


def named(header: Sequence[str]) -> dict[int, str]:
    """Place in the header -> name, for columns with a name that no other has.

    Outer blanks are dropped where the name stays unique.

    >>> named(["id", " text", "", "note", "note"])
    {0: 'id', 1: 'text'}
    """
    bare = [name.strip() for name in header]
    names = [short if bare.count(short) == 1 else name for name, short in zip(header, bare, strict=True)]
    return {i: name for i, name in enumerate(names) if name.strip() and names.count(name) == 1}


def class_names_of(features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The class names that features of `datasets` give to a column's integers, or to those in its lists."""
    found = {}
    for column, feature in features.items():
        inside = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
        names = getattr(feature, "names", None) or getattr(inside, "names", None)
        if names:
            found[column] = tuple(names)
    return found


def field_of(row: Mapping[str, Any], name: str) -> Any:
    """The value of a field, or of a nested one; `ABSENT` if there is none. A field `a.b` comes before a nested one.

    >>> field_of({"review": {"text": "fine"}}, "review.text")
    'fine'
    """
    if name in row:
        return row[name]
    outer, dot, rest = name.partition(".")
    inner = row.get(outer)
    return field_of(inner, rest) if dot and isinstance(inner, Mapping) else ABSENT


def writable(text: str) -> bool:
    """Whether UTF-8 can encode the text: not if it has a lone surrogate."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def concat(tables: Sequence[Table]) -> Table:
    """One table of several, in order, with every column of each.

    A column that one of them lacks, or whose integers mean other classes there, goes into `gaps`. If one of them is
    untyped, the values of all are text.
    """
    first = tables[0]
    if len(tables) == 1:
        return first
    untyped = [table for table in tables if table.untyped]
    names = {name.strip(): name for table in reversed(tables) for name in table.columns}  # as the first writes them
    order = dict.fromkeys(name.strip() for table in tables for name in table.columns)
    columns: dict[str, list[Any]] = {names[bare]: [] for bare in order}
    gaps: dict[str, str] = {}
    for name, values in columns.items():
        for table in tables:
            part: Sequence[Any] = [ABSENT] * len(table)
            try:
                part = table.column(name)[:]
                _check_class_names(first, table, name)
                if untyped and not table.untyped:
                    part = _as_text(table, name, part, untyped)
            except MinitrainError as error:
                gaps.setdefault(name, str(error))
            values += part
    return replace(
        first,
        source=", ".join(table.source for table in tables[:3]) + (" ..." if len(tables) > 3 else ""),
        columns=columns,
        untyped=bool(untyped),
        gaps=gaps,
        notes=tuple(note for table in tables for note in table.notes),
        files=tuple(part for table in tables for part in (table.files or ((table.source, len(table)),))),
    )


def _check_class_names(first: Table, table: Table, name: str) -> None:
    own, known = table.class_names.get(name), first.class_names.get(name)
    if own != known:
        raise MinitrainError(
            f"{table.source}, column {name!r}: its integers stand for {own}, those of {first.source} for {known}; "
            "pass the files one by one"
        )


def _as_text(table: Table, name: str, values: Sequence[Any], untyped: Sequence[Table]) -> list[str]:
    """Typed values as the untyped tables write them; true and false in their spelling, if they have only one."""
    spelling = {True: "True", False: "False"}
    if any(type(value) is bool for value in values):
        found = {text for other in untyped if other.find(name) is not None for text in other.column(name)}
        for value, text in spelling.items():
            alike = [other for other in found if other.lower() == text.lower()]
            spelling[value] = alike[0] if len(alike) == 1 else text
    texts = []
    for row, value in enumerate(values):
        if not isinstance(value, str | int | float) or value != value:
            kind = "NaN, no value" if isinstance(value, float) else type(value).__name__
            raise MinitrainError(
                f"{table.where(row)}, column {name!r}: is {kind}; beside a file without types, as CSV is, it must "
                "be text or a number: fill it in, or leave the row out"
            )
        texts.append(value if isinstance(value, str) else spelling[value] if type(value) is bool else str(value))
    return texts
