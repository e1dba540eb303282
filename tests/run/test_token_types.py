"""Pairs of texts with models that tell fewer token types apart than the tokenizer gives."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.reference import REFERENCES, save_checkpoint
from test_loop import VOCABULARY
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from minitrain.config.inference_config import EvaluateConfig, PredictConfig
from minitrain.config.train_config import TrainConfig
from minitrain.data.batch import collate
from minitrain.data.dataset import Splits
from minitrain.data.load import load_splits
from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.errors import MinitrainError
from minitrain.model.weights import load_classifier
from minitrain.run.evaluate import evaluate_run
from minitrain.run.main import train
from minitrain.run.predict import predict_run
from minitrain.training.evaluation import check_token_types, predict
from minitrain.training.loop import fit

UNTYPED = ("distilbert", "mpnet", "modernbert")  # families without embeddings of types
NO_TYPES = '"model_input_names": ["input_ids", "attention_mask"]'  # as the message writes it


def save_model(folder: Path, family: str = "roberta", **config: Any) -> Path:
    """A random classifier with BERT's tokenizer, which gives the second text of a pair the type 1."""
    sizes = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 40, "pad_token_id": 0}
    if family == "mpnet":
        del sizes["pad_token_id"]  # it is always 1 there
    save_checkpoint(folder, family, **(sizes | config))
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCABULARY), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}', encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = [{"a": "good film", "b": "a bad film", "label": i % 2} for i in range(12)]
    for name in ("train", "eval"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "pairs.txt").write_text("good film\ta bad film\n")
    (folder / "texts.txt").write_text("good film\n")
    return folder


def flags(model: Path, data: Path, out: Path, **changes: Any) -> TrainConfig:
    options: dict[str, Any] = {
        "model": str(model),
        "train_file": str(data / "train.jsonl"),
        "eval_file": str(data / "eval.jsonl"),
        "text_columns": ("a", "b"),
        "output_dir": str(out),
        "max_steps": 1,
    }
    return TrainConfig(**(options | changes))


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(MinitrainError) as caught:
        call()
    message = str(caught.value)
    assert "token types up to 1" in message and "type_vocab_size" in message and NO_TYPES in message
    return message


def pairs(model: Path, data: Path) -> Splits:
    return load_splits(
        train_file=str(data / "train.jsonl"), eval_file=str(data / "eval.jsonl"), text_columns=("a", "b"),
        tokenizer=load_tokenizer(model), max_length=20,
    )  # fmt: skip


def test_pairs_are_refused_before_the_first_step_and_nothing_is_written(data: Path, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", type_vocab_size=1)
    message = refused(lambda: train(flags(model, data, tmp_path / "out")))
    assert message.startswith(f"{model}: ") and not (tmp_path / "out").exists()


@pytest.mark.parametrize("kernels", ["fast", "reference"])
def test_evaluate_and_predict_refuse_pairs_too(kernels: str, data: Path, tmp_path: Path) -> None:
    run = save_model(tmp_path / "run", type_vocab_size=1)
    options: dict[str, Any] = {"run": str(run), "kernels": kernels}
    columns, rows, output = ("a", "b"), str(data / "eval.jsonl"), str(tmp_path / "out.jsonl")
    refused(lambda: evaluate_run(EvaluateConfig(eval_file=rows, text_columns=columns, **options)))
    refused(lambda: predict_run(PredictConfig(input=rows, output=output, text_columns=columns, **options)))
    refused(lambda: predict_run(PredictConfig(input=str(data / "pairs.txt"), output=output, **options)))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    predict_run(PredictConfig(input=str(data / "texts.txt"), output=output, run=str(run)))
    assert len(Path(output).read_text().splitlines()) == 1


def test_functions_of_python_refuse_pairs_too(data: Path, tmp_path: Path) -> None:
    folder = save_model(tmp_path, type_vocab_size=1)
    splits, model = pairs(folder, data), load_classifier(folder)
    config = flags(folder, data, tmp_path / "out")
    refused(lambda: predict(model, splits.train))
    refused(lambda: fit(model, splits.train, splits.evaluation, config))
    for kernels in ("fast", "reference"):
        model = load_classifier(folder, kernels=kernels).train()
        batch = collate([splits.train[0], splits.train[1]])
        refused(lambda model=model, batch=batch: model(**batch.inputs))  # type: ignore[misc]


def test_a_token_id_beyond_the_vocabulary_says_so_in_a_loop_of_ones_own(tmp_path: Path) -> None:
    model = load_classifier(save_model(tmp_path, "bert"))
    highest = len(VOCABULARY) - 1
    with pytest.raises(MinitrainError, match=f"has the token id {highest + 9}, .* ids up to {highest}"):
        model(torch.tensor([[1, highest + 9]]))
    with pytest.raises(IndexError, match="token ids from -3"):
        model(torch.tensor([[1, -3]]))


def test_the_way_out_that_is_named_trains_and_is_heeded_by_transformers(data: Path, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", type_vocab_size=1)
    path = model / "tokenizer_config.json"
    path.write_text("{" + NO_TYPES + ", " + path.read_text()[1:])
    run = tmp_path / "run"
    train(flags(model, data, run))
    predict_run(PredictConfig(run=str(run), input=str(data / "pairs.txt"), output=str(tmp_path / "out.jsonl")))
    tokenizer = AutoTokenizer.from_pretrained(run)
    encoded = tokenizer("good film", "a bad film", return_tensors="pt")
    assert set(encoded) == {"input_ids", "attention_mask"}
    theirs = AutoModelForSequenceClassification.from_pretrained(run).eval()
    record = json.loads((tmp_path / "out.jsonl").read_text())
    with torch.no_grad():
        expected = theirs(**encoded).logits.softmax(-1)[0]
    assert (torch.tensor(list(record["probabilities"].values())) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("types", [1, 2, 3])
@pytest.mark.parametrize("family", REFERENCES)
def test_every_family_takes_pairs_or_refuses_them_as_its_reference_does(
    family: str, types: int, data: Path, tmp_path: Path
) -> None:
    folder = save_model(tmp_path, family, **({} if family in UNTYPED else {"type_vocab_size": types}))
    if family in UNTYPED:  # what they do not read may say anything
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"type_vocab_size": types}))
    splits = pairs_by_bert(folder, data)
    assert splits.train.highest_type_id == 1
    model, theirs = load_classifier(folder), AutoModelForSequenceClassification.from_pretrained(folder)
    batch = collate([splits.train[0]]).inputs
    if family in UNTYPED:
        del batch["token_type_ids"]
    if family in UNTYPED or types > 1:
        check_token_types(model.config, splits.train)
        with torch.no_grad():
            expected = theirs.eval()(**batch).logits
        assert (predict(model, splits.train)[:1] - expected).abs().max() < 1e-5
        return
    refused(lambda: check_token_types(model.config, splits.train))
    with pytest.raises(IndexError):
        theirs(**batch)


def pairs_by_bert(folder: Path, data: Path) -> Splits:
    """Tokenized as BERT's are, whatever the family's own tokenizer."""
    own = folder / "tokenizer"
    own.mkdir()
    for name in ("vocab.txt", "tokenizer_config.json"):
        (own / name).write_bytes((folder / name).read_bytes())
    return pairs(own, data)


def test_deberta_without_types_reads_none(data: Path, tmp_path: Path) -> None:
    folder = save_model(tmp_path, "deberta-v2", type_vocab_size=0)
    splits = pairs_by_bert(folder, data)
    check_token_types(load_classifier(folder).config, splits.train)
    assert predict(load_classifier(folder), splits.train).isfinite().all()


@pytest.mark.parametrize("value", [0, -1])
def test_no_types_where_a_family_needs_some_is_an_error(value: int, tmp_path: Path) -> None:
    folder = save_model(tmp_path, "bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"type_vocab_size": value}))
    with pytest.raises(MinitrainError, match="'type_vocab_size' is .*; expected an integer from 1"):
        load_classifier(folder)


def test_single_texts_have_one_type(data: Path, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", type_vocab_size=1)
    results = train(flags(model, data, tmp_path / "out", text_columns=("a",)))
    assert results["steps"] == 1


def test_a_pair_in_one_split_alone_is_found(data: Path, tmp_path: Path) -> None:
    folder = save_model(tmp_path, type_vocab_size=1)
    model, splits = load_classifier(folder), pairs(folder, data)
    single = load_splits(
        train_file=str(data / "train.jsonl"), text_columns=("a",), tokenizer=load_tokenizer(folder), max_length=20
    )
    refused(lambda: fit(model, single.train, splits.evaluation, flags(folder, data, tmp_path / "out")))
