"""`--folds` and `--seeds`: several trainings by one command, each an ordinary run in a folder of its own.

The data are read and tokenized once; a fold's rows are a view of them. A finished run leaves its results and
predictions, so that `--resume` trains only what is missing. What the runs say together is in `run/runs_report.py`.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from minitrain.config.train_config import TrainConfig
from minitrain.data.dataset import Splits
from minitrain.data.folds import assign_folds, check_folds_fit, check_folds_full, group_values
from minitrain.data.labels.numbered import label_numbers
from minitrain.data.load import tokenize_splits
from minitrain.data.splits import choose_splits, read_tables, tables_of_data, text_splits
from minitrain.data.tables.table import Table
from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.distributed.device import choose_device
from minitrain.distributed.world import World, process_group
from minitrain.errors import MinitrainError
from minitrain.kernels.matmul import choose_matmul, chosen_matmul
from minitrain.kernels.precision import compute_dtype
from minitrain.run.html.write import report_lines
from minitrain.run.label_errors import search_folds
from minitrain.run.load_data import SplitsSource
from minitrain.run.prepare import complete, load_data
from minitrain.run.report import say
from minitrain.run.resume import machine
from minitrain.run.resume_checks import changed_settings, other_machine
from minitrain.run.run_folder import (
    CALIBRATION,
    CHECKPOINTS,
    EVENTS,
    LABEL_ERRORS,
    LOG,
    OWN_FILES,
    PREDICTIONS,
    REPORT,
    RESULTS,
    RUNS,
    clear_checkpoints,
    is_finished,
    output_directory,
    output_path,
    read_results,
)
from minitrain.run.runs_report import HELD_OUT, save_out_of_fold, save_report, summary_lines, summary_of
from minitrain.storage.files import exclusive_lock, json_text, read_json, write_whole
from minitrain.storage.hub import resolve_model

RunOne = Callable[[TrainConfig, SplitsSource | None], dict[str, Any]]
KEPT = (RESULTS, PREDICTIONS, LOG)  # of a run whose model is not kept


@dataclass(frozen=True)
class OneOf:
    """One of the runs: its seed, and its fold from 0, or None without folds."""

    seed: int
    fold: int | None
    name: str  # of its folder


def runs_of(config: TrainConfig) -> list[OneOf]:
    """The runs in the order in which they are trained.

    >>> [run.name for run in runs_of(TrainConfig(folds=2, seeds=(42, 1)))]
    ['seed-42-fold-1', 'seed-42-fold-2', 'seed-1-fold-1', 'seed-1-fold-2']
    """
    folds = [None] if config.folds is None else range(config.folds)
    runs = []
    for seed in config.seeds or (config.seed,):
        for fold in folds:
            parts = [] if config.seeds is None else [f"seed-{seed}"]
            parts += [] if fold is None else [f"fold-{fold + 1}"]
            runs.append(OneOf(seed, fold, "-".join(parts)))
    return runs


class AllRows:
    """Reads and tokenizes the data of all runs once. A `SplitsSource` that keeps what it read."""

    def __init__(self, config: TrainConfig, data: Any) -> None:
        self.config, self.data = config, data
        self.table: Table | None = None  # the training rows
        self.folds: dict[int, list[int]] = {}  # by seed, the fold of each row

    def load(self) -> Splits:
        """Read, tokenize and assign the rows to folds. Raises MinitrainError as a run does."""
        source = resolve_model(self.config.model, self.config.model_revision)
        *_, self.whole = load_data(self.config, source, self)
        return self.whole

    def splits(self, source: Path, known_labels: tuple[str, ...] | None, max_length: int) -> Splits:
        """The splits that the data have by themselves."""
        config = self.config
        tables = read_tables(config) if self.data is None else tables_of_data(config, self.data)
        if config.folds is None:
            texts = choose_splits(config, tables, known_labels)
            if not texts.evaluation and not texts.test:
                raise MinitrainError(
                    "--seeds compares evaluations, and there is nothing to score: pass --eval_file"
                )
        else:
            texts = text_splits(tables, config, known_labels)
            needed = (*texts.text_columns, texts.label_column)
            self._assign(texts.train, texts.label_column, texts.labels)
            self.table = replace(texts.train, columns={name: texts.train.column(name) for name in needed})
        return tokenize_splits(texts, load_tokenizer(source), max_length, config.long_text_options)

    def _assign(self, table: Table, column: str, labels: Any) -> None:
        count, seeds = self.config.folds, self.config.seeds or (self.config.seed,)
        assert count is not None
        strata: Sequence[Any] = label_numbers(table, column, labels)
        # Rows with several labels are stratified by their combination, of which there may be few.
        names = None if isinstance(strata[0], tuple) else labels.names
        asked = self.config.group_column
        groups = None if asked is None else group_values(table, asked)
        check_folds_fit(strata, count, groups, names)
        for seed in seeds:
            self.folds[seed] = assign_folds(strata, count, seed, groups)
            if names is not None:
                check_folds_full(self.folds[seed], strata, count, names)

    def part(self, run: OneOf) -> SplitsSource:
        """The data of one run."""
        return _Part(self.whole if run.fold is None else self._fold(run.seed, run.fold))

    def _fold(self, seed: int, fold: int) -> Splits:
        assert self.table is not None
        assigned = self.folds[seed]
        held = [row for row, its in enumerate(assigned) if its == fold]
        rest = [row for row, its in enumerate(assigned) if its != fold]
        whole = self.whole
        return replace(
            whole,
            train=whole.train.subset(rest),
            evaluation={HELD_OUT: whole.train.subset(held)},
            test=whole.evaluation | whole.test,
            texts={HELD_OUT: self.table.select(held), **whole.texts},
        )


@dataclass(frozen=True)
class _Part:
    whole: Splits

    def splits(self, source: Path, known_labels: tuple[str, ...] | None, max_length: int) -> Splits:
        # Another seed would hold back other rows: evaluate.py must not look for them by the run's own.
        return replace(self.whole, held_out=None)


def train_several(config: TrainConfig, run_one: RunOne, data: Any = None) -> dict[str, Any]:
    """Train once for each fold and seed; print and save every metric as mean and standard deviation.

    With folds, each row is held out once per seed, and its prediction by the model that did not see it is in
    `predictions.jsonl`. Other evaluation and test splits are scored by every run.

    Args:
        run_one: Trains one run.
        data: Data in memory, as for `train`.

    Returns:
        The contents of `results.json`.
    """
    started = time.perf_counter()
    with process_group(config.device, config.ddp_timeout) as world:
        log = partial(say, silent=not world.is_main)
        config = complete(config, world, data)
        directory = output_directory(config) if world.is_main else output_path(config)
        if finished := _finished(directory, config, world):
            log(f"finished {directory}: all runs went to their end; there is nothing to resume")
            return finished
        rows, runs = AllRows(config, data), runs_of(config)
        with world.local_main_first("data of all runs"):
            whole = rows.load()
        with exclusive_lock(directory) if world.is_main else nullcontext():
            _begin(directory, config, world, rows, runs, log)
            found = [_run(directory, config, world, run_one, rows, run, log) for run in runs]
            results = {
                **summary_of(config, runs, found, whole.labels.names),
                "total_seconds": time.perf_counter() - started,
            }
            if world.is_main:
                save_out_of_fold(directory, config, runs, rows.folds)
            facts, errors = search_folds(directory, world, bool(rows.folds) and whole.labels.names is not None)
            results |= facts
            if world.is_main:
                save_report(directory, config, results)
            world.barrier("saving the report")
            report = report_lines(directory, config.report) if world.is_main else []
        log("", *summary_lines(results), *errors, f"saved to {directory}", *report)
    return results


def _finished(directory: Path, config: TrainConfig, world: World) -> dict[str, Any]:
    """The results of the command that `--resume` names if it is finished already; else an empty dict."""
    if config.resume is None:
        return {}
    found: dict[str, Any] = {}
    if world.is_main and (directory / RUNS).exists():
        _check_same(directory, {"config": asdict(config)})
        found = read_results(directory) if "runs" in read_results(directory) else {}
    results: dict[str, Any] = json.loads(world.broadcast_text("finished runs", json.dumps(found)))
    return results


def _check_same(directory: Path, now: Mapping[str, Any]) -> None:
    """Raise MinitrainError if the runs of the folder were started with other settings or data."""
    then = read_json(directory / RUNS)
    if changed := changed_settings(then, now):
        raise MinitrainError(
            f"--resume: the runs in {directory} were started with other settings: {'; '.join(changed)}. Give the "
            "same ones, or another --output_dir"
        )
    for name, value in now.get("data", {}).items():
        if (before := then.get("data", {}).get(name)) != value:
            raise MinitrainError(
                f"--resume: the runs in {directory} were started with {name} {before}, now it is {value}; resume "
                "with the same data, or pass another --output_dir"
            )


def _begin(
    directory: Path,
    config: TrainConfig,
    world: World,
    rows: AllRows,
    runs: Sequence[OneOf],
    log: Callable[..., None],
) -> None:
    """Write down what is to be trained, or check that it is what the folder's runs were started with."""
    identity = {f"the {name} data": split.checksum() for name, split in rows.whole.all.items()}
    facts: dict[str, Any] = {
        "runs": [run.name for run in runs],
        "config": asdict(config),
        "data": identity | {"the labels": str(rows.whole.labels.names)},
        # As in a checkpoint: they decide last bits, also of the runs that are still to come.
        "products": chosen_matmul(compute_dtype(config)),
        "machine": machine(choose_device(config.device, world)),
    }
    if world.is_main and config.resume is not None and (directory / RUNS).exists():
        _check_same(directory, facts)
        then = read_json(directory / RUNS)
        choose_matmul(then.get("products", {}))
        if note := other_machine(then.get("machine", {}), facts["machine"]):
            log(note)
    elif world.is_main:
        clear_checkpoints(directory)
        for name in (*OWN_FILES, CALIBRATION, LABEL_ERRORS, REPORT):
            (directory / name).unlink(missing_ok=True)
        write_whole(directory / RUNS, json_text(facts))
    if config.folds is not None:
        sizes = sorted(assigned.count(fold) for assigned in rows.folds.values() for fold in range(config.folds))
        how = "stratified" if config.group_column is None else f"with equal {config.group_column!r} kept together"
        log(f"folds    {config.folds} of {sizes[0]} to {sizes[-1]} rows, {how}")


def _run(
    directory: Path,
    config: TrainConfig,
    world: World,
    run_one: RunOne,
    rows: AllRows,
    run: OneOf,
    log: Callable[..., None],
) -> dict[str, Any]:
    """Train one run, or take the results that it left; its model is removed unless it is to be kept."""
    folder = directory / run.name
    if world.is_main and not is_finished(folder) and not (folder / CHECKPOINTS).exists():
        shutil.rmtree(folder, ignore_errors=True)  # interrupted before a checkpoint
    own = replace(
        config,
        output_dir=str(folder),
        seed=run.seed,
        folds=None,
        seeds=None,
        group_column=None,
        keep_folds=False,
        report=False,  # one report shows all
    )
    log("", f"---- {run.name.replace('-fold', ', fold').replace('-', ' ')}")
    results = run_one(own, rows.part(run))
    if world.is_main and not config.keep_folds:
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in KEPT and path.suffix != EVENTS:
                path.unlink()
    return results
