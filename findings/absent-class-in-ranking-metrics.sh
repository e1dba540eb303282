#!/usr/bin/env bash
# A class that the labels lack: four answers of scikit-learn's ranking metrics, by how the same labels are passed.
#
# One would guess that the mean of one-vs-rest scores over classes treats a class without a row in one way: an error, a
# warning with NaN, or left out. What happens (scikit-learn 1.9.0), with four rows of classes 0 and 1, and scores for
# three classes:
# - roc_auc_score(average="macro", labels=[0, 1, 2]) is NaN; average="weighted", with the same warning, leaves the class
#   out and is finite;
# - average_precision_score of the class ids raises ValueError; of the same labels binarized to (N, 3) it warns, counts
#   the class as 0.0 and divides by 3;
# - so an early-stopping loop that watches macro average precision of a small evaluation split gets an exception or a
#   lower number for the same predictions.
# Why: sklearn/metrics/_base.py, _average_binary_score: weights of zero support drop a class, the plain mean keeps its
# NaN; sklearn/metrics/_ranking.py, average_precision_score binarizes ids by the labels present, and then the number
# of columns differs from that of the scores.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check scikit-learn==1.9.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PYTHON'
import math
import sys
import warnings

import numpy
import sklearn
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.preprocessing import label_binarize

labels = numpy.array([0, 1, 0, 1])
scores = numpy.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.3, 0.5, 0.2], [0.1, 0.8, 0.1]])
hot = label_binarize(labels, classes=[0, 1, 2])


def ask(what, compute):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            answer = float(compute())
        except ValueError as error:
            answer = f"ValueError: {str(error).splitlines()[0][:60]}"
    print(f"{what:<48}{answer}  ({len(caught)} warnings)")
    return answer, bool(caught)


auc = dict(multi_class="ovr", labels=[0, 1, 2])
macro = ask("roc_auc macro", lambda: roc_auc_score(labels, scores, average="macro", **auc))
weighted = ask("roc_auc weighted", lambda: roc_auc_score(labels, scores, average="weighted", **auc))
ids = ask("average_precision of ids", lambda: average_precision_score(labels, scores))
binarized = ask("average_precision, binarized", lambda: average_precision_score(hot, scores))
there = average_precision_score(hot[:, :2], scores[:, :2])
same = (
    math.isnan(macro[0]) and macro[1] and isinstance(weighted[0], float) and not math.isnan(weighted[0])
    and isinstance(ids[0], str) and binarized[1] and abs(binarized[0] - there * 2 / 3) < 1e-12
)
print(f"scikit-learn {sklearn.__version__}: {'as described' if same else 'CHANGED'}")
sys.exit(not same)
PYTHON
