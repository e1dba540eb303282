"""Examples of a user, or of a tokenizer, as a `Split`."""

from array import array
from collections.abc import Sequence
from itertools import chain
from typing import Any

from minitrain.data.dataset import Split
from minitrain.data.tokenizer.tokenizer import Encoded, Example
from minitrain.data.windows import Document
from minitrain.errors import MinitrainError
from minitrain.storage.token_cache import Tokens


def flatten(rows: Encoded) -> Tokens:
    """Join the ids of examples end to end.

    >>> tokens = flatten(Encoded([Example([101, 7, 102], [0, 0, 0]), Example([101, 102], [0, 0])]))
    >>> tokens.input_ids.tolist(), tokens.lengths.tolist()
    ([101, 7, 102, 101, 102], [3, 2])
    """
    examples = rows.examples
    return Tokens(
        memoryview(array("i", chain.from_iterable(example.input_ids for example in examples))),
        memoryview(array("B", chain.from_iterable(example.token_type_ids for example in examples))),
        memoryview(array("i", [len(example.input_ids) for example in examples])),
        rows.truncated,
        rows.blank,
        rows.unknown,
        rows.removed,
    )


def as_split(rows: "Split | Sequence[Example]") -> Split:
    """A split as it is, or one made of examples.

    Raises:
        MinitrainError: It is neither, or only some examples have labels.
    """
    if isinstance(rows, Split):
        return rows
    if not isinstance(rows, list | tuple) or not rows or not all(isinstance(row, Example) for row in rows):
        of = f" of {type(rows[0]).__name__}" if isinstance(rows, list | tuple) and rows else ""
        raise MinitrainError(
            f"expected a Split, as load_splits and tokenize make, or a list of Example, got "
            f"{type(rows).__name__}{of}; tokenizer(texts) or tokenize(rows, tokenizer, ('text',)) makes one"
        )
    labels = [row.label for row in rows]
    if (unlabelled := sum(label is None for label in labels)) not in (0, len(labels)):
        raise MinitrainError(f"{unlabelled} of {len(labels)} Examples have no label; give all of them one, or none")
    tokens = flatten(Encoded(list(rows)))
    several = all(map(is_label_list, labels))
    are_scores = any(isinstance(label, float) for label in labels)
    cut = {row.windows for row in rows if isinstance(row, Document)}
    if len(cut) > 1:
        raise MinitrainError("the texts are cut into windows in different ways: cut all of them alike")
    windows = cut.pop() if cut else None
    if several:
        flat = array("f", chain.from_iterable(labels))
        return Split(tokens, flat, label_width=_common_width(labels), windows=windows)
    return Split(tokens, None if unlabelled else array("f" if are_scores else "q", labels), windows=windows)


def is_label_list(label: Any) -> bool:
    """Whether a label has a value for each class. An array or tensor of one value is that value.

    >>> is_label_list([0, 1]), is_label_list(1)
    (True, False)
    """
    return isinstance(label, list | tuple) or (getattr(label, "ndim", 0) == 1 and len(label) != 1)


def _common_width(labels: Sequence[Sequence[float]]) -> int:
    """The number of values of each label. Raises MinitrainError if they are not equally many, at least one."""
    sizes = list(map(len, labels))
    if 0 in sizes or len(set(sizes)) > 1:
        raise MinitrainError(
            f"the labels of the Examples have {min(sizes)} to {max(sizes)} values; give all as many"
        )
    return sizes[0]
