"""The one exception type that minitrain raises for what a user can mend.

A message says what was got, what was expected, where (file, row, column, key, flag, rank) and what to do.
Broken invariants of our own are `assert`s, not this.
"""

import json
import reprlib
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 10
_SHORT.maxlevel = 3


def shown(value: Any) -> str:
    """A value as a message shows it: its repr, without the middle of what is long or the inside of what is deep."""
    return cut(_SHORT.repr(value))


def cut(text: object) -> str:
    """A text without the middle of what is long: an error of another library may quote a whole file."""
    text = str(text)
    return text if len(text) <= 300 else f"{text[:200]}...{text[-97:]}"


def listed(names: Iterable[str]) -> str:
    """Names as a message lists them, of which there may be many, long ones, and some that no terminal can write."""
    short = [name if len(name) <= 100 else f"{name[:97]}..." for name in islice(names, 21)]
    text = ", ".join(short[:20]) + (" ..." if len(short) > 20 else "")
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def python_command(code: str) -> str:
    """A line of a message that runs some Python, to be pasted: names in it may come from files of strangers.

    A command of more than 1,000 characters is left out.
    """
    if len(code) > 1000:
        return " a script of your own (names here are too long for a command)"
    return f"\n  python -c {shlex.quote(code)}"


def literal(text: str) -> str:
    """A text as Python and JSON write it: in double quotes, which a shell leaves alone in single ones."""
    return json.dumps(text)


class MinitrainError(ValueError):
    """Bad input, a bad file or a bad flag: the message says where and what to do about it."""


@contextmanager
def naming_os_errors(what: str, way_out: str = "") -> Iterator[None]:
    """Turn an OSError of the block into a MinitrainError: "--output a/b: cannot be written (Permission denied)"."""
    try:
        yield
    except OSError as error:
        raise MinitrainError(f"{what} ({error.strerror or error}){way_out}") from error


class PeerError(MinitrainError):
    """Another process of the run failed; this one only ends too.

    alone: whether no process has said why, so that this one is to speak.
    """

    def __init__(self, message: str, alone: bool = False) -> None:
        super().__init__(message)
        self.alone = alone


class Stopped(KeyboardInterrupt):
    """A signal asked the run to stop, and it did, after a step. signal: its number."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message, signal)
        self.signal = signal

    def __str__(self) -> str:
        return str(self.args[0])
