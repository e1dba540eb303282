"""The classes of a run, and the id that each label of a column has among them.

A number is a class by its name. It is one by its place only where the training data, or the head that was trained
before, says what its numbers stand for. What is neither is an error with its row, and with what would help.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from minitrain.config.label_map import as_flag
from minitrain.config.problem_types import CLASSIFICATION, REGRESSION
from minitrain.data.labels.values import (
    LARGEST,
    Name,
    alike,
    bad_label,
    class_names,
    is_integer,
    is_missing,
    is_written_number,
    label_keys,
    label_values,
    raw_values,
    whole_number,
)
from minitrain.data.tables.table import Table
from minitrain.errors import MinitrainError, listed

LARGEST_SCORE = (2 - 2**-23) * 2.0**127  # a float32 holds no larger number


OWN_NAMES = "give each a name of its own in 'id2label' of its config.json, or start a --new_head"


@dataclass(frozen=True, kw_only=True)
class Labels:
    """names: the classes in order of their ids, or None for regression, where a label is a score.

    positive: the id of the class that F1 is about, of two. numbers_are_ids: whether a number stands for the class
    at its place, because the training data or its head numbers the classes so; None leaves that to the names, which
    numbers stand for where some are numbers themselves. label_map: other names for labels as the data has them.
    alphabetical: whether only the alphabet has put the classes in this order.
    """

    names: tuple[str, ...] | None
    positive: int = 1
    numbers_are_ids: bool | None = field(default=None, compare=False)
    label_map: Mapping[str, str] | None = None
    alphabetical: bool = field(default=False, compare=False)

    @property
    def problem_type(self) -> str:
        return REGRESSION if self.names is None else CLASSIFICATION

    @property
    def num_labels(self) -> int:
        """Width of the head: one output a class, one alone for a score."""
        return self.num_classes or 1

    @property
    def num_classes(self) -> int | None:
        """How many classes there are to tell apart, as metrics ask it; None for scores."""
        return None if self.names is None else len(self.names)

    @property
    def positive_label(self) -> str | None:
        """The name of the class that F1 is about; None where there are not two."""
        return self.names[self.positive] if self.names is not None and len(self.names) == 2 else None

    @property
    def by_place(self) -> bool:
        """Whether a number is an id: as recorded, or because the names (LABEL_0, LABEL_1, ...) say no more."""
        if self.names is None or self.names == default_names(len(self.names)):
            return self.names is not None
        known = self.numbers_are_ids
        return not any(map(is_integer, self.names)) if known is None else known


def saved_labels(names: tuple[str, ...] | None, facts: Mapping[str, Any]) -> Labels:
    """The classes of a saved head, read as its `results.json` says (facts; {} where there is none)."""
    if names is None:
        return Labels(names=None)
    positive = facts.get("positive_label")
    known = len(names) == 2 and names.count(positive) == 1
    return Labels(
        names=names,
        positive=names.index(positive) if known else 1,
        numbers_are_ids=facts.get("numbers_are_ids") is True,
        label_map=facts.get("config", {}).get("label_map"),
    )


def positive_of_data(table: Table, column: str, labels: Labels) -> int:
    """The id that the data's own class 1 has, where it has the same two classes, maybe in another order; else 1."""
    own = class_names(table, column, labels.label_map)
    return labels.names.index(own[1]) if labels.names and len(own) == 2 and set(own) == set(labels.names) else 1


def display_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names that tell all classes apart, where a head calls two the same.

    >>> display_names(["a", "b", "a"])
    ('a (0)', 'b', 'a (2)')
    """
    counts = Counter(names)
    taken = {name for name, count in counts.items() if count == 1}
    result = []
    for i, name in enumerate(names):
        shown = name
        while counts[name] > 1 and (shown == name or shown in taken):  # a class may be called "a (0)" by itself
            shown = f"{shown} ({i})"
        taken.add(shown)
        result.append(shown)
    return tuple(result)


def default_names(count: int) -> tuple[str, ...]:
    """The names that transformers gives to classes without any."""
    return tuple(f"LABEL_{i}" for i in range(count))


def quoted(names: Sequence[str]) -> str:
    """Names as a message lists them."""
    return listed(repr(name) for name in names)


class Classes:
    """The classes of a run as one column names them: by text, by number, or by the data's own ids."""

    def __init__(self, table: Table, column: str, labels: Labels) -> None:
        """Raises MinitrainError where the column has class names of its own, and they are not those of the run."""
        assert labels.names is not None
        self.table, self.column, self.labels, self.names = table, column, labels, labels.names
        self.by_name = {name: i for i, name in enumerate(self.names)}
        self.counts = Counter(self.names)
        self.own = class_names(table, column, labels.label_map)  # the data numbers its classes in its own order
        in_place = self.names in (tuple(map(str, range(len(self.names)))), default_names(len(self.names)))
        self.by_place = in_place if self.own else labels.by_place
        if self.own and not in_place and not set(self.own) & set(self.names):
            pairs = {name: self._alike(name) or other for name, other in zip(self.own, self.names, strict=False)}
            raise MinitrainError(
                f"{table.source}, column {column!r}: its classes are {quoted(self.own)}, those of the model "
                f"{quoted(self.names)}; numbers do not tell which is which. Say it, as in {as_flag(pairs)} (or in "
                "another order)"
            )

    def find(self, value: Any) -> int | None:
        """The id of a label, or None where it is no class. Raises MinitrainError where it may be two."""
        if isinstance(value, str) and value in self.by_name:
            return self._only(str(value))
        if type(value) is bool and not self.own:
            same = [name for name in self.names if name.lower() == str(value).lower()]
            return self._only(same[0]) if len(same) == 1 else None
        number = None if isinstance(value, bool | Name) else whole_number(value, self.table.untyped)
        if type(value) is float and number is None and str(value) in self.by_name and not self.own:
            return self._only(str(value))  # 0.5 beside classes that --label_map names
        if number is None or abs(number) >= LARGEST:
            return None
        place = number if 0 <= number < len(self.names) else None
        if self.own:
            if type(value) is not int or not 0 <= number < len(self.own):
                return None
            own = self.own[number]
            return place if self.by_place else self._only(own) if own in self.by_name else None
        name = str(number)
        named = self._only(name) if name in self.by_name else None
        if not self.by_place or not is_integer(str(value)):  # 1.0 is the class "1", but no place
            return named
        if named not in (None, place):
            raise MinitrainError(
                f"{self.table.source}, column {self.column!r}: the number {name} is a place in the list of the "
                f"classes, {quoted(self.names)}, and one of their names, too; say which class it is, as in "
                f"{as_flag({name: self.names[number if place is not None else named or 0]})}"
            )
        return place

    def _only(self, name: str) -> int:
        if (count := self.counts[name]) > 1:
            raise MinitrainError(
                f"{self.table.source}, column {self.column!r}: the head has {count} classes that are called "
                f"{name!r}; {OWN_NAMES}"
            )
        return self.by_name[name]

    def refuse(self, row: int, value: Any, raw: Sequence[Any]) -> NoReturn:
        """Raise MinitrainError for the label of a row that is no class. raw: the column as the data has it."""
        ids = f", or an id from 0 to {len(self.own or self.names) - 1}" if self.own or self.by_place else ""
        expected = f"one of {quoted(self.names)}{ids}"
        if not is_missing(value) and isinstance(value, str | int | float):
            expected += f"; {self._remedy(value, raw)}"
        if type(value) is Name:
            bad_label(self.table, self.column, row, str(value), f"{expected} (--label_map made it of {raw[row]!r})")
        bad_label(self.table, self.column, row, value, expected)

    def _remedy(self, value: Any, raw: Sequence[Any]) -> str:
        untyped = self.table.untyped
        if isinstance(value, str) and (same := self._alike(str(value))) is not None:
            others = [v for v in dict.fromkeys(raw) if isinstance(v, str) and v not in self.by_name]
            joined = as_flag({v: name for v in others[:20] if (name := self._alike(v)) is not None})
            return f"it differs from {same!r} by blanks, case or Unicode's form alone: {joined} takes it for that"
        if value == -1 and self.own:
            return "in GLUE's test splits -1 marks a hidden label"
        if type(value) is int and 0 <= value < len(self.own):
            value = self.own[value]
            return (
                f"it stands for {value!r} there: leave the row out, or say which class: {as_flag({value: 'NAME'})}"
            )
        numbers = {n for v in raw if type(v) is not bool and (n := whole_number(v, untyped)) is not None}
        words = not self.own and not self.by_place and not any(map(is_integer, self.names))
        mapped = set(self.labels.label_map or {})  # which says them already
        words = words and not {str(n) for n in numbers} & mapped
        old = ["False", "True"] if type(value) is bool else [str(n) for n in sorted(numbers)]
        if type(value) is bool or (words and str(whole_number(value, untyped)) in old[: len(self.names)]):
            if several := [name for name, count in self.counts.items() if count > 1]:
                return f"the head calls several classes {several[0]!r}: {OWN_NAMES}"
            pairs = as_flag(dict(zip(old[:20], self.names, strict=False)))
            return f"say which is which, as in {pairs} (or in another order): it is not guessed"
        pairs = as_flag({str(value): "NAME"})
        return f"the training data has no such label: leave the row out, or say which class: {pairs}"

    def _alike(self, value: str) -> str | None:
        """The only class whose name differs from the value by blanks, case or Unicode's form alone."""
        same = [name for name in self.names if alike(name) == alike(value)]
        return same[0] if len(same) == 1 else None


def label_numbers(table: Table, column: str, labels: Labels) -> list[int] | list[float]:
    """Class ids, or scores, of every row. Raises MinitrainError naming source, row, column and value."""
    return scores(table, column) if labels.names is None else class_ids(table, column, labels)


def class_ids(table: Table, column: str, labels: Labels) -> list[int]:
    """The class id of every row. Raises MinitrainError naming source, row, column and value."""
    keys, found = _found(table, column, labels)
    return list(map(found.__getitem__, keys))


def class_counts(table: Table, column: str, labels: Labels) -> Counter[int]:
    """How many rows each class id has. Raises MinitrainError as `class_ids`."""
    keys, found = _found(table, column, labels)
    counts: Counter[int] = Counter()
    for key, count in Counter(keys).items():
        counts[found[key]] += count
    return counts


def _found(table: Table, column: str, labels: Labels) -> tuple[Sequence[Any], dict[Any, int]]:
    """A key of each label, and the class id of each key."""
    values = label_values(table, column, labels.label_map)
    keys, distinct = label_keys(table, column, values)
    classes = Classes(table, column, labels)
    found = {}
    for key, value in distinct.items():
        if (number := classes.find(value)) is None:
            row = next(i for i, other in enumerate(keys) if other == key or other is key)
            classes.refuse(row, values[row], raw_values(table, column))
        found[key] = number
    return keys, found


def scores(table: Table, column: str) -> list[float]:
    """The score of every row. Raises MinitrainError naming source, row, column and value."""
    result = []
    for i, value in enumerate(raw_values(table, column)):
        try:
            if type(value) not in (int, float) and not (table.untyped and type(value) is str):
                raise ValueError
            number = float(value)
            if not abs(number) <= LARGEST_SCORE:  # so that NaN fails too
                raise ValueError
        except (ValueError, OverflowError):
            way = "; write it as 0.5: a decimal point, and no other signs" if is_written_number(str(value)) else ""
            if way and type(value) is str and not table.untyped:
                way = "; write it as a number, without quotes"
            bad_label(table, column, i, value, f"a finite number, as regression needs{way}", classes=False)
        result.append(number)
    return result


def hidden(table: Table, column: str, labels: Labels | None = None) -> bool:
    """Whether all labels are -1, as in the test splits of GLUE whose labels are kept secret.

    labels: of the run, in which -1 may be a class.
    """
    if table.find(column) is None:
        return True
    is_class = labels is not None and "-1" in (*(labels.names or ()), *(labels.label_map or ()))
    return not is_class and all(v in (-1, "-1") for v in table.column(column)[:])
