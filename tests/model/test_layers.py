"""Activations by all their names, and feed-forward layers in parts: the bits of transformers."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.reference import (
    REFERENCES,
    Twins,
    assert_same_logits,
    assert_same_training_step,
    load_reference,
    load_twins,
    make_inputs,
    save_checkpoint,
)
from torch import Tensor
from transformers.activations import ACT2FN

from minitrain.model.classifier import SequenceClassifier
from minitrain.model.layers import ACTIVATIONS, apply_chunking
from minitrain.model.weights import load_classifier, save_classifier

LEARNT = {"prelu", "xielu"}  # activations with parameters, which no checkpoint of these families holds
ACT = {"distilbert": "activation", "modernbert": "hidden_activation"}  # what families call hidden_act
# Of these the reference cuts no layer into parts.
WHOLE = {"deberta-v2", "modernbert", "mpnet"}


class NoTokenizer:
    def save(self, directory: Path) -> None:
        assert directory.is_dir()


def test_every_activation_of_transformers_is_known_but_those_that_learn() -> None:
    assert set(ACTIVATIONS) == set(ACT2FN) - LEARNT


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_and_its_gradient_are_those_of_transformers(name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([torch.randn(4000, generator=generator) * 4, torch.tensor([0.0, -0.0, 20.0, -20.0, 6.0, -3.0])])
    ours, theirs = (x.to(dtype).requires_grad_() for _ in range(2))
    weight = torch.randn(len(x), generator=generator).to(dtype)
    values, expected = ACTIVATIONS[name](ours), ACT2FN[name](theirs)
    (values * weight).sum().backward()
    (expected * weight).sum().backward()
    assert ours.grad is not None and theirs.grad is not None
    assert torch.equal(values, expected) and torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("name", ["gelu_python", "swish", "quick_gelu", "laplace", "linear", "leaky_relu"])
@pytest.mark.parametrize("family", ["bert", "distilbert", "albert", "modernbert"])
def test_a_model_with_another_activation_trains_as_in_transformers(family: str, name: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, family, **{ACT.get(family, "hidden_act"): name})
    twins = load_twins(tmp_path)
    inputs = make_inputs(twins.config)
    assert_same_training_step(twins, inputs)
    fast = load_classifier(tmp_path)
    assert_near(fast(**inputs), load_classifier(tmp_path, kernels="reference")(**inputs))


@pytest.mark.parametrize("name", ["mish", "sqrtsoftplus"])
def test_the_other_layers_of_a_model_take_every_activation_too(name: str, tmp_path: Path) -> None:
    for family, keys in (("deberta-v2", ("pooler_hidden_act",)), ("modernbert", ("classifier_activation",))):
        save_checkpoint(tmp_path / family, family, **dict.fromkeys(keys, name))
        twins = load_twins(tmp_path / family)
        assert_same_training_step(twins, make_inputs(twins.config))


def assert_near(values: Tensor, expected: Tensor) -> None:
    assert values.shape == expected.shape and (values - expected).abs().max() < 1e-5


# Feed-forward layers in parts (chunk_size_feed_forward)


@pytest.mark.parametrize("size", [1, 4, 16])
@pytest.mark.parametrize("family", [name for name in REFERENCES if name not in WHOLE])
def test_parts_of_a_length_that_they_divide_have_the_logits_of_transformers(
    family: str, size: int, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path, family, chunk_size_feed_forward=size)
    twins = load_twins(tmp_path)
    inputs = make_inputs(twins.config, length=16)
    assert parts_of_a_layer(twins.ours, inputs) == 16 // size
    assert_same_logits(twins, inputs)
    whole = load_classifier(tmp_path)
    assert_near(whole(**inputs), twins.ours(**inputs))


@pytest.mark.parametrize("family", ["bert", "roberta", "albert", "electra"])
def test_parts_train_as_in_transformers_dropout_included(family: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, family, chunk_size_feed_forward=4)
    twins = load_twins(tmp_path)
    assert_same_training_step(twins, make_inputs(twins.config, length=16))


@pytest.mark.parametrize("size", [0, -1])
def test_no_parts_are_no_parts(size: int, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, chunk_size_feed_forward=size)
    twins = load_twins(tmp_path)
    assert_same_logits(twins, make_inputs(twins.config))


@pytest.mark.parametrize("kernels", ["fast", "reference"])
def test_the_last_part_may_be_shorter_where_transformers_refuses(kernels: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, chunk_size_feed_forward=5)
    inputs = make_inputs(load_reference(tmp_path).config)  # 17 tokens
    with pytest.raises(ValueError, match="has to be a multiple of the chunk size"):
        load_reference(tmp_path)(**inputs)
    parts = load_classifier(tmp_path, kernels=kernels)(**inputs)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"chunk_size_feed_forward": 0}))
    assert_near(parts, load_classifier(tmp_path, kernels="reference")(**inputs))


@pytest.mark.parametrize("family", sorted(WHOLE))
def test_families_that_have_no_parts_in_transformers_have_none_here(family: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, family, chunk_size_feed_forward=4)
    twins = load_twins(tmp_path)
    assert_same_logits(twins, make_inputs(twins.config))


def test_the_size_of_parts_survives_saving(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "theirs", chunk_size_feed_forward=4)
    save_classifier(load_classifier(tmp_path / "theirs"), NoTokenizer(), tmp_path / "ours")
    theirs = load_reference(tmp_path / "ours")
    assert theirs.config.chunk_size_feed_forward == 4
    twins = Twins(theirs, load_classifier(tmp_path / "ours", kernels="reference"))
    assert_same_logits(twins, make_inputs(theirs.config, length=16))


def parts_of_a_layer(model: SequenceClassifier, inputs: dict[str, Tensor]) -> int:
    """How often a layer multiplies by its first feed-forward matrix, in one pass."""
    calls: list[Any] = []
    for block in model.encoder.blocks:
        block.feed_forward.intermediate.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr]
    with torch.no_grad():
        model.eval()(**inputs)
    return len(calls) // len(model.encoder.layer_order)


def test_a_function_in_parts_gives_what_the_whole_gives() -> None:
    x = torch.arange(24.0).view(2, 6, 2)
    seen: list[int] = []

    def double(part: Tensor) -> Tensor:
        seen.append(part.size(1))
        return part * 2

    assert torch.equal(apply_chunking(double, x, 4), x * 2) and seen == [4, 2]


def test_a_model_with_any_activation_can_be_pickled() -> None:
    """As `torch.save(model)` and processes that are spawned do."""
    for activation in ACTIVATIONS.values():
        again = pickle.loads(pickle.dumps(activation))
        x = torch.linspace(-3, 3, 7)
        assert torch.equal(again(x), activation(x))
