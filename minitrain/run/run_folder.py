"""The folder of a run: its name, its files, and whether a run may be written there."""

import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from minitrain.config.read_options import data_name
from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError, naming_os_errors, shown
from minitrain.storage.files import read_json

RESULTS = "results.json"
PREDICTIONS = "predictions.jsonl"
CALIBRATION = "calibration.json"
LABEL_ERRORS = "label_errors.jsonl"  # of --folds, or of label_errors.py
REPORT = "report.html"
LOG = "log.jsonl"  # called log.jsonl.part until the run is saved
CHECKPOINTS = "checkpoints"
TRACKERS = "trackers.json"  # what the trackers of --report_to call this run
EVENTS = ".minitrain"  # ends the names of its event files for TensorBoard
RUNS = "runs.json"  # what --folds and --seeds train, each run in a folder of its name
# Entries of RESULTS that are used again, and their types.
USED_RESULTS = dict(config=dict, text_columns=list, max_length=int, label_column=str, positive_label=str, join=str)
OWN_FILES = (RESULTS, PREDICTIONS, LOG, "config.json", "model.safetensors", "README.md")


def read_results(directory: Path) -> dict[str, Any]:
    """The contents of `results.json`, {} without one. Raises MinitrainError for an entry that is no run's."""
    path = directory / RESULTS
    results = read_json(path) if path.is_file() else {}
    for key, kind in USED_RESULTS.items():
        if not isinstance(results.get(key), kind | None):
            what = f"{key!r} is {shown(results[key])}, expected {kind.__name__} as train.py writes it"
            raise MinitrainError(f"{path}: {what}; get the file again, or take it away to go without what it says")
    return results


def output_path(config: TrainConfig) -> Path:
    """The run's folder: `--output_dir`, or runs/<data>-<model>.

    >>> output_path(TrainConfig(model="bert-base-cased", train_file="reviews.csv")).as_posix()
    'runs/reviews-bert-base-cased'
    """
    if config.output_dir is not None:
        return Path(config.output_dir)
    data = config.subset or data_name(config.train_file) or Path(config.dataset or "").stem or "data"
    return Path("runs") / f"{data}-{Path(config.model).name}"


def output_directory(config: TrainConfig) -> Path:
    """The run's folder, checked for writing; the first step creates it.

    Raises:
        MinitrainError: It cannot be written, or holds a run and no flag says what to do with that.
    """
    directory = output_path(config)
    with naming_os_errors(f"--output_dir {directory}: cannot be written"):
        _check_free(directory, config)
        made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
        for folder in made:  # a run that fails before its first step leaves no empty folder
            with suppress(OSError):  # another run may have created its folder beside it
                folder.rmdir()
    return directory


def _check_free(directory: Path, config: TrainConfig) -> None:
    if config.overwrite_output_dir:
        return
    if config.resume is not None:
        check_kind(directory, config)
        return
    if (directory / RUNS).exists():
        what, resume = "the runs of a command with --folds or --seeds", "--resume to continue them, "
    elif held := held_files(directory):
        what, resume = f"a run already ({', '.join(held)})", ""
    elif (directory / CHECKPOINTS).exists():
        what, resume = "checkpoints of an interrupted run", "--resume to continue it, "
    else:
        return
    ways = f"{resume}--overwrite_output_dir to replace it, or another --output_dir"
    raise MinitrainError(f"{directory}: holds {what}; pass {ways}")


def check_kind(directory: Path, config: TrainConfig) -> None:
    """Raise MinitrainError if one run is to be resumed as several, or the other way round."""
    if (directory / RUNS).exists() and not config.has_several_runs:
        raise MinitrainError(
            f"--resume: {directory} holds the runs of a command with --folds or --seeds; pass the same flags "
            "again, or another --output_dir"
        )
    one = held_files(directory) or (directory / CHECKPOINTS).exists()
    if config.has_several_runs and one and not (directory / RUNS).exists():
        raise MinitrainError(
            f"--resume: {directory} holds a single run, not those of --folds or --seeds; pass another "
            "--output_dir, or --overwrite_output_dir instead of --resume to replace it"
        )


def held_files(directory: Path) -> list[str]:
    """The names of the files in the folder that a finished run leaves."""
    return [name for name in OWN_FILES if (directory / name).exists()]


def is_finished(directory: Path) -> bool:
    """Whether the folder's run was trained to its end and saved."""
    return (directory / RESULTS).exists() and not (directory / f"{LOG}.part").exists()


def keeps_model(directory: Path) -> bool:
    """Whether the model of a run stays: not that of one of --folds or --seeds, unless --keep_folds asks for it."""
    several = directory.parent / RUNS
    if not several.is_file() or directory.name not in read_json(several).get("runs", []):
        return True
    return bool(read_json(several).get("config", {}).get("keep_folds"))


def clear_checkpoints(directory: Path) -> None:
    """Remove the checkpoints, curves, and runs of --folds and --seeds that `--overwrite_output_dir` replaces."""
    shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)
    for path in (*event_files(directory), directory / TRACKERS):
        path.unlink(missing_ok=True)
    if (directory / RUNS).is_file():
        for run in read_json(directory / RUNS).get("runs", []):
            if re.fullmatch(r"(seed-\d+-?)?(fold-\d+)?", str(run)) and run:
                shutil.rmtree(directory / run, ignore_errors=True)
        (directory / RUNS).unlink()


def event_files(directory: Path) -> list[Path]:
    """The files for TensorBoard that a run wrote there."""
    return list(directory.glob(f"events.out.tfevents.*{EVENTS}"))


def logged_lines(directory: Path) -> list[str]:
    """The whole lines of a run's log, which may be unfinished; none if there is no log."""
    paths = (path for path in (directory / f"{LOG}.part", directory / LOG) if path.exists())
    if (path := next(paths, None)) is None:
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("}\n")]
