"""The words of texts: in lower case, without punctuation; in scripts without blanks a letter is a word.

Many texts are taken apart at once, with numpy: a word becomes 64 bits of a polynomial hash over its bytes.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

LONGEST = 20_000  # characters of a text that are looked at
_BETWEEN = re.compile(r"[\W_]+")
# Kana, Han, Thai, Lao, Khmer, Myanmar, Tibetan: written without blanks between words.
UNSPACED = re.compile(
    "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u0f00-\u109f\u1780-\u17ff]"
)
_ASCII = bytes(
    0 if byte == 0 else ord(chr(byte).lower()) if byte > 127 or chr(byte).isalnum() else 32 for byte in range(128)
) + bytes(range(128, 256))
_BASE = 0x9E3779B97F4A7C15  # odd, so that powers of it have inverses modulo 2**64


def _spaced(text: str) -> str:
    """A text of which ASCII punctuation alone is left between the words; row ends are blanks."""
    text = text[:LONGEST]
    if text.isascii():
        return text.replace("\0", " ") if "\0" in text else text
    text = _BETWEEN.sub(" ", unicodedata.normalize("NFKC", text).casefold())
    return UNSPACED.sub(r" \g<0> ", text)


def words_of(text: str) -> list[bytes]:
    """The words of a text.

    >>> words_of("It's FINE, 好的")
    [b'it', b's', b'fine', b'\\xe5\\xa5\\xbd', b'\\xe7\\x9a\\x84']
    """
    return _encoded(_spaced(text)).split()


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace").translate(_ASCII)


def hashed_words(texts: Sequence[str]) -> tuple[Any, Any]:
    """The words of all texts.

    Returns:
        The hash of each word, uint64, end to end; and how many each text has, int64.
    """
    import numpy as np

    data = np.frombuffer(_encoded("\0".join(map(_spaced, texts)) + "\0"), np.uint8)
    blank = (data == 32) | (data == 0)
    before = np.concatenate([[True], blank[:-1]])
    starts, ends = np.flatnonzero(~blank & before), np.flatnonzero(blank & ~before)
    powers = _powers(1 << len(data).bit_length())
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(data * powers[0][: len(data)], dtype=np.uint64)])
    hashes = mixed((sums[ends] - sums[starts]) * powers[1][starts])
    counts = np.bincount(np.searchsorted(np.flatnonzero(data == 0), starts), minlength=len(texts))
    return hashes, counts


@lru_cache(1)
def _powers(count: int) -> tuple[Any, Any]:
    """The powers of the base and of its inverse, modulo 2**64."""
    import numpy as np

    inverse = pow(_BASE, -1, 2**64)
    found = []
    for base in (_BASE, inverse):
        factors = np.full(count, base, np.uint64)
        factors[:1] = 1
        found.append(np.cumprod(factors, dtype=np.uint64))
    return found[0], found[1]


def mixed(values: Any) -> Any:
    """uint64 values whose bits all depend on each other: the last steps of SplitMix64 (Steele et al. 2014)."""
    import numpy as np

    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
