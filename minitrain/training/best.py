"""The best evaluation of a run so far, and its weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.model.classifier import SequenceClassifier
from minitrain.training.evaluation import Evaluation
from minitrain.training.metrics import Metric

LOWER_IS_BETTER = ("loss", "mse", "rmse", "mae")


@dataclass
class Best:
    """The best evaluation so far, by one value of the first evaluation split."""

    name: str
    greater_is_better: bool
    value: float | None = None
    step: int = 0
    epoch: float = 0.0
    weights: dict[str, Tensor] = field(default_factory=dict)
    evaluations_since: int = 0

    def improves(self, value: float) -> bool:
        """Whether `value` is better than the best so far; NaN never is."""
        if self.value is None:
            return not math.isnan(value)
        return value > self.value if self.greater_is_better else value < self.value

    def remember(
        self, results: Mapping[str, Evaluation], model: SequenceClassifier, step: int, epoch: float, weights: bool
    ) -> bool:
        """Compare the evaluations of a step; keep those that are the best, with a copy of the weights if asked."""
        value = next(iter(results.values())).values[self.name]
        if not self.improves(value):
            self.evaluations_since += 1
            return False
        self.value, self.step, self.epoch, self.evaluations_since = value, step, epoch, 0
        if weights:
            self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        return True


def best_by(config: TrainConfig, metric: Metric) -> Best:
    """Make the comparison that the configuration asks for.

    Raises:
        MinitrainError: `metric` has no such value (the message lists them), or no F1 for `positive_label`.
    """
    name = (config.metric_for_best_model or metric.names[0]).removeprefix("eval_")
    if name not in ("loss", *metric.names):
        raise MinitrainError(f"--metric_for_best_model {name}: expected loss, {', '.join(metric.names)}")
    if config.positive_label is not None and "f1" not in metric.names:
        names = ", ".join(metric.names)
        raise MinitrainError(f"--positive_label {config.positive_label}: f1 is not among {names}; leave it out")
    greater = config.greater_is_better
    return Best(name=name, greater_is_better=name not in LOWER_IS_BETTER if greater is None else greater)
