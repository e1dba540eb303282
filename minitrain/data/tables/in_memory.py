"""Data in memory -> tables: lists of dicts, columns by name, a pandas DataFrame, a Dataset or DatasetDict.

Rows are numbered by place, from 1, whatever an index says.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from minitrain.config.options import plain_scalar
from minitrain.data.tables.table import ABSENT, Table, class_names_of, field_of
from minitrain.data.tokenizer.tokenizer import Example
from minitrain.errors import MinitrainError, listed, shown

SOURCES = {"train": "train data", "validation": "evaluation data", "test": "test data"}
EXPECTED = "expected a list of dicts, a dict of columns, a pandas DataFrame, or a Dataset or DatasetDict"


def tables_in_memory(
    train: Any,
    evaluation: Any = None,
    test: Any = None,
    columns: Sequence[str] | None = None,
    training_columns: Sequence[str] | None = None,
) -> dict[str, Table]:
    """Tables by split.

    Args:
        train: A table, or all splits: a DatasetDict, or a dict of tables with "train" in it.
        columns: Keys that every dict of a list must have; None takes those of the first dict.
        training_columns: The same for the training data, if they have more.

    Raises:
        MinitrainError: Names the split, and row and column if it is a table.
    """
    given = dict(train) if _are_splits(train) else {"train": train}
    for name, data in (("validation", evaluation), ("test", test)):
        if data is None:
            continue
        if name in given:
            raise MinitrainError(f"the {SOURCES[name]} are given twice: in the train data, and beside it")
        given[name] = data
    if "train" not in given:
        raise MinitrainError(f"the data in memory have no split 'train'; they have {listed(given)}")
    sources = {name: SOURCES.get(name, f"split {name}") for name in given}
    needed = {name: training_columns or columns if name == "train" else columns for name in given}
    return {str(name): table_in_memory(data, sources[name], needed[name]) for name, data in given.items()}


def _are_splits(data: Any) -> bool:
    if not isinstance(data, Mapping):
        return False
    named = type(data).__name__ in ("DatasetDict", "IterableDatasetDict")
    return named or "train" in data and all(_is_table(value) for value in data.values())


def _is_table(data: Any) -> bool:
    rows = isinstance(data, list | tuple) and bool(data) and isinstance(data[0], Mapping)
    return rows or isinstance(data, Mapping | Table) or hasattr(data, "columns") or hasattr(data, "column_names")


def table_in_memory(data: Any, source: str, columns: Sequence[str] | None = None) -> Table:
    """One table of whatever holds rows; arguments and errors as of `tables_in_memory`. source: for messages."""
    if isinstance(data, Table):
        return data
    kind = f"{type(data).__module__.partition('.')[0]}.{type(data).__name__}"
    class_names: dict[str, tuple[str, ...]] = {}
    if kind == "datasets.Dataset":
        unformatted = data.with_format(None)
        class_names = class_names_of(data.features)
        found: Mapping[str, Sequence[Any]] = {name: unformatted[name] for name in unformatted.column_names}
    elif hasattr(data, "iloc") and hasattr(data, "columns"):  # pandas, and libraries like it
        found = _of_frame(data, source, columns)
    elif kind == "pyarrow.Table":
        found = _of_columns(data.to_pydict(), source)
    elif isinstance(data, Mapping):
        found = _of_columns(data, source)
    elif isinstance(data, list | tuple):
        found = _of_rows(data, source, columns)
    else:
        raise MinitrainError(f"{source}: {_no_table(data)}")
    table = Table(source=source, columns=found, class_names=class_names)
    if not len(table):
        raise MinitrainError(f"{source}: has no rows; expected at least one")
    return table


def _no_table(data: Any) -> str:
    name = type(data).__name__
    if isinstance(data, str | Path):
        return f"got the text {shown(str(data))}; pass a file as train_file, eval_file or test_file; {EXPECTED}"
    if name.startswith("Iterable"):
        return f"got {name}, a stream that cannot be shuffled: load it with streaming=False, or pass list(rows)"
    if isinstance(data, Iterator):
        return f"got {name}, which can be read only once: pass list(rows)"
    return f"got {name}; {EXPECTED}"


def _of_rows(rows: Sequence[Any], source: str, columns: Sequence[str] | None) -> dict[str, list[Any]]:
    if rows and isinstance(rows[0], Example):
        raise MinitrainError(f"{source}: is tokenized already; give a list of Example to fit, evaluate or predict")
    names: list[str] = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            expected = "expected a dict, as {'text': 'a text', 'label': 1}"
            raise MinitrainError(f"{source}, row {number}: {expected}, got {type(row).__name__}")
        names = names if number > 1 else list(columns or row)
        if (missing := next((name for name in names if field_of(row, name) is ABSENT), None)) is not None:
            raise MinitrainError(f"{source}, row {number}: has no field {shown(missing)}; it has {listed(row)}")
    return {str(name): [plain_scalar(field_of(row, name)) for row in rows] for name in names}


def _of_columns(columns: Mapping[Any, Any], source: str) -> dict[str, list[Any]]:
    found = {}
    for name, values in columns.items():
        values = values.tolist() if hasattr(values, "tolist") else values
        if isinstance(values, str | bytes) or not isinstance(values, Sequence):
            kind = type(values).__name__
            raise MinitrainError(f"{source}, column {str(name)!r}: expected a list, a value a row, got {kind}")
        found[str(name)] = [plain_scalar(value) for value in values]
    sizes = {name: len(values) for name, values in found.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name!r} has {size}" for name, size in sizes.items())
        raise MinitrainError(f"{source}: columns of unequal length: {told}; give each a value a row")
    return found


def _of_frame(frame: Any, source: str, columns: Sequence[str] | None) -> dict[str, list[Any]]:
    """The columns of a DataFrame; missing values (NaN, NaT, NA) become None."""
    names = [str(name) for name in frame.columns]
    found = {}
    for place, name in enumerate(names):
        if names.count(name) > 1:
            if columns is not None and name not in columns:
                continue
            same = f"{names.count(name)} columns are called {name!r}"
            raise MinitrainError(f"{source}: {same}; give each its own name: df.columns = [...]")
        series = frame.iloc[:, place]
        values = zip(series.tolist(), series.isna().tolist(), strict=True)
        found[name] = [None if missing is True else plain_scalar(value) for value, missing in values]
    return found
