"""Metrics against scikit-learn and scipy, called as the glue metric of evaluate calls them: equal floats.

MINITRAIN_FUZZ_EXAMPLES=10000 makes the random comparisons longer.
"""

import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (
    f1_score,
    matthews_corrcoef,
    mean_squared_error,
    precision_recall_fscore_support,
    root_mean_squared_error,
)
from torch import Tensor

import minitrain
from minitrain.errors import MinitrainError
from minitrain.training.metrics import (
    GLUE_METRICS,
    Confusion,
    GlueMetric,
    Metric,
    accuracy,
    f1,
    metric_for,
)

EXAMPLES = int(os.environ.get("MINITRAIN_FUZZ_EXAMPLES", "300"))
fuzz = settings(max_examples=EXAMPLES, deadline=None, database=None, print_blob=True)
CLASSES = {"mnli": 3, "mnli_matched": 3, "mnli_mismatched": 3, "hans": 2}
CLASSIFICATION = [task for task in GLUE_METRICS if task != "stsb"]

Pair = tuple[Tensor, Tensor]


def value_of(name: str, num_classes: int | None) -> Callable[[Any, Any], float]:
    """One metric as a function of predictions and labels."""

    def value(predictions: Any, labels: Any) -> float:
        metric = Metric((name,), num_classes)
        metric.update(predictions, labels)
        return metric.compute()[name]

    return value


matthews_correlation = value_of("matthews_correlation", 12)
pearson, spearman, squared_error = (value_of(name, None) for name in ("pearson", "spearmanr", "mse"))


@contextmanager
def quiet() -> Iterator[None]:
    """Both sides warn about 0/0 and constants; which warnings ours gives is tested by itself below."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def glue_reference(task: str, predictions: Tensor, labels: Tensor) -> dict[str, float]:
    """`Glue._compute` of evaluate 0.4.6 (metrics/glue/glue.py), which is fetched from the Hub and no package."""
    p, y = predictions.numpy(), labels.numpy()
    if task == "cola":
        return {"matthews_correlation": matthews_corrcoef(y, p)}
    if task == "stsb":
        return {"pearson": float(pearsonr(p, y)[0]), "spearmanr": float(spearmanr(p, y)[0])}
    result = {"accuracy": float((p == y).mean())}
    if task in ("mrpc", "qqp"):
        result["f1"] = float(f1_score(y_true=y, y_pred=p))
    return result


def same(ours: dict[str, float], theirs: dict[str, float]) -> bool:
    """Equal names in equal order, equal floats; NaN equals NaN."""
    return list(ours) == list(theirs) and all(
        ours[name] == theirs[name] or (math.isnan(ours[name]) and math.isnan(theirs[name])) for name in ours
    )


@st.composite
def class_ids(draw: st.DrawFn, classes: int) -> Pair:
    """A few arbitrary examples, or many from one seed with predictions right as often as drawn."""
    if draw(st.booleans()):
        pairs = draw(st.lists(st.tuples(*[st.integers(0, classes - 1)] * 2), min_size=1, max_size=20))
        return torch.tensor([p for p, _ in pairs]), torch.tensor([y for _, y in pairs])
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    labels = torch.randint(0, classes, (draw(st.integers(1, 3000)),), generator=generator)
    right = torch.rand(len(labels), generator=generator) < draw(st.floats(0, 1))
    return torch.where(right, labels, torch.randint(0, classes, (len(labels),), generator=generator)), labels


@st.composite
def scores(draw: st.DrawFn) -> Pair:
    """A few arbitrary float32 scores (ties, -0.0, huge, NaN), or many from one seed, rounded to have ties."""
    if draw(st.booleans()):
        number = draw(st.sampled_from([st.floats(0, 5, width=32), st.integers(0, 3), st.floats(width=32)]))
        pairs = draw(st.lists(st.tuples(number, number), min_size=2, max_size=20))
        p, y = np.array(pairs, dtype=np.float32).T.copy()
        return torch.from_numpy(p), torch.from_numpy(y)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    labels = torch.rand(draw(st.integers(2, 3000)), generator=generator) * 5
    predictions = labels + torch.randn(len(labels), generator=generator) * draw(st.sampled_from([0.01, 1, 100]))
    digits = draw(st.integers(0, 7))
    return predictions.round(decimals=digits), labels.round(decimals=digits)


@pytest.mark.parametrize("task", CLASSIFICATION)
def test_classification_equals_evaluate(task: str) -> None:
    @fuzz
    @given(class_ids(CLASSES.get(task, 2)))
    def check(pair: Pair) -> None:
        with quiet():
            metric = GlueMetric(task)
            metric.update(*pair)
            assert same(metric.compute(), glue_reference(task, *pair))

    check()


@fuzz
@given(scores())
def test_stsb_equals_evaluate(pair: Pair) -> None:
    with quiet():
        metric = GlueMetric("stsb")
        metric.update(*pair)
        assert same(metric.compute(), glue_reference("stsb", *pair))


@fuzz
@given(st.integers(2, 12).flatmap(lambda c: st.tuples(st.just(c), class_ids(c))))
def test_any_number_of_classes_equals_scikit_learn(case: tuple[int, Pair]) -> None:
    classes, (predictions, labels) = case
    p, y = predictions.numpy(), labels.numpy()
    confusion = Confusion(classes)
    confusion.update(predictions, labels)
    assert confusion.accuracy() == accuracy(predictions, labels) == float((p == y).mean())
    with quiet():
        assert confusion.macro_f1() == f1_score(y, p, average="macro")
        assert confusion.matthews() == matthews_correlation(predictions, labels) == matthews_corrcoef(y, p)
        columns = precision_recall_fscore_support(y, p, labels=range(classes))
    assert confusion.precision_recall_f1() == list(zip(*(column.tolist() for column in columns), strict=True))


@fuzz
@given(class_ids(2))
def test_plain_functions_equal_scikit_learn_on_lists_too(pair: Pair) -> None:
    p, y = pair[0].tolist(), pair[1].tolist()
    with quiet():
        assert f1(p, y) == f1(*pair) == f1_score(y, p)
        assert accuracy(p, y) == accuracy(*pair)
        assert matthews_correlation(p, y) == matthews_correlation(*pair)


@fuzz
@given(scores())
def test_correlations_take_any_number_type_and_lists(pair: Pair) -> None:
    for function in (pearson, spearman):
        with quiet():
            expected = {"r": function(*pair)}
            assert same({"r": function(pair[0].tolist(), pair[1].double())}, expected)


@fuzz
@given(st.data())
def test_batches_merged_in_any_cut_equal_the_whole(data: st.DataObject) -> None:
    task = data.draw(st.sampled_from(["stsb", "mrpc", "cola", "mnli"]))
    predictions, labels = data.draw(scores() if task == "stsb" else class_ids(CLASSES.get(task, 2)))
    whole, merged = GlueMetric(task), GlueMetric(task)
    whole.update(predictions, labels)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(labels)), max_size=6)))
    for start, stop in zip([0, *cuts], [*cuts, len(labels)], strict=True):
        share = GlueMetric(task)
        middle = (start + stop) // 2  # a share of two batches, of which some are empty
        share.update(predictions[start:middle], labels[start:middle])
        share.update(predictions[middle:stop], labels[middle:stop])
        merged.merge(share)
    with quiet():
        assert same(merged.compute(), whole.compute())


def test_merged_scores_keep_their_order() -> None:
    first, second = metric_for(None, None), metric_for(None, None)
    first.update([1.0, 2.0], [3.0, 4.0])
    second.update([5.0], [6.0])
    first.merge(second)
    assert torch.cat(first.scores, dim=1).tolist() == [[1.0, 2.0, 5.0], [3.0, 4.0, 6.0]]


def test_the_published_order_of_names_is_kept() -> None:
    metric = GlueMetric("mrpc")
    metric.update(torch.tensor([1, 0, 1, 1]), torch.tensor([1, 0, 0, 1]))
    assert list(metric.compute().items()) == [("accuracy", 0.75), ("f1", 0.8)]
    assert GLUE_METRICS["stsb"] == ("pearson", "spearmanr")


def test_confusion_has_labels_as_rows() -> None:
    confusion = Confusion(3)
    confusion.update(torch.tensor([2, 2, 1]), torch.tensor([0, 0, 1]))
    assert confusion.counts.tolist() == [[0, 0, 2], [0, 1, 0], [0, 0, 0]]


def test_f1_of_either_class() -> None:
    predictions, labels = torch.tensor([1, 0, 1, 0, 0]), torch.tensor([1, 0, 0, 0, 1])
    confusion = Confusion(2)
    confusion.update(predictions, labels)
    for positive in (0, 1):
        assert confusion.f1(positive) == f1_score(labels, predictions, pos_label=positive)


# where scikit-learn and scipy answer with a number that needs a word


def test_f1_is_zero_if_nothing_is_predicted_positive() -> None:
    assert f1([0, 0, 0], [1, 0, 1]) == f1_score([1, 0, 1], [0, 0, 0]) == 0.0


@pytest.mark.fault(35)
def test_f1_without_any_positive_is_zero_with_one_warning() -> None:
    with pytest.warns(UserWarning, match="f1 is 0/0.*class 1") as caught:
        assert f1([0, 0], [0, 0]) == 0.0
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("predictions", "labels", "which"),
    [([1, 1], [0, 1], "predictions"), ([0, 1, 2], [2, 2, 2], "labels"), ([0, 0, 0], [0, 0, 0], "predictions")],
)
def test_matthews_is_zero_without_variance_and_says_why_once(
    predictions: list[int], labels: list[int], which: str
) -> None:
    with pytest.warns(UserWarning, match=f"set to 0.0: all {len(labels)} {which} are of one class") as caught:
        assert matthews_correlation(predictions, labels) == 0.0
    assert len(caught) == 1
    with quiet():
        assert matthews_corrcoef(labels, predictions) == 0.0
    metric = GlueMetric("cola")
    metric.update([0, 0], [0, 1])
    with pytest.warns(UserWarning, match="all 2 predictions are of one class"):
        assert metric.compute() == {"matthews_correlation": 0.0}


@pytest.mark.parametrize("function", [pearson, spearman])
@pytest.mark.parametrize(
    ("predictions", "labels", "name"),
    [([2.0, 2.0, 2.0], [1.0, 2.0, 3.0], "predictions"), ([1.0, 2.0, 3.0], [2.0, 2.0, 2.0], "labels")],
)
def test_a_correlation_with_a_constant_is_nan_with_one_warning(
    function: Callable[[list[float], list[float]], float], predictions: list[float], labels: list[float], name: str
) -> None:
    with pytest.warns(UserWarning, match=f"all 3 {name} are 2.0") as caught:
        assert math.isnan(function(predictions, labels))
    assert len(caught) == 1


def test_two_examples_correlate_fully() -> None:
    assert pearson([0.1, 0.7], [0.2, 0.3]) == pearsonr([0.1, 0.7], [0.2, 0.3])[0] == 1.0
    assert pearson([0.1, 0.7], [0.3, 0.2]) == -1.0


def test_one_example_has_no_correlation() -> None:
    assert math.isnan(pearson([1.0], [1.0])) and math.isnan(spearman([1.0], [1.0]))


# what is refused


@pytest.mark.parametrize("function", [accuracy, f1, matthews_correlation, pearson, spearman])
def test_no_examples_are_refused(function: Callable[[list[int], list[int]], float]) -> None:
    with pytest.raises(MinitrainError, match="examples, got 0"):
        function([], [])


@pytest.mark.parametrize("task", list(GLUE_METRICS))
def test_an_empty_split_is_refused(task: str) -> None:
    with pytest.raises(MinitrainError, match="examples, got 0"):
        GlueMetric(task).compute()


@pytest.mark.parametrize("function", [accuracy, f1, matthews_correlation, pearson, spearman])
def test_two_lengths_are_refused_with_both(function: Callable[[list[int], list[int]], float]) -> None:
    with pytest.raises(MinitrainError, match=r"predictions \(3,\), labels \(2,\)"):
        function([0, 1, 1], [0, 1])


@pytest.mark.parametrize("task", CLASSIFICATION)
def test_hidden_test_labels_are_refused(task: str) -> None:
    with pytest.raises(MinitrainError, match=r"labels\[1\] is -1; .*validation split"):
        GlueMetric(task).update(torch.tensor([0, 1, 0]), torch.tensor([0, -1, -1]))


def test_ids_that_are_no_class_are_refused() -> None:
    with pytest.raises(MinitrainError, match=r"predictions\[2\] is 3; class ids go from 0 to 2"):
        GlueMetric("mnli").update([0, 1, 3], [0, 1, 2])
    with pytest.raises(MinitrainError, match=r"labels\[0\] is -1; class ids go from 0 upwards"):
        accuracy([1], [-1])
    with pytest.raises(MinitrainError, match=r"labels\[1\] is 2; class ids go from 0 to 1"):
        f1([0, 1], [0, 2])
    with pytest.raises(MinitrainError, match=r"predictions are torch.float32; class ids are integers"):
        accuracy(torch.tensor([0.2, 0.8]), torch.tensor([0, 1]))
    with pytest.raises(MinitrainError, match=r"both must be \(B,\)"):
        accuracy(torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64))


def test_f1_of_three_classes_is_refused() -> None:
    metric = Metric(("f1",), 3)
    metric.update([0, 1, 1], [0, 1, 1])
    assert metric.compute() == {"f1": 1.0}
    metric.update([0], [2])
    with pytest.raises(MinitrainError, match="use macro_f1"):
        metric.compute()


def test_unknown_tasks_and_names_are_answered_with_a_list() -> None:
    with pytest.raises(MinitrainError, match="no GLUE task 'mprc'; there are cola, stsb, mrpc"):
        GlueMetric("mprc")
    with pytest.raises(MinitrainError, match="no metric 'pearson' for this kind of label; there are accuracy"):
        Metric(("accuracy", "pearson"), 2)
    with pytest.raises(MinitrainError, match="no metric 'f1' for this kind of label; there are pearson"):
        Metric(("f1",), None)


def test_metrics_of_different_kinds_do_not_merge() -> None:
    with pytest.raises(MinitrainError, match="cannot merge metrics"):
        GlueMetric("mrpc").merge(GlueMetric("rte"))
    with pytest.raises(MinitrainError, match="of 2 classes into .* of 3"):
        GlueMetric("mnli").merge(GlueMetric("rte"))


# whatever they come in

BOXES: dict[str, Callable[[list[int]], Any]] = {
    "list": list,
    "tuple": tuple,
    "int64": np.array,
    "int32": lambda ids: np.array(ids, dtype=np.int32),
    "uint8": lambda ids: np.array(ids, dtype=np.uint8),
    "uint64": lambda ids: np.array(ids, dtype=np.uint64),
    "objects": lambda ids: np.array(ids, dtype=object),
    "booleans": lambda ids: np.array(ids, dtype=bool),
    "numpy scalars": lambda ids: [np.int64(i) for i in ids],
    "numpy booleans": lambda ids: [np.bool_(i) for i in ids],
    "Python booleans": lambda ids: [bool(i) for i in ids],
    "torch scalars": lambda ids: [torch.tensor(i) for i in ids],
    "torch": torch.tensor,
    "torch uint8": lambda ids: torch.tensor(ids, dtype=torch.uint8),
    "torch booleans": lambda ids: torch.tensor(ids, dtype=torch.bool),
    "generator": iter,
    "pandas": lambda ids: pandas.Series(ids),
}


@pytest.mark.parametrize("box", BOXES)
def test_class_ids_are_right_in_every_box(box: str) -> None:
    predictions, labels = [1, 0, 1, 0, 1], [1, 0, 0, 1, 1]
    make = BOXES[box]
    assert accuracy(make(predictions), make(labels)) == 0.6
    assert f1(make(predictions), labels) == f1_score(labels, predictions)
    assert matthews_correlation(predictions, make(labels)) == matthews_corrcoef(labels, predictions)
    metric = GlueMetric("mrpc")
    metric.update(make(predictions), make(labels))
    assert metric.compute() == {"accuracy": 0.6, "f1": f1_score(labels, predictions)}
    ours, plain = pearson(make(predictions), make(labels)), pearson(predictions, labels)
    assert ours == plain == pytest.approx(pearsonr(predictions, labels)[0])


FUNCTIONS: list[Callable[[Any, Any], Any]] = [
    accuracy,
    lambda p, y: Metric(("accuracy",), 2).update(p, y),
    lambda p, y: GlueMetric("stsb").update(p, y),
]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["good", "bad"], r"\[0\] is 'good' \(str\); expected class ids, the positions of the label names"),
        (np.array(["good", "bad"]), r"\[0\] is 'good'"),
        ([0, None], r"\[1\] is None \(NoneType\); expected a number"),
        (np.array([0, None], dtype=object), r"\[1\] is None"),
        ([0, [1]], r"\[1\] is \[1\] \(list\)"),
        ([[0], [1]], r"\(2, 1\).* both must be \(B,\), of one length"),
        ([[0, 1], [1]], r"both must be \(B,\)"),
        (np.zeros((2, 2)), r"\(2, 2\).* both must be \(B,\)"),
        ("ab", "are 'ab'"),
        (None, "are None"),
        (1, "are 1"),
        ({"a": 1, "b": 0}, "are {'a': 1, 'b': 0}"),
        (np.array(1), r"both must be \(B,\)"),
        (torch.tensor(1), r"both must be \(B,\)"),
        (torch.tensor([1j, 0]), "complex64; expected real numbers"),
        ([1j, 0], r"\[0\] is 1j"),
        ([2**70, 0], r"\[0\] is 1180591620717411303424"),
    ],
)
@pytest.mark.parametrize("side", ["predictions", "labels"])
def test_values_that_are_no_numbers_are_named(
    function: Callable[[Any, Any], Any], values: Any, said: str, side: str
) -> None:
    both = (values, [0, 1]) if side == "predictions" else ([0, 1], values)
    with pytest.raises(MinitrainError, match=said) as caught:
        function(*both)
    assert side in str(caught.value)


def test_logits_are_answered_with_argmax_and_floats_too() -> None:
    with pytest.raises(MinitrainError, match=r"of logits \(B, C\) take .argmax\(-1\)"):
        accuracy(torch.randn(4, 2), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(MinitrainError, match="predictions are torch.float32; class ids are integers"):
        accuracy([1.0, 0.0], [1, 0])


def test_metric_of_ones_own_is_the_way_out_that_is_named() -> None:
    for wrong in ("accuracy", None, ["mrpc"]):
        with pytest.raises(MinitrainError, match=r"Metric\(\('accuracy', 'macro_f1'\), num_classes=3\), or Metric"):
            GlueMetric(wrong)  # type: ignore[arg-type]
    metric = minitrain.Metric(("accuracy", "macro_f1"), num_classes=3)
    metric.update([0, 1, 2], [0, 1, 1])
    assert metric.compute()["accuracy"] == 2 / 3
    assert minitrain.Metric("accuracy", 2).names == ("accuracy",)  # type: ignore[arg-type]
    assert minitrain.Metric(("pearson",), None).names == ("pearson",)
    assert minitrain.metric_for(None, 2).names == ("accuracy", "f1")


# data that is no GLUE task


def test_metric_fors_suit_the_kind_of_label() -> None:
    assert metric_for(None, 2).names == ("accuracy", "f1")
    assert metric_for(None, 3).names == ("accuracy", "macro_f1")
    metric = metric_for(None, None)
    predictions, labels = torch.rand(99), torch.rand(99)
    metric.update(predictions, labels)
    result = metric.compute()
    assert list(result) == ["pearson", "spearmanr", "mse", "rmse", "mae", "r2"]
    assert result["mse"] == mean_squared_error(labels.numpy(), predictions.numpy())


def test_root_mean_squared_error_rounds_as_scikit_learn() -> None:
    """A power of one half differs from a root in the last bit, once in 2,000 values."""
    for predictions, labels in torch.rand(6000, 2, 3, generator=torch.Generator().manual_seed(0)):
        metric = metric_for(None, None)
        metric.update(predictions, labels)
        assert metric.compute()["rmse"] == root_mean_squared_error(labels.numpy(), predictions.numpy())


@fuzz
@given(scores())
def test_squared_error_equals_scikit_learn(pair: Pair) -> None:
    predictions, labels = (values.nan_to_num(0.0, 1e30, -1e30) for values in pair)
    metric = metric_for(None, None)
    with quiet(), np.errstate(over="ignore"):
        metric.update(predictions, labels)
        expected = mean_squared_error(labels.numpy(), predictions.numpy())
        assert same({"mse": metric.compute()["mse"]}, {"mse": expected})


def test_updates_copy_the_scores() -> None:
    metric, predictions = metric_for(None, None), torch.tensor([1.0, 2.0, 4.0])
    metric.update(predictions, torch.tensor([1.0, 2.0, 3.0]))
    before = metric.compute()
    predictions.zero_()
    assert metric.compute() == before
