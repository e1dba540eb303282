"""`compute_metrics`: a function of the user's whose numbers stand beside the built-in metrics.

Its signature is Trainer's (transformers 5.23): it takes an `EvalPrediction`, which unpacks to logits and labels as
numpy arrays, and returns a dict of numbers by name.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from numbers import Real
from typing import Any

from torch import Tensor

from minitrain.config.options import plain_scalar
from minitrain.distributed.world import World
from minitrain.errors import MinitrainError, cut, listed, shown

# What else stands beside a metric in results.json and log.jsonl.
RESERVED = ("loss", "examples", "step", "epoch", "split", "event")
_calls = count()  # in this process; all processes call in the same order


class EvalPrediction:
    """Logits and labels of a split, as numpy arrays: `logits, labels = eval_prediction`.

    Attributes:
        predictions: (N, C) float32 logits, in the order of the rows; (N, 1) scores for regression.
        label_ids: (N,) int64 class ids, (N,) float32 scores, or (N, C) float32 zeros and ones of several labels.
    """

    def __init__(self, predictions: Any, label_ids: Any) -> None:
        self.predictions, self.label_ids = predictions, label_ids

    def __iter__(self) -> Iterator[Any]:
        return iter((self.predictions, self.label_ids))

    def __getitem__(self, place: int) -> Any:
        return (self.predictions, self.label_ids)[place]


ComputeMetrics = Callable[[Any], Mapping[str, Any]]


class UserMetrics:
    """A user's function, its answers checked; called in the main process, which tells the others.

    Attributes:
        names: Of its numbers, once it was called.
        replaced: Those whose number stands in place of a built-in metric's, because it differs.
    """

    def __init__(self, function: ComputeMetrics, world: World | None = None) -> None:
        """Raise MinitrainError if it is no function."""
        if not callable(function) or isinstance(function, type):
            raise MinitrainError(
                f"compute_metrics is {shown(function)} ({type(function).__name__}); expected a function of "
                "(logits, labels) that returns a dict"
            )
        self.function, self.world = function, world or World()
        self.names: tuple[str, ...] = ()
        self.replaced: tuple[str, ...] = ()

    def beside(self, built_in: Mapping[str, float], logits: Tensor, labels: Tensor) -> dict[str, float]:
        """The built-in metrics and the function's, its own where both have a name.

        A number that agrees with the built-in metric's to float32 is the same metric, and is kept once.

        Args:
            logits: (N, C) float32.
            labels: (N,), or (N, C).

        Raises:
            MinitrainError: The function raised (its exception is the cause), or returned something else than
                numbers by name, or other names than before.
        """
        own = self._call(logits, labels) if self.world.is_main else {}
        own = json.loads(self.world.broadcast_text(f"compute_metrics {next(_calls)}", json.dumps(own)))
        if self.names and set(self.names) != set(own):
            raise MinitrainError(
                f"compute_metrics returned {listed(own)}, but {listed(self.names)} before; it must return the same "
                "names at each evaluation (float('nan') where one has no value)"
            )
        self.names = self.names or tuple(own)
        self.replaced = tuple(name for name in own if name in built_in and not _same(own[name], built_in[name]))
        # dict.__or__ keeps the places of the built-in metrics.
        return dict(built_in) | {n: v for n, v in own.items() if n not in built_in or n in self.replaced}

    def _call(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        try:
            answer = self.function(EvalPrediction(logits.numpy(), labels.numpy()))
        except Exception as error:
            raise MinitrainError(
                f"compute_metrics, your function, raised {type(error).__name__}: {cut(error)}. It got logits "
                f"{tuple(logits.shape)} and labels {tuple(labels.shape)}, as numpy arrays"
            ) from error
        if not isinstance(answer, Mapping) or not answer:
            raise MinitrainError(
                f"compute_metrics returned {shown(answer)} ({type(answer).__name__}); expected a dict of "
                "numbers by name: {'kappa': 0.81}"
            )
        return {_name(name, answer): _number(name, value) for name, value in answer.items()}


def _name(key: Any, answer: Mapping[Any, Any]) -> str:
    """The name without the eval_ that Trainer puts before each."""
    name = key.removeprefix("eval_") if isinstance(key, str) else ""
    if not name:
        raise MinitrainError(f"compute_metrics returned the name {shown(key)}; expected text")
    if name in RESERVED:
        raise MinitrainError(f"compute_metrics returned {key!r}, a name that is taken; choose another")
    if name != key and name in answer:
        raise MinitrainError(f"compute_metrics returned both {name!r} and {key!r}, which are one name; rename one")
    return name


def _number(name: str, value: Any) -> float:
    number = plain_scalar(value)
    if not isinstance(number, Real):
        raise MinitrainError(
            f"compute_metrics returned {name}: {shown(value)} ({type(value).__name__}); expected a number. For one "
            "number per class give each a name"
        )
    return float(number)


def _same(own: float, built_in: float) -> bool:
    return math.isclose(own, built_in, rel_tol=1e-6, abs_tol=1e-9) or (math.isnan(own) and math.isnan(built_in))
