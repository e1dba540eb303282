"""What the runs of --folds and --seeds say together: means, standard deviations and out-of-fold predictions."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from minitrain.config.train_config import TrainConfig
from minitrain.errors import naming_os_errors
from minitrain.run.markdown import escaped, table
from minitrain.run.model_card import settings, trained_on
from minitrain.run.report import as_json, metric_name
from minitrain.run.run_folder import PREDICTIONS, RESULTS
from minitrain.storage.files import json_text, whole_text_file, write_whole

HELD_OUT = "held-out"  # the split that a fold is evaluated on
COPIED = ("steps", "epochs", "best", "saved", "baseline", "results", "calibration", "training_seconds")


class OneRun(Protocol):
    """One of the runs; its fold counts from 0."""

    @property
    def seed(self) -> int: ...
    @property
    def fold(self) -> int | None: ...
    @property
    def name(self) -> str: ...


def mean_and_sd(values: Sequence[float | None]) -> dict[str, float | None]:
    """Mean and sample standard deviation (ddof 1): None for a value that is not finite, or for a single run.

    >>> mean_and_sd([0.5, 0.75, 1.0])
    {'mean': 0.75, 'sd': 0.25}
    """
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return {"mean": None, "sd": None}
    return {"mean": statistics.fmean(known), "sd": statistics.stdev(known) if len(known) > 1 else None}


def summary_of(
    config: TrainConfig, runs: Sequence[OneRun], found: Sequence[Mapping[str, Any]], labels: Sequence[str] | None
) -> dict[str, Any]:
    """The contents of `results.json`, times aside.

    Args:
        found: The results of each run.
    """
    splits: dict[str, Any] = {}
    for split, values in found[0]["results"].items():
        every = [one["results"][split] for one in found]
        splits[split] = {name: mean_and_sd([one[name] for one in every]) for name in values if name != "examples"}
    summary = {
        "model": config.model,
        "dataset": config.train_file or config.dataset,
        "subset": config.subset,
        "labels": labels,
        "positive_label": found[0]["positive_label"],
        "results": splits,
        "runs": [
            {
                "name": run.name,
                "seed": run.seed,
                "fold": None if run.fold is None else run.fold + 1,
                **{name: one[name] for name in COPIED if name in one},
            }
            for run, one in zip(runs, found, strict=True)
        ],
        "config": asdict(config),
        "versions": found[0]["versions"],
    }
    return {name: as_json(value) for name, value in summary.items()}


def summary_lines(results: Mapping[str, Any]) -> list[str]:
    """The table at the end: each metric's mean ± standard deviation, and its value in each run."""
    lines = []
    for split, metrics in results["results"].items():
        lines.append(f"{split}, mean ± standard deviation of {len(results['runs'])} runs")
        for name, summary in metrics.items():
            values = " ".join(f"{_shown(value):>8}" for value in _values(results, split, name))
            name = metric_name(name, results["positive_label"], 21)
            lines.append(f"  {name:<22}{_spread(summary):<19}   {values}")
        lines.append("")
    return lines


def _values(results: Mapping[str, Any], split: str, name: str) -> list[float | None]:
    return [run["results"][split][name] for run in results["runs"]]


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _spread(summary: Mapping[str, float | None]) -> str:
    return _shown(summary["mean"]) + ("" if summary["sd"] is None else f" ± {_shown(summary['sd'])}")


def _card(config: TrainConfig, results: Mapping[str, Any], title: str) -> str:
    """README.md of several runs, which has no metadata: the folder holds no model."""
    runs, positive = results["runs"], results["positive_label"]
    rows = [
        [escaped(split), escaped(metric_name(name, positive), 80), _spread(summary)]
        + [_shown(value) for value in _values(results, split, name)]
        for split, metrics in results["results"].items()
        for name, summary in metrics.items()
    ]
    parts = [] if config.folds is None else [f"{config.folds} folds"]
    parts += [] if config.seeds is None else [f"seeds {', '.join(map(str, config.seeds))}"]
    trained = f"{trained_on(config)}: {', '.join(parts)}, learning rate {config.learning_rate}, batch size "
    trained += (
        f"{config.per_device_train_batch_size}. Each value is the mean ± standard deviation of {len(runs)} runs."
    )
    heads = ["split", "metric", "mean ± standard deviation", *(run["name"] for run in runs)]
    return "\n\n".join([f"# {escaped(title, 100)}", trained, table(heads, rows, texts=3), *settings(config)]) + "\n"


CANNOT = "the runs are trained but cannot be saved"


def save_out_of_fold(
    directory: Path, config: TrainConfig, runs: Sequence[OneRun], folds: Mapping[int, Sequence[int]]
) -> None:
    """Write the predictions of all held-out rows to predictions.jsonl, if there are folds.

    Args:
        folds: By seed, the fold of each training row, from 0.
    """
    if not folds:
        return
    with naming_os_errors(f"{directory}: {CANNOT}"), whole_text_file(directory / PREDICTIONS) as file:
        for seed, assigned in folds.items():
            own = [directory / run.name / PREDICTIONS for run in runs if run.seed == seed]
            extra = {} if config.seeds is None else {"seed": seed}
            for record in _out_of_fold(own, assigned):
                file.write(json.dumps(extra | record, ensure_ascii=False) + "\n")


def save_report(directory: Path, config: TrainConfig, results: Mapping[str, Any]) -> None:
    """Write README.md, and results.json last."""
    with naming_os_errors(f"{directory}: {CANNOT}"):
        write_whole(directory / "README.md", _card(config, results, directory.resolve().name))
        write_whole(directory / RESULTS, json_text(results))


def _out_of_fold(files: Sequence[Path], assigned: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The held-out rows of all folds in the data's order, each with its fold from 1."""
    held = [_held_out(path) for path in files]
    for fold in assigned:
        yield {"fold": fold + 1, **next(held[fold])}


def _held_out(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if record.pop("split", HELD_OUT) == HELD_OUT:
                yield record
