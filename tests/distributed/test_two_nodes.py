"""Two torchruns in two network namespaces, joined by a pair of virtual wires: what two machines would do."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_faults import ENVIRONMENT, LONG, ROOT, SOON, command, torchrun, wait_for_step

NODES = ("minitrain-a", "minitrain-b")
ADDRESSES = ("10.0.0.1", "10.0.0.2")
PAGE = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def nodes() -> Iterator[None]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and the command ip, to make two network namespaces")
    try:
        for node in NODES:
            ip("netns", "add", node)
        ip("link", "add", "wire-a", "netns", NODES[0], "type", "veth", "peer", "name", "wire-b", "netns", NODES[1])
        for node, wire, address in zip(NODES, ("wire-a", "wire-b"), ADDRESSES, strict=True):
            ip("-n", node, "addr", "add", f"{address}/24", "dev", wire)
            ip("-n", node, "link", "set", wire, "up")
            ip("-n", node, "link", "set", "lo", "up")
        yield
    finally:
        for node in NODES:
            subprocess.run(["ip", "netns", "delete", node], capture_output=True)


def documented_command(node: int) -> list[str]:
    """The flags of torchrun that docs/scaling.md gives for one of two machines."""
    found = [line for line in PAGE.splitlines() if "torchrun --nnodes=2" in line]
    assert len(found) == 2 and all("10.0.0.1" in line for line in found)
    words = shlex.split(found[node].split("scripts/train.py")[0])
    variables = [word for word in words if re.match(r"[A-Z_]+=", word)]
    assert words[len(variables)] == "torchrun" and variables == ["GLOO_SOCKET_IFNAME=eth0"]
    return words[len(variables) + 1 :]


def start(node: int, words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["ip", "netns", "exec", NODES[node], sys.executable, "-m", "torch.distributed.run"]
        + [*documented_command(node), *words],
        env=ENVIRONMENT | {"GLOO_SOCKET_IFNAME": f"wire-{'ab'[node]}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def test_two_nodes_train_as_one_with_as_many_processes(nodes: None, place: Path, tmp_path: Path) -> None:
    flags = ("--max_steps", "6", "--per_device_train_batch_size", "3")
    both = [start(node, command(place, tmp_path / f"node-{node}", *flags)) for node in (0, 1)]
    for process in both:
        _, error = process.communicate(timeout=SOON)
        assert process.returncode == 0, error
    with torchrun(command(place, tmp_path / "one", *flags), size=4) as agent:
        agent.communicate(timeout=SOON)
    assert agent.returncode == 0
    assert not (tmp_path / "node-1").exists()  # the first process writes for all
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("node-0", "one")]
    assert weights[0] == weights[1]


@pytest.mark.fault(22)
def test_cut_wire_ends_both_nodes_naming_the_step(nodes: None, place: Path, tmp_path: Path) -> None:
    words = command(place, tmp_path / "out", *LONG, "--ddp_timeout", "3")
    both = [start(node, words) for node in (0, 1)]
    try:
        wait_for_step(tmp_path / "out", 5)
        ip("-n", NODES[1], "link", "set", "wire-b", "down")
        # Their torchruns wait much longer for each other: it is the workers that have to notice.
        said = [next(line for line in node.stderr or () if line.startswith("train.py: ")) for node in both]
    finally:
        for process in both:
            process.kill()
            process.communicate()
        ip("-n", NODES[1], "link", "set", "wire-b", "up")
    for line, ranks in zip(said, ("01", "23"), strict=True):
        lost = rf"train.py: (after )?step \d+: rank [{ranks}] has no answer from another process .*cut off"
        assert re.match(lost, line)
