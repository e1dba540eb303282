"""Records on their way out: to standard output or a pipe as they come, or to a file that grows beside its name.

OUTPUT.part holds whole rows in the order of the input. OUTPUT.part.json, its journal, says how many of them, how
many bytes that are, and what made them, so that an interrupted prediction can go on. When all rows are there, the
file becomes OUTPUT, replacing an older one, and the journal goes.
"""

import errno
import fcntl
import gzip
import io
import os
import shutil
import signal
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import FrameType
from typing import BinaryIO, Protocol

from minitrain.errors import MinitrainError, Stopped
from minitrain.storage.files import is_device, json_text, read_json, whole_files, write_whole

Facts = Callable[[], Mapping[str, str]]  # what made the rows, by names that tell a user where to look


class RecordFile(Protocol):
    """Where records go. rows: how many an interrupted prediction has left there."""

    rows: int

    def write(self, text: str, rows: int, more: bool = False) -> None:
        """Write whole rows, so that they can be read at once. more: others follow, and may be interrupted."""


class Stream:
    """Standard output, or a pipe."""

    def __init__(self, write: Callable[[str], object], flush: Callable[[], object]) -> None:
        self.rows, self._write, self._flush = 0, write, flush

    def write(self, text: str, rows: int, more: bool = False) -> None:
        """As of `RecordFile`."""
        # By line: of one large write to a pipe whose reader leaves, an unbuffered stdout (PYTHONUNBUFFERED) drops
        # the rest without an error.
        for line in io.StringIO(text, newline="\n"):
            self._write(line)
        self._flush()


class PartFile:
    """OUTPUT.part and its journal; see `record_file`."""

    def __init__(self, output: Path, made_by: Facts | None, resume: bool) -> None:
        self.part = output.with_name(f"{output.name}.part")
        self.journal = output.with_name(f"{output.name}.part.json")
        self.rows = self._bytes = self._checksum = 0
        self._made_by = made_by and cache(made_by)
        self._made = [folder for folder in output.parents if not folder.exists()]
        output.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = self.part.open("ab")
        try:
            self._lock()
            self._resume() if resume else self._begin()
        except BaseException:
            self._file.close()  # what is in it is not ours
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MinitrainError(
                f"{self.part}: another process is writing it; wait for it, stop it, or pass another --output"
            ) from error
        except OSError:
            """Some network file systems have no locks."""

    def _begin(self) -> None:
        """Begin with the first row. Raises MinitrainError where an interrupted prediction would be lost."""
        if self.journal.exists():
            held = read_json(self.journal).get("rows", 0)
            raise MinitrainError(
                f"{self.part}: holds the first {held:,} rows of a prediction that was interrupted; pass --resume "
                f"to go on with it, or delete {self.journal.name} to begin anew"
            )
        self._file.truncate(0)

    def _resume(self) -> None:
        """Go on where the journal says. Raises MinitrainError where something else made the rows."""
        assert self._made_by is not None
        if not self.journal.exists():
            self._file.truncate(0)
            return
        found, now = read_json(self.journal), self._made_by()
        then = found.get("made_by", {})
        if changed := [name for name in now if then.get(name) != now[name]]:
            raise MinitrainError(
                f"{self.part}: was begun with {', '.join(f'another {name}' for name in changed)}; pass what it was "
                f"begun with, or delete {self.journal.name} to begin anew"
            )
        self.rows, self._bytes, self._checksum = (found.get(name, 0) for name in ("rows", "bytes", "checksum"))
        if _checksum_of(self.part, self._bytes) != self._checksum:
            raise MinitrainError(
                f"{self.part}: is not as it was left; delete {self.journal.name} to begin anew, without --resume"
            )
        self._file.truncate(self._bytes)

    def write(self, text: str, rows: int, more: bool = False) -> None:
        """As of `RecordFile`."""
        data = text.encode("utf-8")
        self._file.write(data)
        self._file.flush()
        self._bytes, self._checksum = self._bytes + len(data), zlib.crc32(data, self._checksum)
        self.rows += rows
        if more and self._made_by is not None:
            facts = {"rows": self.rows, "bytes": self._bytes, "checksum": self._checksum}
            write_whole(self.journal, json_text({**facts, "made_by": dict(self._made_by())}))

    def finish(self, output: Path) -> None:
        """All rows are there."""
        self._file.close()
        if output.name.endswith(".gz"):
            with (
                whole_files(output.parent) as folder,
                self.part.open("rb") as plain,
                (folder / output.name).open("wb") as file,
                # Without name and time, so that the same rows are the same bytes.
                gzip.GzipFile("", "wb", fileobj=file, mtime=0) as compressed,
            ):
                shutil.copyfileobj(plain, compressed, 2**20)
            self.part.unlink()
        else:
            os.replace(self.part, output)
        self.journal.unlink(missing_ok=True)

    def leave(self) -> str | None:
        """Keep the whole rows that are there; returns what to say of them, None where there are none."""
        with suppress(OSError):  # of a disk that is full; what could not be written is no row
            self._file.close()
        if not self.rows:
            self.part.unlink(missing_ok=True)
            for folder in self._made:
                with suppress(OSError):  # another may have put its own beside
                    folder.rmdir()
            return None
        os.truncate(self.part, self._bytes)
        goes_on = "; the same command with --resume goes on from there" if self.journal.exists() else ""
        return f"{self.part}: holds the first {self.rows:,} rows{goes_on}"


def _checksum_of(path: Path, size: int) -> int:
    """CRC-32 of the first bytes of a file; -1 where it has fewer."""
    checksum = 0
    with path.open("rb") as file:
        while size and (data := file.read(min(size, 2**20))):
            checksum, size = zlib.crc32(data, checksum), size - len(data)
    return -1 if size else checksum


@contextmanager
def record_file(name: str | None, made_by: Facts | None = None, resume: bool = False) -> Iterator[RecordFile]:
    """Open what records are written to, for a block that writes them: a file, or standard output where it is None.

    The file appears when the block succeeds. made_by: of rows that can be made again, for `resume` to tell whether
    those of an interrupted prediction are the same ones. A link is followed, and what is no regular file
    (/dev/stdout, a pipe) is written to as it is.
    Raises MinitrainError where it cannot be written, and where an interrupted prediction would be lost.
    """
    if name is None:
        yield _standard_output()
        return
    try:
        if is_device(name):
            with open(name, "a", encoding="utf-8", newline="") as device:
                yield Stream(device.write, device.flush)
            return
        output = Path(os.path.realpath(name))
        if output.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        file = PartFile(output, made_by, resume)
        try:
            with _terminated_as_interrupted():
                yield file
            file.finish(output)
        except BaseException:
            if (note := file.leave()) is not None:
                print(note, file=sys.stderr)
            raise
    except OSError as error:
        raise MinitrainError(f"--output {name}: cannot be written ({error.strerror or error})") from error


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Have SIGTERM, as of a scheduler, end the block like Ctrl-C, so that what is left is named."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped("ended by SIGTERM", number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _standard_output() -> Stream:
    if sys.stdout is None:
        raise MinitrainError("standard output is closed; pass --output rows.jsonl")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # as JSON is, whatever the locale says
    return Stream(sys.stdout.write, sys.stdout.flush)
