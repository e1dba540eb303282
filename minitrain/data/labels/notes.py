"""What a run says of its labels that nobody asked for, but a person would want to know before training on them."""

import re
import shlex
from collections.abc import Mapping, Sequence

from minitrain.config.label_map import as_flag
from minitrain.data.labels.ids import Labels, class_counts
from minitrain.data.labels.values import Name, alike, is_written_number, label_keys, label_values, whole_number
from minitrain.data.tables.table import Table

MANY = 50  # classes, from which on an id or a text may have been given for a label
FEW_ROWS = 10  # a class; numbers that have no more of them may be scores
LONG = 100  # characters: longer labels are texts
_INTEGER = re.compile(r"-?[0-9]+")
SHOWN = 5  # names or pairs in a note


def label_notes(tables: Mapping[str, Table], column: str, labels: Labels) -> list[str]:
    """Lines on the classes of a run's tables by split, `train` among them; none for scores."""
    if labels.names is None:
        return []
    counts = class_counts(tables["train"], column, labels)
    return [
        *_which_is_positive(labels),
        *numbers_as_ids(tables, column, labels),
        *_without_rows(labels, counts),
        *_alike(labels, counts),
        *_too_many(labels, counts, column),
        *(_written_numbers(labels.names) or _joined(labels.names)),
    ]


def _which_is_positive(labels: Labels) -> list[str]:
    if not labels.alphabetical or labels.names is None or len(labels.names) != 2 or labels.positive != 1:
        return []
    other, positive = (plain(name) for name in labels.names)
    choice = f"--positive_label {shlex.quote(other)}"
    return [f"f1 is of '{positive}', the second by the alphabet; {choice} makes it the other's"]


def numbers_as_ids(tables: Mapping[str, Table], column: str, labels: Labels) -> list[str]:
    """A line on numbers that are read as places among names, where the column itself does not say so."""
    names = labels.names or ()
    if not labels.by_place or all(name in (str(i), f"LABEL_{i}") for i, name in enumerate(names)):
        return []
    for split, table in tables.items():
        if column not in table.columns or column in table.class_names:
            continue
        distinct = label_keys(table, column, label_values(table, column, labels.label_map))[1]
        numbers = {whole_number(value, table.untyped) for value in distinct.values() if type(value) is not Name}
        found = sorted(number for number in numbers if number is not None and 0 <= number < len(names))
        if found:
            pairs = ", ".join(f"{number} is '{plain(names[number])}'" for number in found[:SHOWN])
            return [f"numbers in {split} are read as ids: {pairs} (--label_map reads them otherwise)"]
    return []


def _without_rows(labels: Labels, counts: Mapping[int, int]) -> list[str]:
    missing = [name for i, name in enumerate(labels.names or ()) if not counts[i]]
    return [f"no training row has the label {_few(missing)}, which the model cannot learn"] if missing else []


def _alike(labels: Labels, counts: Mapping[int, int]) -> list[str]:
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(labels.names or ()):
        groups.setdefault(alike(name), []).append(i)
    names = labels.names or ()
    notes = []
    for group in [group for group in groups.values() if len(group) > 1][:SHOWN]:
        rows = ", ".join(f"'{plain(names[i])}' {counts[i]}" for i in group)
        chosen = names[max(group, key=lambda i: (counts[i], names[i] == names[i].strip()))]
        pairs = {names[i]: chosen for i in group if names[i] != chosen}
        if pairs:  # else a checkpoint gives one name to several classes, which `display_names` tells apart
            notes.append(
                f"classes that differ by blanks, case or Unicode's form alone: {rows}; {as_flag(pairs)} joins them"
            )
    return notes


def _too_many(labels: Labels, counts: Mapping[int, int], column: str) -> list[str]:
    names, rows = labels.names or (), sum(counts.values())
    longest = max(map(len, names))
    if longest > LONG:
        return [
            f"labels have up to {longest} characters: is {column!r} a column of texts? --label_column names another"
        ]
    if len(names) < MANY or len(names) * FEW_ROWS <= rows:
        return []
    said, another = f"{len(names)} classes in {rows} rows", "--label_column names another"
    if all(name.removeprefix("-").isdecimal() for name in names):
        return [f"{said}: are the numbers in {column!r} scores? --problem_type regression takes them so; {another}"]
    return [f"{said}: does {column!r} number the rows? {another}"] if len(names) > rows / 2 else []


def _written_numbers(names: Sequence[str]) -> list[str]:
    """Names that are all numbers as people write them, 0,5 or 12% or $3, so that scores may be meant."""
    odd = [name for name in names if not _INTEGER.fullmatch(name.strip())]
    if len(names) < 3 or not odd or not all(map(is_written_number, names)):
        return []
    return [
        f"'{plain(odd[0])}' is the name of a class here; where scores are meant, write numbers with a decimal "
        "point and no other signs, as 0.5"
    ]


def _joined(names: Sequence[str]) -> list[str]:
    """Names that are several of a few words: x|y beside x, or more combinations than there are words."""
    for sign in "|;,":
        joined = [name for name in names if sign in name and all(part.strip() for part in name.split(sign))]
        parts = {part.strip() for name in joined for part in name.split(sign)}
        alone = parts & set(names) if sign in "|;" else parts <= set(names)
        if joined and (alone or len(joined) * 2 > len(names) > len(parts)):
            return [
                f"'{plain(joined[0])}' may be several labels in one; here a text has one label, so that this is a "
                "class of its own"
            ]
    return []


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"'{plain(name)}'" for name in names[:SHOWN]) + more


def in_table(name: str) -> str:
    """A name as a table shows it: `plain`, in quotes where it begins or ends with a blank."""
    return plain(name) if name == name.strip() else f"'{plain(name)}'"


def plain(name: str, limit: int = 40) -> str:
    """A name as a line can show it: short, and without characters that move the cursor or hide others."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    return safe if len(safe) <= limit else f"{safe[: limit - 13]}...{safe[-10:]}"
