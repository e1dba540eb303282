"""--class_weights: a weight for each class by its name, or "balanced".

Only parsed here; `training/run_loss.py` finds the classes, and counts their rows.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minitrain.config.label_map import quoted, read_pairs
from minitrain.config.options import plain
from minitrain.errors import MinitrainError, shown

BALANCED = "balanced"
EXPECTED = (
    "expected balanced, or name=weight,... (a name with a comma, '=' or outer blanks in double quotes), or a .json "
    "file"
)


def read_class_weights(given: str | Path | Mapping[Any, Any] | None) -> str | dict[str, float] | None:
    """Parse class weights: "balanced", or {class name: weight}; None if none are given.

    Raises:
        MinitrainError: The weights are malformed, a class is named twice, or a weight is no number above 0.

    >>> read_class_weights("urgent=4,other=1")
    {'urgent': 4.0, 'other': 1.0}
    """
    if given is None:
        return None
    if given == BALANCED:
        return BALANCED
    weights: dict[str, float] = {}
    for name, value in read_pairs(given, "--class_weights", EXPECTED, '{"name": weight, ...}'):
        if not isinstance(name, str | int | float):
            raise MinitrainError(f"--class_weights: {shown(name)} is no name of a class; {EXPECTED}")
        if str(name) in weights:
            raise MinitrainError(f"--class_weights: names {shown(str(name))} twice; give it one weight")
        weights[str(name)] = _weight(str(name), plain(value))
    if not weights:
        raise MinitrainError(f"--class_weights: is empty; {EXPECTED}")
    return weights


def _weight(name: str, value: Any) -> float:
    try:
        weight = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        weight = math.nan
    if not 0.0 < weight < math.inf:
        raise MinitrainError(
            f"--class_weights: the weight of {shown(name)} is {shown(value)}; expected a finite number above 0. To "
            "train without a class, leave out its rows"
        )
    return weight


def as_flag(weights: Mapping[str, float]) -> str:
    """The weights as a flag.

    >>> as_flag({"urgent": 4.0, "other": 1.0})
    '--class_weights urgent=4,other=1'
    """
    return "--class_weights " + ",".join(f"{quoted(name)}={weight:g}" for name, weight in weights.items())
