"""Iterative stratification: a sample in which every label of rows with several has its share of rows.

Combinations of labels are mostly too rare to be shared out one by one. So the rarest label is shared out first,
then the next, and each row goes to the part that lacks most of that label.

Source: Sechidis, Tsoumakas, Vlahavas 2011, "On the Stratification of Multi-label Data", algorithm 1.
"""

import math
from collections import Counter
from collections.abc import Sequence
from random import Random


def draw_label_sets(sets: Sequence[tuple[int, ...]], wanted: int, seed: int) -> list[int]:
    """Row numbers of a random sample of `wanted` rows, ascending. sets: The ids of the labels of each row.

    >>> draw_label_sets([(0,), (0,), (0, 1), (0, 1), (), ()], wanted=3, seed=1)
    [1, 2, 5]
    """
    total, draw = len(sets), Random(seed).random
    keys = [draw() for _ in sets]
    order = sorted(range(total), key=keys.__getitem__)
    rows_of: dict[int, list[int]] = {}
    for row in order:
        for label in sets[row]:
            rows_of.setdefault(label, []).append(row)
    left = Counter({label: len(rows) for label, rows in rows_of.items()})  # rows without a part, of each label
    room = [total - wanted, wanted]  # of the part that stays and of the sample
    # Rows that a part still lacks of each label, in units of 1 / total, so that all numbers are whole.
    lacks = [{label: count * size for label, count in left.items()} for size in room]
    part_of: dict[int, int] = {}

    def assign(row: int, part: int) -> None:
        part_of[row] = part
        room[part] -= 1
        for label in sets[row]:
            lacks[part][label] -= total
            left[label] -= 1

    while rows_of:
        label = min(rows_of, key=lambda one: (left[one], one))
        for row in rows_of.pop(label):
            if row not in part_of:
                need = [(lacks[part][label], room[part]) if room[part] else (-math.inf, 0) for part in (0, 1)]
                assign(row, int(need[1] > need[0]))
    for row in order:  # rows without a label fill both parts up
        if row not in part_of:
            assign(row, int(room[1] > 0))
    return sorted(row for row, part in part_of.items() if part == 1)
