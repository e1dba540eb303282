"""A table: columns of equal length, where they came from, and how a column is found by its name.

It is what every reader of rows makes (`delimited.py`, `json_rows.py`, `parquet_rows.py`, ...), and all that labels,
splits and predictions see of a file.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from minitrain.errors import MinitrainError, listed

BETWEEN = (",", ";", "\t", "|")  # what stands between columns where nobody says so
ABSENT: Any = object()  # in a column, where the row has no such field


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns of equal length, and where they came from.

    source: the file, or dataset and split, for errors. columns: name -> values, lists or lazy columns of
    `datasets`; those without a name, and those that share one, are left out. class_names: of the columns whose
    integers are known to stand for classes. untyped: all values are text because the format has no types (CSV).
    commit: of the Hub's repository. header: the names as the file has them, blanks, repeats and all; of `columns`
    where it is empty. gaps: column -> what is wrong with it, said to whoever asks `column` for it. notes: what
    reading decided that nobody asked for. files: of several, each with its number of rows, in order.
    numbers: of rows that were chosen, their places in the whole table, from 0; None where all are there.
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
        """The column that is meant by a name: the same, or the only one that differs by blanks around it."""
        if name in self.columns:
            return name
        alike = [other for other in self.columns if other.strip() == name.strip()]
        return alike[0] if len(alike) == 1 and name.strip() else None

    def column(self, name: str) -> Sequence[Any]:
        """The values of one column; `review.text` is the field `text` of the objects in the column `review`.

        Raises MinitrainError listing the columns there are, or saying in which row there is no such field.
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
        try:
            return field_of({outer: value}, f"{outer}.{rest}")
        except KeyError:
            has = f"it has {listed(value)}" if isinstance(value, Mapping) else f"it holds {type(value).__name__}"
            raise MinitrainError(
                f"{self.where(row)}: the column {outer!r} has no field {rest!r} inside; {has}"
            ) from None

    def asked(self, names: Sequence[str]) -> "Table":
        """This table with each of the names as a column of its own, as fields inside of others are not yet.

        Raises MinitrainError as `column`.
        """
        inside = {name: self.column(name) for name in names if self.find(name) is None}
        for name in names:
            self.column(name)
        return replace(self, columns={**self.columns, **inside}) if inside else self

    def unfolded(self, names: Sequence[str]) -> "Table":
        """As `asked`, of the names that mean a field inside of a column; the others may be missing.

        Raises MinitrainError as `asked`, and where several columns have one of the names: that is not missing.
        """
        bare = [name.strip() for name in self.header]
        for name in names:
            if self.find(name) is None and name.strip() in bare:
                raise MinitrainError(self.lacks(name))
        return self.asked(
            [name for name in names if self.find(name) is None and name.split(".")[0] in self.columns]
        )

    def lacks(self, name: str) -> str:
        """What to say of a column that is not there, with the way out."""
        header = self.header or tuple(self.columns)
        same = [i for i, other in enumerate(header, start=1) if other.strip() == name.strip()]
        if not name.strip() and same:
            return f"{self.source}: column {same[0]} has no name; give it one in the header, and ask for that"
        if len(same) > 1:
            places = " and ".join(map(str, same))
            return f"{self.source}: columns {places} are both called {name.strip()!r}; give each a name of its own"
        unnamed = [str(i) for i, other in enumerate(header, start=1) if not other.strip()]
        named = self.names_shown() + (f" (column {', '.join(unnamed)} has no name)" if unnamed else "")
        return f"{self.source}: has no column {name!r}; it has {named}{self._meant(name, header)}"

    def _meant(self, name: str, header: Sequence[str]) -> str:
        if len(header) == 1 and self.untyped and (between := [c for c in BETWEEN if c in header[0]]):
            return f"; if {between[0]!r} stands between its columns, pass --delimiter {between[0]!r}"
        lower = {other.strip().lower(): other.strip() for other in header if other.strip()}
        near = difflib.get_close_matches(name.strip().lower(), lower, n=1, cutoff=0.75)
        return f"; did you mean {lower[near[0]]!r}?" if near else ""

    def names_shown(self) -> str:
        """The names of the columns as a message lists them, in quotes where blanks or commas would mislead."""
        names = [name for name in self.header or self.columns if name.strip()]
        return listed(repr(name) if name != name.strip() or "," in name else name for name in names)

    def place(self, row: int) -> tuple[str, int]:
        """Where a row, counted from 0, came from: its file or source, and its number there from 1."""
        number = row if self.numbers is None else self.numbers[row]
        for source, rows in self.files:
            if number < rows:
                return source, number + 1
            number -= rows
        return self.source, number + 1

    def where(self, row: int) -> str:
        """The same as a message names it: `a.csv, row 3`."""
        source, number = self.place(row)
        return f"{source}, row {number}"

    def pieces(self, size: int) -> Iterator[tuple[str, int, slice]]:
        """The rows in pieces of at most `size`, none of two files: source, number of its first row there, slice."""
        start = 0
        whole = ((self.source, len(self)),)
        for source, rows in (self.files or whole) if self.numbers is None else whole:
            for first in range(0, min(rows, len(self) - start), size):
                yield source, first + 1, slice(start + first, start + min(first + size, rows, len(self) - start))
            start += rows

    def select(self, rows: Sequence[int]) -> "Table":
        """These rows, counted from 0, in this order; they keep the numbers that they have."""
        chosen = {name: _chosen(values, rows) for name, values in self.columns.items()}
        numbers = rows if self.numbers is None else [self.numbers[row] for row in rows]
        return replace(self, columns=chosen, numbers=list(numbers))

    def head(self, count: int | None) -> "Table":
        """The first `count` rows, or all where it is None."""
        if count is None:
            return self
        columns = {name: values[:count] for name, values in self.columns.items()}
        return replace(self, columns=columns, numbers=self.numbers and self.numbers[:count])


def _chosen(values: Sequence[Any], rows: Sequence[int]) -> list[Any]:
    if isinstance(values, list):
        return [values[row] for row in rows]
    found: list[Any] = values[list(rows)]  # type: ignore[call-overload]  # a lazy column of `datasets` takes lists
    return found


def named(header: Sequence[str]) -> dict[int, str]:
    """Place in the header -> name, of the columns that can be asked for: named, and no two the same.

    Blanks around a name go where it stays the only one of that name.
    """
    bare = [name.strip() for name in header]
    names = [short if bare.count(short) == 1 else name for name, short in zip(header, bare, strict=True)]
    return {i: name for i, name in enumerate(names) if name.strip() and names.count(name) == 1}


def field_of(row: Mapping[str, Any], name: str) -> Any:
    """The value of a field, or of one inside of it: `review.text`. A field of that very name comes first.

    Raises KeyError.
    """
    if name in row:
        return row[name]
    outer, dot, rest = name.partition(".")
    if dot and isinstance(inner := row.get(outer), Mapping):
        return field_of(inner, rest)
    raise KeyError(name)


def has_field(row: Mapping[str, Any], name: str) -> bool:
    """Whether `field_of` finds a value."""
    try:
        field_of(row, name)
    except KeyError:
        return False
    return True


def writable(text: str) -> bool:
    """Whether a file can hold the text: not where it has half of a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def joined(tables: Sequence[Table]) -> Table:
    """Tables one after the other, in order, with every column that one of them has.

    A column that one of them lacks, or means otherwise, is an error of whoever asks for it.
    """
    first = tables[0]
    if len(tables) == 1:
        return first
    untyped = any(table.untyped for table in tables)
    names = {name.strip(): name for table in reversed(tables) for name in table.columns}  # as the first writes it
    order = dict.fromkeys(name.strip() for table in tables for name in table.columns)
    columns: dict[str, Sequence[Any]] = {}
    gaps: dict[str, str] = {}
    for name in map(names.__getitem__, order):
        values: list[Any] = []
        for table in tables:
            part: Sequence[Any] = [ABSENT] * len(table)
            try:
                part = table.column(name)[:]
                _check_names(first, table, name)
                if untyped and not table.untyped:
                    part = _as_text(table, name, part, _truths(tables, name, part))
            except MinitrainError as error:
                gaps.setdefault(name, str(error))
            values += part
        columns[name] = values
    return replace(
        first,
        source=", ".join(table.source for table in tables[:3]) + (" ..." if len(tables) > 3 else ""),
        columns=columns,
        untyped=untyped,
        gaps=gaps,
        notes=tuple(note for table in tables for note in table.notes),
        files=tuple(part for table in tables for part in (table.files or ((table.source, len(table)),))),
    )


def _check_names(first: Table, table: Table, name: str) -> None:
    """Raise MinitrainError where the integers of a column stand for other classes than in the first table."""
    own, known = table.class_names.get(name), first.class_names.get(name)
    if own != known:
        raise MinitrainError(
            f"{table.source}, column {name!r}: its integers stand for {own}, those of {first.source} for {known}; "
            "pass the files one by one"
        )


def _truths(tables: Sequence[Table], name: str, values: Sequence[Any]) -> dict[bool, str]:
    """How the files without types write true and false in a column, where some of the values are that."""
    truths = {True: "True", False: "False"}
    if not any(type(value) is bool for value in values):
        return truths
    found = {
        text for table in tables if table.untyped and table.find(name) is not None for text in table.column(name)[:]
    }
    for value, text in truths.items():
        alike = [other for other in found if other.lower() == text.lower()]
        truths[value] = alike[0] if len(alike) == 1 else text
    return truths


def _as_text(table: Table, name: str, values: Sequence[Any], truths: Mapping[bool, str]) -> list[str]:
    """Values with types, as a file without types would hold them. truths: how that writes true and false."""
    texts = []
    for row, value in enumerate(values):
        if not isinstance(value, str | int | float) or value != value:
            kind = "NaN, no value" if isinstance(value, float) else type(value).__name__
            raise MinitrainError(
                f"{table.where(row)}, column {name!r}: is {kind}; beside a file without types, as CSV is, it must "
                "be text or a number: fill it in, or leave the row out"
            )
        texts.append(value if isinstance(value, str) else truths[value] if type(value) is bool else str(value))
    return texts
