"""The embedded movie-review snippets, as a dataset that needs no network."""

import csv
import gzip
import hashlib

from minitrain.data.tables.table import Table
from minitrain.storage.hub import demo_reviews_file

HELD_BACK = 1000  # of the embedded reviews, each for validation and for test


def demo_reviews() -> dict[str, Table]:
    """The embedded movie-review snippets as two classes, with a test split that nothing else touches.

    A mean rating above 0 is positive, one below 0 negative; the 37 rated exactly 0 and a repeated text are left
    out. The splits follow the order of the texts' SHA-256, so that they are the same everywhere for ever.
    """
    with gzip.open(demo_reviews_file(), "rt", encoding="utf-8", newline="") as lines:
        rated = {row["text"].strip(): float(row["sentiment"]) for row in csv.DictReader(lines)}
    texts = [text for text, rating in rated.items() if rating != 0.0]
    texts.sort(key=lambda text: hashlib.sha256(text.encode()).digest())
    test, validation, train = texts[:HELD_BACK], texts[HELD_BACK : 2 * HELD_BACK], texts[2 * HELD_BACK :]
    return {
        split: Table(
            source=f"demo reviews, split {split}",
            columns={"text": part, "label": [int(rated[text] > 0) for text in part]},
            class_names={"label": ("negative", "positive")},
        )
        for split, part in (("train", train), ("validation", validation), ("test", test))
    }
