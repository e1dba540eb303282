"""The embedded movie reviews as a problem of three classes: `python benchmarks/three_classes.py FOLDER`.

Writes train.csv and validation.csv with the columns text and label. The mean of a review's ratings, from -4 to 4,
makes it negative below -1, positive above 1, and neutral between.
"""

import csv
import gzip
import random
import sys
from pathlib import Path

from minitrain.storage.hub import demo_reviews_file


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(demo_reviews_file(), "rt", encoding="utf-8", newline="") as file:
        rated = [(row["text"], float(row["sentiment"])) for row in csv.DictReader(file)]
    random.Random(0).shuffle(rated)  # they come sorted
    rows = [(text, "negative" if score < -1 else "positive" if score > 1 else "neutral") for text, score in rated]
    for name, part in (("train.csv", rows[500:3500]), ("validation.csv", rows[:500])):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *part])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
