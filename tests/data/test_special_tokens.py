"""Tokens that files name and vocabularies lack, sides and limits, beside `AutoTokenizer` on the same folder."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_tokenizer_families import (
    BERT,
    BERT_TOKENS,
    DEBERTA,
    ROBERTA,
    TEXTS,
    XLM_ROBERTA,
    Row,
    assert_same,
    assert_same_folder,
    word_pieces,
    write,
)
from transformers import AutoTokenizer

from minitrain.data.tokenizer.tokenizer import Tokenizer, read_tokenizer
from minitrain.errors import MinitrainError

SIZE = len(word_pieces(*BERT_TOKENS))
ROOM = 600  # rows of an embedding: more than any vocabulary here has tokens
VOCAB_TXT = replace(BERT, without_json=True)
AS_IT_IS = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}


def added(content: str, **options: bool) -> dict[str, Any]:
    """As transformers 4 writes a token with its options."""
    flags = {"lstrip": False, "rstrip": False, "normalized": True, "single_word": False, "special": True}
    return {"__type": "AddedToken", "content": content} | flags | options


def with_rows(folder: Path, rows: int, model_type: str = "bert") -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "vocab_size": rows}))
    return folder


def without(folder: Path, token: str) -> Path:
    """Take a token out of tokenizer.json; the others move up."""
    path = folder / "tokenizer.json"
    whole = json.loads(path.read_text())
    vocabulary = whole["model"]["vocab"]
    kept = [other for other in sorted(vocabulary, key=vocabulary.__getitem__) if other != token]
    whole["model"]["vocab"] = {other: index for index, other in enumerate(kept)}
    whole["added_tokens"] = [
        part | {"id": kept.index(part["content"])} for part in whole["added_tokens"] if part["content"] != token
    ]
    path.write_text(json.dumps(whole | {"post_processor": None}))
    return folder


# Appended -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "config", "new"),
    [
        (BERT, {"mask_token": "<mask>"}, ["<mask>"]),
        (BERT, {"mask_token": added("<mask>", lstrip=True)}, ["<mask>"]),
        (BERT, {"bos_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>"}, ["<s>", "</s>", "<mask>"]),
        (BERT, {"bos_token": "<s>", "eos_token": "<s>", "mask_token": "<mask>"}, ["<s>", "<mask>"]),
        (BERT, {"bos_token": "[CLS]", "eos_token": "[SEP]"}, []),
        (BERT, {"pad_token": "<pad>"}, ["<pad>"]),
        (BERT, {"extra_special_tokens": ["<s>", "<mask>"]}, ["<s>", "<mask>"]),
        (BERT, {"extra_special_tokens": ["<s>"], "mask_token": "<mask>"}, ["<mask>", "<s>"]),
        (BERT, {"extra_special_tokens": {"image_token": "<s>", "other_token": "[UNK]"}}, ["<s>"]),
        (BERT, {"additional_special_tokens": [added("<s>"), "<mask>"]}, ["<s>", "<mask>"]),
        (BERT, {"image_token": "<s>", "mask_token": "<mask>"}, ["<mask>", "<s>"]),
        (BERT, {"image_token": "<s>", "extra_special_tokens": ["<mask>"]}, ["<s>", "<mask>"]),
        (BERT, {"image_token": added("<s>"), "add_bos_token": True}, ["<s>"]),
        (VOCAB_TXT, {"mask_token": "<mask>", "extra_special_tokens": ["<s>"]}, ["<mask>", "<s>"]),
        (BERT, {**AS_IT_IS, "mask_token": "<mask>", "extra_special_tokens": ["<s>"]}, ["<mask>", "<s>"]),
        (BERT, {**AS_IT_IS, "pad_token": "<pad>"}, ["<pad>"]),
        (ROBERTA, {"mask_token": "[MASK]"}, ["[MASK]"]),
        (XLM_ROBERTA, {"pad_token": "[PAD]", "mask_token": "[MASK]"}, ["[PAD]", "[MASK]"]),
        (DEBERTA, {"extra_special_tokens": ["<mask>"]}, ["<mask>"]),
    ],

)  # fmt: skip
def test_what_the_vocabulary_lacks_is_appended_as_in_the_reference(
    row: Row, config: dict[str, Any], new: list[str], tmp_path: Path
) -> None:
    folder = with_rows(write(tmp_path, row, **config), ROOM, row.model_type)
    ours, theirs = assert_same_folder(folder)
    assert ours.backend.get_vocab() == theirs.get_vocab()
    assert ours.pad_token_id == theirs.pad_token_id
    notes = [note for note in ours.notes if "is not in the vocabulary" in note]
    ids = [theirs.convert_tokens_to_ids(token) for token in new]
    assert [note.split("'")[1] for note in notes] == new and ids == [
        *range(ids[0] if ids else 0, ids[-1] + 1 if ids else 0)
    ]
    assert all(f"gets the id {index}, as in transformers 5" in note for note, index in zip(notes, ids, strict=True))
    assert [note for note in read_tokenizer(folder / "saved").notes if "vocabulary and" in note] == []


def test_an_empty_special_token_has_no_id(tmp_path: Path) -> None:
    folder = with_rows(write(tmp_path, BERT, mask_token="", **AS_IT_IS), ROOM)
    ours, _ = assert_same_folder(folder)
    assert ours.notes == () and "mask_token" not in ours.settings
    with pytest.raises(MinitrainError, match="the pad_token '' is not in the vocabulary"):
        read_tokenizer(with_rows(write(tmp_path, BERT, **AS_IT_IS | {"pad_token": ""}), ROOM))


@pytest.mark.parametrize("config", [{}, {"mask_token": "[MASK]"}])
def test_a_token_of_the_class_that_the_vocabulary_lacks_comes_before_those_of_the_folder(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """Or the ids of the folder's own would be others than the reference's."""
    folder = with_rows(without(write(tmp_path, BERT, extra_special_tokens=["<s>"], **config), "[MASK]"), ROOM)
    ours, _ = assert_same_folder(folder)
    assert ours("[MASK]<s>")[0].input_ids[1:-1] == [SIZE - 1, SIZE]


def test_a_class_token_and_its_separator_are_appended_where_a_file_names_them(tmp_path: Path) -> None:
    folder = with_rows(write(tmp_path, BERT, cls_token="<cls>", sep_token="<sep>"), ROOM)
    ours, _ = assert_same_folder(folder)
    assert ours.tokens(ours("dog")[0].input_ids) == ["<cls>", "dog", "<sep>"]
    with_rows(folder, SIZE + 1)
    with pytest.raises(
        MinitrainError, match="the cls_token '<cls>' is not in the vocabulary; name the one that is"
    ):
        read_tokenizer(folder)


def test_what_the_model_has_no_row_for_is_left_out_and_said(tmp_path: Path) -> None:
    folder = with_rows(write(tmp_path, BERT, bos_token="<s>", mask_token="<mask>"), SIZE + 1)
    ours, theirs = read_tokenizer(folder), AutoTokenizer.from_pretrained(str(folder))
    assert theirs.convert_tokens_to_ids(["<s>", "<mask>"]) == [SIZE, SIZE + 1]
    ours.check_fits(SIZE + 1, folder)
    first, second = ours.notes
    assert first.startswith(f"'<s>' (bos_token) is not in the vocabulary and gets the id {SIZE}")
    assert second.startswith("'<mask>' (mask_token) is not in the vocabulary, and the model has no embedding left")
    assert_same(ours, theirs, [text for text in TEXTS if "<mask>" not in text])


def test_extra_tokens_without_rows_are_refused_by_name_with_the_way_out(tmp_path: Path) -> None:
    folder = with_rows(write(tmp_path, BERT, extra_special_tokens=["<a>", "<b>"]), SIZE + 1)
    with pytest.raises(MinitrainError, match=rf"1 tokens have no embedding \('<b>' {SIZE + 1}\)") as error:
        read_tokenizer(folder).check_fits(SIZE + 1, folder)
    assert "resize_token_embeddings" in str(error.value)
    assert_same_folder(with_rows(folder, SIZE + 2))


def test_the_unknown_token_of_word_pieces_must_be_in_the_vocabulary_itself(tmp_path: Path) -> None:
    folder = with_rows(write(tmp_path, BERT, unk_token="<unk>"), ROOM)
    with pytest.raises(
        MinitrainError, match="the unk_token '<unk>' is not in the vocabulary; name the one that is"
    ):
        read_tokenizer(folder)
    assert_same_folder(with_rows(write(tmp_path, BERT, unk_token="[UNK]"), ROOM))


@pytest.mark.parametrize(
    ("files", "config"),
    [
        ({"added_tokens.json": {"<s>": 500}}, {}),
        ({"added_tokens.json": {"<s>": SIZE, "<mask>": SIZE + 1}}, {}),
        ({"special_tokens_map.json": {"mask_token": added("<mask>"), "additional_special_tokens": ["<s>"]}}, {}),
        ({}, {"added_tokens_decoder": {"500": added("<s>")}, "mask_token": "<mask>"}),
    ],
)
def test_added_tokens_follow_the_vocabulary_whatever_id_their_file_gives(
    files: dict[str, Any], config: dict[str, Any], tmp_path: Path
) -> None:
    row = replace(BERT, without_json=True, beside={**BERT.beside, **files})
    ours, _ = assert_same_folder(with_rows(write(tmp_path, row, **config), ROOM))
    moved = "added tokens follow the vocabulary, as in transformers 5: "
    moved += f"'<s>' has the id 500 in its file and gets {SIZE}"
    assert (moved in ours.notes) == ("500" in str(files) + str(config))


# Sides and limits -----------------------------------------------------------------------------------------------


def padding(direction: str, **changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    part = {"strategy": {"Fixed": 9}, "direction": direction, "pad_to_multiple_of": None, "pad_id": 0}
    return lambda whole: whole | {"padding": part | {"pad_type_id": 0, "pad_token": "[PAD]"} | changes}


def truncation(direction: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    part = {"max_length": 4, "stride": 0, "strategy": "LongestFirst", "direction": direction}
    return lambda whole: whole | {"truncation": part}


def changed(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]] | None) -> Path:
    path = folder / "tokenizer.json"
    if change is not None:
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
    return folder


@pytest.mark.parametrize("base", [{}, AS_IT_IS], ids=["built anew", "as it is"])
@pytest.mark.parametrize(
    ("change", "config", "side"),
    [
        (None, {}, "right"),
        (None, {"padding_side": "left"}, "left"),
        (padding("Left"), {}, "left"),
        (padding("Left"), {"padding_side": "right"}, "right"),
        (padding("Right"), {"padding_side": "left"}, "left"),
        (padding("Left", pad_type_id=1, pad_to_multiple_of=8), {}, "left"),
        (truncation("Left"), {}, "right"),
    ],
    ids=["nothing", "config", "tokenizer.json", "config first", "config first, too", "a multiple", "truncation"],
)
def test_the_side_of_padding_is_the_references_and_is_kept(
    change: Any, config: dict[str, Any], side: str, base: dict[str, str], tmp_path: Path
) -> None:
    folder = with_rows(changed(write(tmp_path, BERT, **base, **config), change), ROOM)
    ours, theirs = assert_same_folder(folder)
    saved = AutoTokenizer.from_pretrained(str(folder / "saved"))
    assert ours.padding_side == theirs.padding_side == saved.padding_side == side
    assert ours.settings["truncation_side"] == theirs.truncation_side == saved.truncation_side
    assert any("padded on the left" in note for note in ours.notes) == (side == "left")
    assert theirs.pad_token_type_id == 0 and theirs.pad({"input_ids": [1]})["input_ids"] == [1]  # a multiple of 1


@pytest.mark.parametrize("value", ["middle", "Left", None, 3])
def test_another_side_is_refused_here_as_there(value: Any, tmp_path: Path) -> None:
    folder = write(tmp_path, BERT, padding_side=value)
    with pytest.raises(ValueError, match="Padding side should be"):
        AutoTokenizer.from_pretrained(str(folder))
    with pytest.raises(MinitrainError, match=r"padding_side is .*expected one of .*left out, it is 'right'"):
        read_tokenizer(folder)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e30, 10**30])
@pytest.mark.parametrize("key", ["model_max_length", "max_len"])
def test_no_limit_is_no_limit_in_whatever_way_it_is_said(key: str, value: float, tmp_path: Path) -> None:
    folder = write(tmp_path, replace(BERT, config={key: value, "sp_model_kwargs": {"alpha": float("nan")}}))
    assert ("NaN" in (folder / "tokenizer_config.json").read_text()) and AutoTokenizer.from_pretrained(str(folder))
    ours = read_tokenizer(folder)
    assert ours.max_length is None
    ours.save(tmp_path / "saved")
    assert read_tokenizer(tmp_path / "saved").max_length is None


def test_less_than_nothing_is_no_limit_and_other_files_have_no_infinity(tmp_path: Path) -> None:
    folder = write(tmp_path, BERT, model_max_length=float("-inf"))
    with pytest.raises(MinitrainError, match="model_max_length is -inf, expected a number of tokens; leave it out"):
        read_tokenizer(folder)
    write(tmp_path, BERT)
    (folder / "special_tokens_map.json").write_text('{"a": Infinity}')
    with pytest.raises(MinitrainError, match="special_tokens_map.json: .*it holds Infinity"):
        read_tokenizer(folder)


# Unknown tokens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert", "deberta-v2", "xlm-roberta"])
def test_unknown_tokens_are_counted(name: str, tmp_path: Path) -> None:
    row = {"bert": BERT, "deberta-v2": DEBERTA, "xlm-roberta": XLM_ROBERTA}[name]
    folder = write(tmp_path, row)
    ours, theirs = read_tokenizer(folder), AutoTokenizer.from_pretrained(str(folder))
    for pairs in (None, TEXTS[::-1]):
        ids = theirs(TEXTS, pairs, truncation=True, max_length=12)["input_ids"]
        encoded = ours.encode(TEXTS, pairs, max_length=12)
        assert encoded.unknown == sum(row.count(theirs.unk_token_id) for row in ids) > 3


@pytest.mark.parametrize(
    "config", [{}, {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}], ids=str
)
def test_bytes_are_never_unknown(config: dict[str, Any], tmp_path: Path) -> None:
    ours: Tokenizer = read_tokenizer(write(tmp_path, ROBERTA, **config))
    assert ours.encode([text for text in TEXTS if "<unk>" not in text]).unknown == 0
