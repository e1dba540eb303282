"""One side of `benchmarks/memory.py`, in its own process: a few training steps, then the end.

The system counts the memory; nothing is measured here.
"""

import json
import sys
import tempfile
from typing import Any


def main(side: str, settings: dict[str, Any]) -> None:
    """Train with "ours" or "trainer"; `settings` are flags of train.py that both have, and the files."""
    {"ours": _ours, "trainer": _trainer}[side](settings)


def _ours(settings: dict[str, Any]) -> None:
    from minitrain.config.train_config import TrainConfig
    from minitrain.run.main import train

    with tempfile.TemporaryDirectory() as folder:
        train(TrainConfig(**settings, eval_strategy="no", report=False, device="cpu", output_dir=folder))


def _trainer(settings: dict[str, Any]) -> None:
    """What a user of transformers writes, with the same flags."""
    from datasets import load_dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    model, file, length = (settings.pop(name) for name in ("model", "train_file", "max_length"))
    settings["activation_checkpointing"] = settings.pop("gradient_checkpointing")
    del settings["text_columns"]
    tokenizer = AutoTokenizer.from_pretrained(model)
    data = load_dataset("json", data_files=file, split="train")
    data = data.map(lambda rows: tokenizer(rows["text"], truncation=True, max_length=length), batched=True)
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            AutoModelForSequenceClassification.from_pretrained(model, num_labels=2),
            TrainingArguments(folder, save_strategy="no", report_to="none", use_cpu=True, **settings),
            train_dataset=data,
            data_collator=DataCollatorWithPadding(tokenizer),
        ).train()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
