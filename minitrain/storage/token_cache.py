"""Tokenized rows on disk: written chunk by chunk, found again by a fingerprint, and mapped into memory.

A mapped file takes memory only for the pages in use, and the system may take it back, so a million rows need no
more than a thousand. An entry is a folder that appears whole or not at all; one that is damaged is made anew. The
folder of all entries is MINITRAIN_CACHE, by default minitrain in the user's cache folder, and may be deleted at any
time; MINITRAIN_CACHE= (empty) keeps everything in memory.
"""

import hashlib
import json
import mmap
import os
import shutil
import tempfile
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from minitrain.data.tokenizer.tokenizer import Encoded
from minitrain.errors import MinitrainError

FORMAT = 2  # of the files; another number is another fingerprint
SUMMARY = "summary"  # the file of _Summary: a checksum, and below it JSON
CODES: dict[str, Literal["i", "B"]] = {"input_ids": "i", "type_ids": "B", "lengths": "i"}  # int32, uint8


@dataclass(frozen=True)
class Tokens:
    """Rows laid end to end: input_ids int32 and type_ids uint8, (tokens of all rows,), and lengths int32, (rows,).

    truncated, blank: how many rows were cut to the maximal length, and how many have a text with nothing in it.
    unknown: how many of the tokens are the unknown one. entry: the folder that they are mapped from; None where
    they are in memory alone.
    """

    input_ids: memoryview
    type_ids: memoryview
    lengths: memoryview
    truncated: int
    blank: int
    unknown: int
    entry: Path | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process is sent the name of the entry, or a copy of what is in memory."""
        if self.entry is not None:
            return _reopened, (self.entry,)
        copies = {name: getattr(self, name).tobytes() for name in CODES}
        return _of_bytes, (copies, self.truncated, self.blank, self.unknown)


@dataclass(frozen=True)
class _Summary:
    """What an entry says of its files, which must then be so."""

    truncated: int
    blank: int
    unknown: int
    sizes: dict[str, int]  # bytes
    checksums: dict[str, int]  # CRC-32


def cache_folder() -> Path | None:
    """Where entries are kept; None where the user wants none, or has no home."""
    folder = os.environ.get("MINITRAIN_CACHE")
    try:
        if folder is None:
            return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "minitrain"
        return Path(folder).expanduser() if folder else None
    except RuntimeError:  # a user of a container, without a line in its passwd
        return None


def fingerprint(settings: str, columns: Iterable[Sequence[str]]) -> str:
    """A name for the tokens of some texts. settings: all that tokenization depends on, but the texts.

    columns: pieces of texts, in a fixed order. Raises TypeError or UnicodeEncodeError for what is no text.
    """
    digest = hashlib.sha256(f"{FORMAT} {settings}".encode())
    for texts in columns:
        encoded = [str.encode(text) for text in texts]
        digest.update(json.dumps([len(text) for text in encoded]).encode())  # where one text ends
        digest.update(b"".join(encoded))
    return digest.hexdigest()


def in_memory(chunks: Iterable[Encoded]) -> Tokens:
    """Tokens that are kept nowhere else."""
    parts = {name: array(code) for name, code in CODES.items()}
    truncated = blank = unknown = 0
    for chunk in chunks:
        for name, values in _flat(chunk).items():
            parts[name].extend(values)
        truncated, blank = truncated + chunk.truncated, blank + chunk.blank
        unknown += chunk.unknown
    views: dict[str, Any] = {name: memoryview(part) for name, part in parts.items()}
    return Tokens(**views, truncated=truncated, blank=blank, unknown=unknown)


def _of_bytes(parts: Mapping[str, bytes], truncated: int, blank: int, unknown: int) -> Tokens:
    views: dict[str, Any] = {name: memoryview(part).cast(CODES[name]) for name, part in parts.items()}
    return Tokens(**views, truncated=truncated, blank=blank, unknown=unknown)


def cached(name: str, chunks: Iterable[Encoded]) -> Tokens:
    """The entry of that name, made from the chunks where it is not there; in memory where it cannot be written."""
    folder = cache_folder()
    if folder is None:
        return in_memory(chunks)
    if (tokens := _open(folder / name)) is not None:
        return tokens
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".writing-"))
    except OSError:
        return in_memory(chunks)
    try:
        _write(temporary, chunks)
        if (tokens := _moved(temporary, folder / name)) is None:  # what is there is damaged
            shutil.rmtree(folder / name, ignore_errors=True)
            tokens = _moved(temporary, folder / name)
    except OSError:  # a full disk
        tokens = None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return in_memory(chunks) if tokens is None else tokens


def _moved(temporary: Path, entry: Path) -> Tokens | None:
    """The tokens of the entry, which is the temporary folder, or that of another run that was quicker."""
    with suppress(OSError):
        os.rename(temporary, entry)
    return _open(entry)


def _write(folder: Path, chunks: Iterable[Encoded]) -> None:
    truncated = blank = unknown = 0
    sizes, checksums = dict.fromkeys(CODES, 0), dict.fromkeys(CODES, 0)
    files = {name: (folder / name).open("wb") for name in CODES}
    try:
        for chunk in chunks:
            truncated, blank = truncated + chunk.truncated, blank + chunk.blank
            unknown += chunk.unknown
            for name, values in _flat(chunk).items():
                data = values.tobytes()
                files[name].write(data)
                sizes[name] += len(data)
                checksums[name] = zlib.crc32(data, checksums[name])
    finally:
        for file in files.values():
            file.close()
    summary = json.dumps(asdict(_Summary(truncated, blank, unknown, sizes, checksums)))
    (folder / SUMMARY).write_text(f"{zlib.crc32(summary.encode())}\n{summary}", encoding="utf-8")


def _flat(chunk: Encoded) -> dict[str, "array[int]"]:
    def joined(code: str, lists: Iterator[list[int]]) -> "array[int]":
        values = array(code)
        for part in lists:
            values.extend(part)
        return values

    return {
        "input_ids": joined("i", (example.input_ids for example in chunk.examples)),
        "type_ids": joined("B", (example.token_type_ids for example in chunk.examples)),
        "lengths": array("i", [len(example.input_ids) for example in chunk.examples]),
    }


def _open(entry: Path) -> Tokens | None:
    """The tokens of an entry; None where there is none, or not as it says it is."""
    try:
        checksum, text = (entry / SUMMARY).read_text(encoding="utf-8").split("\n")
        if int(checksum) != zlib.crc32(text.encode()):
            return None
        summary = _Summary(**json.loads(text))
        views: dict[str, Any] = {}
        for name, code in CODES.items():
            with (entry / name).open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if len(mapped) != summary.sizes[name] or _checksum(entry / name) != summary.checksums[name]:
                return None
            views[name] = memoryview(mapped).cast(code)
    except (OSError, ValueError, TypeError, KeyError):  # of an empty file: nothing to map
        return None
    counts = {name: getattr(summary, name) for name in ("truncated", "blank", "unknown")}
    return Tokens(**views, **counts, entry=entry)


def _reopened(entry: Path) -> Tokens:
    if (tokens := _open(entry)) is None:
        raise MinitrainError(f"{entry}: was deleted or damaged while it was in use; run again")
    return tokens


def _checksum(path: Path) -> int:
    """Read, not mapped: what is mapped and looked at counts as memory of the process."""
    checksum = 0
    with path.open("rb") as file:
        while data := file.read(2**20):
            checksum = zlib.crc32(data, checksum)
    return checksum
