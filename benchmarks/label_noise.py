"""Planted label errors: how many are found in the embedded reviews, beside cleanlab on the same predictions.

`python benchmarks/label_noise.py --json benchmarks/label_noise.json` exchanges the label of 5% of the training
reviews, trains folds on them, and compares rankings: recall is the share of the exchanged labels that are listed,
precision the share of the listed that were exchanged. The reviews have wrong labels of their own, which count as
false alarms here. Folds that are trained already (`--output_dir`) are not trained again.
"""

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minitrain.config.options import flag
from minitrain.config.train_config import TrainConfig
from minitrain.data.tables.demo import demo_reviews
from minitrain.run.flags import command
from minitrain.run.main import train
from minitrain.run.output_file import check_writable, write_json
from minitrain.run.predicted_rows import read_predictions
from minitrain.run.report import say
from minitrain.training.label_errors import find_label_errors, label_quality

NAMES = ("negative", "positive")


@dataclass(frozen=True, kw_only=True)
class LabelNoiseConfig:
    """What is trained."""

    share: float = flag(0.05, "share of the labels to exchange", bounds=(0.001, 0.5))
    folds: int = flag(3, "parts of the rows", bounds=(2, None))
    num_train_epochs: float = flag(1.0, "passes over the training rows of a fold")
    seed: int = flag(42, "of the exchange and of the training")
    max_train_samples: int | None = flag(None, "use only this many rows", bounds=(20, None))
    output_dir: str = flag("runs/label_noise", "folder of the folds")
    json: str | None = flag(None, "write the figures to this file too")


def exchanged(config: LabelNoiseConfig) -> tuple[list[dict[str, str]], list[int]]:
    """The rows, and the numbers (from 0) of those whose label is exchanged."""
    table = demo_reviews()["train"]
    texts, labels = table.column("text"), list(table.column("label"))
    texts, labels = texts[: config.max_train_samples], labels[: config.max_train_samples]
    planted = sorted(random.Random(config.seed).sample(range(len(labels)), round(config.share * len(labels))))
    for row in planted:
        labels[row] = 1 - labels[row]
    return [{"text": text, "label": NAMES[label]} for text, label in zip(texts, labels, strict=True)], planted


def scores(listed: Tensor, planted: Sequence[int]) -> dict[str, Any]:
    """Recall and precision of (N,) bool."""
    hits = int(listed[list(planted)].sum())
    count = int(listed.sum())
    return {"listed": count, "hits": hits, "recall": hits / len(planted), "precision": hits / max(1, count)}


def lowest(values: Tensor, count: int) -> Tensor:
    """(N,) bool: the rows with the lowest values."""
    chosen = torch.zeros(len(values), dtype=torch.bool)
    chosen[values.argsort(stable=True)[:count]] = True
    return chosen


def measure(config: LabelNoiseConfig) -> None:
    """Train the folds, find the planted labels in each way, print and write the figures."""
    sys.path.append(str(Path(__file__).parents[1] / "scripts"))
    from references.label_noise import cleanlab_issues

    check_writable(config.json)
    rows, planted = exchanged(config)
    results = train(
        TrainConfig(
            model="demo",
            folds=config.folds,
            num_train_epochs=config.num_train_epochs,
            seed=config.seed,
            output_dir=config.output_dir,
            resume="newest",
        ),
        data=rows,
    )
    found = read_predictions(Path(config.output_dir))
    labels, probabilities = found.labels, found.probabilities
    ours = find_label_errors(labels, probabilities)
    theirs, version = cleanlab_issues(labels.numpy(), probabilities.numpy())
    count = int(ours.sum())
    quality = label_quality(labels, probabilities)
    ways = {
        "minitrain": ours,
        f"cleanlab {version}": torch.from_numpy(theirs),
        "minitrain, the first 100": lowest(quality.where(ours, torch.inf), 100),
        "minitrain, as many as exchanged": lowest(quality.where(ours, torch.inf), len(planted)),
        "prediction differs": probabilities.argmax(1) != labels,
        "highest loss, as many rows": lowest(probabilities.gather(1, labels[:, None])[:, 0], count),
        "random, as many rows": lowest(torch.rand(len(labels), generator=torch.Generator().manual_seed(0)), count),
    }
    facts: dict[str, Any] = {
        "rows": len(rows),
        "exchanged": len(planted),
        "folds": config.folds,
        "epochs": config.num_train_epochs,
        "accuracy": results["results"]["held-out"]["accuracy"]["mean"],
        "same_rows_as_cleanlab": bool((ours == ways[f"cleanlab {version}"]).all()),
        "estimated_share": results["label_errors"]["estimated_share"],
        "ways": {name: scores(listed, planted) for name, listed in ways.items()},
        "versions": results["versions"],
    }
    say(
        "",
        f"{len(planted)} of {len(rows)} labels exchanged; same rows as cleanlab: {facts['same_rows_as_cleanlab']}",
    )
    for name, own in facts["ways"].items():
        say(f"  {name:<36}{own['listed']:>6} listed  recall {own['recall']:.3f}  precision {own['precision']:.3f}")
    write_json(config.json, facts)


if __name__ == "__main__":
    command(LabelNoiseConfig, measure, "Find planted label errors, beside cleanlab.")
