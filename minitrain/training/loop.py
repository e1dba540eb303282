"""The training loop: epochs, batches, steps, evaluations.

The learning rate and the order of the rows are functions of the step; what changes is in `TrainState` and `Best`.
Not here: what is printed (the observer), what is saved and when a signal stops the run (`after_step`).
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor

from minitrain.config.optimization import LENGTH_MULTIPLE
from minitrain.config.train_config import TrainConfig
from minitrain.data.batch import Batch, collate
from minitrain.data.dataset import Split
from minitrain.data.examples import as_split
from minitrain.data.sampler import draw_seed, padding_share, rank_micro_batches
from minitrain.data.targets import folded
from minitrain.data.tokenizer.tokenizer import Example
from minitrain.distributed.world import World
from minitrain.errors import MinitrainError
from minitrain.kernels.dropout import ExampleStreams
from minitrain.kernels.precision import device_of
from minitrain.model.classifier import SequenceClassifier
from minitrain.model.weights import names_or_default
from minitrain.training.evaluation import Evaluation, check_token_types, evaluate_all
from minitrain.training.kept_activations import keep_activations
from minitrain.training.loss import Loss
from minitrain.training.metrics import Metric, metric_for, with_user_metrics
from minitrain.training.observers import Observers, check_observers
from minitrain.training.run_loss import loss_of_run
from minitrain.training.setup import (
    Best,
    Plan,
    Sampler,
    best_by,
    choose_step,
    make_sampler,
    make_state,
    plan,
    with_per_device_batch_size,
)
from minitrain.training.step import StepSettings, TrainState, train_step
from minitrain.training.user_metrics import ComputeMetrics


@dataclass(frozen=True, kw_only=True)
class StepLog:
    """One optimizer step; loss, norm and seconds are filled in when it is done."""

    step: int
    epoch: float
    learning_rate: float
    examples: int  # in all processes
    padding: float  # share of positions, 0 to 1
    shapes: tuple[tuple[int, int], ...]  # (B, L), or (W, L) of windows, of each micro-batch of this process
    loss: float = math.nan  # as in `StepResult`
    grad_norm: float = math.nan  # before clipping
    skipped: int = 0  # steps skipped so far, by overflows in fp16
    seconds: float = math.nan  # wall time since the later of its start and the end of the previous step


class InFlight:
    """Passes the log of each step to `on_log`, at once or `lag` steps later.

    With a lag of 1 the next step is queued on the GPU before Python waits for the loss of the previous one.
    """

    def __init__(self, on_log: Callable[[StepLog], None], lag: int) -> None:
        self.on_log, self.lag = on_log, lag
        self._waiting: deque[tuple[StepLog, Callable[[], Any], float]] = deque()
        self._ended = 0.0

    def add(self, log: StepLog, read: Callable[[], Any], start: float) -> None:
        """Add a step that began at `start`, by `time.perf_counter`. read: Waits for its `StepResult`."""
        self._waiting.append((log, read, start))
        self._deliver(self.lag)

    def drain(self) -> None:
        """Wait for all steps."""
        self._deliver(0)

    def _deliver(self, keep: int) -> None:
        while len(self._waiting) > keep:
            log, read, start = self._waiting.popleft()
            result = read()._asdict()
            now = time.perf_counter()
            seconds, self._ended = now - max(start, self._ended), now
            self.on_log(replace(log, **result, seconds=seconds))


class Observer(Protocol):
    """Sees the steps and evaluations as they happen."""

    def on_step(self, log: StepLog) -> None:
        return

    def on_evaluation(self, step: int, epoch: float, results: dict[str, Evaluation], is_best: bool) -> None:
        return


class _Silent(Observer):
    """Shows nothing."""


def fit(
    model: SequenceClassifier,
    train: Split | Sequence[Example],
    evaluation: Mapping[str, Split | Sequence[Example]],
    config: TrainConfig,
    *,
    new_metric: Callable[[], Metric] | None = None,
    observer: Observer | None = None,
    observers: Sequence[Any] = (),
    compute_metrics: ComputeMetrics | None = None,
    pad_token_id: int | None = None,
    world: World | None = None,
    loss: Callable[[Tensor, Tensor], Any] | None = None,
) -> tuple[TrainState, Best]:
    """Train a model in place, evaluating as the configuration says.

    The random stream is seeded here, after the head was initialized, as in Trainer (unless `config.reseed` is off).

    Args:
        new_metric: Makes a metric for each evaluation; by default `config.metrics`, or one for the kind of labels.
        observer, observers: Told of each step and evaluation; the latter in the main process only.
        compute_metrics: As for `train`.
        pad_token_id: By default that of the splits' tokenizer.
        world: The processes that train together, from `process_group`: each calls this with the same arguments
            and ends with the same weights.
        loss: (logits, labels) -> (sum, count), instead of cross-entropy or squared error: see `own_loss`.

    Raises:
        MinitrainError: No split to evaluate on, token types that the model does not know, class weights that are
            not of its classes, or a failed step.
    """
    world, train, splits = world or World(), as_split(train), {name: as_split(x) for name, x in evaluation.items()}
    if not splits and config.eval_strategy != "no":
        raise MinitrainError(f"eval_strategy is {config.eval_strategy!r}, but there is no split to evaluate on")
    for split in (train, *splits.values()):
        check_token_types(model.config, split)
    classes = None if model.config.is_regression else model.config.num_labels
    several = model.config.is_multi_label
    new_metric = new_metric or partial(metric_for, None, classes, names=config.metrics, multi_label=several)
    new_metric = with_user_metrics(new_metric, compute_metrics, world)
    names = None if classes is None else names_or_default(model.config)
    minimized = loss_of_run(config, names, train.labels, loss)
    listeners = Observers(observer or _Silent(), check_observers(observers) if world.is_main else ())
    config = with_per_device_batch_size(config, world.size)
    state, best = make_state(model.train(), config, world), best_by(config, new_metric())
    train_loop(state, best, train, splits, config, new_metric, listeners, pad_token_id, loss=minimized)
    return state, best


def train_loop(
    state: TrainState,
    best: Best,
    train: Split,
    splits: Mapping[str, Split],
    config: TrainConfig,
    new_metric: Callable[[], Metric],
    observer: Observer,
    pad_token_id: int | None = None,
    after_step: Callable[..., None] = lambda *_, **__: None,
    loss: Loss | None = None,
) -> None:
    """Train from the step that `state` is at to the last one; the model ends with the weights of `best`, if kept.

    `after_step(state, best, epoch_ended=, done=, wait=)` may end the run by raising Stopped, or save: once
    `wait()` returns, loss and norm are known to be finite.
    """
    model, world = state.model.train(), state.world
    if config.keep_activations:
        train, splits = keep_activations(state, train, splits, config, pad_token_id)
    steps, sampler = plan(config, len(train), world.size), make_sampler(config, train, world.size)
    settings = StepSettings.of(config, loss)
    take_step = choose_step(config, device_of(model), world.size, train.windows is not None, loss)
    recorded = take_step is not train_step
    in_flight = InFlight(observer.on_step, lag=1 if recorded else 0)
    collate_fn = _collate_fn(train, config, pad_token_id, recorded)
    patience = config.early_stopping_patience or math.inf
    done = state.step >= steps.total_steps or best.evaluations_since >= patience
    while not done:
        for rows in _epoch_batches(state, sampler, config, steps):
            start, learning_rate = time.perf_counter(), steps.learning_rate(state.updates)
            batches, streams = step_batches(state, train, rows, config, collate_fn)
            with world.naming_lost_peers(f"step {state.step + 1}"):
                result = take_step(state, batches, steps.rates(state), settings, rows=rows, streams=streams)
            state.epoch = state.step / steps.steps_per_epoch
            in_flight.add(_step_log(state, train, rows, batches, learning_rate, config), result.read, start)
            epoch_ended, done = state.step % steps.steps_per_epoch == 0, state.step >= steps.total_steps
            if steps.evaluates_after(state.step):
                in_flight.drain()
                with world.naming_lost_peers(f"the evaluation after step {state.step}"), folded(model, train.scale):
                    results = evaluate_all(model, splits, config, new_metric, pad_token_id, world, loss)
                is_best = best.remember(results, model, state.step, state.epoch, config.load_best_model_at_end)
                observer.on_evaluation(state.step, state.epoch, results, is_best)
                done = done or best.evaluations_since >= patience
            after_step(state, best, epoch_ended=epoch_ended, done=done, wait=in_flight.drain)
            if done:
                break
    in_flight.drain()
    if best.weights:
        model.load_state_dict(best.weights)


def _collate_fn(
    train: Split, config: TrainConfig, pad_token_id: int | None, recorded: bool
) -> Callable[[list[Example]], Batch]:
    return partial(
        collate,
        pad_token_id=train.pad_token_id if pad_token_id is None else pad_token_id,
        # A graph is recorded for each length; rounding up makes fewer.
        pad_to_multiple_of=config.pad_to_multiple_of or (LENGTH_MULTIPLE if recorded else None),
        padding_side=train.padding_side,
    )


def _epoch_batches(state: TrainState, sampler: Sampler, config: TrainConfig, steps: Plan) -> Iterator[list[int]]:
    """The rows of each step of the epoch, from the state's next step on.

    Inside an epoch, as after resuming, the order is drawn again from the random state with which the epoch began.
    """
    epoch, first = divmod(state.step, steps.steps_per_epoch)
    now = torch.get_rng_state()
    if first == 0:
        state.epoch_random = now
    torch.set_rng_state(state.epoch_random)
    if config.dataloader_rng:
        draw_seed()  # the number that a DataLoader consumes
    batches = sampler.batches(epoch)
    if first:
        torch.set_rng_state(now)
    return islice(batches, first, None)


def step_batches(
    state: TrainState,
    train: Split,
    rows: list[int],
    config: TrainConfig,
    collate_fn: Callable[[list[Example]], Batch],
) -> tuple[list[Batch], list[ExampleStreams]]:
    """Collate this process's micro-batches of a step, and make the random streams of their examples, if asked for.

    Args:
        rows: The row numbers of the step, in all processes.
    """
    own = rank_micro_batches(rows, config.per_device_train_batch_size, state.world.rank, state.world.size)
    # A process without rows must join the exchange of gradients: it gets a row without its label.
    shares = own or [rows[:1]]
    batches = [collate_fn([train[row] for row in share]) for share in shares]
    if train.kept is not None:
        batches = [train.kept.attach(batch, share) for batch, share in zip(batches, shares, strict=True)]
    if not own:
        batches = [replace(batch, labels=None) for batch in batches]
    if config.dropout_rng == "process":
        return batches, []
    return batches, [
        ExampleStreams(config.seed, state.step, *train.names_and_lengths(share), train.padding_side)
        for share in shares
    ]


def _step_log(
    state: TrainState,
    train: Split,
    rows: list[int],
    batches: list[Batch],
    learning_rate: float,
    config: TrainConfig,
) -> StepLog:
    return StepLog(
        step=state.step,
        epoch=state.epoch,
        learning_rate=learning_rate,
        examples=len(rows),
        padding=padding_share(
            train.lengths, rank_micro_batches(rows, config.per_device_train_batch_size), train.window_rows
        ),
        skipped=state.step - state.updates,
        shapes=tuple((batch.input_ids.size(0), batch.input_ids.size(1)) for batch in batches),
    )
