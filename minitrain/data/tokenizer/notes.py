"""A note where tokenizer.json differs from the class that is built from its vocabulary.

Both read a few short texts, each of which shows one difference; the vocabulary does not matter.
"""

import json
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import Tokenizer as Backend

from minitrain.data.tokenizer.special_tokens import TokenizerFiles

# What each text shows.
PROBES = {
    "capital letters": "Ab",
    "accents": "é",
    "combining accents": "e\u0301",
    "digits": "2019",
    "Chinese characters": "中文",
    "punctuation": "it's (a-b)",
    "underscores": "a_b",
    "quotation marks": "``a''",
    "no-break spaces": "a\xa0b",
    "double blanks": "a  b",
    "line ends": "a\nb",
    "control characters": "a\x07b",
    "wide letters": "Ｆｕ",
    "ligatures": "ﬁ",
    "a blank at the end": "a ",
    "the first word": "a a",
}
SHOWN = 3  # differences per note
EMPTY_MODEL = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}


def differences_note(files: TokenizerFiles, backend: Backend, settings: Mapping[str, Any]) -> str | None:
    """One line that names the differences between what was built and tokenizer.json; None without any."""
    name = settings["tokenizer_class"]
    try:
        found = [*_differences(files.saved, backend)]
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # also a panic in Rust; what is built does not depend on it
        return f"{name} is built anew from the vocabulary: the rest of tokenizer.json fails ({str(error)[:100]})"
    if not found:
        return None
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    shown = "; ".join(found[:SHOWN])
    return (
        f"{name} is built anew from the vocabulary, as transformers 5 does, and not as tokenizer.json says: "
        f"{shown}{more}. To take tokenizer.json as it is, set {as_it_is(settings, files.config)} in "
        "tokenizer_config.json"
    )


def as_it_is(settings: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """What to put into tokenizer_config.json so that tokenizer.json is used: JSON without its braces."""
    wanted: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": settings["pad_token"]}
    if "token_type_ids" in settings["model_input_names"]:
        wanted["model_input_names"] = settings["model_input_names"]
    return json.dumps({key: value for key, value in wanted.items() if config.get(key) != value})[1:-1]


def _differences(saved: Mapping[str, Any], backend: Backend) -> Iterator[str]:
    theirs = _without_vocabulary(saved)
    for about, text in PROBES.items():
        ours, there = _pieces(backend, text), _pieces(theirs, text)
        if ours != there:
            yield f"{about} ({_shown(text)} becomes {_shown(ours)}, there {_shown(there)})"
    for key, value in saved["model"].items():
        own = getattr(backend.model, key, value) if key != "unk_token" else value  # the one of the files counts
        if (own or None) != (value or None):
            yield f"{key} ({own!r}, there {value!r})"
    if saved.get("post_processor"):
        for pair in (False, True):
            ours, there = _template(backend, backend, pair), _template(theirs, backend, pair)
            if ours != there:
                yield f"the template ({ours}, there {there})"
                break


def _without_vocabulary(saved: Mapping[str, Any]) -> Backend:
    """The tokenizer of the file without its model, which would take long to read."""
    parts = {key: saved.get(key) for key in ("normalizer", "pre_tokenizer", "post_processor")}
    return Backend.from_str(json.dumps({"version": "1.0", "added_tokens": [], **parts, "model": EMPTY_MODEL}))


def _pieces(backend: Backend, text: str) -> str:
    """The words that the model is given, joined by |."""
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    if backend.pre_tokenizer is None:
        return text
    return "|".join(piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text))


def _shown(text: str) -> str:
    """Quoted, with combining accents as escapes, since they look like the others."""
    return ascii(text) if any(map(unicodedata.combining, text)) else repr(text)


def _template(backend: Backend, names: Backend, pair: bool) -> str:
    """The special tokens around one text, or two: "[CLS] A [SEP]"."""
    encoding = backend.encode("a", "a" if pair else None)
    parts = [
        names.id_to_token(index) or str(index) if text is None else "AB"[text]
        for index, text in zip(encoding.ids, encoding.sequence_ids, strict=True)
    ]
    return " ".join(part for i, part in enumerate(parts) if i == 0 or part != parts[i - 1] or part not in "AB")
