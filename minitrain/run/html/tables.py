"""The tables and lists of a report."""

from collections.abc import Mapping, Sequence
from typing import Any

from minitrain.run.html.facts import Facts
from minitrain.run.html.markup import bar, name, number, table, text
from minitrain.run.html.scored import Row, ScoredSplit
from minitrain.run.intervals import SHARES, interval
from minitrain.training.metrics import OF_POSITIVE

MATRIX = 20  # classes of a confusion matrix, at most


def interval_of(facts: Facts, split: str, metric: str) -> str:
    """The 95% interval that results.json has; of a run that had none there, computed."""
    stored = facts.results.get("intervals")
    if stored is not None:
        found = stored.get(split, {}).get(metric)
        path: tuple[object, ...] = ("results", "intervals", split, metric)
    else:
        value, count = (facts.results["results"][split].get(key) for key in (metric, "examples"))
        found = interval(value, count) if metric in SHARES and value is not None and count else None
        path = ("interval", split, metric)
    return "" if found is None else " to ".join(number(end, *path, place) for place, end in enumerate(found))


def baseline_of(facts: Facts, split: str, metric: str) -> str:
    """What the best constant prediction gets, if the run knows."""
    found = facts.results.get("baseline", {}).get(split)
    if isinstance(found, dict):
        return number(found[metric], "results", "baseline", split, metric) if metric in found else ""
    return number(found, "results", "baseline", split) if metric == "accuracy" and found is not None else ""


def titled(metric: str, positive: str | None) -> str:
    """f1 -> f1 of 'spam'"""
    about = f" of {name(positive)}" if metric in OF_POSITIVE and positive is not None else ""
    return f"{name(metric)}{about}"


def metrics_table(facts: Facts, split: str) -> str:
    """Loss and metrics of a split, with interval and baseline."""
    values = {key: value for key, value in facts.results["results"][split].items() if key != "examples"}
    rows = [
        (
            titled(metric, facts.positive),
            number(value, "results", "results", split, metric),
            interval_of(facts, split, metric),
            baseline_of(facts, split, metric),
        )
        for metric, value in values.items()
    ]
    heads = ("metric", "value", "95% interval", "constant prediction")
    used = [column for column in range(4) if any(row[column] for row in rows)]
    cells = [[row[column] for column in used] for row in rows]
    return table([heads[column] for column in used], cells, f"Metrics of {name(split)}")


def confusion_table(split: str, scored: ScoredSplit) -> str:
    """Rows by true and predicted class; of many classes those with the most errors."""
    assert scored.confusion is not None
    counts, names = scored.confusion.counts.tolist(), scored.names
    shown, note = list(range(len(names))), ""
    if len(names) > MATRIX:
        wrong = [sum(counts[i]) + sum(row[i] for row in counts) - 2 * counts[i][i] for i in shown]
        shown = sorted(sorted(shown, key=lambda i: (-wrong[i], i))[:MATRIX])
        note = f", the {MATRIX} of {len(names)} classes with the most errors"
    rows = []
    for i in shown:
        total = sum(counts[i]) or 1
        cells = [
            f'<td class="{"right" if i == j else "wrong"}" style="--share:{0.6 * counts[i][j] / total:.3f}">'
            f"{number(counts[i][j], 'predictions', split, 'confusion', names[i], names[j])}</td>"
            for j in shown
        ]
        rows.append((name(names[i]), *cells))
    caption = f"Confusion matrix of {name(split)}: rows by true class, columns by predicted class{note}"
    return table(("true \\ predicted", *(name(names[i], 24) for i in shown)), rows, caption, "matrix")


def class_table(split: str, scored: ScoredSplit) -> str:
    """Precision, recall and F1 of each class, as bars and numbers."""
    assert scored.confusion is not None
    found = scored.confusion.precision_recall_f1()
    most = max((support for *_, support in found), default=0) or 1
    rows = []
    for label, (*ratios, support) in zip(scored.names, found, strict=True):
        path = ("predictions", split, "class", label)
        keys = zip(("precision", "recall", "f1"), ratios, strict=True)
        cells = [bar(value) + number(value, *path, key) for key, value in keys]
        rows.append((name(label), *cells, bar(support / most) + number(support, *path, "examples")))
    heads = ("class", "precision", "recall", "F1", "examples")
    return table(heads, rows, f"Each class of {name(split)}")


def label_table(facts: Facts, split: str) -> str:
    """As `class_table`, if rows have any number of labels: what results.json says of each."""
    found = facts.results.get("label_scores", {}).get(split, {})
    if not found:
        return ""
    most = max(scores["examples"] for scores in found.values()) or 1
    keys = ("precision", "recall", "f1", "average_precision", "examples")
    rows = []
    for label, scores in found.items():
        cells = []
        for key in keys:
            value = scores[key]
            share = 0 if value is None else value / most if key == "examples" else value
            cells.append(bar(share) + number(value, "results", "label_scores", split, label, key))
        rows.append((name(label), *cells))
    heads = ("label", "precision", "recall", "F1", "average precision", "examples")
    return table(heads, rows, f"Each label of {name(split)}")


def text_list(split: str, kind: str, rows: Sequence[Row]) -> str:
    """Rows with their texts. `kind` (errors, uncertain) leads to their numbers."""
    items = []
    for place, row in enumerate(rows):
        value = number(row.score, "predictions", split, kind, place)
        texts = "".join(
            f'<div class="text" dir="auto">{_column(column, len(row.texts))}'
            f"{text(part)}{_rest(whole - len(part))}</div>"
            for column, part, whole in row.texts
        )
        items.append(f'<li><div class="about">{_verdict(row, value)} · {_where(row.record)}</div>{texts}</li>\n')
    return f'<ol class="texts">\n{"".join(items)}</ol>\n' if items else ""


def _column(column: str, columns: int) -> str:
    return "" if columns == 1 else f'<span class="about">{name(column)}:</span> '


def _rest(count: int) -> str:
    return f' <span class="cut">… {count:,} more characters</span>' if count else ""


def _verdict(row: Row, value: str) -> str:
    label, prediction = row.record["label"], row.record["prediction"]
    if row.about is not None:
        is_right = (row.about in label) == (row.about in prediction)
        given = "given" if row.about in prediction else "not given"
        return (
            f"label {_strong(row.about)} {given}, {'rightly' if is_right else 'wrongly'}; its probability {value}"
        )
    if not isinstance(label, str):
        return f"label {_strong(_score(label))}, predicted {_strong(_score(prediction))}: off by {value}"
    if label == prediction:
        return f"{_strong(label)}, rightly, with probability {value}"
    return f"predicted {_strong(prediction)} with probability {value}, labelled {_strong(label)}"


def _strong(label: object) -> str:
    return f"<strong>{name(label)}</strong>"


def _score(value: float) -> str:
    return f"{value:.4g}"


def _where(record: Mapping[str, Any]) -> str:
    parts = [f"row {name(record.get('row', '?'), 20)}"]
    parts += [f"{key} {name(record[key])}" for key in ("file", "fold", "seed") if key in record]
    return ", ".join(parts)


def data_table(facts: Facts) -> str:
    """Rows, labels and lengths of each split."""
    data = facts.results.get("data") or {}
    if not data:
        return ""
    rows = []
    for split, found in data.items():
        path = ("results", "data", split)
        counts = [number(found[key], *path, key) for key in ("examples", "median_length", "longest")]
        counts += [number(found[key], *path, key) for key in ("truncated", "blank", "unknown", "text_tokens")]
        rows.append((name(split), *counts))
    heads = ("split", "rows", "median length", "longest", "truncated", "blank", "unknown tokens", "tokens of texts")
    return table(heads, rows, "Rows and lengths in tokens") + _label_counts(data)


def _label_counts(data: Mapping[str, Any]) -> str:
    splits = {split: found for split, found in data.items() if found.get("labels")}
    scores = {split: found["scores"] for split, found in data.items() if found.get("scores")}
    if scores:
        keys = ("min", "mean", "max")
        rows = [
            (name(s), *(number(v[k], "results", "data", s, "scores", k) for k in keys)) for s, v in scores.items()
        ]
        return table(("split", "lowest", "mean", "highest"), rows, "Scores")
    if not splits:
        return ""
    rows = []
    for label in next(iter(splits.values()))["labels"]:
        cells = []
        for split, found in splits.items():
            count = found["labels"].get(label, 0)
            share = bar(count / (found["examples"] or 1))
            cells.append(share + number(count, "results", "data", split, "labels", label))
        rows.append((name(label), *cells))
    return table(("label", *map(name, splits)), rows, "Rows of each label")


def calibration_table(facts: Facts) -> str:
    """What --calibrate fitted."""
    found = facts.results.get("calibration")
    if not found:
        return ""
    path = ("results", "calibration")
    rows: list[Sequence[str]] = [("temperature", number(found["temperature"], *path, "temperature"), "")]
    for key, said in (("ece", "calibration error"), ("loss", "loss")):
        both = (number(found[when][key], *path, when, key) for when in ("before", "after"))
        rows.append((f"{said} before, after", *both))
    for label, value in found["thresholds"].items():
        rows.append((f"threshold of {name(label)}", number(value, *path, "thresholds", label), ""))
    where = f"fitted on {number(found['rows'], *path, 'rows')} rows of {name(found['split'])}"
    caption = f"Temperature and thresholds, {where}, for predict.py --calibrated"
    return table(("what", "value", ""), rows, caption)
