"""The facts about the data in results.json."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from test_main import named_reviews, write_csv

from minitrain import load_splits, load_tokenizer
from minitrain.run.data_facts import BARS, data_facts, histogram


@given(st.lists(st.integers(1, 9000), min_size=1, max_size=200))
def test_histogram_counts_every_length_in_its_bar(lengths: list[int]) -> None:
    found = histogram(lengths)
    width, counts = found["width"], found["counts"]
    assert len(counts) <= BARS
    for bar, count in enumerate(counts):
        assert count == sum(bar * width < length <= (bar + 1) * width for length in lengths)
    assert sum(counts) == len(lengths)


def test_facts_are_those_of_the_rows(place: Path) -> None:
    write_csv(place / "eval.csv", *named_reviews(7))
    tokenizer = load_tokenizer(place / "tiny")
    files = {"train_file": str(place / "train.csv"), "eval_file": str(place / "eval.csv")}
    splits = load_splits(tokenizer=tokenizer, max_length=12, **files)
    facts = data_facts(splits)
    assert list(facts) == list(splits.all)
    for name, split in splits.all.items():
        assert facts[name]["examples"] == len(split)
        assert sum(facts[name]["labels"].values()) == len(split)
        assert facts[name]["longest"] == max(split.lengths)
        assert facts[name]["truncated"] == split.truncated
