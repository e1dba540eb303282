"""Text files -> lines: plain or compressed, in any encoding, with a progress line for long ones.

Bytes that cannot be read are an error that names the file, the line and a way out.
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
ARCHIVES = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ"}  # their first bytes
# First bytes of other kinds of files -> what to say.
MAGIC = {
    b"PK": "is a zip archive or an Excel workbook: unpack it, or save it as CSV",
    b"PAR1": "is a parquet file: name it .parquet",
    b"ARROW1": "is an Arrow file: write it as .parquet",
    b"\xd0\xcf\x11\xe0": "is an old Excel workbook: save it as CSV",
}
NO_TABLES = {
    b"<!doctype html": "is a web page, not a table: download the file itself",
    b"<html": "is a web page, not a table: download the file itself",
    b"version https://git-lfs": "is a pointer to a file that is not here: run git lfs pull in its repository",
}
MARKS = {
    b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16",
}  # fmt: skip
BUFFER = 1 << 18
START = 32  # bytes by which a kind of file is recognized


class _Counted(io.RawIOBase):
    """A file that reports how many bytes have been read."""

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
    """Yield the lines of a text file, with their ends (\\n, \\r\\n or \\r), without a byte order mark.

    Args:
        encoding: As `codec` returns it.
        silent: Show no progress.

    Raises:
        MinitrainError: The bytes are no text in this encoding, or a damaged archive.
    """
    silent = silent or os.environ.get("RANK", "0") != "0"
    with path.open("rb", buffering=0) as file:
        opener = OPENERS.get(path.suffix.lower())
        size = os.fstat(file.fileno()).st_size
        with progress(f"reading {path}", size, "bytes", silent=silent) as add:
            raw: Any = io.BufferedReader(_Counted(file, add), BUFFER)
            if opener is not None:
                raw = opener(raw, "rb")
            try:
                _check_start(path, raw.peek(START)[:START], encoding)
                text = io.TextIOWrapper(raw, encoding=encoding, newline="", errors=errors)
                yield _without_mark(text)
            except UnicodeError as error:
                if errors != "strict":
                    raise
                raise MinitrainError(_no_such_text(path, encoding, error)) from error
            except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
                if isinstance(error, OSError) and (error.errno is not None or opener is None):
                    raise
                raise MinitrainError(_no_archive(path, error)) from error


def _without_mark(text: io.TextIOWrapper) -> Iterator[str]:
    if text.encoding in ("utf-8-sig", "utf-16", "utf-32"):  # these decoders drop the mark
        return text  # faster than a generator
    return (line.removeprefix("\ufeff") if i == 0 else line for i, line in enumerate(text))


def codec(encoding: str) -> str:
    """The codec of an encoding; for UTF-8 the one that accepts a byte order mark."""
    return "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig") else encoding


def _check_start(path: Path, start: bytes, encoding: str) -> None:
    """Raise MinitrainError if the first bytes are of another kind of file, or of another encoding."""
    if encoding != "utf-8-sig":
        if start.startswith(b"\xef\xbb\xbf"):
            raise MinitrainError(f"{path}: begins with the mark of UTF-8; leave out --encoding {encoding}")
        return
    compressed = path.suffix.lower() in OPENERS
    inside = "its content " if compressed else ""
    if any(byte == 0 or byte > 127 for byte in start):
        for suffix, magic in ARCHIVES.items():
            if start.startswith(magic) and compressed:
                raise MinitrainError(f"{path}: is compressed twice; take one off: gzip -d, bzip2 -d or xz -d")
            if start.startswith(magic):
                raise MinitrainError(f"{path}: is compressed: put {suffix} behind its name")
        for magic, what in MAGIC.items():
            if start.startswith(magic):
                raise MinitrainError(f"{path}: {inside}{what}")
        if (found := _wide_encoding(start)) is not None:
            raise MinitrainError(
                f"{path}, line 1: is not UTF-8 but {found.upper()}; pass --encoding {found}, or save it as UTF-8"
            )
    for beginning, what in NO_TABLES.items():
        if start.lstrip().lower().startswith(beginning):
            raise MinitrainError(f"{path}: {inside}{what}")


def _wide_encoding(start: bytes) -> str | None:
    """UTF-16 or UTF-32, if the bytes begin like that."""
    for mark, name in MARKS.items():
        if start.startswith(mark):
            return name
    if len(start) >= 8 and len(start) % 2 == 0:
        if start[0] and not any(start[1::2]):
            return "utf-16-le"
        if start[1] and not any(start[::2]):
            return "utf-16-be"
    return None


def _no_archive(path: Path, error: BaseException) -> str:
    with path.open("rb") as file:
        start = file.read(6)
    if not start.startswith(ARCHIVES.get(path.suffix.lower(), b"")):
        return f"{path}: is not compressed as its name says; take {path.suffix} off its name"
    return f"{path}: is cut short or damaged ({error}); download or compress it again"


def _no_such_text(path: Path, encoding: str, error: UnicodeError) -> str:
    line = _first_broken_line(path, encoding)
    where = str(path) if line is None else f"{path}, line {line}"
    if encoding != "utf-8-sig":
        return f"{where}: is not {encoding} ({error}); leave out --encoding, or pass another"
    return f"{where}: is not UTF-8; save it as UTF-8, or say what it is: --encoding latin-1, or cp1252 of Windows"


def _first_broken_line(path: Path, encoding: str) -> int | None:
    """Read the file again to find the line: the decoder counts from the start of its buffer."""
    try:
        with open_text(path, encoding, silent=True, errors="surrogateescape") as lines:
            broken = (n for n, line in enumerate(lines, 1) if any("\udc80" <= c <= "\udcff" for c in line))
            return next(broken, None)
    except (MinitrainError, OSError, UnicodeError, LookupError):
        return None
