"""Texts in another script than most: Unicode's blocks of letters, not languages."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from minitrain.data.check.corpus import Corpus, Finding

# The first and last letter of each script's blocks. Japanese has Han letters too, so that both are one here.
BLOCKS = {
    "Latin": ((0x41, 0x5A), (0x61, 0x7A), (0xAA, 0xAA), (0xBA, 0xBA), (0xC0, 0x24F), (0x1E00, 0x1EFF),
              (0x2C60, 0x2C7F), (0xA720, 0xA7FF), (0xFB00, 0xFB06), (0xFF21, 0xFF3A), (0xFF41, 0xFF5A)),
    "Greek": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "Cyrillic": ((0x400, 0x52F), (0x1C80, 0x1C8F), (0x2DE0, 0x2DFF), (0xA640, 0xA69F)),
    "Armenian": ((0x530, 0x58F),),
    "Hebrew": ((0x591, 0x5FF),),
    "Arabic": ((0x610, 0x6FF), (0x750, 0x77F), (0x8A0, 0x8FF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFE)),
    "Devanagari": ((0x900, 0x963), (0x966, 0x97F)),
    "Bengali": ((0x980, 0x9FF),),
    "Gurmukhi": ((0xA00, 0xA7F),),
    "Gujarati": ((0xA80, 0xAFF),),
    "Odia": ((0xB00, 0xB7F),),
    "Tamil": ((0xB80, 0xBFF),),
    "Telugu": ((0xC00, 0xC7F),),
    "Kannada": ((0xC80, 0xCFF),),
    "Malayalam": ((0xD00, 0xD7F),),
    "Sinhala": ((0xD80, 0xDFF),),
    "Thai": ((0xE01, 0xE7F),),
    "Lao": ((0xE80, 0xEFF),),
    "Tibetan": ((0xF00, 0xFFF),),
    "Myanmar": ((0x1000, 0x109F),),
    "Georgian": ((0x10A0, 0x10FF),),
    "Hangul": ((0x1100, 0x11FF), (0x3130, 0x318F), (0xAC00, 0xD7AF)),
    "Ethiopic": ((0x1200, 0x139F),),
    "Khmer": ((0x1780, 0x17FF),),
    "Mongolian": ((0x1800, 0x18AF),),
    "Han or kana": ((0x3041, 0x30FA), (0x30FC, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
                    (0xF900, 0xFAFF), (0xFF66, 0xFF9D), (0x20000, 0x323AF)),
}  # fmt: skip
NAMES = ("", *BLOCKS)  # "" for what is no letter
_SPANS = sorted((first, last + 1, i) for i, name in enumerate(BLOCKS, 1) for first, last in BLOCKS[name])
_EDGES = [edge for first, end, _ in _SPANS for edge in (first, end)]
_KINDS = [0, *(kind for *_, i in _SPANS for kind in (i, 0))]
MOST = 0.9  # of the texts in one script, so that others are odd ones


def script_of(letter: str) -> str:
    """The script of a letter; "" for anything else.

    >>> script_of("é"), script_of("я"), script_of("7")
    ('Latin', 'Cyrillic', '')
    """
    return NAMES[_KINDS[bisect_right(_EDGES, ord(letter))]]


def scripts(corpus: Corpus) -> list[Finding]:
    """A finding of the texts in another script than the commonest."""
    main = [number for _, texts in corpus.pieces() for number in main_scripts(texts)]
    counts = Counter(number for number in main if number)
    if len(counts) < 2:
        return []
    usual, rows_of_usual = counts.most_common(1)[0]
    rows = [row for row, number in enumerate(main) if number not in (0, usual)]
    shares = ", ".join(f"{NAMES[number]} {count}" for number, count in counts.most_common(5))
    mixed = rows_of_usual < MOST * counts.total()
    return [
        Finding(
            name="other_script",
            rows=rows,
            of=len(corpus),
            what=f"Texts by the script of most of their letters: {shares}.",
            effect="The model reads scripts well that it was pretrained on"
            + ("" if mixed else ", and the few here say little about the rest")
            + ".",
            way_out="Leave the odd ones out, or choose a --model for all of these scripts; check.py --model NAME "
            "counts the tokens it does not know.",
            notes={row: f"{NAMES[main[row]]}" for row in rows},
        )
    ]


def main_scripts(texts: Sequence[str]) -> list[int]:
    """The number in `NAMES` of the script that most letters of each text have; 0 without letters."""
    found = [1 if text.isascii() and any(map(str.isalpha, text)) else 0 for text in texts]
    others = [i for i, text in enumerate(texts) if not text.isascii()]
    start = 0
    ends = [*accumulate(len(texts[i]) for i in others)]
    while start < len(others):  # a few megabytes of letters at a time
        before = ends[start - 1] if start else 0
        stop = max(start + 1, bisect_right(ends, before + 2_000_000))
        for i, number in zip(others[start:stop], _by_counting([texts[i] for i in others[start:stop]]), strict=True):
            found[i] = number
        start = stop
    return found


def _by_counting(texts: Sequence[str]) -> list[int]:
    import numpy as np

    letters = np.frombuffer("".join(texts).encode("utf-32-le", "replace"), np.uint32)
    kinds = np.array(_KINDS, np.int64)[np.searchsorted(np.array(_EDGES, np.uint32), letters, side="right")]
    rows = np.repeat(np.arange(len(texts)), list(map(len, texts)))
    counts: Any = np.bincount(rows * len(NAMES) + kinds, minlength=len(texts) * len(NAMES))
    counts = counts.reshape(len(texts), len(NAMES))
    counts[:, 0] = 0
    numbers: list[int] = counts.argmax(axis=1).tolist()
    return numbers
