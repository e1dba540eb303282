#!/usr/bin/env bash
# torch.optim.swa_utils.AveragedModel deep-copies the model that it averages. One would guess that the average is
# one, however the model was compiled: `torch.compile(model)` and `model.compile()` are copied rightly.
#
# What happens: where a submodule's forward was compiled in place (`layer.forward = torch.compile(layer.forward)`, as
# people do to compile blocks and leave the rest), the copy's forward still computes with the ORIGINAL's weights. The
# average's parameters are right and are what is saved, but its outputs are those of the live model: an evaluation of
# the average measures the model itself. Nothing is raised and no warning is given. A bound method is copied with its
# object; torch.compile returns a plain function that closes over it, and copy.deepcopy takes functions as they are.
# Right are `layer.compile()`, and compiling the function of the class and binding it anew.
#
# torch 2.13.0: torch/optim/swa_utils.py, AveragedModel.__init__ (deepcopy); torch/nn/modules/module.py,
# Module.__getstate__ drops `_compiled_call_impl`, so that module.compile() is safe; torch/_dynamo/eval_frame.py,
# the function that a _TorchDynamoContext returns for a callable. CPython: copy._deepcopy_atomic for functions,
# copy._deepcopy_method for bound methods.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check 'torch==2.13.0' 'numpy==2.4.6'
cat > show.py <<'PY'
import types

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


def bound_anew(layer):
    layer.forward = types.MethodType(torch.compile(type(layer).forward, backend="eager"), layer)


def in_place(layer):
    layer.forward = torch.compile(layer.forward, backend="eager")


WAYS = {
    "not compiled": lambda layer: None,
    "layer.compile()": lambda layer: layer.compile(backend="eager"),
    "layer.forward = torch.compile(layer.forward)": in_place,
    "the class's forward compiled, bound to the layer": bound_anew,
}
follows = {}
for way, compile_layer in WAYS.items():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2))
    compile_layer(model[0])
    model(torch.ones(1, 2))
    average = AveragedModel(model)
    average.update_parameters(model)
    before = average(torch.ones(1, 2)).detach()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    follows[way] = not torch.equal(before, average(torch.ones(1, 2)).detach())
    print(f"{way:<50} the average answers with the live model's weights: {follows[way]}")
assert list(follows.values()) == [False, False, True, False], "another version, another behaviour"
PY
venv/bin/python show.py
