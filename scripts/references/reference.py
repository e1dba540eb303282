"""Shared by the transformers sides: checkpoint, rows tokenized by AutoTokenizer, and metrics.

Only the raw texts and labels come from minitrain, so that both sides read the same rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar as disable_progress_bars
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    matthews_corrcoef,
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    root_mean_squared_error,
)
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    set_seed,
)
from transformers.utils import logging as transformers_logging

from minitrain.config.train_config import TrainConfig
from minitrain.data.labels.numbered import label_numbers
from minitrain.data.splits import TextSplits
from minitrain.data.tables.table import Table
from minitrain.distributed.device import choose_device
from minitrain.distributed.world import world_from_environment
from minitrain.errors import MinitrainError
from minitrain.model.weights import read_config, trained_labels
from minitrain.run.prepare import rows_of
from minitrain.storage.hub import resolve_model
from minitrain.training.metrics import metric_for
from references import layer_groups
from references.record import Record

# Metrics of several labels a row, from logits and 0 or 1 for each label; a logit above 0 predicts the label.
OF_SEVERAL: dict[str, Callable[[Any, Any], Any]] = {
    "micro_f1": lambda x, y: f1_score(y, x > 0, average="micro", zero_division=0.0),
    "macro_f1": lambda x, y: f1_score(y, x > 0, average="macro", zero_division=0.0),
    "samples_f1": lambda x, y: f1_score(y, x > 0, average="samples", zero_division=0.0),
    "subset_accuracy": lambda x, y: accuracy_score(y, x > 0),
    "average_precision": lambda x, y: average_precision_score(y, x),
}
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")


@dataclass(frozen=True)
class Reference:
    """A model with a new head, its data and its metrics, as a user of transformers has them."""

    model: nn.Module
    collator: DataCollatorWithPadding
    train: Dataset
    evaluation: dict[str, Dataset]
    scored: dict[str, Dataset]
    metrics: Callable[[Any, Any], dict[str, float]]
    device: torch.device
    class_names: tuple[str, ...] | None

    def compute_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        """The callback of Trainer."""
        return self.metrics(prediction.predictions, prediction.label_ids)


def prepare(config: TrainConfig, record: Record) -> Reference:
    """Tokenize, draw the head from the seed, record tokens and the first batch; nothing is drawn after it."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    source = resolve_model(config.model, config.model_revision)
    rows = rows_of(config, source)
    tokenizer = AutoTokenizer.from_pretrained(source)
    limit = config.max_length or min(tokenizer.model_max_length, read_config(source).max_length)

    def dataset(table: Table) -> Dataset:
        columns = {f"text_{i}": list(table.column(name)) for i, name in enumerate(rows.text_columns)}
        labels: Any = label_numbers(table, rows.label_column, rows.labels)
        if rows.labels.multi_label:  # Trainer wants 0.0 and 1.0 for each class: integers are an error
            labels = [[float(i in ids) for i in range(rows.labels.num_labels)] for ids in labels]
        data = Dataset.from_dict({**columns, "label": labels})
        return data.map(
            lambda row: tokenizer(*(row[name] for name in columns), truncation=True, max_length=limit),
            batched=True,
            remove_columns=list(columns),
            new_fingerprint="tokenized",  # hashing the tokenizer for it takes a second
        )

    train = dataset(rows.train)
    scored = {name: dataset(table) for name, table in (rows.evaluation | rows.test).items()}
    for name, data in {"train": train, **scored}.items():
        ids = data["input_ids"]
        typed = "token_type_ids" in data.column_names  # some families' tokenizers give none
        record.tokens(name, ids, data["token_type_ids"] if typed else [[0] * len(row) for row in ids])
    trained = trained_labels(source)
    if config.new_head and trained is not None and len(trained) == rows.labels.num_labels:
        raise MinitrainError(
            "--new_head: the trained head has as many outputs as the data need, and transformers keeps it then: "
            "there is nothing to compare"
        )
    dropouts = {name: getattr(config, name) for name in DROPOUTS if getattr(config, name) is not None}
    set_seed(config.seed)
    loaded = AutoModelForSequenceClassification.from_pretrained(
        source,
        num_labels=rows.labels.num_labels,
        problem_type=rows.labels.problem_type,
        ignore_mismatched_sizes=config.new_head,
        dtype=torch.float32,
        **dropouts,
    )
    model = copied(loaded)
    layer_groups.freeze(model, config)
    reference = Reference(
        model=model,
        collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=config.pad_to_multiple_of),
        train=train,
        evaluation={name: scored[name] for name in rows.evaluation},
        scored=scored,
        metrics=_metrics(rows),
        device=choose_device(config.device, world_from_environment()),
        class_names=rows.labels.names,
    )
    _first_batch(record, reference, config)
    record.watch(model)
    return reference


def copied(model: Any) -> Any:
    """Copy each parameter into memory of PyTorch's, which is aligned to 64 bytes.

    transformers keeps weights in the mapped file, aligned to 4 bytes. With AVX2, MKL's matrix-vector products round
    differently there, so that the length of the file's header changes results.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


def _first_batch(record: Record, reference: Reference, config: TrainConfig) -> None:
    model = reference.model.to(reference.device)
    rows = range(min(len(reference.train), config.per_device_train_batch_size))
    batch: Any = reference.collator([reference.train[row] for row in rows])
    batch = batch.to(reference.device)

    def forward() -> tuple[Tensor, Tensor]:
        output = model(**batch)
        return output.logits, output.loss

    kind = reference.device.type
    record.first_batch(model, forward, torch.autocast(kind, dtype=torch.bfloat16, enabled=config.bf16))


def _metrics(rows: TextSplits) -> Callable[[Any, Any], dict[str, float]]:
    """The formulas of `evaluate`'s glue metric (0.4.6), which are scikit-learn's and scipy's, by our names."""
    positive = rows.labels.positive
    formulas: dict[str, Callable[[Any, Any], Any]] = {
        "accuracy": lambda predictions, labels: accuracy_score(labels, predictions),
        "f1": lambda predictions, labels: f1_score(labels, predictions, pos_label=positive),
        "macro_f1": lambda predictions, labels: f1_score(labels, predictions, average="macro"),
        "matthews_correlation": lambda predictions, labels: matthews_corrcoef(labels, predictions),
        "pearson": lambda predictions, labels: pearsonr(predictions, labels)[0],
        "spearmanr": lambda predictions, labels: spearmanr(predictions, labels)[0],
        "mse": lambda predictions, labels: mean_squared_error(labels, predictions),
        "rmse": lambda predictions, labels: root_mean_squared_error(labels, predictions),
        "mae": lambda predictions, labels: mean_absolute_error(labels, predictions),
        "r2": lambda predictions, labels: r2_score(labels, predictions),
    }
    names = metric_for(rows.task, rows.labels.num_classes, positive, multi_label=rows.labels.multi_label).names
    if rows.labels.multi_label:
        return lambda logits, labels: {name: float(OF_SEVERAL[name](logits, labels)) for name in names}

    def compute(logits: Any, labels: Any) -> dict[str, float]:
        predictions = logits[:, 0] if rows.labels.names is None else numpy.argmax(logits, axis=-1)
        return {name: float(formulas[name](predictions, labels)) for name in names}

    return compute


def finish(record: Record, model: nn.Module) -> None:
    """Record the trained weights and write the record."""
    for name, parameter in model.named_parameters():
        record.tensors[f"weights/{name}"] = parameter
    record.save()
