"""Every family against its model of transformers: logits, gradients, an optimizer step, a saved folder, to the bit.

What only BERT's test shows (odd shapes, autocast, real text) rests on parts that the families share.
"""

import json
import re
from dataclasses import MISSING, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    ErnieConfig,
    ErnieForSequenceClassification,
)

from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.errors import MinitrainError
from minitrain.model.families import FAMILIES
from minitrain.model.weights import load_classifier, load_encoder, read_config, save_classifier
from minitrain.storage.hub import resolve_model
from parity.reference import (
    REFERENCES,
    Reference,
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
    padded_left,
    save_checkpoint,
)

ROOT = Path(__file__).parents[2]
# In BERT's words; each family has its own for some.
SHAPES: dict[str, dict[str, Any]] = {
    "small": {},
    "one layer": {"num_hidden_layers": 1},
    "heads of size 6, hidden size 30": {"hidden_size": 30, "num_attention_heads": 5},
    "many heads": {"hidden_size": 48, "num_attention_heads": 24},
    "one token type": {"type_vocab_size": 1},
    "narrow feed-forward": {"intermediate_size": 5},
    "relu": {"hidden_act": "relu"},
    "silu": {"hidden_act": "silu"},
    "gelu_new": {"hidden_act": "gelu_new"},
    "three labels": {"num_labels": 3},
    "regression": {"num_labels": 1},
    "no dropout": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}

# What one family alone may have, in its own words.
OWN_SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "albert, groups": ("albert", {"num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 2}),
    "albert, unequal groups": ("albert", {"num_hidden_layers": 5, "num_hidden_groups": 2}),
    "albert, a group each": ("albert", {"num_hidden_layers": 3, "num_hidden_groups": 3, "inner_group_num": 3}),
    # 9 / (18 / 14) is a bit less than 7 in floats: the tenth layer falls to the seventh group, not the eighth.
    "albert, rounded groups": ("albert", {"num_hidden_layers": 18, "num_hidden_groups": 14}),
    "albert, wide embeddings": ("albert", {"embedding_size": 32}),
    "mpnet, a longer table": ("mpnet", {"relative_attention_num_buckets": 40}),
    "mpnet, every bucket": ("mpnet", {"max_position_embeddings": 302}),
}


def in_words_of(family: str, shape: dict[str, Any]) -> dict[str, Any]:
    """The shape under the family's own keys, without what it has not."""
    ours = {key: name for name, key in FAMILIES["bert"].config_names.items()}
    keys = FAMILIES[family].config_names
    return {
        keys.get(ours.get(key, ""), key): value for key, value in shape.items() if ours.get(key, "") in keys
    } | {key: value for key, value in shape.items() if key not in ours}


def test_every_family_is_tested() -> None:
    assert set(REFERENCES) == set(FAMILIES)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", REFERENCES)
def test_logits_gradients_and_a_step_have_the_bits_of_transformers(family: str, shape: str, tmp_path: Path) -> None:
    twins = make_twins(tmp_path, family, **in_words_of(family, SHAPES[shape]))
    assert_same_order(twins)
    inputs = make_inputs(twins.config)
    assert_same_logits(twins, inputs)
    assert_same_training_step(twins, inputs)
    assert_same_logits(twins, inputs)


@pytest.mark.parametrize("name", OWN_SHAPES)
def test_shapes_of_one_family_have_the_bits_of_transformers(name: str, tmp_path: Path) -> None:
    family, shape = OWN_SHAPES[name]
    twins = make_twins(tmp_path, family, **shape)
    assert_same_order(twins)
    inputs = make_inputs(twins.config, length=twins.ours.config.max_length)
    assert_same_logits(twins, inputs)
    assert_same_training_step(twins, inputs)
    assert_same_logits(twins, inputs)


@pytest.mark.parametrize(("family", "pooling"), [*((name, "cls") for name in REFERENCES), ("modernbert", "mean")])
def test_rows_padded_on_the_left_give_what_transformers_gives(family: str, pooling: str, tmp_path: Path) -> None:
    """The head then reads a position of padding, and fast kernels compute of the last block that position alone."""
    twins = make_twins(tmp_path, family, **({"classifier_pooling": pooling} if family == "modernbert" else {}))
    inputs = padded_left(make_inputs(twins.config))
    assert inputs["attention_mask"][1:, 0].sum() == 0 and bool(inputs["attention_mask"][:, -1].all())
    assert_same_logits(twins, inputs)
    fast, labels = load_classifier(tmp_path, kernels="fast").eval(), make_labels(2, 5)
    expected = twins.theirs(**twins.taken(inputs), labels=labels)
    logits = fast(**inputs)
    assert torch.allclose(logits, expected.logits, atol=1e-6, rtol=0)
    expected.loss.backward()
    our_loss(logits, labels).backward()
    for (name, theirs), own in zip(twins.theirs.named_parameters(), fast.parameters(), strict=True):
        assert torch.allclose(own.grad, theirs.grad, atol=1e-6, rtol=0), name
    twins.theirs.zero_grad()
    assert_same_training_step(twins, inputs)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("family", REFERENCES)
def test_bf16_autocast_has_the_bits_of_transformers(family: str, padded: bool, tmp_path: Path) -> None:
    twins = make_twins(tmp_path, family)
    inputs = make_inputs(twins.config, padded=padded)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same_logits(twins, inputs)
    twins.theirs.train()
    twins.ours.train()
    for model, taken in ((twins.theirs, twins.taken(inputs)), (twins.ours, inputs)):
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16):
            output = model(**taken)
            our_loss(output if model is twins.ours else output.logits, make_labels(2, 5)).backward()
    assert_same_gradients(twins)


@pytest.mark.parametrize("family", REFERENCES)
def test_what_a_config_leaves_out_is_what_transformers_takes(family: str, tmp_path: Path) -> None:
    names, reference = FAMILIES[family].config_names, REFERENCES[family]
    needed = {names.get(spec.name) for spec in fields(FAMILIES[family].config) if spec.default is MISSING}
    sizes = {key: value for key, value in reference.small.items() if key in needed}
    sizes[names["vocab_size"]] = 60_000  # with room for every family's padding id
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family, **sizes}))
    ours, theirs = read_config(tmp_path), reference.config.from_pretrained(tmp_path)
    for name, key in names.items():
        # Others stand in the model, or are translated or derived: the families' own tests see to them.
        if hasattr(theirs, key) and key != "pooler_hidden_size":
            found, value = getattr(ours, name), getattr(theirs, key)
            assert found == (tuple(value or ()) if isinstance(found, tuple) else value), key
    assert ours.num_labels == theirs.num_labels and ours.label_names is None


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("rows", "length"), [(1, 1), (3, 1), (4, 24), (8, 16)])
@pytest.mark.parametrize("family", REFERENCES)
def test_every_kind_of_batch_has_the_bits_of_transformers(
    family: str, rows: int, length: int, padded: bool, pair: bool, tmp_path: Path
) -> None:
    twins = make_twins(tmp_path, family)
    inputs = make_inputs(twins.config, rows=rows, length=length, padded=padded, pair=pair)
    assert_same_logits(twins, inputs)
    assert_same_training_step(twins, inputs)


@pytest.mark.parametrize("family", REFERENCES)
def test_fast_kernels_compute_the_same_function(family: str, tmp_path: Path) -> None:
    """Without dropout, whose masks are others: within 1e-5 of the largest value, from another order of the sums."""
    kinds = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "embedding_dropout")
    save_checkpoint(tmp_path, family, **in_words_of(family, dict.fromkeys(kinds, 0.0)))
    models = [load_classifier(tmp_path, kernels=name).train() for name in ("reference", "fast")]
    inputs = make_inputs(load_reference(tmp_path).config)
    logits = []
    for model in models:
        logits.append(model(**inputs))
        our_loss(logits[-1], make_labels(2, 5)).backward()
    assert (logits[0] - logits[1]).abs().max() <= 1e-5 * logits[0].abs().max()
    for (name, expected), found in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert expected.grad is not None and found.grad is not None, name
        # A gradient of a key's bias is 0 but for rounding: the softmax does not see what all scores have in common.
        scale = max(expected.grad.abs().max().item(), 1e-2)
        assert (expected.grad - found.grad).abs().max() <= 1e-5 * scale, name


@pytest.mark.parametrize("family", REFERENCES)
def test_saved_folder_is_read_back_by_transformers(family: str, tmp_path: Path, demo_model: Path) -> None:
    twins = make_twins(tmp_path / "theirs", family, num_labels=3)
    inputs = make_inputs(twins.config)
    assert_same_training_step(twins, inputs)  # other weights than those of the folder
    save_classifier(twins.ours, load_tokenizer(demo_model), tmp_path / "ours")
    again = Twins(load_reference(tmp_path / "ours"), twins.ours)
    assert type(again.theirs) is REFERENCES[family].model
    assert_same_logits(again, inputs)
    assert_same_logits(load_twins(tmp_path / "ours"), inputs)


@pytest.mark.parametrize("family", REFERENCES)
def test_the_encoder_alone_has_the_bits_of_transformers(family: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, family)
    twins = Twins(AutoModel.from_pretrained(tmp_path, dtype=torch.float32), load_classifier(tmp_path))
    encoder = load_encoder(tmp_path, kernels="reference")
    for padded in (False, True):
        inputs = make_inputs(twins.config, padded=padded)
        assert torch.equal(encoder(**inputs), twins.theirs(**twins.taken(inputs)).last_hidden_state)


@pytest.mark.parametrize("kind", [AutoModel, AutoModelForMaskedLM, AutoModelForPreTraining])
@pytest.mark.parametrize("family", REFERENCES)
def test_checkpoint_of_pretraining_gets_the_head_that_transformers_draws(
    family: str, kind: type[Any], tmp_path: Path
) -> None:
    """Its extras are left aside, and what is new is drawn in the same order from the same stream."""
    if (family, kind) == ("modernbert", AutoModelForPreTraining):
        pytest.skip("transformers has no such class: ModernBERT is pretrained as a masked language model")
    reference = REFERENCES[family]
    torch.manual_seed(0)
    kind.from_config(reference.config(**reference.small)).save_pretrained(tmp_path)
    torch.manual_seed(42)
    theirs = load_reference(tmp_path, num_labels=3)
    after = torch.rand(1)
    torch.manual_seed(42)
    ours = load_classifier(tmp_path, num_labels=3, kernels="reference")
    assert torch.equal(torch.rand(1), after)
    twins = Twins(theirs, ours)
    for (name, expected), found in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        assert torch.equal(found, expected), name
    assert_same_logits(twins, make_inputs(twins.config))


def test_the_guide_to_a_new_family_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is taken from the guide, one row goes into each table, and every comparison holds."""
    guide = (ROOT / "docs/families.md").read_text(encoding="utf-8")
    [source] = re.findall(r"^```python\n(.*?)^```", guide, flags=re.MULTILINE | re.DOTALL)
    path = tmp_path / "ernie.py"
    path.write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(FAMILIES, "ernie", import_module("ernie").ERNIE)
    monkeypatch.setitem(
        REFERENCES,
        "ernie",
        Reference(config=ErnieConfig, model=ErnieForSequenceClassification, small=REFERENCES["bert"].small),
    )
    test_logits_gradients_and_a_step_have_the_bits_of_transformers("ernie", "small", tmp_path / "a")
    test_saved_folder_is_read_back_by_transformers("ernie", tmp_path / "b", resolve_model("demo"))
    test_the_encoder_alone_has_the_bits_of_transformers("ernie", tmp_path / "c")
    with pytest.raises(MinitrainError, match="'use_task_id' is True, which minitrain does not support"):
        make_twins(tmp_path / "d", "ernie", use_task_id=True)


def test_the_table_of_families_names_every_one() -> None:
    guide = (ROOT / "docs/families.md").read_text(encoding="utf-8")
    rows = [line.split("|")[2].strip() for line in guide.splitlines() if "bit for bit |" in line]
    assert sorted(rows) == sorted(FAMILIES)
