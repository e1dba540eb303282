"""Markdown as the Hub renders it (CommonMark with GitHub's tables), from texts that may hold anything."""

import re
from collections.abc import Iterable, Sequence

from minitrain.data.labels.notes import in_table, plain

_MEANS_SOMETHING = re.compile(r"[\\`*\[\]<>|~$&]|(?<![^\W_])_|_(?![^\W_])")  # a _ inside of a word means nothing


def escaped(text: object, limit: int = 40) -> str:
    """A text that Markdown and HTML take literally, in a line or in a cell of a table, shortened by `in_table`.

    >>> print(escaped("a|b"), escaped("<b>"), escaped("not_good"))
    a\\|b \\<b\\> not_good
    """
    return _MEANS_SOMETHING.sub(r"\\\g<0>", in_table(str(text), limit))


def code(text: str, limit: int = 100) -> str:
    """A text as a code span, for a line; not for a cell of a table.

    >>> code("a`b")
    '`` a`b ``'
    """
    text = plain(text, limit)
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """A table of cells that are Markdown already; the first `texts` columns to the left, numbers to the right.

    >>> print(table(("metric", "value"), [("f1", "0.5")]))
    | metric | value |
    |---|---:|
    | f1 | 0.5 |
    """
    dashes = ["---" if i < texts else "---:" for i in range(len(heads))]
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join([f"| {' | '.join(heads)} |", f"|{'|'.join(dashes)}|", *lines])
