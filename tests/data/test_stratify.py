"""Held-out rows of several labels: every label has its share of them."""

import random
from collections import Counter
from itertools import chain

from hypothesis import given, settings
from hypothesis import strategies as st

from minitrain.data.stratify import draw_label_sets

Sets = list[tuple[int, ...]]


@given(
    st.lists(st.sets(st.integers(0, 5), max_size=4).map(lambda ids: tuple(sorted(ids))), min_size=2, max_size=60),
    st.data(),
)
@settings(max_examples=100, deadline=None)
def test_as_many_rows_are_drawn_as_wanted_whatever_their_labels(sets: Sets, data: st.DataObject) -> None:
    wanted = data.draw(st.integers(1, len(sets) - 1))
    rows = draw_label_sets(sets, wanted, seed=3)
    assert len(rows) == wanted and rows == sorted(set(rows)) and set(rows) <= set(range(len(sets)))
    assert rows == draw_label_sets(sets, wanted, seed=3)


def test_each_label_has_its_share_even_if_no_two_rows_are_alike() -> None:
    draw = random.Random(0)
    shares = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
    sets = [tuple(i for i, share in enumerate(shares) if draw.random() < share) for _ in range(2000)]
    sets.sort()  # a file may be sorted by label
    total = Counter(chain.from_iterable(sets))
    for seed in range(5):
        held = Counter(chain.from_iterable(sets[row] for row in draw_label_sets(sets, 200, seed)))
        for label, count in total.items():
            assert abs(held[label] - count / 10) <= 1, (label, count, held[label])
    by_chance = Counter(chain.from_iterable(sets[row] for row in draw.sample(range(2000), 200)))
    assert any(abs(by_chance[label] - count / 10) > 3 for label, count in total.items())


def test_another_seed_draws_other_rows_and_a_label_of_one_row_stays_in_training() -> None:
    sets: Sets = [(0,)] * 10 + [(1,)] * 10 + [(0, 2)]
    drawn = {tuple(draw_label_sets(sets, 5, seed)) for seed in range(10)}
    assert len(drawn) > 5 and not any(20 in rows for rows in drawn)
