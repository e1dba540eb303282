"""Which rows of a table are drawn as a sample, or held back for evaluation.

The rows depend on seed and labels alone. Python promises that the numbers of `random.Random(seed)` stay the same,
so later versions and other machines draw the same rows.
"""

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from random import Random
from typing import Any

from minitrain.config.data_config import DataConfig
from minitrain.data.labels.ids import Labels
from minitrain.data.labels.numbered import label_numbers
from minitrain.data.stratify import draw_label_sets
from minitrain.data.tables.table import Table
from minitrain.data.tokenizer.tokenizer import check_texts
from minitrain.errors import MinitrainError, listed, shown


def draw_rows(count: int, wanted: int, seed: int, groups: Sequence[int] | None = None) -> list[int]:
    """Row numbers of a random sample, ascending.

    groups: The class of each row. The same share of each class is drawn, by largest remainders; all rows of a class
    only if no other can spare one.

    >>> draw_rows(10, wanted=3, seed=42)
    [1, 7, 9]
    """
    draw = Random(seed).random
    keys = [draw() for _ in range(count)]
    order = sorted(range(count), key=keys.__getitem__)
    if groups is None:
        return sorted(order[:wanted])
    by_group: dict[int, list[int]] = {group: [] for group in groups}  # in the order of their first rows
    for row in order:
        by_group[groups[row]].append(row)
    quotas = _quotas([len(rows) for rows in by_group.values()], wanted)
    return sorted(row for rows, quota in zip(by_group.values(), quotas, strict=True) for row in rows[:quota])


def _quotas(sizes: Sequence[int], wanted: int) -> list[int]:
    """How many rows of each class are held back.

    >>> _quotas([50, 30, 1], 10)
    [6, 4, 0]
    """
    total = sum(sizes)
    quotas = [min(size * wanted // total, size - 1) for size in sizes]
    remainders = [size * wanted % total for size in sizes]
    # By largest remainder first, then by size; a class gives its last row only if nothing else is left.
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


@dataclass(frozen=True)
class Subsampler:
    """Chooses rows of tables with these columns and labels, and notes which classes lost all theirs."""

    config: DataConfig
    text_columns: tuple[str, ...]
    label_column: str
    labels: Labels
    notes: list[str] = field(default_factory=list)

    def hold_back(self, tables: dict[str, Table]) -> dict[str, Table]:
        """Split a validation table off the training rows, with the same share of every class."""
        fraction, train = self.config.eval_fraction, tables["train"]
        if any(name.startswith("validation") for name in tables):
            raise MinitrainError("--eval_fraction: there is evaluation data already; leave one of them out")
        count = round(fraction * len(train))
        if not 0 < count < len(train):
            raise MinitrainError(
                f"--eval_fraction {fraction} is {count} of {len(train)} rows; expected some, not all"
            )
        numbers: Sequence[Any] = label_numbers(train, self.label_column, self.labels)
        if self.labels.multi_label:
            held = draw_label_sets(numbers, count, self.config.seed)
        else:
            groups = None if self.labels.names is None else [int(number) for number in numbers]
            held = draw_rows(len(train), count, self.config.seed, groups)
        left = sorted(set(range(len(train))).difference(held))
        which = f"the {len(left)} rows that --eval_fraction {fraction} leaves"
        return tables | {
            "train": self._select("training", train, numbers, left, which),
            "validation": self._select("validation", train, numbers, held),
        }

    def sample(self, name: str, table: Table, count: int | None, training: bool = False) -> Table:
        """At most `count` rows of a split; of training rows, they must have two classes."""
        if count is None or count >= len(table):
            return table
        numbers = label_numbers(table, self.label_column, self.labels)
        first = self.config.sample == "first"
        rows = list(range(count)) if first else draw_rows(len(table), count, self.config.seed)
        how = "the first ones" if first else "drawn at random (--sample first takes the first ones)"
        self.notes.append(f"{name}: {count} of {len(table)} rows, {how}")
        if not training:
            return self._select(name, table, numbers, rows)
        return self._select("training", table, numbers, rows, f"the {count} rows that --max_train_samples takes")

    def _select(
        self, split: str, table: Table, numbers: Sequence[Any], rows: Sequence[int], which: str | None = None
    ) -> Table:
        """These rows; notes the classes that are left out. which: names rows that must have two classes."""
        names = self.labels.names
        if names is not None:
            kept = [numbers[row] for row in rows]
            parts = chain.from_iterable if self.labels.multi_label else iter
            there, left = Counter(parts(numbers)), set(parts(kept))
            missing = [(names[int(i)], n) for i, n in sorted(there.items()) if i not in left]
            for name, n in missing[:5]:
                self.notes.append(f"WARNING class {shown(name)} has 0 of its {n} rows in {split}")
            if more := missing[5:]:
                self.notes.append(f"WARNING {len(more)} more classes have no row in {split}")
            if which is not None and len(set(kept)) == 1:
                way = "pass --sample random" if self.config.sample == "first" else "another --seed"
                are = listed(shown(names[int(i)]) for i in left) or "no label"
                raise MinitrainError(
                    f"every label of {which} is {are}; a classifier needs two classes: take more rows, or {way}"
                )
        chosen = table.select(rows)
        check_texts_of(chosen, self.text_columns)
        return chosen


def check_texts_of(table: Table, columns: Sequence[str]) -> None:
    """Raise MinitrainError for the first value that is not text, with its row number in the source."""
    for name in columns:
        values = table.column(name)[:]
        try:
            check_texts(values, table.source, name, first_row=1)
        except MinitrainError:
            for row, value in enumerate(values):
                source, number = table.place(row)
                check_texts([value], source, name, first_row=number)


def checksum(table: Table, columns: Sequence[str]) -> str:
    """Changes if the values of these columns change (CRC-32)."""
    total = 0
    for name in columns:
        for value in table.column(name)[:]:
            total = zlib.crc32(repr(value).encode("utf-8", "backslashreplace"), total)
    return f"{total:08x}, {len(table)} rows"
