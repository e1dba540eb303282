"""Recorded steps: their logic on the CPU, where what is recorded is computed anew; the recordings on a GPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import NO_DROPOUT, Recorder, reviews, same, split_of, weights_of, write_tiny_model
from torch import Tensor

from minitrain.config.train_config import TrainConfig
from minitrain.data.batch import Batch, collate
from minitrain.data.dataset import Split
from minitrain.distributed.world import World
from minitrain.errors import MinitrainError
from minitrain.model.classifier import SequenceClassifier
from minitrain.model.weights import load_classifier
from minitrain.run.resume import Checkpointer
from minitrain.training import loop
from minitrain.training.evaluation import Evaluation
from minitrain.training.loop import StepLog, train_loop
from minitrain.training.metrics import metric_for
from minitrain.training.recorded_step import RecordedStep
from minitrain.training.setup import best_by, choose_step, is_recordable, make_state
from minitrain.training.step import StepSettings, TrainState, train_step

SETTINGS = StepSettings(fused_clip=True)
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class ComputedAnew(RecordedStep):
    """What is recorded is the work itself, done at each replay with what stands in its place."""

    def _record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        outcome = torch.zeros(2)

        def replay() -> None:
            outcome.copy_(work())

        return outcome, replay


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "model")


def state_of(folder: Path, device: torch.device = CPU, **flags: Any) -> TrainState:
    torch.manual_seed(0)
    config = TrainConfig(learning_rate=1e-3, **flags)
    return make_state(load_classifier(folder, 2, **({} if flags else NO_DROPOUT)).to(device).train(), config)


def recorded_on_cpu(folder: Path) -> tuple[RecordedStep, TrainState]:
    state = state_of(folder)
    state.model.encoder.word_embeddings.sparse = False  # as on a GPU
    return recorded_step(), state


def recorded_step(*_: object) -> RecordedStep:
    return ComputedAnew(CPU)


def batches_of(folder: Path, count: int) -> list[Batch]:
    """Of 4 rows each, in a few lengths."""
    split = split_of(folder, *reviews(4 * count))
    return [collate([split[row] for row in range(4 * i, 4 * i + 4)], 0, 8) for i in range(count)]


def test_a_recorded_step_computes_what_a_step_does(folder: Path) -> None:
    batches, plain, (step, recorded) = batches_of(folder, 12), state_of(folder), recorded_on_cpu(folder)
    norms = []
    for number, batch in enumerate(batches):
        rate = 1e-3 / (number + 1)
        expected = train_step(plain, [batch], rate, StepSettings(max_grad_norm=0.41))
        ours = step(recorded, [batch], rate, StepSettings(max_grad_norm=0.41, fused_clip=True))
        assert ours.read() == pytest.approx(expected, rel=1e-5)  # clipped by a division, not a product
        norms.append(expected.grad_norm)
    assert min(norms) < 0.41 < max(norms)  # some were clipped
    assert plain.step == recorded.step == 12
    shapes = {batch.input_ids.shape for batch in batches[1:]}
    assert len(step._recorded) == len(shapes) > 1
    for name, weight in weights_of(plain.model).items():
        # No loss depends on this one: its gradients are rounding, and Adam makes steps of them.
        if name.endswith("key.bias"):
            continue
        assert torch.allclose(weight, recorded.model.get_parameter(name), atol=1e-6), name


def test_a_recorded_step_takes_a_rate_for_each_group(folder: Path) -> None:
    config: dict[str, Any] = {"learning_rate": 1e-3, "layerwise_lr_decay": 0.5, "head_learning_rate": 1e-2}
    torch.manual_seed(0)
    states = [
        make_state(load_classifier(folder, 2, **NO_DROPOUT).train(), TrainConfig(**config, seed=7))
        for _ in range(2)
    ]
    plain, recorded = states
    recorded.model.load_state_dict(plain.model.state_dict())
    recorded.model.encoder.word_embeddings.sparse = False
    step, rates = recorded_step(), [group["base_lr"] for group in plain.optimizer.param_groups]
    assert len(set(rates)) > 2
    for number, batch in enumerate(batches_of(folder, 5)):
        now = [rate / (number + 1) for rate in rates]
        expected = train_step(plain, [batch], now, SETTINGS)
        assert step(recorded, [batch], now, SETTINGS).read() == pytest.approx(expected, rel=1e-4)
    for name, weight in weights_of(plain.model).items():
        assert name.endswith("key.bias") or torch.allclose(weight, recorded.model.get_parameter(name), atol=1e-6), (
            name
        )


def test_the_first_step_is_not_recorded_and_each_setting_has_its_own_recording(folder: Path) -> None:
    (batch, *_), (step, state) = batches_of(folder, 1), recorded_on_cpu(folder)
    step(state, [batch], 1e-3, SETTINGS)
    assert not step._recorded
    for max_grad_norm in (1.0, 0.1, 1.0):
        step(state, [batch], 1e-3, StepSettings(max_grad_norm=max_grad_norm))
    assert len(step._recorded) == 2


def test_a_result_that_is_read_late_is_of_its_own_step(folder: Path) -> None:
    first, second = batches_of(folder, 2)
    found = []
    for late in (True, False):
        step, state = recorded_on_cpu(folder)
        step(state, [first], 1e-3, SETTINGS)
        results = (step(state, [batch], 1e-3, SETTINGS) for batch in (first, second, first))
        found.append([result.read() for result in (list(results) if late else results)])
    assert found[0] == found[1]


def test_a_broken_step_updates_nothing_nor_does_one_begun_before_it_was_known(folder: Path) -> None:
    (batch, other), (step, state) = batches_of(folder, 2), recorded_on_cpu(folder)
    step(state, [batch], 1e-3, SETTINGS)
    step(state, [other], 1e-3, SETTINGS)
    bias = state.model.head.output.bias
    kept = bias.detach().clone()
    with torch.no_grad():
        bias.fill_(float("nan"))
    before, moments = weights_of(state.model), {n: t.clone() for n, t in state.optimizer.state_dict().items()}
    broken = step(state, [other], 1e-3, SETTINGS, rows=[3, 7, 0, 1])
    step(state, [other], 1e-3, SETTINGS)
    with pytest.raises(MinitrainError, match=r"step 3: the loss is nan.* counted from 1: 4, 8, 1, 2\. Lower"):
        broken.read()
    with torch.no_grad():
        bias.copy_(kept)
        before[next(n for n, p in state.model.named_parameters() if p is bias)] = kept
    assert same(before, weights_of(state.model)) and state.step == 2
    assert same(moments, state.optimizer.state_dict())
    step(state, [other], 1e-3, SETTINGS)  # mended, it continues
    assert not same(before, weights_of(state.model)) and state.step == 3


class Order(Recorder):
    """Takes down, too, which step had been begun when it was told of one."""

    def __init__(self, model: SequenceClassifier, state_steps: list[int]) -> None:
        super().__init__(model)
        self.state_steps, self.told = state_steps, []

    def on_step(self, log: StepLog) -> None:
        super().on_step(log)
        self.told.append((log.step, self.state_steps[-1]))

    def on_evaluation(self, step: int, epoch: float, results: dict[str, Evaluation], is_best: bool) -> None:
        super().on_evaluation(step, epoch, results, is_best)
        self.told.append((f"evaluation {step}", self.state_steps[-1]))


def fit_recorded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: Checkpointer | None = None, **flags: Any
) -> tuple[Order, list[int]]:
    train: Split = split_of(folder, *reviews(24))
    begun, step = [0], recorded_step()
    config = TrainConfig(learning_rate=1e-3, per_device_train_batch_size=4, num_train_epochs=2, **flags)
    torch.manual_seed(0)
    model = load_classifier(folder, 2)
    order = Order(model, begun)

    def begin(state: TrainState, *args: Any, **kwargs: Any) -> Any:
        begun.append(state.step + 1)
        return step(state, *args, **kwargs)

    monkeypatch.setattr(loop, "choose_step", lambda *_: begin)
    state, best = make_state(model.train(), config), best_by(config, metric_for(None, 2))
    if checkpoints is not None:
        checkpoints.restore(state, best, 12)
    after = {"after_step": checkpoints.after_step} if checkpoints else {}
    train_loop(state, best, train, {"validation": train}, config, lambda: metric_for(None, 2), order, **after)
    return order, begun


def test_a_run_reads_each_step_when_the_next_has_begun_and_all_before_an_evaluation(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, begun = fit_recorded(folder, monkeypatch)
    assert begun == list(range(13))
    late = [(n, n + 1) for n in range(1, 6)] + [(6, 6), ("evaluation 6", 6)]
    assert order.told[:7] == late
    assert order.told[7:] == [(n, n + 1) for n in range(7, 12)] + [(12, 12), ("evaluation 12", 12)]
    assert [log.step for log in order.steps] == list(range(1, 13))
    assert all(log.seconds > 0 for log in order.steps)


def test_a_recorded_run_is_saved_when_its_steps_are_known_and_goes_on_to_the_same_bits(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def checkpoints(resume: str | None = None) -> tuple[Checkpointer, dict[str, Any]]:
        flags = {"save_strategy": "steps", "save_steps": 5, "resume": resume}
        config = TrainConfig(learning_rate=1e-3, per_device_train_batch_size=4, num_train_epochs=2, **flags)
        return Checkpointer(tmp_path, config, lambda: {}, World(), lambda _: None, lambda _: None), flags

    whole, flags = checkpoints()
    order, _ = fit_recorded(folder, monkeypatch, whole, **flags)
    assert order.told[4] == (5, 5)  # before the checkpoint
    saved = tmp_path / "checkpoints" / "step-00000005"
    rest, flags = checkpoints(str(saved))
    resumed, begun = fit_recorded(folder, monkeypatch, rest, **flags)
    assert begun == [0, *range(6, 13)]
    # The first step of either is not recorded, and clips by a product.
    assert [log.loss for log in resumed.steps] == pytest.approx([log.loss for log in order.steps[5:]], rel=1e-5)


@pytest.mark.parametrize(
    ("device", "processes", "flags", "expected"),
    [
        ("cuda", 1, {}, True),
        ("cuda", 1, {"bf16": True, "torch_compile": True}, True),
        ("cpu", 1, {}, False),
        ("cuda", 2, {}, False),
        ("cuda", 1, {"cuda_graphs": False}, False),
        ("cuda", 1, {"gradient_accumulation_steps": 2}, False),
        ("cuda", 1, {"kernels": "reference"}, False),
        ("cuda", 1, {"optim": "adamw_torch"}, False),
        ("cuda", 1, {"match_trainer": True}, False),
        ("cuda", 1, {"profile": True}, False),
    ],
)
def test_what_is_recorded(device: str, processes: int, flags: dict[str, Any], expected: bool) -> None:
    assert is_recordable(TrainConfig(**flags), torch.device(device), processes) == expected


@needs_gpu
@pytest.mark.parametrize("bf16", [False, True])
def test_on_a_gpu_a_replayed_run_has_the_losses_of_one_that_launches_each_kernel(folder: Path, bf16: bool) -> None:
    """With dropout: a replay goes on in the random stream where the step before it ended."""
    runs = []
    for cuda_graphs in (False, True):
        config = TrainConfig(cuda_graphs=cuda_graphs, bf16=bf16)
        state, step = state_of(folder, CUDA, bf16=bf16), choose_step(config, CUDA, 1)
        assert isinstance(step, RecordedStep) == cuda_graphs
        torch.manual_seed(1)
        settings = StepSettings.of(config)
        runs.append([step(state, [batch], 1e-3, settings).read() for batch in batches_of(folder, 12) * 2])
        assert not isinstance(step, RecordedStep) or len(step._recorded) > 1
    plain, replayed = (torch.tensor(run) for run in runs)
    assert (plain - replayed).abs().max() < (1e-4 if bf16 else 1e-5) * plain.abs().max()
    assert plain[0, 0] != plain[12, 0]


@needs_gpu
def test_on_a_gpu_a_broken_step_updates_nothing(folder: Path) -> None:
    state, step, (batch, *_) = state_of(folder, CUDA, bf16=True), RecordedStep(CUDA), batches_of(folder, 1)
    settings = StepSettings(bf16=True, fused_clip=True)
    for _ in range(3):
        step(state, [batch], 1e-3, settings).read()
    with torch.no_grad():
        state.model.head.output.weight.fill_(float("inf"))
    before = weights_of(state.model)
    broken, _ = (step(state, [batch], 1e-3, settings) for _ in range(2))
    with pytest.raises(MinitrainError, match="step 4: the loss is"):
        broken.read()
    assert same(before, weights_of(state.model)) and state.step == 3
