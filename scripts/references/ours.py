"""minitrain's side: the run of `train.py` without saving, with everything recorded."""

import time
from pathlib import Path

from torch import Tensor

from minitrain.config.train_config import TrainConfig
from minitrain.data.batch import collate
from minitrain.kernels.precision import autocast, compute_dtype, device_of
from minitrain.model.weights import reference_names
from minitrain.run.prepare import PreparedRun, prepare
from minitrain.training.evaluation import Evaluation, predict
from minitrain.training.loop import StepLog, fit
from minitrain.training.loss import loss_of
from references.record import Record


class Recorder:
    """The observer of `fit` that records every float."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def on_step(self, log: StepLog) -> None:
        self.record.step(log.loss, log.grad_norm, log.learning_rate)

    def on_evaluation(self, step: int, epoch: float, results: dict[str, Evaluation], is_best: bool) -> None:
        for split, result in results.items():
            self.record.evaluations.append({"step": step, "split": split, **result.values})


def first_batch(record: Record, prepared: PreparedRun, names: dict[str, str]) -> None:
    """Logits and gradients of the first rows, before anything is trained."""
    train, config = prepared.splits.train, prepared.config
    rows = range(min(len(train), config.per_device_train_batch_size))
    device = device_of(prepared.model)
    examples = [train[row] for row in rows]
    pad, side = prepared.tokenizer.pad_token_id, prepared.tokenizer.padding_side
    batch = collate(examples, pad, config.pad_to_multiple_of, padding_side=side).to(device)

    def forward() -> tuple[Tensor, Tensor]:
        assert batch.labels is not None
        logits = prepared.model(**batch.inputs)
        total, count = loss_of(logits, batch.labels)
        return logits, total / count

    record.first_batch(prepared.model, forward, autocast(device, compute_dtype(config)), names)


def run(config: TrainConfig, folder: Path) -> None:
    """Train as `config` says and write the record."""
    record = Record(folder)
    prepared = prepare(config)
    splits, model = prepared.splits, prepared.model
    names = reference_names(model)
    for name, split in {"train": splits.train, **splits.scored}.items():
        examples = [split[row] for row in range(len(split))]
        record.tokens(name, [e.input_ids for e in examples], [e.token_type_ids for e in examples])
    first_batch(record, prepared, names)
    record.watch(model)
    pad = prepared.tokenizer.pad_token_id
    started = time.perf_counter()
    fit(
        model,
        splits.train,
        splits.evaluation,
        config,
        new_metric=prepared.new_metric,
        observer=Recorder(record),
        pad_token_id=pad,
    )
    record.seconds = time.perf_counter() - started
    for name, split in splits.scored.items():
        record.tensors[f"predictions/{name}"] = predict(
            model,
            split,
            batch_size=config.per_device_eval_batch_size,
            order=config.eval_order,
            bf16=config.bf16,
            pad_token_id=pad,
            pad_to_multiple_of=config.pad_to_multiple_of,
        )
    for name, own in names.items():
        record.tensors[f"weights/{name}"] = model.get_parameter(own)
    record.save()
