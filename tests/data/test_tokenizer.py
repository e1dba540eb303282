"""Token ids and type ids, against the live `transformers.AutoTokenizer` on the same folder."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, trainers
from transformers import AutoTokenizer, BertTokenizer

from minitrain.data.load import length_limit
from minitrain.data.tokenizer.tokenizer import Example, Tokenizer, load_tokenizer, read_tokenizer
from minitrain.errors import MinitrainError

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CORPUS = [
    "The quick brown fox jumps over the lazy dog; the dog does not care.",
    "Der schnelle braune Fuchs springt über den faulen Hund, naïve café.",
    "A fox is not a dog, and THE DOG IS NOT A FOX. 中文 字 12 345",
]
# Each text is there for what it does to a tokenizer.
TEXTS = [
    "Hello World, it's a dog.",
    "",
    " \t\n ",
    "naïve café ÅNGSTRÖM ǆ İstanbul ß",
    "e\u0301\u0323 combining, \u0307 alone",
    "nul \x00 inside, \x07 bell, \x1f unit, \u200b zero width, \ufeff mark",
    "\u202eright to left\u202c שלום עליכם مرحبا بالعالم",
    "中文字符 and 日本語 カタカナ 한국어 𠀀",
    "😀 👩\u200d👩\u200d👧 🏳️\u200d🌈 e\ufe0f",
    "[CLS] [SEP] in the text [MASK] [UNK][PAD] [cls]",
    "\ufffd \ufffe \U0010ffff private \ue000",
]
LONG_TEXTS = ["a" * 200_000, "中" * 600, "word " * 600]


@pytest.fixture(scope="module")
def demo(demo_model: Path) -> tuple[Tokenizer, Any]:
    return read_tokenizer(demo_model), AutoTokenizer.from_pretrained(str(demo_model))


@pytest.fixture(scope="module")
def vocabulary() -> dict[str, int]:
    """Tokens -> ids, trained on the corpus in both cases."""
    backend = Backend(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=250, special_tokens=SPECIAL, show_progress=False)
    backend.train_from_iterator(CORPUS + [text.lower() for text in CORPUS], trainer)
    return backend.get_vocab()


def write_folder(folder: Path, vocabulary: dict[str, int] | None = None, **files: Any) -> Path:
    """A folder with vocab.txt (unless None) and JSON files; config.json is what AutoTokenizer asks for."""
    folder.mkdir(exist_ok=True)
    if vocabulary is not None:
        lines = sorted(vocabulary, key=vocabulary.__getitem__)
        (folder / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, content in ({"config": {"model_type": "bert"}} | files).items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def tokenizer_json(vocabulary: dict[str, int], added: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """What the reference saves for this vocabulary."""
    content: dict[str, Any] = json.loads(BertTokenizer(vocab=vocabulary).backend_tokenizer.to_str())
    content["added_tokens"] += added or []
    return content


def added_token(content: str, **options: bool) -> dict[str, Any]:
    flags = {"special": False, "single_word": False, "lstrip": False, "rstrip": False, "normalized": True}
    return {"content": content} | flags | options


def assert_same(
    ours: Tokenizer, theirs: Any, texts: list[str], pairs: list[str] | None = None, max_length: int | None = None
) -> None:
    expected = theirs(texts, pairs, truncation=max_length is not None, max_length=max_length)
    examples = ours(texts, pairs, 10_000_000 if max_length is None else max_length)
    assert [example.input_ids for example in examples] == expected["input_ids"]
    # A class without type ids gives none, and the model then takes zeros.
    zeros = [[0] * len(ids) for ids in expected["input_ids"]]
    assert [example.token_type_ids for example in examples] == expected.get("token_type_ids", zeros)


def assert_same_folder(folder: Path) -> tuple[Tokenizer, Any]:
    """Ours and the reference agree on the folder, and on what ours saves of it."""
    ours, theirs = read_tokenizer(folder), AutoTokenizer.from_pretrained(str(folder))
    ours.save(folder / "saved")
    shutil.copy(folder / "config.json", folder / "saved")
    again = AutoTokenizer.from_pretrained(str(folder / "saved"))
    texts = [*TEXTS, LONG_TEXTS[0][:101], LONG_TEXTS[0][:300], "The [NEW]fox [new] fox yy", *CORPUS]
    for reader, reference in (ours, theirs), (read_tokenizer(folder / "saved"), again), (ours, again):
        assert_same(reader, reference, texts)
        assert_same(reader, reference, texts, texts[::-1])
        assert_same(reader, reference, texts, texts[::-1], max_length=9)
    assert max(ours.backend.get_vocab().values()) == max(theirs.get_vocab().values())
    return ours, theirs


# Ids ------------------------------------------------------------------------------------------------------------


def test_single_texts_give_the_ids_of_the_reference(demo: tuple[Tokenizer, Any]) -> None:
    assert_same(*demo, TEXTS + LONG_TEXTS)


def test_pairs_give_the_ids_of_the_reference(demo: tuple[Tokenizer, Any]) -> None:
    assert_same(*demo, [a for a in TEXTS for _ in TEXTS], [b for _ in TEXTS for b in TEXTS])
    assert_same(*demo, LONG_TEXTS, LONG_TEXTS[::-1])


@pytest.mark.fault(52)
@pytest.mark.parametrize("max_length", [*range(4, 20), 127, 128, 129])
def test_truncation_gives_the_ids_of_the_reference(demo: tuple[Tokenizer, Any], max_length: int) -> None:
    texts = [" ".join(["dog"] * count) for count in (0, 1, 2, 5, 6, 9, 20, 70)] + TEXTS[:2]
    assert_same(*demo, texts + TEXTS + LONG_TEXTS, max_length=max_length)
    assert_same(*demo, [a for a in texts for _ in texts], [b for _ in texts for b in texts], max_length)


@pytest.mark.parametrize("max_length", [128, 511, 512, 513, 5000])
def test_truncation_of_long_pairs_gives_the_ids_of_the_reference(
    demo: tuple[Tokenizer, Any], max_length: int
) -> None:
    assert_same(*demo, LONG_TEXTS * 2, [*LONG_TEXTS, "dog", *LONG_TEXTS[:2]], max_length)


def test_a_text_of_three_tokens_fits_the_smallest_max_length(demo: tuple[Tokenizer, Any]) -> None:
    assert_same(*demo, TEXTS, max_length=3)


pieces = st.one_of(st.text(max_size=40), st.sampled_from([*TEXTS, *SPECIAL, " ", "the", "Fuchs", "\u0301"]))
fuzz = st.lists(pieces, max_size=6).map("".join)


@pytest.mark.fault(52)
@settings(max_examples=300, deadline=None)
@given(rows=st.lists(st.tuples(fuzz, fuzz), min_size=1, max_size=4), max_length=st.integers(4, 40))
def test_any_unicode_text_gives_the_ids_of_the_reference(
    demo: tuple[Tokenizer, Any], rows: list[tuple[str, str]], max_length: int
) -> None:
    texts, pairs = [row[0] for row in rows], [row[1] for row in rows]
    assert_same(*demo, texts, pairs)
    assert_same(*demo, texts, pairs, max_length)
    assert_same(*demo, texts, None, max_length)


def test_without_max_length_the_tokenizers_own_is_used(demo: tuple[Tokenizer, Any]) -> None:
    ours, theirs = demo
    assert ours.max_length == theirs.model_max_length == 512
    (example,) = ours("dog " * 600)
    assert example.input_ids == theirs("dog " * 600, truncation=True)["input_ids"]


def test_one_call_does_not_change_the_next(demo: tuple[Tokenizer, Any]) -> None:
    ours, _ = demo
    before = ours("dog " * 40)
    assert len(ours("dog " * 40, max_length=5)[0].input_ids) == 5
    assert ours("dog " * 40) == before


def test_strings_are_taken_as_lists_of_one(demo: tuple[Tokenizer, Any]) -> None:
    ours, _ = demo
    assert ours("a dog") == ours(["a dog"])
    assert ours("a dog", "a fox") == ours(["a dog"], ["a fox"])
    assert ours.tokens(ours("a dog", "foxes")[0].input_ids) == ["[CLS]", "a", "dog", "[SEP]", "foxes", "[SEP]"]
    assert ours("a dog", "foxes")[0].token_type_ids == [0, 0, 0, 0, 1, 1]


def test_no_rows_give_no_examples(demo: tuple[Tokenizer, Any]) -> None:
    assert demo[0].encode([]).examples == demo[0].encode([], []).examples == []


def test_facts_about_the_vocabulary_are_those_of_the_reference(demo: tuple[Tokenizer, Any]) -> None:
    ours, theirs = demo
    assert ours.pad_token_id == theirs.pad_token_id == 0
    assert max(ours.backend.get_vocab().values()) == len(theirs) - 1
    for pair in (False, True):
        assert ours.num_special_tokens(pair) == theirs.num_special_tokens_to_add(pair)


def test_demo_is_a_name(demo: tuple[Tokenizer, Any], demo_model: Path) -> None:
    for name in ("demo", str(demo_model), demo_model):
        assert load_tokenizer(name)(CORPUS) == demo[0](CORPUS)


# Counts ---------------------------------------------------------------------------------------------------------


@pytest.mark.fault(48)
def test_truncated_rows_are_counted(demo: tuple[Tokenizer, Any]) -> None:
    ours, _ = demo
    texts = ["dog"] * 3 + ["dog dog"] + ["dog dog dog", "dog " * 30]
    assert [ours.encode(texts, max_length=length).truncated for length in (3, 4, 5, 6, 32)] == [3, 2, 1, 1, 0]
    assert ours.encode(["dog dog", "", "dog"], ["dog", "dog dog dog", ""], max_length=5).truncated == 2


@pytest.mark.fault(50)
def test_blank_rows_are_counted_and_hold_special_tokens_only(demo: tuple[Tokenizer, Any]) -> None:
    ours, _ = demo
    encoded = ours.encode(["", "dog", " \t\n", "\u3000", "\x00", "a"])
    assert encoded.blank == 4
    assert [len(example.input_ids) for example in encoded.examples] == [2, 3, 2, 2, 2, 3]
    assert encoded.examples[0] == Example([101, 102], [0, 0])


def test_a_pair_with_one_blank_text_is_counted(demo: tuple[Tokenizer, Any]) -> None:
    assert demo[0].encode(["", "dog", "dog", " "], ["dog", " ", "fox", ""]).blank == 3


# Folders --------------------------------------------------------------------------------------------------------


def test_truncation_and_padding_kept_in_tokenizer_json_are_reset(demo_model: Path, tmp_path: Path) -> None:
    kept = json.loads((demo_model / "tokenizer.json").read_text())
    assert kept["truncation"]["max_length"] == 128 and kept["padding"]["strategy"] == {"Fixed": 128}
    ours = read_tokenizer(demo_model)
    assert [len(example.input_ids) for example in ours(["dog", "dog " * 300])] == [3, 302]
    ours("dog " * 40, max_length=7)
    ours.save(tmp_path)
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    assert saved["truncation"] is None and saved["padding"] is None


@pytest.mark.parametrize("strategy", ["LongestFirst", "OnlySecond"])
def test_a_class_without_family_has_its_truncation_and_padding_reset_too(
    vocabulary: dict[str, int], tmp_path: Path, strategy: str
) -> None:
    saved = tokenizer_json(vocabulary)
    saved["truncation"] = {"max_length": 4, "stride": 0, "strategy": strategy}
    padding = {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None}
    saved["padding"] = padding | {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    ours = read_tokenizer(write_folder(tmp_path, tokenizer=saved, tokenizer_config=config))
    assert [len(example.input_ids) for example in ours(["dog", "dog " * 300])] == [3, 302]


def test_what_is_saved_is_the_same_tokenizer(demo: tuple[Tokenizer, Any], demo_model: Path, tmp_path: Path) -> None:
    ours, theirs = demo
    ours.save(tmp_path / "new" / "folder")
    shutil.copy(demo_model / "config.json", tmp_path / "new" / "folder")
    again = AutoTokenizer.from_pretrained(str(tmp_path / "new" / "folder"))
    assert (tmp_path / "new" / "folder" / "vocab.txt").read_bytes() == (demo_model / "vocab.txt").read_bytes()
    assert type(again) is type(theirs)
    assert again.get_vocab() == theirs.get_vocab()
    assert again.special_tokens_map == theirs.special_tokens_map
    assert again.model_max_length == theirs.model_max_length
    assert_same(ours, again, TEXTS, TEXTS[::-1], max_length=20)
    assert read_tokenizer(tmp_path / "new" / "folder").settings == ours.settings
    (tmp_path / "new" / "folder" / "tokenizer.json").unlink()
    assert_same(read_tokenizer(tmp_path / "new" / "folder"), theirs, TEXTS, TEXTS[::-1])


@pytest.mark.parametrize("options", [{}, {"do_lower_case": False}, {"do_lower_case": False, "strip_accents": True}])
def test_what_the_reference_saves_is_read(
    vocabulary: dict[str, int], tmp_path: Path, options: dict[str, Any]
) -> None:
    BertTokenizer(vocab=vocabulary, model_max_length=64, **options).save_pretrained(tmp_path)
    ours, _ = assert_same_folder(write_folder(tmp_path))
    assert ours.max_length == 64


@pytest.mark.parametrize("options", [None, {}, {"do_lower_case": False}, {"do_lower_case": True}])
def test_vocab_txt_alone_is_enough(
    vocabulary: dict[str, int], tmp_path: Path, options: dict[str, Any] | None
) -> None:
    folder = write_folder(tmp_path, vocabulary, **({} if options is None else {"tokenizer_config": options}))
    assert not (folder / "tokenizer.json").exists()
    ours, _ = assert_same_folder(folder)
    keeps_case = options == {"do_lower_case": False}
    assert (ours("THE DOG") != ours("the dog")) == keeps_case


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_lower_case": False},
        {"do_lower_case": False, "tokenizer_class": "BertTokenizerFast"},
        {"do_lower_case": False, "tokenizer_class": "DistilBertTokenizer"},
        {"do_lower_case": False, "tokenizer_class": "ElectraTokenizerFast"},
        {"do_lower_case": False, "tokenizer_class": "MobileBertTokenizer"},
        {"do_lower_case": False, "tokenizer_class": "SqueezeBertTokenizer"},
        {"do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast"},
        {"do_lower_case": False, "tokenizer_class": "TokenizersBackend"},
        {"do_lower_case": False, "tokenizer_class": "NobodyKnowsTokenizer"},
        {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "token_type_ids"]},
        {"model_input_names": ["input_ids", "attention_mask"]},
        {"strip_accents": False},
        {"do_lower_case": False, "strip_accents": True},
        {"tokenize_chinese_chars": False},
        {"truncation_side": "left"},
        {"split_special_tokens": True},
        {"cls_token": "the", "sep_token": {"__type": "AddedToken", **added_token("dog")}},
        {"unk_token": "fox", "pad_token": "dog"},
        {"additional_special_tokens": ["[NEW]"]},
        {"extra_special_tokens": ["[NEW]", "[new]"]},
        {"added_tokens_decoder": {"7000": added_token("yy"), "6000": added_token("[NEW]", special=True)}},
        {"added_tokens_decoder": {"6000": added_token("[NEW]")}, "cls_token": "[NEW]"},
        {
            "added_tokens_decoder": {"6000": added_token("[NEW]")},
            "cls_token": "[NEW]",
            "split_special_tokens": True,
        },
        {"pad_token": None, "unknown_key": [1], "name_or_path": "/elsewhere"},
    ],
    ids=str,
)
def test_tokenizer_config_decides_as_in_the_reference(
    vocabulary: dict[str, int], tmp_path: Path, options: dict[str, Any]
) -> None:
    saved = tokenizer_json(vocabulary)
    assert saved["normalizer"]["lowercase"] and saved["model"]["max_input_chars_per_word"] == 100
    assert_same_folder(write_folder(tmp_path, vocabulary, tokenizer=saved, tokenizer_config=options))


def test_a_tokenizer_json_that_keeps_the_case_is_lower_cased_as_in_the_reference(
    vocabulary: dict[str, int], tmp_path: Path
) -> None:
    saved = tokenizer_json(vocabulary)
    saved["normalizer"]["lowercase"] = False
    saved["model"]["max_input_chars_per_word"] = 500
    saved["post_processor"]["pair"][3]["Sequence"]["type_id"] = 0
    folder = write_folder(tmp_path, tokenizer=saved)
    assert Backend.from_file(str(folder / "tokenizer.json")).encode("THE").ids != read_tokenizer(folder)("THE")
    ours, _ = assert_same_folder(folder)
    assert ours("THE DOG") == ours("the dog")


@pytest.mark.parametrize("tokenizer_class", ["BertTokenizer", "PreTrainedTokenizerFast"])
def test_added_tokens_of_tokenizer_json_are_kept(
    vocabulary: dict[str, int], tmp_path: Path, tokenizer_class: str
) -> None:
    size = len(vocabulary)
    added = [
        added_token("[NEW]", special=True, normalized=False) | {"id": size},
        added_token("yy") | {"id": size + 1},
    ]
    saved = tokenizer_json(vocabulary, added)
    config = {"tokenizer_class": tokenizer_class}
    ours, _ = assert_same_folder(write_folder(tmp_path, tokenizer=saved, tokenizer_config=config))
    assert size in ours("a [NEW]")[0].input_ids and size + 1 in ours("yy")[0].input_ids
    assert max(ours.backend.get_vocab().values()) == size + 1


@pytest.mark.parametrize(
    "older",
    [
        {"additional_special_tokens": ["[NEW]"]},
        {"cls_token": "the", "sep_token": added_token("dog")},
        {
            "pad_token": {
                "content": "fox",
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "single_word": False,
            }
        },
    ],
    ids=str,
)
@pytest.mark.parametrize("config", [{}, {"cls_token": "a"}, {"added_tokens_decoder": {}}], ids=str)
def test_special_tokens_map_counts_as_in_the_reference(
    vocabulary: dict[str, int], tmp_path: Path, older: dict[str, Any], config: dict[str, Any]
) -> None:
    folder = write_folder(tmp_path, vocabulary, special_tokens_map=older, tokenizer_config=config)
    ours, theirs = assert_same_folder(folder)
    assert ours.pad_token_id == theirs.pad_token_id


def test_added_tokens_json_is_read(vocabulary: dict[str, int], tmp_path: Path) -> None:
    # The ids that it names are not what counts, only their order: the tokens follow the vocabulary.
    added = {"yy": 9000, "[NEW]": 8000}
    ours, _ = assert_same_folder(write_folder(tmp_path, vocabulary, added_tokens=added))
    assert max(ours.backend.get_vocab().values()) == len(vocabulary) + 1


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("the\n", "the  \n\n"),
        lambda text: text + "the\nfox\n",
        lambda text: text.rstrip("\n"),
        lambda text: text + "x\u3000\n\u3000\n",
    ],
    ids=["line ends of Windows", "blanks and an empty line", "twice the same", "no last line end", "wide blanks"],
)
def test_odd_lines_of_vocab_txt_are_read_as_in_the_reference(
    vocabulary: dict[str, int], tmp_path: Path, change: Any
) -> None:
    folder = write_folder(tmp_path, vocabulary)
    before = (folder / "vocab.txt").read_bytes()
    (folder / "vocab.txt").write_bytes(change(before.decode()).encode())
    assert (folder / "vocab.txt").read_bytes() != before
    assert_same_folder(folder)


def test_ids_with_gaps_are_not_saved_as_lines(vocabulary: dict[str, int], tmp_path: Path) -> None:
    folder = write_folder(tmp_path, vocabulary)
    with (folder / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("the\n")  # the later of two equal lines counts, the id of the earlier is nobody's
    ours, _ = assert_same_folder(folder)
    assert max(ours.backend.get_vocab().values()) == len(vocabulary)
    assert not (folder / "saved" / "vocab.txt").exists()


def test_tokens_that_end_in_a_blank_are_not_saved_as_lines(vocabulary: dict[str, int], tmp_path: Path) -> None:
    saved = tokenizer_json(vocabulary | {"wide\u3000": len(vocabulary)})
    assert_same_folder(write_folder(tmp_path, tokenizer=saved))
    assert not (tmp_path / "saved" / "vocab.txt").exists()


def test_a_missing_mask_token_gets_an_id_where_the_model_has_a_row_for_it(
    vocabulary: dict[str, int], tmp_path: Path
) -> None:
    tokens = [token for token in vocabulary if token != "[MASK]"]
    folder = write_folder(tmp_path, {token: index for index, token in enumerate(tokens)})
    theirs = AutoTokenizer.from_pretrained(str(folder))
    assert theirs("[MASK]")["input_ids"][1] == len(tokens)
    for rows, highest in ((len(tokens), len(tokens) - 1), (len(tokens) + 1, len(tokens)), (None, len(tokens))):
        write_folder(tmp_path, config={"model_type": "bert", "vocab_size": rows})
        ours = read_tokenizer(folder)
        assert max(ours.backend.get_vocab().values()) == highest
        assert (ours("[MASK]")[0].input_ids == theirs("[MASK]")["input_ids"]) == (highest == len(tokens))
        assert ours("a dog")[0].input_ids == theirs("a dog")["input_ids"]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_max_length": None},
        {"model_max_length": 1e30},
        {"model_max_length": int(1e30)},
        {"max_len": 1e30},
    ],
    ids=str,
)
def test_without_a_length_nothing_is_cut_and_the_model_says_what_it_takes(
    vocabulary: dict[str, int], tmp_path: Path, config: dict[str, Any]
) -> None:
    ours, theirs = assert_same_folder(write_folder(tmp_path, vocabulary, tokenizer_config=config))
    assert ours.max_length is None and theirs.model_max_length >= 1e30
    assert len(ours("dog " * 700)[0].input_ids) == len(theirs("dog " * 700, truncation=True)["input_ids"]) == 702
    assert [length_limit(None, ours, positions) for positions in (512, 8192)] == [512, 8192]
    assert length_limit(100, ours, 512) == 100
    assert read_tokenizer(tmp_path / "saved").max_length is None


def test_of_two_limits_the_lower_counts(vocabulary: dict[str, int], tmp_path: Path) -> None:
    ours = read_tokenizer(write_folder(tmp_path, vocabulary, tokenizer_config={"model_max_length": 128}))
    assert [length_limit(None, ours, positions) for positions in (64, 512)] == [64, 128]


@pytest.mark.parametrize("tokenizer_class", ["BertTokenizer", "PreTrainedTokenizerFast"])
@pytest.mark.parametrize("config", [{}, {"truncation_side": "right"}], ids=str)
def test_the_side_of_a_saved_truncation_counts_as_in_the_reference(
    vocabulary: dict[str, int], tmp_path: Path, tokenizer_class: str, config: dict[str, str]
) -> None:
    saved = tokenizer_json(vocabulary)
    truncation = {"max_length": 4, "stride": 0, "strategy": "LongestFirst", "direction": "Left"}
    config = {"tokenizer_class": tokenizer_class, **config}
    folder = write_folder(tmp_path, tokenizer=saved | {"truncation": truncation}, tokenizer_config=config)
    ours, theirs = assert_same_folder(folder)
    side = config.get("truncation_side", "left")
    assert ours.settings["truncation_side"] == theirs.truncation_side == side


@pytest.mark.parametrize("config", [{"model_max_length": 77}, {"max_len": 77}])
def test_a_set_length_is_kept(vocabulary: dict[str, int], tmp_path: Path, config: dict[str, int]) -> None:
    ours, theirs = assert_same_folder(write_folder(tmp_path, vocabulary, tokenizer_config=config))
    assert ours.max_length == theirs.model_max_length == 77


@pytest.mark.fault(45)
def test_code_in_the_folder_is_never_run(vocabulary: dict[str, int], tmp_path: Path) -> None:
    config = {"auto_map": {"AutoTokenizer": ["custom.Custom", "custom.Custom"]}, "tokenizer_class": "Custom"}
    saved = tokenizer_json(vocabulary)
    folder = write_folder(tmp_path, tokenizer=saved, tokenizer_config=config)
    canary = tmp_path / "canary"
    (folder / "custom.py").write_text(f"import os; os.mkdir({str(canary)!r})\nclass Custom: pass\n")
    read_tokenizer(folder)("The fox")
    assert not canary.exists()
    exec((folder / "custom.py").read_text())  # the canary does sing
    assert canary.exists()


@pytest.mark.fault(30)
def test_importing_changes_no_environment_variable_and_the_fork_warning_is_absent(demo_model: Path) -> None:
    program = (
        "import os; before = dict(os.environ)\n"
        "from minitrain.data.tokenizer.tokenizer import read_tokenizer\n"
        f"read_tokenizer({str(demo_model)!r})(['The fox'] * 1000)\n"
        "assert dict(os.environ) == before\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "TOKENIZERS_PARALLELISM"}
    command = [sys.executable, "-W", "error", "-c", program]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


# Bad folders ----------------------------------------------------------------------------------------------------


def test_a_folder_without_tokenizer_is_named_with_the_files_looked_for(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(MinitrainError, match=r"tokenizer\.json or vocab\.txt") as error:
            read_tokenizer(folder)
        assert str(folder) in str(error.value)


def test_vocab_txt_is_not_taken_for_a_class_that_needs_more(vocabulary: dict[str, int], tmp_path: Path) -> None:
    config = {"model_type": "bert", "tokenizer_class": "BertJapaneseTokenizer"}  # it splits words with MeCab
    with pytest.raises(MinitrainError, match=r"BertJapaneseTokenizer needs tokenizer\.json there"):
        read_tokenizer(write_folder(tmp_path, vocabulary, config=config))


BROKEN = {
    "empty": b"",
    "one brace": b"{",
    "a list": b"[]",
    "a number": b"3",
    "no UTF-8": b"\xff\xfe",
    "a page": b"<!DOCTYPE html><html></html>",
    "an LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 466247\n",
    "deep": b'{"a":' * 100_000,
}


@pytest.mark.fault(46)
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("content", [*BROKEN.values(), None], ids=[*BROKEN, "a directory"])
def test_a_broken_file_is_named(
    vocabulary: dict[str, int], tmp_path: Path, name: str, content: bytes | None
) -> None:
    path = write_folder(tmp_path, vocabulary) / name
    read_tokenizer(tmp_path)  # it is the fault that fails
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(MinitrainError, match=name) as error:
        read_tokenizer(tmp_path)
    assert str(path) in str(error.value)


def test_a_tokenizer_json_cut_anywhere_is_named(vocabulary: dict[str, int], tmp_path: Path) -> None:
    path = write_folder(tmp_path, tokenizer=tokenizer_json(vocabulary)) / "tokenizer.json"
    whole = path.read_bytes()
    read_tokenizer(tmp_path)
    for size in range(0, len(whole) - 1, 97):
        path.write_bytes(whole[:size])
        with pytest.raises(MinitrainError) as error:
            read_tokenizer(tmp_path)
        assert str(path) in str(error.value)


@pytest.mark.parametrize("tokenizer_class", ["BertTokenizer", "PreTrainedTokenizerFast"])
@pytest.mark.parametrize(
    "change",
    [
        {"model": None},
        {"model": {"type": "WordPiece"}},
        {"model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": ["the"]}},
        {"model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"the": "1"}}},
        {"model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"the": -1}}},
        {"model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"[CLS]": 0, "[SEP]": 1, "[PAD]": 2}}},
        {"model": {"type": "WordLevel", "unk_token": 3, "vocab": {}}},
        {"added_tokens": [{"content": "the"}]},
        {"added_tokens": [{"id": 3, "content": None}]},
        {"added_tokens": 7},
    ],
    ids=str,
)
def test_wrong_values_in_tokenizer_json_are_named(
    vocabulary: dict[str, int], tmp_path: Path, tokenizer_class: str, change: dict[str, Any]
) -> None:
    saved = tokenizer_json(vocabulary) | change
    folder = write_folder(tmp_path, tokenizer=saved, tokenizer_config={"tokenizer_class": tokenizer_class})
    with pytest.raises(MinitrainError, match=f"no {tokenizer_class} can be made") as error:
        read_tokenizer(folder)
    assert str(folder / "tokenizer.json") in str(error.value)


def test_a_template_with_an_undefined_token_is_named(vocabulary: dict[str, int], tmp_path: Path) -> None:
    saved = tokenizer_json(vocabulary)
    del saved["post_processor"]["special_tokens"]["[SEP]"]
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    folder = write_folder(tmp_path, tokenizer=saved, tokenizer_config=config)
    with pytest.raises(BaseException, match="no entry found") as panic:
        Backend.from_file(str(folder / "tokenizer.json")).encode("a", "b")
    assert not isinstance(panic.value, Exception)  # a panic in Rust, which `except Exception` lets through
    with pytest.raises(MinitrainError) as error:
        read_tokenizer(folder)
    assert str(folder / "tokenizer.json") in str(error.value)


@pytest.mark.parametrize(
    ("post_processor", "complaint"),
    [
        ({"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 5000]}, "gives the ids [5000, "),
        (
            {
                "type": "TemplateProcessing",
                "single": [{"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 300}}],
                "special_tokens": {},
            },
            "300], expected ids up to",
        ),
        (
            {
                "type": "TemplateProcessing",
                "single": [{"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": text, "type_id": 0}} for text in "ABB"],
                "special_tokens": {},
            },
            "its template leaves a text out, or repeats it",
        ),
    ],
    ids=["an id that no token has", "a type that no model has", "a text twice"],
)
def test_a_template_that_no_model_can_follow_is_named(
    vocabulary: dict[str, int], tmp_path: Path, post_processor: dict[str, Any], complaint: str
) -> None:
    saved = tokenizer_json(vocabulary) | {"post_processor": post_processor}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "token_type_ids"]}
    folder = write_folder(tmp_path, tokenizer=saved, tokenizer_config=config)
    Backend.from_file(str(folder / "tokenizer.json"))  # the library takes it
    with pytest.raises(MinitrainError) as error:
        read_tokenizer(folder)
    assert str(folder / "tokenizer.json") in str(error.value) and complaint in str(error.value)


@pytest.mark.parametrize("tokenizer_class", ["BertTokenizer", "PreTrainedTokenizerFast"])
def test_an_id_of_two_tokens_is_named(vocabulary: dict[str, int], tmp_path: Path, tokenizer_class: str) -> None:
    """Only one of them, and not always the same, would be saved."""
    saved = tokenizer_json(vocabulary)
    saved["model"]["vocab"]["new"] = 9
    config = {"tokenizer_class": tokenizer_class}
    with pytest.raises(MinitrainError, match=r"tokenizer\.json: .*the id 9 stands for two tokens"):
        read_tokenizer(write_folder(tmp_path, tokenizer=saved, tokenizer_config=config))


def test_a_row_without_any_token_is_named_where_there_are_no_special_ones(
    vocabulary: dict[str, int], tmp_path: Path
) -> None:
    """A model makes NaN of it, or, where all rows of a batch are like that, an error that tells nothing."""
    saved = tokenizer_json(vocabulary) | {"post_processor": None}
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    ours = read_tokenizer(write_folder(tmp_path, tokenizer=saved, tokenizer_config=config))
    assert len(ours("dog")[0].input_ids) > 0
    with pytest.raises(MinitrainError, match=r"a\.csv, row 12: gives no token, .* leave blank rows out"):
        ours.encode(["dog", " "], where="a.csv", first_row=11)


def test_another_kind_of_model_is_refused(vocabulary: dict[str, int], tmp_path: Path) -> None:
    saved = tokenizer_json(vocabulary)
    saved["model"] = {"type": "BPE", "vocab": vocabulary, "merges": []}
    with pytest.raises(MinitrainError, match=r"its model is BPE, expected WordPiece"):
        read_tokenizer(write_folder(tmp_path, tokenizer=saved))


@pytest.mark.fault(46)
@pytest.mark.parametrize("token", ["[UNK]", "[SEP]", "[PAD]", "[CLS]"])
@pytest.mark.parametrize("file", ["vocab.txt", "tokenizer.json"])
def test_a_missing_special_token_is_named_with_the_file(
    vocabulary: dict[str, int], tmp_path: Path, token: str, file: str
) -> None:
    rest = {other: index for other, index in vocabulary.items() if other != token}
    if file == "vocab.txt":
        folder = write_folder(tmp_path, rest)
    else:
        saved = tokenizer_json(vocabulary)
        saved["model"]["vocab"] = rest
        saved["added_tokens"] = [added for added in saved["added_tokens"] if added["content"] != token]
        folder = write_folder(tmp_path, tokenizer=saved)
    with pytest.raises(MinitrainError, match="is not in the vocabulary") as error:
        read_tokenizer(folder)
    assert str(folder / file) in str(error.value) and repr(token) in str(error.value)


def test_a_vocab_txt_that_is_not_utf8_is_named(vocabulary: dict[str, int], tmp_path: Path) -> None:
    path = write_folder(tmp_path, vocabulary) / "vocab.txt"
    path.write_bytes(path.read_bytes() + "für\n".encode("latin-1"))
    with pytest.raises(MinitrainError, match="UTF-8") as error:
        read_tokenizer(tmp_path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("do_lower_case", "yes"),
        ("do_lower_case", None),
        ("strip_accents", 2),
        ("tokenize_chinese_chars", []),
        ("split_special_tokens", "no"),
        ("truncation_side", "middle"),
        ("model_input_names", 3),
        ("model_max_length", "512"),
        ("model_max_length", 0),
        ("model_max_length", True),
        ("tokenizer_class", 4),
        ("tokenizer_class", "a b"),
        ("cls_token", 5),
        ("sep_token", {"text": "[SEP]"}),
    ],
)
def test_a_wrong_setting_is_named(vocabulary: dict[str, int], tmp_path: Path, key: str, value: Any) -> None:
    read_tokenizer(write_folder(tmp_path, vocabulary, tokenizer_config={}))
    with pytest.raises(MinitrainError) as error:
        read_tokenizer(write_folder(tmp_path, vocabulary, tokenizer_config={key: value}))
    message = str(error.value)
    assert str(tmp_path) in message and repr(value) in message
    assert key in message or "a special token is" in message


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 2**40)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(SPECIAL),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["content", "id", "a"]), inner),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_any_change_to_the_json_files_loads_and_saves_or_is_named(
    vocabulary: dict[str, int], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("changed")
    decoder = {"0": added_token("[PAD]", special=True)}
    files: dict[str, Any] = {
        "tokenizer": tokenizer_json({token: index for index, token in enumerate([*SPECIAL, "the", "##m"])}),
        "tokenizer_config": {"tokenizer_class": "BertTokenizer", "cls_token": "[CLS]", "do_lower_case": True}
        | {"model_max_length": 512, "additional_special_tokens": ["[NEW]"], "model_input_names": ["input_ids"]}
        | data.draw(st.sampled_from([{}, {"added_tokens_decoder": decoder}]))
        | data.draw(st.sampled_from([{}, {"tokenizer_class": "PreTrainedTokenizerFast"}])),
        "special_tokens_map": {"sep_token": added_token("[SEP]")},
        "added_tokens": {"yy": 900},
    }
    place: Any = files
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if (
            not isinstance(place[key], dict | list)
            or not place[key]
            or (place is not files and data.draw(st.booleans()))
        ):
            break
        place = place[key]
    place[key] = data.draw(values)
    write_folder(folder, **files)
    try:
        ours = read_tokenizer(folder)
        ours(["them the [NEW]", ""], ["yy x", "the"])
        ours.save(folder / "saved")
    except MinitrainError as error:
        assert str(folder) in str(error) or "--max_length" in str(error)
    else:
        assert read_tokenizer(folder / "saved").settings == ours.settings


# Bad rows -------------------------------------------------------------------------------------------------------


@pytest.mark.fault(51)
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "NoneType"),
        (float("nan"), "float"),
        (3, "int"),
        (True, "bool"),
        (b"text", "bytes"),
        (("a", "b"), "tuple"),
        (["a", "b"], "list"),
        ("bad \ud800 text", "str"),
        ("\udfff", "str"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("column", [0, 1])
def test_what_is_no_text_is_named_with_file_row_and_column(
    demo: tuple[Tokenizer, Any], value: Any, kind: str, column: int
) -> None:
    columns: list[Any] = [["fine"] * 5, ["too"] * 5]
    columns[column][3] = value
    with pytest.raises(MinitrainError) as error:
        demo[0].encode(*columns, where="reviews.csv", columns=("title", "body"), first_row=2001)
    message = str(error.value)
    assert message.startswith(f"reviews.csv, row 2004, column {('title', 'body')[column]!r}: ")
    assert kind in message and ("convert the column" in message or "lone surrogate" in message)


def test_a_tuple_is_no_pair(demo: tuple[Tokenizer, Any]) -> None:
    rows: Any = [("a dog", "a fox")]
    demo[1].backend_tokenizer.no_padding()  # as the file has it, until a call says otherwise
    assert len(demo[1].backend_tokenizer.encode_batch(rows)[0].ids) == 7  # what the library makes of it
    with pytest.raises(MinitrainError, match=r"row 1, column 'texts': expected text, got tuple"):
        demo[0](rows)


def test_lists_of_unequal_length_are_refused(demo: tuple[Tokenizer, Any]) -> None:
    with pytest.raises(MinitrainError, match=r"reviews\.csv: 3 texts in 'title' but 2 in 'body'"):
        demo[0].encode(["a"] * 3, ["b"] * 2, where="reviews.csv", columns=("title", "body"))


@pytest.mark.parametrize(
    "rows", [("one", ["two"]), (["one"], "two"), (b"one",), (None,), (3,), ({"a": 1},)], ids=repr
)
def test_what_is_no_list_of_texts_is_refused(demo: tuple[Tokenizer, Any], rows: Any) -> None:
    with pytest.raises(MinitrainError, match="expected a list of texts, got (str|bytes|NoneType|int|dict)"):
        demo[0](*rows)


@pytest.mark.fault(49)
@pytest.mark.parametrize("max_length", [2, 1, 0, -1, True, 5.0, "128"])
def test_a_max_length_without_room_names_the_flag_and_the_smallest(
    demo: tuple[Tokenizer, Any], max_length: Any
) -> None:
    with pytest.raises(MinitrainError, match=rf"--max_length is {max_length!r}.*at least 3"):
        demo[0]("a dog", max_length=max_length)
    with pytest.raises(MinitrainError, match=rf"--max_length is {max_length!r}.*at least 4"):
        demo[0]("a dog", "a fox", max_length=max_length)


def test_the_smallest_max_length_of_a_pair_is_four(demo: tuple[Tokenizer, Any]) -> None:
    assert demo[0].encode(["a dog"], ["a fox"], 4).truncated == 1
    with pytest.raises(MinitrainError, match="at least 4"):
        demo[0].encode(["a dog"], ["a fox"], 3)
    # The library takes a length that is too small for no limit, and does not say so.
    assert len(demo[1]("a dog", "a fox", truncation=True, max_length=2)["input_ids"]) == 7


def test_a_folder_whose_length_leaves_no_room_is_refused_when_used(
    vocabulary: dict[str, int], tmp_path: Path
) -> None:
    ours = read_tokenizer(write_folder(tmp_path, vocabulary, tokenizer_config={"model_max_length": 2}))
    with pytest.raises(MinitrainError, match="at least 3"):
        ours("a dog")
