"""Confident learning beside cleanlab 2.9, on random labels and probabilities: equal figures, rows and scores."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from minitrain.training.label_errors import (
    calibrated_joint,
    class_thresholds,
    confident_joint,
    estimated_noise,
    find_label_errors,
    label_quality,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cleanlab import count, rank  # type: ignore[import-untyped]
    from cleanlab.filter import find_label_issues  # type: ignore[import-untyped]
    from cleanlab.multilabel_classification import rank as rank_of_several  # type: ignore[import-untyped]
    from cleanlab.multilabel_classification.filter import (  # type: ignore[import-untyped]
        find_multilabel_issues_per_class,
    )

pytestmark = pytest.mark.filterwarnings("ignore:May not flag all label issues")

# rows, classes, decimals of the probabilities (None: no ties), share of wrong labels
SHAPES = [
    (3, 2, None, 0.3),
    (5, 3, 1, 0.5),
    (12, 5, 1, 0.6),
    (40, 2, 1, 0.2),
    (60, 3, None, 0.1),
    (60, 20, 2, 0.8),
    (300, 10, 2, 0.3),
    (400, 150, None, 0.4),
    (1000, 4, 3, 0.05),
]


def drawn(rows: int, classes: int, decimals: int | None, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    """Labels of which a share is wrong, and probabilities of the true ones; some classes have few rows or none."""
    draw = np.random.default_rng(seed)
    popular = draw.dirichlet(np.full(classes, 0.5))
    true = draw.choice(classes, rows, p=popular)
    labels = np.where(draw.random(rows) < noise, draw.integers(classes, size=rows), true)
    labels[:2] = [0, 1]  # cleanlab wants two classes
    logits = draw.normal(size=(rows, classes)) * 2 - draw.normal(size=classes) ** 2
    logits[np.arange(rows), true] += draw.normal(2, 2, size=rows)
    odds = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = odds / odds.sum(1, keepdims=True)
    if decimals is not None:
        probabilities = probabilities.round(decimals)
    return torch.from_numpy(labels), torch.from_numpy(probabilities)


@pytest.fixture
def row_order(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """numpy sorts ties in their order, as here; by itself it takes any, another on another processor."""
    real = np.argsort
    monkeypatch.setattr(np, "argsort", lambda values, *more, **options: real(values, *more, kind="stable"))
    yield


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]} rows, {shape[1]} classes")
def test_counts_rows_and_scores_are_cleanlabs(row_order: None, shape: tuple[int, int, int | None, float]) -> None:
    listed = 0
    for seed in range(4):
        labels, probabilities = drawn(*shape, seed)
        theirs: tuple[Any, Any] = (labels.numpy(), probabilities.numpy())
        thresholds = class_thresholds(labels, probabilities)
        assert np.array_equal(thresholds, count.get_confident_thresholds(*theirs))
        joint = confident_joint(labels, probabilities)
        assert np.array_equal(joint, count.compute_confident_joint(*theirs, calibrate=False))
        assert np.array_equal(calibrated_joint(joint, labels), count.compute_confident_joint(*theirs))
        assert np.array_equal(estimated_noise(labels, probabilities), count.estimate_joint(*theirs))
        issues = find_label_issues(*theirs, n_jobs=1)
        assert np.array_equal(find_label_errors(labels, probabilities), issues)
        margins = rank.get_label_quality_scores(*theirs, method="normalized_margin")
        assert np.array_equal(label_quality(labels, probabilities), margins)
        listed += issues.sum()
    assert listed > 0


def test_counts_are_rounded_as_by_cleanlab(row_order: None) -> None:
    """Small counts, where last bits decide which halves are rounded up."""
    draw = np.random.default_rng(0)
    for _ in range(200):
        classes = int(draw.integers(2, 12))
        joint = draw.integers(0, 4, size=(classes, classes)) * (draw.random((classes, classes)) < 0.6)
        np.fill_diagonal(joint, joint.diagonal().clip(min=1))
        labels = np.repeat(np.arange(classes), draw.integers(0, 12, size=classes))
        ours = calibrated_joint(torch.from_numpy(joint), torch.from_numpy(labels))
        # What is passed on is laid out as that of compute_confident_joint: the order of its sum matters.
        assert np.array_equal(ours, count.calibrate_confident_joint(np.asfortranarray(joint), labels))


def test_without_ties_the_sort_does_not_matter() -> None:
    for seed in range(8):
        labels, probabilities = drawn(500, 3, None, 0.2, seed)
        issues = find_label_issues(labels.numpy(), probabilities.numpy(), n_jobs=1)
        assert issues.any() and np.array_equal(find_label_errors(labels, probabilities), issues)


@pytest.mark.parametrize("rows, several", [(4, 2), (60, 3), (300, 12)])
def test_several_labels_a_row_are_cleanlabs_too(row_order: None, rows: int, several: int) -> None:
    listed = 0
    for seed in range(4):
        draw = np.random.default_rng(seed)
        true = draw.random((rows, several)) < draw.random(several)
        labels = true ^ (draw.random((rows, several)) < 0.1)
        labels[0], labels[1:, -1] = False, False  # nothing at all; cleanlab refuses a label on every row
        probabilities = (1 / (1 + np.exp(-draw.normal(4 * true - 2, 2)))).round(2)
        ids = [np.flatnonzero(row).tolist() for row in labels]
        ours = torch.from_numpy(labels).float(), torch.from_numpy(probabilities)
        issues = find_multilabel_issues_per_class(ids, probabilities, n_jobs=1)
        assert np.array_equal(find_label_errors(*ours), issues)
        scores = rank_of_several.get_label_quality_scores(ids, probabilities)
        assert np.array_equal(label_quality(*ours), scores)
        joint = count.estimate_joint(ids, probabilities, multi_label=True)
        assert np.array_equal(estimated_noise(*ours), joint)
        listed += issues.sum()
    assert listed > 0


def test_a_label_that_all_rows_or_none_have_is_not_doubted() -> None:
    labels = torch.tensor([[1.0, 0.0]] * 3)
    assert not find_label_errors(labels, torch.tensor([[0.2, 0.8], [0.9, 0.1], [0.9, 0.1]]).double()).any()


def test_of_a_class_one_row_stays() -> None:
    against = torch.tensor([[0.9, 0.1]] * 4).double()
    assert not find_label_errors(torch.tensor([0, 0, 0, 1]), against).any()
    assert find_label_errors(torch.tensor([0, 0, 1, 1]), against).tolist() == [False, False, True, False]
