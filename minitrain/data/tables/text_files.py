"""Text files as they lie on disk: compressed or not, in any encoding, with progress as they are read.

Whatever goes wrong on the way from bytes to lines is an error that names the file, the line and a way out.
"""

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from minitrain.data.progress import progress
from minitrain.errors import MinitrainError

OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
BROKEN = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)
# How files of other kinds begin, and what to do with them.
MAGIC = {
    b"\x1f\x8b": "is compressed with gzip: put .gz behind its name",
    b"BZh": "is compressed with bzip2: put .bz2 behind its name",
    b"\xfd7zXZ": "is compressed with xz: put .xz behind its name",
    b"PK": "is a zip archive or an Excel workbook: unpack it, or save it as CSV",
    b"PAR1": "is a parquet file: name it .parquet",
    b"ARROW1": "is an Arrow file: write it as .parquet",
    b"\xd0\xcf\x11\xe0": "is an old Excel workbook: save it as CSV",
}
NO_TABLES = {
    b"<!doctype html": "is a web page, not a table: download the file itself",
    b"<html": "is a web page, not a table: download the file itself",
    b"version https://git-lfs": "stands for a file that is not here: run git lfs pull in its repository",
}
MARKS = {
    b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16",
}  # fmt: skip
BUFFER = 1 << 18
START = 32  # bytes that tell what a file is


class _Counted(io.RawIOBase):
    """A file that says how much of it has been read."""

    def __init__(self, file: IO[bytes], add: Callable[[int], object]) -> None:
        self.file, self.add = file, add

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self.file.readinto(buffer)  # type: ignore[attr-defined]
        self.add(count)
        return int(count)


@contextmanager
def open_text(path: Path, encoding: str, silent: bool = False, errors: str = "strict") -> Iterator[Iterator[str]]:
    """The lines of a text file, ends and all; a line may end in \\n, \\r\\n or \\r. A mark at its start is no text.

    silent: without progress. Raises MinitrainError where its bytes are no such text.
    """
    silent = silent or os.environ.get("RANK", "0") != "0"  # of several processes one speaks
    with path.open("rb", buffering=0) as file:
        opener = OPENERS.get(path.suffix.lower())
        if opener is None:
            _check_start(path, file.read(START), encoding)
            file.seek(0)
        size = os.fstat(file.fileno()).st_size
        with progress(f"reading {path}", size, "bytes", silent=silent) as add:
            raw: Any = io.BufferedReader(_Counted(file, add), BUFFER)
            if opener is not None:
                raw = opener(raw, "rb")
            try:
                if opener is not None:
                    _check_start(path, raw.peek(START)[:START], encoding)
                text = io.TextIOWrapper(raw, encoding=encoding, newline="", errors=errors)
                yield _without_mark(text)
            except UnicodeError as error:
                if errors != "strict":
                    raise
                raise MinitrainError(_no_such_text(path, encoding, error)) from error
            except BROKEN as error:
                raise MinitrainError(_no_archive(path, error)) from error
            except OSError as error:
                if error.errno is not None or opener is None:
                    raise
                raise MinitrainError(_no_archive(path, error)) from error


def _without_mark(text: io.TextIOWrapper) -> Iterator[str]:
    """The lines themselves, which are quicker than any generator, where the decoder takes the mark away."""
    if text.encoding in ("utf-8-sig", "utf-16", "utf-32"):
        return text
    return (line.removeprefix("\ufeff") if i == 0 else line for i, line in enumerate(text))


def codec(encoding: str) -> str:
    """The codec that reads an encoding with or without a mark at its start."""
    return "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig") else encoding


def _check_start(path: Path, start: bytes, encoding: str) -> None:
    inside = "what is compressed there " if path.suffix.lower() in OPENERS else ""
    if start.startswith(b"\xef\xbb\xbf") and encoding != "utf-8-sig":
        raise MinitrainError(f"{path}: begins with the mark of UTF-8; leave out --encoding {encoding}")
    if encoding != "utf-8-sig":
        return
    if any(byte == 0 or byte > 127 for byte in start):
        for magic, what in MAGIC.items():
            if inside and start.startswith(magic) and "behind its name" in what:
                raise MinitrainError(f"{path}: is compressed twice; take one off: gzip -d, bzip2 -d or xz -d")
            if start.startswith(magic):
                raise MinitrainError(f"{path}: {inside}{what}")
    for beginning, what in NO_TABLES.items():
        if start.lstrip().lower().startswith(beginning):
            raise MinitrainError(f"{path}: {inside}{what}")
    found = next((name for mark, name in MARKS.items() if start.startswith(mark)), None)
    if found is None and len(start) >= 8 and len(start) % 2 == 0 and start[0] and not any(start[1::2]):
        found = "utf-16-le"
    if found is None and len(start) >= 8 and len(start) % 2 == 0 and start[1] and not any(start[::2]):
        found = "utf-16-be"
    if found is not None:
        raise MinitrainError(
            f"{path}, line 1: is not UTF-8 but {found.upper()}; pass --encoding {found}, or save it as UTF-8"
        )


def _no_archive(path: Path, error: BaseException) -> str:
    with path.open("rb") as file:
        start = file.read(6)
    magic = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ"}.get(path.suffix.lower(), b"")
    if not start.startswith(magic):
        return f"{path}: is not compressed as its name says; take {path.suffix} off its name"
    return f"{path}: is cut short or damaged ({error}); download or compress it again"


def _no_such_text(path: Path, encoding: str, error: UnicodeError) -> str:
    line = _first_broken_line(path, encoding)
    where = str(path) if line is None else f"{path}, line {line}"
    if encoding != "utf-8-sig":
        return f"{where}: is not {encoding} ({error}); leave out --encoding, or pass another"
    return f"{where}: is not UTF-8; save it as UTF-8, or say what it is: --encoding latin-1, or cp1252 of Windows"


def _first_broken_line(path: Path, encoding: str) -> int | None:
    """The decoder's own position is no use: it counts from the start of its buffer. None where it cannot go on."""
    try:
        with open_text(path, encoding, silent=True, errors="surrogateescape") as lines:
            for number, line in enumerate(lines, start=1):
                if any("\udc80" <= character <= "\udcff" for character in line):
                    return number
    except (MinitrainError, OSError, UnicodeError, LookupError):
        return None
    return None
