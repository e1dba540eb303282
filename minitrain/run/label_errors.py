"""Labels that are probably wrong: `label_errors.jsonl`, worst first, facts for `results.json`, and a table.

They are found among the rows that a run predicted without training on them: with --folds all training rows, else
those of evaluation and test. How, is in `training/label_errors.py`.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from minitrain.config.inference_config import same_file
from minitrain.config.label_errors_config import LabelErrorsConfig
from minitrain.data.labels.notes import in_table, plain
from minitrain.distributed.world import World
from minitrain.errors import MinitrainError, naming_os_errors
from minitrain.run.load_data import trained_on
from minitrain.run.output_file import check_writable
from minitrain.run.predicted_rows import PredictedRows, read_predictions, records_at
from minitrain.run.report import say
from minitrain.run.run_folder import LABEL_ERRORS, PREDICTIONS, read_results
from minitrain.storage.files import whole_text_file
from minitrain.training.label_errors import estimated_noise, find_label_errors, label_quality

TOP = 10  # rows on the console
MANY = 0.2  # share of the rows from which the model is to be doubted rather than the labels
PAIRS, PAIRS_SHOWN = 20, 3  # of a label and what it should be, in results.json and on the console
LEFT_OUT = ("seed", "fold", "label", "prediction", "probability", "probabilities")  # of a prediction
KEYS = ("suggested", "score")  # added; a text column of the same name is called input_<name>


@dataclass(frozen=True)
class LabelErrors:
    """What was found.

    Attributes:
        rows: All rows that were looked at.
        records: The rows with a label that is probably wrong, worst first, as in `label_errors.jsonl`.
        facts: As in `results.json`.
    """

    rows: PredictedRows
    records: list[dict[str, Any]]
    facts: dict[str, Any]


def search(rows: PredictedRows) -> LabelErrors:
    """Find the rows whose label is probably wrong.

    A record has the split and file (if several), the row's number from 1, its texts, its label, the label that the
    model suggests (lists, if rows have several), and the score: from 0, surely wrong, to 1.
    """
    wrong, scores = (
        find_label_errors(rows.labels, rows.probabilities),
        label_quality(rows.labels, rows.probabilities),
    )
    found = (wrong.any(1) if wrong.ndim == 2 else wrong).nonzero()[:, 0]
    found = found[scores[found].argsort(stable=True)]
    if wrong.ndim == 2:
        better = (rows.labels == 1) ^ wrong
        suggested: list[Any] = [[rows.names[i] for i in row.nonzero()[:, 0].tolist()] for row in better[found]]
    else:
        suggested = [rows.names[i] for i in rows.probabilities[found].argmax(1).tolist()]
    predicted = records_at([rows.lines[row] for row in found.tolist()])
    records = []
    for record, suggestion, score in zip(predicted, suggested, scores[found].tolist(), strict=True):
        place = {
            f"input_{key}" if key in KEYS else key: value for key, value in record.items() if key not in LEFT_OUT
        }
        records.append({**place, "label": record["label"], "suggested": suggestion, "score": score})
    return LabelErrors(rows, records, _facts(rows, len(found)))


def _facts(rows: PredictedRows, count: int) -> dict[str, Any]:
    """How many labels were found, and the share that is estimated to be wrong, in all and by pair."""
    noise, names = estimated_noise(rows.labels, rows.probabilities), rows.names
    pairs = _pairs_of_several(noise, names) if noise.ndim == 3 else _pairs(noise, names)
    pairs = sorted((pair for pair in pairs if pair["share"]), key=lambda pair: -pair["share"])
    decisions = len(names) if noise.ndim == 3 else 1  # a row
    return {
        "count": count,
        "rows": len(rows.labels),
        "share": count / len(rows.labels),
        "estimated_share": sum(pair["share"] for pair in pairs) / decisions,
        "pairs": pairs[:PAIRS],
    }


def _pairs(noise: Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"label": name, "suggested": other, "share": share}
        for name, line in zip(names, noise.tolist(), strict=True)
        for other, share in zip(names, line, strict=True)
        if other != name
    ]


def _pairs_of_several(noise: Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
    """A label that is missing is {"label": None, "suggested": name}, one too many the other way round."""
    pairs: list[dict[str, Any]] = []
    for name, (no, yes) in zip(names, noise.tolist(), strict=True):
        pairs += [{"label": None, "suggested": name, "share": no[1]}]
        pairs += [{"label": name, "suggested": None, "share": yes[0]}]
    return pairs


def write_label_errors(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON object a row; without any, an empty file."""
    with whole_text_file(path) as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def label_error_lines(found: LabelErrors, path: str | Path, top: int = TOP) -> list[str]:
    """The count, how many labels the model doubts, and a table of the first rows."""
    facts, rows = found.facts, " and ".join(f"{count} {plain(name)}" for name, count in found.rows.splits.items())
    if not found.records:
        return [f"labels that are probably wrong: none of {rows} rows", ""]
    pairs = [f"{_pair(pair)} in {round(pair['share'] * facts['rows'])}" for pair in facts["pairs"][:PAIRS_SHOWN]]
    lines = [
        f"labels that are probably wrong: {facts['count']} of {rows} rows ({facts['share']:.1%}), "
        f"worst first in {path}",
        f"  the model doubts {facts['estimated_share']:.1%} of all labels: {', '.join(pairs)} rows",
        "",
    ]
    if facts["share"] > MANY:
        lines.insert(2, "  so many are seldom wrong: a model that is trained longer may know the classes better")
    if top:
        lines += [*_table(found.records[:top]), ""]
    return lines


def _pair(pair: Mapping[str, Any]) -> str:
    label, suggested = pair["label"], pair["suggested"]
    if label is None:
        return f"'{plain(suggested)}' is missing"
    return f"'{plain(label)}' is too many" if suggested is None else f"'{plain(label)}' for '{plain(suggested)}'"


def _table(records: Sequence[Mapping[str, Any]]) -> list[str]:
    cells = [("score", "row", "label", "suggested", "text")]
    for record in records:
        place = [plain(str(record[key])) for key in ("split", "file") if key in record]
        texts = [str(value) for key, value in record.items() if key not in ("split", "file", "row", "label", *KEYS)]
        cells.append(
            (
                f"{record['score']:.4f}",
                ", ".join([*place, str(record["row"])]),
                _named(record["label"]),
                _named(record["suggested"]),
                " | ".join(plain(text, max(20, 60 // len(texts))) for text in texts),
            )
        )
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    return [
        f"  {row[0]:>{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]:<{widths[3]}}  {row[4]}"
        for row in cells
    ]


def _named(label: Any) -> str:
    return plain(", ".join(label) or "none") if isinstance(label, list) else in_table(label)


def search_folds(directory: Path, world: World, wanted: bool) -> tuple[dict[str, Any], list[str]]:
    """After --folds: write `label_errors.jsonl`; the facts in every process, lines to print in the main one."""
    facts: dict[str, Any] = {}
    lines: list[str] = []
    if wanted and world.is_main:
        try:
            found = search(read_predictions(directory))
        except MinitrainError as error:  # the runs are worth saving all the same
            lines = [f"labels are not searched for errors: {error}", ""]
        else:
            facts, path = {"label_errors": found.facts}, directory / LABEL_ERRORS
            write_label_errors(path, found.records)
            lines = label_error_lines(found, path)
    facts = json.loads(world.broadcast_text("label errors", json.dumps(facts)))
    return facts, lines


def label_errors_of_run(config: LabelErrorsConfig) -> dict[str, Any]:
    """Find label errors among the rows that a saved run predicted; write and print them, and return the facts.

    Raises:
        MinitrainError: The run has no predicted rows, or the file cannot be written.
    """
    directory = Path(config.run)
    if not directory.is_dir():
        raise MinitrainError(f"{directory}: is no folder; give one that train.py saved")
    path = directory / LABEL_ERRORS if config.output is None else Path(config.output)
    if same_file(str(path), str(directory / PREDICTIONS)):
        raise MinitrainError(f"--output {path}: holds the predictions themselves; name another file")
    check_writable(str(path), "output")
    settings = read_results(directory).get("config") or {}
    for name in ("eval_file", "test_file"):
        with suppress(MinitrainError):  # the files may be gone
            if settings.get(name) and trained_on(settings, settings[name], None, None):
                too = f"--{name} was trained on, too: the model has learned its wrong labels; --folds find them"
                print(f"WARNING  {too}", file=sys.stderr)
    found = search(read_predictions(directory, config.split))
    with naming_os_errors(f"--output {path}: cannot be written"):
        write_label_errors(path, found.records)
    say(*label_error_lines(found, path, config.show))
    return found.facts
