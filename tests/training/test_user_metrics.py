"""`compute_metrics`, `observers` and `--metrics` in `fit`: equal to Trainer's, and wrong answers are named."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped]
from test_loop import NO_DROPOUT, Bench, reviews, split_of, write_tiny_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.model.weights import load_classifier
from minitrain.training.loop import fit
from minitrain.training.observers import check_observers
from minitrain.training.setup import Best, TrainState
from minitrain.training.user_metrics import EvalPrediction, UserMetrics


class Listener:
    """Keeps the evaluations."""

    def __init__(self) -> None:
        self.values: list[dict[str, float]] = []

    def on_evaluation(self, step: int, epoch: float, results: dict[str, Any], is_best: bool) -> None:
        self.values.append(results["validation"].values)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = write_tiny_model(tmp_path_factory.mktemp("tiny"), **NO_DROPOUT)
    return Bench(folder, split_of(folder, *reviews(24)), split_of(folder, *reviews(22, seed=1)))


def run(bench: Bench, *, labels: int = 2, **given: Any) -> tuple[list[dict[str, float]], TrainState, Best]:
    """Fit a tiny model; `given` are arguments of `fit`, others are settings."""
    of_fit = {name: given.pop(name) for name in ("compute_metrics", "observers") if name in given}
    settings = {
        "learning_rate": 3e-3,
        "per_device_train_batch_size": 8,
        "num_train_epochs": 1,
        "match_trainer": True,
    }
    config = TrainConfig(**(settings | given))
    torch.manual_seed(config.seed)
    model = load_classifier(bench.folder, labels, kernels=config.kernels)
    listener = Listener()
    of_fit["observers"] = [listener, *of_fit.get("observers", ())]
    state, best = fit(model, bench.train, {"validation": bench.validation}, config, **of_fit)
    return listener.values, state, best


def of_the_course(eval_preds: Any) -> dict[str, Any]:
    """As in chapter 3 of the Hugging Face course, with more than its metric."""
    logits, labels = eval_preds
    predictions = np.argmax(logits, axis=-1)
    return {
        "accuracy": (predictions == labels).mean(),
        "confidence": np.abs(logits).mean(),
        "checksum": logits.astype(np.float64).sum() + labels.dtype.itemsize,
        "eval_margin": torch.tensor(logits[:, 1] - logits[:, 0]).max(),
        "rows": len(eval_preds.predictions) + len(eval_preds.label_ids),
    }


def of_scores(eval_preds: Any) -> dict[str, Any]:
    assert eval_preds.predictions.shape == (22, 1) and eval_preds.label_ids.shape == (22,)
    logits, labels = eval_preds[0], eval_preds[1]
    return {"bias": (logits[:, 0] - labels).mean(), "bytes": logits.itemsize + labels.itemsize}


@pytest.mark.parametrize("outputs", [2, 1])
def test_numbers_equal_those_of_trainer_with_the_same_function(bench: Bench, tmp_path: Path, outputs: int) -> None:
    if outputs == 1:
        splits = [
            split_of(bench.folder, t, [1.0 + y for y in labels]) for t, labels in (reviews(24), reviews(22, 1))
        ]
        bench = Bench(bench.folder, *splits)
    function = of_the_course if outputs == 2 else of_scores
    torch.manual_seed(42)
    model = AutoModelForSequenceClassification.from_pretrained(
        bench.folder, num_labels=outputs, dtype=torch.float32
    )
    settings = TrainingArguments(
        str(tmp_path),
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        eval_strategy="epoch",
        learning_rate=3e-3,
        num_train_epochs=2,
    )
    rows: Any = [
        [
            {"input_ids": e.input_ids, "token_type_ids": e.token_type_ids, "label": e.label}
            for e in map(s.__getitem__, range(len(s)))
        ]
        for s in (bench.train, bench.validation)
    ]
    trainer = Trainer(
        model,
        settings,
        data_collator=DataCollatorWithPadding(AutoTokenizer.from_pretrained(bench.folder)),
        train_dataset=rows[0],
        eval_dataset=rows[1],
        compute_metrics=function,
    )
    trainer.train()
    theirs = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    values, _, _ = run(bench, labels=outputs, num_train_epochs=2, compute_metrics=function)
    assert len(values) == len(theirs) == 2
    names = {"checksum", "margin", "accuracy", "confidence", "rows"} if outputs == 2 else {"bias", "bytes"}
    for ours, entry in zip(values, theirs, strict=True):
        assert {f"eval_{name}" for name in names} <= entry.keys()
        assert {name: ours[name] for name in names} == {name: entry[f"eval_{name}"] for name in names}
        assert ours["loss"] == entry["eval_loss"]


def test_metrics_come_in_the_order_asked_for_then_the_users(bench: Bench) -> None:
    def area(eval_preds: Any) -> dict[str, Any]:
        logits, labels = eval_preds
        return {"area": roc_auc_score(labels, torch.tensor(logits).double().softmax(-1)[:, 1].numpy())}

    values, _, best = run(
        bench, metrics=("roc_auc", "macro_f1"), compute_metrics=area, metric_for_best_model="eval_area"
    )
    assert list(values[0]) == ["loss", "roc_auc", "macro_f1", "area"]
    assert values[0]["roc_auc"] == values[0]["area"] == best.value
    assert (best.name, best.greater_is_better) == ("area", True)


def test_without_the_flag_and_the_function_nothing_is_added(bench: Bench) -> None:
    plain, _, _ = run(bench)
    more, _, _ = run(bench, compute_metrics=lambda both: {"one": 1})
    assert list(plain[0]) == ["loss", "accuracy", "f1"]
    assert more[0] == plain[0] | {"one": 1.0}


def test_a_users_number_stands_under_a_built_in_name_if_it_is_another(bench: Bench) -> None:
    given: dict[str, Any] = {"accuracy": np.float32(0.5), "f1": -3.0}
    plain, _, _ = run(bench)
    given["accuracy"] = np.float32(plain[0]["accuracy"])  # the same to float32: ours is kept
    values, _, best = run(bench, compute_metrics=lambda both: given, metric_for_best_model="f1")
    assert values[0] == plain[0] | {"f1": -3.0}
    assert best.value == -3.0


def test_a_loss_of_the_users_is_better_if_lower(bench: Bench) -> None:
    answers = iter([3.0, 1.0, 2.0])
    _, _, best = run(
        bench,
        num_train_epochs=3,
        compute_metrics=lambda both: {"my_loss": next(answers)},
        metric_for_best_model="my_loss",
    )
    assert (best.value, best.epoch, best.greater_is_better) == (1.0, 2.0, False)


def test_nan_is_never_best(bench: Bench) -> None:
    answers = iter([math.nan, 0.5, math.nan])
    _, _, best = run(
        bench,
        num_train_epochs=3,
        compute_metrics=lambda both: {"own": next(answers)},
        metric_for_best_model="own",
    )
    assert (best.value, best.epoch) == (0.5, 2.0)


# what is refused

WRONG: dict[str, tuple[Any, str]] = {
    "no dict": (0.5, r"returned 0.5 \(float\); expected a dict of numbers"),
    "nothing": (None, r"returned None \(NoneType\)"),
    "empty": ({}, r"returned {} \(dict\)"),
    "text": ({"f": "high"}, r"f: 'high' \(str\); expected a number"),
    "array": ({"f": np.ones(3)}, r"f: array.* expected a number. For one number per class give each a name"),
    "none": ({"f": None}, r"f: None \(NoneType\)"),
    "loss": ({"loss": 1.0}, "returned 'loss', a name that is taken"),
    "prefixed": ({"eval_examples": 1.0}, "returned 'eval_examples', a name that is taken"),
    "twice": ({"eval_f": 1.0, "f": 2.0}, "returned both 'f' and 'eval_f', which are one name"),
    "number as name": ({1: 1.0}, "returned the name 1; expected text"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_answer_is_named(case: str) -> None:
    answer, said = WRONG[case]
    users = UserMetrics(lambda both: answer)
    with pytest.raises(MinitrainError, match=said):
        users.beside({"accuracy": 1.0}, torch.zeros(2, 2), torch.zeros(2))


def test_an_exception_is_said_to_be_of_the_users_function_and_kept_as_the_cause(bench: Bench) -> None:
    def broken(eval_preds: Any) -> dict[str, Any]:
        return {"f": eval_preds.logits}

    said = (
        r"compute_metrics, your function, raised AttributeError: .*logits.* got logits \(22, 2\) and labels \(22,\)"
    )
    with pytest.raises(MinitrainError, match=said) as caught:
        run(bench, compute_metrics=broken)
    assert isinstance(caught.value.__cause__, AttributeError)


def test_other_names_than_before_are_refused(bench: Bench) -> None:
    answers = iter([{"a": 1.0, "b": 2.0}, {"a": 1.0}])
    with pytest.raises(MinitrainError, match=r"returned a, but a, b before.*float\('nan'\)"):
        run(bench, num_train_epochs=2, compute_metrics=lambda both: next(answers))


def test_an_unknown_metric_for_best_model_is_answered_with_all_there_are(bench: Bench) -> None:
    with pytest.raises(MinitrainError, match="--metric_for_best_model kapa: expected loss, accuracy, f1, kappa"):
        run(bench, compute_metrics=lambda both: {"kappa": 1.0}, metric_for_best_model="kapa")


@pytest.mark.parametrize("function", [{"accuracy": 1.0}, "accuracy", EvalPrediction])
def test_what_is_no_function_is_refused(function: Any) -> None:
    with pytest.raises(MinitrainError, match="compute_metrics is .* expected a function"):
        UserMetrics(function)


# several observers


class Broken:
    def on_step(self, log: Any) -> None:
        raise OSError("no tracker")


def test_each_observer_hears_what_it_has_a_method_for(bench: Bench) -> None:
    steps: list[int] = []

    class Steps:
        def on_step(self, log: Any) -> None:
            steps.append(log.step)

    values, _, _ = run(bench, observers=[Steps()])  # beside the listener of `run`, which has on_evaluation alone
    assert steps == [1, 2, 3] and len(values) == 1


def test_an_exception_names_the_observer(bench: Bench) -> None:
    with pytest.raises(
        MinitrainError, match="Broken.on_step, an observer of yours, raised OSError: no tracker"
    ) as e:
        run(bench, observers=[Broken()])
    assert isinstance(e.value.__cause__, OSError)


@pytest.mark.parametrize(
    ("observers", "said"),
    [
        (Broken(), r"expected a list: observers=\[Broken\(\)\]"),
        ([Broken], r"observers\[0\] is .*, a class; expected an object of it: Broken\(\)"),
        ([Broken(), 3], r"observers\[1\] is 3; an observer has a method on_step or on_evaluation"),
    ],
)
def test_what_cannot_observe_is_refused(observers: Any, said: str) -> None:
    with pytest.raises(MinitrainError, match=said):
        check_observers(observers)
