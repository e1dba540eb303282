"""Rows as they come: a dataset of the Hub or of a folder, the user's own files, the embedded reviews -> tables.

Nothing is tokenized here and no label is interpreted; `data.py` does that. Rows are counted from 1, a CSV header
aside, so that an error names the row a person would find. `datasets` is imported where it is used, because it
costs a second.
"""

import csv
import gzip
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minitrain.download import Repository, without_token
from minitrain.errors import MinitrainError, listed, shown
from minitrain.hub import check_hub_id, demo_reviews_file
from minitrain.hub_datasets import dataset_of_hub
from minitrain.imports import uncollected

FILE_KINDS = (".csv", ".tsv", ".jsonl", ".parquet")
HELD_BACK = 1000  # of the embedded reviews, each for validation and for test


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns of equal length, and where they came from.

    source: the file, or dataset and split, for errors. columns: name -> values, lists or lazy columns of
    `datasets`. class_names: of the columns whose integers are known to stand for classes. untyped: all values are
    text because the format has no types (CSV). commit: of the Hub's repository. numbers: of rows that were chosen,
    their places in the whole table, from 0; None where all are there.
    """

    source: str
    columns: Mapping[str, Sequence[Any]]
    class_names: Mapping[str, tuple[str, ...]]
    untyped: bool = False
    commit: str | None = None
    numbers: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def column(self, name: str) -> Sequence[Any]:
        """The values of one column. Raises MinitrainError listing the columns there are."""
        if name not in self.columns:
            raise MinitrainError(f"{self.source}: has no column {name!r}; it has {listed(self.columns)}")
        return self.columns[name]

    def place(self, row: int) -> tuple[str, int]:
        """Where a row, counted from 0, came from: the source, and its number there from 1."""
        return self.source, (row if self.numbers is None else self.numbers[row]) + 1

    def select(self, rows: Sequence[int]) -> "Table":
        """These rows, counted from 0, in this order; they keep the numbers that they have."""
        chosen = {name: _chosen(values, rows) for name, values in self.columns.items()}
        numbers = rows if self.numbers is None else [self.numbers[row] for row in rows]
        return replace(self, columns=chosen, numbers=list(numbers))

    def head(self, count: int | None) -> "Table":
        """The first `count` rows, or all where it is None."""
        if count is None:
            return self
        columns = {name: values[:count] for name, values in self.columns.items()}
        return replace(self, columns=columns, numbers=self.numbers and self.numbers[:count])


def _chosen(values: Sequence[Any], rows: Sequence[int]) -> list[Any]:
    if isinstance(values, list):
        return [values[row] for row in rows]
    found: list[Any] = values[list(rows)]  # type: ignore[call-overload]  # a lazy column of `datasets` takes lists
    return found


def load_tables(dataset: str, subset: str | None = None, revision: str | None = None) -> dict[str, Table]:
    """Load every split of a dataset: a Hub id, a folder laid out as on the Hub, or `demo`.

    revision: branch, tag or commit of a Hub id. Raises MinitrainError saying what could not be found, and which
    subsets there are.
    """
    if revision is not None and (dataset == "demo" or dataset and Path(dataset).exists()):
        raise MinitrainError(f"--dataset_revision {revision}: goes with a Hub id, and --dataset {dataset} is none")
    if dataset == "demo":
        return demo_reviews()
    if os.path.isfile(dataset):
        raise MinitrainError(f"--dataset {dataset}: is a file; pass it as --train_file")
    local = bool(dataset) and os.path.exists(dataset)
    if not local:
        check_hub_id("--dataset", dataset)
    with uncollected():
        import datasets

    name = dataset if subset is None else f"{dataset} {subset}"
    try:
        datasets.disable_progress_bars()  # downloads have their own; these are of seconds
        if local:
            commit, loaded = None, datasets.load_dataset(dataset, subset)
        else:
            commit, loaded = dataset_of_hub(Repository(name=dataset, kind="dataset", revision=revision), subset)
    except MinitrainError:
        raise
    except Exception as error:  # its errors share no type, but their first lines say what is wrong
        raise MinitrainError(f"--dataset {name}: {_first_lines(error)}") from error
    return {split: _table(f"{name}, split {split}", rows, commit) for split, rows in loaded.items()}


def _first_lines(error: BaseException) -> str:
    text = " ".join(str(error).splitlines()[:2])
    return without_token(text.split(" with any supported extension")[0]) or type(error).__name__  # 200 of them


def _table(source: str, rows: Any, commit: str | None = None) -> Table:
    features = rows.features
    for name in rows.column_names:
        _check_values(source, name, rows.data[name])
    return Table(
        source=source,
        columns={name: rows[name] for name in rows.column_names},
        class_names={name: tuple(f.names) for name, f in features.items() if hasattr(f, "names")},
        commit=commit,
    )


def _check_values(source: str, name: str, column: Any) -> None:
    """Find what a parquet file can hold and Python cannot: text that is no UTF-8, dates after the year 9999."""
    try:
        column.validate(full=True)
        if str(column.type).startswith(("timestamp", "date", "duration")):
            column.to_pylist()
    except (ValueError, OverflowError) as error:
        row = next((i for i, value in enumerate(column, start=1) if not _can_be_read(value)), None)
        where = source if row is None else f"{source}, row {row}"
        raise MinitrainError(
            f"{where}, column {name!r}: is no valid value ({error}); write the file again"
        ) from error


def _can_be_read(value: Any) -> bool:
    try:
        value.as_py()
    except (ValueError, OverflowError):
        return False
    return True


def read_file(path: str | Path, columns: Sequence[str] | None = None) -> Table:
    """Read a .csv, .tsv, .jsonl or .parquet file.

    columns: what must be in each row of a .jsonl file; None asks for the keys of its first row. Raises
    MinitrainError naming the file, and the row that is not like the others.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in FILE_KINDS:
        raise MinitrainError(f"{path}: is of no known kind; expected one of {', '.join(FILE_KINDS)}")
    if not os.path.isfile(path):
        raise MinitrainError(f"{path}: no such file")
    try:
        if kind == ".parquet":
            return _read_parquet(path)
        with path.open(encoding="utf-8-sig", newline="") as lines:
            if kind == ".jsonl":
                table = _read_jsonl(str(path), lines, columns)
            else:
                table = _read_csv(str(path), lines, "," if kind == ".csv" else "\t")
    except UnicodeDecodeError as error:
        raise MinitrainError(f"{path}, line {_first_broken_line(path)}: is not UTF-8; save it as UTF-8") from error
    except OSError as error:
        raise MinitrainError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not len(table):
        raise MinitrainError(f"{path}: has no rows; expected at least one")
    return table


def _first_broken_line(path: Path) -> int:
    """The decoder's own position is no use: it counts from the start of its buffer."""
    with path.open("rb") as lines:
        return next(number for number, line in enumerate(lines, start=1) if not _is_utf8(line))


def writable(text: str) -> bool:
    """Whether a file can hold the text: not where it has half of a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _read_csv(source: str, lines: Iterator[str], delimiter: str) -> Table:
    csv.field_size_limit(sys.maxsize)  # the default refuses a text of more than 131,072 characters
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) != len(header) or not all(header):
            raise MinitrainError(
                f"{source}: the header {shown(header)} names a column twice or not at all; "
                "give each a name of its own"
            )
        columns: dict[str, list[str]] = {name: [] for name in header}
        rows = (row for row in reader if row)  # a blank line is no row, as in pandas and datasets
        for number, row in enumerate(rows, start=1):
            if len(row) != len(header):
                raise MinitrainError(
                    f"{source}, row {number} (line {reader.line_num}): {len(row)} fields, the header has "
                    f"{len(header)}; put fields that hold a {delimiter!r} in double quotes"
                )
            for name, value in zip(header, row, strict=True):
                columns[name].append(value)
    except csv.Error as error:
        raise MinitrainError(
            f"{source}, line {reader.line_num}: is no valid CSV ({error}); close every quote, and double "
            "those inside of a field"
        ) from error
    return Table(source=source, columns=columns, class_names={}, untyped=True)


def _read_jsonl(source: str, lines: Iterator[str], names: Sequence[str] | None) -> Table:
    columns: dict[str, list[Any]] = {name: [] for name in names or ()}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise MinitrainError(
                f"{source}, line {number}: is not valid JSON ({error}); write one object a line"
            ) from error
        if not isinstance(row, dict):
            raise MinitrainError(f"{source}, line {number}: expected a JSON object, got {type(row).__name__}")
        if not columns:
            if broken := [name for name in row if not writable(name)]:
                raise MinitrainError(
                    f"{source}, line {number}: the field {shown(broken[0])} has a lone surrogate; rename it"
                )
            columns = {name: [] for name in row}
        missing = next((name for name in columns if name not in row), None)
        if missing is not None:
            raise MinitrainError(f"{source}, line {number}: has no field {shown(missing)}; it has {listed(row)}")
        for name in columns:
            columns[name].append(row[name])
    return Table(source=source, columns=columns, class_names={})


def _read_parquet(path: Path) -> Table:
    with uncollected():
        import datasets

    try:
        rows = datasets.Dataset.from_parquet(str(path))
    except Exception as error:  # pyarrow's and datasets' errors share no type
        cause = error.__cause__ or error
        raise MinitrainError(
            f"{path}: is no valid parquet file, or has no rows ({_first_lines(cause)}); write it again"
        ) from error
    return _table(str(path), rows)


def demo_reviews() -> dict[str, Table]:
    """The embedded movie-review snippets as two classes, with a test split that nothing else touches.

    A mean rating above 0 is positive, one below 0 negative; the 37 rated exactly 0 and a repeated text are left
    out. The splits follow the order of the texts' SHA-256, so that they are the same everywhere for ever.
    """
    with gzip.open(demo_reviews_file(), "rt", encoding="utf-8", newline="") as lines:
        rated = {row["text"].strip(): float(row["sentiment"]) for row in csv.DictReader(lines)}
    texts = [text for text, rating in rated.items() if rating != 0.0]
    texts.sort(key=lambda text: hashlib.sha256(text.encode()).digest())
    cuts = {
        "train": texts[2 * HELD_BACK :],
        "validation": texts[HELD_BACK : 2 * HELD_BACK],
        "test": texts[:HELD_BACK],
    }
    return {
        split: Table(
            source=f"demo reviews, split {split}",
            columns={"text": part, "label": [int(rated[text] > 0) for text in part]},
            class_names={"label": ("negative", "positive")},
        )
        for split, part in cuts.items()
    }
