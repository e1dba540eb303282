"""Special tokens and added tokens, and which of them are appended to the vocabulary.

transformers 5 appends every special token that the vocabulary lacks; this does so as far as the model has
embeddings for them.

Source: transformers 5.23.0, tokenization_utils_tokenizers.py and tokenization_utils_base.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from minitrain.data.tokenizer.families import TokenizerFamily, Unfit

ADDED_TOKEN_OPTIONS = ("special", "single_word", "lstrip", "rstrip", "normalized")
SPECIAL_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
EXTRA_SPECIAL_TOKENS = ("extra_special_tokens", "additional_special_tokens")  # version 5 knows both, 4 the latter


@dataclass(frozen=True)
class TokenizerFiles:
    """The parsed files of a folder.

    saved: tokenizer.json. config: tokenizer_config.json. older: special_tokens_map.json. added: added_tokens.json.
    vocab_size: Of config.json, if it has one.
    """

    saved: Mapping[str, Any]
    config: Mapping[str, Any]
    older: Mapping[str, Any]
    added: Mapping[str, int]
    vocab_size: int | None

    @property
    def naming(self) -> list[Mapping[str, Any]]:
        """The files that name special tokens: a config that lists added tokens replaces the older file."""
        return [self.config] if "added_tokens_decoder" in self.config else [self.config, self.older]

    def names(self, role: str) -> bool:
        """Whether a file names the special token of a role."""
        return any(source.get(role) is not None for source in self.naming)


def add_tokens(
    backend: Backend, files: TokenizerFiles, family: TokenizerFamily | None
) -> tuple[dict[str, Any], list[str]]:
    """Add the tokens that the files name, in the order that gives the ids of transformers.

    Returns:
        The special tokens by role, those without a role as a list under additional_special_tokens; and notes.

    Raises:
        Unfit: A token that is needed has no id.
    """
    roles, extra = special_tokens(files, family), _extra_tokens(files)
    listed = _added_tokens(files)
    contents = [token.content for token in roles.values()]
    backend.add_tokens([_token(fields, special=_content(fields) in contents) for _, fields in listed])
    notes = _moved(listed, backend)
    tokens: dict[str, Any] = {EXTRA_SPECIAL_TOKENS[1]: [token.content for token in extra]} if extra else {}
    usual = {token: token for token in family.extra} if family and not extra else {}
    left_out = _without_embedding(files, {role: roles[role].content for role in roles} | usual, backend, family)
    kept = {role: token for role, token in roles.items() if role not in left_out}
    extra += [_token(token, special=True) for token in usual if token not in left_out]
    # Adding a token again would reset the options that its file gives it.
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    named = [*kept.items(), *(("special token", token) for token in extra)]
    new = {t.content: role for role, t in reversed(named) if backend.token_to_id(t.content) is None}
    backend.add_tokens([token for _, token in named if token.content not in known])
    notes += [
        f"{token!r} ({role}) is not in the vocabulary and gets the id {backend.token_to_id(token)}, as in "
        "transformers 5"
        for token, role in reversed(new.items())
    ]
    notes += [
        f"{token!r} ({role}) is not in the vocabulary, and the model has no embedding left for it: left out, so "
        "that it is read as any text is"
        for role, token in left_out.items()
        if files.names(role) and token
    ]
    return tokens | {role: token.content for role, token in kept.items()}, notes


def _without_embedding(
    files: TokenizerFiles, special: Mapping[str, str], backend: Backend, family: TokenizerFamily | None
) -> dict[str, str]:
    """The special tokens, by role, for which the model has no embedding; they get no id.

    The others that the vocabulary lacks are appended to it, in the order of SPECIAL_ROLES. Raises Unfit for one
    that is needed, unless a file names it and the model has an embedding for it.
    """
    ids = backend.get_added_tokens_decoder()
    following = max(backend.get_vocab_size(with_added_tokens=False), max(ids, default=-1) + 1)
    without: dict[str, str] = {}
    appended: set[str] = set()
    needed = _required(family)
    for role, token in special.items():
        # The model looks [UNK] up in its own vocabulary, not among the added tokens.
        own = backend.model if role == "unk_token" and role in needed else backend
        if own.token_to_id(token) is not None or token in appended:
            continue
        # The library skips an empty one, and no text holds it.
        fits = token != "" and (files.vocab_size is None or following + len(appended) < files.vocab_size)
        if role in needed and (own is not backend or not files.names(role) or files.vocab_size is None or not fits):
            raise Unfit(
                f"the {role} {token!r} is not in the vocabulary",
                f'name the one that is, as "{role}" in tokenizer_config.json',
            )
        if fits:
            appended.add(token)
        else:
            without[role] = token
    return without


def _required(family: TokenizerFamily | None) -> list[str]:
    """The roles whose tokens must have an id: padding, what the template writes, what WordPiece falls back on."""
    if family is None:
        return ["pad_token"]
    template = [role for role in SPECIAL_ROLES if f"{{{role}}}" in family.template]
    return ["pad_token", *template, *(["unk_token"] if family.model == "WordPiece" else [])]


def _content(token: Any) -> str:
    """A token's text: files hold it as a string, or as an object with its options."""
    if isinstance(content := token.get("content") if isinstance(token, dict) else token, str):
        return content
    raise Unfit(
        f"a special token is {token!r}, expected a text or an object with its content",
        "write it so in the file that names it",
    )


def _token(token: Any, special: bool) -> AddedToken:
    """A token with the options of its file, except `special`."""
    fields = token if isinstance(token, dict) else {}
    options = {key: fields[key] for key in ADDED_TOKEN_OPTIONS if key in fields}
    return AddedToken(_content(token), **(options | {"special": True} if special else options))


def special_tokens(files: TokenizerFiles, family: TokenizerFamily | None) -> dict[str, AddedToken]:
    """The special tokens by role, in the reference's order: the family's, unless a file names another."""
    padding = {"pad_token": (files.saved.get("padding") or {}).get("pad_token", "[PAD]")}
    special: dict[str, Any] = dict(family.special_tokens if family else padding)
    for source in files.naming:
        special |= {role: source[role] for role in SPECIAL_ROLES if source.get(role) is not None}
    return {role: _token(special[role], special=True) for role in SPECIAL_ROLES if role in special}


def _extra_tokens(files: TokenizerFiles) -> list[AddedToken]:
    """The special tokens without a role: those with another name, and the first file's list."""
    own = [
        value
        for source in files.naming
        for key, value in source.items()
        if key.endswith("_token") and key not in SPECIAL_ROLES and isinstance(value, str | dict)
    ]
    lists = (source.get(key) for source in files.naming for key in EXTRA_SPECIAL_TOKENS)
    named: Any = next((tokens for tokens in lists if tokens), [])
    return [
        _token(token, special=True) for token in [*own, *(named.values() if isinstance(named, dict) else named)]
    ]


def _added_tokens(files: TokenizerFiles) -> list[tuple[int, dict[str, Any]]]:
    """The added tokens by id, from the newest kind of file that lists them."""
    if "added_tokens_decoder" in files.config:
        by_id = {int(index): fields for index, fields in files.config["added_tokens_decoder"].items()}
    else:
        by_id = {index: {"content": token} for token, index in files.added.items()}
        by_id |= {fields["id"]: fields for fields in files.saved.get("added_tokens", ())}
    return sorted(by_id.items(), key=lambda item: item[0])


def _moved(listed: list[tuple[int, dict[str, Any]]], backend: Backend) -> list[str]:
    """A note if an added token gets another id than in its file."""
    ids = [(_content(fields), index, backend.token_to_id(_content(fields))) for index, fields in listed]
    moved = [
        f"{token!r} has the id {index} in its file and gets {own}" for token, index, own in ids if own != index
    ]
    more = f", and {len(moved) - 1} more" if len(moved) > 1 else ""
    return [f"added tokens follow the vocabulary, as in transformers 5: {moved[0]}{more}"] if moved else []
