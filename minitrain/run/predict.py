"""Predict labels for new texts: rows of a file, or lines of standard input as they arrive.

Rows are predicted in windows of whole batches, sorted by length within the window: little more padding than sorting
all rows, and the first results come early. A window's start depends only on the batch size, so a resumed prediction
has the bits of an uninterrupted one.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from fnmatch import fnmatch
from itertools import accumulate, chain, pairwise, repeat, takewhile
from pathlib import Path

import torch
from torch import Tensor

from minitrain.config.inference_config import PredictConfig
from minitrain.config.read_options import files_of
from minitrain.data.load import tokenize, unknown_warning
from minitrain.data.progress import progress
from minitrain.data.subsample import check_texts_of
from minitrain.data.tables.table import Table
from minitrain.distributed.world import world_from_environment
from minitrain.errors import MinitrainError, listed, naming_os_errors
from minitrain.run.input_lines import LineParser, arriving, opened, whole_lines
from minitrain.run.length_notes import counts_of, length_notes
from minitrain.run.output_file import OutputFile, output_file
from minitrain.run.output_rows import RowWriter, kept_columns
from minitrain.run.run_folder import CALIBRATION, RESULTS
from minitrain.run.saved_run import SavedRun, load_run, print_notes, read_rows
from minitrain.storage.files import is_device, sha256_of
from minitrain.storage.hub import MODEL_FILES
from minitrain.training.evaluation import predict

# Batches in the first windows; later ones are like the last. For 20,000 texts with log-normal lengths (sigma 0.7)
# windows of 64 batches pad to 7% more tokens than a single window, windows of 256 to 2% more.
WINDOWS = (64, 128, 256)

FEW_UNKNOWN = 10  # unknown tokens that are not reported among many known ones

Add = Callable[[int], object]  # is told how many rows are done


def predict_run(config: PredictConfig) -> None:
    """Predict labels for the texts of a file or standard input, into a file or standard output.

    A file grows as OUTPUT.part and is renamed to OUTPUT when complete; `resume` continues an interrupted one.

    Raises:
        MinitrainError: Names the file and row that is wrong; or there are several processes.
    """
    if (size := world_from_environment().size) > 1:
        raise MinitrainError(f"labels for texts come from one process, not {size}: start without torchrun")
    _check_input(config.input)
    if config.resume and _is_complete(config):
        print(f"{config.output}: is complete; without --resume it is made again", file=sys.stderr)
        return
    by_line = config.input is None or is_device(config.input)  # standard input or a named pipe
    # Opened first, so that an output that cannot be written fails before the work.
    with output_file(config.output, None if by_line else lambda: _made_by(config), config.resume) as out:
        run = load_run(config)
        print_notes(config.run, *run.tokenizer.notes)
        predictor = _Predictor(config, run, out)
        predictor.predict_lines() if by_line else predictor.predict_file()
        predictor.print_counts()


def _check_input(name: str | None) -> None:
    if name is not None and os.path.isdir(name):
        files = listed(sorted(path.name for path in Path(name).iterdir() if path.is_file()))
        raise MinitrainError(f"--input {name}: is a folder; pass a file of texts ({files or 'it has none'})")


def _is_complete(config: PredictConfig) -> bool:
    """Whether OUTPUT exists, without a part file, and is newer than the model and the input."""
    output = Path(os.path.realpath(config.output or ""))
    if not output.is_file() or output.with_name(f"{output.name}.part").exists():
        return False
    sources = [*_model_files(config), *_input_files(config)]
    return all(path.exists() and path.stat().st_mtime <= output.stat().st_mtime for path in sources)


def _input_files(config: PredictConfig) -> list[Path]:
    return list(map(Path, files_of(config.input))) if config.input is not None else []


def _model_files(config: PredictConfig) -> list[Path]:
    patterns = (*MODEL_FILES, RESULTS, *([CALIBRATION] if config.calibrated else []))
    return sorted(path for path in Path(config.run).glob("*") if any(fnmatch(path.name, each) for each in patterns))


def _made_by(config: PredictConfig) -> dict[str, str]:
    """Everything that the bits of the output depend on, by names that a user knows."""
    paths = ("run", "input", "output", "resume")
    flags = {f"--{name}": repr(value) for name, value in asdict(config).items() if name not in paths}
    files = {f"{path.name} in the run": sha256_of(path) for path in _model_files(config)}
    data = {"--input": " ".join(map(sha256_of, _input_files(config)))}
    return {**data, **files, **flags, "version of torch": torch.__version__}


class _Predictor:
    """Predicts window by window, and counts what the user should know about the texts."""

    def __init__(self, config: PredictConfig, run: SavedRun, out: OutputFile) -> None:
        self.config, self.run, self.out = config, run, out
        self.writer = RowWriter(out, config.format, run.labels, calibration=run.calibration)
        self.counts: Counter[str] = Counter()

    def predict_file(self) -> None:
        """Predict all rows of a file, after checking all of them."""
        table, texts = self._table()
        check_texts_of(table, texts)
        self.writer.choose_columns(table, texts, self.config.keep_columns)
        if self.out.rows:
            print(f"{self.config.output}.part: resuming after {self.out.rows:,} rows", file=sys.stderr)
        with self._progress(f"labelling {table.source}", len(table)) as add:
            add(self.out.rows)
            for start, end in self._windows(len(table)):
                if start < self.out.rows:  # an interrupted prediction ended with a whole window
                    continue
                columns = {name: table.columns[name][start:end] for name in self.writer.columns or ()}
                part = replace(table, columns=columns)
                self.writer.write(part, self._logits(part, texts, start + 1, add), more=end < len(table))

    def _windows(self, total: int) -> Iterator[tuple[int, int]]:
        starts = takewhile(lambda start: start < total, accumulate(self._window_sizes(), initial=0))
        return pairwise([*starts, total])

    def _window_sizes(self) -> Iterator[int]:
        for batches in chain(WINDOWS, repeat(WINDOWS[-1])):
            yield batches * self.config.per_device_eval_batch_size

    def _table(self) -> tuple[Table, tuple[str, ...]]:
        name = self.config.input
        assert name is not None
        is_table = not name.lower().endswith(".txt") or self.config.delimiter is not None
        if self.config.input_format is None and is_table:
            texts = self.run.columns(self.config.text_columns)
            table = read_rows(self.config, name, texts, self.config, self.config.keep_columns != ("none",))
            for note in table.notes:
                print(note, file=sys.stderr)
            return table, tuple(table.find(text) or text for text in texts)
        with naming_os_errors(f"--input {name}: cannot be read"):
            lines = whole_lines(Path(name).read_bytes())
        parser = LineParser(name, self.config, self.run)
        table, found = parser.table(lines)
        if found is not None:
            raise found
        if not len(table):
            raise MinitrainError(f"{name}: has no texts; expected at least one line")
        return table, parser.text_columns

    def predict_lines(self) -> None:
        """Predict lines as they arrive; those before a bad line are written before the error is raised."""
        source = self.config.input or "standard input"
        parser, done = LineParser(source, self.config, self.run), 0
        with opened(self.config.input) as lines:
            for part in arriving(lines, self._window_sizes()):
                table, error = parser.table(part)
                if len(table):
                    self._write_lines(table, parser, done)
                    done += len(table)
                if error is not None:
                    raise error
        if not done:
            raise MinitrainError(f"{source}: has no texts; expected at least one line")

    def _write_lines(self, table: Table, parser: LineParser, done: int) -> None:
        asked = self.config.keep_columns or ("all",)
        if not done:
            # The first line's fields decide about --keep_columns, and are the columns of CSV.
            fields = {name: table.columns[name][:1] for name in parser.fields or table.columns}
            columns, _ = kept_columns(replace(table, columns=fields), parser.text_columns, asked)
            if self.config.format != "jsonl":
                self.writer.columns = tuple(columns)
        kept = {
            name: values
            for name, values in table.columns.items()
            if asked == ("all",) or name in asked or name in parser.text_columns
        }
        with self._progress(f"labelling {len(table):,} lines", len(table)) as add:
            part = replace(table, columns=kept)
            logits = self._logits(part, parser.text_columns, done + 1, add)
        self.writer.write(part, logits)

    def _progress(self, what: str, total: int) -> AbstractContextManager[Add]:
        """A progress bar, unless the output itself goes to the terminal."""
        return progress(what, total, silent=self.config.output is None and sys.stdout.isatty())

    def _logits(self, table: Table, texts: tuple[str, ...], first_row: int, add: Add) -> Tensor:
        """(rows, C) logits of a window."""
        run = self.run
        length, join, long_texts = run.max_length, run.join, run.long_texts
        split = tokenize(table, run.tokenizer, texts, max_length=length, join=join, long_texts=long_texts)
        self.counts = counts_of([split], self.counts)
        for name in ("blank", "unknown", "text_tokens"):
            self.counts[name] += getattr(split, name)
        return predict(run.model, split, settings=run.eval_settings(self.config), on_rows=add, first_row=first_row)

    def print_counts(self) -> None:
        """Print how many texts were cut, blank or of unknown tokens."""
        rows, source = self.counts["rows"], self.config.input or "standard input"
        run = self.run
        print_notes(source, *length_notes(self.counts, run.max_length, run.long_texts, run.tokenizer))
        if blank := self.counts["blank"]:
            print_notes(source, f"{blank} of {rows} rows have a text with nothing in it")
        unknown, tokens = self.counts["unknown"], self.counts["text_tokens"]
        if unknown >= FEW_UNKNOWN or unknown > tokens / 4:  # a single emoji does not mean a wrong model
            print_notes(self.config.run, unknown_warning({source: (unknown, tokens)}))
