"""`launch`: results by rank, errors with their traceback, killed processes, and functions of a notebook."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from launched import be_interrupted, fail_on, fail_pickily, fail_unsendably, kill_on, place_and_sum, three_groups
from nbclient import NotebookClient
from test_loop import write_tiny_model
from test_main import named_reviews, write_csv

from minitrain.distributed.launcher import launch
from minitrain.distributed.notebook import notebook_function_to_module
from minitrain.errors import MinitrainError, Stopped


def test_each_rank_returns_its_result_tensors_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = launch(place_and_sum, (torch.ones(1000),), 3)
    assert [each["rank"] for each in found] == [0, 1, 2]
    assert all(each["size"] == 3 and torch.equal(each["total"], torch.full((1000,), 6.0)) for each in found)
    assert {each["threads"] for each in found} == {max(1, len(os.sched_getaffinity(0)) // 3)}


def test_one_process_and_none() -> None:
    [alone] = launch(place_and_sum, (torch.ones(2),))
    assert (alone["rank"], alone["size"]) == (0, 1)
    with pytest.raises(MinitrainError, match="num_processes is 0; expected 1 or more"):
        launch(place_and_sum, (), 0)


def test_groups_one_after_the_other_do_not_meet_each_other_and_no_process_stays() -> None:
    assert launch(three_groups, (), 2) == [[2, 2, 2]] * 2
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    commands = [Path(f"/proc/{child}/cmdline").read_bytes() for child in children]
    assert not [command for command in commands if b"spawn_main" in command]


@pytest.mark.parametrize("rank", [0, 2])
def test_first_error_is_raised_with_its_traceback_and_all_end(rank: int) -> None:
    started = time.monotonic()
    with pytest.raises(ZeroDivisionError, match=f"^rank {rank} divides$") as raised:
        launch(fail_on, (rank,), 3)
    assert "in fail_on" in str(raised.value.__cause__) and "raise ZeroDivisionError" in str(raised.value.__cause__)
    assert time.monotonic() - started < 30


def test_killed_process_is_named_with_its_signal() -> None:
    with pytest.raises(MinitrainError, match="^rank 1 of the launch ended by SIGKILL, without a message$"):
        launch(kill_on, (1,), 3)


def test_error_that_cannot_be_sent_comes_as_text() -> None:
    with pytest.raises(MinitrainError, match="^Unsendable: holds a lock$") as raised:
        launch(fail_unsendably)
    assert "in fail_unsendably" in str(raised.value.__cause__)


def test_error_that_cannot_be_put_together_again_comes_as_text() -> None:
    with pytest.raises(MinitrainError, match="^Picky: two words$"):
        launch(fail_pickily)


def test_interrupt_comes_as_an_interrupt() -> None:
    with pytest.raises(Stopped, match="^stopped by SIGTERM after step 3$") as raised:
        launch(be_interrupted)
    assert raised.value.signal == signal.SIGTERM


CELLS = [
    "import os\nimport torch\nfrom pathlib import Path\nfrom minitrain import TrainConfig, launch, process_group\n"
    "import minitrain\nSTEPS, NAMES, factor, sum = 4, ('a', 'b'), 2, len",
    "def scaled(values):\n    assert [factor for factor in (5,)] == [5]\n"
    "    return values * sum(NAMES) * factor / 2\n\n"
    "class Holder:\n    def total(self, values):\n"
    "        return float(scaled(values).sum())",
    "def work(folder):\n    from minitrain import train\n    results = train(TrainConfig(\n"
    "        model=f'{folder}/tiny', train_file=str(Path(folder) / 'train.csv'), eval_strategy='no',\n"
    "        output_dir=f'{folder}/out', max_steps=STEPS, device='cpu'))\n"
    "    with process_group('cpu') as world:\n"
    "        total = world.all_reduce(torch.tensor(float(world.rank + 1)))\n"
    "    return results['steps'], Holder().total(total)",
    "print(launch(work, (FOLDER,), num_processes=2))",
    "handle = open(os.devnull)\ndef bad():\n    return handle.name\ntry:\n    launch(bad, (), 2)\n"
    "except minitrain.MinitrainError as error:\n    print(error)",
]


def test_functions_of_a_notebook_are_taken_along(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "tiny")
    write_csv(tmp_path / "train.csv", *named_reviews(32))
    cells = [nbformat.v4.new_code_cell(text) for text in (f"FOLDER = {str(tmp_path)!r}", *CELLS)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    printed = ["".join(output.get("text", "") for output in cell["outputs"]) for cell in notebook.cells]
    assert printed[4].splitlines()[-1] == "[(4, 6.0), (4, 6.0)]"
    assert printed[5].splitlines() == [
        "launch cannot carry handle (TextIOWrapper), which bad uses, over to other processes: make it inside the "
        "function, or pass it in args"
    ]
    assert (tmp_path / "out/model.safetensors").is_file()


ENDLESS = (
    "import os, sys, time\nfrom pathlib import Path\nfrom minitrain import launch\n\n\ndef work(folder):\n"
    "    Path(folder, os.environ['RANK']).write_text(str(os.getpid()))\n"
    "    try:\n        time.sleep(300)\n    except KeyboardInterrupt:\n"
    "        time.sleep(2)\n        Path(folder, 'saved ' + os.environ['RANK']).touch()\n        raise\n\n\n"
    "if __name__ == '__main__':\n    launch(work, (sys.argv[1],), 2)\n"
)


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A script that has launched two processes, which wait; they leave their process ids in `tmp_path`."""
    (tmp_path / "script.py").write_text(ENDLESS, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path)], stderr=subprocess.PIPE, encoding="utf-8"
    )
    wait_until(lambda: all((tmp_path / rank).exists() and (tmp_path / rank).read_text() for rank in "01"))
    yield process
    process.kill()
    process.communicate()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_processes_do_not_outlive_the_one_that_launched_them(
    endless: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
) -> None:
    members = [Path("/proc", (tmp_path / rank).read_text()) for rank in "01"]
    assert all(member.exists() for member in members)
    endless.send_signal(number)
    assert endless.wait(60) == -number
    wait_until(lambda: not any(member.exists() for member in members))


def test_interrupt_waits_until_all_have_saved(endless: subprocess.Popen[str], tmp_path: Path) -> None:
    endless.send_signal(signal.SIGINT)
    endless.communicate(timeout=60)
    assert endless.returncode == -signal.SIGINT
    assert all((tmp_path / f"saved {rank}").exists() for rank in "01")


def test_function_without_source_is_refused(tmp_path: Path) -> None:
    made: dict[str, Any] = {"__name__": "__main__"}
    exec("def work(): pass", made)
    with pytest.raises(
        MinitrainError, match="cannot find the source of work: define it in a module, a script or a"
    ):
        notebook_function_to_module(made["work"], str(tmp_path))


def test_script_launches_its_own_function(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import json\nfrom minitrain import launch, process_group\n\n\ndef work(base):\n"
        "    with process_group('cpu') as world:\n        return base + world.rank\n\n\n"
        "if __name__ == '__main__':\n    print(json.dumps(launch(work, (10,), 2)))\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [10, 11] and done.stderr == ""
