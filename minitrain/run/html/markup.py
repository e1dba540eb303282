"""Pieces of HTML. A text of a user passes through `text`, a number through `number`, which keeps it whole."""

import json
import unicodedata
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

LONGEST_NAME = 60  # characters of a class, a column, a file
JOINERS = "\u200c\u200d"  # Persian words and families of emoji are written with them
BIDI_SAFE = "Cc", "Cf", "Cs", "Zl", "Zp"  # categories that move the cursor, reorder or hide text


def text(value: object) -> str:
    r"""A user's text for a page: without markup, and with control characters as visible escapes.

    >>> print(text("<b>\u202eevil"))
    &lt;b&gt;<span class="escape">\u202e</span>evil
    """
    return "".join(_visible(character) for character in str(value))


def _visible(character: str) -> str:
    if character.isprintable() or character in JOINERS or unicodedata.category(character) not in BIDI_SAFE:
        return escape(character)
    return f'<span class="escape">{character.encode("unicode_escape").decode()}</span>'


def name(value: object, limit: int = LONGEST_NAME) -> str:
    """A short text of a user inside a sentence or a cell, in its own direction of writing."""
    whole = str(value)
    return f"<bdi>{text(whole if len(whole) <= limit else f'{whole[: limit - 1]}…')}</bdi>"


def number(value: float | None, *path: object, form: str | None = None) -> str:
    """A number, rounded for the eye; the whole number and where it is from stand beside it for programs.

    Args:
        path: The keys that lead to it: "results", "results", "validation", "accuracy". The first is the file
            (results, log), or predictions for what follows from predictions.jsonl.
        form: A format specification; by default four decimals, and whole numbers with commas.

    >>> number(0.98765, "results", "f1")
    '<data value="0.98765" data-path="[&quot;results&quot;, &quot;f1&quot;]">0.9877</data>'
    """
    if value is None:
        return "none"
    where = escape(json.dumps(path, ensure_ascii=False))
    return f'<data value="{value!r}" data-path="{where}">{rounded(value, form)}</data>'


def rounded(value: float, form: str | None = None) -> str:
    """A number as the page shows it.

    >>> rounded(0.98765), rounded(1234567), rounded(5e-05), rounded(3.2e9), rounded(0.0)
    ('0.9877', '1,234,567', '5e-05', '3.2e+09', '0.0000')
    """
    if form is not None:
        return format(value, form)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"


def counted(count: int, what: str) -> str:
    """1 evaluation, 3 evaluations"""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str, kind: str = "") -> str:
    """A table in a box that scrolls; the first cell of a row is its header. All strings are HTML."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in heads)
    body = "".join(_row(row) for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{attribute(caption)}">'
        f'<table class="{kind}"><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
    )


def _row(cells: Sequence[str]) -> str:
    first, *others = cells
    rest = "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in others)
    return f'<tr><th scope="row">{first}</th>{rest}</tr>\n'


def attribute(markup: str) -> str:
    """The text of a piece of HTML, without its tags, for an attribute."""
    plain, inside = [], False
    for character in markup:
        inside = inside or character == "<"
        if not inside:
            plain.append(character)
        inside = inside and character != ">"
    return "".join(plain).replace('"', "&quot;")


def bar(share: float) -> str:
    """A horizontal bar beside a number, for the eye only."""
    return f'<span class="bar" aria-hidden="true"><i style="width:{100 * min(max(share, 0), 1):.1f}%"></i></span>'


def figure(svg: str, caption: str) -> str:
    """A picture with its caption."""
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>\n"


def section(title: str, *parts: str, level: int = 2) -> str:
    """A heading and what belongs to it; nothing without content."""
    content = "".join(parts)
    return f"<section><h{level}>{title}</h{level}>\n{content}</section>\n" if content else ""


def figures(*drawn: Any) -> str:
    """Pictures side by side, where there is room."""
    content = "".join(drawn)
    return f'<div class="figures">{content}</div>\n' if content else ""
