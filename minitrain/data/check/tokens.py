"""What a model's tokenizer makes of the texts: their lengths, those that are cut, and tokens it does not know."""

from array import array
from dataclasses import dataclass
from typing import Any

from minitrain.config.long_texts import LongTexts
from minitrain.data.check.corpus import Corpus, Finding
from minitrain.data.load import CHUNK, MANY_UNKNOWN
from minitrain.data.progress import progress
from minitrain.data.tokenizer.tokenizer import Tokenizer
from minitrain.data.windows import windows_of

FEW_CUT = 0.01  # of the rows


@dataclass(frozen=True)
class Tokens:
    """Tokens of each row.

    Attributes:
        lengths: Of each row, with the special tokens.
        unknown: How many of them are unknown.
        limit: Tokens that the model reads.
        special: Tokens that the template adds.
    """

    lengths: "array[int]"
    unknown: "array[int]"
    limit: int
    special: int

    def facts(self) -> dict[str, int]:
        """Counts over all rows."""
        ordered = sorted(self.lengths)
        return {
            "median": ordered[len(ordered) // 2],
            "percentile_95": ordered[int(len(ordered) * 0.95)],
            "longest": ordered[-1],
            "limit": self.limit,
            "truncated": sum(length > self.limit for length in ordered),
            "text_tokens": self.text_tokens,
            "unknown": sum(self.unknown),
        }

    @property
    def text_tokens(self) -> int:
        """All tokens, without those of the template."""
        return sum(self.lengths) - self.special * len(self.lengths)


def count_tokens(corpus: Corpus, tokenizer: Tokenizer, limit: int) -> Tokens:
    """Tokenize all rows; a value that is no text counts as an empty one. limit: Tokens that the model reads."""
    lengths, unknown = array("i"), array("i")
    with progress("tokenizing", len(corpus)) as add:
        for start in range(0, len(corpus), CHUNK):
            first, *second = (column[start : start + CHUNK] for column in corpus.texts)
            encoded = tokenizer.encode(first, second[0] if second else None, long_texts="windows")
            lengths.extend(len(example.input_ids) for example in encoded.examples)
            counts = [0] * len(first)
            if encoded.unknown:
                counts = [example.input_ids.count(tokenizer.unknown_id) for example in encoded.examples]
            unknown.extend(counts)
            add(len(first))
    return Tokens(lengths, unknown, limit, tokenizer.num_special_tokens(corpus.unit == "pair"))


def token_findings(corpus: Corpus, tokenizer: Tokenizer, tokens: Tokens, long_texts: LongTexts) -> list[Finding]:
    """Findings of texts that are longer than the model reads, and of many unknown tokens."""
    return [*_truncated(corpus, tokenizer, tokens, long_texts), *_unknown(corpus, tokens)]


def _truncated(corpus: Corpus, tokenizer: Tokenizer, tokens: Tokens, long_texts: LongTexts) -> list[Finding]:
    most = tokens.limit
    if long_texts.long_texts == "windows":
        windows = windows_of(long_texts, tokenizer, tokens.limit, corpus.text_columns)
        most = windows.room + (windows.room - windows.stride) * (windows.max_windows - 1) + tokens.special
    cut = [row for row, length in enumerate(tokens.lengths) if length > most]
    if len(cut) <= FEW_CUT * len(corpus):
        return []
    others = "tail or head_tail reads other parts" + ("" if corpus.unit == "pair" else ", windows all of it")
    return [
        Finding(
            name="truncated",
            rows=cut,
            of=len(corpus),
            what=f"Texts have more than the {most} tokens that are read (--long_texts {long_texts.long_texts}).",
            effect="The model does not see the rest, whatever stands there.",
            way_out=f"--long_texts {others}.",
            notes={row: f"{tokens.lengths[row]} tokens" for row in cut},
        )
    ]


def _unknown(corpus: Corpus, tokens: Tokens) -> list[Finding]:
    share = sum(tokens.unknown) / max(1, tokens.text_tokens)
    if share <= MANY_UNKNOWN:
        return []
    notes: dict[int, Any] = {
        row: f"{count} of {tokens.lengths[row] - tokens.special} tokens"
        for row, count in enumerate(tokens.unknown)
        if count
    }
    return [
        Finding(
            name="unknown_tokens",
            rows=sorted(notes, key=lambda row: -tokens.unknown[row]),
            of=len(corpus),
            what=f"{share:.1%} of all tokens are unknown to the tokenizer.",
            effect="The model cannot tell them apart.",
            way_out="Choose a --model for this language and script, unless the file's --encoding is wrong.",
            notes=notes,
        )
    ]
