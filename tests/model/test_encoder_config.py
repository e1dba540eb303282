"""config.json: what is read, and that every fault in it is an error that names the file and the field."""

import json
import os
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity.reference import REFERENCES, Twins, assert_same_logits, load_twins, make_inputs, save_checkpoint
from safetensors.torch import load_file, save_file
from transformers import BertConfig

from minitrain.errors import MinitrainError
from minitrain.model.encoder_config import LARGEST_SIZE, EncoderConfig
from minitrain.model.families import FAMILIES
from minitrain.model.layers import ACTIVATIONS
from minitrain.model.weights import load_classifier, load_encoder, read_config, trained_labels

SMALL = {"model_type": "bert", **REFERENCES["bert"].small}
LABELS = {"id2label": {"0": "no", "1": "yes", "2": "perhaps"}}
NEEDED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
COUNTS = (*NEEDED, "max_position_embeddings", "type_vocab_size", "num_labels")
PROBABILITIES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")

fuzz = settings(
    max_examples=int(os.environ.get("MINITRAIN_FUZZ_EXAMPLES", "300")),
    deadline=None,
    database=None,
    print_blob=True,
)


def write(folder: Path, **changes: Any) -> Path:
    """A small config.json with changes; a change to `...` takes the key out."""
    config = {key: value for key, value in (SMALL | changes).items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def assert_names(folder: Path, key: str, *parts: str) -> None:
    with pytest.raises(MinitrainError) as caught:
        read_config(folder)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'config.json'}: ") and f"'{key}'" in message, message
    for part in parts:
        assert part in message


def test_a_config_that_transformers_wrote_is_read_field_by_field(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "vocab_size": 101, "hidden_size": 30, "num_hidden_layers": 3, "num_attention_heads": 5,
        "intermediate_size": 7, "hidden_act": "relu", "hidden_dropout_prob": 0.25,
        "attention_probs_dropout_prob": 0.125, "classifier_dropout": 0.5, "max_position_embeddings": 33,
        "type_vocab_size": 4, "initializer_range": 0.5, "layer_norm_eps": 1e-5, "pad_token_id": 9,
        "id2label": {0: "no", 1: "yes", 2: "perhaps"}, "problem_type": "single_label_classification",
    }  # fmt: skip
    BertConfig(**values).save_pretrained(tmp_path)
    assert read_config(tmp_path) == EncoderConfig(
        model_type="bert", vocab_size=101, hidden_size=30, num_layers=3, num_heads=5, intermediate_size=7,
        hidden_act="relu", hidden_dropout_prob=0.25, attention_probs_dropout_prob=0.125, classifier_dropout=0.5,
        max_position_embeddings=33, type_vocab_size=4, initializer_range=0.5, layer_norm_eps=1e-5, pad_token_id=9,
        num_labels=3, label_names=("no", "yes", "perhaps"), problem_type="single_label_classification",
    )  # fmt: skip


def test_what_a_config_leaves_out_is_what_transformers_takes(tmp_path: Path) -> None:
    sizes = {key: SMALL[key] for key in NEEDED}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **sizes}))
    ours, theirs = read_config(tmp_path), BertConfig.from_pretrained(tmp_path)
    for field, key in (
        ("hidden_act", "hidden_act"), ("hidden_dropout_prob", "hidden_dropout_prob"),
        ("attention_probs_dropout_prob", "attention_probs_dropout_prob"),
        ("classifier_dropout", "classifier_dropout"), ("max_position_embeddings", "max_position_embeddings"),
        ("type_vocab_size", "type_vocab_size"), ("initializer_range", "initializer_range"),
        ("layer_norm_eps", "layer_norm_eps"), ("pad_token_id", "pad_token_id"), ("num_labels", "num_labels"),
    ):  # fmt: skip
        assert getattr(ours, field) == getattr(theirs, key), key
    assert ours.label_names is None and ours.problem_type is None


def test_a_padding_id_of_null_is_none_as_in_transformers(tmp_path: Path) -> None:
    write(tmp_path, pad_token_id=None)
    assert read_config(tmp_path).pad_token_id is None and BertConfig.from_pretrained(tmp_path).pad_token_id is None


def test_labels_are_sorted_by_number_not_by_text(tmp_path: Path) -> None:
    names = {str(i): f"name {i}" for i in reversed(range(12))}
    assert read_config(write(tmp_path, id2label=names)).label_names == tuple(f"name {i}" for i in range(12))


@pytest.mark.fault(43)
@pytest.mark.parametrize("value", ["gpt2", "BERT", "", 3, True, ["bert"], {"bert": 1}])
def test_an_unknown_model_type_is_an_error_that_lists_the_known_ones(value: Any, tmp_path: Path) -> None:
    assert_names(write(tmp_path, model_type=value), "model_type", "minitrain knows", *FAMILIES)


@pytest.mark.parametrize("key", NEEDED)
@pytest.mark.parametrize("value", [..., None])
def test_a_size_that_is_missing_is_named(key: str, value: Any, tmp_path: Path) -> None:
    assert_names(write(tmp_path, **{key: value}), key, "has no")


@pytest.mark.fault(43)
@pytest.mark.parametrize("key", COUNTS)
@pytest.mark.parametrize("value", [0, -1, LARGEST_SIZE + 1, 10**400, True, False, "32", 32.0, 1e999, [32], {}])
def test_a_size_that_is_no_sensible_integer_is_named(key: str, value: Any, tmp_path: Path) -> None:
    text = json.dumps(SMALL | {key: value}).replace("Infinity", "1e999")  # JSON's own way to infinity
    (tmp_path / "config.json").write_text(text)
    assert_names(tmp_path, key, "expected an integer from 1 to")


def test_a_thousand_layers_are_refused_before_they_are_made(tmp_path: Path) -> None:
    assert_names(write(tmp_path, num_hidden_layers=1000), "num_hidden_layers", "from 1 to 256")


def test_sizes_that_do_not_fit_into_memory_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    write(tmp_path, vocab_size=2**24, hidden_size=2**24)
    with pytest.raises(MinitrainError, match=r"config\.json: its model does not fit into memory"):
        load_classifier(tmp_path)


@pytest.mark.fault(43)
@pytest.mark.parametrize("key", PROBABILITIES)
@pytest.mark.parametrize("value", [-0.1, 1.1, 2, 10**400, True, "0.1", [0.1]])
def test_a_dropout_outside_0_to_1_is_named(key: str, value: Any, tmp_path: Path) -> None:
    assert_names(write(tmp_path, **{key: value}), key, "expected a probability from 0 to 1")


@pytest.mark.parametrize("key", ["layer_norm_eps", "initializer_range"])
@pytest.mark.parametrize("value", [0, 0.0, -1e-12, 10**400, True, "1e-12"])
def test_an_epsilon_or_range_that_is_not_positive_is_named(key: str, value: Any, tmp_path: Path) -> None:
    assert_names(write(tmp_path, **{key: value}), key, "expected a positive finite number")


@pytest.mark.fault(44)
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_refused_though_json_dumps_writes_them(value: str, tmp_path: Path) -> None:
    write(tmp_path, layer_norm_eps=float(value))
    assert value in (tmp_path / "config.json").read_text()
    with pytest.raises(MinitrainError, match=f"config.json: .*it holds {value}"):
        read_config(tmp_path)


@pytest.mark.fault(43)
@pytest.mark.parametrize("value", ["prelu", "xielu", "GELU", "", 3, ["gelu"], {"gelu": 1}])
def test_an_unknown_activation_is_named_with_the_known_ones(value: Any, tmp_path: Path) -> None:
    assert_names(write(tmp_path, hidden_act=value), "hidden_act", *ACTIVATIONS)


@pytest.mark.fault(43)
@pytest.mark.parametrize("heads", [3, 5, 33, 64])
def test_heads_that_do_not_divide_the_hidden_size_are_named(heads: int, tmp_path: Path) -> None:
    folder = write(tmp_path, num_attention_heads=heads)
    assert_names(folder, "hidden_size", "is 32", f"'num_attention_heads' = {heads}")


@pytest.mark.parametrize(
    ("value", "complaint"), [(99, "outside the vocabulary of 99"), (-1, "from 0"), (0.0, "0.0")]
)
def test_a_padding_id_outside_the_vocabulary_is_named(value: Any, complaint: str, tmp_path: Path) -> None:
    assert_names(write(tmp_path, pad_token_id=value), "pad_token_id", complaint)
    assert read_config(write(tmp_path, pad_token_id=98)).pad_token_id == 98


NAMES: dict[str, tuple[Any, tuple[str, ...] | None]] = {  # id2label -> the names, None where there are none
    "null": (None, None),
    "an empty table": ({}, None),
    "an empty list": ([], None),
    "in another order": ({"1": "yes", "0": "no"}, ("no", "yes")),
    "integers": ({"0": 0, "1": 1}, ("0", "1")),
    "floats": ({"0": 0.5, "1": 1.5}, ("0.5", "1.5")),
    "booleans": ({"0": False, "1": True}, ("False", "True")),
    "counted from 1": ({"1": "no", "2": "yes"}, ("no", "yes")),
    "a list": (["no", "yes"], ("no", "yes")),
    "one name twice": ({"0": "no", "1": "no"}, ("no", "no")),
    "leading zeros": ({"00": "no", "01": "yes"}, ("no", "yes")),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_table_of_labels_that_says_which_is_which_is_read(name: str, tmp_path: Path) -> None:
    table, expected = NAMES[name]
    config = read_config(write(tmp_path, id2label=table))
    assert (config.label_names, config.num_labels, config.head_fault) == (expected, 2, None)
    if name not in ("an empty table", "an empty list", "a list"):  # of which transformers makes nothing
        theirs = BertConfig.from_pretrained(tmp_path)
        assert theirs.num_labels == config.num_labels
        named = expected or ("LABEL_0", "LABEL_1")
        assert tuple(str(theirs.id2label[i]) for i in sorted(theirs.id2label)) == named


@pytest.mark.parametrize(
    "value",
    [
        "a, b", 2, True, {"0": "no", "2": "yes"}, {"2": "no", "3": "yes"}, {"0": "no", "1": None}, [None, "yes"],
        {"a": "no", "b": "yes"}, {"no": 0, "yes": 1}, {"-1": "no", "0": "yes"}, {"0": "no", "00": "yes"},
        {"0": ["no"], "1": ["yes"]}, {"0.0": "no", "1.0": "yes"}, {"9" * 30: "no"},
    ],
)  # fmt: skip
def test_a_table_of_labels_that_does_not_blocks_a_trained_head_alone(value: Any, tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    set_config(tmp_path, id2label=value)
    for refused in (lambda: load_classifier(tmp_path), lambda: trained_labels(tmp_path)):
        with pytest.raises(MinitrainError) as caught:
            refused()
        message = str(caught.value)
        assert message.startswith(f"{tmp_path / 'config.json'}: 'id2label' is ")
        assert 'write {"0": "no", "1": "yes"}' in message and "--new_head" in message
    assert load_encoder(tmp_path).config.hidden_size == 32
    assert load_classifier(tmp_path, 3, new_head=True).config.num_labels == 3
    with pytest.raises(MinitrainError, match="or say how many labels: num_labels=2"):
        load_classifier(tmp_path, new_head=True)
    set_config(tmp_path, id2label={"0": "no", "1": "yes"})  # as the message says
    assert load_classifier(tmp_path).config.label_names == ("no", "yes")


@pytest.mark.parametrize("text", ["[" * 60 + "]" * 60, '"' + "x" * 100_000 + '"', "9" * 4000])
def test_a_value_that_is_deep_or_long_is_shown_short(text: str, tmp_path: Path) -> None:
    write(tmp_path, hidden_size="HERE")
    content = (tmp_path / "config.json").read_text().replace('"HERE"', text)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(MinitrainError, match="'hidden_size' is .*; expected an integer") as caught:
        read_config(tmp_path)
    assert len(str(caught.value)) < 500


def test_label_names_that_no_file_can_hold_are_refused_before_they_are_trained(tmp_path: Path) -> None:
    with pytest.raises(MinitrainError, match=r"config\.json: .*half of a surrogate pair"):
        read_config(write(tmp_path, id2label={"0": "no", "1": "\ud800"}))


def test_more_labels_than_any_task_has_are_refused_before_they_are_named(tmp_path: Path) -> None:
    assert_names(write(tmp_path, num_labels=2**20 + 1), "num_labels", "from 1 to 1048576")


@pytest.mark.parametrize("value", ["multi_label", "classification", 3, ["regression"], True])
def test_a_problem_type_that_is_not_trained_here_blocks_a_trained_head_alone(value: Any, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, num_labels=3)
    set_config(tmp_path, problem_type=value)
    for refused in (lambda: load_classifier(tmp_path), lambda: trained_labels(tmp_path)):
        with pytest.raises(MinitrainError, match="--new_head") as caught:
            refused()
        assert str(caught.value).startswith(f"{tmp_path / 'config.json'}: 'problem_type' is {value!r}")
    model = load_classifier(tmp_path, 2, new_head=True)
    assert model.config.problem_type is None and model.config.num_labels == 2
    assert load_encoder(tmp_path).config.hidden_size == 32


def test_a_head_of_one_label_is_a_score_unless_a_text_may_have_several(tmp_path: Path) -> None:
    for problem, is_score in ((None, True), ("regression", True), ("multi_label_classification", False)):
        config = read_config(write(tmp_path, num_labels=1, problem_type=problem))
        assert (config.is_regression, config.is_multi_label) == (is_score, not is_score)


OLD_CONFIGS = [
    ({}, "bert"),
    ({"type_vocab_size": 1}, "roberta"),
    ({"dim": 32}, "distilbert"),
    ({"num_hidden_groups": 1}, "albert"),
    ({"pos_att_type": "c2p"}, "deberta-v2"),
    ({"architectures": ["CamembertForMaskedLM"]}, "camembert"),
    ({"architectures": ["XLMRobertaModel"], "type_vocab_size": 1}, "xlm-roberta"),
    ({"architectures": "broken"}, "bert"),
]


@pytest.mark.parametrize(("changes", "family"), OLD_CONFIGS)
@pytest.mark.parametrize("value", [..., None])
def test_a_config_without_model_type_is_told_the_line_to_add(
    value: Any, changes: dict[str, Any], family: str, tmp_path: Path
) -> None:
    folder = write(tmp_path, model_type=value, **changes)
    line = f'"model_type": "{family}",'
    assert_names(folder, "model_type", f"if it is a {family}, add the line {line}", *FAMILIES)


def test_the_line_that_is_named_makes_the_config_readable(tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({key: config[key] for key in config if key not in ("model_type", "architectures")}))
    with pytest.raises(MinitrainError, match="add the line") as caught:
        load_classifier(tmp_path)
    line = re.search(r'"model_type": "\w+",', str(caught.value))
    assert line is not None
    path.write_text("{" + line[0] + path.read_text()[1:])
    assert load_classifier(tmp_path).config.model_type == "bert"


@pytest.mark.parametrize("key", ["is_decoder", "add_cross_attention"])
def test_a_decoder_is_named(key: str, tmp_path: Path) -> None:
    assert_names(write(tmp_path, **{key: True}), key, "is True, which minitrain does not support")
    assert read_config(write(tmp_path, **{key: False})).model_type == "bert"


def test_a_config_that_is_missing_or_no_json_object_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(MinitrainError, match=re.escape(f"{tmp_path}: is no model: expected config.json")):
        load_classifier(tmp_path)
    for content in ("", "[]", "{", '{"model_type": "bert", "model_type": "bert"}'):
        path.write_text(content)
        with pytest.raises(MinitrainError, match=re.escape(f"{path}: ")):
            load_classifier(tmp_path)


def relative_checkpoint(folder: Path) -> None:
    """A checkpoint of relative positions, which transformers had in versions before 5: one more tensor a layer."""
    save_checkpoint(folder)
    tensors = load_file(folder / "model.safetensors")
    for layer in (0, 1):
        tensors[f"bert.encoder.layer.{layer}.attention.self.distance_embedding.weight"] = torch.randn(47, 8)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    set_positions(folder, "relative_key")


def set_positions(folder: Path, kind: str) -> None:
    set_config(folder, position_embedding_type=kind)


def set_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_relative_positions_are_refused_by_their_weights(tmp_path: Path) -> None:
    relative_checkpoint(tmp_path)
    with pytest.raises(MinitrainError, match=r"distance_embedding\.weight"):
        load_classifier(tmp_path)
    with pytest.raises(MinitrainError, match=r"distance_embedding\.weight"):
        load_encoder(tmp_path)


def test_a_kind_of_position_embedding_without_weights_means_nothing_here_as_in_transformers(tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    set_positions(tmp_path, "relative_key_query")
    twins = load_twins(tmp_path)
    assert isinstance(twins, Twins)
    assert_same_logits(twins, make_inputs(twins.config))


def test_code_in_the_folder_is_never_imported(tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    canary = tmp_path / "ran"
    for name in ("modeling_evil", "configuration_evil", "__init__", "conftest"):
        (tmp_path / f"{name}.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "configuration_evil.EvilConfig",
        "AutoModelForSequenceClassification": "modeling_evil.EvilModel",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = load_classifier(tmp_path)
    load_encoder(tmp_path)
    assert type(model).__module__ == "minitrain.model.classifier" and not canary.exists()
    runpy.run_path(str(tmp_path / "modeling_evil.py"))
    assert canary.exists()  # it would have been seen


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from([10**400, 32]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=5,
)
KEYS = [
    *SMALL,
    "classifier_dropout",
    "id2label",
    "num_labels",
    "problem_type",
    "is_decoder",
    "hidden_act",
    "auto_map",
]


@fuzz
@given(changes=st.dictionaries(st.sampled_from(KEYS), json_values, max_size=3), gone=st.sets(st.sampled_from(KEYS)))
def test_any_config_is_read_or_is_our_own_error_that_names_the_file(
    changes: dict[str, Any], gone: set[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed" / "config.json"
    path.parent.mkdir(exist_ok=True)
    kept = {key: value for key, value in (SMALL | changes).items() if key not in gone - set(list(SMALL)[:4])}
    path.write_text(json.dumps(kept))
    try:
        config = read_config(path.parent)
    except MinitrainError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        assert config.hidden_size % config.num_heads == 0
