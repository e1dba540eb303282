"""Tokenized rows on disk: written chunk by chunk, found again by a fingerprint, and mapped into memory.

A mapped file takes memory only for the pages in use, and the system may take it back, so a million rows need no
more than a thousand. An entry is a folder that appears whole or not at all; one that is damaged is made anew. The
folder of all entries is MINITRAIN_CACHE, by default minitrain in the user's cache folder, and may be deleted at any
time; MINITRAIN_CACHE= (empty) keeps everything in memory.
"""

import hashlib
import json
import os
import shutil
import tempfile
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from minitrain.tokenizer import Encoded

FORMAT = 1  # of the files; another number is another fingerprint
SUMMARY = "summary"  # the file of _Summary: a checksum, and below it JSON
DTYPES = {"input_ids": (torch.int32, "i"), "type_ids": (torch.uint8, "B"), "lengths": (torch.int32, "i")}


@dataclass(frozen=True)
class Tokens:
    """Rows laid end to end: input_ids int32 and type_ids uint8, (tokens of all rows,), and lengths int32, (rows,).

    truncated, blank: how many rows were cut to the maximal length, and how many have a text with nothing in it.
    """

    input_ids: Tensor
    type_ids: Tensor
    lengths: Tensor
    truncated: int
    blank: int


@dataclass(frozen=True)
class _Summary:
    """What an entry says of its files, which must then be so."""

    truncated: int
    blank: int
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
    parts = {name: array(code) for name, (_, code) in DTYPES.items()}
    truncated = blank = 0
    for chunk in chunks:
        for name, values in _flat(chunk).items():
            parts[name].extend(values)
        truncated, blank = truncated + chunk.truncated, blank + chunk.blank
    tensors = {name: torch.frombuffer(part, dtype=DTYPES[name][0]) for name, part in parts.items()}
    return Tokens(**tensors, truncated=truncated, blank=blank)


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
    truncated = blank = 0
    sizes, checksums = dict.fromkeys(DTYPES, 0), dict.fromkeys(DTYPES, 0)
    files = {name: (folder / name).open("wb") for name in DTYPES}
    try:
        for chunk in chunks:
            truncated, blank = truncated + chunk.truncated, blank + chunk.blank
            for name, values in _flat(chunk).items():
                data = values.tobytes()
                files[name].write(data)
                sizes[name] += len(data)
                checksums[name] = zlib.crc32(data, checksums[name])
    finally:
        for file in files.values():
            file.close()
    summary = json.dumps(asdict(_Summary(truncated, blank, sizes, checksums)))
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
        tensors = {}
        for name, (dtype, _) in DTYPES.items():
            size = (entry / name).stat().st_size
            if size != summary.sizes[name] or size == 0:
                return None
            tensors[name] = torch.from_file(str(entry / name), size=size // dtype.itemsize, dtype=dtype)
            if _checksum(entry / name) != summary.checksums[name]:
                return None
    except (OSError, ValueError, TypeError, KeyError, RuntimeError):  # the last is torch's for a file that is gone
        return None
    return Tokens(**tensors, truncated=summary.truncated, blank=summary.blank)


def _checksum(path: Path) -> int:
    """Read, not mapped: what is mapped and looked at counts as memory of the process."""
    checksum = 0
    with path.open("rb") as file:
        while data := file.read(2**20):
            checksum = zlib.crc32(data, checksum)
    return checksum
