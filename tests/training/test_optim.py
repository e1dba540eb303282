"""The optimizer and schedules against torch and transformers: the same bits after every step."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, Trainer, get_scheduler

from minitrain.errors import MinitrainError
from minitrain.training.optim import AdamW
from minitrain.training.param_groups import decay_groups
from minitrain.training.schedules import SCHEDULES, constant_schedule, cosine_schedule, linear_schedule

SHAPES = [(), (1,), (7,), (33, 5), (8, 16), (3, 4, 5), (64, 129)]
STEPS = 50


def twins() -> tuple[list[Tensor], list[Tensor]]:
    values = [torch.randn(shape) for shape in SHAPES]
    return [v.clone().requires_grad_() for v in values], [v.clone().requires_grad_() for v in values]


def set_gradients(ours: list[Tensor], theirs: list[Tensor], step: int) -> None:
    """Equal gradients of changing size; every parameter lacks one at some steps, the last until step 10."""
    for i, (our, their) in enumerate(zip(ours, theirs, strict=True)):
        missing = (step + i) % 7 == 0 or (i == len(ours) - 1 and step < 10)
        gradient = torch.randn_like(our) * 10.0 ** (step % 5 - 3)
        our.grad, their.grad = (None, None) if missing else (gradient.clone(), gradient.clone())


def assert_same(ours: AdamW, theirs: torch.optim.AdamW) -> None:
    for i, (our, their) in enumerate(zip(ours.params, theirs.param_groups[0]["params"], strict=True)):
        assert torch.equal(our, their)
        state = ours.state_dict()
        assert len(theirs.state[their]) == (3 if f"{i}.step" in state else 0)
        for name, tensor in theirs.state[their].items():
            assert torch.equal(state[f"{i}.{name}"], tensor), (i, name)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_adamw_has_the_bits_of_torch_at_every_step(fused: bool, weight_decay: float) -> None:
    torch.manual_seed(0)
    ours, theirs = twins()
    our = AdamW(ours, lr=1e-3, weight_decay=weight_decay, fused=fused)
    their = torch.optim.AdamW(theirs, lr=1e-3, weight_decay=weight_decay, fused=fused, foreach=False)
    schedule = torch.optim.lr_scheduler.LambdaLR(their, lambda step: linear_schedule(step, STEPS, 10))
    for step in range(STEPS):
        set_gradients(ours, theirs, step)
        our.step(1e-3 * linear_schedule(step, STEPS, 10))
        their.step()
        schedule.step()
        assert_same(our, their)


def test_fused_path_calls_the_fused_kernel_and_the_plain_path_does_not() -> None:
    for fused in (False, True):
        weight = torch.ones(3, requires_grad=True)
        weight.grad = torch.ones(3)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            AdamW([weight], fused=fused).step()
        assert any(event.key == "aten::_fused_adamw_" for event in profile.key_averages()) == fused


def test_fused_path_takes_parameters_of_two_dtypes() -> None:
    torch.manual_seed(0)
    ours = [torch.randn(9).to(dtype).requires_grad_() for dtype in (torch.float32, torch.float64, torch.float32)]
    theirs = [p.detach().clone().requires_grad_() for p in ours]
    our, their = AdamW(ours, lr=1e-2), torch.optim.AdamW(theirs, lr=1e-2, weight_decay=0.0, fused=True)
    for step in range(3):
        set_gradients(ours, theirs, step + 10)
        our.step()
        their.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("fused", [False, True])
def test_a_resumed_optimizer_continues_with_the_same_bits(fused: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    straight, resumed = twins()
    one = AdamW(straight, 1e-3, weight_decay=0.01, fused=fused)
    first = AdamW(resumed, 1e-3, weight_decay=0.01, fused=fused)
    for step in range(8):  # the last parameter has no gradient yet, hence no state to save
        set_gradients(straight, resumed, step)
        one.step()
        first.step()
    save_file(first.state_dict(), tmp_path / "optimizer.safetensors")
    assert f"{len(SHAPES) - 1}.step" not in first.state_dict() and "0.exp_avg_sq" in first.state_dict()
    second = AdamW(resumed, 1e-3, weight_decay=0.01, fused=fused)
    second.load_state_dict(load_file(tmp_path / "optimizer.safetensors"))
    for step in range(8, 20):
        set_gradients(straight, resumed, step)
        one.step()
        second.step()
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))
    states = one.state_dict(), second.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_loaded_state_is_a_copy() -> None:
    weight = torch.ones(3, requires_grad=True)
    weight.grad = torch.ones(3)
    saved = {"0.step": torch.tensor(4.0), "0.exp_avg": torch.zeros(3), "0.exp_avg_sq": torch.zeros(3)}
    optimizer = AdamW([weight])
    optimizer.load_state_dict(saved)
    optimizer.step()
    assert optimizer.state_dict()["0.step"] == 5 and saved["0.step"] == 4
    assert torch.equal(saved["0.exp_avg"], torch.zeros(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.exp_avg": None}, "'0.exp_avg' is missing"),
        ({"0.step": None}, "unexpected"),
        ({"7.step": torch.zeros(())}, "'7.step' is unexpected; this optimizer has 1 parameters"),
        (
            {"0.exp_avg": torch.zeros(4)},
            r"'0.exp_avg' has shape \(4,\), its parameter needs a tensor of shape \(3,\)",
        ),
    ],
)
def test_a_state_of_another_model_is_refused_and_changes_nothing(change: dict, message: str) -> None:
    optimizer = AdamW([torch.ones(3, requires_grad=True)])
    state = {"0.step": torch.zeros(()), "0.exp_avg": torch.zeros(3), "0.exp_avg_sq": torch.zeros(3)} | change
    with pytest.raises(MinitrainError, match=message):
        optimizer.load_state_dict({name: tensor for name, tensor in state.items() if tensor is not None})
    assert optimizer.state == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1e-5}, "lr is -1e-05"),
        ({"lr": math.nan}, "lr is nan"),
        ({"eps": -1e-8}, "eps is"),
        ({"weight_decay": -0.1}, "weight_decay is"),
        ({"betas": (1.0, 0.9)}, r"betas are \(1.0, 0.9\)"),
        ({"betas": (0.9, -0.1)}, "betas are"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict, message: str) -> None:
    with pytest.raises(MinitrainError, match=message):
        AdamW([torch.zeros(1)], **settings)


# decay groups


class Odd(nn.Module):
    """Names and nestings that the patterns and the type check treat differently."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Linear(2, 2)
        self.a_norm = nn.Linear(2, 2)  # by name only
        self.normal = nn.Linear(2, 2)  # 'norm' inside a word does not count
        self.hidden = nn.LayerNorm(2)  # by type only
        self.norm = nn.Sequential(nn.Linear(2, 2))
        self.RMSNorm = nn.Linear(2, 2)
        self.unbiased = nn.Parameter(torch.zeros(2))  # 'bias' inside a word does
        self.scale = nn.Parameter(torch.zeros(2))


def trainer_groups(model: nn.Module) -> list[list[str]]:
    """Names in the two groups of `Trainer.create_optimizer`, run without the rest of a Trainer."""
    trainer = object.__new__(Trainer)
    decaying = trainer.get_decay_parameter_names(model)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return [[n for n in names if n in decaying], [n for n in names if n not in decaying]]


def tiny_bert() -> nn.Module:
    sizes: dict[str, Any] = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    return BertForSequenceClassification(BertConfig(vocab_size=16, **sizes))


@pytest.mark.parametrize("make", [tiny_bert, Odd, lambda: nn.LayerNorm(3)])
def test_decay_groups_are_those_of_the_trainer(make: Callable[[], nn.Module]) -> None:
    model = make()
    next(model.parameters()).requires_grad_(len(list(model.parameters())) < 5)
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = decay_groups(model, 0.01)
    assert [[names[p] for p in group["params"]] for group in groups] == trainer_groups(model)
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
    assert len(AdamW(groups).params) == sum(p.requires_grad for p in model.parameters())


# schedules


@pytest.mark.parametrize("warmup", [0, 1, 10, 150])
@pytest.mark.parametrize("total", [1, 7, 100])
@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_learning_rates_equal_those_of_transformers_at_every_step(name: str, total: int, warmup: int) -> None:
    if name == "constant":
        warmup = 0  # transformers ignores it there, ours leaves that to the caller
    base = 5e-5
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=base)
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    for step in range(total + 3):  # steps beyond the end too
        assert base * SCHEDULES[name](step, total, warmup) == optimizer.param_groups[0]["lr"]
        assert SCHEDULES[name](step, total, warmup) == scheduler.lr_lambdas[0](step)
        optimizer.step()
        scheduler.step()


def test_warmup_is_none_unless_asked_for() -> None:
    assert [schedule(0, 4) for schedule in (linear_schedule, cosine_schedule, constant_schedule)] == [1.0, 1.0, 1.0]
    assert linear_schedule(3, 4) == 0.25 and linear_schedule(4, 4) == 0.0
