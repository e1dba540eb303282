"""Processes that fail, hang, disagree or do not come together: the run ends soon, and says once why."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from test_main import named_reviews, write_csv

from minitrain.config.train_config import TrainConfig
from minitrain.distributed.world import World
from minitrain.errors import MinitrainError
from minitrain.run.main import train
from minitrain.run.prepare import prepare

ROOT = Path(__file__).parents[2]
SOON = 60.0  # seconds that a run may take to end


def command(place: Path, out: Path, *flags: str) -> list[str]:
    fixed = ["--model", str(place / "tiny"), "--train_file", str(place / "train.csv"), "--eval_strategy", "no"]
    fixed += ["--report", "false"]
    return [str(ROOT / "scripts/train.py"), *fixed, "--output_dir", str(out), "--ddp_timeout", "30", *flags]


ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
ENVIRONMENT |= {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def by_hand(words: list[list[str]], port: int, **variables: str) -> list[tuple[int, str]]:
    """One process a rank, without torchrun: status and standard error of each."""
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, *those],
            env=ENVIRONMENT | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        for rank, those in enumerate(words)
    ]
    ends = [process.communicate(timeout=SOON) for process in processes]
    return [(process.returncode, error) for process, (_, error) in zip(processes, ends, strict=True)]


@contextmanager
def torchrun(words: list[str], size: int = 2) -> Iterator[subprocess.Popen[str]]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={size}"]
    process = subprocess.Popen(
        [*start, *words],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def worker(agent: subprocess.Popen[str], rank: int) -> int:
    """The process id of a rank, read from its environment."""
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    for child in map(int, children):
        if f"\0RANK={rank}\0".encode() in Path(f"/proc/{child}/environ").read_bytes():
            return child
    raise AssertionError(f"no rank {rank} among {children}")


def wait_for_step(out: Path, step: int) -> None:
    deadline = time.monotonic() + SOON
    log = out / "log.jsonl.part"
    while not log.exists() or f'"step": {step},' not in log.read_text(encoding="utf-8"):
        assert time.monotonic() < deadline, "the run does not get going"
        time.sleep(0.02)


LONG = ("--max_steps", "100000", "--logging_steps", "1", "--lr_scheduler_type", "constant")


@pytest.mark.fault(22)
def test_killed_rank_ends_the_run_naming_the_step(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # Now and then gloo leaves one of three waiting though both others are gone; then the timeout ends it.
    with torchrun(command(place, out, *LONG, "--ddp_timeout", "10"), size=3) as agent:
        wait_for_step(out, 5)
        os.kill(worker(agent, 1), signal.SIGKILL)
        killed = time.monotonic()
        _, error = agent.communicate(timeout=SOON)
        assert time.monotonic() - killed < 20
    assert agent.returncode == 1
    assert "Signal 9 (SIGKILL)" in error  # torchrun's own report: it did happen
    # The others may be ended by torchrun before they can speak; never do two of them.
    said = re.findall(r"train\.py: (.*)", error)
    assert len(said) <= 1
    for line in said:
        assert re.match(
            r"(after )?step \d+: rank [02] has no answer from another process .*It left no message", line
        )
    assert not (out / "model.safetensors").exists()


@pytest.mark.fault(23)
def test_hung_rank_is_given_up_after_the_timeout(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with torchrun(command(place, out, *LONG, "--ddp_timeout", "3")) as agent:
        wait_for_step(out, 5)
        hanging = worker(agent, 1)
        os.kill(hanging, signal.SIGSTOP)
        stopped = time.monotonic()
        assert agent.stderr is not None
        lines = []
        for line in agent.stderr:
            lines.append(line)
            if line.startswith("train.py:"):
                break
        waited = time.monotonic() - stopped
        with suppress(ProcessLookupError):  # torchrun need not wait to kill it
            os.kill(hanging, signal.SIGCONT)
        agent.communicate(timeout=SOON)
    assert re.match(
        r"train\.py: (after )?step \d+: rank 0 has no answer .*hangs longer than --ddp_timeout \(3 s\)", lines[-1]
    ), "".join(lines)
    assert 2 < waited < 20
    assert agent.returncode == 1


@pytest.mark.fault(24)
def test_error_of_one_rank_ends_all_and_is_shown_once(place: Path, tmp_path: Path) -> None:
    good = command(place, tmp_path / "out")
    missing = command(place, tmp_path / "out", "--train_file", str(place / "missing.csv"))
    (first, quiet), (second, error) = by_hand([good, missing], free_port(), GROUP_RANK="0")
    assert (first, second) == (1, 1)
    assert quiet == ""
    assert error.startswith(f"train.py: {place / 'missing.csv'}: ")
    assert not (tmp_path / "out").exists()


def test_error_of_all_ranks_is_shown_once(place: Path, tmp_path: Path) -> None:
    words = command(place, tmp_path / "out", "--train_file", str(place / "missing.csv"))
    with torchrun(words) as agent:
        _, error = agent.communicate(timeout=SOON)
    assert agent.returncode == 1
    assert error.count(f"train.py: {place / 'missing.csv'}: ") == 1


def test_wrong_flag_is_shown_once(place: Path, tmp_path: Path) -> None:
    with torchrun(command(place, tmp_path / "out", "--learning_rat", "1")) as agent:
        _, error = agent.communicate(timeout=SOON)
    assert agent.returncode == 1
    assert error.count("train.py: no flag --learning_rat; did you mean --learning_rate?") == 1


@pytest.mark.fault(26)
def test_ranks_that_disagree_are_named_with_the_field(place: Path, tmp_path: Path) -> None:
    words = [command(place, tmp_path / "out"), command(place, tmp_path / "out", "--learning_rate", "1e-3")]
    ends = by_hand(words, free_port())
    assert [status for status, _ in ends] == [1, 1]
    said = "".join(error for _, error in ends)
    assert "rank 1 has --learning_rate 0.001, rank 0 has 5e-05" in said
    assert "all processes of a run need the same flags, data and versions" in said
    assert said.count("train.py: ") == 1


RUN_IN = """
import os, runpy, sys
os.chdir(sys.argv.pop(1))
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.fault(26)
def test_data_that_differ_under_one_name_are_noticed(place: Path, tmp_path: Path) -> None:
    """As on two nodes, each with a file of its own."""
    ranks = []
    for name, seed in (("here", 0), ("there", 5)):
        (tmp_path / name).mkdir()
        write_csv(tmp_path / name / "train.csv", *named_reviews(64, seed=seed))
        words = command(place, tmp_path / "out", "--train_file", "train.csv")
        ranks.append(["-c", RUN_IN, str(tmp_path / name), *words])
    said = "".join(error for _, error in by_hand(ranks, free_port(), LOCAL_RANK="0"))
    assert re.search(r"rank 1 has the train data \(checksum\) [0-9a-f]{8}, 64 rows, rank 0 has [0-9a-f]{8},", said)


@pytest.mark.fault(25)
def test_nobody_at_the_address_is_an_error_with_address_and_timeout(place: Path, tmp_path: Path) -> None:
    port = free_port()
    words = command(place, tmp_path / "out", "--ddp_timeout", "2")
    [(status, error)] = by_hand([words], port, RANK="1", LOCAL_RANK="1")
    assert status == 1
    assert f"train.py: rank 1 cannot join the other 1 processes at 127.0.0.1:{port} within 2 s (" in error


@pytest.mark.fault(25)
def test_busy_port_is_an_error_with_the_address(place: Path, tmp_path: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("", 0))
        busy.listen()
        port = busy.getsockname()[1]
        [(status, error)] = by_hand([command(place, tmp_path / "out", "--ddp_timeout", "2")], port)
    assert status == 1
    assert f"rank 0 cannot join the other 1 processes at 127.0.0.1:{port} within 2 s (" in error
    assert "the port free there" in error


@pytest.mark.fault(25)
@pytest.mark.parametrize("missing", ["RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    variables = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv(missing)
    expected = f"^WORLD_SIZE is 2, but the environment variable {missing} is missing: start with torchrun"
    with pytest.raises(MinitrainError, match=expected):
        train(TrainConfig(model="demo", dataset="demo"))


@pytest.mark.fault(14)
def test_global_batch_that_cannot_be_shared_lists_what_can() -> None:
    config = TrainConfig(global_batch_size=12, gradient_accumulation_steps=2)
    expected = (
        "^--global_batch_size 12 cannot be shared evenly by 4 processes with 2 micro-batches each; numbers of "
        "processes that can: 1, 2, 3, 6$"
    )
    with pytest.raises(MinitrainError, match=expected):
        prepare(config, World(size=4))


@pytest.mark.parametrize(
    "setting", [{"match_trainer": True}, {"match_accelerate": True}, {"sampler": "global_rng"}]
)
def test_what_holds_for_one_process_is_refused_for_two(setting: dict[str, Any]) -> None:
    with pytest.raises(MinitrainError, match=rf"^--{next(iter(setting))} .*one"):
        prepare(TrainConfig(**setting), World(size=2))


@pytest.mark.fault(30)
def test_processes_that_tokenize_warn_of_no_fork(place: Path, tmp_path: Path) -> None:
    with torchrun(command(place, tmp_path / "out", "--max_steps", "2")) as agent:
        _, error = agent.communicate(timeout=SOON)
    assert agent.returncode == 0
    assert error == ""
    assert (tmp_path / "out/model.safetensors").is_file()
