"""What a resumed run may change, and what it may replace.

A folder with a finished run continues from the end of that run or not at all: from an earlier checkpoint, or from
none, it would overwrite what was learned since. That is refused before anything in the folder changes.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from minitrain.config.train_config import TrainConfig, with_todays_names
from minitrain.errors import MinitrainError
from minitrain.run.run_folder import CHECKPOINTS, RESULTS, check_kind, held_files, is_finished, read_results
from minitrain.storage.checkpoint import Checkpoint, checkpoints_in
from minitrain.training.setup import global_batch

# Settings that a resumed run may change: they change no float of the training.
FREE = {
    "output_dir",
    "overwrite_output_dir",
    "resume",
    "resume_changed",
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "logging_steps",
    "report_to",
    "run_name",
    "project",
    "profile",
    "report",
    "gradient_checkpointing",
    "do_eval",
    "calibrate",
    "ddp_timeout",
    "push_to_hub",
    "hub_private",
    "card_examples",
    "per_device_train_batch_size",  # these three are compared as one: examples a step
    "gradient_accumulation_steps",
    "global_batch_size",
}

TARGETS = "the targets"  # key of the scale of a regression; absent if it learns on the scale of the data


def check_data(old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """Raise MinitrainError naming the first of the data, tokenizer or labels that differs from the checkpoint's."""
    for name in (*new, TARGETS):
        before, now = (found.get(name, "as they are" if name == TARGETS else None) for found in (old, new))
        if before != now:
            way = (
                "give --standardize_targets as it was" if name == TARGETS else "resume with what it was trained on"
            )
            was, has = ("learns", "learns them") if name == TARGETS else ("is of", "has")
            raise MinitrainError(
                f"--resume: the checkpoint {was} {name} {before}, this run {has} {now}; {way}, or start another "
                "run with another --output_dir"
            )


def changed_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The settings that differ and may change the training, as "name: before -> now".

    Args:
        old, new: With "config", "loss_function" if it is the user's, and "global_batch" if the number of processes
            is known.
    """
    # What an earlier version did not know is as it was without the flag.
    plain = {spec.name: spec.default for spec in fields(TrainConfig)} | {"frozen_dropout": True}
    before = plain | with_todays_names(old["config"])
    settings = [(name, before.get(name), value) for name, value in new["config"].items() if name not in FREE]
    settings.append(("the loss function", old.get("loss_function"), new.get("loss_function")))
    if "global_batch" in old:
        settings.append(("examples a step, in all processes", old["global_batch"], new["global_batch"]))
    as_json = [(name, was, json.loads(json.dumps(value))) for name, was, value in settings]
    return [f"{name}: {was} -> {value}" for name, was, value in as_json if was != value]


def check_settings(
    old: Mapping[str, Any], new: Mapping[str, Any], allowed: bool, log: Callable[[str], None]
) -> None:
    """Log the settings that differ; raise MinitrainError listing them, unless changes are allowed."""
    changed = "; ".join(changed_settings(old, new))
    if changed and not allowed:
        raise MinitrainError(
            f"--resume: the run was trained with other settings: {changed}. Give the same ones, or pass "
            "--resume_changed to continue with the new ones"
        )
    groups = [_grouping(asdict(TrainConfig()) | found["config"]) for found in (old, new)]
    if groups[0] != groups[1]:
        raise MinitrainError(
            f"--resume: AdamW's moments in the checkpoint are of other parameters or groups ({changed}): resume "
            "with --freeze, --layerwise_lr_decay and --head_learning_rate as they were, or start another run with "
            "another --output_dir"
        )
    if changed:
        log(f"changed  {changed}")


def _grouping(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides which parameters AdamW has, and in which groups."""
    return config["freeze"], config["layerwise_lr_decay"] != 1.0 or config["head_learning_rate"] is not None


def other_machine(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """A line that names what differs from the machine of the checkpoint; empty if nothing does.

    Sums over another number of threads, or with other instructions, have other last bits.
    """
    differing = [f"{name} {was} -> {new[name]}" for name, was in old.items() if new.get(name, was) != was]
    if not differing:
        return ""
    way = "" if old["threads"] == new["threads"] else f" (OMP_NUM_THREADS={old['threads']} has as many)"
    return f"changed  {', '.join(differing)}{way}: last bits differ from those of a run that never stopped"


def finished_run(directory: Path, config: TrainConfig, processes: int, loss: str | None = None) -> dict[str, Any]:
    """The results of the folder's run if `--resume` has nothing left to do, else {}.

    Args:
        loss: The name of the user's loss function, if there is one.

    Raises:
        MinitrainError: A finished run is to continue with other settings, but has no checkpoint of its end, or
            `--resume_changed` is missing.
    """
    check_kind(directory, config)
    if config.resume != "newest" or not is_finished(directory):
        return {}
    results = _results(directory)
    now = {"config": asdict(config), "global_batch": global_batch(config, processes), "loss_function": loss}
    changed = changed_settings(results, now)
    if not changed and config.calibrate and "calibration" not in results:
        raise _refusal(directory, results, "it was trained without --calibrate")
    if not changed:
        return results
    steps = (int(path.name.removeprefix("step-")) for path in checkpoints_in(directory / CHECKPOINTS))
    if (newest := max(steps, default=0)) < results["steps"]:
        why = f"other settings are asked for ({'; '.join(changed)}), but {_newest_is(newest)}"
        raise _refusal(directory, results, why)
    check_settings(results, now, config.resume_changed, lambda line: None)
    return {}


def check_resumable(directory: Path, checkpoint: Checkpoint | None, config: TrainConfig, total_steps: int) -> None:
    """Raise MinitrainError if resuming from the checkpoint, or without one, replaces more than it holds.

    Args:
        directory: Of the run.
        total_steps: Of the run that is asked for now.
    """
    if checkpoint is None:
        if held := held_files(directory):
            way = _ways(directory) if "model.safetensors" in held else "Pass another --output_dir"
            raise MinitrainError(
                f"--resume: {directory} holds {', '.join(held)}, but no checkpoint to resume from. Nothing was "
                f"changed. {way}"
            )
        return
    if not is_finished(directory):
        return
    results, since_best = _results(directory), checkpoint.facts["best"]["evaluations_since"]
    asked = None if config.resume == "newest" else Path(config.resume or "")
    elsewhere = asked and asked.resolve().parent != (directory / CHECKPOINTS).resolve()
    if asked and (elsewhere or checkpoint.step < results["steps"]):
        whose = "of another run" if elsewhere else f"of step {checkpoint.step}"
        why = f"{asked} is a checkpoint {whose}. To resume from it: another --output_dir"
    elif checkpoint.step < results["steps"]:
        why = _newest_is(checkpoint.step)
    elif checkpoint.step >= total_steps:
        why = f"{total_steps} are asked for, which is no more: ask for more"
    elif since_best >= (config.early_stopping_patience or math.inf):
        why = f"it stopped early: --early_stopping_patience {since_best + 1} lets it continue"
    else:
        return
    raise _refusal(directory, results, why)


def _newest_is(step: int) -> str:
    return f"its newest whole checkpoint is of step {step}" if step else "it has no checkpoint"


def _refusal(directory: Path, results: Mapping[str, Any], why: str) -> MinitrainError:
    return MinitrainError(
        f"--resume: {directory} holds a finished run of {results['steps']} steps; {why}. Nothing was changed. "
        f"{_ways(directory)}"
    )


def _ways(directory: Path) -> str:
    return (
        f"To train on from the saved weights, with its labels: --model {directory} --output_dir OTHER, without "
        "--resume. To replace the run: --overwrite_output_dir instead of --resume"
    )


def _results(directory: Path) -> dict[str, Any]:
    """The contents of `results.json`, checked to be a run's."""
    results = read_results(directory)
    if not isinstance(results.get("steps"), int) or results.get("config") is None:
        raise MinitrainError(
            f"{directory / RESULTS}: has no 'steps' and 'config', so no run of minitrain saved it; pass another "
            "--output_dir, or --overwrite_output_dir instead of --resume to replace what is there"
        )
    return results
