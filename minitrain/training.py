"""The training step and the loop around it.

A step divides the loss by the examples of all its micro-batches, so that the gradient does not depend on how a
batch is cut up. The learning rate and the order of examples are functions of the step; all that changes is in
TrainState. What is printed and written is the observer's affair (`report.py`).
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from minitrain.batching import Batch, collate, draw_seed, padding_share
from minitrain.best import Best, best_by
from minitrain.config import TrainConfig
from minitrain.data import Split
from minitrain.errors import MinitrainError
from minitrain.evaluation import Evaluation, autocast, device_of, evaluate, loss_of
from minitrain.metrics import Metric, metric_for
from minitrain.model import SequenceClassifier
from minitrain.optim import AdamW, clip_grad_norm, decay_groups
from minitrain.plan import Plan, make_sampler, plan
from minitrain.profiling import Clock, training_flops
from minitrain.schedules import SCHEDULES


@dataclass
class TrainState:
    """All that a step changes. step: optimizer steps done. epoch: full passes done, a fraction within one."""

    model: SequenceClassifier
    optimizer: AdamW
    step: int = 0
    epoch: float = 0.0


@dataclass(frozen=True, kw_only=True)
class StepLog:
    """One optimizer step: loss (see `accumulate_gradients`), gradient norm before clipping, learning rate used."""

    step: int
    epoch: float
    loss: float
    grad_norm: float
    learning_rate: float
    examples: int
    padding: float  # share of positions, 0 to 1
    seconds: float
    phases: Mapping[str, float]  # seconds of each phase (`profiling.py`)
    flops: float  # of matrix products


class Observer(Protocol):
    """Whoever wants to see the steps and evaluations as they happen."""

    def on_step(self, log: StepLog) -> None: ...

    def on_evaluation(self, step: int, epoch: float, results: dict[str, Evaluation], is_best: bool) -> None: ...


def accumulate_gradients(
    model: SequenceClassifier,
    batches: Sequence[Batch],
    *,
    bf16: bool = False,
    label_smoothing: float = 0.0,
    sum_of_means: bool = False,
    clock: Clock | None = None,
) -> float:
    """Add to the gradients those of the mean loss over all examples of all batches, and return that loss.

    However the same examples are cut into batches, the gradient is the same (up to rounding; dropout aside).
    sum_of_means: add up the batches' means instead, as Trainer 5.23 does by mistake: it leaves the division to the
    model, and BERT's divides by its own batch alone. With label smoothing Trainer divides by itself, and is right.
    """
    device, clock = device_of(model), clock or Clock()
    count = sum(len(batch) for batch in batches)
    total = torch.zeros((), device=device)
    for batch in batches:
        batch = batch.to(device)
        assert batch.labels is not None, "training needs labels"
        with autocast(device, bf16):
            logits = model(**batch.inputs)
        divisor = len(batch) if sum_of_means and not label_smoothing else count
        loss_sum, _ = loss_of(logits, batch.labels, label_smoothing, divisor)
        loss = loss_sum / divisor
        clock.lap("forward")
        loss.backward()
        clock.lap("backward")
        total += loss.detach()
    return total.item()


def train_step(
    state: TrainState,
    batches: Sequence[Batch],
    learning_rate: float,
    *,
    max_grad_norm: float = 1.0,
    bf16: bool = False,
    label_smoothing: float = 0.0,
    sum_of_means: bool = False,
    rows: Sequence[int] = (),
    clock: Clock | None = None,
) -> tuple[float, float]:
    """One optimizer step over one or more micro-batches: gradients, clipping, update.

    learning_rate: of this step. max_grad_norm: 0 leaves the gradient as it is. rows: for the error message.
    clock: is told where the time goes. The rest as `accumulate_gradients`.
    Returns (loss, gradient norm before clipping). Raises MinitrainError before the update when either is NaN or
    infinite, so that the weights stay as they were.
    """
    clock = clock or Clock()
    loss = accumulate_gradients(
        state.model,
        batches,
        bf16=bf16,
        label_smoothing=label_smoothing,
        sum_of_means=sum_of_means,
        clock=clock,
    )
    norm = clip_grad_norm(state.model.parameters(), max_grad_norm).item()
    clock.lap("clip")
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise MinitrainError(
            f"step {state.step + 1}: the loss is {loss}, the gradient norm {norm}; the weights are as before it. "
            f"Training rows, counted from 1: {', '.join(str(row + 1) for row in rows) or 'unknown'}. "
            "Lower --learning_rate"
        )
    state.optimizer.step(learning_rate)
    state.optimizer.zero_grad()
    clock.lap("optimizer")
    state.step += 1
    return loss, norm


def make_state(model: SequenceClassifier, config: TrainConfig) -> TrainState:
    """A fresh optimizer for the model, with Trainer's decay groups unless everything shall decay.

    With fast kernels on a CPU the word embeddings get sparse gradients from here on, which torch's own optimizers
    do not take; `model.encoder.word_embeddings.sparse = False` makes them dense again.
    """
    # That spares zeroing, measuring and applying a gradient of 30,000 rows. On a GPU this is quick, and the
    # coalescing is not.
    model.encoder.word_embeddings.sparse = config.kernels == "fast" and device_of(model).type == "cpu"
    optimizer = AdamW(
        decay_groups(model, config.weight_decay) if config.decay == "matrices" else model.parameters(),
        weight_decay=config.weight_decay,
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=config.optim == "adamw_torch_fused",
    )
    return TrainState(model=model, optimizer=optimizer)


def fit(
    model: SequenceClassifier,
    train: Split,
    evaluation: dict[str, Split],
    config: TrainConfig,
    *,
    new_metric: Callable[[], Metric] | None = None,
    observer: Observer | None = None,
    pad_token_id: int = 0,
) -> tuple[TrainState, Best]:
    """Train a model in place, evaluating as the configuration says.

    new_metric: makes a fresh metric for each evaluation; by default what suits the labels. observer: is told of
    every step and evaluation. The random stream starts from `config.seed` here, after the head was drawn, as
    Trainer's does, unless `restart_stream` is off. With `load_best_model_at_end` the model ends with its best
    weights. Raises MinitrainError where there is nothing to evaluate on but should be.
    """
    if not evaluation and config.eval_strategy != "no":
        raise MinitrainError(f"eval_strategy is {config.eval_strategy!r}, but there is no split to evaluate on")
    new_metric = new_metric or _metric_of(model)
    observer = observer or _Silent()
    if config.restart_stream:
        torch.manual_seed(config.seed)
    state = make_state(model.train(), config)
    best = best_by(config, new_metric())
    steps = plan(config, len(train))
    sampler = make_sampler(config, train)
    done = False
    while not done:
        if config.loader_draws:
            draw_seed()
        batches = sampler.batches(state.step // steps.steps_per_epoch)
        for first in range(0, len(batches), config.gradient_accumulation_steps):
            group = batches[first : first + config.gradient_accumulation_steps]
            observer.on_step(_one_step(state, train, group, config, steps, pad_token_id))
            done = state.step >= steps.total_steps
            if _evaluation_is_due(config, state.step, steps.steps_per_epoch, done):
                results = evaluate_all(model, evaluation, config, new_metric, pad_token_id)
                is_best = best.remember(results, model, state.step, state.epoch, config.load_best_model_at_end)
                observer.on_evaluation(state.step, state.epoch, results, is_best)
                done = done or best.evaluations_since >= (config.early_stopping_patience or math.inf)
            if done:
                break
    if best.weights:
        model.load_state_dict(best.weights)
    return state, best


class _Silent:
    """The observer that looks away."""

    def on_step(self, log: StepLog) -> None:
        pass

    def on_evaluation(self, step: int, epoch: float, results: dict[str, Evaluation], is_best: bool) -> None:
        pass


def _metric_of(model: SequenceClassifier) -> Callable[[], Metric]:
    classes = None if model.config.is_regression else model.config.num_labels
    return lambda: metric_for(None, classes)


def evaluate_all(
    model: SequenceClassifier,
    splits: dict[str, Split],
    config: TrainConfig,
    new_metric: Callable[[], Metric],
    pad_token_id: int,
) -> dict[str, Evaluation]:
    """Score a model on several splits as the configuration says; the loss is smoothed as in training."""
    results = {}
    for name, split in splits.items():
        if config.loader_draws:
            draw_seed()
        results[name] = evaluate(
            model,
            split,
            new_metric(),
            batch_size=config.per_device_eval_batch_size,
            order=config.eval_order,
            bf16=config.bf16,
            pad_token_id=pad_token_id,
            pad_to_multiple_of=config.pad_to_multiple_of,
            label_smoothing=config.label_smoothing_factor,
        )
    return results


def _one_step(
    state: TrainState,
    train: Split,
    group: list[list[int]],
    config: TrainConfig,
    steps: Plan,
    pad_token_id: int,
) -> StepLog:
    start = time.perf_counter()
    clock = Clock(device_of(state.model) if config.profile else None)
    factor = SCHEDULES[config.lr_scheduler_type](state.step, steps.total_steps, steps.warmup_steps)
    learning_rate = config.learning_rate * factor
    rows = [row for batch in group for row in batch]
    batches = [collate([train[row] for row in batch], pad_token_id, config.pad_to_multiple_of) for batch in group]
    clock.lap("data")
    loss, norm = train_step(
        state,
        batches,
        learning_rate,
        max_grad_norm=config.max_grad_norm,
        bf16=config.bf16,
        label_smoothing=config.label_smoothing_factor,
        sum_of_means=config.accumulated_loss == "sum",
        rows=rows,
        clock=clock,
    )
    encoder = state.model.encoder
    first_only = encoder.kernels.first_only
    state.epoch = state.step / steps.steps_per_epoch
    return StepLog(
        step=state.step,
        epoch=state.epoch,
        loss=loss,
        grad_norm=norm,
        learning_rate=learning_rate,
        examples=len(rows),
        padding=padding_share(train.lengths, group),
        seconds=time.perf_counter() - start,
        phases=clock.seconds,
        flops=sum(training_flops(encoder.config, len(b), b.input_ids.size(1), first_only) for b in batches),
    )


def _evaluation_is_due(config: TrainConfig, step: int, steps_per_epoch: int, done: bool) -> bool:
    if config.eval_strategy == "no":
        return False
    interval = config.eval_steps if config.eval_strategy == "steps" else steps_per_epoch
    assert interval is not None  # the configuration saw to it
    return done or step % interval == 0
