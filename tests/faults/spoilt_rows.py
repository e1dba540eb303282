"""Spoilt files of rows, and rows with spoilt values: (draw, healthy folder) -> Mutant."""

import csv
import datetime
import gzip
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from hypothesis import strategies as st
from mutations import NEVER, Draw, Mutant, Object, dump, edit_bytes, edit_tree, odd, parse
from spoilt_models import some

LABELS: dict[str, list[Any]] = {
    "counted": [0, 1, 2], "stars": [1, 5, 10], "named": ["no", "yes"], "scores": [0.5, 3.25, -1.0],
    "digits": ["7", "8"], "floats": [0.0, 1.0],
}  # fmt: skip
TEXTS = ["the dog", "a fox is\nthe dog.", "", " \t ", 'say "so", dog', "é 中 😀 \u202e", "NA", "1984", "a\0b"]
NO_TEXTS: list[Any] = [None, 3, 0.5, math.nan, True, ["a"], {"a": 1}]
NO_LABELS: list[Any] = [None, True, math.nan, math.inf, -math.inf, ["a"], {"a": 1}, [], 1e400]
ODD_TEXTS = [*TEXTS, "\ud800", "word " * 2000, "y" * 200_000, "\ufeff", "\u2028", "[CLS] [PAD]", "\x1a", "-1"]
ODD_LABELS = [
    *NO_LABELS, -1, -100, 3, 99, 10**30, 10**400, 0.5, 1.0, -0.0, 1e308, "", " ", "0", "1", "yes", "YES", "a\udfff",
    "x" * 10_000,
]  # fmt: skip
READING: dict[str, list[Any]] = {
    "delimiter": [None, None, ",", "tab", ";"], "quoting": ["double", "double", "none"],
    "encoding": ["utf-8", "utf-8", "latin-1", "cp1252"],
}  # fmt: skip
Columns = dict[str, list[Any]]


def as_csv(columns: Columns, delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue().encode("utf-8", "surrogatepass")


def as_jsonl(columns: Columns) -> bytes:
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_parquet(columns: Columns) -> bytes | None:
    """None for a column that has no type."""
    file = io.BytesIO()
    try:
        pyarrow.parquet.write_table(pyarrow.table(columns), file)
    except (pyarrow.ArrowException, OverflowError, UnicodeError):
        return None
    return file.getvalue()


def odd_columns(rows: int) -> list[Sequence[Any]]:
    """Columns of parquet that hold what no other format does."""
    broken = pyarrow.array([b"the dog", b"\xff\xfe", *[b"a"] * (rows - 2)], pyarrow.binary()).view(pyarrow.string())
    return [
        [b"a"] * rows, [datetime.date(2020, 1, 1)] * rows, [datetime.timedelta(3)] * rows, [["a"]] * rows, broken,
        pyarrow.array([2**62] * rows, pyarrow.timestamp("us")), pyarrow.array([None] * rows, pyarrow.null()),
        pyarrow.array(["a"] * rows).dictionary_encode(), pyarrow.array([1] * rows, pyarrow.uint64()),
        pyarrow.array([1.5] * rows, pyarrow.float16()), pyarrow.array(["a"] * rows, pyarrow.large_string()),
        pyarrow.array([1] * rows, pyarrow.decimal128(5, 2)),
    ]  # fmt: skip


def edit_table(draw: Draw, mutant: Mutant, content: bytes, delimiter: bytes) -> bytes:
    """The text of CSV or JSON lines, by its lines."""
    lines = content.split(b"\n")
    at = draw(st.integers(0, len(lines) - 1))
    line = lines[at]
    changed = {
        "field": line + delimiter + b"x", "no field": line.rpartition(delimiter)[0], "quote": b'"' + line,
        "blank": b"\n" + line, "long": b"z" * 1_000_000 + line, "nul": b"\0" + line, "twice": line + b"\n" + line,
        "drop": b"", "ends": line + b"\r", "mark": b"\xef\xbb\xbf" + line, "name": line.replace(b"label", b"text"),
    }  # fmt: skip
    how = draw(st.sampled_from(sorted(changed)))
    lines[at] = changed[how]
    mutant.note(f"{how} in lines")
    return b"\n".join(lines)


def rows(draw: Draw, base: Path) -> Mutant:
    mutant = Mutant()
    kind = draw(st.sampled_from(["csv", "csv", "csv.gz", "tsv", "json", "jsonl", "jsonl", "jsonl", "parquet"]))
    labels = draw(st.sampled_from(sorted(LABELS)))
    count = draw(st.integers(2, 8))
    columns: Columns = {
        "text": [draw(st.sampled_from(TEXTS)) for _ in range(count)],
        "label": [LABELS[labels][i % len(LABELS[labels])] for i in range(count)],
    }
    mutant.options = {
        "spoilt": draw(st.sampled_from(["train_file", "train_file", "eval_file"])),
        "healthy": f"{labels}.jsonl",
        "name": f"spoilt.{kind}",
        "problem_type": draw(st.sampled_from([None, None, None, "regression"]))
        if labels not in ("named", "digits")
        else None,
        "text_columns": draw(st.sampled_from([None, ["text"], ["text", "text"], ["none"]])),
    }
    if labels == "floats":
        mutant.options["problem_type"] = "regression"
    if draw(st.booleans()):
        columns = {"id": list(range(count)), **columns}
    how = draw(st.sampled_from(["nothing", "cells", "cells", "cells", "lines", "bytes", "tree"]))
    if how == "cells":
        edit_cells(draw, mutant, columns, typed=kind in ("json", "jsonl"))
    encode: dict[str, Callable[[], bytes | None]] = {
        "csv": lambda: as_csv(columns, ","),
        "csv.gz": lambda: as_csv(columns, ","),
        "tsv": lambda: as_csv(columns, "\t"),
        "jsonl": lambda: as_jsonl(columns),
        "json": lambda: b"[" + b",".join(as_jsonl(columns).splitlines(keepends=True)) + b"]",
        "parquet": lambda: spoilt_parquet(draw, mutant, columns, how, base / "ran"),
    }
    content = encode[kind]()
    if content is None:  # parquet has one type for each column
        kind, content = "jsonl", as_jsonl(columns)
        mutant.options["name"] = "spoilt.jsonl"
    for _ in some(draw) if how in ("lines", "bytes", "tree") and kind != "parquet" else ():
        if how == "bytes":
            content = edit_bytes(draw, mutant, content, base / "ran")
        elif how == "tree" and kind == "jsonl":
            content = edit_row(draw, mutant, content)
        else:
            content = edit_table(draw, mutant, content, b"\t" if kind == "tsv" else b",")
    if kind == "csv.gz":
        content = gzip.compress(content)
        if how == "bytes" and draw(st.booleans()):
            content = edit_bytes(draw, mutant, content, base / "ran")
    for name, values in READING.items() if kind in ("csv", "tsv") and how in ("lines", "bytes") else ():
        mutant.options[name] = draw(st.sampled_from(values))
    if mutant.options["text_columns"] == ["none"]:
        mutant.options["spoilt"] = "train_file"
        mutant.note("no such column", fatal=True)
    mutant.files[mutant.options["name"]] = content
    return mutant


def edit_cells(draw: Draw, mutant: Mutant, columns: Columns, typed: bool) -> None:
    """Put something else into some cells. In a file without types whatever is written is a text."""
    mutant.rows = set()
    for _ in some(draw):
        name = draw(st.sampled_from(["text", "label"]))
        row = draw(st.integers(0, len(columns[name]) - 1))
        value = draw(st.sampled_from(ODD_TEXTS if name == "text" else ODD_LABELS))
        columns[name][row] = value
        mutant.rows.add(row + 1)
        mutant.note(f"{name}: {str(value)[:10]!r}", fatal=typed and has_to_be_refused(name, value, mutant))


def has_to_be_refused(name: str, value: Any, mutant: Mutant) -> bool:
    if isinstance(value, str):
        return any("\ud800" <= character <= "\udfff" for character in value)
    if name == "label" and value in (-1, -100):
        return mutant.options["problem_type"] is None and mutant.options["healthy"] != "scores.jsonl"
    return any(value is wrong for wrong in (NO_TEXTS if name == "text" else NO_LABELS))


def edit_row(draw: Draw, mutant: Mutant, content: bytes) -> bytes:
    """A row of JSON lines, as a tree."""
    lines = content.split(b"\n")
    at = draw(st.integers(0, len(lines) - 2))
    try:
        row = parse(lines[at])
    except ValueError:
        return content
    edit_tree(draw, mutant, Object([["a", row]]), odd | st.sampled_from(NEVER))
    mutant.fatal = False  # a key of a row may stand twice, and NaN in a column that nobody asks for
    lines[at] = dump(row).encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


def spoilt_parquet(draw: Draw, mutant: Mutant, columns: Columns, how: str, canary: Path) -> bytes | None:
    if how in ("nothing", "tree"):
        name = draw(st.sampled_from(["text", "label", "id"]))
        columns[name] = draw(st.sampled_from(odd_columns(len(columns["text"]))))  # type: ignore[assignment]
        mutant.note(f"odd {name}")
    content = as_parquet(columns)
    if content is not None and how in ("bytes", "lines"):
        return edit_bytes(draw, mutant, content, canary)
    return content
