"""What goes into a batch, as people pass it: examples, and labels of one kind, from Python, numpy or torch.

A label is a class (int64) or a score (float32), and never guessed: a batch has one kind of them, or none.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from minitrain.errors import MinitrainError, shown
from minitrain.scalars import plain
from minitrain.tokenizer import Example

_LARGEST = torch.iinfo(torch.int64).max


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
