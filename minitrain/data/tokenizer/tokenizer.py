"""Text or text pair -> token ids and type ids, on the `tokenizers` library.

A folder with `tokenizer.json`, or with a vocabulary alone (`vocab.txt`; `vocab.json` and `merges.txt`), becomes a
`Tokenizer` that gives the same ids as `transformers.AutoTokenizer` does on that folder, truncation of pairs
included. It does not pad (the batch does) and does not decode; `tokenizer_files.py` reads the folder.

    >>> tokenizer = load_tokenizer("demo")
    >>> tokenizer.tokens(tokenizer("Hello world", "again")[0].input_ids)
    ['[CLS]', 'hello', 'world', '[SEP]', 'again', '[SEP]']

Source: transformers 5.23.0, tokenization_utils_tokenizers.py.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordPiece

from minitrain.data.tokenizer.files import PADDING_SIDES, read_files
from minitrain.data.tokenizer.special_tokens import SPECIAL_ROLES
from minitrain.data.tokenizer.truncation import cut
from minitrain.errors import MinitrainError, shown
from minitrain.storage.files import json_text
from minitrain.storage.hub import resolve_model

USUAL_PADDING = ("padding_side", PADDING_SIDES[0])


@dataclass(frozen=True, slots=True)
class Example:
    """One tokenized text or pair: two lists of equal length, special tokens included, and its label if known."""

    input_ids: list[int]
    token_type_ids: list[int]
    label: int | float | None = None


@dataclass(frozen=True)
class Encoded:
    """The examples of some rows, how many of them were cut to max_length, and how many hold a blank text.

    unknown: how many of their tokens are the unknown one, which stands for what the vocabulary lacks.
    """

    examples: list[Example]
    truncated: int
    blank: int
    unknown: int = 0


class Tokenizer:
    """Turns texts into examples.

    Args:
        backend: the `tokenizers` object, without padding.
        settings: what `save` writes as tokenizer_config.json: tokenizer_class, special tokens by role,
            model_input_names, model_max_length in tokens if there is one, and a value for each of CHOICES and of
            the class's own choices.
        notes: what a user should know of how the files were read, a line each.
    """

    pad_token_id: int
    padding_side: str  # "right" or "left"
    max_length: int | None  # tokens, special ones included; None where the folder names no limit
    notes: tuple[str, ...]

    def __init__(self, backend: Backend, settings: Mapping[str, Any], notes: Sequence[str] = ()) -> None:
        backend.encode_special_tokens = settings["split_special_tokens"]
        self.backend = backend
        self.settings = dict(settings)
        self.notes = tuple(notes)
        self.padding_side = settings.get("padding_side", PADDING_SIDES[0])
        self._unknown_id = _unknown_id(backend)
        self.max_length = settings.get("model_max_length")
        pad_token_id = backend.token_to_id(settings["pad_token"])
        assert pad_token_id is not None
        self.pad_token_id = pad_token_id

    def __call__(
        self, texts: Sequence[str] | str, pairs: Sequence[str] | str | None = None, max_length: int | None = None
    ) -> list[Example]:
        """Tokenize a text, a pair, or equally long lists of them; see `encode`, which also counts."""
        if isinstance(texts, str) and (pairs is None or isinstance(pairs, str)):
            return self.encode([texts], None if pairs is None else [pairs], max_length).examples
        return self.encode(texts, pairs, max_length).examples

    def encode(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        max_length: int | None = None,
        *,
        where: str = "input",
        columns: tuple[str, ...] = ("texts", "pairs"),
        first_row: int = 1,
    ) -> Encoded:
        """Tokenize rows, dropping tokens from the end of the longer text until a row fits.

        Args:
            texts: the first text of each row.
            pairs: the second text of each row, or None.
            max_length: tokens per row, special ones included; None for the tokenizer's own `max_length`, and for
                whole texts where it has none.
            where: the file or split that errors name.
            columns: the column names that errors give to texts and pairs.
            first_row: the number of texts[0] in that file, counted from 1.

        Raises:
            MinitrainError: a value that is not text, lists of unequal length, or a max_length that leaves no room.
        """
        inputs = [texts] if pairs is None else [texts, pairs]
        for values, column in zip(inputs, columns, strict=False):
            check_texts(values, where, column, first_row)
        if pairs is not None and len(texts) != len(pairs):
            raise MinitrainError(
                f"{where}: {len(texts)} texts in {columns[0]!r} but {len(pairs)} in {columns[1]!r}; "
                "a pair needs one of each in every row"
            )
        limit = self.max_length if max_length is None else max_length
        room = None if limit is None else self._room(limit, pair=pairs is not None)
        rows = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        # The fast variant leaves out the character offsets, which nothing here reads.
        encodings = self.backend.encode_batch_fast(rows)
        side, typed = self.settings["truncation_side"], "token_type_ids" in self.settings["model_input_names"]
        empty = self.num_special_tokens(pair=pairs is not None)
        examples = []
        truncated = 0
        for encoding in encodings:
            ids, type_ids = encoding.ids, encoding.type_ids
            if room is not None and len(ids) > empty + room:
                ids, type_ids = cut(encoding, room, side)
                truncated += 1
            examples.append(Example(ids, type_ids if typed else [0] * len(ids)))
        none = next((row for row, example in enumerate(examples, first_row) if not example.input_ids), None)
        if none is not None:
            raise MinitrainError(
                f"{where}, row {none}: gives no token, and this tokenizer has no special ones; leave blank rows out"
            )
        return Encoded(
            examples=examples,
            truncated=truncated,
            blank=sum(
                len(example.input_ids) == empty or any(not text or text.isspace() for text in row)
                for example, row in zip(examples, zip(*inputs, strict=True), strict=True)
            ),
            unknown=sum(example.input_ids.count(self._unknown_id) for example in examples),
        )

    def _room(self, max_length: int, pair: bool) -> int:
        """Tokens that a length leaves to the texts."""
        smallest = self.num_special_tokens(pair) + 1
        if not isinstance(max_length, int) or max_length < smallest:
            raise MinitrainError(
                f"--max_length is {max_length!r}, but a {'pair of texts' if pair else 'text'} needs "
                f"{smallest - 1} special tokens and room for one more: give a whole number, at least {smallest}"
            )
        return max_length - smallest + 1

    def fingerprint(self) -> str:
        """Tells this tokenizer from any that gives other ids, the library's version included."""
        # The usual side is as good as none, which is what runs of earlier versions have in their checkpoints.
        settings = {key: self.settings[key] for key in self.settings if (key, self.settings[key]) != USUAL_PADDING}
        whole = self.backend.to_str() + json_text(settings) + tokenizers.__version__
        return hashlib.sha256(whole.encode()).hexdigest()

    def num_special_tokens(self, pair: bool) -> int:
        """How many tokens the template adds to a text or a pair."""
        return self.backend.num_special_tokens_to_add(pair)

    @property
    def highest_id(self) -> int:
        """The largest id this tokenizer can give; a model must have more word embeddings than that."""
        return max(self.backend.get_vocab(with_added_tokens=True).values())

    def check_fits(self, vocab_size: int, source: Path) -> None:
        """Raise MinitrainError when an id could come up for which a model of `vocab_size` has no embedding."""
        if self.highest_id >= vocab_size:
            vocabulary = self.backend.get_vocab(with_added_tokens=True)
            beyond = sorted((index, token) for token, index in vocabulary.items() if index >= vocab_size)
            names = ", ".join(f"{token!r} {index}" for index, token in beyond[:3])
            raise MinitrainError(
                f"{source}: the tokenizer's highest id is {self.highest_id}, but the model has embeddings for ids "
                f"up to {vocab_size - 1}; do tokenizer.json and config.json belong together? {len(beyond)} tokens "
                f"have no embedding ({names}): where they were added by hand, take them out of the tokenizer's "
                "files, or give the model rows for them in transformers, by "
                "model.resize_token_embeddings(len(tokenizer)), and save both again"
            )

    def tokens(self, ids: Iterable[int]) -> list[str | None]:
        """The tokens behind some ids, None for an id that is not in the vocabulary."""
        return [self.backend.id_to_token(index) for index in ids]

    def save(self, directory: str | Path) -> None:
        """Write the files from which `read_tokenizer` and `AutoTokenizer` make this same tokenizer again."""
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
    """The id that a model gives to what its vocabulary lacks; -1 where it lacks nothing, as byte-level ones."""
    try:
        tokens = backend.model.tokenize("\U0010ffff")  # no character, so in no vocabulary
    except Exception:  # a model without an unknown token may raise one
        return -1
    return tokens[0].id if len(tokens) == 1 else -1


def check_texts(values: Sequence[str], where: str, column: str, first_row: int) -> None:
    """Raise MinitrainError for the first value that is not text, naming its row and column."""
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise MinitrainError(
            f"{where}, column {column!r}: expected a list of texts, got {type(values).__name__}; "
            "texts and pairs must both be lists, or both be single texts"
        )
    for row, value in enumerate(values, start=first_row):
        if not isinstance(value, str):
            raise MinitrainError(
                f"{where}, row {row}, column {column!r}: expected text, got {type(value).__name__} "
                f"({shown(value)}); convert the column to text, and fill in or drop rows without one"
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
    """Read a tokenizer from a local folder.

    Args:
        directory: holds tokenizer.json or a vocabulary (vocab.txt, or vocab.json and merges.txt);
            tokenizer_config.json, special_tokens_map.json, added_tokens.json, and model_type and tokenizer_class
            of config.json are heeded where they are.

    Raises:
        MinitrainError: neither file is there, one cannot be read, or a special token has no id.
    """
    return Tokenizer(*read_files(Path(directory)))
