"""Reads the folder of a run for its report: results.json, log.jsonl and predictions.jsonl, nothing else.

Runs saved by earlier versions have fewer keys in results.json; what they lack is left out.
"""

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minitrain.errors import MinitrainError
from minitrain.run.html.scored import WAY_OUT, ScoredSplit, read_predictions
from minitrain.run.json_lines import json_lines
from minitrain.run.run_folder import LOG, PREDICTIONS, RESULTS, read_results
from minitrain.run.runs_report import HELD_OUT

STEP = ("epoch", "loss", "grad_norm", "learning_rate")


@dataclass(frozen=True)
class Log:
    """log.jsonl. A number that is not finite is NaN.

    Attributes:
        steps: By name of `STEP`, one value for each logged line.
        evaluations: In their order, by split.
    """

    steps: dict[str, "array[float]"] = field(default_factory=lambda: {key: array("d") for key in STEP})
    evaluations: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a report is made of."""

    directory: Path
    results: Mapping[str, Any]
    log: Log
    scored: dict[str, ScoredSplit]
    logs_of_runs: dict[str, Log] = field(default_factory=dict)  # of --folds and --seeds

    @property
    def is_several(self) -> bool:
        """Whether the folder is of --folds or --seeds."""
        return "runs" in self.results

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings of the run."""
        return self.results["config"]

    @property
    def positive(self) -> str | None:
        """The class that F1 is about."""
        return self.results.get("positive_label")


def read_facts(directory: Path) -> Facts:
    """Read a saved run.

    Raises:
        MinitrainError: The folder holds no run, or a file of it is damaged or of another run.
    """
    results = read_results(directory)
    if not isinstance(results.get("config"), dict) or not isinstance(results.get("results"), dict):
        what = "holds no finished run" if not results else f"its {RESULTS} is not one that train.py writes"
        raise MinitrainError(f"{directory}: {what}; give the folder that a run was saved to (its --output_dir)")
    several = isinstance(results.get("runs"), list)
    names = [str(run.get("name")) for run in results["runs"] if isinstance(run, dict)] if several else []
    return Facts(
        directory=directory,
        results=results,
        log=Log() if several else read_log(directory / LOG),
        scored=_scored(directory, results, several),
        logs_of_runs={name: read_log(directory / name / LOG) for name in names},
    )


def _scored(directory: Path, results: Mapping[str, Any], several: bool) -> dict[str, ScoredSplit]:
    path = directory / PREDICTIONS
    if not path.is_file():
        return {}
    alone = HELD_OUT if several else next(iter(results["results"]), "evaluation")
    texts = results.get("text_columns") or _text_columns_of_a_run(directory, results)
    scored = read_predictions(path, alone, texts, results.get("positive_label"))
    for name, split in scored.items():
        said = None if several else results["results"].get(name, {}).get("examples")
        if said is not None and said != split.rows:
            raise MinitrainError(
                f"{path}: holds {split.rows} rows of {name}, {RESULTS} says {said}: one of the two is of another "
                f"run. Train again, or take {PREDICTIONS} away to go without it"
            )
    return scored


def _text_columns_of_a_run(directory: Path, results: Mapping[str, Any]) -> list[str]:
    """The summary of several runs does not name the columns, its runs do; "text" if they are gone."""
    for run in results.get("runs", []):
        if found := read_results(directory / str(run.get("name"))).get("text_columns"):
            return found
    return ["text"]


def read_log(path: Path) -> Log:
    """Read a log; an empty one if the file is gone. Raises MinitrainError for a damaged line."""
    log = Log()
    if path.is_file():
        for record in json_lines(path, WAY_OUT):
            if record.get("event") == "step":
                for key, column in log.steps.items():
                    value = record.get(key)
                    column.append(math.nan if value is None else value)
            elif record.get("event") == "evaluation":
                log.evaluations.setdefault(record.get("split", "evaluation"), []).append(record)
    return log
