"""The same rows in any format give the same classes, ids and batches, or the same error; random tables show it."""

import csv
import gzip
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas
import pyarrow
import pyarrow.parquet
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from minitrain.data.batch import collate
from minitrain.data.dataset import Splits
from minitrain.data.load import load_splits
from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.errors import MinitrainError

Rows = dict[str, list[Any]]
TEXTS = [
    "the dog", 'say "so", dog', "two\nlines", "a\r\nb", "", " \t ", "NA", "None", "1984", "007", "é 中 😀", "a;b|c",
    "x, y", "True", "2020-01-01 00:00:00", "\ufefftext", "{}", "[1]", '"',
]  # fmt: skip
LABELS: dict[str, list[Any]] = {
    "words": ["no", "yes", "NA"], "numbers": [0, 1, 2], "stars": [1, 5, 3], "truths": [False, True, True],
    "digits as text": ["007", "7", "x"], "scores": [0.5, 3.25, -1.0],
}  # fmt: skip
UNSEEN: dict[str, Any] = {"words": "maybe", "numbers": 9, "stars": 4, "digits as text": "8"}


def as_text(rows: Rows, delimiter: str) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter).writerows([list(rows), *zip(*rows.values(), strict=True)])
    return out.getvalue()


def objects(rows: Rows) -> list[dict[str, Any]]:
    return [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]


def as_lines(rows: Rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in objects(rows))


def as_parquet(rows: Rows) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(rows), file)
    return file.getvalue()


# Suffix -> the bytes of a file.
WRITERS: dict[str, Callable[[Rows], bytes]] = {
    ".csv": lambda rows: as_text(rows, ",").encode(),
    ".tsv": lambda rows: as_text(rows, "\t").encode(),
    ".txt": lambda rows: as_text(rows, "~").encode("utf-16"),
    ".jsonl": lambda rows: as_lines(rows).encode(),
    ".json": lambda rows: json.dumps({"about": "rows", "data": objects(rows)}, indent=1).encode(),
    ".csv.gz": lambda rows: gzip.compress(as_text(rows, ";").encode("utf-8-sig")),
    ".jsonl.gz": lambda rows: gzip.compress(as_lines(rows).encode()),
    ".parquet": as_parquet,
}
OPTIONS: dict[str, dict[str, str]] = {
    ".txt": {"delimiter": "~", "encoding": "utf-16"},
    ".csv.gz": {"delimiter": ";"},
}
FOLDERS = (".csv", ".tsv", ".jsonl", ".parquet")


def files(folder: Path, suffix: str, tables: dict[str, Rows]) -> dict[str, Any]:
    """The options that name the tables as files; the training rows are in two, where their order is known."""
    train = tables["train"]
    half = len(next(iter(train.values()))) // 2
    parts = {"a": {k: v[:half] for k, v in train.items()}, "b": {k: v[half:] for k, v in train.items()}}
    for name, rows in {**parts, "eval": tables["validation"]}.items():
        (folder / f"{name}{suffix}").write_bytes(WRITERS[suffix](rows))
    names = (str(folder / f"a{suffix}"), str(folder / f"b{suffix}"))
    return {"train_file": names, "eval_file": str(folder / f"eval{suffix}"), **OPTIONS.get(suffix, {})}


def as_folder(folder: Path, suffix: str, tables: dict[str, Rows]) -> dict[str, Any]:
    """The same as a folder laid out as on the Hub."""
    inner = folder / f"set{suffix}"
    inner.mkdir()
    for name, rows in tables.items():
        (inner / f"{name}{suffix}").write_bytes(WRITERS[suffix](rows))
    return {"dataset": str(inner)}


def in_memory(made: Callable[[Rows], Any], tables: dict[str, Rows]) -> dict[str, Any]:
    return {"train": made(tables["train"]), "evaluation": made(tables["validation"])}


# Name -> the options of load_splits, from a folder to write into and the tables by split.
FORMATS: dict[str, Callable[[Path, dict[str, Rows]], dict[str, Any]]] = {
    **{suffix: lambda folder, tables, s=suffix: files(folder, s, tables) for suffix in WRITERS},  # type: ignore[misc]
    "columns in memory": lambda folder, tables: in_memory(dict, tables),
    "dicts in memory": lambda folder, tables: in_memory(objects, tables),
    "DataFrame": lambda folder, tables: in_memory(pandas.DataFrame, tables),
    "Dataset": lambda folder, tables: in_memory(Dataset.from_dict, tables),
    **{f"folder of {s}": lambda folder, tables, s=s: as_folder(folder, s, tables) for s in FOLDERS},  # type: ignore[misc]
}


def outcome(splits: Splits) -> Any:
    found: list[Any] = [splits.labels.names]
    for split in splits.all.values():
        examples = [split[row] for row in range(len(split))]
        batch = collate(examples, 0)
        labels = [example.label for example in examples]
        found.append([batch.inputs["input_ids"].tolist(), batch.inputs["attention_mask"].tolist(), labels])
    return found


def error_kind(error: MinitrainError) -> tuple[Any, ...]:
    """Which row of the data and which column it names, and the value."""
    text = str(error)
    row, column = re.search(r"row (\d+)", text), re.search(r"column '(.*?)'", text)
    return "error", row and row[1], column and column[1].strip()  # a file's header loses blanks, memory keeps them


@st.composite
def tables(draw: Any) -> tuple[dict[str, Rows], dict[str, Any]]:
    kind = draw(st.sampled_from(sorted(LABELS)))
    text, label = draw(
        st.sampled_from([("text", "label"), ("a, b", "the label"), ("Text ", " y"), ("x.y", "label")])
    )
    extra = draw(st.sampled_from([None, [7, 8], [0.5, 1.5], [True, False], ["x", "y"]]))
    by_split = {}
    for split, count in (("train", draw(st.integers(4, 9))), ("validation", draw(st.integers(1, 4)))):
        rows: Rows = {} if extra is None else {"extra": [extra[i % 2] for i in range(count)]}
        rows[text] = draw(st.lists(st.sampled_from(TEXTS), min_size=count, max_size=count))
        rows[label] = [LABELS[kind][i % 3] for i in range(count)]
        by_split[split] = rows
    if kind in UNSEEN and draw(st.booleans()):
        at = draw(st.integers(0, len(by_split["validation"][label]) - 1))
        by_split["validation"][label][at] = UNSEEN[kind]
    return by_split, {"text_columns": (text,), "label_column": label}


@settings(max_examples=12, deadline=None)
@given(tables())
def test_the_format_of_a_table_changes_nothing(drawn: tuple[dict[str, Rows], dict[str, Any]]) -> None:
    by_split, options = drawn
    tokenizer = load_tokenizer("demo")
    found: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        for name, write in FORMATS.items():
            try:
                found[name] = outcome(load_splits(tokenizer=tokenizer, **options, **write(Path(folder), by_split)))
            except MinitrainError as error:
                found[name] = error_kind(error)
    first = found[".jsonl"]
    assert {name: value for name, value in found.items() if value != first} == {}, first
