"""The loop around the training step: which rows, at which learning rate, and when to evaluate.

The learning rate and the order of examples are functions of the step; all that changes is in TrainState
(`step.py`). What is printed and written is the observer's affair (`report.py`).
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from signal import Signals
from typing import Protocol

import torch
from torch import Tensor

from minitrain.config.train_config import LENGTH_MULTIPLE, TrainConfig
from minitrain.data.batch import collate
from minitrain.data.dataset import Split, as_split
from minitrain.data.progress import progress
from minitrain.data.sampler import Batches, draw_seed, padding_share, rank_micro_batches
from minitrain.data.targets import folded
from minitrain.data.tokenizer.tokenizer import Example
from minitrain.distributed.signals import StopRequests
from minitrain.distributed.world import World
from minitrain.errors import MinitrainError, Stopped
from minitrain.kernels.dropout import ExampleStreams
from minitrain.model.classifier import SequenceClassifier
from minitrain.run.profile import Clock, training_flops
from minitrain.run.resume import Checkpointer
from minitrain.training.best import Best, best_by
from minitrain.training.evaluation import Evaluation, check_token_types, device_of, evaluate
from minitrain.training.metrics import Metric, metric_for
from minitrain.training.plan import Plan, Sampler, make_sampler, plan, with_per_device_batch_size
from minitrain.training.schedules import SCHEDULES
from minitrain.training.step import TrainState, begin_step, make_state
from minitrain.training.step_log import InFlight, StepLog


class Observer(Protocol):
    """Whoever wants to see the steps and evaluations as they happen."""

    def on_step(self, log: StepLog) -> None: ...

    def on_evaluation(self, step: int, epoch: float, results: dict[str, Evaluation], is_best: bool) -> None: ...


def fit(
    model: SequenceClassifier,
    train: Split | Sequence[Example],
    evaluation: Mapping[str, Split | Sequence[Example]],
    config: TrainConfig,
    *,
    new_metric: Callable[[], Metric] | None = None,
    observer: Observer | None = None,
    pad_token_id: int | None = None,
    world: World | None = None,
    checkpoints: Checkpointer | None = None,
    stop: StopRequests | None = None,
) -> tuple[TrainState, Best]:
    """Train a model in place, evaluating as the configuration says.

    new_metric: makes a fresh metric for each evaluation; by default what suits the labels. observer: is told of
    every step and evaluation. pad_token_id: by default that of the splits' tokenizer, whose padding side they
    know too. world: the processes that train together, as `process_group` gives it; every one of
    them calls this, with the same arguments, and ends with the same weights. The random stream starts from
    `config.seed` here, after the head was drawn, as Trainer's does, unless `reseed` is off; other processes
    than the first add their rank. checkpoints: saves, and takes up what was saved. stop: is asked after every step
    whether to save and leave, by raising Stopped. With `load_best_model_at_end` the model ends with its best
    weights. Where the labels are standard scores (`Split.standardized`), evaluations are on the original scale and
    the weights stay as trained. Raises MinitrainError where there is nothing to evaluate on but should be, or
    tokens have types that the model does not know.
    """
    train, to_score = as_split(train), {name: as_split(split) for name, split in evaluation.items()}
    if not to_score and config.eval_strategy != "no":
        raise MinitrainError(f"eval_strategy is {config.eval_strategy!r}, but there is no split to evaluate on")
    for split in (train, *to_score.values()):
        check_token_types(model.config, split)
    new_metric, observer, world = new_metric or _metric_of(model), observer or _Silent(), world or World()
    config = with_per_device_batch_size(config, world.size)
    if config.reseed or world.size > 1:
        torch.manual_seed(config.seed + world.rank)
    state = make_state(model.train(), config, world)
    best = best_by(config, new_metric())
    steps = plan(config, len(train), world.size)
    sampler = make_sampler(config, train, world.size)
    began = checkpoints.restore(state, best, steps.total_steps) if checkpoints is not None else None
    patience = config.early_stopping_patience or math.inf
    done = state.step >= steps.total_steps or best.evaluations_since >= patience
    underway = InFlight(behind=state.graphs is not None)

    def finish() -> None:
        for log in underway.finished():
            observer.on_step(log)

    while not done:
        first = state.step % steps.steps_per_epoch
        batches = _batches_of_epoch(state, sampler, config, began if first else None, steps)
        for number in range(first, len(batches)):
            start = time.perf_counter()
            with world.naming_lost_peers(f"step {state.step + 1}"):
                read = _begin(state, train, batches[number], config, steps, pad_token_id)
                logs = underway.begun(start, read)
            for log in logs:
                observer.on_step(log)
            done = state.step >= steps.total_steps
            evaluates = _evaluation_is_due(config, state.step, steps.steps_per_epoch, done)
            if done or evaluates:
                finish()
            if evaluates:
                with world.naming_lost_peers(f"the evaluation after step {state.step}"), folded(model, train.scale):
                    results = evaluate_all(model, to_score, config, new_metric, pad_token_id, world)
                is_best = best.remember(results, model, state.step, state.epoch, config.load_best_model_at_end)
                observer.on_evaluation(state.step, state.epoch, results, is_best)
                done = done or best.evaluations_since >= patience
            epoch_ended = state.step % steps.steps_per_epoch == 0
            _save_or_leave(state, best, checkpoints, stop, epoch_ended, done, finish)
            if done:
                break
    if best.weights:
        model.load_state_dict(best.weights)
    return state, best


def _batches_of_epoch(
    state: TrainState, sampler: Sampler, config: TrainConfig, began: Tensor | None, steps: Plan
) -> Batches:
    """The order of the epoch in which the next step is.

    began: the random state with which that epoch began, where a run goes on inside of it: what was drawn then is
    drawn again, and nothing of what came after.
    """
    now = torch.get_rng_state()
    state.epoch_random = now if began is None else began
    torch.set_rng_state(state.epoch_random)
    if config.dataloader_rng:
        draw_seed()
    batches = sampler.batches(state.step // steps.steps_per_epoch)
    if began is not None:
        torch.set_rng_state(now)
    return batches


def _save_or_leave(
    state: TrainState,
    best: Best,
    checkpoints: Checkpointer | None,
    stop: StopRequests | None,
    epoch_ended: bool,
    done: bool,
    finish: Callable[[], None],
) -> None:
    """What follows a step: a checkpoint where one is due, and the end where a signal asked for it.

    finish: waits for the step, which must have gone well before it is saved.
    """
    world = state.world
    if checkpoints is not None and checkpoints.is_due(state.step, epoch_ended, done):
        finish()
        with world.naming_lost_peers(f"saving after step {state.step}"):
            checkpoints.save(state, best)
    with world.naming_lost_peers(f"after step {state.step}"):
        number = 0 if stop is None else stop.agreed(world)
    if not number:
        return
    finish()
    where = ""
    if checkpoints is not None:
        with world.naming_lost_peers(f"saving after step {state.step}"):
            checkpoints.save(state, best)
            # torchrun ends all processes when one has left: not before the first one has written.
            world.barrier("leaving")
        where = f"; saved in {checkpoints.folder}, and --resume goes on from there"
    raise Stopped(f"stopped by {Signals(number).name} after step {state.step}{where}", number)


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
    splits: Mapping[str, Split],
    config: TrainConfig,
    new_metric: Callable[[], Metric],
    pad_token_id: int | None = None,
    world: World | None = None,
) -> dict[str, Evaluation]:
    """Score a model on several splits as the configuration says; the loss is smoothed as in training."""
    results = {}
    for name, split in splits.items():
        if config.dataloader_rng:
            draw_seed()
        silent = world is not None and not world.is_main
        with progress(f"evaluating {name}", len(split), silent=silent) as add:
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
                world=world,
                on_rows=add,
            )
    return results


def _begin(
    state: TrainState,
    train: Split,
    rows: list[int],
    config: TrainConfig,
    steps: Plan,
    pad_token_id: int | None,
) -> Callable[[], StepLog]:
    """Begin a step; what it returns waits for it. rows: of the step, in all processes."""
    clock = Clock(device_of(state.model) if config.profile else None)
    factor = SCHEDULES[config.lr_scheduler_type](state.step, steps.total_steps, steps.warmup_steps)
    learning_rate = config.learning_rate * factor
    own = rank_micro_batches(rows, config.per_device_train_batch_size, state.world.rank, state.world.size)
    # Where there are fewer batches than processes: one that counts for nothing, since all must exchange gradients.
    taken = own or [rows[:1]]
    # Of recorded steps there is one a length.
    multiple = config.pad_to_multiple_of or (LENGTH_MULTIPLE if state.graphs is not None else None)
    pad, side = train.pad_token_id if pad_token_id is None else pad_token_id, train.padding_side
    batches = [collate([train[row] for row in some], pad, multiple, padding_side=side) for some in taken]
    if not own:
        batches = [replace(batch, labels=None) for batch in batches]
    clock.lap("data")
    read = begin_step(
        state,
        batches,
        learning_rate,
        max_grad_norm=config.max_grad_norm,
        bf16=config.bf16,
        label_smoothing=config.label_smoothing_factor,
        sum_of_means=config.accumulation == "sum",
        rows=rows,
        streams=streams_of(state, train, taken, config),
        clock=clock,
    )
    step, state.epoch = state.step, state.step / steps.steps_per_epoch
    epoch, cls_only, shape = state.epoch, state.model.cls_only, state.model.config

    def log() -> StepLog:
        loss, norm = read()
        return StepLog(
            step=step,
            epoch=epoch,
            loss=loss,
            grad_norm=norm,
            learning_rate=learning_rate,
            examples=len(rows),
            padding=padding_share(train.lengths, rank_micro_batches(rows, config.per_device_train_batch_size)),
            seconds=0.0,
            phases=clock.seconds,
            flops=sum(training_flops(shape, len(b), b.input_ids.size(1), cls_only) for b in batches),
        )

    return log


def streams_of(
    state: TrainState, train: Split, batches: list[list[int]], config: TrainConfig
) -> list[ExampleStreams] | None:
    """The dropout of each batch's examples, where it is not drawn from the process's stream."""
    if config.dropout_rng == "process":
        return None
    return [
        ExampleStreams(config.seed, state.step, rows, [train.lengths[row] for row in rows], train.padding_side)
        for rows in batches
    ]


def _evaluation_is_due(config: TrainConfig, step: int, steps_per_epoch: int, done: bool) -> bool:
    if config.eval_strategy == "no":
        return False
    interval = config.eval_steps if config.eval_strategy == "steps" else steps_per_epoch
    assert interval is not None  # the configuration saw to it
    return done or step % interval == 0
