"""AdamW as a `torch.optim.Optimizer` that also takes sparse gradients.

The training loop computes each step's learning rate from the step number (`schedules.py`) and passes it to
`AdamW.step`; hand-written loops may use torch's schedulers instead.

Not here: AMSGrad, `maximize`, `differentiable`; torch's AdamW has them.

Source: Kingma & Ba 2014 (arXiv 1412.6980), Loshchilov & Hutter 2017 (arXiv 1711.05101); `torch/optim/adam.py`
of torch 2.13.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from minitrain.errors import MinitrainError
from minitrain.kernels.sparse_moments import SparseMoments
from minitrain.training.param_groups import as_groups, checked_group, checked_rates, checked_settings, plain_number

# weight, gradient, exp_avg, exp_avg_sq, step; an update changes all but the gradient in place.
_Update = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class AdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay: the decay shrinks the weight itself and never enters the moments.

    The t-th update of a parameter w with gradient g:

        w = w - lr * weight_decay * w
        m = beta1 * m + (1 - beta1) * g            # first moment: running mean of the gradient
        v = beta2 * v + (1 - beta2) * g**2         # second moment: running mean of its square
        w = w - lr * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps)

    m and v start at zero, which biases them towards zero for the first steps; the divisors correct exactly that.

    >>> w = torch.tensor([1.0, -2.0], requires_grad=True)
    >>> optimizer = AdamW([w], lr=0.1)
    >>> w.square().sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([ 0.9000, -1.9000], requires_grad=True)
    >>> sorted(optimizer.state_dict())
    ['0.exp_avg', '0.exp_avg_sq', '0.step']
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 5e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        fused: bool = True,
    ) -> None:
        """Check parameters and settings; moments are made at the first gradient.

        Args:
            params: Tensors, (name, tensor) pairs, or groups as `decay_groups` returns them: dicts with `params`
                and any of the settings below.
            lr: Learning rate of steps that are given none.
            betas: Decay rates of the two moments, in [0, 1).
            eps: Added to the root of the second moment.
            weight_decay: Fraction of a weight lost per step and unit of learning rate.
            fused: Use torch's fused kernel instead of the plain lines (same function, other bits).

        Raises:
            MinitrainError: A setting is out of range, or a parameter is missing, repeated or not trainable.
        """
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "fused": fused}
        super().__init__(as_groups(params), checked_settings(defaults))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; the group's own settings override the defaults."""
        self.param_groups.append(checked_group(param_group, self.defaults, self.params))

    @property
    def params(self) -> list[Tensor]:
        """All parameters, group by group; `state_dict` numbers them by their place in this list."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    @torch.no_grad()
    def step(  # type: ignore[override]
        self,
        lr: float | Tensor | list[float] | list[Tensor] | Callable[[], Any] | None = None,
        closure: Callable[[], Any] | None = None,
        *,
        grad_scale: Tensor | None = None,
        found_inf: Tensor | None = None,
    ) -> Any:
        """Update every parameter that has a gradient.

        Args:
            lr: For all groups, or a list with one for each; by default each group's own. In a CUDA graph, tensors.
            closure: Computes loss and gradients first, and is what `step` returns; may be the first argument.
            grad_scale: 0-dim float32 that gradients are divided by. Needs `fused`.
            found_inf: 0-dim float32 on the device: 1 skips the update. Needs `fused`.
        """
        if callable(lr) and not isinstance(lr, Tensor):
            lr, closure = None, lr
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        rates: list[Any] = [group["lr"] if lr is None else lr for group in self.param_groups]
        if not all(isinstance(rate, float) and 0.0 <= rate < math.inf for rate in rates):
            rates = checked_rates(lr, self.param_groups)
        for group, rate in zip(self.param_groups, rates, strict=True):
            self._step_group(group, rate, grad_scale=grad_scale, found_inf=found_inf)
        return loss

    def _step_group(self, group: dict[str, Any], lr: float | Tensor, **scaling: Tensor | None) -> None:
        alike: dict[Any, list[_Update]] = defaultdict(list)  # one kernel call each
        gathered: list[tuple[SparseMoments, Tensor]] = []
        for parameter in group["params"]:
            if (grad := parameter.grad) is None:
                continue
            if not (state := self.state[parameter]):  # the first gradient decides which kind of moments it gets
                rows = torch.empty(0, dtype=torch.int64) if grad.is_sparse else None
                state |= _new_state(parameter, group["fused"], rows)
            weight, decay, moments = parameter, group["weight_decay"], state.get("sparse")
            if moments is None:
                grad = grad.to_dense() if grad.is_sparse else grad
                exp_avg, exp_avg_sq = state["exp_avg"], state["exp_avg_sq"]
            else:
                if decay != 0:
                    parameter.mul_(1 - lr * decay)  # every row decays, also those without moments
                decay = 0.0
                weight, grad = moments.gather(parameter, grad)
                exp_avg, exp_avg_sq = moments.exp_avg, moments.exp_avg_sq
                gathered.append((moments, parameter))
            update = weight, grad, exp_avg, exp_avg_sq, state["step"]
            alike[parameter.device, parameter.dtype, decay].append(update)
        for (*_, decay), updates in alike.items():
            if group["fused"]:
                _fused_update(updates, group, lr, decay, **scaling)
            else:
                assert not any(value is not None for value in scaling.values())
                _plain_update(updates, group, lr, decay)
        for moments, parameter in gathered:
            moments.scatter(parameter)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch's, which imports torch._dynamo at its first call: most of a second of a start."""
        for parameter in self.params:
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.detach_().zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """The whole state as flat names and live tensors: "0.step", "0.exp_avg", "0.exp_avg_sq", ...

        The number is the parameter's place in `params`; one that never had a gradient has no state. With sparse
        gradients "0.rows" (K,) lists the rows that have moments, and the moments are (K, ...). If a torch scheduler
        changed the settings, "group.0.now" is (lr, beta1, beta2) of the first group, float64.
        """
        saved: dict[str, Tensor] = {}
        for number, group in enumerate(self.param_groups):
            now = plain_number(group["lr"], "lr"), *group["betas"]
            if "initial_lr" in group or now != (plain_number(self.defaults["lr"], "lr"), *self.defaults["betas"]):
                saved[f"group.{number}.now"] = torch.tensor(now, dtype=torch.float64)
        return saved | self._tensors(self.state)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Replace the state by a copy of `state`, on the devices of the parameters.

        Args:
            state: From `state_dict` of an optimizer over the same parameters in the same order.

        Raises:
            MinitrainError: A name is missing or unexpected, or a shape differs; nothing is loaded then.
        """
        if not isinstance(state, Mapping) or "param_groups" in state:
            raise MinitrainError(
                "optimizer state: expected names and tensors, as state_dict returns; to convert a torch.optim "
                "state_dict s: {f'{i}.{name}': t for i, m in s['state'].items() for name, t in m.items()}"
            )
        loaded: dict[Tensor, dict[str, Any]] = {}
        for i, (parameter, fused) in enumerate((p, g["fused"]) for g in self.param_groups for p in g["params"]):
            if f"{i}.step" in state:
                rows = _checked_rows(state, f"{i}.rows", len(parameter)) if f"{i}.rows" in state else None
                loaded[parameter] = _new_state(parameter, fused, rows)
        own, groups = self._tensors(loaded), {f"group.{n}.now": group for n, group in enumerate(self.param_groups)}
        if odd := sorted(own.keys() ^ (state.keys() - groups.keys())):
            raise MinitrainError(
                f"optimizer state: {odd[0]!r} is {'missing' if odd[0] in own else 'unexpected'}; this "
                f"optimizer has {len(self.params)} parameters, so the state is of another model or truncated"
            )
        for name, tensor in own.items():
            _copy_checked(name, state[name], tensor)
        self.state = defaultdict(dict, loaded)
        for name in state.keys() & groups.keys():
            lr, *betas = state[name].tolist()
            group = groups[name]
            group["betas"] = tuple(betas)
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)  # in place: its owner may use it elsewhere too
            else:
                group["lr"] = lr

    def _tensors(self, states: Mapping[Tensor, dict[str, Any]]) -> dict[str, Tensor]:
        """The states of parameters as flat names and live tensors."""
        flat: dict[str, Tensor] = {}
        for i, parameter in enumerate(self.params):
            for name, value in states.get(parameter, {}).items():
                kinds = value.tensors() if name == "sparse" else {name: value}
                flat |= {f"{i}.{kind}": tensor for kind, tensor in kinds.items()}
        return flat


def _new_state(parameter: Tensor, fused: bool, rows: Tensor | None) -> dict[str, Any]:
    """Step and zero moments; with `rows`, moments of those alone."""
    # The fused kernel reads the step on the parameter's device; the plain lines need a Python number.
    step = torch.zeros((), device=parameter.device if fused else "cpu")
    if rows is not None:
        return {"step": step, "sparse": SparseMoments(parameter, rows)}
    return {"step": step} | {m: torch.zeros_like(parameter, requires_grad=False) for m in ("exp_avg", "exp_avg_sq")}


def _checked_rows(state: Mapping[str, Tensor], name: str, size: int) -> Tensor:
    rows = state[name]
    valid = rows.ndim == 1 and rows.dtype == torch.int64 and len(rows.unique()) == len(rows)
    if not valid or not all(0 <= row < size for row in rows.tolist()):
        raise MinitrainError(
            f"optimizer state: {name!r} must name each row once, as int64 from 0 to {size - 1}; the state is of "
            "another model or damaged"
        )
    return rows


def _copy_checked(name: str, value: Any, own: Tensor) -> None:
    if not isinstance(value, Tensor) or value.shape != own.shape:
        found = f"has shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"is a {type(value).__name__}"
        raise MinitrainError(
            f"optimizer state: {name!r} {found}, its parameter needs a tensor of shape {tuple(own.shape)}; the "
            "state is of another model"
        )
    own.copy_(value)


def _plain_update(updates: list[_Update], group: dict[str, Any], lr: float | Tensor, weight_decay: float) -> None:
    """The equations of `AdamW`, rounded as in torch's `_single_tensor_adam`."""
    beta1, beta2 = group["betas"]
    for w, g, m, v, step in updates:
        t = step.add_(1).item()
        if weight_decay != 0:
            w.mul_(1 - lr * weight_decay)
        m.lerp_(g, 1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        denominator = (v.sqrt() / (1 - beta2**t) ** 0.5).add_(group["eps"])
        w.addcdiv_(m, denominator, value=-lr / (1 - beta1**t))


def _fused_update(
    updates: list[_Update], group: dict[str, Any], lr: float | Tensor, weight_decay: float, **scaling: Tensor | None
) -> None:
    """The same in one pass over memory."""
    weights, gradients, exp_avgs, exp_avg_sqs, steps = map(list, zip(*updates, strict=True))
    torch._foreach_add_(steps, 1)
    torch._fused_adamw_(
        weights,
        gradients,
        exp_avgs,
        exp_avg_sqs,
        [],  # AMSGrad's maxima
        steps,
        lr=lr,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=weight_decay,
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
        **scaling,
    )
    if (found_inf := scaling["found_inf"]) is not None:
        torch._foreach_sub_(steps, [found_inf] * len(steps))
