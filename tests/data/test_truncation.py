"""What is kept of texts that are too long, beside the library's own truncation, and in what time."""

import time
from itertools import product

import pytest
from tokenizers import Tokenizer as Backend

from minitrain.data.tokenizer.tokenizer import Tokenizer, read_tokenizer, truncate


@pytest.fixture(scope="module")
def tokenizer(demo_model: object) -> Tokenizer:
    return read_tokenizer(str(demo_model))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("length", range(4, 14))
def test_every_pair_of_lengths_is_cut_as_the_library_cuts_it(tokenizer: Tokenizer, length: int, side: str) -> None:
    counts = [0, 1, 2, 3, 4, 5, 6, 7, 11, 20]
    words = [letter * 3 for letter in "abcdefghijklmnopqrstuvwxyz"]
    pairs = [(" ".join(words[:i]), " ".join(words[::-1][:j])) for i, j in product(counts, counts)]
    theirs = Backend.from_str(tokenizer.backend.to_str())
    theirs.enable_truncation(length, strategy="longest_first", direction=side)
    for whole, expected in zip(tokenizer.backend.encode_batch(pairs), theirs.encode_batch(pairs), strict=True):
        if len(whole) > length:
            assert truncate(whole, length - 3, side) == (expected.ids, expected.type_ids)
        else:
            assert whole.ids == expected.ids


def test_a_pair_of_very_long_texts_takes_no_more_than_its_tokens_do(tokenizer: Tokenizer) -> None:
    """The library combines every piece that it cuts off one text with every piece of the other."""
    text = "dog " * 20_000
    start = time.perf_counter()
    (example,) = tokenizer(text, text, max_length=16)
    assert len(example.input_ids) == 16
    assert time.perf_counter() - start < 5  # a tenth of a second, where the library takes many minutes
