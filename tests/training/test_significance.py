"""The tests of significance beside statsmodels and scipy, on random tables."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar  # type: ignore[import-untyped]
from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped]

from minitrain.training.significance import FEW, holm, mcnemar, paired_t, student_t


def test_mcnemar_equals_statsmodels_on_every_small_table_and_on_random_large_ones() -> None:
    draw = np.random.default_rng(0)
    tables = [(b, c) for b in range(FEW) for c in range(FEW)]
    tables += [tuple(map(int, draw.integers(0, 10 ** draw.integers(1, 6), 2))) for _ in range(200)]
    kinds = set()
    for b, c in tables:
        ours, exact = mcnemar(b, c), b + c < FEW
        kinds.add(ours.test)
        if b == c and not exact:
            # statsmodels squares 0 - 1 here: b = c = 50 would have p = 0.92, as if they differed by two rows
            assert ours.p_value == 1.0
            continue
        theirs = reference_mcnemar([[7, b], [c, 9]], exact=exact, correction=True)
        assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-12), (b, c)
    assert kinds == {"McNemar, exact", "McNemar, chi-square"}


def test_t_distribution_equals_scipy_for_any_whole_number_of_degrees() -> None:
    for degrees in (*range(1, 30), 99, 100):
        for t in (0.0, 1e-3, 0.5, -1.0, 2.0, 5.0, 30.0):
            assert student_t(t, degrees) == pytest.approx(2 * stats.t.sf(abs(t), degrees), abs=1e-12)


def test_paired_t_equals_scipy_for_seeds_and_is_corrected_for_folds() -> None:
    draw = np.random.default_rng(1)
    for count in (2, 3, 5, 10):
        first, second = draw.normal(size=(2, count))
        differences = (second - first).tolist()
        seeds, folds = paired_t(differences), paired_t(differences, folds=count)
        assert seeds is not None and folds is not None
        assert seeds.p_value == pytest.approx(stats.ttest_rel(first, second).pvalue, rel=1e-9)
        # Nadeau and Bengio 2003, equation 9 with test rows / training rows = 1 / (folds - 1)
        t = np.mean(differences) / np.sqrt((1 / count + 1 / (count - 1)) * np.var(differences, ddof=1))
        assert folds.p_value == pytest.approx(2 * stats.t.sf(abs(t), count - 1), rel=1e-9)
        assert folds.p_value > seeds.p_value


def test_paired_t_has_nothing_to_say_of_one_pair_or_of_equal_differences() -> None:
    assert paired_t([0.1]) is None
    assert paired_t([0.0, 0.0, 0.0], folds=3) is None


def test_holm_equals_statsmodels() -> None:
    draw = np.random.default_rng(2)
    for count in range(1, 12):
        p_values = np.round(draw.random(count) ** 3, 2).tolist()  # with ties
        theirs = multipletests(p_values, method="holm")[1]
        assert holm(p_values) == pytest.approx(theirs.tolist(), abs=1e-15)
    assert holm([]) == []
