"""Tables -> tokenized splits with label names; and the table of GLUE's tasks.

Texts are tokenized once, in chunks, and kept as flat tensors: 5 bytes a token, no Python object an example.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from minitrain.config import check_columns
from minitrain.encoder_config import REGRESSION
from minitrain.errors import MinitrainError
from minitrain.labels import Labels, class_ids, find_labels, hidden, scores
from minitrain.tables import Table, load_tables, read_file
from minitrain.tokenizer import Encoded, Example, Tokenizer, check_texts

CHUNK = 1000  # rows tokenized at once: enough to keep every core busy, few enough to hold in memory twice
GLUE_REPOSITORY = "nyu-mll/glue"

# The text columns of each task; Wang et al. 2018, arXiv 1804.07461, as stored in nyu-mll/glue.
GLUE_COLUMNS: dict[str, tuple[str, ...]] = {
    "cola": ("sentence",),
    "sst2": ("sentence",),
    "mrpc": ("sentence1", "sentence2"),
    "stsb": ("sentence1", "sentence2"),
    "qqp": ("question1", "question2"),
    "mnli": ("premise", "hypothesis"),
    "qnli": ("question", "sentence"),
    "rte": ("sentence1", "sentence2"),
    "wnli": ("sentence1", "sentence2"),
}


class Split:
    """Tokenized examples of one split, by row: `split[3]` is an Example, `len(split)` the number of rows.

    truncated, blank: how many rows were cut to the maximal length, and how many have a text with nothing in it.
    """

    def __init__(
        self,
        input_ids: Tensor,
        type_ids: Tensor,
        lengths: Tensor,
        labels: Tensor | None,
        truncated: int,
        blank: int,
    ) -> None:
        self._input_ids = input_ids  # (tokens of all rows,) int32
        self._type_ids = type_ids  # (tokens of all rows,) uint8
        self._ends = lengths.cumsum(0)  # (rows,) int64
        self.lengths: list[int] = lengths.tolist()
        self.labels = labels  # (rows,) int64 classes or float32 scores
        self.truncated, self.blank = truncated, blank

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> Example:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of a split of {len(self)} rows")
        end = int(self._ends[row])
        part = slice(end - self.lengths[row], end)
        label = None if self.labels is None else self.labels[row].item()
        return Example(self._input_ids[part].tolist(), self._type_ids[part].tolist(), label)


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

    @property
    def scored(self) -> dict[str, Split]:
        """The splits that a run is finally scored on, by name."""
        return self.evaluation | self.test


def tokenize(
    table: Table,
    tokenizer: Tokenizer,
    text_columns: tuple[str, ...],
    label_column: str | None = None,
    labels: Labels | None = None,
    max_length: int | None = None,
) -> Split:
    """Tokenize a table's texts, one column or a pair of them, and number its labels.

    Without `labels` the split has none. Raises MinitrainError naming source, row and column of what is not text,
    or is no label.
    """
    check_columns(text_columns)
    columns = [table.column(name) for name in text_columns]
    if not len(table):
        raise MinitrainError(f"{table.source}: is empty; its columns are {', '.join(table.columns)}")
    numbers = None
    if labels is not None and label_column is not None:
        known = labels.names is not None
        values = class_ids(table, label_column, labels) if known else scores(table, label_column)
        numbers = torch.tensor(values, dtype=torch.int64 if known else torch.float32)
    chunks = (
        tokenizer.encode(
            columns[0][start : start + CHUNK],
            columns[1][start : start + CHUNK] if len(columns) > 1 else None,
            max_length,
            where=table.source,
            columns=text_columns,
            first_row=start + 1,
        )
        for start in range(0, len(table), CHUNK)
    )
    return _flat(chunks, numbers)


def length_limit(asked: int | None, tokenizer: Tokenizer, positions: int, multiple: int = 1) -> int:
    """Tokens kept of a text or pair: as asked, else all that tokenizer and model take.

    positions: of the model. multiple: that padding goes up to. Raises MinitrainError naming the flag of what does
    not fit.
    """
    longest = positions // multiple * multiple
    if asked is None and longest > 0:
        return min(tokenizer.max_length, longest)
    if asked is None or asked > longest:
        flag = f"--max_length {asked}" if asked else f"--pad_to_multiple_of {multiple}"
        multiples = f", {longest} of them a multiple of {multiple}" if multiple > 1 else ""
        raise MinitrainError(f"{flag}: the model has {positions} positions{multiples}")
    return asked


def _flat(chunks: Iterable[Encoded], labels: Tensor | None) -> Split:
    input_ids, type_ids, lengths = [], [], []
    truncated = blank = 0
    for chunk in chunks:
        for example in chunk.examples:
            lengths.append(len(example.input_ids))
        input_ids.append(torch.tensor([i for e in chunk.examples for i in e.input_ids], dtype=torch.int32))
        type_ids.append(torch.tensor([i for e in chunk.examples for i in e.token_type_ids], dtype=torch.uint8))
        truncated += chunk.truncated
        blank += chunk.blank
    return Split(torch.cat(input_ids), torch.cat(type_ids), torch.tensor(lengths), labels, truncated, blank)


def load_splits(
    dataset: str | None = None,
    subset: str | None = None,
    *,
    tokenizer: Tokenizer,
    train_file: str | None = None,
    eval_file: str | None = None,
    test_file: str | None = None,
    text_columns: tuple[str, ...] | None = None,
    label_column: str | None = None,
    eval_fraction: float = 0.0,
    max_length: int | None = None,
    problem_type: str | None = None,
    known_labels: tuple[str, ...] | None = None,
    max_train_samples: int | None = None,
    max_eval_samples: int | None = None,
    seed: int = 42,
) -> Splits:
    """Load and tokenize a dataset (a Hub id, a folder, "demo") or the user's own files.

    text_columns: one column, or two for pairs; by default the GLUE task's, or the only column of text.
    label_column: by default "label". eval_fraction: share of the training rows, drawn by `seed`, to evaluate on
    where there is no evaluation split. known_labels: the classes of a trained head, whose order is kept.
    max_train_samples, max_eval_samples: use the first so many rows, the latter of test splits too.
    Raises MinitrainError naming file or flag, row and column.
    """
    label_column = label_column or "label"
    files = {"train": train_file, "validation": eval_file, "test": test_file}
    # Fields that nobody asks for may be missing from a row of JSON lines.
    needed = (*text_columns, label_column) if text_columns else None
    tables, subset = _read(dataset, subset, {name: path for name, path in files.items() if path}, needed)
    if "train" not in tables:
        raise MinitrainError(f"--dataset {dataset}: has no split 'train'; it has {', '.join(tables)}")
    train = tables["train"]
    task = subset if subset in GLUE_COLUMNS and set(GLUE_COLUMNS[subset]) <= set(train.columns) else None
    columns = text_columns or (GLUE_COLUMNS[task] if task else _only_text_column(train, label_column))
    labels = find_labels(
        train, label_column, problem_type or (REGRESSION if task == "stsb" else None), known_labels
    )
    if eval_fraction:
        _check_before_drawing(train, columns, label_column, labels)
        tables = _hold_back(tables, eval_fraction, seed)
    if test_file is not None:
        tables["test"].column(label_column)  # the user means it to be scored
    secret = [name for name, table in tables.items() if name.startswith("test") and hidden(table, label_column)]

    def split(table: Table, limit: int | None) -> Split:
        return tokenize(table.head(limit), tokenizer, columns, label_column, labels, max_length)

    def scored(kind: str) -> dict[str, Split]:
        names = [name for name in tables if name.startswith(kind) and name not in secret]
        return {name: split(tables[name], max_eval_samples) for name in names}

    return Splits(
        train=split(tables["train"], max_train_samples),
        evaluation=scored("validation"),
        test=scored("test"),
        labels=labels,
        text_columns=columns,
        label_column=label_column,
        task=task,
        notes=[f"{name}: labels are hidden, not scored" for name in secret],
    )


def _read(
    dataset: str | None, subset: str | None, files: dict[str, str], columns: tuple[str, ...] | None
) -> tuple[dict[str, Table], str | None]:
    """The tables by split, and the subset that was read."""
    if "train" in files:
        return {name: read_file(path, columns) for name, path in files.items()}, None
    if files:
        raise MinitrainError("--eval_file and --test_file go with --train_file")
    if dataset is None:
        raise MinitrainError("there is no data: pass --dataset or --train_file")
    subset = "mrpc" if dataset == GLUE_REPOSITORY and subset is None else subset
    return load_tables(dataset, subset), subset


def _only_text_column(table: Table, label_column: str) -> tuple[str, ...]:
    texts = [
        name
        for name in table.columns
        if name != label_column and all(type(v) is str for v in table.column(name)[:1])
    ]
    if len(texts) != 1:
        raise MinitrainError(
            f"{table.source}: pass --text_columns a or a,b (and --label_column); the columns are "
            f"{', '.join(table.columns)}"
        )
    return (texts[0],)


def _check_before_drawing(table: Table, text_columns: tuple[str, ...], label_column: str, labels: Labels) -> None:
    """Find bad values while rows still have their numbers. `find_labels` has seen the classes."""
    for name in text_columns:
        check_texts(table.column(name)[:], table.source, name, first_row=1)
    if labels.names is None:
        scores(table, label_column)


def _hold_back(tables: dict[str, Table], fraction: float, seed: int) -> dict[str, Table]:
    """Take an evaluation table out of the training rows."""
    if any(name.startswith("validation") for name in tables):
        raise MinitrainError("--eval_fraction splits the training data, but there is evaluation data already")
    train = tables["train"]
    count = round(fraction * len(train))
    if not 0 < count < len(train):
        raise MinitrainError(f"--eval_fraction {fraction} of {len(train)} rows is {count}; expected some, not all")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).tolist()
    held = {"train": train.select(sorted(order[count:])), "validation": train.select(sorted(order[:count]))}
    return tables | held
