"""Spoilt tokenizers: (draw, healthy folder) -> Mutant."""

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from mutations import Draw, Mutant, Object, dump, edit_bytes, edit_tree, odd, parse
from spoilt_models import some

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TOKENS = [*SPECIAL, "the", "dog", "fox", "is", "##s", ".", "a", "##m", "é", "中"]
NUMBERED = {token: i for i, token in enumerate(TOKENS)}
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json", "added_tokens.json"
)  # fmt: skip

words = st.sampled_from([*TOKENS, "[NEW]", "yy", "\u202e"])
PATTERNS = [
    {"String": " "},
    {"String": ""},
    {"Regex": r"\s+"},
    {"Regex": "("},
    {"Regex": ""},
    {"Regex": "(a*)*b"},
    {},
]
# Parts that a tokenizer.json may have and that no BertTokenizer does.
PARTS: dict[str, list[Any]] = {
    "normalizer": [
        {"type": "NFC"}, {"type": "NFKD"}, {"type": "Lowercase"}, {"type": "StripAccents"}, {"type": "Nmt"},
        {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Prepend", "prepend": "▁"}]},
        {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Sequence", "normalizers": []},
        {"type": "Precompiled", "precompiled_charsmap": "ALQCAACEAAA="}, {"type": "Precompiled"}, None, {},
        {"type": "Precompiled", "precompiled_charsmap": "AAAA"}, {"type": "ByteLevel"},
        {"type": "Precompiled", "precompiled_charsmap": ""},
        *({"type": "Replace", "pattern": pattern, "content": "a "} for pattern in PATTERNS),
    ],
    "pre_tokenizer": [
        {"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "UnicodeScripts"}, {"type": "Digits"},
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}, None, {},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        {"type": "Metaspace", "replacement": "", "prepend_scheme": "always"}, {"type": "FixedLength", "length": 0},
        {"type": "FixedLength", "length": 3}, {"type": "CharDelimiterSplit", "delimiter": "o"},
        {"type": "Digits", "individual_digits": True}, {"type": "Punctuation", "behavior": "Isolated"},
        *({"type": "Split", "pattern": pattern, "behavior": "Removed", "invert": False} for pattern in PATTERNS),
    ],
    "post_processor": [
        None, {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        {"type": "BertProcessing", "sep": ["[SEP]", 2**32 - 1], "cls": ["[CLS]", 999]},
        {"type": "RobertaProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 77], "trim_offsets": True,
         "add_prefix_space": False},
        {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 9}}],
         "pair": [{"Sequence": {"id": "B", "type_id": 300}}], "special_tokens": {}},
        {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}},
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    ],
    "model": [
        {"type": "WordLevel", "unk_token": "[UNK]", "vocab": NUMBERED},
        {"type": "WordLevel", "unk_token": "none", "vocab": NUMBERED},
        {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {token: 7 * i for i, token in enumerate(TOKENS)}},
        {"type": "Unigram", "unk_id": 1, "vocab": [[token, -1.0] for token in TOKENS]},
        {"type": "Unigram", "unk_id": None, "vocab": [[token, -1.0] for token in TOKENS]},
        {"type": "Unigram", "unk_id": 99, "vocab": [[token, 0] for token in TOKENS]},
        {"type": "Unigram", "unk_id": 1, "vocab": [], "byte_fallback": True},
        {"type": "BPE", "unk_token": "[UNK]", "vocab": NUMBERED, "merges": []},
        {"type": "BPE", "vocab": {"do": 17, "d": 15, "o": 16} | NUMBERED, "merges": ["d o"]},
        {"type": "BPE", "vocab": NUMBERED, "merges": ["d o"]},
        {"type": "BPE", "vocab": {"a": 2**32 - 1}, "merges": [], "dropout": 0.5},
        {"type": "BPE", "unk_token": "[UNK]", "vocab": NUMBERED, "merges": [], "dropout": 0.5},
    ],
    "truncation": [{"direction": "Left", "max_length": 0, "strategy": "OnlyFirst", "stride": 9}],
    "padding": [{"strategy": {"Fixed": 2**40}, "direction": "Left", "pad_to_multiple_of": 0, "pad_id": 0,
                 "pad_type_id": 0, "pad_token": "[PAD]"}],
    "decoder": [None, {"type": "BPEDecoder", "suffix": ""}, {"type": "Fuse"}, {"type": "CTC"}],
    "added_tokens": [[], [{"id": 2**40, "content": "yy"}], [{"id": 15, "content": "", "special": True}]],
}  # fmt: skip
SETTINGS: dict[str, list[Any]] = {
    "tokenizer_class": ["BertTokenizerFast", "DistilBertTokenizer", "PreTrainedTokenizerFast", "Nobody", "a b", ""],
    "do_lower_case": [True, False, 1], "strip_accents": [None, False], "tokenize_chinese_chars": [False],
    "truncation_side": ["left", "middle"], "model_max_length": [5, 3, 2, 1, 1e30, 10**400, 7.5, "9"],
    "cls_token": ["the", "none", None, {"content": "dog"}, {}], "pad_token": ["", "[UNK]"],
    "unk_token": ["the", "[NEW]"], "model_input_names": [["input_ids"], [], {}, "a"],
    "added_tokens_decoder": [{}, {"0": {"content": "[PAD]"}}, {"99": {"content": "[NEW]"}}, {"a": {}}, {"-1": "a"}],
    "extra_special_tokens": [["[NEW]"], [], {"a": "[NEW]"}, "[NEW]"], "auto_map": [{"a": "evil.Evil"}],
    "split_special_tokens": [True, None], "additional_special_tokens": [["[NEW]", "the"], [None], 3],
    "mask_token": [None, "none"],
}  # fmt: skip


def edit_lines(draw: Draw, mutant: Mutant, content: bytes) -> bytes:
    """vocab.txt, a token a line."""
    lines = content.split(b"\n")
    at = draw(st.integers(0, len(lines) - 1))
    how = draw(st.sampled_from(["drop", "twice", "odd", "append", "blank", "ends", "order"]))
    mutant.note(f"{how} in vocab.txt")
    if how == "drop":
        del lines[at]
    elif how == "order":
        lines = list(draw(st.permutations(lines)))
    elif how != "ends":
        odd_line = draw(
            st.sampled_from([b" ", b"\0", b"\xff", b"a b", b"\xe2\x80\xa8", b"\r", b"x" * 100_000, b"##"])
        )
        new = {"twice": lines[at], "blank": b""}.get(how, odd_line)
        lines[len(lines) if how == "append" else at : at + (how == "odd")] = [new]
    return (b"\r\n" if how == "ends" else b"\n").join(lines)


def edit_settings(draw: Draw, mutant: Mutant, tree: Object, table: dict[str, list[Any]]) -> None:
    key = draw(st.sampled_from(sorted(table)))
    tree[:] = [pair for pair in tree if pair[0] != key]
    tree.append([key, parse(json.dumps(draw(st.sampled_from(table[key]))).encode())])
    mutant.note(key)


def tokenizer(draw: Draw, base: Path) -> Mutant:
    """One of three folders: a BertTokenizer of tokenizer.json or of vocab.txt, or whatever tokenizer.json says."""
    mutant = Mutant()
    contents = {name: (base / name).read_bytes() for name in TOKENIZER_FILES}
    made_of = draw(st.sampled_from(["tokenizer.json", "vocab.txt", "any class", "any class"]))
    name = draw(st.sampled_from([*TOKENIZER_FILES, "tokenizer.json", "tokenizer_config.json"]))
    if made_of == "vocab.txt":
        del contents["tokenizer.json"]
        name = "vocab.txt" if name == "tokenizer.json" else name
    elif name == "vocab.txt":
        name = "tokenizer.json"
    if made_of == "any class":
        contents["tokenizer_config.json"] = contents["tokenizer_config.json"].replace(b"BertTokenizer", b"Any")
    how = draw(st.sampled_from(["tree", "tree", "settings", "settings", "lines", "bytes"]))
    for _ in some(draw):
        if name == "vocab.txt" and how != "bytes":
            contents[name] = edit_lines(draw, mutant, contents[name])
        elif how == "bytes" or name == "vocab.txt":
            contents[name] = edit_bytes(draw, mutant, contents[name], base / "ran")
        else:
            try:
                tree = parse(contents[name])
            except ValueError:
                break  # the change before has spoilt it
            if how == "settings" and name in ("tokenizer.json", "tokenizer_config.json"):
                edit_settings(draw, mutant, tree, PARTS if name == "tokenizer.json" else SETTINGS)
            else:
                edit_tree(draw, mutant, tree, odd | words)
            contents[name] = dump(tree).encode("utf-8", "surrogatepass")
    if any(number in contents["tokenizer_config.json"] for number in (b"NaN", b"Infinity")):
        mutant.fatal = False  # Python's JSON writes them, and they may mean that a model_max_length is not set
    mutant.files = {name: contents.get(name) for name in TOKENIZER_FILES}
    return mutant
