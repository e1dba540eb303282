"""Predictions and losses of a split against one row at a time, and what an evaluation must leave alone."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_kernels import count_joined
from test_loop import reviews, split_of, write_tiny_model
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from minitrain.data.batch import collate
from minitrain.data.dataset import Split
from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.errors import MinitrainError
from minitrain.model.classifier import SequenceClassifier
from minitrain.model.weights import load_classifier, save_classifier
from minitrain.training.evaluation import baseline, evaluate, predict, predictions_of
from minitrain.training.loss import Loss, loss_of
from minitrain.training.metrics import metric_for


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def split(folder: Path) -> Split:
    split = split_of(folder, *reviews(23, seed=5))
    assert split.lengths != sorted(split.lengths) and len(set(split.lengths)) > 8
    return split


@pytest.fixture
def model(folder: Path) -> SequenceClassifier:
    torch.manual_seed(0)
    return load_classifier(folder, 2)


def one_by_one(model: SequenceClassifier, split: Split) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(**collate([split[row]]).inputs) for row in range(len(split))])


@pytest.mark.parametrize("bf16", [False, True])
def test_an_evaluation_joins_the_weights_once_and_the_next_one_anew(
    model: SequenceClassifier, split: Split, bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = count_joined(monkeypatch)
    first = predict(model, split, batch_size=4, bf16=bf16)
    once = list(counts)
    assert once.count(3) == 2 * model.config.num_layers - 2  # the last block's query is of one position, by itself
    with torch.no_grad():
        model.encoder.blocks[0].attention.value.weight.mul_(2.0)
    assert not torch.equal(predict(model, split, batch_size=4, bf16=bf16), first)
    assert counts == 2 * once


@pytest.mark.parametrize("batch_size", [1, 4, 8, 23, 64])
def test_predictions_come_in_the_order_of_the_rows(
    model: SequenceClassifier, split: Split, batch_size: int
) -> None:
    logits = predict(model, split, batch_size=batch_size)
    expected = one_by_one(model, split)
    assert logits.shape == (23, 2) and logits.dtype == torch.float32 and not logits.requires_grad
    # Padding and larger matrices add up float32 in another order; logits are of size 1.
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    assert (expected[:-1] - expected[1:]).abs().max() > 1e-2  # so that an order not restored would be seen


def test_predictions_have_the_bits_of_transformers(folder: Path, split: Split) -> None:
    torch.manual_seed(0)
    ours = load_classifier(folder, 2, kernels="reference")
    torch.manual_seed(0)
    theirs = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = theirs(**collate([split[row] for row in by_length(split)]).inputs).logits
    assert torch.equal(predict(ours, split, batch_size=23)[by_length(split)], expected)


def by_length(split: Split) -> list[int]:
    """Row numbers, longest first, as an evaluation takes them."""
    return sorted(range(len(split)), key=lambda row: -split.lengths[row])


@pytest.mark.fault(29)
@pytest.mark.parametrize("batch_size", [1, 5, 8, 23])
def test_loss_is_the_mean_over_examples_whatever_the_last_batch_holds(
    model: SequenceClassifier, split: Split, batch_size: int
) -> None:
    assert split.labels is not None
    expected = torch.nn.functional.cross_entropy(one_by_one(model, split).double(), split.labels).item()
    result = evaluate(model, split, metric_for(None, 2), batch_size=batch_size)
    assert result.loss == pytest.approx(expected, abs=1e-6)  # float32 logits and sum
    assert result.examples == 23
    means = [
        torch.nn.functional.cross_entropy(one_by_one(model, split)[rows], split.labels[rows]).item()
        for rows in torch.tensor(by_length(split)).split(8)
    ]
    assert sum(means) / 3 != pytest.approx(expected, abs=1e-4)  # the mean over batches is another number


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("batch_size", [4, 23])
def test_loss_row_by_row_has_the_bits_of_trainer(
    folder: Path, split: Split, batch_size: int, smoothing: float, tmp_path: Path
) -> None:
    """Trainer takes the mean of its batches' means, each as often as the batch has rows."""
    torch.manual_seed(0)
    save_classifier(load_classifier(folder, 2), load_tokenizer(folder), tmp_path)
    model = load_classifier(tmp_path, kernels="reference")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32)
    fixed: dict[str, Any] = {"use_cpu": True, "report_to": "none", "disable_tqdm": True}
    arguments = TrainingArguments(
        str(tmp_path),
        per_device_eval_batch_size=batch_size,
        label_smoothing_factor=smoothing,
        dataloader_pin_memory=False,
        **fixed,
    )
    rows: Any = [
        {"input_ids": e.input_ids, "token_type_ids": e.token_type_ids, "label": e.label}
        for e in (split[row] for row in range(len(split)))
    ]
    pad = DataCollatorWithPadding(AutoTokenizer.from_pretrained(tmp_path))
    expected = Trainer(theirs, arguments, data_collator=pad).evaluate(rows)["eval_loss"]
    kept: dict[str, Any] = {"batch_size": batch_size, "label_smoothing": smoothing}
    assert evaluate(model, split, metric_for(None, 2), order="rows", **kept).loss == expected
    by_length = evaluate(model, split, metric_for(None, 2), **kept).loss
    assert by_length == pytest.approx(expected, rel=1e-6)


def test_order_that_there_is_not_is_an_error(model: SequenceClassifier, split: Split) -> None:
    with pytest.raises(MinitrainError, match="order is 'lengths'; expected 'length' or 'rows'"):
        predict(model, split, order="lengths")


def test_scores_are_not_smoothed() -> None:
    with pytest.raises(
        MinitrainError, match=r"--label_smoothing_factor 0\.1 is about classes, but these labels are scores"
    ):
        loss_of(torch.zeros(2, 1), torch.zeros(2), Loss(label_smoothing=0.1))


def test_order_of_evaluation_moves_last_bits_alone(model: SequenceClassifier, split: Split) -> None:
    by_length, by_row = (predict(model, split, batch_size=4, order=order) for order in ("length", "rows"))
    torch.testing.assert_close(by_length, by_row, rtol=0, atol=1e-5)  # padding adds zeros in another order


def test_metrics_are_those_of_the_predictions(model: SequenceClassifier, split: Split) -> None:
    assert split.labels is not None
    result = evaluate(model, split, metric_for(None, 2))
    hits = (one_by_one(model, split).argmax(-1) == split.labels).sum().item()
    assert result.metrics["accuracy"] == hits / 23
    assert result.confusion is not None and result.confusion.counts.sum() == 23
    assert result.values == {"loss": result.loss, **result.metrics}
    assert result.seconds > 0


def test_regression_is_scored_by_its_one_output(folder: Path) -> None:
    texts, labels = reviews(23, seed=5)
    split = split_of(folder, texts, [label + 0.25 for label in labels])
    torch.manual_seed(0)
    model = load_classifier(folder, 1)
    result = evaluate(model, split, metric_for(None, None), batch_size=4)
    assert split.labels is not None
    errors = one_by_one(model, split)[:, 0].double() - split.labels
    assert result.loss == pytest.approx(errors.square().mean().item(), rel=1e-5)  # float32 logits and sum
    assert result.loss == pytest.approx(result.metrics["mse"], rel=1e-6)
    assert result.confusion is None


@pytest.mark.parametrize("training", [True, False])
def test_mode_is_put_back_and_dropout_is_off_meanwhile(
    model: SequenceClassifier, split: Split, training: bool
) -> None:
    model.train(training)
    first, second = predict(model, split), predict(model, split)
    assert torch.equal(first, second)
    assert {module.training for module in model.modules()} == {training}


@pytest.mark.parametrize("training", [True, False])
def test_mode_is_put_back_after_an_error(model: SequenceClassifier, split: Split, training: bool) -> None:
    class Full(RuntimeError):
        pass

    calls: list[int] = []

    def fail(*_: object) -> None:
        calls.append(1)
        raise Full

    model.train(training)
    handle = model.encoder.register_forward_hook(fail)
    with pytest.raises(Full):
        predict(model, split)
    handle.remove()
    assert calls == [1]
    assert {module.training for module in model.modules()} == {training}
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("bf16", [False, True])
def test_evaluating_draws_no_random_number_and_keeps_gradients(
    model: SequenceClassifier, split: Split, bf16: bool
) -> None:
    model.train()
    loss_sum, _ = loss_of(model(**collate([split[0]]).inputs), torch.tensor([1]))
    loss_sum.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    state = torch.get_rng_state()
    evaluate(model, split, metric_for(None, 2), bf16=bf16)
    assert torch.equal(torch.get_rng_state(), state)
    after = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(after, gradients, strict=True))


def test_bf16_changes_the_arithmetic_and_not_the_result_type(model: SequenceClassifier, split: Split) -> None:
    full, half = predict(model, split), predict(model, split, bf16=True)
    assert half.dtype == torch.float32 and not torch.equal(half, full)
    torch.testing.assert_close(half, full, rtol=0, atol=0.05)  # bfloat16 keeps 8 bits of numbers of size 1


def test_padding_token_comes_from_the_caller(model: SequenceClassifier, split: Split) -> None:
    seen: list[Tensor] = []

    def look(_: object, inputs: tuple[Tensor, ...], keywords: dict[str, Tensor]) -> None:
        seen.append(keywords["input_ids"][keywords["attention_mask"] == 0])

    handle = model.register_forward_pre_hook(look, with_kwargs=True)
    plain = predict(model, split)
    other = predict(model, split, pad_token_id=3)
    handle.remove()
    ids = [torch.cat(part).unique().tolist() for part in (seen[: len(seen) // 2], seen[len(seen) // 2 :])]
    assert ids == [[0], [3]]
    assert torch.equal(plain, other)  # masked positions have no weight at all


def test_class_is_the_largest_logit_and_score_the_only_one() -> None:
    assert predictions_of(torch.tensor([[0.1, 0.2], [3.0, -1.0]])).tolist() == [1, 0]
    assert predictions_of(torch.tensor([[0.5], [-2.0]])).tolist() == [0.5, -2.0]


def test_loss_follows_the_kind_of_the_labels() -> None:
    total, count = loss_of(torch.tensor([[2.0], [1.0]]), torch.tensor([0.0, 0.0]))
    assert (total.item(), count) == (5.0, 2)
    total, count = loss_of(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
    assert total.item() == pytest.approx(3 * math.log(2)) and count == 3


def test_predictions_of_a_reloaded_model_have_the_same_bits(
    model: SequenceClassifier, split: Split, folder: Path, tmp_path: Path
) -> None:
    save_classifier(model, load_tokenizer(folder), tmp_path)
    assert torch.equal(predict(load_classifier(tmp_path), split), predict(model, split))


def test_longest_rows_go_first_so_that_too_little_memory_shows_at_once(
    model: SequenceClassifier, split: Split
) -> None:
    lengths: list[int] = []

    def look(_: object, __: object, keywords: dict[str, Tensor]) -> None:
        lengths.append(keywords["input_ids"].size(1))

    model.register_forward_pre_hook(look, with_kwargs=True)
    predict(model, split, batch_size=4)
    assert lengths == sorted(lengths, reverse=True) and lengths[0] == max(split.lengths)


def test_baseline_names_the_class_that_is_commonest_in_training(folder: Path) -> None:
    texts, _ = reviews(4)
    train, split = split_of(folder, texts, [0, 1, 0, 0]), split_of(folder, texts, [1, 1, 0, 1])
    assert baseline(train, split) == 0.25


def test_split_without_labels_is_answered_with_what_gives_its_logits(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path)
    model, split = load_classifier(folder, 2), split_of(folder, *reviews(4))
    unlabelled = Split(split._tokens, None)
    with pytest.raises(MinitrainError, match="no labels to score by; predict"):
        evaluate(model, unlabelled, metric_for(None, 2))
    assert predict(model, unlabelled).shape == (4, 2)
