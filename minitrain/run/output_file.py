"""Where results are written: standard output, a pipe, or a file that appears when it is complete.

A file grows as OUTPUT.part, which holds whole rows in input order. OUTPUT.part.json, its journal, records the
number of rows and bytes and what made them, so that an interrupted prediction can resume. When all rows are
written, the file is renamed to OUTPUT, replacing an older one, and the journal is removed.
"""

import errno
import fcntl
import gzip
import io
import os
import shutil
import signal
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, TextIO

from minitrain.errors import MinitrainError, Stopped, naming_os_errors
from minitrain.storage.files import is_device, json_text, read_json, whole_files, write_whole

Facts = Callable[[], Mapping[str, str]]  # what the rows depend on, by names that a user knows


class Stream:
    """Standard output, a device or a pipe. `rows` counts the rows written."""

    def __init__(self, file: TextIO) -> None:
        self.rows, self._file = 0, file

    def write(self, text: str, rows: int, more: bool = False) -> None:
        """Write whole rows and flush them."""
        # By line: an unbuffered stdout (PYTHONUNBUFFERED) loses the rest of one large write without an error when
        # the reader of the pipe leaves.
        for line in io.StringIO(text, newline="\n"):
            self._file.write(line)
        self._file.flush()
        self.rows += rows


class PartFile:
    """OUTPUT.part and its journal. `rows` counts the rows in it, those of an interrupted prediction included."""

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
            self._file.close()  # its content belongs to another run
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MinitrainError(
                f"{self.part}: another process is writing it; wait for it, stop it, or pass another --output"
            ) from error
        except OSError:
            pass  # some network file systems have no locks

    def _begin(self) -> None:
        """Start with the first row. Raises MinitrainError if an interrupted prediction would be lost."""
        if self.journal.exists():
            held = read_json(self.journal).get("rows", 0)
            raise MinitrainError(
                f"{self.part}: holds the first {held:,} rows of a prediction that was interrupted; pass --resume "
                f"to continue it, or delete {self.journal.name} to start again"
            )
        self._file.truncate(0)

    def _resume(self) -> None:
        """Continue after the journal's rows. Raises MinitrainError if they were made differently."""
        assert self._made_by is not None
        if not self.journal.exists():
            self._file.truncate(0)
            return
        found, now = read_json(self.journal), self._made_by()
        then = found.get("made_by", {})
        if changed := [name for name in now if then.get(name) != now[name]]:
            raise MinitrainError(
                f"{self.part}: was started with {', '.join(f'another {name}' for name in changed)}; pass the same "
                f"again, or delete {self.journal.name} to start again"
            )
        self.rows, self._bytes, self._checksum = (found.get(name, 0) for name in ("rows", "bytes", "checksum"))
        if _checksum_of(self.part, self._bytes) != self._checksum:
            raise MinitrainError(
                f"{self.part}: was changed since; delete {self.journal.name} to start again, without --resume"
            )
        self._file.truncate(self._bytes)

    def write(self, text: str, rows: int, more: bool = False) -> None:
        """Write whole rows and flush them; `more` says that others follow, so that the journal is needed."""
        data = text.encode("utf-8")
        self._file.write(data)
        self._file.flush()
        self._bytes, self._checksum = self._bytes + len(data), zlib.crc32(data, self._checksum)
        self.rows += rows
        if more and self._made_by is not None:
            facts = {"rows": self.rows, "bytes": self._bytes, "checksum": self._checksum}
            write_whole(self.journal, json_text({**facts, "made_by": dict(self._made_by())}))

    def finish(self, output: Path) -> None:
        """Give the file its name: all rows are written."""
        self._file.close()
        if output.name.endswith(".gz"):
            with (
                whole_files(output.parent) as folder,
                self.part.open("rb") as plain,
                (folder / output.name).open("wb") as file,
                # Without name and time: the same rows give the same bytes.
                gzip.GzipFile("", "wb", fileobj=file, mtime=0) as compressed,
            ):
                shutil.copyfileobj(plain, compressed, 2**20)
            self.part.unlink()
        else:
            os.replace(self.part, output)
        self.journal.unlink(missing_ok=True)

    def leave(self) -> str | None:
        """Keep the whole rows written so far and return a note about them; None if there are none."""
        with suppress(OSError):  # the disk may be full
            self._file.close()
        if not self.rows:
            self.part.unlink(missing_ok=True)
            for folder in self._made:
                with suppress(OSError):  # not empty
                    folder.rmdir()
            return None
        os.truncate(self.part, self._bytes)
        way_out = "; the same command with --resume continues from there" if self.journal.exists() else ""
        return f"{self.part}: holds the first {self.rows:,} rows{way_out}"


OutputFile = Stream | PartFile


def _checksum_of(path: Path, size: int) -> int:
    """CRC-32 of the first `size` bytes of a file; -1 if it has fewer."""
    checksum = 0
    with path.open("rb") as file:
        while size and (data := file.read(min(size, 2**20))):
            checksum, size = zlib.crc32(data, checksum), size - len(data)
    return -1 if size else checksum


@contextmanager
def output_file(name: str | None, made_by: Facts | None = None, resume: bool = False) -> Iterator[OutputFile]:
    """Open an output for a block that writes rows; a file appears when the block succeeds.

    Args:
        name: A file, a device or pipe (/dev/stdout), or None for standard output. Links are followed.
        made_by: What the rows depend on, if they can be made again: `resume` compares it.
        resume: Continue after the rows of an interrupted prediction.

    Raises:
        MinitrainError: It cannot be written, or an interrupted prediction would be lost.
    """
    if name is None:
        yield _standard_output()
        return
    with naming_os_errors(f"--output {name}: cannot be written"):
        if is_device(name):
            with open(name, "a", encoding="utf-8", newline="") as device:
                yield Stream(device)
            return
        output = Path(os.path.realpath(name))
        if output.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        file = PartFile(output, made_by, resume)
        try:
            with _sigterm_interrupts():
                yield file
            file.finish(output)
        except BaseException:
            if (note := file.leave()) is not None:
                print(note, file=sys.stderr)
            raise


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that the rows written so far are kept and named."""
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
        sys.stdout.reconfigure(encoding="utf-8")  # JSON is UTF-8 in any locale
    return Stream(sys.stdout)


def check_writable(path: str | None, flag: str = "json") -> None:
    """Raise MinitrainError, before the work, if `--json PATH`, or that of another flag, cannot be written."""
    if path is not None and not is_device(path):
        folder = next(folder for folder in Path(path).absolute().parents if folder.exists())  # the others are made
        with naming_os_errors(f"--{flag} {path}: cannot be written"), tempfile.TemporaryFile(dir=folder):
            if Path(path).is_dir():
                raise IsADirectoryError("it is a folder")


def write_json(path: str | None, facts: Mapping[str, Any]) -> None:
    """Write results to the file of `--json`, if there is one. Raises MinitrainError if it cannot be written."""
    if path is not None:
        with naming_os_errors(f"--json {path}: cannot be written"):
            write_whole(Path(path), json_text(facts))
