"""The command line, derived from the fields of a configuration dataclass.

Flags have Trainer's names, with underscores or dashes. An unknown flag is answered by `known_flags.py`, else with
the most similar one. Nothing here imports torch, so `--help` and a mistyped flag answer without delay.
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
import warnings
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from minitrain.config.read_options import ReadOptions
from minitrain.errors import MinitrainError, PeerError, Stopped
from minitrain.run.known_flags import ANSWERS, RENAMED

Config = TypeVar("Config")
GRACE = 3.0  # seconds until the other processes end after the one that prints the error
READING = {spec.name for spec in fields(ReadOptions)}  # last in --help
SIMILAR = 0.8  # difflib ratio for which a name counts as a typo: a letter or two
PACKAGE = Path(__file__).parents[1]
_as_python_does = warnings.formatwarning
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # with standard output redirected to a file


class _Parser(argparse.ArgumentParser):
    """argparse with errors that name the flag that was meant."""

    def error(self, message: str) -> NoReturn:
        first = os.environ.get("LOCAL_RANK", "0") == "0"  # one process per node prints
        if not first:
            time.sleep(GRACE)  # torchrun kills all when one ends, so the one that prints must end first
        self.exit(2, f"{self.prog}: {message}\n(--help lists the flags)\n" if first else None)


def hint(name: str, known: Sequence[str]) -> str:
    """What to do instead of an unknown flag, with a leading "; "; empty if nothing is sure to help.

    >>> hint("lr", ["learning_rate", "seed"])
    '; here it is called --learning_rate'
    >>> hint("sed", ["learning_rate", "seed"])
    '; did you mean --seed?'
    """
    renamed = {old: new for old, new in RENAMED.items() if new in known}
    if name in renamed:
        return f"; here it is called --{renamed[name]}"
    if name in ANSWERS:
        named = set(re.findall(r"--(\w+)", ANSWERS[name]))
        return f"; {ANSWERS[name]}" if named <= {*known, "nproc_per_node"} else ""
    near = difflib.get_close_matches(name, [*known, *renamed], n=1, cutoff=SIMILAR) or _completed(name, known)
    return f"; did you mean --{renamed.get(near[0], near[0])}?" if near else ""


def _completed(name: str, known: Sequence[str]) -> list[str]:
    """The only flag that begins with a name's words, else the only one that contains them: beta1 -> adam_beta1."""
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
    """a,b or ["a", "b"] -> ("a", "b")"""
    try:
        names = json.loads(text) if _is_list(text) else [name.strip() for name in text.split(",")]
    except ValueError:
        names = []
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise argparse.ArgumentTypeError(
            f'{text!r} has an empty name, or is no JSON list of names; write a,b or \'["a, b", "c"]\''
        )
    return tuple(names)


def _files(text: str) -> str | tuple[str, ...]:
    """A JSON list becomes a tuple. Commas are split where files are read: a file's name may contain one."""
    return _names(text) if _is_list(text) and not os.path.exists(text) else text


def _is_list(text: str) -> bool:
    return text.lstrip().startswith('["')


def _number(text: str) -> float:
    value = float(text)
    return int(value) if value.is_integer() and "." not in text and "e" not in text.lower() else value


_number.__name__ = "number"  # for argparse's message: invalid number value: 'x'


# The type of a field -> what parses its flag, and the placeholder in --help.
_PARSERS: dict[type, tuple[Callable[[str], Any], str]] = {
    bool: (_truth, "BOOL"),
    int: (int, "N"),
    float: (_number, "X"),
    str: (str, "NAME"),
    tuple: (_names, "A,B"),
    dict: (str, "A=B,..."),  # parsed by the configuration, which also takes a dict
}


def _parser_of(hint: Any) -> tuple[Callable[[str], Any], str]:
    """float | None -> (_number, "X")"""
    arms = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    kinds = [get_origin(arm) or arm for arm in arms if arm is not types.NoneType]
    return (_files, "FILE") if str in kinds and tuple in kinds else _PARSERS[kinds[0]]


def _underscored(word: str) -> str:
    """--learning-rate=3e-5 -> --learning_rate=3e-5"""
    name, equals, value = word.partition("=")
    return name.replace("-", "_").replace("__", "--", 1) + equals + value if name.startswith("--") else word


def _joined(words: list[str]) -> list[str]:
    """--label_map -1=no,1=yes -> --label_map=-1=no,1=yes, because argparse takes -1=no,1=yes for a flag."""
    result: list[str] = []
    for word in words:
        follows = bool(result) and result[-1].startswith("--") and "=" not in result[-1]
        if follows and word[:1] == "-" and word[1:2].isdecimal():
            result[-1] += f"={word}"
        else:
            result.append(word)
    return result


def _add(parser: argparse.ArgumentParser, spec: Field[Any], hint: Any) -> None:
    parse_value, placeholder = _parser_of(hint)
    bare = True if parse_value is _truth else spec.metadata["bare"]
    default = spec.metadata["shown"]
    shown = "" if default in (None, MISSING) else f" (default: {default})"
    parser.add_argument(
        f"--{spec.name}",
        default=argparse.SUPPRESS,
        type=parse_value,
        choices=spec.metadata["choices"],
        help=(spec.metadata["help"] + shown).replace("%", "%%"),
        metavar=None if spec.metadata["choices"] else placeholder,
        nargs=None if bare is None else "?",
        const=bare,
    )


def _in_usage(name: str, hint: Any) -> str:
    """run -> RUN; of several runs RUN RUN..."""
    one = name.upper().removesuffix("S")
    return f"{one} {one}..." if get_origin(hint) is tuple else name.upper()


def parse(
    config: type[Config], description: str, arguments: Sequence[str] | None = None, positional: tuple[str, ...] = ()
) -> Config:
    """Build `config`, a dataclass of `options.flag` fields, from command-line flags.

    Fields named in `positional` are positional, and required if they have no default. Wrong flags exit
    with status 2, as with argparse.
    """
    words = _joined([_underscored(word) for word in (sys.argv[1:] if arguments is None else arguments)])
    hints = get_type_hints(config)
    options: Any = config
    specs = sorted(fields(options), key=lambda spec: spec.name in READING)
    words_in_usage = [_in_usage(name, hints[name]) for name in positional]
    flags = ["[--flag value ...]"] if len(specs) > len(positional) else []
    usage = " ".join(["%(prog)s", *words_in_usage, *flags])
    parser = _Parser(usage=usage, description=description, allow_abbrev=False)
    for spec in specs:
        if spec.name in positional:
            several = get_origin(hints[spec.name]) is tuple
            optional: dict[str, Any] = {} if spec.default is MISSING else {"default": argparse.SUPPRESS}
            count = "+" if several else "?" if optional else None
            parser.add_argument(spec.name, help=spec.metadata["help"], nargs=count, **optional)
        else:
            _add(parser, spec, hints[spec.name])
    values, rest = parser.parse_known_args(words)
    if rest:
        flag = next((word for word in rest if word.startswith("-")), None)
        if flag is None:
            lists = [name.upper() for name in positional if get_origin(hints[name]) is tuple]
            way = f"; give all {lists[0]} before the flags" if lists else ""
            parser.error(f"{rest[0]!r} belongs to no flag{way}")
        if not flag.startswith("--"):
            parser.error(f"no flag {flag}")
        name = flag.removeprefix("--").split("=")[0]
        if name in positional:
            parser.error(f"no flag --{name}; pass its value alone, before the flags")
        parser.error(f"no flag --{name}{hint(name, [spec.name for spec in specs if spec.name not in positional])}")
    try:
        return config(**vars(values))
    except MinitrainError as error:
        parser.error(str(error))


def _formatted(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning of minitrain as its other ones are printed; those of others with their place, as Python does."""
    if Path(filename).is_relative_to(PACKAGE):
        return f"WARNING  {message}\n"
    return _as_python_does(message, category, filename, lineno, line)


def command(
    config: type[Config], function: Callable[[Config], object], description: str, positional: tuple[str, ...] = ()
) -> None:
    """The main function of a script: parse the flags and call `function` with the configuration.

    An error that the user can fix is printed without a traceback, with exit status 1 (2 for wrong flags); an
    interrupt exits with 130.
    """
    program = sys.argv[0].rsplit("/", 1)[-1]
    warnings.formatwarning = _formatted
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # characters that the terminal cannot show
    try:
        function(parse(config, description, positional=positional))
    except MinitrainError as error:
        if isinstance(error, PeerError) and not error.alone:
            sys.exit(1)  # the process that failed first prints its error
        sys.exit(f"{program}: {error}")
    except Stopped as stopped:
        if os.environ.get("RANK", "0") == "0":
            print(f"{program}: {stopped}", file=sys.stderr)
        sys.exit(128 + stopped.signal)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `head` closed standard output
        _discard_standard_output()
        sys.exit(141)
    except OSError as error:
        if error.errno not in DISK_ERRORS or error.filename is not None:
            raise
        _discard_standard_output()
        sys.exit(f"{program}: output cannot be written ({error.strerror}); make room")


def _discard_standard_output() -> None:
    """Python flushes standard output at exit, which would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
