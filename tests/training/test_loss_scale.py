"""The loss scale of fp16 beside torch's GradScaler, on the CPU; skipped steps, and resuming with its state."""

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import Recorder, reviews, split_of, weights_of
from torch import Tensor, nn

from minitrain.config.train_config import TrainConfig
from minitrain.distributed.world import World
from minitrain.errors import MinitrainError, Stopped
from minitrain.model.weights import load_classifier
from minitrain.run.resume import Checkpointer
from minitrain.training import setup
from minitrain.training.loop import fit, train_loop
from minitrain.training.loss_scale import LOWEST, LossScale
from minitrain.training.metrics import metric_for
from minitrain.training.schedules import linear_schedule
from minitrain.training.setup import Best, choose_step, is_recordable, make_state
from minitrain.training.step import TrainState, train_step


def with_gradients(values: list[float]) -> list[Tensor]:
    parameters = [nn.Parameter(torch.zeros(2)) for _ in values]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = torch.tensor([value, 3.0])
    return parameters


@pytest.mark.parametrize("start", [2.0**16, 2.0**127, 1.0])
def test_scale_and_gradients_are_those_of_gradscaler(start: float) -> None:
    """Some 300 steps, a fifth of which overflow; at 2**127 the next doubling would be infinite."""
    draw = random.Random(0)
    theirs = torch.amp.GradScaler("cpu", init_scale=start, growth_interval=3)
    ours = LossScale(scale=start, growth_interval=3)
    theirs.scale(torch.zeros(()))  # makes its state
    skipped = 0
    for _ in range(300):
        value = draw.choice([1.0, 1e-3, 7e4, 0.1, math.inf if draw.random() < 0.5 else math.nan])
        mine, other = with_gradients([1.0, value * 8]), with_gradients([1.0, value * 8])
        optimizer = torch.optim.SGD(other, lr=0.0)
        theirs.unscale_(optimizer)
        overflowed = ours.unscale(mine)  # and counts the step if it does not overflow
        assert overflowed is not math.isfinite(value)
        for one, two in zip(mine, other, strict=True):
            assert one.grad is not None and two.grad is not None
            assert torch.equal(one.grad.nan_to_num(), two.grad.nan_to_num())
        theirs.step(optimizer)
        theirs.update()
        if overflowed:
            ours.update(overflowed)
        skipped += overflowed
        assert (ours.scale, ours.good_steps) == (theirs.get_scale(), theirs._get_growth_tracker())
    assert ours.skipped == skipped > 30


def test_the_defaults_are_those_of_gradscaler() -> None:
    theirs, ours = torch.amp.GradScaler("cpu"), LossScale()
    assert (ours.scale, ours.growth_interval) == (theirs.get_scale(), theirs.get_growth_interval())
    assert (theirs.get_growth_factor(), theirs.get_backoff_factor()) == (2.0, 0.5)


def test_sparse_gradients_are_unscaled_too() -> None:
    words = nn.Embedding(9, 2, sparse=True)
    (words(torch.tensor([3, 3])).sum() * 8.0).backward()
    assert LossScale(scale=8.0).unscale(words.parameters()) is False
    assert words.weight.grad is not None
    assert words.weight.grad.to_dense()[3].tolist() == [2.0, 2.0]


def run_in_fp16(
    folder: Path, start: float = 2.0**16, kernels: str = "fast", after_step: Any = None, **flags: Any
) -> tuple[TrainState, Recorder]:
    config = TrainConfig(
        fp16=True, kernels=kernels, max_steps=8, per_device_train_batch_size=4, eval_strategy="no", **flags
    )
    torch.manual_seed(0)
    model = load_classifier(folder, 2, kernels=kernels)
    state, recorder = make_state(model.train(), config), Recorder(model)
    assert state.loss_scale is not None
    state.loss_scale.scale = start
    best = Best(name="loss", greater_is_better=False)
    after = after_step(config, state, best) if after_step else lambda *_, **__: None
    train_loop(
        state,
        best,
        split_of(folder, *reviews(32)),
        {},
        config,
        lambda: metric_for(None, 2),
        recorder,
        after_step=after,
    )
    return state, recorder


@pytest.mark.parametrize("kernels", ["fast", "reference"])
def test_steps_that_overflow_are_skipped_until_the_scale_fits(kernels: str, model: Path) -> None:
    before = weights_of(load_classifier(model, 2))
    state, recorder = run_in_fp16(model, start=2.0**20, kernels=kernels)
    skipped = [log.skipped for log in recorder.steps]
    assert state.loss_scale is not None and 1 < skipped[-1] == state.loss_scale.skipped < 8
    assert state.loss_scale.scale == 2.0 ** (20 - skipped[-1])
    assert all(math.isfinite(log.loss) for log in recorder.steps)
    assert state.step == 8 and state.updates == 8 - skipped[-1]
    earlier = before | {name: weights for name, weights in recorder.weights[0].items() if "head" in name}
    rates = []
    for log, weights in zip(recorder.steps, recorder.weights, strict=True):
        same = all(torch.equal(weights[name], each) for name, each in earlier.items())
        assert same is not math.isfinite(log.grad_norm)
        rates.append(log.learning_rate)
        earlier = weights
    # As in Trainer, a skipped step leaves the schedule alone.
    updates = [step - before for step, before in enumerate([0, *skipped[:-1]])]
    assert rates == [5e-5 * linear_schedule(done, 8) for done in updates]
    moments = state.optimizer.state[next(iter(state.model.parameters()))]
    assert moments["step"].item() == state.updates


def test_fp16_trains_as_float32_does(model: Path) -> None:
    """Within fp16's 11 bits, dropout included: 1e-2 of losses near 0.7."""
    _, recorder = run_in_fp16(model)
    config = TrainConfig(max_steps=8, per_device_train_batch_size=4, eval_strategy="no", pad_to_multiple_of=8)
    torch.manual_seed(0)
    plain = load_classifier(model, 2)
    expected = Recorder(plain)
    fit(plain, split_of(model, *reviews(32)), {}, config, observer=expected)
    assert recorder.losses == pytest.approx(expected.losses, abs=1e-2)
    norms = [log.grad_norm for log in recorder.steps]
    assert norms == pytest.approx([log.grad_norm for log in expected.steps], rel=0.1)  # unscaled before


def test_a_loss_that_is_nan_is_an_error_and_not_a_skipped_step(model: Path) -> None:
    def broken(config: TrainConfig, state: TrainState, best: Best) -> Any:
        def after(*_: Any, **__: Any) -> None:
            with torch.no_grad():
                next(iter(state.model.head.parameters())).fill_(math.nan)

        return after

    with pytest.raises(MinitrainError, match="step 2: the loss is nan"):
        run_in_fp16(model, after_step=broken)


def test_gradients_that_overflow_at_any_scale_end_the_run() -> None:
    scale = LossScale(scale=2 * LOWEST, overflowed=True)
    assert scale.skips(7, 0.5) and not scale.skips(7, math.nan)
    with pytest.raises(MinitrainError, match="step 8: .* even with a loss scale of 0.00012.*--bf16"):
        scale.skips(8, 0.5)
    assert scale.skipped == 1


def test_a_resumed_run_has_the_scale_and_the_bits_of_one_that_never_stopped(model: Path, tmp_path: Path) -> None:
    """Stopped after step 3, when some steps were skipped; it continues with the scale and schedule they left."""

    def saving(config: TrainConfig, state: TrainState, best: Best) -> Any:
        checkpoints = Checkpointer(tmp_path, config, lambda: {}, World(), lambda _: None, lambda _: None)
        checkpoints.restore(state, best, 8)

        def after(*_: Any, **__: Any) -> None:
            if state.step == 3 and config.resume is None:
                checkpoints.save(state, best)
                raise Stopped("stopped", 15)

        return after

    whole, expected = run_in_fp16(model, start=2.0**18)
    with pytest.raises(Stopped):
        run_in_fp16(model, start=2.0**18, after_step=saving)
    state, recorder = run_in_fp16(model, after_step=saving, resume="newest")
    assert recorder.losses == expected.losses[3:]
    assert [log.learning_rate for log in recorder.steps] == [log.learning_rate for log in expected.steps[3:]]
    assert state.loss_scale is not None and state.loss_scale == whole.loss_scale
    assert 0 < state.loss_scale.skipped < 3
    for name, weight in weights_of(whole.model).items():
        assert torch.equal(weight, state.model.get_parameter(name)), name


def test_a_gpu_takes_plain_steps_in_fp16() -> None:
    config, cuda = TrainConfig(fp16=True), torch.device("cuda")
    assert is_recordable(TrainConfig(), cuda) and not is_recordable(config, cuda)
    assert choose_step(config, cuda, 1) is train_step is setup.train_step


def test_fp16_is_refused_where_it_has_no_meaning() -> None:
    with pytest.raises(MinitrainError, match="two precisions"):
        TrainConfig(fp16=True, bf16=True)
    with pytest.raises(MinitrainError, match="accelerate has no fp16"):
        TrainConfig(fp16=True, match_trainer=True)
