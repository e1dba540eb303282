"""A whole run, from a TrainConfig to a saved folder: what `scripts/train.py` calls.

Checks what can be checked before anything is downloaded or trained, says what was found, trains, evaluates, saves.
An earlier run in the folder stays whole until the new one is saved over it.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from minitrain.config.train_config import TrainConfig
from minitrain.data.dataset import Splits
from minitrain.data.load import length_limit, tokenize_splits
from minitrain.data.splits import TextSplits, choose_splits, read_tables, tables_of_data, with_default_data
from minitrain.data.targets import TargetScale, fold, unfold
from minitrain.data.tokenizer.tokenizer import Tokenizer, load_tokenizer
from minitrain.distributed.signals import StopRequests
from minitrain.distributed.world import World, choose_device, process_group
from minitrain.errors import MinitrainError
from minitrain.kernels.compile import check_compilable
from minitrain.kernels.precision import compute_dtype, device_of
from minitrain.model.classifier import SequenceClassifier
from minitrain.model.loading import LoadReport
from minitrain.model.weights import load_classifier, read_config, save_classifier, trained_labels
from minitrain.run.load_data import DataPrefetcher
from minitrain.run.model_card import model_card
from minitrain.run.predictions import write_predictions
from minitrain.run.profile import Profiler, matrix_ceiling, profile_lines
from minitrain.run.report import Console, finite, finite_values, peak_memory_mb, say
from minitrain.run.resume import Checkpointer
from minitrain.run.resume_checks import TARGETS, finished_run
from minitrain.run.run_folder import LOG, RESULTS, clear_checkpoints, exclusive_lock, output_directory, output_path
from minitrain.run.summary import footer, header
from minitrain.storage.download import commit_of
from minitrain.storage.files import json_text, write_whole
from minitrain.storage.hub import resolve_model
from minitrain.storage.safetensors_io import weight_files
from minitrain.training.best import Best, best_by
from minitrain.training.evaluation import Evaluation, baseline, check_token_types, evaluate_all
from minitrain.training.loop import train_loop
from minitrain.training.metrics import Metric, metric_for
from minitrain.training.plan import global_batch, plan, with_per_device_batch_size
from minitrain.training.setup import make_state
from minitrain.training.step import TrainState

LIBRARIES = ("torch", "tokenizers", "datasets", "safetensors", "huggingface-hub")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """All that a run needs before its first step."""

    config: TrainConfig
    directory: Path
    tokenizer: Tokenizer
    model: SequenceClassifier
    report: LoadReport
    splits: Splits
    max_length: int
    scale: TargetScale | None  # of regression, where targets are standardized
    model_commit: str | None  # of its repository on the Hub

    def new_metric(self) -> Metric:
        """A fresh metric: the GLUE task's, else what suits the labels."""
        labels = self.splits.labels
        return metric_for(self.splits.task, labels.num_classes, labels.positive)


def train(config: TrainConfig, ahead: DataPrefetcher | None = None, *, data: Any = None) -> dict[str, Any]:
    """Do a whole run and return what `results.json` holds; under torchrun or `launch`, every process calls this.

    ahead: a process that is reading the data of this run. data: in memory, instead of a dataset or files, as
    `load_splits` takes it: all splits, or the training rows.
    Raises MinitrainError, before training where it can, naming the flag, file, row or key at fault.
    """
    with process_group(config.device, config.ddp_timeout) as world:
        return _train(config, world, ahead, data)


def _train(config: TrainConfig, world: World, ahead: DataPrefetcher | None, data: Any) -> dict[str, Any]:
    started = time.perf_counter()
    tell = say if world.is_main else _say_nothing
    config = config if data is not None else with_default_data(config)
    if finished := _finished(config, world):
        tell(f"finished {output_path(config)}: this run went to its end; there is nothing to resume")
        return finished
    parts = prepare(config, world, ahead, data)
    for line in header(parts.config, device_of(parts.model), parts.splits, parts.report, world.size, parts.scale):
        tell(line)
    with exclusive_lock(parts.directory) if world.is_main else nullcontext(), StopRequests() as stop:
        state, best, training_seconds, totals = _fit(parts, world, tell, stop)
        with world.naming_lost_peers("the final evaluation"):
            final = evaluate_all(parts.model, parts.splits.scored, parts.config, parts.new_metric, world=world)
        results = {
            **_facts(parts, state, best, final),
            "training_seconds": training_seconds,
            "total_seconds": time.perf_counter() - started,
            "peak_memory_mb": peak_memory_mb(),
        }
        if world.is_main:
            _save(parts, final, results)
    world.barrier("saving the run")  # what is saved is there when any process returns
    for line in footer(parts.directory, parts.splits, best, final, results):
        tell(line)
    if config.profile:
        ceiling = matrix_ceiling(compute_dtype(config.bf16), device_of(parts.model))
        for line in ["", *profile_lines(totals, ceiling, "bf16" if config.bf16 else "fp32")]:
            tell(line)
    return results


def _say_nothing(line: str = "") -> None:
    pass


def _finished(config: TrainConfig, world: World) -> dict[str, Any]:
    """What the run to be resumed came to, where it has come to its end; nothing where there is something to do."""
    batch = global_batch(with_per_device_batch_size(config, world.size), world.size)
    found = finished_run(output_path(config), config, batch) if world.is_main else {}
    found = json.loads(world.broadcast_text("finished run", json.dumps(found)))
    return found


def prepare(
    config: TrainConfig, world: World | None = None, ahead: DataPrefetcher | None = None, data: Any = None
) -> Parts:
    """Find and check everything that a run needs, in the order of what it costs; nothing is written.

    world: the processes that train together. On each node one goes ahead, and the others find what it downloaded
    and tokenized. ahead: a process that is reading the data already. data: as of `train`.
    """
    world = world or World()
    config = with_per_device_batch_size(config if data is not None else with_default_data(config), world.size)
    device = choose_device(config.device, world)
    if config.dropout_rng == "example" and device.type != "cpu":
        raise MinitrainError(f"--dropout_rng example is for the CPU, not {device.type}")
    if config.torch_compile:
        check_compilable(config.kernels, device)
    directory = output_directory(config) if world.is_main else output_path(config)
    with world.local_main_first("data"):
        source = resolve_model(config.model, config.model_revision)
        encoder = read_config(source)
        weight_files(source)  # whoever lacks them as well as a tokenizer is told of the model first
        tokenizer = load_tokenizer(source)
        tokenizer.check_fits(encoder.vocab_size, source)
        max_length = length_limit(config.max_length, tokenizer, encoder.max_length, config.pad_to_multiple_of or 1)
        splits = ahead and ahead.splits(source, _known_labels(config, source), max_length)
        splits = splits or tokenize_splits(rows_of(config, source, data), tokenizer, max_length)
        for split in splits.all.values():
            check_token_types(encoder, split, source)
    world.check_agreement(_must_agree(config, source, splits) if world.size > 1 else {})
    torch.manual_seed(config.seed)  # the new head is drawn next
    model = load_classifier(
        source,
        splits.labels.num_labels,
        label_names=splits.labels.names,
        problem_type=splits.labels.problem_type,
        new_head=config.new_head,
        kernels=config.kernels,
        hidden_dropout_prob=config.hidden_dropout_prob,
        attention_probs_dropout_prob=config.attention_probs_dropout_prob,
        classifier_dropout=config.classifier_dropout,
    )
    scores = config.standardize_targets and splits.labels.names is None
    parts = Parts(
        config=config,
        directory=directory,
        tokenizer=tokenizer,
        model=model.to(device),
        report=model.load_report,
        splits=splits,
        max_length=max_length,
        scale=splits.train.target_scale() if scores else None,
        model_commit=commit_of(source),
    )
    best_by(config, parts.new_metric())  # a metric that is not there is found before the training
    return parts


def _must_agree(config: TrainConfig, source: Path, splits: Splits) -> dict[str, object]:
    """What must be the same in all processes of a run, by names that tell a user where to look."""
    flags = {f"--{name}": value for name, value in asdict(config).items() if name != "output_dir"}
    data = {f"the {name} data (checksum)": split.checksum() for name, split in splits.all.items()}
    versions = {f"{name} (version)": version(name) for name in ("minitrain", *LIBRARIES)}
    return {**versions, **flags, "the model's commit": commit_of(source), **data}


def rows_of(config: TrainConfig, source: Path, data: Any = None) -> TextSplits:
    """The rows of a run, as text. source: the checkpoint's folder, whose trained head may know the classes.

    data: as of `train`. Raises MinitrainError naming flag, file, row or column; also where there should be
    evaluation data and is none.
    """
    tables = read_tables(with_default_data(config)) if data is None else tables_of_data(config, data)
    return choose_splits(config, tables, _known_labels(config, source))


def _known_labels(config: TrainConfig, source: Path) -> tuple[str, ...] | None:
    return None if config.new_head else trained_labels(source)


def _fit(
    parts: Parts, world: World, tell: Callable[[str], None], stop: StopRequests
) -> tuple[TrainState, Best, float, Mapping[str, float]]:
    """Restore what `--resume` asks for, and train. Also returns the seconds, evaluations aside, and the profile."""
    config, model, train_split, scale = parts.config, parts.model, parts.splits.train, parts.scale
    if scale is not None:
        train_split = train_split.standardized(scale)
        if not any(name.startswith("head.output.") for name in parts.report.new):
            unfold(model, scale)  # a trained head continues from its own answers
    if world.is_main and config.resume is None:
        clear_checkpoints(parts.directory)
    total_steps = plan(config, len(train_split), world.size).total_steps
    console = Console(
        parts.directory if world.is_main else None,
        total_steps,
        config.logging_steps,
        resume=config.resume is not None,
        positive=parts.splits.labels.positive_label,
    )
    data = partial(_data_identity, parts)
    checkpoints = Checkpointer(parts.directory, config, data, world, tell, console.go_on_from, stop)
    try:
        state, best = make_state(model.train(), config, world), best_by(config, parts.new_metric())
        checkpoints.restore(state, best, total_steps)
        profiler = Profiler(state, console) if config.profile else None
        train_loop(
            state,
            best,
            train_split,
            parts.splits.evaluation,
            config,
            parts.new_metric,
            profiler or console,
            after_step=checkpoints.after_step,
        )
    finally:
        console.close()
    if scale is not None:
        fold(model, scale)
    return state, best, console.training_seconds(), profiler.totals if profiler else {}


def _data_identity(parts: Parts) -> dict[str, str]:
    """What tells the data, tokenizer and labels of a run from others', by the names that an error uses."""
    identity = {f"the {name} data": split.checksum() for name, split in parts.splits.all.items()}
    identity |= {"the tokenizer": parts.tokenizer.fingerprint(), "the labels": str(parts.splits.labels.names)}
    if parts.scale is not None:
        identity[TARGETS] = f"standardized (mean {parts.scale.mean!r}, sd {parts.scale.sd!r})"
    return identity


def _facts(parts: Parts, state: TrainState, best: Best, final: Mapping[str, Evaluation]) -> dict[str, Any]:
    """What `results.json` tells of a run, times aside."""
    config, splits = parts.config, parts.splits
    return {
        "model": config.model,
        "model_commit": parts.model_commit,
        "dataset": config.train_file or config.dataset,
        "dataset_commit": splits.commit,
        "subset": config.subset,
        "task": splits.task,
        "text_columns": list(splits.text_columns),
        "join": splits.join,
        "label_column": splits.label_column,
        "held_out": splits.held_out,
        "labels": splits.labels.names,
        "weights": parts.report.facts(),
        "positive_label": splits.labels.positive_label,
        "numbers_are_ids": splits.labels.numbers_are_ids,
        "max_length": parts.max_length,
        "targets": None if parts.scale is None else asdict(parts.scale),
        "steps": state.step,
        "epochs": state.epoch,
        "global_batch": global_batch(config, state.world.size),
        "best": {"step": best.step, "epoch": best.epoch, best.name: best.value},
        "saved": "best" if best.weights else "last",
        "baseline": {name: baseline(splits.train, split) for name, split in splits.scored.items()},
        "results": {name: finite_values(result) for name, result in final.items()},
        "config": asdict(config),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    }


def _save(parts: Parts, final: Mapping[str, Evaluation], results: Mapping[str, Any]) -> None:
    """Write the model, then what is said of it; only now does an earlier run give way."""
    directory = parts.directory
    card = model_card(parts.config, parts.splits.labels, results["steps"], final, directory.name)
    try:
        save_classifier(parts.model, parts.tokenizer, directory)
        write_whole(directory / "README.md", card)
        write_predictions(directory, parts.splits, final)
        write_whole(directory / RESULTS, json_text(finite(results)))
        os.replace(directory / f"{LOG}.part", directory / LOG)
    except (OSError, SafetensorError) as error:  # a full disk, above all
        raise MinitrainError(f"{directory}: the run is trained but cannot be saved ({error})") from error
