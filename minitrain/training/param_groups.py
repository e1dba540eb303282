"""Parameters and the groups they are trained in: Trainer's two, and what people pass, checked.

A group is a dict with `params` and whatever of AdamW's settings is another for them, as in torch. Other keys are
kept for whoever put them there (a scheduler's `initial_lr`, a name).

Source: `trainer.py` of transformers 5.23; `torch/optim/optimizer.py` of torch 2.13.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from types import GeneratorType
from typing import Any
from warnings import warn

from torch import Tensor, nn

from minitrain.config.scalars import plain
from minitrain.errors import MinitrainError, shown

# The Trainer's patterns for what does not decay, matched against the lower-cased name of a parameter.
_NO_DECAY = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")
# What torch's AdamW would do otherwise, and this one has not.
_NOT_HERE = ("amsgrad", "maximize", "differentiable")
# What a setting is not called: torch takes such a key, and ignores it.
_MISNAMED = {
    "learning_rate": "lr",
    "decay": "weight_decay",
    "wd": "weight_decay",
    "epsilon": "eps",
    "beta": "betas",
    "parameters": "params",
}


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split a model into what decays (matrices, embeddings) and what does not (biases, normalisation).

    A bias has no scale to keep small, and shrinking the gain of a LayerNorm only fights the layer after it.

    Args:
        model: any module; parameters with `requires_grad=False` are left out.
        weight_decay: decay of the first group, as a share of the weight per unit of learning rate.

    Returns:
        Two groups for `AdamW`, the decaying one first, each in registration order. Either may be empty.

    Raises:
        MinitrainError: for what is no module, or a decay that is no number.

    Source: `Trainer.create_optimizer` and `get_parameter_names`, transformers 5.23.
    """
    if not isinstance(model, nn.Module):
        raise MinitrainError(f"decay_groups got a {type(model).__name__}, expected a model: names say what decays")
    require_at_least_zero(weight_decay=plain_number(weight_decay, "weight_decay"))
    modules = model.named_modules()
    norms = tuple(f"{name}." for name, module in modules if isinstance(module, nn.LayerNorm))
    decaying: list[Tensor] = []
    other: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            exempt = _NO_DECAY.search(name.lower()) or name.startswith(norms)
            (other if exempt else decaying).append(parameter)
    return [{"params": decaying, "weight_decay": weight_decay}, {"params": other, "weight_decay": 0.0}]


def tensors_of(parameters: Any, where: str) -> list[Tensor]:
    """One tensor, tensors, or (name, tensor) pairs -> the tensors.

    where: the function that was called. Raises MinitrainError for what holds no tensors; an empty generator, which
    somebody has read before, is warned of.
    """
    if isinstance(parameters, Tensor):
        return [parameters]
    entries = entries_of(parameters, where)
    if not entries and isinstance(parameters, GeneratorType):
        warn(f"{where} got an empty generator: was it read before? Pass list(model.parameters())", stacklevel=4)
    return named_tensors(entries, where)[1]


def entries_of(parameters: Any, where: str) -> list[Any]:
    """What stands in a list, a generator or the like, in an order that is the same in every run."""
    if isinstance(parameters, nn.Module) and not isinstance(parameters, nn.ParameterList):
        raise MinitrainError(f"{where} got a {type(parameters).__name__}; pass its parameters: model.parameters()")
    if isinstance(parameters, Mapping | set | frozenset | str | bytes) or not isinstance(parameters, Iterable):
        ways = {
            Mapping: "a group stands in a list, [{'params': ...}], and the tensors of a dict are its .values()",
            set | frozenset: "a set has another order in every run; pass a list",
        }
        way = next((way for kind, way in ways.items() if isinstance(parameters, kind)), "pass model.parameters()")
        kind = type(parameters).__name__
        got = f"a {kind}" if isinstance(parameters, Mapping | set | frozenset) else _named(parameters)
        raise MinitrainError(f"{where} got {got}, expected tensors: {way}")
    return list(parameters)


def named_tensors(entries: Sequence[Any], where: str) -> tuple[list[str], list[Tensor]]:
    """Tensors, or (name, tensor) pairs, as names, none or all, and tensors."""
    pairs = [
        entry for entry in entries if isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str)
    ]
    if pairs and len(pairs) < len(entries):
        raise MinitrainError(f"{where} got some parameters with names and some without; pass all of them alike")
    tensors = [tensor for _, tensor in pairs] if pairs else list(entries)
    for number, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            got = _named(tensor) if isinstance(tensor, Real | str | None) else f"a {type(tensor).__name__}"
            raise MinitrainError(
                f"{where}: parameter {number} is {got}, expected a tensor: pass model.parameters(), or "
                "a list of tensors with requires_grad"
            )
    return [name for name, _ in pairs], tensors


def as_groups(params: Any) -> list[dict[str, Any]]:
    """What AdamW was given, as a list of groups. Raises MinitrainError where it is none of what it takes."""
    if isinstance(params, Tensor):
        raise MinitrainError("AdamW got one tensor, expected a list of them: pass [tensor]")
    entries = entries_of(params, "AdamW")
    if not entries:
        raise MinitrainError(
            "AdamW got no parameters: is every parameter of the model frozen, or was the generator read before?"
        )
    groups = [entry for entry in entries if isinstance(entry, dict)]
    if groups and len(groups) < len(entries):
        raise MinitrainError("AdamW got groups and single tensors together; put the tensors into a group, too")
    return groups or [{"params": entries}]


def checked_group(group: Any, defaults: Mapping[str, Any], known: Sequence[Tensor]) -> dict[str, Any]:
    """A copy of a group with all settings in it, those that it does not name from the defaults.

    known: the parameters of other groups. Raises MinitrainError for settings out of range and for parameters that
    cannot be trained, or are there already.
    """
    if not isinstance(group, dict) or "params" not in group:
        got = f"the keys {sorted(map(str, group))}" if isinstance(group, dict) else f"a {type(group).__name__}"
        raise MinitrainError(f"AdamW got {got} for a group; a group is a dict with 'params', a list of tensors")
    if wrong := next((key for key in group if key in _MISNAMED), None):
        raise MinitrainError(f"AdamW got a group with {wrong!r}; here it is called {_MISNAMED[wrong]!r}")
    if odd := next((key for key in _NOT_HERE if group.get(key)), None):
        raise MinitrainError(f"AdamW got a group with {odd}, which it has not: take torch.optim.AdamW for that")
    params = group["params"]
    entries = [params] if isinstance(params, Tensor) else entries_of(params, "AdamW")
    names, tensors = named_tensors(entries, "AdamW")
    check_trainable(tensors, names, known)
    settings = checked_settings({name: group.get(name, default) for name, default in defaults.items()})
    return {**group, **settings, "params": tensors} | ({"param_names": names} if names else {})


def check_trainable(tensors: Sequence[Tensor], names: Sequence[str], known: Sequence[Tensor]) -> None:
    """Raise MinitrainError for the first tensor that no step can change, or a second time would."""
    seen = set(known)
    for number, tensor in enumerate(tensors):
        name = f"parameter {names[number] if names else number} {tuple(tensor.shape)}"
        if not tensor.is_floating_point():
            raise MinitrainError(
                f"AdamW: {name} is {tensor.dtype}; it trains tensors of real floats: leave it out, or convert it"
            )
        if not (tensor.is_leaf or tensor.retains_grad):
            raise MinitrainError(
                f"AdamW: {name} is computed from others and gets no gradient: pass what it is made of, or make it "
                "one with .detach().requires_grad_()"
            )
        if tensor in seen:
            raise MinitrainError(f"AdamW got {name} twice and would update it twice a step: pass it once")
        seen.add(tensor)


def checked_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """lr, betas, eps, weight_decay and fused, as plain numbers; lr may stay a tensor of one value.

    Raises MinitrainError naming the one that is out of range.
    """
    lr, betas = settings["lr"], settings["betas"]
    if not isinstance(betas, Sequence) or isinstance(betas, str) or len(betas) != 2:
        raise MinitrainError(f"betas are {shown(betas)}; expected two numbers in [0, 1), as (0.9, 0.999)")
    own = tuple(plain_number(beta, "betas") for beta in betas)
    if not all(0.0 <= beta < 1.0 for beta in own):
        raise MinitrainError(f"betas are {tuple(betas)}; both must be in [0, 1)")
    numbers = {name: plain_number(settings[name], name) for name in ("eps", "weight_decay")}
    require_at_least_zero(lr=plain_number(lr, "lr"), **numbers)
    if settings["fused"] not in (True, False):
        raise MinitrainError(f"fused is {shown(settings['fused'])}; expected True or False")
    fused = bool(settings["fused"])
    return {
        "lr": lr if isinstance(lr, Tensor) else plain_number(lr, "lr"),
        "betas": own,
        **numbers,
        "fused": fused,
    }


def plain_number(value: Any, name: str) -> float:
    """A number of Python, numpy or torch as one of Python. Raises MinitrainError for anything else."""
    number = plain(value)
    if isinstance(number, Tensor):
        raise MinitrainError(f"{name} is a tensor {tuple(value.shape)} of {value.dtype}; expected one number")
    if isinstance(number, bool) or not isinstance(number, Real):
        raise MinitrainError(f"{name} is {_named(value)}; expected a number")
    return float(number)


def check_rate(lr: Any) -> None:
    """Raise MinitrainError unless it is a rate for one step; the number in a tensor is left to the device."""
    if not isinstance(lr, Tensor):
        require_at_least_zero(lr=plain_number(lr, "lr"))
    elif lr.numel() != 1:
        plain_number(lr, "lr")


def require_at_least_zero(**numbers: float) -> None:
    """Raise MinitrainError for a number that is negative, infinite or NaN."""
    for name, number in numbers.items():
        if not 0.0 <= number < math.inf:  # false for NaN too
            raise MinitrainError(f"{name} is {number}; it must be a finite number, zero or more")


def _named(value: Any) -> str:
    return f"{shown(value)} ({type(value).__name__})"
