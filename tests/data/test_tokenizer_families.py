"""Every family's tokenizer, in the layouts of the Hub, against the live `transformers.AutoTokenizer`."""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer

from minitrain.data.tokenizer.tokenizer import Tokenizer, read_tokenizer
from minitrain.errors import MinitrainError
from minitrain.storage.hub import MODEL_FILES

CORPUS = [
    "The quick brown fox jumps over the lazy dog; the dog does not care.",
    "Der schnelle braune Fuchs springt über den faulen Hund, naïve café.",
    "A fox is not a dog, and THE DOG IS NOT A FOX. 中文 字 12 345 \"quoted\" 'so'",
] * 3
TEXTS = [
    "Hello World, it's a dog.",
    "",
    " \t\n ",
    "  leading and trailing  blanks   within  ",
    "\u3000wide\xa0blanks\u2028and\r\nlines\u3000",
    "naïve café ÅNGSTRÖM ǆ İstanbul ß ﬁne Ｆｕｌｌ",
    "e\u0301\u0323 combining, \u0307 alone",
    "nul \x00 inside, \x07 bell, \x1f unit, \u200b zero width, \ufeff mark, soft\xadhyphen",
    "\u202eright to left\u202c שלום עליכם مرحبا بالعالم",
    "中文字符 and 日本語 カタカナ 한국어 𠀀",
    "😀 👩\u200d👩\u200d👧 🏳️\u200d🌈 e\ufe0f",
    "``quotes'' \"and\" ''these``",
    "▁written ▁ out▁",
    "[CLS] [SEP] in the text [MASK] [UNK][PAD] [cls] the[MASK] dog",
    "<s> </s> in the text <mask> <unk><pad> <S> the   <mask>  dog<mask>fox <s>NOTUSED",
    "\ufffd \ufffe \U0010ffff private \ue000",
]
LONG_TEXTS = ["dog" * 700, "The quick brown fox " * 40]

# Vocabularies ---------------------------------------------------------------------------------------------------


@cache
def word_pieces(*special: str) -> dict[str, int]:
    backend = Backend(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=250, special_tokens=list(special), show_progress=False)
    backend.train_from_iterator(CORPUS + [text.lower() for text in CORPUS], trainer)
    return backend.get_vocab()


@cache
def byte_pairs(*special: str) -> dict[str, Any]:
    """The vocabulary and the merges."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    model: dict[str, Any] = json.loads(backend.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(merge) for merge in model["merges"]]}


@cache
def pieces(unknown: str, *special: str, last: tuple[str, ...] = ()) -> list[tuple[str, float]]:
    backend = Backend(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=list(special), unk_token=unknown, show_progress=False
    )
    backend.train_from_iterator(CORPUS + [text.lower() for text in CORPUS], trainer)
    found = [(piece, score) for piece, score in json.loads(backend.to_str())["model"]["vocab"]]
    return found + [(piece, 0.0) for piece in last]


def charsmap(table: Mapping[str, str]) -> bytes:
    """What SentencePiece calls a precompiled charsmap: a double-array trie, then the texts that it points to."""
    units = [0] * 256 * 64
    units[0] = 256 << 10  # the root's children are at 256 ^ byte
    free, blob, inner = 512, b"", {b"": 256}
    for source, target in table.items():
        key = source.encode()
        for end in range(1, len(key)):
            if key[:end] not in inner:
                place = inner[key[: end - 1]] ^ key[end - 1]
                inner[key[:end]], free = free, free + 256
                units[place] = (place ^ inner[key[:end]]) << 10 | key[end - 1]
        place = inner[key[:-1]] ^ key[-1]
        units[place] = (place ^ free) << 10 | 1 << 8 | key[-1]
        units[free] = 1 << 31 | len(blob)  # the leaf
        blob, free = blob + target.encode() + b"\0", free + 256
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + blob


# As SentencePiece's nmt_nfkc does: forms made alike, lines and wide blanks to blanks, what has no width to nothing.
PRECOMPILED = normalizers.Precompiled(
    charsmap({"ﬁ": "fi", "Ｆ": "F", "ｕ": "u", "\t": " ", "\n": " ", "\u3000": " ", "\xa0": " ", "\u200b": ""})
)

# tokenizer.json, as the Hub has it ------------------------------------------------------------------------------

BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
MPNET_TOKENS = ("<s>", "<pad>", "</s>", "[UNK]", "<mask>")
NOT_USED = ("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>")
ALBERT_TOKENS = ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
MASK = AddedToken("<mask>", lstrip=True, special=True, normalized=False)


def add(backend: Backend, *tokens: str | AddedToken) -> Backend:
    backend.add_special_tokens(list(tokens))
    return backend


def two_segments(backend: Backend) -> processors.PostProcessor:
    ids = [(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    return processors.TemplateProcessing("[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", ids)


def one_segment(backend: Backend) -> processors.PostProcessor:
    ids = [(token, backend.token_to_id(token)) for token in ("<s>", "</s>")]
    return processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> </s> $B </s>", ids)


def bert() -> Backend:
    backend = add(Backend(models.WordPiece(word_pieces(*BERT_TOKENS), unk_token="[UNK]")), *BERT_TOKENS)
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = two_segments(backend)
    return backend


def mpnet() -> Backend:
    backend = Backend(models.WordPiece(word_pieces(*MPNET_TOKENS), unk_token="[UNK]"))
    add(backend, *MPNET_TOKENS[:4], MASK)
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return backend


def roberta() -> Backend:
    backend = add(Backend(models.BPE(**byte_pairs(*ROBERTA_TOKENS))), *ROBERTA_TOKENS[:4], MASK)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return backend


def modernbert() -> Backend:
    backend = add(Backend(models.BPE(**byte_pairs())), *BERT_TOKENS[1:4], BERT_TOKENS[0])
    backend.add_special_tokens([AddedToken("[MASK]", lstrip=True, special=True, normalized=False)])
    backend.add_tokens([AddedToken("   ", normalized=False)])  # it has runs of blanks as tokens
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = two_segments(backend)
    return backend


def unigram(vocabulary: list[tuple[str, float]], unk_id: int, *steps: normalizers.Normalizer) -> Backend:
    backend = Backend(models.Unigram(vocabulary, unk_id=unk_id))
    backend.normalizer = normalizers.Sequence(list(steps)) if len(steps) > 1 else steps[0]
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    return backend


def xlm_roberta() -> Backend:
    backend = unigram(pieces("<unk>", *ROBERTA_TOKENS[:4], last=("<mask>",)), 3, PRECOMPILED)
    add(backend, *ROBERTA_TOKENS[:4], MASK).post_processor = one_segment(backend)
    return backend


def camembert() -> Backend:
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    backend = unigram(pieces("<unk>", *NOT_USED, last=("<mask>",)), 3, PRECOMPILED, spaces)
    add(backend, "<s>", "</s>", "<unk>", "<pad>", MASK).post_processor = one_segment(backend)
    return backend


def albert() -> Backend:
    steps = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD()]
    steps += [normalizers.StripAccents(), normalizers.Lowercase(), PRECOMPILED]
    backend = unigram(pieces("<unk>", *ALBERT_TOKENS), 1, *steps)
    add(backend, *ALBERT_TOKENS[:4], AddedToken("[MASK]", lstrip=True, special=True, normalized=False))
    backend.post_processor = two_segments(backend)
    return backend


def deberta() -> Backend:
    steps = [normalizers.Strip(), PRECOMPILED, normalizers.Replace(Regex(" {2,}"), " ")]
    backend = unigram(pieces("[UNK]", "[PAD]", "[CLS]", "[SEP]", "[UNK]"), 3, *steps)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace()])
    add(backend, *BERT_TOKENS).post_processor = two_segments(backend)
    return backend


# Folders --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A folder: its tokenizer as tokenizer.json would hold it, what lies beside, and what is to come of it.

    without_json: leave tokenizer.json out. segments: whether the second text of a pair has type 1.
    """

    model_type: str
    backend: Callable[[], Backend]
    config: Mapping[str, Any] | None
    beside: Mapping[str, Any] = field(default_factory=dict)
    without_json: bool = False
    segments: bool = False
    max_length: int | None = 512


def listed(backend: Callable[[], Backend]) -> dict[str, Any]:
    """What transformers 4 wrote into tokenizer_config.json of the added tokens."""
    added = json.loads(backend().to_str())["added_tokens"]
    return {str(token.pop("id")): token for token in added}


MASK_IN_MAP = {"content": "<mask>", "lstrip": True, "rstrip": False, "normalized": False, "single_word": False}
ROBERTA_MAP = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "mask_token": MASK_IN_MAP}
MODERNBERT = {role: f"[{role[:-6].upper()}]" for role in ("unk_token", "sep_token", "pad_token", "cls_token")}
UNCASED = {"do_lower_case": True, "model_max_length": 512}
PLAIN = {"model_max_length": 512}

BERT = Row("bert", bert, UNCASED, {"vocab.txt": word_pieces}, segments=True)
ROBERTA = Row("roberta", roberta, PLAIN, {"vocab.json": byte_pairs, "merges.txt": byte_pairs})
MPNET = Row("mpnet", mpnet, UNCASED, {"vocab.txt": word_pieces})
XLM_ROBERTA = Row("xlm-roberta", xlm_roberta, PLAIN, {"sentencepiece.bpe.model": b"\n\x05\n\x03<s>"})
CAMEMBERT = replace(XLM_ROBERTA, model_type="camembert", backend=camembert)
ALBERT = Row("albert", albert, PLAIN, {"spiece.model": b"\n\x05\n\x03<s>"})
DEBERTA = Row(
    "deberta-v2",
    deberta,
    {"do_lower_case": False, "vocab_type": "spm"},
    {"spm.model": b"\n\x05\n\x03<s>"},
    segments=True,
    max_length=None,
)

ROWS = {
    "bert": BERT,
    "bert, cased": replace(BERT, config={"do_lower_case": False}, max_length=None),
    "bert, vocab.txt alone": replace(BERT, config=None, without_json=True, max_length=None),
    # AutoTokenizer gives these two BERT's class, type ids included, where the folder names no other.
    "distilbert": replace(BERT, model_type="distilbert"),
    "electra": replace(BERT, model_type="electra"),
    "distilbert, named": replace(
        BERT, model_type="distilbert", config={**UNCASED, "tokenizer_class": "DistilBertTokenizer"}, segments=False
    ),
    "electra, named": replace(
        BERT, model_type="electra", config={**UNCASED, "tokenizer_class": "ElectraTokenizerFast"}
    ),
    "roberta": ROBERTA,
    "roberta, tokenizer.json alone": replace(ROBERTA, config=None, beside={}, max_length=None),
    "roberta, vocab.json and merges.txt": replace(ROBERTA, without_json=True),
    "roberta, with a map of special tokens": replace(
        ROBERTA, without_json=True, beside={**ROBERTA.beside, "special_tokens_map.json": ROBERTA_MAP}
    ),
    "roberta, by transformers 4": replace(
        ROBERTA,
        config={
            **{role: token for role, token in ROBERTA_MAP.items() if role != "mask_token"},
            **{"mask_token": {"__type": "AddedToken", "special": True, **MASK_IN_MAP}, "add_prefix_space": True},
            **{"tokenizer_class": "RobertaTokenizerFast", "trim_offsets": True, "model_max_length": 1e30},
        },
        max_length=None,
    ),
    "xlm-roberta": XLM_ROBERTA,
    "xlm-roberta's in a bert": replace(
        XLM_ROBERTA, model_type="bert", config={"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 128}
    ),
    "camembert": CAMEMBERT,
    "camembert, by transformers 4": replace(
        CAMEMBERT,
        config={
            **{"tokenizer_class": "CamembertTokenizer", "added_tokens_decoder": listed(camembert)},
            **{"additional_special_tokens": list(NOT_USED[:1]), "model_max_length": 512},
        },
    ),
    "mpnet": MPNET,
    "mpnet, vocab.txt alone": replace(MPNET, without_json=True, config=None, max_length=None),
    "mpnet, with a map of special tokens": replace(
        MPNET,
        without_json=True,
        config={**UNCASED, "tokenizer_class": "MPNetTokenizer", "mask_token": "<mask>"},
        beside={"vocab.txt": word_pieces, "special_tokens_map.json": {"unk_token": "[UNK]", "pad_token": "<pad>"}},
    ),
    "albert": ALBERT,
    "deberta-v2": DEBERTA,
    "deberta-v2, by transformers 4": replace(
        DEBERTA,
        config={
            **{"tokenizer_class": "DebertaV2Tokenizer", "split_by_punct": False, "model_max_length": 512},
            **{"do_lower_case": False, "vocab_type": "spm", "sp_model_kwargs": {}},
        },
        beside={
            **{"added_tokens.json": {"[MASK]": 150}, "special_tokens_map.json": {"mask_token": "[MASK]"}},
            **DEBERTA.beside,
        },
        max_length=512,
    ),
    "modernbert": Row(
        "modernbert",
        modernbert,
        {
            **{"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 8192, **MODERNBERT},
            **{"added_tokens_decoder": listed(modernbert), "model_input_names": ["input_ids", "attention_mask"]},
            **{"mask_token": "[MASK]"},
        },
        {"special_tokens_map.json": MODERNBERT},
        max_length=8192,
    ),
    "modernbert, by transformers 5": Row(
        "modernbert",
        modernbert,
        {"backend": "tokenizers", "tokenizer_class": "TokenizersBackend", **MODERNBERT, "model_max_length": 1e30},
        max_length=None,
    ),
}
each = pytest.mark.parametrize("name", ROWS)


def write(folder: Path, row: Row, **config: Any) -> Path:
    """The row's folder; config: more of tokenizer_config.json."""
    folder.mkdir(exist_ok=True)
    saved = json.loads(row.backend().to_str())
    files: dict[str, Any] = {"config.json": {"model_type": row.model_type}, **row.beside}
    if row.config is not None or config:
        files["tokenizer_config.json"] = {**(row.config or {}), **config}
    if not row.without_json:
        files["tokenizer.json"] = saved
    vocabulary = saved["model"]["vocab"]
    texts = {
        "vocab.txt": lambda: "".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.__getitem__)),
        "vocab.json": lambda: json.dumps(vocabulary),
        "merges.txt": lambda: "\n".join(["#version: 0.2", *map(" ".join, saved["model"]["merges"])]) + "\n",
    }
    for name, content in files.items():
        text = texts[name]() if name in texts else content
        data = text if isinstance(text, bytes) else (text if isinstance(text, str) else json.dumps(text)).encode()
        (folder / name).write_bytes(data)
    return folder


@cache
def both(name: str, folder: Path) -> tuple[Tokenizer, Any]:
    write(folder, ROWS[name])
    return read_tokenizer(folder), AutoTokenizer.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


def sides(name: str, root: Path) -> tuple[Tokenizer, Any]:
    """Ours and theirs of a row's folder, read once."""
    return both(name, root / "".join(filter(str.isalnum, name)))


def assert_same(
    ours: Tokenizer, theirs: Any, texts: list[str], pairs: list[str] | None = None, max_length: int | None = None
) -> None:
    expected = theirs(texts, pairs, truncation=max_length is not None, max_length=max_length)
    examples = ours(texts, pairs, 10_000_000 if max_length is None else max_length)
    assert [example.input_ids for example in examples] == expected["input_ids"]
    # A class without type ids gives none, and the model then takes zeros.
    zeros = [[0] * len(ids) for ids in expected["input_ids"]]
    assert [example.token_type_ids for example in examples] == expected.get("token_type_ids", zeros)
    assert expected["attention_mask"] == [[1] * len(example.input_ids) for example in examples]


def assert_same_folder(folder: Path) -> tuple[Tokenizer, Any]:
    """Ours and the reference agree on the folder, and on what ours saves of it."""
    ours, theirs = read_tokenizer(folder), AutoTokenizer.from_pretrained(str(folder))
    ours.save(folder / "saved")
    (folder / "saved" / "config.json").write_bytes((folder / "config.json").read_bytes())
    again = AutoTokenizer.from_pretrained(str(folder / "saved"))
    for reader, reference in (ours, theirs), (read_tokenizer(folder / "saved"), again), (ours, again):
        assert_same(reader, reference, TEXTS)
        assert_same(reader, reference, TEXTS, TEXTS[::-1])
        assert_same(reader, reference, TEXTS, TEXTS[::-1], max_length=9)
    assert read_tokenizer(folder / "saved").settings == ours.settings
    return ours, theirs


# Ids ------------------------------------------------------------------------------------------------------------


@each
def test_single_texts_give_the_ids_of_the_reference(name: str, root: Path) -> None:
    assert_same(*sides(name, root), TEXTS + LONG_TEXTS)


@each
def test_pairs_give_the_ids_of_the_reference(name: str, root: Path) -> None:
    assert_same(*sides(name, root), [a for a in TEXTS for _ in TEXTS], [b for _ in TEXTS for b in TEXTS])


@each
@pytest.mark.parametrize("side", ["right", "left"])
def test_truncation_gives_the_ids_of_the_reference(name: str, side: str, tmp_path: Path) -> None:
    folder = write(tmp_path, ROWS[name], truncation_side=side)
    ours, theirs = read_tokenizer(folder), AutoTokenizer.from_pretrained(str(folder))
    texts = [" ".join(["dog", "fox"] * count) for count in (0, 1, 2, 4)] + TEXTS
    for max_length in (5, 8, 11, 16, 64):
        assert_same(ours, theirs, texts, None, max_length)
        for shift in (0, 1, 9):
            assert_same(ours, theirs, texts, texts[shift:] + texts[:shift], max_length)
    assert_same(ours, theirs, LONG_TEXTS * 2, [*LONG_TEXTS[::-1], *LONG_TEXTS], 256)


@each
def test_what_is_saved_is_the_same_tokenizer_to_both(name: str, tmp_path: Path) -> None:
    ours, theirs = assert_same_folder(write(tmp_path, ROWS[name]))
    again = AutoTokenizer.from_pretrained(str(tmp_path / "saved"))
    assert type(again) is type(theirs)
    assert again.get_vocab() == theirs.get_vocab() == ours.backend.get_vocab(with_added_tokens=True)
    assert again.special_tokens_map.items() >= theirs.special_tokens_map.items()
    assert again.model_max_length == theirs.model_max_length or ours.max_length is None


@each
def test_facts_are_those_of_the_reference(name: str, root: Path) -> None:
    ours, theirs = sides(name, root)
    assert ours.pad_token_id == theirs.pad_token_id
    assert max(ours.backend.get_vocab().values()) == max(theirs.get_vocab().values())
    assert set(ours.settings["model_input_names"]) == set(theirs.model_input_names)
    assert [ours.num_special_tokens(pair) for pair in (False, True)] == [
        theirs.num_special_tokens_to_add(pair) for pair in (False, True)
    ]


@each
def test_each_row_is_what_it_says(name: str, root: Path) -> None:
    row = ROWS[name]
    ours, theirs = sides(name, root)
    assert (1 in ours("a dog", "a fox")[0].token_type_ids) == row.segments
    limit = row.max_length if row.model_type != "bert" or "XLM" not in type(theirs).__name__ else 128
    assert ours.max_length == limit and (theirs.model_max_length == limit or theirs.model_max_length > 1e29)


pieces_of_text = st.one_of(
    st.text(max_size=20),
    st.sampled_from([*TEXTS, *BERT_TOKENS, *ROBERTA_TOKENS, *NOT_USED, " ", "  ", "the", "Fuchs", "\u0301"]),
)
fuzz = st.lists(pieces_of_text, max_size=5).map("".join)


@each
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(fuzz, fuzz), min_size=1, max_size=4), max_length=st.integers(5, 40))
def test_any_unicode_text_gives_the_ids_of_the_reference(
    name: str, root: Path, rows: list[tuple[str, str]], max_length: int
) -> None:
    texts, pairs = [row[0] for row in rows], [row[1] for row in rows]
    both_sides = sides(name, root)
    assert_same(*both_sides, texts, pairs)
    assert_same(*both_sides, texts, pairs, max_length)
    assert_same(*both_sides, texts, None, max_length)


# Settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("roberta", {"add_prefix_space": True}),
        ("roberta", {"trim_offsets": False, "errors": "strict"}),
        ("roberta, vocab.json and merges.txt", {"add_prefix_space": True, "truncation_side": "left"}),
        ("roberta, vocab.json and merges.txt", {"add_bos_token": True, "add_eos_token": True}),
        ("roberta", {"cls_token": "d", "sep_token": "f"}),
        ("roberta", {"mask_token": {"__type": "AddedToken", "content": "Ġ", "rstrip": True}}),
        ("roberta", {"additional_special_tokens": ["dog"], "split_special_tokens": True}),
        ("roberta", {"extra_special_tokens": {"image_token": "fox"}}),
        ("roberta", {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}),
        ("roberta", {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}),
        ("xlm-roberta", {"add_prefix_space": False}),
        ("xlm-roberta", {"bos_token": "▁dog", "eos_token": "</s>"}),
        ("xlm-roberta", {"cls_token": "▁dog", "sep_token": "▁fox"}),
        ("xlm-roberta", {"model_input_names": ["input_ids", "attention_mask", "token_type_ids"]}),
        ("camembert", {"add_prefix_space": False, "truncation_side": "left"}),
        ("camembert", {"unk_token": "<pad>"}),
        ("camembert", {"additional_special_tokens": ["</s>NOTUSED", "[NEW]"]}),
        ("camembert", {"tokenizer_class": "XLMRobertaTokenizerFast"}),
        ("albert", {"do_lower_case": False}),
        ("albert", {"keep_accents": True}),
        ("albert", {"keep_accents": True, "do_lower_case": False, "add_prefix_space": False}),
        ("albert", {"cls_token": "▁dog"}),
        ("albert", {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}),
        ("deberta-v2", {"do_lower_case": True}),
        ("deberta-v2", {"split_by_punct": True}),
        ("deberta-v2", {"split_by_punct": True, "do_lower_case": True, "add_prefix_space": False}),
        ("deberta-v2", {"cls_token": "▁dog", "truncation_side": "left"}),
        ("deberta-v2", {"model_input_names": ["input_ids", "attention_mask"]}),
        ("mpnet", {"do_lower_case": False}),
        ("mpnet", {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False}),
        ("mpnet, vocab.txt alone", {"strip_accents": False, "split_special_tokens": True}),
        ("mpnet, vocab.txt alone", {"mask_token": "dog", "cls_token": "fox"}),
        ("modernbert", {"tokenizer_class": "BertTokenizer", "do_lower_case": True}),
        ("modernbert", {"tokenizer_class": None, "truncation_side": "left"}),
    ],
    ids=str,
)
def test_tokenizer_config_decides_as_in_the_reference(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    assert_same_folder(write(tmp_path, ROWS[name], **options))


@pytest.mark.parametrize(
    ("name", "options", "text", "other"),
    [
        ("roberta", {"add_prefix_space": True}, "dog", " dog"),
        ("xlm-roberta", {"add_prefix_space": True}, "dog", "  dog "),
        ("camembert", {}, "ﬁ", "fi"),  # by SentencePiece's table
        ("xlm-roberta", {}, "Ｆｕ​ x", "Fu x"),
        ("albert", {}, "``ÅNG''", '"ang"'),
        ("deberta-v2", {"do_lower_case": True}, "THE  \nDOG ", "the dog"),
        ("mpnet", {}, "THE   <mask>", "the<mask>"),
        ("modernbert", {}, "e\u0301", "é"),
    ],
    ids=str,
)
def test_these_texts_are_the_same_to_it(
    name: str, options: dict[str, Any], text: str, other: str, tmp_path: Path
) -> None:
    ours = read_tokenizer(write(tmp_path, ROWS[name], **options))
    assert ours(text) == ours(other)


def test_a_mask_of_roberta_takes_the_blank_before_it_only_where_a_file_says_so(root: Path) -> None:
    """Without tokenizer.json transformers 4 always did so; version 5 does it where the map says "lstrip"."""
    plain, _ = sides("roberta, vocab.json and merges.txt", root)
    mapped, _ = sides("roberta, with a map of special tokens", root)
    assert plain("the <mask>") != plain("the<mask>")
    assert mapped("the <mask>") == mapped("the<mask>")


@pytest.mark.parametrize("old", ["merges as text", "no type", "an older Metaspace"])
@pytest.mark.parametrize("name", ["roberta", "xlm-roberta", "camembert", "albert", "deberta-v2"])
def test_an_older_tokenizer_json_is_read(name: str, old: str, tmp_path: Path) -> None:
    path = write(tmp_path, ROWS[name]) / "tokenizer.json"
    saved = json.loads(path.read_text())
    if old == "merges as text" and "merges" in saved["model"]:
        saved["model"]["merges"] = [" ".join(merge) for merge in saved["model"]["merges"]]
    if old == "no type":
        del saved["model"]["type"]
    for part in saved["pre_tokenizer"].get("pretokenizers", []) if old == "an older Metaspace" else []:
        if part["type"] == "Metaspace":
            part |= {"str_rep": part["replacement"], "add_prefix_space": True}
            del part["prepend_scheme"], part["split"]
    path.write_text(json.dumps(saved))
    assert_same_folder(tmp_path)


def test_albert_keeps_the_template_of_its_file_and_has_one_of_its_own(tmp_path: Path) -> None:
    options = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    path = write(tmp_path, ALBERT, **options) / "tokenizer.json"
    saved = json.loads(path.read_text())
    saved["post_processor"]["pair"][3]["Sequence"]["type_id"] = 0
    path.write_text(json.dumps(saved))
    ours, _ = assert_same_folder(tmp_path)
    assert ours("a", "b")[0].token_type_ids.count(1) == 1
    path.write_text(json.dumps(saved | {"post_processor": None}))
    ours, _ = assert_same_folder(tmp_path)
    assert ours("a", "b")[0].token_type_ids.count(1) > 1


@pytest.mark.parametrize("name", ["roberta", "xlm-roberta", "deberta-v2", "mpnet"])
def test_the_others_write_their_own_template(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, ROWS[name]) / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"post_processor": None}))
    ours, _ = assert_same_folder(tmp_path)
    assert ours.num_special_tokens(pair=True) == (3 if name == "deberta-v2" else 4)


def test_padding_in_the_file_names_the_token_of_a_class_without_family(tmp_path: Path) -> None:
    path = write(tmp_path, replace(ROBERTA, config={"tokenizer_class": "TokenizersBackend"})) / "tokenizer.json"
    padding = {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None}
    padding |= {"pad_id": 1, "pad_type_id": 0, "pad_token": "<pad>"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"padding": padding}))
    ours, theirs = assert_same_folder(tmp_path)
    assert ours.pad_token_id == theirs.pad_token_id == 1


def test_special_tokens_of_camembert_that_its_vocabulary_lacks_get_ids_where_the_model_has_rows(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, CAMEMBERT) / "tokenizer.json"
    path.write_text(path.read_text().replace("NOTUSED", "gone"))
    theirs = AutoTokenizer.from_pretrained(str(tmp_path))
    size = len(json.loads(path.read_text())["model"]["vocab"])
    assert max(theirs.get_vocab().values()) == size + 2
    for rows in (size, size + 2, size + 3):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "camembert", "vocab_size": rows}))
        ours = read_tokenizer(tmp_path)
        assert max(ours.backend.get_vocab().values()) == rows - 1 and len(ours.notes) == rows - size
    assert_same(ours, theirs, TEXTS)


# What is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["xlm-roberta", "camembert", "albert", "deberta-v2"])
def test_sentencepiece_alone_is_refused_with_the_way_out(name: str, tmp_path: Path) -> None:
    row = ROWS[name]
    folder = write(tmp_path, replace(row, without_json=True))
    (file,) = row.beside
    assert (folder / file).is_file()
    with pytest.raises(MinitrainError, match=r"needs tokenizer\.json there") as error:
        read_tokenizer(folder)
    message = str(error.value)
    assert str(folder) in message and f"{file} is not read" in message
    assert "AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)" in message


@pytest.mark.parametrize("missing", ["vocab.json", "merges.txt"])
def test_half_a_vocabulary_is_refused(missing: str, tmp_path: Path) -> None:
    folder = write(tmp_path, replace(ROBERTA, without_json=True))
    read_tokenizer(folder)
    (folder / missing).unlink()
    with pytest.raises(MinitrainError, match=r"needs tokenizer\.json or vocab\.json and merges\.txt there"):
        read_tokenizer(folder)


@pytest.mark.parametrize("broken", ["vocab.json", "merges.txt"])
def test_a_broken_vocabulary_is_named(broken: str, tmp_path: Path) -> None:
    folder = write(tmp_path, replace(ROBERTA, without_json=True))
    (folder / broken).write_text("<!DOCTYPE html><html></html>\n")
    with pytest.raises(MinitrainError, match="no RobertaTokenizer can be made of it and the files beside it") as e:
        read_tokenizer(folder)
    assert str(folder / "vocab.json") in str(e.value)


@pytest.mark.parametrize("name", ["roberta", "roberta, vocab.json and merges.txt"])
def test_two_tokens_with_one_id_are_refused(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, ROWS[name]) / ("vocab.json" if ROWS[name].without_json else "tokenizer.json")
    whole = json.loads(path.read_text())
    whole.get("model", {"vocab": whole})["vocab"]["Ġ"] = 5
    path.write_text(json.dumps(whole))
    with pytest.raises(MinitrainError, match="two tokens of the vocabulary have the same id"):
        read_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["bert", "roberta", "xlm-roberta", "mpnet", "albert", "deberta-v2", "camembert"])
def test_another_kind_of_model_is_refused(name: str, tmp_path: Path) -> None:
    other = modernbert if name in ("xlm-roberta", "bert", "mpnet") else bert
    with pytest.raises(MinitrainError, match="its model is (BPE|WordPiece), expected"):
        read_tokenizer(write(tmp_path, replace(ROWS[name], backend=other, beside={})))


def test_deberta_without_its_unknown_token_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, DEBERTA, unk_token="▁dog")
    theirs = json.loads(AutoTokenizer.from_pretrained(str(folder)).backend_tokenizer.to_str())
    assert theirs["model"]["vocab"][theirs["model"]["unk_id"]][0] == "[CLS]"
    with pytest.raises(MinitrainError, match="'▁dog' is not in the vocabulary with a score of 0"):
        read_tokenizer(folder)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("roberta", "add_prefix_space", "yes"),
        ("albert", "keep_accents", 2),
        ("deberta-v2", "split_by_punct", None),
        ("xlm-roberta", "add_prefix_space", []),
        ("camembert", "mask_token", 3),
    ],
)
def test_a_wrong_setting_is_named(name: str, key: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(MinitrainError) as error:
        read_tokenizer(write(tmp_path, ROWS[name], **{key: value}))
    assert str(tmp_path) in str(error.value) and repr(value) in str(error.value)


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 2**40),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.sampled_from([[], {}, [[]], [["a", 0.0]], {"a": 0}, {"content": "<s>"}, "<s>", "[CLS]"]),
)


@pytest.mark.parametrize(
    "name",
    [
        "roberta",
        "roberta, vocab.json and merges.txt",
        "xlm-roberta",
        "camembert",
        "albert",
        "deberta-v2",
        "modernbert",
    ],
)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_change_to_the_json_files_loads_and_saves_or_is_named(
    name: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = write(tmp_path_factory.mktemp("changed"), ROWS[name])
    path = folder / data.draw(st.sampled_from(sorted(file.name for file in folder.glob("*.json"))))
    whole = place = json.loads(path.read_text())
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(values)
    path.write_text(json.dumps(whole))
    try:
        ours = read_tokenizer(folder)
        ours(TEXTS, TEXTS[::-1])
        ours.save(folder / "saved")
    except MinitrainError as error:
        assert str(folder) in str(error) or "--max_length" in str(error)
    else:
        assert read_tokenizer(folder / "saved").settings == ours.settings


def test_the_hub_is_asked_for_every_file_that_is_read_and_for_nothing_that_runs() -> None:
    read = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}
    assert read | {"vocab.txt", "vocab.json", "merges.txt"} <= set(MODEL_FILES)
    assert {Path(name).suffix for name in MODEL_FILES} == {".json", ".txt", ".safetensors"}
