"""The folder of a run: where it is, whether it can be written, who is in it, and whether its run is finished."""

import fcntl
import json
import os
import shutil
import socket
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minitrain.config.read_options import data_name
from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError

RESULTS = "results.json"
PREDICTIONS = "predictions.jsonl"  # of the rows that it was scored on
LOG = "log.jsonl"  # called log.jsonl.part until the run is saved
CHECKPOINTS = "checkpoints"
OWN_FILES = (RESULTS, PREDICTIONS, LOG, "config.json", "model.safetensors", "README.md")
_HOLDER = ".running"  # who is in the folder


def output_path(config: TrainConfig) -> Path:
    """The folder of the run: as asked, else named after data and model."""
    if config.output_dir is not None:
        return Path(config.output_dir)
    data = config.subset or data_name(config.train_file) or Path(config.dataset or "").stem or "data"
    return Path("runs") / f"{data}-{Path(config.model).name}"


def output_directory(config: TrainConfig) -> Path:
    """The folder of the run, tried for writing; it is made with the first step.

    Raises MinitrainError where it cannot be written, or holds a run that nobody said may go.
    """
    directory = output_path(config)
    try:
        _check_free(directory, config)
        made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
        for folder in made:  # a run that cannot start leaves no empty folder
            with suppress(OSError):  # another run may have put its own beside
                folder.rmdir()
    except OSError as error:
        raise MinitrainError(f"--output_dir {directory}: cannot be written ({error.strerror or error})") from error
    return directory


def _check_free(directory: Path, config: TrainConfig) -> None:
    if config.overwrite_output_dir or config.resume is not None:
        return
    if held := held_files(directory):
        raise MinitrainError(
            f"{directory}: holds a run already ({', '.join(held)}); pass --overwrite_output_dir to replace it, "
            "or another --output_dir"
        )
    if (directory / CHECKPOINTS).exists():
        raise MinitrainError(
            f"{directory}: holds checkpoints of a run that was interrupted; pass --resume to go on with it, "
            "--overwrite_output_dir to start anew, or another --output_dir"
        )


def held_files(directory: Path) -> list[str]:
    """What is in the folder of the files that a run saves at its end."""
    return [name for name in OWN_FILES if (directory / name).exists()]


def is_finished(directory: Path) -> bool:
    """Whether the folder's run went to its end and was saved."""
    return (directory / RESULTS).exists() and not (directory / f"{LOG}.part").exists()


@contextmanager
def exclusive_lock(directory: Path) -> Iterator[None]:
    """Hold a run's folder, which is made, so that no second run writes into it; it is let go even by a crash.

    Raises MinitrainError naming host and process id of the run that holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    holder = directory / _HOLDER
    number = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MinitrainError(
                f"{directory}: {_named(holder)} is training there; wait for it, stop it, or pass "
                "another --output_dir"
            ) from error
        except OSError as error:  # some network file systems have no locks
            warnings.warn(
                f"{directory}: cannot be locked ({error.strerror}); nothing keeps a second run out of it",
                stacklevel=3,
            )
        with suppress(OSError):  # only for the message above: a disk without room for it is found soon enough
            holder.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}), encoding="utf-8")
        try:
            yield
        finally:
            holder.unlink(missing_ok=True)
    finally:
        os.close(number)


def _named(holder: Path) -> str:
    try:
        found = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {found['pid']} on {found['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def clear_checkpoints(directory: Path) -> None:
    """Remove the checkpoints of an earlier run, which `--overwrite_output_dir` lets go."""
    shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)
