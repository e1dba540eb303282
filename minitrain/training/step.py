"""One optimizer step: forward and backward over micro-batches, clipping, update.

The loss is divided by the examples, or their class weights, of the whole step, over all micro-batches and
processes, so that the gradient does not depend on how a step is cut up. Not here: which rows, at which learning
rate (`loop.py`); how the state is made (`setup.py`); the same step recorded by a GPU (`recorded_step.py`).
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from minitrain.config.train_config import TrainConfig
from minitrain.data.batch import Batch
from minitrain.distributed.world import World, sync_gradients
from minitrain.errors import MinitrainError
from minitrain.kernels.dropout import ExampleStreams, drawing_from
from minitrain.kernels.precision import autocast, compute_dtype, device_of, explain_oom
from minitrain.kernels.prepack import CastWeights, casting
from minitrain.model.classifier import SequenceClassifier
from minitrain.training.clipping import clip_gradients, grad_norm
from minitrain.training.loss import Loss, loss_of
from minitrain.training.loss_count import rescale, total_weight
from minitrain.training.loss_scale import LossScale
from minitrain.training.optim import AdamW
from minitrain.training.pooling import pool_windows

OOM_ADVICE = (
    "lower --per_device_train_batch_size and raise --gradient_accumulation_steps by the same factor, or lower "
    "--max_length"
)


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """How a step computes; `max_grad_norm` 0 leaves the gradient as it is."""

    bf16: bool = False
    fp16: bool = False
    loss: Loss = field(default_factory=Loss)
    max_grad_norm: float = 1.0
    sum_of_means: bool = False  # add up the mean losses of the micro-batches, as Trainer 5.23 does
    fused_clip: bool = False  # AdamW scales the gradients while it reads them, which saves a pass over memory

    @classmethod
    def of(cls, config: TrainConfig, loss: Loss | None = None) -> "StepSettings":
        """The settings of a run."""
        return cls(
            bf16=config.bf16,
            fp16=config.fp16,
            loss=loss or Loss(label_smoothing=config.label_smoothing_factor),
            max_grad_norm=config.max_grad_norm,
            sum_of_means=config.accumulation == "sum",
            fused_clip=config.kernels == "fast" and config.optim == "adamw_torch_fused",
        )


class StepResult(NamedTuple):
    """Loss: mean over the examples of the step, or `StepSettings.sum_of_means`. Norm: before clipping."""

    loss: float
    grad_norm: float

    def read(self) -> "StepResult":
        """Return itself; the result of a recorded step waits for the GPU here."""
        return self


@dataclass
class TrainState:
    """Model, optimizer and progress of a training: what a step uses and changes.

    Attributes:
        parallel: The model as a step calls it: wrapped for several processes, its blocks compiled.
        epoch_random: State of the random generator at the start of the epoch, which may decide its order.
        loss_scale: Of fp16; None in other precisions.
        cast: Copies of the weights in the dtype of the forward pass, made once a step; None to cast at each use.
        step: Optimizer steps done.
        epoch: Epochs done, with a fraction inside one.
    """

    model: SequenceClassifier
    optimizer: AdamW
    parallel: nn.Module
    epoch_random: Tensor
    world: World = World()
    loss_scale: LossScale | None = None
    cast: CastWeights | None = None
    step: int = 0
    epoch: float = 0.0

    @property
    def updates(self) -> int:
        """Steps that changed the weights: as in Trainer, the learning rate is of these."""
        return self.step - (self.loss_scale.skipped if self.loss_scale else 0)


def train_step(
    state: TrainState,
    micro_batches: Sequence[Batch],
    learning_rate: float | list[float],
    settings: StepSettings,
    *,
    rows: Sequence[int] = (),
    streams: Sequence[ExampleStreams] = (),
) -> StepResult:
    """Take one optimizer step.

    Args:
        micro_batches: Those of this process, at least one; one without labels adds nothing to the loss.
        rows: The row numbers of the step, in all processes; optional in a single process.
        streams: Random streams for the dropout of each micro-batch; by default the process's own.

    Raises:
        MinitrainError: Loss or norm is not finite (the weights are unchanged), or memory runs out.
    """
    # ---- forward, loss, backward ----------------------------------------------------------------------------
    model, world, device, dtype = state.parallel, state.world, device_of(state.model), compute_dtype(settings)
    examples = len(rows) or sum(len(batch) for batch in micro_batches)
    divisor = total_weight(settings.loss, micro_batches, world) if settings.loss.class_weights else examples
    loss, counts = torch.zeros((), device=device), []
    with casting(state.cast) if state.cast else nullcontext():
        for number, batch in enumerate(micro_batches):
            with (
                explain_oom(batch.input_ids.shape, "training", OOM_ADVICE),
                sync_gradients(model, wanted=number == len(micro_batches) - 1),
                drawing_from(streams[number]) if streams else nullcontext(),
            ):
                batch = batch.to(device)
                with autocast(device, dtype):
                    logits = model(**batch.inputs)
                micro_loss, count = share_of_loss(logits, batch, divisor, settings)
                scaled(micro_loss, state).backward()
            loss += micro_loss.detach()
            counts.append(count)
    world.all_reduce(loss)
    if settings.loss.function is not None:
        rescale(model, loss, counts, examples, world)
    # ---- clip, check ----------------------------------------------------------------------------------------
    norm, grad_scale = clip(state.model, settings, state.loss_scale)
    # ---- update ---------------------------------------------------------------------------------------------
    if has_update(result := StepResult(loss.item(), norm.item()), state, rows):
        state.optimizer.step(learning_rate, grad_scale=grad_scale)
    state.optimizer.zero_grad()
    state.step += 1
    return result


def scaled(loss: Tensor, state: TrainState) -> Tensor:
    """For the backward pass: DDP takes the mean over processes, not the sum, and fp16 has a scale."""
    by = state.world.size * (state.loss_scale.scale if state.loss_scale else 1)
    return loss if by == 1 else loss * by


def has_update(result: StepResult, state: TrainState, rows: Sequence[int]) -> bool:
    """Whether a step may change the weights: not if its gradients, but not its loss, overflow in fp16."""
    skipped = state.loss_scale is not None and state.loss_scale.skips(state.step + 1, result.loss)
    return not skipped and bool(checked_finite(result, state.step + 1, rows))


def share_of_loss(logits: Tensor, batch: Batch, divisor: Any, settings: StepSettings) -> tuple[Tensor, Any]:
    """What a micro-batch adds to the loss of a step, 0-dim, and its count. divisor: Of the step, if another."""
    if batch.labels is None:
        return logits.sum() * 0.0, 0  # zero, with a backward pass that the other processes wait for
    if batch.windows:  # a long text has several rows
        logits = pool_windows(logits, batch.windows, batch.pooling)
    loss_sum, count = loss_of(logits, batch.labels, settings.loss, divisor)
    # Trainer leaves the division to the model; with label smoothing it divides by all examples itself.
    means = settings.sum_of_means and (settings.loss.class_weights or not settings.loss.label_smoothing)
    return loss_sum / (count if means or divisor is None else divisor), count


def clip(model: nn.Module, settings: StepSettings, scale: LossScale | None = None) -> tuple[Tensor, Any]:
    """Clip the gradients, or leave it to AdamW: (norm before clipping, AdamW's divisor or None)."""
    if scale is not None:
        scale.unscale(model.parameters())
    if not settings.fused_clip:
        return clip_gradients(model.parameters(), settings.max_grad_norm), None
    norm, max_norm = grad_norm(model.parameters()), settings.max_grad_norm
    return norm, ((norm + 1e-6) / max_norm).clamp(min=1.0).float() if 0.0 < max_norm < math.inf else None


def checked_finite(result: StepResult, step: int, rows: Sequence[int]) -> StepResult:
    """The result. Raises MinitrainError, naming step and rows, for a loss or norm that is NaN or infinite."""
    if not all(map(math.isfinite, result)):
        raise MinitrainError(
            f"step {step}: the loss is {result.loss}, the gradient norm {result.grad_norm}; the weights are "
            f"unchanged. Training rows, counted from 1: {', '.join(str(row + 1) for row in rows) or 'unknown'}. "
            "Lower --learning_rate"
        )
    return result
