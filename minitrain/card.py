"""The model card of a run: a README.md with the metrics as the Hub reads them."""

from collections.abc import Mapping

from minitrain.config import TrainConfig
from minitrain.evaluation import Evaluation

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
    config: TrainConfig, labels: tuple[str, ...] | None, steps: int, results: Mapping[str, Evaluation], title: str
) -> str:
    """The text of README.md: YAML front matter with one EvalResult a split and metric, then a description."""
    from huggingface_hub import EvalResult, ModelCardData

    dataset = " ".join(filter(None, (config.train_file or config.dataset, config.subset)))
    evaluations = [
        EvalResult(
            task_type="text-classification",
            dataset_type=config.train_file or config.dataset,
            dataset_name=dataset,
            dataset_config=config.subset,
            dataset_split=split,
            metric_type=name,
            metric_value=value,
        )
        for split, result in results.items()
        for name, value in result.metrics.items()
        if value == value  # NaN is no result
    ]
    data = ModelCardData(
        base_model=config.model,
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
        labels="a score" if labels is None else ", ".join(labels),
    )
    return f"---\n{data.to_yaml()}\n---\n{body}"
