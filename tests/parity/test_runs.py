"""Whole runs beside transformers' Trainer and the loop of accelerate's example, dropout on: every float the same.

`scripts/parity.py` does the same over complete runs; here it is a dozen short steps of each kind, on the embedded
weights, most of them without the upper four of six layers, and real text.
"""

import csv
import gzip
import json
import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from references import accelerate_loop, ours, trainer
from references.record import Record
from references.side_by_side import Comparison, compare_records
from test_loop import reviews, write_tiny_model
from test_main import named_reviews, write_csv
from transformers import AutoModel, AutoModelForMaskedLM

from minitrain.config.train_config import TRAINER, TrainConfig
from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.model.families import FAMILIES
from minitrain.model.weights import load_classifier, save_classifier
from minitrain.storage.hub import demo_reviews_file
from parity.reference import REFERENCES

SMALL: dict[str, Any] = {
    "model": "demo",
    "device": "cpu",
    "num_train_epochs": 1,
    "max_train_samples": 32,
    "max_eval_samples": 10,
    "max_length": 32,
    "per_device_train_batch_size": 4,
}
# A processor without bfloat16 takes seconds for what others do in milliseconds.
FEWER_PRODUCTS: dict[str, Any] = {"max_length": 24, "max_steps": 8}
WHOLE_MODEL = ("seed 42, two epochs, whole texts", "bf16", "regression, bf16", "MRPC", "STS-B")
# Of pairs of embedded reviews, unless `data` says otherwise.
KINDS: dict[str, dict[str, Any]] = {
    "seed 42, two epochs, whole texts": {"num_train_epochs": 2, "max_train_samples": 22, "max_length": None},
    "other seeds": {"seed": 2, "data_seed": 7, "max_steps": 8},
    "plain AdamW": {"optim": "adamw_torch", "max_steps": 8},
    "decay, warm-up, cosine": {"weight_decay": 0.01, "warmup_steps": 5, "lr_scheduler_type": "cosine"},
    "label smoothing": {"label_smoothing_factor": 0.1, "max_train_samples": 39},
    "batch of 16, 64 tokens": {"per_device_train_batch_size": 16, "max_length": 64, "max_train_samples": 72},
    "evaluations between": {"eval_strategy": "steps", "eval_steps": 4},
    "no clipping, no evaluation": {"max_grad_norm": 0.0, "eval_strategy": "no", "do_eval": True, "max_steps": 8},
    "accumulation": {"gradient_accumulation_steps": 4, "max_train_samples": 42},
    "accumulation, smoothed": {
        "gradient_accumulation_steps": 4,
        "label_smoothing_factor": 0.1,
        "max_train_samples": 29,
    },
    "bf16": {"bf16": True} | FEWER_PRODUCTS,
    "gradient checkpointing": {"gradient_checkpointing": True, "max_steps": 8},
    "regression": {"data": "scores"},
    "regression, bf16": {"data": "scores", "bf16": True} | FEWER_PRODUCTS,
    "three classes": {"data": "classes"},
    "single sentences": {"data": "demo"},
    "MRPC": {"data": "mrpc"},
    "STS-B": {"data": "stsb"},
}
EXAMPLE: dict[str, Any] = {
    "match_accelerate": True,
    "weight_decay": 0.01,
    "learning_rate": 2e-5,
    "warmup_steps": 0.25,
    "num_train_epochs": 2,
    "max_train_samples": 30,
}
NECESSARY = {
    "token ids, train",
    "logits of the first batch",
    "gradients of the first batch",
    "batches",
    "loss of each step",
    "gradient norm of each step",
    "learning rate of each step",
    "predictions, validation",
    "final weights",
}


def other_process() -> ProcessPoolExecutor:
    """One process of one thread, beside this one: a run needs the random stream to itself."""
    return ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (1,))


@pytest.fixture(scope="module")
def beside() -> Iterator[ProcessPoolExecutor]:
    with other_process() as pool:
        yield pool


def compare(
    tmp_path: Path, pool: ProcessPoolExecutor, other: Callable[[TrainConfig, Path], None], **flags: Any
) -> list[Comparison]:
    folders = [tmp_path / "ours", tmp_path / "theirs"]
    mine, theirs = (TrainConfig(**SMALL | flags, output_dir=str(folder / "run")) for folder in folders)
    for folder in folders:
        folder.mkdir()
    waiting = pool.submit(other, theirs, folders[1])
    ours.run(mine, folders[0])
    waiting.result()
    return list(compare_records(*(Record.load(folder) for folder in folders)))


def assert_all_equal(comparisons: list[Comparison], steps: int) -> None:
    assert {each.what for each in comparisons} >= NECESSARY
    assert [each for each in comparisons if each.equal < each.total] == []
    assert next(each.total for each in comparisons if each.what == "loss of each step") == steps


def steps_of(flags: dict[str, Any]) -> int:
    """By hand, not by `plan`."""
    merged = SMALL | flags
    if "max_steps" in merged:
        return merged["max_steps"]
    rows, size = merged["max_train_samples"], merged["per_device_train_batch_size"]
    whole, rest = divmod(rows, size)
    batches = whole + (1 if rest and "match_accelerate" not in merged else 0)
    return -(-batches // merged.get("gradient_accumulation_steps", 1)) * merged["num_train_epochs"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Flags of data made of the embedded reviews: pairs in two classes or with scores, texts in three classes."""
    folder = tmp_path_factory.mktemp("data")
    with gzip.open(demo_reviews_file(), "rt", encoding="utf-8", newline="") as file:
        rated = [(row["text"], float(row["sentiment"])) for row in csv.DictReader(file)]
    random.Random(0).shuffle(rated)  # they come sorted
    pairs = list(zip(rated[:400:2], rated[1:400:2], strict=True))
    tables: dict[str, list[tuple[Any, ...]]] = {
        "pairs": [(a, b, "warmer" if x < y else "colder") for (a, x), (b, y) in pairs],
        "scores": [(a, b, round(y - x, 2) + 0.001) for (a, x), (b, y) in pairs],
        "classes": [(a, "bad" if x < -1 else "good" if x > 1 else "so-so") for (a, x), _ in pairs],
    }
    flags: dict[str, dict[str, Any]] = {}
    for name, rows in tables.items():
        texts = ("text_a", "text_b")[: len(rows[0]) - 1]
        for part, some in (("train", rows[:-20]), ("eval", rows[-20:])):
            with (folder / f"{name}-{part}.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([(*texts, "label"), *some])
        flags[name] = {f"{part}_file": str(folder / f"{name}-{part}.csv") for part in ("train", "eval")}
        flags[name]["text_columns"] = texts
    return flags | {"demo": {"dataset": "demo"}}


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> str:
    """The embedded model without its upper four layers, as transformers saves it."""
    folder = tmp_path_factory.mktemp("shallow")
    AutoModel.from_pretrained(demo_model, num_hidden_layers=2).save_pretrained(folder)
    for path in demo_model.glob("*token*"):
        shutil.copy(path, folder)
    shutil.copy(demo_model / "vocab.txt", folder)
    return str(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_every_float_of_a_run_is_trainers(
    tmp_path: Path,
    beside: ProcessPoolExecutor,
    files: dict[str, dict[str, Any]],
    shallow: str,
    kind: str,
    request: pytest.FixtureRequest,
) -> None:
    flags = KINDS[kind] | ({} if kind in WHOLE_MODEL else {"model": shallow})
    data = flags.pop("data", "pairs")
    if data not in files:
        files = files | {data: {"dataset": str(request.getfixturevalue("glue")), "subset": data}}
    comparisons = compare(tmp_path, beside, trainer.run, **files[data], **flags, match_trainer=True)
    assert_all_equal(comparisons, steps_of(flags))
    evaluated = any(each.what == "evaluation: loss" for each in comparisons)
    assert evaluated == (flags.get("eval_strategy") != "no")


def write_pretrained(folder: Path, family: str, demo_model: Path) -> Path:
    """A small random encoder of a family as it is pretrained, with the embedded vocabulary of 30,522 words."""
    reference = REFERENCES[family]
    sizes = {"vocab_size": 30522, "max_position_embeddings": 130, "initializer_range": 0.1}
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(reference.config(**reference.small | sizes | {"pad_token_id": 0}))
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "vocab.txt"):
        shutil.copy(demo_model / name, folder)
    typed = "type_vocab_size" in FAMILIES[family].config_names
    settings = {"tokenizer_class": "BertTokenizer" if typed else "DistilBertTokenizer", "model_max_length": 128}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


@pytest.mark.parametrize("family", [family for family in REFERENCES if family not in ("bert", "mpnet")])
def test_every_float_of_a_run_of_every_family_is_trainers(
    tmp_path: Path, beside: ProcessPoolExecutor, files: dict[str, dict[str, Any]], family: str, demo_model: Path
) -> None:
    """MPNet is left out: its padding id is 1, another one than that of the embedded vocabulary."""
    model = write_pretrained(tmp_path / "pretrained", family, demo_model)
    flags = {"model": str(model), "learning_rate": 1e-3, "max_train_samples": 64}
    comparisons = compare(tmp_path, beside, trainer.run, **files["pairs"], **flags, match_trainer=True)
    assert_all_equal(comparisons, 16)


@pytest.mark.parametrize("family", ["roberta", "distilbert", "modernbert", "albert"])
def test_rates_by_layer_and_frozen_layers_of_other_families_are_trainers(
    tmp_path: Path, beside: ProcessPoolExecutor, files: dict[str, dict[str, Any]], family: str, demo_model: Path
) -> None:
    model = write_pretrained(tmp_path / "pretrained", family, demo_model)
    flags: dict[str, Any] = {
        "model": str(model),
        "learning_rate": 1e-3,
        "weight_decay": 0.1,
        "max_train_samples": 24,
    }
    flags |= {"layerwise_lr_decay": 0.7, "freeze": "embeddings" if family == "albert" else 1}
    comparisons = compare(tmp_path, beside, trainer.run, **files["pairs"], **flags, match_trainer=True)
    assert_all_equal(comparisons, 6)


def trained_head(tiny: Path, folder: Path, names: tuple[str, ...]) -> str:
    torch.manual_seed(5)
    save_classifier(load_classifier(tiny, label_names=names), load_tokenizer(tiny), folder)
    return str(folder)


def two_validations(folder: Path) -> Path:
    """A dataset with the columns and splits of MNLI."""
    folder.mkdir()
    splits = ("train", "validation_matched", "validation_mismatched")
    texts, labels = reviews(60, classes=3)
    rows = [{"premise": text, "hypothesis": texts[-i], "label": labels[i]} for i, text in enumerate(texts)]
    for i, split in enumerate(splits):
        lines = [json.dumps(row) for row in rows[i * 20 : i * 20 + 20 - i]]
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    files = "".join(f"  - split: {split}\n    path: {split}.jsonl\n" for split in splits)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: mnli\n  data_files:\n{files}---\n")
    return folder


SIXTY_STEPS: dict[str, Any] = {"num_train_epochs": 20, "eval_strategy": "no", "do_eval": True}
ODD: dict[str, dict[str, Any]] = {
    "a new head for other classes": {"model": ("a", "b", "c"), "new_head": True},
    "a trained head": {"model": ("awful", "lovely")},
    "other dropouts": {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.5},
    "padded to a multiple": {"pad_to_multiple_of": 8},
    "constant with warm-up": {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 0.3},
    "half an epoch more": {"num_train_epochs": 1.5},
    "other numbers of AdamW": {"adam_epsilon": 1e-6, "adam_beta1": 0.8, "adam_beta2": 0.99},
    "two evaluation splits": {"subset": "mnli"},
    "padding on the left": {},
    "rates by layer": {"layerwise_lr_decay": 0.7, "weight_decay": 0.1, "warmup_steps": 2} | SIXTY_STEPS,
    "rates by layer and of the head, plain AdamW": {
        "layerwise_lr_decay": 0.9,
        "head_learning_rate": 1e-3,
        "weight_decay": 0.1,
        "optim": "adamw_torch",
        "gradient_accumulation_steps": 2,
    },
    "frozen embeddings": {"freeze": "embeddings"},
    "a frozen layer, plain AdamW": {"freeze": 1, "optim": "adamw_torch", "weight_decay": 0.1} | SIXTY_STEPS,
    "a frozen encoder": {"freeze": "encoder", "head_learning_rate": 1e-3, "lr_scheduler_type": "cosine"},
    "large batches": {"per_device_train_batch_size": 64, "per_device_eval_batch_size": 64},
    "class weights": {"class_weights": "balanced"},
    "class weights, three classes, accumulation": {
        "class_weights": {"so-so": 1.7, "awful": 0.3, "lovely": 5.1},
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
    },
    "class weights, bf16, accumulation": {
        "class_weights": "lovely=3.3,awful=0.7",
        "bf16": True,
        "gradient_accumulation_steps": 2,
    },
    "class weights, smoothed": {"class_weights": "balanced", "label_smoothing_factor": 0.1},
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_runs_of_a_tiny_model_are_trainers(tmp_path: Path, beside: ProcessPoolExecutor, kind: str) -> None:
    tiny = write_tiny_model(tmp_path / "tiny")
    for name, count in (("train", 21), ("eval", 9)):
        classes = 3 if "three classes" in kind else 2
        write_csv(tmp_path / f"{name}.csv", *named_reviews(count, seed=len(name), classes=classes))
    flags = {"model": str(tiny), **{f"{name}_file": str(tmp_path / f"{name}.csv") for name in ("train", "eval")}}
    flags |= {"per_device_train_batch_size": 8, "num_train_epochs": 2} | ODD[kind]
    if kind == "two evaluation splits":
        flags = {name: value for name, value in flags.items() if not name.endswith("_file")}
        flags["dataset"] = str(two_validations(tmp_path / "two"))
    if kind == "padding on the left":
        path = tiny / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"padding_side": "left"}))
    if isinstance(flags["model"], tuple):
        flags["model"] = trained_head(tiny, tmp_path / "head", flags["model"])
    comparisons = compare(tmp_path, beside, trainer.run, **flags, match_trainer=True)
    found = {each.what for each in comparisons}
    if kind == "two evaluation splits":
        assert found >= {"predictions, validation_matched", "predictions, validation_mismatched"}
        found.add("predictions, validation")
    assert found >= NECESSARY
    assert [each for each in comparisons if each.equal < each.total] == []


def test_every_float_of_a_run_is_that_of_accelerates_example(
    tmp_path: Path, files: dict[str, dict[str, Any]]
) -> None:
    with other_process() as fresh:  # accelerate keeps the settings of a process's first run
        comparisons = compare(tmp_path, fresh, accelerate_loop.run, **EXAMPLE, **files["pairs"])
    assert_all_equal(comparisons, steps_of(EXAMPLE))
    assert any(each.what == "evaluation: accuracy" and each.total == 2 for each in comparisons)


# Two epochs with an evaluation between, accumulation, decay, a short batch: something for every setting to change.
OFTEN: dict[str, Any] = SMALL | {
    "max_train_samples": 33,
    "num_train_epochs": 2,
    "gradient_accumulation_steps": 2,
    "weight_decay": 0.1,
}
OTHERWISE: dict[str, Any] = {
    "kernels": "fast",
    "sampler": "bucket",
    "eval_order": "length",
    "dataloader_rng": False,
    "reseed": False,
    "accumulation": "mean",
    "decay_all": True,
    "dataloader_drop_last": True,
    "standardize_targets": True,
}


def recorded(folder: Path, **flags: Any) -> Record:
    ours.run(TrainConfig(**flags, output_dir=str(folder / "run")), folder)
    return Record.load(folder)


@pytest.fixture(scope="module")
def matching(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, dict[str, Any]], shallow: str
) -> Callable[[str], Record]:
    """The match on some of the data, trained when it is first asked for."""

    @cache
    def record(data: str) -> Record:
        return recorded(
            tmp_path_factory.mktemp("matching"), **OFTEN | {"model": shallow}, **files[data], match_trainer=True
        )

    return record


@pytest.mark.parametrize("setting", TRAINER)
def test_each_setting_of_a_match_is_needed(
    tmp_path: Path, matching: Callable[[str], Record], files: dict[str, dict[str, Any]], shallow: str, setting: str
) -> None:
    """With any one of what `--match_trainer` decides otherwise, some float differs."""
    settings = TRAINER | {setting: OTHERWISE[setting]}
    assert settings != TRAINER
    data = "scores" if setting == "standardize_targets" else "pairs"
    other = recorded(tmp_path, **OFTEN | settings | {"model": shallow}, **files[data])
    assert any(each.equal < each.total for each in compare_records(matching(data), other))
