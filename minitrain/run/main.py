"""A whole run: `train` checks, trains, evaluates and saves; an earlier run in the folder stays whole until then."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from torch import Tensor

from minitrain.config.train_config import TrainConfig
from minitrain.data.targets import fold, unfold
from minitrain.distributed.signals import StopRequests
from minitrain.distributed.world import World, process_group
from minitrain.kernels.precision import compute_dtype, precision_name
from minitrain.run.calibration import fit_calibration
from minitrain.run.folds import train_several
from minitrain.run.html.write import check_report, report_lines
from minitrain.run.load_data import SplitsSource
from minitrain.run.peak_memory import peak_memory_mb
from minitrain.run.prepare import PreparedRun, complete, prepare
from minitrain.run.profile import Profiler, matrix_ceiling, profile_lines
from minitrain.run.push import push_after_training, push_command
from minitrain.run.report import Console, say
from minitrain.run.resume import Checkpointer
from minitrain.run.resume_checks import TARGETS, finished_run
from minitrain.run.run_folder import clear_checkpoints, output_path
from minitrain.run.save import run_info, save_run
from minitrain.run.summary import footer, header
from minitrain.run.tracking import Trackers
from minitrain.storage.files import exclusive_lock
from minitrain.training.evaluation import evaluate_all
from minitrain.training.loop import train_loop
from minitrain.training.observers import Observers, check_observers
from minitrain.training.own_loss import name_of
from minitrain.training.setup import Best, best_by, make_state, plan
from minitrain.training.step import TrainState
from minitrain.training.user_metrics import ComputeMetrics, UserMetrics

Log = Callable[..., None]  # prints lines, in the main process


def train(
    config: TrainConfig,
    prefetcher: SplitsSource | None = None,
    *,
    data: Any = None,
    loss: Callable[[Tensor, Tensor], Any] | None = None,
    compute_metrics: ComputeMetrics | None = None,
    observers: Sequence[Any] = (),
) -> dict[str, Any]:
    """Train, evaluate and save; under torchrun or `launch`, every process calls this.

    With `folds` or `seeds` several times, as `train_several` says.

    Args:
        prefetcher: A process that is already reading the data of this run.
        data: Data in memory instead of a dataset or files, as for `load_splits`: all splits, or the training rows.
        loss: (logits, labels) -> (sum, count), instead of cross-entropy or squared error: see `own_loss`. It is
            not saved, so `--resume` takes it again.
        compute_metrics: Your metrics: a function of an `EvalPrediction`, which unpacks to logits and labels as
            numpy arrays, that returns a dict of numbers by name. Called in the main process.
        observers: Objects with `on_step` or `on_evaluation`, called after the console, in the main process.

    Returns:
        The contents of `results.json`.

    Raises:
        MinitrainError: Names the flag, file, row or key at fault; before the training wherever possible.
    """
    observers = check_observers(observers)
    check_report(config.report)

    def run_one(config: TrainConfig, source: SplitsSource | None) -> dict[str, Any]:
        with process_group(config.device, config.ddp_timeout) as world:
            users = None if compute_metrics is None else UserMetrics(compute_metrics, world)
            return _train(config, world, source, data, loss, users, observers if world.is_main else [])

    return train_several(config, run_one, data) if config.has_several_runs else run_one(config, prefetcher)


def _train(
    config: TrainConfig,
    world: World,
    prefetcher: SplitsSource | None,
    data: Any,
    loss: Callable[[Tensor, Tensor], Any] | None,
    user_metrics: UserMetrics | None,
    observers: Sequence[Any],
) -> dict[str, Any]:
    started = time.perf_counter()
    log = partial(say, silent=not world.is_main)
    config = complete(config, world, data)
    if finished := _finished(config, world, name_of(loss)):
        name, folder = config.push_to_hub, output_path(config)
        upload = f"; to upload it: {push_command(folder, name, config.hub_private)}" if name else ""
        log(f"finished {folder}: this run went to its end; there is nothing to resume{upload}")
        return finished
    run = prepare(config, world, prefetcher, data, loss, user_metrics)
    log(*header(run, world.size))
    lock = exclusive_lock(run.directory) if world.is_main else nullcontext()
    with lock, StopRequests() as stop, Trackers(run, log, world.is_main) as trackers:
        state, best, training_seconds, totals = _fit(run, world, log, stop, trackers, observers)
        with world.naming_lost_peers("the final evaluation"):
            final = evaluate_all(
                run.model, run.splits.scored, run.config, run.new_metric, world=world, loss=run.loss
            )
        calibration = fit_calibration(run.config, run.splits, final)
        results = {
            **run_info(run, state, best, final),
            **({} if calibration is None else {"calibration": calibration.facts()}),
            "training_seconds": training_seconds,
            "total_seconds": time.perf_counter() - started,
            "peak_memory_mb": peak_memory_mb(),
        }
        if world.is_main:
            save_run(run, final, results, calibration)
            trackers.final(results["results"], state.step)
        world.barrier("saving the run")  # when any process returns, the run is saved
        report = report_lines(run.directory, config.report) if world.is_main else []
    lines = footer(run, best, final, results, calibration, world.size)
    if config.profile:
        ceiling = matrix_ceiling(compute_dtype(config), run.device)
        lines += ["", *profile_lines(totals, ceiling, precision_name(config))]
    log(*lines, *report)
    if world.is_main:
        push_after_training(run.directory, config, log)
    return results


def _finished(config: TrainConfig, world: World, loss: str | None) -> dict[str, Any]:
    """The results of the run that `--resume` names, if it is already finished; else an empty dict."""
    if config.resume is None:
        return {}
    found = finished_run(output_path(config), config, world.size, loss) if world.is_main else {}
    results: dict[str, Any] = json.loads(world.broadcast_text("finished run", json.dumps(found)))
    return results


def _fit(
    run: PreparedRun, world: World, log: Log, stop: StopRequests, trackers: Trackers, observers: Sequence[Any]
) -> tuple[TrainState, Best, float, Mapping[str, float]]:
    """Restore what `--resume` asks for, and train. Also returns the seconds, evaluations aside, and the profile."""
    config, model, train_split, scale = run.config, run.model, run.splits.train, run.scale
    if scale is not None:
        train_split = train_split.standardized(scale)
        if not any(name.startswith("head.output.") for name in model.load_report.new):
            unfold(model, scale)  # a trained head continues from its own answers
    if world.is_main and config.resume is None:
        clear_checkpoints(run.directory)
        trackers.start(0)
    total_steps = plan(config, len(train_split), world.size).total_steps
    console = Console(
        run.directory if world.is_main else None,
        total_steps,
        config.logging_steps,
        resume=config.resume is not None,
        positive=run.splits.labels.positive_label,
        on_record=trackers.log,
    )
    data = partial(_data_identity, run)
    on_restore = trackers.before(console.resume_from)
    checkpoints = Checkpointer(
        run.directory, config, data, world, log, on_restore, stop, name_of(run.loss.function)
    )
    try:
        state, best = make_state(model.train(), config, world), best_by(config, run.new_metric())
        checkpoints.restore(state, best, total_steps)
        profiler = Profiler(state, console) if config.profile else None
        train_loop(
            state,
            best,
            train_split,
            run.splits.evaluation,
            config,
            run.new_metric,
            Observers(profiler or console, observers),
            after_step=checkpoints.after_step,
            loss=run.loss,
        )
    finally:
        console.close()
    if scale is not None:
        fold(model, scale)
    return state, best, console.training_seconds(), profiler.totals if profiler else {}


def _data_identity(run: PreparedRun) -> dict[str, str]:
    """What tells the data, tokenizer and labels of a run from others', by the names that an error uses."""
    identity = {f"the {name} data": split.checksum() for name, split in run.splits.all.items()}
    identity |= {"the tokenizer": run.tokenizer.fingerprint(), "the labels": str(run.splits.labels.names)}
    if run.scale is not None:
        identity[TARGETS] = f"standardized (mean {run.scale.mean!r}, sd {run.scale.sd!r})"
    return identity
