"""Tables of text -> tokenized splits with numbered labels.

Texts are tokenized once, in chunks, and kept on disk (`token_cache.py`). Nothing here imports torch, so that a
process can read data while another imports torch.
"""

import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from minitrain.config.data_config import DataConfig
from minitrain.config.long_texts import LongTexts
from minitrain.config.options import check_columns
from minitrain.data.dataset import Split, Splits, SplitsInfo
from minitrain.data.examples import flatten
from minitrain.data.labels.ids import Labels
from minitrain.data.labels.numbered import label_array
from minitrain.data.progress import progress
from minitrain.data.splits import TextSplits, join_texts, read_tables, tables_of_data, text_splits
from minitrain.data.tables.in_memory import table_in_memory
from minitrain.data.tables.table import Table
from minitrain.data.tokenizer.tokenizer import Tokenizer
from minitrain.data.windows import windows_of
from minitrain.errors import MinitrainError
from minitrain.storage.token_cache import Tokens, cached, fingerprint, in_memory

MANY_UNKNOWN = 0.01  # of the tokens
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
    long_texts: LongTexts | None = None,
) -> Split:
    """Tokenize a table's texts, one column or a pair of them, and number its labels.

    Args:
        table: From `load_tables`, or in memory as for `load_splits`.
        labels: Of the split; without them it has none.
        cache: Keep the tokens on disk for the next run.
        join: Put between the text columns to make one text of them.
        long_texts: What becomes of texts longer than `max_length`; by default their head is kept.

    Raises:
        MinitrainError: A value is not text or not a label; names source, row and column. Or windows are asked for
            that cannot be cut.
    """
    table, text_columns = join_texts(table_in_memory(table, "the data"), text_columns, join)
    check_columns(text_columns)
    columns = [table.column(name) for name in text_columns]
    if not len(table):
        raise MinitrainError(f"{table.source}: is empty; its columns are {table.names_shown()}")
    numbers: array[int] | array[float] | None = None
    if labels is not None and label_column is not None:
        numbers = label_array(table, label_column, labels)
    long_texts = long_texts or LongTexts()
    by_window = long_texts.long_texts == "windows"
    windows = windows_of(long_texts, tokenizer, max_length, text_columns) if by_window else None
    chunks = _Chunks(table, tokenizer, text_columns, columns, max_length, long_texts.long_texts)
    name = chunks.fingerprint() if cache else None
    return Split(
        in_memory(chunks) if name is None else cached(name, chunks),
        numbers,
        label_width=labels.num_labels if labels is not None and labels.multi_label else None,
        pad_token_id=tokenizer.pad_token_id,
        padding_side=tokenizer.padding_side,
        special=tokenizer.num_special_tokens(pair=len(columns) == 2),
        windows=windows,
    )


@dataclass(frozen=True)
class _Chunks:
    """The rows of a table, tokenized chunk by chunk at each iteration."""

    table: Table
    tokenizer: Tokenizer
    names: tuple[str, ...]
    columns: Sequence[Sequence[str]]
    max_length: int | None
    long_texts: str

    def __iter__(self) -> Iterator[Tokens]:
        silent = os.environ.get("LOCAL_RANK", "0") != "0"  # one process per machine shows progress
        with progress(f"tokenizing {self.table.source}", len(self.table), silent=silent) as add:
            for source, first_row, rows in self.table.pieces(CHUNK):
                texts, *pairs = [column[rows] for column in self.columns]
                second = pairs[0] if pairs else None
                encoded = self.tokenizer.encode(
                    texts, second, self.max_length, source, self.names, first_row, self.long_texts
                )
                yield flatten(encoded)
                add(len(texts))

    def fingerprint(self) -> str | None:
        """None if a value is not text, which tokenizing reports."""
        limit = self.tokenizer.max_length if self.max_length is None else self.max_length
        # Windows are cut later, of whole texts: an entry serves any length and overlap of them.
        kept = {"head": f"{limit}", "windows": "whole"}.get(self.long_texts, f"{limit} {self.long_texts}")
        settings = f"{self.tokenizer.fingerprint()} {kept} {len(self.columns)}"
        pieces = (column[rows] for *_, rows in self.table.pieces(CHUNK) for column in self.columns)
        try:
            return fingerprint(settings, pieces)
        except (TypeError, UnicodeEncodeError):
            return None


def unknown_warning(counts: Mapping[str, tuple[int, int]]) -> str | None:
    """A warning that names the splits in which more than 1% of the tokens are unknown; None without any.

    counts: (unknown tokens, text tokens) by split.
    """
    shares = {name: unknown / tokens for name, (unknown, tokens) in counts.items() if tokens}
    many = [f"{share:.1%} of the tokens in {name}" for name, share in shares.items() if share > MANY_UNKNOWN]
    if not many:
        return None
    return (
        f"{', '.join(many)} are unknown to the tokenizer, so the model cannot tell them apart: is it for this "
        "language and script, and are do_lower_case and the file's encoding right?"
    )


def length_limit(asked: int | None, tokenizer: Tokenizer, positions: int, multiple: int = 1) -> int:
    """Tokens kept of a text or pair: as asked, else all that tokenizer and model take.

    positions: Of the model. multiple: Padding rounds up to one. Raises MinitrainError naming the flag that does not
    fit.
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
    """Load and tokenize a dataset (a Hub id, a folder, "demo"), your own files, or data in memory.

    Args:
        dataset: Also data in memory: the training rows, or all splits (a DatasetDict, or a dict of tables with
            "train" in it).
        train, evaluation, test: In memory: a list of dicts, a dict of columns, a pandas DataFrame or a Dataset.
        max_length: Tokens kept of a text or pair; by default all that the tokenizer takes.
        known_labels: The classes of a trained head, in its order.
        options: Fields of `DataConfig`, which are named like the flags: train_file, text_columns, eval_fraction ...

    Raises:
        MinitrainError: Names the file or flag, row and column at fault.
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
    return tokenize_splits(
        text_splits(tables, config, known_labels), tokenizer, max_length, config.long_text_options
    )


def tokenize_splits(
    texts: TextSplits, tokenizer: Tokenizer, max_length: int | None = None, long_texts: LongTexts | None = None
) -> Splits:
    """Tokenize every table and number its labels. Raises MinitrainError as `tokenize`."""
    columns, label_column = texts.text_columns, texts.label_column

    def split(table: Table) -> Split:
        labels, join = texts.labels, texts.join
        return tokenize(table, tokenizer, columns, label_column, labels, max_length, True, join, long_texts)

    def kept(table: Table) -> Table:
        return replace(table, columns={name: list(table.column(name)[:]) for name in (*columns, label_column)})

    info = {spec.name: getattr(texts, spec.name) for spec in fields(SplitsInfo)}
    return Splits(
        **info | {"notes": [*texts.notes, *tokenizer.notes]},
        train=split(texts.train),
        evaluation={name: split(table) for name, table in texts.evaluation.items()},
        test={name: split(table) for name, table in texts.test.items()},
        texts={name: kept(table) for name, table in (texts.evaluation | texts.test).items()},
    )
