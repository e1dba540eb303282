"""Examples -> the padded tensors of a batch, with labels of one kind, of Python, numpy or torch.

A label is a class (int64) or a score (float32), and never guessed: a batch has one kind of them, or none.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from minitrain.config.scalars import plain
from minitrain.data.tokenizer.files import PADDING_SIDES
from minitrain.data.tokenizer.tokenizer import Example
from minitrain.errors import MinitrainError, shown

_LARGEST = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Batch:
    """Tensors of one forward pass, on one device.

    input_ids, attention_mask, token_type_ids: (B, L) int64. labels: (B,) int64 classes or float32 scores, or None.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return self.input_ids.size(0)

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What a model takes: `model(**batch.inputs)`."""
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "token_type_ids": self.token_type_ids,
        }

    def to(self, device: torch.device | str) -> "Batch":
        """On a device; a GPU fetches it from pinned memory by itself, while the process goes on."""
        pinned = torch.device(device).type == "cuda" and self.input_ids.device.type == "cpu"

        def moved(tensor: Tensor) -> Tensor:
            return (tensor.pin_memory() if pinned else tensor).to(device, non_blocking=pinned)

        labels = None if self.labels is None else moved(self.labels)
        return Batch(**{name: moved(tensor) for name, tensor in self.inputs.items()}, labels=labels)

    def fill(self, other: "Batch") -> None:
        """Take over the numbers of another batch of the same shape, in place; a GPU fetches them as in `to`."""
        for own, new in zip(self._tensors, other._tensors, strict=True):
            pinned = own.device.type == "cuda" and new.device.type == "cpu"
            own.copy_(new.pin_memory() if pinned else new, non_blocking=pinned)

    @property
    def _tensors(self) -> list[Tensor]:
        return [*self.inputs.values(), *([] if self.labels is None else [self.labels])]


def collate(
    examples: Sequence[Example],
    pad_token_id: int = 0,
    pad_to_multiple_of: int | None = None,
    *,
    padding_side: str = "right",
) -> Batch:
    """Pad examples to the longest of them, as transformers' DataCollatorWithPadding does.

    pad_to_multiple_of: round the length up to a multiple, which some GPU kernels prefer. padding_side: "right", or
    "left" to put the padding before the tokens. Labels that are integers become int64, floats float32, of Python,
    numpy or torch alike; None stays None. Never touches a device.
    Raises MinitrainError for another side, for numbers that pad nothing, when there are no examples, and naming the
    one that is none or whose label is of no use.
    """
    if padding_side not in PADDING_SIDES:
        raise MinitrainError(f"padding_side is {padding_side!r}; give {' or '.join(map(repr, PADDING_SIDES))}")
    _check_number("pad_token_id", pad_token_id, 0, "as tokenizer.pad_token_id")
    if pad_to_multiple_of is not None:
        _check_number("pad_to_multiple_of", pad_to_multiple_of, 1, "or None")
    examples = checked_examples(examples)
    length = max(len(example.input_ids) for example in examples)
    if pad_to_multiple_of is not None:
        length = -(-length // pad_to_multiple_of) * pad_to_multiple_of
    padding = [length - len(example.input_ids) for example in examples]

    def padded(rows: list[list[int]], value: int) -> Tensor:
        if padding_side == "left":
            return _matrix([[value] * n + row for row, n in zip(rows, padding, strict=True)])
        return _matrix([row + [value] * n for row, n in zip(rows, padding, strict=True)])

    return Batch(
        input_ids=padded([e.input_ids for e in examples], pad_token_id),
        attention_mask=padded([[1] * (length - n) for n in padding], 0),
        token_type_ids=padded([e.token_type_ids for e in examples], 0),
        labels=label_tensor([example.label for example in examples]),
    )


def _check_number(name: str, value: Any, lowest: int, way: str) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < lowest:
        raise MinitrainError(f"{name} is {_named(value)}; expected an integer of at least {lowest}, {way}")


def _matrix(rows: list[list[int]]) -> Tensor:
    """Rows of one length -> int64; numpy reads lists four times as fast as torch."""
    import numpy

    return torch.from_numpy(numpy.array(rows, dtype=numpy.int64))


def checked_examples(examples: Any) -> list[Example]:
    """Examples of lists of equal length. Raises MinitrainError naming the first that is none, counted from 1."""
    if isinstance(examples, Example | str | bytes | dict) or not isinstance(examples, Iterable):
        raise MinitrainError(
            f"collate() was given {_named(examples)}, expected a list of examples, as [split[row] for row in rows]"
        )
    found = list(examples)
    if not found:
        raise MinitrainError("collate() was given no examples; a batch has at least one")
    for number, example in enumerate(found, start=1):
        if not isinstance(example, Example):
            raise MinitrainError(
                f"example {number} of the batch is {_named(example)}, expected an Example: a tokenizer makes them "
                "of texts, tokenizer([text]), and Example(input_ids, token_type_ids, label) of ids"
            )
        if type(example.input_ids) is not list or type(example.token_type_ids) is not list:
            found[number - 1] = example = replace(
                example,
                input_ids=_ids(example.input_ids, number),
                token_type_ids=_ids(example.token_type_ids, number),
            )
        if not 0 < len(example.input_ids) == len(example.token_type_ids):
            raise MinitrainError(
                f"example {number} of the batch has {len(example.input_ids)} input_ids and "
                f"{len(example.token_type_ids)} token_type_ids, expected as many of both, and at least one"
            )
    return found


def _ids(values: Any, number: int) -> list[int]:
    """Ids of numpy, torch or a tuple as a list."""
    ids = values.tolist() if hasattr(values, "tolist") else list(values) if isinstance(values, Iterable) else values
    if not isinstance(ids, list) or not all(isinstance(one, Integral) for one in ids):
        raise MinitrainError(f"example {number} of the batch has ids {_named(values)}, expected a list of integers")
    return [int(one) for one in ids]


def label_tensor(labels: Sequence[Any]) -> Tensor | None:
    """(B,) int64 of classes, float32 of scores, or None where no example has a label.

    Raises MinitrainError naming the first label, counted from 1, that is none, or of another kind than the first.
    """
    kinds = set(map(type, labels))
    if kinds == {type(None)}:
        return None
    if kinds not in ({int}, {float}):  # the two that splits have are told apart at once
        labels = [_plain(label, number) for number, label in enumerate(labels, start=1)]
        _check_alike(labels)
    if type(labels[0]) is int:
        wrong = next((number for number, label in enumerate(labels) if not 0 <= label <= _LARGEST), None)
        if wrong is not None:
            raise MinitrainError(
                f"example {wrong + 1} of the batch has the label {labels[wrong]}; classes count from 0, and no "
                "number means 'ignore me': leave the example out, or give label=None to all that are to predict"
            )
        return torch.tensor(labels, dtype=torch.int64)
    wrong = next((number for number, label in enumerate(labels) if not math.isfinite(label)), None)
    if wrong is not None:
        raise MinitrainError(
            f"example {wrong + 1} of the batch has the label {labels[wrong]}; expected a finite score: leave it out"
        )
    return torch.tensor(labels, dtype=torch.float32)


def _check_alike(labels: Sequence[Any]) -> None:
    first = type(labels[0])
    for number, label in enumerate(labels, start=1):
        if type(label) is not first:
            raise MinitrainError(
                f"example {number} of the batch has the label {label!r}, example 1 {labels[0]!r}: a batch has "
                "classes (int), scores (float) or no labels (None): make all of them alike"
            )


def _plain(label: Any, number: int) -> int | float | None:
    """A label of numpy or torch as one of Python; a bool is class 0 or 1."""
    value = plain(label)
    if value is None:
        return None
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise MinitrainError(
        f"example {number} of the batch has the label {_named(label)}, expected a class (an int from 0) or a score "
        "(a float); load_splits gives words their numbers"
    )


def _named(value: Any) -> str:
    return f"{shown(value)} ({type(value).__name__})"
