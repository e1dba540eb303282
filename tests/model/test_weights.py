"""Checkpoints: what transformers saved loads here, what is saved here loads there, every key accounted for."""

import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.reference import REFERENCES, load_reference, make_inputs, save_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertModel,
    pipeline,
)

from minitrain.data.batch import collate
from minitrain.data.tokenizer.tokenizer import Tokenizer, load_tokenizer
from minitrain.errors import MinitrainError
from minitrain.model.classifier import SequenceClassifier
from minitrain.model.loading import (
    LoadReport,
)
from minitrain.model.weights import (
    load_classifier,
    load_encoder,
    save_classifier,
    trained_labels,
)

CONFIG = BertConfig(**REFERENCES["bert"].small)
INPUTS = make_inputs(CONFIG)
HEAD = ["head.output.weight", "head.output.bias"]
POOLER = ["head.pooler.weight", "head.pooler.bias"]
WEIGHTS = "model.safetensors"


class NoTokenizer:
    """Saves nothing."""

    def save(self, directory: Path) -> None:
        assert directory.is_dir()


class BrokenTokenizer:
    """Fails in the middle of saving."""

    def save(self, directory: Path) -> None:
        (directory / "tokenizer.json").write_text("half a tok")
        raise OSError(28, "No space left on device")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A classifier with two unnamed labels, as transformers saves it."""
    save_checkpoint(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def load(
    folder: Path, num_labels: int | None = None, new_head: bool = False
) -> tuple[SequenceClassifier, LoadReport]:
    model = load_classifier(folder, num_labels, new_head=new_head, kernels="reference")
    return model, model.load_report


def edit(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Rewrite the weights after `change` has altered the table of tensors in place."""
    tensors = load_file(folder / WEIGHTS)
    before = {key: (tensor.dtype, tensor.shape, tensor.clone()) for key, tensor in tensors.items()}
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    after = load_file(folder / WEIGHTS)
    assert (
        set(after) != set(before)
        or any(  # the fault is really there
            (after[key].dtype, after[key].shape) != before[key][:2] or not torch.equal(after[key], before[key][2])
            for key in after
        )
    )


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same_parameters(ours: SequenceClassifier, theirs: SequenceClassifier) -> None:
    for (name, parameter), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(parameter, other), name


def assert_refused(folder: Path, *parts: str, **options: Any) -> None:
    with pytest.raises(MinitrainError) as caught:
        load_classifier(folder, **options)
    for part in (str(folder), *parts):
        assert part in str(caught.value), str(caught.value)


# What is in a file


def test_a_whole_classifier_is_loaded_and_every_key_of_it_reported(checkpoint: Path) -> None:
    model, report = load(checkpoint)
    assert set(report.loaded) == set(load_file(checkpoint / WEIGHTS)) and report.ignored == report.new == []
    assert not model.training and {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(p.requires_grad and p.is_leaf for p in model.parameters())


def test_loading_a_whole_classifier_draws_no_random_number(checkpoint: Path) -> None:
    before = torch.get_rng_state()
    load(checkpoint)
    assert torch.equal(torch.get_rng_state(), before)


def test_keys_without_the_prefix_are_the_same_keys(tmp_path: Path) -> None:
    theirs = save_checkpoint(tmp_path / "whole")
    theirs.bert.save_pretrained(tmp_path / "bare")
    assert "embeddings.word_embeddings.weight" in load_file(tmp_path / "bare" / WEIGHTS)
    model, report = load(tmp_path / "bare")
    whole, _ = load(tmp_path / "whole")
    assert report.new == HEAD and report.ignored == []
    assert torch.equal(model.encoder(**INPUTS), whole.encoder(**INPUTS))
    assert torch.equal(model.get_parameter("head.pooler.weight"), whole.get_parameter("head.pooler.weight"))


def test_gamma_and_beta_are_the_old_names_of_weight_and_bias(checkpoint: Path) -> None:
    expected, _ = load(checkpoint)

    def rename(tensors: dict[str, Tensor]) -> None:
        for key in [key for key in tensors if "LayerNorm" in key]:
            tensors[key.replace("weight", "gamma").replace("bias", "beta")] = tensors.pop(key)

    edit(checkpoint, rename)
    model, report = load(checkpoint)
    assert_same_parameters(model, expected)
    assert sum(key.endswith((".gamma", ".beta")) for key in report.loaded) == 2 * 5


@pytest.mark.fault(39)
def test_the_heads_of_pretraining_are_ignored_and_reported(tmp_path: Path) -> None:
    torch.manual_seed(0)
    BertForPreTraining(CONFIG).save_pretrained(tmp_path)
    _, report = load(tmp_path)
    extras = {key for key in load_file(tmp_path / WEIGHTS) if key.startswith("cls.")}
    assert extras and set(report.ignored) == extras and report.new == HEAD


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_buffers_that_older_versions_saved_are_ignored_and_reported(prefix: str, tmp_path: Path) -> None:
    theirs = save_checkpoint(tmp_path)
    if not prefix:
        theirs.bert.save_pretrained(tmp_path)
    buffers = {f"{prefix}embeddings.{name}": torch.arange(24)[None] for name in ("position_ids", "token_type_ids")}
    edit(tmp_path, lambda tensors: tensors.update(buffers))
    assert set(load(tmp_path)[1].ignored) == set(buffers)


def test_a_masked_language_model_has_no_pooler_and_gets_the_one_that_transformers_draws(tmp_path: Path) -> None:
    torch.manual_seed(0)
    BertForMaskedLM(CONFIG).save_pretrained(tmp_path)
    assert not any("pooler" in key for key in load_file(tmp_path / WEIGHTS))
    torch.manual_seed(5)
    model, report = load(tmp_path, num_labels=3)
    torch.manual_seed(5)
    theirs = load_reference(tmp_path, num_labels=3)
    assert report.new == POOLER + HEAD
    assert torch.equal(model.get_parameter("head.pooler.weight"), theirs.bert.pooler.dense.weight)
    assert torch.equal(model(**INPUTS), theirs(**INPUTS).logits)


@pytest.mark.fault(38)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_are_loaded_as_float32(dtype: torch.dtype, checkpoint: Path) -> None:
    def narrow(tensors: dict[str, Tensor]) -> None:
        tensors.update({key: tensor.to(dtype) for key, tensor in tensors.items()})

    edit(checkpoint, narrow)
    model, _ = load(checkpoint)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(model(**INPUTS), load_reference(checkpoint)(**INPUTS).logits)


def test_shards_of_transformers_are_put_together(tmp_path: Path) -> None:
    theirs = save_checkpoint(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 2
    assert not (tmp_path / "shards" / WEIGHTS).exists()
    sharded, report = load(tmp_path / "shards")
    assert_same_parameters(sharded, load(tmp_path / "whole")[0])
    assert len(report.loaded) == len(list(theirs.parameters())) and report.new == report.ignored == []


def test_the_encoder_alone_ignores_whatever_head_there_is(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "classifier")
    BertForMaskedLM(CONFIG).save_pretrained(tmp_path / "masked")
    for folder in (tmp_path / "classifier", tmp_path / "masked"):
        reference = BertModel.from_pretrained(folder, dtype=torch.float32)
        encoder = load_encoder(folder, kernels="reference")
        assert torch.equal(encoder(**INPUTS), reference(**INPUTS).last_hidden_state)


# The head


def test_the_new_head_replaces_the_output_layer_alone(checkpoint: Path) -> None:
    old, _ = load(checkpoint)
    torch.manual_seed(1)
    model, report = load(checkpoint, num_labels=5, new_head=True)
    assert report.new == HEAD and set(report.ignored) == {"classifier.weight", "classifier.bias"}
    torch.manual_seed(1)
    assert torch.equal(model.get_parameter("head.output.weight"), torch.empty(5, 32).normal_(0.0, 0.02))
    for name, parameter in old.named_parameters():
        if name not in HEAD:
            assert torch.equal(model.get_parameter(name), parameter), name


def test_the_new_head_of_the_same_size_is_new_too(checkpoint: Path) -> None:
    old, _ = load(checkpoint)
    model, report = load(checkpoint, new_head=True)
    assert report.new == HEAD
    assert not torch.equal(model.get_parameter(HEAD[0]), old.get_parameter(HEAD[0]))


def test_a_head_of_another_size_is_an_error_that_names_both_sizes_and_the_way_out(checkpoint: Path) -> None:
    assert_refused(checkpoint, "the trained head has 2 labels", "the data has 3", "--new_head", num_labels=3)
    names = ("yes", "no", "perhaps")
    assert_refused(checkpoint, "the trained head has 2 labels", "perhaps", "--new_head", label_names=names)


def test_a_head_with_other_names_is_an_error_that_names_both(checkpoint: Path) -> None:
    edit_config(checkpoint, id2label={"0": "negative", "1": "positive"}, label2id={"negative": 0, "positive": 1})
    assert load_classifier(checkpoint, label_names=("negative", "positive")).config.num_labels == 2
    for names in (("positive", "negative"), ("no", "yes")):
        assert_refused(checkpoint, "('negative', 'positive')", str(names), "--new_head", label_names=names)
    assert load_classifier(checkpoint, label_names=("no", "yes"), new_head=True).config.label_names == ("no", "yes")


def test_a_head_without_names_takes_those_of_the_data(checkpoint: Path) -> None:
    edit_config(checkpoint, id2label={"0": "LABEL_0", "1": "LABEL_1"})
    assert load_classifier(checkpoint, label_names=("no", "yes")).config.label_names == ("no", "yes")


def test_the_labels_of_a_head_are_known_only_where_the_files_hold_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "classifier", id2label={0: "no", 1: "yes"})
    BertForMaskedLM(CONFIG).save_pretrained(tmp_path / "masked")
    assert trained_labels(tmp_path / "classifier") == ("no", "yes")
    assert trained_labels(tmp_path / "masked") is None


@pytest.mark.parametrize(("old", "new"), [("single_label_classification", 1), ("regression", 3)])
def test_a_head_of_another_size_forgets_the_problem_of_the_old_one(old: str, new: int, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "old", num_labels=1 if old == "regression" else 2, problem_type=old)
    model = load_classifier(tmp_path / "old", num_labels=new, new_head=True)
    save_classifier(model, NoTokenizer(), tmp_path / "new")
    # transformers refuses a config of one label with single_label_classification.
    expected = "regression" if new == 1 else "single_label_classification"
    assert AutoConfig.from_pretrained(tmp_path / "new").problem_type == expected
    assert load_classifier(tmp_path / "new").config.num_labels == new


def test_dropout_may_be_overridden_and_is_saved(checkpoint: Path, tmp_path: Path) -> None:
    model = load_classifier(checkpoint, hidden_dropout_prob=0.5, classifier_dropout=None)
    save_classifier(model, NoTokenizer(), tmp_path / "saved")
    theirs = AutoConfig.from_pretrained(tmp_path / "saved")
    assert (theirs.hidden_dropout_prob, theirs.attention_probs_dropout_prob) == (0.5, 0.2)
    assert theirs.classifier_dropout is None


# Faults in a file


def replace_tensor(key: str, value: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.update({key: value(tensors[key]).contiguous()})


WORDS = "bert.embeddings.word_embeddings.weight"
QUERY = "bert.encoder.layer.1.attention.self.query.weight"


def with_nan(tensor: Tensor) -> Tensor:
    tensor[3, 5] = float("nan")
    return tensor


FAULTS: dict[str, tuple[Callable[[dict[str, Tensor]], object], tuple[str, ...]]] = {
    "too many rows": (
        replace_tensor(WORDS, lambda t: torch.cat([t, t[:1]])),
        (WEIGHTS, repr(WORDS), "shape (100, 32)", "makes it (99, 32)"),
    ),
    "transposed": (
        replace_tensor("bert.encoder.layer.0.output.dense.weight", lambda t: t.T),
        ("'bert.encoder.layer.0.output.dense.weight' has shape (48, 32)", "(32, 48)"),
    ),
    "a head of another shape": (
        replace_tensor("classifier.weight", lambda t: torch.cat([t, t])),
        ("'classifier.weight' has shape (4, 32)", "(2, 32)"),
    ),
    "integers": (replace_tensor(QUERY, lambda t: t.int()), (WEIGHTS, repr(QUERY), "int32", "float32, float16")),
    "not a number": (replace_tensor(QUERY, with_nan), (WEIGHTS, repr(QUERY), "NaN or infinity")),
    "a missing key": (lambda t: t.pop(QUERY), ("lack 1 keys of the encoder", repr(QUERY))),
    "a missing layer": (
        lambda t: [t.pop(key) for key in list(t) if ".layer.1." in key],
        ("lack 16 keys of the encoder", repr(QUERY)),
    ),
    "one layer too many": (
        lambda t: t.update({QUERY.replace(".1.", ".2."): torch.ones(32, 32)}),
        (WEIGHTS, "'bert.encoder.layer.2.attention.self.query.weight'", "BertForSequenceClassification"),
    ),
    "a strange key": (
        lambda t: t.update({"adapter.weight": torch.ones(1)}),
        (WEIGHTS, "'adapter.weight'", "--new_head ignores it"),
    ),
    "an empty key": (lambda t: t.update({"": torch.ones(1)}), (WEIGHTS, "''")),
    "a key that begins like a head": (
        lambda t: t.update({"classifier_2.weight": torch.ones(1)}),
        (WEIGHTS, "'classifier_2.weight'", "--new_head ignores it"),
    ),
    "the same parameter under two names": (
        lambda t: t.update({"embeddings.word_embeddings.weight": t[WORDS].clone()}),
        (WEIGHTS, repr(WORDS), "'embeddings.word_embeddings.weight'", "are the same parameter"),
    ),
    "an old and a new name": (
        lambda t: t.update({"bert.embeddings.LayerNorm.gamma": t["bert.embeddings.LayerNorm.weight"].clone()}),
        ("LayerNorm.gamma", "LayerNorm.weight", "are the same parameter"),
    ),
}


@pytest.mark.fault(32, 38, 39)
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_the_tensors_is_an_error_that_names_file_and_key(name: str, checkpoint: Path) -> None:
    change, parts = FAULTS[name]
    edit(checkpoint, change)
    assert_refused(checkpoint, *parts)


@pytest.mark.parametrize("name", ["too many rows", "a missing key", "one layer too many"])
def test_the_encoder_alone_is_as_strict(name: str, checkpoint: Path) -> None:
    change, parts = FAULTS[name]
    edit(checkpoint, change)
    with pytest.raises(MinitrainError) as caught:
        load_encoder(checkpoint)
    assert all(part in str(caught.value) for part in parts)


@pytest.mark.parametrize(("key", "value"), [("hidden_size", 64), ("num_hidden_layers", 3), ("vocab_size", 98)])
def test_a_config_of_another_model_is_an_error(key: str, value: int, checkpoint: Path) -> None:
    edit_config(checkpoint, **{key: value})
    assert_refused(checkpoint, "config.json")


def test_a_parameter_in_two_shards_is_an_error(tmp_path: Path) -> None:
    theirs = save_checkpoint(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    first, second = sorted((tmp_path / "shards").glob("model-*.safetensors"))[:2]
    save_file(load_file(second) | dict(list(load_file(first).items())[:1]), second)
    assert_refused(tmp_path / "shards", second.name, "are the same parameter")


def test_a_name_that_is_no_folder_and_no_hub_id_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MinitrainError, match=re.escape(f"--model {tmp_path / 'none'}: no such folder")):
        load_classifier(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(MinitrainError, match="is a file; give the folder"):
        load_classifier(tmp_path / "file")


# Saving


@pytest.fixture(scope="module")
def tokenizer(demo_model: Path) -> Tokenizer:
    return load_tokenizer(demo_model)


@pytest.fixture
def saved(tmp_path: Path, tokenizer: Tokenizer) -> tuple[SequenceClassifier, Path]:
    """A classifier of texts with three named labels, and the folder it was saved to from training mode."""
    save_checkpoint(tmp_path / "pretrained", vocab_size=30522, max_position_embeddings=64, num_labels=3)
    model = load_classifier(tmp_path / "pretrained", label_names=("négatif", "neutral", "positive")).train()
    save_classifier(model, tokenizer, tmp_path / "saved")
    return model.eval(), tmp_path / "saved"


TEXTS = ["A film of rare beauty, and naïve only where it wants to be.", "No.", "Never less than watchable."]


def test_a_saved_classifier_loads_in_transformers_with_the_same_logits(
    saved: tuple[SequenceClassifier, Path], tokenizer: Tokenizer
) -> None:
    model, folder = saved
    theirs = load_reference(folder)
    encoded = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    inputs = collate(tokenizer(TEXTS)).inputs
    assert all(torch.equal(inputs[name], encoded[name]) for name in inputs)
    assert_same_parameters(load_classifier(folder), model)
    assert torch.equal(theirs(**encoded).logits, load_classifier(folder, kernels="reference")(**inputs))
    assert [name for name, _ in theirs.named_parameters()] == [key for key in theirs.state_dict()]


def test_a_saved_classifier_runs_in_a_pipeline_with_its_label_names(
    saved: tuple[SequenceClassifier, Path], tokenizer: Tokenizer
) -> None:
    model, folder = saved
    found: Any = pipeline("text-classification", model=str(folder), device="cpu", top_k=None)(TEXTS)
    chances = model(**collate(tokenizer(TEXTS)).inputs).softmax(-1)
    assert model.config.label_names is not None
    for row, expected in zip(found, chances, strict=True):
        assert {entry["label"] for entry in row} == {"négatif", "neutral", "positive"}
        for entry in row:
            # Its softmax is numpy's, on a batch of one: the last bits of float32 differ.
            ours = expected[model.config.label_names.index(entry["label"])].item()
            assert abs(entry["score"] - ours) < 1e-6


def test_a_saved_regression_gives_its_scores_in_a_pipeline(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_checkpoint(tmp_path / "pretrained", vocab_size=30522, max_position_embeddings=64, num_labels=1)
    model = load_classifier(tmp_path / "pretrained")
    save_classifier(model, tokenizer, tmp_path / "saved")
    found: Any = pipeline("text-classification", model=str(tmp_path / "saved"), device="cpu")(TEXTS)
    for entry, logits in zip(found, model(**collate(tokenizer(TEXTS)).inputs), strict=True):
        assert abs(entry["score"] - logits.item()) < 1e-6  # a batch of one against one of three


def test_a_saved_classifier_loads_here_bit_for_bit(saved: tuple[SequenceClassifier, Path]) -> None:
    model, folder = saved
    again = load_classifier(folder)
    assert_same_parameters(again, model)
    assert again.config.label_names == model.config.label_names and not again.training
    encoder = AutoModel.from_pretrained(folder, dtype=torch.float32)
    inputs = {name: tensor[:, :4] for name, tensor in INPUTS.items()}
    assert torch.equal(encoder(**inputs).last_hidden_state, load_encoder(folder, kernels="reference")(**inputs))


def test_the_saved_files_say_what_they_are(saved: tuple[SequenceClassifier, Path]) -> None:
    _, folder = saved
    assert set(contents(folder)) == {
        "config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
    }  # fmt: skip
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float32}  # noqa: SIM118
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["BertForSequenceClassification"] and config["model_type"] == "bert"
    assert config["id2label"] == {"0": "négatif", "1": "neutral", "2": "positive"}
    assert config["label2id"] == {"négatif": 0, "neutral": 1, "positive": 2}
    assert config["problem_type"] == "single_label_classification" and config["pad_token_id"] == 0
    assert config["dtype"] == "float32"


def test_every_size_of_the_config_survives_saving(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "vocab_size": 101, "hidden_size": 30, "num_hidden_layers": 3, "num_attention_heads": 5,
        "intermediate_size": 7, "hidden_act": "relu", "hidden_dropout_prob": 0.25,
        "attention_probs_dropout_prob": 0.125, "classifier_dropout": 0.5, "max_position_embeddings": 33,
        "type_vocab_size": 4, "initializer_range": 0.5, "layer_norm_eps": 1e-5, "pad_token_id": None,
        "num_labels": 1, "problem_type": "regression",
    }  # fmt: skip
    save_checkpoint(tmp_path / "theirs", **values)
    save_classifier(load_classifier(tmp_path / "theirs"), NoTokenizer(), tmp_path / "ours")
    saved = AutoConfig.from_pretrained(tmp_path / "ours")
    assert {key: getattr(saved, key) for key in values} == values


@pytest.fixture(params=[0o022, 0o077, 0o007])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.fault(11)
def test_saved_files_have_the_mode_that_the_umask_gives(umask: int, checkpoint: Path, tokenizer: Tokenizer) -> None:
    save_classifier(load_classifier(checkpoint), tokenizer, checkpoint.parent / "saved")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (checkpoint.parent / "saved").iterdir()}
    assert len(modes) == 6 and set(modes.values()) == {0o666 & ~umask}


def test_a_save_that_fails_leaves_the_folder_as_it_was(saved: tuple[SequenceClassifier, Path]) -> None:
    model, folder = saved
    before = contents(folder)
    with torch.no_grad():
        model.get_parameter("head.output.bias").add_(1.0)
    with pytest.raises(OSError, match="No space left"):
        save_classifier(model, BrokenTokenizer(), folder)
    assert contents(folder) == before and all(path.is_file() for path in folder.iterdir())


def test_config_json_comes_last_so_that_a_folder_with_one_is_whole(checkpoint: Path, tmp_path: Path) -> None:
    class ManyFiles:
        """So many that a listing, whatever its order, is unlikely to end with config.json by itself."""

        names = tuple(f"{i}.txt" for i in range(20))

        def save(self, directory: Path) -> None:
            for name in self.names:
                (directory / name).touch()

    model = load_classifier(checkpoint)
    for name in (WEIGHTS, *ManyFiles.names):
        folder = tmp_path / f"without {name}"
        (folder / name / "in the way").mkdir(parents=True)
        with pytest.raises(OSError):
            save_classifier(model, ManyFiles(), folder)
        assert (folder / name).is_dir() and not (folder / "config.json").exists()


def test_a_first_save_that_fails_leaves_nothing_that_looks_like_a_model(
    saved: tuple[SequenceClassifier, Path], tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="No space left"):
        save_classifier(saved[0], BrokenTokenizer(), tmp_path / "first")
    assert contents(tmp_path / "first") == {}


def test_saving_over_another_model_replaces_it(
    saved: tuple[SequenceClassifier, Path], tokenizer: Tokenizer
) -> None:
    _, folder = saved
    save_checkpoint(folder.parent / "other", vocab_size=30522, num_hidden_layers=1, num_labels=2)
    other = load_classifier(folder.parent / "other")
    save_classifier(other, tokenizer, folder)
    assert_same_parameters(load_classifier(folder), other)
    inputs = {name: tensor[:, :4] for name, tensor in INPUTS.items()}
    ours = load_classifier(folder, kernels="reference")
    assert torch.equal(load_reference(folder)(**inputs).logits, ours(**inputs))


@pytest.mark.fault(10)
def test_saving_over_the_folder_it_was_loaded_from_does_not_disturb_the_model(checkpoint: Path) -> None:
    """Tensors are copied out of the file, which may be replaced at any time."""
    model = load_classifier(checkpoint)
    expected = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    edit(checkpoint, lambda tensors: [tensor.zero_() for tensor in tensors.values()])
    (checkpoint / WEIGHTS).write_bytes(b"\0" * (checkpoint / WEIGHTS).stat().st_size)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, expected[name]), name
    save_classifier(model, NoTokenizer(), checkpoint)
    assert_same_parameters(load_classifier(checkpoint), model)


def test_non_ascii_folders_work(saved: tuple[SequenceClassifier, Path], tmp_path: Path) -> None:
    folder = tmp_path / "modèle 中文 😀"
    save_classifier(saved[0], NoTokenizer(), folder)
    assert_same_parameters(load_classifier(folder), saved[0])
