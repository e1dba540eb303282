"""Using what was saved: score a run on data, label new texts.

A run's folder tells its own columns and length (`results.json`); any classifier in the Hub's layout will do where
the columns are given. Predictions are JSON lines, one a text, in the order of the input.
"""

import io
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from minitrain.config import LENGTH_MULTIPLE
from minitrain.data import length_limit, tokenize
from minitrain.distributed import World, choose_device, process_group, world_from_environment
from minitrain.errors import MinitrainError
from minitrain.evaluation import Evaluation, evaluate, predict
from minitrain.files import json_text, read_json, whole_text_file, write_whole
from minitrain.inference_config import EvaluateConfig, PredictConfig
from minitrain.labels import Labels, positive_class
from minitrain.metrics import metric_for
from minitrain.model import SequenceClassifier
from minitrain.place import RESULTS
from minitrain.report import class_block, finite_values, result_lines, say
from minitrain.rows import GLUE_COLUMNS, HALVES, draw_as, rows_of_saved_run, trained_on
from minitrain.tables import Table, load_tables, read_file
from minitrain.tokenizer import Tokenizer, load_tokenizer
from minitrain.weights import load_classifier, names_or_default, trained_labels

OUTPUTS = ("label", "probability", "probabilities", "score")  # what a prediction adds to its texts


@dataclass(frozen=True, kw_only=True)
class SavedRun:
    """A saved classifier with its tokenizer, and what its `results.json` remembers ({} without one)."""

    model: SequenceClassifier
    tokenizer: Tokenizer
    labels: Labels
    facts: dict[str, Any]
    max_length: int

    @property
    def join(self) -> str | None:
        """What stands between its text columns, where they make one text."""
        return self.facts.get("join")

    @property
    def text_columns(self) -> tuple[str, ...] | None:
        """The columns it was trained on: one, or two for pairs."""
        columns = self.facts.get("text_columns")
        return tuple(columns) if columns else None


def load_run(
    directory: str | Path, device: str, kernels: str, max_length: int | None, world: World | None = None
) -> SavedRun:
    """Load a saved run onto a device. Raises MinitrainError where the folder is not there or not whole."""
    directory = Path(directory)
    if not (directory / "config.json").is_file():
        raise MinitrainError(
            f"{directory}: holds no saved model (no config.json); give a folder that train.py saved"
        )
    directory = directory.resolve()  # a run in a folder called demo is no demo
    if trained_labels(directory) is None:
        raise MinitrainError(f"{directory}: holds no trained head, only an encoder; fine-tune it first")
    model = load_classifier(directory, kernels=kernels).to(choose_device(device, world or World()))
    tokenizer = load_tokenizer(directory)
    tokenizer.check_fits(model.config.vocab_size, directory)
    facts = read_json(directory / RESULTS) if (directory / RESULTS).is_file() else {}
    remembered = None if max_length is not None else facts.get("max_length")
    return SavedRun(
        model=model,
        tokenizer=tokenizer,
        labels=Labels(names=None if model.config.is_regression else names_or_default(model.config)),
        facts=facts,
        max_length=remembered or length_limit(max_length, tokenizer, model.config.max_length),
    )


def _multiple(config: EvaluateConfig | PredictConfig, run: SavedRun) -> int | None:
    """What lengths are padded to: as in training, where that does not exceed the positions."""
    fits = run.model.config.max_length % LENGTH_MULTIPLE == 0
    return LENGTH_MULTIPLE if config.bf16 and config.kernels == "fast" and fits else None


def evaluate_run(config: EvaluateConfig) -> dict[str, Evaluation]:
    """Score a saved run, print the result and return it by split; under torchrun, every process calls this.

    By default on the evaluation splits of the run's own dataset. Raises MinitrainError naming flag, file or row.
    """
    with process_group(config.device) as world:
        return _evaluate_run(config, world)


def _evaluate_run(config: EvaluateConfig, world: World) -> dict[str, Evaluation]:
    run = load_run(config.run, config.device, config.kernels, config.max_length, world)
    columns = config.text_columns or run.text_columns
    if columns is None:
        raise MinitrainError(f"{config.run}: does not say which columns hold its texts; pass --text_columns")
    column = config.label_column or run.facts.get("label_column") or "label"
    join = run.join if config.join is None else config.join
    tables, task = _tables_to_score(config, run, (*columns, column))
    trained = run.facts.get("config", {})
    limit = config.max_eval_samples
    if config.dataset is None and config.eval_file is None and config.split is None:
        limit = limit or trained.get("max_eval_samples")  # as the run scored itself
    if world.is_main and (warning := trained_on(trained, config.eval_file, config.dataset, config.split)):
        print(f"WARNING  {warning}", file=sys.stderr)
    draw = draw_as(trained, columns, column, run.labels)
    results = {}
    for name, table in tables.items():
        results[name] = evaluate(
            run.model,
            tokenize(
                draw.sample(name, table, limit),
                run.tokenizer,
                columns,
                column,
                run.labels,
                run.max_length,
                join=join,
            ),
            metric_for(task, run.labels.num_classes, positive_class(table, column, run.labels.names)),
            batch_size=config.per_device_eval_batch_size,
            bf16=config.bf16,
            pad_token_id=run.tokenizer.pad_token_id,
            pad_to_multiple_of=_multiple(config, run),
            label_smoothing=trained.get("label_smoothing_factor", 0.0),
            world=world,
        )
        if world.is_main:
            for line in [*result_lines(name, results[name], None), *class_block(results[name], run.labels.names)]:
                say(line)
    if config.json is not None and world.is_main:
        try:
            write_whole(Path(config.json), json_text({name: finite_values(r) for name, r in results.items()}))
        except OSError as error:
            raise MinitrainError(f"--json {config.json}: cannot be written ({error.strerror or error})") from error
    return results


def _tables_to_score(
    config: EvaluateConfig, run: SavedRun, columns: tuple[str, ...]
) -> tuple[dict[str, Table], str | None]:
    """The tables by split, and the GLUE task whose metrics apply."""
    trained = run.facts.get("config", {})
    file = config.eval_file
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
        return {Path(file).name: read_file(file, columns)}, None
    dataset = config.dataset or trained.get("dataset")
    if dataset is None:
        raise MinitrainError(f"{config.run}: does not say what it was trained on; pass --dataset or --eval_file")
    subset = config.subset or (trained.get("subset") if config.dataset is None else None)
    revision = trained.get("dataset_revision") if config.dataset is None else None
    tables = load_tables(dataset, subset, revision)
    wanted = [config.split] if config.split else [name for name in tables if name.startswith("validation")]
    if not wanted or any(name not in tables for name in wanted):
        missing = "no validation split" if config.split is None else f"no split {config.split!r}"
        raise MinitrainError(f"{dataset}: has {missing}; pass --split, one of {', '.join(tables)}")
    return {name: tables[name] for name in wanted}, subset if subset in GLUE_COLUMNS else None


def predict_run(config: PredictConfig) -> None:
    """Label texts from a file or standard input, writing JSON lines to a file or standard output.

    A file appears whole or not at all. Raises MinitrainError naming file and row, and in several processes.
    """
    if (size := world_from_environment().size) > 1:
        raise MinitrainError(f"labels for texts come from one process, not {size}: start without torchrun")
    if config.output is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # as JSON is, whatever the locale says
        _write_lines(sys.stdout, _predictions(config))
        return
    output = Path(config.output)
    try:
        # Opened before the work is done: a place that cannot be written shows at once.
        with whole_text_file(output) as file:
            _write_lines(file, _predictions(config))
    except OSError as error:
        raise MinitrainError(f"--output {output}: cannot be written ({error.strerror or error})") from error


def _predictions(config: PredictConfig) -> Iterator[dict[str, Any]]:
    run = load_run(config.run, config.device, config.kernels, config.max_length)
    table, columns = _texts(config, run)
    if not len(table):
        raise MinitrainError(f"{table.source}: has no texts")
    join = run.join if config.join is None else config.join
    split = tokenize(table, run.tokenizer, columns, max_length=run.max_length, join=join)
    if split.truncated:
        note = f"{split.truncated} of {len(split)} rows are longer than {run.max_length} tokens and were cut"
        print(f"{table.source}: {note}", file=sys.stderr)
    logits = predict(
        run.model,
        split,
        batch_size=config.per_device_eval_batch_size,
        bf16=config.bf16,
        pad_token_id=run.tokenizer.pad_token_id,
        pad_to_multiple_of=_multiple(config, run),
    )
    return _records(table, columns, logits, run.labels)


def _texts(config: PredictConfig, run: SavedRun) -> tuple[Table, tuple[str, ...]]:
    """What to label and its columns: a table, or lines with one text each, or two where the run takes pairs."""
    name = config.input or "standard input"
    if config.input is not None and not config.input.endswith(".txt"):
        columns = config.text_columns or run.text_columns
        if columns is None:
            raise MinitrainError(f"{config.run}: does not say which columns hold texts; pass --text_columns")
        return read_file(config.input, columns), columns
    try:
        data = sys.stdin.buffer.read() if config.input is None else Path(config.input).read_bytes()
    except OSError as error:
        raise MinitrainError(f"--input {name}: cannot be read ({error.strerror or error})") from error
    joined = config.join is not None or run.join is not None  # a line is one text then
    table = lines_to_table(name, _decoded(data, name), ("text",) if joined else run.text_columns)
    return table, tuple(table.columns)


def _decoded(data: bytes, source: str) -> list[str]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MinitrainError(f"{source}: is not UTF-8 at byte {error.start}") from error
    lines = text.split("\n")
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def lines_to_table(source: str, lines: Iterable[str], trained_on: tuple[str, ...] | None) -> Table:
    """One text a line; two with a tab between them where the run was trained on pairs.

    Where that is not known, a tab in the first line tells. Raises MinitrainError naming the line that has no pair.
    """
    rows = list(lines)
    pairs = len(trained_on) == 2 if trained_on else bool(rows) and "\t" in rows[0]
    if not pairs:
        return Table(source=source, columns={"text": rows}, class_names={}, untyped=True)
    first, second = [], []
    for number, line in enumerate(rows, start=1):
        left, tab, right = line.partition("\t")
        if not tab:
            raise MinitrainError(
                f"{source}, row {number}: expected two texts with a tab between them, got {line!r}"
            )
        first.append(left)
        second.append(right)
    return Table(source=source, columns={"text": first, "text_pair": second}, class_names={}, untyped=True)


def _records(table: Table, columns: tuple[str, ...], logits: Tensor, labels: Labels) -> Iterator[dict[str, Any]]:
    texts = [table.column(name) for name in columns]
    keys = [f"input_{name}" if name in OUTPUTS else name for name in columns]
    chances = logits.double().softmax(-1)
    for i in range(len(table)):
        record: dict[str, Any] = {name: values[i] for name, values in zip(keys, texts, strict=True)}
        if labels.names is None:
            record["score"] = logits[i, 0].item()
        else:
            best = int(torch.argmax(logits[i]))
            record["label"] = labels.names[best]
            record["probability"] = chances[i, best].item()
            record["probabilities"] = dict(zip(labels.names, chances[i].tolist(), strict=True))
        yield record


def _write_lines(file: TextIO, records: Iterable[dict[str, Any]]) -> None:
    for record in records:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
    file.flush()
