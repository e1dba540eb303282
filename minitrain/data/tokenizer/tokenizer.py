"""Text or text pair -> token ids and type ids, on the `tokenizers` library.

A model folder becomes a `Tokenizer` that gives the same ids as `transformers.AutoTokenizer`, truncation of pairs
included. `files.py` reads the folder, `batch.py` pads; nothing decodes.

Source: transformers 5.23.0, tokenization_utils_tokenizers.py; tokenizers 0.23.3, src/utils/truncation.rs.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Encoding
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordPiece

from minitrain.data.tokenizer.files import PADDING_SIDES, read_files
from minitrain.data.tokenizer.special_tokens import SPECIAL_ROLES
from minitrain.errors import MinitrainError, shown
from minitrain.storage.files import json_text
from minitrain.storage.hub import resolve_model

# Where --long_texts cuts; head as the tokenizer's files say. "middle" keeps a quarter as the head, the rest as the
# tail: 128 and 382 of 510 tokens, as in Sun et al. 2019, "How to Fine-Tune BERT", arXiv 1905.05583, section 5.3.1.
SIDES = {"tail": "left", "head_tail": "middle"}


@dataclass(frozen=True, slots=True)
class Example:
    """A tokenized text or pair: two lists of equal length, special tokens included, and a label if known.

    label: A class id, a score, or 0 or 1 for each class.
    """

    input_ids: list[int]
    token_type_ids: list[int]
    label: int | float | Sequence[float] | None = None


@dataclass(frozen=True)
class Encoded:
    """Tokenized rows. truncated, blank: rows cut to max_length, or with a blank text. unknown: [UNK] tokens.

    removed: tokens that were cut off.
    """

    examples: list[Example]
    truncated: int = 0
    blank: int = 0
    unknown: int = 0
    removed: int = 0


class Tokenizer:
    """Turns texts into examples.

    Args:
        backend: The `tokenizers` object, without padding and truncation.
        settings: The content of tokenizer_config.json: tokenizer_class, special tokens by role,
            model_input_names, model_max_length if there is one, and a value for each of `files.CHOICES` and of the
            class's own choices.
        notes: One line for each thing the user should know about how the files were read.

    Attributes:
        padding_side: "right" or "left".
        max_length: In tokens, special ones included; None if the folder names no limit.
        unknown_id: Of the token for what the vocabulary lacks; -1 if it lacks nothing.

    >>> tokenizer = load_tokenizer("demo")
    >>> tokenizer.tokens(tokenizer("Hello world", "again")[0].input_ids)
    ['[CLS]', 'hello', 'world', '[SEP]', 'again', '[SEP]']
    """

    def __init__(self, backend: Backend, settings: Mapping[str, Any], notes: Sequence[str] = ()) -> None:
        backend.encode_special_tokens = settings["split_special_tokens"]
        self.backend, self.settings, self.notes = backend, dict(settings), tuple(notes)
        self.padding_side: str = settings.get("padding_side", PADDING_SIDES[0])
        self.max_length: int | None = settings.get("model_max_length")
        pad_token_id = backend.token_to_id(settings["pad_token"])
        assert pad_token_id is not None
        self.pad_token_id, self.unknown_id = pad_token_id, _unknown_id(backend)

    def __call__(
        self, texts: Sequence[str] | str, pairs: Sequence[str] | str | None = None, max_length: int | None = None
    ) -> list[Example]:
        """Tokenize a text, a pair, or equally long lists of them; `encode` also counts."""
        if isinstance(texts, str) and (pairs is None or isinstance(pairs, str)):
            return self.encode([texts], None if pairs is None else [pairs], max_length).examples
        return self.encode(texts, pairs, max_length).examples

    def encode(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        max_length: int | None = None,
        where: str = "input",
        columns: tuple[str, ...] = ("texts", "pairs"),
        first_row: int = 1,
        long_texts: str = "head",
    ) -> Encoded:
        """Tokenize rows. A row that is too long loses tokens of its longer text, by default from the end.

        Args:
            max_length: Tokens per row, special ones included; None for the tokenizer's own limit.
            where, columns, first_row: What errors call the file, its columns, and the number of texts[0] in it.
            long_texts: The part that is kept, as in `LongTexts`; "head" cuts on the side that the tokenizer's
                files name, nearly always the right, and "windows" cuts nothing.

        Raises:
            MinitrainError: A value that is not text, lists of unequal length, or a max_length that leaves no room.
        """
        inputs = [texts] if pairs is None else [texts, pairs]
        _check_inputs(inputs, where, columns, first_row)
        rows = list(zip(*inputs, strict=True))
        special = self.num_special_tokens(pair=pairs is not None)
        limit = self.limit(max_length, pair=pairs is not None)
        side, typed = SIDES.get(long_texts), "token_type_ids" in self.settings["model_input_names"]
        examples, truncated, blank, removed = [], 0, 0, 0
        # The fast variant leaves out the character offsets, which nothing here reads.
        for number, encoding in enumerate(self.backend.encode_batch_fast(list(texts) if pairs is None else rows)):
            ids, type_ids = encoding.ids, encoding.type_ids
            if limit is not None and len(ids) > limit and long_texts != "windows":
                truncated, removed = truncated + 1, removed + len(ids) - limit
                ids, type_ids = truncate(encoding, limit - special, side or self.settings["truncation_side"])
            if not ids:
                raise MinitrainError(
                    f"{where}, row {first_row + number}: gives no token, and this tokenizer adds no special ones; "
                    "leave blank rows out"
                )
            blank += len(ids) == special or any(not text or text.isspace() for text in rows[number])
            examples.append(Example(ids, type_ids if typed else [0] * len(ids)))
        unknown = sum(example.input_ids.count(self.unknown_id) for example in examples)
        return Encoded(examples, truncated, blank, unknown, removed)

    def limit(self, max_length: int | None, pair: bool) -> int | None:
        """Tokens kept of a text or pair: as asked, or all the tokenizer takes. Raises MinitrainError."""
        special = self.num_special_tokens(pair)
        limit = self.max_length if max_length is None else max_length
        if limit is not None and (not isinstance(limit, int) or limit <= special):
            raise MinitrainError(
                f"--max_length is {limit!r}, but a {'pair of texts' if pair else 'text'} needs {special} special "
                f"tokens and room for one more: give a whole number, at least {special + 1}"
            )
        return limit

    def fingerprint(self) -> str:
        """Differs between tokenizers that give different ids, and between versions of the library."""
        # Without the default side, as in the checkpoints of version 0.1.0.
        default = ("padding_side", PADDING_SIDES[0])
        settings = {key: value for key, value in self.settings.items() if (key, value) != default}
        whole = self.backend.to_str() + json_text(settings) + tokenizers.__version__
        return hashlib.sha256(whole.encode()).hexdigest()

    def num_special_tokens(self, pair: bool) -> int:
        """How many tokens the template adds to a text or a pair."""
        return self.backend.num_special_tokens_to_add(pair)

    def template(self) -> tuple[int, int]:
        """How many special tokens stand before and after a single text."""
        for text in ("a", *self.backend.get_vocab(with_added_tokens=False)):
            if 0 in (sequences := self.backend.encode(text).sequence_ids):
                return sequences.index(0), sequences[::-1].index(0)
        raise MinitrainError("the tokenizer makes no token of any word of its vocabulary: is tokenizer.json whole?")

    def check_fits(self, vocab_size: int, source: Path) -> None:
        """Raise MinitrainError if a model with `vocab_size` word embeddings lacks one for some token."""
        vocabulary = self.backend.get_vocab(with_added_tokens=True)
        if beyond := sorted((index, token) for token, index in vocabulary.items() if index >= vocab_size):
            names = ", ".join(f"{shown(token)} {index}" for index, token in beyond[:3])
            raise MinitrainError(
                f"{source}: the tokenizer's highest id is {beyond[-1][0]}, but the model has embeddings for ids "
                f"up to {vocab_size - 1}; do tokenizer.json and config.json belong together? {len(beyond)} tokens "
                f"have no embedding ({names}): take them out of the tokenizer's files, or call transformers' "
                "model.resize_token_embeddings(len(tokenizer)) and save both again"
            )

    def tokens(self, ids: Iterable[int]) -> list[str | None]:
        """The tokens of these ids, None for an id that is not in the vocabulary."""
        return [self.backend.id_to_token(index) for index in ids]

    def save(self, directory: str | Path) -> None:
        """Write the files from which `read_tokenizer` and `AutoTokenizer` make the same tokenizer again."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        files = {
            "tokenizer.json": self.backend.to_str(pretty=True) + "\n",
            "tokenizer_config.json": json_text(self.settings),
            "special_tokens_map.json": json_text({k: v for k, v in self.settings.items() if k in SPECIAL_ROLES}),
        }
        vocabulary = self.backend.get_vocab(with_added_tokens=False)
        lines = sorted(vocabulary, key=vocabulary.__getitem__)
        # vocab.txt gives ids by line number: no gaps, no line ends and no blanks at the end of a token.
        whole = [vocabulary[token] for token in lines] == [*range(len(lines))]
        if isinstance(self.backend.model, WordPiece) and whole and all(token == token.rstrip() for token in lines):
            files["vocab.txt"] = "".join(f"{token}\n" for token in lines)
        for name, content in files.items():
            (directory / name).write_text(content, encoding="utf-8", newline="\n")


def _unknown_id(backend: Backend) -> int:
    """The id of what the vocabulary lacks; -1 for byte-level models, which lack nothing."""
    try:
        tokens = backend.model.tokenize("\U0010ffff")  # no character, so in no vocabulary
    except Exception:  # a model without an unknown token may raise one
        return -1
    return tokens[0].id if len(tokens) == 1 else -1


def truncate(encoding: Encoding, room: int, side: str) -> tuple[list[int], list[int]]:
    """Ids and type ids of a text or pair cut to `room` tokens beside the template's.

    side: Where tokens are cut off: "right", "left", or "middle", which keeps both ends.

    The same as the library's strategy longest_first, which keeps every combination of the pieces it cuts off a
    pair: two texts of 20,000 words cut to 128 tokens take it half a minute and 8 GB.
    """
    sequences = encoding.sequence_ids  # 0 or 1 for tokens of the first or second text, None for the template's
    places = [[i for i, sequence in enumerate(sequences) if sequence == text] for text in (0, 1)]
    keep = [True] * len(sequences)
    for own, count in zip(places, truncated_lengths(len(places[0]), len(places[1]), room), strict=True):
        head = {"right": count, "left": 0, "middle": -(-count // 4)}[side]
        for i in own[head : head + len(own) - count]:
            keep[i] = False
    return list(compress(encoding.ids, keep)), list(compress(encoding.type_ids, keep))


def truncated_lengths(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens two texts keep when `room` is too small for both: the shorter one up to half.

    >>> truncated_lengths(9, 2, 7), truncated_lengths(9, 8, 7)
    ((5, 2), (4, 3))
    """
    shorter = min(first, second, room // 2)
    return (room - shorter, shorter) if first > second else (shorter, room - shorter)


def _check_inputs(inputs: Sequence[Sequence[str]], where: str, columns: tuple[str, ...], first_row: int) -> None:
    for values, column in zip(inputs, columns, strict=False):
        check_texts(values, where, column, first_row)
    if len(inputs[0]) != len(inputs[-1]):
        raise MinitrainError(
            f"{where}: {len(inputs[0])} texts in {columns[0]!r} but {len(inputs[1])} in {columns[1]!r}; "
            "a pair needs one of each in every row"
        )


def check_texts(values: Sequence[str], where: str, column: str, first_row: int) -> None:
    """Raise MinitrainError for the first value that is not text, naming its row and column."""
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise MinitrainError(
            f"{where}, column {column!r}: expected a list of texts, got {type(values).__name__}; "
            "texts and pairs must both be lists, or both be single texts"
        )
    for row, value in enumerate(values, start=first_row):
        if not isinstance(value, str):
            inner = f"name a field inside, as {column}.NAME, or " if isinstance(value, dict) else ""
            raise MinitrainError(
                f"{where}, row {row}, column {column!r}: expected text, got {type(value).__name__} "
                f"({shown(value)}); {inner}convert the column to text, and fill in or drop rows without one"
            )
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise MinitrainError(
                f"{where}, row {row}, column {column!r}: the text (str) has a lone surrogate, "
                f"{value[error.start]!r} at character {error.start + 1}; read it with its right encoding"
            ) from None


def load_tokenizer(name_or_dir: str | Path) -> Tokenizer:
    """The tokenizer of a model: a name on the Hub, a folder, or "demo"."""
    return read_tokenizer(resolve_model(name_or_dir))


def read_tokenizer(directory: str | Path) -> Tokenizer:
    """Read a tokenizer from a folder with tokenizer.json or a vocabulary (vocab.txt, or vocab.json and merges.txt).

    tokenizer_config.json, special_tokens_map.json, added_tokens.json and config.json are read too if present.

    Raises:
        MinitrainError: A file is missing or cannot be read, or a special token has no id.
    """
    return Tokenizer(*read_files(Path(directory)))
