"""Using what was saved: score a run on data. `predict_run` and `load_run` live beside, and are named here too."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from minitrain.config.inference_config import EvaluateConfig
from minitrain.config.label_map import as_flag
from minitrain.config.options import check_label_column
from minitrain.config.read_options import Files, Reading, ReadOptions, files_of
from minitrain.data.dataset import Split
from minitrain.data.labels.ids import Labels, display_names, positive_of_data
from minitrain.data.labels.labels import with_positive
from minitrain.data.labels.notes import numbers_as_ids
from minitrain.data.labels.values import check_label_map
from minitrain.data.load import tokenize, unknown_warning
from minitrain.data.progress import progress
from minitrain.data.splits import GLUE_COLUMNS, HALVES, draw_as, rows_of_saved_run, trained_on
from minitrain.data.tables.load import load_tables, read_file
from minitrain.data.tables.table import Table
from minitrain.distributed.world import World, process_group
from minitrain.errors import MinitrainError, listed
from minitrain.run.labelling import predict_run as predict_run
from minitrain.run.record_files import RecordFile, record_file
from minitrain.run.records import SPLIT, TRUE, Records, kept_columns
from minitrain.run.report import class_table, finite_values, result_lines, say
from minitrain.run.run_folder import PREDICTIONS
from minitrain.run.saved_run import SavedRun as SavedRun
from minitrain.run.saved_run import load_run as load_run
from minitrain.run.saved_run import pad_multiple, remark
from minitrain.storage.files import json_text, write_whole
from minitrain.training.evaluation import Evaluation, evaluate
from minitrain.training.metrics import metric_for


def evaluate_run(config: EvaluateConfig) -> dict[str, Evaluation]:
    """Score a saved run, print the result and return it by split; under torchrun, every process calls this.

    By default on the evaluation splits of the run's own dataset. Raises MinitrainError naming flag, file or row.
    """
    with process_group(config.device) as world, ExitStack() as stack:
        # Opened before the work is done: a place that cannot be written shows at once.
        wanted = config.output is not None and world.is_main
        out = stack.enter_context(record_file(config.output)) if wanted else None
        return _evaluate_run(config, world, out)


def _evaluate_run(config: EvaluateConfig, world: World, out: RecordFile | None) -> dict[str, Evaluation]:
    run = load_run(config.run, config.device, config.kernels, config.max_length, world, config.join)
    columns = run.columns(config.text_columns)
    column = config.label_column or run.facts.get("label_column") or "label"
    tables, task = _tables_to_score(config, run, (*columns, column))
    first = next(iter(tables.values()))
    columns, column = tuple(first.find(name) or name for name in columns), first.find(column) or column
    check_label_column(column, columns)
    if world.is_main:
        remark(config.run, *run.tokenizer.notes)
        for note in dict.fromkeys(note for table in tables.values() for note in table.notes):
            print(note, file=sys.stderr)
    trained = run.facts.get("config", {})
    limit = config.max_eval_samples
    if config.dataset is None and config.eval_file is None and config.split is None:
        limit = limit or trained.get("max_eval_samples")  # as the run scored itself
    if world.is_main and (warning := trained_on(trained, config.eval_file, config.dataset, config.split)):
        print(f"WARNING  {warning}", file=sys.stderr)
    if run.labels.names is not None:  # scores have no names, which is said below
        check_label_map(list(tables.values()), column, config.label_map)
    results, writer = {}, None if out is None else _Writer(config, run, columns, out, several=len(tables) > 1)
    for name, table in tables.items():
        labels = _labels_to_score(config, run, table, column)
        notes = numbers_as_ids({name: table}, column, labels)
        table = draw_as(trained, columns, column, labels).sample(name, table, limit)
        split = tokenize(table, run.tokenizer, columns, column, labels, run.max_length, join=run.join)
        if world.is_main:
            remark(config.run, unknown_warning({table.source: (split.unknown, split.text_tokens)}))
        with progress(f"evaluating {name}", len(split), silent=not world.is_main) as add:
            results[name] = evaluate(
                run.model,
                split,
                metric_for(task, labels.num_classes, labels.positive),
                batch_size=config.per_device_eval_batch_size,
                bf16=config.bf16,
                pad_to_multiple_of=pad_multiple(config, run),
                label_smoothing=trained.get("label_smoothing_factor", 0.0),
                world=world,
                on_rows=add,
            )
        if writer is not None:
            writer.write(name, table, split, results[name])
        if world.is_main:
            lines = result_lines(name, results[name], None, labels.positive_label)
            for line in [*notes, *lines, *class_table(results[name], labels.names)]:
                say(line)
    if config.json is not None and world.is_main:
        try:
            write_whole(Path(config.json), json_text({name: finite_values(r) for name, r in results.items()}))
        except OSError as error:
            raise MinitrainError(f"--json {config.json}: cannot be written ({error.strerror or error})") from error
    return results


def _labels_to_score(config: EvaluateConfig, run: SavedRun, table: Table, column: str) -> Labels:
    """The run's labels, with what the flags say of them; F1 is about the run's class, or the data's class 1."""
    labels = run.labels
    if config.eval_file is not None and _are_own(files_of(config.eval_file), run.directory / PREDICTIONS):
        labels = replace(labels, label_map=None)  # its labels have the names already: 1=2,2=3 would go on
    if config.label_map and labels.names is None:
        raise MinitrainError(f"{as_flag(config.label_map)}: {config.run} gives scores, not classes; leave it out")
    if config.label_map:
        labels = replace(labels, label_map={**(labels.label_map or {}), **config.label_map})
    if config.positive_label is None and not run.facts.get("positive_label"):
        labels = replace(labels, positive=positive_of_data(table, column, labels))
    return with_positive(labels, config.positive_label)


def _are_own(files: Sequence[str], written: Path) -> bool:
    return all(written.exists() and os.path.exists(file) and os.path.samefile(file, written) for file in files)


def _tables_to_score(
    config: EvaluateConfig, run: SavedRun, columns: tuple[str, ...]
) -> tuple[dict[str, Table], str | None]:
    """The tables by split, and the GLUE task whose metrics apply."""
    trained = run.facts.get("config", {})
    file, reading = config.eval_file, reading_of(config, trained)
    own = trained.get("train_file") or trained.get("dataset")
    mine = file is None and config.dataset is None and config.split in (None, *HALVES)
    if mine and own and trained.get("eval_fraction"):
        rows = rows_of_saved_run(run.facts, run.labels.names)
        half = config.split or "validation"
        return {half: rows.train if half == "train" else rows.evaluation[half]}, rows.task
    if file is None and config.dataset is None and trained.get("train_file"):
        files = {"train": "train_file", "validation": "eval_file", "test": "test_file"}
        file = trained.get(files.get(config.split or "validation", ""))
        if file is None:
            split = config.split or "validation"
            raise MinitrainError(
                f"{config.run}: was trained on files, none of them for {split!r}: pass --eval_file"
            )
    if file is not None:
        return {_name_of(file): _read_for(config, run, file, columns, reading)}, None
    dataset = config.dataset or trained.get("dataset")
    if dataset is None:
        raise MinitrainError(f"{config.run}: does not say what it was trained on; pass --dataset or --eval_file")
    subset = config.subset or (trained.get("subset") if config.dataset is None else None)
    revision = trained.get("dataset_revision") if config.dataset is None else None
    tables = load_tables(dataset, subset, revision, reading)
    wanted = [config.split] if config.split else [name for name in tables if name.startswith("validation")]
    if not wanted or any(name not in tables for name in wanted):
        missing = "no validation split" if config.split is None else f"no split {config.split!r}"
        raise MinitrainError(f"{dataset}: has {missing}; pass --split, one of {', '.join(tables)}")
    return {name: tables[name] for name in wanted}, subset if subset in GLUE_COLUMNS else None


def _read_for(
    config: EvaluateConfig, run: SavedRun, file: Files | Sequence[str], columns: tuple[str, ...], reading: Reading
) -> Table:
    """Read files with the columns of the run. Raises MinitrainError with the flags that name others."""
    try:
        return read_file(file, columns, reading, others=config.output is not None)
    except MinitrainError as error:
        flags = [f"--{name}" for name in ("text_columns", "label_column") if getattr(config, name) is None]
        if not flags or not re.search("has no (column|field) ", str(error)):
            raise
        raise MinitrainError(
            f"{error}. {config.run} was trained on {listed(columns)}: pass {' and '.join(flags)} where they "
            "are called otherwise"
        ) from error


def reading_of(config: EvaluateConfig, trained: Mapping[str, Any]) -> Reading:
    """How files are read: as the flags say, and the run's own data as the run read them where no flag does."""
    given = {name: getattr(config, name) for name in ("delimiter", "quoting", "encoding")}
    if config.eval_file is not None or config.dataset is not None or given != asdict(ReadOptions()):
        return config
    return ReadOptions(**{name: trained.get(name, usual) for name, usual in given.items()})


def _name_of(file: Files | Sequence[str]) -> str:
    """What the results of a file, or of several, are called."""
    files = files_of(file)
    return Path(files[0]).name if len(files) == 1 else f"{Path(files[0]).name} and {len(files) - 1} more"


class _Writer:
    """Writes scored rows, each with its true label. several: splits, so that each row names its own."""

    def __init__(
        self, config: EvaluateConfig, run: SavedRun, texts: tuple[str, ...], out: RecordFile, several: bool
    ) -> None:
        self.config, self.texts, self.out = config, texts, out
        self.names = run.labels.names and display_names(run.labels.names)
        self.added = (SPLIT, TRUE) if several else (TRUE,)
        self.records = Records(format=config.format, labels=run.labels, added=self.added)

    def write(self, name: str, table: Table, split: Split, result: Evaluation) -> None:
        """Write the rows of a split, in its order."""
        assert split.labels is not None and result.logits is not None
        header = ""
        if self.records.columns is None:
            columns, note = kept_columns(table, self.texts, self.config.keep_columns)
            remark(table.source, note)
            self.records = self.records.of_columns(columns)
            header = self.records.header()
        labels = split.labels.tolist()
        truth: list[Any] = [self.names[label] for label in labels] if self.names else labels
        added = [[name] * len(table), truth] if SPLIT in self.added else [truth]
        self.out.write(header + self.records.lines(table, result.logits, added), len(table))
