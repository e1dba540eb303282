"""The flags for reading text files, shared by training, scoring and predicting, and the files that a flag names."""

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minitrain.config.options import check_flags, flag
from minitrain.errors import MinitrainError

QUOTINGS = ("double", "none")
DELIMITERS = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " ", "\\t": "\t"}
FILE_KINDS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
COMPRESSED = (".gz", ".bz2", ".xz")
Files = str | tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How text files are read. Raises MinitrainError naming the flag that is wrong."""

    delimiter: str | None = flag(
        None, "of text files: a character, or tab, comma, semicolon, pipe; detected by default"
    )
    quoting: str = flag("double", "none: a double quote in a .csv or .tsv is an ordinary character", QUOTINGS)
    encoding: str = flag("utf-8", "of text files, e.g. latin-1, cp1252, utf-16")

    def __post_init__(self) -> None:
        check_flags(self)
        self.separator  # noqa: B018  # an unknown one is an error before any work
        try:
            "".encode(self.encoding)
            b"".decode(self.encoding)
        except (LookupError, UnicodeError, ValueError) as error:
            raise MinitrainError(
                f"--encoding {self.encoding}: Python has no such text encoding; e.g. utf-8, latin-1, cp1252, utf-16"
            ) from error

    @property
    def separator(self) -> str | None:
        """The character that --delimiter names; None if it is to be detected.

        >>> ReadOptions(delimiter="semicolon").separator
        ';'
        """
        if (asked := self.delimiter) is None:
            return None
        character = DELIMITERS.get(asked.lower(), asked)
        if len(character) != 1 or character in '"\r\n\0':
            raise MinitrainError(
                f"--delimiter {asked!r}: expected one character, or tab, comma, semicolon, pipe or space"
            )
        return character


def files_of(value: Files | Sequence[str]) -> tuple[str, ...]:
    """The files that a flag names: one, several as `a,b` or a tuple, or patterns such as `data/*.csv`.

    A file whose own name contains a comma or a star is that file.

    Raises:
        MinitrainError: A pattern matches no file, or a file is named twice.

    >>> files_of("january.csv, february.csv")
    ('january.csv', 'february.csv')
    """
    if isinstance(value, str) and (os.path.lexists(value) or not ("," in value or glob.has_magic(value))):
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
    """The value of a flag as one string."""
    return value or "" if isinstance(value, str | None) else ", ".join(value)


def data_name(value: Files | Sequence[str] | None) -> str:
    """A short name: `reviews` for data/reviews.csv.gz, `a+2` for a.csv and two more, `data` for data/*.csv."""
    if not value:
        return ""
    if isinstance(value, str) and not os.path.lexists(value) and glob.has_magic(value) and "," not in value:
        start = Path(value.split("*")[0])
        return start.parent.name or start.name or "files"
    try:
        files = files_of(value)
    except MinitrainError:  # reading reports it
        files = (value,) if isinstance(value, str) else tuple(value)
    first = Path(files[0])
    while first.suffix.lower() in (*COMPRESSED, *FILE_KINDS):
        first = first.with_suffix("")
    return first.name if len(files) == 1 else f"{first.name}+{len(files) - 1}"
