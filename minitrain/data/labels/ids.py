"""The classes of a run, and the id of each label among them.

A number is a class by its name; by its place only if the training data, or the trained head, says what its numbers
stand for. Any other label is an error that names the row and the way out.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from minitrain.config.label_map import as_flag
from minitrain.config.problem_types import CLASSIFICATION, MULTI_LABEL, REGRESSION
from minitrain.data.labels.values import (
    LARGEST,
    Name,
    alike,
    bad_label,
    class_names,
    is_integer,
    is_missing,
    label_keys,
    label_values,
    raw_values,
    row_of,
    whole_number,
)
from minitrain.data.tables.table import Table
from minitrain.errors import MinitrainError, listed, shown

OWN_NAMES = "give each its own name in 'id2label' of its config.json, or start a --new_head"


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The classes of a run, or scores.

    Attributes:
        names: The classes in order of their ids; None for regression, where a label is a score.
        positive: Of two classes, the id of the one that F1 is about.
        numbers_are_ids: Whether a number means the class at its place, as in the training data or the trained head;
            None: only if no name is a number.
        label_map: New names for the labels of the data.
        alphabetical: Only the alphabet gave the order of the classes.
        multi_label: A row has any number of the classes, or none.
        separator: Between the labels of a row, if they are one text.
    """

    names: tuple[str, ...] | None
    positive: int = 1
    numbers_are_ids: bool | None = field(default=None, compare=False)
    label_map: Mapping[str, str] | None = None
    alphabetical: bool = field(default=False, compare=False)
    multi_label: bool = False
    separator: str | None = field(default=None, compare=False)

    @property
    def problem_type(self) -> str:
        if self.multi_label:
            return MULTI_LABEL
        return REGRESSION if self.names is None else CLASSIFICATION

    @property
    def num_labels(self) -> int:
        """Width of the head: one output per class, or one for a score."""
        return self.num_classes or 1

    @property
    def num_classes(self) -> int | None:
        """The number of classes; None for scores."""
        return None if self.names is None else len(self.names)

    @property
    def positive_label(self) -> str | None:
        """The name of the class that F1 is about; None unless a row has one of two."""
        two = self.names is not None and len(self.names) == 2 and not self.multi_label
        return self.names[self.positive] if self.names is not None and two else None

    @property
    def by_place(self) -> bool:
        """Whether a number is an id: as recorded, or because the names (LABEL_0, LABEL_1, ...) say no more."""
        if self.names is None:
            return False
        if self.names == default_names(len(self.names)):
            return True
        known = self.numbers_are_ids
        return not any(map(is_integer, self.names)) if known is None else known


def saved_labels(names: tuple[str, ...] | None, facts: Mapping[str, Any], multi_label: bool = False) -> Labels:
    """The classes of a saved head. facts: its `results.json`, or {}."""
    if names is None:
        return Labels(names=None)
    settings = facts.get("config") or {}
    positive = facts.get("positive_label")
    return Labels(
        names=names,
        positive=names.index(positive) if len(names) == 2 and names.count(positive) == 1 else 1,
        numbers_are_ids=facts.get("numbers_are_ids") is True,
        label_map=settings.get("label_map"),
        multi_label=multi_label,
        separator=settings.get("label_separator"),
    )


def positive_of_data(table: Table, column: str, labels: Labels) -> int:
    """The id of the data's own class 1, if it has the same two classes in any order; else 1."""
    own = class_names(table, column, labels.label_map)
    return labels.names.index(own[1]) if labels.names and len(own) == 2 and set(own) == set(labels.names) else 1


def display_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names that tell all classes apart, even if a head gives one name to several.

    >>> display_names(["a", "b", "a"])
    ('a (0)', 'b', 'a (2)')
    """
    counts = Counter(names)
    taken = {name for name, count in counts.items() if count == 1}
    result = []
    for i, name in enumerate(names):
        shown = name
        while counts[name] > 1 and (shown == name or shown in taken):  # a class may be called "a (0)" already
            shown = f"{shown} ({i})"
        taken.add(shown)
        result.append(shown)
    return tuple(result)


def default_names(count: int) -> tuple[str, ...]:
    """The names that transformers gives to unnamed classes.

    >>> default_names(2)
    ('LABEL_0', 'LABEL_1')
    """
    return tuple(f"LABEL_{i}" for i in range(count))


def quoted(names: Sequence[str]) -> str:
    """Names for a message, in quotes."""
    return listed(map(repr, names))


class ClassLookup:
    """Finds the class id of each label of a column, by name, by number, or by the data's own ids.

    Raises:
        MinitrainError: The column has class names, and none of them is a class of the run.
    """

    def __init__(self, table: Table, column: str, labels: Labels) -> None:
        assert labels.names is not None
        self.table, self.column, self.labels, self.names = table, column, labels, labels.names
        self.where = f"{table.source}, column {column!r}"
        self.by_name = {name: i for i, name in enumerate(self.names)}
        self.counts = Counter(self.names)
        self.own = class_names(table, column, labels.label_map)  # the data's classes, in its own order
        self.by_place = labels.by_place
        if self.own:
            count = len(self.names)
            self.by_place = self.names in (tuple(map(str, range(count))), default_names(count))
            if not self.by_place and not set(self.own) & set(self.names):
                pairs = zip(self.own, self.names, strict=False)
                flag = as_flag({name: self._alike(name) or other for name, other in pairs})
                raise MinitrainError(
                    f"{self.where}: its classes are {quoted(self.own)}, those of the model {quoted(self.names)}; "
                    f"numbers do not tell which is which. Say it, as in {flag} (or in another order)"
                )

    def find(self, value: Any) -> int | None:
        """The id of a label, or None if it is no class. Raises MinitrainError if it may be two."""
        if isinstance(value, str) and value in self.by_name:
            return self._named(str(value))
        if type(value) is bool and not self.own:
            same = [name for name in self.names if name.lower() == str(value).lower()]
            return self._named(same[0]) if len(same) == 1 else None
        number = None if isinstance(value, bool | Name) else whole_number(value, self.table.untyped)
        if type(value) is float and number is None and not self.own:
            return self._named(str(value))  # 0.5 beside classes that --label_map names
        if number is None or abs(number) >= LARGEST:
            return None
        place = number if 0 <= number < len(self.names) else None
        if self.own:
            if type(value) is not int or not 0 <= number < len(self.own):
                return None
            return place if self.by_place else self._named(self.own[number])
        named = self._named(str(number))
        if not self.by_place or not is_integer(str(value)):  # 1.0 is the class "1", but no place
            return named
        if named not in (None, place):
            raise MinitrainError(
                f"{self.where}: the number {number} is a place in the list of the classes, {quoted(self.names)}, "
                "and one of their names, too; say which class it is, as in "
                f"{as_flag({str(number): self.names[number if place is not None else named or 0]})}"
            )
        return place

    def _named(self, name: str) -> int | None:
        """The only class of this name, if there is one."""
        if (count := self.counts[name]) > 1:
            raise MinitrainError(f"{self.where}: the head has {count} classes called {name!r}; {OWN_NAMES}")
        return self.by_name.get(name)

    def refuse(self, row: int, value: Any, raw: Sequence[Any]) -> NoReturn:
        """Raise MinitrainError for the label of a row that is no class. raw: the column as the data has it."""
        ids = f", or an id from 0 to {len(self.own or self.names) - 1}" if self.own or self.by_place else ""
        expected = f"one of {quoted(self.names)}{ids}"
        if type(value) is Name:
            value, expected = str(value), f"{expected} (--label_map made it of {raw[row]!r})"
        elif not is_missing(value) and isinstance(value, str | int | float):
            expected += f"; {self._remedy(value, raw)}"
        bad_label(self.table, self.column, row, value, expected)

    def _remedy(self, value: Any, raw: Sequence[Any]) -> str:
        if isinstance(value, str) and (same := self._alike(str(value))) is not None:
            others = [v for v in dict.fromkeys(raw) if isinstance(v, str) and v not in self.by_name]
            way = as_flag({v: name for v in others[:20] if (name := self._alike(v)) is not None})
            return f"it differs from {shown(same)} by blanks, case or Unicode's form alone: {way} takes it for that"
        if type(value) is int and 0 <= value < len(self.own):
            flag = as_flag({(name := self.own[value]): "NAME"})
            return f"it stands for {shown(name)} there: leave the row out, or say which class: {flag}"
        if value == -1 and self.own:
            return "in GLUE's test splits -1 marks a hidden label: leave the row out"
        if (old := self._unnamed_numbers(value, raw)) is None:
            place = bool(self.own) and type(value) is int  # a map names labels, not places among names
            way = "" if place or len(str(value)) > 100 else f", or say which class: {as_flag({str(value): 'NAME'})}"
            return f"the training data has no such label: leave the row out{way}"
        if several := [name for name, count in self.counts.items() if count > 1]:
            return f"the head calls several classes {several[0]!r}: {OWN_NAMES}"
        pairs = as_flag(dict(zip(old[:20], self.names, strict=False)))
        return f"say which is which, as in {pairs} (or in another order): it is not guessed"

    def _unnamed_numbers(self, value: Any, raw: Sequence[Any]) -> list[str] | None:
        """The numbers or booleans of a column that may stand for the classes, if the label is one of them."""
        if type(value) is bool:
            return ["False", "True"]
        if self.own or self.by_place or any(map(is_integer, self.names)):
            return None
        untyped, mapped = self.table.untyped, self.labels.label_map or {}
        numbers = {n for v in raw if type(v) is not bool and (n := whole_number(v, untyped)) is not None}
        old = [str(n) for n in sorted(numbers)]
        named = any(n in mapped for n in old)
        return old if not named and str(whole_number(value, untyped)) in old[: len(self.names)] else None

    def _alike(self, value: str) -> str | None:
        """The only class whose name differs from the value by blanks, case or Unicode's form alone."""
        same = [name for name in self.names if alike(name) == alike(value)]
        return same[0] if len(same) == 1 else None


def class_ids(table: Table, column: str, labels: Labels) -> list[int]:
    """The class id of every row. Raises MinitrainError naming source, row, column and value."""
    keys, ids = _ids_by_key(table, column, labels)
    return [ids[key] for key in keys]


def class_counts(table: Table, column: str, labels: Labels) -> Counter[int]:
    """How many rows each class id has. Raises MinitrainError as `class_ids`."""
    keys, ids = _ids_by_key(table, column, labels)
    counts: Counter[int] = Counter()
    for key, count in Counter(keys).items():
        counts[ids[key]] += count
    return counts


def _ids_by_key(table: Table, column: str, labels: Labels) -> tuple[Sequence[Any], dict[Any, int]]:
    """The key of every row's label, and the class id of each key."""
    values = label_values(table, column, labels.label_map)
    keys, distinct = label_keys(table, column, values)
    lookup = ClassLookup(table, column, labels)
    ids = {}
    for key, value in distinct.items():
        if (number := lookup.find(value)) is None:
            lookup.refuse(row_of(values, value), value, raw_values(table, column))
        ids[key] = number
    return keys, ids


def hidden(table: Table, column: str, labels: Labels | None = None) -> bool:
    """Whether all labels are -1, as in GLUE's test splits with secret labels, and -1 is no class of the run."""
    if table.find(column) is None or labels is not None and labels.multi_label:
        return table.find(column) is None
    is_class = labels is not None and "-1" in (*(labels.names or ()), *(labels.label_map or ()))
    return not is_class and all(v in (-1, "-1") for v in table.column(column)[:])
