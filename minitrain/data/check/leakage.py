"""What gives a label away without the meaning of the text: the label's name, one word, the length, a column.

Looked for in a sample of the training rows, evenly spaced; what is found there is then counted in all of them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from minitrain.data.check.columns import values_of
from minitrain.data.check.corpus import Corpus, Finding
from minitrain.data.check.words import words_of
from minitrain.data.labels.notes import plain
from minitrain.data.tables.table import ABSENT

SAMPLE = 50_000  # rows
FEWEST = 20  # rows of a class
CERTAIN = 0.98  # of the rows with a word have the class
COVERED = 0.8  # of the class's rows have the word
NAMED = 0.5  # of the rows name exactly one class
APART = 0.97  # chance that a text of the class is longer than one of the others, or shorter
COMPARISONS = 10_000_000  # of a text with a name
EFFECT = "A model learns that alone: the metrics are too good, and nothing of it holds for texts without it."


def leakage(corpus: Corpus) -> list[Finding]:
    """Findings of what gives a class away; none for scores, several labels a row, or few rows."""
    if not corpus.has_classes:
        return []
    known = [row for row in corpus.train if corpus.targets[row] is not None]
    step = -(-len(known) // SAMPLE) or 1
    sample = known[::step]
    sizes = Counter(corpus.targets[row] for row in sample)
    if len(sizes) < 2:
        return []
    found = [*_named(corpus, sample, known), *_lengths(corpus, sample, sizes), *_columns(corpus, sample, sizes)]
    if not any(finding.name == "label_in_text" for finding in found):
        found += _words(corpus, sample, sizes, known)
    return found


def _tokens(corpus: Corpus, row: int) -> set[str]:
    """The words of a row, and whatever stands between blanks, such as :)."""
    texts = [column[row] for column in corpus.texts]
    words = {word.decode("utf-8") for text in texts for word in words_of(text)}
    return words.union(*(text[:20_000].lower().split() for text in texts))


def _words(corpus: Corpus, sample: Sequence[int], sizes: Mapping[int, int], known: Sequence[int]) -> list[Finding]:
    counts: dict[str, Counter[int]] = {}
    for row in sample:
        for word in _tokens(corpus, row):
            counts.setdefault(word, Counter())[corpus.targets[row]] += 1
    telling: dict[int, tuple[str, float, float]] = {}
    for word, by_class in counts.items():
        label, count = by_class.most_common(1)[0]
        certain, covered = count / by_class.total(), count / sizes[label]
        if count < FEWEST or covered < COVERED or certain < _certain(sizes[label] / len(sample)):
            continue
        telling[label] = max(
            telling.get(label, ("", 0.0, 0.0)), (word, certain, covered), key=lambda each: each[1:]
        )
    if not telling:
        return []
    shown = "; ".join(
        f"'{plain(word)}' stands in {covered:.0%} of '{plain(corpus.names[label])}', and {certain:.1%} of the rows "
        "with it have that class"
        for label, (word, certain, covered) in list(telling.items())[:5]
    )
    words = {word for word, *_ in telling.values()}
    rows = [row for row in known if words & _tokens(corpus, row)]
    way = "Take it out of the texts, unless texts to be classified have it too."
    what = f"One word tells the class: {shown}{' ...' if len(telling) > 5 else ''}."
    return [Finding(name="telling_word", rows=rows, of=len(known), what=what, effect=EFFECT, way_out=way)]


def _certain(share: float) -> float:
    """The precision that is asked of a sign of a class with this share of the rows."""
    return max(CERTAIN, 1 - (1 - share) / 10)


def _named(corpus: Corpus, sample: Sequence[int], known: Sequence[int]) -> list[Finding]:
    """Whether texts name exactly one class, their own."""
    names = {i: b" ".join(words_of(name)) for i, name in enumerate(corpus.names)}
    names = {i: b" " + name + b" " for i, name in names.items() if name}
    few = sample[:: -(-len(sample) * len(names) // COMPARISONS) or 1]
    right = [label == corpus.targets[row] for row, label in _naming(corpus, few, names)]
    base = max(Counter(corpus.targets[row] for row in few).values()) / len(few)
    if len(right) < max(FEWEST, NAMED * len(few)) or sum(right) < _certain(base) * len(right):
        return []
    rows = [row for row, _ in _naming(corpus, known, names)] if few is sample or len(few) == len(sample) else few
    return [
        Finding(
            name="label_in_text",
            rows=rows,
            of=len(known),
            what=f"{len(right) / len(few):.0%} of the texts name exactly one class, which is theirs in "
            f"{sum(right) / len(right):.1%}.",
            effect=EFFECT,
            way_out="Take the names out of the texts, unless texts to be classified name them too.",
            at_least=rows is few,
        )
    ]


def _naming(corpus: Corpus, rows: Sequence[int], names: Mapping[int, bytes]) -> Iterator[tuple[int, int]]:
    """The rows that name exactly one class, with it; a name inside of another found does not count."""
    for row in rows:
        text = b" " + b"  ".join(b" ".join(words_of(column[row])) for column in corpus.texts) + b" "
        found = [i for i, name in names.items() if name in text]
        if len(found) > 1:
            found = [i for i in found if not any(names[i] in names[j] for j in found if j != i)]
        if len(found) == 1:
            yield row, found[0]


def _lengths(corpus: Corpus, sample: Sequence[int], sizes: Mapping[int, int]) -> list[Finding]:
    lengths = [sum(len(column[row]) for column in corpus.texts) for row in sample]
    told = {}
    for label, count in list(sizes.items())[:200]:
        if FEWEST <= count <= len(sample) - FEWEST:
            chance = auc(lengths, [corpus.targets[row] == label for row in sample])
            if max(chance, 1 - chance) >= APART:
                told[label] = chance
    if not told:
        return []
    shown = ", ".join(
        f"those of '{plain(corpus.names[label])}' are {'longer' if chance > 0.5 else 'shorter'} than others in "
        f"{max(chance, 1 - chance):.1%} of all comparisons"
        for label, chance in list(told.items())[:3]
    )
    rows = [row for row in corpus.train if corpus.targets[row] in told]
    way = "Look where the texts of each class are from; cut or choose them alike."
    what = f"The length of a text tells its class: {shown}."
    return [Finding(name="telling_length", rows=rows, of=len(corpus.train), what=what, effect=EFFECT, way_out=way)]


def auc(values: Sequence[float], positive: Sequence[bool]) -> float:
    """The chance that a positive has a larger value than a negative; equal values count half.

    >>> auc([1, 2, 3, 3], [False, False, True, False])
    0.8333333333333334
    """
    import numpy as np

    own, numbers = np.asarray(positive), np.asarray(values, float)
    ones, others = np.sort(numbers[own]), np.sort(numbers[~own])
    below = np.searchsorted(others, ones, side="left") + np.searchsorted(others, ones, side="right")
    return float(below.sum() / 2 / (len(ones) * len(others)))


def _columns(corpus: Corpus, sample: Sequence[int], sizes: Mapping[int, int]) -> list[Finding]:
    """Whether another column says the class: each of its values, which are few, has one."""
    table, found = corpus.tables["train"], {}
    targets = [corpus.targets[row] for row in sample]
    base = max(sizes.values()) / len(sample)
    own = {*corpus.text_columns, corpus.label_column}
    for name in [name for name in table.columns if name not in own][:50]:
        values = values_of(table, name)
        picked = [values[row] for row in sample]
        if any(type(value) not in (str, int, float, bool) for value in picked if not _absent(value)):
            continue
        by_value: dict[Any, Counter[int]] = {}
        for value, target in zip(picked, targets, strict=True):
            by_value.setdefault(None if _absent(value) else value, Counter())[target] += 1
        right = sum(max(counter.values()) for counter in by_value.values()) / len(sample)
        if 2 <= len(by_value) <= len(sample) / 10 and right >= _certain(base):
            found[name] = right
    if not found:
        return []
    shown = ", ".join(f"{plain(name)!r} ({right:.1%})" for name, right in found.items())
    return [
        Finding(
            name="telling_column",
            rows=corpus.train,
            of=len(corpus.train),
            what=f"Another column tells the class of nearly all rows: {shown}.",
            effect="The model does not read it. If it is where a text is from, the texts may give that away, and "
            "the model learns the source instead of the class.",
            way_out="If it is the label by another name, do nothing; else mix the classes in each source.",
        )
    ]


def _absent(value: Any) -> bool:
    return value is None or value is ABSENT or value != value
