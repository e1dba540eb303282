"""Texts of which there is little to read: blank ones, and single words."""

from collections.abc import Callable

from minitrain.data.check.corpus import Corpus, Finding
from minitrain.data.check.words import UNSPACED


def short_texts(corpus: Corpus) -> list[Finding]:
    """Findings of texts that are blank or one word."""
    blank, single = _rows(corpus, _is_blank), _rows(corpus, _is_one_word)
    found = []
    if blank:
        found.append(
            Finding(
                name="blank_text",
                rows=blank,
                of=len(corpus),
                what="A text is empty or blank.",
                effect="The model gives all of them the same answer, and learns it from their labels.",
                way_out="Leave them out; or read another column, too: --text_columns a,b --join ' '.",
            )
        )
    if single:
        found.append(
            Finding(
                name="one_word_text",
                rows=single,
                of=len(corpus),
                what="A text is a single word.",
                effect="Little to learn from, often a remark of a form (none, n/a, test).",
                way_out="Look at them, and leave out those that say nothing.",
            )
        )
    return found


def _rows(corpus: Corpus, test: Callable[[str], bool]) -> list[int]:
    found = {row for column in corpus.texts for row, text in enumerate(column) if test(text)}
    return sorted(found - corpus.no_text.keys())


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


def _is_one_word(text: str) -> bool:
    return len(text.split(None, 1)) == 1 and (text.isascii() or UNSPACED.search(text) is None)
