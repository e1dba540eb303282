"""A whole run, from a TrainConfig to a saved folder: what `scripts/train.py` calls.

Checks what can be checked before anything is downloaded or trained, says what was found, trains, evaluates, saves.
An earlier run in the folder is left alone until the new one has its data and its model.
"""

import os
import platform
import time
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from minitrain.card import model_card
from minitrain.config import TrainConfig
from minitrain.data import GLUE_REPOSITORY, Splits, load_splits
from minitrain.distributed import choose_device, world_from_environment
from minitrain.encoder_config import EncoderConfig
from minitrain.errors import MinitrainError
from minitrain.evaluation import Evaluation, evaluate, majority
from minitrain.files import json_text, write_whole
from minitrain.hub import resolve_model
from minitrain.metrics import GLUE_METRICS, Metric, default_metric
from minitrain.model import SequenceClassifier
from minitrain.report import (
    RESULTS,
    Console,
    finite_values,
    peak_memory_mb,
    say,
)
from minitrain.summary import footer, header
from minitrain.tokenizer import Tokenizer, load_tokenizer
from minitrain.training import Best, TrainState, best_by, fit, plan
from minitrain.weights import load_classifier_with_report, read_config, save_classifier, trained_labels

OWN_FILES = (RESULTS, "log.jsonl", "config.json", "model.safetensors", "README.md")
LIBRARIES = ("torch", "tokenizers", "datasets", "safetensors", "huggingface-hub")


def train(config: TrainConfig) -> dict[str, Any]:
    """Do a whole run and return what `results.json` holds.

    Raises MinitrainError, before training where it can, naming the flag, file, row or key at fault.
    """
    started = time.perf_counter()
    if config.dataset == GLUE_REPOSITORY and config.train_file is None and config.subset is None:
        config = replace(config, subset="mrpc")
    device = choose_device(config.device, world_from_environment())
    directory = output_directory(config)
    source = resolve_model(config.model)
    tokenizer, encoder = load_tokenizer(source), read_config(source)
    check_vocabulary(tokenizer, encoder, source)
    splits = read_data(config, tokenizer, encoder, source)
    best_by(config, new_metric(splits))  # a metric that is not there is found before an older run goes
    torch.manual_seed(config.seed)
    model, report = load_classifier_with_report(
        source,
        splits.labels.num_labels,
        splits.labels.names,
        splits.labels.problem_type,
        config.new_head,
        config.kernels,
        hidden_dropout_prob=config.hidden_dropout_prob,
        attention_probs_dropout_prob=config.attention_probs_dropout_prob,
        classifier_dropout=config.classifier_dropout,
    )
    model.to(device)
    for line in header(config, device, splits, report):
        say(line)
    state, best, training_seconds = _fit(config, model, splits, tokenizer, directory)
    final = score(config, model, splits, tokenizer)
    results = {
        "model": config.model,
        "dataset": config.train_file or config.dataset,
        "subset": config.subset,
        "task": splits.task,
        "text_columns": list(splits.text_columns),
        "label_column": splits.label_column,
        "labels": splits.labels.names,
        "max_length": _max_length(config, tokenizer, encoder),
        "steps": state.step,
        "epochs": state.epoch,
        "training_seconds": training_seconds,
        "total_seconds": time.perf_counter() - started,
        "peak_memory_mb": peak_memory_mb(),
        "best": {"step": best.step, "epoch": best.epoch, best.name: best.value},
        "saved": "best" if best.weights else "last",
        "baseline": {name: majority(splits.train, split) for name, split in splits.scored.items()},
        "results": {name: finite_values(result) for name, result in final.items()},
        "config": asdict(config),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    }
    try:
        save_classifier(model, tokenizer, directory)
        write_whole(
            directory / "README.md", model_card(config, splits.labels.names, state.step, final, directory.name)
        )
        write_whole(directory / RESULTS, json_text(results))
    except (OSError, SafetensorError) as error:  # a full disk, above all
        raise MinitrainError(f"{directory}: the run is trained but cannot be saved ({error})") from error
    for line in footer(directory, splits, best, final, results):
        say(line)
    return results


def output_directory(config: TrainConfig) -> Path:
    """The folder of the run, made and tried for writing.

    Raises MinitrainError where it cannot be written, or holds a run that nobody said may go.
    """
    if config.output_dir is not None:
        directory = Path(config.output_dir)
    else:
        data = config.subset or Path(config.train_file or config.dataset).stem
        directory = Path("runs") / f"{data}-{Path(config.model).name}"
    try:
        held = [name for name in OWN_FILES if (directory / name).exists()]
        if held and not config.overwrite_output_dir:
            raise MinitrainError(
                f"{directory}: holds a run already ({', '.join(held)}); pass --overwrite_output_dir to replace it, "
                "or another --output_dir"
            )
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise MinitrainError(f"--output_dir {directory}: cannot be written ({error.strerror or error})") from error
    return directory


def check_vocabulary(tokenizer: Tokenizer, encoder: EncoderConfig, source: Path) -> None:
    """Raise MinitrainError when the tokenizer can give an id for which the model has no embedding."""
    if tokenizer.highest_id >= encoder.vocab_size:
        raise MinitrainError(
            f"{source}: the tokenizer's highest id is {tokenizer.highest_id}, but the model has embeddings for ids "
            f"up to {encoder.vocab_size - 1}; do tokenizer.json and config.json belong together?"
        )


def _max_length(config: TrainConfig, tokenizer: Tokenizer, encoder: EncoderConfig) -> int:
    """Tokens kept of a text or pair: as asked, else all that tokenizer and model take, padding included."""
    positions, multiple = encoder.max_position_embeddings, config.pad_to_multiple_of or 1
    longest = positions // multiple * multiple
    if config.max_length is None and longest > 0:
        return min(tokenizer.max_length, longest)
    if config.max_length is None or config.max_length > longest:
        flags = f"--max_length {config.max_length}" if config.max_length else f"--pad_to_multiple_of {multiple}"
        raise MinitrainError(
            f"{flags}: the model has {positions} positions, {longest} of them a multiple of {multiple}"
        )
    return config.max_length


def read_data(config: TrainConfig, tokenizer: Tokenizer, encoder: EncoderConfig, source: Path) -> Splits:
    """The tokenized splits of a run. Raises MinitrainError where there is nothing to evaluate on but should be."""
    splits = load_splits(
        config.dataset,
        config.subset,
        tokenizer=tokenizer,
        train_file=config.train_file,
        eval_file=config.eval_file,
        test_file=config.test_file,
        text_columns=config.text_columns,
        label_column=config.label_column,
        eval_fraction=config.eval_fraction,
        max_length=_max_length(config, tokenizer, encoder),
        problem_type=config.problem_type,
        known_labels=None if config.new_head else trained_labels(source),
        max_train_samples=config.max_train_samples,
        max_eval_samples=config.max_eval_samples,
        seed=config.seed,
    )
    if not splits.evaluation and config.eval_strategy != "no":
        raise MinitrainError(
            "there is no evaluation data: pass --eval_file, or --eval_fraction 0.1 to hold some of the training "
            "data back, or --eval_strategy no"
        )
    return splits


def new_metric(splits: Splits) -> Metric:
    """A fresh metric: the GLUE task's, else what suits the labels."""
    classes = None if splits.labels.names is None else len(splits.labels.names)
    return Metric(GLUE_METRICS[splits.task], classes) if splits.task else default_metric(classes)


def _fit(
    config: TrainConfig, model: SequenceClassifier, splits: Splits, tokenizer: Tokenizer, directory: Path
) -> tuple[TrainState, Best, float]:
    for name in OWN_FILES:  # from here on the folder is this run's
        (directory / name).unlink(missing_ok=True)
    console = Console(directory, plan(config, len(splits.train)).total_steps, config.logging_steps)
    try:
        state, best = fit(
            model,
            splits.train,
            splits.evaluation,
            config,
            new_metric=lambda: new_metric(splits),
            observer=console,
            pad_token_id=tokenizer.pad_token_id,
        )
    finally:
        console.close()
    return state, best, console.training_seconds()


def score(
    config: TrainConfig, model: SequenceClassifier, splits: Splits, tokenizer: Tokenizer
) -> dict[str, Evaluation]:
    """Evaluate the model that is going to be saved on every split that was not trained on."""
    return {
        name: evaluate(
            model,
            split,
            new_metric(splits),
            batch_size=config.per_device_eval_batch_size,
            bf16=config.bf16,
            pad_token_id=tokenizer.pad_token_id,
        )
        for name, split in splits.scored.items()
    }
