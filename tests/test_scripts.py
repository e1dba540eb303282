"""The scripts as a user types them: exit codes, pipes, torchrun, and no traceback for what the user can mend."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_loop import reviews, write_tiny_model
from test_main import SAVED, files_of, named_reviews, read_results, write_csv

SCRIPTS = Path(__file__).parent.parent / "scripts"
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
ENVIRONMENT |= {"OMP_NUM_THREADS": "1"}


def command(
    *words: Any, launcher: tuple[str, ...] = (), input: str = "", env: dict[str, str] = ENVIRONMENT
) -> subprocess.CompletedProcess[str]:
    script, *rest = words
    start = [sys.executable, *launcher, SCRIPTS / f"{script}.py", *rest]
    return subprocess.run(
        [str(word) for word in start], input=input, env=env, capture_output=True, encoding="utf-8", timeout=120
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_tiny_model(folder / "tiny")
    for name, count in (("train", 65), ("eval", 21)):
        write_csv(folder / f"{name}.csv", *named_reviews(count, seed=len(name)))
    return folder


def training_flags(data: Path, out: Path) -> list[Any]:
    files = ["--model", data / "tiny", "--train-file", data / "train.csv", f"--eval_file={data / 'eval.csv'}"]
    return [*files, "--report", "false", "--output_dir", out, "--learning-rate=3e-3", "--num_train_epochs", "3"]


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs under torchrun, in one process."""
    out = tmp_path_factory.mktemp("runs") / "run"
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1")
    done = command("train", *training_flags(data, out), launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "step    27/27" in done.stdout
    return out


def test_training_under_torchrun_saves_a_whole_run(run: Path) -> None:
    assert set(files_of(run)) == SAVED
    assert read_results(run)["results"]["validation"]["accuracy"] > 0.9


def test_training_without_torchrun_saves_the_same_weights(run: Path, data: Path, tmp_path: Path) -> None:
    done = command("train", *training_flags(data, tmp_path / "plain"))
    assert (done.returncode, done.stderr) == (0, "")
    assert files_of(tmp_path / "plain")["model.safetensors"][0] == files_of(run)["model.safetensors"][0]
    assert f"saved to {tmp_path / 'plain'}\n" in done.stdout


def test_prediction_in_a_second_process_is_refused(tmp_path: Path) -> None:
    place = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    done = command("predict", str(tmp_path), env=ENVIRONMENT | place)
    assert done.returncode == 1
    assert done.stderr == "predict.py: labels for texts come from one process, not 2: start without torchrun\n"


@pytest.mark.parametrize("script", ["train", "evaluate", "predict"])
def test_wrong_flag_is_answered_with_status_2(script: str) -> None:
    done = command(script, "--per_device_eval_batchsize", "8", "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean --per_device_eval_batch_size?" in done.stderr and "Traceback" not in done.stderr
    assert command(script, "--help").returncode == 0


def test_texts_from_standard_input_are_labelled_in_order_and_in_utf8(run: Path) -> None:
    texts = ["great film", "", "awful 🎬 plot", "последний"]
    # A locale that has neither emoji nor Cyrillic changes nothing.
    ascii_only = ENVIRONMENT | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = command("predict", run, input="great film\n\nawful 🎬 plot\r\nпоследний", env=ascii_only)
    assert done.returncode == 0
    blank, unknown = done.stderr.splitlines()
    assert blank == "standard input: 1 of 4 rows have a text with nothing in it"
    assert "of the tokens in standard input are unknown to the tokenizer" in unknown
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["text"] for record in records] == texts
    assert [record["label"] for record in records][::2] == ["lovely", "awful"]
    assert "🎬" in done.stdout  # readable, not escaped


def test_reader_that_leaves_early_sees_no_traceback(run: Path, tmp_path: Path) -> None:
    lines = reviews(20, seed=3)[0] * 100  # some 400 kB of JSON, more than a pipe holds
    (tmp_path / "new.txt").write_text("\n".join(lines), encoding="utf-8")
    predict = f"{sys.executable} {SCRIPTS / 'predict.py'} {run} --input {tmp_path / 'new.txt'}"
    done = subprocess.run(
        ["bash", "-c", f"{predict} | head -1; echo ${{PIPESTATUS[0]}}"],
        env=ENVIRONMENT,
        capture_output=True,
        encoding="utf-8",
    )
    first, status = done.stdout.splitlines()
    assert json.loads(first)["text"] == lines[0]
    assert (status, done.stderr) == ("141", "")  # 128 + SIGPIPE, as of any command; the pipe did break


def test_bad_row_ends_with_status_1_and_keeps_the_older_file(run: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "good"}\n{"txt": "good"}\n', encoding="utf-8")
    (tmp_path / "out.jsonl").write_text("kept\n", encoding="utf-8")
    done = command("predict", run, "--input", tmp_path / "bad.jsonl", "--output", tmp_path / "out.jsonl")
    assert done.returncode == 1
    said = f"predict.py: {tmp_path}/bad.jsonl, line 2: has no field 'text'; it has txt."
    way_out = "pass --text_columns if the file names them differently"
    assert done.stderr == f"{said} {run} was trained on text: {way_out}\n"
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == "kept\n"
    assert {path.name for path in tmp_path.iterdir()} == {"bad.jsonl", "out.jsonl"}


def test_scoring_prints_and_writes_the_numbers_of_the_run(run: Path, tmp_path: Path) -> None:
    done = command("evaluate", run, "--json", tmp_path / "values.json")
    assert (done.returncode, done.stderr) == (0, "")
    (values,) = json.loads((tmp_path / "values.json").read_text(encoding="utf-8")).values()
    # Batches of 32 here and of 8 there: float32 sums in another order.
    assert values == pytest.approx(read_results(run)["results"]["validation"], abs=1e-5)
    assert f"accuracy              {values['accuracy']:.4f}" in done.stdout


def test_scoring_with_a_wrong_column_ends_with_status_1(run: Path, data: Path) -> None:
    done = command("evaluate", run, "--text_columns", "review")
    assert (done.returncode, done.stdout) == (1, "")
    said = f"evaluate.py: {data}/eval.csv: has no column 'review'; it has text, label."
    assert done.stderr.startswith(said) and "pass --label_column" in done.stderr
