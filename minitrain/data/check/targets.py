"""The labels of all splits as numbers, row by row: what a run refuses is left out and reported."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from minitrain.config.data_config import LABEL, DataConfig
from minitrain.config.label_map import as_flag
from minitrain.config.problem_types import REGRESSION
from minitrain.data.check.columns import has_column, only, values_of, with_column
from minitrain.data.check.corpus import Finding
from minitrain.data.labels.ids import ClassLookup, Labels, hidden
from minitrain.data.labels.infer import infer_labels
from minitrain.data.labels.label_columns import with_label_column
from minitrain.data.labels.multi import label_sets
from minitrain.data.labels.notes import plain
from minitrain.data.labels.numbered import label_numbers
from minitrain.data.labels.values import (
    Name,
    alike,
    check_label_map,
    is_missing,
    label_keys,
    label_values,
    renamed,
    scores,
)
from minitrain.data.tables.table import ABSENT, Table
from minitrain.errors import MinitrainError, shown


@dataclass
class Targets:
    """What the labels are, and the number of each row's; None for a row without one."""

    labels: Labels | None = None
    values: list[Any] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def read_targets(tables: Mapping[str, Table], column: str, config: DataConfig, task: str | None) -> Targets:
    """The labels of all splits, the training rows first.

    Raises:
        MinitrainError: A column of labels that the flags name is not there, or --label_map renames nothing.
    """
    own, train = config.label_columns or (column,), tables["train"]
    missing = [name for name in own if not has_column(train, name)]
    if missing and (config.label_columns is not None or config.label_column is not None):
        raise MinitrainError(train.lacks(missing[0]))
    if missing:
        said = f"no column {LABEL!r} (there are {train.names_shown()}); --label_column NAME names it"
        rows = sum(map(len, tables.values()))
        return Targets(values=[None] * rows, left_out=[f"labels are not checked: {said}"])
    reader = _Reader(tables, column, config, task)
    reader.read()
    return reader.found


class _Reader:
    """Reads the labels split by split."""

    def __init__(self, tables: Mapping[str, Table], column: str, config: DataConfig, task: str | None) -> None:
        self.tables, self.column, self.config, self.task = tables, column, config, task
        self.found, self.refusal = Targets(), ""
        self.missing: list[int] = []
        self.unknown: dict[int, str] = {}  # rows of other splits, and their labels
        self.unknown_names: list[str] = []
        self.refused: dict[int, str] = {}  # training rows, and their labels

    def read(self) -> None:
        """Fill `found`."""
        start = 0
        for name, table in self.tables.items():
            values: list[Any] = [None] * len(table)
            part = self._labelled(start, table)
            if part is None:
                self.found.left_out.append(f"labels of {name} are not checked: it has none, or they are hidden")
            else:
                self._note_missing(start, len(table), part[1])
                self._fill(values, start, *part)
            self.found.values += values
            start += len(table)
        self.found.findings += self._missing() + self._refused() + self._unknown()

    def _labelled(self, start: int, table: Table) -> tuple[Table, list[int]] | None:
        """The rows of a split that have a label, with their numbers; None if its labels are hidden."""
        if self.config.label_columns is not None:
            return self._of_columns(start, table, self.config.label_columns)
        whole = with_column(table, self.column)
        if start and (not has_column(table, self.column) or hidden(whole, self.column)):
            return None
        kept = [i for i, value in enumerate(whole.columns[self.column]) if self._has_label(value, table)]
        return only(whole, kept), kept

    def _has_label(self, value: Any, table: Table) -> bool:
        if value is ABSENT:
            return False
        if not is_missing(value) or type(value) is str and self.config.label_separator is not None:
            return True
        named = self.config.label_map
        return bool(named) and type(renamed(value, table, named or {})) is Name

    def _of_columns(self, start: int, table: Table, names: Sequence[str]) -> tuple[Table, list[int]] | None:
        """The same for labels in columns of 0 and 1."""
        if not all(has_column(table, name) for name in names):
            return None
        table = replace(table, columns={name: values_of(table, name) for name in names}, gaps={})
        kept = [*range(len(table))]
        try:
            return _column_alone(with_label_column(table, names), self.column), kept
        except MinitrainError as error:
            self.refusal = self.refusal or str(error)
        rows = list(zip(*(table.columns[name] for name in names), strict=True))
        kept = [i for i, row in enumerate(rows) if all(map(_is_flag, row))]
        for i in sorted(set(range(len(table))).difference(kept)):
            given = zip(names, rows[i], strict=True)
            self.refused[start + i] = ", ".join(
                f"{name}={shown(value)}" for name, value in given if not _is_flag(value)
            )
        return _column_alone(with_label_column(only(table, kept), names), self.column), kept

    def _note_missing(self, start: int, size: int, kept: Sequence[int]) -> None:
        if len(kept) < size:
            there = set(kept)
            rows = (start + i for i in range(size) if i not in there)
            self.missing += [row for row in rows if row not in self.refused]

    def _fill(self, values: list[Any], start: int, part: Table, kept: Sequence[int]) -> None:
        """Number the labels of a split. part: its rows with a label. kept: which ones these are."""
        if not start:
            part, kept = self._infer(part, kept)
        labels = self.found.labels
        if labels is None or not kept:
            return
        try:
            numbers: Sequence[Any] = label_numbers(part, self.column, labels)
        except MinitrainError as error:
            numbers, refused = one_by_one(part, self.column, labels)
            self.refusal = self.refusal or ("" if start else str(error))
            book = self.unknown if start else self.refused
            book.update({start + kept[i]: shown(value) for i, value in refused.items()})
            if start:
                self.unknown_names += [value for value in refused.values() if type(value) is str]
        for i, number in zip(kept, numbers, strict=True):
            values[i] = number

    def _infer(self, part: Table, kept: Sequence[int]) -> tuple[Table, Sequence[int]]:
        """Find out what the training labels are; if they are refused, without those of another type than most."""
        config, column = self.config, self.column
        if not kept:
            self.found.left_out.append(f"labels are not checked: no training row has one in {column!r}")
            return part, kept
        every = [part, *(with_column(table, column) for table in list(self.tables.values())[1:])]
        check_label_map(every, column, config.label_map, config.label_separator)
        problem_type = config.problem_type or (REGRESSION if self.task == "stsb" else None)
        named, between = config.label_map, config.label_separator
        for usual in (None, _of_usual_type(part.columns[column])):
            if usual is not None:
                odd = sorted(set(range(len(kept))).difference(usual))
                self.refused |= {kept[i]: shown(part.columns[column][i]) for i in odd}
                part, kept = only(part, usual), [kept[i] for i in usual]
            try:
                self.found.labels = infer_labels(part, column, problem_type, label_map=named, separator=between)
                break
            except MinitrainError as error:
                self.refusal = self.refusal or str(error)
        return part, kept

    def _missing(self) -> list[Finding]:
        if not self.missing:
            return []
        way = "Leave these rows out, or fill them in"
        blank = self.tables["train"].untyped and self.config.label_columns is None
        way += f"; {as_flag({'': 'none'})} makes a class of empty ones." if blank else "."
        what, effect = f"Rows have no label in column {self.column!r}.", "train.py stops at the first of them."
        return [self._finding("missing_label", self.missing, what, effect, way)]

    def _refused(self) -> list[Finding]:
        if not self.refusal:
            return []
        effect = "It stops there; what does not depend on these labels was checked."
        way = "Follow what it says, or leave these rows out."
        return [self._finding("unusable_labels", self.refused, f"train.py says: {self.refusal}.", effect, way)]

    def _unknown(self) -> list[Finding]:
        if not self.unknown:
            return []
        odd = ", ".join(list(dict.fromkeys(self.unknown.values()))[:5])
        what = (
            f"Rows of other splits have labels that no training row has, or that are no label: {plain(odd, 200)}."
        )
        way = f"Leave these rows out, or say which class is meant: {self._as_known()}"
        return [self._finding("unknown_label", self.unknown, what, "train.py stops at the first of them.", way)]

    def _as_known(self) -> str:
        """A map of unknown labels to the classes that they differ from by blanks or case alone."""
        known = {alike(name): name for name in (self.found.labels and self.found.labels.names) or ()}
        odd = dict.fromkeys(label for label in self.unknown_names if alike(label) in known)
        return as_flag({label: known[alike(label)] for label in odd}) if odd else "--label_map OLD=NEW"

    def _finding(
        self, name: str, rows: Sequence[int] | Mapping[int, str], what: str, effect: str, way_out: str
    ) -> Finding:
        notes = {row: f"label {value}" for row, value in rows.items()} if isinstance(rows, Mapping) else {}
        of = sum(map(len, self.tables.values()))
        return Finding(name=name, rows=sorted(rows), of=of, what=what, effect=effect, way_out=way_out, notes=notes)


def _is_flag(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in ("0", "1", "0.0", "1.0", "true", "false")
    return isinstance(value, int | float) and value in (0, 1)


def _column_alone(table: Table, column: str) -> Table:
    return replace(table, columns={column: table.columns[column]})


def _of_usual_type(values: Sequence[Any]) -> list[int]:
    """The rows whose label is of the commonest type."""
    usual = Counter(map(type, values)).most_common(1)[0][0]
    return [i for i, value in enumerate(values) if type(value) is usual]


def one_by_one(part: Table, column: str, labels: Labels) -> tuple[list[Any], dict[int, Any]]:
    """The number of each label, None for one that is refused, and the refused ones by row."""
    values = part.columns[column]
    if labels.names is not None and not labels.multi_label:
        return _classes(part, column, labels)
    numbers: list[Any] = []
    for i in range(len(part)):
        single = only(part, [i])
        try:
            found: Any = scores(single, column) if labels.names is None else label_sets(single, column, labels)
        except MinitrainError:
            found = [None]
        numbers += found
    return numbers, {i: values[i] for i, number in enumerate(numbers) if number is None}


def _classes(part: Table, column: str, labels: Labels) -> tuple[list[Any], dict[int, Any]]:
    values = label_values(part, column, labels.label_map)
    hashable = [value if isinstance(value, str | int | float) else shown(value) for value in values]
    keys, distinct = label_keys(part, column, hashable)
    try:
        lookup = ClassLookup(part, column, labels)
        ids = {key: lookup.find(value) for key, value in distinct.items()}
    except MinitrainError:
        ids = dict.fromkeys(distinct)
    numbers = [ids[key] for key in keys]
    return numbers, {i: values[i] for i, number in enumerate(numbers) if number is None}
