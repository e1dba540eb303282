"""What DeBERTa has that no other family has, against transformers: distances, a convolution, its config."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import DebertaV2Config as TheirConfig
from transformers import Trainer, TrainingArguments

from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.errors import MinitrainError
from minitrain.kernels import get_kernels
from minitrain.model.families.deberta_v2 import DebertaV2Config
from minitrain.model.families.disentangled import log_buckets
from minitrain.model.weights import load_classifier, read_config, save_classifier
from minitrain.training.param_groups import decay_groups
from parity.reference import (
    REFERENCES,
    Twins,
    assert_same_logits,
    assert_same_order,
    assert_same_training_step,
    load_reference,
    load_twins,
    make_inputs,
    make_labels,
    make_twins,
    our_loss,
    save_checkpoint,
)

SHAPES: dict[str, dict[str, Any]] = {
    "own projections": {"share_att_key": False},
    "the query's content alone": {"pos_att_type": ["c2p"]},
    "the key's content alone": {"pos_att_type": ["p2c"]},
    "the query's content alone, own projection": {"pos_att_type": ["c2p"], "share_att_key": False},
    "the key's content alone, own projection": {"pos_att_type": ["p2c"], "share_att_key": False},
    "as a string": {"pos_att_type": "P2C | c2p"},
    "kinds, but no distances": {"relative_attention": False, "norm_rel_ebd": "none"},
    "no kinds and no distances": {"relative_attention": False, "norm_rel_ebd": "none", "pos_att_type": None},
    "two buckets": {"position_buckets": 2},
    "four buckets": {"position_buckets": 4},
    "five buckets": {"position_buckets": 5},
    "a bucket for each distance": {"position_buckets": -1},
    "fewer distances than positions": {"position_buckets": -1, "max_relative_positions": 5},
    "buckets that reach less far than positions": {"position_buckets": 8, "max_relative_positions": 9},
    "more buckets than distances": {"position_buckets": 64},
    "vectors that are not normalised": {"norm_rel_ebd": "none"},
    "positions": {"position_biased_input": True},
    "no token types": {"type_vocab_size": 0},
    "narrow embeddings": {"embedding_size": 12},
    "narrow embeddings with positions": {"embedding_size": 12, "position_biased_input": True},
    "convolution": {"conv_kernel_size": 3, "conv_act": "gelu"},
    "convolution by default": {"conv_kernel_size": 3},
    "wide convolution in groups": {"conv_kernel_size": 5, "conv_groups": 4, "conv_act": "relu"},
    "convolution of a single token": {"conv_kernel_size": 1},
    "convolution after the only layer": {"conv_kernel_size": 3, "num_hidden_layers": 1},
    "dropout at the pooler": {"pooler_dropout": 0.2, "pooler_hidden_act": "tanh"},
    "dropout at the head as in the encoder": {"cls_dropout": None},
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "cls_dropout": 0.0}


def twins_of(folder: Path, shape: str, **more: Any) -> Twins:
    return make_twins(folder, "deberta-v2", **SHAPES[shape] | more)


@pytest.mark.parametrize("length", [1, 17, 24])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_has_the_bits_of_transformers(shape: str, length: int, tmp_path: Path) -> None:
    twins = twins_of(tmp_path, shape)
    assert_same_order(twins)
    inputs = make_inputs(twins.config, length=length)
    assert_same_logits(twins, inputs)
    assert_same_training_step(twins, inputs)
    assert_same_logits(twins, inputs)


def test_distances_that_no_content_meets_still_draw_their_dropout(tmp_path: Path) -> None:
    """Their vectors get no gradient, but later draws have other places in the stream."""
    twins = make_twins(tmp_path, "deberta-v2", pos_att_type=[])
    assert_same_order(twins)
    inputs = make_inputs(twins.config)
    assert_same_logits(twins, inputs)
    logits = []
    for model in (twins.theirs.train(), twins.ours.train()):
        torch.manual_seed(7)
        out = model(**inputs)
        logits.append(out if isinstance(out, Tensor) else out.logits)
    assert torch.equal(*logits)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_has_the_bits_of_transformers_without_dropout(shape: str, tmp_path: Path) -> None:
    """The order in which gradients are summed is another one where no dropout stands between."""
    twins = twins_of(tmp_path, shape, **NO_DROPOUT | {"pooler_dropout": 0.0})
    assert_same_training_step(twins, make_inputs(twins.config))


@pytest.mark.parametrize("shape", ["two buckets", "own projections", "positions", "convolution"])
def test_long_texts_beyond_the_exact_buckets_have_the_bits_of_transformers(shape: str, tmp_path: Path) -> None:
    twins = twins_of(tmp_path, shape, max_position_embeddings=300)
    inputs = make_inputs(twins.config, rows=2, length=300)
    assert_same_logits(twins, inputs)
    assert_same_training_step(twins, inputs)


@pytest.mark.parametrize("shape", ["positions", "convolution"])
def test_without_a_mask_and_with_one_of_ones_the_bits_are_those_of_transformers(shape: str, tmp_path: Path) -> None:
    twins = twins_of(tmp_path, shape)
    inputs = make_inputs(twins.config, padded=False)
    assert inputs["attention_mask"].all()
    assert_same_logits(twins, inputs)
    assert_same_training_step(twins, inputs)
    del inputs["attention_mask"]
    assert_same_logits(twins, inputs)
    assert_same_training_step(twins, inputs)


@pytest.mark.parametrize("shape", ["positions", "convolution"])
def test_rows_of_padding_alone_and_holes_in_a_mask_have_the_bits_of_transformers(
    shape: str, tmp_path: Path
) -> None:
    twins = twins_of(tmp_path, shape)
    inputs = make_inputs(twins.config)
    inputs["attention_mask"][2] = 0
    inputs["attention_mask"][1, :4:2] = 0
    assert_same_logits(twins, inputs)
    assert_same_training_step(twins, inputs)


@pytest.mark.parametrize("shape", ["own projections", "convolution"])
def test_autocast_has_the_bits_of_transformers(shape: str, tmp_path: Path) -> None:
    twins = twins_of(tmp_path, shape)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same_logits(twins, make_inputs(twins.config))
        assert_same_training_step(twins, make_inputs(twins.config))


@pytest.mark.parametrize("shape", SHAPES)
def test_fast_kernels_compute_the_same_function_of_every_shape(shape: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "deberta-v2", **SHAPES[shape] | NO_DROPOUT | {"pooler_dropout": 0.0})
    models = [load_classifier(tmp_path, kernels=name).train() for name in ("reference", "fast")]
    assert [model.cls_only for model in models] == [False, True]
    for length in (1, 2, 24):
        inputs = make_inputs(load_reference(tmp_path).config, length=length)
        logits = []
        for model in models:
            model.zero_grad()
            logits.append(model(**inputs))
            our_loss(logits[-1], make_labels(2, 5)).backward()
        assert (logits[0] - logits[1]).abs().max() <= 1e-5 * logits[0].abs().max()
        for (name, expected), found in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
            assert expected.grad is not None and found.grad is not None, name
            scale = max(expected.grad.abs().max().item(), 1e-2)
            assert (expected.grad - found.grad).abs().max() <= 1e-5 * scale, name


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 7), (7, 1), (3, 5), (5, 3), (6, 6)])
def test_fast_scores_of_distances_are_the_gathered_ones(rows: int, columns: int) -> None:
    """In float64, values and gradients; index: the distances clamped, one vector for several of them."""
    index = (torch.arange(rows)[:, None] - torch.arange(columns)).clamp(-2, 3) + 2
    found = []
    for name in ("reference", "fast"):
        torch.manual_seed(1)
        x, table = (torch.randn(size).double().requires_grad_() for size in ((6, rows, 4), (3, 6, 4)))
        scores = get_kernels(name).relative_scores(x, table, index, torch.tensor(1.7).double())
        assert scores.shape == (2, 3, rows, columns)
        (scores * torch.arange(scores.numel()).view_as(scores)).sum().backward()
        found.append((scores, x.grad, table.grad))
    for expected, fast in zip(*found, strict=True):
        torch.testing.assert_close(fast, expected)


def test_distances_are_bucketed_as_the_docstring_says() -> None:
    distances = torch.tensor([-23, -9, -4, -1, 0, 3, 5, 9])
    assert log_buckets(distances, 8, 24).tolist() == [-7, -6, -4, -1, 0, 3, 5, 6]


def test_the_decay_is_that_of_the_trainer(tmp_path: Path) -> None:
    twins = twins_of(tmp_path, "convolution", position_biased_input=True, share_att_key=False)
    trainer = Trainer(twins.theirs, TrainingArguments(tmp_path, use_cpu=True))
    decaying = set(trainer.get_decay_parameter_names(twins.theirs))
    ours = {id(parameter) for parameter in decay_groups(twins.ours, 0.1)[0]["params"]}
    for (name, _), parameter in zip(twins.theirs.named_parameters(), twins.ours.parameters(), strict=True):
        assert (name in decaying) == (id(parameter) in ours), name


def test_what_pretraining_leaves_in_a_file_is_left_aside(tmp_path: Path) -> None:
    """The heads of v2's generator and v3's discriminator, and positions that the model does not read."""
    save_checkpoint(tmp_path, "deberta-v2")
    file = tmp_path / "model.safetensors"
    extras = ("lm_predictions.lm_head.dense.weight", "mask_predictions.classifier.bias", "cls.predictions.bias")
    positions = "deberta.embeddings.position_embeddings.weight"
    save_file(load_file(file) | {key: torch.zeros(2, 2) for key in (*extras, positions)}, file)
    twins = load_twins(tmp_path)
    assert_same_logits(twins, make_inputs(twins.config))


# config.json


SMALL = {"model_type": "deberta-v2", **REFERENCES["deberta-v2"].small}
NEEDED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
# As the Hub has it for deberta-v3-base; deberta-v2-xlarge has a convolution and the size of its heads besides.
HUB = {
    "model_type": "deberta-v2", "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1, "hidden_size": 768, "initializer_range": 0.02, "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True,
    "pos_att_type": "p2c|c2p", "layer_norm_eps": 1e-7, "max_relative_positions": -1, "position_biased_input": False,
    "num_attention_heads": 12, "num_hidden_layers": 12, "type_vocab_size": 0, "vocab_size": 128100,
}  # fmt: skip


def write(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def read(folder: Path) -> DebertaV2Config:
    config = read_config(folder)
    assert isinstance(config, DebertaV2Config)
    return config


def test_what_a_config_leaves_out_is_what_transformers_takes(tmp_path: Path) -> None:
    """Of what its configuration has a default for; what its modules take instead follows."""
    write(tmp_path, {"model_type": "deberta-v2"} | {key: SMALL[key] for key in NEEDED})
    ours, theirs = read(tmp_path), TheirConfig.from_pretrained(tmp_path)
    for name in (
        "hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings",
        "type_vocab_size", "initializer_range", "layer_norm_eps", "pad_token_id", "num_labels",
        "relative_attention", "max_relative_positions", "position_biased_input", "pooler_dropout",
        "pooler_hidden_act",
    ):  # fmt: skip
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.pos_att_type == () and theirs.pos_att_type is None
    for name, default in (
        ("cls_dropout", ours.classifier_dropout), ("position_buckets", -1), ("share_att_key", False),
        ("norm_rel_ebd", "none"), ("embedding_size", None), ("attention_head_size", None), ("conv_kernel_size", 0),
        ("conv_groups", 1), ("conv_act", "tanh"),
    ):  # fmt: skip
        assert not hasattr(theirs, name)
        assert getattr(ours, name, None) == default, name
    assert ours.pooler_hidden_size is None and theirs.pooler_hidden_size == theirs.hidden_size


@pytest.mark.parametrize("key", [key for key in SMALL if key not in (*NEEDED, "model_type")])
def test_a_key_that_is_left_out_leaves_the_bits_of_transformers(key: str, tmp_path: Path) -> None:
    """The model of the reference's defaults is ours, those included that only its modules know."""
    torch.manual_seed(0)
    config = TheirConfig(**{name: value for name, value in SMALL.items() if name not in (key, "model_type")})
    REFERENCES["deberta-v2"].model(config).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    saved.pop(key, None)
    write(tmp_path, saved)
    twins = Twins(load_reference(tmp_path), load_classifier(tmp_path, kernels="reference"))
    assert_same_order(twins)
    assert_same_logits(twins, make_inputs(twins.config))


def test_a_config_of_the_hub_is_read(tmp_path: Path) -> None:
    config = read(write(tmp_path, HUB))
    assert (config.pos_att_type, config.span, config.farthest) == (("p2c", "c2p"), 256, 512)
    large = HUB | {"conv_kernel_size": 3, "conv_act": "gelu", "attention_head_size": 64, "pooler_hidden_size": 768}
    assert read(write(tmp_path, large)).conv_kernel_size == 3


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("pos_att_type", "c2q|c2p", "expected a list of any of c2p, p2c"),
        ("pos_att_type", ["c2p,p2c"], "expected a list of any of c2p, p2c"),
        ("pos_att_type", [["c2p"]], "expected a list of any of c2p, p2c"),
        ("pos_att_type", 3, "expected a list of any of c2p, p2c"),
        ("pos_att_type", {"c2p": True}, "expected a list of any of c2p, p2c"),
        ("norm_rel_ebd", "batch_norm", "expected one of none, layer_norm"),
        ("norm_rel_ebd", True, "expected one of none, layer_norm"),
        ("position_buckets", 1, "at least 2"),
        ("position_buckets", -2, "expected an integer from -1"),
        ("position_buckets", 2.0, "expected an integer from -1"),
        ("max_relative_positions", -2, "expected an integer from -1"),
        ("relative_attention", "yes", "expected true or false"),
        ("share_att_key", 1, "expected true or false"),
        ("position_biased_input", "no", "expected true or false"),
        ("type_vocab_size", -1, "expected an integer from 0"),
        ("embedding_size", 0, "expected an integer from 1"),
        ("attention_head_size", 16, "needs 8"),
        ("pooler_hidden_size", 48, "needs 32"),
        ("pooler_dropout", 2, "expected a probability"),
        ("pooler_hidden_act", "softplus", "expected one of gelu"),
        ("cls_dropout", -1, "expected a probability"),
        ("conv_kernel_size", 4, "expected an odd one"),
        ("conv_kernel_size", -1, "expected an integer from 0"),
        ("conv_groups", 5, "does not divide"),
        ("conv_act", "sin", "expected one of gelu"),
    ],
)
def test_a_value_that_makes_no_model_is_named(key: str, value: Any, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(MinitrainError) as caught:
        read_config(write(tmp_path, SMALL | {key: value}))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'config.json'}: ") and f"'{key}'" in message and complaint in message


@pytest.mark.parametrize("share_att_key", [False, True])
@pytest.mark.parametrize(
    "value",
    [
        "None", "none", "", [], None, ["p2p"], ["none"], ["C2P"], "p2p|c2p", " C2P | p2p ", "c2p|p2c", "P2C|C2P",
        ["p2p", "p2c"], ["p2c", "C2P"], "c2p|None",
    ],
)  # fmt: skip
def test_kinds_of_distances_are_read_as_transformers_reads_them(
    value: Any, share_att_key: bool, tmp_path: Path
) -> None:
    """Whatever is no c2p and no p2c is no such term; case counts in a list, and does not in a text."""
    save_checkpoint(tmp_path, "deberta-v2", pos_att_type=value, share_att_key=share_att_key)
    assert json.loads((tmp_path / "config.json").read_text()).get("pos_att_type") is not None or value is None
    config = json.loads((tmp_path / "config.json").read_text())
    write(tmp_path, config | {"pos_att_type": value})  # the reference writes a list
    twins = load_twins(tmp_path)
    inputs = make_inputs(twins.config)
    assert_same_order(twins)
    assert_same_logits(twins, inputs)
    if read(tmp_path).pos_att_type:
        assert_same_training_step(twins, inputs)
    else:  # the vectors of the distances get no gradient
        torch.manual_seed(3)
        theirs = twins.theirs.train()(**inputs).logits
        torch.manual_seed(3)
        assert torch.equal(twins.ours.train()(**inputs), theirs)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_survives_saving(shape: str, tmp_path: Path, demo_model: Path) -> None:
    twins = twins_of(tmp_path / "theirs", shape)
    save_classifier(twins.ours, load_tokenizer(demo_model), tmp_path / "ours")
    again = read_config(tmp_path / "ours")
    assert replace(again, label_names=None, problem_type=None) == twins.ours.config
    assert_same_logits(Twins(load_reference(tmp_path / "ours"), twins.ours), make_inputs(twins.config))
