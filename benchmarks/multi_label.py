"""The embedded movie reviews with several labels each: `python benchmarks/multi_label.py FOLDER`.

Writes train and validation rows in three forms: .jsonl with lists of names, .csv with the names in one text
(--label_separator ,), and -columns.csv with a column of 0 and 1 for each label. The labels follow from the review:
its mean rating, from -4 to 4, and its text. Some reviews have none.
"""

import csv
import gzip
import json
import random
import sys
from pathlib import Path

from minitrain.storage.hub import demo_reviews_file

LABELS = ("positive", "strong", "long", "actors", "asks")
PEOPLE = ("actor", "actress", "cast", "star", "performance", "director")


def labels_of(text: str, rating: float) -> list[str]:
    """The labels of a review, in the order of `LABELS`."""
    has = (
        rating > 0.5,
        abs(rating) > 2,
        len(text.split()) > 24,
        any(word in text.lower() for word in PEOPLE),
        "?" in text,
    )
    return [name for name, is_there in zip(LABELS, has, strict=True) if is_there]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(demo_reviews_file(), "rt", encoding="utf-8", newline="") as file:
        rated = [(row["text"], float(row["sentiment"])) for row in csv.DictReader(file)]
    random.Random(0).shuffle(rated)  # they come sorted
    rows = [(text, labels_of(text, rating)) for text, rating in rated]
    for name, part in (("train", rows[500:3500]), ("validation", rows[:500])):
        lines = [json.dumps({"text": text, "label": labels}, ensure_ascii=False) for text, labels in part]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *((text, ",".join(labels)) for text, labels in part)])
        with (folder / f"{name}-columns.csv").open("w", encoding="utf-8", newline="") as file:
            flags = ((text, *(int(label in labels) for label in LABELS)) for text, labels in part)
            csv.writer(file).writerows([("text", *LABELS), *flags])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
