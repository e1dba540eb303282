"""Two commands with --folds or --seeds: the runs of one name in each are a pair, and their metrics are compared."""

import statistics
from typing import Any

from minitrain.run.compare.metrics import lower_is_better
from minitrain.run.compare.results import ComparedRuns
from minitrain.run.compare.rows import RunRows
from minitrain.training.significance import paired_t

SAME = ("folds", "seed", "seeds", "group_column", "max_train_samples", "eval_fraction")  # decide a run's rows


def not_paired(first: RunRows, second: RunRows) -> str | None:
    """Why the runs of two commands are no pairs; None if they are."""
    if not first.several or not second.several:
        return None
    configs = [run.results.get("config") or {} for run in (first, second)]
    for name in SAME:
        if configs[0].get(name) != configs[1].get(name):
            values = f"{configs[0].get(name)} and {configs[1].get(name)}"
            return f"runs are not paired: --{name} differs ({values}), so runs of one name have other rows"
    if len(_names(first, second)) < 2:
        return "fewer than two runs have the same name in both: nothing to pair"
    return None


def compare_runs_by_name(first: RunRows, second: RunRows, split: str) -> dict[str, ComparedRuns]:
    """Compare the mean of each metric of a split that all paired runs have; {} if the runs are no pairs."""
    if not first.several or not second.several or not_paired(first, second):
        return {}
    folds, found = (first.results.get("config") or {}).get("folds"), {}
    for name in first.values(split):
        values = [_values(run, _names(first, second), split, name) for run in (first, second)]
        if any(value is None for one in values for value in one):
            continue
        differences = [b - a for a, b in zip(*values, strict=True)]
        test = paired_t(differences, folds)
        found[name] = ComparedRuns(
            name=name,
            means=(statistics.fmean(values[0]), statistics.fmean(values[1])),
            sds=(statistics.stdev(values[0]), statistics.stdev(values[1])),
            difference=statistics.fmean(differences),
            difference_sd=statistics.stdev(differences),
            pairs=len(differences),
            p_value=test and test.p_value,
            test=test and test.test,
            lower_is_better=lower_is_better(name),
        )
    return found


def _names(first: RunRows, second: RunRows) -> list[str]:
    others = {run["name"] for run in second.several}
    return [run["name"] for run in first.several if run["name"] in others]


def _values(run: RunRows, names: list[str], split: str, metric: str) -> list[Any]:
    by_name = {one["name"]: one for one in run.several}
    return [((by_name[name].get("results") or {}).get(split) or {}).get(metric) for name in names]
