"""What a field of a configuration is beside its default: its help, its choices and the bounds of its number.

The configurations (`config.py`, `data_config.py`, `inference_config.py`) are frozen dataclasses of such fields, and
the command line (`flags.py`) is derived from them.
"""

import sys
from collections.abc import Sequence
from dataclasses import field, fields
from typing import Any

from minitrain.config.field_types import check_types
from minitrain.errors import MinitrainError

MAY_BE_EMPTY = ("join", "positive_label")  # nothing between two texts; a class may be called so
Bounds = tuple[float | None, float | None]  # the lowest value allowed, and the highest; None is no bound


def flag(
    default: Any,
    help: str,
    choices: tuple[str, ...] | None = None,
    bare: str | None = None,
    bounds: Bounds | None = None,
    shown: Any = None,
) -> Any:
    """A field with what its command-line flag needs.

    bare: what the flag means without a value. bounds: of a number. shown: the default that --help names, where it
    is not `default`.
    """
    metadata = {"help": help, "choices": choices, "bare": bare, "bounds": bounds}
    return field(default=default, metadata=metadata | {"shown": default if shown is None else shown})


def check_flags(config: Any) -> None:
    """Raise MinitrainError naming the flag whose value is of another type, is no choice, or is out of its bounds.

    The command line sees to choices by itself; a configuration made in Python passes here. True is a flag without
    a value where it may have none.
    """
    for spec in fields(config):
        if spec.metadata["bare"] is not None and isinstance(getattr(config, spec.name), bool):  # resume=True
            object.__setattr__(config, spec.name, spec.metadata["bare"] if getattr(config, spec.name) else None)
    check_types(config)
    for spec in fields(config):
        value, choices, bounds = getattr(config, spec.name), spec.metadata["choices"], spec.metadata["bounds"]
        if value is None:
            continue
        if value in ("", ("",)) and spec.name not in MAY_BE_EMPTY:
            raise MinitrainError(f"--{spec.name} is empty; give it a value, or leave it out (is a variable unset?)")
        if choices is not None and value not in choices:
            raise MinitrainError(f"--{spec.name} is {value!r}; expected one of {', '.join(choices)}")
        if bounds is not None:
            _check_bounds(spec.name, value, *bounds)


def _check_bounds(name: str, value: float, lowest: float | None, highest: float | None) -> None:
    # Written so that NaN fails, and so that an int too large for a float does not raise.
    if not (lowest or 0) <= value <= (sys.float_info.max if highest is None else highest):
        upper = "" if highest is None else f" and at most {highest}"
        raise MinitrainError(f"--{name} is {value}; expected at least {lowest}{upper}")


def check_columns(columns: tuple[str, ...], join: str | None = None) -> None:
    """Raise MinitrainError unless there are one or two columns of text, or more that are to be joined."""
    if isinstance(columns, str):
        raise MinitrainError(f"--text_columns {columns}: expected a tuple of one or more names, as ({columns!r},)")
    if join is None and len(columns) > 2:
        raise MinitrainError(
            f"--text_columns {','.join(columns)}: expected one column, or two for pairs; pass --join ' ' "
            "to make one text of them"
        )


def check_label_column(label_column: str, text_columns: Sequence[str]) -> None:
    """Raise MinitrainError where the labels would be in the text that is to tell them."""
    if label_column in text_columns:
        raise MinitrainError(
            f"--text_columns {','.join(text_columns)}: {label_column!r} is the column of the labels, and a model "
            "that reads them learns nothing else; name columns of texts, or another --label_column"
        )
