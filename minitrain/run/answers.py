"""What a model says of each row, in the words of its labels: logits -> records."""

from collections.abc import Iterator, Sequence
from itertools import compress
from typing import Any

from torch import Tensor

from minitrain.data.labels.ids import Labels, display_names
from minitrain.training.calibration import Calibration


def true_label(label: Any, names: Sequence[str] | None) -> Any:
    """The name of a class id, a list of names for several, or the score if there are no names."""
    if not names:
        return label
    return [names[i] for i in label] if isinstance(label, tuple) else names[label]


def answers(logits: Tensor, labels: Labels, calibration: Calibration | None = None) -> Iterator[dict[str, Any]]:
    """What the model says of each row: its label or labels and the probabilities of all, or its score.

    Args:
        logits: (rows, C).
        calibration: Its temperature and thresholds are applied; without one a label of several is given above a
            probability of one half.
    """
    if labels.names is None:
        yield from ({"score": score} for score in logits[:, 0].tolist())
        return
    names, applied = display_names(labels.names), calibration or Calibration(multi_label=labels.multi_label)
    rows = applied.probabilities(logits).tolist()
    if labels.multi_label:
        given = logits > 0 if calibration is None else calibration.predictions(logits).bool()
        for is_given, row in zip(given.tolist(), rows, strict=True):
            yield {"labels": list(compress(names, is_given)), "probabilities": dict(zip(names, row, strict=True))}
        return
    predictions = logits.argmax(-1) if calibration is None else calibration.predictions(logits)
    for best, row in zip(predictions.tolist(), rows, strict=True):
        probabilities = dict(zip(names, row, strict=True))
        yield {"label": names[best], "probability": row[best], "probabilities": probabilities}
