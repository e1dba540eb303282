"""Rare positives: macro F1 with and without `--class_weights balanced`, five seeds.

`python benchmarks/imbalance.py --json benchmarks/imbalance.json` drops positive reviews of the embedded data until
they are 3% of the training rows, drawn anew for each seed, and trains on what is left. Evaluation is on the reviews
held back for validation and test, once with the same share of positives and once half positive.
"""

import json
import random
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minitrain.config.options import flag
from minitrain.config.train_config import TrainConfig
from minitrain.data.tables.demo import demo_reviews
from minitrain.data.tables.table import Table
from minitrain.run.flags import command
from minitrain.run.main import train
from minitrain.run.output_file import check_writable, write_json
from minitrain.run.report import say

METRICS = ("macro_f1", "balanced_accuracy", "f1", "accuracy")


@dataclass(frozen=True, kw_only=True)
class ImbalanceConfig:
    """What is trained."""

    share: float = flag(0.03, "share of positives among the training rows", bounds=(0.001, 0.5))
    seeds: int = flag(5, "number of seeds", bounds=(1, None))
    num_train_epochs: float = flag(3.0, "passes over the training rows")
    max_train_samples: int | None = flag(None, "use only this many training rows", bounds=(10, None))
    json: str | None = flag(None, "write the scores to this file too")


def rare(tables: Sequence[Table], share: float, seed: int, limit: int | None = None) -> list[dict[str, Any]]:
    """The negatives of some splits and as many of its positives, drawn by the seed, as make up `share` of all."""
    texts = [text for table in tables for text in table.column("text")]
    labels = [("negative", "positive")[label] for table in tables for label in table.column("label")]
    rows = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    draw = random.Random(seed)
    draw.shuffle(rows)
    negatives = [row for row in rows if row["label"] == "negative"]
    negatives = negatives[: limit and round(limit * (1 - share))]
    positives = [row for row in rows if row["label"] == "positive"]
    kept = negatives + positives[: max(1, round(len(negatives) * share / (1 - share)))]
    draw.shuffle(kept)
    return kept


def scores(true: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """The metrics of two classes, from their four counts."""
    at = {
        (a, b): sum(x == a and y == b for x, y in zip(true, predicted, strict=True))
        for a in ("negative", "positive")
        for b in ("negative", "positive")
    }
    f1, recalls = {}, []
    for name, other in (("positive", "negative"), ("negative", "positive")):
        hits, missed, wrong = at[name, name], at[name, other], at[other, name]
        f1[name] = 2 * hits / max(1, 2 * hits + missed + wrong)
        recalls.append(hits / max(1, hits + missed))
    return {
        "macro_f1": statistics.mean(f1.values()),
        "balanced_accuracy": statistics.mean(recalls),
        "f1": f1["positive"],
        "accuracy": (at["negative", "negative"] + at["positive", "positive"]) / len(true),
    }


def trained(config: ImbalanceConfig, seed: int, weights: str | None, folder: Path) -> dict[str, dict[str, float]]:
    """Train once and score both evaluations, by name."""
    splits = demo_reviews()
    held_back = [splits["validation"], splits["test"]]  # half of a split would have 15 positives at 3%
    data = {
        "train": rare([splits["train"]], config.share, seed, config.max_train_samples),
        "validation": rare(held_back, config.share, 0),
        "validation_all": rare(held_back, 0.5, 0),
    }
    train(
        TrainConfig(
            model="demo",
            num_train_epochs=config.num_train_epochs,
            seed=seed,
            class_weights=weights,
            eval_strategy="no",
            do_eval=True,
            output_dir=str(folder),
            report=False,
        ),
        data=data,
    )
    found: dict[str, tuple[list[str], list[str]]] = {"validation": ([], []), "validation_all": ([], [])}
    for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for names, value in zip(found[row["split"]], (row["label"], row["prediction"]), strict=True):
            names.append(value)
    return {split: scores(*pair) for split, pair in found.items()}


def measure(config: ImbalanceConfig) -> None:
    """Train all, print mean and spread, and write them."""
    check_writable(config.json)
    kinds = {"without": None, "balanced": "balanced"}
    runs: dict[str, list[dict[str, dict[str, float]]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(config.seeds):
            for kind, weights in kinds.items():
                runs[kind].append(trained(config, seed, weights, Path(scratch) / f"{kind}-{seed}"))
    facts: dict[str, Any] = {"share": config.share, "epochs": config.num_train_epochs, "torch": torch.__version__}
    for split in runs["without"][0]:
        say("", f"{split}: mean and deviation over {config.seeds} seeds")
        facts[split] = {}
        for metric in METRICS:
            values = {kind: [run[split][metric] for run in own] for kind, own in runs.items()}
            facts[split][metric] = {kind: spread(own) for kind, own in values.items()}
            spreads = facts[split][metric].items()
            shown = "   ".join(f"{kind} {s['mean']:.4f} +- {s['deviation']:.4f}" for kind, s in spreads)
            say(f"  {metric:<20}{shown}")
    write_json(config.json, facts)


def spread(values: list[float]) -> dict[str, Any]:
    """Mean, deviation and values, in the order of the seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.mean(values), "deviation": deviation, "by_seed": values}


if __name__ == "__main__":
    command(ImbalanceConfig, measure, "Train on rare positives with and without balanced class weights.")
