"""Blocks that are computed again in the backward pass: the same bits, with less kept."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from parity.reference import REFERENCES, make_inputs, make_labels, our_loss, save_checkpoint
from test_loop import Recorder, reviews, split_of, weights_of
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.kernels.dropout import ExampleStreams, drawing_from
from minitrain.kernels.precision import autocast
from minitrain.kernels.prepack import CastWeights, casting
from minitrain.kernels.recompute import recompute_blocks
from minitrain.model.classifier import SequenceClassifier
from minitrain.model.families import FAMILIES
from minitrain.model.weights import load_classifier
from minitrain.training.loop import fit
from minitrain.training.setup import is_recordable

FIVE = range(5)
LENGTHS = (17, 12, 7, 3, 2)


def a_step(model: SequenceClassifier, inputs: dict[str, Tensor], *, bf16: bool, examples: bool) -> list[Tensor]:
    """Loss, gradients and the states of the random streams after two passes that add up, as a step has them."""
    torch.manual_seed(5)
    streams = ExampleStreams(0, 0, FIVE, LENGTHS)
    cast = CastWeights() if bf16 and model.cls_only else None
    with casting(cast) if cast else nullcontext(), drawing_from(streams) if examples else nullcontext():
        for _ in range(2):
            with autocast(torch.device("cpu"), torch.bfloat16 if bf16 else torch.float32):
                logits = model(**inputs)
            loss = our_loss(logits, make_labels(model.config.num_labels, len(logits)))
            loss.backward()
    gradients = [each.grad.to_dense() for each in model.parameters() if each.grad is not None]
    model.zero_grad()
    return [loss.detach(), *gradients, torch.get_rng_state(), *(each.get_state() for each in streams.generators)]


def kept_numbers(work: Callable[[], object]) -> int:
    """Elements that a forward pass keeps for its backward pass, those of parameters aside."""
    sizes: list[int] = []

    def pack(each: Tensor) -> Tensor:
        sizes.append(0 if isinstance(each, torch.nn.Parameter) else each.numel())
        return each

    with saved_tensors_hooks(pack, lambda each: each):
        work()
    return sum(sizes)


@pytest.mark.parametrize("kernels", ["reference", "fast"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_block_that_is_computed_again_gives_the_same_bits(family: str, kernels: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, family)
    plain = load_classifier(tmp_path, 2, kernels=kernels).train()
    again = copy.deepcopy(plain)
    recompute_blocks(again.encoder.blocks)
    inputs = make_inputs(REFERENCES[family].config(**REFERENCES[family].small))
    for bf16 in (False, True):
        # A dropout of DeBERTa's is of the positions, which belong to no example.
        for examples in (False, True) if kernels == "fast" and family != "deberta-v2" else (False,):
            expected, found = (a_step(model, inputs, bf16=bf16, examples=examples) for model in (plain, again))
            assert len(found) == len(expected)
            assert all(map(torch.equal, found, expected)), (bf16, examples)
    assert kept_numbers(lambda: again(**inputs)) < 0.5 * kept_numbers(lambda: plain(**inputs))


def test_a_run_that_computes_blocks_again_is_the_same_run(model: Path) -> None:
    """Accumulation, streams of each example, an evaluation in the middle, and what a copy of the model computes."""
    train, validation = split_of(model, *reviews(22)), split_of(model, *reviews(8, seed=1))
    found = []
    for gradient_checkpointing in (False, True):
        config = TrainConfig(
            num_train_epochs=2,
            gradient_accumulation_steps=2,
            per_device_train_batch_size=4,
            per_device_eval_batch_size=4,
            dropout_rng="example",
            gradient_checkpointing=gradient_checkpointing,
        )
        torch.manual_seed(0)
        trained = load_classifier(model, 2)
        recorder = Recorder(trained)
        fit(trained, train, {"validation": validation}, config, observer=recorder)
        facts = [recorder.losses, [log.grad_norm for log in recorder.steps], recorder.evaluated("loss")]
        found.append((facts, weights_of(trained)))
    assert found[0][0] == found[1][0]
    assert all(map(torch.equal, found[0][1].values(), found[1][1].values()))


def test_a_copy_of_the_model_computes_again_with_its_own_weights(model: Path) -> None:
    original = load_classifier(model, 2).train()
    recompute_blocks(original.encoder.blocks)
    copied = copy.deepcopy(original)
    with torch.no_grad():
        copied.encoder.blocks[0].feed_forward.output.weight.zero_()  # type: ignore[union-attr,operator]
    inputs = {"input_ids": torch.tensor([[2, 7, 3]])}
    assert not torch.equal(copied.eval()(**inputs), original.eval()(**inputs))


def test_a_gpu_computes_steps_with_checkpointing_without_a_recording() -> None:
    assert is_recordable(TrainConfig(), torch.device("cuda"))
    assert not is_recordable(TrainConfig(gradient_checkpointing=True), torch.device("cuda"))


def test_compiled_blocks_are_not_computed_again() -> None:
    with pytest.raises(MinitrainError, match="pass one of the two"):
        TrainConfig(torch_compile=True, gradient_checkpointing=True)
