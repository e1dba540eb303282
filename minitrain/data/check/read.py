"""A dataset or files -> the corpus that is checked. Rows that train.py refuses are kept and reported."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from minitrain.config.data_config import DataConfig
from minitrain.data.check.columns import has_column, values_of
from minitrain.data.check.corpus import Corpus, Finding
from minitrain.data.check.targets import read_targets
from minitrain.data.labels.ids import Labels
from minitrain.data.labels.values import is_missing
from minitrain.data.splits import Tables, find_columns, glue_task, read_tables
from minitrain.data.subsample import Subsampler
from minitrain.data.tables.table import ABSENT, Table, writable
from minitrain.errors import MinitrainError, listed, shown


def read_corpus(config: DataConfig) -> Corpus:
    """Read every split that a dataset or files have.

    Raises:
        MinitrainError: A file cannot be read at all, or it is not clear which columns are meant.
    """
    # Without names, since a row without such a field would be refused.
    unnamed = replace(config, text_columns=None, label_column=None, label_columns=None, label_separator=None)
    if config.label_separator is not None or config.label_columns is not None:
        unnamed = replace(unnamed, problem_type=None)
    return corpus_of(read_tables(unnamed), config)


def corpus_of(tables: Tables, config: DataConfig) -> Corpus:
    """The corpus of tables that were read. Raises MinitrainError if it is not clear which columns are meant."""
    by_split = {"train": tables.by_split["train"]} | tables.by_split
    task, left_out = glue_task(tables), list[str]()
    columns, label_column = _columns(by_split["train"], config, task)
    targets = read_targets(by_split, label_column, config, task)
    left_out += targets.left_out
    if config.eval_fraction:
        try:
            by_split = _held_back(by_split, config, columns, label_column, targets.labels)
            targets = read_targets(by_split, label_column, config, task)
        except MinitrainError as error:
            left_out.append(f"--eval_fraction is not drawn: {error}")
    texts, no_text = _texts(by_split, columns, config.join)
    corpus = Corpus(
        tables=by_split,
        text_columns=columns,
        label_column=label_column,
        texts=texts,
        no_text=no_text,
        labels=targets.labels,
        targets=targets.values,
        left_out=tuple(left_out),
    )
    found = [*_missing_texts(corpus), *targets.findings]
    return replace(corpus, findings=tuple(found))


def _columns(train: Table, config: DataConfig, task: str | None) -> tuple[tuple[str, ...], str]:
    """As a run finds them, by the first value of each column that is not missing."""
    first = {name: [_first(values)] for name, values in train.columns.items() if name not in train.gaps}
    first = first or {name: [_first(values)] for name, values in train.columns.items()}
    columns, label_column = find_columns(replace(train, columns=first, gaps={}, numbers=None), config, task)
    for name in columns:
        if not has_column(train, name):
            raise MinitrainError(train.lacks(name))
    return columns, label_column


def _first(values: Sequence[Any]) -> Any:
    head = [value for value in values[:1000] if value is not ABSENT]
    return next((value for value in head if not is_missing(value)), next(iter(head), None))


def _held_back(
    tables: dict[str, Table], config: DataConfig, columns: tuple[str, ...], column: str, labels: Labels | None
) -> dict[str, Table]:
    if labels is None:
        raise MinitrainError("the labels are not known, by which it is stratified")
    return Subsampler(config, columns, column, labels).hold_back(tables)


def _texts(
    tables: Mapping[str, Table], columns: tuple[str, ...], join: str | None
) -> tuple[tuple[list[str], ...], dict[int, str]]:
    """The texts of all splits by column, and what stands in their place, by row."""
    texts: tuple[list[str], ...] = tuple([] for _ in columns)
    no_text: dict[int, str] = {}
    for column, name in zip(texts, columns, strict=True):
        for table in tables.values():
            start, values = len(column), values_of(table, name)
            bad = [i for i, value in enumerate(values) if type(value) is not str or not _is_text(value)]
            for i in bad:
                no_text.setdefault(start + i, f"{name!r} {_instead(values[i])}")
                values[i] = ""
            column += values
    if join is None or len(columns) == 1:
        return texts, no_text
    joined = [join.join(text for text in row if text and not text.isspace()) for row in zip(*texts, strict=True)]
    return (joined,), no_text


def _is_text(value: str) -> bool:
    return value.isascii() or writable(value)


def _instead(value: Any) -> str:
    if value is ABSENT:
        return "is not there"
    if isinstance(value, str):
        return "has a lone surrogate"
    return "is missing" if is_missing(value) else f"is {shown(value)} ({type(value).__name__})"


def _missing_texts(corpus: Corpus) -> list[Finding]:
    if not corpus.no_text:
        return []
    kinds = Counter(corpus.no_text.values())
    common = listed(f"{what} in {count}" for what, count in kinds.most_common(2))
    return [
        Finding(
            name="missing_text",
            rows=sorted(corpus.no_text),
            of=len(corpus),
            what=f"The value of a text column is no text: {common}{' ...' if len(kinds) > 2 else ''}.",
            effect="train.py stops at the first of them.",
            way_out="Fill them in, or leave these rows out"
            + ("; a column of numbers becomes text as CSV." if any("(" in what for what in kinds) else "."),
            notes=corpus.no_text,
        )
    ]
