"""One side of a measurement in turns: works for a slice when it is told to, and reports how long that took.

`benchmarks/slices.py` runs this file with PYTHONPATH set to the checkout to measure. It uses public names of
minitrain only, so it runs older checkouts too. A line on standard input starts a slice; its seconds come back as a
line on standard output. The first slice warms up.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any


class Turns:
    """The end of a side that talks to `benchmarks/slices.py`."""

    def __init__(self, size: int) -> None:
        """size: Optimizer steps or evaluation batches in a slice."""
        self.size, self.done, self.start = size, 0, time.perf_counter()

    def count(self) -> None:
        """Call it after each step. At the end of a slice it reports and waits for the next turn."""
        self.done += 1
        if self.done % self.size == 0:
            print(f"seconds {time.perf_counter() - self.start}", flush=True)
            if not sys.stdin.readline():
                sys.exit(0)
            self.start = time.perf_counter()

    def on_step(self, log: Any) -> None:
        """Count a step, as the observer of `fit`."""
        self.count()

    def on_evaluation(self, *args: Any) -> None:
        """Nothing is evaluated while training."""


def prepare(settings: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The configuration, the tokenized data and the model of a run, the same on every side."""
    import torch

    from minitrain import TrainConfig, load_classifier, load_splits, load_tokenizer

    names = ("model", "dataset", "subset", "per_device_train_batch_size", "bf16")
    config = TrainConfig(
        **{name: settings[name] for name in names} | settings.get("flags", {}),
        max_steps=10_000,
        eval_strategy="no",
        device="cpu",
    )
    data = load_splits(config.dataset, config.subset, tokenizer=load_tokenizer(config.model))
    torch.manual_seed(config.seed)
    return config, data, load_classifier(config.model, label_names=data.labels.names)


def train(settings: dict[str, Any], turns: Turns) -> None:
    """minitrain's loop, with its defaults."""
    from minitrain import fit

    config, data, model = prepare(settings)
    rows = settings.get("rows")
    fit(model, data.train if rows is None else data.train[:rows], {}, config, observer=turns)


def evaluate(settings: dict[str, Any], turns: Turns) -> None:
    """minitrain's evaluation of 32 rows at a time, one split after the other."""
    from minitrain import predict

    config, data, model = prepare(settings)
    rows = data.train[: 32 * turns.size]
    while True:
        predict(model, rows, batch_size=32, bf16=config.bf16, pad_to_multiple_of=config.pad_to_multiple_of)
        for _ in range(turns.size):
            turns.count()


def make_trainer(settings: dict[str, Any], turns: Turns) -> tuple[Any, list[dict[str, Any]]]:
    """transformers' Trainer and the training rows. In bf16 with its fastest flags, else with its defaults."""
    import transformers
    from transformers import TrainingArguments

    from minitrain import load_tokenizer, save_classifier

    class Callback(transformers.TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            turns.count()

    config, data, model = prepare(settings)
    names = ("input_ids", "token_type_ids", "label")
    rows = [{name: getattr(example, name) for name in names} for example in data.train[:]]
    fastest: dict[str, Any] = {"bf16": True, "train_sampling_strategy": "group_by_length"}
    folder = tempfile.mkdtemp()
    save_classifier(model, load_tokenizer(config.model), folder)
    trainer = transformers.Trainer(
        transformers.AutoModelForSequenceClassification.from_pretrained(folder),
        TrainingArguments(
            folder,
            per_device_train_batch_size=config.per_device_train_batch_size,
            max_steps=config.max_steps,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            **(fastest if config.bf16 else {}),
        ),
        data_collator=transformers.DataCollatorWithPadding(transformers.AutoTokenizer.from_pretrained(folder)),
        train_dataset=rows,
        callbacks=[Callback()],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer, rows


def train_by_trainer(settings: dict[str, Any], turns: Turns) -> None:
    """Trainer's loop."""
    make_trainer(settings, turns)[0].train()


def evaluate_by_trainer(settings: dict[str, Any], turns: Turns) -> None:
    """Trainer's evaluation of its default 8 rows at a time."""
    trainer, rows = make_trainer(settings, turns)
    while True:
        trainer.predict(rows[: 32 * turns.size])
        for _ in range(turns.size):
            turns.count()


WORK: dict[str, Callable[[dict[str, Any], Turns], None]] = {
    "train": train,
    "evaluate": evaluate,
    "train by Trainer": train_by_trainer,
    "evaluate by Trainer": evaluate_by_trainer,
}


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    WORK[given["work"]](given, Turns(given["slice"]))
