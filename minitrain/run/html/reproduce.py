"""How to repeat a run: its command, and the versions and commits that it had."""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from minitrain.config.train_config import TrainConfig, with_todays_names
from minitrain.errors import MinitrainError
from minitrain.run.html.facts import Facts
from minitrain.run.html.markup import name, section, table, text

OF_THE_FOLDER = ("overwrite_output_dir", "resume", "resume_changed")  # say nothing about the run


def train_command(config: Mapping[str, Any]) -> str:
    """The flags of a run whose values are not the default ones, as a command.

    >>> train_command({"model": "demo", "dataset": "demo", "seed": 1, "max_steps": -1})
    'python scripts/train.py --dataset demo --seed 1 --model demo'
    """
    saved = with_todays_names(config)
    matches: dict[str, Any] = {key: True for key in ("match_trainer", "match_accelerate") if saved.get(key)}
    try:
        plain: Any = TrainConfig(**matches)
    except MinitrainError:  # saved by hand
        plain = TrainConfig()
    words = ["python scripts/train.py"]
    for spec in fields(TrainConfig):
        value = saved.get(spec.name)
        known = spec.name in saved and spec.name not in OF_THE_FOLDER
        differs = json.dumps(value) != json.dumps(getattr(plain, spec.name)) or spec.name in matches
        if known and value is not None and differs and not _follows(spec.name, saved):
            words.append(f"--{spec.name} {shlex.quote(_flag_value(value))}")
    return " ".join(words)


def _follows(key: str, saved: Mapping[str, Any]) -> bool:
    """Whether a value is what the other settings lead to."""
    several = saved.get("folds") is not None or saved.get("seeds") is not None
    return key == "do_eval" and bool(saved["do_eval"]) == (saved.get("eval_strategy") != "no" or several)


def _flag_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        names = [str(part) for part in value]
        plain = all(part == part.strip() and part and "," not in part for part in names)
        return ",".join(names) if plain else json.dumps(names, ensure_ascii=False)
    return str(value)


def reproduction(facts: Facts) -> str:
    """The section of the page."""
    results = facts.results
    notes = [f'<p class="note">{note}</p>\n' for note in _notes(facts)]
    versions = [(text(key), name(value)) for key, value in (results.get("versions") or {}).items()]
    for key, what in (("model_commit", "model's commit"), ("dataset_commit", "dataset's commit")):
        if results.get(key):
            versions.append((what, name(results[key])))
    return section(
        "How to repeat it",
        f"<pre>{text(train_command(facts.config))}</pre>\n",
        *notes,
        table(("what", "version"), versions, "Versions and commits", "words") if versions else "",
    )


def _notes(facts: Facts) -> Iterator[str]:
    results, config = facts.results, facts.config
    if not results.get("dataset"):
        yield "The data were given in memory, train(config, data=...): the command needs a file or a dataset too."
    if results.get("loss_function"):
        yield f"The loss was the function {name(results['loss_function'])} of the user, which is not saved."
    yield (
        "On the same machine, with as many threads and processes, the same command gives the same bits. "
        f"This run had {_processes(config, results)}."
    )


def _processes(config: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    own = config.get("per_device_train_batch_size", 1) * config.get("gradient_accumulation_steps", 1)
    count = (results.get("global_batch") or own) // (own or 1)
    return "one process" if count <= 1 else f"{count} processes: start it with torchrun --nproc_per_node {count}"
