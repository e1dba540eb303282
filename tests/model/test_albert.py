"""ALBERT's shared weights: which block a layer passes through, and that they are saved once and taken up again."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.test_resume import flags, floats
from parity.reference import save_checkpoint
from safetensors.torch import load_file
from test_loop import VOCABULARY, write_tiny_model
from test_main import named_reviews, write_csv
from transformers import AlbertConfig, AlbertModel

from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.model.families import FAMILIES
from minitrain.model.weights import load_classifier, read_config
from minitrain.run.main import train

TINY = {
    "vocab_size": len(VOCABULARY),
    "embedding_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_hidden_groups": 2,
    "inner_group_num": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.1,
}


def with_config(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_each_layer_passes_through_all_blocks_of_its_group(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "albert", num_hidden_layers=5, num_hidden_groups=2, inner_group_num=3)
    config = read_config(tmp_path)
    assert FAMILIES["albert"].layer_order(config) == 3 * [0, 1, 2] + 2 * [3, 4, 5]
    encoder = load_classifier(tmp_path).encoder
    assert len(encoder.blocks) == 6
    calls = []
    for number, block in enumerate(encoder.blocks):
        block.register_forward_hook(lambda *_, number=number: calls.append(number))
    encoder(torch.tensor([[5, 6, 7]]))
    assert calls == encoder.layer_order


@pytest.mark.parametrize(
    ("changes", "key", "expected"),
    [
        ({"num_hidden_groups": 3}, "num_hidden_groups", "a group has at least one layer"),
        ({"num_hidden_groups": 0}, "num_hidden_groups", "expected an integer from 1"),
        ({"inner_group_num": 200}, "inner_group_num", "their product may be 256 at most"),
        ({"embedding_size": "128"}, "embedding_size", "expected an integer from 1"),
        ({"num_attention_heads": 5}, "num_attention_heads", "does not divide"),
    ],
)
def test_groups_that_no_model_can_have_are_named(
    tmp_path: Path, changes: dict[str, Any], key: str, expected: str
) -> None:
    save_checkpoint(tmp_path, "albert")
    with pytest.raises(MinitrainError, match=expected) as caught:
        read_config(with_config(tmp_path, **changes))
    assert str(caught.value).startswith(f"{tmp_path / 'config.json'}: ") and f"'{key}'" in str(caught.value)


@pytest.mark.parametrize("kernels", ["fast", "reference"])
def test_a_run_saves_shared_weights_once_and_goes_on_to_the_same_bits(tmp_path: Path, kernels: str) -> None:
    write_tiny_model(tmp_path / "tiny")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AlbertModel(AlbertConfig(**TINY)).save_pretrained(tmp_path / "tiny")
    for name, count in (("train", 64), ("eval", 21)):
        write_csv(tmp_path / f"{name}.csv", *named_reviews(count))
    whole, later = tmp_path / "whole", tmp_path / "later"
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 5, "kernels": kernels}
    expected = train(TrainConfig(**flags(tmp_path, whole, **saving)))
    first = min((whole / "checkpoints").iterdir())
    model = load_classifier(whole)
    assert len(model.encoder.blocks) == 4
    assert load_file(first / "model.safetensors").keys() == model.state_dict().keys()
    shutil.copytree(first, later / "checkpoints" / first.name)
    found = train(TrainConfig(**flags(tmp_path, later, kernels=kernels, resume="newest")))
    assert (found["steps"], found["results"]) == (expected["steps"], expected["results"])
    assert (later / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert floats(later) == floats(whole)[-12:]  # nine steps and three evaluations
