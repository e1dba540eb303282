"""What metrics take, checked and converted: class ids, scores, 0/1 matrices, logits.

Tensors, arrays and lists of any number type; an error names the first value that does not fit.
"""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from minitrain.config.options import plain
from minitrain.errors import MinitrainError, shown

_LARGEST = torch.iinfo(torch.int64).max
Values = Tensor | Sequence[int] | Sequence[float]


def class_ids(predictions: Values, labels: Values, num_classes: int | None = None) -> tuple[Tensor, Tensor]:
    """Both as (B,) int64 on the CPU; without `num_classes` any id from 0 is valid."""
    predicted, true = _pair(predictions, labels)
    for name, values in (("predictions", predicted), ("labels", true)):
        if values.is_floating_point() and len(values):
            raise MinitrainError(f"{name} are {values.dtype}; class ids are integers: the argmax of the logits")
        wrong = values < 0 if num_classes is None else (values < 0) | (values >= num_classes)
        if wrong.any():
            index = int(wrong.nonzero()[0])
            limit = "upwards" if num_classes is None else f"to {num_classes - 1}"
            raise MinitrainError(
                f"{name}[{index}] is {values[index]}; class ids go from 0 {limit}. GLUE's test splits hide their "
                "labels as -1: evaluate on the validation split"
            )
    return predicted.long(), true.long()


def scores(predictions: Values, labels: Values) -> list[Tensor]:
    """Both as (B,) float32 on the CPU."""
    return [values.float() for values in _pair(predictions, labels)]


def multi_hot(predictions: Any, labels: Any, num_labels: int) -> tuple[Tensor, Tensor]:
    """Both as (B, C) bool on the CPU, from numbers 0 and 1."""
    predicted, true = (_matrix(values, name) for name, values in (("predictions", predictions), ("labels", labels)))
    if predicted.shape != true.shape or true.ndim != 2 or true.size(1) != num_labels:
        raise MinitrainError(
            f"got predictions {tuple(predicted.shape)}, labels {tuple(true.shape)}; with several "
            f"labels to a row both must be (B, {num_labels})"
        )
    for name, values in (("predictions", predicted), ("labels", true)):
        wrong = ((values != 0) & (values != 1)).nonzero()
        if len(wrong):
            row, column = wrong[0].tolist()
            hint = ": of logits take logits > 0, or update_logits" if name == "predictions" else ""
            value = values[row, column].item()
            raise MinitrainError(f"{name}[{row}, {column}] is {value}; expected 0 or 1{hint}")
    return predicted.bool(), true.bool()


def finite_logits(logits: Tensor, columns: int) -> Tensor:
    """(B, C) logits as float32 on the CPU: a copy, free of NaN and infinity."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.size(1) != columns:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise MinitrainError(f"logits are {got}; expected a tensor (B, {columns})")
    if not logits.isfinite().all():
        raise MinitrainError("a logit is NaN or infinite: rows cannot be ranked by it")
    return logits.detach().to("cpu", torch.float32, copy=True)


def predictions_of(logits: Tensor) -> Tensor:
    """(N, C) logits -> (N,) class ids, or scores if there is a single output.

    >>> predictions_of(torch.tensor([[0.1, 0.2], [3.0, -1.0]]))
    tensor([1, 0])
    """
    return logits[:, 0] if logits.size(1) == 1 else logits.argmax(-1)


def _pair(predictions: Values, labels: Values) -> tuple[Tensor, Tensor]:
    predicted, true = _vector(predictions, "predictions"), _vector(labels, "labels")
    if predicted.ndim != 1 or predicted.shape != true.shape:
        shapes = f"predictions {tuple(predicted.shape)}, labels {tuple(true.shape)}"
        hint = ": of logits (B, C) take .argmax(-1)" if predicted.ndim == 2 and true.ndim == 1 else ""
        raise MinitrainError(f"got {shapes}; both must be (B,), of one length{hint}")
    return predicted, true


def _vector(values: Any, name: str) -> Tensor:
    tensor: Tensor = (values if isinstance(values, Tensor) else _numbers(values, name)).detach().cpu()
    if tensor.is_complex():
        raise MinitrainError(f"{name} are {tensor.dtype}; expected real numbers")
    return tensor.long() if tensor.dtype == torch.bool or not tensor.dtype.is_signed else tensor


def _matrix(values: Any, name: str) -> Tensor:
    try:
        return torch.as_tensor(values).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        kind = f"{shown(values)} ({type(values).__name__})"
        raise MinitrainError(f"{name} are {kind}; expected (B, C) numbers 0 and 1") from error


def _numbers(values: Any, name: str) -> Tensor:
    if isinstance(values, str | bytes | Mapping | set | frozenset) or not isinstance(values, Iterable):
        kind = f"{shown(values)} ({type(values).__name__})"
        raise MinitrainError(f"{name} are {kind}; expected (B,) numbers: a tensor, an array, or a list")
    items = values.tolist() if hasattr(values, "tolist") else list(values)
    if not isinstance(items, list):  # a 0-dim array
        return torch.tensor(_number(items, name))
    if items and all(isinstance(item, list | tuple) for item in items):
        return torch.empty(len(items), len(items[0]))  # refused by its shape, whatever it holds
    return torch.tensor([_number(item, f"{name}[{place}]") for place, item in enumerate(items)])


def _number(item: Any, name: str) -> int | float:
    number = plain(item)
    if isinstance(number, Integral) and abs(int(number)) <= _LARGEST:
        return int(number)
    if isinstance(number, Real) and not isinstance(number, Integral):
        return float(number)
    hint = "class ids, the positions of the label names" if isinstance(item, str) else "a number"
    raise MinitrainError(f"{name} is {shown(item)} ({type(item).__name__}); expected {hint}")
