"""Labels for new texts: rows of a file, or lines of standard input as they come; with all that the rows hold.

Rows are taken in windows of whole batches, sorted by length inside: little more padding than if all were sorted,
and answers that come while the rest waits. Where a window begins depends on nothing but the batch size, so that a
prediction which goes on where it was interrupted has the bits of one that never was.
"""

import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from fnmatch import fnmatch
from itertools import chain, repeat
from pathlib import Path

import torch

from minitrain.config.inference_config import PredictConfig
from minitrain.config.read_options import files_of
from minitrain.data.load import tokenize, unknown_warning
from minitrain.data.progress import progress
from minitrain.data.subsample import check_texts_of
from minitrain.data.tables.load import read_file
from minitrain.data.tables.table import Table
from minitrain.distributed.world import world_from_environment
from minitrain.errors import MinitrainError, listed
from minitrain.run.input_lines import LineParser, arriving, opened, whole_lines
from minitrain.run.output_file import RecordFile, record_file
from minitrain.run.output_rows import Records, kept_columns
from minitrain.run.run_folder import RESULTS
from minitrain.run.saved_run import SavedRun, load_run, pad_multiple, remark
from minitrain.storage.files import is_device, sha256_of
from minitrain.storage.hub import MODEL_FILES
from minitrain.training.evaluation import predict

# Batches of the first windows; all others are as the last. Of 20,000 texts with log-normal lengths (sigma 0.7)
# windows of 64 batches have 7% more tokens than one of all, of 256 2%.
WINDOWS = (64, 128, 256)

A_FEW = 10  # unknown tokens, of which nothing is said where there are others

Add = Callable[[int], object]  # told of rows that are done


def predict_run(config: PredictConfig) -> None:
    """Label texts from a file or standard input, writing records to a file or standard output.

    A file grows as OUTPUT.part and becomes OUTPUT when all rows are there; `resume` goes on with one that was
    interrupted. Raises MinitrainError naming file and row, and in several processes.
    """
    if (size := world_from_environment().size) > 1:
        raise MinitrainError(f"labels for texts come from one process, not {size}: start without torchrun")
    _check_input(config.input)
    if config.resume and _is_complete(config):
        print(f"{config.output}: is complete; without --resume it is made anew", file=sys.stderr)
        return
    by_line = _is_stream(config)
    # Opened before the work is done: a place that cannot be written shows at once.
    with record_file(config.output, None if by_line else lambda: _made_by(config), config.resume) as out:
        run = load_run(config.run, config.device, config.kernels, config.max_length, join=config.join)
        remark(config.run, *run.tokenizer.notes)
        labeller = _Labeller(config, run, out)
        labeller.stream() if by_line else labeller.file()
        labeller.tell_counts()


def _check_input(name: str | None) -> None:
    if name is not None and os.path.isdir(name):
        files = listed(sorted(path.name for path in Path(name).iterdir() if path.is_file()))
        raise MinitrainError(f"--input {name}: is a folder; pass a file of texts ({files or 'it has none'})")


def _is_stream(config: PredictConfig) -> bool:
    """Whether lines come one by one: on standard input, or by a pipe that has a name."""
    return config.input is None or is_device(config.input)


def _is_complete(config: PredictConfig) -> bool:
    """Whether the file is there, no part of it, and newer than what it is made of."""
    output = Path(os.path.realpath(config.output or ""))
    if not output.is_file() or output.with_name(f"{output.name}.part").exists():
        return False
    sources = [*_model_files(config.run), *_input_files(config)]
    return all(path.exists() and path.stat().st_mtime <= output.stat().st_mtime for path in sources)


def _input_files(config: PredictConfig) -> list[Path]:
    return list(map(Path, files_of(config.input))) if config.input is not None else []


def _model_files(run: str) -> list[Path]:
    patterns = (*MODEL_FILES, RESULTS)
    return sorted(path for path in Path(run).glob("*") if any(fnmatch(path.name, each) for each in patterns))


def _made_by(config: PredictConfig) -> dict[str, str]:
    """What the bits of the records depend on, by names that tell a user where to look."""
    paths = ("run", "input", "output", "resume")
    flags = {f"--{name}": repr(value) for name, value in asdict(config).items() if name not in paths}
    files = {f"{path.name} in the run": sha256_of(path) for path in _model_files(config.run)}
    data = {"--input": " ".join(map(sha256_of, _input_files(config)))}
    return {**data, **files, **flags, "version of torch": torch.__version__}


class _Labeller:
    """A prediction under way."""

    def __init__(self, config: PredictConfig, run: SavedRun, out: RecordFile) -> None:
        self.config, self.run, self.out = config, run, out
        self.records = Records(format=config.format, labels=run.labels)
        self.counts: Counter[str] = Counter()

    def file(self) -> None:
        """Label the rows of a file, which are all checked before."""
        table, texts = self._table()
        check_texts_of(table, texts)
        columns, note = kept_columns(table, texts, self.config.keep_columns)
        remark(table.source, note)
        self.records = self.records.of_columns(columns)
        if self.out.rows:
            print(f"{self.config.output}.part: going on after {self.out.rows:,} rows", file=sys.stderr)
        with self._progress(f"labelling {table.source}", len(table)) as add:
            add(self.out.rows)
            for start, end in self._windows(len(table)):
                if start < self.out.rows:  # of an interrupted prediction, which ended with a window
                    continue
                part = {name: table.columns[name][start:end] for name in columns}
                text = self._labelled(replace(table, columns=part), texts, start + 1, add)
                header = self.records.header() if start == 0 else ""
                self.out.write(header + text, end - start, more=end < len(table))

    def _windows(self, total: int) -> Iterator[tuple[int, int]]:
        start = 0
        for size in self._window_sizes():
            if start >= total:
                return
            yield start, min(start + size, total)
            start += size

    def _window_sizes(self) -> Iterator[int]:
        for batches in chain(WINDOWS, repeat(WINDOWS[-1])):
            yield batches * self.config.per_device_eval_batch_size

    def _table(self) -> tuple[Table, tuple[str, ...]]:
        name = self.config.input
        assert name is not None
        is_table = not name.lower().endswith(".txt") or self.config.delimiter is not None
        if self.config.input_format is None and is_table:
            texts = self.run.columns(self.config.text_columns)
            try:
                table = read_file(name, texts, self.config, others=self.config.keep_columns != ("none",))
            except MinitrainError as error:
                if self.config.text_columns is not None or not re.search("has no (column|field) ", str(error)):
                    raise
                raise MinitrainError(
                    f"{error}. The run was trained on {listed(texts)}: pass --text_columns"
                ) from error
            for said in table.notes:
                print(said, file=sys.stderr)
            texts = tuple(table.find(text) or text for text in texts)
            return table, texts
        try:
            lines = whole_lines(Path(name).read_bytes())
        except OSError as error:
            raise MinitrainError(f"--input {name}: cannot be read ({error.strerror or error})") from error
        parser = self._parser(name)
        table, found = parser.table(lines)
        if found is not None:
            raise found
        if not len(table):
            raise MinitrainError(f"{name}: has no texts; expected at least one line")
        return table, parser.text_columns

    def _parser(self, source: str) -> LineParser:
        asked = self.config.text_columns
        return LineParser(
            source,
            format=self.config.input_format,
            columns=self.run.columns(asked) if asked or self.run.text_columns else None,
            asked=asked is not None,
            pairs=self.run.pairs,
            one_header=self.config.format != "jsonl" and self.config.keep_columns in (None, ("all",)),
        )

    def stream(self) -> None:
        """Label lines as they come. Those before a line that is wrong are answered before the error names it."""
        source = self.config.input or "standard input"
        parser, answered = self._parser(source), 0
        with opened(self.config.input) as lines:
            for part in arriving(lines, self._window_sizes()):
                table, error = parser.table(part)
                if len(table):
                    self._answer(table, parser, first=answered == 0, row=answered + 1)
                    answered += len(table)
                if error is not None:
                    raise error
        if not answered:
            raise MinitrainError(f"{source}: has no texts; expected at least one line")

    def _answer(self, table: Table, parser: LineParser, first: bool, row: int) -> None:
        if first:
            self._keep(table, parser)
        shown = {name: values for name, values in table.columns.items() if self._is_kept(name, parser)}
        with self._progress(f"labelling {len(table):,} lines", len(table)) as add:
            text = self._labelled(replace(table, columns=shown), parser.text_columns, row, add)
        self.out.write((self.records.header() if first else "") + text, len(table))

    def _keep(self, table: Table, parser: LineParser) -> None:
        """Settle, by the first row, what records of lines have."""
        asked = self.config.keep_columns or ("all",)
        fields = {name: table.columns[name][:1] for name in parser.fields or table.columns}
        columns, _ = kept_columns(replace(table, columns=fields), parser.text_columns, asked)
        if self.config.format != "jsonl":
            self.records = self.records.of_columns(columns)

    def _is_kept(self, name: str, parser: LineParser) -> bool:
        asked = self.config.keep_columns
        return name in parser.text_columns or asked is None or asked == ("all",) or name in asked

    def _progress(self, what: str, total: int) -> AbstractContextManager[Add]:
        """Silent where the records themselves move on the terminal."""
        on_terminal = self.config.output is None and sys.stdout.isatty()
        return progress(what, total, silent=on_terminal)

    def _labelled(self, table: Table, texts: tuple[str, ...], first_row: int, add: Add) -> str:
        """The records of a window as text."""
        run, config = self.run, self.config
        split = tokenize(table, run.tokenizer, texts, max_length=run.max_length, join=run.join)
        self.counts += Counter(
            rows=len(split),
            truncated=split.truncated,
            blank=split.blank,
            unknown=split.unknown,
            tokens=split.text_tokens,
        )
        logits = predict(
            run.model,
            split,
            batch_size=config.per_device_eval_batch_size,
            bf16=config.bf16,
            pad_to_multiple_of=pad_multiple(config, run),
            on_rows=add,
            first_row=first_row,
        )
        return self.records.lines(table, logits)

    def tell_counts(self) -> None:
        """Say what the user may not know of the texts."""
        rows, source = self.counts["rows"], self.config.input or "standard input"
        if cut := self.counts["truncated"]:
            remark(source, f"{cut} of {rows} rows are longer than {self.run.max_length} tokens and were cut")
        if blank := self.counts["blank"]:
            remark(source, f"{blank} of {rows} rows have a text with nothing in it")
        unknown, tokens = self.counts["unknown"], self.counts["tokens"]
        if unknown >= A_FEW or unknown > tokens / 4:  # one emoji in a line is no wrong model
            remark(self.config.run, unknown_warning({source: (unknown, tokens)}))
