"""Losses against the heads of transformers: sum / count has the bits of their mean, and so has its gradient."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification
from transformers.trainer_pt_utils import LabelSmoother

from minitrain.errors import MinitrainError
from minitrain.training.loss import Loss, binary_cross_entropy, cross_entropy, loss_of, mean_squared_error

BATCH_SIZES = [1, 2, 3, 7, 8, 23, 32]


def reference_loss(num_labels: int, logits: Tensor, labels: Tensor) -> Tensor:
    """The loss that BertForSequenceClassification returns, with our logits as those of its head."""
    sizes: dict[str, Any] = {
        "hidden_size": 4,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_labels": num_labels,
    }
    model = BertForSequenceClassification(BertConfig(vocab_size=8, **sizes))

    if labels.ndim == 2:
        model.config.problem_type = "multi_label_classification"

    class Head(torch.nn.Module):
        def forward(self, pooled: Tensor) -> Tensor:
            return logits

    model.set_submodule("classifier", Head())
    return model(input_ids=torch.zeros(len(labels), 1, dtype=torch.int64), labels=labels).loss


def grad(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


def twins(*shape: int) -> tuple[Tensor, Tensor]:
    logits = torch.randn(*shape) * 3
    return logits.clone().requires_grad_(), logits.clone().requires_grad_()


@pytest.mark.parametrize("batch", BATCH_SIZES)
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_cross_entropy_and_its_gradient_have_the_bits_of_bert(batch: int, classes: int) -> None:
    torch.manual_seed(batch * classes)
    ours, theirs = twins(batch, classes)
    labels = torch.randint(0, classes, (batch,))
    total, count = cross_entropy(ours, labels)
    expected = reference_loss(classes, theirs, labels)
    (total / count).backward()
    expected.backward()
    assert count == batch and total.shape == () and total.dtype == torch.float32
    assert torch.equal(total / count, expected)
    assert torch.equal(grad(ours), grad(theirs))


@pytest.mark.parametrize("batch", BATCH_SIZES)
def test_squared_error_and_its_gradient_have_the_bits_of_bert(batch: int) -> None:
    torch.manual_seed(batch)
    ours, theirs = twins(batch, 1)
    labels = torch.rand(batch) * 5
    total, count = mean_squared_error(ours, labels)
    expected = reference_loss(1, theirs, labels)
    (total / count).backward()
    expected.backward()
    assert count == batch and total.shape == () and total.dtype == torch.float32
    assert torch.equal(total / count, expected)
    assert torch.equal(grad(ours), grad(theirs))


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("epsilon", [0.1, 0.3])
@pytest.mark.parametrize("batch", [*BATCH_SIZES, 24, 41, 61])
def test_label_smoothing_follows_the_trainer(batch: int, epsilon: float, classes: int) -> None:
    torch.manual_seed(batch * classes)
    ours, theirs = twins(batch, classes)
    labels = torch.randint(0, classes, (batch,))
    total, count = cross_entropy(ours, labels, label_smoothing=epsilon)
    expected = LabelSmoother(epsilon=epsilon)({"logits": theirs}, labels)
    (total / count).backward()
    expected.backward()
    assert torch.equal((total / count).float(), expected)
    assert torch.equal(grad(ours), grad(theirs))  # 41 and 61 among the counts: n * (1 / n) is not 1 in float32


def test_smoothed_parts_of_a_step_have_the_bits_of_the_trainers() -> None:
    """Trainer hands the step's number of examples to its LabelSmoother, as it should to BERT."""
    torch.manual_seed(0)
    ours, theirs = twins(13, 3)
    labels = torch.randint(0, 3, (13,))
    for part in (slice(0, 8), slice(8, 13)):
        total, _ = cross_entropy(ours[part], labels[part], 0.1, examples=13)
        loss = LabelSmoother(epsilon=0.1)({"logits": theirs[part]}, labels[part], num_items_in_batch=13)
        assert torch.equal((total / 13).float(), loss)
        (total / 13).backward()
        loss.backward()
    assert torch.equal(grad(ours), grad(theirs))


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_gradient_does_not_depend_on_how_the_batch_is_cut(epsilon: float) -> None:
    torch.manual_seed(0)
    whole, cut = twins(8, 3)
    labels = torch.randint(0, 3, (8,))
    total, count = cross_entropy(whole, labels, epsilon)
    (total / count).backward()
    for part in (slice(0, 4), slice(4, 5), slice(5, 8)):
        total, _ = cross_entropy(cut[part], labels[part], epsilon)
        (total / count).backward()
    if epsilon == 0.0:
        assert torch.equal(grad(whole), grad(cut))
    # Smoothing divides by the count of the part, 3 here, and multiplies by it: a rounding each.
    torch.testing.assert_close(grad(cut), grad(whole), rtol=0, atol=2**-21 * grad(whole).abs().max().item())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits, scores = torch.randn(6, 3).to(dtype), torch.randn(6, 1).to(dtype)
    labels, targets = torch.randint(0, 3, (6,)), torch.rand(6)
    for epsilon, sum_dtype in ((0.0, torch.float32), (0.1, torch.float64)):
        ours, _ = cross_entropy(logits, labels, epsilon)
        assert ours.dtype == sum_dtype
        assert torch.equal(ours, cross_entropy(logits.float(), labels, epsilon)[0])
    assert torch.equal(mean_squared_error(scores, targets)[0], mean_squared_error(scores.float(), targets)[0])


@pytest.mark.parametrize("label", [-100, -1, 3])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_no_label_is_silently_left_out(label: int, epsilon: float) -> None:
    with pytest.raises(
        MinitrainError, match=rf"labels\[1\] is {label}; class ids go from 0 to 2. To leave rows out"
    ):
        cross_entropy(torch.randn(2, 3), torch.tensor([0, label]), epsilon)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (torch.zeros(4), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(4, 2), torch.zeros(4, 1, dtype=torch.int64)),
        (torch.zeros(4, 2), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(4, 2), torch.zeros(4)),
    ],
)
def test_cross_entropy_names_shapes_that_do_not_fit(logits: Tensor, labels: Tensor) -> None:
    with pytest.raises(MinitrainError, match=r"needs logits \(B, C\).*mean_squared_error"):
        cross_entropy(logits, labels)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (torch.zeros(4), torch.zeros(4)),
        (torch.zeros(4, 2), torch.zeros(4)),
        (torch.zeros(4, 1), torch.zeros(4, 1)),
        (torch.zeros(4, 1), torch.zeros(3)),
        (torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64)),
    ],
)
def test_squared_error_names_shapes_that_do_not_fit(logits: Tensor, labels: Tensor) -> None:
    with pytest.raises(MinitrainError, match=r"needs logits \(B, 1\).*cross_entropy"):
        mean_squared_error(logits, labels)


@pytest.mark.parametrize("epsilon", [-0.1, 1.0, float("nan")])
def test_smoothing_outside_its_range_is_refused(epsilon: float) -> None:
    with pytest.raises(MinitrainError, match=r"must be in \[0, 1\)"):
        cross_entropy(torch.zeros(2, 2), torch.tensor([0, 1]), epsilon)


@pytest.mark.parametrize("loss", [cross_entropy, mean_squared_error])
def test_lists_are_named(loss: Any) -> None:
    with pytest.raises(MinitrainError, match="got labels as list, expected a tensor"):
        loss(torch.zeros(2, 1), [0, 0])
    with pytest.raises(MinitrainError, match="got logits as list, expected a tensor"):
        loss([[0.0]], torch.zeros(1))


@pytest.mark.parametrize("batch", BATCH_SIZES)
@pytest.mark.parametrize("classes", [1, 3, 5, 28])
def test_binary_cross_entropy_and_its_gradient_have_the_bits_of_bert(batch: int, classes: int) -> None:
    torch.manual_seed(batch * classes)
    ours, theirs = twins(batch, classes)
    labels = (torch.rand(batch, classes) > 0.7).float()
    total, count = binary_cross_entropy(ours, labels)
    expected = reference_loss(classes, theirs, labels)
    (total / count).backward()
    expected.backward()
    assert count == batch and total.shape == ()
    assert torch.equal((total / count).float(), expected)
    assert torch.equal(grad(ours), grad(theirs))
    assert loss_of(ours, labels) == (total, count)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 2)),
        (torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64)),
        (torch.zeros(3), torch.zeros(3)),
    ],
)
def test_binary_cross_entropy_names_what_it_got(logits: Tensor, labels: Tensor) -> None:
    with pytest.raises(MinitrainError, match=r"needs logits \(B, C\) and float labels \(B, C\) of 0 and 1, got"):
        binary_cross_entropy(logits, labels)


def test_labels_of_which_a_text_has_several_are_not_smoothed() -> None:
    with pytest.raises(
        MinitrainError, match="these labels are several a text, each decided by itself: leave it out"
    ):
        loss_of(torch.zeros(2, 3), torch.zeros(2, 3), Loss(label_smoothing=0.1))
