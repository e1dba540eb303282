"""The side of transformers' Trainer, with every flag that both have."""

import tempfile
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from minitrain.config.freezing import has_layer_rates
from minitrain.config.train_config import TrainConfig
from references.layer_groups import LayerRatesTrainer
from references.record import Record
from references.reference import Reference, finish, prepare

OWN = {
    "output_dir",
    "logging_steps",
    "load_best_model_at_end",
    "metric_for_best_model",
    "gradient_checkpointing",  # today's name of theirs is another
    "greater_is_better",
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "report_to",
    "project",
}


class WeightedTrainer(Trainer):
    """The subclass that the documentation of Trainer gives for class weights."""

    weight: Tensor

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        logits = outputs.get("logits")
        weight = self.weight.to(logits.device)
        loss_fct = nn.CrossEntropyLoss(weight=weight, label_smoothing=self.args.label_smoothing_factor)
        loss = loss_fct(logits.view(-1, model.config.num_labels), labels.view(-1))
        return (loss, outputs) if return_outputs else loss


def class_weights(config: TrainConfig, reference: Reference) -> Tensor:
    """(C,) float32, by scikit-learn or by the names of the classes."""
    assert reference.class_names is not None
    if isinstance(config.class_weights, dict):
        return torch.tensor([config.class_weights[name] for name in reference.class_names])
    classes = numpy.arange(len(reference.class_names))
    weights = compute_class_weight(config.class_weights, classes=classes, y=numpy.array(reference.train["label"]))
    return torch.tensor(weights, dtype=torch.float32)


class Recorder(TrainerCallback):
    """Records what Trainer logs: every step, by `logging_steps=1`."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.record.step(logs["loss"], logs["grad_norm"], logs["learning_rate"])

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called once per split; keys contain the split's name: eval_validation_loss."""
        metrics = kwargs["metrics"]
        split = next(name for name in metrics if name.endswith("_loss")).removeprefix("eval_").removesuffix("_loss")
        values = {name.removeprefix(f"eval_{split}_"): value for name, value in metrics.items()}
        skipped = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "epoch")
        kept = {name: value for name, value in values.items() if name not in skipped}
        self.record.evaluations.append({"step": state.global_step, "split": split, **kept})


def arguments(config: TrainConfig, folder: str, use_cpu: bool) -> TrainingArguments:
    """The flags that both have, by the same name."""
    theirs = {spec.name for spec in fields(TrainingArguments)} - OWN
    return TrainingArguments(
        folder,
        **{spec.name: getattr(config, spec.name) for spec in fields(config) if spec.name in theirs},
        activation_checkpointing=config.gradient_checkpointing,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=use_cpu,
        dataloader_pin_memory=not use_cpu,
    )


def run(config: TrainConfig, folder: Path) -> None:
    """Train as `config` says and write the record."""
    record = Record(folder)
    reference = prepare(config, record)
    with tempfile.TemporaryDirectory() as scratch:
        rated = LayerRatesTrainer if has_layer_rates(config) else Trainer
        bases = (WeightedTrainer, rated) if config.class_weights else (rated,)
        trainer = type("ReferenceTrainer", bases, {"settings": config})(
            reference.model,
            arguments(config, scratch, use_cpu=reference.device.type == "cpu"),
            data_collator=reference.collator,
            train_dataset=reference.train,
            eval_dataset=reference.evaluation,
            compute_metrics=reference.compute_metrics,
            callbacks=[Recorder(record)],
        )
        if isinstance(trainer, WeightedTrainer):
            trainer.weight = class_weights(config, reference)
        trainer.remove_callback(PrinterCallback)
        started = time.perf_counter()
        trainer.train()
        record.seconds = time.perf_counter() - started
        for name, data in reference.scored.items():
            logits: Any = trainer.predict(data).predictions
            record.tensors[f"predictions/{name}"] = torch.from_numpy(logits)
    finish(record, reference.model)
