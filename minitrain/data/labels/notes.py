"""What a run reports about its classes, because a person would want to know it before training on them."""

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

from minitrain.config.label_map import as_flag
from minitrain.data.labels.ids import Labels, class_counts
from minitrain.data.labels.multi import label_sets
from minitrain.data.labels.values import Name, alike, is_written_number, label_keys, label_values, whole_number
from minitrain.data.tables.table import Table

MANY = 50  # classes; more may be ids or texts, given as labels by mistake
FEW_ROWS = 10  # per class; numbers with no more may be scores
LONG = 100  # characters; longer labels are texts
SHOWN = 5  # names or pairs in a note
_INTEGER = re.compile(r"-?[0-9]+")


def label_notes(tables: Mapping[str, Table], column: str, labels: Labels) -> list[str]:
    """Notes on the classes of a run's tables by split, `train` among them; none for scores."""
    names = labels.names
    if names is None:
        return []
    if labels.multi_label:
        return _several(tables["train"], column, labels)
    notes = []
    if labels.alphabetical and len(names) == 2 and labels.positive == 1:
        choice = f"--positive_label {shlex.quote(plain(names[0]))}"
        notes.append(f"f1 is of '{plain(names[1])}', the second by the alphabet; {choice} makes it the other's")
    notes += numbers_as_ids(tables, column, labels)
    counts = class_counts(tables["train"], column, labels)
    notes += _without_rows(names, counts)
    notes += _alike(names, counts)
    return notes + odd_names(names, sum(counts.values()), column)


def odd_names(names: Sequence[str], rows: int, column: str) -> list[str]:
    """Notes on names of classes that look like something else: texts, numbers of rows, scores, several labels."""
    return _too_many(names, rows, column) + (_written_numbers(names) or _joined(names))


def _several(train: Table, column: str, labels: Labels) -> list[str]:
    """Notes on labels of which a row has several."""
    names, sets = labels.names or (), label_sets(train, column, labels)
    counts = Counter(i for ids in sets for i in ids)
    notes = _without_rows(names, counts)
    if everywhere := [i for i in range(len(names)) if counts[i] == len(sets)]:
        few = _few([names[i] for i in everywhere])
        notes.append(f"every training row has the label {few}: there is nothing to learn of it")
    if (longest := max(map(len, names))) > LONG:
        notes.append(f"labels have up to {longest} characters: is {column!r} a column of texts?")
    for sign in ",;|":
        joined = [name for name in names if sign in name and {part.strip() for part in name.split(sign)} & {*names}]
        if joined and labels.separator is None:
            notes.append(f"'{plain(joined[0])}' is one label here: names in a list are not split at '{sign}'")
            break
    return [*notes, *_alike(names, counts)]


def _without_rows(names: Sequence[str], counts: Mapping[int, int]) -> list[str]:
    missing = [name for i, name in enumerate(names) if not counts[i]]
    return [f"no training row has the label {_few(missing)}, which the model cannot learn"] if missing else []


def rare_classes(counts: Mapping[int, int], classes: int, rows: int) -> list[int]:
    """The classes with some rows, but fewer than 10, and than a tenth of what equally frequent classes had.

    >>> rare_classes({0: 990, 1: 9, 2: 1}, classes=3, rows=1000)
    [1, 2]
    """
    return [i for i in range(classes) if 0 < counts.get(i, 0) < min(FEW_ROWS, rows / classes / 10)]


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"'{plain(name)}'" for name in names[:SHOWN]) + more


def numbers_as_ids(tables: Mapping[str, Table], column: str, labels: Labels) -> list[str]:
    """A note on numbers that are read as places among names, unless the column itself names them."""
    names = labels.names or ()
    if (
        labels.multi_label
        or not labels.by_place
        or all(name in (str(i), f"LABEL_{i}") for i, name in enumerate(names))
    ):
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


def alike_names(names: Sequence[str]) -> list[list[int]]:
    """The classes whose names differ by blanks, case or Unicode's form alone.

    >>> alike_names(["good", "bad", "Good "])
    [[0, 2]]
    """
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        groups.setdefault(alike(name), []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def usual(group: Sequence[int], names: Sequence[str], counts: Mapping[int, int]) -> int:
    """Of classes with names that are alike the most frequent; if equally so, one without outer blanks."""
    return max(group, key=lambda i: (counts[i], names[i] == names[i].strip()))


def _alike(names: Sequence[str], counts: Mapping[int, int]) -> list[str]:
    notes = []
    for group in alike_names(names)[:SHOWN]:
        rows = ", ".join(f"'{plain(names[i])}' {counts[i]}" for i in group)
        chosen = names[usual(group, names, counts)]
        pairs = {names[i]: chosen for i in group if names[i] != chosen}
        if pairs:  # else a checkpoint gives one name to several classes, which `display_names` tells apart
            notes.append(
                f"classes that differ by blanks, case or Unicode's form alone: {rows}; {as_flag(pairs)} joins them"
            )
    return notes


def _too_many(names: Sequence[str], rows: int, column: str) -> list[str]:
    longest, another = max(map(len, names)), "--label_column names another"
    if longest > LONG:
        return [f"labels have up to {longest} characters: is {column!r} a column of texts? {another}"]
    if len(names) < MANY or len(names) * FEW_ROWS <= rows:
        return []
    said = f"{len(names)} classes in {rows} rows"
    if all(name.removeprefix("-").isdecimal() for name in names):
        return [f"{said}: are the numbers in {column!r} scores? --problem_type regression takes them so; {another}"]
    return [f"{said}: does {column!r} number the rows? {another}"] if len(names) > rows / 2 else []


def _written_numbers(names: Sequence[str]) -> list[str]:
    """A note on names that are all numbers as people write them (0,5 or 12% or $3): scores may be meant."""
    odd = [name for name in names if not _INTEGER.fullmatch(name.strip())]
    if len(names) < 3 or not odd or not all(map(is_written_number, names)):
        return []
    return [f"'{plain(odd[0])}' is the name of a class here; write scores as 0.5: a decimal point, no other signs"]


def _joined(names: Sequence[str]) -> list[str]:
    """A note on names that join others: x|y beside x, or more combinations than there are parts."""
    if all(name.startswith("[") and name.endswith("]") for name in names):
        way = "--problem_type multi_label_classification reads such texts as lists"
        return [f"'{plain(names[0])}' may be several labels; here it is a class: {way}"]
    for sign in "|;,":
        joined = [name for name in names if sign in name and all(part.strip() for part in name.split(sign))]
        parts = {part.strip() for name in joined for part in name.split(sign)}
        alone = parts & set(names) if sign in "|;" else parts <= set(names)
        if joined and (alone or len(joined) * 2 > len(names) > len(parts)):
            way = f"--label_separator '{sign}' trains with several a text"
            return [f"'{plain(joined[0])}' may be several labels in one; here it is a class: {way}"]
    return []


def in_table(name: str, limit: int = 40) -> str:
    """A name for a table: `plain`, in quotes if it begins or ends with a blank."""
    return plain(name, limit) if name == name.strip() else f"'{plain(name, limit)}'"


def plain(name: str, limit: int = 40) -> str:
    """A name for a line of text: short, and without characters that move the cursor or hide others.

    >>> print(plain("up\\x1b[A"))
    up\\x1b[A
    """
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    return safe if len(safe) <= limit else f"{safe[: limit - 13]}...{safe[-10:]}"
