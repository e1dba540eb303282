#!/usr/bin/env bash
# McNemar's test with continuity correction, of two models that are equally good.
#
# One would guess p = 1: each model is right alone in equally many rows, and no difference can be smaller than none.
# What happens (statsmodels 0.15.0): mcnemar(exact=False, correction=True) gives p = 0.92 for 50 rows against 50, 0.75
# for 5 against 5 and 0.48 for 1 against 1, while 51 against 50, which do differ, have p = 1: the p-value
# first rises with the difference and then falls. The exact form gives 1, as it should, and R's mcnemar.test leaves
# the correction out where the counts are equal.
# Why: statsmodels/stats/contingency_tables.py, mcnemar: statistic = (|n1 - n2| - corr)**2 / (n1 + n2), so that equal
# counts give (0 - 1)**2: the correction, meant to bring the difference nearer to zero, makes one of nothing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check statsmodels==0.15.0 scipy==1.17.1 pandas==3.1.1
"$work/venv/bin/python" - <<'PYTHON'
import sys

import statsmodels
from statsmodels.stats.contingency_tables import mcnemar


def p_of(first: int, second: int, exact: bool) -> float:
    return float(mcnemar([[0, first], [second, 0]], exact=exact, correction=True).pvalue)


corrected = {pair: round(p_of(*pair, exact=False), 4) for pair in ((1, 1), (5, 5), (50, 50), (51, 50), (52, 50))}
for (first, second), p in corrected.items():
    print(f"{first} rows against {second}: corrected p = {p}, exact p = {p_of(first, second, exact=True):.4f}")
expected = {(1, 1): 0.4795, (5, 5): 0.7518, (50, 50): 0.9203, (51, 50): 1.0, (52, 50): 0.9211}
same = corrected == expected and p_of(50, 50, exact=True) == 1
print(f"statsmodels {statsmodels.__version__}: {'as described' if same else 'CHANGED'}")
sys.exit(not same)
PYTHON
