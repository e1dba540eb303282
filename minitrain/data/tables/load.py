"""Rows as they come: a dataset of the Hub or of a folder, the user's own files, the embedded reviews -> tables.

Nothing is tokenized here and no label is interpreted; `data.py` does that. Rows are counted from 1, a CSV header
aside, so that an error names the row a person would find. `datasets` is imported where it is used, because it
costs a second.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from minitrain.config.read_options import COMPRESSED, FILE_KINDS, Files, Reading, ReadOptions, files_of
from minitrain.data.gc_pause import gc_paused
from minitrain.data.tables.dataset_folder import check_names, declares_files, flags_set, load_folder
from minitrain.data.tables.delimited import read_delimited
from minitrain.data.tables.demo import demo_reviews as demo_reviews
from minitrain.data.tables.json_rows import read_json_rows
from minitrain.data.tables.parquet_rows import arrow_table, read_parquet
from minitrain.data.tables.table import ABSENT as ABSENT
from minitrain.data.tables.table import Table as Table
from minitrain.data.tables.table import field_of as field_of
from minitrain.data.tables.table import has_field as has_field
from minitrain.data.tables.table import joined
from minitrain.data.tables.table import writable as writable
from minitrain.data.tables.text_files import codec, open_text
from minitrain.errors import MinitrainError
from minitrain.storage.hub import check_hub_id
from minitrain.storage.hub_datasets import first_lines, load_hub_dataset

TEXT_TABLES = (".csv", ".tsv", ".txt")
PANDAS = 'python -c "import pandas; pandas.{reader}({name!r}).to_{writer}"'
# Kinds that are not read -> the way out; {} is the file.
WAYS = {
    ".xlsx": PANDAS.format(reader="read_excel", name="{}", writer="csv('rows.csv', index=False)"),
    ".xls": PANDAS.format(reader="read_excel", name="{}", writer="csv('rows.csv', index=False)"),
    ".ods": PANDAS.format(reader="read_excel", name="{}", writer="csv('rows.csv', index=False)"),
    ".feather": PANDAS.format(reader="read_feather", name="{}", writer="parquet('rows.parquet')"),
    ".arrow": PANDAS.format(reader="read_feather", name="{}", writer="parquet('rows.parquet')"),
    ".orc": PANDAS.format(reader="read_orc", name="{}", writer="parquet('rows.parquet')"),
    ".pkl": PANDAS.format(reader="read_pickle", name="{}", writer="parquet('rows.parquet')"),
    ".zip": "python -m zipfile -e {} .",
    ".tar": "python -m tarfile -e {} .",
    ".tgz": "python -m tarfile -e {} .",
    ".zst": "zstd -d {}",
}
WAYS |= {".pickle": WAYS[".pkl"]}


def load_tables(
    dataset: str, subset: str | None = None, revision: str | None = None, options: Reading | None = None
) -> dict[str, Table]:
    """Load every split of a dataset: a Hub id, a folder laid out as on the Hub, or `demo`.

    revision: branch, tag or commit of a Hub id. options: how text files of a folder are read, as of `read_file`.
    Raises MinitrainError saying what could not be found, and which subsets there are.
    """
    if revision is not None and (dataset == "demo" or dataset and Path(dataset).exists()):
        raise MinitrainError(f"--dataset_revision {revision}: goes with a Hub id, and --dataset {dataset} is none")
    local = bool(dataset) and dataset != "demo" and os.path.exists(dataset)
    if not local and (flags := flags_set(options)):
        raise MinitrainError(
            f"{' '.join(flags)}: goes with files of one's own, which --dataset {dataset} is not; leave that out, "
            "or download its files and pass them as --train_file"
        )
    if dataset == "demo":
        return demo_reviews()
    if os.path.isfile(dataset):
        raise MinitrainError(f"--dataset {dataset}: is a file; pass it as --train_file")
    if not local:
        check_hub_id("--dataset", dataset)
    with gc_paused():
        import datasets

    name = dataset if subset is None else f"{dataset} {subset}"
    try:
        datasets.disable_progress_bars()  # downloads have their own; these are of seconds
        if local:
            return load_folder(dataset, subset, partial(read_file, options=options))
        check_files = partial(_check_files, dataset)
        commit, loaded, from_text = load_hub_dataset(dataset, subset, revision, check_files)
    except MinitrainError:
        raise
    except Exception as error:  # its errors share no type, but their first lines say what is wrong
        says = first_lines((error.__cause__ or error) if "generating" in str(error) else error)
        hint = "; pass one as --subset" if "available" in says.lower() and "onfig" in says else ""
        raise MinitrainError(f"--dataset {name}: {says}{hint}") from error
    return {split: arrow_table(f"{name}, split {split}", rows, commit, from_text) for split, rows in loaded.items()}


def _check_files(dataset: str, card: Path | None, files: Mapping[str, Sequence[str]]) -> None:
    if card is None or not declares_files(card):
        check_names(dataset, files)


def read_file(
    path: str | Path | Sequence[str | Path],
    columns: Sequence[str] | None = None,
    options: Reading | None = None,
    others: bool = False,
) -> Table:
    """Read a .csv, .tsv, .json, .jsonl or .parquet file, compressed or not, or several, one after the other.

    path: also a tuple of paths, names with commas between them, or a pattern such as `data/*.csv`. columns: what
    each row must have. options: delimiter, quoting and encoding of text files; anything with those three.
    others: keep the columns that nobody asked for, too, `ABSENT` where a row has no such field.
    Raises MinitrainError naming the file, and the row that is not like the others.
    """
    named: Files = (
        os.fspath(path) if isinstance(path, str | os.PathLike) else tuple(os.fspath(part) for part in path)
    )
    options = options or ReadOptions()
    names = columns if columns is not None and not others else None
    files = files_of(named)
    if not files:
        raise MinitrainError(f"{named!r} names no file; expected one, or several as a,b")
    table = joined([_read(Path(part), names, columns or (), options) for part in files])
    return table if columns is None else table.asked(columns)


def _read(path: Path, names: Sequence[str] | None, asked: Sequence[str], options: Reading) -> Table:
    if os.path.isdir(path):
        raise MinitrainError(f"{path}: {_no_file(path)}")
    kind = kind_of(path, options)
    if not os.path.isfile(path):
        raise MinitrainError(f"{path}: {_no_file(path)}")
    if kind == ".parquet":
        return read_parquet(path)
    encoding = codec(options.encoding)
    try:
        with open_text(path, encoding) as lines:
            if kind in TEXT_TABLES:
                reopen: Callable[..., object] = partial(open_text, path, encoding, silent=True)
                table = read_delimited(str(path), lines, kind, options, names, reopen)  # type: ignore[arg-type]
            else:
                table = read_json_rows(str(path), lines, names, asked)
    except OSError as error:
        raise MinitrainError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not len(table) and (table.columns or not table.header):
        raise MinitrainError(f"{path}: has no rows; expected at least one")
    return table


def kind_of(path: Path, options: Reading) -> str:
    """The suffix that says how a file is read. Raises MinitrainError with the way out where it says nothing."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
        if suffixes[-1:] == [".parquet"]:
            raise MinitrainError(
                f"{path}: a parquet file is compressed inside; decompress it first: gzip -d {path}"
            )
    kind = suffixes[-1] if suffixes else ""
    if kind in FILE_KINDS or (kind == ".txt" and options.delimiter is not None):
        return kind
    way = ""
    if kind in WAYS:
        way = f". Turn it into one:\n  {WAYS[kind].format(path)}"
    elif kind in (".txt", "", ".dat", ".tab"):
        way = "; name it .csv or .tsv" + (
            ", or say what stands between its columns: --delimiter tab" * (kind == ".txt")
        )
    raise MinitrainError(
        f"{path}: is of no known kind; expected one of {', '.join(FILE_KINDS)}, plain or as .gz, .bz2 or .xz{way}"
    )


def _no_file(path: Path) -> str:
    if os.path.isdir(path):
        return "is a folder; pass it as --dataset, or its files as a pattern in quotes"
    return "no such file" if path.is_absolute() else f"no such file in {os.getcwd()}"
