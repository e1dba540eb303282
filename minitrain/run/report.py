"""Console lines, `log.jsonl` and tables of metrics; sees numbers only, no model.

A terminal shows a progress bar; elsewhere plain lines appear, about one for each percent of the run.
"""

import base64
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from datetime import time as time_of_day
from pathlib import Path
from typing import Any

from tqdm import tqdm

from minitrain.data.labels.ids import display_names
from minitrain.data.labels.notes import in_table, plain
from minitrain.errors import naming_os_errors
from minitrain.run.intervals import SHARES, interval
from minitrain.run.run_folder import LOG, logged_lines
from minitrain.training.evaluation import Evaluation
from minitrain.training.loop import StepLog
from minitrain.training.metrics import OF_POSITIVE

MATRIX = "true / predicted"
CONSTANTS = {"micro_f1": "the most frequent labels", "subset_accuracy": "the most frequent combination"}


class Console:
    """The observer of a run: averages the step logs, prints them and writes `log.jsonl`.

    Args:
        directory: The run's folder, which exists; None in a process other than the main one, which prints nothing.
        logging_steps: Optimizer steps per line; by default 1% of the run.
        resume: Leave the existing log alone until `resume_from` says which of its lines to keep.
        positive: The name of the class that F1 is about.
        on_record: Told of each record that is logged.
    """

    def __init__(
        self,
        directory: Path | None,
        total_steps: int,
        logging_steps: int | None,
        resume: bool = False,
        positive: str | None = None,
        on_record: Callable[[Mapping[str, Any]], None] = lambda record: None,
    ) -> None:
        self.positive, self.on_record = positive, on_record
        self.total_steps = total_steps
        self.logging_steps = logging_steps or max(1, total_steps // 100)
        self.started = time.perf_counter()
        self.recent: list[StepLog] = []
        self.evaluations = 0
        self.evaluation_seconds = 0.0
        quiet = directory is None or not sys.stderr.isatty()
        self.bar = tqdm(total=total_steps, unit="step", dynamic_ncols=True, disable=quiet)
        self.path = directory and directory / f"{LOG}.part"
        self.first_step = 0
        if not resume:  # resuming may still be refused
            self._append("", "w")

    def resume_from(self, step: int) -> None:
        """Keep the lines of an earlier log up to this step; 0 starts a new log."""
        kept = []
        if step and self.path is not None:
            kept = [line for line in logged_lines(self.path.parent) if json.loads(line)["step"] <= step]
        self._append("".join(kept), "w")
        self.first_step = step
        self.bar.update(step - self.bar.n)

    def close(self) -> None:
        """Close the bar."""
        self.bar.close()

    def on_step(self, log: StepLog) -> None:
        """Count a step; print and log every `logging_steps`-th, the first and the last."""
        self.recent.append(log)
        self.bar.update()
        if log.step % self.logging_steps and log.step not in (1, self.total_steps):
            return
        logs, self.recent = self.recent, []
        record = _summary(logs)
        self._write({"event": "step", **record})
        if not self.bar.disable:  # tqdm shows steps and time
            self.bar.set_postfix_str(f"loss {record['loss']:.4f}, grad {record['grad_norm']:.2f}")
            return
        left = (self.total_steps - log.step) * self.training_seconds() / (log.step - self.first_step)
        skipped = f"  {log.skipped} skipped" if log.skipped else ""
        self._say(
            f"step {log.step:>5}/{self.total_steps}  epoch {log.epoch:.2f}  loss {record['loss']:.4f}  "
            f"grad {record['grad_norm']:.2f}  lr {log.learning_rate:.2e}  "
            f"{record['examples_per_second']:.0f} ex/s  pad {record['padding']:.1%}  {duration(left)} left{skipped}"
        )

    def on_evaluation(self, step: int, epoch: float, results: dict[str, Evaluation], is_best: bool) -> None:
        """Print and log one row per split, marking the best so far."""
        for name, result in results.items():
            self.evaluation_seconds += result.seconds
            self._write({"event": "evaluation", "step": step, "epoch": epoch, "split": name, **result.values})
            names = list(result.values)
            wide = 22 if len(names) <= 4 else 12
            heads = [v if v in result.own else metric_name(v, self.positive, wide - 1) for v in names]
            widths = [max(wide, len(head) + 2) if len(head) >= wide else wide for head in heads]
            columns = list(zip(heads, widths, strict=True))
            if self.evaluations == 0:
                self._say(f"{'evaluation':<24}" + "".join(f"{head:>{width}}" for head, width in columns))
            pairs = zip(names, widths, strict=True)
            values = "".join(f"{_short(result.values[value], width - 1):>{width}}" for value, width in pairs)
            mark = "  * best" if is_best and name == next(iter(results)) else ""
            self._say(f"{f'{name}, epoch {epoch:.2f}':<24}{values}{mark}")
            self.evaluations += 1

    def training_seconds(self) -> float:
        """Wall time so far, without evaluations."""
        return time.perf_counter() - self.started - self.evaluation_seconds

    def _say(self, line: str) -> None:
        if self.bar.disable:
            say(line, silent=self.path is None)
        else:
            self.bar.write(line)

    def _write(self, record: Mapping[str, Any]) -> None:
        record = as_json(record)
        self._append(json.dumps(record) + "\n")
        self.on_record(record)

    def _append(self, text: str, mode: str = "a") -> None:
        """Write to the log, opened each time so that a killed run keeps what it logged."""
        if self.path is None:
            return
        way_out = "; checkpoints are intact. Make room or choose another --output_dir"
        with naming_os_errors(f"{self.path}: cannot be written", way_out), self.path.open(mode) as file:
            file.write(text)


def _summary(logs: Sequence[StepLog]) -> dict[str, Any]:
    """The steps since the last line as one record: means, and the last step's learning rate."""
    seconds = sum(log.seconds for log in logs)
    last = logs[-1]
    return {
        "step": last.step,
        "epoch": last.epoch,
        "loss": sum(log.loss for log in logs) / len(logs),
        "grad_norm": _mean([log.grad_norm for log in logs]),
        "learning_rate": last.learning_rate,
        "examples_per_second": sum(log.examples for log in logs) / seconds,
        "padding": sum(log.padding for log in logs) / len(logs),
        **({"skipped_steps": last.skipped} if last.skipped else {}),
    }


def _mean(norms: Sequence[float]) -> float:
    """Of those that are finite: a step that overflows in fp16 has none."""
    finite = [norm for norm in norms if math.isfinite(norm)]
    return sum(finite) / len(finite) if finite else math.nan


def say(*lines: str, silent: bool = False) -> None:
    """Print lines, or a blank one, without delay even if standard output is a file."""
    if not silent:
        print(*lines, sep="\n", flush=True)


def duration(seconds: float) -> str:
    """Seconds as minutes and seconds.

    >>> duration(75.2)
    '1m15s'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def metric_name(name: str, positive: str | None, width: int = 60) -> str:
    """The name to print for a metric: f1 -> f1 of 'spam', at most `width` characters if the name leaves some."""
    if name not in OF_POSITIVE or positive is None:
        return name
    room = width - len(name) - len(" of ''")
    text = plain(positive, max(room, 13))
    return f"{name} of '{text}'" if len(text) <= room else name


def _short(value: float, width: int) -> str:
    """0.1235, or 1.2346e+09 if four decimals are wider than `width`."""
    return text if len(text := f"{value:.4f}") <= width else f"{value:.4e}"


def result_lines(
    split: str, result: Evaluation, baseline: float | Mapping[str, float] | None, positive: str | None = None
) -> list[str]:
    """The final metrics of a split.

    Args:
        baseline: What `evaluation.baseline` returns, printed beside the metrics that it has.
        positive: The name of the class that F1 and other metrics of `OF_POSITIVE` are about.
    """
    errors = baseline if isinstance(baseline, Mapping) else {}
    lines = [f"{split} ({result.examples} examples)"]
    for name, value in result.values.items():
        line = f"  {name:<22}{value:.4f}" if len(name) < 22 else f"  {name}  {value:.4f}"
        share = name in SHARES
        if name in result.own:
            pass  # a user's number under a built-in name: what is known of that does not hold
        elif share:
            low, high = interval(value, result.examples)
            line += f"   95% interval {low:.4f} to {high:.4f}"
            line += f"; always the majority class: {baseline:.4f}" if isinstance(baseline, float) else ""
        elif name in OF_POSITIVE and positive is not None:
            line += f"   of '{plain(positive)}'"
        if name in errors and name not in result.own:
            always = CONSTANTS.get(name, "the training mean")
            line += f"{';' if share else '  '} always {always}: {errors[name]:.4f}"
        lines.append(line)
    return lines


def class_table(result: Evaluation, names: Sequence[str] | None) -> list[str]:
    """Precision, recall and F1 of each class, then the confusion matrix; no lines for regression."""
    names = None if names is None else [in_table(name) for name in display_names(names)]
    if result.label_scores and names is not None:
        return _label_table(result, names)
    if result.confusion is None or names is None:
        return []
    width = max(len(name) for name in (*names, MATRIX)) + 2
    column = max(11, *(len(name) + 2 for name in names))
    lines = ["", f"{'class':<{width}}{'precision':>11}{'recall':>11}{'f1':>11}{'examples':>11}"]
    for name, (precision, recall, f1, support) in zip(names, result.confusion.precision_recall_f1(), strict=True):
        lines.append(f"{name:<{width}}{precision:>11.4f}{recall:>11.4f}{f1:>11.4f}{support:>11}")
    lines += ["", f"{MATRIX:<{width}}" + "".join(f"{name:>{column}}" for name in names)]
    for name, row in zip(names, result.confusion.counts.tolist(), strict=True):
        lines.append(f"{name:<{width}}" + "".join(f"{count:>{column}}" for count in row))
    return [f"  {line}".rstrip() for line in lines]


def _label_table(result: Evaluation, names: Sequence[str]) -> list[str]:
    """Precision, recall, F1 and average precision of each label, if a row may have several."""
    width = max(map(len, (*names, "label"))) + 2
    lines = ["", f"{'label':<{width}}{'precision':>11}{'recall':>11}{'f1':>11}{'average p.':>11}{'examples':>11}"]
    for name, score in zip(names, result.label_scores, strict=True):
        ranked = "-" if score.average_precision is None else f"{score.average_precision:.4f}"
        three = f"{score.precision:>11.4f}{score.recall:>11.4f}{score.f1:>11.4f}"
        lines.append(f"{name:<{width}}{three}{ranked:>11}{score.examples:>11}")
    return [f"  {line}".rstrip() for line in lines]


def label_values(result: Evaluation, names: Sequence[str]) -> dict[str, Any]:
    """The scores of each label by its name, in the form of `results.json`; {} unless rows may have several."""
    return {name: score._asdict() for name, score in zip(display_names(names), result.label_scores, strict=False)}


def as_json(value: Any) -> Any:
    """Convert a value for JSON: dates to ISO 8601, bytes to base64, NaN and infinity to null.

    >>> as_json({"when": date(2024, 5, 1), "score": float("nan")})
    {'when': '2024-05-01', 'score': None}
    """
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_json(item) for item in value]
    if isinstance(value, date | time_of_day):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    if hasattr(value, "tolist"):  # numpy
        return as_json(value.tolist())
    return str(value)  # decimals, durations


def finite_values(result: Evaluation) -> dict[str, Any]:
    """An evaluation in the form of `results.json`."""
    return {"examples": result.examples, **as_json(result.values)}
