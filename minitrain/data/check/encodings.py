"""Texts that were read in a wrong encoding: UTF-8 taken for Latin-1 or cp1252, and letters that were lost."""

import re

from minitrain.data.check.corpus import Corpus, Finding

# What the bytes of UTF-8 look like in cp1252: é is Ã©, ’ is â€™, a byte order mark ï»¿; U+FFFD is what was lost.
_LATER = "\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"  # bytes after the first of a letter
_WRONG = re.compile(f"\ufffd|ï»¿|â(?:€|\x80)|Ã[{_LATER}]|Â[\xa0-\xbf]|[ÐÑ][{_LATER}][ÐÑ]")

_CONTROL = re.compile("[\x80-\x9f]")  # of Latin-1; cp1252 has no such letters


def encodings(corpus: Corpus) -> list[Finding]:
    """A finding of texts in which letters are broken."""
    broken = {}
    for column in corpus.texts:
        for row, text in enumerate(column):
            if not text.isascii() and (match := _WRONG.search(text)) is not None:
                broken[row] = f"{match[0]!r} in {text[max(0, match.start() - 15) : match.end() + 15]!r}"
    if not broken:
        return []
    texts = [column[row] for row in broken for column in corpus.texts]
    codec = "latin-1" if any(map(_CONTROL.search, texts)) else "cp1252"
    return [
        Finding(
            name="wrong_encoding",
            rows=sorted(broken),
            of=len(corpus),
            what="Letters are broken, as if UTF-8 had been read as Latin-1 or cp1252, or were lost.",
            effect="The tokenizer makes pieces of them that mean nothing.",
            way_out="Save the file as UTF-8 from where it came; of a text, "
            f"text.encode('{codec}').decode('utf-8') often mends it in Python.",
            notes=broken,
        )
    ]
