"""A document's logits are pooled from its windows': in training, evaluation and prediction, beside plain torch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import BAD, GOOD, NEUTRAL, NO_DROPOUT, Recorder, reviews, write_tiny_model
from torch import Tensor

from minitrain.config.long_texts import LongTexts
from minitrain.config.train_config import TrainConfig
from minitrain.data.batch import collate
from minitrain.data.dataset import Split
from minitrain.data.labels.ids import Labels
from minitrain.data.load import tokenize
from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.data.windows import Document
from minitrain.errors import MinitrainError
from minitrain.model.classifier import SequenceClassifier
from minitrain.model.weights import load_classifier
from minitrain.training.evaluation import evaluate, predict
from minitrain.training.loop import fit
from minitrain.training.metrics import metric_for
from minitrain.training.pooling import pool_windows
from minitrain.training.setup import choose_step, is_recordable, make_state
from minitrain.training.step import StepSettings, train_step

WINDOWS: dict[str, Any] = {"long_texts": "windows"}
QUICK: dict[str, Any] = {"learning_rate": 3e-3, "device": "cpu", "eval_strategy": "no"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("pooled"))


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model without dropout."""
    return write_tiny_model(tmp_path_factory.mktemp("still"), **NO_DROPOUT)


def split_of(folder: Path, texts: list[str], labels: list[int], max_length: int = 12, **options: Any) -> Split:
    rows, names = {"text": texts, "label": labels}, Labels(names=("bad", "good"))
    columns: Any = (load_tokenizer(folder), ("text",), "label", names)
    return tokenize(rows, *columns, max_length=max_length, long_texts=LongTexts(**options))


def trained(folder: Path, train: Split, evaluation: Split | None = None, **flags: Any) -> tuple[Any, Recorder]:
    config = TrainConfig(**{**QUICK, **flags})
    torch.manual_seed(0)
    model = load_classifier(folder, 2, kernels=config.kernels)
    recorder = Recorder(model)
    fit(model, train, {} if evaluation is None else {"validation": evaluation}, config, observer=recorder)
    return model, recorder


def by_hand(model: SequenceClassifier, split: Split, pooling: str) -> Tensor:
    """Each window by itself through the model, the logits pooled with numpy's operations' names."""
    found = []
    for row in range(len(split)):
        example = split[row]
        windows = example.examples() if isinstance(example, Document) else [replace(example, label=None)]
        logits = torch.cat([model(**collate([window], split.pad_token_id).inputs) for window in windows])
        found.append(logits.mean(dim=0) if pooling == "mean" else logits.max(dim=0).values)
    return torch.stack(found)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_predictions_are_the_pooled_logits_of_the_windows(still: Path, pooling: str) -> None:
    split = split_of(still, *reviews(40), **WINDOWS, window_pooling=pooling)
    model = load_classifier(still, 2).eval()
    assert split.window_rows is not None and 1 < max(split.window_rows.counts) < len(split.window_rows)
    seen: list[int] = []
    with torch.no_grad():
        expected = by_hand(model, split, pooling)
    found = predict(model, split, batch_size=8, on_rows=seen.append)
    # Another batch and padding, so other last bits.
    assert torch.allclose(found, expected, atol=1e-6) and found.shape == (40, 2)
    assert sum(seen) == 40 and len(seen) == -(-len(split.window_rows) // 8)
    one_by_one = predict(model, split, batch_size=1)
    assert torch.equal(one_by_one, expected)
    assert torch.allclose(predict(model, [split[row] for row in range(40)]), expected, atol=1e-6)
    result = evaluate(model, split, metric_for(None, 2))
    assert result.examples == 40 and split.labels is not None
    assert result.metrics["accuracy"] == (expected.argmax(-1) == split.labels).double().mean().item()
    assert result.loss == pytest.approx(torch.nn.functional.cross_entropy(expected, split.labels).item(), abs=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("kernels", ["fast", "reference"])
def test_the_gradient_goes_through_the_pooled_logits(still: Path, pooling: str, kernels: str) -> None:
    split = split_of(still, *reviews(6), **WINDOWS, window_pooling=pooling)
    model = load_classifier(still, 2, kernels=kernels).train()
    labels = split.labels
    assert labels is not None
    expected_loss = torch.nn.functional.cross_entropy(by_hand(model, split, pooling), labels)
    expected_loss.backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    state = make_state(model, TrainConfig(kernels=kernels))
    state.optimizer.step = state.optimizer.zero_grad = lambda *_, **__: None  # type: ignore[method-assign,assignment]
    halves = [collate([split[row] for row in rows], split.pad_token_id) for rows in ((0, 1, 2, 3), (4, 5))]
    assert all(batch.windows for batch in halves)
    result = train_step(state, halves, 0.0, StepSettings(max_grad_norm=0.0))
    assert result.loss == pytest.approx(expected_loss.item(), abs=1e-6)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad.to_dense(), expected[name], atol=2e-6), name


def test_texts_that_fit_give_the_bits_of_head(folder: Path) -> None:
    texts, labels = reviews(48)
    runs = []
    for options in ({}, WINDOWS, {"long_texts": "tail"}):
        train, held = (split_of(folder, texts, labels, max_length=24, **options) for _ in range(2))
        runs.append(trained(folder, train, held, eval_strategy="epoch", max_steps=8, bf16=False))
    (model, recorder), *others = runs
    for other, other_recorder in others:
        assert other_recorder.losses == recorder.losses
        assert other_recorder.evaluated("loss") == recorder.evaluated("loss")
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_what_stands_at_the_end_is_learned_from_the_tail_and_from_windows(still: Path) -> None:
    draw = torch.Generator().manual_seed(3)

    def long_reviews(count: int) -> tuple[list[str], list[int]]:
        texts = []
        for row in range(count):
            length = int(torch.randint(20, 30, (), generator=draw))
            words = [NEUTRAL[int(i)] for i in torch.randint(0, len(NEUTRAL), (length,), generator=draw)]
            texts.append(" ".join([*words, (BAD, GOOD)[row % 2][0]]))
        return texts, [row % 2 for row in range(count)]

    rows, new = long_reviews(64), long_reviews(40)
    accuracy = {}
    for kind in ("head", "tail", "head_tail", "windows"):
        train, held = (split_of(still, *which, max_length=18, long_texts=kind) for which in (rows, new))
        model, _ = trained(still, train, num_train_epochs=6, seed=1)
        accuracy[kind] = evaluate(model, held, metric_for(None, 2)).metrics["accuracy"]
    assert accuracy["head"] < 0.7
    assert min(accuracy["tail"], accuracy["head_tail"], accuracy["windows"]) > 0.9, accuracy


def test_windows_go_with_accumulation_bf16_and_dropout_of_each_example(folder: Path) -> None:
    train = split_of(folder, *reviews(32), **WINDOWS)
    whole = {"dropout_rng": "example", "max_steps": 4, "sampler": "random"}
    _, once = trained(folder, train, per_device_train_batch_size=8, **whole)
    _, twice = trained(folder, train, per_device_train_batch_size=4, gradient_accumulation_steps=2, **whole)
    # The masks of every window are its own, whatever batch it is in.
    assert twice.losses == pytest.approx(once.losses, abs=1e-5)
    assert [log.examples for log in once.steps] == [8] * 4
    assert all(log.shapes[0][0] > 8 and log.shapes[0][1] <= 12 for log in once.steps)
    _, half = trained(folder, train, bf16=True, max_steps=4)
    assert all(0.0 < loss < 2.0 for loss in half.losses)


def test_windows_of_one_text_draw_different_masks_and_a_text_that_fits_its_own_as_ever(folder: Path) -> None:
    split = split_of(folder, ["a " * 5, "a " * 40], [0, 1], **WINDOWS)
    assert split.names_and_lengths([0, 1]) == ([0, 1, "1.1", "1.2", "1.3", "1.4"], [7, 12, 12, 12, 12, 10])
    head = split_of(folder, ["a " * 5, "a " * 40], [0, 1])
    assert head.names_and_lengths([0, 1]) == ([0, 1], [7, 12])


def test_steps_of_windows_are_not_recorded() -> None:
    config, cuda = TrainConfig(), torch.device("cuda")
    assert is_recordable(config, cuda) and choose_step(config, cuda, 1, windows=True) is train_step


def test_pooled_logits_are_in_float32_whatever_the_windows_are() -> None:
    logits = torch.tensor([[1.0, 3.0], [1.0078125, -1.0]], dtype=torch.bfloat16)
    pooled = pool_windows(logits, [2])
    assert pooled.dtype == torch.float32 and torch.equal(pooled, logits.float().mean(0, keepdim=True))
    assert torch.equal(pool_windows(logits, [2], "max"), torch.tensor([[1.0078125, 3.0]]))


def test_broken_logits_name_the_row_of_the_document(still: Path) -> None:
    split = split_of(still, ["a film", "the " * 30, "plot " * 30], [0, 1, 0], **WINDOWS)
    model = load_classifier(still, 2)
    with torch.no_grad():
        model.encoder.word_embeddings.weight[model_id(still, "plot")] = float("nan")
    with pytest.raises(MinitrainError, match="row 3: the model's output is NaN"):
        predict(model, split)


def model_id(folder: Path, token: str) -> int:
    index = load_tokenizer(folder).backend.token_to_id(token)
    assert index is not None
    return index
