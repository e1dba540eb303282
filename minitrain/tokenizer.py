"""Text or text pair -> token ids and type ids, on the `tokenizers` library.

A folder with `tokenizer.json`, or with `vocab.txt` alone, becomes a `Tokenizer` that gives the same ids as
`transformers.AutoTokenizer` does on that folder, truncation of pairs included. In version 5 that is less plain than
it sounds: for the classes in `FAMILIES` only the vocabulary and the added tokens of `tokenizer.json` count, and
normalizer and template are built anew from `tokenizer_config.json`. So a `tokenizer.json` that keeps the case is
lower-cased all the same unless `tokenizer_config.json` says `"do_lower_case": false`.

It does not pad (the batch does), does not decode, and never imports code that a folder names (`auto_map`).

    >>> tokenizer = load_tokenizer("demo")
    >>> tokenizer.tokens(tokenizer("Hello world", "again")[0].input_ids)
    ['[CLS]', 'hello', 'world', '[SEP]', 'again', '[SEP]']

Source: transformers 5.23.0, tokenization_utils_tokenizers.py and models/bert/tokenization_bert.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordPiece

from minitrain.errors import MinitrainError
from minitrain.files import json_text, read_json
from minitrain.hub import resolve_model

UNSET_LENGTH = 1_000_000  # a model_max_length above this is transformers' way to say "none given" (1e30)
ADDED_TOKEN_OPTIONS = ("special", "single_word", "lstrip", "rstrip", "normalized")
SPECIAL_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
REQUIRED_ROLES = ("unk_token", "sep_token", "pad_token", "cls_token")
EXTRA_SPECIAL_TOKENS = ("additional_special_tokens", "extra_special_tokens")  # the names in versions 4 and 5

# What tokenizer_config.json may say: the first value is meant where it says nothing.
CHOICES: dict[str, tuple[Any, ...]] = {"truncation_side": ("right", "left"), "split_special_tokens": (False, True)}
NORMALIZER_CHOICES: dict[str, tuple[Any, ...]] = {
    "do_lower_case": (True, False),
    "tokenize_chinese_chars": (True, False),
    "strip_accents": (None, True, False),  # None: strip them when lower-casing
}


@dataclass(frozen=True, kw_only=True)
class TokenizerFamily:
    """What a tokenizer class fixes where the folder says nothing; the templates are written with roles."""

    special_tokens: Mapping[str, str]  # role -> token
    single: str
    pair: str
    model_input_names: tuple[str, ...] = ("input_ids", "token_type_ids", "attention_mask")
    max_length: int = 512


BERT = TokenizerFamily(
    special_tokens={
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    },
    single="{cls_token}:0 $A:0 {sep_token}:0",
    pair="{cls_token}:0 $A:0 {sep_token}:0 $B:1 {sep_token}:1",
)
WITHOUT_TYPE_IDS = replace(BERT, model_input_names=("input_ids", "attention_mask"))

# Classes that build the tokenizer anew from its vocabulary. Any other takes tokenizer.json as it stands.
FAMILIES = {
    "BertTokenizer": BERT,
    "ElectraTokenizer": BERT,
    "MobileBertTokenizer": BERT,
    "SqueezeBertTokenizer": BERT,
    "DistilBertTokenizer": WITHOUT_TYPE_IDS,
}


@dataclass(frozen=True, slots=True)
class Example:
    """One tokenized text or pair: two lists of equal length, special tokens included, and its label if known."""

    input_ids: list[int]
    token_type_ids: list[int]
    label: int | float | None = None


@dataclass(frozen=True)
class Encoded:
    """The examples of some rows, how many of them were cut to max_length, and how many hold a blank text."""

    examples: list[Example]
    truncated: int
    blank: int


class Tokenizer:
    """Turns texts into examples.

    Args:
        backend: the `tokenizers` object; its truncation and padding are reset.
        settings: what `save` writes as tokenizer_config.json: tokenizer_class, special tokens by role,
            model_max_length in tokens, model_input_names, and a value for each of CHOICES and NORMALIZER_CHOICES.
    """

    pad_token_id: int
    max_length: int  # tokens, special ones included

    def __init__(self, backend: Backend, settings: Mapping[str, Any]) -> None:
        backend.no_padding()
        backend.no_truncation()
        backend.encode_special_tokens = settings["split_special_tokens"]
        self.backend = backend
        self.settings = dict(settings)
        self.max_length = settings["model_max_length"]
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
            max_length: tokens per row, special ones included; None for the tokenizer's own `max_length`.
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
        self._truncate_to(self.max_length if max_length is None else max_length, pair=pairs is not None)
        rows = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        # The fast variant leaves out the character offsets, which nothing here reads.
        encodings = self.backend.encode_batch_fast(rows)
        if "token_type_ids" in self.settings["model_input_names"]:
            examples = [Example(encoding.ids, encoding.type_ids) for encoding in encodings]
        else:
            examples = [Example(encoding.ids, [0] * len(encoding)) for encoding in encodings]
        empty = self.num_special_tokens(pair=pairs is not None)
        return Encoded(
            examples=examples,
            truncated=sum(bool(encoding.overflowing) for encoding in encodings),
            blank=sum(
                len(example.input_ids) == empty or any(not text or text.isspace() for text in row)
                for example, row in zip(examples, zip(*inputs, strict=True), strict=True)
            ),
        )

    def _truncate_to(self, max_length: int, pair: bool) -> None:
        smallest = self.num_special_tokens(pair) + 1
        # Below that, tokenizers would not truncate at all, and would not say so.
        if isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < smallest:
            raise MinitrainError(
                f"--max_length is {max_length!r}, but a {'pair of texts' if pair else 'text'} needs "
                f"{smallest - 1} special tokens and room for one more: give a whole number, at least {smallest}"
            )
        self.backend.enable_truncation(
            max_length, strategy="longest_first", direction=self.settings["truncation_side"]
        )

    def num_special_tokens(self, pair: bool) -> int:
        """How many tokens the template adds to a text or a pair."""
        return self.backend.num_special_tokens_to_add(pair)

    @property
    def highest_id(self) -> int:
        """The largest id this tokenizer can give; a model must have more word embeddings than that."""
        return max(self.backend.get_vocab(with_added_tokens=True).values())

    def tokens(self, ids: Iterable[int]) -> list[str | None]:
        """The tokens behind some ids, None for an id that is not in the vocabulary."""
        return [self.backend.id_to_token(index) for index in ids]

    def save(self, directory: str | Path) -> None:
        """Write the files from which `read_tokenizer` and `AutoTokenizer` make this same tokenizer again."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.backend.no_truncation()  # what the last call asked for is no property of the tokenizer
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
                f"({repr(value)[:40]}); convert the column to text, and fill in or drop rows without one"
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
        directory: holds tokenizer.json or vocab.txt; tokenizer_config.json, special_tokens_map.json,
            added_tokens.json and the tokenizer_class of config.json are heeded where they are.

    Raises:
        MinitrainError: neither file is there, one cannot be read, or a special token has no id.
    """
    return Tokenizer(*_read_files(Path(directory)))


def _read_files(directory: Path) -> tuple[Backend, dict[str, Any]]:
    config = _read_if_there(directory / "tokenizer_config.json")
    name = config.get("tokenizer_class") or _read_if_there(directory / "config.json").get("tokenizer_class")
    settings = _settings(config, name or "BertTokenizer", directory / "tokenizer_config.json")
    source = _source(directory, settings["tokenizer_class"])
    saved = read_json(source) if source.suffix == ".json" else {}
    older = _read_if_there(directory / "special_tokens_map.json")
    added = _read_if_there(directory / "added_tokens.json")
    try:
        return _assemble(source, config, settings, saved, older, added)
    except Exception as error:  # tokenizers raises bare Exception, without the path
        raise MinitrainError(
            f"{source}: no {settings['tokenizer_class']} can be made of it and the files beside it: {error}; "
            "get them again from where the model came from"
        ) from error


def _source(directory: Path, name: str) -> Path:
    """The file that holds the vocabulary."""
    known = name.removesuffix("Fast") in FAMILIES
    names = ["tokenizer.json", "vocab.txt"] if known else ["tokenizer.json"]
    for file in names:
        if (directory / file).exists():
            return directory / file
    raise MinitrainError(
        f"{directory}: holds no tokenizer: a {name} needs {' or '.join(names)} there"
        + ("" if known else f" (only {', '.join(FAMILIES)} can be made of vocab.txt)")
    )


def _assemble(
    source: Path,
    config: Mapping[str, Any],
    settings: Mapping[str, Any],
    saved: Mapping[str, Any],
    older: Mapping[str, Any],
    added: Mapping[str, int],
) -> tuple[Backend, dict[str, Any]]:
    family = FAMILIES.get(settings["tokenizer_class"].removesuffix("Fast"))
    # A folder that lists its added tokens in tokenizer_config.json wants the older files ignored.
    sources = [config] if "added_tokens_decoder" in config else [config, older]
    special, extra = _special_tokens(sources, family or BERT)
    backend = _backend(source, saved, settings, special["unk_token"])
    backend.add_tokens(_added_tokens(config, saved, added, special))
    for role in REQUIRED_ROLES:
        # The model looks [UNK] up in its own vocabulary, not among the added tokens.
        if (backend.model if role == "unk_token" else backend).token_to_id(special[role]) is None:
            raise ValueError(f"the {role} {special[role]!r} is not in the vocabulary")
    # transformers would append a missing [MASK], with an id for which the model has no embedding.
    special = {role: token for role, token in special.items() if backend.token_to_id(token) is not None}
    backend.add_special_tokens([*special.values(), *extra])
    if family:
        backend.post_processor = processors.TemplateProcessing(
            single=family.single.format(**special),
            pair=family.pair.format(**special),
            special_tokens=[(token, backend.token_to_id(token)) for token in special.values()],
        )
    return backend, {**settings, **special}


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _settings(config: Mapping[str, Any], name: Any, path: Path) -> dict[str, Any]:
    """Check what tokenizer_config.json says, and fill in what it leaves out."""
    if not isinstance(name, str) or not name.isidentifier():
        raise MinitrainError(f"{path.parent}: its tokenizer_class is {name!r}, expected the name of a class")
    settings: dict[str, Any] = {"tokenizer_class": name}
    known = name.removesuffix("Fast") in FAMILIES
    family = FAMILIES[name.removesuffix("Fast")] if known else WITHOUT_TYPE_IDS
    for key, allowed in (CHOICES | NORMALIZER_CHOICES if known else CHOICES).items():
        if (value := config.get(key, allowed[0])) not in allowed:
            raise MinitrainError(f"{path}: {key} is {value!r}, expected one of {allowed}")
        settings[key] = allowed[allowed.index(value)]
    names = config.get("model_input_names", family.model_input_names)
    if not isinstance(names, list | tuple):
        raise MinitrainError(f"{path}: model_input_names is {names!r}, expected a list of names")
    settings["model_input_names"] = [key for key in BERT.model_input_names if key in names]
    length = config.get("model_max_length", config.get("max_len", family.max_length))
    if isinstance(length, bool) or not isinstance(length, int | float) or not length >= 1:
        raise MinitrainError(f"{path}: model_max_length is {length!r}, expected a number of tokens")
    settings["model_max_length"] = family.max_length if length > UNSET_LENGTH else int(length)
    return settings


def _content(token: Any) -> str:
    """A token's text: files hold it as a string, or as an object with its options."""
    if isinstance(content := token.get("content") if isinstance(token, dict) else token, str):
        return content
    raise ValueError(f"a special token is {token!r}, expected a text or an object with its content")


def _special_tokens(
    sources: Iterable[Mapping[str, Any]], family: TokenizerFamily
) -> tuple[dict[str, str], list[str]]:
    """The special tokens by role, the family's own where no file names another, and those without a role."""
    special, extra = dict(family.special_tokens), []
    for source in sources:
        special |= {role: _content(source[role]) for role in SPECIAL_ROLES if source.get(role) is not None}
        extra += [_content(token) for key in EXTRA_SPECIAL_TOKENS for token in source.get(key) or ()]
    return special, extra


def _added_tokens(
    config: Mapping[str, Any], saved: Mapping[str, Any], older: Mapping[str, int], special: Mapping[str, str]
) -> list[AddedToken]:
    """The tokens beside the vocabulary, in the order of their ids: from the newest kind of file that lists them."""
    if "added_tokens_decoder" in config:
        by_id = {int(index): fields for index, fields in config["added_tokens_decoder"].items()}
    else:
        by_id = {index: {"content": token} for token, index in older.items()}
        by_id |= {fields["id"]: fields for fields in saved.get("added_tokens", ())}
    tokens = []
    for _, fields in sorted(by_id.items()):
        options = {key: fields[key] for key in ADDED_TOKEN_OPTIONS if key in fields}
        if _content(fields) in special.values():
            options["special"] = True
        tokens.append(AddedToken(_content(fields), **options))
    return tokens


def _backend(source: Path, saved: Mapping[str, Any], settings: Mapping[str, Any], unk_token: str) -> Backend:
    """The class's tokenizer without its template; a class we do not know is what tokenizer.json says."""
    if settings["tokenizer_class"].removesuffix("Fast") not in FAMILIES:
        return Backend.from_file(str(source))
    if saved and saved["model"].get("type", "WordPiece") != "WordPiece":
        raise ValueError(f"its model is {saved['model']['type']}, expected WordPiece")
    vocabulary = saved["model"]["vocab"] if saved else WordPiece.read_file(str(source))
    backend = Backend(WordPiece(vocabulary, unk_token=unk_token))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings["tokenize_chinese_chars"],
        strip_accents=settings["strip_accents"],
        lowercase=settings["do_lower_case"],
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend
