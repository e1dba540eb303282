"""The files of a tokenizer -> a `tokenizers` object and its settings.

For the classes of `classes.py`, transformers 5 takes only the vocabulary and the added tokens of `tokenizer.json`,
and builds normalizer and template anew from `tokenizer_config.json`; so does this. Even if `tokenizer.json` keeps
the case, texts are lower-cased unless `tokenizer_config.json` says `"do_lower_case": false`; a note says where a
file is not followed. SentencePiece's files are not read, and code that a folder names (`auto_map`) is never
imported.

Source: transformers 5.23.0, tokenization_utils_tokenizers.py and tokenization_utils_base.py.
"""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import processors
from tokenizers.models import BPE, WordPiece

from minitrain.data.tokenizer.classes import (
    DEFAULT_CLASS,
    SAVED_AS,
    WORD_PIECES,
    as_it_is_note,
    class_for,
    differences_note,
    pads_left,
    way_out,
)
from minitrain.data.tokenizer.families import (
    AS_IT_IS,
    INPUT_NAMES,
    WITHOUT_TYPE_IDS,
    Choices,
    TokenizerFamily,
    Unfit,
    family_of,
)
from minitrain.data.tokenizer.special_tokens import TokenizerFiles, add_tokens, special_tokens
from minitrain.errors import MinitrainError, cut, shown
from minitrain.storage.files import read_json

PADDED_LEFT = (
    "rows are padded on the left, as the tokenizer's files say: a head that reads the first position sees padding "
    '(encoders are trained with "padding_side": "right" in tokenizer_config.json)'
)
UNSET_LENGTH = 1_000_000  # above this, model_max_length means no limit; transformers writes 1e30
PADDING_SIDES = ("right", "left")
CHOICES: Choices = {
    "truncation_side": ("right", "left"),
    "padding_side": PADDING_SIDES,
    "split_special_tokens": (False, True),
}


def read_files(directory: Path) -> tuple[Backend, dict[str, Any], list[str]]:
    """The tokenizer of a folder, the content of its tokenizer_config.json, and notes for the user.

    Raises:
        MinitrainError: A file is missing, cannot be read, or lacks a special token.
    """
    config = _read_if_there(directory / "tokenizer_config.json", infinite=True)  # a model_max_length may be
    model = _read_if_there(directory / "config.json")
    older = _read_if_there(directory / "special_tokens_map.json")
    added = _read_if_there(directory / "added_tokens.json")
    named = config.get("tokenizer_class") or model.get("tokenizer_class")
    name = class_for(named, model.get("model_type"))
    if not isinstance(name, str) or not name.isidentifier():
        raise MinitrainError(
            f"{directory}: its tokenizer_class is {shown(name)}; expected a name, or none, in tokenizer_config.json"
        )
    source = directory / "tokenizer.json"
    notes: list[str] = []
    if not source.exists():
        name, source, notes = _vocabulary_file(directory, name, named)
    try:
        saved = _saved(source)
        settings = _settings(_sides(name, saved) | config, name, directory / "tokenizer_config.json")
        size = model.get("vocab_size")
        files = TokenizerFiles(saved, config, older, added, size if isinstance(size, int) else None)
        backend, settings, more = _assemble(source, files, settings)
        return backend, settings, notes + more
    except (KeyboardInterrupt, SystemExit, MinitrainError):
        raise
    except BaseException as error:  # tokenizers raises bare Exception, and a panic in Rust is not even that
        remedy = error.remedy if isinstance(error, Unfit) else "get them again from where the model came from"
        what = f"no {name} can be made of it and the files beside it: {cut(error)}"
        raise MinitrainError(f"{source}: {what}; {remedy}") from error


def _read_if_there(path: Path, infinite: bool = False) -> dict[str, Any]:
    return read_json(path, infinite=infinite) if path.exists() else {}


def _vocabulary_file(directory: Path, name: str, named: Any) -> tuple[str, Path, list[str]]:
    """The class to build, the file with its vocabulary, and a note if it is not the model's usual class."""
    there = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    family = family_of(name)
    others, sentencepiece = (family.vocabulary_files, family.sentencepiece) if family else ((), None)
    if others and there.issuperset(others):
        return name, directory / others[0], []
    unnamed = named in (None, "", DEFAULT_CLASS, f"{DEFAULT_CLASS}Fast")
    if unnamed and WORD_PIECES in there and sentencepiece not in there:
        note = f"{WORD_PIECES} is read as word pieces of {DEFAULT_CLASS}; transformers 5 uses {name}"
        return DEFAULT_CLASS, directory / WORD_PIECES, [note]
    needs = "tokenizer.json" + (f" or {' and '.join(others)}" if others else "")
    raise MinitrainError(
        f"{directory}: holds no tokenizer: class {name} needs {needs} there; {way_out(name, there)}"
    )


def _saved(source: Path) -> dict[str, Any]:
    """tokenizer.json, or the part of it that vocabulary files hold."""
    if source.name == "tokenizer.json":
        return read_json(source)
    if source.name == "vocab.txt":
        return {"model": {"vocab": WordPiece.read_file(str(source))}}
    vocabulary, merges = BPE.read_file(str(source), str(source.with_name("merges.txt")))
    return {"model": {"vocab": vocabulary, "merges": merges}}


def _sides(name: str, saved: Mapping[str, Any]) -> dict[str, Any]:
    """The sides of truncation and padding unless tokenizer_config.json names them."""
    parts = {f"{part}_side": saved.get(part) or {} for part in ("truncation", "padding")}
    usual = {"padding_side": "left"} if pads_left(name, saved) else {}
    return usual | {side: part["direction"].lower() for side, part in parts.items() if "direction" in part}


def _settings(config: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    """Check tokenizer_config.json and fill in what it leaves out, except for a length."""
    settings: dict[str, Any] = {"tokenizer_class": name}
    family = family_of(name)
    choices, usual_names = (family.choices, family.model_input_names) if family else ({}, WITHOUT_TYPE_IDS)
    for key, allowed in {**CHOICES, **choices}.items():
        if (value := config.get(key, allowed[0])) not in allowed:
            raise MinitrainError(
                f"{path}: {key} is {shown(value)}, expected one of {allowed}; left out, it is {allowed[0]!r}"
            )
        settings[key] = allowed[allowed.index(value)]
    names = config.get("model_input_names", usual_names)
    if not isinstance(names, list | tuple):
        raise MinitrainError(
            f"{path}: model_input_names is {shown(names)}, expected a list, or none for {list(usual_names)}"
        )
    settings["model_input_names"] = [key for key in INPUT_NAMES if key in names]
    length = config.get("model_max_length", config.get("max_len"))
    if length is None or isinstance(length, float) and math.isnan(length):
        return settings
    if isinstance(length, bool) or not isinstance(length, int | float) or not length >= 1:
        raise MinitrainError(
            f"{path}: model_max_length is {shown(length)}, expected a number of tokens; leave it out for no limit"
        )
    return settings if length > UNSET_LENGTH else settings | {"model_max_length": int(length)}


def _assemble(
    source: Path, files: TokenizerFiles, settings: dict[str, Any]
) -> tuple[Backend, dict[str, Any], list[str]]:
    name, saved = settings["tokenizer_class"], files.saved
    family = family_of(name)
    wanted = {role: token.content for role, token in special_tokens(files, family).items()}
    backend = _backend(source, saved, {**settings, **wanted}, family)
    tokens, notes = add_tokens(backend, files, family)
    settings = {**settings, **tokens}
    if family and not (family.keeps_template and backend.post_processor):
        special = {role: token for role, token in tokens.items() if role in wanted}
        backend.post_processor = processors.TemplateProcessing(
            single=" ".join(family.template.split()[:3]).format(**special),
            pair=family.template.format(**special),
            special_tokens=[(token, backend.token_to_id(token)) for token in special.values()],
        )
    _check_use(backend, "token_type_ids" in settings["model_input_names"])
    if source.name == "tokenizer.json":
        note = differences_note(files, backend, settings) if family else as_it_is_note(name, saved)
        notes += [note] if note else []
        if note and not family:  # transformers would build the named class from what is saved
            settings["tokenizer_class"] = SAVED_AS
    return backend, settings, [*notes, *([PADDED_LEFT] if settings["padding_side"] == "left" else [])]


def _backend(
    source: Path, saved: Mapping[str, Any], settings: Mapping[str, Any], family: TokenizerFamily | None
) -> Backend:
    """The class's tokenizer, or that of tokenizer.json for a class that is not built anew."""
    if family is None:
        backend = Backend.from_file(str(source))
        backend.no_padding()
        backend.no_truncation()
        return backend
    if (kind := saved["model"].get("type", family.model)) != family.model:
        raise Unfit(f"its model is {kind}, expected {family.model}", AS_IT_IS)
    backend = family.build(saved, settings)
    if family.keeps_template and saved.get("post_processor"):
        backend.post_processor = Backend.from_file(str(source)).post_processor
    return backend


def _check_use(backend: Backend, typed: bool) -> None:
    """Use the template and the model once: holes show only in use, and a template may write other ids."""
    ids = Counter(backend.get_vocab().values())
    if len(ids) < ids.total():
        twice = ids.most_common(1)[0][0]
        first, second = sorted(token for token, index in backend.get_vocab().items() if index == twice)[:2]
        raise Unfit(
            f"the id {twice} stands for two tokens, {first!r} and {second!r}",
            "give one another id; if vocab.txt has a word twice, replace the first of the two, as by [unused1]",
        )
    if (highest := max(ids, default=-1)) >= 2**31:  # the library accepts ids up to 2**32
        raise ValueError(f"an id is {highest}")
    counts = set()  # tokens of one text, alone and in a pair
    for pair in (False, True):
        encoding = backend.encode("a \uffff", "a \uffff" if pair else None)
        texts = encoding.sequence_ids  # 0 or 1 for tokens of the first or second text, None for the template's
        special = backend.num_special_tokens_to_add(pair)
        counts |= {texts.count(text) for text in range(1 + pair)}
        if texts.count(None) != special or len(counts) > 1:
            raise Unfit("its template leaves a text out, or repeats it", "mend post_processor in tokenizer.json")
        if max(encoding.ids, default=0) > highest or typed and max(encoding.type_ids, default=0) > 1:
            raise Unfit(
                f"its template gives the ids {encoding.ids} and type ids {encoding.type_ids}, expected ids up to "
                f"{highest} and the types 0 and 1",
                "mend post_processor in tokenizer.json, or leave token_type_ids out of model_input_names in "
                "tokenizer_config.json",
            )
