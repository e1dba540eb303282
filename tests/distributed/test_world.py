"""Which process this is, from torchrun's variables, and the device it gets."""

import pytest
import torch

from minitrain.data.batch import collate
from minitrain.data.tokenizer.tokenizer import Example
from minitrain.distributed.device import choose_device
from minitrain.distributed.world import World, ddp, process_group, world_from_environment
from minitrain.errors import MinitrainError, PeerError


@pytest.fixture(autouse=True)
def no_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(variable, raising=False)


def test_without_torchrun_there_is_one_process() -> None:
    world = world_from_environment()
    assert world == World(rank=0, local_rank=0, size=1)


def test_place_is_read_from_the_variables_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "GROUP_RANK": "2"}
    for variable, value in (place | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}).items():
        monkeypatch.setenv(variable, value)
    world = world_from_environment()
    assert world == World(rank=5, local_rank=1, size=8, node=2)
    assert not world.is_main and World().is_main


def test_rank_beyond_the_number_of_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MinitrainError, match="^RANK is 2 and WORLD_SIZE 2; ranks count from 0 to one less"):
        world_from_environment()


def test_one_process_needs_no_group() -> None:
    with process_group() as world:
        assert world == World() and not torch.distributed.is_initialized()
        tensor = torch.ones(2)
        assert world.all_reduce(tensor) is tensor and torch.equal(tensor, torch.ones(2))
        world.barrier("nowhere")
        world.check_agreement({"a fact": 1})
        with world.local_main_first("data"):
            model = torch.nn.Linear(2, 2)
        assert ddp(model, world) is model


def test_error_that_is_no_lost_peer_stays_what_it_is() -> None:
    for world in (World(), World(size=2)):
        with pytest.raises(RuntimeError, match="^shapes differ") as raised, world.naming_lost_peers("step 3"):
            raise RuntimeError("shapes differ")
        assert not isinstance(raised.value, MinitrainError)
    with (
        pytest.raises(PeerError, match=r"^step 3: rank 0 has no answer from another process \(\[gloo\] Connection"),
        World(size=2).naming_lost_peers("step 3"),
    ):
        raise RuntimeError("[gloo] Connection closed by peer\nmore")


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK", "WORLD_SIZE"])
@pytest.mark.parametrize("value", ["", "one", "-1", "1.0"])
def test_variable_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(MinitrainError, match=rf"the environment variable {variable} is '{value}'"):
        world_from_environment()


def test_cpu_is_taken_when_asked_for() -> None:
    assert choose_device("cpu", World()) == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_an_error() -> None:
    assert choose_device("auto", World()) == torch.device("cpu")
    with pytest.raises(MinitrainError, match="--device cuda: PyTorch sees no GPU here; use --device cpu"):
        choose_device("cuda", World())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_with_a_gpu_a_process_takes_its_own() -> None:
    assert choose_device("auto", World()) == choose_device("cuda", World()) == torch.device("cuda", 0)
    count = torch.cuda.device_count()
    with pytest.raises(MinitrainError, match=f"local rank {count} has no GPU: this machine has {count}"):
        choose_device("auto", World(local_rank=count, rank=count, size=count + 1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batch_goes_to_the_gpu_and_back() -> None:
    batch = collate([Example([1, 2], [0, 0], 1), Example([3], [0], 0)])
    moved = batch.to("cuda")
    assert moved.input_ids.is_cuda and torch.equal(moved.input_ids.cpu(), batch.input_ids)
    assert moved.labels is not None and moved.to("cuda").labels is moved.labels
