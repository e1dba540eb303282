"""The loss of a run: class weights found by name or counted, or the user's own function."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from minitrain.config.class_weights import BALANCED
from minitrain.config.train_config import TrainConfig
from minitrain.data.labels.ids import display_names
from minitrain.data.labels.notes import in_table
from minitrain.errors import MinitrainError, listed, shown
from minitrain.training.loss import Loss
from minitrain.training.own_loss import name_of


def loss_of_run(
    config: TrainConfig,
    names: Sequence[str] | None,
    labels: Tensor | None,
    function: Callable[[Tensor, Tensor], Any] | None = None,
) -> Loss:
    """The loss that a configuration asks for.

    Args:
        names: Of the classes, by id; None for scores.
        labels: Of the training rows, (N,) or (N, C); "balanced" counts them.
        function: The user's own, (logits, labels) -> (sum, count).

    Raises:
        MinitrainError: The weights do not name exactly the classes, or the settings do not go together.
    """
    if function is not None:
        _check_own(config, function)
        return Loss(function=function)
    smoothing, asked = config.label_smoothing_factor, config.class_weights
    if smoothing and labels is not None and labels.ndim == 2:
        raise MinitrainError(
            f"--label_smoothing_factor {smoothing} spreads a target over classes of which a text has one, and "
            "these have several: leave it out"
        )
    if asked is None:
        return Loss(label_smoothing=smoothing)
    if names is None:
        raise MinitrainError(
            "--class_weights are of classes, but these labels are scores: leave it out, or pass --problem_type "
            "single_label_classification if the numbers are classes"
        )
    if labels is not None and labels.ndim == 2:
        raise MinitrainError("--class_weights are of one class a text; with several labels a text leave it out")
    names = display_names(names)
    weights = balanced(names, labels) if isinstance(asked, str) else by_name(asked, names)
    return Loss(label_smoothing=smoothing, class_weights=weights)


def by_name(asked: Mapping[str, float], names: Sequence[str]) -> tuple[float, ...]:
    """The weights in the order of the classes.

    >>> by_name({"urgent": 4.0, "other": 1.0}, ("other", "urgent"))
    (1.0, 4.0)
    """
    for name in asked:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {shown(near[0])}?" if near else "."
            raise MinitrainError(f"--class_weights: no class {shown(name)}{hint} The classes are {listed(names)}")
    if missing := [name for name in names if name not in asked]:
        raise MinitrainError(
            f"--class_weights: no weight for {listed(map(shown, missing))}; every class needs one, 1 for as it is"
        )
    return tuple(asked[name] for name in names)


def balanced(names: Sequence[str], labels: Tensor | None) -> tuple[float, ...]:
    """n / (C * rows of the class), as scikit-learn's `compute_class_weight("balanced")`.

    Args:
        labels: (N,) int64.
    """
    if labels is None:
        raise MinitrainError(f"--class_weights {BALANCED}: the training rows have no labels to count")
    counts = labels.bincount(minlength=len(names)).tolist()
    if empty := [name for name, count in zip(names, counts, strict=True) if not count]:
        raise MinitrainError(
            f"--class_weights {BALANCED}: no training row has the label {listed(map(shown, empty))}, so its weight "
            "would be infinite; add rows, or name the weights: --class_weights a=2,b=1,..."
        )
    return tuple(len(labels) / (len(names) * count) for count in counts)


def _check_own(config: TrainConfig, function: Callable[..., Any]) -> None:
    name = name_of(function)
    if config.match_trainer or config.match_accelerate or config.accumulation != "mean":
        raise MinitrainError(
            f"loss={name}: a match, and --accumulation sum, compute the reference's own loss: drop one of the two"
        )
    for flag, value in (
        ("label_smoothing_factor", config.label_smoothing_factor),
        ("class_weights", config.class_weights),
    ):
        if value:
            raise MinitrainError(
                f"loss={name}: replaces the cross-entropy that --{flag} is about: pass one of the two"
            )


def weights_by_name(loss: Loss, names: Sequence[str] | None) -> dict[str, float] | None:
    """The class weights as `results.json` has them."""
    if loss.class_weights is None or names is None:
        return None
    return dict(zip(display_names(names), loss.class_weights, strict=True))


def loss_line(loss: Loss, names: Sequence[str] | None) -> str | None:
    """What is special about the loss of a run: class weights, or a function of the user."""
    if loss.function is not None:
        return f"the loss function {name_of(loss.function)}, which is not saved"
    if (weights := weights_by_name(loss, names)) is None:
        return None
    shown_weights = ", ".join(f"{in_table(name)} {weight:.4g}" for name, weight in list(weights.items())[:10])
    return f"class weights {shown_weights}" + (f", and {len(weights) - 10} more" if len(weights) > 10 else "")


def saved_loss(run_info: Mapping[str, Any], names: Sequence[str] | None) -> Loss:
    """The loss by which a saved run scored itself, for its class names; a function of the user is not saved."""
    config, saved = run_info.get("config") or {}, run_info.get("class_weights")
    weights = None if saved is None or names is None else by_name(saved, display_names(names))
    return Loss(label_smoothing=config.get("label_smoothing_factor", 0.0), class_weights=weights)
