"""Trainer's two parameter groups, and the checks of the parameters and settings that users pass.

A group is a dict with `params` and any of AdamW's settings, as in torch. Other keys are kept (a scheduler's
`initial_lr`, a name).

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

from minitrain.config.options import plain
from minitrain.errors import MinitrainError, shown

# Trainer's patterns for what does not decay, matched against a parameter's lower-cased name.
_NO_DECAY = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")
_UNSUPPORTED = ("amsgrad", "maximize", "differentiable")  # options of torch's AdamW
# Keys that torch would silently ignore -> what was meant.
_MISNAMED = {
    **{"learning_rate": "lr", "decay": "weight_decay", "wd": "weight_decay"},
    **{"epsilon": "eps", "beta": "betas", "parameters": "params"},
}


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split a model's trainable parameters into decaying ones (matrices, embeddings) and the rest (biases, norms).

    Decay keeps matrices small; a bias needs no such limit, and the next layer undoes a smaller LayerNorm gain.

    Returns:
        Two groups for `AdamW`, the decaying one first, each in registration order. Either may be empty.

    Raises:
        MinitrainError: `model` is not a module, or the decay is not a number.

    Source: `Trainer.create_optimizer` and `get_parameter_names`, transformers 5.23.

    >>> [[tuple(p.shape) for p in group["params"]] for group in decay_groups(nn.Linear(3, 2), 0.01)]
    [[(2, 3)], [(2,)]]
    """
    if not isinstance(model, nn.Module):
        raise MinitrainError(f"decay_groups got a {type(model).__name__}, expected a model: names say what decays")
    _require_at_least_zero(weight_decay=plain_number(weight_decay, "weight_decay"))
    norms = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, nn.LayerNorm))
    decaying: list[Tensor] = []
    other: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            exempt = _NO_DECAY.search(name.lower()) or name.startswith(norms)
            (other if exempt else decaying).append(parameter)
    return [{"params": decaying, "weight_decay": weight_decay}, {"params": other, "weight_decay": 0.0}]


def tensors_of(parameters: Any, where: str) -> list[Tensor]:
    """One tensor, tensors, or (name, tensor) pairs -> the tensors.

    Raises MinitrainError, naming the called function `where`, for anything else; warns of an exhausted generator.
    """
    entries = _as_list(parameters, where)
    if not entries and isinstance(parameters, GeneratorType):
        warn(f"{where} got an empty generator: was it read before? Pass list(model.parameters())", stacklevel=3)
    return entries if all(isinstance(entry, Tensor) for entry in entries) else _named_tensors(entries, where)[1]


def _as_list(parameters: Any, where: str) -> list[Any]:
    if isinstance(parameters, Tensor):
        return [parameters]
    is_module = isinstance(parameters, nn.Module) and not isinstance(parameters, nn.ParameterList)
    unfit = is_module or isinstance(parameters, Mapping | set | frozenset | str | bytes)
    if unfit or not isinstance(parameters, Iterable):
        raise MinitrainError(
            f"{where} got {_named(parameters)}, expected tensors in a fixed order: model.parameters(), or a list; "
            "the tensors of a dict are its .values(), and a group goes into a list, [{'params': ...}]"
        )
    return list(parameters)


def _named_tensors(entries: Sequence[Any], where: str) -> tuple[list[str], list[Tensor]]:
    """Tensors, or (name, tensor) pairs -> names (all or none) and tensors."""
    pairs = [
        entry for entry in entries if isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str)
    ]
    if pairs and len(pairs) < len(entries):
        raise MinitrainError(f"{where} got some parameters with names and some without; name all or none")
    tensors = [tensor for _, tensor in pairs] if pairs else list(entries)
    for number, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise MinitrainError(
                f"{where}: parameter {number} is {_named(tensor)}, expected a tensor: pass model.parameters(), or "
                "a list of tensors with requires_grad"
            )
    return [name for name, _ in pairs], tensors


def as_groups(params: Any) -> list[dict[str, Any]]:
    """AdamW's first argument as a list of groups."""
    if isinstance(params, Tensor):
        raise MinitrainError("AdamW got one tensor, expected a list of them: pass [tensor]")
    entries = _as_list(params, "AdamW")
    if not entries:
        raise MinitrainError(
            "AdamW got no parameters: is every parameter of the model frozen, or was the generator read before?"
        )
    groups = [entry for entry in entries if isinstance(entry, dict)]
    if groups and len(groups) < len(entries):
        raise MinitrainError("AdamW got groups and single tensors together; put the tensors into a group, too")
    return groups or [{"params": entries}]


def checked_group(group: Any, defaults: Mapping[str, Any], known: Sequence[Tensor]) -> dict[str, Any]:
    """A copy of a group with all settings filled in from `defaults`.

    Args:
        known: Parameters of earlier groups, which must not be repeated.

    Raises:
        MinitrainError: A setting is out of range, or a parameter cannot be trained or is already there.
    """
    if not isinstance(group, dict) or "params" not in group:
        got = f"the keys {sorted(map(str, group))}" if isinstance(group, dict) else f"a {type(group).__name__}"
        raise MinitrainError(f"AdamW got {got} for a group; a group is a dict with 'params', a list of tensors")
    for key in group:
        if key in _MISNAMED:
            raise MinitrainError(f"AdamW got a group with {key!r}; here it is called {_MISNAMED[key]!r}")
        if key in _UNSUPPORTED and group[key]:
            raise MinitrainError(f"AdamW got a group with {key}, which it does not support: use torch.optim.AdamW")
    names, tensors = _named_tensors(_as_list(group["params"], "AdamW"), "AdamW")
    _check_trainable(tensors, names, known)
    settings = checked_settings({name: group.get(name, default) for name, default in defaults.items()})
    return {**group, **settings, "params": tensors} | ({"param_names": names} if names else {})


def _check_trainable(tensors: Sequence[Tensor], names: Sequence[str], known: Sequence[Tensor]) -> None:
    seen = set(known)
    for number, tensor in enumerate(tensors):
        name = f"parameter {names[number] if names else number} {tuple(tensor.shape)}"
        if not tensor.is_floating_point():
            raise MinitrainError(f"AdamW: {name} is {tensor.dtype}, expected a float dtype: omit or convert it")
        if not (tensor.is_leaf or tensor.retains_grad):
            raise MinitrainError(
                f"AdamW: {name} is computed from others and gets no gradient: pass what it is computed from, or "
                "make it a leaf with .detach().requires_grad_()"
            )
        if tensor in seen:
            raise MinitrainError(f"AdamW got {name} twice and would update it twice a step: pass it once")
        seen.add(tensor)


def checked_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """lr, betas, eps, weight_decay and fused as plain numbers; lr may stay a tensor of one value.

    Raises MinitrainError naming the setting that is out of range.
    """
    betas, fused = settings["betas"], settings["fused"]
    if not isinstance(betas, Sequence) or isinstance(betas, str) or len(betas) != 2:
        raise MinitrainError(f"betas are {shown(betas)}; expected two numbers in [0, 1), as (0.9, 0.999)")
    betas = tuple(plain_number(beta, "betas") for beta in betas)
    if not all(0.0 <= beta < 1.0 for beta in betas):
        raise MinitrainError(f"betas are {betas}; both must be in [0, 1)")
    numbers = {name: plain_number(settings[name], name) for name in ("lr", "eps", "weight_decay")}
    _require_at_least_zero(**numbers)
    if fused not in (True, False):
        raise MinitrainError(f"fused is {shown(fused)}; expected True or False")
    kept = {"lr": settings["lr"]} if isinstance(settings["lr"], Tensor) else {}
    return {**numbers, **kept, "betas": betas, "fused": bool(fused)}


def plain_number(value: Any, name: str) -> float:
    """A number of Python, numpy or torch as a Python float. Raises MinitrainError for anything else."""
    number = plain(value)
    if isinstance(number, Tensor):
        raise MinitrainError(f"{name} is a tensor {tuple(value.shape)} of {value.dtype}; expected one number")
    if isinstance(number, bool) or not isinstance(number, Real):
        raise MinitrainError(f"{name} is {_named(value)}; expected a number")
    return float(number)


def checked_rate(lr: Any, of_group: bool) -> Any:
    """The learning rate of a group or a step, if it is one number in range; a 0-dim tensor is not read."""
    if isinstance(lr, Tensor) and lr.numel() == 1:
        return lr.squeeze() if lr.ndim else lr
    if not of_group:
        _require_at_least_zero(lr=plain_number(lr, "lr"))
    elif not math.isfinite(lr):
        raise MinitrainError(f"the learning rate of a group is {lr}: what does its scheduler compute?")
    return lr


def checked_rates(lr: Any, groups: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The learning rate of each group for one step: its own for None, else `lr`, or its share of a list."""
    rates = lr if isinstance(lr, list) else [group["lr"] if lr is None else lr for group in groups]
    if len(rates) != len(groups):
        raise MinitrainError(
            f"AdamW.step got {len(rates)} learning rates for {len(groups)} groups; give one for each"
        )
    return [checked_rate(rate, of_group=lr is None) for rate in rates]


def _require_at_least_zero(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0.0 <= number < math.inf:  # false for NaN too
            raise MinitrainError(f"{name} is {number}; it must be a finite number, zero or more")


def _named(value: Any) -> str:
    kind = type(value).__name__
    return f"{shown(value)} ({kind})" if isinstance(value, Real | str | None) else f"a {kind}"
