"""One run per folder: a lock that the operating system releases even when the process is killed."""

import fcntl
import json
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minitrain.errors import MinitrainError

HOLDER = ".running"  # host and process id of the run that holds the lock


@contextmanager
def exclusive_lock(directory: Path) -> Iterator[None]:
    """Lock a folder, which is created if missing, against other runs.

    Raises:
        MinitrainError: Another run holds the lock; names its host and process id.
    """
    directory.mkdir(parents=True, exist_ok=True)
    holder = directory / HOLDER
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MinitrainError(
                f"{directory}: {_named(holder)} is training there; wait for it, stop it, or pass "
                "another --output_dir"
            ) from error
        except OSError as error:  # some network file systems have no locks
            warnings.warn(
                f"{directory}: cannot be locked ({error.strerror}); make sure that no other run writes to it",
                stacklevel=3,
            )
        with suppress(OSError):  # only for the message above: a full disk is noticed soon enough
            holder.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}), encoding="utf-8")
        try:
            yield
        finally:
            holder.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _named(holder: Path) -> str:
    try:
        found = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {found['pid']} on {found['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
