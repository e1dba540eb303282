"""Rows of text -> tokenized splits with numbered labels.

Texts are tokenized once, in chunks; `splits.py` keeps them. It goes without torch, so that it can go on while
torch is being imported (`ahead.py`).
"""

import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from minitrain.config.data_config import DataConfig
from minitrain.config.options import check_columns
from minitrain.data.dataset import Split as Split
from minitrain.data.dataset import Splits as Splits
from minitrain.data.labels.ids import Labels, label_numbers
from minitrain.data.progress import progress
from minitrain.data.splits import TextSplits, join_texts, read_rows, read_tables, tables_of_data
from minitrain.data.tables.in_memory import table_in_memory
from minitrain.data.tables.table import Table
from minitrain.data.tokenizer.tokenizer import Encoded, Tokenizer
from minitrain.errors import MinitrainError
from minitrain.storage.token_cache import cached, fingerprint, in_memory

MANY_UNKNOWN = 0.01  # of the tokens: more is worth a word
CHUNK = 1000  # rows tokenized at once: enough to keep every core busy, few enough to hold in memory twice


def tokenize(
    table: Table | Any,
    tokenizer: Tokenizer,
    text_columns: tuple[str, ...],
    label_column: str | None = None,
    labels: Labels | None = None,
    max_length: int | None = None,
    cache: bool = False,
    join: str | None = None,
) -> Split:
    """Tokenize a table's texts, one column or a pair of them, and number its labels.

    table: as `load_tables` gives it, or in memory, as of `load_splits`.
    Without `labels` the split has none. cache: keep the tokens on disk for the next time (`token_cache.py`).
    join: as of `join_texts`.
    Raises MinitrainError naming source, row and column of what is not text, or is no label.
    """
    table, text_columns = join_texts(table_in_memory(table, "the data"), text_columns, join)
    check_columns(text_columns)
    columns = [table.column(name) for name in text_columns]
    if not len(table):
        raise MinitrainError(f"{table.source}: is empty; its columns are {table.names_shown()}")
    numbers: array[int] | array[float] | None = None
    if labels is not None and label_column is not None:
        numbers = array("f" if labels.names is None else "q", label_numbers(table, label_column, labels))
    chunks = _Chunks(table, tokenizer, text_columns, columns, max_length)
    name = chunks.fingerprint() if cache else None
    return Split(
        in_memory(chunks) if name is None else cached(name, chunks),
        numbers,
        pad_token_id=tokenizer.pad_token_id,
        padding_side=tokenizer.padding_side,
        special=tokenizer.num_special_tokens(pair=len(columns) == 2),
    )


@dataclass(frozen=True)
class _Chunks:
    """The rows of a table, tokenized a chunk at a time, as often as they are asked for."""

    table: Table
    tokenizer: Tokenizer
    names: tuple[str, ...]
    columns: Sequence[Sequence[str]]
    max_length: int | None

    def __iter__(self) -> Iterator[Encoded]:
        silent = os.environ.get("LOCAL_RANK", "0") != "0"  # of the processes on one machine, one speaks
        with progress(f"tokenizing {self.table.source}", len(self.table), silent=silent) as add:
            for source, first_row, parts in self._pieces():
                texts, pairs = parts if len(parts) == 2 else (parts[0], None)
                yield self.tokenizer.encode(
                    texts, pairs, self.max_length, where=source, columns=self.names, first_row=first_row
                )
                add(len(texts))

    def fingerprint(self) -> str | None:
        """None where a value is no text: tokenizing says which."""
        limit = self.tokenizer.max_length if self.max_length is None else self.max_length
        settings = f"{self.tokenizer.fingerprint()} {limit} {len(self.columns)}"
        try:
            return fingerprint(settings, (part for *_, parts in self._pieces() for part in parts))
        except (TypeError, UnicodeEncodeError):
            return None

    def _pieces(self) -> Iterator[tuple[str, int, list[Sequence[str]]]]:
        for source, first_row, rows in self.table.pieces(CHUNK):
            yield source, first_row, [column[rows] for column in self.columns]


def unknown_warning(counts: Mapping[str, tuple[int, int]]) -> str | None:
    """One line on the splits of which more than 1% of the tokens are unknown ones; None without any.

    counts: of each split, by name, the unknown tokens and all that are of its texts.
    """
    many = [
        f"{unknown / tokens:.1%} of the tokens in {name}"
        for name, (unknown, tokens) in counts.items()
        if unknown > MANY_UNKNOWN * tokens
    ]
    if not many:
        return None
    return (
        f"{', '.join(many)} are unknown to the tokenizer, so the model cannot tell them apart: is it for this "
        "language and script, and are do_lower_case and the file's encoding right?"
    )


def length_limit(asked: int | None, tokenizer: Tokenizer, positions: int, multiple: int = 1) -> int:
    """Tokens kept of a text or pair: as asked, else all that tokenizer and model take.

    positions: of the model. multiple: that padding goes up to. Raises MinitrainError naming the flag of what does
    not fit.
    """
    longest = positions // multiple * multiple
    if asked is None and longest > 0:
        return min(tokenizer.max_length or longest, longest)
    if asked is None or asked > longest:
        flag = f"--max_length {asked}" if asked else f"--pad_to_multiple_of {multiple}"
        multiples = f", {longest} of them a multiple of {multiple}" if multiple > 1 else ""
        raise MinitrainError(f"{flag}: the model has {positions} positions{multiples}")
    return asked


def load_splits(
    dataset: Any = None,
    subset: str | None = None,
    *,
    tokenizer: Tokenizer,
    train: Any = None,
    evaluation: Any = None,
    test: Any = None,
    max_length: int | None = None,
    known_labels: tuple[str, ...] | None = None,
    **options: Any,
) -> Splits:
    """Load and tokenize a dataset (a Hub id, a folder, "demo"), the user's own files, or data in memory.

    train, evaluation, test: tables in memory: a list of dicts, a dict of columns, a pandas DataFrame or a Dataset.
    train, or the first argument, may also be all splits: a DatasetDict, or a dict of tables with "train" in it.
    max_length: tokens kept of a text or pair; by default all that the tokenizer takes. known_labels: as of
    `read_rows`. options: the fields of `DataConfig`, which have the names of the flags: train_file, text_columns,
    label_column, eval_fraction and so on.
    Raises MinitrainError naming file or flag, row and column.
    """
    known = [spec.name for spec in fields(DataConfig)]
    if unknown := [name for name in options if name not in known]:
        raise MinitrainError(f"load_splits has no option {unknown[0]!r}; it has {', '.join(known)}")
    named = dataset is None or isinstance(dataset, str | os.PathLike)
    config = DataConfig(dataset=None if dataset is None or not named else str(dataset), subset=subset, **options)
    given = train if named else dataset
    if given is None and (evaluation is not None or test is not None):
        raise MinitrainError("evaluation and test go with train: data in memory to train on")
    if not named and train is not None:
        raise MinitrainError("the first argument and train are two sets of training data: pass one")
    tables = read_tables(config) if given is None else tables_of_data(config, given, evaluation, test)
    return tokenize_rows(read_rows(tables, config, known_labels), tokenizer, max_length)


def tokenize_rows(rows: TextSplits, tokenizer: Tokenizer, max_length: int | None = None) -> Splits:
    """Tokenize every table of `rows` and number its labels. Raises MinitrainError as `tokenize`."""

    def split(table: Table) -> Split:
        columns, label_column = rows.text_columns, rows.label_column
        return tokenize(table, tokenizer, columns, label_column, rows.labels, max_length, True, rows.join)

    def kept(table: Table) -> Table:
        names = (*rows.text_columns, rows.label_column)
        return replace(table, columns={name: list(table.column(name)[:]) for name in names})

    return Splits(
        train=split(rows.train),
        evaluation={name: split(table) for name, table in rows.evaluation.items()},
        test={name: split(table) for name, table in rows.test.items()},
        labels=rows.labels,
        text_columns=rows.text_columns,
        label_column=rows.label_column,
        task=rows.task,
        notes=[*rows.notes, *tokenizer.notes],
        commit=rows.commit,
        held_out=rows.held_out,
        join=rows.join,
        texts={name: kept(table) for name, table in (rows.evaluation | rows.test).items()},
    )
