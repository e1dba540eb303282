"""The data of a run: read by another process while this one imports torch, or read again to be scored.

Reading and importing take a second or more each, and neither needs the other. The process is forked before torch is
imported; it reads the tables, waits to be told what the model's files say, tokenizes, hands over and ends. The
memory that reading needs, `datasets` above all, is then gone before training begins.
"""

import filecmp
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from minitrain.config.data_config import DataConfig
from minitrain.config.read_options import Files, files_of
from minitrain.config.train_config import TrainConfig
from minitrain.data.dataset import Splits
from minitrain.data.labels.ids import Labels
from minitrain.data.load import length_limit, tokenize_splits
from minitrain.data.splits import Tables, TextSplits, choose_splits, read_tables, text_splits, with_default_data
from minitrain.data.subsample import Subsampler
from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.errors import MinitrainError
from minitrain.storage.files import read_json
from minitrain.storage.hub import is_local, resolve_model

SMALL = 20_000  # rows
Request = tuple[Path, tuple[str, ...] | None, int]  # the checkpoint's folder, the classes of its head, the length


class SplitsSource(Protocol):
    """Gives the tokenized splits of a run."""

    def splits(self, source: Path, known_labels: tuple[str, ...] | None, max_length: int) -> Splits | None:
        """The splits, or None if the run must read them. Arguments as of `DataPrefetcher.splits`."""


class DataPrefetcher:
    """A process that reads the data of a run. It starts when this is made; see `prefetching`."""

    def __init__(self, config: TrainConfig) -> None:
        context = multiprocessing.get_context("fork")
        self._connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(config, theirs, self._connection), daemon=True)
        try:
            self.process.start()
        finally:
            theirs.close()

    def splits(self, source: Path, known_labels: tuple[str, ...] | None, max_length: int) -> Splits | None:
        """The splits of the run, or None if the process ended early: the caller then reads, and meets what it met.

        Args:
            source: The checkpoint's folder, for its tokenizer.
            known_labels: The classes of its head.

        Raises:
            MinitrainError: As reading and tokenizing do.
        """
        try:
            self._connection.send((source, known_labels, max_length))
            answer: Splits | MinitrainError = self._connection.recv()
        except (EOFError, OSError):
            return None
        if isinstance(answer, MinitrainError):
            raise answer
        return answer

    def end(self) -> None:
        """Stop the process, whatever it is doing."""
        self.process.terminate()
        self.process.join()
        self._connection.close()


@contextmanager
def prefetching(config: TrainConfig) -> Iterator[DataPrefetcher | None]:
    """Around a run, before torch is imported. Yields None if no process can be forked, or it would not help.

    Forking is for Linux, and for a process without threads. The processes of torchrun have no core to spare.
    """
    prefetcher = None
    alone = not config.has_several_runs  # whose data are read in another way
    if alone and sys.platform == "linux" and "torch" not in sys.modules and "RANK" not in os.environ:
        with suppress(OSError):  # too many processes
            prefetcher = DataPrefetcher(config)
    try:
        yield prefetcher
    finally:
        if prefetcher is not None:
            prefetcher.end()


def _serve(config: TrainConfig, connection: Connection, theirs: Connection) -> None:
    """Run in the forked process. theirs: the parent's end; if only the parent has it open, its death is noticed."""
    theirs.close()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches both processes; the parent reports it
    try:
        connection.send(_splits(config, connection))
    except MinitrainError as error:
        connection.send(MinitrainError(str(error)))  # subclasses take other arguments when they are unpickled
    except Exception:
        """The parent is gone, or will meet the same error."""


def _splits(config: TrainConfig, connection: Connection) -> Splits:
    tables: Any
    guess = None
    try:
        tables = read_tables(with_default_data(config))
        with suppress(MinitrainError):  # the request may differ from the guess
            guess = _guess(config, tables)
    except MinitrainError as error:
        tables = error
    request: Request = connection.recv()  # an error of the model comes before one of the data
    if isinstance(tables, MinitrainError):
        raise tables
    return guess[1] if guess is not None and guess[0] == request else _tokenize(config, tables, request)


def _guess(config: TrainConfig, tables: Tables) -> tuple[Request, Splits] | None:
    """The likely request and its answer, made while the parent imports torch: 5% of a short run's start.

    None for a model that is not local, without a plain number of positions, or for many rows.
    """
    if not is_local(config.model) or sum(map(len, tables.by_split.values())) > SMALL:
        return None
    source = resolve_model(config.model)
    positions = read_json(source / "config.json").get("max_position_embeddings")
    if not isinstance(positions, int):
        return None
    multiple = config.pad_to_multiple_of or 1
    request = source, None, length_limit(config.max_length, load_tokenizer(source), positions, multiple)
    return request, _tokenize(config, tables, request)


def _tokenize(config: TrainConfig, tables: Tables, request: Request) -> Splits:
    source, known_labels, max_length = request
    texts = choose_splits(config, tables, known_labels)
    return tokenize_splits(texts, load_tokenizer(source), max_length, config.long_text_options)


def saved_run_splits(run_info: Mapping[str, Any], known_labels: tuple[str, ...] | None) -> TextSplits:
    """The splits of a saved run, read again: `run_info` is its `results.json`.

    Raises:
        MinitrainError: As `text_splits`; the rows it held back have changed, or it does not say which they were.
    """
    settings = run_info["config"]
    if run_info.get("held_out") is None:
        raise MinitrainError(
            "the run does not say which rows it held back, as those of earlier versions did not: pass --eval_file"
        )
    options = {spec.name: settings[spec.name] for spec in fields(DataConfig) if spec.name in settings}
    config = DataConfig(**options | {"max_train_samples": None, "max_eval_samples": None})  # sampled later
    texts = text_splits(read_tables(config), config, known_labels)
    if texts.held_out != run_info["held_out"]:
        raise MinitrainError(
            f"{texts.train.source}: has changed since the run; the rows that it held back were "
            f"{run_info['held_out']} (checksum), and are {texts.held_out} now; the rows with its answers are in "
            "predictions.jsonl, for --eval_file with --label_column label"
        )
    return texts


def subsampler_of(
    settings: Mapping[str, Any], text_columns: tuple[str, ...], label_column: str, labels: Labels
) -> Subsampler:
    """Samples as the run of these settings did; runs of earlier versions took the first rows."""
    sample = settings.get("sample", "first" if settings else "random")
    return Subsampler(DataConfig(sample=sample, seed=settings.get("seed", 42)), text_columns, label_column, labels)


def trained_on(
    settings: Mapping[str, Any], file: Files | None, dataset: str | None, split: str | None, fold: bool = False
) -> str | None:
    """A warning if the data to be scored, as evaluate.py is told, are what the run was trained on.

    Args:
        fold: The run is one of --folds, which held out a part of its data.
    """
    own = settings.get("train_file") or ()
    known: str | None = None
    if file is not None:
        pairs = product([own] if isinstance(own, str) else own, files_of(file))
        known = next((other for path, other in pairs if _same_file(path, other)), None)
    elif split == "train" and dataset in (None, settings.get("dataset")):
        known = "split train"
    if known is None:
        return None
    most = "most of " if fold or file is not None and settings.get("eval_fraction") else ""
    most = "some of " if settings.get("max_train_samples") else most
    return (
        f"{known}: the run was trained on {most}these rows; the values say how well it knows them, not what it "
        "makes of new ones"
    )


def _same_file(path: str, other: str) -> bool:
    with suppress(OSError):
        return os.path.samefile(path, other) or filecmp.cmp(path, other, shallow=False)
    return False
