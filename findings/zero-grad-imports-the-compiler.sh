#!/usr/bin/env bash
# What does the first `optimizer.zero_grad()` of a program cost? One would guess microseconds: it sets gradients to
# None, and nothing is compiled.
#
# What happens: it imports the compiler, torch._dynamo, about 600 modules with sympy among them: most of a second, about
# as long as `import torch` itself takes, and tens of megabytes. Making the optimizer already does, as add_param_group
# is decorated too, and so does SGD.step. A subclass that overrides the three never pays. So a script of a few
# steps spends more time here than in its steps, and a benchmark that times the first step times an import.
#
# torch 2.13.0: torch/optim/optimizer.py, `@torch._disable_dynamo` above zero_grad and add_param_group;
# torch/_compile.py, _disable_dynamo: the wrapper imports torch._dynamo at its first call.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check 'torch==2.13.0' 'numpy==2.4.6'
cat > show.py <<'PY'
import sys
import time

import torch


def watched(what, function):
    before, start = len(sys.modules), time.perf_counter()
    result = function()
    print(f"{what:<32}{1000 * (time.perf_counter() - start):>9.1f} ms {len(sys.modules) - before:>6} modules imported")
    return result


class Bare(torch.optim.SGD):
    def add_param_group(self, group):
        self.param_groups.append({**self.defaults, **group})

    def zero_grad(self, set_to_none=True):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None


weight = torch.nn.Parameter(torch.ones(2))
bare = watched("overridden: made", lambda: Bare([{"params": [weight]}], lr=0.1))
weight.sum().backward()
watched("overridden: zero_grad", bare.zero_grad)
without = "torch._dynamo" in sys.modules
watched("torch's zero_grad, first call", lambda: torch.optim.Optimizer.zero_grad(bare))
after = "torch._dynamo" in sys.modules
watched("torch's zero_grad, second call", lambda: torch.optim.Optimizer.zero_grad(bare))
print(f"torch._dynamo imported: before {without}, after {after}")
assert (without, after) == (False, True), "another version, another behaviour"
PY
venv/bin/python show.py
