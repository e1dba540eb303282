"""A saved run, loaded for use: model, tokenizer, labels, and what its `results.json` remembers.

Any classifier in the Hub's layout will do; a run's folder also knows its text columns and maximum length.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from minitrain.config.inference_config import InferenceConfig
from minitrain.config.long_texts import LongTexts
from minitrain.config.optimization import LENGTH_MULTIPLE
from minitrain.config.read_options import Files, ReadOptions
from minitrain.data.labels.ids import Labels, saved_labels
from minitrain.data.load import length_limit
from minitrain.data.tables.load import read_file
from minitrain.data.tables.table import Table
from minitrain.data.tokenizer.tokenizer import Tokenizer, load_tokenizer
from minitrain.distributed.device import choose_device
from minitrain.distributed.world import World
from minitrain.errors import MinitrainError, listed
from minitrain.kernels.precision import check_precision
from minitrain.model.classifier import SequenceClassifier
from minitrain.model.weights import load_classifier, names_or_default, trained_labels
from minitrain.run.calibration import load_calibration
from minitrain.run.run_folder import read_results
from minitrain.storage.model_folder import what_it_holds
from minitrain.training.calibration import Calibration
from minitrain.training.evaluation import EvalSettings


@dataclass(frozen=True, kw_only=True)
class SavedRun:
    """A saved classifier with its tokenizer; `run_info` holds `results.json`, {} without one."""

    directory: Path
    model: SequenceClassifier
    tokenizer: Tokenizer
    labels: Labels
    run_info: dict[str, Any]
    max_length: int
    long_texts: LongTexts = LongTexts()
    join: str | None = None  # joins several text columns to one text
    calibration: Calibration | None = None  # with --calibrated

    @property
    def trained_config(self) -> dict[str, Any]:
        """The settings of its training; {} if unknown."""
        return dict(self.run_info.get("config") or {})

    @property
    def text_columns(self) -> tuple[str, ...] | None:
        """The columns it was trained on: one, or two for pairs; None if unknown."""
        columns = self.run_info.get("text_columns")
        return tuple(columns) if columns else None

    @property
    def metrics(self) -> tuple[str, ...] | None:
        """Those that its training asked for; None for the default ones."""
        names = self.trained_config.get("metrics")
        return tuple(names) if names else None

    @property
    def pairs(self) -> bool | None:
        """Whether it was trained on pairs of texts; None if unknown."""
        return None if self.text_columns is None else len(self.text_columns) == 2 and self.join is None

    def columns(self, asked: tuple[str, ...] | None) -> tuple[str, ...]:
        """The text columns of a table: those of --text_columns (`asked`), or the run's.

        Raises:
            MinitrainError: No columns are known, or their number is not the one it was trained on.
        """
        columns = asked or self.text_columns
        if columns is None:
            raise MinitrainError(
                f"{self.directory}: does not say which columns hold its texts; pass --text_columns"
            )
        if self.text_columns is not None and self.join is None and len(columns) != len(self.text_columns):
            takes = "pairs of texts" if self.pairs else "single texts"
            raise MinitrainError(
                f"--text_columns {','.join(columns)}: {self.directory} was trained on {takes} "
                f"({listed(self.text_columns)}); name {'two columns' if self.pairs else 'one'}"
            )
        return columns

    def eval_settings(self, config: InferenceConfig) -> EvalSettings:
        """How `evaluate` and `predict` form batches: lengths are padded as in training.

        Not if that exceeds the positions, or on the left, where it shifts the tokens and changes the results.
        """
        fits = self.model.config.max_length % LENGTH_MULTIPLE == 0 and self.tokenizer.padding_side == "right"
        half = config.bf16 or config.fp16
        multiple = LENGTH_MULTIPLE if half and config.kernels == "fast" and fits else None
        size = config.per_device_eval_batch_size
        return EvalSettings(batch_size=size, bf16=config.bf16, fp16=config.fp16, pad_to_multiple_of=multiple)


def load_run(config: InferenceConfig, world: World | None = None) -> SavedRun:
    """Load the saved run `config.run` onto a device.

    Raises:
        MinitrainError: The folder is missing or incomplete.
    """
    directory = Path(config.run)
    if not (directory / "config.json").is_file():
        if directory.is_dir():
            raise MinitrainError(what_it_holds(directory).replace("--model ", ""))  # a run is named without a flag
        raise MinitrainError(
            f"{directory}: holds no saved model (no config.json); give a folder that train.py saved"
        )
    source = directory.resolve()  # a run in a folder called "demo" is not the demo
    if trained_labels(source) is None:
        raise MinitrainError(f"{source}: holds no trained head, only an encoder; fine-tune it first")
    device = choose_device(config.device, world or World())
    check_precision(config, device)
    model = load_classifier(source, kernels=config.kernels).to(device)
    tokenizer = load_tokenizer(source)
    tokenizer.check_fits(model.config.vocab_size, source)
    run_info = read_results(source)
    remembered = None if config.max_length is not None else run_info.get("max_length")
    names = None if model.config.is_regression else names_or_default(model.config)
    labels = saved_labels(names, run_info, model.config.is_multi_label)
    return SavedRun(
        directory=directory,
        model=model,
        tokenizer=tokenizer,
        labels=labels,
        run_info=run_info,
        max_length=remembered or length_limit(config.max_length, tokenizer, model.config.max_length),
        long_texts=long_texts_of(config, run_info),
        join=run_info.get("join") if config.join is None else config.join,
        calibration=load_calibration(directory, labels) if config.calibrated else None,
    )


def long_texts_of(config: InferenceConfig, run_info: Mapping[str, Any]) -> LongTexts:
    """What becomes of too long texts: as in training, but for what the flags say.

    Raises:
        MinitrainError: A setting of windows is given, and neither the flags nor the run ask for windows.
    """
    trained = run_info.get("config") or {}
    names = [spec.name for spec in fields(LongTexts)]
    own = LongTexts(**{name: trained[name] for name in names if name in trained})
    return own.changed(**{name: getattr(config, name) for name in names})


def read_rows(
    config: InferenceConfig,
    file: Files | Sequence[str],
    columns: tuple[str, ...],
    reading: ReadOptions,
    others: bool,
) -> Table:
    """Read files with the run's columns; an error about a column also names the flags for other columns."""
    try:
        return read_file(file, columns, reading, others=others)
    except MinitrainError as error:
        names = ("text_columns", "label_columns" if getattr(config, "label_columns", None) else "label_column")
        flags = [f"--{name}" for name in names if getattr(config, name, "not a flag") is None]
        if not flags or not re.search("has no (column|field) ", str(error)):
            raise
        raise MinitrainError(
            f"{error}. {config.run} was trained on {listed(columns)}: pass {' and '.join(flags)} if the file "
            "names them differently"
        ) from error


def print_notes(source: str, *notes: str | None) -> None:
    """Print notes about a source to standard error; a None is skipped."""
    for note in notes:
        if note is not None:
            print(f"{source}: {note}", file=sys.stderr)
