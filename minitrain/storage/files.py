"""Read JSON strictly, and write files so that a reader never sees half of one."""

import fcntl
import hashlib
import json
import os
import socket
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from minitrain.errors import MinitrainError, shown


def read_json(path: Path, infinite: bool = False) -> dict[str, Any]:
    """Read a JSON object as `strict_json` parses it. Raises MinitrainError naming the file and what is wrong."""
    try:
        value = strict_json(path.read_bytes(), infinite)
    except OSError as error:
        raise MinitrainError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise MinitrainError(f"{path}: {error}; mend it, or get the file again") from error
    if not isinstance(value, dict):
        raise MinitrainError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def strict_json(content: bytes, infinite: bool = False) -> Any:
    """Parse UTF-8 JSON without repeated keys, halves of surrogate pairs, NaN or Infinity.

    Args:
        infinite: Accept NaN and Infinity, as Python's parser does.

    Raises:
        ValueError: Its message continues a file's name: "is not valid JSON (...)".
    """
    try:
        value = json.loads(
            content.decode("utf-8"),
            parse_constant=float if infinite else _no_constant,
            object_pairs_hook=_no_duplicates,
        )
        if b"\\ud" in content or b"\\uD" in content:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise ValueError(f"is not valid JSON (it holds {half!r}, half of a surrogate pair)") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not valid JSON ({error})") from error
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"it holds {name}; numbers must be finite")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        (repeated, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"it holds the key {shown(repeated)} twice")
    return table


def json_text(value: Any) -> str:
    """Indented JSON with a final newline; keys in the order given, text unescaped."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@contextmanager
def whole_files(directory: Path, last: str | None = None) -> Iterator[Path]:
    """A temporary folder whose files are renamed into `directory` when the block succeeds, `last` after all others.

    If the block fails, `directory` is unchanged. Files get the mode of the umask, whatever their writer chose.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".writing-") as temporary:
        yield Path(temporary)
        mask = os.umask(0)  # it can only be read by setting it
        os.umask(mask)
        for file in sorted(Path(temporary).iterdir(), key=lambda file: file.name == last):
            os.chmod(file, 0o666 & ~mask)
            os.replace(file, directory / file.name)


def is_device(path: str | Path) -> bool:
    """Whether a path is not a regular file but a pipe, a terminal, or anything under /dev/."""
    regular = os.path.isfile(path) and not str(path).startswith("/dev/")
    return os.path.exists(path) and not os.path.isdir(path) and not regular


@contextmanager
def whole_text_file(path: Path) -> Iterator[TextIO]:
    """Open a UTF-8 file for writing; it appears, or replaces an older one, when the block succeeds.

    Links are followed; a device (/dev/stdout, a pipe) is written to directly.
    """
    if is_device(path):
        with path.open("w", encoding="utf-8") as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    with whole_files(path.parent) as folder, (folder / path.name).open("w", encoding="utf-8") as file:
        yield file


def write_whole(path: Path, text: str) -> None:
    """Write a UTF-8 text file in one rename."""
    with whole_text_file(path) as file:
        file.write(text)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


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
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {found['pid']} on {found['host']}"
    return "another process"
