#!/usr/bin/env bash
# Which file of a folder is in which split, when `datasets.load_dataset(FOLDER)` decides by the names.
#
# One would guess that each file goes into one split, that no file is left out in silence, and that capitals do not
# matter. What happens (datasets 5.2.0, 2026):
#   train.csv + train_dev.csv            train_dev.csv is in train AND in validation: the model is chosen on rows
#                                        that it was trained on
#   TRAIN.csv + TEST.csv                 no capital matches, so both are one split "train"
#   data/train.csv + test/train.csv      data/train.csv is in no split: names of folders win over names of files
#   train.csv + contest.csv              contest.csv is in no split, without a word
#   training.csv + eval.csv              "eval" and "evaluation" mean the split test, not validation
# Why: datasets/data_files.py. Patterns of each split are tried on their own (SPLIT_KEYWORDS between NON_WORDS_CHARS,
# case-sensitive), for names of folders before names of files; the first list of patterns that matches anything wins,
# and what it does not match is dropped. Nothing compares the splits with each other or with the folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check datasets==5.2.0 pandas==3.0.0
HF_HOME="$work/home" "$work/venv/bin/python" - "$work" <<'PYTHON'
import sys
from pathlib import Path

import datasets

datasets.disable_progress_bars()
EXPECTED = {
    ("train.csv", "train_dev.csv"): {"train": ["train.csv", "train_dev.csv"], "validation": ["train_dev.csv"]},
    ("TRAIN.csv", "TEST.csv"): {"train": ["TEST.csv", "TRAIN.csv"]},
    ("data/train.csv", "test/train.csv"): {"test": ["test/train.csv"]},
    ("train.csv", "contest.csv"): {"train": ["train.csv"]},
    ("training.csv", "eval.csv"): {"train": ["training.csv"], "test": ["eval.csv"]},
}
same = True
for number, (names, expected) in enumerate(EXPECTED.items()):
    folder = Path(sys.argv[1], str(number))
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"text,label\n{name},0\n{name},1\n")
    loaded = datasets.load_dataset(str(folder))
    seen = {split: sorted(set(rows["text"])) for split, rows in loaded.items()}
    print(f"{' + '.join(names)}: {seen}")
    same &= seen == expected
print(f"datasets {datasets.__version__}: {'as described' if same else 'CHANGED'}")
sys.exit(not same)
PYTHON
