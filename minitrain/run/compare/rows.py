"""The scored rows of a run: those of predictions.jsonl, or of a file that evaluate.py --output wrote.

Texts may be long and many: a row keeps a digest of each, and the place of its line to read the text again.
"""

import hashlib
import json
import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minitrain.data.progress import progress
from minitrain.errors import MinitrainError, naming_os_errors, shown
from minitrain.run.output_rows import OF_SEVERAL, OUTPUTS, SPLIT, TRUE
from minitrain.run.run_folder import PREDICTIONS, read_results
from minitrain.run.runs_report import HELD_OUT
from minitrain.run.save import KEYS

CLASSES, SEVERAL, SCORES = "one label a text", "several labels a text", "scores"
ROWS = "rows"  # the split of a file that names none
Key = tuple[str | None, int]  # the file, if there are several, and the row's number in it


@dataclass(kw_only=True)
class SplitRows:
    """The rows of one split, in the order of the file."""

    places: dict[Key, int] = field(default_factory=dict)  # of each row
    texts: dict[str, list[bytes]] = field(default_factory=dict)  # by column, a digest of each
    labels: list[Any] = field(default_factory=list)  # a name, a sorted tuple of names, or a score
    predictions: list[Any] = field(default_factory=list)
    # Of the prediction; of several labels how wrong the worst decision is; of a score its absolute error.
    confidences: "array[float]" = field(default_factory=lambda: array("d"))
    probabilities: "array[float]" = field(default_factory=lambda: array("d"))  # rows x classes, or none
    offsets: "array[int]" = field(default_factory=lambda: array("q"))  # of the line in the file, in bytes


@dataclass(kw_only=True)
class RunRows:
    """A run's results and its rows by split."""

    source: str  # as the user names it
    path: Path | None  # of the file with the rows; None if there is none
    results: dict[str, Any]  # of results.json; {} without one
    kind: str | None = None
    names: tuple[str, ...] = ()  # of the classes
    splits: dict[str, SplitRows] = field(default_factory=dict)
    missing: str | None = None  # why there are no rows, and what to do

    @property
    def several(self) -> list[dict[str, Any]]:
        """The results of each run of --folds or --seeds; [] of a single run."""
        return list(self.results.get("runs") or [])

    def values(self, split: str) -> dict[str, Any]:
        """Its saved metrics by name: numbers, None for no value, or mean and sd of several runs."""
        found = (self.results.get("results") or {}).get(split) or {}
        return {name: value for name, value in found.items() if name != "examples"}

    def texts_of(self, split: str, place: int) -> dict[str, Any]:
        """The texts of a row by column, read again from the file."""
        rows = self.splits[split]
        assert self.path is not None
        with self.path.open("rb") as file:
            file.seek(rows.offsets[place])
            record = json.loads(file.readline())
        return {name: record[name] for name in rows.texts}


def read_results_of(source: str) -> RunRows:
    """A run without its rows.

    Raises:
        MinitrainError: It is neither the folder of a run nor a file of scored rows.
    """
    path = Path(source)
    if path.is_file():
        return RunRows(source=source, path=path, results={})
    results = read_results(path) if path.is_dir() else {}
    if "results" not in results:
        why = "holds no finished run (no results.json)" if path.is_dir() else "is no folder and no file"
        rows = "rows that evaluate.py --output rows.jsonl wrote"
        raise MinitrainError(f"{source}: {why}; give the folder of a run that train.py finished, or {rows}")
    run = RunRows(source=source, path=path / PREDICTIONS, results=results)
    run.missing = _why_no_rows(run, path)
    return run


def _why_no_rows(run: RunRows, folder: Path) -> str | None:
    """Why the rows of a folder cannot be compared, and what to do."""
    config = run.results.get("config") or {}
    if run.several and not (config.get("folds") and not config.get("seeds")):
        names = [one["name"] for one in run.several]
        return f"it holds {len(names)} runs, compared by their means; compare {folder / names[0]} for rows"
    if (folder / PREDICTIONS).is_file():
        return None
    again = f"python scripts/evaluate.py {folder} --eval_file DATA --output {folder.name}.jsonl"
    return f"it has no {PREDICTIONS}: write the rows of each run with `{again}`, and compare those files"


def read_rows(run: RunRows, keep_probabilities: bool) -> None:
    """Fill in kind, names and splits from the run's file.

    Args:
        keep_probabilities: Of every class and row, which take 8 bytes each.

    Raises:
        MinitrainError: Names the line that is no scored row.
    """
    if run.missing or run.path is None:
        return
    reader = _Reader(run, keep_probabilities)
    size = run.path.stat().st_size if run.path.exists() else None
    with (
        naming_os_errors(f"{run.path}: cannot be read"),
        progress(f"reading {run.path}", size, "bytes") as add,
        run.path.open("rb") as file,
    ):
        offset = 0
        for number, line in enumerate(file, start=1):
            reader.add(line, number, offset)
            offset += len(line)
            add(len(line))
    if not run.splits:
        run.missing = f"{run.path} is empty"


class _Reader:
    """Reads lines into the splits of a run."""

    def __init__(self, run: RunRows, keep_probabilities: bool) -> None:
        self.run, self.keep = run, keep_probabilities
        self.one_of_each: dict[Any, Any] = {}  # names and tuples of names, each stored once
        only = list(run.results.get("results") or {})
        self.split = HELD_OUT if run.several else only[0] if len(only) == 1 else ROWS
        columns = run.results.get("text_columns")
        self.columns = [f"input_{name}" if name in KEYS else name for name in columns] if columns else None
        self.added = False  # whether evaluate.py wrote the rows

    def add(self, line: bytes, number: int, offset: int) -> None:
        """Take a line of the file. Raises MinitrainError if it is no scored row."""
        where = f"{self.run.path}, line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            way = "write the file again with evaluate.py --output rows.jsonl"
            raise MinitrainError(f"{where}: is not valid JSON ({error}); {way}") from error
        try:
            self._add(record, offset, where)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            if isinstance(error, MinitrainError):
                raise
            wanted = f"a row with label and prediction as in {PREDICTIONS}, or one that evaluate.py --output wrote"
            raise MinitrainError(f"{where}: expected {wanted}, got {shown(record)}") from error

    def _add(self, record: Mapping[str, Any], offset: int, where: str) -> None:
        if not self.run.splits:
            self._begin(record)
        split = str(record.get(SPLIT, self.split))
        rows = self.run.splits.setdefault(split, SplitRows())
        label, predicted = (record[TRUE], None) if self.added else (record["label"], record["prediction"])
        probabilities = record.get("probabilities")
        if self.added:
            predicted = record[{CLASSES: "label", SEVERAL: "labels", SCORES: "score"}[str(self.run.kind)]]
        row = len(rows.labels) + 1 if self.added else record["row"]
        key = (None if self.added else record.get("file"), int(row))
        if key in rows.places:
            raise MinitrainError(f"{where}: row {row} of {split} is there a second time; write the file again")
        rows.places[key] = len(rows.labels)
        columns = self.columns or self._text_columns(record)
        for name in columns:
            value = record[name] if self.run.results else record.get(name)  # a file may have optional columns
            text = json.dumps(value, sort_keys=True).encode()
            rows.texts.setdefault(name, []).append(hashlib.blake2b(text, digest_size=12).digest())
        self._answer(rows, label, predicted, probabilities)
        rows.offsets.append(offset)

    def _begin(self, record: Mapping[str, Any]) -> None:
        """Learn from the first row what all are like."""
        self.added = TRUE in record and "prediction" not in record
        probabilities = record.get("probabilities")
        predicted = record.get("labels" if self.added else "prediction")
        self.run.kind = SCORES if probabilities is None else SEVERAL if isinstance(predicted, list) else CLASSES
        self.run.names = tuple(probabilities or ())
        if self.columns is None:
            self.columns = self._text_columns(record)

    def _text_columns(self, record: Mapping[str, Any]) -> list[str]:
        made = (SPLIT, TRUE, *OUTPUTS, *OF_SEVERAL) if self.added else (*KEYS, "fold", "seed")
        renamed = [f"input_{name}" for name in made if self.added]  # columns of the input, but no texts
        return [name for name in record if name not in (*made, *renamed)]

    def _answer(self, rows: SplitRows, label: Any, predicted: Any, probabilities: Any) -> None:
        once, kind = self.one_of_each, self.run.kind
        if kind == SCORES:
            rows.labels.append(float(label))
            rows.predictions.append(math.nan if predicted is None else float(predicted))
            rows.confidences.append(abs(rows.predictions[-1] - rows.labels[-1]))
            return
        if kind == SEVERAL:
            label, predicted = tuple(sorted(label)), tuple(sorted(predicted))
            known = set(label) | set(predicted)
            sure = max(abs(share - (name in label)) for name, share in probabilities.items())
        else:
            known, sure = {label, predicted}, probabilities[predicted]
        if not known <= probabilities.keys():
            raise ValueError("a label has no probability")
        rows.labels.append(once.setdefault(label, label))
        rows.predictions.append(once.setdefault(predicted, predicted))
        rows.confidences.append(sure)
        if self.keep:
            rows.probabilities.extend(probabilities[name] for name in self.run.names)
