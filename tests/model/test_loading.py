"""Checkpoints as people have them: other tasks' heads, leftover keys, prefixes; beside transformers."""

import contextlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity.reference import REFERENCES, Inputs, make_inputs, randomise, save_checkpoint
from safetensors.torch import load_file, save_file
from test_loop import VOCABULARY, write_tiny_model
from test_main import config as run_config
from test_main import named_reviews, write_csv
from torch import Tensor

from minitrain.config.inference_config import PredictConfig
from minitrain.errors import MinitrainError
from minitrain.model.classifier import SequenceClassifier
from minitrain.model.loading import LoadReport
from minitrain.model.weights import load_classifier, load_encoder, trained_labels
from minitrain.run.main import train
from minitrain.run.predict import predict_run

WEIGHTS = "model.safetensors"
OUTPUT = ["head.output.weight", "head.output.bias"]
Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def report_of(folder: Path, num_labels: int | None = None, new_head: bool = False) -> LoadReport:
    return loaded(folder, num_labels, new_head)[1]


def loaded(
    folder: Path, num_labels: int | None = None, new_head: bool = False
) -> tuple[SequenceClassifier, LoadReport]:
    model = load_classifier(folder, num_labels, new_head=new_head, kernels="reference")
    return model, model.load_report


def edit(folder: Path, change: Change) -> Path:
    tensors = {key: tensor.clone() for key, tensor in load_file(folder / WEIGHTS).items()}
    save_file(change(dict(tensors)), folder / WEIGHTS, metadata={"format": "pt"})
    assert load_file(folder / WEIGHTS).keys() != tensors.keys() or any(
        not torch.equal(tensors[key], tensor) for key, tensor in load_file(folder / WEIGHTS).items()
    )
    return folder


def edit_config(folder: Path, drop: tuple[str, ...] = (), **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({key: v for key, v in config.items() if key not in drop}))


def save_task(folder: Path, family: str, task: str, **changes: Any) -> Any:
    """A checkpoint with the head of another task, as transformers saves it; its model."""
    reference = REFERENCES[family]
    kind = getattr(transformers, reference.model.__name__.replace("ForSequenceClassification", task))
    torch.manual_seed(0)
    model = kind(reference.config(**reference.small | changes))
    randomise(model)
    model.save_pretrained(folder)
    return model


def inputs_of(folder: Path, family: str) -> Inputs:
    return make_inputs(REFERENCES[family].config.from_pretrained(folder))


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(MinitrainError) as caught:
        call()
    return str(caught.value)


def follow(message: str, folder: Path) -> None:
    """Run the command that a message names, in the folder of the file."""
    (line,) = re.findall(r"^  (python -c .*)$", message, re.MULTILINE)
    _, _, code = shlex.split(line)
    with contextlib.chdir(folder):
        exec(code, {})


# Heads of other tasks


TASKS = {
    "ForTokenClassification": 5,
    "ForQuestionAnswering": 2,
    "ForMultipleChoice": 2,
    "ForMaskedLM": 2,
}
UNTYPED = {"distilbert", "mpnet", "modernbert"}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", REFERENCES)
def test_an_encoder_with_the_head_of_another_task_is_a_base(family: str, task: str, tmp_path: Path) -> None:
    """Its encoder is kept to the bit, the output is new, as drawn by transformers, and every other key is named."""
    theirs = save_task(tmp_path, family, task, num_labels=TASKS[task])
    report = report_of(tmp_path, 3, new_head=True)
    torch.manual_seed(5)
    model, same = loaded(tmp_path, 3)
    assert same == report
    assert set(OUTPUT) <= set(report.new)
    assert {*report.loaded, *report.ignored} == load_file(tmp_path / WEIGHTS).keys()
    inputs = inputs_of(tmp_path, family)
    taken = {name: value for name, value in inputs.items() if name != "token_type_ids" or family not in UNTYPED}
    with torch.no_grad():
        expected = theirs.base_model.eval()(**taken).last_hidden_state
        assert torch.equal(model.encoder(**inputs), expected)
        assert torch.equal(load_encoder(tmp_path, kernels="reference")(**inputs), expected)
    assert trained_labels(tmp_path) is None
    torch.manual_seed(5)
    drawn = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path, num_labels=3, dtype=torch.float32, ignore_mismatched_sizes=True
    )
    with torch.no_grad():
        assert torch.equal(model(**inputs), drawn.eval()(**taken).logits)


def test_the_head_of_next_sentences_is_a_known_leftover(tmp_path: Path) -> None:
    save_task(tmp_path, "bert", "ForNextSentencePrediction")
    report = report_of(tmp_path)
    assert report.new == OUTPUT and report.unusual == [] and len(report.ignored) == 2


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_a_head_for_names_of_as_many_labels_as_the_data_is_no_classifier(family: str, tmp_path: Path) -> None:
    """Its keys and shapes are those of a classifier's: only the class that saved it tells."""
    save_task(tmp_path, family, "ForTokenClassification", num_labels=2)
    if family == "bert":  # as older versions saved it
        pooler = {"bert.pooler.dense.weight": torch.eye(32), "bert.pooler.dense.bias": torch.zeros(32)}
        edit(tmp_path, lambda tensors: tensors | pooler)
    assert report_of(tmp_path).new == OUTPUT and trained_labels(tmp_path) is None
    edit_config(tmp_path, architectures=[REFERENCES[family].model.__name__])
    assert report_of(tmp_path).new == [] and trained_labels(tmp_path) == ("LABEL_0", "LABEL_1")


@pytest.mark.parametrize("part", ["pooler", "classifier"])
def test_half_a_head_is_none(part: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    edit(tmp_path, lambda tensors: {key: t for key, t in tensors.items() if part not in key})
    report = report_of(tmp_path, 3)
    assert set(OUTPUT) <= set(report.new) and trained_labels(tmp_path) is None


def test_a_head_of_several_labels_a_text_is_a_base_for_classes(tmp_path: Path) -> None:
    several, one = "multi_label_classification", "single_label_classification"
    for own, asked in ((several, one), (one, several)):
        save_checkpoint(tmp_path / own, num_labels=3, problem_type=own)
        said = refused(lambda own=own, asked=asked: load_classifier(tmp_path / own, 3, problem_type=asked))
        assert f"the trained head is of {own}, the data of {asked}: drop the head with --new_head" in said
        report = load_classifier(tmp_path / own, 3, problem_type=asked, new_head=True).load_report
        assert report.new == OUTPUT and report.unusual == ["classifier.bias", "classifier.weight"]
    assert load_classifier(tmp_path / several, 3, problem_type=several).load_report.new == []
    assert load_classifier(tmp_path / several).config.is_multi_label


def test_parts_of_a_head_with_other_sizes_are_new_where_the_head_is(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "roberta")
    edit(tmp_path, lambda tensors: tensors | {
        "classifier.dense.weight": torch.ones(8, 32), "classifier.dense.bias": torch.ones(8),
        "classifier.out_proj.weight": torch.ones(2, 8),
    })  # fmt: skip
    message = refused(lambda: load_classifier(tmp_path))
    assert "'classifier.dense.bias' has shape (8,)" in message and "--new_head" in message
    report = report_of(tmp_path, 4, new_head=True)
    assert report.new == ["head.dense.weight", "head.dense.bias", *OUTPUT] and len(report.unusual) == 4


# Leftover keys


LEFTOVERS: dict[str, Tensor] = {
    "loss_fct.weight": torch.tensor([1.0, 3.0]),
    "criterion.pos_weight": torch.ones(2),
    "class_weights": torch.ones(2),
    "bert.embeddings.position_ids": torch.arange(24)[None],
    "bert.embeddings.token_type_ids": torch.zeros(1, 24, dtype=torch.int64),
    "bert.encoder.layer.1.attention.self.query.total_ops": torch.zeros(1, dtype=torch.float64),
    "total_params": torch.zeros(1, dtype=torch.float64),
    "global_step": torch.tensor([7]),
}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("key", LEFTOVERS)
def test_what_changes_no_output_is_left_out_of_a_trained_classifier(key: str, prefix: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    expected = load_classifier(tmp_path).state_dict()
    edit(tmp_path, lambda tensors: {f"{prefix}{k}": t for k, t in (tensors | {key: LEFTOVERS[key]}).items()})
    model, report = loaded(tmp_path)
    assert report.ignored == [prefix + key] and report.new == []
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("key", ["crf.transitions", "adapter.weight", "encoder.fc.weight", "classifier2.weight"])
def test_a_strangers_key_is_an_error_for_a_trained_head_and_none_for_a_new_one(key: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    edit(tmp_path, lambda tensors: tensors | {key: torch.ones(2)})
    message = refused(lambda: load_classifier(tmp_path))
    assert repr(key) in message and "--new_head ignores it" in message
    report = report_of(tmp_path, new_head=True)
    assert key in report.unusual and report.new == OUTPUT
    load_encoder(tmp_path)
    follow(message, tmp_path)
    assert report_of(tmp_path).ignored == []


@pytest.mark.parametrize("key", ["a$(touch ran)", "b`touch ran`", "c'; touch ran; '", 'd"; touch ran; "', "e\\'\n"])
def test_a_key_of_a_stranger_runs_nothing_in_the_command_that_is_pasted(key: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    edit(tmp_path, lambda tensors: tensors | {key: torch.ones(2)})
    command = refused(lambda: load_classifier(tmp_path)).partition("\n  python -c ")[2]
    subprocess.run(f"{shlex.quote(sys.executable)} -c {command}", shell=True, cwd=tmp_path, check=True, timeout=120)
    assert not (tmp_path / "ran").exists() and report_of(tmp_path).ignored == []


def test_a_long_key_makes_no_long_message(tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    edit(tmp_path, lambda tensors: tensors | {"x" * 100_000: torch.ones(2)})
    assert len(refused(lambda: load_classifier(tmp_path))) < 600


@pytest.mark.parametrize("new_head", [False, True])
@pytest.mark.parametrize(
    "key", ["bert.encoder.layer.2.output.dense.weight", "bert.encoder.layer.0.adapter.up.weight", "bert.gate"]
)
def test_an_unknown_part_of_the_encoder_is_an_error_whatever_the_head(
    key: str, new_head: bool, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path)
    edit(tmp_path, lambda tensors: tensors | {key: torch.ones(2)})
    message = refused(lambda: load_classifier(tmp_path, new_head=new_head))
    assert repr(key) in message and "of the same model" in message
    assert repr(key) in refused(lambda: load_encoder(tmp_path))
    follow(message, tmp_path)
    assert report_of(tmp_path, new_head=new_head).loaded


def test_an_encoder_without_its_own_prefix_is_as_strict(tmp_path: Path) -> None:
    save_checkpoint(tmp_path).bert.save_pretrained(tmp_path)
    edit(tmp_path, lambda tensors: tensors | {"encoder.layer.0.gate": torch.ones(2)})
    assert "'encoder.layer.0.gate'" in refused(lambda: load_classifier(tmp_path, new_head=True))


def test_an_adapter_that_was_not_merged_says_so(tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    edit(
        tmp_path,
        lambda tensors: {
            f"base_model.model.{k.replace('query.', 'query.base_layer.')}": t for k, t in tensors.items()
        },
    )
    assert "merge_and_unload() of peft" in refused(lambda: load_classifier(tmp_path, new_head=True))


# Prefixes


PREFIXES = ["module.", "_orig_mod.", "module._orig_mod.", "base.net."]


@pytest.mark.parametrize(
    ("family", "prefix"), [*(("bert", prefix) for prefix in PREFIXES), *((name, "model.") for name in REFERENCES)]
)
def test_keys_behind_one_prefix_are_the_same_keys(family: str, prefix: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, family)
    expected = load_classifier(tmp_path).state_dict()
    edit(tmp_path, lambda tensors: {prefix + key: tensor for key, tensor in tensors.items()})
    model, report = loaded(tmp_path)
    assert report.prefix == prefix and report.new == report.ignored == []
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert trained_labels(tmp_path) == ("LABEL_0", "LABEL_1")
    encoder = load_encoder(tmp_path).state_dict()
    assert all(torch.equal(tensor, expected[f"encoder.{name}"]) for name, tensor in encoder.items())


@pytest.mark.parametrize("prefix", ["model.", "encoder.", "backbone.bert."])
def test_an_encoder_alone_behind_a_prefix_is_found_beside_anothers_head(prefix: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path).bert.save_pretrained(tmp_path)
    expected = load_encoder(tmp_path).state_dict()
    head = {"classifier.weight": torch.ones(2, 32), "fc.bias": torch.ones(2)}
    edit(tmp_path, lambda tensors: {prefix + key: tensor for key, tensor in tensors.items()} | head)
    model, report = loaded(tmp_path)
    assert report.new == OUTPUT and set(report.unusual) == set(head)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.encoder.state_dict().items())


def test_a_prefix_a_foreign_head_and_old_names_at_once(tmp_path: Path) -> None:
    save_task(tmp_path, "bert", "ForQuestionAnswering")
    expected = load_encoder(tmp_path).state_dict()

    def old(key: str) -> str:
        return "module." + key.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        )

    edit(tmp_path, lambda tensors: {old(key): tensor for key, tensor in tensors.items()})
    model, report = loaded(tmp_path, 4)
    assert report.unusual == ["module.qa_outputs.bias", "module.qa_outputs.weight"] and report.prefix == "module."
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.encoder.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_of_another_family_are_not_taken_for_a_prefix(prefix: str, tmp_path: Path) -> None:
    """A RoBERTa's layers are a BERT's; but a class of one's own may have called its RoBERTa `bert`."""
    save_checkpoint(tmp_path, "roberta").roberta.save_pretrained(tmp_path)
    expected = load_encoder(tmp_path).state_dict()
    edit(tmp_path, lambda tensors: {f"{prefix}bert.{key}": tensor for key, tensor in tensors.items()})
    for call in (load_encoder, load_classifier, trained_labels):
        message = refused(lambda call=call: call(tmp_path))  # type: ignore[misc]
        assert f"stand behind '{prefix}bert.', as a bert's do, and config.json says roberta" in message
    follow(message, tmp_path)
    assert report_of(tmp_path).prefix == prefix
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load_encoder(tmp_path).state_dict().items())


def test_shards_behind_a_prefix_with_a_foreign_head(tmp_path: Path) -> None:
    save_task(tmp_path / "whole", "bert", "ForQuestionAnswering").save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    for shard in shards:
        save_file({f"module.{k}": t.clone() for k, t in load_file(shard).items()}, shard)
    assert report_of(tmp_path, 3).unusual == ["module.qa_outputs.bias", "module.qa_outputs.weight"]


def test_a_missing_part_of_the_encoder_is_named_behind_its_prefix(tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    edit(tmp_path, lambda tensors: {f"module.{k}": t for k, t in tensors.items() if "layer.1.output" not in k})
    for call in (lambda: load_classifier(tmp_path, new_head=True), lambda: load_encoder(tmp_path)):
        message = refused(call)
        assert "lack 4 keys of the encoder (behind 'module.'), the first 'bert.encoder.layer.1.output" in message


def test_two_encoders_are_told_apart_and_one_can_be_kept(tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    expected = load_classifier(tmp_path).state_dict()
    edit(tmp_path, lambda tensors: {f"query.{k}": t + 1 for k, t in tensors.items()} | {
        f"doc.{k}": t for k, t in tensors.items()
    })  # fmt: skip
    for call in (load_classifier, load_encoder, trained_labels):
        message = refused(lambda call=call: call(tmp_path))  # type: ignore[misc]
        assert message.startswith(f"{tmp_path}: the weights hold 2 encoders, behind 'doc.', 'query.'")
    follow(message, tmp_path)
    assert all(torch.equal(t, expected[name]) for name, t in load_classifier(tmp_path).state_dict().items())


@pytest.mark.parametrize("family", ["bert", "roberta", "albert", "distilbert", "deberta-v2", "modernbert"])
def test_embeddings_under_the_decoders_name_are_an_error_whose_command_mends_it(
    family: str, tmp_path: Path
) -> None:
    theirs = save_task(tmp_path, family, "ForMaskedLM")
    words = next(key for key in load_file(tmp_path / WEIGHTS) if re.search(r"(word|tok)_embeddings\.weight$", key))
    decoder = next(key for key in theirs.state_dict() if key.endswith(("decoder.weight", "vocab_projector.weight")))
    edit(
        tmp_path, lambda tensors: {key: t for key, t in tensors.items() if key != words} | {decoder: tensors[words]}
    )
    message = refused(lambda: load_classifier(tmp_path, new_head=True))
    assert f"lack 1 keys of the encoder, the first {words!r}; they hold {decoder!r}" in message
    follow(message, tmp_path)
    model = load_classifier(tmp_path)
    assert torch.equal(model.encoder.word_embeddings.weight, theirs.base_model.get_input_embeddings().weight)


def test_a_parameter_twice_is_an_error_whose_command_mends_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    key = "bert.embeddings.LayerNorm.weight"
    edit(tmp_path, lambda tensors: tensors | {key.replace("weight", "gamma"): tensors[key].clone()})
    follow(refused(lambda: load_classifier(tmp_path)), tmp_path)
    assert report_of(tmp_path).ignored == []


# A whole run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name in ("train", "eval"):
        write_csv(folder / f"{name}.csv", *named_reviews(24, seed=len(name)))
    return folder


def with_task(folder: Path, task: str, **changes: Any) -> Path:
    """The tiny model's tokenizer, with a random BERT of another task."""
    write_tiny_model(folder)
    save_task(folder, "bert", task, **({"vocab_size": len(VOCABULARY), "max_position_embeddings": 64} | changes))
    return folder


def test_a_run_from_a_question_answering_model_names_what_was_ignored_and_what_is_new(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = with_task(tmp_path / "qa", "ForQuestionAnswering")
    results = train(run_config(base, data, tmp_path / "run", max_steps=2))
    new = ["head.pooler.weight", "head.pooler.bias", *OUTPUT]
    assert results["weights"] == {
        "loaded": 37, "prefix": "", "ignored": ["qa_outputs.bias", "qa_outputs.weight"], "new": new,
    }  # fmt: skip
    assert json.loads((tmp_path / "run" / "results.json").read_text())["weights"] == results["weights"]
    line = f"37 loaded, 2 ignored (qa_outputs.bias, qa_outputs.weight), 4 new ({', '.join(new)})"
    assert f"weights  {base}: {line}" in capsys.readouterr().out.splitlines()
    assert trained_labels(tmp_path / "run") == ("awful", "lovely")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    assert theirs.config.architectures == ["BertForSequenceClassification"]


def test_a_run_goes_on_from_a_wrapped_classifier(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = with_task(tmp_path / "base", "ForSequenceClassification")
    edit(base, lambda tensors: {f"_orig_mod.{key}": tensor for key, tensor in tensors.items()})
    results = train(run_config(base, data, tmp_path / "run", max_steps=2))
    assert results["weights"]["prefix"] == "_orig_mod." and results["weights"]["new"] == []
    assert "41 loaded from behind '_orig_mod.', 0 ignored, none new" in capsys.readouterr().out


def test_a_head_for_names_predicts_nothing(tmp_path: Path) -> None:
    base = with_task(tmp_path / "ner", "ForTokenClassification", num_labels=5)
    (tmp_path / "texts.txt").write_text("a film\n")
    message = refused(lambda: predict_run(PredictConfig(run=str(base), input=str(tmp_path / "texts.txt"))))
    assert "holds no trained head" in message


def test_two_classes_of_one_name_stay_two(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, num_labels=3)
    edit_config(tmp_path, id2label={"0": "a", "1": "b", "2": "a"})
    model = load_classifier(tmp_path)
    assert model.config.label_names == trained_labels(tmp_path) == ("a", "b", "a") and model.config.num_labels == 3


# What a report says


def test_many_names_are_shortened() -> None:
    names = [f"layer.{i}.weight" for i in range(300)]
    report = LoadReport(loaded=["a"], ignored=names, unusual=names[:150], new=[])
    facts = report.facts()
    assert facts["ignored"] == [*names[:99], "and 201 more"] and facts["loaded"] == 1
    assert report.line() == f"1 loaded, 300 ignored (among them {', '.join(names[:5])}, and 145 more), none new"


def test_known_leftovers_are_counted_alone() -> None:
    report = LoadReport(loaded=["a"], ignored=["cls.predictions.bias"], new=OUTPUT)
    assert report.line() == "1 loaded, 1 ignored, 2 new (head.output.weight, head.output.bias)"
