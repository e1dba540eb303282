"""Folds beside scikit-learn's StratifiedKFold and StratifiedGroupKFold, by their properties."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy
import pytest
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from test_loop import reviews, split_of

from minitrain.data.folds import assign_folds, check_folds_fit, check_folds_full, group_values
from minitrain.data.tables.table import ABSENT, Table
from minitrain.errors import MinitrainError


def of_scikit_learn(splitter: Any, labels: Sequence[Any], groups: Sequence[Any] | None = None) -> list[int]:
    assigned = [-1] * len(labels)
    for fold, (_, held) in enumerate(splitter.split(numpy.zeros(len(labels)), labels, groups)):
        for row in held:
            assigned[row] = fold
    return assigned


def counts_of(assigned: Sequence[int], labels: Sequence[Any], folds: int) -> list[list[int]]:
    """(folds, classes) rows."""
    there = Counter(zip(assigned, labels, strict=True))
    return [[there[fold, label] for label in sorted(set(labels))] for fold in range(folds)]


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
def test_sizes_and_classes_are_as_even_as_scikit_learns(folds: int) -> None:
    draw = random.Random(folds)
    for _ in range(30):
        shares = [draw.random() + 0.1 for _ in range(draw.randint(2, 5))]
        labels = [label for label in range(len(shares)) for _ in range(folds)]
        labels += draw.choices(range(len(shares)), shares, k=draw.randint(0, 200))
        draw.shuffle(labels)
        ours = assign_folds(labels, folds, draw.randint(0, 99))
        theirs = of_scikit_learn(StratifiedKFold(folds), labels)
        for assigned in (ours, theirs):
            sizes = Counter(assigned)
            assert sorted(sizes) == list(range(folds)) and max(sizes.values()) - min(sizes.values()) <= 1
            for column in zip(*counts_of(assigned, labels, folds), strict=True):
                assert max(column) - min(column) <= 1


def spread(assigned: Sequence[int], labels: Sequence[Any], folds: int) -> float:
    """The standard deviation over folds of each class's share, meaned over classes."""
    counts = numpy.array(counts_of(assigned, labels, folds), dtype=float)
    return float((counts / counts.sum(0)).std(0).mean())


def test_groups_stay_together_and_classes_are_as_even_as_scikit_learns() -> None:
    draw, ours, theirs, sizes = random.Random(1), [], [], []
    for _ in range(60):
        folds, many = draw.randint(2, 5), draw.randint(20, 80)
        leaning = {f"patient {i}": draw.random() for i in range(many)}
        groups = draw.choices(list(leaning), [draw.random() + 0.05 for _ in leaning], k=draw.randint(200, 500))
        labels = [int(draw.random() < leaning[group]) for group in groups]
        assigned = assign_folds(labels, folds, 42, groups)
        assert all(len(folds_of) == 1 for folds_of in folds_by_group(assigned, groups).values())
        ours.append(spread(assigned, labels, folds))
        reference = StratifiedGroupKFold(folds, shuffle=True, random_state=42)
        expected = of_scikit_learn(reference, labels, groups)
        theirs.append(spread(expected, labels, folds))
        sizes.append([float(numpy.std(list(Counter(each).values()))) for each in (assigned, expected)])
    assert numpy.mean(ours) <= 1.1 * numpy.mean(theirs)
    assert numpy.mean(sizes, 0)[0] <= 1.1 * numpy.mean(sizes, 0)[1]


def folds_by_group(assigned: Sequence[int], groups: Sequence[Any]) -> dict[Any, set[int]]:
    found: dict[Any, set[int]] = {}
    for fold, group in zip(assigned, groups, strict=True):
        found.setdefault(group, set()).add(fold)
    return found


def test_scores_are_spread_over_the_folds_by_value() -> None:
    draw = random.Random(2)
    scores = [draw.lognormvariate(0, 1) for _ in range(203)]
    assigned = assign_folds(scores, 5, 42)
    assert max(Counter(assigned).values()) - min(Counter(assigned).values()) <= 1
    ranked = [assigned[row] for row in sorted(range(203), key=scores.__getitem__)]
    assert all(sorted(ranked[start : start + 5]) == [0, 1, 2, 3, 4] for start in range(0, 200, 5))
    means = [numpy.mean([s for s, f in zip(scores, assigned, strict=True) if f == fold]) for fold in range(5)]
    assert max(means) - min(means) < 0.5
    grouped = assign_folds(scores, 5, 42, [row // 4 for row in range(203)])
    assert max(Counter(grouped).values()) - min(Counter(grouped).values()) <= 8  # two groups


def test_combinations_of_labels_are_spread_too() -> None:
    draw = random.Random(3)
    rows = [tuple(int(draw.random() < share) for share in (0.5, 0.3, 0.1)) for _ in range(400)]
    assigned = assign_folds(rows, 4, 42)
    for column in zip(*counts_of(assigned, rows, 4), strict=True):
        assert max(column) - min(column) <= 1


def test_folds_are_a_function_of_seed_and_data() -> None:
    _, labels = reviews(100, classes=3)
    groups = [f"g{row % 17}" for row in range(100)]
    for extra in (None, groups):
        assert assign_folds(labels, 4, 7, extra) == assign_folds(list(labels), 4, 7, extra)
        assert assign_folds(labels, 4, 7, extra) != assign_folds(labels, 4, 8, extra)


def test_a_class_with_fewer_rows_or_groups_than_folds_is_named() -> None:
    labels, names = [0] * 8 + [1] * 3 + [2] * 9, ("awful", "lovely", "so-so")
    check_folds_fit(labels, 3, None, names)
    with pytest.raises(MinitrainError, match=r"--folds 4: class 'lovely' has 3 rows, .*pass --folds 3"):
        check_folds_fit(labels, 4, None, names)
    with pytest.raises(MinitrainError, match=r"class 'lovely' has 1 row, .*leave --folds out"):
        check_folds_fit([0, 0, 1], 2, None, names)
    groups = [row % 8 for row in range(8)] + [0, 0, 1] + list(range(8)) + [9]
    with pytest.raises(MinitrainError, match=r"class 'lovely' has rows in 2 of the groups, .*pass --folds 2"):
        check_folds_fit(labels, 3, groups, names)
    with pytest.raises(MinitrainError, match=r"--folds 5: --group_column makes 4 groups, .*pass --folds 4"):
        check_folds_fit([0, 1] * 4, 5, [0, 1, 2, 3] * 2, names)
    with pytest.raises(MinitrainError, match=r"--folds 9: there are 8 training rows; pass --folds 8"):
        check_folds_fit([0, 1] * 4, 9, None, names)
    with pytest.raises(MinitrainError, match="with these groups fold 2 has no row of class 'lovely'"):
        check_folds_full([0, 0, 1], [0, 1, 0], 2, names)


@pytest.mark.parametrize("value", [None, "", " ", float("nan"), ABSENT, ["a"]])
def test_a_row_without_a_group_is_named(value: Any) -> None:
    table = Table(source="a.csv", columns={"patient": ["x", "y", value], "text": ["a"] * 3}, class_names={})
    with pytest.raises(MinitrainError, match=r"a.csv, row 3, column 'patient': .*--group_column needs a name"):
        group_values(table, "patient")
    with pytest.raises(
        MinitrainError, match="--group_column person: a.csv: has no column 'person'; it has patient"
    ):
        group_values(table, "person")


def test_names_of_groups_that_differ_by_outer_blanks_are_one_group() -> None:
    table = Table(source="a.csv", columns={"patient": ["x", " x", 3]}, class_names={})
    assert group_values(table, "patient") == ["x", "x", 3]


def test_part_of_a_split_is_what_its_rows_alone_would_be(model: Any) -> None:
    texts, labels = reviews(30)
    rows = [3, 4, 29, 0, 11]
    part = split_of(model, texts, labels).subset(rows)
    alone = split_of(model, [texts[row] for row in rows], [labels[row] for row in rows])
    assert part[:] == alone[:] and part.lengths == alone.lengths and len(part) == 5
    assert part.labels is not None and alone.labels is not None
    assert part.labels.tolist() == alone.labels.tolist()
    assert part.checksum() == alone.checksum()
    assert part.subset([4, 0])[:] == alone.subset([4, 0])[:] == [alone[4], alone[0]]
