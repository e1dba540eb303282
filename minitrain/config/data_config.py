"""`DataConfig`: the settings of data that training, evaluation and `load_splits` share."""

from dataclasses import dataclass

from minitrain.config.label_map import read_label_map
from minitrain.config.long_texts import LONG_TEXTS, MAX_WINDOWS, POOLINGS, LongTexts, check_windows
from minitrain.config.options import check_columns, check_label_flags, flag
from minitrain.config.problem_types import PROBLEM_TYPES
from minitrain.config.read_options import Files, ReadOptions
from minitrain.errors import MinitrainError

GLUE_REPOSITORY = "nyu-mll/glue"  # the default dataset, with the subset mrpc
LABEL = "label"  # the column of the labels by default
SAMPLES = ("random", "first")


@dataclass(frozen=True, kw_only=True)
class DataConfig(ReadOptions):
    """The data of a run: a dataset or files, their columns, and which rows to use. Each field is a flag."""

    dataset: str | None = flag(
        None, "Hub id, local folder, or 'demo' (embedded movie reviews); by default nyu-mll/glue"
    )
    subset: str | None = flag(
        None, "configuration of the dataset, e.g. a GLUE task; for nyu-mll/glue mrpc by default"
    )
    dataset_revision: str | None = flag(None, "branch, tag or commit of a dataset on the Hub")
    train_file: Files | None = flag(
        None, "own training data: .csv, .tsv, .json, .jsonl or .parquet; several as a,b or 'folder/*.csv'"
    )
    eval_file: Files | None = flag(None, "own evaluation data, with the same columns")
    test_file: Files | None = flag(None, "own test data, evaluated once, after training")
    text_columns: tuple[str, ...] | None = flag(None, "one column, or two (a pair): a,b or a JSON list of names")
    join: str | None = flag(None, "join the text columns to one text with this between them, e.g. ' '")
    label_column: str | None = flag(None, "column of the labels; by default 'label'")
    label_columns: tuple[str, ...] | None = flag(None, "several labels a text: a column of 0 and 1 for each, a,b,c")
    label_separator: str | None = flag(None, "several labels a text: split one text, such as 'a,b', at this")
    eval_fraction: float = flag(
        0.0, "fraction of the training data to hold out for evaluation, stratified", bounds=(0.0, 1.0)
    )
    label_map: dict[str, str] | None = flag(
        None, 'other names for labels, in all splits: 0=good,1=bad, or a .json file with {"0": "good", ...}'
    )
    positive_label: str | None = flag(
        None,
        "the class that f1, precision, recall, roc_auc and so on are about; by default the second of two",
    )
    problem_type: str | None = flag(None, "what the labels are; by default inferred from the data", PROBLEM_TYPES)
    long_texts: str = flag(
        "head", "of texts longer than --max_length, read the head, tail, both, or all in windows", LONG_TEXTS
    )
    stride: int | None = flag(
        None, "tokens that neighbouring windows share; by default a quarter of a window", bounds=(0, None)
    )
    max_windows: int | None = flag(None, "windows of a text to read", bounds=(1, None), shown=MAX_WINDOWS)
    window_pooling: str | None = flag(None, "a text's logits from its windows'", POOLINGS, shown=POOLINGS[0])
    group_column: str | None = flag(None, "column, e.g. of patients, whose equal values stay in one of --folds")
    max_train_samples: int | None = flag(None, "use only this many training examples", bounds=(1, None))
    max_eval_samples: int | None = flag(None, "use only this many examples of each other split", bounds=(1, None))
    sample: str = flag("random", "examples that --max_*_samples keeps", SAMPLES)
    seed: int = flag(42, "for the new head, dropout, order and choice of examples", bounds=(0, 2**63 - 1))

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "label_map", read_label_map(self.label_map))
        if self.text_columns is not None:
            check_columns(self.text_columns, self.join)
        check_label_flags(self.label_column, self.label_columns, self.label_separator, self.problem_type)
        if self.dataset is not None and self.train_file is not None:
            raise MinitrainError("--dataset and --train_file name two sets of data: pass one")
        if self.subset is not None and (self.dataset == "demo" or self.train_file is not None):
            raise MinitrainError(f"--subset {self.subset}: only a dataset on the Hub or in a folder has subsets")
        if self.dataset_revision is not None and self.train_file is not None:
            raise MinitrainError("--dataset_revision needs a dataset on the Hub; --train_file has no revision")
        check_windows(self.long_texts, self.stride, self.max_windows, self.window_pooling)

    @property
    def long_text_options(self) -> LongTexts:
        """What becomes of texts that are too long."""
        return LongTexts(
            long_texts=self.long_texts,
            stride=self.stride,
            max_windows=self.max_windows,
            window_pooling=self.window_pooling,
        )
