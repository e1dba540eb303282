"""Dataset or files -> the texts that a run trains on and is scored on, and the columns of the GLUE tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from minitrain.config.data_config import GLUE_REPOSITORY, LABEL, DataConfig
from minitrain.config.options import check_label_column
from minitrain.config.problem_types import REGRESSION
from minitrain.config.train_config import TrainConfig
from minitrain.data.check.short import short_check
from minitrain.data.dataset import SplitsInfo
from minitrain.data.labels.ids import Labels, hidden
from minitrain.data.labels.infer import infer_labels
from minitrain.data.labels.label_columns import name_of_columns, with_label_columns
from minitrain.data.labels.notes import label_notes
from minitrain.data.labels.values import check_label_map
from minitrain.data.subsample import Subsampler, check_texts_of, checksum
from minitrain.data.tables.in_memory import tables_in_memory
from minitrain.data.tables.load import load_tables, read_file
from minitrain.data.tables.table import Table
from minitrain.errors import MinitrainError

Config = TypeVar("Config", bound=DataConfig)
HALVES = ("train", "validation")  # what --eval_fraction makes of the training data
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
class TextSplits(SplitsInfo):
    """What `Splits` is made of, as text: the tables of each kind of split, cut to the rows that are used."""

    train: Table
    evaluation: dict[str, Table]
    test: dict[str, Table]


@dataclass(frozen=True, kw_only=True)
class Tables:
    """A dataset or files as they were read, whatever the labels are."""

    by_split: dict[str, Table]
    subset: str | None
    asked_for_test: bool  # the user named a test file, which must be scored


def read_tables(config: DataConfig) -> Tables:
    """Read the dataset that is named (a Hub id, a folder, "demo"), or the user's own files.

    If text columns are named, every row of JSON must have them and the label column.

    Raises:
        MinitrainError: Names the file or flag, and the row.
    """
    dataset, subset = config.dataset, config.subset
    files = {"train": config.train_file, "validation": config.eval_file, "test": config.test_file}
    own = {name: path for name, path in files.items() if path}
    if "train" in own:
        tables = {name: read_file(path, _needed(config, name), config) for name, path in own.items()}
    elif own:
        raise MinitrainError("--eval_file and --test_file go with --train_file")
    elif dataset is None:
        raise MinitrainError("there is no data: pass --dataset or --train_file")
    else:
        subset = "mrpc" if dataset == GLUE_REPOSITORY and subset is None else subset
        tables = load_tables(dataset, subset, config.dataset_revision, config)
    if "train" not in tables:
        said = "; ".join([", ".join(tables), *(note for table in tables.values() for note in table.notes)])
        raise MinitrainError(f"--dataset {dataset}: has no split 'train'; it has {said}; pass --train_file FILE")
    return _unfolded(tables, config, subset, config.test_file is not None)


def tables_of_data(config: DataConfig, train: Any, evaluation: Any = None, test: Any = None) -> Tables:
    """What `read_tables` gives, for data in memory. Raises MinitrainError if files are named too."""
    if named := config.dataset or config.train_file or config.eval_file or config.test_file:
        raise MinitrainError(f"{named} and data in memory are two sets of data: pass one")
    tables = tables_in_memory(train, evaluation, test, _needed(config), _needed(config, "train"))
    return _unfolded(tables, config, None, test is not None)


def _needed(config: DataConfig, split: str = "") -> tuple[str, ...] | None:
    """The columns that every row of a split must have, if the user names the texts."""
    groups = (config.group_column,) if config.group_column and split == "train" else ()
    return (*config.text_columns, *_label_columns(config), *groups) if config.text_columns else None


def _label_columns(config: DataConfig) -> tuple[str, ...]:
    return config.label_columns or (config.label_column or LABEL,)


def _unfolded(tables: Mapping[str, Table], config: DataConfig, subset: str | None, tested: bool) -> Tables:
    names = [*(config.text_columns or ()), *_label_columns(config)]
    by_split = {name: table.unfolded(names) for name, table in tables.items()}
    return Tables(by_split=by_split, subset=subset, asked_for_test=tested)


def text_splits(tables: Tables, config: DataConfig, known_labels: tuple[str, ...] | None = None) -> TextSplits:
    """Choose the rows of a run, and find out what their labels are.

    Without named text columns, those of the GLUE task are used, or the only column of text. known_labels: The
    classes of a trained head, whose order is kept. Raises MinitrainError naming the file or flag, row and column.
    """
    by_split, task = tables.by_split, glue_task(tables)
    columns, label_column = find_columns(by_split["train"], config, task)
    if config.label_columns is not None:
        by_split = with_label_columns(by_split, config.label_columns)
    labels = _labels(by_split, label_column, config, task, known_labels)
    notes = label_notes(by_split, label_column, labels)
    sampler = Subsampler(config, columns, label_column, labels)
    if config.eval_fraction:
        by_split = sampler.hold_back(by_split)
    for name in _label_columns(config) if tables.asked_for_test else ():
        by_split["test"].column(name)  # raises if it is missing
    tests = [name for name in by_split if name.startswith("test")]
    secret = [name for name in tests if hidden(by_split[name], label_column, labels)]
    used = sampler.sample("train", by_split["train"], config.max_train_samples, training=True)
    scored = {
        kind: {
            name: sampler.sample(name, table, config.max_eval_samples)
            for name, table in by_split.items()
            if name.startswith(kind) and name not in secret
        }
        for kind in ("validation", "test")
    }
    notes += [*sampler.notes, *dict.fromkeys(note for table in tables.by_split.values() for note in table.notes)]
    notes += short_check(used, scored["validation"] | scored["test"], columns, label_column, labels, config)
    notes += [f"{name}: labels are hidden, not scored" for name in secret]
    return TextSplits(
        train=used,
        evaluation=scored["validation"],
        test=scored["test"],
        labels=labels,
        text_columns=columns,
        label_column=label_column,
        task=task,
        notes=notes + unused_splits(by_split),
        commit=by_split["train"].commit,
        held_out=checksum(by_split["validation"], (*columns, label_column)) if config.eval_fraction else None,
        join=config.join,
    )


def _labels(
    tables: Mapping[str, Table],
    column: str,
    config: DataConfig,
    task: str | None,
    known_labels: tuple[str, ...] | None,
) -> Labels:
    """What the labels of the training table are."""
    check_label_map(list(tables.values()), column, config.label_map, config.label_separator)
    return infer_labels(
        tables["train"],
        column,
        config.problem_type or (REGRESSION if task == "stsb" else None),
        known_labels,
        label_map=config.label_map,
        positive_label=config.positive_label,
        separator=config.label_separator,
    )


def glue_task(tables: Tables) -> str | None:
    """The GLUE task that a dataset is, by its subset and columns."""
    columns = GLUE_COLUMNS.get(tables.subset or "")
    return tables.subset if columns and set(columns) <= set(tables.by_split["train"].columns) else None


def find_columns(train: Table, config: DataConfig, task: str | None) -> tuple[tuple[str, ...], str]:
    """The names of the text columns and the label column, as the table writes them."""
    own = [train.find(name) or name for name in _label_columns(config)]
    others = (*own, train.find(config.group_column or ""))
    columns = config.text_columns or (GLUE_COLUMNS[task] if task else _only_text_column(train, own, others))
    columns = tuple(train.find(name) or name for name in columns)
    for name in own:
        check_label_column(name, columns)
    return columns, own[0] if config.label_columns is None else name_of_columns(config.label_columns)


def unused_splits(by_split: Mapping[str, Table]) -> list[str]:
    """A note for each split that is neither trained on nor scored because of its name."""
    return [
        f"split {name}: {len(table)} rows, not used; scored splits are called validation or test"
        for name, table in by_split.items()
        if name != "train" and not name.startswith(("validation", "test"))
    ]


def choose_splits(config: TrainConfig, tables: Tables, known_labels: tuple[str, ...] | None) -> TextSplits:
    """The splits of a training run, as text; without --do_eval, only what the user asked to score.

    Raises:
        MinitrainError: As `text_splits`, or there is no evaluation data although --eval_strategy needs some.
    """
    texts = text_splits(tables, config, known_labels)
    if not texts.evaluation and config.eval_strategy != "no":
        way = "pass --eval_file, or" if config.train_file else f"the splits are {', '.join(tables.by_split)}; pass"
        raise MinitrainError(
            f"there is no evaluation data: {way} --eval_fraction 0.1 to hold some of the training data back, or "
            "--eval_strategy no"
        )
    if config.do_eval:
        return texts
    kept = {name: table for name, table in texts.test.items() if tables.asked_for_test}
    left = {name: table for name, table in (texts.evaluation | texts.test).items() if name not in kept}
    notes = [f"{name}: {len(table)} rows, not scored (--do_eval scores them)" for name, table in left.items()]
    return replace(texts, evaluation={}, test=kept, notes=[*texts.notes, *notes])


def join_texts(table: Table, columns: tuple[str, ...], join: str | None) -> tuple[Table, tuple[str, ...]]:
    """The table with its text columns joined to one, and that column's name; blank texts are left out.

    ("refund", "", "please") with " " gives "refund please". Without `join`, or with one column, nothing changes.
    Raises MinitrainError naming the row and column of a value that is not text.
    """
    if join is None or len(columns) == 1:
        return table, columns
    check_texts_of(table, columns)
    rows = zip(*(table.column(name)[:] for name in columns), strict=True)
    texts = [join.join(text for text in row if text and not text.isspace()) for row in rows]
    name = " + ".join(columns)
    return replace(table, columns={**table.columns, name: texts}), (name,)


def with_default_data(config: Config) -> Config:
    """The configuration with MRPC filled in if it names no data, so that results say what was trained on."""
    if config.train_file is None and config.dataset in (None, GLUE_REPOSITORY):
        return replace(config, dataset=GLUE_REPOSITORY, subset=config.subset or "mrpc")
    return config


def _only_text_column(
    table: Table, label_columns: Sequence[str], others: tuple[str | None, ...]
) -> tuple[str, ...]:
    first = {name: values[:1] for name, values in table.columns.items() if name not in others}
    texts = [name for name, values in first.items() if all(type(value) is str for value in values)]
    if len(texts) > 1:  # prefer a field that no row lacks
        texts = [name for name in texts if name not in table.gaps] or texts
    if len(texts) != 1:
        columns = f"{table.source}: the columns are {table.names_shown()}"
        what = columns if table.find(label_columns[0]) else table.lacks(label_columns[0])
        raise MinitrainError(f"{what}; pass --text_columns a or a,b (and --label_column)")
    return (texts[0],)
