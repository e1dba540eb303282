"""The metrics of two runs on the rows of both: values, intervals, and whether they differ by more than chance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from minitrain.config.compare_config import CompareConfig
from minitrain.data.progress import progress
from minitrain.run.compare.pairs import Pairs
from minitrain.run.compare.results import Compared
from minitrain.run.compare.rows import CLASSES, SCORES, SEVERAL, RunRows
from minitrain.run.intervals import interval
from minitrain.run.report import metric_name
from minitrain.training.bootstrap import ScoredRows, enough_resamples, resampled, spread
from minitrain.training.metrics import OF_POSITIVE, metric_for, metric_names
from minitrain.training.multi_label_metrics import MULTI_LABEL_RANKING
from minitrain.training.ranking_metrics import RANKING_METRICS
from minitrain.training.setup import LOWER_IS_BETTER
from minitrain.training.significance import mcnemar

RANKED = {*RANKING_METRICS, *MULTI_LABEL_RANKING}
SHARES = {CLASSES: "accuracy", SEVERAL: "subset_accuracy"}  # of rows that are right, which McNemar's test compares


@dataclass(frozen=True, kw_only=True)
class Tested:
    """The metrics to test, and what they need."""

    names: tuple[str, ...]
    positive: str | None = None
    notes: list[str] = field(default_factory=list)


def needs_probabilities(config: CompareConfig, runs: Sequence[RunRows]) -> bool:
    """Whether a metric ranks the rows of a class by their probabilities."""
    asked = set(config.metrics or ())
    found = {name for run in runs for values in (run.results.get("results") or {}).values() for name in values}
    return bool(RANKED & (asked or found))


def metrics_to_test(config: CompareConfig, pairs: Pairs) -> Tested:
    """The metrics asked for or saved by both runs, as far as their rows allow, and the share of right rows.

    Raises:
        MinitrainError: `--metrics` names one that does not fit the labels.
    """
    kind = pairs.runs[0].kind
    classes, several = None if kind == SCORES else len(pairs.names), kind == SEVERAL
    notes: list[str] = []
    if config.metrics is not None:
        names = list(metric_for(None, classes, names=config.metrics, multi_label=several).names)
    else:
        fitting = metric_names(classes, several)
        saved = [run.values(split) for run, split in zip(pairs.runs, pairs.splits, strict=True)]
        names = [name for name in dict.fromkeys(name for values in saved for name in values) if name in fitting]
        names = names or list(metric_for(None, classes, multi_label=several).names)
        names += [SHARES[str(kind)]] if kind in SHARES and SHARES[str(kind)] not in names else []
    if not all(rows.probabilities for rows in pairs.rows) or {*pairs.runs[0].names} != {*pairs.runs[1].names}:
        names, ranked = [name for name in names if name not in RANKED], set(names) & RANKED
        if ranked and config.metrics is not None:
            notes.append(f"{', '.join(sorted(ranked))}: not compared, the runs have other classes")
    positive = _positive(pairs) if classes == 2 and not several else None
    if classes == 2 and not several and positive is None:
        names, ours = [name for name in names if name not in OF_POSITIVE], {*names} & {*OF_POSITIVE}
        notes += [f"{', '.join(sorted(ours))}: not compared, each run is about another class"] if ours else []
    return Tested(names=tuple(names), positive=positive, notes=notes)


def _positive(pairs: Pairs) -> str | None:
    """The class that f1 is about; None if that is another one in each run."""
    named = {run.results["positive_label"] for run in pairs.runs if run.results.get("positive_label")}
    named = {name for name in named if name in pairs.names} or {pairs.names[1]}
    return named.pop() if len(named) == 1 else None


def compare_metrics(config: CompareConfig, pairs: Pairs, tested: Tested) -> dict[str, Compared]:
    """Compare each metric: the share of right rows by McNemar's test, others by the paired bootstrap."""
    kind = pairs.runs[0].kind
    classes = None if kind == SCORES else len(pairs.names)
    positive = pairs.names.index(tested.positive) if tested.positive is not None else 1
    new_metric = partial(metric_for, None, classes, positive, tested.names, kind == SEVERAL)
    models = pairs.scored(0, new_metric), pairs.scored(1, new_metric)
    first, second = (model.metrics() for model in models)
    draws = _resampled(config, models, len(pairs.places[0]), kind, tested.names)
    share, found = SHARES.get(str(kind)), {}
    for place, name in enumerate(tested.names):
        spreads = [spread(draws[:, which, place]) for which in (0, 1)]
        own = [None if s is None else (s.low, s.high) for s in spreads]
        apart = spread(draws[:, 1, place] - draws[:, 0, place])
        known = apart is not None and math.isfinite(first[name]) and math.isfinite(second[name])
        test, p_value = (f"bootstrap of {len(draws)}", apart.p_value) if apart and known else (None, None)
        if name == share:
            rows = len(pairs.places[0])
            own = [interval(value, rows) for value in (first[name], second[name])]  # as train.py prints it
            right = pairs.right(0), pairs.right(1)
            p_value, test = mcnemar(int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()))
        found[name] = Compared(
            name=metric_name(name, tested.positive),
            values=(first[name], second[name]),
            intervals=(own[0], own[1]),
            difference=second[name] - first[name],
            interval=(apart.low, apart.high) if apart and known else None,
            p_value=p_value,
            test=test,
            lower_is_better=lower_is_better(name),
        )
    return found


def _resampled(
    config: CompareConfig, models: tuple[ScoredRows, ScoredRows], rows: int, kind: str | None, names: Sequence[str]
) -> Any:
    counts = kind == CLASSES and not RANKED & {*names}
    columns = 1 if counts or kind == SCORES else models[0].metric().num_classes or 1
    resamples = config.resamples or enough_resamples(rows, columns, counts)
    with progress("bootstrap", resamples, "resamples") as add:
        return resampled(models, rows, resamples, config.seed, add)


def lower_is_better(name: str) -> bool:
    """Whether a smaller value of a metric is the better one, as for --metric_for_best_model."""
    return name in LOWER_IS_BETTER or name.endswith("loss")


def differing_values(pairs: Pairs, found: Mapping[str, Compared]) -> list[str]:
    """Notes on saved metrics that the saved rows do not have: of a user's function, or of other predictions."""
    notes = []
    for which, (run, split) in enumerate(zip(pairs.runs, pairs.splits, strict=True)):
        if run.several or pairs.only[which]:
            continue
        saved = run.values(split)
        for name, metric in found.items():
            value = saved.get(name)
            if isinstance(value, float) and not math.isclose(value, metric.values[which], abs_tol=1e-4):
                said = f"{name} is {value:.4f} in results.json, {metric.values[which]:.4f} by the saved rows"
                notes.append(f"{run.source}: {said}; the rows are compared")
    return notes
