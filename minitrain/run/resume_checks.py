"""What a run that resumes may differ in from the one before it, and what of it it may replace.

A folder that holds a finished run goes on from that run's end, or not at all: from an older checkpoint, or from
none, it would save over what was learnt since. That is refused before anything in the folder changes.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minitrain.config.train_config import TrainConfig, with_todays_names
from minitrain.errors import MinitrainError
from minitrain.run.run_folder import CHECKPOINTS, RESULTS, held_files, is_finished
from minitrain.storage.checkpoint import Checkpoint, checkpoints_in
from minitrain.storage.files import read_json

# What may differ between a run and the one that takes it up: it changes no float of the training.
FREE = {
    "output_dir",
    "overwrite_output_dir",
    "resume",
    "resume_changed",
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "logging_steps",
    "profile",
    "do_eval",
    "ddp_timeout",
    "per_device_train_batch_size",  # these three are compared by their product with the number of processes
    "gradient_accumulation_steps",
    "global_batch_size",
}

TARGETS = "the targets"  # what a checkpoint calls the scale that a regression learns on; absent for the data's own


def check_data(old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """Raise MinitrainError naming the first of a run's data that are others than those of its checkpoint."""
    for name, value in new.items():
        if name != TARGETS and (before := old.get(name)) != value:
            raise MinitrainError(
                f"--resume: the checkpoint is of {name} {before}, this run has {value}; resume with what it was "
                "trained on, or start another run with another --output_dir"
            )
    _check_scale(old.get(TARGETS, "as they are"), new.get(TARGETS, "as they are"))


def _check_scale(before: str, now: str) -> None:
    """A head that answers on one scale is not read on another, nor is the best one so far."""
    if before != now:
        raise MinitrainError(
            f"--resume: the checkpoint learns {TARGETS} {before}, this run learns them {now}; give "
            "--standardize_targets as it was, or start another run with another --output_dir"
        )


def changed_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The settings that differ and may change the training, as "name: before -> now".

    old, new: "config", and "global_batch" where the number of processes is known.
    """
    before = with_todays_names(old["config"])
    settings = [(name, before.get(name), value) for name, value in new["config"].items() if name not in FREE]
    if "global_batch" in old:
        settings.append(("examples a step, in all processes", old["global_batch"], new["global_batch"]))
    plain = [(name, was, json.loads(json.dumps(value))) for name, was, value in settings]
    return [f"{name}: {was} -> {value}" for name, was, value in plain if was != value]


def check_settings(
    old: Mapping[str, Any], new: Mapping[str, Any], changed: bool, tell: Callable[[str], None]
) -> None:
    """Raise MinitrainError listing the settings that differ, unless that is wanted.

    old, new: as of `changed_settings`. changed: whether it is wanted; then `tell` says them.
    """
    differing = changed_settings(old, new)
    if not differing:
        return
    if not changed:
        raise MinitrainError(
            f"--resume: the run was trained with other settings: {'; '.join(differing)}. Give the same ones, or "
            "pass --resume_changed to go on with the new ones"
        )
    tell(f"changed  {'; '.join(differing)}")


def other_machine(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """A line that says what of the machine is another than when the run stopped; empty where nothing is.

    Sums split over another number of threads, or computed with other instructions, have other last bits.
    """
    differing = [
        f"{name} {before} -> {new[name]}" for name, before in old.items() if new.get(name, before) != before
    ]
    if not differing:
        return ""
    way = "" if old["threads"] == new["threads"] else f" (OMP_NUM_THREADS={old['threads']} has as many)"
    return f"changed  {', '.join(differing)}{way}: last bits differ from those of a run that never stopped"


def finished_run(directory: Path, config: TrainConfig, global_batch: int) -> dict[str, Any]:
    """What the run in the folder came to, where `--resume` has nothing left to do; {} where it has.

    global_batch: examples a step, in all processes.

    Raises MinitrainError where other settings are asked of a finished run, and it has no checkpoint of its end, or
    nobody said `--resume_changed`.
    """
    if config.resume != "newest" or not is_finished(directory):
        return {}
    results, now = _results(directory), {"config": asdict(config), "global_batch": global_batch}
    changed = changed_settings(results, now)
    if not changed:
        return results
    newest = max([_step_of(path) for path in checkpoints_in(directory / CHECKPOINTS)], default=0)
    if newest < results["steps"]:
        why = f"other settings are asked for ({'; '.join(changed)}), but {_lack(newest)}"
        raise _refusal(directory, results, why)
    if not config.resume_changed:
        check_settings(results, now, False, lambda line: None)
    return {}


def check_resumable(directory: Path, checkpoint: Checkpoint | None, config: TrainConfig, total_steps: int) -> None:
    """Raise MinitrainError where a run that resumes from this checkpoint would replace what it does not hold.

    directory: of the run. checkpoint: that was found; None for none. total_steps: of the run as it is asked for.
    """
    if checkpoint is None:
        if held := held_files(directory):
            saved = "model.safetensors" in held
            raise MinitrainError(
                f"--resume: {directory} holds {', '.join(held)}, but no checkpoint to go on from. Nothing was "
                f"changed. {_ways(directory) if saved else 'Pass another --output_dir'}"
            )
        return
    if not is_finished(directory):
        return
    results, why = _results(directory), ""
    asked = "" if config.resume == "newest" else config.resume or ""
    if asked and Path(asked).resolve().parent != (directory / CHECKPOINTS).resolve():
        why = f"{asked} is a checkpoint of another. To resume from it: another --output_dir"
    elif asked and checkpoint.step < results["steps"]:
        why = f"{asked} is of step {checkpoint.step}. To resume from it: another --output_dir"
    elif checkpoint.step < results["steps"]:
        why = _lack(checkpoint.step)
    elif checkpoint.step >= total_steps:
        why = f"{total_steps} are asked for, which is no more: ask for more"
    elif _stopped_early(checkpoint, config):
        why = f"it stopped early: --early_stopping_patience {_since_best(checkpoint) + 1} lets it go on"
    if why:
        raise _refusal(directory, results, why)


def _since_best(checkpoint: Checkpoint) -> int:
    since: int = checkpoint.facts["best"]["evaluations_since"]
    return since


def _stopped_early(checkpoint: Checkpoint, config: TrainConfig) -> bool:
    patience = config.early_stopping_patience
    return patience is not None and _since_best(checkpoint) >= patience


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _lack(newest: int) -> str:
    return f"its newest whole checkpoint is of step {newest}" if newest else "it has no checkpoint"


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
    """`results.json` of the folder. Raises MinitrainError where it is damaged, or no run of minitrain wrote it."""
    path = directory / RESULTS
    results = read_json(path)
    if not isinstance(results.get("steps"), int) or not isinstance(results.get("config"), dict):
        raise MinitrainError(
            f"{path}: has no 'steps' and 'config', so no run of minitrain saved it; pass another --output_dir, or "
            "--overwrite_output_dir instead of --resume to replace what is there"
        )
    return results
