"""`calibration.json`: fitted by train.py --calibrate, applied by predict.py and evaluate.py --calibrated.

It belongs to one model: it holds the SHA-256 of `model.safetensors`, and the names of the labels. The weights stay
as they were trained.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minitrain.config.inference_config import EvaluateConfig
from minitrain.config.train_config import TrainConfig
from minitrain.data.dataset import Split, Splits
from minitrain.data.labels.ids import Labels, display_names
from minitrain.data.labels.notes import in_table
from minitrain.errors import MinitrainError, shown
from minitrain.run.run_folder import CALIBRATION
from minitrain.storage.files import json_text, read_json, sha256_of, write_whole
from minitrain.training.calibration import (
    Calibration,
    calibrate,
    expected_calibration_error,
    negative_log_likelihood,
)
from minitrain.training.evaluation import Evaluation
from minitrain.training.metrics import Metric

WEIGHTS = "model.safetensors"
FEW_ROWS = 100


@dataclass(frozen=True, kw_only=True)
class FittedCalibration:
    """A calibration, the names that its thresholds belong to, and what it was fitted on."""

    calibration: Calibration
    names: tuple[str, ...]  # one for each threshold
    split: str
    rows: int
    before: Mapping[str, float]  # loss in nats and expected calibration error
    after: Mapping[str, float]

    def facts(self) -> dict[str, Any]:
        """As in `results.json` and, with what it belongs to, in `calibration.json`."""
        return {
            "temperature": self.calibration.temperature,
            "thresholds": dict(zip(self.names, self.calibration.thresholds or (), strict=True)),
            "multi_label": self.calibration.multi_label,
            "split": self.split,
            "rows": self.rows,
            "before": dict(self.before),
            "after": dict(self.after),
        }

    def lines(self) -> list[str]:
        """For the end of the run."""
        thresholds = [
            f"  {'threshold':<22}{value:.4f}   of '{in_table(name)}'"
            for name, value in zip(self.names, self.calibration.thresholds or (), strict=True)
        ]
        few = "; few rows: expect another on other data" if self.rows < FEW_ROWS else ""
        return [
            f"calibrated on {self.split} ({self.rows} examples{few})",
            f"  {'temperature':<22}{self.calibration.temperature:.4f}",
            *thresholds,
            f"  {'calibration error':<22}{self.before['ece']:.4f} -> {self.after['ece']:.4f}",
            "",
        ]


def check_calibratable(config: TrainConfig, splits: Splits) -> None:
    """Raise MinitrainError if `--calibrate` has no rows or no classes to be fitted on."""
    if not config.calibrate:
        return
    if splits.labels.names is None:
        raise MinitrainError("--calibrate is for classes; the labels are scores, which have no probabilities")
    if not splits.evaluation:
        raise MinitrainError(
            "--calibrate is fitted on evaluation data, never on training or test data, and there is none: pass "
            "--eval_fraction 0.1, or leave it out"
        )


def fit_calibration(
    config: TrainConfig, splits: Splits, final: Mapping[str, Evaluation]
) -> FittedCalibration | None:
    """Fit on the first evaluation split, which also chooses the best weights; None without `--calibrate`."""
    if not config.calibrate:
        return None
    name, split = next(iter(splits.evaluation.items()))
    logits, labels = final[name].logits, split.labels
    assert labels is not None
    fitted = calibrate(logits, labels, splits.labels.positive)
    return FittedCalibration(
        calibration=fitted,
        names=_names_of_thresholds(splits.labels, fitted.thresholds),
        split=name,
        rows=len(split),
        before=_quality(Calibration(multi_label=fitted.multi_label), logits, split),
        after=_quality(fitted, logits, split),
    )


def _quality(calibration: Calibration, logits: Any, split: Split) -> dict[str, float]:
    assert split.labels is not None
    return {
        "loss": negative_log_likelihood(calibration.scaled(logits), split.labels),
        "ece": expected_calibration_error(calibration.probabilities(logits), split.labels),
    }


def _names_of_thresholds(labels: Labels, thresholds: tuple[float, ...] | None) -> tuple[str, ...]:
    if thresholds is None:
        return ()
    names = display_names(labels.names or ())
    return names if len(thresholds) == len(names) else (names[labels.positive],)


def save_calibration(directory: Path, fitted: FittedCalibration | None, labels: Labels) -> None:
    """Write the file beside the saved model; without a calibration nothing."""
    if fitted is not None:
        belongs = {"model": sha256_of(directory / WEIGHTS), "labels": display_names(labels.names or ())}
        write_whole(directory / CALIBRATION, json_text({**fitted.facts(), **belongs}))


def load_calibration(directory: Path, labels: Labels) -> Calibration:
    """The calibration of a saved run.

    Raises:
        MinitrainError: There is none, it is damaged, or it is of another model or of other labels.
    """
    path = directory / CALIBRATION
    if labels.names is None:
        raise MinitrainError(f"--calibrated: {directory} gives scores, which have no probabilities; leave it out")
    if not path.is_file():
        raise MinitrainError(
            f"--calibrated: {directory} holds no {CALIBRATION}: train it with --calibrate, or leave out "
            "--calibrated"
        )
    found, names = read_json(path), display_names(labels.names)
    weights = directory / WEIGHTS
    model = sha256_of(weights) if weights.is_file() else "none"
    if (fitted_to := found.get("model")) != model:
        raise MinitrainError(
            f"{path}: is of another model: fitted to a {WEIGHTS} of SHA-256 {shown(fitted_to)}, the one beside it "
            f"has '{model}'; get the file of this model, or leave out --calibrated"
        )
    multi_label = found.get("multi_label") is True
    if found.get("labels") != list(names) or multi_label != labels.multi_label:
        raise MinitrainError(
            f"{path}: is of the labels {shown(found.get('labels'))}, the model has {shown(list(names))}; get the "
            "file of this model, or leave out --calibrated"
        )
    temperature, thresholds = found.get("temperature"), found.get("thresholds")
    if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        raise MinitrainError(f"{path}: 'temperature' is {shown(temperature)}; expected a number above 0")
    known = thresholds if isinstance(thresholds, dict) else {}
    wrong = [name for name, value in known.items() if name not in names or not _is_share(value)]
    if known is not thresholds or wrong or len(known) != _count_of_thresholds(len(names), multi_label):
        raise MinitrainError(f"{path}: 'thresholds' is {shown(thresholds)}; expected label names with 0 to 1")
    return Calibration(
        temperature=temperature,
        thresholds=tuple(known[name] for name in names if name in known) or None,
        positive=labels.positive if multi_label or not known else names.index(next(iter(known))),
        multi_label=multi_label,
    )


def _count_of_thresholds(labels: int, multi_label: bool) -> int:
    return labels if multi_label else 1 if labels == 2 else 0


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def calibrated_evaluation(result: Evaluation, split: Split, calibration: Calibration, metric: Metric) -> Evaluation:
    """The evaluation with calibrated probabilities and labels, and `ece`, `ece_before`, `loss_before` as metrics.

    Its losses are the negative log-likelihood, without label smoothing and class weights.

    Args:
        metric: A fresh one.
    """
    assert split.labels is not None
    before = _quality(Calibration(multi_label=calibration.multi_label), result.logits, split)
    after = _quality(calibration, result.logits, split)
    logits = result.logits / calibration.temperature
    metric.update_logits(logits, split.labels, calibration.predictions(result.logits))
    return replace(
        result,
        loss=after["loss"],
        metrics={
            **metric.compute(),
            "ece": after["ece"],
            "ece_before": before["ece"],
            "loss_before": before["loss"],
        },
        confusion=metric.confusion,
        label_scores=metric.label_scores(),
    )


def on_fitted_rows(config: EvaluateConfig) -> str | None:
    """A note if a calibration is scored on the run's own evaluation split, which it was fitted on."""
    given = config.eval_file or config.dataset or config.split
    if not config.calibrated or given:
        return None
    return (
        "the calibration was fitted on these rows, so its values are better here than on others: --split test or "
        "--eval_file FILE shows those"
    )
