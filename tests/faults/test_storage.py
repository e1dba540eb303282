"""Kills, damage and full disks: no checkpoint that was complete is lost. Faults 1 to 11, 18 to 21, 27."""

import errno
import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_main import named_reviews, write_csv

from minitrain.errors import MinitrainError
from minitrain.storage.checkpoint import (
    Checkpoint,
    checkpoints_in,
    load_checkpoint,
    newest_checkpoint,
    rotate,
    save_checkpoint,
    sweep,
)
from minitrain.storage.files import exclusive_lock

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("MINITRAIN_KILLS", "5"))
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
POINTS = [
    "after file 0",
    "after file 2",
    "before the manifest",
    "before the rename",
    "after the rename",
    "before a deletion",
    "inside a deletion",
    "after a deletion",
]


def command(place: Path, out: Path, *flags: str) -> list[str]:
    fixed = ["--model", str(place / "tiny"), "--train_file", str(place / "train.csv"), "--eval_strategy", "no"]
    fixed += ["--report", "false", "--learning_rate", "1e-3", "--logging_steps", "1", "--output_dir", str(out)]
    return [sys.executable, str(ROOT / "scripts/train.py"), *fixed, *flags]


def run(words: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, env=ENVIRONMENT | variables, capture_output=True, encoding="utf-8", timeout=120)


def weights(out: Path) -> bytes:
    return (out / "model.safetensors").read_bytes()


def some(step: int, fill: float = 1.0) -> Checkpoint:
    tensors = {"model": {"a": torch.full((3, 2), fill), "b": torch.arange(4)}, "random": {"now": torch.zeros(5)}}
    return Checkpoint(tensors=tensors, facts={"step": step, "epoch": 0.5, "versions": {"minitrain": "0.1.0"}})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.fault(1)
def test_random_kills_lose_nothing(place: Path, tmp_path: Path) -> None:
    steps = str(min(2500, 60 * KILLS))
    flags = ("--max_steps", steps, "--save_strategy", "steps", "--save_steps", "7", "--save_total_limit", "2")
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run(command(place, whole, *flags)).returncode == 0
    draw = random.Random(0)
    kills, newest = 0, 0
    while kills < KILLS:
        code = kill_after_a_save([*command(place, out, *flags), "--resume"], out, _newest_step, draw)
        if code == 0:  # it came to its end; the soak goes on with a fresh run
            assert weights(out) == weights(whole)
            shutil.rmtree(out)
            newest = 0
            continue
        kills += 1
        found = checkpoints_in(out / "checkpoints")
        assert _newest_step(out) >= newest and len(found) in (1, 2, 3)
        for path in found:
            load_checkpoint(path)  # whole, every one
        newest = _newest_step(out)
    assert run(command(place, out, *flags, "--resume")).returncode == 0
    assert weights(out) == weights(whole)
    assert names(out / "checkpoints") == names(whole / "checkpoints")  # and no scraps


def kill_after_a_save(words: list[str], out: Path, saved: Callable[[Path], Any], draw: random.Random) -> int:
    """Run a command, kill it within 0.2 s of its saving more in its folder than there was; its exit code."""
    before = saved(out)
    process = subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    started = time.monotonic()
    while saved(out) == before and process.poll() is None and time.monotonic() - started < 60:
        time.sleep(0.01)
    time.sleep(draw.uniform(0.0, 0.2))
    process.send_signal(signal.SIGKILL)
    _, error = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), error.decode()
    return process.returncode


def _newest_step(out: Path) -> int:
    found = checkpoints_in(out / "checkpoints")
    return int(found[0].name.removeprefix("step-")) if found else 0


@pytest.mark.fault(1)
def test_folds_in_fp16_with_calibration_survive_random_kills(place: Path, tmp_path: Path) -> None:
    flags = ("--folds", "3", "--keep_folds", "--fp16", "--calibrate", "--max_steps", "12")
    flags += ("--save_strategy", "steps", "--save_steps", "3")
    whole, out = tmp_path / "whole", tmp_path / "out"
    done = run(command(place, whole, *flags))
    assert done.returncode == 0, done.stderr
    draw, seen, kills = random.Random(0), set[str](), 0
    while kills < min(KILLS - 2, 12) and "results.json" not in seen:
        code = kill_after_a_save([*command(place, out, *flags), "--resume"], out, milestones, draw)
        assert seen <= milestones(out)
        seen = milestones(out)
        kills += code != 0
    assert kills
    resumed = run([*command(place, out, *flags), "--resume"])
    assert resumed.returncode == 0, resumed.stderr
    for path in sorted(whole.rglob("*.safetensors")):
        assert path.read_bytes() == (out / path.relative_to(whole)).read_bytes(), path
    for path in [*whole.rglob("predictions.jsonl"), *whole.rglob("calibration.json")]:
        assert path.read_text() == (out / path.relative_to(whole)).read_text(), path
    states = sorted(whole.rglob("state.json"))
    assert len(states) == 12  # four of each fold
    for path in states:
        expected, found = (json.loads(p.read_text()) for p in (path, out / path.relative_to(whole)))
        assert expected["loss_scale"] == found["loss_scale"] and expected["loss_scale"]["good_steps"] > 0


def milestones(out: Path) -> set[str]:
    """Complete checkpoints and saved folds."""
    # A run that begins again removes folders, which os.walk takes and rglob does not.
    paths = (Path(folder, name) for folder, names, files in os.walk(out) for name in (*names, *files))
    return {str(path.relative_to(out)) for path in paths if path.match("step-*") or path.name == "results.json"}


SAVING = ("--max_steps", "9", "--save_strategy", "steps", "--save_steps", "2", "--save_total_limit", "1")


@pytest.fixture(scope="module")
def uninterrupted(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing killed."""
    out = tmp_path_factory.mktemp("uninterrupted") / "out"
    assert run(command(place, out, *SAVING)).returncode == 0
    return out


@pytest.mark.fault(2, 3)
@pytest.mark.parametrize("point", POINTS)
def test_kill_at_every_point_of_a_save_and_a_rotation(
    place: Path, uninterrupted: Path, tmp_path: Path, point: str
) -> None:
    flags, whole, out = SAVING, uninterrupted, tmp_path / "out"
    assert run(command(place, out, *flags), MINITRAIN_KILL_AT=point).returncode == -signal.SIGKILL
    survived = [load_checkpoint(path).step for path in checkpoints_in(out / "checkpoints")]
    first_save_stands = point in ("after the rename", "before a deletion", "inside a deletion", "after a deletion")
    assert bool(survived) == first_save_stands
    done = run(command(place, out, *flags, "--resume"))
    assert done.returncode == 0, done.stderr
    assert ("resumed  at step" in done.stdout) == first_save_stands
    assert weights(out) == weights(whole)
    assert names(out / "checkpoints") == names(whole / "checkpoints") == ["step-00000009"]


@pytest.mark.fault(3)
def test_newest_and_best_are_kept_and_nothing_else(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8, 10):
        save_checkpoint(tmp_path, some(step))
    rotate(tmp_path, limit=2, best_step=4)
    assert names(tmp_path) == ["step-00000004", "step-00000008", "step-00000010"]
    rotate(tmp_path, limit=None, best_step=None)
    assert len(names(tmp_path)) == 3


@pytest.mark.fault(3)
def test_nothing_is_deleted_while_the_newest_is_damaged(tmp_path: Path) -> None:
    for step in (2, 4):
        save_checkpoint(tmp_path, some(step))
    flip(tmp_path / "step-00000004/model.safetensors")
    with pytest.raises(MinitrainError, match="step-00000004/model.safetensors: has sha256"):
        rotate(tmp_path, limit=1, best_step=None)
    assert len(names(tmp_path)) == 2


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


FILES = ["manifest.json", "model.safetensors", "random.safetensors", "state.json"]


@pytest.mark.fault(8)
@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "missing"])
@pytest.mark.parametrize("name", FILES)
def test_damaged_file_is_named_and_the_checkpoint_before_it_is_taken(
    tmp_path: Path, name: str, damage: str
) -> None:
    for step in (2, 4):
        save_checkpoint(tmp_path, some(step, fill=float(step)))
    path = tmp_path / "step-00000004" / name
    if damage == "flipped bit":
        flip(path, len(path.read_bytes()) // 2)
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-3])
    else:
        path.unlink()
    with pytest.raises(MinitrainError, match=re.escape(str(path.parent))):
        load_checkpoint(path.parent)
    said: list[str] = []
    found = newest_checkpoint(tmp_path, said.append)
    assert found is not None and found.step == 2 and found.tensors["model"]["a"].unique().tolist() == [2.0]
    assert len(said) == 1 and said[0].startswith("not resumed from step-00000004: ")


@pytest.mark.fault(8)
def test_damaged_ones_alone_are_an_error_and_no_fresh_start(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, some(2))
    flip(tmp_path / "step-00000002/state.json", 3)
    with pytest.raises(MinitrainError, match="none of 1 checkpoints can be read"):
        newest_checkpoint(tmp_path, lambda line: None)
    assert newest_checkpoint(tmp_path / "nowhere", lambda line: None) is None


def test_damaged_checkpoint_of_the_same_step_is_written_anew(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, some(2))
    flip(tmp_path / "step-00000002/model.safetensors")
    save_checkpoint(tmp_path, some(2))
    assert load_checkpoint(tmp_path / "step-00000002").step == 2
    assert names(tmp_path) == ["step-00000002"]


@pytest.mark.fault(18)
def test_newer_format_names_both_versions(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, some(2))
    facts = json.loads((path / "state.json").read_text(encoding="utf-8"))
    (path / "state.json").write_text(json.dumps(facts | {"format": 2, "versions": {"minitrain": "9.9"}}))
    sums = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    sums["state.json"] = hashlib.sha256((path / "state.json").read_bytes()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(sums))
    with pytest.raises(MinitrainError, match="has format 2, this minitrain reads 1: it was written by .* 9.9"):
        load_checkpoint(path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def large(step: int) -> Checkpoint:
    return Checkpoint(tensors={"model": {"a": torch.ones(300_000)}}, facts={"step": step})


@pytest.mark.fault(5)
def test_full_disk_keeps_the_old_checkpoint_and_leaves_nothing_of_the_new(small_disk: Path) -> None:
    folder = small_disk / "checkpoints"
    save_checkpoint(folder, large(2))
    with pytest.raises(MinitrainError, match=r"step-00000004: the checkpoint cannot be saved \(needs 1.2 MB, 0"):
        save_checkpoint(folder, large(4))
    assert names(folder) == ["step-00000002"] and load_checkpoint(folder / "step-00000002").step == 2


@pytest.mark.fault(5)
def test_disk_that_fills_up_while_saving(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program takes the room after we looked."""
    folder = small_disk / "checkpoints"
    save_checkpoint(folder, some(2))

    def look_then_fill(path: Path, real: Any = shutil.disk_usage) -> Any:
        found = real(path)
        (small_disk / "other").write_bytes(b"x" * 1_500_000)
        return found

    monkeypatch.setattr(shutil, "disk_usage", look_then_fill)
    with pytest.raises(MinitrainError, match="step-00000004: the checkpoint cannot be saved .*older ones are"):
        save_checkpoint(folder, large(4))
    assert (small_disk / "other").stat().st_size == 1_500_000
    assert names(folder) == ["step-00000002"] and load_checkpoint(folder / "step-00000002").step == 2


@pytest.mark.fault(4)
def test_all_is_forced_to_the_disk_before_it_gets_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The closest to a power cut: what a disk is asked for, in its order."""
    asked: list[tuple[str, str]] = []
    force, rename = os.fsync, os.replace

    def fsync(number: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{number}"))
        asked.append(("force", "folder" if path.name.startswith(".writing-") else path.name))
        force(number)

    def replace(old: Path, new: Path) -> None:
        asked.append(("rename", Path(new).name))
        rename(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    save_checkpoint(tmp_path / "checkpoints", some(2))
    *files, last, renamed, parent = asked
    assert sorted(files) == [("force", name) for name in FILES]
    assert last == ("force", "folder")
    assert renamed == ("rename", "step-00000002")
    assert parent == ("force", "checkpoints")


SIGNALLED = """
import os, signal, sys, time
from pathlib import Path
import torch
import minitrain.storage.checkpoint as module
from minitrain.distributed.signals import SAME_REQUEST, StopRequests

def reached(point):
    if point == sys.argv[2]:
        print("in the save", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(SAME_REQUEST + 0.1)
        os.kill(os.getpid(), signal.SIGTERM)

def save(step):
    tensors = {"model": {"a": torch.ones(9)}}
    module.save_checkpoint(Path(sys.argv[1]), module.Checkpoint(tensors=tensors, facts={"step": step}))

with StopRequests():
    save(2)
    module.reached = reached
    save(4)
    print("saved", flush=True)
"""


@pytest.mark.fault(21)
@pytest.mark.parametrize("point", ["after file 0", "before the manifest", "before the rename"])
def test_second_signal_during_a_save_leaves_the_old_checkpoint_intact(tmp_path: Path, point: str) -> None:
    done = run([sys.executable, "-c", SIGNALLED, str(tmp_path), point])
    assert done.returncode == -signal.SIGTERM and done.stdout == "in the save\n", done.stderr
    [left] = checkpoints_in(tmp_path)
    assert load_checkpoint(left).step == 2
    sweep(tmp_path)
    assert names(tmp_path) == ["step-00000002"]


@pytest.mark.fault(2)
def test_what_interrupted_saves_left_is_swept(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, some(2))
    for name in (".writing-abc", ".deleting-step-00000001-5"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    assert [path.name for path in checkpoints_in(tmp_path)] == ["step-00000002"]
    sweep(tmp_path)
    assert names(tmp_path) == ["step-00000002"]


@pytest.mark.fault(11)
def test_files_have_the_mode_of_the_umask_and_names_may_be_anything(tmp_path: Path) -> None:
    folder = tmp_path / "prüfung ✓"
    before = os.umask(0o027)
    try:
        path = save_checkpoint(folder, some(2))
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o640}
    assert path.stat().st_mode & 0o777 == 0o750
    assert load_checkpoint(path).step == 2


HOLD = "import sys; from pathlib import Path; from minitrain.storage.files import exclusive_lock\n"
HOLD += "with exclusive_lock(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"


@pytest.mark.fault(7)
def test_second_run_in_a_folder_is_refused_naming_the_first(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as first:
        assert first.stdout is not None and first.stdin is not None
        assert first.stdout.readline() == "in\n"
        done = run(command(place, out, "--max_steps", "2"))
        assert done.returncode == 1
        assert f"{out}: process {first.pid} on {socket.gethostname()} is training there" in done.stderr
        first.stdin.close()
    assert names(out) == []
    with exclusive_lock(out):
        assert names(out) == [".running"]


@pytest.mark.fault(7)
def test_folder_of_a_run_that_was_killed_is_free(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None and first.stdout.readline() == b"in\n"
        first.kill()
    assert names(tmp_path) == [".running"]
    with exclusive_lock(tmp_path):
        pass
    assert names(tmp_path) == []


LONG = ("--max_steps", "100000", "--lr_scheduler_type", "constant")


def wait_for_step(out: Path, step: int) -> None:
    log, deadline = out / "log.jsonl.part", time.monotonic() + 60
    while not log.exists() or f'"step": {step},' not in log.read_text(encoding="utf-8"):
        assert time.monotonic() < deadline, "the run does not get going"
        time.sleep(0.02)


@pytest.mark.fault(19)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_saves_and_leaves_and_the_rerun_goes_on(
    place: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    process = subprocess.Popen(
        command(place, out, *LONG),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    wait_for_step(out, 5)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == status
    match = re.fullmatch(
        rf"{number.name}: leaving as soon as all is safe; again to leave now\n"
        rf"train.py: stopped by {number.name} after step (\d+); saved in .*--resume continues.*\n",
        error,
    )
    assert match is not None, error
    step = int(match[1])
    assert [load_checkpoint(path).step for path in checkpoints_in(out / "checkpoints")] == [step]
    more = ("--max_steps", str(step + 3), "--lr_scheduler_type", "constant")
    resumed = run(command(place, out, *more, "--resume", "--resume_changed"))
    assert resumed.returncode == 0, resumed.stderr
    assert run(command(place, whole, *more)).returncode == 0
    assert weights(out) == weights(whole)


@pytest.mark.fault(21)
def test_second_signal_acts_at_once(place: Path, tmp_path: Path) -> None:
    """While a step that never ends keeps the first one waiting."""
    code = (
        "import os, signal, time\nfrom minitrain.distributed.signals import StopRequests\n"
        "with StopRequests() as stop:\n    print('in', flush=True)\n    time.sleep(60)\n    print('never')"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, encoding="utf-8")
    assert process.stdout is not None and process.stdout.readline() == "in\n"
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # the same request, by another messenger
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGTERM and out == ""


@pytest.mark.fault(19)
def test_signal_in_the_final_evaluation_lets_the_run_end(place: Path, tmp_path: Path) -> None:
    """With no checkpoints there is nothing to come back to: what was trained is evaluated and saved first."""
    out, rows = tmp_path / "out", tmp_path / "test.csv"
    write_csv(rows, *named_reviews(20_000, seed=1))
    process = subprocess.Popen(
        command(place, out, "--test_file", str(rows), "--max_steps", "2"),
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    wait_for_step(out, 2)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert b"SIGTERM: leaving as soon as all is safe" in error
    assert process.returncode == 0 and (out / "results.json").exists()


@pytest.mark.fault(5)
def test_full_disk_under_the_log_is_named(place: Path, small_disk: Path) -> None:
    """Room for a checkpoint, which another program takes while the run goes on."""
    out = small_disk / "out"
    flags = [*LONG, "--save_strategy", "steps", "--save_steps", "50"]
    process = subprocess.Popen(
        command(place, out, *flags), env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    wait_for_step(out, 60)
    with pytest.raises(OSError, match="No space left"), (small_disk / "other").open("wb", buffering=0) as other:
        while True:
            other.write(b"x" * 1024)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert error.startswith(b"train.py: ") and b"cannot be " in error and b"Traceback" not in error
    for path in checkpoints_in(out / "checkpoints"):
        load_checkpoint(path)
    assert checkpoints_in(out / "checkpoints")


def test_file_system_without_locks_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of some network mounts; none is at hand, so that the answer of the system is put in its mouth."""

    def no_locks(number: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with (
        pytest.warns(UserWarning, match="cannot be locked .*make sure that no other run writes"),
        exclusive_lock(tmp_path),
    ):
        assert names(tmp_path) == [".running"]
