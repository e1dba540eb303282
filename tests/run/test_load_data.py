"""The process that reads a run's data while torch is imported: the same splits, the same errors, nothing left."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
from test_loop import write_tiny_model

from minitrain.config.long_texts import LongTexts
from minitrain.config.train_config import TrainConfig
from minitrain.data.dataset import Split, Splits
from minitrain.data.load import load_splits, tokenize_splits
from minitrain.data.splits import TextSplits
from minitrain.data.tokenizer.tokenizer import Tokenizer, load_tokenizer
from minitrain.errors import MinitrainError
from minitrain.run import load_data
from minitrain.run.load_data import prefetching
from minitrain.run.main import train
from minitrain.run.prepare import prepare
from minitrain.storage.download import HubError

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "model")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """As parquet, for which `datasets` is needed."""
    import datasets

    texts = [f"a film of {'good ' * (i % 5)}things" for i in range(24)]
    data = datasets.Dataset.from_dict({"text": texts, "label": [i % 2 for i in range(24)]})
    data.to_parquet(tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


def flags_of(folder: Path, rows: Path, out: Path) -> dict[str, Any]:
    return {
        "model": str(folder),
        "train_file": str(rows),
        "eval_fraction": 0.25,
        "max_steps": 3,
        "device": "cpu",
        "output_dir": str(out),
    }


def python(code: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        timeout=300,
    )


def script(flags: Mapping[str, Any], after: str = "pass", **environment: str) -> subprocess.CompletedProcess[str]:
    """scripts/train.py with these flags, and what is to be done once it is through."""
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    code = f"""
import runpy, sys
sys.argv = [{str(ROOT / "scripts/train.py")!r}, *sys.argv[1:]]
runpy.run_path(sys.argv[0], run_name="__main__")
{after}
"""
    return python(code, *words, **environment)


def losses_in(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "step" in line and "loss" in line]


@pytest.mark.parametrize("cache", ["", "cache"])
def test_a_script_trains_on_what_another_process_has_read(
    folder: Path, rows: Path, tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept in memory, tokens go from one process to the other; on disk, they are mapped by both."""
    place = str(tmp_path / cache) if cache else ""
    after = "print('datasets' in sys.modules)"
    done = script(flags_of(folder, rows, tmp_path / "ahead"), after, MINITRAIN_CACHE=place)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"  # it did not read by itself
    assert not place or len(list(Path(place).iterdir())) == 2  # one entry a split
    monkeypatch.setenv("MINITRAIN_CACHE", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    train(TrainConfig(**flags_of(folder, rows, tmp_path / "plain")))
    results = [json.loads((tmp_path / name / "results.json").read_text())["results"] for name in ("ahead", "plain")]
    assert losses_in(tmp_path / "ahead") == pytest.approx(losses_in(tmp_path / "plain"), rel=1e-5)
    assert len(losses_in(tmp_path / "plain")) >= 3
    assert results[0]["validation"]["accuracy"] == results[1]["validation"]["accuracy"]


def test_splits_are_the_same_in_another_process(
    folder: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("", str(tmp_path / "cache")):
        monkeypatch.setenv("MINITRAIN_CACHE", place)
        splits = load_splits(train_file=str(rows), tokenizer=load_tokenizer(folder), eval_fraction=0.25)
        sent = bytes(ForkingPickler.dumps(splits))
        there = ForkingPickler.loads(sent)
        assert isinstance(there.train, Split) and there.labels == splits.labels
        for name, split in splits.all.items():
            other = there.all[name]
            assert [other[row] for row in range(len(other))] == [split[row] for row in range(len(split))]
            assert other.checksum() == split.checksum() and other.labels.tolist() == split.labels.tolist()
            entry = split._tokens.entry
            assert entry == other._tokens.entry and (entry is not None) == bool(place)
            assert entry is None or entry.name.encode() in sent


def test_the_other_process_keeps_the_classes_of_a_trained_head(folder: Path, rows: Path, tmp_path: Path) -> None:
    train(TrainConfig(**flags_of(folder, rows, tmp_path / "trained")))
    flags = flags_of(tmp_path / "trained", rows, tmp_path / "out")
    code = f"""
from minitrain.config.train_config import TrainConfig
from minitrain.run.load_data import prefetching

config = TrainConfig(**{flags!r})
with prefetching(config) as process:
    from minitrain.run import main as run

    parts = run.prepare(config, prefetcher=process)
print({{name: split.checksum() for name, split in parts.splits.all.items()}}, parts.splits.labels.names)
"""
    done = python(code, MINITRAIN_CACHE="")
    assert done.returncode == 0, done.stderr
    plain = prepare(TrainConfig(**flags)).splits
    expected = f"{ {name: split.checksum() for name, split in plain.all.items()} } {plain.labels.names}"
    assert done.stdout.splitlines()[-1] == expected


@pytest.mark.parametrize("wrong", ["rows", "labels", "model and rows"])
def test_what_is_wrong_is_said_as_without_another_process(
    folder: Path, rows: Path, tmp_path: Path, wrong: str
) -> None:
    flags = flags_of(folder, rows, tmp_path / "out")
    expected = {
        "rows": "no.parquet: no such file",
        "labels": "has no column 'mood'; it has text, label",
        "model and rows": "--model no/such/folder: no such folder, and no Hub id",
    }
    if wrong == "labels":
        flags["label_column"] = "mood"
    else:
        flags["train_file"] = str(tmp_path / "no.parquet")
    if wrong == "model and rows":
        flags["model"] = "no/such/folder"
    done = script(flags)
    assert done.returncode == 1
    assert expected[wrong] in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_where_the_process_is_killed_the_run_reads_by_itself(folder: Path, rows: Path, tmp_path: Path) -> None:
    code = f"""
import os, signal, sys
from minitrain.run.load_data import prefetching
from minitrain.config.train_config import TrainConfig

config = TrainConfig(**{flags_of(folder, rows, tmp_path / "out")!r})
with prefetching(config) as ahead:
    os.kill(ahead.process.pid, signal.SIGKILL)
    ahead.process.join()
    from minitrain.run import main as run

    asked = []
    real = ahead.splits
    ahead.splits = lambda *args: asked.append(real(*args)) or asked[0]
    run.train(config, ahead)
print(asked, "datasets" in sys.modules)
"""
    done = python(code, MINITRAIN_CACHE="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[None] True"
    assert len(losses_in(tmp_path / "out")) >= 3


def test_an_error_of_no_known_kind_is_met_by_the_run_itself(folder: Path, rows: Path, tmp_path: Path) -> None:
    code = f"""
import minitrain.run.load_data, minitrain.data.splits
from minitrain.config.train_config import TrainConfig

def broken(config):
    raise RuntimeError("broken in process " + str(minitrain.run.load_data.os.getpid()))

minitrain.run.load_data.read_tables = minitrain.data.splits.read_tables = broken
config = TrainConfig(**{flags_of(folder, rows, tmp_path / "out")!r})
print(minitrain.run.load_data.os.getpid(), flush=True)
with minitrain.run.load_data.prefetching(config) as ahead:
    from minitrain.run import main as run

    run.train(config, ahead)
"""
    done = python(code, MINITRAIN_CACHE="")
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.splitlines()[-1] == f"RuntimeError: broken in process {done.stdout.splitlines()[0]}"


@pytest.mark.parametrize("ending", ["killed", "through", "failed"])
def test_no_process_is_left_behind(folder: Path, rows: Path, tmp_path: Path, ending: str) -> None:
    code = f"""
import os, signal
from minitrain.run.load_data import prefetching
from minitrain.config.train_config import TrainConfig

with prefetching(TrainConfig(**{flags_of(folder, rows, tmp_path / "out")!r})) as ahead:
    print(ahead.process.pid, flush=True)
    if {ending!r} == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    assert {ending!r} != "failed"
"""
    done = python(code, MINITRAIN_CACHE="")
    assert done.returncode == {"killed": -signal.SIGKILL, "through": 0, "failed": 1}[ending]
    number = int(done.stdout)
    until = time.monotonic() + 60
    while is_running(number) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_running(number)


def is_running(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_there_is_one_where_it_helps(folder: Path, rows: Path, tmp_path: Path) -> None:
    code = f"""
import os, resource, sys
from minitrain.run.load_data import prefetching
from minitrain.config.train_config import TrainConfig

config = TrainConfig(**{flags_of(folder, rows, tmp_path / "out")!r})

def forks():
    with prefetching(config) as ahead:
        return ahead is not None

print(forks())
os.environ["RANK"] = "0"
print(forks())
del os.environ["RANK"]

def refuse():
    raise BlockingIOError(11, "Resource temporarily unavailable")

fork, os.fork = os.fork, refuse
print(forks())
os.fork = fork
import torch
print(forks())
"""
    done = python(code)
    assert done.stdout.split() == ["True", "False", "False", "False"], done.stderr


def test_without_a_fork_the_context_is_none() -> None:
    with prefetching(TrainConfig()) as ahead:  # torch is here already
        assert ahead is None


@pytest.mark.parametrize(("max_length", "times"), [(0, 1), (-1, 2)], ids=["as guessed", "another length"])
def test_a_request_that_was_guessed_is_answered_without_tokenizing_again(
    folder: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_length: int, times: int
) -> None:
    positions = json.loads((folder / "config.json").read_text())["max_position_embeddings"]
    parent, child = multiprocessing.Pipe()
    parent.send((folder, None, positions + max_length))  # waits in the pipe
    lengths: list[int | None] = []

    def counted(texts: TextSplits, tokenizer: Tokenizer, length: int, long_texts: LongTexts) -> Splits:
        lengths.append(length)
        return tokenize_splits(texts, tokenizer, length, long_texts)

    monkeypatch.setattr("minitrain.run.load_data.tokenize_splits", counted)
    splits = load_data._splits(TrainConfig(**flags_of(folder, rows, tmp_path / "out")), child)
    assert lengths == [positions, positions + max_length][:times]
    assert splits.train.checksum() == tokenized_alone(folder, rows, positions + max_length)
    monkeypatch.setattr(load_data, "SMALL", 1)  # more rows are not tokenized before the request
    parent.send((folder, None, positions + max_length))
    lengths.clear()
    load_data._splits(TrainConfig(**flags_of(folder, rows, tmp_path / "out")), child)
    assert lengths == [positions + max_length]


def test_an_error_of_the_hub_reaches_the_run_as_it_is(
    folder: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(config: TrainConfig) -> None:
        raise HubError("reviews: the Hub keeps answering HTTP 503", "busy")

    monkeypatch.setattr("minitrain.run.load_data.read_tables", fails)
    flags = flags_of(folder, rows, tmp_path / "out")
    prefetcher = load_data.DataPrefetcher(TrainConfig(**flags))
    try:
        with pytest.raises(MinitrainError, match="^reviews: the Hub keeps answering HTTP 503$"):
            prefetcher.splits(folder, None, 16)
    finally:
        prefetcher.end()


def tokenized_alone(folder: Path, rows: Path, max_length: int) -> str:
    tokenizer = load_tokenizer(folder)
    splits = load_splits(train_file=str(rows), tokenizer=tokenizer, eval_fraction=0.25, max_length=max_length)
    return splits.train.checksum()
