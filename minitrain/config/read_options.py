"""How own files are read: the flags that training, scoring and predicting share, and which files a flag names."""

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from minitrain.config.options import flag
from minitrain.errors import MinitrainError

QUOTINGS = ("double", "none")
DELIMITERS = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " ", "\\t": "\t"}
FILE_KINDS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
COMPRESSED = (".gz", ".bz2", ".xz")
Files = str | tuple[str, ...]


def delimiter_flag() -> Any:
    """--delimiter."""
    return flag(None, "between columns of text files: a character, or tab, comma, semicolon, pipe; else found out")


def quoting_flag() -> Any:
    """--quoting."""
    return flag("double", "none: a double quote in a .csv or .tsv is a character like any other", QUOTINGS)


def encoding_flag() -> Any:
    """--encoding."""
    return flag("utf-8", "of own text files, e.g. latin-1, cp1252, utf-16")


class Reading(Protocol):
    """Whatever has the three flags: a configuration of training, scoring or predicting, or `ReadOptions`."""

    @property
    def delimiter(self) -> str | None: ...
    @property
    def quoting(self) -> str: ...
    @property
    def encoding(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How own files are read. Raises MinitrainError naming the flag that is wrong."""

    delimiter: str | None = delimiter_flag()
    quoting: str = quoting_flag()
    encoding: str = encoding_flag()

    def __post_init__(self) -> None:
        check_reading(self)


def check_reading(options: Reading) -> None:
    """Raise MinitrainError naming the flag that is wrong."""
    if options.quoting not in QUOTINGS:
        raise MinitrainError(f"--quoting is {options.quoting!r}; expected one of {', '.join(QUOTINGS)}")
    delimiter_of(options)
    try:
        "".encode(options.encoding)
        b"".decode(options.encoding)
    except (LookupError, UnicodeError, ValueError, AttributeError, TypeError) as error:
        raise MinitrainError(
            f"--encoding {options.encoding}: Python has no such text encoding; e.g. utf-8, latin-1, cp1252, utf-16"
        ) from error


def delimiter_of(options: Reading) -> str | None:
    """The character that was asked for. Raises MinitrainError."""
    asked = options.delimiter
    if asked is None:
        return None
    character = DELIMITERS.get(asked.lower(), asked)
    if len(character) != 1 or character in '"\r\n\0':
        raise MinitrainError(
            f"--delimiter {asked!r}: expected one character, or tab, comma, semicolon, pipe or space"
        )
    return character


def as_files(value: Any) -> Files | None:
    """What a flag or Python names: a string as it is, a path as a string, several as a tuple of strings."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if not isinstance(value, list | tuple) or not all(isinstance(part, str | os.PathLike) for part in value):
        wrong: Files = value  # of a wrong type, which `check_types` names
        return wrong
    return tuple(os.fspath(part) for part in value)


def files_of(value: Files | Sequence[str]) -> tuple[str, ...]:
    """The files that are named: one, several with commas between them or as a tuple, or patterns as `data/*.csv`.

    A file whose own name holds a comma or a star is that file. Raises MinitrainError where a pattern fits none, and
    where a file is named twice, whose rows would count twice.
    """
    if isinstance(value, str) and (os.path.lexists(value) or ("," not in value and not glob.has_magic(value))):
        return (value,)
    parts = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    names = tuple(name for part in parts for name in _matching(part))
    seen: set[str] = set()
    for name in names:
        if (path := os.path.realpath(name)) in seen:
            raise MinitrainError(f"{name}: is named twice, and its rows would count twice; name each file once")
        seen.add(path)
    return names


def _matching(name: str) -> list[str]:
    if os.path.lexists(name) or not glob.has_magic(name):
        return [name]
    found = sorted(glob.glob(name, recursive=True))
    if not found:
        folder = os.path.dirname(re.split(r"[*?[]", name)[0]) or "."
        raise MinitrainError(f"{name}: no file fits this pattern; `ls {folder}` shows what there is")
    return found


def files_shown(value: Files | None) -> str:
    """What was named, as one string."""
    return value or "" if isinstance(value, str | None) else ", ".join(value)


def data_name(value: Files | Sequence[str] | None) -> str:
    """A short name for the files: `reviews` of data/reviews.csv.gz, `a+2` of three, the folder's of a pattern."""
    if not value:
        return ""
    if isinstance(value, str) and not os.path.lexists(value) and glob.has_magic(value) and "," not in value:
        return Path(value.split("*")[0]).parent.name or Path(value.split("*")[0]).name or "files"
    try:
        files = files_of(value)
    except MinitrainError:  # reading says what is wrong
        files = (value,) if isinstance(value, str) else tuple(value)
    first = Path(files[0])
    while first.suffix.lower() in (*COMPRESSED, *FILE_KINDS):
        first = first.with_suffix("")
    return first.name if len(files) == 1 else f"{first.name}+{len(files) - 1}"
