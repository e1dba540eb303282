"""Compare saved runs: `compare_runs` reads them, compares each with the first, prints and returns what it found."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from minitrain.config.compare_config import CompareConfig
from minitrain.distributed.world import world_from_environment
from minitrain.errors import MinitrainError, listed
from minitrain.run.compare.lines import comparison_lines
from minitrain.run.compare.metrics import (
    compare_metrics,
    differing_values,
    metrics_to_test,
    needs_probabilities,
)
from minitrain.run.compare.pairs import NotPaired, pair_rows, shared_splits
from minitrain.run.compare.results import Compared, ComparedRuns, Comparison, SplitComparison
from minitrain.run.compare.rows import RunRows, read_results_of, read_rows
from minitrain.run.compare.settings import costs, different_settings
from minitrain.run.compare.several import compare_runs_by_name, not_paired
from minitrain.run.compare.texts import texts_won
from minitrain.run.output_file import check_writable, write_json
from minitrain.run.report import as_json, say
from minitrain.training.significance import holm

FEW_ROWS = 30


def compare_runs(config: CompareConfig) -> dict[str, Any]:
    """Compare saved runs with the first of them, print the comparison, and return it as `--json` writes it.

    Raises:
        MinitrainError: Names the run, file or line that is wrong; or there are several processes.
    """
    if (size := world_from_environment().size) > 1:
        raise MinitrainError(f"runs are compared by one process, not {size}: start without torchrun")
    check_writable(config.json)
    runs = [read_results_of(source) for source in config.runs]
    keep = needs_probabilities(config, runs)
    for run in runs:
        read_rows(run, keep)
    settings, cost = different_settings(runs), costs(runs)
    compared = [_compare(config, runs[0], other) for other in runs[1:]]
    _correct(compared)
    say(*comparison_lines(config, settings, cost, compared))
    found = {
        "runs": list(config.runs),
        "settings": settings,
        "costs": cost,
        "comparisons": [asdict(comparison) for comparison in compared],
    }
    result: dict[str, Any] = as_json(found)
    write_json(config.json, result)
    return result


def _compare(config: CompareConfig, first: RunRows, second: RunRows) -> Comparison:
    notes = [f"{run.source}: rows are not compared: {run.missing}" for run in (first, second) if run.missing]
    if reason := not_paired(first, second):
        notes.append(reason)
    pairs = shared_splits(first, second)
    if first.splits and second.splits and not pairs:
        theirs = f"{first.source} has {listed(first.splits)}, {second.source} {listed(second.splits)}"
        notes.append(f"rows are not compared: no split of the same name ({theirs})")
    saved = [list(run.results.get("results") or {}) for run in (first, second)]
    alone = [(name, name) for name in saved[0] if name in saved[1] and (name, name) not in pairs]
    splits = [_compare_split(config, first, second, names) for names in [*pairs, *alone]]
    return Comparison(runs=(first.source, second.source), splits=splits, notes=notes)


def _compare_split(
    config: CompareConfig, first: RunRows, second: RunRows, names: tuple[str, str]
) -> SplitComparison:
    found = SplitComparison(split=names[0], runs=compare_runs_by_name(first, second, names[0]))
    if names[0] in first.splits and names[1] in second.splits:
        try:
            _compare_rows(config, first, second, names, found)
        except NotPaired as reason:
            found.notes.append(f"rows are not compared: {reason}")
    found.examples = [_examples(run, name) for run, name in zip((first, second), names, strict=True)]
    values = [run.values(name) for run, name in zip((first, second), names, strict=True)]
    for name in dict.fromkeys([*values[0], *values[1]]):
        if name not in found.metrics and name not in found.runs:
            found.saved[name] = [one.get(name) for one in values]
    found.headline = _headline(first.results.get("config") or {}, found)
    return found


def _examples(run: RunRows, split: str) -> int | None:
    found = ((run.results.get("results") or {}).get(split) or {}).get("examples")
    return found if isinstance(found, int) else None


def _compare_rows(
    config: CompareConfig, first: RunRows, second: RunRows, names: tuple[str, str], found: SplitComparison
) -> None:
    pairs = pair_rows(first, second, names)
    tested = metrics_to_test(config, pairs)
    found.rows, found.only = len(pairs.places[0]), pairs.only
    found.metrics = compare_metrics(config, pairs, tested)
    found.won = [texts_won(pairs, winner, config.show) for winner in (0, 1)]
    found.notes += [*tested.notes, *differing_values(pairs, found.metrics)]
    if found.rows < FEW_ROWS:
        found.notes.append(f"{found.rows} rows are few: a bootstrap of under {FEW_ROWS} gives too narrow intervals")


def _headline(settings: Mapping[str, Any], found: SplitComparison) -> str | None:
    """The metric that the conclusion is about: the one that chose the best epoch, or the first that is tested."""
    groups: list[Mapping[str, Compared | ComparedRuns]] = [found.metrics, found.runs]
    every = [(name, metric) for group in groups for name, metric in group.items() if name != "loss"]
    tested = [name for name, metric in every if math.isfinite(metric.difference)]
    asked = str(settings.get("metric_for_best_model") or "").removeprefix("eval_")
    return asked if asked in tested else tested[0] if tested else None


def _correct(compared: Sequence[Comparison]) -> None:
    """Correct the p-values of each metric and split for the number of runs that are compared with the first."""
    tests: dict[Any, list[Compared | ComparedRuns]] = {}
    for comparison in compared:
        for split in comparison.splits:
            for kind, group in (("rows", split.metrics), ("runs", split.runs)):
                for name, metric in group.items():
                    if metric.p_value is not None:
                        tests.setdefault((split.split, kind, name), []).append(metric)
    for metrics in tests.values():
        for metric, p_value in zip(metrics, holm([m.p_value or 0.0 for m in metrics]), strict=True):
            metric.p_holm = p_value
