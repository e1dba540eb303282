"""Compiled passes against those that are not, what decides about them, and what a GPU must never be asked."""

import os
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.reference import REFERENCES, make_inputs, make_labels, our_loss, save_checkpoint
from test_loop import Recorder, reviews, split_of, write_tiny_model
from torch import Tensor, nn
from torch._dynamo.utils import counters

from minitrain.config.train_config import TrainConfig
from minitrain.data.batch import Batch
from minitrain.errors import MinitrainError
from minitrain.kernels.compile import compile_blocks, try_compile
from minitrain.model.classifier import SequenceClassifier
from minitrain.model.families import FAMILIES
from minitrain.model.weights import load_classifier
from minitrain.training.loop import fit
from minitrain.training.setup import make_state
from minitrain.training.step import StepSettings, train_step

NO_DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
# torch 2.13 meets its own deprecations on the way to the compiler, and asks what is no leaf for its gradient.
compiles = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore:The .grad attribute of a Tensor")


def still(model: SequenceClassifier) -> SequenceClassifier:
    """In training, but for dropout, by whatever name a family's modules have it."""
    for module in model.train().modules():
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)
    return model


def is_compiled(model: SequenceClassifier) -> bool:
    return all("forward" in vars(block) for block in model.encoder.blocks)


def logits_and_gradients(module: nn.Module, inputs: dict[str, Tensor]) -> list[Tensor]:
    module.zero_grad()
    logits = module(**inputs)
    our_loss(logits, make_labels(2, len(logits))).backward()
    return [logits.detach(), *(p.grad.clone() for p in module.parameters() if p.grad is not None)]


# One family per kind of block: RoBERTa's, CamemBERT's and ELECTRA's are BERT's.
UNLIKE_BLOCKS = {FAMILIES[family].block: family for family in reversed(REFERENCES)}.values()


@compiles
@pytest.mark.parametrize(
    ("family", "kernels"),
    [*((family, "reference") for family in UNLIKE_BLOCKS), ("bert", "fast"), ("deberta-v2", "fast")],
)
def test_blocks_of_every_family_are_compiled_once_for_all_lengths(
    family: str, kernels: str, tmp_path: Path
) -> None:
    """Traced, but run as it is, so that the reference's bits are the same; `fullgraph` allows no Python between."""
    config = save_checkpoint(tmp_path, family).config
    model, module = (still(load_classifier(tmp_path, kernels=kernels)) for _ in range(2))
    module.load_state_dict(model.state_dict())
    torch._dynamo.reset()
    counters.clear()
    compile_blocks(module.encoder.blocks, backend="aot_eager", fullgraph=True)
    graphs = []
    for rows, length, padded in ((5, 17, True), (3, 9, True), (4, 24, True)):
        inputs = make_inputs(config, rows=rows, length=length, padded=padded)
        expected = logits_and_gradients(model, inputs)
        largest = max(float(part.abs().max()) for part in expected)
        for ours, theirs in zip(logits_and_gradients(module, inputs), expected, strict=True):
            assert torch.equal(ours, theirs) or kernels == "fast" and (ours - theirs).abs().max() < 1e-5 * largest
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1] == graphs[2] > 0
    with torch.no_grad():  # not compiled in an evaluation
        module(**make_inputs(config, rows=7, length=11))
    assert counters["stats"]["unique_graphs"] == graphs[0]


@compiles
def test_a_copy_of_a_compiled_model_computes_with_its_own_weights(tmp_path: Path) -> None:
    config = save_checkpoint(tmp_path).config
    model = still(load_classifier(tmp_path, kernels="reference"))
    compile_blocks(model.encoder.blocks, backend="eager")
    copy = deepcopy(model)
    inputs = make_inputs(config)
    before = copy(**inputs)
    with torch.no_grad():
        for parameter in model.encoder.blocks.parameters():
            parameter.mul_(2.0)
    assert is_compiled(copy) and torch.equal(copy(**inputs), before)


@needs_compiler
@compiles
def test_compiled_passes_compute_what_the_model_does(tmp_path: Path) -> None:
    config = save_checkpoint(tmp_path).config
    model, module = (load_classifier(tmp_path, kernels="reference", **NO_DROPOUT).train() for _ in range(2))
    module.load_state_dict(model.state_dict())
    before, weights = torch.get_rng_state(), [p.clone() for p in module.parameters()]
    counters.clear()
    try_compile(module, module.encoder.blocks, 8)
    graphs = counters["stats"]["unique_graphs"]
    assert is_compiled(module) and graphs > 0  # it was compiled, here and now
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None and torch.equal(p, w) for p, w in zip(module.parameters(), weights, strict=True))
    for length in (17, 9):
        inputs = make_inputs(config, length=length)
        expected = logits_and_gradients(model, inputs)
        largest = max(float(part.abs().max()) for part in expected)
        for ours, theirs in zip(logits_and_gradients(module, inputs), expected, strict=True):
            assert (ours - theirs).abs().max() < 1e-5 * largest  # float32: sums in another order
    assert counters["stats"]["unique_graphs"] == graphs


@needs_compiler
@compiles
def test_a_compiled_run_learns_as_one_that_is_not(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path)
    split = split_of(folder, *reviews(20, seed=3))
    runs = []
    for torch_compile in (False, True):
        torch.manual_seed(0)
        model = load_classifier(folder, 2, kernels="reference", **NO_DROPOUT)
        config = TrainConfig(
            torch_compile=torch_compile,
            kernels="reference",
            device="cpu",
            eval_strategy="epoch",
            num_train_epochs=2,
            gradient_accumulation_steps=2,
            per_device_train_batch_size=3,
            pad_to_multiple_of=8,
            learning_rate=1e-3,
        )
        recorder = Recorder(model)
        fit(model, split, {"validation": split}, config, observer=recorder)
        assert is_compiled(model) == torch_compile
        runs.append(recorder.losses + recorder.evaluated("loss"))
    assert len(runs[0]) == 10 and runs[0][0] != runs[0][-1]
    assert max(abs(ours - theirs) for ours, theirs in zip(*runs, strict=True)) < 1e-4  # float32, over 8 steps


def test_without_a_compiler_a_run_says_so_and_goes_on(tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    code = f"""
from minitrain.kernels.compile import try_compile
from minitrain.model.weights import load_classifier
model = load_classifier({str(tmp_path)!r}, kernels="reference").train()
try_compile(model, model.encoder.blocks, 8)
assert not any("forward" in vars(block) for block in model.encoder.blocks)
"""
    environment = os.environ | {
        "CXX": str(tmp_path / "no-compiler"),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "--torch_compile: not compiled, since it failed: " in done.stderr
    assert "no-compiler" in done.stderr


def test_on_a_cpu_compiled_code_does_not_take_the_place_of_the_fast_kernels(tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    with pytest.raises(MinitrainError, match="--torch_compile is for a GPU.* or pass --kernels reference too"):
        make_state(load_classifier(tmp_path), TrainConfig(torch_compile=True))


@pytest.mark.parametrize("match", ["match_trainer", "match_accelerate"])
def test_compiled_code_has_not_the_bits_of_a_match(match: str) -> None:
    with pytest.raises(MinitrainError, match="--torch_compile changes the last bits"):
        TrainConfig(**{match: True}, torch_compile=True)


def test_compiled_there_are_few_lengths() -> None:
    assert TrainConfig(torch_compile=True).pad_to_multiple_of == 8
    assert TrainConfig(torch_compile=True, pad_to_multiple_of=3).pad_to_multiple_of == 3
    assert TrainConfig().pad_to_multiple_of is None


@pytest.mark.parametrize("kernels", ["fast", "reference"])
@pytest.mark.parametrize("family", REFERENCES)
def test_no_pass_waits_for_a_number(family: str, kernels: str, tmp_path: Path) -> None:
    """What is on a GPU is not known to Python. Tensors on `meta` have no numbers: to ask for one is an error."""
    config = save_checkpoint(tmp_path, family).config
    model = load_classifier(tmp_path, kernels=kernels).train().to("meta")
    inputs = {name: tensor.to("meta") for name, tensor in make_inputs(config).items()}
    with pytest.raises(RuntimeError):
        bool(inputs["attention_mask"].all())
    model(**inputs).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())
    with torch.no_grad():
        assert model.eval()(**inputs).shape == (5, 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_compiled_run_learns_as_one_that_is_not(tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    losses = []
    for torch_compile in (False, True):
        model = load_classifier(tmp_path, **NO_DROPOUT).to("cuda").train()
        state = make_state(model, TrainConfig(torch_compile=torch_compile, bf16=True))
        assert is_compiled(model) == torch_compile
        inputs = make_inputs(type("Config", (), {"vocab_size": 99, "pad_token_id": 0}))
        batch = Batch(**inputs, labels=make_labels(2, 5))
        for _ in range(8):
            loss, _ = train_step(state, [batch], 1e-2, StepSettings(bf16=True))
        losses.append(loss)
    assert losses[0] < 0.6 and abs(losses[0] - losses[1]) < 0.05  # bfloat16 keeps 8 bits
