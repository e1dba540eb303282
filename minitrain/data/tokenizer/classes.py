"""The tokenizer classes of transformers 5 by name: which are built anew, and what to tell the user about others.

A class in `FAMILIES` is built from its vocabulary and gives the ids of `AutoTokenizer`. For any other,
`tokenizer.json` is used as it is, as by `AutoTokenizer`, except for those in REBUILT_ELSEWHERE and IN_PYTHON.

Source: transformers 5.23.0, models/auto/tokenization_auto.py.
"""

import json
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import Tokenizer as Backend

from minitrain.data.tokenizer.families import family_of
from minitrain.data.tokenizer.special_tokens import TokenizerFiles

TOKENIZERS_BACKEND = "TokenizersBackend"
SAVED_AS = "PreTrainedTokenizerFast"  # the same, by the name that transformers 4 knows too

# Built anew by transformers, but not here: ids differ where tokenizer.json does. Names without "Tokenizer".
REBUILT_ELSEWHERE = """
Barthez BigBird Blenderbot CLIP CodeGen CodeLlama Cohere Cpm Esmc FNet GPT2 GPTNeoX Gemma Lasr LayoutLMv2
LayoutLMv3 LayoutXLM Llama Luke MBart MBart50 MarkupLM Nllb Nougat OpenAIGPT Pegasus Qwen2 Qwen3_5 Reformer
RemBert RoFormer SeamlessM4T Siglip2 Splinter T5 Udop VideoPrism Whisper XGLM XLNet
"""
# Written in Python, some around sentencepiece: transformers does not read tokenizer.json.
IN_PYTHON = """
Bartpho BertGeneration BertJapanese BertTokenizerLegacy Bertweet BioGpt BlenderbotSmall ByT5 CTRL Canine Clvp
CpmAnt Dia Esm FSMT Flaubert GPTNeoXJapanese GPTSw3 M2M100 MLuke Marian Mgpstr MyT5 PLBart Perceiver Phobert
ProphetNet RoCBert Siglip Speech2Text SpeechT5 Tapas Tipsv2 Vits Wav2Vec2CTC Wav2Vec2PhonemeCTC XLM
"""

# Pad on the left if no file names a side.
PADS_LEFT = "CodeLlama Cohere Gemma Llama Siglip2 XLNet"

# Used for a folder that names no class, by the model_type of config.json.
CLASS_OF = {
    "albert": "AlbertTokenizer",
    "camembert": "CamembertTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
    "modernbert": TOKENIZERS_BACKEND,  # whatever class its folder names
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}
DEFAULT_CLASS = "BertTokenizer"
WORD_PIECES = "vocab.txt"
VOCABULARIES = (WORD_PIECES, "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")

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


def class_for(named: Any, model_type: Any) -> Any:
    """The class that a folder names, or the usual one of its model_type."""
    usual = CLASS_OF.get(model_type, DEFAULT_CLASS) if isinstance(model_type, str) else DEFAULT_CLASS
    return usual if usual == TOKENIZERS_BACKEND else named or usual


def as_it_is_note(name: str, saved: Mapping[str, Any]) -> str | None:
    """A note on a tokenizer.json that is used as it is, if transformers does not do so."""
    short = _short(name, saved)
    if short in REBUILT_ELSEWHERE.split():
        other = f"transformers 5 builds {name} anew, which"
    elif short in IN_PYTHON.split():
        other = f"transformers' {name} is Python code that does not read it, and"
    else:
        return None
    return f"tokenizer.json is used as it is, and saved so; {other} may give other ids or type ids"


def pads_left(name: str, saved: Mapping[str, Any]) -> bool:
    """Whether a class pads on the left if no file names a side."""
    return _short(name, saved) in PADS_LEFT.split()


def _short(name: str, saved: Mapping[str, Any]) -> str:
    short = name.removesuffix("Fast").removesuffix("Tokenizer")
    byte_level = short == "Llama" and "'ByteLevel'" in str(saved.get("pre_tokenizer"))
    return TOKENIZERS_BACKEND if byte_level else short  # transformers, too, uses the file of such a Llama as it is


def way_out(name: str, there: set[str]) -> str:
    """What the user can do if a class is read from none of the files that are there."""
    family, short = family_of(name), _short(name, {})
    if family is not None and family.sentencepiece in there:
        return (
            f"{family.sentencepiece} is not read. Convert it once, with transformers, sentencepiece and protobuf: "
            "AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER), then add config.json and the weights"
        )
    if short in IN_PYTHON.split():
        return (
            f"{name} is Python code in transformers, whose save_pretrained writes no tokenizer.json. What works: a "
            'tokenizer.json made for this model, with "tokenizer_class": "PreTrainedTokenizerFast" in '
            "tokenizer_config.json, or a model that comes with one, as FacebookAI/xlm-roberta-base does"
        )
    if short in REBUILT_ELSEWHERE.split() and there.intersection(VOCABULARIES):
        return (
            "make it once, with transformers installed: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    if WORD_PIECES in there:
        return (
            f"{WORD_PIECES} is there, which that class does not read: if it lists word pieces, as that of Chinese "
            'ALBERTs does, set "tokenizer_class": "BertTokenizer" in tokenizer_config.json'
        )
    return "get the files of the tokenizer from where the model came from"


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
            yield f"{key} ({own!r:.100}, there {value!r:.100})"
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
