"""Score a saved run on labelled data: by default on its own evaluation splits.

It trains nothing, and does not label texts: that is `run/predict.py`.
"""

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from minitrain.config.inference_config import EvaluateConfig, same_file
from minitrain.config.label_map import as_flag
from minitrain.config.options import check_label_column
from minitrain.config.read_options import ReadOptions, files_of
from minitrain.data.labels.ids import Labels, display_names, positive_of_data
from minitrain.data.labels.infer import with_positive
from minitrain.data.labels.label_columns import name_of_columns, with_label_column
from minitrain.data.labels.notes import numbers_as_ids
from minitrain.data.labels.numbered import label_numbers
from minitrain.data.labels.values import check_label_map
from minitrain.data.load import tokenize, unknown_warning
from minitrain.data.progress import progress
from minitrain.data.splits import GLUE_COLUMNS, HALVES
from minitrain.data.tables.load import load_tables
from minitrain.data.tables.table import Table
from minitrain.distributed.world import World, process_group
from minitrain.errors import MinitrainError
from minitrain.run.answers import true_label
from minitrain.run.calibration import calibrated_evaluation, on_fitted_rows
from minitrain.run.length_notes import counts_of, length_notes
from minitrain.run.load_data import saved_run_splits, subsampler_of, trained_on
from minitrain.run.output_file import check_writable, output_file, write_json
from minitrain.run.output_rows import SPLIT, TRUE, RowWriter
from minitrain.run.report import class_table, finite_values, result_lines, say
from minitrain.run.run_folder import PREDICTIONS
from minitrain.run.runs_report import HELD_OUT
from minitrain.run.saved_run import SavedRun, load_run, print_notes, read_rows
from minitrain.training.evaluation import Evaluation, evaluate
from minitrain.training.metrics import metric_for
from minitrain.training.run_loss import saved_loss


def evaluate_run(config: EvaluateConfig) -> dict[str, Evaluation]:
    """Score a saved run, print the results and return them by split. Under torchrun every process calls it.

    Raises:
        MinitrainError: Names the flag, file or row that is wrong.
    """
    with process_group(config.device) as world, ExitStack() as stack:
        # First, so that an output that cannot be written fails before the work.
        check_writable(config.json if world.is_main else None)
        wanted = config.output is not None and world.is_main
        file = stack.enter_context(output_file(config.output)) if wanted else None
        run = load_run(config, world)
        data = _read_data(config, run)
        if world.is_main:
            notes = dict.fromkeys(note for table in data.tables.values() for note in table.notes)
            warning = trained_on(run.trained_config, config.eval_file, config.dataset, config.split, _is_fold(run))
            print_notes(config.run, *run.tokenizer.notes, _other_loss(run), on_fitted_rows(config))
            for line in (*notes, *([f"WARNING  {warning}"] if warning else [])):
                print(line, file=sys.stderr)
        if run.labels.names is not None:  # scores have no names, as an error says below
            separator = config.label_separator or run.labels.separator
            check_label_map(list(data.tables.values()), data.label_column, config.label_map, separator)
        added = (SPLIT, TRUE) if len(data.tables) > 1 else (TRUE,)
        writer = None if file is None else RowWriter(file, config.format, run.labels, added, run.calibration)
        results = {name: _score(config, run, data, world, name, writer) for name in data.tables}
        if world.is_main:
            write_json(config.json, {name: finite_values(result) for name, result in results.items()})
    return results


@dataclass(frozen=True, kw_only=True)
class _Data:
    """The tables to score by split, their columns, and the GLUE task whose metrics apply."""

    tables: dict[str, Table]
    task: str | None
    text_columns: tuple[str, ...]
    label_column: str
    added_column: str | None = None  # the label column, if it was put together from --label_columns


def _read_data(config: EvaluateConfig, run: SavedRun) -> _Data:
    columns, several = run.columns(config.text_columns), _label_columns(config, run)
    label_column = config.label_column or run.run_info.get("label_column") or "label"
    tables, task = _read_tables(config, run, (*columns, *(several or (label_column,))))
    first = next(iter(tables.values()))
    columns = tuple(first.find(name) or name for name in columns)
    label_column = first.find(label_column) or label_column
    for name in several or (label_column,):
        check_label_column(first.find(name) or name, columns)
    data = _Data(tables=tables, task=task, text_columns=columns, label_column=label_column)
    if not several:
        return data
    added = name_of_columns(several)
    tables = {name: with_label_column(table, several) for name, table in tables.items()}
    return replace(data, tables=tables, label_column=added, added_column=added)


def _label_columns(config: EvaluateConfig, run: SavedRun) -> tuple[str, ...]:
    """The columns of 0 and 1 that hold the labels; () for labels in one column."""
    for name in ("label_columns", "label_separator"):
        if getattr(config, name) is not None and not run.labels.multi_label:
            raise MinitrainError(
                f"--{name}: {config.run} was trained with one label a text; name its column with --label_column"
            )
    if config.label_columns is not None or config.label_column is not None or config.label_separator is not None:
        return config.label_columns or ()
    return tuple(run.trained_config.get("label_columns") or ())


def _score(
    config: EvaluateConfig, run: SavedRun, data: _Data, world: World, name: str, writer: RowWriter | None
) -> Evaluation:
    """Tokenize and score one split, print its results, and write its rows."""
    trained, table = run.trained_config, data.tables[name]
    limit = config.max_eval_samples
    if config.dataset is None and config.eval_file is None and config.split is None:
        limit = limit or trained.get("max_eval_samples")  # as the run scored itself
    columns, label_column = data.text_columns, data.label_column
    labels = _labels_to_score(config, run, table, label_column)
    notes = numbers_as_ids({name: table}, label_column, labels)
    table = subsampler_of(trained, columns, label_column, labels).sample(name, table, limit)
    length, join, long_texts = run.max_length, run.join, run.long_texts
    split = tokenize(table, run.tokenizer, columns, label_column, labels, length, join=join, long_texts=long_texts)
    if world.is_main:
        print_notes(table.source, *length_notes(counts_of([split]), length, long_texts, run.tokenizer))
        print_notes(config.run, unknown_warning({table.source: (split.unknown, split.text_tokens)}))
    metrics = config.metrics or run.metrics
    new_metric = partial(
        metric_for, data.task, labels.num_classes, labels.positive, metrics, multi_label=labels.multi_label
    )
    with progress(f"evaluating {name}", len(split), silent=not world.is_main) as add:
        result = evaluate(
            run.model,
            split,
            new_metric(),
            run.eval_settings(config),
            loss=saved_loss(run.run_info, run.labels.names),
            world=world,
            on_rows=add,
        )
    lines = result_lines(name, result, None, labels.positive_label)
    if run.calibration is not None:
        result = calibrated_evaluation(result, split, run.calibration, new_metric())
        lines += ["", *result_lines(f"{name}, calibrated", result, None, labels.positive_label)]
    say(*notes, *lines, *class_table(result, labels.names), silent=not world.is_main)
    if writer is not None:
        assert split.labels is not None and result.logits is not None
        if writer.columns is None:
            own = {name: values for name, values in table.columns.items() if name != data.added_column}
            writer.choose_columns(replace(table, columns=own), columns, config.keep_columns)
        names = labels.names and display_names(labels.names)
        found = label_numbers(table, label_column, labels) if labels.multi_label else split.labels.tolist()
        truth = [true_label(label, names) for label in found]
        writer.write(table, result.logits, [[name] * len(table), truth] if SPLIT in writer.added else [truth])
    return result


def _other_loss(run: SavedRun) -> str | None:
    name = run.run_info.get("loss_function")
    if name is None:
        return None
    own = "squared error" if run.labels.names is None else "cross-entropy"
    return f"was trained with the loss function {name}, which it does not hold: the loss below is {own}"


def _labels_to_score(config: EvaluateConfig, run: SavedRun, table: Table, column: str) -> Labels:
    """The run's labels with --label_map and --positive_label; F1 falls back to the data's class 1."""
    labels = run.labels
    if labels.multi_label:
        labels = replace(labels, separator=config.label_separator or labels.separator)
    own_predictions = str(run.directory / PREDICTIONS)
    files = [] if config.eval_file is None else files_of(config.eval_file)
    if files and all(same_file(name, own_predictions) for name in files):
        labels = replace(labels, label_map=None)  # they hold the mapped names: 1=2,2=3 would map them again
    if config.label_map and labels.names is None:
        raise MinitrainError(f"{as_flag(config.label_map)}: {config.run} gives scores, not classes; leave it out")
    if config.label_map:
        labels = replace(labels, label_map={**(labels.label_map or {}), **config.label_map})
    if config.positive_label is None and not run.run_info.get("positive_label") and not labels.multi_label:
        labels = replace(labels, positive=positive_of_data(table, column, labels))
    return with_positive(labels, config.positive_label)


def _read_tables(
    config: EvaluateConfig, run: SavedRun, columns: tuple[str, ...]
) -> tuple[dict[str, Table], str | None]:
    """The tables by split, and the GLUE task whose metrics apply."""
    trained = run.trained_config
    given = config.eval_file is not None or config.dataset is not None
    options: ReadOptions = config
    if not given and all(getattr(config, spec.name) == spec.default for spec in fields(ReadOptions)):
        own = {spec.name: trained[spec.name] for spec in fields(ReadOptions) if spec.name in trained}
        options = ReadOptions(**own)  # no flag says otherwise: as the run read its own data
    split = config.split or "validation"
    has_data = trained.get("train_file") or trained.get("dataset")
    if not given and has_data and trained.get("eval_fraction") and split in HALVES:
        rows = saved_run_splits(run.run_info, run.labels.names)
        return {split: rows.train if split == "train" else rows.evaluation[split]}, rows.task
    file = config.eval_file
    if not given and trained.get("train_file"):
        flags = {"train": "train_file", "validation": "eval_file", "test": "test_file"}
        file = trained.get(flags.get(split, ""))
        if file is None:
            scored = f"; the rows held out for it are scored in its {PREDICTIONS}" if _is_fold(run) else ""
            raise MinitrainError(
                f"{config.run}: was trained on files, none of them for {split!r}: pass --eval_file{scored}"
            )
    if file is None:
        return _read_dataset(config, trained, options)
    first, *more = (Path(name).name for name in files_of(file))
    name = f"{first} and {len(more)} more" if more else first
    return {name: read_rows(config, file, columns, options, config.output is not None)}, None


def _is_fold(run: SavedRun) -> bool:
    return HELD_OUT in run.run_info.get("results", {})


def _read_dataset(
    config: EvaluateConfig, trained: Mapping[str, Any], options: ReadOptions
) -> tuple[dict[str, Table], str | None]:
    """The splits to score of --dataset or of the run's own dataset, and the GLUE task."""
    dataset, subset, revision = config.dataset, config.subset, None
    if dataset is None:
        dataset, revision = trained.get("dataset"), trained.get("dataset_revision")
        subset = subset or trained.get("subset")
    if dataset is None:
        raise MinitrainError(f"{config.run}: does not say what it was trained on; pass --dataset or --eval_file")
    tables = load_tables(dataset, subset, revision, options)
    wanted = [config.split] if config.split else [name for name in tables if name.startswith("validation")]
    if not wanted or any(name not in tables for name in wanted):
        missing = "no validation split" if config.split is None else f"no split {config.split!r}"
        raise MinitrainError(f"{dataset}: has {missing}; pass --split, one of {', '.join(tables)}")
    return {name: tables[name] for name in wanted}, subset if subset in GLUE_COLUMNS else None
