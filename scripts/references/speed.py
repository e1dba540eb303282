"""One side of a speed measurement, in its own process: times training steps, evaluation and prediction.

Prints a JSON object as its last line. `benchmark.py` runs the sides in turn.
"""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIDES = ("ours-fp32", "ours-bf16", "trainer", "trainer-best", "pipeline")
IN_BF16 = ("ours-bf16", "trainer-best")


def main(side: str, started: float, settings: dict[str, Any]) -> None:
    """Measure a side; `started` is the Unix time of its start, `settings` are flags of train.py and `warmup`."""
    warmup = settings.pop("warmup")
    measure = {"ours": _ours, "trainer": _trainer, "pipeline": _pipeline, "growth": _growth}[side.split("-")[0]]
    result = measure(side, settings, warmup)
    if "first_step" in result:
        result["startup_seconds"] = result.pop("first_step") - started
    result["peak_memory_mb"] = _peak_memory_mb()
    print(json.dumps(result))


def _peak_memory_mb() -> float:
    from minitrain.run.peak_memory import peak_memory_mb

    return peak_memory_mb()


def _peak_memory_of_children_mb() -> float:
    """Of the largest child process that has ended."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6


def _gpu_memory(device: str) -> dict[str, float]:
    """Peak memory of tensors on a GPU."""
    import torch

    return {"gpu_peak_memory_mb": torch.cuda.max_memory_allocated() / 1e6} if device == "cuda" else {}


def _speed(times: list[float], losses: list[float], batch_size: int, warmup: int) -> dict[str, Any]:
    """Speed and mean loss; `times` are Unix times after each step."""
    return {
        "first_step": times[0],
        "train_examples_per_second": batch_size * (len(times) - 1 - warmup) / (times[-1] - times[warmup]),
        "loss": sum(losses) / len(losses),
    }


class Times:
    """The observer of `fit` that records times."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.logs: list[Any] = []
        self.private_memory_mb = 0.0

    def on_step(self, log: Any) -> None:
        self.times.append(time.time())
        self.logs.append(log)
        self.private_memory_mb = max(self.private_memory_mb, _private_memory_mb())

    def on_evaluation(self, *args: Any) -> None:
        """No evaluation is measured here."""


def _rate(model: Any, times: Times, warmup: int) -> float:
    """FLOP/s of matrix multiplications after the warm-up."""
    from minitrain.run.profile import training_flops

    flops = sum(training_flops(model, *shape) for log in times.logs[warmup + 1 :] for shape in log.shapes)
    return flops / (times.times[-1] - times.times[warmup])


def _private_memory_mb() -> float:
    """Resident anonymous memory, which the system cannot reclaim; 0 if unknown."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def _prepared(config: Any) -> Any:
    """Prepare a run as train.py does: a process reads the data while this one imports torch."""
    from minitrain.data.gc_pause import gc_paused
    from minitrain.run.load_data import prefetching

    with prefetching(config) as prefetcher:
        with gc_paused(for_good=True):
            from minitrain.run.prepare import prepare

        return prepare(config, prefetcher=prefetcher)


def _growth(side: str, settings: dict[str, Any], warmup: int) -> dict[str, Any]:
    """minitrain alone on a file of rows, as train.py runs it; `settings` includes the token cache's folder."""
    from minitrain.config.train_config import TrainConfig

    os.environ["MINITRAIN_CACHE"] = settings.pop("cache")
    settings["text_columns"] = tuple(settings["text_columns"])
    config, times = TrainConfig(**settings, eval_strategy="no", do_eval=True), Times()
    start = time.perf_counter()
    parts = _prepared(config)
    prepared = time.perf_counter() - start
    from minitrain.training.loop import fit

    fit(parts.model, parts.splits.train, {}, config, observer=times, pad_token_id=parts.tokenizer.pad_token_id)
    result = _speed(times.times, [log.loss for log in times.logs], config.per_device_train_batch_size, warmup)
    del result["first_step"]
    return {
        **result,
        # Examples per second depend on the lengths of the few rows that these steps see.
        "train_gflops_per_second": _rate(parts.model, times, warmup) / 1e9,
        "prepare_seconds": prepared,
        "private_memory_mb": times.private_memory_mb,
        "reading_memory_mb": _peak_memory_of_children_mb(),
    }


def _ours(side: str, settings: dict[str, Any], warmup: int) -> dict[str, Any]:
    from minitrain.config.train_config import TrainConfig

    config = TrainConfig(**settings, bf16=side.endswith("bf16"), eval_strategy="no", do_eval=True)
    parts, times = _prepared(config), Times()
    from minitrain.data.load import tokenize
    from minitrain.kernels.precision import compute_dtype, device_of
    from minitrain.run.prepare import rows_of
    from minitrain.run.profile import matrix_ceiling
    from minitrain.storage.hub import resolve_model
    from minitrain.training.evaluation import predict
    from minitrain.training.loop import fit

    while_reading = _peak_memory_mb() + _peak_memory_of_children_mb()
    pad = parts.tokenizer.pad_token_id
    start = time.perf_counter()
    fit(parts.model, parts.splits.train, {}, config, observer=times, pad_token_id=pad)
    training_seconds = time.perf_counter() - start
    batch_size = config.per_device_train_batch_size
    result = _speed(times.times, [log.loss for log in times.logs], batch_size, warmup)
    result["training_seconds"] = training_seconds
    result["train_peak_memory_mb"] = max(_peak_memory_mb(), while_reading)
    result |= _gpu_memory(config.device)
    ceiling = matrix_ceiling(compute_dtype(config), device_of(parts.model))
    result["ceiling_share"] = _rate(parts.model, times, warmup) / ceiling
    split = next(iter(parts.splits.scored.values()))
    options: dict[str, Any] = {
        "bf16": config.bf16,
        "pad_token_id": pad,
        "pad_to_multiple_of": config.pad_to_multiple_of,
    }
    result["evaluate_examples_per_second"] = len(split) / _seconds(lambda: predict(parts.model, split, **options))
    rows = rows_of(config, resolve_model(config.model, config.model_revision))
    table = next(iter((rows.evaluation | rows.test).values()))

    def label_texts() -> None:
        fresh = tokenize(table, parts.tokenizer, rows.text_columns, max_length=parts.max_length)
        predict(parts.model, fresh, **options).argmax(-1)

    result["predict_examples_per_second"] = len(table) / _seconds(label_texts)
    return result


def _trainer(side: str, settings: dict[str, Any], warmup: int) -> dict[str, Any]:
    """What a user of transformers writes; only the texts and labels are read by minitrain."""
    import torch
    from datasets import Dataset
    from transformers import (
        AutoConfig,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        PrinterCallback,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    from minitrain.config.train_config import TrainConfig
    from minitrain.data.labels.numbered import label_numbers
    from minitrain.run.prepare import rows_of
    from minitrain.storage.hub import resolve_model

    class TrainerTimes(TrainerCallback):
        def __init__(self) -> None:
            self.times: list[float] = []
            self.losses: list[float] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            # A GPU still computes here; wait for it at the steps whose time is used.
            if config.device == "cuda" and state.global_step in (1, warmup + 1, args.max_steps):
                torch.cuda.synchronize()
            self.times.append(time.time())

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            self.losses += [logs["loss"]] if "loss" in logs else []

    config = TrainConfig(**settings, eval_strategy="no", do_eval=True)
    source = str(resolve_model(config.model))
    rows = rows_of(config, Path(source))  # the rows alone: texts and labels
    tokenizer = AutoTokenizer.from_pretrained(source)
    longest = min(tokenizer.model_max_length, AutoConfig.from_pretrained(source).max_position_embeddings)

    def dataset(table: Any) -> Dataset:
        columns = {f"text_{i}": table.column(name)[:] for i, name in enumerate(rows.text_columns)}
        data = Dataset.from_dict({**columns, "label": label_numbers(table, rows.label_column, rows.labels)})
        names = list(columns)
        return data.map(
            lambda some: tokenizer(*(some[name] for name in names), truncation=True, max_length=longest),
            batched=True,
            remove_columns=names,
        )

    fastest: dict[str, Any] = {"bf16": True, "train_sampling_strategy": "group_by_length"}
    torch.manual_seed(config.seed)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            AutoModelForSequenceClassification.from_pretrained(source, num_labels=rows.labels.num_labels),
            TrainingArguments(
                scratch,
                per_device_train_batch_size=config.per_device_train_batch_size,
                max_steps=config.max_steps,
                logging_steps=config.max_steps,  # one line, of the mean
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=config.device == "cpu",
                dataloader_pin_memory=config.device == "cuda",
                **(fastest if side == "trainer-best" else {}),
            ),
            data_collator=DataCollatorWithPadding(tokenizer),
            train_dataset=dataset(rows.train),
            callbacks=[times := TrainerTimes()],
        )
        trainer.remove_callback(PrinterCallback)
        start = time.perf_counter()
        trainer.train()
        training_seconds = time.perf_counter() - start
        result = _speed(times.times, times.losses, config.per_device_train_batch_size, warmup)
        result["training_seconds"] = training_seconds
        result["train_peak_memory_mb"] = _peak_memory_mb()
        result |= _gpu_memory(config.device)
        data = dataset(next(iter((rows.evaluation | rows.test).values())))
        result["evaluate_examples_per_second"] = len(data) / _seconds(lambda: trainer.predict(data))
    return result


def _pipeline(side: str, settings: dict[str, Any], warmup: int) -> dict[str, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    from minitrain.config.train_config import TrainConfig
    from minitrain.run.prepare import rows_of
    from minitrain.storage.hub import resolve_model

    source = resolve_model(settings["model"])
    rows = rows_of(TrainConfig(**settings, eval_strategy="no", do_eval=True), source)
    table = next(iter((rows.evaluation | rows.test).values()))
    model = AutoModelForSequenceClassification.from_pretrained(str(source))
    tokenizer = AutoTokenizer.from_pretrained(str(source))
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, device=settings["device"])
    columns = [table.column(name)[:] for name in rows.text_columns]
    texts: list[Any] = list(columns[0])
    if len(columns) == 2:
        texts = [{"text": first, "text_pair": second} for first, second in zip(*columns, strict=True)]
    return {"predict_examples_per_second": len(texts) / _seconds(lambda: classify(texts, truncation=True))}


def _seconds(work: Callable[[], Any]) -> float:
    """Seconds of the faster of two calls: the first may compile."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3]))
