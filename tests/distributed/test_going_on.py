"""Several processes that are interrupted and go on: faults 13, 19, 20 and 27, and torchrun's own restarts."""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from test_faults import LONG, RUN_IN, SOON, by_hand, command, free_port, torchrun, wait_for_step, worker
from test_main import read_log

from minitrain.storage.checkpoint import checkpoints_in, load_checkpoint

FIXED = ("--global_batch_size", "12", "--max_steps", "13", "--logging_steps", "1", "--learning_rate", "3e-3")
SAVING = ("--save_strategy", "steps", "--save_steps", "5")


def trained(place: Path, out: Path, size: int, *flags: str) -> Path:
    with torchrun(command(place, out, *FIXED, *flags), size=size) as agent:
        _, error = agent.communicate(timeout=SOON)
    assert agent.returncode == 0, error
    return out


def after_a_crash(whole: Path, out: Path, step: int) -> Path:
    """A folder in which that checkpoint is the newest thing there is."""
    name = f"checkpoints/step-{step:08d}"
    shutil.copytree(whole / name, out / name)
    return out


def losses(out: Path, after: int = 0) -> list[float]:
    return [line["loss"] for line in read_log(out) if line["event"] == "step" and line["step"] > after]


@pytest.mark.fault(12)
def test_as_many_processes_go_on_to_the_same_bits(place: Path, tmp_path: Path) -> None:
    # The embedded model's gradients need more than one bucket, and three summands can be added in several orders.
    whole = trained(place, tmp_path / "whole", 3, *SAVING, "--model", "demo")
    out = trained(place, after_a_crash(whole, tmp_path / "out", 10), 3, "--resume", "--model", "demo")
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert losses(out) == losses(whole, after=10)


@pytest.mark.fault(13)
def test_another_number_of_processes_goes_on_in_the_same_order(place: Path, tmp_path: Path) -> None:
    stream = ("--dropout_rng", "example")
    whole = trained(place, tmp_path / "whole", 2, *SAVING, *stream)
    for size in (1, 3):
        out = trained(place, after_a_crash(whole, tmp_path / f"of-{size}", 5), size, "--resume", *stream)
        assert losses(out) == pytest.approx(losses(whole, after=5), abs=1e-5)
        assert len(losses(out)) == 8


@pytest.mark.fault(20)
@pytest.mark.parametrize("rank", [0, 1])
def test_signal_to_one_rank_stops_all_at_the_same_step(place: Path, tmp_path: Path, rank: int) -> None:
    out = tmp_path / "out"
    with torchrun(command(place, out, *LONG)) as agent:
        wait_for_step(out, 5)
        os.kill(worker(agent, rank), signal.SIGTERM)
        _, error = agent.communicate(timeout=SOON)
    # torchrun may end the one while it leaves behind the other.
    assert sorted(re.findall(r"exitcode  : (-?\d+)", error)) in (["143", "143"], ["-15", "143"])
    [said] = re.findall(r"^train\.py: stopped by SIGTERM after step (\d+); saved in", error, re.MULTILINE)
    [saved] = checkpoints_in(out / "checkpoints")
    checkpoint = load_checkpoint(saved)
    assert checkpoint.step == int(said) and len(checkpoint.tensors["random"]["now"]) == 2


@pytest.mark.fault(22)
def test_torchrun_restarts_from_the_newest_checkpoint(place: Path, tmp_path: Path) -> None:
    flags = ("--global_batch_size", "12", "--max_steps", "150", "--save_strategy", "steps", "--save_steps", "5")
    words = [*flags, "--save_total_limit", "2", "--learning_rate", "1e-3", "--logging_steps", "1"]
    # gloo of torch 2.13 rarely kills a process of a busy machine, in the thread of its all-reduce.
    with torchrun(["--max_restarts=3", *command(place, tmp_path / "whole", *words, "--resume")]) as agent:
        _, error = agent.communicate(timeout=2 * SOON)
    assert agent.returncode == 0, error
    out = tmp_path / "out"
    with torchrun(["--max_restarts=3", *command(place, out, *words, "--resume")]) as agent:
        wait_for_step(out, 20)
        os.kill(worker(agent, 1), signal.SIGKILL)
        printed, error = agent.communicate(timeout=2 * SOON)
    assert agent.returncode == 0, error
    deaths = re.findall(r"failed \(exitcode: (-\d+)\)", error)
    assert deaths[0] == "-9" and printed.count("minitrain 0.") == 1 + len(deaths), error  # no start without a death
    step = re.findall(r"^resumed  at step (\d+), from", printed, re.MULTILINE)[0]
    assert int(step) >= 15 and int(step) % 5 == 0
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


@pytest.mark.fault(27)
def test_checkpoint_on_the_first_process_node_alone_is_enough(place: Path, tmp_path: Path) -> None:
    """Each rank in a folder of its own, as on nodes that share no disk."""

    whole = trained(place, tmp_path / "whole", 2, *SAVING)
    after_a_crash(whole, tmp_path / "here/out", 5)
    ranks = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir(exist_ok=True)
        words = command(place, Path("out"), *FIXED, "--resume")
        ranks.append(["-c", RUN_IN, str(tmp_path / name), *words])
    for status, error in by_hand(ranks, free_port()):
        assert status == 0, error
    assert not (tmp_path / "there/out").exists()
    weights = [(folder / "model.safetensors").read_bytes() for folder in (tmp_path / "here/out", whole)]
    assert weights[0] == weights[1]
