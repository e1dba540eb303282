"""The model card of a run: a README.md with the metrics as the Hub reads them."""

from collections.abc import Mapping
from pathlib import Path

from minitrain.config.read_options import files_shown
from minitrain.config.train_config import TrainConfig
from minitrain.data.labels.ids import Labels, display_names
from minitrain.data.labels.notes import plain
from minitrain.training.evaluation import Evaluation

DEMO_MODEL = "sentence-transformers/all-MiniLM-L6-v2"  # where the embedded weights come from
SHOWN = 100  # names of classes
BODY = """
# {title}

`{model}` fine-tuned on `{dataset}` with minitrain: {steps} steps, learning rate {learning_rate}, batch size
{batch_size}, seed {seed}.

Labels: {labels}.

```python
from transformers import pipeline

classify = pipeline("text-classification", "path/to/this/folder")
```
"""


def model_card(
    config: TrainConfig, labels: Labels, steps: int, results: Mapping[str, Evaluation], title: str
) -> str:
    """The text of README.md: YAML front matter with one EvalResult a split and metric, then a description."""
    from huggingface_hub import EvalResult, ModelCardData

    positive = labels.positive_label
    data_type = files_shown(config.train_file) or config.dataset or "unknown"
    dataset = " ".join(filter(None, (data_type, config.subset)))
    evaluations = [
        EvalResult(
            task_type="text-classification",
            dataset_type=data_type,
            dataset_name=dataset,
            dataset_config=config.subset,
            dataset_split=split,
            metric_type=name,
            metric_name=f"F1 of {plain(positive)}" if name == "f1" and positive is not None else None,
            metric_value=value,
        )
        for split, result in results.items()
        for name, value in result.metrics.items()
        if value == value  # NaN is no result
    ]
    # Only a name on the Hub means something to its readers.
    base = DEMO_MODEL if config.model == "demo" else None if Path(config.model).exists() else config.model
    data = ModelCardData(
        base_model=base,
        library_name="transformers",
        pipeline_tag="text-classification",
        model_name=title,
        eval_results=evaluations or None,
    )
    body = BODY.format(
        title=title,
        model=config.model,
        dataset=dataset,
        steps=steps,
        learning_rate=config.learning_rate,
        batch_size=config.per_device_train_batch_size * config.gradient_accumulation_steps,
        seed=config.seed,
        labels=_named(labels),
    )
    return f"---\n{data.to_yaml()}\n---\n{body}"


def _named(labels: Labels) -> str:
    if labels.names is None:
        return "a score"
    names = [plain(name) for name in display_names(labels.names)]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    f1 = "" if labels.positive_label is None else f"; F1 is of {plain(labels.positive_label)}"
    return f"{', '.join(names[:SHOWN])}{more}{f1}"
