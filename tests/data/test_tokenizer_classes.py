"""The table of tokenizer classes in docs/families.md against `AutoTokenizer`, and what else is said of classes."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_tokenizer_families import (
    ALBERT,
    BERT,
    CAMEMBERT,
    DEBERTA,
    MODERNBERT,
    MPNET,
    ROBERTA,
    ROWS,
    TEXTS,
    XLM_ROBERTA,
    Row,
    assert_same_folder,
    modernbert,
    write,
)
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name
from transformers.tokenization_utils_tokenizers import TokenizersBackend

from minitrain.data.tokenizer.classes import IN_PYTHON, PADS_LEFT, REBUILT_ELSEWHERE
from minitrain.data.tokenizer.families import FAMILIES
from minitrain.data.tokenizer.tokenizer import read_tokenizer
from minitrain.errors import MinitrainError

DOCS = (Path(__file__).parents[2] / "docs/families.md").read_text(encoding="utf-8").split("\n## Tokenizers\n")[1]
ROBERTA_NAMES = {
    **{"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"},
    **{"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"},
}
BERT_NAMES = {role: f"[{role[:-6].upper()}]" for role in ("unk_token", "sep_token", "pad_token", "cls_token")}


def herbert() -> Backend:
    """As HerBERT's tokenizer.json is: pairs of characters, the end of a word marked."""
    backend = Backend(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, end_of_word_suffix="</w>", show_progress=False
    )
    backend.train_from_iterator(TEXTS * 2, trainer)
    backend.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 0))
    return backend


# The folder that each row of the table is tried on.
FOLDERS: dict[str, Row] = {
    "BERT's word pieces": BERT,
    "the same without type ids": BERT,
    "the same with `<cls>` and `<sep>`, without type ids": replace(BERT, config=BERT_NAMES),
    "the same with RoBERTa's template": MPNET,
    "pairs of bytes": ROBERTA,
    "the same with `[CLS]` and `[SEP]`": replace(ROBERTA, config=ROBERTA_NAMES),
    "pairs of characters": replace(ROBERTA, backend=herbert, config={}),
    "XLMRobertaTokenizer": XLM_ROBERTA,
    "CamembertTokenizer": CAMEMBERT,
    "AlbertTokenizer": ALBERT,
    "DebertaV2Tokenizer": DEBERTA,
}


def table() -> Iterator[tuple[list[str], str, list[str]]]:
    """The rows: names of classes, what they are, and the files that each is read from."""
    for line in DOCS.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[3] == "identical":
            yield re.findall(r"`(\w+)`", cells[0]), cells[1], cells[2].split(", ")


ANEW = [(name, what, files) for names, what, files in table() for name in names if name in FAMILIES]
AS_IT_IS = next(names for names, what, _ in table() if what.startswith("whatever") and names)


def test_the_table_has_every_class_that_is_built_anew() -> None:
    assert sorted(name for name, _, _ in ANEW) == sorted(FAMILIES)


@pytest.mark.parametrize("fast", ["", "Fast"])
@pytest.mark.parametrize(("name", "what", "files"), ANEW, ids=[name for name, _, _ in ANEW])
def test_a_class_of_the_table_has_the_ids_of_the_reference(
    name: str, what: str, files: list[str], fast: str, tmp_path: Path
) -> None:
    """From each kind of files, for texts and pairs, cut and not, and again from what is saved."""
    row = FOLDERS.get(what) or FOLDERS[name]
    assert set(files) <= {"`tokenizer.json`", "`vocab.txt`", "`vocab.json` and `merges.txt`"}
    for number, _ in enumerate(files):
        config = {**(row.config or {}), "tokenizer_class": name + fast}
        folder = write(tmp_path / str(number), replace(row, without_json=number > 0, config=config))
        assert (folder / "tokenizer.json").exists() == (number == 0)
        assert_same_folder(folder)


@pytest.mark.parametrize("name", [*AS_IT_IS, "NobodyKnowsTokenizer", None])
@pytest.mark.parametrize("base", ["bert", "roberta", "deberta-v2", "modernbert"])
def test_a_tokenizer_json_that_is_taken_as_it_is_has_the_ids_of_the_reference(
    base: str, name: str | None, tmp_path: Path
) -> None:
    if name is None and base != "modernbert":
        base, name = "modernbert", "LlamaTokenizer"  # any class in a ModernBERT
    row = ROWS[base]
    special = ROBERTA_NAMES if base == "roberta" else BERT_NAMES
    folder = write(tmp_path, replace(row, config={**special, "tokenizer_class": name}))
    assert_same_folder(folder)
    assert read_tokenizer(folder).notes == ()


def test_a_word_level_vocabulary_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = write(tmp_path, replace(BERT, config={**BERT_NAMES, "tokenizer_class": "PreTrainedTokenizerFast"}))
    whole = json.loads((folder / "tokenizer.json").read_text())
    whole["model"] = {"type": "WordLevel", "vocab": whole["model"]["vocab"], "unk_token": "[UNK]"}
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    ours, _ = assert_same_folder(folder)
    assert ours.encode(["dog xyzzy"]).unknown == 1


# What transformers does otherwise -------------------------------------------------------------------------------


def reference_classes() -> Iterator[tuple[str, Any]]:
    for name in sorted({name for name in TOKENIZER_MAPPING_NAMES.values() if name}):
        yield name.removesuffix("Fast").removesuffix("Tokenizer"), tokenizer_class_from_name(name)


def test_every_class_that_transformers_builds_anew_or_in_python_is_known() -> None:
    """A class of its own `__init__` does not take tokenizer.json as it is."""
    known = {*REBUILT_ELSEWHERE.split(), *(name.removesuffix("Tokenizer") for name in FAMILIES)}
    for short, found in reference_classes():
        bases = type.__getattribute__(found, "__mro__")
        if found is not TokenizersBackend and TokenizersBackend in bases:
            own = any("__init__" in base.__dict__ for base in bases[: bases.index(TokenizersBackend)])
            assert (short in known) == own, short
        elif "PythonBackend" in [base.__name__ for base in bases]:
            assert short in IN_PYTHON.split(), short


def test_the_sides_of_classes_are_those_of_the_reference() -> None:
    left = {
        short
        for short, found in reference_classes()
        if TokenizersBackend in type.__getattribute__(found, "__mro__") and found.padding_side == "left"
    }
    assert left == set(PADS_LEFT.split())


def test_the_docs_list_the_classes_of_the_notes() -> None:
    _, rest = DOCS.split("transformers builds these anew:")
    rebuilt, python = rest.split("Notes in the header")[0].split("and these are Python code there")
    assert re.findall(r"`(\w+)`", rebuilt)[:-1] == REBUILT_ELSEWHERE.split()
    names = re.findall(r"`(\w+)`", python)
    assert names == IN_PYTHON.split() or names[1:] == IN_PYTHON.split()


@pytest.mark.parametrize("short", [*REBUILT_ELSEWHERE.split(), *IN_PYTHON.split()])
def test_a_class_that_transformers_does_not_read_from_tokenizer_json_is_said(short: str, tmp_path: Path) -> None:
    """What is saved is read by the reference as it was trained."""
    config = {**BERT_NAMES, "tokenizer_class": f"{short}TokenizerFast"}
    ours = read_tokenizer(folder := write(tmp_path, replace(BERT, config=config)))
    (note,) = (note for note in ours.notes if "padded" not in note)
    assert note.startswith("tokenizer.json is used as it is, and saved so; transformers")
    assert f"{short}TokenizerFast" in note
    assert (ours.padding_side == "left") == (short in PADS_LEFT.split())
    ours.save(tmp_path / "saved")
    shutil.copy(folder / "config.json", tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(str(tmp_path / "saved"))
    assert [example.input_ids for example in ours(TEXTS, TEXTS)] == again(TEXTS, TEXTS)["input_ids"]
    assert again.padding_side == ours.padding_side
    assert not [note for note in read_tokenizer(tmp_path / "saved").notes if "padded" not in note]


def test_the_reference_does_read_some_of_them_otherwise(tmp_path: Path) -> None:
    folder = write(tmp_path, replace(BERT, config={"tokenizer_class": "SplinterTokenizer"}))
    theirs = AutoTokenizer.from_pretrained(str(folder))
    assert read_tokenizer(folder)("a", "b")[0].input_ids != theirs("a", "b")["input_ids"]


def test_a_byte_level_llama_is_taken_as_it_is_by_both(tmp_path: Path) -> None:
    row = replace(ROBERTA, config={**ROBERTA_NAMES, "tokenizer_class": "LlamaTokenizerFast"})
    ours, theirs = assert_same_folder(write(tmp_path, row))
    assert ours.notes == () and ours.padding_side == theirs.padding_side == "right"


# What tokenizer.json says otherwise than its class --------------------------------------------------------------

DIGITS = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
)
OTHERWISE: dict[str, tuple[Row, dict[str, Any], str]] = {
    "kept accents": (BERT, {"normalizer": {"strip_accents": False}}, "accents ('é' becomes 'e', there 'é')"),
    "kept case": (BERT, {"normalizer": {"lowercase": False}}, "capital letters ('Ab' becomes 'ab', there 'Ab')"),
    "Chinese kept together": (BERT, {"normalizer": {"handle_chinese_chars": False}}, "'中|文', there '中文'"),
    "lower case": (
        replace(BERT, config={"do_lower_case": False}),
        {"normalizer": {"lowercase": True}},
        "capital letters ('Ab' becomes 'Ab', there 'ab')",
    ),
    "digits apart": (
        ROBERTA,
        {"pre_tokenizer": json.loads(DIGITS.__getstate__())},
        "digits ('2019' becomes '2019', there '2|0|1|9')",
    ),
    "no-break spaces": (DEBERTA, {}, r"no-break spaces ('a\xa0b' becomes '▁a\xa0b', there '▁a|▁b')"),
    "another template": (
        ROBERTA,
        {"post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<mask>", 4]}},
        "the template (<s> A </s>, there <mask> A </s>)",
    ),
    "another prefix": (BERT, {"model": {"continuing_subword_prefix": "@@"}}, "continuing_subword_prefix ('##', "),
    "longer words": (
        BERT,
        {"model": {"max_input_chars_per_word": 200}},
        "max_input_chars_per_word (100, there 200)",
    ),
}


def changed(folder: Path, change: dict[str, Any]) -> Path:
    path = folder / "tokenizer.json"
    whole = json.loads(path.read_text())
    for key, part in change.items():
        known = isinstance(whole[key], dict) and "type" not in part
        defaults = {"add_prefix_space": False, "trim_offsets": True} if "sep" in part else {}
        whole[key] = whole[key] | part if known else defaults | part
    path.write_text(json.dumps(whole))
    return folder


@pytest.mark.parametrize("what", OTHERWISE)
def test_a_tokenizer_json_that_says_otherwise_is_named_with_the_way_to_have_it(what: str, tmp_path: Path) -> None:
    row, change, difference = OTHERWISE[what]
    folder = changed(write(tmp_path, row), change)
    ours, _ = assert_same_folder(folder)
    (note,) = ours.notes
    assert difference in note and ours.settings["tokenizer_class"] in note and "tokenizer.json" in note
    assert read_tokenizer(folder / "saved").notes == ()
    # The way out: what it says to write, written.
    (way,) = re.findall(r"set (.*) in tokenizer_config\.json$", note)
    config = json.loads((folder / "tokenizer_config.json").read_text()) | json.loads(f"{{{way}}}")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    asked, _ = assert_same_folder(folder)
    file = Backend.from_file(str(folder / "tokenizer.json"))
    pairs = file.encode_batch(list(zip(TEXTS, TEXTS[::-1], strict=True)))
    assert [e.input_ids for e in asked(TEXTS, TEXTS[::-1])] == [e.ids for e in pairs]
    typed = "token_type_ids" in ours.settings["model_input_names"]
    assert [e.token_type_ids for e in asked(TEXTS, TEXTS[::-1])] == [
        e.type_ids if typed else [0] * len(e.ids) for e in pairs
    ]
    assert asked.notes == ()


def test_what_a_class_does_not_use_of_tokenizer_json_may_be_broken(tmp_path: Path) -> None:
    folder = write(tmp_path, BERT)
    whole = read_tokenizer(folder)
    changed(folder, {"normalizer": {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}})
    with pytest.raises(Exception, match="unmatched|paren"):
        Backend.from_file(str(folder / "tokenizer.json"))
    ours = read_tokenizer(folder)
    assert ours(TEXTS) == whole(TEXTS)
    (note,) = ours.notes
    assert note.startswith("BertTokenizer is built anew from the vocabulary: the rest of tokenizer.json fails (")


SAYS_OTHERWISE = ("bert, cased", "roberta, by transformers 4", "deberta-v2", "deberta-v2, by transformers 4")


@pytest.mark.parametrize("name", [name for name in ROWS if name not in SAYS_OTHERWISE])
def test_a_tokenizer_json_that_says_the_same_is_not_remarked_on(name: str, tmp_path: Path) -> None:
    assert [note for note in read_tokenizer(write(tmp_path, ROWS[name])).notes if "built anew" in note] == []


# Refused, and the ways out --------------------------------------------------------------------------------------


def test_word_pieces_declared_as_roberta_are_refused_with_a_way_out_that_works(tmp_path: Path) -> None:
    special = {**BERT_NAMES, "bos_token": "[CLS]", "eos_token": "[SEP]", "mask_token": "[MASK]"}
    row = replace(BERT, model_type="roberta", config={**special, "tokenizer_class": "RobertaTokenizerFast"})
    folder = write(tmp_path, row)
    with pytest.raises(MinitrainError, match="its model is WordPiece, expected BPE") as error:
        read_tokenizer(folder)
    assert "get them again" not in str(error.value)
    assert '"tokenizer_class": "PreTrainedTokenizerFast" and "pad_token"' in str(error.value)
    write(tmp_path, replace(row, config={**special, "tokenizer_class": "PreTrainedTokenizerFast"}))
    assert_same_folder(folder)


def test_an_id_of_two_tokens_is_refused_with_a_way_out_that_works(tmp_path: Path) -> None:
    """A word stands twice in vocab.txt, which makes the library count one line less, and the added token clash."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "dog", "cat"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": 9}))
    assert_same_folder(tmp_path)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<user>": 8}))
    with pytest.raises(MinitrainError, match="the id 7 stands for two tokens, '<user>' and 'cat'") as error:
        read_tokenizer(tmp_path)
    assert "get them again" not in str(error.value) and "replace the first of the two" in str(error.value)
    words[words.index("cat")] = "[unused1]"
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    ours, _ = assert_same_folder(tmp_path)
    assert ours("cat <user>")[0].input_ids == [2, 7, 8, 3] and ours.notes == ()


@pytest.mark.parametrize("lines", [[""], ["", ""], ["fox", "fox"]], ids=repr)
def test_empty_and_repeated_lines_of_a_vocabulary_keep_the_ids_of_the_reference(
    lines: list[str], tmp_path: Path
) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", *lines, "dog"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": len(words)}))
    ours, _ = assert_same_folder(tmp_path)
    assert ours("dog")[0].input_ids[1] == len(words) - 1


@pytest.mark.parametrize(
    "options",
    [
        {"never_split": ["[note]", "dog."]},
        {"do_basic_tokenize": False},
        {"basic_tokenizer": None, "never_split": []},
    ],
    ids=str,
)
def test_what_the_reference_ignores_is_ignored(options: dict[str, Any], tmp_path: Path) -> None:
    assert_same_folder(write(tmp_path, replace(BERT, without_json=True), **options))


@pytest.mark.parametrize(
    "model_type", ["albert", "deberta-v2", "roberta", "xlm-roberta", "camembert", "modernbert"]
)
def test_a_vocab_txt_without_a_class_is_read_as_word_pieces(model_type: str, tmp_path: Path) -> None:
    row = replace(BERT, model_type=model_type, without_json=True, config=None)
    ours = read_tokenizer(write(tmp_path, row))
    (note,) = ours.notes
    assert "vocab.txt is read as word pieces of BertTokenizer; transformers 5 uses" in note
    bert = read_tokenizer(write(tmp_path / "bert", replace(row, model_type="bert")))
    assert ours(TEXTS, TEXTS) == bert(TEXTS, TEXTS) and ours.encode(["the dog"]).unknown == 0
    ours.save(tmp_path / "saved")
    shutil.copy(tmp_path / "config.json", tmp_path / "saved")
    theirs = AutoTokenizer.from_pretrained(str(tmp_path / "saved"))
    assert theirs(TEXTS, TEXTS)["input_ids"] == [example.input_ids for example in ours(TEXTS, TEXTS)]
    assert read_tokenizer(tmp_path / "saved").notes == ()


def test_a_vocab_txt_under_a_class_that_does_not_read_it_is_refused_with_a_way_out_that_works(
    tmp_path: Path,
) -> None:
    row = replace(BERT, model_type="albert", without_json=True, config={"tokenizer_class": "AlbertTokenizer"})
    with pytest.raises(
        MinitrainError, match=r"AlbertTokenizer needs tokenizer\.json there; vocab\.txt is"
    ) as error:
        read_tokenizer(write(tmp_path, row))
    assert 'set "tokenizer_class": "BertTokenizer" in tokenizer_config.json' in str(error.value)
    assert "save_pretrained" not in str(error.value)  # which would make a tokenizer of it that knows no word
    assert_same_folder(write(tmp_path, replace(row, config={"tokenizer_class": "BertTokenizer"})))


@pytest.mark.parametrize("name", ["PhobertTokenizer", "BertweetTokenizer", "BertJapaneseTokenizer"])
def test_a_tokenizer_in_python_is_refused_with_a_way_out_that_works(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta"}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, "do_lower_case": False}))
    (tmp_path / "vocab.txt").write_text("good 9\nbad 8\n")
    (tmp_path / "bpe.codes").write_text("g o 9\n")
    with pytest.raises(MinitrainError, match=f"class {name} needs tokenizer.json there") as error:
        read_tokenizer(tmp_path)
    assert "save_pretrained writes no tokenizer.json" in str(error.value)
    if name != "BertJapaneseTokenizer":  # for which fugashi would be needed
        AutoTokenizer.from_pretrained(str(tmp_path)).save_pretrained(tmp_path / "saved")
        assert not (tmp_path / "saved" / "tokenizer.json").exists()
    way = {"tokenizer_class": "PreTrainedTokenizerFast", **ROBERTA_NAMES}
    assert_same_folder(write(tmp_path / "with one", replace(ROBERTA, config=way, beside={})))


@pytest.mark.parametrize("name", ["GPT2TokenizerFast", "BlenderbotTokenizer", "CodeGenTokenizer"])
def test_a_vocabulary_that_transformers_alone_reads_is_refused_with_a_way_out_that_works(
    name: str, tmp_path: Path
) -> None:
    config = {**ROBERTA_NAMES, "tokenizer_class": name}
    folder = write(tmp_path, replace(ROBERTA, without_json=True, config=config))
    with pytest.raises(MinitrainError, match="AutoTokenizer.from_pretrained.FOLDER..save_pretrained.FOLDER"):
        read_tokenizer(folder)
    AutoTokenizer.from_pretrained(str(folder)).save_pretrained(folder)
    read_tokenizer(folder)


def test_a_folder_without_any_vocabulary_is_told_to_get_one(tmp_path: Path) -> None:
    for name in ("BertTokenizer", "GPT2Tokenizer", "AlbertTokenizer", "NobodyKnowsTokenizer"):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "tokenizer_class": name}))
        with pytest.raises(MinitrainError, match="get the files of the tokenizer from where the model came from"):
            read_tokenizer(tmp_path)


def test_herbert_with_other_ids_than_its_template_writes_is_refused(tmp_path: Path) -> None:
    row = replace(
        ROBERTA, backend=herbert, config={"tokenizer_class": "HerbertTokenizerFast", "cls_token": "<pad>"}
    )
    with pytest.raises(MinitrainError, match=r"the ids of <pad> and </s> are \[1, 2\], expected 0 and 2"):
        read_tokenizer(write(tmp_path, row))


def test_a_modernbert_takes_tokenizer_json_whatever_class_it_names(tmp_path: Path) -> None:
    config = {**MODERNBERT, "mask_token": "[MASK]", "tokenizer_class": "BertTokenizer"}
    ours, theirs = assert_same_folder(write(tmp_path, Row("modernbert", modernbert, config)))
    assert type(theirs) is TokenizersBackend and ours.notes == ()
