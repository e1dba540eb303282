"""A saved run, ready for use: its model, tokenizer and labels, and what its `results.json` remembers.

Any classifier in the Hub's layout will do; a run's folder also tells its own columns and length.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minitrain.config.inference_config import EvaluateConfig, PredictConfig
from minitrain.config.train_config import LENGTH_MULTIPLE
from minitrain.data.labels.ids import Labels, saved_labels
from minitrain.data.load import length_limit
from minitrain.data.tokenizer.tokenizer import Tokenizer, load_tokenizer
from minitrain.distributed.world import World, choose_device
from minitrain.errors import MinitrainError, listed
from minitrain.model.classifier import SequenceClassifier
from minitrain.model.weights import load_classifier, names_or_default, trained_labels
from minitrain.run.run_folder import RESULTS
from minitrain.storage.files import read_json
from minitrain.storage.model_folder import what_it_holds


@dataclass(frozen=True, kw_only=True)
class SavedRun:
    """A saved classifier with its tokenizer, and what its `results.json` remembers ({} without one)."""

    directory: Path
    model: SequenceClassifier
    tokenizer: Tokenizer
    labels: Labels
    facts: dict[str, Any]
    max_length: int
    join: str | None = None  # what stands between its text columns, where they make one text

    @property
    def text_columns(self) -> tuple[str, ...] | None:
        """The columns it was trained on: one, or two for pairs."""
        columns = self.facts.get("text_columns")
        return tuple(columns) if columns else None

    @property
    def pairs(self) -> bool | None:
        """Whether it was trained on pairs of texts; None where nothing says so."""
        return None if self.text_columns is None else len(self.text_columns) == 2 and self.join is None

    def columns(self, asked: tuple[str, ...] | None) -> tuple[str, ...]:
        """The columns of a table that hold the texts. asked: by --text_columns.

        Raises MinitrainError where nothing says which, or they are not as many as it was trained on.
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


def load_run(
    directory: str | Path,
    device: str,
    kernels: str,
    max_length: int | None,
    world: World | None = None,
    join: str | None = None,
) -> SavedRun:
    """Load a saved run onto a device.

    join: what stands between the text columns that make one text; by default as in training.
    Raises MinitrainError where the folder is not there or not whole.
    """
    named = directory = Path(directory)
    if not (directory / "config.json").is_file():
        if directory.is_dir():
            raise MinitrainError(what_it_holds(directory).replace("--model ", ""))  # a run is named without a flag
        raise MinitrainError(
            f"{directory}: holds no saved model (no config.json); give a folder that train.py saved"
        )
    directory = directory.resolve()  # a run in a folder called demo is no demo
    if trained_labels(directory) is None:
        raise MinitrainError(f"{directory}: holds no trained head, only an encoder; fine-tune it first")
    model = load_classifier(directory, kernels=kernels).to(choose_device(device, world or World()))
    tokenizer = load_tokenizer(directory)
    tokenizer.check_fits(model.config.vocab_size, directory)
    facts = read_json(directory / RESULTS) if (directory / RESULTS).is_file() else {}
    remembered = None if max_length is not None else facts.get("max_length")
    return SavedRun(
        directory=named,
        model=model,
        tokenizer=tokenizer,
        labels=saved_labels(None if model.config.is_regression else names_or_default(model.config), facts),
        facts=facts,
        max_length=remembered or length_limit(max_length, tokenizer, model.config.max_length),
        join=facts.get("join") if join is None else join,
    )


def remark(source: str, *notes: str | None) -> None:
    """Say on standard error what a user should know of a source; nothing for None."""
    for note in notes:
        if note is not None:
            print(f"{source}: {note}", file=sys.stderr)


def pad_multiple(config: EvaluateConfig | PredictConfig, run: SavedRun) -> int | None:
    """What lengths are padded to: as in training, where that does not exceed the positions.

    None where padding stands on the left: there it moves the words, and with them the answers.
    """
    fits = run.model.config.max_length % LENGTH_MULTIPLE == 0 and run.tokenizer.padding_side == "right"
    return LENGTH_MULTIPLE if config.bf16 and config.kernels == "fast" and fits else None
