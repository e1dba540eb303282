"""Rows of text -> tokenized splits with numbered labels.

Texts are tokenized once, in chunks, and kept end to end: 5 bytes a token, no Python object an example. It goes
without torch, so that it can go on while torch is being imported (`ahead.py`).
"""

import os
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from minitrain.data_config import DataConfig
from minitrain.errors import MinitrainError
from minitrain.labels import Labels, label_numbers
from minitrain.options import check_columns
from minitrain.progress import progress
from minitrain.rows import Rows, read_rows, read_tables
from minitrain.tables import Table
from minitrain.token_cache import Tokens, cached, fingerprint, in_memory
from minitrain.tokenizer import Encoded, Example, Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 1000  # rows tokenized at once: enough to keep every core busy, few enough to hold in memory twice


class Split:
    """Tokenized examples of one split, by row: `split[3]` is an Example, `len(split)` the number of rows.

    truncated, blank: how many rows were cut to the maximal length, and how many have a text with nothing in it.
    """

    def __init__(self, tokens: Tokens, labels: "array[int] | array[float] | None") -> None:
        """labels: int64 classes or float32 scores, `array` types q and f."""
        self._tokens = tokens
        self._labels = labels
        self.lengths: list[int] = tokens.lengths.tolist()
        self._ends = array("q", accumulate(self.lengths))
        self.truncated, self.blank = tokens.truncated, tokens.blank

    @cached_property
    def labels(self) -> "Tensor | None":
        """(rows,) int64 classes or float32 scores."""
        import torch

        if self._labels is None:
            return None
        return torch.frombuffer(self._labels, dtype=torch.int64 if self._labels.typecode == "q" else torch.float32)

    def __len__(self) -> int:
        return len(self.lengths)

    def checksum(self) -> str:
        """Of tokens and labels, to tell one split from another (CRC-32)."""
        total = 0
        for part in (self._tokens.lengths, self._tokens.input_ids, self._tokens.type_ids, self._labels):
            if part is not None:
                total = zlib.crc32(part, total)
        return f"{total:08x}, {len(self)} rows"

    def __getitem__(self, row: int) -> Example:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of a split of {len(self)} rows")
        end = self._ends[row]
        part = slice(end - self.lengths[row], end)
        label = None if self._labels is None else self._labels[row]
        return Example(self._tokens.input_ids[part].tolist(), self._tokens.type_ids[part].tolist(), label)


@dataclass(frozen=True, kw_only=True)
class Splits:
    """What a run trains on, chooses by, and is finally scored on.

    evaluation has one entry, or two for MNLI. test has those splits whose labels are known. task is the GLUE task,
    where it is one.
    """

    train: Split
    evaluation: dict[str, Split]
    test: dict[str, Split]
    labels: Labels
    text_columns: tuple[str, ...]
    label_column: str
    task: str | None = None
    notes: list[str] = field(default_factory=list)  # what was decided that the user did not ask for
    commit: str | None = None  # of the dataset's repository on the Hub

    @property
    def scored(self) -> dict[str, Split]:
        """The splits that a run is finally scored on, by name."""
        return self.evaluation | self.test

    @property
    def all(self) -> dict[str, Split]:
        """Every split, by name."""
        return {"train": self.train, **self.scored}


def tokenize(
    table: Table,
    tokenizer: Tokenizer,
    text_columns: tuple[str, ...],
    label_column: str | None = None,
    labels: Labels | None = None,
    max_length: int | None = None,
    cache: bool = False,
) -> Split:
    """Tokenize a table's texts, one column or a pair of them, and number its labels.

    Without `labels` the split has none. cache: keep the tokens on disk for the next time (`token_cache.py`).
    Raises MinitrainError naming source, row and column of what is not text, or is no label.
    """
    check_columns(text_columns)
    columns = [table.column(name) for name in text_columns]
    if not len(table):
        raise MinitrainError(f"{table.source}: is empty; its columns are {table.names_shown()}")
    numbers: array[int] | array[float] | None = None
    if labels is not None and label_column is not None:
        numbers = array("f" if labels.names is None else "q", label_numbers(table, label_column, labels))
    chunks = _Chunks(table, tokenizer, text_columns, columns, max_length)
    name = chunks.fingerprint() if cache else None
    return Split(in_memory(chunks) if name is None else cached(name, chunks), numbers)


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
    dataset: str | None = None,
    subset: str | None = None,
    *,
    tokenizer: Tokenizer,
    max_length: int | None = None,
    known_labels: tuple[str, ...] | None = None,
    **options: Any,
) -> Splits:
    """Load and tokenize a dataset (a Hub id, a folder, "demo") or the user's own files.

    max_length: tokens kept of a text or pair; by default all that the tokenizer takes. known_labels: as of
    `read_rows`. options: the fields of `DataConfig`, which have the names of the flags: train_file, text_columns,
    label_column, eval_fraction and so on.
    Raises MinitrainError naming file or flag, row and column.
    """
    known = [spec.name for spec in fields(DataConfig)]
    if unknown := [name for name in options if name not in known]:
        raise MinitrainError(f"load_splits has no option {unknown[0]!r}; it has {', '.join(known)}")
    config = DataConfig(dataset=dataset, subset=subset, **options)
    return tokenize_rows(read_rows(read_tables(config), config, known_labels), tokenizer, max_length)


def tokenize_rows(rows: Rows, tokenizer: Tokenizer, max_length: int | None = None) -> Splits:
    """Tokenize every table of `rows` and number its labels. Raises MinitrainError as `tokenize`."""

    def split(table: Table) -> Split:
        return tokenize(table, tokenizer, rows.text_columns, rows.label_column, rows.labels, max_length, True)

    return Splits(
        train=split(rows.train),
        evaluation={name: split(table) for name, table in rows.evaluation.items()},
        test={name: split(table) for name, table in rows.test.items()},
        labels=rows.labels,
        text_columns=rows.text_columns,
        label_column=rows.label_column,
        task=rows.task,
        notes=rows.notes,
        commit=rows.commit,
    )
