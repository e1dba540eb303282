#!/usr/bin/env bash
# cleanlab's label issues depend on the processor: the same labels and probabilities, other counts and rows.
#
# One would guess that find_label_issues, which only averages, counts and sorts float64 numbers, gives the same rows
# everywhere, at least if no two probabilities are equal. What happens (cleanlab 2.9.0, numpy 2.4.6, on a processor with
# AVX2 or AVX512), for 400 random rows of 100 classes without a tie among the probabilities: with the sort that numpy
# chooses there 255 rows are issues, with its plain one 246. Parameters and versions are the same.
# Why: cleanlab/internal/util.py, round_preserving_sum: equal cells of the calibrated joint (many are 1 count of the same
# label) are rounded by the order of `np.argsort(floats - ints)`, whose default kind is not stable and takes another
# order of ties with another instruction set (x86-simd-sort). filter.py, _prune_by_count sorts margins likewise.
# So a list made on a laptop differs from the server's; kind="stable" in both makes them equal everywhere.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check cleanlab==2.9.0 numpy==2.4.6
cat > "$work/issues.py" <<'PYTHON'
import sys
import warnings

import numpy

warnings.simplefilter("ignore")
from cleanlab.filter import find_label_issues

if sys.argv[1] == "stable":
    real = numpy.argsort
    numpy.argsort = lambda values, *more, **options: real(values, *more, kind="stable")
draw = numpy.random.default_rng(0)
labels, probabilities = draw.integers(100, size=400), draw.dirichlet(numpy.full(100, 0.1), size=400)
assert len(numpy.unique(probabilities)) == probabilities.size
print(int(find_label_issues(labels, probabilities, n_jobs=1).sum()))
PYTHON
run() { "$work/venv/bin/python" "$work/issues.py" "$1"; }
plain="X86_V3 X86_V4 AVX2 AVX512F AVX512CD AVX512_SKX AVX512_ICL AVX512_SPR"
quick=$(run as-is) slow=$(NPY_DISABLE_CPU_FEATURES="$plain" run as-is 2>/dev/null)
quick_stable=$(run stable) slow_stable=$(NPY_DISABLE_CPU_FEATURES="$plain" run stable 2>/dev/null)
echo "issues with the processor's best sort: $quick, with the plain one: $slow; stable: $quick_stable, $slow_stable"
if [ "$quick" != "$slow" ] && [ "$quick_stable" = "$slow_stable" ]; then echo "as described"; else echo "CHANGED"; exit 1; fi
