"""A whole run on own files: what the saved folder holds, and that a run which cannot succeed does no harm."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard, ModelCardData
from test_loop import BAD, VOCABULARY, reviews, split_of

from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.model.weights import load_classifier
from minitrain.run.main import train
from minitrain.run.prepare import prepare
from minitrain.run.run_folder import output_directory
from minitrain.run.summary import header, slow_bf16
from minitrain.training.evaluation import evaluate
from minitrain.training.metrics import metric_for

NAMES = ("awful", "lovely", "so-so")
SAVED = {
    "README.md",
    "config.json",
    "log.jsonl",
    "model.safetensors",
    "predictions.jsonl",
    "results.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
}


def write_csv(path: Path, texts: list[str], labels: list[Any], header: tuple[str, str] = ("text", "label")) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *zip(texts, labels, strict=True)])
    return path


def named_reviews(count: int, seed: int = 0, classes: int = 2) -> tuple[list[str], list[str]]:
    texts, labels = reviews(count, seed, classes)
    return texts, [NAMES[label] for label in labels]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_csv(folder / "train.csv", *named_reviews(65))  # 33 awful, 32 lovely
    write_csv(folder / "eval.csv", *named_reviews(21, seed=1))
    write_csv(folder / "test.csv", *named_reviews(19, seed=2))
    return folder


def config(model_folder: Path, data: Path, out: Path, **flags: Any) -> TrainConfig:
    files: dict[str, Any] = {
        "model": str(model_folder),
        "train_file": str(data / "train.csv"),
        "eval_file": str(data / "eval.csv"),
        "output_dir": str(out),
        "learning_rate": 3e-3,
    }
    return TrainConfig(**(files | flags))


@pytest.fixture(scope="module")
def finished(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run of four epochs, and what `train` returned."""
    out = tmp_path_factory.mktemp("runs") / "a-run"
    flags = {"num_train_epochs": 4, "test_file": str(data / "test.csv"), "load_best_model_at_end": True}
    return out, train(config(model, data, out, **flags))


def strict_json(text: str) -> Any:
    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=no_constant)


def read_results(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = strict_json((folder / "results.json").read_text(encoding="utf-8"))
    return results


def read_log(folder: Path) -> list[dict[str, Any]]:
    log = folder / "log.jsonl" if folder.is_dir() else folder
    return [strict_json(line) for line in log.read_text(encoding="utf-8").splitlines()]


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_folder_holds_all_that_a_run_owes(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    assert {path.name for path in folder.iterdir()} == SAVED
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666 & ~umask()}


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_results_say_what_was_done(finished: tuple[Path, dict[str, Any]], model: Path, data: Path) -> None:
    folder, returned = finished
    results = read_results(folder)
    assert results == json.loads(json.dumps(returned))
    assert list(results) == [
        "model",
        "model_commit",
        "dataset",
        "dataset_commit",
        "subset",
        "task",
        "text_columns",
        "join",
        "label_column",
        "held_out",
        "labels",
        "weights",
        "parameters",
        "positive_label",
        "class_weights",
        "loss_function",
        "numbers_are_ids",
        "data",
        "max_length",
        "targets",
        "steps",
        "epochs",
        "global_batch",
        "best",
        "saved",
        "baseline",
        "results",
        "intervals",
        "label_scores",
        "config",
        "hardware",
        "versions",
        "training_seconds",
        "total_seconds",
        "peak_memory_mb",
    ]
    assert (results["model"], results["dataset"]) == (str(model), str(data / "train.csv"))
    assert results["labels"] == ["awful", "lovely"]
    assert (results["text_columns"], results["label_column"], results["max_length"]) == (["text"], "label", 64)
    assert (results["steps"], results["epochs"]) == (36, 4.0)
    assert 0 < results["training_seconds"] < results["total_seconds"]
    assert results["versions"]["torch"] == torch.__version__
    assert results["config"]["learning_rate"] == 3e-3
    assert set(results["results"]) == {"validation", "test"}
    assert set(results["results"]["test"]) == {"examples", "loss", "accuracy", "f1"}


def test_baseline_is_the_accuracy_of_the_majority_class(finished: tuple[Path, dict[str, Any]]) -> None:
    # The commonest class of the training rows is the first; of 21 and 19 rows 11 and 10 are of it.
    assert read_results(finished[0])["baseline"] == {"validation": 11 / 21, "test": 10 / 19}


def test_final_numbers_are_those_of_the_saved_model(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    texts, labels = reviews(21, seed=1)
    again = evaluate(load_classifier(folder), split_of(folder, texts, labels), metric_for(None, 2))
    assert read_results(folder)["results"]["validation"] == {"examples": 21, **again.values}
    assert again.metrics["accuracy"] > 0.9  # it learned, so that the numbers mean something


def test_saved_weights_are_the_best_ones(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    results = read_results(folder)
    evaluations = [record for record in read_log(folder) if record["event"] == "evaluation"]
    accuracies = [record["accuracy"] for record in evaluations]
    best = evaluations[accuracies.index(max(accuracies))]
    assert results["saved"] == "best"
    assert results["best"] == {"step": best["step"], "epoch": best["epoch"], "accuracy": max(accuracies)}
    assert results["results"]["validation"]["accuracy"] == max(accuracies)


def test_test_data_is_scored_once_and_chooses_nothing(finished: tuple[Path, dict[str, Any]]) -> None:
    records = read_log(finished[0])
    assert {record["split"] for record in records if record["event"] == "evaluation"} == {"validation"}
    assert [record["step"] for record in records if record["event"] == "evaluation"] == [9, 18, 27, 36]
    assert [record["step"] for record in records if record["event"] == "step"] == list(range(1, 37))


def test_card_has_the_results_as_the_hub_reads_them(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    card = ModelCard.load(folder / "README.md")
    assert isinstance(card.data, ModelCardData) and card.data.eval_results is not None
    found = {(r.dataset_split, r.metric_type): r.metric_value for r in card.data.eval_results}
    expected = read_results(folder)["results"]
    assert found == {
        (split, name): expected[split][name] for split in ("validation", "test") for name in ("accuracy", "f1")
    }


def test_console_tells_data_plan_and_outcome(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = train(config(model, data, tmp_path / "run", max_steps=9, warmup_steps=0.3))
    out = capsys.readouterr().out
    for part in (
        "data     train 65, validation 21\n",
        "labels   awful 33, lovely 32; majority 50.8%",
        "0.0% truncated",
        "39 loaded, 0 ignored, 2 new (head.output.weight, head.output.bias)",
        "plan     9 steps of 8 examples, 9 an epoch, 3 of warm-up; seed 42",
        "step     9/9  epoch 1.00",
        f"always the majority class: {11 / 21:.4f}",
        f"saved to {tmp_path / 'run'}",
        f"printf 'a text' | python scripts/predict.py {tmp_path / 'run'}",
        f"best accuracy {results['best']['accuracy']:.4f} at epoch 1.00; that is saved",
    ):
        assert part in out, f"{part!r} is missing from\n{out}"


def test_run_is_not_replaced_unless_it_is_said(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(config(model, data, out, max_steps=1))
    before = files_of(out)
    with pytest.raises(MinitrainError, match=r"run: holds a run already \(.*--overwrite_output_dir"):
        train(config(model, data, out, max_steps=2))
    assert files_of(out) == before
    train(config(model, data, out, max_steps=2, overwrite_output_dir=True))
    assert set(files_of(out)) == SAVED
    assert read_results(out)["steps"] == 2
    assert files_of(out)["model.safetensors"] != before["model.safetensors"]


def test_other_files_in_the_folder_are_left_alone(model: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    train(config(model, data, tmp_path, max_steps=1))
    train(config(model, data, tmp_path, max_steps=1, overwrite_output_dir=True))
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


BROKEN: dict[str, dict[str, Any]] = {
    "a column that is not there": {"text_columns": ("review",)},
    "a file that is not there": {"train_file": "/nowhere/train.csv"},
    "a length the model has not": {"max_length": 65},
    "a length without room": {"max_length": 2},
    "no model": {"model": "/nowhere/at/all"},
    "no such metric": {"metric_for_best_model": "bleu"},
}


@pytest.mark.parametrize("fault", BROKEN)
def test_run_that_cannot_start_leaves_the_old_one_as_it_was(
    finished: tuple[Path, dict[str, Any]], model: Path, data: Path, tmp_path: Path, fault: str
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    before = files_of(out)
    with pytest.raises(MinitrainError):
        train(config(model, data, out, overwrite_output_dir=True, **BROKEN[fault]))
    assert files_of(out) == before


def test_bad_label_leaves_the_old_run_as_it_was(
    finished: tuple[Path, dict[str, Any]], model: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    before = files_of(out)
    bad = write_csv(tmp_path / "bad.csv", ["the film", "a plot", "good"], ["awful", "lovely", "meh"])
    with pytest.raises(MinitrainError, match=r"bad\.csv, row 3, column 'label': the label is 'meh'"):
        train(config(model, data, out, eval_file=str(bad), overwrite_output_dir=True))
    assert files_of(out) == before


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, to whom every folder is writable."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.fault(6)
@pytest.mark.parametrize("mode", [0o555, 0o700])
def test_folder_that_cannot_be_written_fails_before_anything_else(tmp_path: Path, data: Path, mode: int) -> None:
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)  # pytest makes them for their owner alone
    locked = tmp_path / "locked"
    locked.mkdir()
    if os.geteuid() != 0:
        mode &= ~0o300
    locked.chmod(mode)
    try:
        with as_nobody():
            with pytest.raises(PermissionError):
                (locked / "probe").touch()  # the fault is there
            # Looking for this model would fail too, with another message.
            with pytest.raises(
                MinitrainError, match=r"--output_dir .*run: cannot be written \(Permission denied\)"
            ):
                train(config(Path("/nowhere/at/all"), data, locked / "run"))
    finally:
        locked.chmod(0o755)
    assert list(locked.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/run", "file/deeper/run"])
def test_file_where_the_folder_should_be_fails_before_anything_else(tmp_path: Path, data: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(
        MinitrainError, match=r"--output_dir .*: cannot be written \((File exists|Not a directory)\)"
    ):
        train(config(Path("/nowhere/at/all"), data, tmp_path / name))
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


@pytest.mark.fault(47)
def test_tokenizer_with_ids_beyond_the_model_is_refused(model: Path, data: Path, tmp_path: Path) -> None:
    longer = tmp_path / "longer"
    shutil.copytree(model, longer)
    with (longer / "vocab.txt").open("a", encoding="utf-8") as vocabulary:
        vocabulary.write("unheard\n")
    last = len(VOCABULARY) - 1
    with pytest.raises(MinitrainError, match=f"highest id is {last + 1}, but .* embeddings for ids up to {last}"):
        train(config(longer, data, tmp_path / "run"))


def test_no_evaluation_data_is_answered_with_the_ways_out(model: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(MinitrainError, match="--eval_file, or --eval_fraction 0.1 .* or --eval_strategy no"):
        train(config(model, data, tmp_path / "run", eval_file=None))
    results = train(config(model, data, tmp_path / "run", eval_file=None, eval_strategy="no", max_steps=1))
    assert results["results"] == {} and results["best"]["accuracy"] is None
    assert set(files_of(tmp_path / "run")) == SAVED - {"predictions.jsonl"}


def test_share_of_the_training_data_can_be_held_back(model: Path, data: Path, tmp_path: Path) -> None:
    flags: dict[str, Any] = {"eval_file": None, "eval_fraction": 0.2, "num_train_epochs": 1}
    results = train(config(model, data, tmp_path / "run", **flags))
    assert results["results"]["validation"]["examples"] == 13
    assert results["steps"] == 7  # 52 rows by 8
    again = train(config(model, data, tmp_path / "again", **flags))
    assert again["results"] == results["results"]


def write_rows(path: Path, texts: list[str], labels: list[Any]) -> None:
    if path.suffix == ".jsonl":
        lines = [json.dumps({"text": t, "label": n}) + "\n" for t, n in zip(texts, labels, strict=True)]
        path.write_text("".join(lines), encoding="utf-8")
    elif path.suffix == ".parquet":
        import datasets

        datasets.Dataset.from_dict({"text": texts, "label": labels}).to_parquet(str(path))
    else:
        write_csv(path, texts, labels)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_kind_of_file_does_not_matter(model: Path, data: Path, tmp_path: Path, kind: str) -> None:
    write_rows(tmp_path / f"train.{kind}", *named_reviews(65))
    write_rows(tmp_path / f"eval.{kind}", *named_reviews(21, seed=1))
    files = {"train_file": str(tmp_path / f"train.{kind}"), "eval_file": str(tmp_path / f"eval.{kind}")}
    ours = train(config(model, data, tmp_path / "run", max_steps=3, **files))
    plain = train(config(model, data, tmp_path / "csv", max_steps=3))
    assert ours["labels"] == plain["labels"] == ("awful", "lovely")
    assert ours["results"] == plain["results"]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("run", "csv")]
    assert weights[0] == weights[1]


def test_scores_are_learned_as_regression(model: Path, tmp_path: Path) -> None:
    for name, count, seed in (("train", 64, 0), ("eval", 21, 1)):
        texts, labels = reviews(count, seed)
        write_csv(tmp_path / f"{name}.csv", texts, [4 * label + 0.5 for label in labels])
    results = train(config(model, tmp_path, tmp_path / "run", num_train_epochs=8))
    assert results["labels"] is None and set(results["baseline"]["validation"]) == {"rmse", "mae"}
    assert set(results["results"]["validation"]) == {
        "examples",
        "loss",
        "pearson",
        "spearmanr",
        "mse",
        "rmse",
        "mae",
        "r2",
    }
    assert results["results"]["validation"]["mse"] < 2.0  # a constant would have 4, the variance
    saved = json.loads((tmp_path / "run/config.json").read_text(encoding="utf-8"))
    assert saved["problem_type"] == "regression" and len(saved["id2label"]) == 1


def test_smoothing_of_scores_is_refused(model: Path, tmp_path: Path) -> None:
    texts, labels = reviews(30)
    write_csv(tmp_path / "train.csv", texts, [label + 0.5 for label in labels])
    write_csv(tmp_path / "eval.csv", texts, [label + 0.5 for label in labels])
    with pytest.raises(
        MinitrainError, match=r"--label_smoothing_factor 0\.1 is about classes, but these labels are scores"
    ):
        train(config(model, tmp_path, tmp_path / "run", label_smoothing_factor=0.1))


def test_what_is_printed_before_the_first_step_moves_no_random_number(
    model: Path, data: Path, tmp_path: Path
) -> None:
    """The order of `--sampler global_rng`, and dropout after it, come from the stream as the head left it."""
    run = prepare(config(model, data, tmp_path / "run", match_accelerate=True))
    before = torch.get_rng_state()
    lines = header(run)
    assert any("padding (global_rng sampler)" in line for line in lines)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("max_length", "warns"), [(4, True), (64, False)])
def test_texts_whose_end_is_not_read_are_named_where_they_are_many(
    model: Path, data: Path, tmp_path: Path, max_length: int, warns: bool
) -> None:
    run = prepare(config(model, data, tmp_path / "run", max_length=max_length))
    lines = header(run)
    assert (
        any(re.search(r"^ +\d+ of 86 texts are longer than 4 tokens; head keeps \d+% of", line) for line in lines)
        == warns
    )
    assert any("the model does not read the rest: --long_texts tail and" in line for line in lines) == warns


@pytest.mark.parametrize(
    ("asked", "has_it", "device", "warns"),
    [
        (True, False, "cpu", True),
        (True, True, "cpu", False),
        (False, False, "cpu", False),
        (True, False, "cuda", False),
    ],
)
def test_a_processor_that_emulates_bfloat16_is_named_before_the_first_step(
    model: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: bool,
    has_it: bool,
    device: str,
    warns: bool,
) -> None:
    monkeypatch.setattr("minitrain.run.summary.onednn_supports", lambda dtype: has_it)
    lines = slow_bf16(config(model, data, tmp_path / "run", bf16=asked), torch.device(device))
    assert any("emulates it, far slower than fp32: leave out --bf16" in line for line in lines) == warns


def test_three_classes_are_learned(model: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", *named_reviews(96, classes=3))
    write_csv(tmp_path / "eval.csv", *named_reviews(30, seed=1, classes=3))
    results = train(config(model, tmp_path, tmp_path / "run", num_train_epochs=6))
    assert results["labels"] == NAMES
    assert set(results["results"]["validation"]) == {"examples", "loss", "accuracy", "macro_f1"}
    assert results["results"]["validation"]["accuracy"] > 0.8
    saved = json.loads((tmp_path / "run/config.json").read_text(encoding="utf-8"))
    assert saved["id2label"] == {str(i): name for i, name in enumerate(NAMES)}


def test_pairs_of_texts_are_trained_on(model: Path, tmp_path: Path) -> None:
    texts, labels = reviews(64)
    for name in ("train.jsonl", "eval.jsonl"):
        rows = [{"b": "the film", "a": text, "label": label} for text, label in zip(texts, labels, strict=True)]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    files = {"train_file": str(tmp_path / "train.jsonl"), "eval_file": str(tmp_path / "eval.jsonl")}
    results = train(config(model, tmp_path, tmp_path / "run", text_columns=("a", "b"), max_steps=1, **files))
    assert results["text_columns"] == ["a", "b"]


def test_dropout_of_the_command_line_reaches_the_model(model: Path, data: Path, tmp_path: Path) -> None:
    flags = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.3, "classifier_dropout": 0.7}
    for name, given in (("own", flags), ("again", flags), ("checkpoint", {})):
        train(config(model, data, tmp_path / name, max_steps=2, **given))
    saved = json.loads((tmp_path / "own/config.json").read_text(encoding="utf-8"))
    assert {name: saved[name] for name in flags} == flags
    losses = [[r["loss"] for r in read_log(tmp_path / name)] for name in ("own", "again", "checkpoint")]
    assert losses[0] == losses[1] != losses[2]


def test_length_beyond_the_positions_is_refused(model: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(MinitrainError, match="--max_length 65: the model has 64 positions"):
        train(config(model, data, tmp_path / "run", max_length=65))
    assert train(config(model, data, tmp_path / "run", max_length=6, max_steps=1))["max_length"] == 6


@pytest.mark.fault(31)
def test_run_whose_numbers_explode_says_so_and_leaves_no_half_files(
    model: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(MinitrainError, match=r"step \d+: the loss is"):
        train(config(model, data, out, learning_rate=1e30, max_grad_norm=0))
    assert {path.name for path in out.iterdir()} == {"log.jsonl.part"}
    assert read_log(out / "log.jsonl.part")[0]["step"] == 1
    with pytest.raises(MinitrainError, match=r"step \d+: the loss is"):  # nothing is held there, so it may go again
        train(config(model, data, out, learning_rate=1e30, max_grad_norm=0))


def test_run_that_fails_later_on_leaves_the_old_one_whole(
    finished: tuple[Path, dict[str, Any]], model: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    before = files_of(out)
    with pytest.raises(MinitrainError, match=r"step \d+: the loss is"):
        train(config(model, data, out, learning_rate=1e30, max_grad_norm=0, overwrite_output_dir=True))
    after = files_of(out)
    assert after.pop("log.jsonl.part")
    assert after == before


def test_run_can_go_on_from_its_own_folder(
    finished: tuple[Path, dict[str, Any]], data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    train(config(out, data, out, max_steps=1, overwrite_output_dir=True))
    assert {path.name for path in out.iterdir()} == SAVED
    assert read_results(out)["steps"] == 1


def test_disk_that_is_full_leaves_no_half_files(model: Path, data: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the weights, 140 kB, do not fit."""
    out = tmp_path / "run"
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "import runpy; sys.argv[0] = 'train.py'; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    )
    script = Path(__file__).parents[2] / "scripts/train.py"
    flags: list[Any] = ["--model", model, "--train_file", data / "train.csv", "--eval_file", data / "eval.csv"]
    done = subprocess.run(
        [sys.executable, "-c", code, script, *flags, "--output_dir", out, "--max_steps", "2"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"train.py: {out}: the run is trained but cannot be saved")
    assert "File too large" in done.stderr and "Traceback" not in done.stderr
    assert {path.name for path in out.iterdir()} == {"log.jsonl.part"}
    assert len(read_log(out / "log.jsonl.part")) == 3


def test_name_of_the_run_comes_from_data_and_model(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = tmp_path / "tiny-bert"
    shutil.copytree(model, named)
    settings = config(named, data, tmp_path, max_steps=1)
    train(TrainConfig(**(vars(settings) | {"output_dir": None})))
    assert set(files_of(tmp_path / "runs/train-tiny-bert")) == SAVED


@pytest.mark.fault(11)
def test_paths_need_not_be_ascii(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "größe данные 数据"
    folder.mkdir()
    write_csv(folder / "train.csv", *named_reviews(16))
    write_csv(folder / "eval.csv", *named_reviews(8, seed=1))
    train(config(model, folder, folder / "lauf №1", max_steps=1))
    assert set(files_of(folder / "lauf №1")) == SAVED


def test_trained_head_keeps_its_labels_when_training_goes_on(
    finished: tuple[Path, dict[str, Any]], data: Path, tmp_path: Path
) -> None:
    results = train(config(finished[0], data, tmp_path / "run", max_steps=1, learning_rate=0.0))
    assert results["labels"] == ("awful", "lovely")
    assert results["results"]["validation"] == read_results(finished[0])["results"]["validation"]


def test_data_with_other_labels_than_the_trained_head_is_refused(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    texts, labels = reviews(16)
    for name in ("train", "eval"):
        write_csv(tmp_path / f"{name}.csv", texts, [(BAD[0], "fine")[label] for label in labels])
    with pytest.raises(MinitrainError, match=r"'awful', 'lovely'.*'bad', 'fine'.*--new_head"):
        train(config(finished[0], tmp_path, tmp_path / "run", max_steps=1))
    results = train(config(finished[0], tmp_path, tmp_path / "run", max_steps=1, new_head=True))
    assert results["labels"] == ("bad", "fine")


def test_folder_of_another_run_appearing_meanwhile_is_no_error(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs that start together in a new `runs`: each takes back what it made to try, and leaves the other's."""
    real = tempfile.TemporaryFile

    def another_run(dir: Path) -> Any:
        (Path(dir).parent / "other").mkdir()
        return real(dir=dir)

    monkeypatch.setattr("tempfile.TemporaryFile", another_run)
    made = output_directory(config(model, data, tmp_path / "runs" / "mine"))
    assert not made.exists() and (tmp_path / "runs" / "other").is_dir()
