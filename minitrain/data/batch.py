"""Tokenized examples -> the padded tensors of a batch.

Labels are classes (int64), scores (float32) or 0 or 1 for each class (float32), of Python, numpy or torch; a batch
has one kind of them, or none.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from minitrain.config.options import plain
from minitrain.data.examples import is_label_list
from minitrain.data.tokenizer.files import PADDING_SIDES
from minitrain.data.tokenizer.tokenizer import Example
from minitrain.data.windows import Document
from minitrain.errors import MinitrainError, shown

LARGEST_CLASS = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Batch:
    """The tensors of one forward pass, on one device.

    input_ids, attention_mask, token_type_ids: (B, L) int64. labels: (B,) int64 classes or float32 scores, (B, C)
    float32, or None.
    windows: Rows of each example if long texts are cut into windows: input_ids etc. are then (W, L), a row for each
    window, and `pool_windows(logits, windows, pooling)` makes (B, C) of the logits (W, C).
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor
    labels: Tensor | None = None
    windows: tuple[int, ...] | None = field(default=None, kw_only=True)
    pooling: str = field(default="mean", kw_only=True)

    def __len__(self) -> int:
        return len(self.windows or self.input_ids)

    @property
    def inputs(self) -> dict[str, Tensor]:
        """The model's arguments: `model(**batch.inputs)`."""
        return {name: getattr(self, name) for name in ("input_ids", "attention_mask", "token_type_ids")}

    def to(self, device: torch.device | str) -> "Batch":
        """Copy to a device; to a GPU asynchronously, from pinned memory."""
        pin = torch.device(device).type == "cuda" and self.input_ids.device.type == "cpu"
        tensors = {name: tensor.pin_memory() if pin else tensor for name, tensor in self._tensors.items()}
        moved: Any = {name: tensor.to(device, non_blocking=pin) for name, tensor in tensors.items()}
        return replace(self, **moved)

    def fill(self, other: "Batch") -> None:
        """Overwrite these tensors in place with those of a batch of the same shape; to a GPU as `to` does."""
        for own, new in zip(self._tensors.values(), other._tensors.values(), strict=True):
            pin = own.device.type == "cuda" and new.device.type == "cpu"
            own.copy_(new.pin_memory() if pin else new, non_blocking=pin)

    @property
    def _tensors(self) -> dict[str, Tensor]:
        return self.inputs | ({} if self.labels is None else {"labels": self.labels})


def collate(
    examples: Sequence[Example],
    pad_token_id: int = 0,
    pad_to_multiple_of: int | None = None,
    *,
    padding_side: str = "right",
) -> Batch:
    """Pad examples to the longest of them and stack them, as transformers' DataCollatorWithPadding does.

    Args:
        pad_token_id: Of the tokenizer; 0 is BERT's.
        pad_to_multiple_of: Round the length up to a multiple, which some GPU kernels prefer.

    A `Document` of a split with windows becomes its windows, as many rows of the batch.

    Raises:
        MinitrainError: An argument or example is invalid, or a batch mixes kinds of labels.

    >>> batch = collate([Example([101, 7, 102], [0, 0, 0], 1), Example([101, 102], [0, 0], 0)])
    >>> batch.input_ids.tolist(), batch.attention_mask.tolist(), batch.labels.tolist()
    ([[101, 7, 102], [101, 102, 0]], [[1, 1, 1], [1, 1, 0]], [1, 0])
    """
    _check_padding(pad_token_id, pad_to_multiple_of, padding_side)
    plain = isinstance(examples, list) and bool(examples) and all(map(_is_plain, examples))
    examples = examples if plain else _checked_examples(examples)
    labels = _label_tensor([example.label for example in examples])
    examples, windows, pooling = (examples, None, "mean") if plain else _in_windows(examples)
    length = max(len(example.input_ids) for example in examples)
    if pad_to_multiple_of is not None:
        length = -(-length // pad_to_multiple_of) * pad_to_multiple_of  # rounded up

    def pad(rows: list[list[int]], value: int) -> Tensor:
        import numpy  # reads lists four times as fast as torch

        padding = [[value] * (length - len(row)) for row in rows]
        pairs = zip(rows, padding, strict=True)
        padded = [row + fill if padding_side == "right" else fill + row for row, fill in pairs]
        return torch.from_numpy(numpy.array(padded, dtype=numpy.int64))

    return Batch(
        input_ids=pad([e.input_ids for e in examples], pad_token_id),
        attention_mask=pad([[1] * len(e.input_ids) for e in examples], 0),
        token_type_ids=pad([e.token_type_ids for e in examples], 0),
        labels=labels,
        windows=windows,
        pooling=pooling,
    )


def _is_plain(example: Any) -> bool:
    """Whether an example needs neither conversion nor an error, as those of a Split."""
    if type(example) is not Example or type(example.input_ids) is not list:
        return False
    return type(example.token_type_ids) is list and 0 < len(example.input_ids) == len(example.token_type_ids)


def _in_windows(examples: Sequence[Example]) -> tuple[Sequence[Example], tuple[int, ...] | None, str]:
    """The windows of long texts in the place of the texts, the number of each text's windows, and their pooling."""
    settings = {example.windows for example in examples if isinstance(example, Document)}
    if not settings:
        return examples, None, "mean"
    if len(settings) > 1:
        raise MinitrainError("the texts of a batch are cut into windows in different ways: cut all of them alike")
    parts = [example.examples() if isinstance(example, Document) else [example] for example in examples]
    return list(chain.from_iterable(parts)), tuple(map(len, parts)), settings.pop().pooling


def _label_tensor(labels: Sequence[Any]) -> Tensor | None:
    """(B,) int64 classes or float32 scores, (B, C) float32, or None if no example has a label."""
    kinds = set(map(type, labels))
    if kinds == {type(None)}:
        return None
    if kinds == {int} and min(labels) >= 0 and max(labels) <= LARGEST_CLASS:
        return torch.tensor(labels, dtype=torch.int64)
    if kinds == {float} and all(map(math.isfinite, labels)):
        return torch.tensor(labels, dtype=torch.float32)
    if any(map(is_label_list, labels)):
        return _multi_hot(labels)
    return _label_tensor(_checked_labels(labels))


def _multi_hot(labels: Sequence[Any]) -> Tensor:
    """(B, C) float32. Raises MinitrainError for the first label that is not 0 to 1 for each class."""
    rows = [label.tolist() if hasattr(label, "tolist") else label for label in labels]
    for number, row in enumerate(rows, start=1):
        numbers = isinstance(row, list | tuple) and all(isinstance(value, int | float) for value in row)
        if not numbers or not row or not all(0 <= value <= 1 for value in row):
            raise MinitrainError(
                f"example {number} of the batch has the label {_named(row)}; others list 0 or 1 for each class: "
                "make all of them alike"
            )
        if len(row) != len(rows[0]):
            raise MinitrainError(
                f"example {number} of the batch has a label of {len(row)} values, example 1 one of {len(rows[0])}; "
                "give 0 or 1 for each class"
            )
    return torch.tensor(rows, dtype=torch.float32)


def _check_padding(pad_token_id: Any, multiple: Any, side: str) -> None:
    if not _is_integer(pad_token_id, 0):
        expected = "expected an integer of at least 0, such as tokenizer.pad_token_id"
        raise MinitrainError(f"pad_token_id is {_named(pad_token_id)}; {expected}")
    if multiple is not None and not _is_integer(multiple, 1):
        expected = "expected an integer of at least 1, or None"
        raise MinitrainError(f"pad_to_multiple_of is {_named(multiple)}; {expected}")
    if side not in PADDING_SIDES:
        raise MinitrainError(f"padding_side is {side!r}; expected {' or '.join(map(repr, PADDING_SIDES))}")


def _is_integer(value: Any, lowest: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= lowest


def _checked_examples(examples: Any) -> list[Example]:
    """Convert ids of numpy, torch or tuples to lists. Raises MinitrainError naming the first invalid example."""
    if isinstance(examples, Example | str | bytes | dict) or not isinstance(examples, Iterable):
        raise MinitrainError(
            f"collate() was given {_named(examples)}, expected a list of examples, as [split[row] for row in rows]"
        )
    found = list(examples)
    if not found:
        raise MinitrainError("collate() was given no examples; a batch has at least one")
    for i, example in enumerate(found):
        where = f"example {i + 1} of the batch"
        if not isinstance(example, Example):
            raise MinitrainError(
                f"{where} is {_named(example)}, expected an Example: tokenizer([text]) makes them from texts"
            )
        ids, type_ids = _ids(example.input_ids, where), _ids(example.token_type_ids, where)
        if not 0 < len(ids) == len(type_ids):
            raise MinitrainError(
                f"{where} has {len(ids)} input_ids and {len(type_ids)} token_type_ids, expected equally many, > 0"
            )
        found[i] = replace(example, input_ids=ids, token_type_ids=type_ids)
    return found


def _ids(values: Any, where: str) -> list[int]:
    ids = values.tolist() if hasattr(values, "tolist") else list(values) if isinstance(values, Iterable) else values
    if not isinstance(ids, list) or not all(isinstance(one, Integral) for one in ids):
        raise MinitrainError(f"{where} has ids {_named(values)}, expected a list of integers")
    return [int(one) for one in ids]


def _checked_labels(labels: Sequence[Any]) -> list[Any]:
    """Convert labels of numpy and torch. Raises MinitrainError naming the first invalid one."""
    converted = [_to_python(label) for label in labels]
    for number, (label, given) in enumerate(zip(converted, labels, strict=True), start=1):
        has = f"example {number} of the batch has the label"
        if label is not None and type(label) not in (int, float):
            raise MinitrainError(f"{has} {_named(given)}, expected a class (an int from 0) or a score (a float)")
        if type(label) is not type(converted[0]):
            raise MinitrainError(
                f"{has} {label!r}, example 1 {converted[0]!r}: a batch has classes (int), scores (float) or no "
                "labels (None): make all of them alike"
            )
        if isinstance(label, int) and not 0 <= label <= LARGEST_CLASS:
            raise MinitrainError(f"{has} {label}; expected a class from 0: leave the example out")
        if isinstance(label, float) and not math.isfinite(label):
            raise MinitrainError(f"{has} {label}; expected a finite score: leave the example out")
    return converted


def _to_python(label: Any) -> Any:
    value = plain(label)
    if isinstance(value, Integral):  # a bool, too, is class 0 or 1
        return int(value)
    return float(value) if isinstance(value, Real) else value


def _named(value: Any) -> str:
    return f"{shown(value)} ({type(value).__name__})"
