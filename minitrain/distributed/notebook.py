"""Writes a function of a notebook into a module, for processes that do not have the notebook.

The module holds the source of the function, and of the notebook's functions and classes that it names; imports for
what comes from elsewhere; and plain values as literals. It is a file that a person can read.
"""

import ast
import builtins
import inspect
import linecache
import symtable
import textwrap
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from minitrain.errors import MinitrainError

MODULE = "minitrain_launched"


def notebook_function_to_module(function: Callable[..., Any], folder: str) -> tuple[str, str, str]:
    """Write the module into a folder; returns the folder, the module's name and the function's.

    Raises MinitrainError for what has no source, or names a value that cannot be written down.
    """
    lines = _lines(function, function.__globals__, set())
    Path(folder, f"{MODULE}.py").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder, MODULE, function.__name__


def _lines(thing: Any, namespace: dict[str, Any], done: set[str]) -> list[str]:
    """The source of a function or class, after all that it names."""
    if thing.__name__ == "<lambda>":
        raise MinitrainError("launch cannot carry a lambda over to other processes: write it as a function")
    source = _class_source(thing.__name__) if inspect.isclass(thing) else _function_source(thing)
    if source is None:
        raise MinitrainError(
            f"launch cannot find the source of {thing.__name__}: define it in a module, a script or a notebook"
        )
    done.add(thing.__name__)
    lines = []
    for name in _names(source):
        if name not in done and name in namespace and namespace[name] is not getattr(builtins, name, None):
            done.add(name)
            lines += _line(name, namespace[name], namespace, done, thing.__name__)
    return [*lines, source]


def _function_source(function: Any) -> str | None:
    with suppress(OSError, TypeError):
        return textwrap.dedent(inspect.getsource(function))
    return None


def _class_source(name: str) -> str | None:
    """Of a class that was defined by hand; a class, unlike a function, does not know in which cell."""
    for _, _, lines, _ in reversed([entry for entry in linecache.cache.values() if len(entry) == 4]):
        with suppress(SyntaxError):  # a cell that failed
            for node in ast.parse("".join(lines)).body:
                if isinstance(node, ast.ClassDef) and node.name == name:
                    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                    return "".join(lines[first - 1 : node.end_lineno])
    return None


def _names(source: str) -> list[str]:
    """What a definition reads of the world around it, by Python's own rules of scope."""
    names: dict[str, None] = {}
    tables = [symtable.symtable(source, "<notebook>", "exec")]
    for table in tables:  # grows
        outermost = table.get_type() == "module"
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (not symbol.is_assigned() if outermost else symbol.is_global()):
                names[symbol.get_name()] = None
        tables += table.get_children()
    return list(names)


def _line(name: str, value: Any, namespace: dict[str, Any], done: set[str], user: str) -> list[str]:
    if isinstance(value, ModuleType):
        return [f"import {value.__name__} as {name}"]
    home, own_name = getattr(value, "__module__", None), getattr(value, "__name__", None)
    if own_name and home == namespace["__name__"]:
        return [*_lines(value, namespace, done), *([f"{name} = {own_name}"] if name != own_name else [])]
    if own_name and home and "." not in getattr(value, "__qualname__", own_name):
        return [f"from {home} import {own_name} as {name}"]
    try:
        ast.literal_eval(repr(value))
    except (ValueError, SyntaxError):
        raise MinitrainError(
            f"launch cannot carry {name} ({type(value).__name__}), which {user} uses, over to other processes: "
            "make it inside the function, or pass it in args"
        ) from None
    return [f"{name} = {value!r}"]
