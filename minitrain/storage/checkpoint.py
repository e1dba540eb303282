"""Checkpoints on disk: tensors as safetensors, everything else as JSON, complete or absent.

A checkpoint is a folder `step-<number>`. It is written under a temporary name, flushed to the disk file by file,
and renamed: whatever happens in between, a folder of that name is complete. Its manifest lists the sha256 of every
file, so that damage is found when it is read. No file points to the newest checkpoint; the folder is searched.

Not here: models and optimizers; this file knows only names and tensors.
"""

import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from minitrain.errors import MinitrainError
from minitrain.storage.files import json_text, read_json, sha256_of
from minitrain.storage.safetensors_io import read_tensors

FORMAT = 1  # a checkpoint with a higher number is of a newer minitrain
FACTS, MANIFEST = "state.json", "manifest.json"
_NAME = re.compile(r"step-(\d+)")
_WRITING, _DELETING = ".writing-", ".deleting-"
_OVERHEAD_BYTES = 1 << 16  # JSON, headers and folders


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state of a run: tensors by file and name, and JSON values, `step` among them."""

    tensors: Mapping[str, Mapping[str, Tensor]]
    facts: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return int(self.facts["step"])


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint into a folder of checkpoints, creating it if necessary, and return its path.

    Raises MinitrainError if the disk is full or not writable; nothing of the new checkpoint is left then, and the
    older ones are untouched.
    """
    target = folder / f"step-{checkpoint.step:08d}"
    if target.exists():  # of an earlier attempt at the same step: the same, unless it is damaged
        with suppress(MinitrainError):
            verify(target)
            return target
        _delete(target)
    needed = sum(t.numel() * t.element_size() for group in checkpoint.tensors.values() for t in group.values())
    temporary = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < needed + _OVERHEAD_BYTES:
            raise OSError(f"needs {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free")
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=_WRITING))
        os.chmod(temporary, folder.stat().st_mode & 0o777)
        _write(temporary, checkpoint)
        reached("before the rename")
        os.replace(temporary, target)
        _fsync(folder)
    except BaseException as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        if not isinstance(error, OSError | SafetensorError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise MinitrainError(
            f"{target}: the checkpoint cannot be saved ({reason}); older ones are as they were. Make room or "
            "choose another --output_dir"
        ) from error
    reached("after the rename")
    return target


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    for number, (name, tensors) in enumerate(checkpoint.tensors.items()):
        plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        save_file(plain, folder / f"{name}.safetensors")
        reached(f"after file {number}")
    facts = json_text({"format": FORMAT, **checkpoint.facts})
    (folder / FACTS).write_text(facts, encoding="utf-8")
    reached("before the manifest")
    sums = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json_text(sums), encoding="utf-8")
    for path in folder.iterdir():
        os.chmod(path, 0o666 & folder.stat().st_mode)
        _fsync(path)
    _fsync(folder)


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of a folder, newest first, unverified."""
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint after verifying every file.

    Raises MinitrainError naming the file that is missing, damaged or of a newer version of minitrain.
    """
    if not path.is_dir():
        others = ", ".join(other.name for other in checkpoints_in(path.parent)) or "none"
        raise MinitrainError(f"{path}: there is no such checkpoint; in {path.parent}: {others}")
    verify(path)
    facts = read_json(path / FACTS)
    if facts.get("format") != FORMAT:
        raise MinitrainError(
            f"{path / FACTS}: has format {facts.get('format')}, this minitrain reads {FORMAT}: it was written by "
            f"minitrain {facts.get('versions', {}).get('minitrain')}; use that version"
        )
    files = sorted(path.glob("*.safetensors"))
    return Checkpoint(tensors={file.stem: dict(read_tensors(file)) for file in files}, facts=facts)


def verify(path: Path) -> None:
    """Raise MinitrainError naming the first file of a checkpoint that is missing or differs from the manifest."""
    sums = read_json(path / MANIFEST)
    if FACTS not in sums:
        raise MinitrainError(f"{path / MANIFEST}: names no {FACTS}; the checkpoint is damaged")
    for name, expected in sums.items():
        file = path / name
        if Path(name).name != name or not os.path.isfile(file):
            raise MinitrainError(f"{file}: is missing; the checkpoint is damaged, resume from another")
        if (found := sha256_of(file)) != expected:
            raise MinitrainError(
                f"{file}: has sha256 {found}, the manifest says {expected}; the checkpoint is damaged, resume from "
                "another"
            )


def newest_checkpoint(folder: Path, log: Callable[[str], None]) -> Checkpoint | None:
    """The newest undamaged checkpoint, or None if there are none; damaged ones are logged.

    Raises MinitrainError if all of them are damaged.
    """
    failures = []
    for path in checkpoints_in(folder):
        try:
            return load_checkpoint(path)
        except MinitrainError as error:
            log(f"not resumed from {path.name}: {error}")
            failures.append(error)
    if failures:
        raise MinitrainError(
            f"{folder}: none of {len(failures)} checkpoints can be read; {failures[0]}. --overwrite_output_dir "
            "instead of --resume starts anew, and another --output_dir keeps what is here"
        )
    return None


def set_aside(folder: Path, step: int, log: Callable[[str], None]) -> None:
    """Move checkpoints newer than `step`, from which a run resumes, into `left/`.

    The resumed run writes checkpoints of the same names, and the newest must be its own.
    """
    for path in checkpoints_in(folder):
        if int(path.name.removeprefix("step-")) > step:
            aside = folder / "left" / path.name
            aside.parent.mkdir(exist_ok=True)
            if aside.exists():
                _delete(aside)
            os.replace(path, aside)
            log(f"moved    {path.name}, which is newer, into {aside.parent}")


def rotate(folder: Path, limit: int | None, best_step: int | None) -> None:
    """Keep the newest `limit` checkpoints (None: all) and that of the best step; delete the others.

    Nothing is deleted before the newest one is verified.
    """
    sweep(folder)
    found = checkpoints_in(folder)
    if limit is None or len(found) <= limit:
        return
    verify(found[0])
    for path in found[limit:]:
        if path.name != f"step-{best_step or 0:08d}":
            reached("before a deletion")
            _delete(path)
            reached("after a deletion")


def sweep(folder: Path) -> None:
    """Remove what interrupted saves and deletions left. Call it only while holding the run's lock."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name.startswith((_WRITING, _DELETING)):
                shutil.rmtree(path, ignore_errors=True)


def _delete(path: Path) -> None:
    """Rename first, so that a half-deleted checkpoint is never taken for a complete one."""
    gone = path.with_name(f"{_DELETING}{path.name}-{os.getpid()}")
    os.replace(path, gone)
    reached("inside a deletion")
    shutil.rmtree(gone, ignore_errors=True)


def _fsync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError) if path.is_dir() else nullcontext():  # some file systems cannot sync a folder
            os.fsync(number)
    finally:
        os.close(number)


def reached(point: str) -> None:
    """A point at which MINITRAIN_KILL_AT kills the process, so that tests can look at what is left."""
    if os.environ.get("MINITRAIN_KILL_AT") == point:
        os.kill(os.getpid(), signal.SIGKILL)
