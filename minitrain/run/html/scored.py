"""Reads predictions.jsonl in chunks, and keeps counts and the most telling rows: files may be larger than memory.

Per class figures, calibration and thresholds are computed by the code that computes the metrics of a run.
"""

import heapq
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minitrain.errors import MinitrainError
from minitrain.run.html.thresholds import ThresholdCounts
from minitrain.run.json_lines import json_lines
from minitrain.run.save import KEYS
from minitrain.training.calibration import Reliability
from minitrain.training.confusion import Confusion

CHUNK = 2000  # rows
SHOWN = 20  # errors, and uncertain texts
KEPT = 300  # characters of a text
WAY_OUT = "get the file again, or take it away to go without what it says"  # of a damaged file
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """A row worth showing.

    Attributes:
        score: A probability, or of a regression the distance of the prediction from the label.
        about: Of several labels, the one that the score is about.
    """

    score: float
    record: Record
    texts: tuple[tuple[str, str, int], ...]  # column, beginning of its text, length of the whole
    about: str | None = None


class Extremes:
    """The rows with the highest keys, the first of equal ones."""

    def __init__(self, columns: Sequence[str]) -> None:
        """Keep none yet. `columns` are those of the texts."""
        self.columns = columns
        self.heap: list[tuple[float, int, Row]] = []
        self.seen = 0

    def offer(self, key: float, score: float, record: Record, about: str | None = None) -> None:
        """Consider a row."""
        self.seen += 1
        if len(self.heap) == SHOWN and key <= self.heap[0][0]:
            return
        row = Row(score, _without_texts(record), tuple(_texts(record, self.columns)), about)
        entry = (key, -self.seen, row)
        if len(self.heap) < SHOWN:
            heapq.heappush(self.heap, entry)
        else:
            heapq.heapreplace(self.heap, entry)

    def rows(self) -> list[Row]:
        """Highest key first."""
        return [row for _, _, row in sorted(self.heap, key=lambda entry: entry[:2], reverse=True)]


def _without_texts(record: Record) -> dict[str, Any]:
    return {key: record[key] for key in ("row", "file", "fold", "seed", "label", "prediction") if key in record}


def _texts(record: Record, columns: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    for column in columns:
        renamed = f"input_{column}"
        value = str(record.get(renamed if column in KEYS and renamed in record else column, ""))
        yield column, value[:KEPT], len(value)


@dataclass
class ScoredSplit:
    """What the predictions of a split say. `kind` is classes, labels (any number a row) or scores."""

    kind: str
    names: tuple[str, ...]  # of the classes
    errors: Extremes
    uncertain: Extremes
    positive: int | None = None  # of two classes
    rows: int = 0
    confusion: Confusion | None = None
    reliability: Reliability = field(default_factory=Reliability)
    thresholds: ThresholdCounts | None = None
    pairs: list[tuple[float, float]] = field(default_factory=list)  # of a regression: label, prediction

    def add(self, records: Sequence[Record]) -> None:
        """Count rows."""
        self.rows += len(records)
        {"classes": self._classes, "labels": self._labels, "scores": self._scores}[self.kind](records)

    def _classes(self, records: Sequence[Record]) -> None:
        ids = {name: i for i, name in enumerate(self.names)}
        probabilities = self._probabilities(records)
        true = torch.tensor([ids[record["label"]] for record in records])
        assert self.confusion is not None
        self.confusion.update(torch.tensor([ids[record["prediction"]] for record in records]), true)
        self.reliability.update(probabilities, true)
        if self.thresholds is not None:
            self.thresholds.update(probabilities[:, self.positive], true.eq(self.positive or 0))
        for record, confidence in zip(records, probabilities.max(-1).values.tolist(), strict=True):
            if record["label"] != record["prediction"]:
                self.errors.offer(confidence, confidence, record)
            self.uncertain.offer(-confidence, confidence, record)

    def _labels(self, records: Sequence[Record]) -> None:
        probabilities = self._probabilities(records)
        true, given = (self._multi_hot([record[key] for record in records]) for key in ("label", "prediction"))
        self.reliability.update(probabilities, true)
        assert self.thresholds is not None
        self.thresholds.update(probabilities.flatten(), true.flatten() == 1)
        margins = (probabilities - 0.5).abs()
        worst = margins.masked_fill(true == given, -1).max(-1)  # the surest wrong decision of each row
        least = margins.min(-1)
        for row, record in enumerate(records):
            margin, label = worst.values[row].item(), int(worst.indices[row])
            if margin >= 0:
                self.errors.offer(margin, probabilities[row, label].item(), record, self.names[label])
            label = int(least.indices[row])
            sureness = -least.values[row].item()
            self.uncertain.offer(sureness, probabilities[row, label].item(), record, self.names[label])

    def _scores(self, records: Sequence[Record]) -> None:
        for record in records:
            label, prediction = float(record["label"]), float(record["prediction"])
            self.pairs.append((label, prediction))
            self.errors.offer(abs(prediction - label), prediction - label, record)

    def _probabilities(self, records: Sequence[Record]) -> Tensor:
        """(rows, C) float64"""
        values = array("d")  # nested lists would take most of the time
        for record in records:
            values.extend(map(record["probabilities"].__getitem__, self.names))
        return torch.frombuffer(values, dtype=torch.float64).view(len(records), len(self.names))

    def _multi_hot(self, labels: Sequence[Sequence[str]]) -> Tensor:
        """(rows, C) float64 zeros and ones"""
        ids = {name: i for i, name in enumerate(self.names)}
        hot = torch.zeros(len(labels), len(self.names), dtype=torch.float64)
        for row, names in enumerate(labels):
            for name in names:
                hot[row, ids[name]] = 1
        return hot


def read_predictions(
    path: Path, alone: str, columns: Sequence[str], positive: str | None = None
) -> dict[str, ScoredSplit]:
    """Read predictions.jsonl, by split.

    Args:
        alone: The name of the split, if the file has one only and does not name it.
        columns: Those of the texts.
        positive: Of two classes, the one that the threshold is about; by default the second.

    Raises:
        MinitrainError: The file is damaged: names the line.
    """
    splits: dict[str, ScoredSplit] = {}
    first, records = 1, json_lines(path, WAY_OUT)
    while chunk := list(islice(records, CHUNK)):
        try:
            groups: dict[str, list[Record]] = {}
            for record in chunk:
                groups.setdefault(record.get("split", alone), []).append(record)
            for name, rows in groups.items():
                if name not in splits:
                    splits[name] = _split_like(rows[0], columns, positive)
                splits[name].add(rows)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MinitrainError(
                f"{path}, lines {first} to {first + len(chunk) - 1}: are not all as train.py writes them "
                f"({type(error).__name__}: {error}); {WAY_OUT}"
            ) from error
        first += len(chunk)
    return splits


def _split_like(record: Record, columns: Sequence[str], positive: str | None) -> ScoredSplit:
    """An empty split for rows like this one."""
    errors, uncertain = Extremes(columns), Extremes(columns)
    names = tuple(record.get("probabilities", ()))
    if not names:
        return ScoredSplit("scores", (), errors, uncertain)
    if isinstance(record["label"], list):
        return ScoredSplit("labels", names, errors, uncertain, thresholds=ThresholdCounts())
    split = ScoredSplit("classes", names, errors, uncertain, confusion=Confusion(len(names)))
    if len(names) == 2:
        split.positive = names.index(positive) if positive in names else 1
        split.thresholds = ThresholdCounts()
    return split
