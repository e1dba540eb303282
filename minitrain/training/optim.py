"""AdamW, as one of torch's optimizers, with sparse gradients besides.

The training loop remembers no learning rate: a schedule maps a step to a factor (`schedules.py`), and the product
with the base rate goes to `AdamW.step`. What must be saved to resume is the step number and the two moments of each
parameter. Loops written by hand may use torch's schedulers instead, which change the rate of each group.

Source: Kingma & Ba 2014 (arXiv 1412.6980), Loshchilov & Hutter 2017 (arXiv 1711.05101); `torch/optim/adam.py`
of torch 2.13.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from minitrain.errors import MinitrainError
from minitrain.kernels.sparse_moments import SparseMoments, checked
from minitrain.training.param_groups import as_groups, check_rate, checked_group, checked_settings, plain_number
from minitrain.training.param_groups import decay_groups as decay_groups


class _Update(NamedTuple):
    """What one update of one parameter reads and, all but the gradient, changes."""

    weight: Tensor
    gradient: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: Tensor


class _Settings(NamedTuple):
    """What updates that are done at once have in common."""

    lr: float | Tensor
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    fused: bool


class AdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay: the decay shrinks the weight itself and never enters the moments.

    One update of a parameter w with gradient g, at its t-th step:

        w = w - lr * weight_decay * w
        m = beta1 * m + (1 - beta1) * g            # which way: mean of the gradient
        v = beta2 * v + (1 - beta2) * g**2         # how large: mean of its square
        w = w - lr * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps)

    m and v start at zero, which pulls them towards zero for the first steps; the divisors undo exactly that.
    torch's schedulers and GradScaler take it. Of its own it has sparse gradients, and a state of names and tensors.
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
        """Take over the parameters; the state of each is made at its first gradient.

        Args:
            params: tensors, (name, tensor) pairs, or groups such as `decay_groups` makes: dicts with `params` and
                those of the following settings that are others for them.
            lr: learning rate per step, for the calls of `step` that name none.
            betas: how much of the old mean of the gradient, and of its square, a step keeps; in [0, 1).
            eps: added to the root of the second moment, so that a tiny one cannot blow up the step.
            weight_decay: share of a weight lost per step and unit of learning rate.
            fused: torch's one kernel for all of it instead of the plain lines (same function, other bits).

        Raises:
            MinitrainError: for a number out of range, no parameters, one twice, or what is no parameter.
        """
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "fused": fused}
        super().__init__(as_groups(params), checked_settings(defaults))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take over more parameters, with settings of their own where the group names any."""
        self.param_groups.append(checked_group(param_group, self.defaults, self.params))

    @property
    def params(self) -> list[Tensor]:
        """All parameters, group by group: the numbers in `state_dict` are places in this list."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    @torch.no_grad()
    def step(  # type: ignore[override]
        self,
        lr: float | Tensor | Callable[[], Any] | None = None,
        closure: Callable[[], Any] | None = None,
        *,
        grad_scale: Tensor | None = None,
        found_inf: Tensor | None = None,
    ) -> Any:
        """Update every parameter that has a gradient.

        Args:
            lr: learning rate of this step for all groups; None: each group's own, which torch's schedulers change.
                As a 0-dim tensor on the device of the parameters it may change where a step is recorded.
            closure: computes loss and gradients before the update; it may stand first, as in torch.
            grad_scale: 0-dim float32, what gradients are divided by before anything else; only with `fused`.
            found_inf: 0-dim float32, 1 to skip the update, 0 to do it; read on the device; only with `fused`.

        Returns:
            What the closure returned; None without one.

        Raises:
            MinitrainError: if a learning rate is a number that is negative, infinite or NaN.
        """
        if callable(lr) and not isinstance(lr, Tensor):
            lr, closure = None, lr
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if lr is not None:
            check_rate(lr)
        touched: list[tuple[SparseMoments, Tensor]] = []
        for (settings, _), updates in self._updates(lr, touched).items():
            if settings.fused:
                _update_fused(settings, updates, grad_scale, found_inf)
            else:
                assert grad_scale is None and found_inf is None
                _update_plain(settings, updates)
        for rows, parameter in touched:
            rows.scatter(parameter)
        return loss

    def _updates(
        self, lr: float | Tensor | None, touched: list[tuple[SparseMoments, Tensor]]
    ) -> dict[tuple[_Settings, Any], list[_Update]]:
        """What is to be updated, by settings and, since one call takes what is alike, device and dtype.

        lr: of all groups, or None for each its own. touched: gets what was gathered, and from where.
        """
        updates: dict[tuple[_Settings, Any], list[_Update]] = defaultdict(list)
        for group in self.param_groups:
            rate = group["lr"] if lr is None else lr
            if isinstance(rate, Tensor):
                rate = rate.squeeze() if rate.ndim else rate
            elif not math.isfinite(rate):
                raise MinitrainError(f"the learning rate of a group is {rate}: what does its scheduler compute?")
            beta1, beta2 = group["betas"]
            settings = _Settings(rate, beta1, beta2, group["eps"], group["weight_decay"], group["fused"])
            alike: dict[Any, list[_Update]] = {}
            for parameter in group["params"]:
                if (grad := parameter.grad) is None:
                    continue
                state = self.state.get(parameter) or self._begun(parameter, grad, settings.fused)
                kind = parameter.device, parameter.dtype
                if rows := state.get("touched"):
                    if settings.weight_decay != 0:
                        parameter.mul_(1 - rate * settings.weight_decay)  # every row decays, touched or not
                    touched.append((rows, parameter))
                    weight, grad = rows.gather(parameter, grad)
                    update = _Update(weight, grad, rows.exp_avg, rows.exp_avg_sq, state["step"])
                    updates[settings._replace(weight_decay=0.0), kind].append(update)
                    continue
                if kind not in alike:
                    alike[kind] = updates[settings, kind]
                grad = grad.to_dense() if grad.is_sparse else grad
                alike[kind].append(_Update(parameter, grad, state["exp_avg"], state["exp_avg_sq"], state["step"]))
        return updates

    def _begun(self, parameter: Tensor, grad: Tensor, fused: bool) -> dict[str, Any]:
        """Step number and moments of a parameter at its first gradient, which decides what kind they are."""
        self.state[parameter] = _new_state(parameter, fused, grad.is_sparse)
        return self.state[parameter]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients: None costs no memory, and marks what the next backward does not reach.

        set_to_none: False fills them with zeros instead.
        """
        for parameter in self.params:
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.detach_().zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """All that must be saved, as names and live tensors: "0.step", "0.exp_avg", "0.exp_avg_sq", ...

        The number is the place of the parameter in `params`; one that never had a gradient has no state. Where
        gradients are sparse, "0.rows" (K,) names the rows whose moments (K, ...) stand there; the others are zero.
        Where a scheduler of torch is at work, "group.0.now" is the first group's (lr, beta1, beta2), float64.
        """
        saved: dict[str, Tensor] = {}
        for number, group in enumerate(self.param_groups):
            now = plain_number(group["lr"], "lr"), *group["betas"]
            if "initial_lr" in group or now != (plain_number(self.defaults["lr"], "lr"), *self.defaults["betas"]):
                saved[f"group.{number}.now"] = torch.tensor(now, dtype=torch.float64)
        for i, parameter in enumerate(self.params):
            for name, value in self.state.get(parameter, {}).items():
                saved |= value.saved(str(i)) if name == "touched" else {f"{i}.{name}": value}
        return saved

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Replace the state by a copy of what `state_dict` gave, on the devices of the parameters.

        Args:
            state: flat names and tensors, from an optimizer over the same parameters in the same order.

        Raises:
            MinitrainError: for a missing or unexpected name or another shape; nothing is loaded then.
        """
        if not isinstance(state, Mapping) or "param_groups" in state:
            raise MinitrainError(
                "optimizer state: expected names and tensors, as state_dict gives; of torch.optim's, s, these are "
                "{f'{i}.{name}': t for i, m in s['state'].items() for name, t in m.items()}"
            )
        loaded: dict[Tensor, dict[str, Any]] = {}
        expected: set[str] = set()
        for i, (parameter, fused) in enumerate((p, g["fused"]) for g in self.param_groups for p in g["params"]):
            if f"{i}.step" in state:
                loaded[parameter] = _new_state(parameter, fused, sparse=f"{i}.rows" in state)
                rows = ("rows",) if f"{i}.rows" in state else ()
                expected |= {f"{i}.{name}" for name in ("step", "exp_avg", "exp_avg_sq", *rows)}
        scheduled = {f"group.{number}.now": group for number, group in enumerate(self.param_groups)}
        if odd := sorted(expected ^ (state.keys() - scheduled.keys())):
            raise MinitrainError(
                f"optimizer state: {odd[0]!r} is {'missing' if odd[0] in expected else 'unexpected'}; this "
                f"optimizer has {len(self.params)} parameters, so the state is of another model or cut short"
            )
        for i, parameter in enumerate(self.params):
            for name, own in loaded.get(parameter, {}).items():
                if name == "touched":
                    own.load(state, str(i))
                else:
                    own.copy_(checked(state, f"{i}.{name}", own))
        self.state = defaultdict(dict, loaded)
        for name in state.keys() & scheduled.keys():
            _go_on_with(scheduled[name], *state[name].tolist())


def _new_state(parameter: Tensor, fused: bool, sparse: bool) -> dict[str, Any]:
    # The fused kernel reads the step where the parameter is; the plain lines need a Python number.
    step = torch.zeros((), device=parameter.device if fused else "cpu")
    if sparse:
        return {"step": step, "touched": SparseMoments(parameter)}
    moments = ("exp_avg", "exp_avg_sq")
    return {"step": step} | {name: torch.zeros_like(parameter, requires_grad=False) for name in moments}


def _go_on_with(group: dict[str, Any], lr: float, *betas: float) -> None:
    group["betas"] = betas
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)  # in place: whoever made it may have it elsewhere too
    else:
        group["lr"] = lr


def _update_plain(settings: _Settings, updates: Sequence[_Update]) -> None:
    """The equations of the class, rounded as in `_single_tensor_adam` of torch."""
    lr, beta1, beta2 = settings.lr, settings.beta1, settings.beta2
    for w, g, m, v, step in updates:
        t = step.add_(1).item()
        if settings.weight_decay != 0:
            w.mul_(1 - lr * settings.weight_decay)
        m.lerp_(g, 1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        denominator = (v.sqrt() / (1 - beta2**t) ** 0.5).add_(settings.eps)
        w.addcdiv_(m, denominator, value=-lr / (1 - beta1**t))  # type: ignore[arg-type]  # or a tensor of one


def _update_fused(
    settings: _Settings, updates: Sequence[_Update], grad_scale: Tensor | None, found_inf: Tensor | None
) -> None:
    """The same in one pass over memory."""
    weights, gradients, means, squares, steps = (list(tensors) for tensors in zip(*updates, strict=True))
    torch._foreach_add_(steps, 1)
    torch._fused_adamw_(
        weights,
        gradients,
        means,
        squares,
        [],  # the maxima of AMSGrad, which we have not
        steps,
        lr=settings.lr,
        beta1=settings.beta1,
        beta2=settings.beta2,
        weight_decay=settings.weight_decay,
        eps=settings.eps,
        amsgrad=False,
        maximize=False,
        grad_scale=grad_scale,
        found_inf=found_inf,
    )
    if found_inf is not None:
        torch._foreach_sub_(steps, [found_inf] * len(steps))
