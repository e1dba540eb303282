"""Every metric by name against scikit-learn on random draws: equal floats, whatever is tied, missing or constant.

MINITRAIN_FUZZ_EXAMPLES=10000 makes 10,000 draws of each kind of label, each of which checks all its metrics.
"""

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import sklearn  # type: ignore[import-untyped]
import torch
from scipy.special import expit
from scipy.stats import pearsonr, spearmanr
from sklearn import metrics as sk  # type: ignore[import-untyped]
from torch import Tensor

from minitrain.training.metrics import Metric, metric_names

DRAWS = int(os.environ.get("MINITRAIN_FUZZ_EXAMPLES", "50"))
Draw = tuple[Tensor, Tensor, int]  # logits, labels, the positive class of two


@contextmanager
def quiet() -> Iterator[None]:
    """Both sides warn about what is undefined; test_ranking_metrics.py says which warnings are ours."""
    fast = sklearn.config_context(assume_finite=True, skip_parameter_validation=True)
    with warnings.catch_warnings(), np.errstate(all="ignore"), fast:
        warnings.simplefilter("ignore")
        yield


def draw_logits(draw: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Plain, tied, constant, few distinct rows, tiny or huge, or so far apart that probabilities are 0 and 1."""
    logits = draw.normal(size=(rows, columns)).astype(np.float32)
    kind = draw.integers(6)
    if kind == 1:
        return np.round(2 * logits) / 2
    if kind == 2:
        return np.repeat(logits[:1], rows, axis=0)
    if kind == 3:
        return logits[draw.integers(0, 1 + rows // 4, rows)]
    if kind == 4:
        return logits * np.float32(10.0 ** draw.integers(-38, 38))
    return logits * np.float32(40) if kind == 5 else logits


def draw_classes(draw: np.random.Generator, fewest: int = 3, most: int = 6) -> Draw:
    """3 to 6 classes, 1 to 50 rows; often some classes are no label, sometimes all but one."""
    classes, rows = int(draw.integers(fewest, most + 1)), int(draw.integers(1, 51))
    present = draw.permutation(classes)[: draw.integers(1, classes + 1)]
    labels = draw.choice(present, rows)
    logits = draw_logits(draw, rows, classes)
    if draw.integers(2):  # better than chance
        logits[range(rows), labels] += np.float32(draw.random() * 3)
    return torch.from_numpy(logits), torch.from_numpy(labels), int(draw.integers(2)) if classes == 2 else 1


def draw_labels(draw: np.random.Generator) -> Draw:
    """2 to 6 labels, 1 to 50 rows; labels are rare, even or common, so that some have no row, or all."""
    count, rows = int(draw.integers(2, 7)), int(draw.integers(1, 51))
    labels = draw.random((rows, count)) < draw.choice([0.03, 0.5, 0.97], count)
    return torch.from_numpy(draw_logits(draw, rows, count)), torch.from_numpy(labels).float(), 1


def draw_scores(draw: np.random.Generator) -> Draw:
    """3 to 50 scores: plain, tied, or constant, with labels near to them or not."""
    rows = int(draw.integers(3, 51))
    logits = draw_logits(draw, rows, 1)
    labels = logits[:, 0] * np.float32(draw.integers(2)) + draw_logits(draw, rows, 1)[:, 0]
    with np.errstate(over="ignore"):
        fits = np.abs(logits).max() < 1e18 and np.abs(labels).max() < 1e18  # else squares are infinite
    return torch.from_numpy(logits if fits else logits * 0), torch.from_numpy(labels if fits else labels * 0), 1


def ratios(labels: np.ndarray, predictions: np.ndarray, averages: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for average in averages:
        values = sk.precision_recall_fscore_support(labels, predictions, average=average, zero_division=0)
        found |= {f"{average}_{name}": value for name, value in zip(("precision", "recall", "f1"), values[:3])}  # noqa: B905
    return found


def reference_of_classes(logits: Tensor, labels: Tensor, positive: int) -> dict[str, float]:
    y, p = labels.numpy(), logits.argmax(-1).numpy()
    probabilities = logits.double().softmax(-1).numpy()
    found = {
        "accuracy": sk.accuracy_score(y, p),
        "balanced_accuracy": sk.balanced_accuracy_score(y, p),
        "matthews_correlation": sk.matthews_corrcoef(y, p),
        "cohen_kappa": sk.cohen_kappa_score(y, p),
        **ratios(y, p, ("macro", "micro", "weighted")),
    }
    if logits.size(1) == 2:
        of = dict(pos_label=positive, zero_division=0)
        of_one = {"f1": sk.f1_score, "precision": sk.precision_score, "recall": sk.recall_score}
        found |= {name: function(y, p, **of) for name, function in of_one.items()}
        scores, is_positive = probabilities[:, positive], y == positive
        area = sk.roc_auc_score(is_positive, scores)
        precision = sk.average_precision_score(is_positive, scores)
        found |= {"roc_auc": area, "weighted_roc_auc": area}
        return found | {"average_precision": precision, "weighted_average_precision": precision}
    classes = range(logits.size(1))
    one_hot = sk._ranking.label_binarize(y, classes=classes)  # of three classes and more, a column for each
    for average, prefix in (("macro", ""), ("weighted", "weighted_")):
        area = sk.roc_auc_score(y, probabilities, multi_class="ovr", labels=[*classes], average=average)
        found[f"{prefix}roc_auc"] = area
        found[f"{prefix}average_precision"] = sk.average_precision_score(one_hot, probabilities, average=average)
    return found


def reference_of_labels(logits: Tensor, labels: Tensor, positive: int) -> dict[str, float]:
    y, p, scores = labels.int().numpy(), (logits > 0).int().numpy(), logits.numpy()
    found = {
        "subset_accuracy": sk.accuracy_score(y, p),
        "hamming_loss": sk.hamming_loss(y, p),
        "samples_f1": sk.f1_score(y, p, average="samples", zero_division=0),
        **ratios(y, p, ("macro", "micro", "weighted")),
    }
    for average, prefix in (("macro", ""), ("weighted", "weighted_")):
        found[f"{prefix}roc_auc"] = sk.roc_auc_score(y, scores, average=average)
        found[f"{prefix}average_precision"] = sk.average_precision_score(y, scores, average=average)
    return found


def reference_of_scores(logits: Tensor, labels: Tensor, positive: int) -> dict[str, float]:
    p, y = logits[:, 0].numpy(), labels.numpy()
    return {
        "pearson": pearsonr(p, y)[0],
        "spearmanr": spearmanr(p, y)[0],
        "mse": sk.mean_squared_error(y, p),
        "rmse": sk.root_mean_squared_error(y, p),
        "mae": sk.mean_absolute_error(y, p),
        "r2": sk.r2_score(y, p),
    }


KINDS = {
    "two classes": (lambda draw: draw_classes(draw, 2, 2), reference_of_classes),
    "classes": (draw_classes, reference_of_classes),
    "labels": (draw_labels, reference_of_labels),
    "scores": (draw_scores, reference_of_scores),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_metric_equals_scikit_learn(kind: str) -> None:
    draw_one, reference = KINDS[kind]
    checked: dict[str, int] = {}
    undefined = 0
    for seed in range(DRAWS):
        logits, labels, positive = draw_one(np.random.default_rng([seed, *kind.encode()]))
        columns = None if kind == "scores" else logits.size(1)
        metric = Metric(metric_names(columns, kind == "labels"), columns, positive, kind == "labels")
        metric.update_logits(logits, labels)
        with quiet():
            ours, theirs = metric.compute(), reference(logits, labels, positive)
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            right = value == theirs[name] or (math.isnan(value) and math.isnan(theirs[name]))
            assert right, f"draw {seed}: {name} is {value!r}, not {theirs[name]!r}"
            checked[name] = checked.get(name, 0) + 1
            undefined += math.isnan(value)
    assert set(checked.values()) == {DRAWS}
    assert undefined > 0  # what has no value was among the draws


def test_a_sigmoid_of_distinct_logits_ranks_as_they_do() -> None:
    draw = np.random.default_rng(0)
    logits, labels = draw.normal(size=(200, 3)).astype(np.float32), draw.random((200, 3)) < 0.3
    metric = Metric(("roc_auc", "average_precision"), 3, multi_label=True)
    metric.update_logits(torch.from_numpy(logits), torch.from_numpy(labels))
    probabilities = expit(logits.astype(np.float64))
    assert metric.compute() == {
        "roc_auc": sk.roc_auc_score(labels, probabilities),
        "average_precision": sk.average_precision_score(labels, probabilities),
    }
