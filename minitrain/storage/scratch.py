"""A large array of bytes on disk for the length of a run, mapped into memory.

The file has no name: it lies in the folder of the token cache, and the system frees it when the process ends,
however it ends. With MINITRAIN_CACHE= (empty) the bytes are in memory.
"""

import mmap
import os
import shutil
import tempfile
from pathlib import Path

from minitrain.errors import MinitrainError
from minitrain.storage.token_cache import cache_folder

WAY_OUT = "make room, or name another folder (MINITRAIN_CACHE=/somewhere), or leave out --keep_activations"


def scratch(size: int) -> mmap.mmap:
    """Zeros, of which `size` bytes are reserved on the disk at once: a disk that fills up later is no concern.

    Raises:
        MinitrainError: The disk has no room, or the folder cannot be written.
    """
    folder = cache_folder()
    check_room(size)
    try:
        if folder is None:
            return mmap.mmap(-1, size)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            return mmap.mmap(file.fileno(), size)
    except OSError as error:
        why = error.strerror or error
        raise MinitrainError(
            f"{folder or 'memory'}: {size / 1e9:.2f} GB of hidden states cannot be kept ({why}); {WAY_OUT}"
        ) from error


def check_room(size: int) -> None:
    """Raise MinitrainError if the disk of the cache has less than `size` bytes left."""
    folder = cache_folder()
    if folder is None:
        return
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if size > free:
        raise MinitrainError(
            f"{folder}: --keep_activations needs {size / 1e9:.2f} GB there, {free / 1e9:.2f} GB are free; {WAY_OUT}"
        )


def place() -> str:
    """Where the bytes are, for a message."""
    folder: Path | None = cache_folder()
    return "memory" if folder is None else str(folder)
