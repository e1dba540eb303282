"""The labels that one value of a table lists: a list, an array, or a text with a separator between them.

Only taken apart here; `multi.py` finds out which classes they are.
"""

import ast
import json
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from io import StringIO
from itertools import pairwise
from tokenize import STRING, TokenError, generate_tokens
from typing import Any

from minitrain.config.options import plain_scalar

_SIDE_BY_SIDE = re.compile(r"""['"]\s*['"]""")


def listed_labels(value: Any, separator: str | None = None, untyped: bool = False) -> list[Any] | None:
    """The labels of a row as plain values, or None if the value is no list of them.

    Args:
        separator: Between the labels of a text; blanks around a label, and labels of blanks alone, are dropped.
        untyped: All values are text, so that a list may be written as one: CSV has `["a", "b"]` of JSON or Python.

    >>> listed_labels(" toxic, insult,", ","), listed_labels("", ","), listed_labels("toxic")
    (['toxic', 'insult'], [], None)
    """
    if isinstance(value, str):
        if separator is not None:
            return [part.strip() for part in value.split(separator) if part.strip()]
        return _literal(value) if untyped else None
    if isinstance(value, set | frozenset):
        value = sorted(value, key=lambda item: (type(item).__name__, str(item)))  # hashing gives another order
    elif getattr(value, "ndim", None) == 1:  # of numpy, pandas or torch
        value = value.tolist()
    return list(map(plain_scalar, value)) if isinstance(value, list | tuple) else None


def _literal(text: str) -> list[Any] | None:
    """The list that a text spells, as JSON or Python; None if it spells none."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    for parse in (json.loads, _python_list):
        with suppress(ValueError, SyntaxError, TokenError, MemoryError, RecursionError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an odd escape
            found = parse(text)
            return found if isinstance(found, list) else None
    return None


def _python_list(text: str) -> Any:
    """As Python reads a list, and as numpy writes an array: [0 1 0], [True False], ['a' 'b'].

    Raises:
        ValueError, SyntaxError, TokenError: It is none, or has commas in some places only.
    """
    words = text.strip("[]").split()
    if "," not in text and not text.strip("[]01. \n") or set(words) <= {"True", "False"}:
        return ast.literal_eval(f"[{','.join(words)}]")
    if not _SIDE_BY_SIDE.search(text):
        return ast.literal_eval(text)
    # Python joins strings that stand side by side, so that two labels would become one.
    inside = [token for token in generate_tokens(StringIO(text).readline) if token.string.strip()][1:-1]
    if all(token.type == STRING for token in inside):
        return [ast.literal_eval(token.string) for token in inside]
    if any(a.type == b.type == STRING for a, b in pairwise(inside)):
        raise ValueError("some of the labels have no comma between them")
    return ast.literal_eval(text)


def each_label(values: Iterable[Any], separator: str | None, untyped: bool) -> Iterator[Any]:
    """Whatever a label map may rename: the labels of all rows, and the places in lists of numbers.

    A value that is no list is its own label; a place is called by its number, or LABEL_0 and so on.
    """
    for value in values:
        found = listed_labels(value, separator, untyped)
        yield from [value] if found is None else found
        if found and is_number(found[0]):
            yield from (name for i in range(len(found)) for name in (i, f"LABEL_{i}"))


def is_number(value: Any) -> bool:
    """Whether a label is a number, true and false included."""
    return isinstance(value, int | float)
