"""MPNet's distances, and the configs that the reference would compute otherwise than they say."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.reference import Twins, load_reference, make_inputs, make_twins, save_checkpoint
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

from minitrain.errors import MinitrainError
from minitrain.model.families.mpnet import relative_position_buckets
from minitrain.model.weights import load_classifier, read_config


def test_distances_have_the_buckets_of_transformers() -> None:
    length = 2048
    ahead = torch.arange(length)[None, :] - torch.arange(length)[:, None]
    assert torch.equal(relative_position_buckets(length), MPNetEncoder.relative_position_bucket(ahead))
    assert relative_position_buckets(length).unique().tolist() == [
        *range(16),
        *range(17, 32),
    ]  # 16 would be 0 ahead


def test_a_text_that_is_padding_alone_has_the_bits_of_transformers(tmp_path: Path) -> None:
    """The float mask leaves such a row an even softmax, not NaN."""
    twins = make_twins(tmp_path, "mpnet")
    inputs = make_inputs(twins.config)
    inputs["attention_mask"][2] = 0
    with torch.no_grad():
        ours, theirs = twins.ours(**inputs), twins.theirs(**twins.taken(inputs)).logits
    assert torch.equal(ours, theirs) and torch.isfinite(ours).all()


@pytest.mark.parametrize(
    ("changes", "key", "expected"),
    [
        ({"pad_token_id": 0}, "pad_token_id", "is 0; expected 1"),
        ({"pad_token_id": None}, "pad_token_id", "is None; expected 1"),
        ({"relative_attention_num_buckets": 31}, "relative_attention_num_buckets", "expected an integer from 32"),
        ({"max_position_embeddings": 2}, "max_position_embeddings", "room for none"),
        ({"hidden_size": 30}, "hidden_size", "does not divide"),
    ],
)
def test_what_the_reference_does_not_heed_is_refused(
    tmp_path: Path, changes: dict[str, Any], key: str, expected: str
) -> None:
    save_checkpoint(tmp_path, "mpnet")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(MinitrainError, match=expected) as caught:
        read_config(tmp_path)
    assert str(caught.value).startswith(f"{path}: ") and f"'{key}'" in str(caught.value)


def test_a_batch_may_be_as_long_as_the_positions_after_the_padding_id(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "mpnet")
    twins = Twins(load_reference(tmp_path), load_classifier(tmp_path))
    twins.ours(**make_inputs(twins.config, length=24))
    with pytest.raises(MinitrainError, match="25 tokens long, the model has 24 positions"):
        twins.ours(**make_inputs(twins.config, length=25))
