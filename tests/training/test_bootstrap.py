"""The paired bootstrap beside scipy's, to the last digit, and each resample beside the metric of the drawn rows."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from minitrain.training.bootstrap import ScoredRows, resampled, spread
from minitrain.training.metrics import Metric, metric_names

ROWS, RESAMPLES, SEED = 60, 300, 7
KINDS = ("two classes", "many classes", "several labels", "scores")
Drawn = tuple[partial[Metric], list[Tensor], Tensor, list[Tensor | None]]


def draw_rows(kind: str, *names: str) -> Drawn:
    """The metrics (default: all), the predictions of two models, the labels, and the models' probabilities."""
    draw = torch.Generator().manual_seed(3)
    classes = {"two classes": 2, "many classes": 20, "several labels": 4, "scores": None}[kind]
    several = kind == "several labels"
    metric = partial(Metric, names or metric_names(classes, several), classes, 0 if classes == 2 else 1, several)
    if classes is None:
        labels = torch.randn(ROWS, generator=draw)
        return metric, [labels + torch.randn(ROWS, generator=draw) for _ in range(2)], labels, [None, None]
    if several:
        labels = torch.rand(ROWS, classes, generator=draw) < 0.4
        found = [torch.rand(ROWS, classes, generator=draw, dtype=torch.float64) for _ in range(2)]
        return metric, [p > 0.5 for p in found], labels, [*found]
    labels = torch.randint(classes, (ROWS,), generator=draw)
    logits = [torch.randn(ROWS, classes, generator=draw).double() for _ in range(2)]
    for one in logits:
        one[range(ROWS), labels] += 1
    found = [one.softmax(-1) for one in logits]
    return metric, [p.argmax(-1) for p in found], labels, [*found]


def scored(rows: Drawn) -> list[ScoredRows]:
    metric, predictions, labels, probabilities = rows
    return [ScoredRows(metric, p, labels, shares) for p, shares in zip(predictions, probabilities, strict=True)]


@pytest.mark.filterwarnings("ignore:.* is (0/0|NaN|set to 0.0)")
@pytest.mark.parametrize("kind", KINDS)
def test_a_resample_has_the_metrics_of_the_drawn_rows(kind: str) -> None:
    rows = draw_rows(kind)
    metric, predictions, labels, probabilities = rows
    for model, predicted, shares in zip(scored(rows), predictions, probabilities, strict=True):
        for seed in range(5):
            drawn = torch.from_numpy(np.random.default_rng(seed).integers(0, ROWS, ROWS))
            plain = metric()
            if shares is None:
                plain.update(predicted[drawn], labels[drawn])
            else:
                logits = shares.logit() if kind == "several labels" else shares.log()
                plain.update_logits(logits[drawn], labels[drawn])
            assert model.metrics(drawn) == pytest.approx(plain.compute(), rel=1e-6, nan_ok=True)


@pytest.mark.parametrize("kind", KINDS)
def test_resamples_and_interval_equal_those_of_scipy(kind: str) -> None:
    every = {"two classes": "f1", "many classes": "macro_f1", "several labels": "samples_f1", "scores": "pearson"}
    name = every[kind]
    models = scored(draw_rows(kind, name))
    values = resampled(models, ROWS, RESAMPLES, SEED)
    assert values.shape == (RESAMPLES, 2, 1)

    def difference(rows: Any, axis: int) -> Any:
        if rows.ndim > 1:
            return np.array([difference(one, -1) for one in rows])
        found = [model.metrics(torch.from_numpy(rows))[name] for model in models]
        return found[1] - found[0]

    theirs = stats.bootstrap(
        (np.arange(ROWS),),
        difference,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(SEED),
    )
    ours = values[:, 1, 0] - values[:, 0, 0]
    assert np.array_equal(ours, theirs.bootstrap_distribution)
    found = spread(ours)
    assert found is not None
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval), abs=1e-12)


def test_the_p_value_is_the_level_at_which_scipys_interval_ends_at_zero() -> None:
    draw = np.random.default_rng(5)
    differences = draw.normal(0.15, 1.0, 80)
    values = resampled([_Mean(differences)], 80, 5000, SEED)[:, 0, 0]  # type: ignore[list-item]
    found = spread(values)
    assert found is not None
    theirs = stats.bootstrap(
        (differences,),
        np.mean,
        method="percentile",
        confidence_level=1 - found.p_value,
        n_resamples=5000,
        rng=np.random.default_rng(SEED),
    )
    end = min(theirs.confidence_interval, key=abs)
    between = (values > min(end, 0)) & (values < max(end, 0))
    assert between.sum() <= 1 and 0.01 < found.p_value < 0.9


class _Mean:
    """A model whose metric is the mean of the drawn values."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def metrics(self, drawn: Tensor) -> dict[str, float]:
        return {"mean": float(self.values[drawn.numpy()].mean())}


def test_models_that_predict_the_same_do_not_differ() -> None:
    models = scored(draw_rows("two classes", "accuracy"))
    values = resampled([models[0], models[0]], ROWS, 100, SEED)
    assert spread(values[:, 1, 0] - values[:, 0, 0])[:3] == (0.0, 0.0, 1.0)  # type: ignore[index]


def test_no_interval_where_more_than_one_resample_in_twenty_has_no_value() -> None:
    values = np.arange(100.0)
    values[:5] = np.nan
    assert spread(values) is not None
    values[5] = np.nan
    assert spread(values) is None
