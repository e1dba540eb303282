#!/usr/bin/env bash
# Dropout in bfloat16 on a CPU changes the mean of what it drops from.
#
# One would guess that dropout divides by 1 - p in float32 and rounds each result once, as it does on a GPU, so that
# the mean is kept but for unbiased rounding. What happens (torch 2.13.0, CPU): the factor itself is rounded to
# bfloat16 before it multiplies. 1/0.9 = 1.1111 becomes 1.109375, so each dropout with p = 0.1 shrinks the mean to
# 0.9984 of what it was; p = 0.3 grows it to 1.0008; only powers of two are exact. torch.native_dropout does the same.
# Multiplying by the Python number 1 / 0.9 instead keeps the mean: mul applies a number in float32. Under autocast a
# float32 activation is spared, a bfloat16 one (all that come from a matrix product) is not, so that a model trained in
# bfloat16 on a CPU meets slightly larger activations when dropout is switched off.
# Why: aten/src/ATen/native/Dropout.cpp. Without a fused kernel (CUDA, XPU) _dropout_impl makes `noise` in the dtype
# of the input, calls bernoulli_(1 - p) and div_(1 - p) on it, and multiplies: 1 / (1 - p) is stored as bfloat16.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PYTHON'
import sys

import torch
from torch.nn.functional import dropout

torch.manual_seed(0)
same = True
for p, factor in ((0.1, 1.109375), (0.3, 1.4296875), (0.5, 2.0)):
    ones = torch.ones(1_000_000, dtype=torch.bfloat16)
    kept = dropout(ones, p).unique().tolist()
    print(f"p {p}: kept ones become {kept[-1]}, mean {(1 - p) * kept[-1]:.6f}; in float32 {1 / (1 - p):.7f}, mean 1")
    same &= kept == [0.0, factor]
x = torch.rand(1_000_000).add_(0.5).bfloat16()  # 0.5 to 1.5, so that nothing is zero by itself
kept_by = {
    "dropout": dropout(x, 0.1),
    "native_dropout": torch.native_dropout(x, 0.1, True)[0],
    "mask times a number": x * torch.rand(x.shape).ge(0.1) * (1 / 0.9),
}
for (name, dropped), mean in zip(kept_by.items(), (0.9984, 0.9984, 1.0), strict=True):
    kept = dropped != 0
    seen = (dropped[kept].double().sum() / x[kept].double().sum() * 0.9).item()
    print(f"{name}: the mean becomes {seen:.5f} of what it was")
    same &= abs(seen - mean) < 2e-4
print(f"torch {torch.__version__}: {'as described' if same else 'CHANGED'}")
sys.exit(not same)
PYTHON
