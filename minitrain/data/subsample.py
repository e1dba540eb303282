"""Which rows of a table are drawn: for a sample, or to be held back for evaluation.

What is drawn follows from seed and labels alone. Python promises that the numbers of `random.Random(seed)` stay the
same, so a later version and another machine draw the same rows.
"""

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from minitrain.config.data_config import DataConfig
from minitrain.data.labels.ids import Labels, label_numbers
from minitrain.data.tables.table import Table
from minitrain.data.tokenizer.tokenizer import check_texts
from minitrain.errors import MinitrainError, shown


def drawn(count: int, wanted: int, seed: int) -> list[int]:
    """`wanted` of `count` rows, counted from 0, in ascending order."""
    return sorted(_shuffled(count, seed)[:wanted])


def held_back(groups: Sequence[int] | None, count: int, wanted: int, seed: int) -> list[int]:
    """`wanted` of `count` rows to hold back for evaluation, counted from 0, in ascending order.

    groups: the class of each row. The same share of each is held back as far as whole rows allow, by largest
    remainders, and never all rows while another class can spare one. None draws from all rows alike.
    """
    order = _shuffled(count, seed)
    if groups is None:
        return sorted(order[:wanted])
    by_group: dict[int, list[int]] = {group: [] for group in groups}  # in the order of their first rows
    for row in order:
        by_group[groups[row]].append(row)
    quotas = _quotas([len(rows) for rows in by_group.values()], wanted)
    return sorted(row for rows, quota in zip(by_group.values(), quotas, strict=True) for row in rows[:quota])


def _quotas(sizes: Sequence[int], wanted: int) -> list[int]:
    """How many rows of each class are held back: [50, 30, 1], 10 -> [6, 4, 0]."""
    total = sum(sizes)
    quotas = [min(size * wanted // total, size - 1) for size in sizes]
    remainders = [size * wanted % total for size in sizes]
    # By largest remainder; what classes of a single row cannot give, the largest give; at last they give it too.
    turns = sorted(range(len(sizes)), key=lambda i: (-remainders[i], -sizes[i]))
    by_size = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    for spare in (1, 0):
        while (left := wanted - sum(quotas)) > 0:
            able = [i for i in turns if quotas[i] < sizes[i] - spare][:left]
            if not able:
                break
            for i in able:
                quotas[i] += 1
            turns = by_size
    return quotas


def _shuffled(count: int, seed: int) -> list[int]:
    draw = Random(seed).random
    keys = [draw() for _ in range(count)]
    return sorted(range(count), key=keys.__getitem__)


@dataclass(frozen=True)
class Draw:
    """Chooses rows of tables whose texts and labels it knows how to read, and says what became of the classes."""

    config: DataConfig
    text_columns: tuple[str, ...]
    label_column: str
    labels: Labels
    notes: list[str] = field(default_factory=list)

    def hold_back(self, tables: dict[str, Table]) -> dict[str, Table]:
        """Take an evaluation table out of the training rows, the same share of every class."""
        fraction, train = self.config.eval_fraction, tables["train"]
        if any(name.startswith("validation") for name in tables):
            raise MinitrainError(
                "--eval_fraction splits the training data, but there is evaluation data already: leave one out"
            )
        count = round(fraction * len(train))
        if not 0 < count < len(train):
            raise MinitrainError(
                f"--eval_fraction {fraction} of {len(train)} rows is {count}; expected some, not all"
            )
        numbers = label_numbers(train, self.label_column, self.labels)
        groups = None if self.labels.names is None else [int(number) for number in numbers]
        held = held_back(groups, len(train), count, self.config.seed)
        left = sorted(set(range(len(train))).difference(held))
        for name, rows in (("training", left), ("validation", held)):
            self._say_missing(name, numbers, rows)
        self._check_classes(f"the {len(left)} rows that --eval_fraction {fraction} leaves", numbers, left)
        return tables | {"train": self._chosen(train, left), "validation": self._chosen(train, held)}

    def sample(self, name: str, table: Table, count: int | None, training: bool = False) -> Table:
        """At most `count` rows of a split. training: they must have two classes then."""
        if count is None or count >= len(table):
            return table
        numbers = label_numbers(table, self.label_column, self.labels)  # while its rows have their numbers
        first = self.config.sample == "first"
        rows = list(range(count)) if first else drawn(len(table), count, self.config.seed)
        how = "the first ones" if first else "drawn at random (--sample first takes the first ones)"
        self.notes.append(f"{name}: {count} of {len(table)} rows, {how}")
        self._say_missing("training" if training else name, numbers, rows)
        if training:
            self._check_classes(f"the {count} rows that --max_train_samples takes", numbers, rows)
        return self._chosen(table, rows)

    def _chosen(self, table: Table, rows: Sequence[int]) -> Table:
        chosen = table.select(rows)
        check_texts_of(chosen, self.text_columns)
        return chosen

    def _say_missing(self, split: str, numbers: Sequence[float], rows: Sequence[int]) -> None:
        """Note the classes of which a split has no row, though there are some."""
        if self.labels.names is None:
            return
        there, left = Counter(numbers), {numbers[row] for row in rows}
        missing = [(self.labels.names[int(i)], n) for i, n in sorted(there.items()) if i not in left]
        for name, n in missing[:5]:
            self.notes.append(f"WARNING class {name!r} has 0 of its {n} rows in {split}")
        if more := missing[5:]:
            self.notes.append(f"WARNING nor have {len(more)} more classes any row in {split}")

    def _check_classes(self, which: str, numbers: Sequence[float], rows: Sequence[int]) -> None:
        if self.labels.names is not None and len(only := {numbers[row] for row in rows}) == 1:
            raise MinitrainError(
                f"every label of {which} is {shown(self.labels.names[int(only.pop())])}; a classifier needs two "
                "classes: take more rows"
                + (", or pass --sample random" if self.config.sample == "first" else ", or another --seed")
            )


def check_texts_of(table: Table, columns: Sequence[str]) -> None:
    """Raise MinitrainError for what is no text, naming its row as the source numbers it."""
    for name in columns:
        values = table.column(name)[:]
        try:
            check_texts(values, table.source, name, first_row=1)
        except MinitrainError:
            for row, value in enumerate(values):
                source, number = table.place(row)
                check_texts([value], source, name, first_row=number)


def checksum(table: Table, columns: Sequence[str]) -> str:
    """Of the values of some columns, to notice that a file has changed (CRC-32)."""
    total = 0
    for name in columns:
        for value in table.column(name)[:]:
            total = zlib.crc32(repr(value).encode("utf-8", "backslashreplace"), total)
    return f"{total:08x}, {len(table)} rows"
