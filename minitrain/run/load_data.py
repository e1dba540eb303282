"""The data of a run, read and tokenized by a process of its own while this one imports torch.

Each takes a second or more, and neither needs the other. The process is forked before torch is there, and is ready
at once; it reads the tables, waits to be told what the model's files say, tokenizes, hands over and ends. What
reading needs, `datasets` above all, then takes no memory beside the training.

Only torch can tell all that the model's files say. What they say of most models is easily guessed, so that a small
dataset is tokenized before the process is told, and once more where the guess was wrong.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

from minitrain.config.train_config import TrainConfig
from minitrain.data.dataset import Splits
from minitrain.data.load import length_limit, tokenize_rows
from minitrain.data.splits import Tables, choose_splits, tables_of
from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.errors import MinitrainError
from minitrain.storage.files import read_json
from minitrain.storage.hub import is_local, resolve_model

SMALL = 20_000  # rows: of more, the head start is nothing beside the time that they take
Request = tuple[Path, tuple[str, ...] | None, int]  # the checkpoint's folder, its known labels, the maximal length


class DataPrefetcher:
    """A process that reads the data of a run. It begins when this is made; see `prefetching`."""

    def __init__(self, config: TrainConfig) -> None:
        context = multiprocessing.get_context("fork")
        self._connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(config, theirs, self._connection), daemon=True)
        try:
            self.process.start()
        finally:
            theirs.close()

    def splits(self, source: Path, known_labels: tuple[str, ...] | None, max_length: int) -> Splits | None:
        """The splits of the run. source: the checkpoint's folder, for its tokenizer. known_labels: of its head.

        None where the process ended before it was done: whoever then reads meets what it met.
        Raises MinitrainError as reading and tokenizing do.
        """
        try:
            self._connection.send((source, known_labels, max_length))
            splits, message = self._connection.recv()
        except (EOFError, OSError):
            return None
        if message is not None:
            raise MinitrainError(message)
        return cast(Splits, splits)

    def end(self) -> None:
        """Whatever it is doing."""
        self.process.terminate()
        self.process.join()
        self._connection.close()


@contextmanager
def prefetching(config: TrainConfig) -> Iterator[DataPrefetcher | None]:
    """Around a run, before torch is imported. None where that does not help, or no process may be forked.

    Forking is for Linux, and for a process without threads. The processes of torchrun have no core to spare.
    """
    ahead = None
    if sys.platform == "linux" and "torch" not in sys.modules and "RANK" not in os.environ:
        try:
            ahead = DataPrefetcher(config)
        except OSError:  # too many processes
            ahead = None
    try:
        yield ahead
    finally:
        if ahead is not None:
            ahead.end()


def _serve(config: TrainConfig, connection: Connection, theirs: Connection) -> None:
    """In the process of its own. theirs: the other's end; open there alone, it tells that the other is gone."""
    theirs.close()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a terminal's goes to both processes, and one has words for it
    try:
        connection.send((_splits(config, connection), None))
    except MinitrainError as error:
        connection.send((None, str(error)))
    except Exception:
        """The other process is gone, or will meet the same."""


def _splits(config: TrainConfig, connection: Connection) -> Splits:
    error = guess = None
    try:
        tables = tables_of(config)
    except MinitrainError as found:
        error = found
    else:
        with suppress(MinitrainError):  # what is asked for instead may be in order
            guess = _guess(config, tables)
    request: Request = connection.recv()  # what is wrong with the model comes first
    if error is not None:
        raise error
    if guess is not None and guess[0] == request:
        return guess[1]
    source, known_labels, max_length = request
    return tokenize_rows(choose_splits(config, tables, known_labels), load_tokenizer(source), max_length)


def _guess(config: TrainConfig, tables: Tables) -> tuple[Request, Splits] | None:
    """What will be asked for, and the answer: a local model without a trained head, and all the positions it names.

    None where that cannot be, or would take long. Raises MinitrainError where it is wrong.
    """
    if not is_local(config.model) or sum(map(len, tables.by_split.values())) > SMALL:
        return None
    source = resolve_model(config.model)
    positions = read_json(source / "config.json").get("max_position_embeddings")
    if not isinstance(positions, int):
        return None
    tokenizer = load_tokenizer(source)
    max_length = length_limit(config.max_length, tokenizer, positions, config.pad_to_multiple_of or 1)
    return (source, None, max_length), tokenize_rows(choose_splits(config, tables, None), tokenizer, max_length)
