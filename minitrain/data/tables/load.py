"""A dataset of the Hub or of a folder, the user's own files, or the embedded reviews -> tables.

Does not tokenize, and does not interpret labels. Messages count rows from 1, without a CSV header. `datasets` is
imported where it is used, because its import takes a second.
"""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from minitrain.config.read_options import COMPRESSED, FILE_KINDS, ReadOptions, files_of
from minitrain.data.gc_pause import gc_paused
from minitrain.data.tables.dataset_folder import check_names, declares_files, flags_set, load_folder
from minitrain.data.tables.delimited import read_delimited
from minitrain.data.tables.demo import demo_reviews
from minitrain.data.tables.json_rows import read_json_rows
from minitrain.data.tables.parquet_rows import arrow_table, read_parquet
from minitrain.data.tables.table import Table, concat
from minitrain.data.tables.text_files import codec, open_text
from minitrain.errors import MinitrainError
from minitrain.storage.hub import check_hub_id
from minitrain.storage.hub_datasets import first_lines, load_hub_dataset

TEXT_TABLES = (".csv", ".tsv", ".txt")
# Kinds that are not read -> a command that converts the file {}.
_PANDAS = 'python -c "import pandas; pandas.read_'
_TO_CSV, _TO_PARQUET = "('{}').to_csv('rows.csv', index=False)\"", "('{}').to_parquet('rows.parquet')\""
CONVERSIONS = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), f"{_PANDAS}excel{_TO_CSV}"),
    **dict.fromkeys((".feather", ".arrow"), f"{_PANDAS}feather{_TO_PARQUET}"),
    **dict.fromkeys((".pkl", ".pickle"), f"{_PANDAS}pickle{_TO_PARQUET}"),
    ".orc": f"{_PANDAS}orc{_TO_PARQUET}",
    ".zip": "python -m zipfile -e {} .",
    **dict.fromkeys((".tar", ".tgz"), "python -m tarfile -e {} ."),
    ".zst": "zstd -d {}",
}


def load_tables(
    dataset: str, subset: str | None = None, revision: str | None = None, options: ReadOptions | None = None
) -> dict[str, Table]:
    """Load every split of a dataset.

    Args:
        dataset: A Hub id, a folder laid out as on the Hub, or `demo`.
        revision: Branch, tag or commit of a Hub id.
        options: How the text files of a folder are read.

    Returns:
        Split -> table.

    Raises:
        MinitrainError: Says what was not found, and which subsets exist.
    """
    local = dataset != "demo" and os.path.exists(dataset)
    if revision is not None and (local or dataset == "demo"):
        raise MinitrainError(f"--dataset_revision {revision}: goes with a Hub id, and --dataset {dataset} is none")
    if not local and (flags := flags_set(options)):
        raise MinitrainError(
            f"{' '.join(flags)}: goes with your own files, and --dataset {dataset} is not; leave it out, "
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
        datasets.disable_progress_bars()  # downloads have bars already
        if local:
            return load_folder(dataset, subset, read_file, options)
        check_files = partial(_check_files, dataset)
        commit, loaded, from_text = load_hub_dataset(dataset, subset, revision, check_files)
    except MinitrainError:
        raise
    except Exception as error:  # its errors share no type
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
    options: ReadOptions | None = None,
    others: bool = False,
) -> Table:
    """Read .csv, .tsv, .json, .jsonl or .parquet files, plain or compressed, one after the other.

    Args:
        path: A file, a tuple of files, names with commas between them, or a pattern such as `data/*.csv`.
        columns: The columns that every row must have; None asks for none and keeps all.
        options: Delimiter, quoting and encoding of text files.
        others: Keep the other columns too; a row without such a field has `ABSENT` there.

    Raises:
        MinitrainError: Names the file, and the row that is not like the others.
    """
    options = options or ReadOptions()
    files = files_of(os.fspath(path) if isinstance(path, str | os.PathLike) else [os.fspath(part) for part in path])
    if not files:
        raise MinitrainError(f"{path!r} names no file; expected one, or several as a,b")
    table = concat([_read(Path(part), None if others else columns, columns or (), options) for part in files])
    table = table.unfolded(columns or ())
    for name in columns or ():
        table.column(name)  # raises if it is missing
    return table


def _read(path: Path, names: Sequence[str] | None, asked: Sequence[str], options: ReadOptions) -> Table:
    if os.path.isdir(path):
        raise MinitrainError(f"{path}: is a folder; pass it as --dataset, or its files as a pattern in quotes")
    kind = _kind_of(path, options)
    if not os.path.isfile(path):
        raise MinitrainError(f"{path}: no such file{'' if path.is_absolute() else f' in {os.getcwd()}'}")
    if kind == ".parquet":
        return read_parquet(path)
    encoding = codec(options.encoding)
    try:
        with open_text(path, encoding) as lines:
            if kind in TEXT_TABLES:
                reopen = partial(open_text, path, encoding, silent=True)
                table = read_delimited(str(path), lines, kind, options, names, reopen)
            else:
                table = read_json_rows(str(path), lines, names, asked)
    except OSError as error:
        raise MinitrainError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not len(table) and (table.columns or not table.header):
        raise MinitrainError(f"{path}: has no rows; expected at least one")
    return table


def _kind_of(path: Path, options: ReadOptions) -> str:
    """The suffix by which a file is read. Raises MinitrainError with the way out for an unknown one."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
        if suffixes[-1:] == [".parquet"]:
            raise MinitrainError(f"{path}: a parquet file is compressed inside; decompress it: gzip -d {path}")
    kind = suffixes[-1] if suffixes else ""
    if kind in FILE_KINDS or (kind == ".txt" and options.delimiter is not None):
        return kind
    way = ""
    if kind in CONVERSIONS:
        way = f". Turn it into one:\n  {CONVERSIONS[kind].format(path)}"
    elif kind == ".txt":
        way = "; name it .csv or .tsv, or say what stands between its columns: --delimiter tab"
    elif kind in ("", ".dat", ".tab"):
        way = "; name it .csv or .tsv"
    raise MinitrainError(
        f"{path}: is of no known kind; expected one of {', '.join(FILE_KINDS)}, plain or as .gz, .bz2 or .xz{way}"
    )
