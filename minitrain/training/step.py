"""One optimizer step: gradients of one or more forward passes, clipping, update.

A step divides the loss by the examples of all its passes in all processes, so that the gradient does not depend on
how a batch is cut up.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from minitrain.config.train_config import TrainConfig
from minitrain.data.batch import Batch
from minitrain.distributed.world import World, ddp, sync_gradients
from minitrain.errors import MinitrainError
from minitrain.kernels.compile import check_compilable, compiled, dry_run
from minitrain.kernels.cuda_graphs import Read, StepGraphs
from minitrain.kernels.dropout import ExampleStreams, drawing_from
from minitrain.kernels.matmul import choose_matmul, chosen_matmul
from minitrain.kernels.prepack import CastWeights, casting
from minitrain.model.classifier import SequenceClassifier
from minitrain.run.profile import Clock
from minitrain.training.clipping import clip_grad_norm, grad_norm
from minitrain.training.evaluation import autocast, compute_dtype, device_of, explain_oom, loss_of
from minitrain.training.optim import AdamW
from minitrain.training.param_groups import decay_groups

_states = count()  # made in this process, one after the other: each settles its arithmetic anew
SMALLER_BATCHES = (
    "lower --per_device_train_batch_size and raise --gradient_accumulation_steps as much, which trains the same, "
    "or lower --max_length"
)


@dataclass
class TrainState:
    """All that a step changes. step: optimizer steps done. epoch: full passes done, a fraction within one.

    epoch_random: state of the random stream when the epoch began, which may decide its order.
    parallel: what computes the passes: the model, compiled where that is asked for, and wrapped so that gradients
        are those of all processes where there are several.
    cast: the weights as a step's passes take them, where those are cast for all of them at once.
    fused_clip: whether AdamW divides the gradients on its way, which spares a pass over all of them before.
    graphs: the steps as a GPU has recorded them; None where they are computed operation by operation.
    """

    model: SequenceClassifier
    optimizer: AdamW
    parallel: nn.Module
    epoch_random: Tensor
    world: World = World()
    cast: CastWeights | None = None
    fused_clip: bool = False
    graphs: StepGraphs | None = None
    step: int = 0
    epoch: float = 0.0


def make_state(model: SequenceClassifier, config: TrainConfig, world: World | None = None) -> TrainState:
    """A fresh optimizer for the model, with Trainer's decay groups unless everything shall decay.

    With fast kernels on a CPU the word embeddings get sparse gradients from here on, which torch's own optimizers
    do not take; `model.encoder.word_embeddings.sparse = False` makes them dense again.
    """
    # That spares zeroing, measuring and applying a gradient of 30,000 rows. On a GPU this is quick, and the
    # coalescing is not.
    device = device_of(model)
    model.encoder.word_embeddings.sparse = config.kernels == "fast" and device.type == "cpu"
    optimizer = AdamW(
        model.parameters() if config.decay_all else decay_groups(model, config.weight_decay),
        weight_decay=config.weight_decay,
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=config.optim == "adamw_torch_fused",
    )
    world = world or World()
    passes: nn.Module = model
    if config.torch_compile:
        check_compilable(config, device)
        passes = compiled(model, bf16=config.bf16)
    parallel = ddp(passes, world)
    if world.size > 1:
        chosen = chosen_matmul(compute_dtype(config.bf16))
        choose_matmul(json.loads(world.broadcast_text(f"products {next(_states)}", json.dumps(chosen))))
        # After its first backward pass DistributedDataParallel packs gradients anew, in the order in which they
        # were ready, and for three processes or more that decides the order of a sum, so its last bit. Now no step
        # is the first one: a run that goes on adds up as one that never stopped.
        dry_run(parallel, model.config.max_length, config.bf16)
    return TrainState(
        model=model,
        optimizer=optimizer,
        parallel=parallel,
        epoch_random=torch.get_rng_state(),
        world=world,
        cast=CastWeights() if config.bf16 or device.type == "cuda" else None,
        fused_clip=_is_fast(config),
        graphs=StepGraphs(device) if is_recordable(config, device, world.size) else None,
    )


def is_recordable(config: TrainConfig, device: torch.device, processes: int = 1) -> bool:
    """Whether steps can be recorded: on a GPU, with fast kernels, one forward pass a step, in one process.

    The exchange between processes is no part of a graph, and a profile waits for the device between its phases.
    """
    alone = config.gradient_accumulation_steps == 1 and processes == 1
    return config.cuda_graphs and device.type == "cuda" and _is_fast(config) and alone and not config.profile


def _is_fast(config: TrainConfig) -> bool:
    """Whether passes and update both take their fast kernels."""
    return config.kernels == "fast" and config.optim == "adamw_torch_fused"


def accumulate_gradients(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    examples: int | None = None,
    world: World | None = None,
    streams: Sequence[ExampleStreams] | None = None,
    bf16: bool = False,
    label_smoothing: float = 0.0,
    sum_of_means: bool = False,
    clock: Clock | None = None,
) -> Tensor:
    """Add to the gradients those of the mean loss over all examples of all batches, and return that loss, 0-dim.

    However the same examples are cut into batches and shared out, the gradient is the same (up to rounding; dropout
    aside, unless streams are given). Gradients are exchanged once, in the last backward pass.

    model: a classifier, or one wrapped by `ddp`. batches: this process's, at least one. examples: of the
    step in all processes; those of `batches` where there is one process. A process whose batches count for nothing,
    because there are fewer examples than processes, has `batches` of others' examples without labels.
    streams: of each batch's examples, for dropout. sum_of_means: add up the batches' means instead, as Trainer 5.23
    does by mistake: it leaves the division to the model, and BERT's divides by its own batch alone. With label
    smoothing Trainer divides by itself, and is right.
    """
    world, device, clock = world or World(), device_of(model), clock or Clock()
    if world.size > 1 and not examples:
        raise MinitrainError("in several processes a step needs `examples`, their number in all, or `rows`")
    count = examples or sum(len(batch) for batch in batches)
    total = torch.zeros((), device=device)
    for number, batch in enumerate(batches, start=1):
        with (
            explain_oom(batch, "training", SMALLER_BATCHES),
            sync_gradients(model, wanted=number == len(batches)),
            drawing_from(None if streams is None else streams[number - 1]),
        ):
            batch = batch.to(device)
            with autocast(device, bf16):
                logits = model(**batch.inputs)
            if batch.labels is None:
                loss = logits.sum() * 0.0
            else:
                divisor = len(batch) if sum_of_means and not label_smoothing else count
                loss_sum, _ = loss_of(logits, batch.labels, label_smoothing, divisor)
                loss = loss_sum / divisor
            clock.lap("forward")
            # Averaged over the processes where the sum is meant: hence the factor.
            (loss * world.size if world.size > 1 else loss).backward()
        clock.lap("backward")
        total += loss.detach()
    return world.all_reduce(total)


def train_step(state: TrainState, batches: Sequence[Batch], rate: float, **how: Any) -> tuple[float, float]:
    """`begin_step`, and wait for it: returns (loss, gradient norm before clipping)."""
    return begin_step(state, batches, rate, **how)()


def begin_step(
    state: TrainState,
    batches: Sequence[Batch],
    learning_rate: float,
    *,
    max_grad_norm: float = 1.0,
    bf16: bool = False,
    label_smoothing: float = 0.0,
    sum_of_means: bool = False,
    rows: Sequence[int] = (),
    streams: Sequence[ExampleStreams] | None = None,
    clock: Clock | None = None,
) -> Read:
    """One optimizer step over one or more micro-batches: gradients, clipping, update.

    learning_rate: of this step. max_grad_norm: 0 leaves the gradient as it is. rows: of the step in all processes,
    where there are several, and for the error message. clock: is told where the time goes. The rest as
    `accumulate_gradients`.

    Returns what waits for the step and gives (loss, gradient norm before clipping). Raises MinitrainError, here or
    there, when either is NaN or infinite; the weights are then as they were before the step. Where steps are
    recorded the device is still at work when this returns, and the next step may be begun before this one is read.
    """
    clock = clock or Clock()
    number = state.step + 1

    def gradients(batches: Sequence[Batch]) -> Tensor:
        with casting(state.cast):
            return accumulate_gradients(
                state.parallel,
                batches,
                examples=len(rows) or None,
                world=state.world,
                streams=streams,
                bf16=bf16,
                label_smoothing=label_smoothing,
                sum_of_means=sum_of_means,
                clock=clock,
            )

    def compute(batch: Batch, rate: Tensor, skip: Tensor) -> Tensor:
        return capturable_update(state, gradients([batch]), rate, max_grad_norm, skip)

    if state.graphs is not None and state.graphs.warm:
        settings = max_grad_norm, bf16, label_smoothing, sum_of_means
        read = state.graphs.launch(batches[0], learning_rate, compute, settings)
        state.step = number
        return partial(_read_finite, state, read, number, rows)
    loss = gradients(batches)
    norm, divisor = _clip(state, max_grad_norm)
    outcome = loss.item(), norm.item()
    clock.lap("clip")
    _check_finite(*outcome, number, rows)
    state.optimizer.step(learning_rate, grad_scale=divisor)
    state.optimizer.zero_grad()
    clock.lap("optimizer")
    state.step = number
    if state.graphs is not None:
        state.graphs.warm = True
    return lambda: outcome


def capturable_update(state: TrainState, loss: Tensor, rate: Tensor, max_grad_norm: float, skip: Tensor) -> Tensor:
    """Clip and update as a step does, without a number that Python would have to wait for.

    loss: of the step. rate: learning rate, 0-dim. skip: 0-dim, becomes 1 where loss or norm are not finite; while
    it is 1, nothing is updated. Returns (2,) loss and gradient norm before clipping.
    """
    norm, divisor = _clip(state, max_grad_norm)
    outcome = torch.stack([loss, norm])
    skip.copy_(torch.maximum(skip, (~outcome.isfinite()).any()))
    state.optimizer.step(rate, grad_scale=divisor, found_inf=skip)
    state.optimizer.zero_grad()
    return outcome


def _clip(state: TrainState, max_norm: float) -> tuple[Tensor, Tensor | None]:
    """Clip, or say what AdamW shall divide the gradients by: (norm before that, the divisor or None)."""
    parameters = state.model.parameters()
    if not state.fused_clip:
        return clip_grad_norm(parameters, max_norm), None
    norm = grad_norm(parameters)
    return norm, ((norm + 1e-6) / max_norm).clamp(min=1.0).float() if 0.0 < max_norm < math.inf else None


def _read_finite(state: TrainState, read: Read, number: int, rows: Sequence[int]) -> tuple[float, float]:
    """Wait for a recorded step; where it was broken, the state is that of before it."""
    assert state.graphs is not None
    loss, norm = read()
    try:
        _check_finite(loss, norm, number, rows)
    except MinitrainError:
        state.graphs.forgive()
        state.step = number - 1
        raise
    return loss, norm


def _check_finite(loss: float, norm: float, number: int, rows: Sequence[int]) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise MinitrainError(
            f"step {number}: the loss is {loss}, the gradient norm {norm}; the weights are as before it. "
            f"Training rows, counted from 1: {', '.join(str(row + 1) for row in rows) or 'unknown'}. "
            "Lower --learning_rate"
        )
