"""A folder laid out as on the Hub: `datasets` assigns its files to splits, and our own reader reads the text files.

So a file has the same values by --dataset and by --train_file. `datasets` itself reads parquet, other kinds of
files, and folders whose README.md declares features or more than delimiter and encoding.
"""

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from minitrain.config.read_options import COMPRESSED, FILE_KINDS, ReadOptions
from minitrain.data.tables.parquet_rows import arrow_table
from minitrain.data.tables.table import Table
from minitrain.errors import MinitrainError, listed
from minitrain.storage.hub_datasets import CARD

OURS = ("sep", "delimiter", "encoding")  # options of a README.md that our own reader supports
# Word of a file's name, in any case -> the split that a person means.
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "eval", "evaluation"), "validation"),
}
FLAGS = {"train": "--train_file", "validation": "--eval_file", "test": "--test_file"}
Splits = Mapping[str, Sequence[str]]  # split -> files


def load_folder(
    folder: str, subset: str | None, read: Callable[..., Table], flags: ReadOptions | None
) -> dict[str, Table]:
    """Load every split of a folder.

    Args:
        read: `read_file`.
        flags: How text files are read, as the user said.

    Raises:
        MinitrainError: A file would be in two splits, or files meant for several splits in one.
    """
    import datasets

    name = folder if subset is None else f"{folder} {subset}"
    try:
        builder = datasets.load_dataset_builder(folder, subset)
    except ValueError as error:
        if "same data file format" not in str(error):
            raise
        way = _one_by_one({"": _own_files(folder)})
        raise MinitrainError(
            f"--dataset {name}: its files are of several kinds; pass them one by one:\n  {way}"
        ) from error
    data_files = builder.config.data_files or {}
    files = {str(split): [str(path) for path in paths] for split, paths in data_files.items()}
    by_names = not declares_files(Path(folder) / CARD)
    if by_names:
        check_names(name, files, folder)
    options = _our_reading(builder, Path(folder) / CARD, files, flags)
    if options is not None:
        tables = {split: read(tuple(paths), options=options) for split, paths in files.items()}
    elif changed := flags_set(flags):
        way = _one_by_one(files, {path: split for split in FLAGS for path in files.get(split, ())})
        raise MinitrainError(
            f"{' '.join(changed)}: --dataset {name} is read by `datasets`, which follows only its README.md; leave "
            f"that out, or pass the files one by one:\n  {way}"
        )
    else:
        builder.download_and_prepare()
        text = builder.name in ("csv", "json")
        tables = {
            split: arrow_table(f"{name}, split {split}", rows, from_text=text)
            for split, rows in builder.as_dataset().items()
        }
    notes = _file_notes(folder, files) if by_names else {}
    return {split: replace(table, notes=(*notes.get(split, ()), *table.notes)) for split, table in tables.items()}


def flags_set(options: ReadOptions | None) -> list[str]:
    """The reading flags that differ from their defaults, as one types them.

    >>> flags_set(ReadOptions(delimiter=";"))
    ["--delimiter ';'"]
    """
    usual = ReadOptions()
    values = {spec.name: getattr(options or usual, spec.name) for spec in fields(ReadOptions)}
    return [f"--{name} {shlex.quote(value)}" for name, value in values.items() if value != getattr(usual, name)]


def declares_files(card: Path) -> bool:
    """Whether a README.md says which files are in which split."""
    configs = _declared(card).get("configs") or []
    return any(isinstance(config, Mapping) and "data_files" in config for config in configs)


def _declared(card: Path) -> dict[str, Any]:
    """The YAML at the head of a README.md."""
    from huggingface_hub import DatasetCard

    return dict(DatasetCard.load(card, ignore_metadata_errors=True).data.to_dict()) if card.is_file() else {}


def check_names(source: str, files: Splits, folder: str = "") -> None:
    """Raise MinitrainError if `datasets` puts files into splits that nobody means.

    It looks for a word in each name: train_dev.csv is in two splits, and TRAIN.csv beside TEST.csv in one.
    folder: what the names in the message are relative to.
    """
    for split, other in combinations(sorted(files), 2):
        if twice := [path for path in files[split] if path in files[other]]:
            raise MinitrainError(
                f"--dataset {source}: {os.path.basename(twice[0])} would be in two splits, {split} and {other}, "
                f"as its name has a word of each; rename it, or pass the files one by one:\n  {_one_by_one(files)}"
            )
    for split, paths in files.items():
        pairs = _pairs_of_splits(paths)
        if pairs or len({_meant(path) for path in paths} - {None}) > 1:
            names = listed(os.path.relpath(path, folder) if folder else path for path in paths)
            way = _one_by_one(files, pairs)
            raise MinitrainError(
                f"--dataset {source}: {names} would all be in one split, {split}: `datasets` knows train, "
                "validation and test only in lower case and as words by themselves (train.csv, my-test.csv), and "
                f"takes eval for test; rename them, or pass them one by one:\n  {way}"
            )


def _pairs_of_splits(paths: Sequence[str]) -> dict[str, str]:
    """File -> split, for names that differ only by the split: mytrain.csv and mytest.csv."""
    by_name = {(os.path.dirname(path), os.path.basename(path).lower()): path for path in paths}
    found: dict[str, str] = {}
    for (folder, name), path in by_name.items():
        for word in ("test", "dev", "valid"):
            other = by_name.get((folder, name.replace("train", word)))
            if other not in (None, path):
                found |= {path: "train", str(other): SPLIT_WORDS[word]}
    return found


def _meant(path: str) -> str | None:
    """The split that a person means by the name of a file, or of its folder."""
    for part in (os.path.basename(path), os.path.basename(os.path.dirname(path))):
        words = re.findall(r"[a-z]+", part.lower().partition(".")[0])
        known = [SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS]
        if known:
            return known[-1]  # train_dev is for development
        for start in ("train", "test", "valid"):
            if words and words[0].startswith(start):
                return SPLIT_WORDS[start]
    return None


def _one_by_one(files: Splits, known: Mapping[str, str] | None = None) -> str:
    """The flags that name each file by itself. known: the split of some files, whatever their names say."""
    by_split: dict[str, list[str]] = {}
    for path in dict.fromkeys(path for paths in files.values() for path in paths):
        by_split.setdefault((known or {}).get(path) or _meant(path) or "train", []).append(path)
    return " ".join(f"{FLAGS[split]} {','.join(by_split[split])}" for split in FLAGS if split in by_split)


def _our_reading(builder: Any, card: Path, files: Splits, flags: ReadOptions | None) -> ReadOptions | None:
    """How our own reader reads the files, by the flags and then by README.md; None if `datasets` has to."""
    config, own = builder.config, flags or ReadOptions()
    # The builder may know features from its cache, of an earlier reading by `datasets`.
    if builder.name not in ("csv", "json") or "dataset_info" in _declared(card) or config.features is not None:
        return None
    paths = [path for part in files.values() for path in part]
    if not all(os.path.isfile(path) and _kind(path) not in ("", ".parquet") for path in paths):
        return None
    usual, skipped = type(config)(), ("name", "data_files", "data_dir", "version", "description")
    changed = {f.name for f in fields(config) if getattr(config, f.name) != getattr(usual, f.name)}
    if changed - {*skipped, *OURS}:
        return None
    delimiter = next((getattr(config, name) for name in OURS[:2] if name in changed), None)
    if delimiter == "\t" and all(".tsv" in path.lower() for path in paths):
        delimiter = None
    encoding = getattr(config, "encoding", None) or "utf-8"
    return ReadOptions(
        delimiter=delimiter if own.delimiter is None else own.delimiter,
        quoting=own.quoting,
        encoding=encoding if own.encoding == ReadOptions().encoding else own.encoding,
    )


def _kind(path: str) -> str:
    """The suffix of a file of rows, without that of a compression; "" for other files."""
    name = path.lower()
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return next((kind for kind in FILE_KINDS if name.endswith(kind)), "")


def _own_files(folder: str) -> list[str]:
    """All files of rows in a folder and its folders, without hidden ones."""
    paths = [path for path in sorted(Path(folder).rglob("*")) if _kind(path.name) and path.is_file()]
    return [str(path) for path in paths if not re.search(r"(^|/)(\.|__)", path.relative_to(folder).as_posix())]


def _file_notes(folder: str, files: Splits) -> dict[str, list[str]]:
    """Notes by split: which files it has, and on the first which files are in none."""
    notes = {}
    for split, paths in files.items():
        names = [os.path.relpath(path, folder) for path in paths]
        shown = f"{names[0]} ... {names[-1]} ({len(names)} files)" if len(names) > 3 else ", ".join(names)
        notes[split] = [f"{split}: {shown}"]
    used = {os.path.realpath(path) for paths in files.values() for path in paths}
    unused = [os.path.relpath(path, folder) for path in _own_files(folder) if os.path.realpath(path) not in used]
    if unused and notes:
        more = f" and {len(unused) - 10} more" if len(unused) > 10 else ""
        next(iter(notes.values())).append(f"in no split by its name: {listed(unused[:10])}{more}")
    for path in files.get("test", ()):
        if _meant(path) == "validation":
            name = os.path.basename(path)
            notes["test"].append(f"{name} is scored once, after training; call it validation to choose by it")
    return notes
