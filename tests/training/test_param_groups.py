"""AdamW and clipping in loops written by hand: groups, torch's schedulers, closures; and what is refused."""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import lr_scheduler as schedulers
from transformers import get_scheduler

from minitrain.errors import MinitrainError
from minitrain.training.clipping import clip_grad_norm
from minitrain.training.optim import AdamW
from minitrain.training.param_groups import decay_groups

STEPS = 20
LAYER = nn.Linear(2, 2)
WEIGHT = torch.zeros(3, requires_grad=True)

Optimizer = torch.optim.Optimizer


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(30, 16), nn.Linear(16, 8), nn.LayerNorm(8), nn.Linear(8, 3))


def loss_of(net: nn.Sequential, step: int) -> Tensor:
    rows = torch.randperm(30, generator=torch.Generator().manual_seed(step))[:6]
    out: Tensor = net(rows)
    return (out * (step + 1)).sin().sum()


def weights(net: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in net.parameters()]


def make(net: nn.Sequential, ours: bool, fused: bool, groups: str = "own") -> Optimizer:
    """An optimizer of ours, or torch's AdamW, over the same groups."""
    kinds: dict[str, Any] = {
        "plain": list(net.parameters()),
        "pairs": list(net.named_parameters()),
        "own": [
            {"params": net[0].parameters(), "lr": 2e-3, "name": "embeddings"},
            {"params": list(net[1].parameters()), "weight_decay": 0.0, "betas": (0.8, 0.9)},
            {"params": net[2].weight, "eps": 1e-3, "weight_decay": 0.3},
            {"params": [net[2].bias, *net[3].parameters()], "lr": 5e-4},
        ],
    }
    settings: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.99), "eps": 1e-7, "weight_decay": 0.1, "fused": fused}
    if ours:
        return AdamW(kinds[groups], **settings)
    return torch.optim.AdamW(kinds[groups], **settings, foreach=None if fused else False)


both_kernels = pytest.mark.parametrize("fused", [False, True])


@both_kernels
@pytest.mark.parametrize("groups", ["plain", "pairs", "own"])
@pytest.mark.parametrize("sparse", [False, True])
def test_every_kind_of_group_has_the_bits_of_torch(fused: bool, groups: str, sparse: bool) -> None:
    """With sparse gradients too: torch's optimizer does not take them, and gets dense ones."""
    nets = model(), model()
    nets[0][0].sparse = sparse
    optimizers = [make(net, ours, fused, groups) for net, ours in zip(nets, (True, False), strict=True)]
    for step in range(STEPS):
        for net, optimizer in zip(nets, optimizers, strict=True):
            loss_of(net, step).backward()
            optimizer.step()
            optimizer.zero_grad()
        assert all(map(torch.equal, weights(nets[0]), weights(nets[1]))), step
    assert ("0.rows" in optimizers[0].state_dict()) is sparse


SCHEDULERS: dict[str, Callable[[Optimizer], Any]] = {
    "LambdaLR": lambda o: schedulers.LambdaLR(o, lambda step: 1 / (step + 1)),
    "MultiplicativeLR": lambda o: schedulers.MultiplicativeLR(o, lambda step: 0.9),
    "StepLR": lambda o: schedulers.StepLR(o, 3),
    "MultiStepLR": lambda o: schedulers.MultiStepLR(o, [3, 9]),
    "ConstantLR": lambda o: schedulers.ConstantLR(o, total_iters=4),
    "LinearLR": lambda o: schedulers.LinearLR(o, total_iters=7),
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: schedulers.PolynomialLR(o, 15, 2.0),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, 7),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 5),
    "CyclicLR": lambda o: schedulers.CyclicLR(o, 1e-4, 1e-3, 4, cycle_momentum=True, base_momentum=0.7),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, 1e-2, total_steps=25),
    "ReduceLROnPlateau": lambda o: schedulers.ReduceLROnPlateau(o, patience=1),
    "ChainedScheduler": lambda o: schedulers.ChainedScheduler(
        [schedulers.ConstantLR(o, total_iters=5), schedulers.ExponentialLR(o, 0.9)]
    ),
    "SequentialLR": lambda o: schedulers.SequentialLR(
        o, [schedulers.LinearLR(o, total_iters=4), schedulers.CosineAnnealingLR(o, 16)], [4]
    ),
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, swa_lr=1e-4, anneal_epochs=6),
}


def test_no_scheduler_of_torch_is_left_out() -> None:
    assert set(schedulers.__all__) - {"LRScheduler"} <= set(SCHEDULERS)


def advance(scheduler: Any, loss: Tensor) -> None:
    if isinstance(scheduler, schedulers.ReduceLROnPlateau):
        scheduler.step(loss.item())
    else:
        scheduler.step()


@both_kernels
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_of_torch_have_the_bits_that_they_have_there(name: str, fused: bool) -> None:
    nets = model(), model()
    optimizers = [make(net, ours, fused) for net, ours in zip(nets, (True, False), strict=True)]
    plans = [SCHEDULERS[name](optimizer) for optimizer in optimizers]
    rates = set()
    for step in range(STEPS):
        for net, optimizer, scheduler in zip(nets, optimizers, plans, strict=True):
            loss = loss_of(net, step)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            advance(scheduler, loss)
        rates.add(optimizers[0].param_groups[0]["lr"])
        assert all(map(torch.equal, weights(nets[0]), weights(nets[1]))), step
    assert len(rates) > 1, "the scheduler changed nothing"


@pytest.mark.parametrize("name", ["ExponentialLR", "CosineAnnealingLR", "OneCycleLR", "LinearLR"])
def test_saved_state_goes_on_at_the_rate_of_the_scheduler(name: str) -> None:
    """A chainable scheduler computes the next rate from the last one, which is the optimizer's."""
    straight, resumed = model(), model()
    one, first = make(straight, True, True), make(resumed, True, True)
    plans = SCHEDULERS[name](one), SCHEDULERS[name](first)
    pairs = [(straight, one, plans[0]), (resumed, first, plans[1])]
    for step in range(STEPS):
        if step == 8:
            second = make(resumed, True, True)
            scheduler = SCHEDULERS[name](second)
            scheduler.load_state_dict(plans[1].state_dict())
            second.load_state_dict(first.state_dict())
            pairs[1] = resumed, second, scheduler
        for net, optimizer, plan in pairs:
            loss_of(net, step).backward()
            optimizer.step()
            optimizer.zero_grad()
            plan.step()
    assert all(map(torch.equal, weights(straight), weights(resumed)))
    assert "group.3.now" in one.state_dict()
    assert AdamW(model().parameters()).state_dict() == {}


@both_kernels
@pytest.mark.parametrize("how", ["first", "named"])
def test_closure_is_called_with_gradients_and_its_loss_comes_back(fused: bool, how: str) -> None:
    nets = model(), model()
    optimizers = [make(net, ours, fused) for net, ours in zip(nets, (True, False), strict=True)]
    for step in range(STEPS):
        losses = []
        for net, optimizer in zip(nets, optimizers, strict=True):

            def closure(net: nn.Sequential = net, optimizer: Optimizer = optimizer, step: int = step) -> Tensor:
                optimizer.zero_grad()
                loss = loss_of(net, step)
                loss.backward()
                return loss

            loss: Any = optimizer.step(closure) if how == "first" else optimizer.step(closure=closure)
            losses.append(loss.item())
        assert losses[0] == losses[1]
    assert all(map(torch.equal, weights(nets[0]), weights(nets[1])))
    assert optimizers[0].step() is None


@both_kernels
@pytest.mark.parametrize("sparse", [False, True])
def test_gradients_can_be_set_to_zero_instead(fused: bool, sparse: bool) -> None:
    """Moments then move weights that have no gradient any more, as in torch."""
    nets = model(), model()
    nets[0][0].sparse = sparse
    optimizers = [make(net, ours, fused) for net, ours in zip(nets, (True, False), strict=True)]
    for step in range(STEPS):
        for net, optimizer in zip(nets, optimizers, strict=True):
            if step < 10:
                loss_of(net, step).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
        assert all(map(torch.equal, weights(nets[0]), weights(nets[1]))), step
    assert all(p.grad is not None and not p.grad.to_dense().any() for p in nets[0].parameters())


@both_kernels
def test_group_that_is_added_later_trains_from_there(fused: bool) -> None:
    nets = model(), model()
    optimizers: list[Optimizer] = [
        AdamW(nets[0][3].parameters(), lr=1e-2, fused=fused),
        torch.optim.AdamW(nets[1][3].parameters(), lr=1e-2, weight_decay=0.0, fused=fused, foreach=False),
    ]
    for step in range(STEPS):
        for net, optimizer in zip(nets, optimizers, strict=True):
            if step == 5:
                optimizer.add_param_group({"params": net[1].parameters(), "lr": 1e-3})
            loss_of(net, step).backward()
            optimizer.step()
            net.zero_grad()
    assert all(map(torch.equal, weights(nets[0]), weights(nets[1])))
    assert not torch.equal(nets[0][1].weight, model()[1].weight)


@pytest.mark.parametrize("rate", [torch.tensor(1e-2), torch.tensor([3e-3]), np.float32(1e-2), np.float64(0.02), 1])
@both_kernels
def test_rate_of_torch_or_numpy_is_taken_as_torch_takes_it(rate: Any, fused: bool) -> None:
    nets = model(), model()
    theirs = float(rate) if isinstance(rate, np.float32) else rate  # whose plain lines compute in float32 of it
    optimizers: list[Optimizer] = [
        AdamW(nets[0].parameters(), lr=rate, fused=fused),
        torch.optim.AdamW(nets[1].parameters(), lr=theirs, weight_decay=0.0, fused=fused, foreach=False),
    ]
    for step in range(3):
        for net, optimizer in zip(nets, optimizers, strict=True):
            loss_of(net, step).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert all(map(torch.equal, weights(nets[0]), weights(nets[1])))


def test_rate_of_the_call_holds_for_all_groups() -> None:
    nets = model(), model()
    ours = make(nets[0], True, True)
    theirs = make(nets[1], False, True)
    for group in theirs.param_groups:
        group["lr"] = 7e-3
    for net, step in ((nets[0], lambda: ours.step(7e-3)), (nets[1], theirs.step)):
        loss_of(net, 0).backward()
        step()
    assert all(map(torch.equal, weights(nets[0]), weights(nets[1])))
    assert ours.param_groups[3]["lr"] == 5e-4


@both_kernels
def test_list_of_rates_has_one_for_each_group(fused: bool) -> None:
    nets, rates = (model(), model()), [1e-3, 2e-3, 0.0, 5e-4]
    ours, theirs = make(nets[0], True, fused), make(nets[1], False, fused)
    for step in range(3):
        for group, rate in zip(theirs.param_groups, rates, strict=True):
            group["lr"] = rate / (step + 1)
        for net in nets:
            loss_of(net, step).backward()
        ours.step([rate / (step + 1) for rate in rates])
        theirs.step()
        for net in nets:
            net.zero_grad()
    assert all(map(torch.equal, weights(nets[0]), weights(nets[1])))
    with pytest.raises(MinitrainError, match="got 2 learning rates for 4 groups"):
        ours.step([1e-3, 1e-3])
    with pytest.raises(MinitrainError, match="lr is -1.0"):
        ours.step([1e-3, -1.0, 1e-3, 1e-3])


def test_scaled_gradients_train_as_in_torch_and_a_broken_step_is_left_out() -> None:
    nets = model(), model()
    nets[0][0].sparse = True
    optimizers = [make(net, ours, True) for net, ours in zip(nets, (True, False), strict=True)]
    scalers = [torch.amp.GradScaler("cpu", init_scale=2.0**10) for _ in nets]
    for step in range(STEPS):
        for net, optimizer, scaler in zip(nets, optimizers, scalers, strict=True):
            scaler.scale(loss_of(net, step) * (math.inf if step == 7 else 1.0)).backward()
            scaler.unscale_(optimizer)
            clip_grad_norm(net.parameters(), math.inf)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        assert scalers[0].get_scale() == scalers[1].get_scale()
        assert all(p.isfinite().all() for p in nets[0].parameters())
        torch.testing.assert_close(weights(nets[0]), weights(nets[1]), rtol=1e-6, atol=1e-7)


def test_copies_go_their_own_way() -> None:
    net = model()
    net[0].sparse = True
    optimizer = make(net, True, True)
    loss_of(net, 0).backward()
    optimizer.step()
    both = copy.deepcopy((net, optimizer))
    for some, its in ((net, optimizer), both):
        its.zero_grad()
        loss_of(some, 1).backward()
        its.step()
    assert all(map(torch.equal, weights(net), weights(both[0])))
    assert not set(net.parameters()) & set(both[1].params)


def test_state_of_torch_is_taken_as_the_refusal_says() -> None:
    nets = model(), model()
    ours, theirs = make(nets[0], True, True), make(nets[1], False, True)
    loss_of(nets[1], 0).backward()
    theirs.step()
    nets[0].load_state_dict(nets[1].state_dict())
    s: Any = theirs.state_dict()
    with pytest.raises(MinitrainError, match="expected names and tensors") as no:
        ours.load_state_dict(s)
    ours.load_state_dict({f"{i}.{name}": t for i, m in s["state"].items() for name, t in m.items()})
    assert "{f'{i}.{name}': t for i, m in s['state'].items() for name, t in m.items()}" in str(no.value)
    for net, optimizer in zip(nets, (ours, theirs), strict=True):
        optimizer.zero_grad()
        loss_of(net, 1).backward()
        optimizer.step()
    assert all(map(torch.equal, weights(nets[0]), weights(nets[1])))


REFUSED: dict[str, tuple[Any, str]] = {
    "a tensor": (WEIGHT, r"got one tensor.*pass \[tensor\]"),
    "numbers": ([1.0], r"parameter 0 is 1.0 \(float\), expected a tensor: pass model.parameters\(\)"),
    "a model": (LAYER, r"got a Linear, expected .*: model.parameters\(\)"),
    "models": ([LAYER], "parameter 0 is a Linear"),
    "a string": ("weight", "got 'weight'"),
    "strings": (["weight"], "parameter 0 is 'weight'"),
    "nothing": (None, "got None"),
    "an empty list": ([], "no parameters: is every parameter of the model frozen"),
    "an empty generator": (iter([]), "or was the generator read before"),
    "a group alone": ({"params": [WEIGHT]}, r"a group goes into a list, \[\{'params': ...\}\]"),
    "a dict of tensors": (LAYER.state_dict(), r"tensors of a dict are its .values\(\)"),
    "a set": ({WEIGHT}, "in a fixed order: .*, or a list"),
    "a set in a group": ([{"params": {WEIGHT}}], "in a fixed order: .*, or a list"),
    "a group without params": ([{"weight_decay": 0.1}], r"\['weight_decay'\] for a group; a group is a dict with"),
    "a group of a model": ([{"params": LAYER}], "got a Linear"),
    "groups and tensors": ([{"params": [WEIGHT]}, LAYER.weight], "put the tensors into a group"),
    "tensors and groups": ([LAYER.weight, {"params": [WEIGHT]}], "put the tensors into a group"),
    "names and none": (
        [("a", WEIGHT), LAYER.weight],
        "some with names and some without|some parameters with names",
    ),
    "a name of a number": ([("a", 1.0)], "parameter 0 is 1.0"),
    "a computed tensor": ([WEIGHT * 2], r"parameter 0 \(3,\) is computed from others.*detach"),
    "integers": ([torch.tensor([1, 2])], r"parameter 0 \(2,\) is torch.int64"),
    "complex": ([torch.zeros(2, dtype=torch.complex64)], "is torch.complex64"),
    "a parameter twice": ([WEIGHT, WEIGHT], "twice"),
    "a parameter in two groups": ([{"params": WEIGHT}, {"params": WEIGHT}], "twice"),
    "a numpy array": (np.zeros(3), "parameter 0 is 0.0 |parameter 0 is np.float64"),
    "a misnamed setting": ([{"params": WEIGHT, "learning_rate": 1}], "'learning_rate'; here it is called 'lr'"),
    "a setting of torch": ([{"params": WEIGHT, "amsgrad": True}], "use torch.optim.AdamW"),
    "a negative rate in a group": ([{"params": WEIGHT, "lr": -1.0}], "lr is -1.0"),
    "betas in a group": ([{"params": WEIGHT, "betas": (0.9, 1.0)}], "betas are"),
    "eps in a group": ([{"params": WEIGHT, "eps": -1.0}], "eps is"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_is_refused_with_the_way_out(case: str) -> None:
    params, said = REFUSED[case]
    with pytest.raises(MinitrainError, match=said):
        AdamW(params)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lr": torch.tensor([1.0, 2.0])}, r"lr is a tensor \(2,\) of torch.float32; expected one number"),
        ({"lr": torch.tensor(-1.0)}, "lr is -1.0"),
        ({"lr": "0.1"}, r"lr is '0.1' \(str\); expected a number"),
        ({"lr": None}, "lr is None"),
        ({"lr": True}, "lr is True"),
        ({"betas": 0.9}, r"betas are 0.9; expected two numbers"),
        ({"betas": (0.9,)}, "expected two numbers"),
        ({"betas": ("a", 0.9)}, "betas is 'a'"),
        ({"betas": (math.nan, 0.9)}, "betas are"),
        ({"weight_decay": math.inf}, "weight_decay is inf"),
        ({"fused": "yes"}, "fused is 'yes'; expected True or False"),
    ],
)
def test_settings_of_no_use_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(MinitrainError, match=said):
        AdamW([WEIGHT], **settings)


@pytest.mark.parametrize("rate", ["fast", math.nan, -1.0, torch.ones(2)])
def test_rate_of_no_use_is_refused_at_its_step(rate: Any) -> None:
    weight = torch.ones(3, requires_grad=True)
    weight.grad = torch.ones(3)
    with pytest.raises(MinitrainError, match="lr is"):
        AdamW([weight]).step(rate)
    assert torch.equal(weight, torch.ones(3))


def test_rate_that_a_scheduler_broke_is_named_before_the_weights_are_broken() -> None:
    weight = torch.ones(3, requires_grad=True)
    weight.grad = torch.ones(3)
    optimizer = AdamW([weight])
    optimizer.param_groups[0]["lr"] = math.nan
    with pytest.raises(MinitrainError, match="the learning rate of a group is nan"):
        optimizer.step()
    assert torch.equal(weight, torch.ones(3))


# --- Clipping ---


@pytest.mark.parametrize("make_it", [lambda w: w, lambda w: [w], lambda w: iter([w]), lambda w: [("weight", w)]])
def test_one_tensor_and_named_ones_are_clipped_as_in_torch(make_it: Callable[[Tensor], Any]) -> None:
    ours, theirs = (torch.zeros(2, requires_grad=True) for _ in range(2))
    ours.grad, theirs.grad = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.0])
    norm = clip_grad_norm(make_it(ours), 1.0)
    assert torch.equal(norm, nn.utils.clip_grad_norm_(theirs, 1.0)) and norm == 5.0
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("max_norm", [np.float32(1.0), np.int64(1), torch.tensor(1.0), 1])
def test_longest_norm_may_be_a_number_of_numpy_or_torch(max_norm: Any) -> None:
    weight = torch.zeros(2, requires_grad=True)
    weight.grad = torch.tensor([3.0, 4.0])
    assert clip_grad_norm(weight, max_norm) == 5.0
    assert weight.grad.norm().item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_gradients_of_two_dtypes_are_clipped_as_in_torch(dtype: torch.dtype) -> None:
    def made() -> list[Tensor]:
        torch.manual_seed(0)
        parameters = [torch.zeros(40, dtype=d, requires_grad=True) for d in (torch.float32, dtype, torch.float32)]
        for parameter in parameters:
            parameter.grad = torch.randn(40).to(parameter.dtype)
        return parameters

    ours, theirs = made(), made()
    assert clip_grad_norm(ours, 1.0).item() == nn.utils.clip_grad_norm_(theirs, 1.0).item()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (LAYER, r"clip_grad_norm got a Linear, expected .*: model.parameters\(\)"),
        ("weight", "got 'weight'"),
        ([1.0], "parameter 0 is 1.0"),
        (1.0, "got 1.0"),
        (None, "got None"),
        ({WEIGHT}, "in a fixed order: .*, or a list"),
        (LAYER.state_dict(), r"its .values\(\)"),
        ([{"params": [WEIGHT]}], "parameter 0 is a dict"),
        ([WEIGHT, None], "parameter 1 is None"),
    ],
)
def test_what_has_no_gradients_is_not_clipped_in_silence(parameters: Any, said: str) -> None:
    with pytest.raises(MinitrainError, match=said):
        clip_grad_norm(parameters, 1.0)


@pytest.mark.parametrize("max_norm", ["1", None, math.nan, torch.ones(2), [1.0]])
def test_longest_norm_that_is_no_number_is_refused(max_norm: Any) -> None:
    with pytest.raises(MinitrainError, match="max_norm is"):
        clip_grad_norm([WEIGHT], max_norm)


def test_generator_that_was_read_before_is_warned_of() -> None:
    parameters = (parameter for parameter in LAYER.parameters())
    assert len(list(parameters)) == 2
    with pytest.warns(UserWarning, match="empty generator: was it read before"):
        assert clip_grad_norm(parameters, 1.0) == 0.0


def test_decay_groups_want_a_model_and_a_number() -> None:
    with pytest.raises(MinitrainError, match="decay_groups got .*, expected a model"):
        decay_groups(list(LAYER.parameters()), 0.1)  # type: ignore[arg-type]
    with pytest.raises(MinitrainError, match="weight_decay is '0.1'"):
        decay_groups(LAYER, "0.1")  # type: ignore[arg-type]


def test_accelerate_and_the_schedules_of_transformers_take_it() -> None:
    accelerator = Accelerator(cpu=True)
    nets: list[Any] = [model(), model()]
    ours = accelerator.prepare(AdamW(decay_groups(nets[0], 0.1), lr=1e-2))
    theirs = torch.optim.AdamW(decay_groups(nets[1], 0.1), lr=1e-2, fused=True)
    pairs = [
        (net, optimizer, get_scheduler("cosine", optimizer, 2, STEPS))
        for net, optimizer in zip(nets, (ours, theirs), strict=True)
    ]
    for step in range(STEPS):
        for net, optimizer, scheduler in pairs:
            loss_of(net, step).backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    assert all(map(torch.equal, weights(nets[0]), weights(nets[1])))
