"""ModernBERT against its model of transformers: masks, biases, pooling, positions, both forms of config.json."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig
from transformers import ModernBertConfig as TheirConfig
from transformers.masking_utils import create_bidirectional_mask, create_bidirectional_sliding_window_mask

from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.errors import MinitrainError
from minitrain.model.families import FAMILIES
from minitrain.model.families.modernbert import LayerInputs, ModernBertConfig
from minitrain.model.weights import load_classifier, load_encoder, read_config, save_classifier
from parity.reference import (
    REFERENCES,
    Inputs,
    Twins,
    assert_same_gradients,
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

FULL, SLIDING = "full_attention", "sliding_attention"
BIASES = ("norm_bias", "attention_bias", "mlp_bias", "classifier_bias")
SHAPES: dict[str, dict[str, Any]] = {
    "six layers, two of them global": {"num_hidden_layers": 6},
    "all layers global": {"num_hidden_layers": 3, "global_attn_every_n_layers": 1},
    "all layers local but the first": {"num_hidden_layers": 4, "global_attn_every_n_layers": 9},
    "each token sees itself alone": {"local_attention": 1},
    "a window of odd width": {"local_attention": 7},
    "a window wider than any batch": {"local_attention": 256},
    "the mean of the tokens": {"classifier_pooling": "mean"},
    "every bias": dict.fromkeys(BIASES, True),
    **{bias: {bias: True} for bias in BIASES},
    "other thetas": {"global_rope_theta": 300, "local_rope_theta": 77.5},
    "other activations": {"hidden_activation": "silu", "classifier_activation": "relu"},
    "no dropout, as in what the Hub has": dict.fromkeys(
        ("embedding_dropout", "mlp_dropout", "attention_dropout", "classifier_dropout"), 0.0
    ),
    "dropout of embeddings alone": {"embedding_dropout": 0.5, "mlp_dropout": 0.0, "attention_dropout": 0.0},
    "heads of a usual size": {"hidden_size": 128, "num_attention_heads": 2},
}


def batches(config: Any, length: int = 17) -> dict[str, Inputs]:
    """The same rows with padding, with a mask that hides nothing, and without a mask."""
    whole = make_inputs(config, length=length, padded=False)
    return {
        "padded": make_inputs(config, length=length),
        "all ones": whole,
        "no mask": {"input_ids": whole["input_ids"]},
    }


@pytest.mark.parametrize("batch", ["padded", "all ones", "no mask"])
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_gradients_and_a_step_have_the_bits_of_transformers(shape: str, batch: str, tmp_path: Path) -> None:
    twins = make_twins(tmp_path, "modernbert", **SHAPES[shape])
    assert_same_order(twins)
    inputs = batches(twins.config)[batch]
    assert_same_logits(twins, inputs)
    assert_same_training_step(twins, inputs)
    assert_same_logits(twins, inputs)


def assert_same_masks(twins: Twins, inputs: Inputs) -> None:
    """Those that attention is called with, a local layer's and a global one's."""
    x, mask = twins.ours.encoder.embeddings.word(inputs["input_ids"]), inputs.get("attention_mask")
    assert twins.ours.encoder.shared is not None
    ours = twins.ours.encoder.shared(x, mask, twins.ours.encoder.kernels)
    makers = {"global": create_bidirectional_mask, "local": create_bidirectional_sliding_window_mask}
    for kind, make in makers.items():
        found, expected = ours[kind].mask, make(config=twins.config, inputs_embeds=x, attention_mask=mask)
        assert (found is None) == (expected is None), kind
        assert expected is None or torch.equal(found.expand_as(expected), expected), kind


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 10, 16])
def test_at_every_length_about_the_window_the_same_mask_is_made(
    length: int, dropout: float, pooling: str, tmp_path: Path
) -> None:
    """A window of 16 reaches 8 to each side; "no mask" and a mask of nothing but True are told apart."""
    twins = make_twins(
        tmp_path, "modernbert", local_attention=16, attention_dropout=dropout, classifier_pooling=pooling
    )
    for inputs in batches(twins.config, length).values():
        assert_same_masks(twins, inputs)
        assert_same_logits(twins, inputs)
        assert_same_training_step(twins, inputs)
        twins.theirs.zero_grad()
        twins.ours.zero_grad()


def views(folder: Path, length: int, **config: Any) -> dict[str, LayerInputs]:
    save_checkpoint(folder, "modernbert", **config)
    encoder = load_encoder(folder)
    seen: list[dict[str, LayerInputs]] = []
    assert encoder.shared is not None
    encoder.shared.register_forward_hook(lambda module, args, out: seen.append(out))
    encoder(torch.ones(2, length, dtype=torch.int64))
    return seen[0]


def test_a_local_layer_sees_half_of_the_window_to_each_side(tmp_path: Path) -> None:
    made = views(tmp_path, 10, local_attention=6)
    assert made["global"].mask is None and made["local"].mask is not None
    expected = [[abs(q - k) <= 3 for k in range(10)] for q in range(10)]
    assert made["local"].mask.tolist() == [[expected]] * 2


def test_the_two_kinds_of_layers_turn_by_other_angles(tmp_path: Path) -> None:
    made = views(tmp_path, 10)
    assert torch.equal(made["global"].cos[0], made["local"].cos[0])  # at the first position, by none
    assert not torch.equal(made["global"].cos[1], made["local"].cos[1])


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_last_block_computes_all_positions_where_the_head_takes_their_mean(
    pooling: str, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path, "modernbert", classifier_pooling=pooling, num_hidden_layers=4)
    fast, reference = load_classifier(tmp_path), load_classifier(tmp_path, kernels="reference")
    widths: list[int] = []
    fast.encoder.blocks[-1].register_forward_hook(lambda module, args, out: widths.append(out.size(1)))
    for inputs in batches(AutoConfig.from_pretrained(tmp_path)).values():
        expected = reference(**inputs)
        assert (fast(**inputs) - expected).abs().max() < 1e-5 * expected.abs().max()
    assert widths == [{"cls": 1, "mean": 17}[pooling]] * 3 and reference.cls_only is False


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_bf16_autocast_has_the_bits_of_transformers(pooling: str, tmp_path: Path) -> None:
    twins = make_twins(tmp_path, "modernbert", classifier_pooling=pooling)
    twins.theirs.train()
    twins.ours.train()
    for inputs in batches(twins.config).values():
        for model in (twins.theirs, twins.ours):
            model.zero_grad()
            torch.manual_seed(3)
            with torch.autocast("cpu", torch.bfloat16):
                output = model(**twins.taken(inputs))
                logits = output if model is twins.ours else output.logits
                our_loss(logits, make_labels(2, 5)).backward()
        assert_same_gradients(twins)
        with torch.autocast("cpu", torch.bfloat16):
            assert_same_logits(twins, inputs)


# ---- config.json ------------------------------------------------------------------------------------------------

# What the Hub's files have that is of interest here, without the sizes.
HUB = {
    "global_attn_every_n_layers": 2,
    "global_rope_theta": 150_000.0,
    "local_rope_theta": 9_000.0,
    "local_attention": 12,
    "position_embedding_type": "absolute",
}
# The same as transformers 5 writes it.
WRITTEN = {
    "layer_types": [FULL, SLIDING, FULL, SLIDING, FULL],
    "rope_parameters": {
        FULL: {"rope_theta": 150_000.0, "rope_type": "default"},
        SLIDING: {"rope_theta": 9_000.0, "rope_type": "default"},
    },
    "local_attention": 12,
}


def write(folder: Path, **config: Any) -> Path:
    small = {"model_type": "modernbert", **REFERENCES["modernbert"].small, "num_hidden_layers": 5}
    (folder / "config.json").write_text(json.dumps(small | config))
    return folder


@pytest.mark.parametrize("form", [HUB, WRITTEN])
def test_both_forms_of_the_config_are_read_alike(form: dict[str, Any], tmp_path: Path) -> None:
    config = read_config(write(tmp_path, **form))
    assert isinstance(config, ModernBertConfig)
    assert (config.global_attn_every_n_layers, config.local_attention) == (2, 12)
    assert (config.global_rope_theta, config.local_rope_theta) == (150_000.0, 9_000.0)
    theirs = AutoConfig.from_pretrained(tmp_path)
    assert theirs.layer_types == WRITTEN["layer_types"] and theirs.rope_parameters == WRITTEN["rope_parameters"]


@pytest.mark.parametrize("form", [HUB, WRITTEN])
def test_a_folder_of_either_form_gives_the_same_model(form: dict[str, Any], tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "modernbert", num_hidden_layers=5)
    twins = load_twins(write(tmp_path, **form))
    assert_same_training_step(twins, make_inputs(twins.config))


@pytest.mark.parametrize("form", [{}, {"rope_parameters": None, "layer_types": None}, {"rope_parameters": {}}])
def test_what_the_config_leaves_out_is_as_in_transformers(form: dict[str, Any], tmp_path: Path) -> None:
    names = ("model_type", "vocab_size", "hidden_size", "num_attention_heads", "intermediate_size")
    small = {"model_type": "modernbert", **REFERENCES["modernbert"].small, "vocab_size": 50_400}
    raw = {name: small[name] for name in names} | {"num_hidden_layers": 5} | form
    (tmp_path / "config.json").write_text(json.dumps(raw))
    ours, theirs = read_config(tmp_path), AutoConfig.from_pretrained(tmp_path)
    assert isinstance(ours, ModernBertConfig)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "modernbert"} | saved(ours)))
    assert_same_config(AutoConfig.from_pretrained(tmp_path), theirs)


# What a classifier does not need of a config, and what says where it comes from.
NOT_KEPT = {
    "_name_or_path",
    "bos_token_id",
    "eos_token_id",
    "architectures",
    "dtype",
    "problem_type",
    "transformers_version",
}


def assert_same_config(found: Any, expected: Any) -> None:
    for name in TheirConfig().to_dict().keys() - NOT_KEPT:
        assert getattr(found, name) == getattr(expected, name), name


def saved(config: ModernBertConfig) -> dict[str, Any]:
    return {theirs: getattr(config, ours) for ours, theirs in FAMILIES["modernbert"].config_names.items()}


@pytest.mark.parametrize("every", [1, 2, 3, 4, 5, 6, 99])
def test_any_spacing_of_the_global_layers_survives_transformers_and_us(
    every: int, tmp_path: Path, demo_model: Path
) -> None:
    theirs = save_checkpoint(
        tmp_path / "theirs",
        "modernbert",
        num_hidden_layers=5,
        global_attn_every_n_layers=every,
        local_rope_theta=500.0,
        **dict.fromkeys(BIASES, True),
        classifier_pooling="mean",
        initializer_cutoff_factor=3.0,
        norm_eps=1e-6,
    ).config
    save_classifier(load_classifier(tmp_path / "theirs"), load_tokenizer(demo_model), tmp_path / "ours")
    assert_same_config(load_reference(tmp_path / "ours").config, theirs)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope_parameters", {FULL: {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e5}}),
        ("rope_parameters", {SLIDING: {"type": "linear", "factor": 4.0}}),
        ("rope_parameters", {"rope_type": "dynamic", "factor": 4.0}),
        ("rope_parameters", [1e5, 1e4]),
        ("rope_parameters", {FULL: 1e5}),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("layer_types", [SLIDING] * 5),
        ("layer_types", [FULL, SLIDING, FULL, FULL, SLIDING]),
        ("layer_types", [FULL, SLIDING, SLIDING, FULL]),
        ("layer_types", [FULL, "linear_attention", SLIDING, FULL, SLIDING]),
        ("layer_types", []),
        ("layer_types", 3),
        ("global_attn_every_n_layers", 0),
        ("local_attention", "128"),
        ("global_rope_theta", -1),
        ("classifier_pooling", "max"),
        ("classifier_activation", "swish!"),
        ("norm_bias", 1),
        ("mlp_dropout", 1.5),
        ("num_attention_heads", 32),
    ],
)
def test_what_is_not_supported_is_refused_by_file_and_field(key: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(MinitrainError) as caught:
        read_config(write(tmp_path, **{key: value}))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'config.json'}: ") and f"'{key}'" in message, message
