"""Which rows of two runs are the same: those of one split, file and number, with the same texts and label."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from minitrain.errors import MinitrainError, listed, shown
from minitrain.run.compare.rows import CLASSES, ROWS, SCORES, Key, RunRows, SplitRows
from minitrain.training.bootstrap import ScoredRows
from minitrain.training.metrics import Metric

OTHER_DATA = "they are scored on different data"


class NotPaired(MinitrainError):
    """The rows of two runs cannot be compared one by one; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Rows that two runs scored both, (N,) in the order of the first run."""

    runs: tuple[RunRows, RunRows]
    splits: tuple[str, str]  # the names of the one split
    places: tuple[list[int], list[int]]
    names: tuple[str, ...]  # of the classes of both

    @property
    def rows(self) -> tuple[SplitRows, SplitRows]:
        """The split of each run."""
        first, second = (run.splits[split] for run, split in zip(self.runs, self.splits, strict=True))
        return first, second

    @property
    def only(self) -> tuple[int, int]:
        """How many rows each run has that the other lacks."""
        first, second = (len(rows.labels) - len(self.places[0]) for rows in self.rows)
        return first, second

    def right(self, which: int) -> Tensor:
        """(N,) bool: the rows in which a run, 0 or 1, predicts the label, or all labels and no other."""
        rows = self.rows[which]
        return torch.tensor([rows.predictions[place] == rows.labels[place] for place in self.places[which]])

    def confidences(self, which: int) -> Tensor:
        """(N,) float64, as in `SplitRows`."""
        rows = self.rows[which]
        return torch.tensor([rows.confidences[place] for place in self.places[which]], dtype=torch.float64)

    def scored(self, which: int, new_metric: "partial[Metric]") -> ScoredRows:
        """The rows as metrics take them, class ids being places in `names`."""
        run, rows, places = self.runs[which], self.rows[which], self.places[which]
        predictions, labels = [rows.predictions[i] for i in places], [rows.labels[i] for i in places]
        probabilities = None
        if rows.probabilities:
            own = torch.tensor(rows.probabilities, dtype=torch.float64).view(-1, len(run.names))[places]
            probabilities = own[:, [run.names.index(name) for name in self.names]]
        return ScoredRows(new_metric, self._tensor(predictions), self._tensor(labels), probabilities)

    def _tensor(self, answers: Sequence[Any]) -> Tensor:
        if self.runs[0].kind == SCORES:
            return torch.tensor(answers)
        ids = {name: number for number, name in enumerate(self.names)}
        if self.runs[0].kind == CLASSES:
            return torch.tensor([ids[name] for name in answers])
        hot = torch.zeros(len(answers), len(ids), dtype=torch.bool)
        for row, names in enumerate(answers):
            hot[row, [ids[name] for name in names]] = True
        return hot


def shared_splits(first: RunRows, second: RunRows) -> list[tuple[str, str]]:
    """The splits of both runs, by their name in each; an unnamed one fits the only split of the other."""
    if len(first.splits) == len(second.splits) == 1 and ROWS in (*first.splits, *second.splits):
        return [(next(iter(first.splits)), next(iter(second.splits)))]
    return [(name, name) for name in first.splits if name in second.splits]


def pair_rows(first: RunRows, second: RunRows, splits: tuple[str, str]) -> Pairs:
    """Pair the rows of a split.

    Raises:
        NotPaired: The runs have no row in common, or one of them has other texts or another label there.
    """
    if first.kind != second.kind:
        raise NotPaired(f"{first.source} predicts {first.kind}, {second.source} {second.kind}")
    ours, theirs = first.splits[splits[0]], second.splits[splits[1]]
    shared = [key for key in ours.places if key in theirs.places]
    if not shared:
        (our_first, *_), (their_first, *_) = ours.places, theirs.places
        raise NotPaired(
            f"no row is in both, going by its file and number: {first.source} begins with {_row(our_first)}, "
            f"{second.source} with {_row(their_first)}"
        )
    columns = [name for name in ours.texts if name in theirs.texts]
    if not columns:
        raise NotPaired(
            f"{first.source} read {listed(ours.texts)}, {second.source} {listed(theirs.texts)}: nothing shows that "
            "their rows are the same. Let evaluate.py write those of each with --keep_columns all --output "
            "rows.jsonl, and compare the files"
        )
    places = [ours.places[key] for key in shared], [theirs.places[key] for key in shared]
    for key, one, other in zip(shared, places[0], places[1], strict=True):
        for name in columns:
            if ours.texts[name][one] != theirs.texts[name][other]:
                where = f"{_row(key)} of {splits[0]}"
                raise NotPaired(f"{where} has another {name!r} in {second.source}: {OTHER_DATA}")
        if ours.labels[one] != theirs.labels[other]:
            one_label = f"{shown(ours.labels[one])} in {first.source}"
            other_label = f"{shown(theirs.labels[other])} in {second.source}"
            raise NotPaired(f"{_row(key)} of {splits[0]} is {one_label}, {other_label}: {OTHER_DATA}")
    names = tuple(dict.fromkeys([*first.names, *second.names]))
    return Pairs(runs=(first, second), splits=splits, places=places, names=names)


def _row(key: Key) -> str:
    file, number = key
    return f"row {number}" if file is None else f"{file}, row {number}"
