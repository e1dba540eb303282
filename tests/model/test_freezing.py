"""Which layer each parameter of each family belongs to, and what freezing leaves alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from parity.reference import REFERENCES, make_inputs, save_checkpoint
from references import layer_groups
from torch import Tensor

from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.model.classifier import SequenceClassifier
from minitrain.model.freezing import count_parameters, freeze_layers, frozen_layers, head_level, levels
from minitrain.model.weights import load_classifier, reference_names
from minitrain.training.layer_rates import level_rates, optimizer_groups
from minitrain.training.param_groups import decay_groups

LAYERS = {"distilbert": "n_layers"}
MORE: dict[str, dict[str, Any]] = {"deberta-v2": {"conv_kernel_size": 3}}


@pytest.fixture(scope="module", params=REFERENCES)
def any_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SequenceClassifier:
    """One of each family, of 4 layers."""
    folder, family = tmp_path_factory.mktemp("family"), request.param
    save_checkpoint(folder, family, **{LAYERS.get(family, "num_hidden_layers"): 4} | MORE.get(family, {}))
    return load_classifier(folder)


@pytest.fixture
def bert(tmp_path: Path) -> SequenceClassifier:
    save_checkpoint(tmp_path, num_hidden_layers=4)
    return load_classifier(tmp_path)


def test_levels_are_those_that_names_of_transformers_give(any_model: SequenceClassifier) -> None:
    ours = {name: level for level, name, _ in levels(any_model)}
    head = head_level(any_model)
    assert head == (2 if any_model.config.model_type == "albert" else 5)
    theirs = {own: layer_groups.depth(name, head - 1) for name, own in reference_names(any_model).items()}
    assert ours == theirs
    assert set(ours.values()) == set(range(head + 1))


def test_every_parameter_is_in_one_group_with_its_decay_and_rate(any_model: SequenceClassifier) -> None:
    config = TrainConfig(layerwise_lr_decay=0.5, head_learning_rate=0.1, learning_rate=0.01, weight_decay=0.3)
    groups = optimizer_groups(any_model, config)
    placed = {id(p): (group["base_lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert len(placed) == sum(len(group["params"]) for group in groups)
    decaying = {id(p) for p in decay_groups(any_model, 0.3)[0]["params"]}
    head = head_level(any_model)
    for level, name, parameter in levels(any_model):
        rate = 0.1 if level == head else 0.01 * 0.5 ** (head - level)
        assert placed[id(parameter)] == (rate, 0.3 if id(parameter) in decaying else 0.0), name
    assert level_rates(any_model, config)[0] == 0.01 * 0.5**head
    assert len(groups) <= 2 * (head + 1)


@pytest.mark.parametrize("what", ["embeddings", "1", 3, "encoder"])
def test_frozen_parameters_get_no_gradient_and_no_graph_reaches_them(
    any_model: SequenceClassifier, what: str | int
) -> None:
    highest = {"embeddings": 0, "encoder": head_level(any_model) - 1}.get(
        str(what), int(what) if str(what).isdigit() else 0
    )
    if highest >= head_level(any_model):
        pytest.skip("ALBERT has one set of weights")
    freeze_layers(any_model, what)
    any_model.train()
    outputs: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda *args: outputs.append(args[2]))
        for module in (any_model.encoder.embeddings, *any_model.encoder.blocks[:highest])
    ]
    any_model(**make_inputs(any_model.config)).sum().backward()
    assert outputs and not any(output.requires_grad for output in outputs)
    frozen = {name for level, name, _ in levels(any_model) if level <= highest}
    assert {name for name, p in any_model.named_parameters() if p.grad is None} >= frozen
    assert {name for name, p in any_model.named_parameters() if not p.requires_grad} == frozen
    trained, every = count_parameters(any_model)
    assert 0 < trained < every == sum(p.numel() for p in any_model.parameters())
    for hook in hooks:
        hook.remove()
    any_model.zero_grad()
    freeze_layers(any_model, None)
    assert count_parameters(any_model) == (every, every)


def test_frozen_part_keeps_its_dropout_unless_it_is_turned_off(bert: SequenceClassifier) -> None:
    inputs = make_inputs(bert.config)

    def outputs(block: int) -> list[Tensor]:
        found: list[Tensor] = []
        hook = bert.encoder.blocks[block].register_forward_hook(lambda *args: found.append(args[2]))
        for _ in range(2):
            bert(**inputs)
        hook.remove()
        return found

    freeze_layers(bert, "2")
    bert.train()
    assert not torch.equal(*outputs(1))
    freeze_layers(bert, "2", dropout=False)
    bert.eval()
    bert.train()  # as after an evaluation
    assert torch.equal(*outputs(1)) and not torch.equal(*outputs(2))
    freeze_layers(bert, None)
    assert not torch.equal(*outputs(1))


def test_what_the_user_froze_stays_frozen(bert: SequenceClassifier) -> None:
    bert.encoder.blocks[0].requires_grad_(False)
    every = sum(p.numel() for p in bert.parameters())
    own = count_parameters(bert)[0]
    freeze_layers(bert, "3")
    assert frozen_layers(bert.encoder) == 3
    freeze_layers(bert, "embeddings")
    assert frozen_layers(bert.encoder) == 1
    freeze_layers(bert, None)
    assert count_parameters(bert) == (own, every)


def test_more_layers_than_there_are_is_an_error_that_counts_them(bert: SequenceClassifier, tmp_path: Path) -> None:
    with pytest.raises(MinitrainError, match=r"--freeze 7: the model has 4 layers; --freeze encoder"):
        freeze_layers(bert, "7")
    save_checkpoint(tmp_path / "albert", "albert", num_hidden_layers=4)
    with pytest.raises(MinitrainError, match="1 sets of weights, which its 4 layers share"):
        freeze_layers(load_classifier(tmp_path / "albert"), "2")


def test_nothing_left_to_train_is_an_error(bert: SequenceClassifier) -> None:
    bert.requires_grad_(False)
    for flags in ({}, {"decay_all": True}, {"layerwise_lr_decay": 0.9}):
        with pytest.raises(MinitrainError, match="every parameter of the model is frozen"):
            optimizer_groups(bert, TrainConfig(**flags))


WRONG: dict[str, dict[str, Any]] = {
    "--freeze is 'bottom'; expected embeddings, encoder": {"freeze": "bottom"},
    "--freeze is '0'; expected": {"freeze": 0},
    "--freeze is '-1'; expected": {"freeze": "-1"},
    "--layerwise_lr_decay is 0.0; expected at least 0.01 and at most 1.0": {"layerwise_lr_decay": 0.0},
    "--layerwise_lr_decay is 1.5; expected": {"layerwise_lr_decay": 1.5},
    "--head_learning_rate is -1": {"head_learning_rate": -1},
    "--keep_activations keeps the output of frozen layers": {"freeze": "embeddings", "keep_activations": True},
    "keeps no windows of long texts": {"freeze": 2, "keep_activations": True, "long_texts": "windows"},
    "drop --frozen_dropout true": {"freeze": 2, "keep_activations": True, "frozen_dropout": True},
    "--frozen_dropout false is about frozen layers": {"frozen_dropout": False},
    "have no dropout in frozen layers, where the references": {
        "freeze": 2,
        "keep_activations": True,
        "match_trainer": True,
    },
    "--match_accelerate: the example trains all layers": {"freeze": 2, "match_accelerate": True},
}


@pytest.mark.parametrize("message", WRONG)
def test_settings_that_do_not_fit_are_refused(message: str) -> None:
    with pytest.raises(MinitrainError, match=message):
        TrainConfig(**WRONG[message])


def test_a_number_of_layers_may_be_a_number_or_text() -> None:
    assert TrainConfig(freeze=4) == TrainConfig(freeze="4")
    kept = TrainConfig(freeze=4, keep_activations=True)
    assert TrainConfig(freeze=4).frozen_dropout is True and kept.frozen_dropout is False
