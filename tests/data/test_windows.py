"""Long texts, cut or read in windows, beside `tokenizers` and transformers' `return_overflowing_tokens`."""

import time
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_tokenizer_families import LONG_TEXTS, ROWS, TEXTS, write
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer

from minitrain.config.data_config import DataConfig
from minitrain.config.long_texts import LongTexts
from minitrain.config.train_config import TrainConfig
from minitrain.data.batch import collate
from minitrain.data.dataset import Split
from minitrain.data.examples import as_split
from minitrain.data.load import load_splits, tokenize
from minitrain.data.sampler import padding_share
from minitrain.data.tokenizer.tokenizer import Example, Tokenizer, load_tokenizer, read_tokenizer, truncate
from minitrain.data.windows import Document, Windows
from minitrain.errors import MinitrainError

FAMILIES = ["bert", "roberta", "xlm-roberta", "albert", "deberta-v2", "modernbert"]
MANY = {"long_texts": "windows", "max_windows": 10_000}
WORDS = ["the", "dog", "is", "a", "fox"] * 3 + ["not", "brown", "over"]


@pytest.fixture(scope="module")
def demo() -> Tokenizer:
    return load_tokenizer("demo")


def read(texts: list[str], tokenizer: Tokenizer, max_length: int | None = 10, **options: Any) -> Split:
    return tokenize({"text": texts}, tokenizer, ("text",), max_length=max_length, long_texts=LongTexts(**options))


def windows_of(split: Split, row: int) -> list[Example]:
    example = split[row]
    return example.examples() if isinstance(example, Document) else [example]


@pytest.mark.parametrize("name", FAMILIES)
def test_windows_are_the_overflowing_pieces_of_transformers(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path, ROWS[name])
    ours, theirs = read_tokenizer(folder), AutoTokenizer.from_pretrained(str(folder))
    texts = TEXTS + LONG_TEXTS + [" ".join(WORDS[:count]) for count in range(0, 18, 2)]
    for max_length, stride in ((3, 0), (8, 5), (64, 20)):
        expected = theirs(
            texts, truncation=True, max_length=max_length, stride=stride, return_overflowing_tokens=True
        )
        split = read(texts, ours, max_length, stride=stride, **MANY)
        found = [(row, window) for row in range(len(texts)) for window in windows_of(split, row)]
        assert [row for row, _ in found] == expected["overflow_to_sample_mapping"]
        assert [window.input_ids for _, window in found] == expected["input_ids"]
        zeros = [[0] * len(ids) for ids in expected["input_ids"]]
        assert [window.token_type_ids for _, window in found] == expected.get("token_type_ids", zeros)
        assert len(found) > len(texts)
        # As `predict` reads them, and as the sampler counts them.
        assert split.window_rows is not None
        assert [split.window_rows[number] for number in range(len(split.window_rows))] == [one for _, one in found]
        assert [*split.window_rows.lengths] == list(map(len, expected["input_ids"]))


def test_windows_of_every_length_are_those_of_tokenizers(demo: Tokenizer) -> None:
    cut = Backend.from_str(demo.backend.to_str())
    texts = [" ".join(["dog", "fox", "the"][i % 3] for i in range(count)) for count in range(20)]
    whole = demo.backend.encode_batch(texts)
    for room in range(1, 8):
        for stride in range(room):
            cut.enable_truncation(room + 2, stride=stride)
            windows = Windows(prefix=1, suffix=1, room=room, stride=stride, max_windows=1000)
            for count, (ours, first) in enumerate(zip(whole, cut.encode_batch(texts), strict=True)):
                found = [windows.cut(ours.ids, number) for number in range(windows.count(len(ours.ids)))]
                assert found == [piece.ids for piece in (first, *first.overflowing)]
                assert windows.lengths(len(ours.ids)) == list(map(len, found))
                assert windows.read(len(ours.ids)) == count
                few = Windows(prefix=1, suffix=1, room=room, stride=stride, max_windows=2)
                assert few.count(len(ours.ids)) == min(2, len(found))
                seen = {place for number in range(min(2, len(found))) for place in _places(few, number, count)}
                assert few.read(len(ours.ids)) == len(seen)


def _places(windows: Windows, number: int, count: int) -> list[int]:
    """Where in the text the tokens of a window stand."""
    return windows.cut([-1, *range(count), -1], number)[1:-1]


@pytest.mark.parametrize("name", ["bert", "roberta", "deberta-v2"])
def test_tail_is_truncation_side_left_and_head_is_as_ever(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path, ROWS[name])
    ours = read_tokenizer(folder)
    texts, pairs = TEXTS + LONG_TEXTS, (TEXTS + LONG_TEXTS)[::-1]
    for kind, side in (("tail", "left"), ("head", "right")):
        theirs = AutoTokenizer.from_pretrained(str(folder), truncation_side=side)
        for second in (None, pairs):
            expected = theirs(texts, second, truncation=True, max_length=9)
            found = ours.encode(texts, second, 9, long_texts=kind)
            assert [example.input_ids for example in found.examples] == expected["input_ids"]
            whole = theirs(texts, second)["input_ids"]
            assert found.removed == sum(map(len, whole)) - sum(map(len, expected["input_ids"])) > 0


def test_both_ends_are_a_quarter_and_the_rest_as_in_the_paper(demo: Tokenizer) -> None:
    """Sun et al. 2019: 128 and 382 of 510. Of a pair, the text that is cut, by the budget of longest_first."""
    numbers = [f"{i % 10}" for i in range(700)]
    [example] = demo.encode([" ".join(numbers)], max_length=512, long_texts="head_tail").examples
    ids = demo(" ".join(numbers), max_length=10_000)[0].input_ids
    assert example.input_ids == ids[:129] + ids[-383:]
    for length in range(3, 30):
        [example] = demo.encode([" ".join(numbers)], max_length=length, long_texts="head_tail").examples
        head = -(-(length - 2) // 4)
        assert example.input_ids == ids[: 1 + head] + ids[-(length - 1 - head) :]
    [pair] = demo.encode(["1 2 3 4 5 6 7 8 9"], ["a b"], 9, long_texts="head_tail").examples
    assert demo.tokens(pair.input_ids) == ["[CLS]", "1", "7", "8", "9", "[SEP]", "a", "b", "[SEP]"]
    encoding = demo.backend.encode("1 2 3 4 5", "a b c d e")
    assert truncate(encoding, 2, "middle")[0] == [encoding.ids[i] for i in (0, 1, 6, 7, 12)]


def test_tokenizers_that_cut_on_the_left_keep_their_head_and_have_the_same_windows(tmp_path: Path) -> None:
    left, right = (
        read_tokenizer(write(tmp_path / side, ROWS["bert"], truncation_side=side)) for side in ("left", "right")
    )
    text = " ".join(WORDS)
    for kind, same in (("head", False), ("tail", True), ("head_tail", True)):
        found = [one.encode([text], max_length=9, long_texts=kind).examples for one in (left, right)]
        assert (found[0] == found[1]) == same
    assert left(text, max_length=9) == left.encode([text], max_length=9, long_texts="tail").examples
    assert windows_of(read([text], left, **MANY), 0) == windows_of(read([text], right, **MANY), 0)


def test_documents_without_tokens_are_one_window_of_special_tokens(demo: Tokenizer) -> None:
    split = read(["", "  ", "a dog"], demo, **MANY)
    assert [demo.tokens(split[row].input_ids) for row in range(2)] == [["[CLS]", "[SEP]"]] * 2
    assert [type(split[row]) for row in range(3)] == [Example] * 3 and split.blank == 2
    assert collate([split[0], split[2]]).windows is None


def test_tokenizers_without_special_tokens_refuse_a_document_without_tokens(demo: Tokenizer) -> None:
    bare = Tokenizer(Backend.from_str(demo.backend.to_str()), demo.settings)
    bare.backend.post_processor = None
    assert bare.template() == (0, 0)
    assert [len(one.input_ids) for one in windows_of(read([" ".join(WORDS)], bare, 5, **MANY), 0)] == [
        5,
        5,
        5,
        5,
        2,
    ]
    with pytest.raises(MinitrainError, match="row 2: gives no token"):
        read(["a dog", ""], bare, 5, **MANY)


def test_a_batch_holds_the_windows_of_its_documents(demo: Tokenizer) -> None:
    texts = ["a dog", " ".join(WORDS), "", " ".join(WORDS[:9])]
    split = read(texts, demo, stride=3, **MANY)
    split._labels = array("q", [1, 0, 1, 0])
    batch = collate([split[row] for row in range(4)], split.pad_token_id)
    assert batch.windows == (1, 3, 1, 2) and len(batch) == 4 and batch.input_ids.shape == (7, 10)
    assert batch.labels is not None and batch.labels.tolist() == [1, 0, 1, 0]
    flat = [replace(window, label=None) for row in range(4) for window in windows_of(split, row)]
    assert torch.equal(batch.input_ids, collate(flat, split.pad_token_id).input_ids)
    moved = batch.to("cpu")
    assert (moved.windows, moved.pooling) == (batch.windows, "mean")
    share = padding_share(split.lengths, [[0, 1, 2, 3]], split.window_rows)
    assert share == 1 - batch.attention_mask.sum().item() / batch.attention_mask.numel()
    again = as_split([split[row] for row in range(4)])
    assert [again[row] for row in range(4)] == [split[row] for row in range(4)] and again.windows == split.windows
    other = read(texts, demo, stride=2, **MANY)
    with pytest.raises(MinitrainError, match="in different ways"):
        collate([replace(split[1], label=None), other[1]])
    with pytest.raises(MinitrainError, match="in different ways"):
        as_split([replace(split[1], label=None), other[1]])


def test_documents_are_kept_whole_on_the_disk_whatever_the_windows(
    demo: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINITRAIN_CACHE", str(tmp_path))

    def kept(**options: Any) -> tuple[Split, int]:
        table = {"text": [" ".join(WORDS), "a dog"]}
        length = options.pop("max_length", 10)
        options = {"max_length": length, "cache": True, "long_texts": LongTexts(**options)}
        return tokenize(table, demo, ("text",), **options), len(list(tmp_path.iterdir()))

    whole, entries = kept(**MANY)
    assert whole.lengths == [20, 4] and entries == 1
    assert kept(max_length=5, long_texts="windows", stride=1, window_pooling="max")[1] == 1
    with pytest.raises(MinitrainError, match="--max_length is 2, but a text needs 2 special"):
        kept(max_length=2, long_texts="windows")  # also of tokens that are on the disk
    assert [kept(long_texts=kind)[1] for kind in ("head", "tail", "head_tail", "tail")] == [2, 3, 4, 4]
    head, tail = kept(long_texts="head")[0], kept(long_texts="tail")[0]
    assert head[0] != tail[0] and head.removed == tail.removed == 10


def test_a_very_long_document_takes_no_more_than_its_tokens_do(demo: Tokenizer) -> None:
    start = time.perf_counter()
    split = read(["dog fox " * 50_000], demo, 16, long_texts="windows", max_windows=5, stride=4)
    batch = collate([split[0]])
    assert batch.input_ids.shape == (5, 16) and (split.truncated, split.removed) == (1, 100_000 - 54)
    assert split.window_rows is not None and len(split.window_rows) == 5
    assert time.perf_counter() - start < 20  # under a second on an idle core


TRAPS: dict[str, tuple[dict[str, Any], str]] = {
    "a stride of a whole window": ({"stride": 8}, "--stride 8: a window of 10 tokens holds 8 .* share 7"),
    "no limit": ({"max_length": None}, "pass --max_length"),
    "no room": ({"max_length": 2}, "--max_length is 2, but a text needs 2 special"),
}


@pytest.mark.parametrize("name", TRAPS)
def test_windows_that_cannot_be_cut_are_refused(demo: Tokenizer, name: str) -> None:
    unlimited = Tokenizer(demo.backend, {k: v for k, v in demo.settings.items() if k != "model_max_length"})
    flags, message = TRAPS[name]
    with pytest.raises(MinitrainError, match=message):
        read(["a dog"], unlimited, **{"long_texts": "windows", **flags})
    assert read(["a dog"], unlimited, long_texts="windows", stride=7).windows is not None


def test_pairs_are_refused_and_joined_they_are_one_text(demo: Tokenizer) -> None:
    rows = [{"a": " ".join(WORDS), "b": "a fox", "label": i % 2} for i in range(4)]
    options: dict[str, Any] = {
        "tokenizer": demo,
        "max_length": 10,
        "eval_fraction": 0.5,
        "text_columns": ("a", "b"),
    }
    with pytest.raises(MinitrainError, match=r"these are pairs \(a, b\): pass --join ' '"):
        load_splits(rows, long_texts="windows", **options)
    joined = load_splits(rows, long_texts="windows", join=" ", **options)
    assert isinstance(joined.train[0], Document)
    for kind in ("tail", "head_tail"):
        assert load_splits(rows, long_texts=kind, **options).train.lengths == [10, 10]


@pytest.mark.parametrize("flag", [{"stride": 3}, {"max_windows": 3}, {"window_pooling": "max"}])
@pytest.mark.parametrize("made", [LongTexts, DataConfig, TrainConfig])
def test_settings_of_windows_need_windows(made: Any, flag: dict[str, Any]) -> None:
    with pytest.raises(MinitrainError, match=f"--{next(iter(flag))} .* pass --long_texts windows"):
        made(**flag)
    assert made(long_texts="windows", **flag).long_texts == "windows"


def test_windows_match_no_reference() -> None:
    for match in ("match_trainer", "match_accelerate"):
        with pytest.raises(MinitrainError, match="no windows to match"):
            TrainConfig(long_texts="windows", **{match: True})
        assert TrainConfig(long_texts="tail", **{match: True}).long_texts == "tail"


def test_other_settings_keep_those_of_the_run() -> None:
    run = LongTexts(long_texts="windows", stride=3, max_windows=4)
    assert run.changed(None, None, 9, None) == LongTexts(long_texts="windows", stride=3, max_windows=9)
    assert run.changed("tail", None, None, None) == LongTexts(long_texts="tail")
    with pytest.raises(MinitrainError, match="--stride 2 is about windows, and --long_texts is tail"):
        run.changed("tail", 2, None, None)
