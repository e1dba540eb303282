"""What differs between runs before their metrics: settings, versions, commits, data; and what each cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from minitrain.config.train_config import TrainConfig, with_todays_names
from minitrain.run.compare.rows import RunRows

# Settings that name a place, say how a command was started, or who is told of the run: they change no result.
NOT_COMPARED = (
    "output_dir",
    "overwrite_output_dir",
    "resume",
    "resume_changed",
    "report",
    "report_to",
    "run_name",
    "project",
    "push_to_hub",
    "hub_private",
    "card_examples",
)
FACTS = (
    "model_commit",
    "dataset_commit",
    "labels",
    "positive_label",
    "max_length",
    "global_batch",
    "loss_function",
)
COSTS = ("training_seconds", "peak_memory_mb", "steps")
UNKNOWN = "unknown"  # an older version did not record it


def different_settings(runs: Sequence[RunRows]) -> dict[str, list[Any]]:
    """By name, the value in each run of whatever is not the same in all.

    A setting that an older version did not have counts as its default; another fact that a run does not hold is
    `UNKNOWN`, and no difference by itself.
    """
    known = [_facts(run.results) for run in runs if run.results]
    if len(known) < 2:
        return {}
    defaults = asdict(TrainConfig())
    names = dict.fromkeys(name for facts in known for name in facts)
    found = {}
    for name in names:
        values = [facts.get(name, defaults.get(name, UNKNOWN)) for facts in known]
        told = [value for value in values if value != UNKNOWN]
        if any(value != told[0] for value in told):
            every = iter(values)
            found[name] = [next(every) if run.results else UNKNOWN for run in runs]
    return found


def costs(runs: Sequence[RunRows]) -> dict[str, list[Any]]:
    """Parameters, steps, seconds of training and memory of each run; None where a run does not say."""
    found: dict[str, list[Any]] = {
        "parameters": [(run.results.get("parameters") or {}).get("all") for run in runs],
        **{name: [run.results.get(name) for run in runs] for name in COSTS},
    }
    return {name: values for name, values in found.items() if any(value is not None for value in values)}


def _facts(results: Mapping[str, Any]) -> dict[str, Any]:
    settings = with_todays_names(results.get("config") or {})
    facts = {name: _plain(value) for name, value in settings.items() if name not in NOT_COMPARED}
    facts |= {name: results[name] for name in FACTS if name in results}
    for name, version in (results.get("versions") or {}).items():
        facts[f"version of {name}"] = version
    for split, data in (results.get("data") or {}).items():
        for name in ("examples", "labels"):
            if name in data:
                facts[f"{split} {name}"] = data[name]
    return facts


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
