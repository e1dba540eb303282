"""Whole runs on long texts: what the header says, what evaluate.py and predict.py remember, resume, processes."""

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_loop import NO_DROPOUT, reviews, write_tiny_model
from test_main import read_log, read_results

from minitrain.config.inference_config import EvaluateConfig, PredictConfig
from minitrain.config.long_texts import LongTexts
from minitrain.config.train_config import TrainConfig
from minitrain.data.load import tokenize
from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.errors import MinitrainError
from minitrain.run.evaluate import evaluate_run
from minitrain.run.length_notes import counts_of, length_notes
from minitrain.run.main import train
from minitrain.run.predict import predict_run

FLAGS: dict[str, Any] = {
    **{"long_texts": "windows", "max_length": 10, "stride": 3, "max_windows": 2, "window_pooling": "max"},
    **{"learning_rate": 3e-3, "max_steps": 6, "device": "cpu", "logging_steps": 1},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, and files of reviews of 2 to 20 words."""
    folder = tmp_path_factory.mktemp("long")
    write_tiny_model(folder / "tiny", **NO_DROPOUT)
    for name, seed in (("train", 0), ("eval", 1)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *zip(*reviews(40, seed=seed), strict=True)])
    return folder


def flags_of(place: Path, out: Path, **flags: Any) -> dict[str, Any]:
    files = {"train_file": str(place / "train.csv"), "eval_file": str(place / "eval.csv")}
    return {"model": str(place / "tiny"), **files, "output_dir": str(out), **FLAGS, **flags}


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    """A run with windows and a checkpoint in its middle."""
    out = place / "run"
    train(TrainConfig(**flags_of(place, out, save_strategy="steps", save_steps=3)))
    return out


def word_counts(place: Path, name: str) -> list[int]:
    with (place / f"{name}.csv").open() as file:
        return [len(row["text"].split()) for row in csv.DictReader(file)]


def header_of(place: Path, out: Path, capsys: pytest.CaptureFixture[str], **flags: Any) -> str:
    train(TrainConfig(**flags_of(place, out, max_steps=1, overwrite_output_dir=True, **flags)))
    return capsys.readouterr().out


def test_the_header_says_how_many_texts_are_cut_and_by_how_much(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = word_counts(place, "train") + word_counts(place, "eval")
    cut = [count for count in counts if count > 8]
    none: dict[str, Any] = dict.fromkeys(("stride", "max_windows", "window_pooling"))
    for kind in ("head", "tail", "head_tail"):
        out = header_of(place, tmp_path / "out", capsys, long_texts=kind, **none)
        share = f"{8 * len(cut) / sum(cut):.0%}"
        assert f"\n         {len(cut)} of 80 texts are longer than 10 tokens; {kind} keeps {share} of their" in out
        others = " and ".join(each for each in ("head", "tail", "head_tail") if each != kind)
        assert f"--long_texts {others} read other parts, windows all of it\n" in out
    # Room for 8 tokens, 3 of them shared: 13 in two windows.
    windows = sum(1 if count <= 8 else 2 if count <= 13 else 3 if count <= 18 else 4 for count in counts)
    out = header_of(place, tmp_path / "out", capsys, **{**none, "stride": 3})
    assert f"\n         80 texts are read in {windows} windows of 10 tokens, at most 4 a text\n" in out
    assert "windows a forward pass\n" in out and "longer than 10" not in out and " 0.0% truncated" in out
    out = header_of(place, tmp_path / "out", capsys)
    beyond = [count for count in counts if count > 13]
    share = f"{13 * len(beyond) / sum(beyond):.0%}"
    assert f"{len(beyond)} of 80 texts are longer than 2 windows (--max_windows), which keep {share} of" in out


def test_evaluate_and_predict_read_as_the_run_did(
    place: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = read_results(run)
    assert {name: results["config"][name] for name in FLAGS} == FLAGS
    scored = evaluate_run(EvaluateConfig(run=str(run), output=str(tmp_path / "rows.jsonl")))
    assert scored["eval.csv"].examples == 40
    assert {**scored["eval.csv"].values, "examples": 40} == results["results"]["validation"]
    assert "40 texts are read in" in capsys.readouterr().err
    kept = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    output = tmp_path / "labelled.jsonl"
    predict_run(PredictConfig(run=str(run), input=str(place / "eval.csv"), output=str(output)))
    assert "windows (--max_windows), which keep" in capsys.readouterr().err
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["label"] for row in found] == [row["prediction"] for row in kept] and len(found) == 40
    # To the last digit: the same batches of windows.
    assert [row["probability"] for row in found] == [row["probability"] for row in kept]


def test_other_readings_and_lengths_can_be_asked_for(place: Path, run: Path) -> None:
    def loss(**flags: Any) -> float:
        return evaluate_run(EvaluateConfig(run=str(run), **flags))["eval.csv"].loss

    trained = loss()
    whole = loss(max_length=64)  # every text fits
    assert whole == loss(long_texts="head", max_length=64) and whole != trained
    others = [loss(long_texts=kind) for kind in ("head", "tail", "head_tail")]
    others += [loss(max_windows=9), loss(window_pooling="mean"), loss(stride=0)]
    assert len({trained, *others}) == 7
    with pytest.raises(MinitrainError, match="--stride 3: a window of 5 tokens holds 3 of a text"):
        loss(max_length=5)
    assert loss(max_length=5, stride=1) > 0
    with pytest.raises(MinitrainError, match="--stride 1 is about windows, and --long_texts is tail"):
        loss(long_texts="tail", stride=1)


def test_lines_of_standard_input_are_read_in_windows(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"good\n\n" + b"the " * 30)))
    predict_run(PredictConfig(run=str(run)))
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert "standard input: 3 texts are read in 4 windows of 10 tokens, at most 2 a text\n" in err
    assert "standard input: 1 of 3 texts is longer than 2 windows (--max_windows), which keep 43% of" in err


def test_a_resumed_run_has_the_same_bits_and_other_windows_are_refused(
    place: Path, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(run / "checkpoints" / "step-00000003", out / "checkpoints" / "step-00000003")
    for change in ({"stride": 2}, {"window_pooling": "mean"}, {"max_windows": 3}):
        with pytest.raises(MinitrainError, match=f"{next(iter(change))}: {FLAGS[next(iter(change))]} -> "):
            train(TrainConfig(**flags_of(place, out, resume="newest", **change)))
    train(TrainConfig(**flags_of(place, out, resume="newest")))
    assert (out / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    losses = [[line["loss"] for line in read_log(folder) if line["event"] == "step"] for folder in (out, run)]
    assert losses[0] == losses[1][3:] and len(losses[0]) == 3


def test_a_head_that_is_the_end_by_the_tokenizers_files_is_called_so() -> None:
    tokenizer = load_tokenizer("demo")
    tokenizer.settings["truncation_side"] = "left"
    split = tokenize({"text": ["the " * 20]}, tokenizer, ("text",), max_length=12)
    assert length_notes(counts_of([split]), 12, LongTexts(), tokenizer) == [
        "1 of 1 texts is longer than 12 tokens; head (the end, as the tokenizer's truncation_side says) keeps 50% "
        "of their tokens"
    ]
