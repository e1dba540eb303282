"""AdamW, its two groups of parameters, gradient clipping, and learning rates as functions of the step.

Nothing here remembers the learning rate: a schedule maps a step to a factor, the training loop multiplies
it with the base rate and hands the product to `AdamW.step`. What must be saved to resume is therefore the
step number and the two moments of each parameter, and nothing else.

What this file does not do: no AMSGrad, no sparse gradients, no learning rate per group.

Source: Kingma & Ba 2014 (arXiv 1412.6980), Loshchilov & Hutter 2017 (arXiv 1711.05101); `torch/optim/adam.py`
and `torch/nn/utils/clip_grad.py` of torch 2.13; `trainer.py`, `optimization.py` of transformers 5.23.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from minitrain.errors import MinitrainError

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
    return [
        {"params": decaying, "weight_decay": weight_decay},
        {"params": other, "weight_decay": 0.0},
    ]


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

    @torch.no_grad()
    def step(self, lr: float | None = None) -> None:
        """Update every parameter that has a gradient.

        Args:
            lr: learning rate of this step: the base rate times a schedule's factor. None: the constructor's.

        Raises:
            MinitrainError: if the learning rate is negative, infinite or not a number.
        """
        lr = self.lr if lr is None else lr
        _require_at_least_zero(lr=lr)
        grads = {i: p.grad for i, p in enumerate(self.params) if p.grad is not None}
        for i in grads:
            if f"{i}.step" not in self.state:
                self.state |= self._initial_state(i)
        (self._update_fused if self.fused else self._update_plain)(grads, lr)

    def _update_plain(self, grads: dict[int, Tensor], lr: float) -> None:
        """The equations of the class, rounded as in `_single_tensor_adam` of torch."""
        beta1, beta2 = self.betas
        for i, g in grads.items():
            w, m, v = self.params[i], self.state[f"{i}.exp_avg"], self.state[f"{i}.exp_avg_sq"]
            t = self.state[f"{i}.step"].add_(1).item()
            if self.weight_decays[i] != 0:
                w.mul_(1 - lr * self.weight_decays[i])
            m.lerp_(g, 1 - beta1)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            denominator = (v.sqrt() / (1 - beta2**t) ** 0.5).add_(self.eps)
            w.addcdiv_(m, denominator, value=-lr / (1 - beta1**t))

    def _update_fused(self, grads: dict[int, Tensor], lr: float) -> None:
        """The same in one pass over memory; one call takes tensors of one weight decay, device and dtype."""
        alike: dict[tuple[float, torch.device, torch.dtype], list[int]] = defaultdict(list)
        for i in grads:
            alike[self.weight_decays[i], self.params[i].device, self.params[i].dtype].append(i)
        for (weight_decay, _, _), some in alike.items():
            steps = [self.state[f"{i}.step"] for i in some]
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                [self.params[i] for i in some],
                [grads[i] for i in some],
                [self.state[f"{i}.exp_avg"] for i in some],
                [self.state[f"{i}.exp_avg_sq"] for i in some],
                [],  # the maxima of AMSGrad, which we have not
                steps,
                lr=lr,
                beta1=self.betas[0],
                beta2=self.betas[1],
                weight_decay=weight_decay,
                eps=self.eps,
                amsgrad=False,
                maximize=False,
            )

    def zero_grad(self) -> None:
        """Drop the gradients: None costs no memory, and marks what the next backward does not reach."""
        for parameter in self.params:
            parameter.grad = None

    def _initial_state(self, i: int) -> dict[str, Tensor]:
        parameter = self.params[i]
        return {
            # The fused kernel reads the step where the parameter is; the plain lines need a Python number.
            f"{i}.step": torch.zeros((), device=parameter.device if self.fused else "cpu"),
            f"{i}.exp_avg": torch.zeros_like(parameter),
            f"{i}.exp_avg_sq": torch.zeros_like(parameter),
        }

    def state_dict(self) -> dict[str, Tensor]:
        """All that must be saved, as names and live tensors: "0.step", "0.exp_avg", "0.exp_avg_sq", ...

        The number is the place of the parameter in `params`; one that never had a gradient has no state.
        """
        return dict(self.state)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Replace the state by a copy of what `state_dict` gave, on the devices of the parameters.

        Args:
            state: flat names and tensors, from an optimizer over the same parameters in the same order.

        Raises:
            MinitrainError: for a missing or unexpected name or another shape; nothing is loaded then.
        """
        loaded: dict[str, Tensor] = {}
        for i in range(len(self.params)):
            if f"{i}.step" in state:
                loaded |= self._initial_state(i)
        if odd := sorted(loaded.keys() ^ state.keys()):
            raise MinitrainError(
                f"optimizer state: {odd[0]!r} is {'missing' if odd[0] in loaded else 'unexpected'}; this "
                f"optimizer has {len(self.params)} parameters, so the state is of another model or cut short"
            )
        for name, tensor in loaded.items():
            if state[name].shape != tensor.shape:
                raise MinitrainError(
                    f"optimizer state: {name!r} has shape {tuple(state[name].shape)}, its parameter needs "
                    f"{tuple(tensor.shape)}; the state is of another model"
                )
            tensor.copy_(state[name])
        self.state = loaded


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


@torch.no_grad()
def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients down together so that their overall length is at most `max_norm`.

    One factor for all keeps the direction of the step: only its length changes.

    Args:
        parameters: tensors whose `.grad`, where there is one, is changed in place; all on one device.
        max_norm: longest L2 norm of all gradients seen as one vector; 0, less or infinity only measures.

    Returns:
        The norm before clipping, a 0-dim tensor; zero without any gradient. The order of the parameters
        decides its last bit.

    Source: Pascanu et al. 2012 (arXiv 1211.5063); `torch.nn.utils.clip_grad_norm_`, torch 2.13.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return torch.tensor(0.0)
    total_norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads, 2.0)))
    if 0.0 < max_norm < math.inf:
        # A factor clamped to 1 rather than `if total_norm > max_norm`: nobody waits for the device.
        torch._foreach_mul_(grads, torch.clamp(max_norm / (total_norm + 1e-6), max=1.0))
    return total_norm


# A schedule gives the factor for the base learning rate: (step, total_steps, warmup_steps) -> factor.
Schedule = Callable[[int, int, int], float]


def linear_schedule(step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """Rise from 0 to 1 over the warm-up, then fall in a straight line to 0 at `total_steps`.

    Args:
        step: optimizer steps done before this one, from 0.
        total_steps: optimizer steps of the whole run.
        warmup_steps: how many of them rise; the first has factor 0 if there are any.
    """
    if step < warmup_steps:
        return _warmup(step, warmup_steps)
    return max(0.0, float(total_steps - step) / float(max(1, total_steps - warmup_steps)))


def cosine_schedule(step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """Rise from 0 to 1 over the warm-up, then fall along half a cosine to 0 at `total_steps`.

    The arguments are those of `linear_schedule`. Source: Loshchilov & Hutter 2016 (arXiv 1608.03983).
    """
    if step < warmup_steps:
        return _warmup(step, warmup_steps)
    progress = float(step - warmup_steps) / float(max(1, total_steps - warmup_steps))
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


def constant_schedule(step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """Rise from 0 to 1 over the warm-up, then stay; the arguments are those of `linear_schedule`."""
    return _warmup(step, warmup_steps) if step < warmup_steps else 1.0


def _warmup(step: int, warmup_steps: int) -> float:
    return float(step) / float(max(1, warmup_steps))


# The Trainer's names. Its "constant" ignores the warm-up: for the same run, pass it none.
SCHEDULES: dict[str, Schedule] = {
    "linear": linear_schedule,
    "cosine": cosine_schedule,
    "constant": constant_schedule,
    "constant_with_warmup": constant_schedule,
}
