"""Labels and probabilities of the rows in a run's `predictions.jsonl`, as tensors, averaged over seeds."""

import json
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minitrain.errors import MinitrainError, listed, naming_os_errors, shown
from minitrain.run.json_lines import json_lines
from minitrain.run.run_folder import PREDICTIONS, RUNS, read_results
from minitrain.run.runs_report import HELD_OUT
from minitrain.storage.files import read_json

NO_CLASSES = "has no probabilities of classes; labels are judged by those, which a run that predicts scores lacks"


@dataclass(frozen=True, kw_only=True)
class PredictedRows:
    """Rows that a model predicted without training on them.

    Attributes:
        names: The classes, in the order of their ids.
        labels: (N,) int64 class ids, or (N, C) float64 with 1 for each label of a row.
        probabilities: (N, C) float64, the mean over seeds.
        lines: The file of each row, and its line there, from 0.
        splits: Rows by split.
    """

    names: tuple[str, ...]
    labels: Tensor
    probabilities: Tensor
    lines: list[tuple[Path, int]]
    splits: Counter[str]


@dataclass
class _Columns:
    """Grows line by line: `probabilities` row after row."""

    names: tuple[str, ...] = ()
    labels: list[Any] = field(default_factory=list)
    probabilities: "array[float]" = field(default_factory=lambda: array("d"))
    lines: list[tuple[Path, int]] = field(default_factory=list)

    def add(self, record: dict[str, Any]) -> None:
        """Raises ValueError or TypeError if the record is not as train.py writes it."""
        probabilities, label = record.get("probabilities"), record.get("label")
        if not isinstance(probabilities, dict):
            raise ValueError(NO_CLASSES)
        if tuple(probabilities) != self.names and self.names:
            raise ValueError(f"the classes are {listed(probabilities)}, before they were {listed(self.names)}")
        if self.labels and isinstance(label, list) != isinstance(self.labels[0], list):
            raise ValueError(f"the label is {shown(label)}, the first {shown(self.labels[0])}")
        self.names = tuple(probabilities)
        for name in label if isinstance(label, list) else [label]:
            if name not in probabilities:
                raise ValueError(f"the label is {shown(name)}; expected one of {listed(self.names)}")
        self.probabilities.extend(probabilities.values())
        self.labels.append(label)


def read_predictions(directory: Path, split: str | None = None) -> PredictedRows:
    """Read the predicted rows of a run, or those of a split.

    Raises:
        MinitrainError: There are none, they have no probabilities, or a line is damaged.
    """
    files, repeats, only = _files_of(directory)
    columns, splits, others = _Columns(), Counter[str](), Counter[str]()
    for path in files:
        for number, record in enumerate(json_lines(path)):
            own = str(record.get("split", only))
            if split not in (None, own):
                others[own] += 1
                continue
            try:
                columns.add(record)
            except (ValueError, TypeError) as error:
                raise MinitrainError(f"{path}, line {number + 1}: {error}") from error
            columns.lines.append((path, number))
            splits[own] += 1
    if not columns.labels:
        raise MinitrainError(
            f"--split {split}: {directory} predicted no such rows; it has {listed(others)}"
            if others
            else f"{files[0]}: holds no rows"
        )
    if bad := sum(value != value for value in columns.probabilities):
        raise MinitrainError(
            f"{files[0]}: {bad} probabilities are not numbers, as of a training that diverged; train again with a "
            "smaller --learning_rate"
        )
    return _averaged(columns, repeats, splits, files[0])


def _files_of(directory: Path) -> tuple[list[Path], int, str]:
    """The files, how often they hold each row (once a seed), and the split of rows that do not name theirs."""
    several = read_json(directory / RUNS) if (directory / RUNS).is_file() else {}
    settings = several.get("config") or {}
    only = (
        HELD_OUT if settings.get("folds") else next(iter(read_results(directory).get("results") or ["evaluation"]))
    )
    if (path := directory / PREDICTIONS).is_file():
        return [path], len(settings.get("seeds") or [1]), only
    if several:
        runs = [directory / str(run) / PREDICTIONS for run in several.get("runs", [])]
        if not settings.get("folds") and all(run.is_file() for run in runs):
            return runs, len(runs), only
        raise MinitrainError(f"{directory}: not all of its runs are trained; train.py with --resume ends them")
    raise MinitrainError(
        f"{directory}: holds no {PREDICTIONS}; give the folder of a run with --folds, or one that evaluated"
    )


def _averaged(columns: _Columns, repeats: int, splits: Counter[str], path: Path) -> PredictedRows:
    count, ids = len(columns.labels) // repeats, {name: i for i, name in enumerate(columns.names)}
    first, *others = (columns.labels[i * count : (i + 1) * count] for i in range(repeats))
    if len(columns.labels) % repeats or any(block != first for block in others):
        raise MinitrainError(
            f"{path}: does not hold the same rows for each of the {repeats} seeds; was it changed?"
        )
    values = torch.frombuffer(columns.probabilities, dtype=torch.float64)
    probabilities = values.view(repeats, count, len(ids)).mean(0)
    if isinstance(first[0], list):
        labels = torch.zeros_like(probabilities)
        for row, names in enumerate(first):
            labels[row, [ids[name] for name in names]] = 1
    else:
        labels = torch.tensor([ids[name] for name in first])
    return PredictedRows(
        names=columns.names,
        labels=labels,
        probabilities=probabilities,
        lines=columns.lines[:count],
        splits=Counter({name: rows // repeats for name, rows in splits.items()}),
    )


def records_at(lines: list[tuple[Path, int]]) -> list[dict[str, Any]]:
    """The records at these lines, in this order."""
    places: dict[Path, dict[int, int]] = {}
    for position, (path, number) in enumerate(lines):
        places.setdefault(path, {})[number] = position
    found: list[dict[str, Any]] = [{}] * len(lines)
    for path, wanted in places.items():
        with naming_os_errors(f"{path}: cannot be read"), path.open(encoding="utf-8") as file:
            for number, line in enumerate(file):
                if number in wanted:
                    found[wanted[number]] = json.loads(line)
    return found
