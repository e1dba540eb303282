"""Whether the fields of a configuration made in Python hold what they are declared to; flags are read as such."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from minitrain.config.scalars import plain
from minitrain.errors import MinitrainError, shown

_EXPECTED = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "text",
    tuple: "names, as a tuple of text",
    dict: "names by what the data calls them, as a dict",
}


def check_types(config: Any) -> None:
    """Raise MinitrainError naming the first field whose value is of another type than it is declared.

    Numbers of numpy and torch become Python's, paths text, and lists tuples, so that all of it can be written down.
    """
    hints = get_type_hints(type(config))
    for spec in fields(config):
        value, hint = getattr(config, spec.name), hints[spec.name]
        arms = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if value is None and NoneType in arms:
            continue
        kinds = [get_origin(arm) or arm for arm in arms if arm is not NoneType]
        taken = next((found for kind in kinds if (found := _taken(value, kind)) is not None), None)
        if taken is None:
            expected = [_EXPECTED[kind] for kind in kinds] + (["None"] if NoneType in arms else [])
            raise MinitrainError(
                f"--{spec.name} is {shown(value)} ({type(value).__name__}); expected {' or '.join(expected)}"
            )
        if taken is not value:
            object.__setattr__(config, spec.name, taken)


def _taken(value: Any, kind: type) -> Any:
    """A value as a field of that kind holds it; None where it is of another."""
    value = plain(value)
    if kind is bool or isinstance(value, bool):
        return value if kind is bool and isinstance(value, bool) else None
    if kind is int:
        return _own(value, int) if isinstance(value, Integral) else None
    if kind is float:
        own = int if isinstance(value, Integral) else float
        return _own(value, own) if isinstance(value, Real) else None
    if kind is str:
        return os.fspath(value) if isinstance(value, str) or _is_path(value) else None
    if kind is dict:  # what reads it takes text and files too
        return value if isinstance(value, str | Mapping) or _is_path(value) else None
    if isinstance(value, str):  # one name, or several: what reads it knows what is meant
        return value
    names = isinstance(value, Sequence) and all(isinstance(name, str) for name in value)
    return value if names and isinstance(value, tuple) else tuple(value) if names else None


def _own(value: Any, kind: type) -> Any:
    return value if type(value) is kind else kind(value)


def _is_path(value: Any) -> bool:
    return isinstance(value, os.PathLike) and isinstance(os.fspath(value), str)
