"""What a finished run leaves in its folder: the model, README.md, predictions.jsonl, results.json and log.jsonl."""

import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from minitrain.config.read_options import files_shown
from minitrain.config.train_config import TrainConfig
from minitrain.data.dataset import Splits
from minitrain.data.labels.ids import Labels, display_names
from minitrain.data.labels.notes import plain
from minitrain.data.labels.numbered import label_numbers
from minitrain.data.tables.table import Table
from minitrain.errors import MinitrainError
from minitrain.model.freezing import count_parameters
from minitrain.model.weights import save_classifier
from minitrain.run.answers import answers, true_label
from minitrain.run.calibration import FittedCalibration, save_calibration
from minitrain.run.data_facts import data_facts
from minitrain.run.prepare import LIBRARIES, PreparedRun
from minitrain.run.report import as_json, finite_values, label_values
from minitrain.run.run_folder import CALIBRATION, LABEL_ERRORS, LOG, PREDICTIONS, RESULTS
from minitrain.storage.files import json_text, whole_text_file, write_whole
from minitrain.training.evaluation import Evaluation, baseline
from minitrain.training.metrics import OF_POSITIVE
from minitrain.training.own_loss import name_of
from minitrain.training.run_loss import loss_line, weights_by_name
from minitrain.training.setup import Best, global_batch
from minitrain.training.step import TrainState

DEMO_MODEL = "sentence-transformers/all-MiniLM-L6-v2"  # where the embedded weights come from
SHOWN = 100  # names of classes
BODY = """
# {title}

`{config.model}` fine-tuned on `{dataset}` with minitrain: {steps} steps, learning rate {rate}, batch size
{batch_size}, seed {config.seed}.

Labels: {labels}.{loss}

```python
from transformers import pipeline

classify = pipeline("text-classification", "path/to/this/folder")
```
"""
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
        "label_scores": {
            name: label_values(result, splits.labels.names or ())
            for name, result in final.items()
            if splits.labels.multi_label
        },
        "config": asdict(config),
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
    how = loss_line(run.loss, run.splits.labels.names)
    card = model_card(run.config, run.splits.labels, results["steps"], final, directory.name, how)
    try:
        for name in (CALIBRATION, LABEL_ERRORS):
            (directory / name).unlink(missing_ok=True)  # of an earlier model
        save_classifier(run.model, run.tokenizer, directory)
        save_calibration(directory, calibration, run.splits.labels)
        write_whole(directory / "README.md", card)
        write_predictions(directory, run.splits, final)
        write_whole(directory / RESULTS, json_text(as_json(results)))
        os.replace(directory / f"{LOG}.part", directory / LOG)
    except (OSError, SafetensorError) as error:  # usually a full disk
        raise MinitrainError(f"{directory}: the run is trained but cannot be saved ({error})") from error


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


def _records(splits: Splits, table: Table, logits: Tensor) -> Iterator[dict[str, Any]]:
    labels, names = splits.labels, display_names(splits.labels.names or ())
    texts = {f"input_{name}" if name in KEYS else name: table.column(name) for name in splits.text_columns}
    true = label_numbers(table, splits.label_column, labels)
    places = [table.place(row) for row in range(len(table))]
    several = len({source for source, _ in places}) > 1
    rows = zip(places, true, answers(logits, labels), strict=True)
    for row, ((source, number), label, answer) in enumerate(rows):
        yield {
            **({"file": source} if several else {}),
            "row": number,
            **{key: values[row] for key, values in texts.items()},
            "label": true_label(label, names),
            "prediction": answer.pop(next(iter(answer))),  # its first value: label, labels or score
            **answer,
        }


def model_card(
    config: TrainConfig,
    labels: Labels,
    steps: int,
    results: Mapping[str, Evaluation],
    title: str,
    loss: str | None = None,
) -> str:
    """The text of README.md: YAML front matter with one EvalResult a split and metric, then a description."""
    from huggingface_hub import EvalResult, ModelCardData

    positive = labels.positive_label
    data_type = files_shown(config.train_file) or config.dataset or "unknown"
    dataset = " ".join(filter(None, (data_type, config.subset)))
    evaluations = [
        EvalResult(
            task_type="text-classification",
            dataset_type=data_type,
            dataset_name=dataset,
            dataset_config=config.subset,
            dataset_split=split,
            metric_type=name,
            metric_name=_of_positive(name, positive) if name not in result.own else None,
            metric_value=value,
        )
        for split, result in results.items()
        for name, value in result.metrics.items()
        if value == value  # NaN is no result
    ]
    # Only a name on the Hub means something to its readers.
    base = DEMO_MODEL if config.model == "demo" else None if Path(config.model).exists() else config.model
    data = ModelCardData(
        base_model=base,
        library_name="transformers",
        pipeline_tag="text-classification",
        model_name=title,
        eval_results=evaluations or None,
    )
    size = config.per_device_train_batch_size * config.gradient_accumulation_steps
    text = {"title": title, "dataset": dataset, "labels": _named(labels, results), "steps": steps}
    text["loss"] = "" if loss is None else f" Trained with {plain(loss)}."
    body = BODY.format(config=config, rate=config.learning_rate, batch_size=size, **text)
    return f"---\n{data.to_yaml()}\n---\n{body}"


def _of_positive(name: str, positive: str | None) -> str | None:
    """f1 -> F1 of spam, roc_auc -> Roc auc of spam; None for a metric of all classes."""
    if positive is None or name not in OF_POSITIVE:
        return None
    return f"{name.replace('_', ' ').capitalize()} of {plain(positive)}"


def _named(labels: Labels, results: Mapping[str, Evaluation]) -> str:
    if labels.names is None:
        return "a score"
    names = [plain(name) for name in display_names(labels.names)]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    more += ", any number of them a text" if labels.multi_label else ""
    without_f1 = results and not any("f1" in result.metrics for result in results.values())
    f1 = "" if labels.positive_label is None or without_f1 else f"; F1 is of {plain(labels.positive_label)}"
    return f"{', '.join(names[:SHOWN])}{more}{f1}"
