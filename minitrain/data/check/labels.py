"""Labels that are spelled in two ways, classes with hardly a row, and rows sorted by label."""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise

from minitrain.config.label_map import as_flag
from minitrain.data.check.corpus import Corpus, Finding
from minitrain.data.labels.notes import alike_names, plain, rare_classes, usual
from minitrain.data.labels.values import alike

TYPO = 0.85  # difflib ratio from which two names may be one
RARER = 10  # times as rare as the name that may be meant
SORTED = 0.5  # of the changes of label that random order has


def label_findings(corpus: Corpus) -> list[Finding]:
    """Findings about the labels of the training rows."""
    if corpus.labels is None:
        return []
    counts = class_counts(corpus, corpus.train)
    return [*_spelling(corpus, counts), *_rare(corpus, counts), *_sorted(corpus)]


def class_counts(corpus: Corpus, rows: range) -> Counter[int]:
    """How many of these rows have each class or label; empty for scores."""
    if corpus.has_scores:
        return Counter()
    known = (target for target in corpus.targets[rows.start : rows.stop] if target is not None)
    return Counter(known) if corpus.has_classes else Counter(chain.from_iterable(known))


def rows_with(corpus: Corpus, classes: set[int]) -> list[int]:
    """The training rows with one of these classes or labels."""
    if corpus.has_classes:
        return [row for row in corpus.train if corpus.targets[row] in classes]
    return [row for row in corpus.train if classes & set(corpus.targets[row] or ())]


def _rare(corpus: Corpus, counts: Counter[int]) -> list[Finding]:
    rare = rare_classes(counts, len(corpus.names), len(corpus.train))
    if not rare:
        return []
    return [
        Finding(
            name="rare_class",
            rows=rows_with(corpus, set(rare)),
            of=len(corpus.train),
            what="Classes with very few training rows: "
            + named_counts(corpus, {i: counts[i] for i in sorted(rare, key=lambda i: counts[i])}),
            effect="The model hardly learns them, and their metrics are guesses.",
            way_out="Collect more rows, join the class with another by --label_map, or weight it: "
            "--class_weights balanced.",
        )
    ]


def named_counts(corpus: Corpus, counts: Mapping[int, int]) -> str:
    """'a' 3, 'b' 5 and 7 more."""
    more = f" and {len(counts) - 5} more" if len(counts) > 5 else ""
    return ", ".join(f"'{plain(corpus.names[i])}' {count}" for i, count in list(counts.items())[:5]) + more


def _spelling(corpus: Corpus, counts: Counter[int]) -> list[Finding]:
    names = corpus.names
    pairs: dict[int, int] = {}
    for group in alike_names(names):
        chosen = usual(group, names, counts)
        pairs |= {i: chosen for i in group if i != chosen}
    pairs |= {i: other for i, other in _typos(names, counts).items() if i not in pairs}
    if not pairs:
        return []
    shown = ", ".join(f"'{plain(names[i])}' and '{plain(names[other])}'" for i, other in list(pairs.items())[:5])
    way = as_flag({names[i]: names[other] for i, other in pairs.items()})
    return [
        Finding(
            name="label_spelling",
            rows=rows_with(corpus, set(pairs)),
            of=len(corpus.train),
            what=f"Classes whose names look like one: {shown}{' ...' if len(pairs) > 5 else ''}.",
            effect="Each becomes a class of its own, and the model has to tell equals apart.",
            way_out=f"If they are one, join them: {way}",
        )
    ]


def _typos(names: Sequence[str], counts: Mapping[int, int]) -> dict[int, int]:
    """Rare class -> the frequent one whose name differs by a letter or two, digits aside."""
    found = {}
    forms = {i: alike(name) for i, name in enumerate(names) if counts.get(i) and len(name) >= 5}
    frequent = sorted(forms, key=lambda i: -counts[i])[:200]
    for i in [i for i in forms if counts[i] * RARER <= counts[frequent[0]]][:1000]:
        for other in frequent:
            if counts[i] * RARER > counts[other]:
                break
            one, two = forms[i], forms[other]
            if abs(len(one) - len(two)) > 2 or _digits(one) != _digits(two):
                continue
            match = difflib.SequenceMatcher(None, one, two, autojunk=False)
            if match.quick_ratio() >= TYPO and match.ratio() >= TYPO:
                found[i] = other
                break
    return found


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


def _sorted(corpus: Corpus) -> list[Finding]:
    """Whether neighbours have the same label far more often than by chance."""
    known = [corpus.targets[row] for row in corpus.train if corpus.targets[row] is not None]
    if len(known) < 50:
        return []
    if corpus.has_scores:
        mixed = sorted(range(len(known)), key=lambda i: hash((i, 0.5)))  # the same order every time
        steps = sum(abs(a - b) for a, b in pairwise(known))
        expected = sum(abs(known[a] - known[b]) for a, b in pairwise(mixed))
    else:
        steps = sum(a != b for a, b in pairwise(known))
        shares = [count / len(known) for count in Counter(known).values()]
        expected = (len(known) - 1) * (1 - sum(share * share for share in shares))
    if expected < 10 or steps >= SORTED * expected:
        return []
    changes = f"from row to row the label changes {steps:.0f} times, in random order about {expected:.0f} times"
    return [
        Finding(
            name="sorted_labels",
            rows=corpus.train,
            of=len(corpus.train),
            what=f"Training rows are sorted by label: {'scores change little' if corpus.has_scores else changes}.",
            effect="train.py shuffles, so it does no harm here; who takes the first rows gets some classes only.",
            way_out="Leave --sample at random, as it is by default.",
        )
    ]
