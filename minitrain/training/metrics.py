"""Accuracy, F1 and all other metrics by name, accumulated over batches and ranks.

Metrics accumulate counts or scores, merge across ranks, and divide last: a mean of per-batch means would depend on
how the examples were split. Most metrics of classes need only the confusion matrix. If one that ranks is
asked for, the logits are kept; regression keeps every score.

Not here: communication between processes, and the arithmetic (`confusion.py`, `ranking_metrics.py`,
`multi_label_metrics.py`, `regression_metrics.py`).

Source: the glue metric of evaluate 0.4.6 on scikit-learn 1.9 and scipy 1.17, equal to the last digit.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from minitrain.distributed.world import World
from minitrain.errors import MinitrainError
from minitrain.training.confusion import CONFUSION_METRICS, Confusion, some
from minitrain.training.metric_inputs import Values, class_ids, finite_logits, predictions_of, scores
from minitrain.training.multi_label_metrics import (
    MULTI_LABEL_METRICS,
    MULTI_LABEL_RANKING,
    LabelCounts,
    LabelScore,
    label_scores,
)
from minitrain.training.ranking_metrics import RANKING_METRICS
from minitrain.training.regression_metrics import REGRESSION_METRICS
from minitrain.training.user_metrics import ComputeMetrics, UserMetrics


def accuracy(predictions: Values, labels: Values) -> float:
    """Share of equal pairs of (N,) class ids.

    Raises MinitrainError for no examples, different lengths, or a negative id.

    >>> accuracy([1, 0, 1, 1], [1, 0, 0, 1])
    0.75
    """
    predicted, true = class_ids(predictions, labels)
    return int((predicted == true).sum()) / some(len(true))


def f1(predictions: Values, labels: Values) -> float:
    """F1 of class 1, from (N,) class ids 0 and 1.

    Raises MinitrainError for no examples, different lengths, or any other id.

    >>> f1([1, 0, 1, 1], [1, 0, 0, 1])  # precision 2/3, recall 1
    0.8
    """
    confusion = Confusion(2)
    confusion.update(predictions, labels)
    return confusion.f1()


GLUE_METRICS: dict[str, tuple[str, ...]] = {
    "cola": ("matthews_correlation",),
    "stsb": ("pearson", "spearmanr"),
    **dict.fromkeys(("mrpc", "qqp"), ("accuracy", "f1")),
    **dict.fromkeys(("sst2", "mnli", "mnli_matched", "mnli_mismatched"), ("accuracy",)),
    **dict.fromkeys(("qnli", "rte", "wnli", "hans"), ("accuracy",)),
}
MULTI_LABEL_DEFAULTS = ("micro_f1", "macro_f1", "samples_f1", "subset_accuracy", "average_precision")
OF_TWO_CLASSES = ("f1", "precision", "recall")  # of one of them, the positive class; so are, of two classes:
OF_POSITIVE = (*OF_TWO_CLASSES, "roc_auc", "average_precision")


class Metric:
    """Named metrics over all examples of a split, however they are split into batches and ranks.

    >>> metric = Metric(("accuracy", "macro_f1"), num_classes=3)
    >>> metric.update([0, 1], [0, 1])
    >>> metric.update([2, 2], [2, 0])
    >>> metric.compute()
    {'accuracy': 0.75, 'macro_f1': 0.7777777777777777}
    """

    def __init__(
        self, names: tuple[str, ...], num_classes: int | None, positive: int = 1, multi_label: bool = False
    ) -> None:
        """Start with no examples.

        Args:
            names: Of the metrics; `metric_names` lists those that fit.
            num_classes: None for scores.
            positive: Of two classes, the one that f1, precision, recall, roc_auc and average_precision are about.
            multi_label: A row has any number of the classes, called labels then.

        Raises:
            MinitrainError: A name is unknown, or of another kind of label.
        """
        names = (names,) if isinstance(names, str) else tuple(names)
        known = _known(num_classes, multi_label)
        if unknown := [name for name in names if name not in known]:
            raise MinitrainError(f"no metric {unknown[0]!r} for this kind of label; there are {', '.join(known)}")
        self.names, self.num_classes, self.positive, self.multi_label = names, num_classes, positive, multi_label
        self.confusion = None if num_classes is None or multi_label else Confusion(num_classes)
        self.label_counts = LabelCounts(num_classes) if num_classes is not None and multi_label else None
        self.scores: list[Tensor] = []  # (2, B) float32 each: predictions, labels
        self._ranking = MULTI_LABEL_RANKING if multi_label else RANKING_METRICS
        self._ranked = [name for name in names if num_classes is not None and name in self._ranking]
        self.user_metrics: UserMetrics | None = None  # a function of the user's, which sees logits and labels
        self.logits: list[tuple[Tensor, Tensor]] = []  # (B, C) float32 and the labels; if a metric needs them

    def update(self, predictions: Any, labels: Any) -> None:
        """Add one batch, which may be empty: (B,) class ids, (B,) scores, or (B, C) zeros and ones of labels."""
        if self._ranked:
            raise MinitrainError(
                f"{self._ranked[0]} ranks rows by their scores, which predictions do not have: "
                "metric.update_logits(logits, labels), with logits (B, C)"
            )
        self._count(predictions, labels)

    def update_logits(self, logits: Tensor, labels: Any, predictions: Any = None) -> None:
        """Add one batch by the model's output (B, C): any metric can be computed from it.

        Unless `predictions` say otherwise, as at a threshold, the class with the largest logit is predicted, a
        label of several if its logit is above 0 (its probability above one half); a single output is a score.
        """
        if predictions is None:
            predictions = logits > 0 if self.multi_label else predictions_of(logits)
        if not self._ranked and self.user_metrics is None:
            return self.update(predictions, labels)
        kept = finite_logits(logits, self.num_classes or 1)
        self._count(predictions, labels)
        if self.multi_label:
            true = torch.as_tensor(labels).detach().cpu().float()
        else:
            true = (scores if self.num_classes is None else class_ids)(predictions, labels)[1]
        self.logits.append((kept, true))

    def _count(self, predictions: Any, labels: Any) -> None:
        if self.confusion is not None:
            self.confusion.update(predictions, labels)
        elif self.label_counts is not None:
            self.label_counts.update(predictions, labels)
        else:
            self.scores.append(torch.stack(scores(predictions, labels)))

    def merge(self, other: "Metric") -> None:
        """Add another rank's examples after ours: the last digit of Pearson depends on their order."""
        kind, others = (
            (metric.names, metric.num_classes, metric.multi_label, metric.positive) for metric in (self, other)
        )
        if kind != others:
            raise MinitrainError(
                f"cannot merge metrics {other.names} of {other.num_classes} classes into {self.names} of "
                f"{self.num_classes}"
            )
        if self.confusion is not None and other.confusion is not None:
            self.confusion.counts += other.confusion.counts
        if self.label_counts is not None and other.label_counts is not None:
            self.label_counts.merge(other.label_counts)
        self.scores += other.scores
        self.logits += other.logits

    def compute(self) -> dict[str, float]:
        """The metrics by name, in the order given, and the user's. Raises MinitrainError without examples."""
        values = self._built_in()
        return values if self.user_metrics is None else self.user_metrics.beside(values, *self._all_logits())

    def _built_in(self) -> dict[str, float]:
        if self.confusion is None and self.label_counts is None:
            predictions, labels = torch.cat([torch.empty(2, 0), *self.scores], dim=1)
            some(len(labels))
            return {name: REGRESSION_METRICS[name](predictions, labels) for name in self.names}
        logits, truth = self._all_logits() if self._ranked else (torch.empty(0), torch.empty(0))
        values = {}
        for name in self.names:
            if name in self._ranked:
                some(len(logits))
                values[name] = self._ranking[name](logits, truth, self.positive)
            elif self.confusion is not None:
                values[name] = CONFUSION_METRICS[name](self.confusion, self.positive)
            else:
                assert self.label_counts is not None
                values[name] = MULTI_LABEL_METRICS[name](self.label_counts)
        return values

    def label_scores(self) -> list[LabelScore]:
        """Of multi-label rows the scores of each label, else none; average precision only if a metric ranks."""
        if self.label_counts is None:
            return []
        return label_scores(self.label_counts, *(self._all_logits() if self.logits else ()))

    def _all_logits(self) -> tuple[Tensor, Tensor]:
        if not self.logits:
            return torch.empty(0), torch.empty(0)
        logits, labels = zip(*self.logits, strict=True)
        return torch.cat(logits), torch.cat(labels)


def _known(num_classes: int | None, multi_label: bool = False) -> Mapping[str, Any]:
    """The metrics of a kind of label by name."""
    if num_classes is None:
        return REGRESSION_METRICS
    return MULTI_LABEL_METRICS | MULTI_LABEL_RANKING if multi_label else CONFUSION_METRICS | RANKING_METRICS


class GlueMetric(Metric):
    """The metrics that GLUE reports for a task.

    >>> metric = GlueMetric("mrpc")
    >>> metric.update([1, 0, 1, 1], [1, 0, 0, 1])
    >>> metric.compute()
    {'accuracy': 0.75, 'f1': 0.8}
    """

    def __init__(self, task: str) -> None:
        """Start with no examples. Raises MinitrainError unless `task` is in `GLUE_METRICS`."""
        if not isinstance(task, str) or task not in GLUE_METRICS:
            raise MinitrainError(
                f"no GLUE task {task!r}; there are {', '.join(GLUE_METRICS)}. For other data: "
                "Metric(('accuracy', 'macro_f1'), num_classes=3), or Metric(('pearson',), None) for scores"
            )
        # hans has two classes, but evaluates models of mnli.
        num_classes = 3 if task == "hans" or task.startswith("mnli") else 2
        super().__init__(GLUE_METRICS[task], None if task == "stsb" else num_classes)


def metric_names(num_classes: int | None, multi_label: bool = False) -> tuple[str, ...]:
    """The metrics that fit this many classes, this many labels of which a row has several, or scores (None)."""
    known = _known(num_classes, multi_label)
    return tuple(name for name in known if multi_label or num_classes == 2 or name not in OF_TWO_CLASSES)


def metric_for(
    task: str | None,
    num_classes: int | None,
    positive: int = 1,
    names: tuple[str, ...] | None = None,
    multi_label: bool = False,
) -> Metric:
    """The metrics asked for by name; without names those of a GLUE task, or those that suit the labels.

    Args:
        task: A key of `GLUE_METRICS`, or None.
        num_classes, positive, multi_label: As for `Metric`.

    Raises:
        MinitrainError: A name is unknown, given twice, or does not fit the labels; it lists those that do.
    """
    if names is not None:
        _check_names(names, metric_names(num_classes, multi_label))
    elif multi_label:
        names = MULTI_LABEL_DEFAULTS
    elif task:
        names = GLUE_METRICS[task]
    elif num_classes is None:
        names = tuple(REGRESSION_METRICS)
    else:
        names = ("accuracy", "f1" if num_classes == 2 else "macro_f1")
    return Metric(names, num_classes, positive, multi_label)


def _check_names(names: tuple[str, ...], fitting: tuple[str, ...]) -> None:
    if not names:
        raise MinitrainError(f"--metrics names none; there are {', '.join(fitting)}")
    for place, name in enumerate(names):
        if name in names[:place]:
            raise MinitrainError(f"--metrics {','.join(names)}: {name} is given twice")
        if name not in fitting:
            meant = f"macro_{name}" if name in OF_TWO_CLASSES else name
            near = get_close_matches(meant, fitting, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise MinitrainError(f"--metrics {name}: of these labels there are {', '.join(fitting)}{hint}")


def with_user_metrics(
    new_metric: Callable[[], Metric], compute_metrics: ComputeMetrics | None, world: World | None = None
) -> Callable[[], Metric]:
    """Make metrics that also call the user's function, if there is one."""
    if compute_metrics is None:
        return new_metric
    users = UserMetrics(compute_metrics, world)

    def make() -> Metric:
        metric = new_metric()
        metric.user_metrics = users
        return metric

    return make
