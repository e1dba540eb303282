"""Rows as they come: a dataset of the Hub or of a folder, the user's own files, the embedded reviews -> tables.

Nothing is tokenized here and no label is interpreted; `data.py` does that. Rows are counted from 1, a CSV header
aside, so that an error names the row a person would find. `datasets` is imported where it is used, because it
costs a second.
"""

import csv
import gzip
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minitrain.download import HubError, Repository, nobody_asked, without_token
from minitrain.errors import MinitrainError
from minitrain.hub import check_hub_id, demo_reviews_file

FILE_KINDS = (".csv", ".tsv", ".jsonl", ".parquet")
CARD = "README.md"  # of a dataset: which files belong to which subset
HELD_BACK = 1000  # of the embedded reviews, each for validation and for test


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns of equal length, and where they came from.

    source: the file, or dataset and split, for errors. columns: name -> values, lists or lazy columns of
    `datasets`. class_names: of the columns whose integers are known to stand for classes. untyped: all values are
    text because the format has no types (CSV). commit: of the Hub's repository.
    """

    source: str
    columns: Mapping[str, Sequence[Any]]
    class_names: Mapping[str, tuple[str, ...]]
    untyped: bool = False
    commit: str | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def column(self, name: str) -> Sequence[Any]:
        """The values of one column. Raises MinitrainError listing the columns there are."""
        if name not in self.columns:
            raise MinitrainError(f"{self.source}: has no column {name!r}; it has {', '.join(self.columns)}")
        return self.columns[name]

    def select(self, rows: Sequence[int]) -> "Table":
        """These rows, counted from 0, in this order."""
        whole = {name: values[:] for name, values in self.columns.items()}
        return replace(self, columns={name: [values[row] for row in rows] for name, values in whole.items()})

    def head(self, count: int | None) -> "Table":
        """The first `count` rows, or all where it is None."""
        if count is None:
            return self
        return replace(self, columns={name: values[:count] for name, values in self.columns.items()})


def load_tables(dataset: str, subset: str | None = None, revision: str | None = None) -> dict[str, Table]:
    """Load every split of a dataset: a Hub id, a folder laid out as on the Hub, or `demo`.

    revision: branch, tag or commit of a Hub id. Raises MinitrainError saying what could not be found, and which
    subsets there are.
    """
    if revision is not None and (dataset == "demo" or dataset and Path(dataset).exists()):
        raise MinitrainError(f"--dataset_revision {revision}: goes with a Hub id, and --dataset {dataset} is none")
    if dataset == "demo":
        return demo_reviews()
    if Path(dataset).is_file():
        raise MinitrainError(f"--dataset {dataset}: is a file; pass it as --train_file")
    local = bool(dataset) and Path(dataset).exists()
    if not local:
        check_hub_id("--dataset", dataset)
    import datasets

    name = dataset if subset is None else f"{dataset} {subset}"
    try:
        datasets.disable_progress_bars()  # downloads have their own; these are of seconds
        if local:
            commit, loaded = None, datasets.load_dataset(dataset, subset)
        else:
            commit, loaded = _from_hub(Repository(name=dataset, kind="dataset", revision=revision), subset)
    except MinitrainError:
        raise
    except Exception as error:  # its errors share no type, but their first lines say what is wrong
        raise MinitrainError(f"--dataset {name}: {_first_lines(error)}") from error
    return {split: _table(f"{name}, split {split}", rows, commit) for split, rows in loaded.items()}


def _from_hub(repository: Repository, subset: str | None) -> tuple[str, Any]:
    """A commit, and its splits. `datasets` is left nothing to download: what it reads has been checked."""
    import datasets

    what = "the dataset" if subset is None else f"the dataset's {subset}"
    try:
        commit, names = repository.contents(what)
        if CARD in names:
            repository.fetch(CARD, commit)  # a refusal, in our words
        builder = repository.asked(
            what, lambda: datasets.load_dataset_builder(repository.name, subset, revision=commit)
        )
        if not Path(builder.cache_dir).is_dir():  # else its rows are there
            for name in _data_files(builder, repository, commit):
                repository.fetch(name, commit)
            builder.download_and_prepare()
        if CARD in names:  # the cache learns that the branch stood for this commit
            repository.fetch(CARD, repository.revision)
    except HubError as error:
        builder = _cached_builder(repository, subset, error)
        repository.warn_of_cache(builder.hash, error.reason)
    return builder.hash, builder.as_dataset()


def _data_files(builder: Any, repository: Repository, commit: str) -> list[str]:
    """The names of the files that a subset is made of, all of them in the repository."""
    inside = f"hf://datasets/{repository.name}@{commit}/"
    addresses = [address for split in (builder.config.data_files or {}).values() for address in split]
    for address in addresses:
        if not address.startswith(inside):
            raise MinitrainError(
                f"{repository.name}: its {CARD} names {address!r}, a file outside of the repository, which is not "
                "read; download it and pass it as --train_file"
            )
    names = [address.removeprefix(inside) for address in addresses]
    repository.check_names(names)
    return names


def _cached_builder(repository: Repository, subset: str | None, error: HubError) -> Any:
    """What `datasets` has prepared before, where that is the revision that is asked for; else `error` is raised."""
    import datasets

    with nobody_asked():
        try:
            builder = datasets.load_dataset_builder(repository.name, subset)
        except Exception as nothing:  # an error of no type of its own
            raise error from nothing
    card = repository.cached(CARD)
    if repository.revision not in (None, builder.hash) and (card is None or card.parent.name != builder.hash):
        raise error
    return builder


def _first_lines(error: BaseException) -> str:
    text = " ".join(str(error).splitlines()[:2])
    return without_token(text.split(" with any supported extension")[0]) or type(error).__name__  # 200 of them


def _table(source: str, rows: Any, commit: str | None = None) -> Table:
    features = rows.features
    return Table(
        source=source,
        columns={name: rows[name] for name in rows.column_names},
        class_names={name: tuple(f.names) for name, f in features.items() if hasattr(f, "names")},
        commit=commit,
    )


def read_file(path: str | Path, columns: Sequence[str] | None = None) -> Table:
    """Read a .csv, .tsv, .jsonl or .parquet file.

    columns: what must be in each row of a .jsonl file; None asks for the keys of its first row. Raises
    MinitrainError naming the file, and the row that is not like the others.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in FILE_KINDS:
        raise MinitrainError(f"{path}: is of no known kind; expected one of {', '.join(FILE_KINDS)}")
    if not path.is_file():
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
                f"{source}: the header {header} names a column twice or not at all; give each a name of its own"
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
        columns = columns or {name: [] for name in row}
        missing = next((name for name in columns if name not in row), None)
        if missing is not None:
            raise MinitrainError(f"{source}, line {number}: has no field {missing!r}; it has {', '.join(row)}")
        for name in columns:
            columns[name].append(row[name])
    return Table(source=source, columns=columns, class_names={})


def _read_parquet(path: Path) -> Table:
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
