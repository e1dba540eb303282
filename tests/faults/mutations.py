"""Ways to spoil a file: JSON edited as a tree that may hold what no parser would give, and plain bytes.

Each returns whether the result is `fatal`: a file that has to be refused, whatever else is in it.
"""

import copy
import gzip
import io
import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

Draw = Callable[..., Any]


@dataclass
class Mutant:
    """Files to put beside those of a healthy folder (None: to take away), what was done to them, and what to do.

    fatal: they must be refused. rows: those with another value than before, where nothing else was done.
    options: for the probe.
    """

    files: dict[str, bytes | None] = field(default_factory=dict, repr=False)
    done: list[str] = field(default_factory=list)
    fatal: bool = False
    rows: set[int] | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # Hypothesis prints every field otherwise, also megabytes of `files`

    def note(self, name: str, fatal: bool = False) -> None:
        self.fatal = fatal if not self.done else False  # a second change may undo the first
        self.done.append(name)


class Object(list):  # type: ignore[type-arg]
    """A JSON object as a list of [key, value], so that a key can stand twice."""


class Raw(str):
    """JSON text that is written as it is."""


def parse(content: bytes) -> Any:
    """Raises ValueError for what a change before has spoilt, or made too deep to edit."""
    if b"[" * 50 in content or b'{"a":' * 50 in content:
        raise ValueError("too deep")
    return json.loads(content, object_pairs_hook=lambda pairs: Object([list(pair) for pair in pairs]))


def dump(node: Any) -> str:
    if isinstance(node, Raw):
        return str(node)
    if isinstance(node, Object):
        return "{" + ",".join(f"{dump(key)}:{dump(value)}" for key, value in node) + "}"
    if isinstance(node, list):
        return "[" + ",".join(dump(item) for item in node) + "]"
    return json.dumps(node)


def places(node: Any) -> Iterator[tuple[Any, int, bool]]:
    """Every value of a tree: (what holds it, where, whether that is a pair of key and value)."""
    for i, item in enumerate(node):
        if isinstance(node, Object):
            yield node, i, True
            item = item[1]
        else:
            yield node, i, False
        if isinstance(item, list):
            yield from places(item)


def member(tree: Object, key: str) -> Any:
    """The value of a key that is there."""
    return next(value for name, value in tree if name == key)


# What a strict reader of JSON refuses wherever it stands.
NEVER = [
    *map(
        Raw,
        ("NaN", "Infinity", "-Infinity", '"\\ud800"', '"a\\uDC00b"', "'a'", "0x10", "01", "tru", '{"a":1,"a":1}'),
    ),
    *map(Raw, ("[" * 100_000 + "]" * 100_000, '{"a":' * 5_000 + "1" + "}" * 5_000, "9" * 5_000)),
]
ODD: list[Any] = [
    None, True, False, 0, 1, 2, 3, 7, -1, -100, 0.5, 1.0, -0.0, 1e-300, 1e308, 2**24, 2**31, 2**32, 2**53,
    2**63 - 1, 2**63, 2**64, 10**400, Raw("1e999"), Raw("-1e999"), Raw("1e-999"), "", " ", "a", "0", "-1", "\0",
    "\u202ea", "é", "\U0001f600", "[CLS]", "[UNK]", "[NEW]", "##a", "float32", "../a", "/etc/passwd", "x" * 100_000,
    [], [[]], [1, 2], ["a"], Object([]), Object([["a", 1]]), Object([["", None]]),
]  # fmt: skip
WAYS = [*["odd"] * 4, *["nudge"] * 3, "never", "swap", "drop", "twice", "rename", "wrap", "add"]
nested = st.integers(850, 1010).map(lambda depth: Raw("[" * depth + "]" * depth))  # about as deep as a parser goes
odd = st.sampled_from(ODD) | st.sampled_from(ODD) | nested | st.integers() | st.floats(allow_nan=False).map(repr)
keys = st.sampled_from(["", "a", "\0", "__metadata__", "type", "content", "id", "x" * 10_000]) | st.text(max_size=3)


def edit_tree(draw: Draw, mutant: Mutant, tree: Any, values: st.SearchStrategy[Any] = odd) -> None:
    """Do one thing to one value of a tree, wherever it stands."""
    every = list(places(tree))
    if not every:
        return mutant.note("nothing")
    holder, i, pair = every[draw(st.integers(0, len(every) - 1))]
    old = holder[i][1] if pair else holder[i]
    how = draw(st.sampled_from(WAYS))
    if how == "nudge" and type(old) in (int, float) and abs(old) < 2**64:
        new = draw(st.sampled_from([old + 1, old - 1, old * 2, -old, float(old), str(old)]))
    elif how == "nudge" and isinstance(old, list):
        new = type(old)(draw(st.permutations(old[:50])) + old[50:])
    elif how == "nudge":
        new = f"{old}{draw(st.sampled_from(['', ' ', 'a', '.', '0']))}"
    elif how == "swap":
        other, j, paired = every[draw(st.integers(0, len(every) - 1))]
        new = Raw(dump(other[j][1] if paired else other[j]))  # a copy: a tree must not hold itself
    elif how == "never":
        new = draw(st.sampled_from(NEVER))
    else:
        new = [old] if how == "wrap" else copy.deepcopy(draw(values))  # a later edit may change it
    if how == "drop":
        del holder[i]
    elif how == "twice":
        holder.insert(draw(st.integers(0, len(holder))), list(holder[i]) if pair else old)
    elif how == "add":
        holder.insert(i, [draw(keys), new] if pair else new)
    elif how == "rename" and pair:
        holder[i] = [draw(keys), old]
    else:
        holder[i] = [holder[i][0], new] if pair else new
    mutant.note(f"{how} in JSON", fatal=how == "never" or (how == "twice" and pair))


class Canary:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def pickles(canary: Path) -> list[bytes]:
    """A pickle in every protocol, and as torch wraps it."""
    wrapped = io.BytesIO()
    torch.save({"a": Canary(canary)}, wrapped)
    return [wrapped.getvalue(), *(pickle.dumps(Canary(canary), protocol=protocol) for protocol in range(6))]


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 90868376\n"
PAGES = [b"<!DOCTYPE html><html><body>404</body></html>", b"\n  <html></html>", b"<?xml version='1.0'?><Error/>"]
GARBAGE = [b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\x80\x04", *(b"%c" % c for c in b'{]"\\,\r\n\t')]


def edit_bytes(draw: Draw, mutant: Mutant, content: bytes, canary: Path) -> bytes:
    """Flip, cut, insert or replace."""
    how = draw(st.sampled_from([*["flip"] * 4, "cut", "insert", "insert", "repeat", "replace", "replace", "gzip"]))
    at = draw(st.integers(0, max(0, len(content) - 1)))
    mutant.note(f"{how} bytes", fatal=how in ("replace", "gzip"))
    if how == "flip" and content:
        return content[:at] + bytes([content[at] ^ 1 << draw(st.integers(0, 7))]) + content[at + 1 :]
    if how == "cut":
        return content[:at]
    if how == "insert":
        return content[:at] + draw(st.sampled_from(GARBAGE) | st.binary(max_size=20)) + content[at:]
    if how == "repeat":
        return content[:at] + content[at : at + draw(st.integers(1, 40))] + content[at:]
    if how == "gzip":
        return gzip.compress(content, mtime=0)
    others = [b"", b"\0" * len(content), b"null", b"[]", b"3", content.decode("latin-1").encode("utf-16")]
    return bytes(draw(st.sampled_from([LFS, *PAGES, *pickles(canary), *others])))
