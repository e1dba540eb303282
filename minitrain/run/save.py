"""What a finished run leaves in its folder: the model, README.md, predictions.jsonl, results.json and log.jsonl."""

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from minitrain.data.dataset import Splits
from minitrain.data.labels.ids import display_names
from minitrain.data.labels.numbered import label_numbers
from minitrain.data.tables.table import Table
from minitrain.errors import MinitrainError
from minitrain.model.freezing import count_parameters
from minitrain.model.weights import save_classifier
from minitrain.run.answers import answers, true_label
from minitrain.run.calibration import FittedCalibration, save_calibration
from minitrain.run.data_facts import data_facts
from minitrain.run.hardware import hardware
from minitrain.run.intervals import intervals
from minitrain.run.model_card import Card, model_card
from minitrain.run.prepare import LIBRARIES, PreparedRun
from minitrain.run.report import as_json, finite_values, label_values
from minitrain.run.run_folder import CALIBRATION, LABEL_ERRORS, LOG, PREDICTIONS, REPORT, RESULTS, logged_lines
from minitrain.storage.files import json_text, whole_text_file, write_whole
from minitrain.training.evaluation import Evaluation, baseline
from minitrain.training.own_loss import name_of
from minitrain.training.run_loss import loss_line, weights_by_name
from minitrain.training.setup import Best, global_batch
from minitrain.training.step import TrainState

LOOKED_AT = 1000  # rows among which those of the model card are chosen
SHORT = 160  # characters of a text that fits there
# Keys of a prediction; a text column of the same name is called input_<name>.
KEYS = ("seed", "fold", "split", "file", "row", "label", "prediction", "probability", "probabilities")


def run_info(run: PreparedRun, state: TrainState, best: Best, final: Mapping[str, Evaluation]) -> dict[str, Any]:
    """The contents of `results.json`, without times and memory."""
    config, splits = run.config, run.splits
    return {
        "model": config.model,
        "model_commit": run.model_commit,
        "dataset": config.train_file or config.dataset,
        "dataset_commit": splits.commit,
        "subset": config.subset,
        "task": splits.task,
        "text_columns": list(splits.text_columns),
        "join": splits.join,
        "label_column": splits.label_column,
        "held_out": splits.held_out,
        "labels": splits.labels.names,
        "weights": run.model.load_report.facts(),
        "parameters": dict(zip(("trained", "all"), count_parameters(run.model), strict=True)),
        "positive_label": splits.labels.positive_label,
        "class_weights": weights_by_name(run.loss, splits.labels.names),
        "loss_function": name_of(run.loss.function),  # the user's, which is not saved
        "numbers_are_ids": splits.labels.numbers_are_ids,
        "data": data_facts(splits),
        "max_length": run.max_length,
        "targets": None if run.scale is None else asdict(run.scale),
        "steps": state.step,
        **({"skipped_steps": state.loss_scale.skipped} if state.loss_scale else {}),
        "epochs": state.epoch,
        "global_batch": global_batch(config, state.world.size),
        "best": {"step": best.step, "epoch": best.epoch, best.name: best.value},
        "saved": "best" if best.weights else "last",
        "baseline": {name: baseline(splits.train, split) for name, split in splits.scored.items()},
        "results": {name: finite_values(result) for name, result in final.items()},
        "intervals": {name: intervals(result, splits.labels.positive) for name, result in final.items()},
        "label_scores": {
            name: label_values(result, splits.labels.names or ())
            for name, result in final.items()
            if splits.labels.multi_label
        },
        "config": asdict(config),
        "hardware": hardware(run.device, state.world.size),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    }


def save_run(
    run: PreparedRun,
    final: Mapping[str, Evaluation],
    results: Mapping[str, Any],
    calibration: FittedCalibration | None = None,
) -> None:
    """Write the files of the finished run over those of an earlier one."""
    directory = run.directory
    try:
        card = _card_of(run, final, results)
        for name in (CALIBRATION, LABEL_ERRORS, REPORT):
            (directory / name).unlink(missing_ok=True)  # of an earlier model
        save_classifier(run.model, run.tokenizer, directory)
        save_calibration(directory, calibration, run.splits.labels)
        write_whole(directory / "README.md", model_card(card))
        write_predictions(directory, run.splits, final)
        write_whole(directory / RESULTS, json_text(as_json(results)))
        os.replace(directory / f"{LOG}.part", directory / LOG)
    except (OSError, SafetensorError) as error:  # usually a full disk
        raise MinitrainError(f"{directory}: the run is trained but cannot be saved ({error})") from error


def _card_of(run: PreparedRun, final: Mapping[str, Evaluation], results: Mapping[str, Any]) -> Card:
    config, splits, directory = run.config, run.splits, run.directory
    public = splits.commit is not None or config.train_file is None and config.dataset == "demo"
    asked = 3 if config.card_examples is None and public else config.card_examples or 0
    return Card(
        title=directory.resolve().name or "model",
        config=config,
        labels=splits.labels,
        results=results,
        final=final,
        loss=loss_line(run.loss, splits.labels.names),
        log=[json.loads(line) for line in logged_lines(directory)],
        examples=_examples(splits, final, asked),
    )


def _examples(splits: Splits, final: Mapping[str, Evaluation], count: int) -> list[dict[str, Any]]:
    """Records of a few short texts of the first evaluation split, of different labels if there are some."""
    if not count or not final:
        return []
    name, result = next(iter(final.items()))
    table = splits.texts[name]
    columns = [table.column(column) for column in splits.text_columns]
    rows = range(0, len(table), max(1, len(table) // LOOKED_AT))  # not all: there may be millions
    sizes = {row: sum(len(column[row]) for column in columns) for row in rows}
    short = sorted(rows, key=lambda row: (sizes[row] > SHORT or not sizes[row], row))
    labels = label_numbers(table, splits.label_column, splits.labels)
    first: dict[Any, int] = {}
    for row in short:
        first.setdefault(labels[row], row)
    chosen = [*first.values(), *(row for row in short if row not in first.values())][:count]
    return list(_records(splits, table, result.logits, sorted(chosen)))


def write_predictions(directory: Path, splits: Splits, final: Mapping[str, Evaluation]) -> None:
    """Write `predictions.jsonl`, or remove an earlier run's if nothing was scored.

    One JSON object per row, in the data's order: the split (if several), the file (if several), the row's number
    from 1, its texts, its label, the prediction (lists, if rows have several) and, for classes, the probabilities.
    """
    path = directory / PREDICTIONS
    if not final:
        path.unlink(missing_ok=True)
        return
    with whole_text_file(path) as file:
        for name, result in final.items():
            where = {"split": name} if len(final) > 1 else {}
            for record in _records(splits, splits.texts[name], result.logits):
                file.write(json.dumps(where | record, ensure_ascii=False) + "\n")


def _records(
    splits: Splits, table: Table, logits: Tensor, only: Sequence[int] | None = None
) -> Iterator[dict[str, Any]]:
    """The records of all rows, or of some of them."""
    labels, names = splits.labels, display_names(splits.labels.names or ())
    texts = {f"input_{name}" if name in KEYS else name: table.column(name) for name in splits.text_columns}
    true = label_numbers(table, splits.label_column, labels)
    places = [table.place(row) for row in range(len(table))]
    several = len({source for source, _ in places}) > 1
    rows = range(len(table)) if only is None else only
    chosen = logits if only is None else logits[list(only)]
    for row, answer in zip(rows, answers(chosen, labels), strict=True):
        (source, number), label = places[row], true[row]
        yield {
            **({"file": source} if several else {}),
            "row": number,
            **{key: values[row] for key, values in texts.items()},
            "label": true_label(label, names),
            "prediction": answer.pop(next(iter(answer))),  # its first value: label, labels or score
            **answer,
        }
