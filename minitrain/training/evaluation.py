"""Logits, loss and metrics of a split, with the training untouched by it.

No random number is drawn, no gradient kept, and the model's mode is put back. Batches go by length or by row, the
order of rows is restored, and the loss is the mean over examples, not over batches.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from minitrain.data.batch import Batch, collate
from minitrain.data.dataset import Split, as_split
from minitrain.data.sampler import Batches, batches_by_length, batches_by_row
from minitrain.data.tokenizer.tokenizer import Example
from minitrain.distributed.world import World
from minitrain.errors import MinitrainError
from minitrain.kernels.prepack import unchanged_weights
from minitrain.kernels.reference import REFERENCE
from minitrain.model.classifier import SequenceClassifier
from minitrain.model.encoder_config import EncoderConfig, no_such_type
from minitrain.model.families import reads_types
from minitrain.training.loss import cross_entropy, mean_squared_error
from minitrain.training.metrics import Confusion, Metric
from minitrain.training.regression_metrics import mean_absolute_error, root_mean_squared_error


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model makes of a split.

    loss: mean per example, in nats, or squared error. seconds: wall time. logits: (N, C) float32, by row.
    """

    loss: float
    metrics: dict[str, float]
    confusion: Confusion | None
    examples: int
    seconds: float
    logits: Tensor = field(default_factory=lambda: torch.empty(0), repr=False, compare=False)

    @property
    def values(self) -> dict[str, float]:
        """Loss and metrics under one roof."""
        return {"loss": self.loss, **self.metrics}


def autocast(device: torch.device, bf16: bool) -> AbstractContextManager[None]:
    """bfloat16 for the operations that bear it, as Trainer's `bf16=True` computes; weights stay float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)


def compute_dtype(bf16: bool) -> torch.dtype:
    """What matrix products are computed in, under `autocast`."""
    return torch.bfloat16 if bf16 else torch.float32


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters are."""
    return next(model.parameters()).device


@contextmanager
def explain_oom(batch: Batch, where: str, remedy: str) -> Iterator[None]:
    """Around what computes on a batch: where memory is short, MinitrainError with its size and the remedy."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        short = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
        if not short:
            raise
        rows, length = batch.input_ids.shape
        raise MinitrainError(
            f"{where}: out of memory with {rows} x {length} tokens (batch x length): {remedy}"
        ) from error


@contextmanager
def _evaluating(model: nn.Module, passes: int) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        # In inference_mode autocast would cast the head's weights anew for every batch.
        with torch.no_grad(), unchanged_weights(passes):
            yield
    finally:
        model.train(was_training)


def check_token_types(config: EncoderConfig, split: Split, source: Path | None = None) -> None:
    """Raise MinitrainError, with the way out, where tokens of a split have types that the model does not know.

    source: the model's folder, for the message.
    """
    if reads_types(config) and split.highest_type_id >= config.type_vocab_size:
        where = f"{source}: " if source else ""
        raise MinitrainError(where + no_such_type(split.highest_type_id, config))


@contextmanager
def _bias_in_float32(model: SequenceClassifier, bf16: bool) -> Iterator[Tensor | None]:
    """Around passes in bfloat16 of a model of scores: its last layer has no bias, which is to be added in float32.

    With 8 bits 2020 + 1 is 2024: where scores are far from 0, all of them would be the same few numbers. Reference
    kernels compute as transformers does.
    """
    if not bf16 or not model.config.is_regression or model.encoder.kernels is REFERENCE:
        yield None
        return
    bias: Tensor = model.head.output.bias  # type: ignore[union-attr,assignment]
    kept = bias.detach().clone()
    try:
        with torch.no_grad():
            bias.zero_()
        torch.clear_autocast_cache()  # it may hold a copy of the bias as it was
        yield kept
    finally:
        with torch.no_grad():
            bias.copy_(kept)
        torch.clear_autocast_cache()


def predict(
    model: SequenceClassifier,
    split: Split | Sequence[Example],
    *,
    batch_size: int = 32,
    order: str = "length",
    bf16: bool = False,
    pad_token_id: int | None = None,
    pad_to_multiple_of: int | None = None,
    world: World | None = None,
    on_rows: Callable[[int], object] | None = None,
    first_row: int = 1,
) -> Tensor:
    """Logits of every row of a split, (N, C) float32 on the CPU, in the split's order.

    batch_size: rows a forward pass. order: "length" puts rows of like length together, "rows" takes them as they
    lie; padding moves the last bits. pad_token_id: by default that of the split's tokenizer, whose padding side it
    knows too. pad_to_multiple_of: as of `collate`. world: the processes that score together, each some of the
    batches; all of them get all logits. on_rows: called after each forward pass with the rows that all processes
    have done meanwhile. first_row: what an error calls the first row of the split.
    Raises MinitrainError for NaN or infinity.
    """
    device, world, split = device_of(model), world or World(), as_split(split)
    check_token_types(model.config, split)
    pad = split.pad_token_id if pad_token_id is None else pad_token_id
    logits = torch.zeros(len(split), model.config.num_labels)
    batches = _batches(split, batch_size, order)
    own = range(world.rank, len(batches), world.size)
    with _evaluating(model, len(own)), autocast(device, bf16), _bias_in_float32(model, bf16) as bias:
        for number in own:
            rows = batches[number]
            batch = collate([split[row] for row in rows], pad, pad_to_multiple_of, padding_side=split.padding_side)
            with explain_oom(batch, "evaluation", "lower --per_device_eval_batch_size or --max_length"):
                out = model(**batch.to(device).inputs).float()
                logits[rows] = (out if bias is None else out + bias).cpu()
            if on_rows is not None:
                on_rows(sum(map(len, batches[number - world.rank : number - world.rank + world.size])))
    world.all_reduce(logits)  # each row is zero in all processes but one, so the sum is exact
    broken = (~logits.isfinite().all(-1)).nonzero()
    if len(broken):
        raise MinitrainError(
            f"row {int(broken[0]) + first_row}: the model's output is NaN or infinite, so its weights are broken; "
            "if training broke them, lower --learning_rate"
        )
    return logits


def _batches(split: Split, batch_size: int, order: str) -> Batches:
    if order == "length":
        return batches_by_length(split.lengths, batch_size)
    if order == "rows":
        return batches_by_row(len(split), batch_size)
    raise MinitrainError(f"order is {order!r}; expected 'length' or 'rows'")


def loss_of(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, examples: int | None = None
) -> tuple[Tensor, int]:
    """(sum of losses, count): cross-entropy for class labels, squared error where labels are scores (float).

    examples: as of `cross_entropy`. Raises MinitrainError where scores shall be smoothed.
    """
    if labels.dtype.is_floating_point:
        if label_smoothing:
            raise MinitrainError(
                f"--label_smoothing_factor {label_smoothing} spreads a target over classes, but these labels are "
                "scores: leave it out"
            )
        return mean_squared_error(logits, labels)
    return cross_entropy(logits, labels, label_smoothing, examples)


def _mean_loss(logits: Tensor, labels: Tensor, batches: Batches, label_smoothing: float) -> float:
    """The mean over the examples, rounded as Trainer 5.23 rounds it: each row has the mean of its batch."""
    losses = torch.empty(len(labels))
    for rows in batches:
        loss, count = loss_of(logits[rows], labels[rows], label_smoothing)
        losses[rows] = (loss / count).float()
    return float(losses.numpy().mean())  # numpy sums in another order than torch


def evaluate(
    model: SequenceClassifier,
    split: Split | Sequence[Example],
    metric: Metric,
    *,
    batch_size: int = 32,
    order: str = "length",
    bf16: bool = False,
    pad_token_id: int | None = None,
    pad_to_multiple_of: int | None = None,
    label_smoothing: float = 0.0,
    world: World | None = None,
    on_rows: Callable[[int], object] | None = None,
) -> Evaluation:
    """Score a model on a split that has labels.

    metric: fresh, of the kind the labels are. label_smoothing: of the loss, as in training. The rest as `predict`.
    """
    split = as_split(split)
    if split.labels is None:
        raise MinitrainError("the split has no labels to score by; predict(model, split) gives its logits")
    start = time.perf_counter()
    logits = predict(
        model,
        split,
        batch_size=batch_size,
        order=order,
        bf16=bf16,
        pad_token_id=pad_token_id,
        pad_to_multiple_of=pad_to_multiple_of,
        world=world,
        on_rows=on_rows,
    )
    loss = _mean_loss(logits, split.labels, _batches(split, batch_size, order), label_smoothing)
    metric.update(predictions_of(logits), split.labels)
    return Evaluation(
        loss=loss,
        metrics=metric.compute(),
        confusion=metric.confusion,
        examples=len(split),
        seconds=time.perf_counter() - start,
        logits=logits,
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


def baseline(train: Split, split: Split) -> float | dict[str, float]:
    """What knowing the training labels alone is worth on `split`.

    The accuracy of always naming the commonest class; of scores, by name, RMSE and MAE of always naming the mean.
    """
    assert train.labels is not None and split.labels is not None
    if (accuracy := majority(train, split)) is not None:
        return accuracy
    mean = train.labels.double().mean().float().expand(len(split))
    errors = {"rmse": root_mean_squared_error, "mae": mean_absolute_error}
    return {name: error(mean, split.labels) for name, error in errors.items()}
