"""Several labels a text beside Trainer, dropout on: every float the same, in whatever form the labels are."""

import csv
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from references import ours, trainer
from references.record import Record
from references.side_by_side import compare_records
from test_loop import reviews, write_tiny_model

from minitrain.config.train_config import TrainConfig
from parity.test_runs import NECESSARY, other_process

NAMES = ("kind", "music", "short")
FORMS: dict[str, dict[str, Any]] = {
    "lists": {"train_file": "train.jsonl", "eval_file": "eval.jsonl"},
    "texts": {"train_file": "train.csv", "eval_file": "eval.csv", "label_separator": ","},
    "columns": {"train_file": "columns.csv", "eval_file": "eval-columns.csv", "label_columns": NAMES},
}
CUTS: dict[str, dict[str, Any]] = {
    "batches of 5": {},
    "accumulated": {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2},
    "bf16": {"bf16": True, "max_steps": 4},
}


def labels_of(text: str) -> list[str]:
    words = text.split()
    has = (any(word in text for word in ("great", "good", "superb")), "music" in words, len(words) < 8)
    return [name for name, is_there in zip(NAMES, has, strict=True) if is_there]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    write_tiny_model(folder / "tiny")
    for seed, (part, other, count) in enumerate((("train", "columns", 33), ("eval", "eval-columns", 9))):
        texts = reviews(count, seed)[0]
        rows = [(text, labels_of(text)) for text in texts]
        assert {len(labels) for _, labels in rows} >= {0, 1, 2}
        lines = [json.dumps({"text": text, "label": labels}) + "\n" for text, labels in rows]
        (folder / f"{part}.jsonl").write_text("".join(lines))
        for name, table in (
            (part, [("text", "label"), *((text, ",".join(labels)) for text, labels in rows)]),
            (other, [("text", *NAMES), *((text, *(int(n in labels) for n in NAMES)) for text, labels in rows)]),
        ):
            with (folder / f"{name}.csv").open("w", newline="") as file:
                csv.writer(file).writerows(table)
    return folder


@pytest.fixture(scope="module")
def beside() -> Iterator[ProcessPoolExecutor]:
    with other_process() as pool:
        yield pool


def config_of(place: Path, folder: Path, form: str, **flags: Any) -> TrainConfig:
    files = {name: str(place / value) if name.endswith("_file") else value for name, value in FORMS[form].items()}
    fixed: dict[str, Any] = {"per_device_train_batch_size": 5, "num_train_epochs": 2, "learning_rate": 1e-3}
    fixed |= {
        "model": str(place / "tiny"),
        "device": "cpu",
        "match_trainer": True,
        "output_dir": str(folder / "run"),
    }
    return TrainConfig(**fixed | files | flags)


@pytest.mark.parametrize("cut", CUTS)
def test_every_float_of_three_forms_of_labels_is_trainers(
    place: Path, tmp_path: Path, beside: ProcessPoolExecutor, cut: str
) -> None:
    folders = {name: tmp_path / name for name in ("trainer", *FORMS)}
    for folder in folders.values():
        folder.mkdir()
    config = config_of(place, folders["trainer"], "texts", **CUTS[cut])
    waiting = beside.submit(trainer.run, config, folders["trainer"])
    for form in FORMS:
        ours.run(config_of(place, folders[form], form, **CUTS[cut]), folders[form])
    waiting.result()
    theirs = Record.load(folders["trainer"])
    for form in FORMS:
        comparisons = list(compare_records(Record.load(folders[form]), theirs))
        found = {each.what: each.total for each in comparisons}
        assert found.keys() >= NECESSARY
        assert found.keys() >= {"evaluation: loss", "evaluation: micro_f1", "evaluation: average_precision"}
        assert [each for each in comparisons if each.equal < each.total] == [], form
        assert found["loss of each step"] == {"batches of 5": 14, "accumulated": 12, "bf16": 4}[cut]
