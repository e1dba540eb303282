"""The command line, derived from the fields of a configuration dataclass.

Nothing here imports torch: `--help` and a mistyped flag answer at once. Flags take Trainer's names, with
underscores or dashes. An unknown one is answered by `known_flags.py`, or with the nearest where that is near.
"""

import argparse
import difflib
import errno
import json
import os
import re
import sys
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from io import TextIOWrapper
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from minitrain.errors import MinitrainError, PeerError, Stopped
from minitrain.run.known_flags import ANSWERS
from minitrain.run.known_flags import RENAMED as RENAMED

Config = TypeVar("Config")
GRACE = 3.0  # seconds that a process leaves to the one which says what is wrong

# How alike, from 0 to 1, a name must be to one that there is for a slip of the finger: a letter or two.
NEAR = 0.8
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # of the disk that a shell has output go to


class _Parser(argparse.ArgumentParser):
    """argparse, with errors that say which flag was meant."""

    def error(self, message: str) -> NoReturn:
        # Of the processes that torchrun starts with the same flags, one on each node speaks.
        first = os.environ.get("LOCAL_RANK", "0") == "0"
        if not first:
            time.sleep(GRACE)  # torchrun ends the others as soon as one has left: the one that speaks goes first
        self.exit(2, f"{self.prog}: {message}\n(--help lists the flags)\n" if first else None)

    def unknown(self, flag: str, known: Sequence[str]) -> NoReturn:
        name = flag.lstrip("-").split("=")[0].replace("-", "_")
        self.error(f"no flag --{name}{hint(name, known)}" if flag.startswith("--") else f"no flag {flag}")


def hint(name: str, known: Sequence[str]) -> str:
    """What to do instead of a flag that is unknown; empty where nothing is sure to help."""
    renamed = {old: new for old, new in RENAMED.items() if new in known}
    if name in renamed:
        return f"; here it is called --{renamed[name]}"
    named = re.findall(r"--(\w+)", ANSWERS.get(name, ""))
    if name in ANSWERS and all(flag in known or flag == "nproc_per_node" for flag in named):
        return f"; {ANSWERS[name]}"
    if name in ANSWERS:
        return ""  # what would help is a flag of another script
    near = difflib.get_close_matches(name, [*known, *renamed], n=1, cutoff=NEAR) or _completed(name, known)
    return f"; did you mean --{renamed.get(near[0], near[0])}?" if near else ""


def _completed(name: str, known: Sequence[str]) -> list[str]:
    """The one flag that begins with the words of a name, or has them in it: beta1 -> adam_beta1."""
    begins = [flag for flag in known if f"{flag}_".startswith(f"{name}_")]
    inside = [flag for flag in known if f"_{name}_" in f"_{flag}_"]
    return begins if len(begins) == 1 else inside if len(inside) == 1 else []


def _truth(text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def _names(text: str) -> tuple[str, ...]:
    if text.lstrip().startswith('["'):
        return _json_list(text)
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name; write a,b")
    return names


def _json_list(text: str) -> tuple[str, ...]:
    try:
        names = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'{text!r} is no JSON list ({error}); write \'["a, b", "c"]\'') from None
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise argparse.ArgumentTypeError(f'{text!r} is no list of names; write \'["a, b", "c"]\'')
    return tuple(names)


def _files(text: str) -> str | tuple[str, ...]:
    """Names with commas are told apart where they are read: a file's own name may have one."""
    return _json_list(text) if text.lstrip().startswith('["') and not os.path.exists(text) else text


def _pairs(text: str) -> str:
    """The configuration reads it, which may be made in Python too."""
    return text


def _number(text: str) -> float:
    value = float(text)
    return int(value) if value.is_integer() and "." not in text and "e" not in text.lower() else value


_number.__name__ = "number"  # argparse shows it: "invalid number value: 'x'"


def _converter(hint: Any) -> Any:
    """float | None -> float, and so on: what turns the flag's text into the field's type."""
    if {str, tuple} <= {get_origin(arm) or arm for arm in get_args(hint)}:
        return _files
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(arm for arm in get_args(hint) if arm is not type(None))
    if get_origin(hint) is tuple:
        return _names
    if get_origin(hint) is dict:
        return _pairs
    return {bool: _truth, float: _number}.get(hint, hint)


def _underscored(word: str) -> str:
    """--learning-rate=3e-5 -> --learning_rate=3e-5; a value stays as it is."""
    name, equals, value = word.partition("=")
    return name.replace("-", "_").replace("__", "--", 1) + equals + value if name.startswith("--") else word


def _joined(words: list[str]) -> list[str]:
    """--label_map -1=no,1=yes -> --label_map=-1=no,1=yes: argparse would take the value for a flag."""
    result: list[str] = []
    for word in words:
        follows = bool(result) and result[-1].startswith("--") and "=" not in result[-1]
        if follows and word[:1] == "-" and word[1:2].isdecimal():
            result[-1] += f"={word}"
        else:
            result.append(word)
    return result


def _add(parser: argparse.ArgumentParser, spec: Field[Any], hint: Any) -> None:
    convert = _converter(hint)
    shown = spec.metadata["shown"]
    default = "" if shown in (None, MISSING) else f" (default: {shown})"
    options: dict[str, Any] = {"nargs": "?", "const": True, "metavar": "BOOL"} if convert is _truth else {}
    if spec.metadata.get("bare") is not None:
        options = {"nargs": "?", "const": spec.metadata["bare"], "metavar": "[NAME]"}
    if spec.metadata["choices"] is None and "metavar" not in options:
        shapes = {int: "N", _number: "X", _names: "A,B", _files: "FILE", _pairs: "A=B,..."}
        options["metavar"] = shapes.get(convert, "NAME")
    parser.add_argument(
        f"--{spec.name}",
        dest=spec.name,
        default=argparse.SUPPRESS,
        type=convert,
        choices=spec.metadata["choices"],
        help=(spec.metadata["help"] + default).replace("%", "%%"),
        **options,
    )


def parse(
    config: type[Config],
    description: str,
    arguments: Sequence[str] | None = None,
    positional: tuple[str, ...] = (),
) -> Config:
    """Build `config`, a dataclass whose fields carry `help` and `choices`, from command-line flags.

    Fields named in `positional` stand without a flag and must be given. Prints to standard error and exits
    with status 2 where the flags are wrong, as argparse does.
    """
    words = _joined([_underscored(word) for word in (sys.argv[1:] if arguments is None else arguments)])
    usage = " ".join(["%(prog)s", *(name.upper() for name in positional), "[--flag value ...]"])
    parser = _Parser(usage=usage, description=description, allow_abbrev=False)
    hints = get_type_hints(config)
    known = [spec.name for spec in fields(config)]  # type: ignore[arg-type]
    for spec in fields(config):  # type: ignore[arg-type]
        if spec.name in positional:
            parser.add_argument(spec.name, help=spec.metadata["help"])
        else:
            _add(parser, spec, hints[spec.name])
    values, rest = parser.parse_known_args(words)
    if rest:
        flag = next((word for word in rest if word.startswith("-")), None)
        if flag is None:
            parser.error(f"{rest[0]!r} belongs to no flag")
        parser.unknown(flag, known)
    try:
        return config(**vars(values))
    except MinitrainError as error:
        parser.error(str(error))


def _forget_standard_output() -> None:
    """What is left to write to it would fail again as Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def command(
    config: type[Config],
    function: Callable[[Config], object],
    description: str,
    positional: tuple[str, ...] = (),
) -> None:
    """A script's whole main: parse the flags, call the function, and end as a command should.

    What the user can mend is said on standard error without a traceback, with status 1 (2 where the flags are
    wrong); an interrupt ends with 130.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal lacks letters for ends no run
    try:
        function(parse(config, description, positional=positional))
    except MinitrainError as error:
        if isinstance(error, PeerError) and not error.alone:
            sys.exit(1)  # the process that failed says why
        sys.exit(f"{sys.argv[0].rsplit('/', 1)[-1]}: {error}")
    except Stopped as stopped:
        if os.environ.get("RANK", "0") == "0":
            print(f"{sys.argv[0].rsplit('/', 1)[-1]}: {stopped}", file=sys.stderr)
        sys.exit(128 + stopped.signal)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of standard output left, as `head` does
        _forget_standard_output()
        sys.exit(141)
    except OSError as error:
        if error.errno not in FULL or error.filename is not None:
            raise
        _forget_standard_output()
        sys.exit(f"{sys.argv[0].rsplit('/', 1)[-1]}: output cannot be written ({error.strerror}); make room")
