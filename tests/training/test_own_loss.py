"""A loss of the user's own: the same training if it is the same function, checks, and counts of a whole step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import torch.nn.functional as F
from test_loop import NO_DROPOUT, Recorder, reviews, rows_of, same, split_of, weights_of, write_tiny_model
from torch import Tensor

from minitrain.config.train_config import TrainConfig
from minitrain.data.dataset import Split
from minitrain.errors import MinitrainError
from minitrain.model.weights import load_classifier
from minitrain.training.evaluation import evaluate, predict
from minitrain.training.loop import fit
from minitrain.training.loss import Loss, loss_of
from minitrain.training.metrics import metric_for
from minitrain.training.own_loss import own_loss
from minitrain.training.setup import choose_step, is_recordable, make_state
from minitrain.training.step import StepSettings, train_step

WEIGHTS = torch.tensor([0.3, 5.1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def split(folder: Path) -> Split:
    return split_of(folder, *reviews(24))


def plain(logits: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    return F.cross_entropy(logits, labels, reduction="sum"), len(labels)


def weighted(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return F.cross_entropy(logits, labels, WEIGHTS, reduction="sum"), WEIGHTS[labels].sum()


def trained(folder: Path, split: Split, loss: Any = None, **flags: Any) -> Recorder:
    config = TrainConfig(**{"max_steps": 4, "learning_rate": 3e-3, "gradient_accumulation_steps": 2} | flags)
    torch.manual_seed(0)
    model = load_classifier(folder, 2, kernels=config.kernels)
    recorder = Recorder(model)
    fit(model, split, {"validation": split}, config, observer=recorder, loss=loss)
    return recorder


@pytest.mark.parametrize("kernels", ["fast", "reference"])
def test_cross_entropy_passed_as_an_own_loss_trains_with_the_same_bits(
    folder: Path, split: Split, kernels: str
) -> None:
    ours, built_in = (trained(folder, split, loss, kernels=kernels) for loss in (plain, None))
    assert ours.losses == built_in.losses and len(ours.losses) == 4
    assert same(weights_of(ours.model), weights_of(built_in.model))
    assert ours.evaluated("loss") == pytest.approx(built_in.evaluated("loss"), abs=1e-6)


def test_class_weights_written_as_an_own_loss_are_those_of_the_flag(folder: Path, split: Split) -> None:
    """Its counts differ from micro-batch to micro-batch and are summed over the step."""
    ours = trained(folder, split, weighted)
    flag = trained(folder, split, class_weights={"LABEL_0": 0.3, "LABEL_1": 5.1})
    assert ours.losses == pytest.approx(flag.losses, abs=1e-5)
    assert ours.evaluated("loss") == pytest.approx(flag.evaluated("loss"), abs=1e-5)


def test_scores_and_logits_of_an_own_loss_have_one_shape() -> None:
    """(B, 1) beside (B,) would be an error for each pair of rows."""
    logits, labels = torch.tensor([[1.0], [4.0]], requires_grad=True), torch.tensor([1.0, 2.0])
    total, count = own_loss(lambda x, y: (F.l1_loss(x, y, reduction="sum"), len(y)), logits, labels)
    assert (total.item(), count) == (2.0, 2.0)


def test_rows_that_a_loss_leaves_out_do_not_count(folder: Path, split: Split) -> None:
    """One micro-batch has none that counts."""

    def of_class_1(logits: Tensor, labels: Tensor) -> tuple[Tensor, int]:
        kept = labels == 1
        return F.cross_entropy(logits[kept], labels[kept], reduction="sum"), int(kept.sum())

    state = make_state(load_classifier(folder, 2, **NO_DROPOUT), TrainConfig())
    parts = [rows_of(split, range(1, 2)), rows_of(split, range(2, 3)), rows_of(split, range(3, 4))]
    assert [int(part.labels) for part in parts if part.labels is not None] == [1, 0, 1]
    expected = plain(predict(state.model, split)[[1, 3]], torch.tensor([1, 1]))[0] / 2
    found = train_step(state, parts, 0.0, StepSettings(loss=Loss(function=of_class_1)))
    assert found.loss == pytest.approx(expected.item(), abs=1e-6)
    with pytest.raises(MinitrainError, match="count 0 for a whole step"):
        train_step(state, parts[1:2], 0.0, StepSettings(loss=Loss(function=of_class_1)))


def test_a_loss_function_gets_float32_logits_in_bf16(folder: Path, split: Split) -> None:
    dtypes = set()

    def looking(logits: Tensor, labels: Tensor) -> tuple[Tensor, int]:
        dtypes.add((logits.dtype, labels.dtype))
        return plain(logits, labels)

    trained(folder, split, looking, bf16=True, max_steps=1)
    assert dtypes == {(torch.float32, torch.int64)}


Returned = Callable[[Tensor, Tensor], Any]
WRONG: dict[str, tuple[Returned, str]] = {
    "a mean": (lambda x, y: F.cross_entropy(x, y), r"returned a tensor of shape \(\); expected \(sum, count\)"),
    "nothing": (lambda x, y: None, r"returned None; expected"),
    "a list": (lambda x, y: [x.sum(), 1], r"returned \[.*expected"),
    "three": (lambda x, y: (x.sum(), 1, 2), r"returned \(.*expected"),
    "no sum": (lambda x, y: (x, 1), r"as the sum a tensor of shape \(2, 2\) and torch.float32"),
    "integers": (lambda x, y: (y.sum(), 1), r"as the sum a tensor of shape \(\) and torch.int64"),
    "a float": (lambda x, y: (x.sum().item(), 1), r"as the sum .*expected"),
    "detached": (lambda x, y: (x.detach().sum(), 1), r"a sum without a gradient"),
    "no count": (lambda x, y: (x.sum(), None), r"as the count None"),
    "count below 0": (lambda x, y: (x.sum(), -1), r"as the count -1"),
    "count nan": (lambda x, y: (x.sum(), float("nan")), r"as the count nan"),
    "counts": (lambda x, y: (x.sum(), torch.ones(2)), r"as the count tensor"),
    "true": (lambda x, y: (x.sum(), True), r"as the count True"),
    "a count with a gradient": (lambda x, y: (x.sum(), x.sum().exp()), r"a count with a gradient"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_sum_and_count_is_named(kind: str) -> None:
    function, message = WRONG[kind]
    with pytest.raises(MinitrainError, match=f"the loss .*lambda.*{message}"):
        loss_of(torch.ones(2, 2, requires_grad=True), torch.tensor([0, 1]), Loss(function=function))


@pytest.mark.parametrize("count", [2, 2.0, numpy.int64(2), torch.tensor(2), torch.tensor(2.0)])
def test_a_count_may_be_any_number(count: Any) -> None:
    _, found = loss_of(torch.ones(2, 2), torch.tensor([0, 1]), Loss(function=lambda x, y: (x.sum(), count)))
    assert found == 2.0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"match_trainer": True}, "a match, and --accumulation sum"),
        ({"match_accelerate": True}, "a match, and --accumulation sum"),
        ({"accumulation": "sum"}, "a match, and --accumulation sum"),
        ({"class_weights": "balanced"}, "that --class_weights is about"),
        ({"label_smoothing_factor": 0.1}, "that --label_smoothing_factor is about"),
    ],
)
def test_settings_that_an_own_loss_replaces_are_refused(
    folder: Path, split: Split, flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(MinitrainError, match=f"loss=plain: .*{message}"):
        trained(folder, split, plain, **flags | {"gradient_accumulation_steps": 1})


def test_an_own_loss_is_not_recorded_by_a_gpu() -> None:
    cuda = torch.device("cuda")
    assert is_recordable(TrainConfig(), cuda)
    assert is_recordable(TrainConfig(), cuda, loss=Loss(class_weights=(1.0, 2.0)))
    assert not is_recordable(TrainConfig(), cuda, loss=Loss(function=plain))
    assert choose_step(TrainConfig(), cuda, 1, loss=Loss(function=plain)) is train_step


def test_an_evaluation_that_counts_nothing_is_refused(folder: Path, split: Split) -> None:
    loss = Loss(function=lambda x, y: (x.sum() * 0.0, 0))
    with pytest.raises(MinitrainError, match="count 0 for a whole split"):
        evaluate(load_classifier(folder, 2), split, metric_for(None, 2), loss=loss)
