"""Run by torchrun in two processes: what Trainer and accelerate do there, printed as one JSON object by rank 0.

Arguments: the folder of a tiny model without dropout, one to write to, and a JSON file of tokenized rows.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    get_scheduler,
)


def main(folder: str, scratch: str, data: str) -> None:
    rows = json.loads(Path(data).read_text(encoding="utf-8"))
    torch.manual_seed(42)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, dtype=torch.float32)
    arguments = TrainingArguments(
        scratch,
        use_cpu=True,
        ddp_backend="gloo",
        per_device_train_batch_size=4,
        per_device_eval_batch_size=2,
        max_steps=1,
        logging_steps=1,
        learning_rate=0.0,  # the weights stay, so that the evaluation is of the same model
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    pad = DataCollatorWithPadding(AutoTokenizer.from_pretrained(folder))
    trainer = Trainer(
        model, arguments, data_collator=pad, train_dataset=rows["train"], eval_dataset=rows["validation"]
    )
    trainer.train()
    first: dict[str, Any] = trainer.state.log_history[0]
    evaluated = trainer.evaluate()

    accelerator = trainer.accelerator
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    prepared, scheduler, _ = accelerator.prepare(
        optimizer, get_scheduler("linear", optimizer, 0, 10), DataLoader(rows["train"], collate_fn=pad)
    )
    weight.grad = torch.zeros(1)
    accelerator.gradient_state._set_sync_gradients(True)
    prepared.step()
    scheduler.step()

    if trainer.is_world_process_zero():
        found = {
            "processes": arguments.world_size,
            "loss": first["loss"],
            "grad_norm": first["grad_norm"],
            "eval_loss": evaluated["eval_loss"],
            "learning_rate_after_one_step": scheduler.get_last_lr()[0],
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
