"""Metrics that rank, and those of several labels to a row: where they have no value, and what they refuse.

Their values are compared with scikit-learn's in test_metric_fuzz.py.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import (  # type: ignore[import-untyped]
    average_precision_score,
    classification_report,
    roc_auc_score,
)
from torch import Tensor

from minitrain.errors import MinitrainError
from minitrain.training.metrics import MULTI_LABEL_DEFAULTS, Metric, metric_for, metric_names

RANKS = ("roc_auc", "average_precision")


def value(name: str, logits: Any, labels: Any, positive: int = 1, multi_label: bool = False) -> float:
    logits = torch.tensor(logits, dtype=torch.float32)
    metric = Metric((name,), logits.size(1), positive, multi_label)
    metric.update_logits(logits, labels)
    return metric.compute()[name]


def some_rows(rows: int = 40, columns: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, columns, generator=generator).round(decimals=1)
    return logits, torch.randint(0, columns, (rows,), generator=generator)


def test_positive_class_is_the_one_that_is_ranked() -> None:
    logits, labels = some_rows(columns=2)
    for positive in (0, 1):
        scores = logits.double().softmax(-1)[:, positive]
        assert value("roc_auc", logits.tolist(), labels, positive) == roc_auc_score(labels == positive, scores)
        expected = average_precision_score(labels == positive, scores)
        assert value("average_precision", logits.tolist(), labels, positive) == expected
    assert value("average_precision", logits.tolist(), labels, 0) != value(
        "average_precision", logits.tolist(), labels, 1
    )


@pytest.mark.parametrize("multi_label", [False, True], ids=["classes", "several labels"])
def test_cuts_into_batches_and_ranks_do_not_change_a_bit(multi_label: bool) -> None:
    logits, labels = some_rows()
    truth = torch.rand(40, 3, generator=torch.Generator().manual_seed(1)).round() if multi_label else labels
    names = metric_names(3, multi_label)

    def over(cuts: list[int]) -> dict[str, float]:
        merged = Metric(names, 3, multi_label=multi_label)
        for start, stop in zip([0, *cuts], [*cuts, 40], strict=True):
            share = Metric(names, 3, multi_label=multi_label)
            middle = (start + stop) // 2
            share.update_logits(logits[start:middle], truth[start:middle])
            share.update_logits(logits[middle:stop], truth[middle:stop])
            merged.merge(share)
        return merged.compute()

    whole = over([])
    assert len(whole) == len(names)
    for cuts in ([1], [7, 7, 23], [*range(1, 40)]):
        assert over(cuts) == whole


def test_logits_are_copied() -> None:
    logits, labels = some_rows()
    metric = Metric(RANKS, 3)
    metric.update_logits(logits, labels)
    before = metric.compute()
    logits.neg_()
    assert metric.compute() == before


def test_metrics_that_do_not_rank_keep_no_logits() -> None:
    logits, labels = some_rows()
    metric = Metric(("accuracy", "weighted_f1"), 3)
    metric.update_logits(logits, labels)
    assert metric.logits == []


# where there is no value


@pytest.mark.parametrize(("label", "which"), [(1, "every row is"), (0, "no row is")])
def test_roc_auc_of_one_class_is_nan_with_one_warning(label: int, which: str) -> None:
    with pytest.warns(UserWarning, match=f"roc_auc is NaN: {which} of class 1") as caught:
        assert math.isnan(value("roc_auc", [[0.0, 1.0], [1.0, 0.0]], [label, label]))
    assert len(caught) == 1


def test_roc_auc_of_a_missing_class_is_nan_but_weighted_it_counts_nothing() -> None:
    logits, labels = some_rows()
    labels = labels.clamp(max=1)
    with pytest.warns(UserWarning, match="roc_auc is NaN: no row is of class 2"):
        assert math.isnan(value("roc_auc", logits.tolist(), labels))
    probabilities = logits.double().softmax(-1)
    with pytest.warns(UserWarning, match="Only one class is present"):
        expected = roc_auc_score(labels, probabilities, multi_class="ovr", labels=[0, 1, 2], average="weighted")
    assert value("weighted_roc_auc", logits.tolist(), labels) == expected


def test_average_precision_without_positives_is_zero_with_one_warning() -> None:
    with pytest.warns(UserWarning, match="average_precision is set to 0.0: no row is of class 1") as caught:
        assert value("average_precision", [[0.0, 1.0], [1.0, 0.0]], [0, 0]) == 0.0
    assert len(caught) == 1


def test_one_row_and_constant_scores() -> None:
    assert value("average_precision", [[0.0, 1.0]], [1]) == 1.0
    assert value("roc_auc", [[0.0, 0.0]] * 4, [0, 1, 0, 1]) == 0.5
    assert value("average_precision", [[0.0, 0.0]] * 4, [0, 1, 0, 0]) == 0.25


def test_kappa_of_one_class_is_nan_with_a_warning() -> None:
    metric = Metric(("cohen_kappa",), 2)
    metric.update([1, 1], [1, 1])
    with pytest.warns(UserWarning, match="cohen_kappa is NaN: all 2"):
        assert math.isnan(metric.compute()["cohen_kappa"])


@pytest.mark.parametrize("name", ["precision", "recall"])
def test_a_ratio_of_nothing_is_zero_with_a_warning(name: str) -> None:
    metric = Metric((name,), 2)
    metric.update([0, 0], [0, 0])
    with pytest.warns(UserWarning, match=f"{name} is 0/0, set to 0.0: class 1 is never"):
        assert metric.compute() == {name: 0.0}


# what is refused


@pytest.mark.parametrize("multi_label", [False, True])
def test_predictions_are_not_ranked_and_the_way_out_works(multi_label: bool) -> None:
    metric = Metric(("average_precision",), 2, multi_label=multi_label)
    labels = torch.tensor([[0, 1], [1, 0]]) if multi_label else torch.tensor([1, 0])
    with pytest.raises(
        MinitrainError, match=r"average_precision ranks rows .* metric.update_logits\(logits, labels\)"
    ):
        metric.update(labels, labels)
    metric.update_logits(torch.tensor([[-1.0, 2.0], [3.0, -4.0]]), labels)
    assert metric.compute() == {"average_precision": 1.0}


@pytest.mark.parametrize("names", [RANKS, ("accuracy",), ("balanced_accuracy",), ("macro_recall",)])
def test_empty_splits_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(MinitrainError, match="examples, got 0"):
        Metric(names, 3).compute()


@pytest.mark.parametrize("name", metric_names(3, multi_label=True))
def test_empty_splits_of_several_labels_are_refused(name: str) -> None:
    metric = Metric((name,), 3, multi_label=True)
    metric.update_logits(torch.zeros(0, 3), torch.zeros(0, 3))
    with pytest.raises(MinitrainError, match="examples, got 0"):
        metric.compute()


def test_logits_that_cannot_be_ranked_are_refused() -> None:
    with pytest.raises(MinitrainError, match="a logit is NaN or infinite"):
        value("roc_auc", [[0.0, math.nan], [1.0, 0.0]], [0, 1])
    with pytest.raises(MinitrainError, match=r"logits are \(2, 3\); expected a tensor \(B, 2\)"):
        Metric(RANKS, 2).update_logits(torch.zeros(2, 3), [0, 1])


def test_metrics_of_another_positive_class_do_not_merge() -> None:
    with pytest.raises(MinitrainError, match="cannot merge"):
        Metric(("f1",), 2).merge(Metric(("f1",), 2, positive=0))


# metrics by name


def test_names_that_do_not_fit_are_answered_with_those_that_do() -> None:
    with pytest.raises(
        MinitrainError, match="--metrics f1: .* there are accuracy, macro_f1, .*did you mean macro_f1"
    ):
        metric_for(None, 3, names=("accuracy", "f1"))
    with pytest.raises(MinitrainError, match="--metrics roc_acu: .*; did you mean roc_auc"):
        metric_for("mrpc", 2, names=("roc_acu",))
    with pytest.raises(MinitrainError, match="--metrics accuracy: .* there are pearson, spearmanr, mse"):
        metric_for("stsb", None, names=("accuracy",))
    with pytest.raises(
        MinitrainError, match="--metrics accuracy: .* there are macro_f1, .*; did you mean subset_accuracy"
    ):
        metric_for(None, 3, names=("accuracy",), multi_label=True)
    with pytest.raises(MinitrainError, match="--metrics names none; there are accuracy, f1"):
        metric_for(None, 2, names=())
    with pytest.raises(MinitrainError, match="--metrics f1,f1: f1 is given twice"):
        metric_for(None, 2, names=("f1", "f1"))


def test_names_stand_in_the_order_given_and_defaults_suit_the_labels() -> None:
    assert metric_for("mrpc", 2, names=("roc_auc", "accuracy")).names == ("roc_auc", "accuracy")
    assert metric_for(None, 3, multi_label=True).names == MULTI_LABEL_DEFAULTS
    assert metric_for("mrpc", 2).names == ("accuracy", "f1")


# several labels to a row


def test_each_label_has_its_line() -> None:
    logits = torch.tensor([[1.0, -1, 2], [-1, 1, 1], [2, 2, -2], [-3, -1, -1]])
    labels = np.array([[1, 0, 0], [0, 1, 1], [0, 1, 0], [1, 0, 0]])
    metric = metric_for(None, 3, multi_label=True)
    metric.update_logits(logits, torch.from_numpy(labels))
    report = classification_report(labels, (logits > 0).numpy(), output_dict=True, zero_division=0)
    for place, score in enumerate(metric.label_scores()):
        theirs = report[str(place)]
        assert score[:4] == (theirs["precision"], theirs["recall"], theirs["f1-score"], theirs["support"])
        assert score.average_precision == average_precision_score(labels[:, place], logits[:, place])


@pytest.mark.parametrize(
    ("predictions", "labels", "said"),
    [
        ([[0, 1]], [[0.0, 0.7]], r"labels\[0, 1\] is 0.69.*; expected 0 or 1"),
        ([[0.0, -2.5]], [[0, 1]], r"predictions\[0, 1\] is -2.5; expected 0 or 1: of logits take logits > 0"),
        ([[0, 1, 1]], [[0, 1, 1]], r"\(1, 3\), .*both must be \(B, 2\)"),
        ([[0, 1]], [0, 1], r"labels \(2,\)"),
        ([["a"]], [[0, 1]], r"predictions are \[\['a'\]\] \(list\); expected \(B, C\) numbers 0 and 1"),
    ],
)
def test_what_is_no_matrix_of_zeros_and_ones_is_refused(predictions: Any, labels: Any, said: str) -> None:
    with pytest.raises(MinitrainError, match=said):
        Metric(("micro_f1",), 2, multi_label=True).update(predictions, labels)
