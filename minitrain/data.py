"""Rows of text -> tokenized splits with numbered labels.

Texts are tokenized once, in chunks, and kept end to end: 5 bytes a token, no Python object an example. It goes
without torch, so that it can go on while torch is being imported (`ahead.py`).
"""

import os
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from minitrain.data_config import DataConfig
from minitrain.errors import MinitrainError, listed
from minitrain.labels import Labels, label_numbers
from minitrain.memory import table_in_memory
from minitrain.options import check_columns
from minitrain.rows import Rows, join_texts, read_rows, read_tables, tables_of_data
from minitrain.tables import Table
from minitrain.targets import TargetScale, scale_of
from minitrain.token_cache import Tokens, cached, fingerprint, in_memory
from minitrain.tokenizer import Encoded, Example, Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 1000  # rows tokenized at once: enough to keep every core busy, few enough to hold in memory twice


class Split:
    """Tokenized examples of one split, by row: `split[3]` is an Example, `len(split)` the number of rows.

    truncated, blank: how many rows were cut to the maximal length, and how many have a text with nothing in it.
    scale: where the labels are scores that were standardized, what undoes it.
    """

    def __init__(
        self, tokens: Tokens, labels: "array[int] | array[float] | None", scale: TargetScale | None = None
    ) -> None:
        """labels: int64 classes or float32 scores, `array` types q and f."""
        self._tokens = tokens
        self._labels = labels
        self.scale = scale
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

    def target_scale(self) -> TargetScale:
        """Mean and standard deviation of the scores. Raises MinitrainError where they do not differ."""
        assert self._labels is not None
        if (scale := scale_of(self._labels)) is None:
            raise MinitrainError(
                f"every label of the {len(self)} training rows is {self._labels[0]}: nothing can be learnt from "
                "that; give scores that differ (--label_column names their column), or pass "
                "--standardize_targets false to train on them as they are"
            )
        return scale

    def standardized(self, scale: TargetScale) -> "Split":
        """The same rows with standard scores for labels, which `fit` trains on as such."""
        assert self._labels is not None
        return Split(self._tokens, scale.standardize(self._labels), scale)

    def __getitem__(self, row: int) -> Example:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of a split of {len(self)} rows")
        end = self._ends[row]
        part = slice(end - self.lengths[row], end)
        label = None if self._labels is None else self._labels[row]
        return Example(self._tokens.input_ids[part].tolist(), self._tokens.type_ids[part].tolist(), label)


def as_split(rows: "Split | Sequence[Example]") -> Split:
    """A split as it is, or one made of Examples that were tokenized one by one.

    Raises MinitrainError for what is neither, and where only some Examples have labels.
    """
    if isinstance(rows, Split):
        return rows
    if not isinstance(rows, list | tuple) or not rows or not all(isinstance(row, Example) for row in rows):
        kind = (
            f"{type(rows).__name__} of {type(rows[0]).__name__}" if isinstance(rows, list | tuple) and rows else ""
        )
        raise MinitrainError(
            f"expected a Split, as load_splits and tokenize make, or a list of Example, got "
            f"{kind or type(rows).__name__}; tokenizer(texts) or tokenize(rows, tokenizer, ('text',)) makes one"
        )
    labels = [row.label for row in rows]
    if (unlabelled := labels.count(None)) not in (0, len(labels)):
        raise MinitrainError(f"{unlabelled} of {len(labels)} Examples have no label; give all of them one, or none")
    kinds = {float if isinstance(label, float) else int for label in labels}
    numbers = None if unlabelled else array("f" if float in kinds else "q", labels)
    return Split(in_memory([Encoded(examples=list(rows), truncated=0, blank=0)]), numbers)


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
    held_out: str | None = None  # checksum of the rows that --eval_fraction held back
    join: str | None = None  # what stands between the text columns, where they make one text
    texts: dict[str, Table] = field(default_factory=dict)  # of `scored`: text columns and labels, as they were read

    @property
    def is_pair(self) -> bool:
        """Whether an example is two texts."""
        return len(self.text_columns) == 2 and self.join is None

    @property
    def scored(self) -> dict[str, Split]:
        """The splits that a run is finally scored on, by name."""
        return self.evaluation | self.test

    @property
    def all(self) -> dict[str, Split]:
        """Every split, by name."""
        return {"train": self.train, **self.scored}


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
        raise MinitrainError(f"{table.source}: is empty; its columns are {listed(table.columns)}")
    numbers: array[int] | array[float] | None = None
    if labels is not None and label_column is not None:
        numbers = array("f" if labels.names is None else "q", label_numbers(table, label_column, labels))
    chunks = _Chunks(table.source, tokenizer, text_columns, columns, max_length)
    name = chunks.fingerprint() if cache else None
    return Split(in_memory(chunks) if name is None else cached(name, chunks), numbers)


@dataclass(frozen=True)
class _Chunks:
    """The rows of a table, tokenized a chunk at a time, as often as they are asked for."""

    source: str
    tokenizer: Tokenizer
    names: tuple[str, ...]
    columns: Sequence[Sequence[str]]
    max_length: int | None

    def __iter__(self) -> Iterator[Encoded]:
        for start, parts in self._pieces():
            texts, pairs = parts if len(parts) == 2 else (parts[0], None)
            yield self.tokenizer.encode(
                texts, pairs, self.max_length, where=self.source, columns=self.names, first_row=start + 1
            )

    def fingerprint(self) -> str | None:
        """None where a value is no text: tokenizing says which."""
        limit = self.tokenizer.max_length if self.max_length is None else self.max_length
        settings = f"{self.tokenizer.fingerprint()} {limit} {len(self.columns)}"
        try:
            return fingerprint(settings, (part for _, parts in self._pieces() for part in parts))
        except (TypeError, UnicodeEncodeError):
            return None

    def _pieces(self) -> Iterator[tuple[int, list[Sequence[str]]]]:
        for start in range(0, len(self.columns[0]), CHUNK):
            yield start, [column[start : start + CHUNK] for column in self.columns]


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


def tokenize_rows(rows: Rows, tokenizer: Tokenizer, max_length: int | None = None) -> Splits:
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
        notes=rows.notes,
        commit=rows.commit,
        held_out=rows.held_out,
        join=rows.join,
        texts={name: kept(table) for name, table in (rows.evaluation | rows.test).items()},
    )
