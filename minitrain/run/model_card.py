"""The model card of a run, README.md: front matter as the Hub reads it, then what people want to know of a model.

Everything is of `results.json`, the last evaluations and log.jsonl. Not here: energy and emissions, which nobody
measured. Names of classes and texts come from the data of strangers and are escaped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minitrain.config.read_options import files_of, files_shown
from minitrain.config.train_config import TrainConfig
from minitrain.data.labels.ids import Labels, display_names
from minitrain.data.labels.notes import plain
from minitrain.errors import MinitrainError
from minitrain.run.card_sources import base_model, languages_of_data, licence_of_base
from minitrain.run.card_tables import (
    SHOWN,
    classes_table,
    confusion_table,
    data_tables,
    examples_table,
    log_table,
    metrics_table,
    seconds_taken,
    settings_list,
)
from minitrain.run.intervals import metric_interval
from minitrain.run.markdown import code, escaped
from minitrain.run.push import HERE, local_name
from minitrain.run.report import metric_name
from minitrain.training.evaluation import Evaluation
from minitrain.training.metrics import OF_POSITIVE


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a model card is made of.

    Attributes:
        title: The name of the run.
        results: The contents of `results.json`.
        final: The last evaluations, by split.
        loss: How the loss differs from the usual one, in a few words.
        log: The records of log.jsonl.
        examples: Records of predictions.jsonl to show.
    """

    title: str
    config: TrainConfig
    labels: Labels
    results: Mapping[str, Any]
    final: Mapping[str, Evaluation]
    loss: str | None = None
    log: Sequence[Mapping[str, Any]] = ()
    examples: Sequence[Mapping[str, Any]] = ()


def model_card(card: Card) -> str:
    """The text of README.md."""
    parts = [f"# {escaped(card.title, 100)}", *_summary(card), "## How to use it", _use(card)]
    for split, result in card.final.items():
        parts += _results(card, split, result)
    if card.examples:
        columns = [f"input_{name}" if f"input_{name}" in card.examples[0] else name for name in _columns(card)]
        parts += ["## Examples", examples_table(card.examples, columns)]
    parts += _training(card)
    parts += _data(card)
    return f"---\n{front_matter(card)}\n---\n\n" + "\n\n".join(filter(None, parts)) + "\n"


def front_matter(card: Card) -> str:
    """The metadata as YAML, with an EvalResult for each split and metric."""
    from huggingface_hub import EvalResult, ModelCardData

    config, results = card.config, card.results
    commit = results.get("dataset_commit")
    evaluations = [
        EvalResult(
            task_type="text-classification",
            dataset_type=_files(config) or local_name(config.dataset) or "unknown",
            dataset_name=_dataset(config),
            dataset_config=config.subset,
            dataset_split=split,
            dataset_revision=commit,
            metric_type=name,
            metric_name=_of_positive(name, card.labels.positive_label) if name not in result.own else None,
            metric_value=value,
        )
        for split, result in card.final.items()
        for name, value in result.metrics.items()
        if value == value  # NaN is no result
    ]
    more: dict[str, Any] = licence_of_base(config)
    data = ModelCardData(
        base_model=base_model(config),
        datasets=[str(config.dataset)] if commit else None,  # a name of the Hub, where others find it
        eval_results=evaluations or None,
        language=languages_of_data(config),
        library_name="transformers",
        metrics=list(dict.fromkeys(result.metric_type for result in evaluations)) or None,
        model_name=card.title,
        pipeline_tag="text-classification",
        tags=["minitrain", "text-classification"],
        **more,
    )
    return str(data.to_yaml())


def _summary(card: Card) -> list[str]:
    """The result in a sentence, how the model was trained, and its labels."""
    config, results, labels = card.config, card.results, card.labels
    size = config.per_device_train_batch_size * config.gradient_accumulation_steps
    trained = (
        f"{trained_on(config)}: {_several(results['steps'], 'step')}, learning rate {config.learning_rate}, "
        f"batch size {size}, seed {config.seed}."
    )
    loss = "" if card.loss is None else f" Trained with {escaped(card.loss, 1000)}."
    return [_headline(card), trained, f"Labels: {_named(labels, card.final)}.{loss}"]


def trained_on(config: TrainConfig) -> str:
    """`bert-base-uncased` fine-tuned on `reviews.csv` with minitrain"""
    model = base_model(config) or local_name(config.model)
    return f"{code(model)} fine-tuned on {_shown_data(config)} with minitrain"


def settings(config: TrainConfig) -> list[str]:
    """The settings that differ from the defaults, with a line before them; [] without any."""
    changed = settings_list(config)
    return ["Settings that differ from minitrain's defaults:", changed] if changed else []


def _headline(card: Card) -> str:
    """**Accuracy 0.8554 on validation** (95% interval 0.8180 to 0.8863, 408 examples; always ...: 0.6838)."""
    if not card.final:
        return "It was not evaluated."
    split = "test" if "test" in card.final else next(iter(card.final))
    result = card.final[split]
    name, value = next(iter(result.metrics.items()), ("loss", result.loss))
    shown = name if name in result.own else metric_name(name, card.labels.positive_label)
    known = []
    if (between := metric_interval(name, result, card.labels.positive)) is not None:
        known.append(f"95% interval {between[0]:.4f} to {between[1]:.4f}")
    known.append(f"{result.examples} examples")
    baseline = (card.results.get("baseline") or {}).get(split)
    if name == "accuracy" and isinstance(baseline, float) and name not in result.own:
        known.append(f"always the majority class: {baseline:.4f}")
    return f"**{escaped(shown, 80)} {value:.4f} on {escaped(split)}** ({', '.join(known)})."


def _use(card: Card) -> str:
    config, results = card.config, card.results
    length = results.get("max_length")
    cut = f", truncation=True, max_length={length}" if length else ""
    cut = f", top_k=None{cut}" if card.labels.multi_label else cut
    pair = len(_columns(card)) == 2 and config.join is None
    text = '{"text": "a text", "text_pair": "and another"}' if pair else '"a text"'
    sample = r"'a text\tand another'" if pair else "'a text'"
    notes = ""
    if config.join is not None and len(_columns(card)) > 1:
        columns = ", ".join(map(escaped, _columns(card)))
        notes = f"A text is the columns {columns}, joined by {code(repr(config.join))}.\n\n"
    if config.long_texts != "head" and length:
        how = f"with minitrain {config.long_texts.replace('_', ' and ')}, with transformers the head"
        notes += f"Of texts longer than {length} tokens the model reads, {how}.\n\n"
    return (
        f"{notes}With transformers:\n\n```python\nfrom transformers import pipeline\n\n"
        f'classify = pipeline("text-classification", {HERE})\nprint(classify({text}{cut}))\n```\n\n'
        "With minitrain, from a folder of these files (`hf download` gets them from the Hub):\n\n"
        f"```bash\nprintf {sample} | python scripts/predict.py FOLDER\n```"
    )


def _results(card: Card, split: str, result: Evaluation) -> list[str]:
    names = card.labels.names or ()
    baseline = (card.results.get("baseline") or {}).get(split)
    parts = [
        f"## Results on {escaped(split)}",
        f"{result.examples} examples.",
        metrics_table(result, baseline, card.labels),
    ]
    if classes := classes_table(result, names):
        parts += [f"### {'Labels' if card.labels.multi_label else 'Classes'} on {escaped(split)}", classes]
    if confusion := confusion_table(result, names):
        parts += [f"### Confusion matrix on {escaped(split)}", confusion]
    return parts


def _training(card: Card) -> list[str]:
    config, results = card.config, card.results
    best = results.get("best") or {}
    parts = ["## Training", *settings(config)]
    if table := log_table(card.log, best):
        saved = {"best": "best evaluation", "last": "last step"}.get(results.get("saved", ""))
        parts += [table, f"The model of the {saved} is saved." if saved else ""]
    if hardware := results.get("hardware"):
        processes = hardware["processes"]
        where = f"{escaped(hardware['device'], 100)}, {_several(hardware['threads'], 'thread')}"
        where += f", {_several(processes, 'process', 'es')}" if processes > 1 else ""
        took = f"{seconds_taken(results)}, peak memory {results['peak_memory_mb']:.0f} MB"
        versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
        parts.append(f"- hardware: {where}\n- time: {took}\n- versions: {escaped(versions, 500)}")
    return parts


def _data(card: Card) -> list[str]:
    results = card.results
    facts = results.get("data") or {}
    if not facts:
        return []
    lines = [f"- data: {_shown_data(card.config)}"]
    lines += [f"- text columns: {', '.join(map(escaped, _columns(card)))}"] if _columns(card) else []
    lines += [f"- {name} commit: `{results[key]}`" for name, key in _COMMITS.items() if results.get(key)]
    lines += [f"- longest input: {results['max_length']} tokens"] if results.get("max_length") else []
    return ["## Data", "\n".join(lines), *data_tables(facts)]


_COMMITS = {"dataset": "dataset_commit", "base model": "model_commit"}


def _several(count: int, what: str, plural: str = "s") -> str:
    return f"{count} {what}{'' if count == 1 else plural}"


def _columns(card: Card) -> list[str]:
    return list(card.results.get("text_columns") or ())


def _dataset(config: TrainConfig) -> str:
    """The dataset or files by name, without the folders of this machine, and the subset."""
    name = _files(config) or local_name(config.dataset) or "unknown"
    return " ".join(filter(None, (name, config.subset)))


def _shown_data(config: TrainConfig) -> str:
    return code(_dataset(config), 300) if config.train_file or config.dataset else "data in memory"


def _files(config: TrainConfig) -> str:
    try:
        return ", ".join(map(local_name, files_of(config.train_file))) if config.train_file else ""
    except MinitrainError:  # a pattern whose files are gone
        return files_shown(local_name(config.train_file))


def _of_positive(name: str, positive: str | None) -> str | None:
    """f1 -> F1 of spam, roc_auc -> Roc auc of spam; None for a metric of all classes."""
    if positive is None or name not in OF_POSITIVE:
        return None
    return f"{name.replace('_', ' ').capitalize()} of {plain(positive)}"


def _named(labels: Labels, results: Mapping[str, Evaluation]) -> str:
    if labels.names is None:
        return "a score"
    names = [escaped(name) for name in display_names(labels.names)]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    more += ", any number of them a text" if labels.multi_label else ""
    without_f1 = results and not any("f1" in result.metrics for result in results.values())
    f1 = "" if labels.positive_label is None or without_f1 else f"; F1 is of {escaped(labels.positive_label)}"
    return f"{', '.join(names[:SHOWN])}{more}{f1}"
