"""Dataset or files -> the rows that a run trains on, chooses by and is scored on; and the table of GLUE's tasks.

Still text: `data.py` tokenizes.
"""

from dataclasses import dataclass, replace

from minitrain.config import TrainConfig
from minitrain.data_config import GLUE_REPOSITORY, DataConfig
from minitrain.encoder_config import REGRESSION
from minitrain.errors import MinitrainError
from minitrain.label_notes import label_notes
from minitrain.label_values import check_label_map
from minitrain.labels import Labels, find_labels, hidden, scores
from minitrain.overlap import overlap_notes
from minitrain.tables import Table, load_tables, read_file
from minitrain.tokenizer import check_texts

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
class Rows:
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
        raise MinitrainError(f"--dataset {dataset}: has no split 'train'; it has {', '.join(tables)}")
    inside = [*(config.text_columns or ()), config.label_column or LABEL]
    tables = {name: table.unfolded(inside) for name, table in tables.items()}
    return Tables(by_split=tables, subset=subset, asked_for_test=config.test_file is not None)


def read_rows(tables: Tables, config: DataConfig, known_labels: tuple[str, ...] | None = None) -> Rows:
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
    if config.eval_fraction:
        _check_before_drawing(train, columns, label_column, labels)
        by_split = _hold_back(by_split, config.eval_fraction, config.seed)
    if tables.asked_for_test:
        by_split["test"].column(label_column)
    secret = [
        name for name, table in by_split.items() if name.startswith("test") and hidden(table, label_column, labels)
    ]

    def scored(kind: str) -> dict[str, Table]:
        names = [name for name in by_split if name.startswith(kind) and name not in secret]
        return {name: by_split[name].head(config.max_eval_samples) for name in names}

    used = by_split["train"].head(config.max_train_samples)
    evaluation, test = scored("validation"), scored("test")
    return Rows(
        train=used,
        evaluation=evaluation,
        test=test,
        labels=labels,
        text_columns=columns,
        label_column=label_column,
        task=task,
        notes=[
            *notes,
            *dict.fromkeys(note for table in tables.by_split.values() for note in table.notes),
            *overlap_notes(used, evaluation | test, columns, label_column),
            *(f"{name}: labels are hidden, not scored" for name in secret),
        ],
        commit=train.commit,
    )


def tables_of(config: TrainConfig) -> Tables:
    """The data that a run names, MRPC where it names none. Raises MinitrainError as `read_tables`."""
    return read_tables(with_default_data(config))


def chosen_rows(config: TrainConfig, tables: Tables, known_labels: tuple[str, ...] | None) -> Rows:
    """The rows of a run, as text. known_labels: as of `read_rows`.

    Raises MinitrainError as `read_rows`; also where there should be evaluation data and is none.
    """
    rows = read_rows(tables, config, known_labels)
    if not rows.evaluation and config.eval_strategy != "no":
        raise MinitrainError(
            "there is no evaluation data: pass --eval_file, or --eval_fraction 0.1 to hold some of the training "
            "data back, or --eval_strategy no"
        )
    return rows


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
        raise MinitrainError(
            f"{table.source}: pass --text_columns a or a,b (and --label_column); the columns are "
            f"{table.names_shown()}"
        )
    return (texts[0],)


def _check_before_drawing(table: Table, text_columns: tuple[str, ...], label_column: str, labels: Labels) -> None:
    """Find bad values while rows still have their numbers. `find_labels` has seen the classes."""
    for name in text_columns:
        values = table.column(name)
        for source, first_row, rows in table.pieces(len(table)):
            check_texts(values[rows], source, name, first_row)
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
    import torch

    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).tolist()
    held = {"train": train.select(sorted(order[count:])), "validation": train.select(sorted(order[:count]))}
    return tables | held
