"""Class weights against CrossEntropyLoss and scikit-learn, over cuts and recorded steps; and their traps."""

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from test_loop import NO_DROPOUT, reviews, rows_of, split_of, write_tiny_model
from test_recorded_step import batches_of, recorded_on_cpu, state_of
from torch import Tensor, nn

from minitrain.config.train_config import TrainConfig
from minitrain.data.dataset import Split
from minitrain.errors import MinitrainError
from minitrain.model.weights import load_classifier
from minitrain.training.evaluation import evaluate, predict
from minitrain.training.loop import fit
from minitrain.training.loss import Loss, loss_of, weighted_cross_entropy
from minitrain.training.metrics import metric_for
from minitrain.training.run_loss import loss_of_run
from minitrain.training.setup import make_state
from minitrain.training.step import StepSettings, train_step

WEIGHTS = (0.3, 5.1)
WEIGHTED = StepSettings(max_grad_norm=0.0, loss=Loss(class_weights=WEIGHTS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def split(folder: Path) -> Split:
    texts, labels = reviews(24)
    return split_of(folder, texts, [label if row % 5 else 1 for row, label in enumerate(labels)])


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_loss_and_gradient_have_the_bits_of_torchs_weighted_mean(epsilon: float) -> None:
    for seed in range(200):
        torch.manual_seed(seed)
        batch, classes = int(torch.randint(1, 65, ())), int(torch.randint(2, 6, ()))
        weights, labels = torch.rand(classes) * 5 + 0.01, torch.randint(0, classes, (batch,))
        ours = (torch.randn(batch, classes) * 3).requires_grad_()
        theirs = ours.detach().clone().requires_grad_()
        total, count = weighted_cross_entropy(ours, labels, tuple(weights.tolist()), epsilon)
        expected = nn.CrossEntropyLoss(weight=weights, label_smoothing=epsilon)(theirs, labels)
        (total / count).backward()
        expected.backward()
        assert torch.equal((total / count).float(), expected)
        assert ours.grad is not None and theirs.grad is not None and torch.equal(ours.grad, theirs.grad)
        assert count.item() == pytest.approx(weights[labels].sum().item())


def test_equal_weights_are_no_weights() -> None:
    logits, labels = torch.randn(7, 3), torch.randint(0, 3, (7,))
    total, count = weighted_cross_entropy(logits, labels, (2.0, 2.0, 2.0))
    plain, examples = loss_of(logits, labels)
    assert count == 14.0 and torch.allclose(total / count, plain / examples)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.to_dense().clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_a_step_is_the_weighted_mean_however_it_is_cut(folder: Path, split: Split, epsilon: float) -> None:
    settings = StepSettings(max_grad_norm=0.0, loss=Loss(class_weights=WEIGHTS, label_smoothing=epsilon))
    model = load_classifier(folder, 2, **NO_DROPOUT)
    state = make_state(model, TrainConfig(kernels="reference"))
    state.optimizer.step = state.optimizer.zero_grad = lambda *_, **__: None  # type: ignore[method-assign,assignment]
    found: list[tuple[float, dict[str, Tensor]]] = []
    for sizes in ([16], [8, 8], [5, 1, 10], [1] * 16):
        starts = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
        parts = [rows_of(split, range(a, b)) for a, b in zip(starts, starts[1:], strict=False)]
        model.zero_grad()
        found.append((train_step(state, parts, 0.0, settings).loss, gradients(model)))
    assert split.labels is not None
    logits = predict(model, split)[:16]
    expected = nn.CrossEntropyLoss(weight=torch.tensor(WEIGHTS), label_smoothing=epsilon)(logits, split.labels[:16])
    for loss, grads in found:
        assert loss == pytest.approx(expected.item(), abs=1e-6)
        for name, whole in found[0][1].items():
            torch.testing.assert_close(grads[name], whole, rtol=0, atol=1e-6 * max(1.0, whole.abs().max().item()))


def test_sum_of_means_adds_up_the_weighted_mean_of_each_micro_batch(folder: Path, split: Split) -> None:
    """As Trainer 5.23 does with the documented subclass: with two micro-batches the loss is twice too large."""
    model = load_classifier(folder, 2, **NO_DROPOUT)
    state = make_state(model.eval(), TrainConfig(kernels="reference"))
    parts = [rows_of(split, range(0, 6)), rows_of(split, range(6, 16))]
    loss = nn.CrossEntropyLoss(weight=torch.tensor(WEIGHTS))
    with torch.no_grad():
        expected = sum(loss(model(**part.inputs), part.labels) for part in parts)
    settings = StepSettings(loss=Loss(class_weights=WEIGHTS), sum_of_means=True)
    assert train_step(state, parts, 0.0, settings).loss == float(expected)


def test_evaluation_is_the_weighted_mean_over_rows_or_in_a_match_of_batches(folder: Path, split: Split) -> None:
    model = load_classifier(folder, 2)
    loss, torchs = Loss(class_weights=WEIGHTS), nn.CrossEntropyLoss(weight=torch.tensor(WEIGHTS))
    assert split.labels is not None
    logits = predict(model, split, order="rows", batch_size=3)
    plain = evaluate(model, split, metric_for(None, 2), order="rows", batch_size=3, loss=loss).loss
    assert plain == pytest.approx(torchs(logits, split.labels).item(), abs=1e-6)
    means = evaluate(model, split, metric_for(None, 2), order="rows", batch_size=3, loss=loss, mean_of_means=True)
    rows = [torchs(a, b).item() for a, b in zip(logits.split(3), split.labels.split(3), strict=True)]
    expected = sum(mean * len(part) for mean, part in zip(rows, logits.split(3), strict=True)) / len(split)
    assert means.loss == pytest.approx(expected, abs=1e-6) and abs(means.loss - plain) > 1e-4


def test_a_recorded_step_weights_its_classes(folder: Path) -> None:
    batches, plain, (step, recorded) = batches_of(folder, 4), state_of(folder), recorded_on_cpu(folder)
    settings = StepSettings(loss=Loss(class_weights=WEIGHTS), fused_clip=True)
    for batch in batches:
        expected = train_step(plain, [batch], 1e-3, StepSettings(loss=Loss(class_weights=WEIGHTS)))
        assert step(recorded, [batch], 1e-3, settings).read() == pytest.approx(expected, rel=1e-5)
    assert step._recorded


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_balanced_weights_are_scikit_learns(classes: int) -> None:
    for seed in range(50):
        draw = numpy.random.default_rng(seed)
        labels = numpy.concatenate([numpy.arange(classes), draw.integers(0, classes, draw.integers(1, 200))])
        expected = compute_class_weight("balanced", classes=numpy.arange(classes), y=labels)
        names = tuple("abcde"[:classes])
        found = loss_of_run(TrainConfig(class_weights="balanced"), names, torch.from_numpy(labels))
        assert found.class_weights == tuple(expected)


def test_weights_go_by_name_never_by_position() -> None:
    config = TrainConfig(class_weights="1=4,0=2", label_smoothing_factor=0.1)
    assert loss_of_run(config, ("0", "1"), None) == Loss(class_weights=(2.0, 4.0), label_smoothing=0.1)


@pytest.mark.parametrize(
    ("weights", "names", "labels", "message"),
    [
        (
            "urgnt=4,other=1",
            ("other", "urgent"),
            [0, 1],
            r"no class 'urgnt'; did you mean 'urgent'\? The classes are",
        ),
        ("urgent=4,0=1", ("other", "urgent"), [0, 1], r"no class '0'. The classes are other, urgent"),
        ("urgent=4", ("other", "urgent"), [0, 1], r"no weight for 'other'; every class needs one"),
        ("balanced", ("a", "b", "c"), [0, 2, 2], r"balanced: no training row has the label 'b'"),
        ("balanced", ("a", "b"), None, r"the training rows have no labels to count"),
        ("balanced", None, [0.5, 1.5], r"--class_weights are of classes, but these labels are scores"),
        ("a=1,b=2", ("a", "b"), [[0.0, 1.0]], r"of one class a text"),
    ],
)
def test_weights_that_do_not_fit_the_classes_are_refused(
    weights: str, names: tuple[str, ...] | None, labels: list[Any] | None, message: str
) -> None:
    with pytest.raises(MinitrainError, match=message):
        loss_of_run(TrainConfig(class_weights=weights), names, None if labels is None else torch.tensor(labels))


def test_scores_and_another_number_of_classes_are_refused_by_the_loss_too() -> None:
    with pytest.raises(MinitrainError, match="labels are scores"):
        loss_of(torch.zeros(2, 1), torch.zeros(2), Loss(class_weights=WEIGHTS))
    with pytest.raises(MinitrainError, match="got 2 class weights for 3 classes"):
        loss_of(torch.zeros(2, 3), torch.tensor([0, 1]), Loss(class_weights=WEIGHTS))
    with pytest.raises(MinitrainError, match=r"labels\[1\] is 3"):
        loss_of(torch.zeros(2, 3), torch.tensor([0, 3]), Loss(class_weights=(1.0, 2.0, 3.0)))


def test_fit_weights_training_and_evaluation(folder: Path, split: Split) -> None:
    """With weight on one class alone, a model that learns answers with it."""
    for favoured in ("LABEL_0", "LABEL_1"):
        weights = {"LABEL_0": 1e-3, "LABEL_1": 1e-3, favoured: 1.0}
        config = TrainConfig(class_weights=weights, max_steps=6, learning_rate=3e-2, seed=1)
        model = load_classifier(folder, 2)
        fit(model, split, {"validation": split}, config)
        assert predict(model, split).argmax(-1).unique().tolist() == [int(favoured[-1])]
