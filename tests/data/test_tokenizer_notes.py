"""What a run says of its tokenizer: notes and the share of unknown tokens, once, where it is seen."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import reviews, write_tiny_model
from transformers import AutoTokenizer, DataCollatorWithPadding

from minitrain.config.inference_config import EvaluateConfig, PredictConfig
from minitrain.config.train_config import TrainConfig
from minitrain.data.batch import collate
from minitrain.data.dataset import Split
from minitrain.data.load import tokenize
from minitrain.data.tables.table import Table
from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.model.weights import load_classifier
from minitrain.run.evaluate import evaluate_run
from minitrain.run.main import train
from minitrain.run.predict import predict_run
from minitrain.training.evaluation import predict


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


def with_config(tiny: Path, folder: Path, **config: Any) -> Path:
    """The model, its tokenizer_config.json changed."""
    shutil.copytree(tiny, folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def write_data(path: Path, extra: str = "", count: int = 24, seed: int = 0) -> Path:
    texts, labels = reviews(count, seed=seed)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *zip([text + extra for text in texts], labels, strict=True)])
    return path


def trained(model: Path, data: Path, out: Path, eval_file: Path | None = None) -> Path:
    train(
        TrainConfig(
            model=str(model),
            train_file=str(data),
            eval_file=str(eval_file or data),
            output_dir=str(out),
            device="cpu",
            max_steps=2,
        )
    )
    return out


def test_notes_stand_in_the_header_once_and_on_standard_error_of_what_follows(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = with_config(tiny, tmp_path / "model", padding_side="left", mask_token="<new>")
    config = json.loads((model / "config.json").read_text())
    names = len(AutoTokenizer.from_pretrained(str(tiny)).get_vocab())
    assert config["vocab_size"] == names  # no room for another
    data = write_data(tmp_path / "data.csv")
    out = trained(model, data, tmp_path / "run")
    header, errors = capsys.readouterr()
    assert header.count("rows are padded on the left") == 1 and errors == ""
    assert header.count("         '<new>' (mask_token) is not in the vocabulary, and the model has no") == 1
    assert header.index("padded on the left") < header.index("labels   ")
    (tmp_path / "texts.txt").write_text("fine\nnot so fine\n")
    predict_run(PredictConfig(run=str(out), input=str(tmp_path / "texts.txt"), output=str(tmp_path / "p.jsonl")))
    said, errors = capsys.readouterr()
    assert said == "" and errors.count(f"{out}: rows are padded on the left") == 1 and "<new>" not in errors
    evaluate_run(EvaluateConfig(run=str(out), device="cpu"))
    said, errors = capsys.readouterr()
    assert "padded" not in said and errors.count(f"{out}: rows are padded on the left") == 1


def test_a_run_without_anything_to_remark_says_nothing(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path / "data.csv")
    out = trained(tiny, data, tmp_path / "run", write_data(tmp_path / "eval.csv", seed=1))
    header = capsys.readouterr().out
    lines = header.splitlines()
    assert lines[1].startswith("data ") and lines[2].startswith("labels ")
    assert load_tokenizer(tiny).notes == ()
    unknown = re.findall(r"truncated, (\d+\.\d)% unknown;", header)
    assert unknown == ["0.0"] and "unknown to the tokenizer" not in header
    evaluate_run(EvaluateConfig(run=str(out), device="cpu"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("extra", [" ☃", " ☃" * 30], ids=["one a row", "half of each row"])
def test_the_share_of_unknown_tokens_is_shown_and_above_one_percent_warned_of(
    extra: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the header over all splits, and on standard error of predict.py and evaluate.py."""
    data = write_data(tmp_path / "data.csv", extra)
    theirs = AutoTokenizer.from_pretrained(str(tiny))
    texts = [text + extra for text in reviews(24)[0]]
    limit = json.loads((tiny / "config.json").read_text())["max_position_embeddings"]
    ids = theirs(texts, truncation=True, max_length=limit)["input_ids"]
    share = sum(row.count(theirs.unk_token_id) for row in ids) / sum(len(row) - 2 for row in ids)
    assert share > 0.01
    out = trained(tiny, data, tmp_path / "run")
    header = capsys.readouterr().out
    assert f" truncated, {share:.1%} unknown; " in header
    warning = f"{share:.1%} of the tokens in train, {share:.1%} of the tokens in validation are unknown to the"
    assert header.count(f"         {warning} tokenizer") == 1
    evaluate_run(EvaluateConfig(run=str(out), device="cpu"))
    assert f"{share:.1%} of the tokens in {data} are unknown to the tokenizer" in capsys.readouterr().err
    (tmp_path / "texts.txt").write_text("☃\n")
    predict_run(PredictConfig(run=str(out), input=str(tmp_path / "texts.txt"), output=str(tmp_path / "p.jsonl")))
    said = f"100.0% of the tokens in {tmp_path / 'texts.txt'} are unknown to the tokenizer"
    assert capsys.readouterr().err.startswith(f"{out}: {said}")


def test_one_split_of_many_unknown_tokens_is_enough_for_a_warning(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_file, eval_file = write_data(tmp_path / "a.csv", count=300), write_data(tmp_path / "b.csv", " ☃", count=2)
    trained(tiny, train_file, tmp_path / "run", eval_file)
    header = capsys.readouterr().out
    (share,) = re.findall(r"truncated, (\d+\.\d)% unknown;", header)
    assert float(share) <= 1.0
    assert re.findall(r"% of the tokens in (\w+) are unknown", header) == ["validation"]


def split_of(model: Path, texts: list[str]) -> Split:
    table = Table(source="texts", columns={"text": texts}, class_names={}, untyped=True)
    return tokenize(table, load_tokenizer(model), ("text",))


def test_a_split_knows_how_its_tokenizer_pads(tiny: Path, tmp_path: Path) -> None:
    """So that whoever predicts pads as the reference's collator does, without being told."""
    model = with_config(tiny, tmp_path / "model", padding_side="left", pad_token="[MASK]")
    texts = ["fine", "not so fine at all", "a b"]
    split = split_of(model, texts)
    theirs = AutoTokenizer.from_pretrained(str(model))
    expected = DataCollatorWithPadding(theirs)([theirs(text) for text in texts])
    assert (split.pad_token_id, split.padding_side) == (theirs.pad_token_id, "left") != (0, "left")
    batch = collate([split[row] for row in range(3)], split.pad_token_id, padding_side=split.padding_side)
    for name, tensor in batch.inputs.items():
        assert torch.equal(tensor, expected[name]), name
    classifier = load_classifier(model, kernels="reference").eval()
    with torch.no_grad():
        logits = classifier(**batch.inputs)
    assert torch.equal(predict(classifier, split, batch_size=3, order="rows"), logits)
    right = split_of(with_config(tiny, tmp_path / "right", pad_token="[MASK]"), texts)
    assert not torch.equal(predict(classifier, right, batch_size=3, order="rows"), logits)
    other = predict(classifier, split, batch_size=3, order="rows", pad_token_id=0)
    assert torch.allclose(other, logits, atol=1) and not torch.equal(other, logits)
