"""AdamW and its two groups of parameters.

Nothing here remembers the learning rate: a schedule maps a step to a factor (`schedules.py`), the training loop
multiplies it with the base rate and hands the product to `AdamW.step`. What must be saved to resume is therefore
the step number and the two moments of each parameter, and nothing else. There is no AMSGrad and no rate per group.

Source: Kingma & Ba 2014 (arXiv 1412.6980), Loshchilov & Hutter 2017 (arXiv 1711.05101); `torch/optim/adam.py`
of torch 2.13; `trainer.py` of transformers 5.23.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from minitrain.errors import MinitrainError
from minitrain.touched import TouchedRows, checked

# The Trainer's patterns for what does not decay, matched against the lower-cased name of a parameter.
_NO_DECAY = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split a model into what decays (matrices, embeddings) and what does not (biases, normalisation).

    A bias has no scale to keep small, and shrinking the gain of a LayerNorm only fights the layer after it.

    Args:
        model: any module; parameters with `requires_grad=False` are left out.
        weight_decay: decay of the first group, as a share of the weight per unit of learning rate.

    Returns:
        Two groups for `AdamW`, the decaying one first, each in registration order. Either may be empty.

    Source: `Trainer.create_optimizer` and `get_parameter_names`, transformers 5.23.
    """
    modules = model.named_modules()
    norms = tuple(f"{name}." for name, module in modules if isinstance(module, nn.LayerNorm))
    decaying: list[Tensor] = []
    other: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            exempt = _NO_DECAY.search(name.lower()) or name.startswith(norms)
            (other if exempt else decaying).append(parameter)
    return [{"params": decaying, "weight_decay": weight_decay}, {"params": other, "weight_decay": 0.0}]


class _Update(NamedTuple):
    """What one update of one parameter reads and, all but the gradient, changes."""

    weight: Tensor
    gradient: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    weight_decay: float


class AdamW:
    """Adam with decoupled weight decay: the decay shrinks the weight itself and never enters the moments.

    One update of a parameter w with gradient g, at its t-th step:

        w = w - lr * weight_decay * w
        m = beta1 * m + (1 - beta1) * g            # which way: mean of the gradient
        v = beta2 * v + (1 - beta2) * g**2         # how large: mean of its square
        w = w - lr * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps)

    m and v start at zero, which pulls them towards zero for the first steps; the divisors undo exactly that.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | list[dict[str, Any]],
        lr: float = 5e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        fused: bool = True,
    ) -> None:
        """Take over the parameters; the state of each is made at its first gradient.

        Args:
            params: tensors, or groups such as `decay_groups` makes, each with a weight decay of its own.
            lr: learning rate per step, for the calls of `step` that name none.
            betas: how much of the old mean of the gradient, and of its square, a step keeps; in [0, 1).
            eps: added to the root of the second moment, so that a tiny one cannot blow up the step.
            weight_decay: share of a weight lost per step and unit of learning rate; groups bring their own.
            fused: torch's one kernel for all of it instead of the plain lines (same function, other bits).

        Raises:
            MinitrainError: for a number out of range, no parameters, one twice, a group with other keys.
        """
        self.params: list[Tensor] = []
        self.weight_decays: list[float] = []  # one per parameter
        for group in _as_groups(params, weight_decay):
            _require_at_least_zero(weight_decay=group["weight_decay"])
            self.params += group["params"]
            self.weight_decays += [group["weight_decay"]] * (len(self.params) - len(self.weight_decays))
        if not self.params:
            raise MinitrainError("AdamW got no parameters: is every parameter of the model frozen?")
        if len(set(self.params)) < len(self.params):
            raise MinitrainError("AdamW got a parameter twice and would update it twice a step: pass it once")
        _require_at_least_zero(lr=lr, eps=eps)
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise MinitrainError(f"betas are {betas}; both must be in [0, 1)")
        self.lr, self.betas, self.eps, self.fused = lr, betas, eps, fused
        self.state: dict[str, Tensor] = {}
        self.touched: dict[int, TouchedRows] = {}  # in place of two moments in `state`, where gradients are sparse

    @torch.no_grad()
    def step(
        self, lr: float | Tensor | None = None, *, divisor: Tensor | None = None, skip: Tensor | None = None
    ) -> None:
        """Update every parameter that has a gradient.

        Args:
            lr: learning rate of this step: the base rate times a schedule's factor. None: the constructor's. As a
                0-dim tensor on the device of the parameters it may change where a step is recorded.
            divisor: 0-dim float32, what gradients are divided by before anything else; only with `fused`.
            skip: 0-dim float32, 1 to leave all as it is, 0 to update, known to the device alone; only with `fused`.

        Raises:
            MinitrainError: if the learning rate is a number that is negative, infinite or NaN.
        """
        lr = self.lr if lr is None else lr
        if not isinstance(lr, Tensor):
            _require_at_least_zero(lr=lr)
        assert self.fused or divisor is None and skip is None
        updates = {i: self._tensors(i, p.grad, lr) for i, p in enumerate(self.params) if p.grad is not None}
        if self.fused:
            self._update_fused(updates, lr, divisor, skip)
        else:
            self._update_plain(updates, float(lr))
        for i in updates.keys() & self.touched.keys():
            self.touched[i].scatter(self.params[i])

    def _tensors(self, i: int, grad: Tensor, lr: float | Tensor) -> _Update:
        """What an update of a parameter works on; of an embedding with sparse gradients, the rows ever touched."""
        w = self.params[i]
        if f"{i}.step" not in self.state:
            self.state |= self._initial_state(i, grad.is_sparse)
            if grad.is_sparse:
                self.touched[i] = TouchedRows(w)
        if i not in self.touched:
            m, v = self.state[f"{i}.exp_avg"], self.state[f"{i}.exp_avg_sq"]
            return _Update(w, grad.to_dense() if grad.is_sparse else grad, m, v, self.weight_decays[i])
        if self.weight_decays[i] != 0:
            w.mul_(1 - lr * self.weight_decays[i])  # every row decays, touched or not
        touched = self.touched[i]
        return _Update(*touched.gather(w, grad), touched.exp_avg, touched.exp_avg_sq, 0.0)

    def _update_plain(self, updates: dict[int, _Update], lr: float) -> None:
        """The equations of the class, rounded as in `_single_tensor_adam` of torch."""
        beta1, beta2 = self.betas
        for i, (w, g, m, v, weight_decay) in updates.items():
            t = self.state[f"{i}.step"].add_(1).item()
            if weight_decay != 0:
                w.mul_(1 - lr * weight_decay)
            m.lerp_(g, 1 - beta1)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            denominator = (v.sqrt() / (1 - beta2**t) ** 0.5).add_(self.eps)
            w.addcdiv_(m, denominator, value=-lr / (1 - beta1**t))

    def _update_fused(
        self, updates: dict[int, _Update], lr: float | Tensor, divisor: Tensor | None, skip: Tensor | None
    ) -> None:
        """The same in one pass over memory; one call takes tensors of one weight decay, device and dtype."""
        alike: dict[tuple[float, torch.device, torch.dtype], list[int]] = defaultdict(list)
        for i, update in updates.items():
            alike[update.weight_decay, update.weight.device, update.weight.dtype].append(i)
        for (weight_decay, _, _), some in alike.items():
            steps = [self.state[f"{i}.step"] for i in some]
            torch._foreach_add_(steps, 1)
            weights, gradients, means, squares, _ = zip(*(updates[i] for i in some), strict=True)
            torch._fused_adamw_(
                weights,
                gradients,
                means,
                squares,
                [],  # the maxima of AMSGrad, which we have not
                steps,
                lr=lr,
                beta1=self.betas[0],
                beta2=self.betas[1],
                weight_decay=weight_decay,
                eps=self.eps,
                amsgrad=False,
                maximize=False,
                grad_scale=divisor,
                found_inf=skip,
            )
            if skip is not None:
                torch._foreach_sub_(steps, [skip] * len(steps))

    def zero_grad(self) -> None:
        """Drop the gradients: None costs no memory, and marks what the next backward does not reach."""
        for parameter in self.params:
            parameter.grad = None

    def _initial_state(self, i: int, sparse: bool) -> dict[str, Tensor]:
        parameter = self.params[i]
        # The fused kernel reads the step where the parameter is; the plain lines need a Python number.
        step = {f"{i}.step": torch.zeros((), device=parameter.device if self.fused else "cpu")}
        names = () if sparse else (f"{i}.exp_avg", f"{i}.exp_avg_sq")
        return step | {name: torch.zeros_like(parameter, requires_grad=False) for name in names}

    def state_dict(self) -> dict[str, Tensor]:
        """All that must be saved, as names and live tensors: "0.step", "0.exp_avg", "0.exp_avg_sq", ...

        The number is the place of the parameter in `params`; one that never had a gradient has no state. Where
        gradients are sparse, "0.rows" (K,) names the rows whose moments (K, ...) stand there; the others are zero.
        """
        sparse = {
            f"{i}.{name}": getattr(touched, name)
            for i, touched in self.touched.items()
            for name in ("rows", "exp_avg", "exp_avg_sq")
        }
        return self.state | sparse

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Replace the state by a copy of what `state_dict` gave, on the devices of the parameters.

        Args:
            state: flat names and tensors, from an optimizer over the same parameters in the same order.

        Raises:
            MinitrainError: for a missing or unexpected name or another shape; nothing is loaded then.
        """
        loaded: dict[str, Tensor] = {}
        touched = {i: TouchedRows(p) for i, p in enumerate(self.params) if f"{i}.rows" in state}
        for i in range(len(self.params)):
            if f"{i}.step" in state:
                loaded |= self._initial_state(i, sparse=i in touched)
        sparse = {f"{i}.{name}" for i in touched for name in ("rows", "exp_avg", "exp_avg_sq")}
        if odd := sorted((loaded.keys() | sparse) ^ state.keys()):
            raise MinitrainError(
                f"optimizer state: {odd[0]!r} is {'missing' if odd[0] in loaded else 'unexpected'}; this "
                f"optimizer has {len(self.params)} parameters, so the state is of another model or cut short"
            )
        for name, tensor in loaded.items():
            tensor.copy_(checked(state, name, tensor))
        for i, rows in touched.items():
            rows.load(state, str(i))
        self.state, self.touched = loaded, touched


def _as_groups(params: Iterable[Tensor] | list[dict[str, Any]], weight_decay: float) -> list[dict[str, Any]]:
    entries: list[Any] = list(params)
    if not any(isinstance(entry, dict) for entry in entries):
        return [{"params": entries, "weight_decay": weight_decay}]
    for entry in entries:
        if set(entry) != {"params", "weight_decay"}:
            raise MinitrainError(
                f"AdamW got a group with the keys {sorted(entry)}; a group has 'params' and 'weight_decay', "
                "all other settings hold for every group"
            )
    return entries


def _require_at_least_zero(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0.0 <= number < math.inf:  # false for NaN too
            raise MinitrainError(f"{name} is {number}; it must be a finite number, zero or more")
