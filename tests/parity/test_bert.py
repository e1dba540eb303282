"""BERT against BertForSequenceClassification of transformers: logits, gradients, an optimizer step, to the bit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertModel

from minitrain.data.batch import collate
from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.model.weights import load_classifier, load_encoder
from parity.reference import (
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

# What each differs in from the small config; all of them go through every comparison.
SHAPES: dict[str, dict[str, Any]] = {
    "small": {},
    "one layer": {"num_hidden_layers": 1},
    "four layers": {"num_hidden_layers": 4},
    "one head": {"num_attention_heads": 1},
    "heads of size 1": {"hidden_size": 7, "num_attention_heads": 7},
    "heads of size 6, hidden size 30": {"hidden_size": 30, "num_attention_heads": 5},
    "32 heads": {"hidden_size": 64, "num_attention_heads": 32},
    "heads of size 64": {"hidden_size": 128, "num_attention_heads": 2},
    "one token type": {"type_vocab_size": 1},
    "narrow feed-forward": {"intermediate_size": 5},
    "gelu_new": {"hidden_act": "gelu_new"},
    "gelu_pytorch_tanh": {"hidden_act": "gelu_pytorch_tanh"},
    "relu": {"hidden_act": "relu"},
    "silu": {"hidden_act": "silu"},
    "larger epsilon": {"layer_norm_eps": 1e-5},
    "regression": {"num_labels": 1},
    "three labels": {"num_labels": 3},
    "seven labels": {"num_labels": 7},
    "dropout of its own at the head": {"classifier_dropout": 0.5},
    "no dropout at the head": {"classifier_dropout": 0.0},
    "no dropout": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "dropout in attention alone": {"hidden_dropout_prob": 0.0},
    "another padding id": {"pad_token_id": 5},
    "no padding id": {"pad_token_id": None},
}


@pytest.fixture
def twins(tmp_path: Path) -> Twins:
    return make_twins(tmp_path)


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_gradients_and_an_optimizer_step_have_the_bits_of_transformers(shape: str, tmp_path: Path) -> None:
    twins = make_twins(tmp_path, **SHAPES[shape])
    assert_same_order(twins)
    inputs = make_inputs(twins.config)
    assert_same_logits(twins, inputs)
    assert_same_training_step(twins, inputs)
    assert_same_logits(twins, inputs)  # the stepped parameters again: nothing of the first forward is kept


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("rows", "length"), [(1, 1), (1, 9), (3, 1), (4, 24), (8, 16)])
def test_every_kind_of_batch_has_the_bits_of_transformers(
    rows: int, length: int, padded: bool, pair: bool, tmp_path: Path
) -> None:
    twins = make_twins(tmp_path)
    inputs = make_inputs(twins.config, rows=rows, length=length, padded=padded, pair=pair)
    assert bool(inputs["attention_mask"].all()) == (not padded or rows == 1 or length == 1)
    assert_same_logits(twins, inputs)
    assert_same_training_step(twins, inputs)


@pytest.mark.parametrize(
    "left_out", [("token_type_ids",), ("attention_mask",), ("token_type_ids", "attention_mask")]
)
def test_inputs_may_be_left_out_as_in_transformers(left_out: tuple[str, ...], twins: Twins) -> None:
    inputs = {name: tensor for name, tensor in make_inputs(twins.config).items() if name not in left_out}
    assert_same_logits(twins, inputs)
    assert_same_training_step(twins, inputs)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.float32])
def test_masks_of_any_type_have_the_bits_of_transformers(dtype: torch.dtype, twins: Twins) -> None:
    inputs = make_inputs(twins.config)
    assert_same_logits(twins, inputs | {"attention_mask": inputs["attention_mask"].to(dtype)})


def test_dropout_is_on_in_training_and_follows_the_seed(twins: Twins) -> None:
    inputs = make_inputs(twins.config)
    twins.ours.train()
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(twins.ours(**inputs))
    twins.ours.eval()
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2]) and not torch.equal(draws[0], twins.ours(**inputs))


@pytest.mark.parametrize("shape", ["small", "heads of size 64", "gelu_new", "three labels", "regression"])
def test_bf16_autocast_has_the_bits_of_transformers(shape: str, tmp_path: Path) -> None:
    twins = make_twins(tmp_path, **SHAPES[shape])
    inputs = make_inputs(twins.config)
    labels = make_labels(twins.config.num_labels, 5)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits, expected = twins.ours(**inputs), twins.theirs(**inputs).logits
    assert logits.dtype == torch.bfloat16 and torch.equal(logits, expected)
    twins.theirs.train()
    twins.ours.train()
    for model in (twins.theirs, twins.ours):
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16):
            output = model(**inputs)
            our_loss(output if model is twins.ours else output.logits, labels).backward()
    assert_same_gradients(twins)


def test_the_encoder_alone_has_the_bits_of_bert_model(tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    reference = BertModel.from_pretrained(tmp_path, dtype=torch.float32)
    encoder = load_encoder(tmp_path, kernels="reference")
    for padded in (False, True):
        inputs = make_inputs(reference.config, padded=padded)
        assert torch.equal(encoder(**inputs), reference(**inputs).last_hidden_state)
    assert not encoder.training and not any("pooler" in name for name, _ in encoder.named_parameters())


TEXTS = [
    "Amrozi accused his brother, whom he called 'the witness', of deliberately distorting his evidence.",
    "They had published an advertisement on the Internet on June 10, offering the cargo for sale, he added.",
    "The film is never less than watchable, and naïve only where it wants to be.",
    "No.",
]
PAIRS = [
    "Referring to him as only 'the witness', Amrozi accused his brother of distorting his evidence.",
    "On June 10, the ship's owners had published an advertisement, offering the explosives for sale.",
    "A dull film.",
    "Yes, although it took a rather long time to say so, and longer still until anyone had understood it.",
]


@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_the_embedded_model_has_the_bits_of_transformers_on_real_text(
    pairs: list[str] | None, demo_model: Path
) -> None:
    torch.manual_seed(11)
    ours = load_classifier(demo_model, num_labels=2, kernels="reference")
    torch.manual_seed(11)
    twins = Twins(load_twins(demo_model, num_labels=2).theirs, ours)
    tokenizer = load_tokenizer(demo_model)
    batch = collate(tokenizer(TEXTS, pairs), tokenizer.pad_token_id)
    assert not batch.attention_mask.all() and bool(batch.token_type_ids.any()) == (pairs is not None)
    assert_same_logits(twins, batch.inputs)
    assert_same_training_step(twins, batch.inputs)


@pytest.mark.parametrize("num_labels", [1, 2, 5])
def test_a_new_head_is_drawn_as_from_pretrained_draws_it(num_labels: int, demo_model: Path) -> None:
    torch.manual_seed(42)
    twins = load_twins(demo_model, num_labels=num_labels)
    torch.manual_seed(42)
    model = load_classifier(demo_model, num_labels=num_labels)
    weight, bias = model.get_parameter("head.output.weight"), model.get_parameter("head.output.bias")
    assert torch.equal(weight, twins.theirs.get_parameter("classifier.weight"))
    assert weight.shape == (num_labels, 384) and not bias.any()
    assert torch.rand(1).item() == _after_drawing(num_labels * 384)


def _after_drawing(normals: int) -> float:
    """The next number of the generator: loading drew the head and nothing else."""
    torch.manual_seed(42)
    torch.empty(normals).normal_()
    return torch.rand(1).item()


def test_a_decoder_config_is_causal_in_transformers_and_refused_here(tmp_path: Path) -> None:
    twins = make_twins(tmp_path)
    inputs = make_inputs(twins.config)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"is_decoder": True}))
    with pytest.raises(ValueError, match=r"config\.json: 'is_decoder' is True"):
        load_classifier(tmp_path)
    causal = load_reference(tmp_path)
    assert not torch.equal(causal(**inputs).logits, twins.theirs(**inputs).logits)
