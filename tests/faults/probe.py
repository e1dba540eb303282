"""Loads what it is told to, in a process of its own: a crash, a hang or a loss of memory is seen from outside.

Reads a line of JSON for each folder, and answers with one: what came of it, how long it took, how memory grew.
"""

import functools
import json
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from minitrain.data.batch import collate
from minitrain.data.load import load_splits
from minitrain.data.tokenizer.tokenizer import Tokenizer, read_tokenizer
from minitrain.errors import MinitrainError
from minitrain.model.classifier import SequenceClassifier
from minitrain.model.weights import load_classifier

HANG = 20.0  # seconds, after which the alarm ends the process, native code or not; or the first argument
TEXTS = ["the dogs, a fox. [NEW] [CLS] yy", "", "é 中\u202e 😀 \0 xyzxyz"]


def model(folder: Path, **options: Any) -> None:
    """Load a classifier and use it."""
    loaded = load_classifier(folder)
    assert all(bool(parameter.isfinite().all()) for parameter in loaded.parameters())
    config = loaded.config
    ids = torch.arange(min(4, config.max_length))[None] % config.vocab_size
    assert loaded(ids).shape == (1, config.num_labels)


def tokenizer(folder: Path, **options: Any) -> None:
    """Read a tokenizer, give its ids to a model, save it and read that again."""
    ours, classifier = read_tokenizer(folder), healthy_model(folder)
    ours.check_fits(classifier.config.vocab_size, folder)
    positions = classifier.config.max_length
    length = min(ours.max_length or positions, positions)
    examples = [*ours(TEXTS, max_length=length), *ours(TEXTS, TEXTS[::-1], max_length=length)]
    assert all(len(example.input_ids) <= length for example in examples)
    classifier(**collate(examples, ours.pad_token_id).inputs)
    ours.save(folder / "saved")
    again = read_tokenizer(folder / "saved")
    roles = {"mask_token"}  # that the vocabulary may lack is no fault, and then it has the family's name again
    assert {**again.settings, **dict.fromkeys(roles)} == {**ours.settings, **dict.fromkeys(roles)}
    assert [*again(TEXTS, max_length=length), *again(TEXTS, TEXTS[::-1], max_length=length)] == examples


def rows(folder: Path, *, name: str, healthy: str, spoilt: str, **options: Any) -> None:
    """Read and tokenize files of rows, one of them spoilt, and look at every row."""
    files = {"train_file": str(folder / healthy), spoilt: str(folder / name)}
    if options["text_columns"] is not None:
        options["text_columns"] = tuple(options["text_columns"])
    splits = load_splits(tokenizer=healthy_tokenizer(folder), **files, **options)
    for split in splits.all.values():
        for row in range(len(split)):
            label = split[row].label
            assert label is not None and math.isfinite(label)
            assert splits.labels.names is None or 0 <= label < len(splits.labels.names)
            assert min(split[row].input_ids) >= 0
    json.dumps(splits.labels.names, ensure_ascii=False).encode()  # as it is saved


def broken(folder: Path, *, how: str) -> None:
    """What no file may do."""
    if how == "hang":
        time.sleep(60)
    elif how == "crash":
        os.abort()
    elif how == "grow":
        assert len(b"x" * 600_000_000)
    else:
        raise KeyError(how)


@functools.cache
def healthy_model(folder: Path) -> SequenceClassifier:
    return load_classifier(folder)


@functools.cache
def healthy_tokenizer(folder: Path) -> Tokenizer:
    return read_tokenizer(folder)


PROBES: dict[str, Callable[..., None]] = {
    "weights": model,
    "shards": model,
    "config": model,
    "tokenizer": tokenizer,
    "rows": rows,
    "broken": broken,
}


def memory(name: str) -> int:
    """A line of /proc/self/status, in bytes; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def forget_peak() -> None:
    """Count the highest memory from here."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def examine(probe: Callable[..., None], folder: Path, options: dict[str, Any], hang: float) -> dict[str, Any]:
    forget_peak()
    before, start = memory("VmRSS"), time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, hang)
    outcome, message = "accepted", ""
    try:
        probe(folder, **options)
    except MinitrainError as error:
        outcome, message = "rejected", str(error)
    except BaseException:
        outcome, message = "raised", traceback.format_exc()
    signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.perf_counter() - start
    return {"outcome": outcome, "message": message, "seconds": seconds, "growth": memory("VmHWM") - before}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    torch.set_num_threads(1)
    hang = float(sys.argv[1]) if sys.argv[1:] else HANG
    for line in sys.stdin:
        kind, folder, options = json.loads(line)
        print(json.dumps(examine(PROBES[kind], Path(folder), options, hang)), file=answers, flush=True)


if __name__ == "__main__":
    main()
