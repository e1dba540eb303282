"""The files of a tokenizer -> a `tokenizers` object and what it was told: the reading half of `tokenizer.py`.

For the classes in `FAMILIES` transformers 5 takes only the vocabulary and the added tokens of `tokenizer.json`, and
builds normalizer and template anew from `tokenizer_config.json`; so does this. A `tokenizer.json` that keeps the
case is lower-cased all the same unless `tokenizer_config.json` says `"do_lower_case": false`. Code that a folder
names (`auto_map`) is never imported.

Source: transformers 5.23.0, tokenization_utils_tokenizers.py and models/bert/tokenization_bert.py.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordPiece

from minitrain.errors import MinitrainError
from minitrain.files import read_json

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


def read_files(directory: Path) -> tuple[Backend, dict[str, Any]]:
    """The tokenizer of a folder, and its settings as tokenizer_config.json would hold them.

    Raises MinitrainError naming the file that is missing, cannot be read, or lacks a special token.
    """
    config = _read_if_there(directory / "tokenizer_config.json")
    name = config.get("tokenizer_class") or _read_if_there(directory / "config.json").get("tokenizer_class")
    settings = _settings(config, name or "BertTokenizer", directory / "tokenizer_config.json")
    source = _source(directory, settings["tokenizer_class"])
    saved = read_json(source) if source.suffix == ".json" else {}
    older = _read_if_there(directory / "special_tokens_map.json")
    added = _read_if_there(directory / "added_tokens.json")
    try:
        return _assemble(source, config, settings, saved, older, added)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # tokenizers raises bare Exception, and a panic in Rust is not even that
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
    # Adding a token again would reset the options that its file gives it.
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    backend.add_special_tokens([token for token in [*special.values(), *extra] if token not in known])
    if family:
        backend.post_processor = processors.TemplateProcessing(
            single=family.single.format(**special),
            pair=family.pair.format(**special),
            special_tokens=[(token, backend.token_to_id(token)) for token in special.values()],
        )
    backend.encode("\uffff", "\uffff")  # a template or model with a hole fails when it is used, so use it here
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
        backend = Backend.from_file(str(source))
        backend.no_padding()
        backend.no_truncation()
        return backend
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
