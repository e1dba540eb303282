"""Dataset or files -> the texts that a run trains on, chooses by and is scored on; the table of GLUE's tasks."""

import filecmp
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

from minitrain.config.data_config import GLUE_REPOSITORY, DataConfig
from minitrain.config.options import check_label_column
from minitrain.config.problem_types import REGRESSION
from minitrain.config.read_options import Files, files_of
from minitrain.config.train_config import TrainConfig
from minitrain.data.labels.ids import Labels, hidden
from minitrain.data.labels.labels import find_labels
from minitrain.data.labels.notes import label_notes
from minitrain.data.labels.values import check_label_map
from minitrain.data.overlap import overlap_notes
from minitrain.data.subsample import Draw, check_texts_of, checksum
from minitrain.data.tables.in_memory import tables_in_memory
from minitrain.data.tables.load import load_tables, read_file
from minitrain.data.tables.table import Table
from minitrain.errors import MinitrainError

HALVES = ("train", "validation")  # of the training data, which --eval_fraction makes
LABEL = "label"  # the column of labels, where nothing else is said
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


@dataclass(frozen=True, kw_only=True)
class TextSplits:
    """What `Splits` is made of, as text: the tables of each kind of split, cut to the rows that are asked for."""

    train: Table
    evaluation: dict[str, Table]
    test: dict[str, Table]
    labels: Labels
    text_columns: tuple[str, ...]
    label_column: str
    task: str | None
    notes: list[str]
    commit: str | None  # of the Hub's repository
    held_out: str | None = None  # checksum of the rows that --eval_fraction holds back
    join: str | None = None  # what stands between the text columns, where they make one text


@dataclass(frozen=True, kw_only=True)
class Tables:
    """A dataset or files as they were read, whatever its labels are."""

    by_split: dict[str, Table]
    subset: str | None
    asked_for_test: bool  # the user named a test file, and means it to be scored


def read_tables(config: DataConfig) -> Tables:
    """Read the dataset that is named (a Hub id, a folder, "demo"), or the user's own files.

    Where the text columns are named, every row of JSON must have them and the label column. Raises
    MinitrainError naming file or flag, and row.
    """
    dataset, subset = config.dataset, config.subset
    files = {"train": config.train_file, "validation": config.eval_file, "test": config.test_file}
    own = {name: path for name, path in files.items() if path}
    if "train" in own:
        needed = (*config.text_columns, config.label_column or LABEL) if config.text_columns else None
        tables = {name: read_file(path, needed, config) for name, path in own.items()}
        subset = None
    elif own:
        raise MinitrainError("--eval_file and --test_file go with --train_file")
    elif dataset is None:
        raise MinitrainError("there is no data: pass --dataset or --train_file")
    else:
        subset = "mrpc" if dataset == GLUE_REPOSITORY and subset is None else subset
        tables = load_tables(dataset, subset, config.dataset_revision, config)
    if "train" not in tables:
        said = "; ".join(note for table in tables.values() for note in table.notes)
        raise MinitrainError(
            f"--dataset {dataset}: has no split 'train'; it has {', '.join(tables)}{said and f' ({said})'}; pass "
            "the file to train on as --train_file"
        )
    return Tables(by_split=_unfolded(tables, config), subset=subset, asked_for_test=config.test_file is not None)


def tables_of_data(config: DataConfig, train: Any, evaluation: Any = None, test: Any = None) -> Tables:
    """What `read_tables` gives, of data in memory (`memory.py`). Raises MinitrainError beside files."""
    if named := config.dataset or config.train_file or config.eval_file or config.test_file:
        raise MinitrainError(f"{named} and data in memory are two sets of data: pass one")
    needed = (*config.text_columns, config.label_column or LABEL) if config.text_columns else None
    tables = tables_in_memory(train, evaluation, test, needed)
    return Tables(by_split=_unfolded(tables, config), subset=None, asked_for_test=test is not None)


def _unfolded(tables: Mapping[str, Table], config: DataConfig) -> dict[str, Table]:
    inside = [*(config.text_columns or ()), config.label_column or LABEL]
    return {name: table.unfolded(inside) for name, table in tables.items()}


def read_rows(tables: Tables, config: DataConfig, known_labels: tuple[str, ...] | None = None) -> TextSplits:
    """Choose the rows of a run, and find out what their labels are.

    Without text columns in the configuration, the GLUE task's are taken, or the only column of text. known_labels:
    the classes of a trained head, whose order is kept.
    Raises MinitrainError naming file or flag, row and column.
    """
    label_column = config.label_column or LABEL
    by_split, train, subset = tables.by_split, tables.by_split["train"], tables.subset
    task = subset if subset in GLUE_COLUMNS and set(GLUE_COLUMNS[subset]) <= set(train.columns) else None
    label_column = train.find(label_column) or label_column
    columns = config.text_columns or (GLUE_COLUMNS[task] if task else _only_text_column(train, label_column))
    columns = tuple(train.find(name) or name for name in columns)
    check_label_column(label_column, columns)
    problem_type = config.problem_type or (REGRESSION if task == "stsb" else None)
    check_label_map(list(by_split.values()), label_column, config.label_map)
    labels = find_labels(
        train,
        label_column,
        problem_type,
        known_labels,
        label_map=config.label_map,
        positive_label=config.positive_label,
    )
    notes = label_notes(by_split, label_column, labels)
    draw = Draw(config, columns, label_column, labels)
    held_out = None
    if config.eval_fraction:
        by_split = draw.hold_back(by_split)
        held_out = checksum(by_split["validation"], (*columns, label_column))
    if tables.asked_for_test:
        by_split["test"].column(label_column)
    secret = [
        name for name, table in by_split.items() if name.startswith("test") and hidden(table, label_column, labels)
    ]

    def scored(kind: str) -> dict[str, Table]:
        names = [name for name in by_split if name.startswith(kind) and name not in secret]
        return {name: draw.sample(name, by_split[name], config.max_eval_samples) for name in names}

    used = draw.sample("train", by_split["train"], config.max_train_samples, training=True)
    evaluation, test = scored("validation"), scored("test")
    return TextSplits(
        train=used,
        evaluation=evaluation,
        test=test,
        labels=labels,
        text_columns=columns,
        label_column=label_column,
        task=task,
        notes=[
            *notes,
            *draw.notes,
            *dict.fromkeys(note for table in tables.by_split.values() for note in table.notes),
            *overlap_notes(used, evaluation | test, columns, label_column),
            *(f"{name}: labels are hidden, not scored" for name in secret),
            *unused_splits(by_split),
        ],
        commit=train.commit,
        held_out=held_out,
        join=config.join,
    )


def unused_splits(by_split: Mapping[str, Table]) -> list[str]:
    """A line on each split that is neither trained on nor scored, as its name says nothing of that."""
    return [
        f"split {name}: {len(table)} rows, not used; what runs are scored on is called validation or test"
        for name, table in by_split.items()
        if name != "train" and not name.startswith(("validation", "test"))
    ]


def tables_of(config: TrainConfig) -> Tables:
    """The data that a run names, MRPC where it names none. Raises MinitrainError as `read_tables`."""
    return read_tables(with_default_data(config))


def choose_splits(config: TrainConfig, tables: Tables, known_labels: tuple[str, ...] | None) -> TextSplits:
    """The rows of a run, as text. known_labels: as of `read_rows`.

    Raises MinitrainError as `read_rows`; also where there should be evaluation data and is none.
    """
    rows = read_rows(tables, config, known_labels)
    if not rows.evaluation and config.eval_strategy != "no":
        way = "pass --eval_file, or" if config.train_file else f"the splits are {', '.join(tables.by_split)}; pass"
        raise MinitrainError(
            f"there is no evaluation data: {way} --eval_fraction 0.1 to hold some of the training data back, or "
            "--eval_strategy no"
        )
    if config.do_eval:
        return rows
    kept = {name: table for name, table in rows.test.items() if tables.asked_for_test}
    left = {name: table for name, table in (rows.evaluation | rows.test).items() if name not in kept}
    notes = [f"{name}: {len(table)} rows, not scored (--do_eval scores them)" for name, table in left.items()]
    return replace(rows, evaluation={}, test=kept, notes=[*rows.notes, *notes])


def rows_of_saved_run(facts: Mapping[str, Any], known_labels: tuple[str, ...] | None) -> TextSplits:
    """The rows of a run again, from what its `results.json` remembers.

    known_labels: the classes of its model. Raises MinitrainError as `read_rows`, where the rows that it held back
    have changed since, and where it does not say how they were drawn.
    """
    settings, fallback = facts["config"], "the rows with its answers are in its predictions.jsonl"
    if facts.get("held_out") is None:
        raise MinitrainError(
            "the run does not say which rows it held back, as those of earlier versions did not: pass --eval_file"
        )
    options = {spec.name: settings[spec.name] for spec in fields(DataConfig) if spec.name in settings}
    plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}
    config = DataConfig(**plain | {"max_train_samples": None, "max_eval_samples": None})  # sampled once more later
    rows = read_rows(read_tables(config), config, known_labels)
    if rows.held_out != facts["held_out"]:
        raise MinitrainError(
            f"{rows.train.source}: has changed since the run; the rows that it held back were {facts['held_out']} "
            f"(checksum), and are {rows.held_out} now; {fallback}, for --eval_file with --label_column label"
        )
    return rows


def draw_as(settings: Mapping[str, Any], text_columns: tuple[str, ...], label_column: str, labels: Labels) -> Draw:
    """What draws samples as the run of these settings did; runs of earlier versions took the first rows."""
    sample = settings.get("sample", "first" if settings else "random")
    return Draw(DataConfig(sample=sample, seed=settings.get("seed", 42)), text_columns, label_column, labels)


def trained_on(
    settings: Mapping[str, Any], file: Files | None, dataset: str | None, split: str | None
) -> str | None:
    """What to say where the data to be scored, as evaluate.py is told it, are those of the run's training."""
    own = settings.get("train_file") or ()
    if file is not None:
        pairs = product([own] if isinstance(own, str) else own, files_of(file))
        found = next((other for path, other in pairs if _same_file(path, other)), None)
        same, where, most = found is not None, found, "most of " if settings.get("eval_fraction") else ""
    else:
        same, where, most = split == "train" and dataset in (None, settings.get("dataset")), "split train", ""
    if not same:
        return None
    return (
        f"{where}: the run was trained on {most}these rows; the values say how well it knows them, not what it "
        "makes of new ones"
    )


def _same_file(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other) or filecmp.cmp(path, other, shallow=False)
    except OSError:
        return False


def join_texts(table: Table, columns: tuple[str, ...], join: str | None) -> tuple[Table, tuple[str, ...]]:
    """A table in which the text columns are one text, and the name of its column; blank ones are left out.

    ("refund", "", "please") with " " -> "refund please". Without `join`, or with one column, all stays as it is.
    Raises MinitrainError naming row and column of what is no text.
    """
    if join is None or len(columns) == 1:
        return table, columns
    check_texts_of(table, columns)
    rows = zip(*(table.column(name)[:] for name in columns), strict=True)
    texts = [join.join(text for text in row if text and not text.isspace()) for row in rows]
    name = " + ".join(columns)
    return replace(table, columns={**table.columns, name: texts}), (name,)


def with_default_data(config: TrainConfig) -> TrainConfig:
    """The configuration with MRPC in it where it names no data: results say what was trained on."""
    if config.train_file is None and config.dataset in (None, GLUE_REPOSITORY):
        return replace(config, dataset=GLUE_REPOSITORY, subset=config.subset or "mrpc")
    return config


def _only_text_column(table: Table, label_column: str) -> tuple[str, ...]:
    texts = [
        name
        for name, values in table.columns.items()
        if name != label_column and all(type(value) is str for value in values[:1])
    ]
    if len(texts) > 1:  # a field that some rows lack is no text to train on, if there is another
        texts = [name for name in texts if name not in table.gaps] or texts
    if len(texts) != 1:
        missing = "" if table.find(label_column) else f"has no column {label_column!r} of labels; "
        ways = "pass --text_columns a or a,b (and --label_column); the columns are"
        raise MinitrainError(f"{table.source}: {missing}{ways} {table.names_shown()}")
    return (texts[0],)
