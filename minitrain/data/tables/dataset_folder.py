"""A folder laid out as on the Hub: `datasets` says which file is in which split, and our own reader reads the text.

So a file has the same values by --dataset and by --train_file. Parquet, files of other kinds, and folders whose
README.md declares features or options beyond a delimiter are left to `datasets`.
"""

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from minitrain.config.read_options import COMPRESSED, FILE_KINDS, Reading, ReadOptions
from minitrain.data.tables.parquet_rows import arrow_table
from minitrain.data.tables.table import Table
from minitrain.errors import MinitrainError, listed

TEXT_KINDS = tuple(kind for kind in FILE_KINDS if kind != ".parquet")
OURS = ("sep", "delimiter", "encoding")  # the options of a README.md that our own reader has, too
# How the names of a person's files begin, whatever the case -> the split, and the flag of a file for it.
SPLIT_WORDS = {
    "train": "train", "training": "train", "test": "test", "testing": "test", "valid": "validation",
    "validation": "validation", "val": "validation", "dev": "validation", "eval": "validation",
    "evaluation": "validation",
}  # fmt: skip
FLAGS = {"train": "--train_file", "validation": "--eval_file", "test": "--test_file"}
CARD = "README.md"


def load_folder(folder: str, subset: str | None, read: Callable[..., Table]) -> dict[str, Table]:
    """Every split of a folder. read: `read_file`, with the options that the user set.

    Raises MinitrainError where a file would be in two splits, or files for several splits in one.
    """
    import datasets

    name = folder if subset is None else f"{folder} {subset}"
    try:
        builder = datasets.load_dataset_builder(folder, subset)
    except ValueError as error:
        if "same data file format" not in str(error):
            raise
        raise MinitrainError(
            f"--dataset {name}: its files are of several kinds, which `datasets` does not read as one; pass "
            f"them one by one:\n  {_one_by_one({'': _own_files(folder)})}"
        ) from error
    files = {
        str(split): [str(path) for path in paths] for split, paths in (builder.config.data_files or {}).items()
    }
    by_names = not declares_files(Path(folder) / CARD)
    if by_names:
        check_names(name, files, folder)
    options = _our_reading(builder, Path(folder) / CARD, files)
    if options is None and (flags := flags_set(read.keywords.get("options"))):  # type: ignore[attr-defined]
        raise MinitrainError(
            f"{' '.join(flags)}: --dataset {name} is read by `datasets`, which heeds only what its README.md says; "
            f"leave that out, or pass the files one by one:\n  "
            + _one_by_one(files, {path: split for split in FLAGS for path in files.get(split, ())})
        )
    if options is not None:
        tables = {split: _read_split(paths, read, options) for split, paths in files.items()}
    else:
        builder.download_and_prepare()
        loaded = builder.as_dataset()
        text = builder.name in ("csv", "json")
        tables = {
            split: arrow_table(f"{name}, split {split}", rows, from_text=text) for split, rows in loaded.items()
        }
    notes = _file_notes(folder, files) if by_names else {}
    return {split: _noted(table, notes.get(split, ())) for split, table in tables.items()}


def flags_set(options: Reading | None) -> list[str]:
    """The flags of reading that are not as usual, as one types them."""
    usual = ReadOptions()
    values = {spec.name: getattr(options or usual, spec.name) for spec in fields(ReadOptions)}
    return [f"--{name} {shlex.quote(value)}" for name, value in values.items() if value != getattr(usual, name)]


def _noted(table: Table, notes: Sequence[str]) -> Table:
    return replace(table, notes=(*notes, *table.notes))


def declares_files(card: Path) -> bool:
    """Whether a README.md says which files are in which split."""
    configs = _declared(card).get("configs") or []
    return any(isinstance(config, Mapping) and "data_files" in config for config in configs)


def _declared(card: Path) -> dict[str, Any]:
    """The YAML at the head of a README.md, if there is any."""
    from huggingface_hub import DatasetCard

    if not card.is_file():
        return {}
    return dict(DatasetCard.load(card, ignore_metadata_errors=True).data.to_dict())


def check_names(source: str, files: Mapping[str, Sequence[str]], folder: str = "") -> None:
    """Raise MinitrainError where names of files have put rows where nobody meant them.

    `datasets` looks for a word in each name: train_dev.csv is in two splits, and TRAIN.csv beside TEST.csv in one.
    folder: what the names in the message are relative to.
    """
    for split, paths in files.items():
        for other, others in files.items():
            twice = [path for path in paths if path in others and split < other]
            if twice:
                raise MinitrainError(
                    f"--dataset {source}: {os.path.basename(twice[0])} would be in two splits, {split} and "
                    f"{other}, as its name has a word of each; rename it, or pass the files one by one:\n  "
                    + _one_by_one(files)
                )
    for split, paths in files.items():
        pairs = _pairs_of_splits(paths)
        if pairs or len({_meant(path) for path in paths} - {None}) > 1:
            names = listed(os.path.relpath(path, folder) if folder else path for path in paths)
            raise MinitrainError(
                f"--dataset {source}: {names} would all be in one split, {split}, as `datasets` knows train, "
                "validation and test only in lower case and between other signs, and takes eval for test; rename "
                "them, or get them and pass them one by one:\n  " + _one_by_one(files, pairs)
            )


def _pairs_of_splits(paths: Sequence[str]) -> dict[str, str]:
    """Name -> split of names that are the same but for the split: mytrain.csv and mytest.csv."""
    by_name = {(os.path.dirname(path), os.path.basename(path).lower()): path for path in paths}
    found: dict[str, str] = {}
    for (folder, name), path in by_name.items():
        for word in ("test", "dev", "valid"):
            other = by_name.get((folder, name.replace("train", word)))
            if other not in (None, path):
                found |= {path: "train", str(other): SPLIT_WORDS[word]}
    return found


def _meant(path: str) -> str | None:
    """The split that a person means by a file's name, or by the folder that it is in."""
    for part in (os.path.basename(path), os.path.basename(os.path.dirname(path))):
        words = re.findall(r"[a-z]+", part.lower().partition(".")[0])
        for word in reversed(words):  # train_dev is for development
            if word in SPLIT_WORDS:
                return SPLIT_WORDS[word]
        for start in ("train", "test", "valid"):
            if words and words[0].startswith(start):
                return SPLIT_WORDS[start]
    return None


def _one_by_one(files: Mapping[str, Sequence[str]], known: Mapping[str, str] | None = None) -> str:
    """The flags that say what the names do not. known: the split of some files, whatever their names say."""
    by_split: dict[str, list[str]] = {}
    for path in dict.fromkeys(path for paths in files.values() for path in paths):
        by_split.setdefault((known or {}).get(path) or _meant(path) or "train", []).append(path)
    return " ".join(f"{FLAGS[split]} {','.join(by_split[split])}" for split in FLAGS if split in by_split)


def _our_reading(builder: Any, card: Path, files: Mapping[str, Sequence[str]]) -> ReadOptions | None:
    """How our own reader is to read the files; None where `datasets` has to."""
    config = builder.config
    # What the builder knows of features may come from the cache, of an earlier reading by `datasets`.
    if builder.name not in ("csv", "json") or "dataset_info" in _declared(card) or config.features is not None:
        return None
    for path in (path for paths in files.values() for path in paths):
        suffixes = [suffix for suffix in Path(path).suffixes if suffix.lower() not in COMPRESSED]
        if not os.path.isfile(path) or not suffixes or suffixes[-1].lower() not in TEXT_KINDS:
            return None
    usual, skipped = type(config)(), ("name", "data_files", "data_dir", "version", "description", *OURS)
    changed = [f.name for f in fields(config) if getattr(config, f.name) != getattr(usual, f.name)]
    if [name for name in changed if name not in skipped]:
        return None
    delimiter = next((getattr(config, name) for name in OURS[:2] if name in changed), None)
    encoding = getattr(config, "encoding", None) or "utf-8"
    tabs = all(path.lower().partition(".tsv")[1] for paths in files.values() for path in paths)
    return ReadOptions(delimiter=None if delimiter == "\t" and tabs else delimiter, encoding=encoding)


def _read_split(paths: Sequence[str], read: Callable[..., Table], declared: ReadOptions) -> Table:
    """Read the files of a split as the flags say, and as README.md declares where no flag does."""
    own = read.keywords.get("options") or declared  # type: ignore[attr-defined]
    encoding = own.encoding if own.encoding != ReadOptions().encoding else declared.encoding
    asked = own.delimiter if own.delimiter is not None else declared.delimiter
    return read(tuple(paths), options=ReadOptions(delimiter=asked, quoting=own.quoting, encoding=encoding))


def _own_files(folder: str) -> list[str]:
    """All files of rows in a folder and those inside of it, compressed or not; hidden ones aside."""
    found = []
    for path in sorted(Path(folder).rglob("*")):
        parts, name = path.relative_to(folder).parts, path.name.lower()
        for suffix in COMPRESSED:
            name = name.removesuffix(suffix)
        if name.endswith(FILE_KINDS) and not any(part.startswith((".", "__")) for part in parts) and path.is_file():
            found.append(str(path))
    return found


def _file_notes(folder: str, files: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Which file is in which split, and which is in none."""
    notes = {}
    for split, paths in files.items():
        names = [os.path.relpath(path, folder) for path in paths]
        more = f" ... {names[-1]} ({len(names)} files)" if len(names) > 3 else ""
        notes[split] = [f"{split}: " + (f"{names[0]}{more}" if more else ", ".join(names))]
    used = {os.path.realpath(path) for paths in files.values() for path in paths}
    unused = [os.path.relpath(path, folder) for path in _own_files(folder) if os.path.realpath(path) not in used]
    first = next(iter(files), None)
    if unused and first is not None:
        more = f" and {len(unused) - 10} more" if len(unused) > 10 else ""
        notes[first].append(f"in no split by its name: {listed(unused[:10])}{more}")
    for path in files.get("test", ()):
        if _meant(path) == "validation":
            name = os.path.basename(path)
            notes["test"].append(
                f"{name} is scored once, after training: `datasets` takes eval for test; call it validation to "
                "choose by it"
            )
    return notes
