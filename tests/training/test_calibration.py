"""Temperature, thresholds and calibration error beside scipy, scikit-learn and the paper's definition."""

import math
from collections.abc import Iterator

import numpy
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss, precision_recall_curve
from torch import Tensor

from minitrain.training.calibration import (
    BINS,
    HIGHEST,
    Calibration,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    fit_threshold,
    negative_log_likelihood,
)


def draws(count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits and labels: every other time of classes, which the logits know well or badly, else multi-label."""
    generator = torch.Generator().manual_seed(0)
    for draw in range(count):
        rows, classes = (int(torch.randint(low, high, (), generator=generator)) for low, high in ((2, 300), (2, 6)))
        logits = torch.randn(rows, classes, generator=generator) * 4 * torch.rand((), generator=generator)
        truth = logits * 2 * torch.rand((), generator=generator)
        if draw % 2:
            yield logits, (torch.rand(rows, classes, generator=generator) < truth.sigmoid()).float()
        else:
            yield logits, torch.multinomial(truth.softmax(-1), 1, generator=generator)[:, 0]


def test_the_temperature_is_the_one_that_scipy_finds() -> None:
    compared = 0
    for logits, labels in draws(200):
        temperature = fit_temperature(logits, labels)

        def loss(inverse: float, logits: Tensor = logits, labels: Tensor = labels) -> float:
            return negative_log_likelihood(logits.double() * inverse, labels)

        found = minimize_scalar(loss, bounds=(0.01, 100), method="bounded", options={"xatol": 1e-12}).x
        if 0.02 < found < 50:  # inside the bounds
            # A loss is flat at its minimum: scipy, which sees values only, is exact to about the root of epsilon.
            assert temperature == pytest.approx(1 / found, rel=1e-6)
            compared += 1
        assert loss(1 / temperature) <= loss(1.0) + 1e-15
        assert temperature == fit_temperature(logits, labels)  # bit for bit
    assert compared > 150


def test_the_loss_is_scikit_learns() -> None:
    for logits, labels in draws(50):
        probabilities = Calibration(multi_label=labels.ndim == 2).probabilities(logits).numpy()
        if labels.ndim == 1:
            expected = log_loss(labels.numpy(), probabilities, labels=range(logits.size(1)))
        else:
            both = zip(labels.numpy().T, probabilities.T, strict=True)
            expected = numpy.mean([log_loss(truth, p, labels=[0, 1]) for truth, p in both])
        assert negative_log_likelihood(logits, labels) == pytest.approx(expected, rel=1e-12)


def test_logits_of_one_model_times_three_want_three_times_the_temperature() -> None:
    logits, labels = next(draws(1))
    assert fit_temperature(3 * logits.double(), labels) == pytest.approx(3 * fit_temperature(logits, labels))


def test_data_without_a_best_temperature_get_a_bound_or_none() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0]])
    assert fit_temperature(logits, torch.tensor([0, 1])) == 1.0  # every row right: colder is always better
    assert fit_temperature(logits, torch.tensor([1, 0])) == HIGHEST  # every row wrong: even is best
    assert fit_temperature(torch.zeros(3, 2), torch.tensor([0, 1, 1])) == 1.0


def f1_at(threshold: float, probabilities: Tensor, positives: Tensor) -> float:
    chosen = probabilities >= threshold
    return 2 * int((chosen & positives).sum()) / (int(chosen.sum()) + int(positives.sum()))


def test_the_threshold_has_the_best_f1_of_scikit_learns_curve_and_is_the_nearest_to_a_half() -> None:
    generator = torch.Generator().manual_seed(1)
    for draw in range(300):
        rows = int(torch.randint(1, 60, (), generator=generator))
        # Coarse probabilities, so that many are equal and many thresholds tie.
        p = (torch.rand(rows, generator=generator, dtype=torch.float64) * 8).round() / 8 if draw % 2 else None
        p = torch.rand(rows, generator=generator, dtype=torch.float64) if p is None else p
        positives = torch.rand(rows, generator=generator) < p / 2
        threshold = fit_threshold(p, positives)
        if not positives.any():
            assert threshold == 0.5
            continue
        precision, recall, thresholds = precision_recall_curve(positives.numpy(), p.numpy())
        with numpy.errstate(invalid="ignore"):
            curve = numpy.nan_to_num(2 * precision * recall / (precision + recall))[:-1]
        best = f1_at(threshold, p, positives)
        assert best == pytest.approx(curve.max(), abs=1e-12)
        edges = [0.0, *thresholds.tolist()]  # ascending; between two of them every threshold decides alike
        middles = [0.5 if a < 0.5 <= b else (a + b) / 2 for a, b in zip(edges, edges[1:], strict=False) if a < b]
        equally_good = [t for t in middles if f1_at(t, p, positives) == best]
        assert threshold == min(equally_good, key=lambda t: (abs(t - 0.5), t))


def test_expected_calibration_error_is_the_papers_definition() -> None:
    for logits, labels in draws(100):
        probabilities = Calibration(multi_label=labels.ndim == 2).probabilities(logits)
        if labels.ndim == 1:
            confidence, predicted = probabilities.max(-1)
            right = predicted == labels
        else:
            confidence = torch.maximum(probabilities, 1 - probabilities).flatten()
            right = ((probabilities >= 0.5).float() == labels).flatten()
        expected = 0.0
        for m in range(BINS):
            inside = (confidence > m / BINS) & (confidence <= (m + 1) / BINS)
            if inside.any():
                gap = right[inside].double().mean() - confidence[inside].mean()
                expected += float(inside.double().mean() * gap.abs())
        assert expected_calibration_error(probabilities, labels) == pytest.approx(expected, abs=1e-12)


def test_a_model_that_is_right_as_often_as_it_says_has_no_error() -> None:
    probabilities = torch.tensor([[0.75, 0.25]] * 4, dtype=torch.float64)
    assert expected_calibration_error(probabilities, torch.tensor([0, 0, 0, 1])) == 0.0
    assert expected_calibration_error(probabilities, torch.tensor([1, 1, 1, 1])) == 0.75


@pytest.mark.parametrize("positive", [0, 1])
def test_labels_of_two_classes_follow_the_threshold_of_the_positive_one(positive: int) -> None:
    logits = torch.randn(200, 2, generator=torch.Generator().manual_seed(2))
    labels = (logits[:, 1] + torch.randn(200, generator=torch.Generator().manual_seed(3)) > 1.5).long()
    fitted = calibrate(logits, labels, positive)
    assert fitted.thresholds is not None and fitted.thresholds[0] != 0.5
    probabilities = (logits.double() / fitted.temperature).softmax(-1)
    assert torch.equal(fitted.probabilities(logits), probabilities)
    reached = probabilities[:, positive] >= fitted.thresholds[0]
    assert torch.equal(fitted.predictions(logits) == positive, reached)
    best = f1_at(fitted.thresholds[0], probabilities[:, positive], labels == positive)
    assert best > f1_at(0.5, probabilities[:, positive], labels == positive)


def test_multi_label_has_a_threshold_for_each_label_and_more_classes_have_none() -> None:
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(80, 3, generator=generator)
    labels = (torch.rand(80, 3, generator=generator) < (logits - 1).sigmoid()).float()
    fitted = calibrate(logits, labels)
    probabilities = fitted.probabilities(logits)
    assert torch.equal(probabilities, (logits.double() / fitted.temperature).sigmoid())
    each = [fit_threshold(probabilities[:, i], labels[:, i] == 1) for i in range(3)]
    assert fitted.thresholds == tuple(each)
    assert torch.equal(
        fitted.predictions(logits), (probabilities >= torch.tensor(each, dtype=torch.float64)).long()
    )

    classes = calibrate(logits, torch.arange(80) % 3)
    assert classes.thresholds is None and math.isfinite(classes.temperature)
    assert torch.equal(classes.predictions(logits), logits.argmax(-1))
