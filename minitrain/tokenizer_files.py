"""The files of a tokenizer -> a `tokenizers` object and what it was told: the reading half of `tokenizer.py`.

For the classes of `tokenizer_families.py` transformers 5 takes only the vocabulary and the added tokens of
`tokenizer.json`, and builds normalizer and template anew from `tokenizer_config.json`; so does this. A
`tokenizer.json` that keeps the case is lower-cased all the same unless `tokenizer_config.json` says
`"do_lower_case": false`. SentencePiece's files are not read, and code that a folder names (`auto_map`) is never
imported.

Source: transformers 5.23.0, tokenization_utils_tokenizers.py and tokenization_utils_base.py.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, processors
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE, WordPiece

from minitrain.errors import MinitrainError, shown
from minitrain.files import read_json
from minitrain.tokenizer_families import (
    FAMILIES,
    INPUT_NAMES,
    WITHOUT_TYPE_IDS,
    Choices,
    TokenizerFamily,
    class_for,
)

UNSET_LENGTH = 1_000_000  # a model_max_length above this is transformers' way to say "none given" (1e30)
ADDED_TOKEN_OPTIONS = ("special", "single_word", "lstrip", "rstrip", "normalized")
SPECIAL_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
EXTRA_SPECIAL_TOKENS = ("extra_special_tokens", "additional_special_tokens")  # version 5 knows both, 4 the latter
CHOICES: Choices = {"truncation_side": ("right", "left"), "split_special_tokens": (False, True)}


def read_files(directory: Path) -> tuple[Backend, dict[str, Any]]:
    """The tokenizer of a folder, and its settings as tokenizer_config.json would hold them.

    Raises MinitrainError naming the file that is missing, cannot be read, or lacks a special token.
    """
    config = _read_if_there(directory / "tokenizer_config.json")
    model = _read_if_there(directory / "config.json")
    older = _read_if_there(directory / "special_tokens_map.json")
    added = _read_if_there(directory / "added_tokens.json")
    name = class_for(config.get("tokenizer_class") or model.get("tokenizer_class"), model.get("model_type"))
    if not isinstance(name, str) or not name.isidentifier():
        raise MinitrainError(f"{directory}: its tokenizer_class is {shown(name)}, expected the name of a class")
    source = _source(directory, name)
    try:
        saved = _saved(source)
        settings = _settings(_truncation_side(saved) | config, name, directory / "tokenizer_config.json")
        return _assemble(source, config, settings, saved, older, added)
    except (KeyboardInterrupt, SystemExit, MinitrainError):
        raise
    except BaseException as error:  # tokenizers raises bare Exception, and a panic in Rust is not even that
        raise MinitrainError(
            f"{source}: no {name} can be made of it and the files beside it: {str(error)[:300]}; "
            "get them again from where the model came from"
        ) from error


def _family(name: str) -> TokenizerFamily | None:
    return FAMILIES.get(name.removesuffix("Fast"))


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _source(directory: Path, name: str) -> Path:
    """The file that holds the vocabulary."""
    family = _family(name)
    others = family.vocabulary_files if family else ()
    if (directory / "tokenizer.json").exists():
        return directory / "tokenizer.json"
    if others and all((directory / file).exists() for file in others):
        return directory / others[0]
    needs = "tokenizer.json" + (f" or {' and '.join(others)}" if others else "")
    raise MinitrainError(f"{directory}: holds no tokenizer: a {name} needs {needs} there{_way_out(family)}")


def _way_out(family: TokenizerFamily | None) -> str:
    """What to say to somebody without a tokenizer.json."""
    if family is None:
        able = [name for name, row in FAMILIES.items() if row.vocabulary_files]
        return f" (only {', '.join(able)} can be made of a vocabulary alone)"
    if family.sentencepiece is None:
        return ""
    return (
        f"; {family.sentencepiece} is not read. Convert it once, with transformers, sentencepiece and protobuf "
        "installed: AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER), then put config.json and "
        "the weights into FOLDER too"
    )


def _saved(source: Path) -> dict[str, Any]:
    """tokenizer.json, or as much of it as the vocabulary's own files tell."""
    if source.name == "tokenizer.json":
        return read_json(source)
    if source.name == "vocab.txt":
        return {"model": {"vocab": WordPiece.read_file(str(source))}}
    vocabulary, merges = BPE.read_file(str(source), str(source.with_name("merges.txt")))
    return {"model": {"vocab": vocabulary, "merges": merges}}


def _truncation_side(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Of the truncation in a tokenizer.json the side alone counts, and that where no other file has one."""
    truncation = saved.get("truncation") or {}
    return {"truncation_side": truncation["direction"].lower()} if "direction" in truncation else {}


def _settings(config: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    """Check what tokenizer_config.json says, and fill in what it leaves out, but no length of ours."""
    settings: dict[str, Any] = {"tokenizer_class": name}
    family = _family(name)
    for key, allowed in {**CHOICES, **(family.choices if family else {})}.items():
        if (value := config.get(key, allowed[0])) not in allowed:
            raise MinitrainError(f"{path}: {key} is {shown(value)}, expected one of {allowed}")
        settings[key] = allowed[allowed.index(value)]
    names = config.get("model_input_names", family.model_input_names if family else WITHOUT_TYPE_IDS)
    if not isinstance(names, list | tuple):
        raise MinitrainError(f"{path}: model_input_names is {shown(names)}, expected a list of names")
    settings["model_input_names"] = [key for key in INPUT_NAMES if key in names]
    if (length := config.get("model_max_length", config.get("max_len"))) is None:
        return settings
    if isinstance(length, bool) or not isinstance(length, int | float) or not length >= 1:
        raise MinitrainError(f"{path}: model_max_length is {shown(length)}, expected a number of tokens")
    return settings if length > UNSET_LENGTH else settings | {"model_max_length": int(length)}


def _assemble(
    source: Path,
    config: Mapping[str, Any],
    settings: Mapping[str, Any],
    saved: Mapping[str, Any],
    older: Mapping[str, Any],
    added: Mapping[str, int],
) -> tuple[Backend, dict[str, Any]]:
    family = _family(settings["tokenizer_class"])
    # A folder that lists its added tokens in tokenizer_config.json wants the older files ignored.
    sources = [config] if "added_tokens_decoder" in config else [config, older]
    roles = _special_tokens(sources, saved, family)
    special = {role: token.content for role, token in roles.items()}
    backend = _backend(source, saved, {**settings, **special}, family)
    backend.add_tokens(_added_tokens(config, saved, added, special.values()))
    for role in _required(family):
        # The model looks [UNK] up in its own vocabulary, not among the added tokens.
        if (backend.model if role == "unk_token" else backend).token_to_id(special[role]) is None:
            raise ValueError(f"the {role} {special[role]!r} is not in the vocabulary")
    # transformers would append a missing [MASK], with an id for which the model has no embedding.
    special = {role: token for role, token in special.items() if backend.token_to_id(token) is not None}
    # Adding a token again would reset the options that its file gives it.
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    extra = _extra_tokens(sources)
    if extra:
        settings = {**settings, EXTRA_SPECIAL_TOKENS[1]: [token.content for token in extra]}
    elif family:
        extra = [_token(token, special=True) for token in family.extra if backend.token_to_id(token) is not None]
    tokens = [*(roles[role] for role in special), *extra]
    backend.add_tokens([token for token in tokens if token.content not in known])
    if family and not (family.keeps_template and backend.post_processor):
        backend.post_processor = processors.TemplateProcessing(
            single=family.single.format(**special),
            pair=family.pair.format(**special),
            special_tokens=[(token, backend.token_to_id(token)) for token in special.values()],
        )
    _check_use(backend)
    return backend, {**settings, **special}


def _backend(
    source: Path, saved: Mapping[str, Any], settings: Mapping[str, Any], family: TokenizerFamily | None
) -> Backend:
    """The class's tokenizer, with the template of the file where that counts, or what tokenizer.json says."""
    if family is None:
        backend = Backend.from_file(str(source))
        backend.no_padding()
        backend.no_truncation()
        return backend
    if (kind := saved["model"].get("type", family.model)) != family.model:
        raise ValueError(f"its model is {kind}, expected {family.model}")
    backend = family.build(saved, settings)
    if family.keeps_template and saved.get("post_processor"):
        backend.post_processor = Backend.from_file(str(source)).post_processor
    return backend


def _required(family: TokenizerFamily | None) -> list[str]:
    """The roles whose tokens must have an id: padding, what the template writes, what WordPiece falls back on."""
    if family is None:
        return ["pad_token"]
    template = [role for role in SPECIAL_ROLES if f"{{{role}}}" in family.pair]
    return ["pad_token", *template, *(["unk_token"] if family.model == "WordPiece" else [])]


def _check_use(backend: Backend) -> None:
    """A template or model with a hole fails when it is used, so use it; and it may write ids of its own."""
    ids = Counter(backend.get_vocab().values())
    if len(ids) < ids.total():
        raise ValueError(f"the id {ids.most_common(1)[0][0]} stands for two tokens")
    highest = max(ids, default=-1)
    counts = set()  # of the tokens of one text, alone and in a pair
    for pair in (False, True):
        encoding = backend.encode("a \uffff", "a \uffff" if pair else None)
        texts = encoding.sequence_ids  # 0 or 1, the text that a token is of, or None
        special = backend.num_special_tokens_to_add(pair)
        counts |= {texts.count(text) for text in range(1 + pair)}
        if texts.count(None) != special or len(counts) > 1:
            raise ValueError("its template leaves a text out, or has it twice")
        if max(encoding.ids, default=0) > highest or max(encoding.type_ids, default=0) > 1:
            raise ValueError(
                f"its template gives the ids {encoding.ids} and type ids {encoding.type_ids}, expected ids up to "
                f"{highest} and the types 0 and 1"
            )


def _content(token: Any) -> str:
    """A token's text: files hold it as a string, or as an object with its options."""
    if isinstance(content := token.get("content") if isinstance(token, dict) else token, str):
        return content
    raise ValueError(f"a special token is {token!r}, expected a text or an object with its content")


def _token(token: Any, special: bool) -> AddedToken:
    """A token with the options that its file gives it; special: whatever the file says."""
    fields = token if isinstance(token, dict) else {}
    options = {key: fields[key] for key in ADDED_TOKEN_OPTIONS if key in fields}
    return AddedToken(_content(token), **(options | {"special": True} if special else options))


def _special_tokens(
    sources: Iterable[Mapping[str, Any]], saved: Mapping[str, Any], family: TokenizerFamily | None
) -> dict[str, AddedToken]:
    """The special tokens by role, the family's own where no file names another."""
    padding = {"pad_token": (saved.get("padding") or {}).get("pad_token", "[PAD]")}
    special: dict[str, Any] = dict(family.special_tokens if family else padding)
    for source in sources:
        special |= {role: source[role] for role in SPECIAL_ROLES if source.get(role) is not None}
    return {role: _token(token, special=True) for role, token in special.items()}


def _extra_tokens(sources: Iterable[Mapping[str, Any]]) -> list[AddedToken]:
    """The special tokens without a role, of the first file that has any."""
    for source in sources:
        for key in EXTRA_SPECIAL_TOKENS:
            if tokens := source.get(key):
                named = tokens.values() if isinstance(tokens, dict) else tokens
                return [_token(token, special=True) for token in named]
    return []


def _added_tokens(
    config: Mapping[str, Any], saved: Mapping[str, Any], older: Mapping[str, int], special: Collection[str]
) -> list[AddedToken]:
    """The tokens beside the vocabulary, in the order of their ids: from the newest kind of file that lists them."""
    if "added_tokens_decoder" in config:
        by_id = {int(index): fields for index, fields in config["added_tokens_decoder"].items()}
    else:
        by_id = {index: {"content": token} for token, index in older.items()}
        by_id |= {fields["id"]: fields for fields in saved.get("added_tokens", ())}
    return [_token(fields, special=_content(fields) in special) for _, fields in sorted(by_id.items())]
