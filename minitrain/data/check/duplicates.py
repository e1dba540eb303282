"""The same text twice: within a split, in two splits, in the other order, and with two labels."""

import statistics
from collections.abc import Sequence
from typing import Any

from minitrain.data.check.corpus import Corpus, Finding
from minitrain.data.check.keys import first_rows, groups_of

REPEATED = (
    "Repeated rows weigh more in training and in metrics; with --folds or --eval_fraction a copy may be trained on "
    "and the other scored."
)
LEAKED = "The metrics are too good: they score what the model has been shown."
SAME_TEXT = "the same text but for case, blanks and Unicode's form"


def duplicates(corpus: Corpus) -> list[Finding]:
    """Findings of rows with the same text."""
    first = first_rows(corpus.keys)
    groups = groups_of(first)
    found = [*_overlap(corpus, first), *_conflicts(corpus, list(groups.values())), *_repeated(corpus)]
    return found + _swapped(corpus) if corpus.unit == "pair" else found


def _overlap(corpus: Corpus, first: Sequence[int]) -> list[Finding]:
    others = range(corpus.train.stop, len(corpus))
    rows = [row for row in others if first[row] in corpus.train]
    if not rows:
        return []
    return [
        Finding(
            name="split_overlap",
            rows=rows,
            of=len(others),
            what=f"Rows of another split have the text of a training row ({SAME_TEXT}).",
            effect=LEAKED,
            way_out="Leave them out of one of the two, or give one file: "
            "--train_file ALL.csv --eval_fraction 0.1, after dropping duplicates.",
            twins={row: first[row] for row in rows},
        )
    ]


def _repeated(corpus: Corpus) -> list[Finding]:
    twins: dict[int, int] = {}
    for rows in corpus.rows_of.values():
        own = first_rows(corpus.keys[rows.start : rows.stop])
        twins |= {rows[i]: rows[other] for i, other in enumerate(own) if other != i}
    if not twins:
        return []
    return [
        Finding(
            name="duplicates",
            rows=list(twins),
            of=len(corpus),
            what=f"Rows repeat an earlier row of their split ({SAME_TEXT}).",
            effect=REPEATED,
            way_out=f"Leave them out{_command(corpus)}",
            twins=twins,
        )
    ]


def _command(corpus: Corpus) -> str:
    """The end of a sentence: for a CSV file a command that drops rows whose texts are equal to the letter."""
    source = corpus.tables["train"].source
    if not source.endswith((".csv", ".csv.gz")) or "'" in source + "".join(corpus.text_columns):
        return "."
    columns = list(corpus.text_columns)
    return (
        f"; those equal to the letter:\n      python -c \"import pandas; pandas.read_csv('{source}', dtype=str, "
        f"keep_default_na=False).drop_duplicates({columns}).to_csv('unique.csv', index=False)\""
    )


def _swapped(corpus: Corpus) -> list[Finding]:
    places: dict[int, int] = {}
    twins = {}
    for row, (key, other) in enumerate(zip(corpus.keys, corpus.swapped_keys, strict=True)):
        if key is None or other is None or key == other:
            continue
        if other in places:
            twins[row] = places[other]
        places.setdefault(key, row)
    if not twins:
        return []
    return [
        Finding(
            name="swapped_pairs",
            rows=list(twins),
            of=len(corpus),
            what="Pairs stand here in the other order, too.",
            effect="If the order means nothing, they are duplicates, also across splits; if it does, this is as it "
            "should be.",
            way_out="If the order means nothing, leave one of the two out.",
            twins=twins,
        )
    ]


def _conflicts(corpus: Corpus, groups: list[list[int]]) -> list[Finding]:
    if corpus.labels is None:
        return []
    apart = _one_deviation(corpus) if corpus.has_scores else None
    pairs, rest = [], []
    for rows in groups:
        rows = [row for row in rows if corpus.targets[row] is not None]
        other = different(rows, corpus.targets, apart)
        if other is not None:
            pairs.append(other)
            rest += [row for row in rows if row != other[1]]
    if not pairs:
        return []
    how = "of another label" if apart is None else f"whose score is {apart:.2g}, a standard deviation, away or more"
    return [
        Finding(
            name="conflicting_labels",
            rows=[*(two for _, two in pairs), *rest],
            of=len(corpus),
            what=f"Rows share their text with rows {how} ({SAME_TEXT}).",
            effect="The model cannot be right about both; it learns from them to be unsure.",
            way_out="Look at them and keep the right label; train.py --folds 5 lists the labels that are probably "
            "wrong.",
            twins={two: one for one, two in pairs},
        )
    ]


def different(rows: Sequence[int], targets: Sequence[Any], apart: float | None) -> tuple[int, int] | None:
    """Two of these rows with different labels, or scores that far apart; None if there are none.

    >>> different([4, 7, 9], {4: 0, 7: 0, 9: 1}, None), different([4, 7], {4: 0.5, 7: 0.75}, 0.5)
    ((4, 9), None)
    """
    if apart is not None and rows:
        low, high = (choose(rows, key=targets.__getitem__) for choose in (min, max))
        return (min(low, high), max(low, high)) if targets[high] - targets[low] >= apart > 0 else None
    return next(((rows[0], row) for row in rows if targets[row] != targets[rows[0]]), None)


def _one_deviation(corpus: Corpus) -> float:
    known = [corpus.targets[row] for row in corpus.train if corpus.targets[row] is not None]
    return statistics.pstdev(known) if known else 0.0
