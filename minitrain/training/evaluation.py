"""Logits, loss and metrics of a split, without touching the training.

No random number is drawn, no gradient kept, and the model's mode is restored. Results come in the order of the
rows, whatever the order of the batches, and the loss is the mean over examples, not over batches.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minitrain.config.train_config import TrainConfig
from minitrain.data.batch import collate
from minitrain.data.dataset import Split
from minitrain.data.examples import as_split
from minitrain.data.progress import progress
from minitrain.data.sampler import Batches, batches_by_length, batches_by_row, draw_seed
from minitrain.data.tokenizer.tokenizer import Example
from minitrain.data.windows import WindowRows
from minitrain.distributed.world import World
from minitrain.errors import MinitrainError
from minitrain.kernels.precision import autocast, compute_dtype, device_of, explain_oom
from minitrain.kernels.prepack import unchanged_weights
from minitrain.kernels.reference import REFERENCE
from minitrain.model.classifier import SequenceClassifier
from minitrain.model.encoder_config import EncoderConfig
from minitrain.model.families import check_type_ids
from minitrain.training.confusion import Confusion
from minitrain.training.loss import Loss, mean_loss
from minitrain.training.metric_inputs import predictions_of as predictions_of
from minitrain.training.metrics import Metric
from minitrain.training.multi_label_baseline import multi_label_baseline
from minitrain.training.multi_label_metrics import LabelScore
from minitrain.training.pooling import pool_windows
from minitrain.training.regression_metrics import mean_absolute_error, root_mean_squared_error

SMALLER_BATCHES = "lower --per_device_eval_batch_size or --max_length"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Loss and metrics of a model on a split.

    Attributes:
        loss: Mean per example, in nats, or squared error.
        seconds: Wall time.
        logits: (N, C) float32, in the order of the rows.
        label_scores: Of each label, if rows may have several.
        own: Metrics whose values are from a user's function, in place of a built-in metric's.
    """

    loss: float
    metrics: dict[str, float]
    confusion: Confusion | None
    examples: int
    seconds: float
    logits: Tensor = field(default_factory=lambda: torch.empty(0), repr=False, compare=False)
    label_scores: list[LabelScore] = field(default_factory=list)
    own: tuple[str, ...] = ()

    @property
    def values(self) -> dict[str, float]:
        """Loss and metrics by name."""
        return {"loss": self.loss, **self.metrics}


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """How a split is scored.

    Attributes:
        batch_size: Rows of a forward pass; windows of long texts are rows of their own.
        order: "length" batches rows of similar length, "rows" takes them in order; padding moves the last bits.
        pad_token_id: By default that of the split's tokenizer.
        pad_to_multiple_of: As in `collate`.
        loss: As in training; `evaluate(..., label_smoothing=0.1)` is short for `loss=Loss(label_smoothing=0.1)`.
        mean_of_means: The loss is the mean over rows of the mean of their batch, as Trainer 5.23's: another number
            if its examples do not count alike, as with class weights.
    """

    batch_size: int = 32
    order: str = "length"
    bf16: bool = False
    fp16: bool = False
    pad_token_id: int | None = None
    pad_to_multiple_of: int | None = None
    loss: Loss = field(default_factory=Loss)
    mean_of_means: bool = False

    @classmethod
    def of(cls, config: TrainConfig, pad_token_id: int | None = None, loss: Loss | None = None) -> "EvalSettings":
        """The settings of a run."""
        return cls(
            batch_size=config.per_device_eval_batch_size,
            order=config.eval_order,
            bf16=config.bf16,
            fp16=config.fp16,
            pad_token_id=pad_token_id,
            pad_to_multiple_of=config.pad_to_multiple_of,
            loss=loss or Loss(label_smoothing=config.label_smoothing_factor),
            mean_of_means=config.accumulation == "sum",
        )

    def batches(self, split: Split | WindowRows) -> Batches:
        """The row numbers of each forward pass."""
        if self.order == "length":
            return batches_by_length(split.lengths, self.batch_size)
        if self.order == "rows":
            return batches_by_row(len(split), self.batch_size)
        raise MinitrainError(f"order is {self.order!r}; expected 'length' or 'rows'")


def predict(
    model: SequenceClassifier,
    split: Split | Sequence[Example],
    settings: EvalSettings | None = None,
    *,
    world: World | None = None,
    on_rows: Callable[[int], object] | None = None,
    first_row: int = 1,
    **options: Any,
) -> Tensor:
    """Compute the logits of every row of a split.

    Args:
        options: Fields of `EvalSettings`, which override those of `settings`.
        world: The processes that share the batches; every one of them gets all logits.
        on_rows: Called after each forward pass with the number of rows that all processes have done since.
        first_row: Number of the split's first row in an error.

    Returns:
        (N, C) float32 on the CPU, in the order of the rows; of a text in windows, pooled.

    Raises:
        MinitrainError: A logit is NaN or infinite, or the memory is short.
    """
    settings, split, world = replace(settings or EvalSettings(), **options), as_split(split), world or World()
    check_token_types(model.config, split)
    device, dtype = device_of(model), compute_dtype(settings)
    pad = split.pad_token_id if settings.pad_token_id is None else settings.pad_token_id
    passes = split.window_rows or split  # the rows that the model sees
    logits = torch.zeros(len(passes), model.config.num_labels)
    batches = settings.batches(passes)
    own = range(world.rank, len(batches), world.size)
    forward, side = model if split.kept is None else split.kept.model, split.padding_side
    with _evaluating(model, len(own)), autocast(device, dtype), _bias_in_float32(model, dtype) as bias:
        for number in own:
            rows = batches[number]
            batch = collate([passes[row] for row in rows], pad, settings.pad_to_multiple_of, padding_side=side)
            batch = batch if split.kept is None else split.kept.attach(batch, rows)
            with explain_oom(batch.input_ids.shape, "evaluation", SMALLER_BATCHES):
                out = forward(**batch.to(device).inputs).float()
                logits[rows] = (out if bias is None else out + bias).cpu()
            if on_rows is not None:
                done = batches[number - world.rank : number - world.rank + world.size]
                on_rows(sum(map(passes.begun, done) if isinstance(passes, WindowRows) else map(len, done)))
    world.all_reduce(logits)  # each row is zero in all processes but one, so the sum is exact
    if isinstance(passes, WindowRows):
        logits = pool_windows(logits, passes.counts, passes.pooling)
    _check_finite(logits, first_row)
    return logits


def _check_finite(logits: Tensor, first_row: int) -> None:
    broken = (~logits.isfinite().all(-1)).nonzero()
    if len(broken):
        raise MinitrainError(
            f"row {int(broken[0]) + first_row}: the model's output is NaN or infinite, so its weights are broken; "
            "if training broke them, lower --learning_rate"
        )


def evaluate(
    model: SequenceClassifier,
    split: Split | Sequence[Example],
    metric: Metric,
    settings: EvalSettings | None = None,
    *,
    world: World | None = None,
    on_rows: Callable[[int], object] | None = None,
    **options: Any,
) -> Evaluation:
    """Score a model on a split that has labels.

    Args:
        metric: A fresh one, for the kind of the labels. The other arguments are those of `predict`.
    """
    if "label_smoothing" in options:
        options["loss"] = Loss(label_smoothing=options.pop("label_smoothing"))
    settings, split = replace(settings or EvalSettings(), **options), as_split(split)
    labels = split.labels
    if labels is None:
        raise MinitrainError("the split has no labels to score by; predict(model, split) gives its logits")
    start = time.perf_counter()
    logits = predict(model, split, settings, world=world, on_rows=on_rows)
    metric.update_logits(logits, labels)
    return Evaluation(
        loss=mean_loss(
            logits, labels, settings.batches(split), settings.loss, settings.mean_of_means, device_of(model)
        ),
        metrics=metric.compute(),
        confusion=metric.confusion,
        examples=len(split),
        seconds=time.perf_counter() - start,
        logits=logits,
        label_scores=metric.label_scores(),
        own=() if metric.user_metrics is None else metric.user_metrics.replaced,
    )


def evaluate_all(
    model: SequenceClassifier,
    splits: Mapping[str, Split],
    config: TrainConfig,
    new_metric: Callable[[], Metric],
    pad_token_id: int | None = None,
    world: World | None = None,
    loss: Loss | None = None,
) -> dict[str, Evaluation]:
    """Score a model on several splits as the configuration says; the loss is that of the training."""
    world, results = world or World(), {}
    settings = EvalSettings.of(config, pad_token_id, loss)
    for name, split in splits.items():
        if config.dataloader_rng:
            draw_seed()
        with progress(f"evaluating {name}", len(split), silent=not world.is_main) as add:
            results[name] = evaluate(model, split, new_metric(), settings, world=world, on_rows=add)
    return results


@contextmanager
def _evaluating(model: nn.Module, passes: int) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        # In inference_mode autocast would cast the head's weights again for every batch.
        with torch.no_grad(), unchanged_weights(passes):
            yield
    finally:
        model.train(was_training)


@contextmanager
def _bias_in_float32(model: SequenceClassifier, dtype: torch.dtype) -> Iterator[Tensor | None]:
    """Take the bias out of the last layer of a regression model in 16 bits, to be added in float32.

    With the 8 bits of bfloat16, 2020 + 1 is 2024: scores far from 0 would all round to a few numbers. Reference
    kernels compute as transformers does.
    """
    if dtype == torch.float32 or not model.config.is_regression or model.encoder.kernels is REFERENCE:
        yield None
        return
    bias: Tensor = model.head.output.bias  # type: ignore[union-attr,assignment]
    kept = bias.detach().clone()
    try:
        with torch.no_grad():
            bias.zero_()
        torch.clear_autocast_cache()  # it may hold a copy of the bias
        yield kept
    finally:
        with torch.no_grad():
            bias.copy_(kept)
        torch.clear_autocast_cache()


def check_token_types(config: EncoderConfig, split: Split, source: Path | None = None) -> None:
    """Raise MinitrainError if tokens of a split have types that the model does not know.

    Args:
        source: The model's folder, for the message.
    """
    check_type_ids(config, split.highest_type_id, f"{source}: " if source else "")


def baseline(train: Split, split: Split) -> float | dict[str, float]:
    """Score on `split` the best constant prediction that the training labels give.

    Returns:
        The accuracy of the most frequent class. By name: for scores RMSE and MAE of the mean; for several labels a
        row `multi_label_baseline`.
    """
    assert train.labels is not None and split.labels is not None
    if train.labels.ndim == 2:
        return multi_label_baseline(train.labels, split.labels)
    if not train.labels.dtype.is_floating_point:
        return (split.labels == train.labels.bincount().argmax()).double().mean().item()
    mean = train.labels.double().mean().float().expand(len(split))
    errors = {"rmse": root_mean_squared_error, "mae": mean_absolute_error}
    return {name: error(mean, split.labels) for name, error in errors.items()}
