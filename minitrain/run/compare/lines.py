"""A comparison as lines of text: what differs, a table of metrics, a conclusion, and texts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minitrain.config.compare_config import CompareConfig
from minitrain.data.labels.notes import plain
from minitrain.run.compare.metrics import SHARES
from minitrain.run.compare.results import Compared, ComparedRuns, Comparison, SplitComparison
from minitrain.run.intervals import interval
from minitrain.run.report import as_json

ALPHA = 0.05  # a difference with a smaller p-value is called one
WIDE = 44  # characters of a setting, or of a run's name
TEXT = 160  # characters of a text
SEEDS = (
    "The intervals and p-values are about the rows alone. Another seed moves a metric too, on MRPC by 0.02\n"
    "(docs/quality.md): to see by how much, train both with --seeds and compare those."
)


def comparison_lines(
    config: CompareConfig,
    settings: Mapping[str, Sequence[Any]],
    costs: Mapping[str, Sequence[Any]],
    compared: Sequence[Comparison],
) -> list[str]:
    """All that compare.py prints."""
    names = short_names(config.runs)
    lines = _settings("settings that differ", settings, list(names.values()))
    lines += _settings("cost", costs, list(names.values()))
    for comparison in compared:
        first, second = (names[run] for run in comparison.runs)
        lines += [f"{second} against {first}", *(f"  {note}" for note in comparison.notes)]
        for split in comparison.splits:
            lines += ["", *_split_lines(split, (first, second), len(compared))]
        lines.append("")
    by_rows = any(split.metrics and not split.runs for one in compared for split in one.splits)
    return [*lines, SEEDS] if by_rows else lines[:-1]


def short_names(runs: Sequence[str]) -> dict[str, str]:
    """The last part of each path, or all of it where the last parts are not distinct.

    >>> short_names(["runs/a", "runs/b"])
    {'runs/a': 'a', 'runs/b': 'b'}
    """
    last = [Path(run).name for run in runs]
    distinct = len(set(last)) == len(last) and all(last)
    return {run: plain(name if distinct else run, WIDE) for run, name in zip(runs, last, strict=True)}


def _table(rows: Sequence[Sequence[str]], indent: int) -> list[str]:
    """Columns as wide as their widest cell, two blanks apart."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    pairs = [zip(row, widths, strict=True) for row in rows]
    return [" " * indent + "  ".join(cell.ljust(width) for cell, width in row).rstrip() for row in pairs]


def _settings(title: str, values: Mapping[str, Sequence[Any]], names: list[str]) -> list[str]:
    if not values:
        return []
    rows = [[name, *(_cell(value) for value in cells)] for name, cells in values.items()]
    head, *body = _table([[f"  {title}", *names], *([f"  {row[0]}", *row[1:]] for row in rows)], 0)
    return [head[2:].replace(title, f"{title}  ", 1), *body, ""]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return plain(", ".join(f"{name} {count}" for name, count in value.items()), WIDE)
    if isinstance(value, list | tuple):
        return plain(", ".join(map(str, value)), WIDE)
    return "none" if value is None else plain(str(value), WIDE)


def _split_lines(split: SplitComparison, names: tuple[str, str], others: int) -> list[str]:
    rows = f"{split.rows} rows in both" if split.metrics else "rows not compared"
    more = zip(names, split.only, strict=True)
    alone = [f"{count} more in {name} are left out" for name, count in more if count]
    lines = [f"  {split.split}: {', '.join([rows, *alone])}", *(f"  {note}" for note in split.notes)]
    table = [["metric", *names, "difference", "p", ""]]
    table += [_metric_row(metric) for metric in split.metrics.values()]
    table += [_runs_row(metric) for metric in split.runs.values()]
    table += [_saved_row(name, values, split) for name, values in split.saved.items()]
    lines += _table(table, 4) if len(table) > 1 else []
    if split.headline in split.metrics:
        lines += ["", f"  {conclusion(split.metrics[split.headline], names, split.rows, others)}"]
    if split.headline in split.runs:
        lines += ["", f"  {conclusion_of_runs(split.runs[split.headline], names, others)}"]
    for winner, won in enumerate(split.won):
        lines += _won_lines(won, names, winner, split)
    return lines


def _metric_row(metric: Compared) -> list[str]:
    values = [f"{value:.4f}{_between(own)}" for value, own in zip(metric.values, metric.intervals, strict=True)]
    difference = f"{metric.difference:+.4f}{_between(metric.interval)}"
    return [metric.name, *values, difference, *_tested(metric)]


def _runs_row(metric: ComparedRuns) -> list[str]:
    values = [f"{mean:.4f} ± {sd:.4f}" for mean, sd in zip(metric.means, metric.sds, strict=True)]
    difference = f"{metric.difference:+.4f} ± {metric.difference_sd:.4f}"
    return [f"{metric.name}, {metric.pairs} runs", *values, difference, *_tested(metric)]


def _saved_row(name: str, values: Sequence[Any], split: SplitComparison) -> list[str]:
    cells = []
    for value, examples in zip(values, split.examples, strict=True):
        if isinstance(value, Mapping):
            cells.append(f"{_number(value.get('mean'))} ± {_number(value.get('sd'))}")
        else:
            own = interval(value, examples) if name in SHARES.values() and examples and value is not None else None
            cells.append(_number(value) + _between(own))
    return [name, *cells, "not tested", "", ""]


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else "none"


def _between(bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None else f" ({bounds[0]:.4f} to {bounds[1]:.4f})"


def _tested(metric: Compared | ComparedRuns) -> list[str]:
    return ["none" if metric.p_value is None else p_text(metric.p_value), metric.test or ""]


def p_text(p_value: float) -> str:
    """A p-value with two digits that count.

    >>> p_text(0.04321), p_text(0.5), p_text(1e-9)
    ('0.043', '0.50', 'under 0.0001')
    """
    if p_value < 1e-4:
        return "under 0.0001"
    return f"{p_value:.2f}" if p_value >= 0.095 else f"{p_value:.3f}" if p_value >= 0.0095 else f"{p_value:.4f}"


def conclusion(metric: Compared, names: tuple[str, str], rows: int, others: int) -> str:
    """One sentence: which run is better by how much, or that the rows show no difference."""
    if metric.difference == 0:
        return f"no difference: both have the same {metric.name} on {rows} rows"
    second_is_better = (metric.difference > 0) != metric.lower_is_better
    better, low_high = names[second_is_better], metric.interval
    if low_high is not None and metric.difference < 0:
        low_high = (-low_high[1], -low_high[0])
    between = "" if low_high is None else f"95% interval {low_high[0]:.4f} to {low_high[1]:.4f}, "
    amount = f"by {abs(metric.difference):.4f} {metric.name} ({between}{_said(metric, others)})"
    if metric.p_value is None:
        return f"{better} is ahead {amount}: too few resamples have a value to test it"
    if (metric.p_holm or metric.p_value) < ALPHA:
        return f"{better} is better {amount}"
    return f"no difference that {rows} rows can show: {better} is ahead {amount}"


def conclusion_of_runs(metric: ComparedRuns, names: tuple[str, str], others: int) -> str:
    """One sentence about the means of several runs."""
    few = f"in {metric.pairs} pairs of runs"
    if metric.difference == 0:
        return f"no difference: the mean {metric.name} is the same {few}"
    better = names[(metric.difference > 0) != metric.lower_is_better]
    amount = f"by {abs(metric.difference):.4f} {metric.name} ± {metric.difference_sd:.4f} {few}"
    if metric.p_value is None:
        return f"{better} is ahead {amount}, which do not vary: nothing to test"
    said = f"{amount} ({_said(metric, others)})"
    if (metric.p_holm or metric.p_value) < ALPHA:
        return f"{better} is better {said}"
    return f"no difference that {metric.pairs} runs can show: {better} is ahead {said}"


def _said(metric: Compared | ComparedRuns, others: int) -> str:
    if metric.p_value is None:
        return "no p-value"
    name = (metric.test or "").replace(" of ", ",").split(",")[0]  # McNemar, bootstrap, paired t
    value = p_text(metric.p_value)
    said = f"{name} p {value}" if value.startswith("under") else f"{name} p = {value}"
    if others > 1 and metric.p_holm is not None:
        said += f"; {p_text(metric.p_holm)} corrected for {others} comparisons"
    return said


def _won_lines(won: Mapping[str, Any], names: tuple[str, str], winner: int, split: SplitComparison) -> list[str]:
    if not won["count"]:
        return []
    loser = names[1 - winner]
    scores = any(isinstance(row["label"], float) for row in won["rows"])
    what = f"where {names[winner]} is nearer to the score" if scores else f"that {names[winner]} alone gets right"
    how = f"where {loser} is further off" if scores else f"where {loser} was most certain"
    shown = f", those first {how}" if won["rows"] else ""
    noun = "row" if won["count"] == 1 else "rows"
    lines = ["", f"  {won['count']} {noun} {what}{shown}"]
    for row in won["rows"]:
        file = f"{plain(row['file'])}, " if "file" in row else ""
        answers = ", ".join(
            f"{name} says {_answer(answer)}" for name, answer in zip(names, row["predictions"], strict=True)
        )
        certain = f"by {row['certainty']:.4f}" if scores else f"certain to {row['certainty']:.2f}"
        lines.append(f"    {file}row {row['row']}, {_answer(row['label'])}: {answers} ({loser} {certain})")
        lines += [f"      {plain(name)}: {_text(text)}" for name, text in row["texts"].items()]
    return lines


def _answer(answer: Any) -> str:
    if isinstance(answer, tuple | list):
        return plain(", ".join(answer), 60) if answer else "no label"
    return f"{answer:.4f}" if isinstance(answer, float) else plain(str(answer))


def _text(text: Any) -> str:
    text = text if isinstance(text, str) else str(as_json(text))
    shown = plain(text[:TEXT], 10 * TEXT)  # an escape takes up to ten characters
    return shown if len(text) <= TEXT else f"{shown}..."
