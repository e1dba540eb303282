"""Which rows have the same text, but for case, blanks and Unicode's form: a number for each.

The number is 64 bits of Python's hash: two of a million different texts share one with a chance of 1 in 10 million.
"""

from collections.abc import Iterable, Sequence

from minitrain.data.labels.values import alike


def text_keys(columns: Sequence[Iterable[str]]) -> list[int | None]:
    """A key for each row of one or two columns of texts; None if all its texts are blank.

    >>> one, other, blank = text_keys([["A  text", "a text", " "]])
    >>> one == other, blank is None
    (True, True)
    """
    if len(columns) == 1:
        return [hash(text) if (text := alike(raw)) else None for raw in columns[0]]
    rows = zip(*([alike(raw) for raw in column] for column in columns), strict=True)
    return [hash(texts) if any(texts) else None for texts in rows]


def first_rows(keys: Iterable[int | None]) -> list[int]:
    """For each row the first that has the same key; a row without a key is the first of its own.

    >>> first_rows([7, 8, 7, None, None])
    [0, 1, 0, 3, 4]
    """
    seen: dict[int, int] = {}
    return [row if key is None else seen.setdefault(key, row) for row, key in enumerate(keys)]


def groups_of(first: Sequence[int]) -> dict[int, list[int]]:
    """The rows of each text that occurs more than once, by its first row."""
    groups: dict[int, list[int]] = {}
    for row, other in enumerate(first):
        if other != row:
            groups.setdefault(other, [other]).append(row)
    return groups
