"""Fields of a configuration: default, help, choices and bounds; and the checks of a configuration made in Python.

The configurations are frozen dataclasses of such fields; `run/flags.py` derives the command line from them.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import field, fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from minitrain.config.problem_types import MULTI_LABEL
from minitrain.errors import MinitrainError, shown

MAY_BE_EMPTY = ("join", "positive_label")
Bounds = tuple[float | None, float | None]  # lowest and highest value; None is no bound
_EXPECTED = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "text",
    tuple: "names, as a tuple of text",
    dict: "names by what the data calls them, as a dict",
}


def flag(
    default: Any,
    help: str,
    choices: tuple[str, ...] | None = None,
    bare: str | None = None,
    bounds: Bounds | None = None,
    shown: Any = None,
) -> Any:
    """A dataclass field that is also a command-line flag.

    Args:
        bare: The value of the flag when it is passed without one.
        bounds: Lowest and highest value of a number.
        shown: The default that --help names, if it is not `default`.
    """
    metadata = {"help": help, "choices": choices, "bare": bare, "bounds": bounds}
    return field(default=default, metadata=metadata | {"shown": default if shown is None else shown})


def check_flags(config: Any) -> None:
    """Check the type, choices and bounds of each field, and store each value as plain Python.

    Numbers of numpy and torch become Python's, paths become text, and lists become tuples.

    Raises:
        MinitrainError: Names the first flag that is wrong.
    """
    hints = get_type_hints(type(config))
    for spec in fields(config):
        name, value, choices = spec.name, getattr(config, spec.name), spec.metadata["choices"]
        if spec.metadata["bare"] is not None and isinstance(value, bool):  # resume=True
            value = spec.metadata["bare"] if value else None
        value = _as_declared(name, value, hints[name])
        object.__setattr__(config, name, value)
        if value is None:
            continue
        if value in ("", ("",)) and name not in MAY_BE_EMPTY:
            raise MinitrainError(f"--{name} is empty; give it a value, or leave it out (is a variable unset?)")
        if choices is not None and value not in choices:
            raise MinitrainError(f"--{name} is {value!r}; expected one of {', '.join(choices)}")
        if spec.metadata["bounds"] is not None:
            _check_bounds(name, value, *spec.metadata["bounds"])


def _as_declared(name: str, value: Any, hint: Any) -> Any:
    """The value as a field with this type hint stores it."""
    arms = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if value is None and NoneType in arms:
        return None
    kinds = [get_origin(arm) or arm for arm in arms if arm is not NoneType]
    for kind in kinds:
        if (converted := _converted(value, kind)) is not None:
            return converted
    expected = " or ".join([_EXPECTED[kind] for kind in kinds] + (["None"] if NoneType in arms else []))
    raise MinitrainError(f"--{name} is {shown(value)} ({type(value).__name__}); expected {expected}")


def _converted(value: Any, kind: type) -> Any:
    """The value as this type; None if it is of another."""
    value = plain(value)
    if kind is bool or isinstance(value, bool):
        return value if kind is bool and isinstance(value, bool) else None
    if isinstance(value, Integral) and kind in (int, float):
        return int(value)
    if kind in (int, float):
        return float(value) if kind is float and isinstance(value, Real) else None
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if kind is str:
        return text if isinstance(text, str) else None
    if kind is dict:  # `read_label_map` takes text and files too
        return value if isinstance(text, str | Mapping) else None
    if isinstance(text, str) or not isinstance(value, Sequence):
        return None
    names = tuple(os.fspath(name) if isinstance(name, os.PathLike) else name for name in value)
    return names if all(isinstance(name, str) for name in names) else None


def _check_bounds(name: str, value: float, lowest: float | None, highest: float | None) -> None:
    # Written so that NaN fails, and so that an int too large for a float does not raise.
    if not (lowest or 0) <= value <= (sys.float_info.max if highest is None else highest):
        upper = "" if highest is None else f" and at most {highest}"
        raise MinitrainError(f"--{name} is {value}; expected at least {lowest}{upper}")


def check_columns(columns: tuple[str, ...], join: str | None = None) -> None:
    """Raise MinitrainError for a bare string, and for more than two text columns that are not joined."""
    if isinstance(columns, str):
        raise MinitrainError(f"--text_columns {columns}: expected a tuple of one or more names, as ({columns!r},)")
    if join is None and len(columns) > 2:
        names = ",".join(columns)
        raise MinitrainError(f"--text_columns {names}: expected one or two columns; pass --join ' ' to join more")


def check_label_column(label_column: str, text_columns: Sequence[str]) -> None:
    """Raise MinitrainError if the label column is one of the text columns."""
    if label_column in text_columns:
        raise MinitrainError(
            f"--text_columns {','.join(text_columns)}: {label_column!r} is the column of the labels; "
            "name columns of texts, or another --label_column"
        )


def check_label_flags(
    column: str | None, columns: tuple[str, ...] | None, separator: str | None, problem_type: str | None = None
) -> None:
    """Raise MinitrainError for flags of several labels a text that contradict each other, or --problem_type."""
    if columns is not None and isinstance(columns, str):
        raise MinitrainError(f"--label_columns {columns}: expected a tuple of one or more names, as ({columns!r},)")
    given = {
        "label_column": column,
        "label_columns": columns and ",".join(columns),
        "label_separator": separator and repr(separator),
    }
    flags = [f"--{name} {value}" for name, value in given.items() if value is not None]
    if columns is not None and len(flags) > 1:
        raise MinitrainError(f"{' and '.join(flags)} are two ways to say where the labels are: pass one")
    if columns is not None and len(set(columns)) < len(columns):
        raise MinitrainError(f"{flags[0]}: names a column twice; name each once")
    if (columns or separator) and problem_type not in (None, MULTI_LABEL):
        raise MinitrainError(
            f"{flags[-1]} is for several labels a text, --problem_type {problem_type} is not: leave one out"
        )


def plain(value: Any) -> Any:
    """`np.int64(3)`, `torch.tensor(3)` or `np.array([3])` -> 3; anything else unchanged."""
    if not callable(getattr(value, "item", None)):
        return value
    size = value.numel() if callable(getattr(value, "numel", None)) else getattr(value, "size", None)
    return value.item() if size == 1 else value


def plain_scalar(value: Any) -> Any:
    """As `plain`, except that an array of one element stays an array."""
    if type(value) in (str, int, float, bool, NoneType):
        return value
    return plain(value) if getattr(value, "ndim", None) == 0 else value
