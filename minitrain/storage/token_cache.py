"""Tokenized rows on disk: written chunk by chunk, found again by a fingerprint, and mapped into memory.

A mapped file takes memory only for the pages in use, so a million rows need no more than a thousand. An entry is
one file, which appears whole or not at all; a damaged one is written again. The entries lie in MINITRAIN_CACHE, by
default minitrain in the user's cache folder, and may be deleted at any time; MINITRAIN_CACHE= (empty) keeps tokens
in memory.
"""

import hashlib
import json
import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Literal

from minitrain.errors import MinitrainError
from minitrain.storage.files import whole_files

FORMAT = 4  # of an entry; part of the fingerprint
CODES: dict[str, Literal["i", "B"]] = {"input_ids": "i", "lengths": "i", "type_ids": "B"}  # int32, uint8
COUNTS = ("truncated", "blank", "unknown", "removed")
# An entry: CRC-32 of all that follows; bytes of each array; counts; the arrays.
CHECKSUM, NUMBERS = struct.Struct("<Q"), struct.Struct(f"<{len(CODES) + len(COUNTS)}Q")
BLOCK = 2**20  # bytes read or copied at once


@dataclass(frozen=True)
class Tokens:
    """Rows laid end to end: input_ids int32 and type_ids uint8, (tokens,), and lengths int32, (rows,).

    truncated, blank: rows cut to the maximal length, and rows with a blank text. unknown: unknown tokens.
    removed: tokens that were cut off. entry: the file that is mapped; None for tokens in memory.
    """

    input_ids: memoryview
    type_ids: memoryview
    lengths: memoryview
    truncated: int = 0
    blank: int = 0
    unknown: int = 0
    removed: int = 0
    entry: Path | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process is sent the path of the entry, or a copy of what is in memory."""
        if self.entry is not None:
            return _reopened, (self.entry,)
        parts = {name: getattr(self, name).tobytes() for name in CODES}
        return _tokens, (parts, [getattr(self, name) for name in COUNTS])


def cache_folder() -> Path | None:
    """The folder of the entries; None if the user wants none, or has no home."""
    folder = os.environ.get("MINITRAIN_CACHE")
    try:
        if folder is None:
            return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "minitrain"
        return Path(folder).expanduser() if folder else None
    except RuntimeError:  # a container's user without a line in passwd
        return None


def fingerprint(settings: str, columns: Iterable[Sequence[str]]) -> str:
    """The name of an entry. settings: everything except the texts that tokenization depends on.

    columns: pieces of texts, in a fixed order. Raises TypeError or UnicodeEncodeError for values that are not text.
    """
    digest = hashlib.sha256(f"{FORMAT} {settings}".encode())
    for texts in columns:
        encoded = [str.encode(text) for text in texts]
        digest.update(json.dumps([len(text) for text in encoded]).encode())  # where one text ends
        digest.update(b"".join(encoded))
    return digest.hexdigest()


def in_memory(chunks: Iterable[Tokens]) -> Tokens:
    """Join chunks without writing them."""
    parts = {name: BytesIO() for name in CODES}
    counts = _append(chunks, parts)
    return _tokens({name: part.getbuffer() for name, part in parts.items()}, counts)


def cached(name: str, chunks: Iterable[Tokens]) -> Tokens:
    """Open the entry of that name, or write it from the chunks; in memory if it cannot be written."""
    folder = cache_folder()
    if folder is None:
        return in_memory(chunks)
    tokens = _open(folder / name)
    if tokens is None:
        try:
            with whole_files(folder) as temporary:
                _write(temporary / name, chunks)
            tokens = _open(folder / name)
        except OSError:  # a folder that is read-only, a full disk
            tokens = None
    return in_memory(chunks) if tokens is None else tokens


def _append(chunks: Iterable[Tokens], parts: Mapping[str, IO[bytes]]) -> list[int]:
    """Write each array of the chunks to its stream; returns the sums of COUNTS."""
    counts = [0] * len(COUNTS)
    for chunk in chunks:
        for name, part in parts.items():
            part.write(getattr(chunk, name))
        counts = [count + getattr(chunk, name) for count, name in zip(counts, COUNTS, strict=True)]
    return counts


def _tokens(parts: Mapping[str, bytes | memoryview], counts: Sequence[int], entry: Path | None = None) -> Tokens:
    fields: dict[str, Any] = {name: memoryview(part).cast(CODES[name]) for name, part in parts.items()}
    return Tokens(**fields | dict(zip(COUNTS, counts, strict=True)), entry=entry)


def _write(path: Path, chunks: Iterable[Tokens]) -> None:
    with ExitStack() as stack:
        parts = {name: stack.enter_context(tempfile.TemporaryFile(dir=path.parent)) for name in CODES}
        counts = _append(chunks, parts)
        numbers = NUMBERS.pack(*(part.tell() for part in parts.values()), *counts)
        file = stack.enter_context(path.open("wb"))
        file.write(bytes(CHECKSUM.size) + numbers)
        checksum = zlib.crc32(numbers)
        for part in parts.values():
            part.seek(0)
            while data := part.read(BLOCK):
                file.write(data)
                checksum = zlib.crc32(data, checksum)
        file.seek(0)
        file.write(CHECKSUM.pack(checksum))


def _open(entry: Path) -> Tokens | None:
    """Map an entry; None if it is missing or damaged."""
    try:
        with entry.open("rb") as file:
            (expected,) = CHECKSUM.unpack(file.read(CHECKSUM.size))
            checksum = 0
            while data := file.read(BLOCK):  # read, since mapped pages that were looked at count as memory
                checksum = zlib.crc32(data, checksum)
            if checksum != expected:
                return None
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        numbers = NUMBERS.unpack_from(view, CHECKSUM.size)
    except (OSError, struct.error):
        return None
    parts, start = {}, CHECKSUM.size + NUMBERS.size
    for name, size in zip(CODES, numbers, strict=False):
        parts[name] = view[start : start + size]
        start += size
    return _tokens(parts, numbers[len(CODES) :], entry)


def _reopened(entry: Path) -> Tokens:
    if (tokens := _open(entry)) is None:
        raise MinitrainError(f"{entry}: was deleted or damaged while it was in use; run again")
    return tokens
