#!/usr/bin/env bash
# The mean of a weighted cross-entropy, and the gradient of a mean binary one, are not those of the sum divided.
#
# A loop that accumulates gradients adds up sums and divides once by a count. One would guess that for a single batch
# this gives the bits of reduction="mean", as it does for plain cross-entropy. What happens (torch 2.13.0, CPU):
# - CrossEntropyLoss(weight=w): the sum divided by w[labels].sum() has another last bit in more than a third of random
#   batches. The kernel adds up the weights of the labels itself, in another order; torch.ops.aten.nll_loss_forward
#   returns its total, and dividing by that gives the bits of the mean.
# - BCEWithLogitsLoss: the losses are equal, but nearly every gradient differs: the backward pass of a mean divides by
#   the number of elements, that of sum() / n multiplies by the rounded 1 / n. (sum.double() / n) does not help, as the
#   gradient is rounded to float32 before it is multiplied; the mean, multiplied by n in float64, does.
# Why: aten/src/ATen/native/LossNLL.cpp adds up losses and weights block by block (cascade sum), weights[labels].sum()
# in another order; binary_cross_entropy_with_logits_backward, torch/csrc/autograd/FunctionsManual.cpp, multiplies
# (sigmoid - target) by the incoming gradient and for a mean divides by the number of elements last.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PYTHON'
import sys

import torch
import torch.nn.functional as F

torch.manual_seed(0)
DRAWS = 400
weighted = by_kernel = losses = gradients = by_double = 0
for _ in range(DRAWS):
    rows, classes = int(torch.randint(5, 64, ())), int(torch.randint(2, 8, ()))
    logits, weight = torch.randn(rows, classes), torch.rand(classes) + 0.1
    labels = torch.randint(0, classes, (rows,))
    mean = F.cross_entropy(logits, labels, weight)
    total = F.cross_entropy(logits, labels, weight, reduction="sum")
    weighted += not torch.equal(mean, total / weight[labels].sum())
    nll, count = torch.ops.aten.nll_loss_forward(logits.log_softmax(-1), labels, weight, 2, -100)
    by_kernel += torch.equal(mean, nll / count)

    hot, found = torch.randint(0, 2, (rows, classes)).float(), []
    for reduce in ("mean", "sum", "double"):
        x = logits.clone().requires_grad_()
        loss = F.binary_cross_entropy_with_logits(x, hot, reduction="sum" if reduce == "sum" else "mean")
        loss = loss / hot.numel() if reduce == "sum" else loss
        loss = loss.double() * hot.numel() / hot.numel() if reduce == "double" else loss
        loss.backward()
        found.append((loss.float().detach(), x.grad))
    losses += torch.equal(found[0][0], found[1][0])
    gradients += not torch.equal(found[0][1], found[1][1])
    by_double += torch.equal(found[0][1], found[2][1])
print(f"weighted cross-entropy: sum / weights differs from the mean in {weighted} of {DRAWS} batches")
print(f"  sum / the kernel's own total equals it in {by_kernel}")
print(f"binary cross-entropy: losses equal in {losses}, gradients differ in {gradients}")
print(f"  the mean times and by n in float64 has the gradients of the mean in {by_double}")
same = weighted > DRAWS / 3 and by_kernel == DRAWS and gradients > DRAWS / 2 and by_double == DRAWS
print(f"torch {torch.__version__}: {'as described' if same else 'CHANGED'}")
sys.exit(not same)
PYTHON
