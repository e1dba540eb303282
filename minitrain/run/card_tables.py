"""The parts of the model card about results, training and data: `results.json`, evaluations and log -> Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from minitrain.config.train_config import TrainConfig
from minitrain.data.labels.ids import Labels, display_names
from minitrain.run.intervals import metric_interval
from minitrain.run.markdown import escaped, table
from minitrain.run.report import CONSTANTS, duration, metric_name
from minitrain.training.evaluation import Evaluation

MOST_CLASSES = 20  # of a confusion matrix
SHOWN = 100  # classes of a table
LOGGED = 20  # rows of the training log
# Settings that say nothing of the model, or are told elsewhere in the card.
NOT_TOLD = {
    *("output_dir", "overwrite_output_dir", "resume", "resume_changed", "profile"),
    *("push_to_hub", "hub_private", "card_examples"),
    *("model", "dataset", "subset", "train_file", "eval_file", "test_file"),
}


def metrics_table(result: Evaluation, baseline: float | Mapping[str, float] | None, labels: Labels) -> str:
    """Loss and metrics of a split, with their intervals and the score of a constant prediction if known."""
    constants = dict(baseline) if isinstance(baseline, Mapping) else {"accuracy": baseline}
    rows = []
    for name, value in result.values.items():
        own = name in result.own  # a user's number under that name: what is known of the built-in one does not hold
        known = metric_interval(name, result, labels.positive)
        between = "" if known is None else f"{known[0]:.4f} to {known[1]:.4f}"
        constant = None if own else constants.get(name)
        shown = name if own else metric_name(name, labels.positive_label)
        rows.append((escaped(shown, 80), f"{value:.4f}", between, "" if constant is None else f"{constant:.4f}"))
    heads = ("metric", "value", "95% interval", _constant(constants))
    used = [column for column in range(4) if column < 2 or any(row[column] for row in rows)]
    return table([heads[i] for i in used], [[row[i] for i in used] for row in rows])


def _constant(constants: Mapping[str, Any]) -> str:
    """What the constant prediction is."""
    if "rmse" in constants:
        return "always the training mean"
    return "always the majority class" if "accuracy" in constants else f"always {CONSTANTS['micro_f1']}"


def classes_table(result: Evaluation, labels: Sequence[str]) -> str:
    """Precision, recall, F1 and examples of each class or label; "" for scores."""
    names = [escaped(name) for name in display_names(labels)]
    if result.label_scores:
        heads = ["label", "precision", "recall", "F1", "average precision", "examples"]
        rows = [
            (*map(_number, (score.precision, score.recall, score.f1, score.average_precision)), str(score.examples))
            for score in result.label_scores
        ]
    elif result.confusion is not None:
        heads = ["class", "precision", "recall", "F1", "examples"]
        scores = result.confusion.precision_recall_f1()
        rows = [(*map(_number, ratios), str(examples)) for *ratios, examples in scores]
    else:
        return ""
    more = f"\n\nand {len(names) - SHOWN} more." if len(names) > SHOWN else ""
    return table(heads, [(name, *row) for name, row in zip(names[:SHOWN], rows, strict=False)]) + more


def confusion_table(result: Evaluation, labels: Sequence[str]) -> str:
    """Rows of the true class, columns of the predicted one; "" for scores, several labels, or many classes."""
    if result.confusion is None or len(labels) > MOST_CLASSES:
        return ""
    names = [escaped(name) for name in display_names(labels)]
    counts = zip(names, result.confusion.counts.tolist(), strict=True)
    return table(["true / predicted", *names], [(name, *map(str, row)) for name, row in counts])


def examples_table(examples: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Records of predictions.jsonl: their texts, labels and predictions."""
    heads = [*(escaped(column) for column in columns), "label", "prediction"]
    ranked = any("probability" in record for record in examples)
    rows = []
    for record in examples:
        texts = [escaped(" ".join(str(record[column]).split()), 200) for column in columns]
        row = [*texts, _answer(record["label"]), _answer(record["prediction"])]
        rows.append([*row, f"{record['probability']:.4f}"] if ranked else row)
    return table([*heads, "probability"] if ranked else heads, rows, texts=len(columns) + 2)


def log_table(log: Sequence[Mapping[str, Any]], best: Mapping[str, Any]) -> str:
    """The evaluations of log.jsonl with the training loss before each, or its steps if there are none; thinned.

    Args:
        best: As in `results.json`; its evaluation is marked.
    """
    steps = [line for line in log if line["event"] == "step"]
    found = [line for line in log if line["event"] == "evaluation"]
    if not found:
        rows = [
            [f"{line['epoch']:.2f}", str(line["step"]), _number(line["loss"])] for line in thinned(steps, LOGGED)
        ]
        return table(("epoch", "step", "training loss"), rows, texts=0) if rows else ""
    splits = list(dict.fromkeys(line["split"] for line in found))
    names = [name for name in found[0] if name not in ("event", "step", "epoch", "split")]
    of_step: dict[int, dict[str, Mapping[str, Any]]] = {}
    for line in found:
        of_step.setdefault(line["step"], {})[line["split"]] = line
    shown = {*thinned(list(of_step), LOGGED), best.get("step")}
    rows = []
    for step, evaluated in of_step.items():
        if step not in shown:
            continue
        loss = next((line["loss"] for line in reversed(steps) if line["step"] <= step), None)
        values = [evaluated.get(split, {}).get(name) for split in splits for name in names]
        cells = [f"{next(iter(evaluated.values()))['epoch']:.2f}", str(step), *map(_number, [loss, *values])]
        marked = step == best.get("step") and len(of_step) > 1
        rows.append([f"**{cell}**" if marked and cell else cell for cell in cells])
    heads = [
        f"{escaped(split) if len(splits) > 1 else 'evaluation'} {escaped(name, 80)}"
        for split in splits
        for name in names
    ]
    return table(["epoch", "step", "training loss", *heads], rows, texts=0)


def thinned(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the items, evenly, the first and the last among them.

    >>> thinned(range(10), 4)
    [0, 3, 6, 9]
    """
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def data_tables(facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The splits with their lengths, then rows by label or the range of the scores. See `data_facts`."""
    heads = ("split", "examples", "median tokens", "longest", "truncated", "blank texts", "unknown tokens")
    rows = [
        (
            escaped(split),
            str(of["examples"]),
            *(str(of[name]) for name in ("median_length", "longest", "truncated", "blank")),
            f"{of['unknown'] / max(1, of['text_tokens']):.1%}",
        )
        for split, of in facts.items()
    ]
    parts = [table(heads, rows)]
    if counted := {split: of["labels"] for split, of in facts.items() if "labels" in of}:
        names = list(next(iter(counted.values())))
        counts = [(escaped(name), *(str(of.get(name, 0)) for of in counted.values())) for name in names[:SHOWN]]
        more = f"\n\nand {len(names) - SHOWN} more." if len(names) > SHOWN else ""
        parts.append(table(["label", *map(escaped, counted)], counts) + more)
    if scored := {split: of["scores"] for split, of in facts.items() if "scores" in of}:
        kinds = ("min", "mean", "max")
        ranges = [(escaped(name), *(f"{of[kind]:.4f}" for kind in kinds)) for name, of in scored.items()]
        parts.append(table(("scores", "lowest", "mean", "highest"), ranges))
    return parts


def settings_list(config: TrainConfig) -> str:
    """The flags that differ from their defaults, as a list of Markdown; "" without any."""
    default = TrainConfig()
    named = [spec.name for spec in fields(config) if spec.name not in NOT_TOLD]
    values = {name: getattr(config, name) for name in named if getattr(config, name) != getattr(default, name)}
    return "\n".join(f"- {name}: {escaped(value, 200)}" for name, value in values.items())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _answer(value: Any) -> str:
    """A class, several labels, or a score."""
    if isinstance(value, list):
        return ", ".join(map(escaped, value)) or "none"
    return f"{value:.4f}" if isinstance(value, float) else escaped(value)


def seconds_taken(results: Mapping[str, Any]) -> str:
    """2m05s of training, 2m40s in all"""
    return f"{duration(results['training_seconds'])} of training, {duration(results['total_seconds'])} in all"
