"""Which fold each training row is in: stratified, with groups kept together, a function of seed and data alone.

Without groups, fold sizes and the counts of each class differ by one row at most. With groups the largest are
placed first, each where its classes are rarest: greedy, as scikit-learn's StratifiedGroupKFold.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from random import Random
from typing import Any

from minitrain.data.tables.table import ABSENT, Table
from minitrain.errors import MinitrainError, shown

BINS = 10  # of scores, if groups decide


def assign_folds(
    labels: Sequence[Any], folds: int, seed: int, groups: Sequence[Hashable] | None = None
) -> list[int]:
    """The fold of each row, from 0.

    Args:
        labels: Class ids, scores (float), or tuples of the ids that a row has: its strata.
        groups: Rows with equal values stay in one fold.

    >>> assign_folds([0, 0, 0, 0, 1, 1], folds=2, seed=42)
    [1, 0, 0, 1, 1, 0]
    """
    if groups is None:
        return _deal(_strata(labels, folds), folds, seed)
    return _deal_groups(_strata(labels, math.ceil(len(labels) / BINS)), folds, seed, groups)


def _strata(labels: Sequence[Any], rows: int) -> Sequence[Any]:
    """Labels as they are, or scores as the number of their bin, each bin holding so many rows of similar scores."""
    if not isinstance(labels[0], float):
        return labels
    order = sorted(range(len(labels)), key=labels.__getitem__)
    strata = [0] * len(labels)
    for place, row in enumerate(order):
        strata[row] = place // rows
    return strata


def _deal(strata: Sequence[Any], folds: int, seed: int) -> list[int]:
    """Deal the rows like cards, stratum after stratum, each in random order."""
    draw = Random(seed).random
    keys = [draw() for _ in strata]
    assigned = [0] * len(strata)
    for place, row in enumerate(sorted(range(len(strata)), key=lambda row: (strata[row], keys[row]))):
        assigned[row] = place % folds
    return assigned


def _deal_groups(strata: Sequence[Any], folds: int, seed: int, groups: Sequence[Hashable]) -> list[int]:
    """Place group by group, the largest first, where it adds least to the sum of the strata's squared shares."""
    counts: dict[Hashable, Counter[Any]] = defaultdict(Counter)
    for group, stratum in zip(groups, strata, strict=True):
        counts[group][stratum] += 1
    draw, totals = Random(seed).random, Counter(strata)
    keys = {group: (-counts[group].total(), draw()) for group in counts}
    held: list[Counter[Any]] = [Counter() for _ in range(folds)]
    fold_of = {}
    for group in sorted(counts, key=keys.__getitem__):

        def cost(fold: int, added: Counter[Any] = counts[group]) -> tuple[float, int]:
            shares = sum(held[fold][each] * count / totals[each] ** 2 for each, count in added.items())
            rows = held[fold].total()
            return shares + rows * added.total() / len(strata) ** 2, rows

        fold_of[group] = min(range(folds), key=cost)
        held[fold_of[group]] += counts[group]
    return [fold_of[group] for group in groups]


def group_values(table: Table, column: str) -> list[Hashable]:
    """The group of each row. Raises MinitrainError naming the row without one."""
    try:
        values = table.column(column)[:]
    except MinitrainError as error:
        raise MinitrainError(f"--group_column {column}: {error}") from error
    groups: list[Hashable] = []
    for row, value in enumerate(values):
        group = value.strip() if isinstance(value, str) else value
        if group is None or group is ABSENT or group == "" or group != group or not isinstance(group, Hashable):
            what = "has no value" if value is ABSENT else f"is {shown(value)}"
            raise MinitrainError(
                f"{table.where(row)}, column {column!r}: {what}; --group_column needs a name or number in every "
                "row: fill it in (a name of its own for a row that belongs to no group), or leave the row out"
            )
        groups.append(group)
    return groups


def check_folds_fit(
    labels: Sequence[Any], folds: int, groups: Sequence[Hashable] | None, names: Sequence[str] | None
) -> None:
    """Raise MinitrainError if there are fewer rows, groups, or rows or groups of a class, than folds.

    Args:
        names: Of the classes; None for scores and multi-label, whose strata may be missing in a fold.
    """
    if folds > len(labels):
        raise MinitrainError(f"--folds {folds}: there are {len(labels)} training rows; pass --folds {len(labels)}")
    if groups is not None and folds > (count := len(set(groups))):
        raise MinitrainError(
            f"--folds {folds}: --group_column makes {count} groups, and each fold needs one; {_fewer(count)}"
        )
    if names is None:
        return
    units = set(zip(labels, groups, strict=True)) if groups is not None else None
    counts = Counter(labels) if units is None else Counter(label for label, _ in units)
    name, count = min(((names[label], n) for label, n in counts.items()), key=lambda pair: pair[1])
    if count < folds:
        has = f"{count} row{'s' * (count != 1)}" if groups is None else f"rows in {count} of the groups"
        raise MinitrainError(
            f"--folds {folds}: class {shown(name)} has {has}, so that a fold would have none; {_fewer(count)}, or "
            "merge the class with another by --label_map, or leave its rows out"
        )


def _fewer(count: int) -> str:
    return f"pass --folds {count}" if count > 1 else "folds are not for these data: leave --folds out"


def check_folds_full(assigned: Sequence[int], labels: Sequence[Any], folds: int, names: Sequence[str]) -> None:
    """Raise MinitrainError if groups leave a fold without a class."""
    there = set(zip(assigned, labels, strict=True))
    for fold in range(folds):
        for label in sorted(set(labels)):
            if (fold, label) not in there:
                raise MinitrainError(
                    f"--folds {folds}: with these groups fold {fold + 1} has no row of class "
                    f"{shown(names[label])}; pass fewer --folds, or another --seed"
                )
