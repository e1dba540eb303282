"""Logits, loss and metrics of a split, with the training untouched by it.

No random number is drawn, no gradient kept, and the model's mode is put back. Batches go by length, the order of
rows is restored, and the loss is the mean over examples, not over batches.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minitrain.batching import batches_by_length, collate
from minitrain.data import Split
from minitrain.errors import MinitrainError
from minitrain.loss import cross_entropy, mean_squared_error
from minitrain.metrics import Confusion, Metric
from minitrain.model import SequenceClassifier


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model makes of a split. loss: mean per example, in nats, or squared error. seconds: wall time."""

    loss: float
    metrics: dict[str, float]
    confusion: Confusion | None
    examples: int
    seconds: float

    @property
    def values(self) -> dict[str, float]:
        """Loss and metrics under one roof."""
        return {"loss": self.loss, **self.metrics}


def autocast(device: torch.device, bf16: bool) -> AbstractContextManager[None]:
    """bfloat16 for the operations that bear it, as Trainer's `bf16=True` computes; weights stay float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters are."""
    return next(model.parameters()).device


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def predict(
    model: SequenceClassifier, split: Split, *, batch_size: int = 8, bf16: bool = False, pad_token_id: int = 0
) -> Tensor:
    """Logits of every row of a split, (N, C) float32 on the CPU, in the split's order.

    batch_size: rows a forward pass, rows of like length together. Raises MinitrainError for NaN or infinity.
    """
    device = device_of(model)
    logits = torch.empty(len(split), model.config.num_labels)
    with _evaluating(model), autocast(device, bf16):
        for rows in batches_by_length(split.lengths, batch_size):
            batch = collate([split[row] for row in rows], pad_token_id).to(device)
            logits[rows] = model(**batch.inputs).float().cpu()
    broken = (~logits.isfinite().all(-1)).nonzero()
    if len(broken):
        raise MinitrainError(
            f"row {int(broken[0]) + 1}: the model's output is NaN or infinite, so its weights are broken; "
            "if training broke them, lower --learning_rate"
        )
    return logits


def loss_of(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> tuple[Tensor, int]:
    """(sum of losses, count): cross-entropy for class labels, squared error where labels are scores (float)."""
    if labels.dtype.is_floating_point:
        return mean_squared_error(logits, labels)
    return cross_entropy(logits, labels, label_smoothing)


def evaluate(
    model: SequenceClassifier,
    split: Split,
    metric: Metric,
    *,
    batch_size: int = 8,
    bf16: bool = False,
    pad_token_id: int = 0,
    label_smoothing: float = 0.0,
) -> Evaluation:
    """Score a model on a split that has labels.

    metric: fresh, of the kind the labels are. label_smoothing: of the loss, as in training. The rest as `predict`.
    """
    assert split.labels is not None, "a split without labels cannot be evaluated"
    start = time.perf_counter()
    logits = predict(model, split, batch_size=batch_size, bf16=bf16, pad_token_id=pad_token_id)
    loss, count = loss_of(logits, split.labels, label_smoothing)
    metric.update(predictions_of(logits), split.labels)
    return Evaluation(
        loss=loss.item() / count,
        metrics=metric.compute(),
        confusion=metric.confusion,
        examples=count,
        seconds=time.perf_counter() - start,
    )


def predictions_of(logits: Tensor) -> Tensor:
    """(N, C) logits -> (N,) class ids, or scores where there is one output alone."""
    return logits[:, 0] if logits.size(1) == 1 else logits.argmax(-1)


def majority(train: Split, split: Split) -> float | None:
    """Accuracy on `split` of always naming the commonest class of `train`; None for scores."""
    assert train.labels is not None and split.labels is not None
    if train.labels.dtype.is_floating_point:
        return None
    commonest = train.labels.bincount().argmax()
    return (split.labels == commonest).double().mean().item()
