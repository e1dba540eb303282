"""The side of accelerate's example, examples/nlp_example.py of 1.15, unchanged except for the flags' settings.

The example computes no evaluation loss and no gradient norm; the norm is measured here without changing gradients.
"""

import math
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import AdamW
from torch.utils.data import DataLoader
from transformers import get_scheduler

from minitrain.config.train_config import TrainConfig
from references.record import Record
from references.reference import Reference, finish, prepare


def logits_of(accelerator: Accelerator, model: nn.Module, loader: DataLoader) -> tuple[Tensor, Tensor]:
    """The example's evaluation loop: logits and labels of all rows."""
    model.eval()
    gathered = []
    for batch in loader:
        with torch.no_grad():
            outputs = model(**batch)
        gathered.append(accelerator.gather_for_metrics((outputs.logits, batch["labels"])))
    return torch.cat([logits for logits, _ in gathered]), torch.cat([labels for _, labels in gathered])


def evaluate(
    accelerator: Accelerator, model: nn.Module, loaders: dict[str, Any], reference: Reference, record: Record
) -> None:
    """Score every evaluation split, as after each epoch."""
    for split in reference.evaluation:
        logits, labels = logits_of(accelerator, model, loaders[split])
        values = reference.metrics(logits.float().cpu().numpy(), labels.cpu().numpy())
        record.evaluations.append({"step": len(record.steps), "split": split, **values})


def run(config: TrainConfig, folder: Path) -> None:
    """Train as `config` says and write the record."""
    record = Record(folder)
    reference = prepare(config, record)
    on_cpu = reference.device.type == "cpu"
    accelerator = Accelerator(cpu=on_cpu, mixed_precision="bf16" if config.bf16 else "no")
    loader = DataLoader(
        reference.train,
        shuffle=True,
        collate_fn=reference.collator,
        batch_size=config.per_device_train_batch_size,
        drop_last=True,
    )
    loaders = {
        name: accelerator.prepare(
            DataLoader(
                data,
                shuffle=False,
                collate_fn=reference.collator,
                batch_size=config.per_device_eval_batch_size,
            )
        )
        for name, data in reference.scored.items()
    }
    optimizer = AdamW(
        params=reference.model.parameters(),
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        weight_decay=config.weight_decay,
    )
    total = config.max_steps if config.max_steps > 0 else int(config.num_train_epochs) * len(loader)
    warmup = config.warmup_steps if config.warmup_steps >= 1 else math.ceil(total * config.warmup_steps)
    scheduler = get_scheduler(config.lr_scheduler_type, optimizer, int(warmup), total)
    model, optimizer, loader, scheduler = accelerator.prepare(reference.model, optimizer, loader, scheduler)
    started = time.perf_counter()
    while len(record.steps) < total:
        model.train()
        for batch in loader:
            loss = model(**batch).loss
            accelerator.backward(loss)
            gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            learning_rate = scheduler.get_last_lr()[0]
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            record.step(loss.item(), norm.item(), learning_rate)
            if len(record.steps) == total:
                break
        if config.eval_strategy == "epoch":
            evaluate(accelerator, model, loaders, reference, record)
    record.seconds = time.perf_counter() - started
    for name in reference.scored:
        record.tensors[f"predictions/{name}"] = logits_of(accelerator, model, loaders[name])[0].float()
    finish(record, reference.model)
