"""The parts of the check of data, against other libraries and on rows made for them."""

import random
import time
import unicodedata
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from minitrain.config.data_config import DataConfig
from minitrain.data.check.corpus import Corpus, Finding
from minitrain.data.check.drift import differs, distance
from minitrain.data.check.duplicates import duplicates
from minitrain.data.check.labels import label_findings
from minitrain.data.check.leakage import auc, leakage
from minitrain.data.check.near_duplicates import SIMILAR, common_share, near_duplicates
from minitrain.data.check.read import corpus_of
from minitrain.data.check.scripts import BLOCKS, NAMES, main_scripts, script_of
from minitrain.data.check.words import hashed_words, words_of
from minitrain.data.splits import Tables
from minitrain.data.tables.demo import demo_reviews
from minitrain.data.tables.table import Table

REVIEWS = [text for text in demo_reviews()["train"].columns["text"] if 10 <= len(words_of(text)) <= 40]


def corpus(texts: list[str], labels: list[Any] | None = None, others: list[str] | None = None) -> Corpus:
    by_split = {"train": texts} | ({} if others is None else {"validation": others})
    tables = {
        name: Table(
            source=name,
            columns={"text": part} | ({"label": labels[: len(part)]} if labels else {}),
            class_names={},
        )
        for name, part in by_split.items()
    }
    return corpus_of(Tables(by_split=tables, subset=None, asked_for_test=False), DataConfig(dataset="rows"))


def rows_of(findings: list[Finding], name: str) -> list[int]:
    return [row for finding in findings if finding.name == name for row in finding.rows]


def one_word_changed(words: list[str], draw: random.Random) -> list[str]:
    at = draw.randrange(len(words))
    return [*words[:at], "zebra", *words[at + 1 :]]


def one_word_more(words: list[str], draw: random.Random) -> list[str]:
    at = draw.randrange(len(words))
    return [*words[:at], "zebra", *words[at:]]


def one_word_less(words: list[str], draw: random.Random) -> list[str]:
    at = draw.randrange(len(words))
    return words[:at] + words[at + 1 :]


def other_punctuation(words: list[str], draw: random.Random) -> list[str]:
    return [word + draw.choice(("", "", ",", " -", "!")) for word in words]


def a_link_behind(words: list[str], draw: random.Random) -> list[str]:
    return [*words, f"t.co/{draw.randrange(10**6)}"] if len(words) > 14 else [*words, "pic"]


@pytest.mark.parametrize("edit", [one_word_changed, one_word_more, one_word_less, other_punctuation, a_link_behind])
def test_of_rows_with_a_small_edit_nearly_all_are_found(edit: Callable[..., list[str]]) -> None:
    draw = random.Random(0)
    texts = REVIEWS[:1500]
    edited = [" ".join(edit(text.split(), draw)) for text in texts]
    found = near_duplicates(corpus(texts, others=edited))
    near = {
        1500 + i
        for i, (one, other) in enumerate(zip(texts, edited, strict=True))
        if common_share(words_of(one), words_of(other)) > SIMILAR
    } - set(rows_of(duplicates(corpus(texts, others=edited)), "split_overlap"))
    assert len(near) > 750
    got = set(rows_of(found, "near_split_overlap"))
    assert len(near & got) >= 0.99 * len(near)
    assert got <= near  # all that is reported is as near as is said


def test_what_is_said_of_a_pair_is_so() -> None:
    texts = REVIEWS[:300]
    (finding,) = near_duplicates(corpus([*texts, " ".join(["zebra", *texts[7].split()[1:]])]))
    assert finding.rows == [300] and finding.twins == {300: 7}
    share = common_share(words_of(texts[7]), words_of(f"zebra {texts[7].split(None, 1)[1]}"))
    assert finding.notes == {300: f"{share:.0%}"}


def test_a_row_is_near_to_those_of_its_own_split_or_to_training_rows() -> None:
    draw, text = random.Random(1), REVIEWS[5]
    found = near_duplicates(corpus(REVIEWS[100:200], others=[text, " ".join(one_word_more(text.split(), draw))]))
    assert [finding.name for finding in found] == ["near_duplicates"] and found[0].rows == [101]


@pytest.mark.parametrize("kind", ["one text", "one start", "one template"])
def test_rows_that_are_much_alike_take_time_by_their_number(kind: str) -> None:
    def seconds(count: int) -> float:
        start = REVIEWS[0] + " " + REVIEWS[1]
        texts = {
            "one text": [start] * count,
            "one start": [f"{start} {start} {REVIEWS[i % 3000 + 2]} {i}" for i in range(count)],
            "one template": [f"please send the order number {i} to the old address in town" for i in range(count)],
        }[kind]
        rows = corpus(texts)
        began = time.process_time()
        found = near_duplicates(rows)
        assert (kind == "one template") == (len(rows_of(found, "near_duplicates")) > count - 2)
        return time.process_time() - began

    seconds(500)
    assert seconds(8000) < 20 * max(seconds(1000), 0.02)


def test_words_are_hashed_alike_wherever_they_stand() -> None:
    texts = ["The film, the FILM!", "", "été 好的 x_y", "\0 a\0b", "w" * 30_000, "film"]
    hashes, counts = hashed_words(texts)
    assert counts.tolist() == [len(words_of(text)) for text in texts] == [4, 0, 5, 2, 1, 1]
    words = [word for text in texts for word in words_of(text)]
    by_word: dict[bytes, set[int]] = {}
    for word, value in zip(words, hashes.tolist(), strict=True):
        by_word.setdefault(word, set()).add(value)
    assert all(len(values) == 1 for values in by_word.values())
    assert len(set(hashes.tolist())) == len(by_word) == 10


def test_no_two_words_of_the_reviews_share_a_hash() -> None:
    hashes, _ = hashed_words(REVIEWS)
    assert len(np.unique(hashes)) == len({word for text in REVIEWS for word in words_of(text)})


def test_the_script_of_a_letter_is_what_unicode_calls_it() -> None:
    others = {"Han or kana": ("CJK", "HIRAGANA", "KATAKANA"), "Odia": ("ORIYA",), "Greek": ("GREEK", "COPTIC")}
    wrong = []
    for code in range(0x20000):
        letter = chr(code)
        if unicodedata.category(letter) in ("Lu", "Ll", "Lo") and letter not in "ªº" and script_of(letter):
            starts = others.get(script_of(letter), (script_of(letter).upper(),))
            name = unicodedata.name(letter, "").removeprefix("FULLWIDTH ").removeprefix("HALFWIDTH ")
            wrong += [] if name.startswith(starts) else [(script_of(letter), name)]
    assert wrong == []
    assert {script_of(letter) for letter in "aя好ひé한אع"} >= {"Latin", "Cyrillic", "Han or kana", "Hangul"}


def test_a_text_is_in_the_script_of_most_of_its_letters() -> None:
    texts = ["plain", "123 !", "", "привет ok", "naïve", "ok это", "好ok", "a" * 9 + "я" * 9 + "я"]
    names = [NAMES[number] for number in main_scripts(texts)]
    assert names == ["Latin", "", "", "Cyrillic", "Latin", "Cyrillic", "Latin", "Cyrillic"]
    assert len(BLOCKS) == len(set(NAMES)) - 1


def test_counts_differ_by_the_chi_squared_test() -> None:
    draw = np.random.default_rng(0)
    decided = []
    for _ in range(400):
        classes = int(draw.integers(2, 12))
        shares = draw.dirichlet(np.full(classes, 5.0))
        tilted = shares * draw.uniform(0.75, 1.35, classes)
        one, other = draw.multinomial(3000, shares), draw.multinomial(800, tilted / tilted.sum())
        p = stats.chi2_contingency(np.array([one, other]), correction=False).pvalue
        if not 0.0008 < p < 0.00125:  # the quantile is within a percent
            decided.append(p < 0.001)
            assert differs(dict(enumerate(one.tolist())), dict(enumerate(other.tolist()))) == (p < 0.001)
    assert 50 < sum(decided) < 350


def test_the_distance_is_that_of_kolmogorov_and_smirnov() -> None:
    draw = np.random.default_rng(0)
    one, other = draw.integers(0, 40, 300).tolist(), draw.integers(8, 50, 200).tolist()
    assert distance(one, other) == pytest.approx(stats.ks_2samp(one, other).statistic, abs=1e-15)
    assert distance(one, one) is None and distance(one[:5], other) is None
    assert distance(one[:30], [value + 8 for value in one[:30]]) is None  # of so few, chance


def test_the_chance_to_be_longer_is_the_area_under_the_curve() -> None:
    draw = np.random.default_rng(0)
    values, positive = draw.integers(0, 9, 200).tolist(), (draw.random(200) < 0.3).tolist()
    assert auc(values, positive) == pytest.approx(roc_auc_score(positive, values), abs=1e-12)


@pytest.mark.parametrize(
    ("names", "joined"),
    [
        (("positive", "postive"), True),
        (("positive", "positiv"), True),
        (("Positive", " positive"), True),
        (("class_10", "class_11"), False),
        (("yes", "yet"), False),
        (("entailment", "contradiction"), False),
    ],
)
def test_a_rare_label_that_is_nearly_a_frequent_one_may_be_a_typing_error(
    names: tuple[str, str], joined: bool
) -> None:
    labels = ["other name", names[0]] * 99 + [names[1]] * 2
    found = label_findings(corpus(REVIEWS[:200], labels))
    assert [finding.name for finding in found if finding.name == "label_spelling"] == ["label_spelling"] * joined
    assert rows_of(found, "label_spelling") == [198, 199] * joined


def test_labels_as_frequent_as_each_other_are_no_typing_errors() -> None:
    assert label_findings(corpus(REVIEWS[:200], ["regular", "iregular"] * 100)) == []


def test_topics_named_in_some_texts_are_no_leak() -> None:
    topics = ("film", "music", "story", "acting")
    draw = random.Random(0)
    labels = [draw.choice(topics) for _ in REVIEWS[:1000]]
    texts = [
        f"{text} {label}" if i % 4 == 0 else text
        for i, (text, label) in enumerate(zip(REVIEWS[:1000], labels, strict=True))
    ]
    assert leakage(corpus(texts, labels)) == []


def test_a_common_class_is_not_told_by_common_words() -> None:
    labels = ["rare" if i % 100 == 7 else "common" for i in range(2500)]
    assert leakage(corpus(REVIEWS[:2500], labels)) == []
