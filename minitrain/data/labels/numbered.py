"""The labels of a column as the numbers that a model learns: class ids, scores, or 0 and 1 for each class."""

from array import array
from collections.abc import Sequence

from minitrain.data.labels.ids import Labels, class_ids
from minitrain.data.labels.multi import LabelSet, label_sets, multi_hot
from minitrain.data.labels.values import scores
from minitrain.data.tables.table import Table

Numbers = list[int] | list[float] | list[LabelSet]


def label_numbers(table: Table, column: str, labels: Labels) -> Numbers:
    """The class id, the score, or the ids of the labels of every row.

    Raises MinitrainError naming source, row, column and value.
    """
    if labels.names is None:
        return scores(table, column)
    return label_sets(table, column, labels) if labels.multi_label else class_ids(table, column, labels)


def label_array(table: Table, column: str, labels: Labels) -> "array[int] | array[float]":
    """`label_numbers` as int64, or as float32; of several labels a row, (rows, C) end to end."""
    if labels.names is not None and labels.multi_label:
        return multi_hot(label_sets(table, column, labels), len(labels.names))
    numbers: Sequence[int] | Sequence[float] = label_numbers(table, column, labels)  # type: ignore[assignment]
    return array("f" if labels.names is None else "q", numbers)
