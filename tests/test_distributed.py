"""Which process this is, from torchrun's variables, and the device it gets."""

import pytest
import torch

from minitrain.distributed import World, choose_device, world_from_environment
from minitrain.errors import MinitrainError


@pytest.fixture(autouse=True)
def no_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)


def test_without_torchrun_there_is_one_process() -> None:
    world = world_from_environment()
    assert world == World(rank=0, local_rank=0, size=1)


def test_place_is_read_from_the_variables_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in (("RANK", "0"), ("LOCAL_RANK", "3"), ("WORLD_SIZE", "1")):
        monkeypatch.setenv(variable, value)
    assert world_from_environment() == World(rank=0, local_rank=3, size=1)


@pytest.mark.parametrize("size", ["2", "16", "0"])
def test_more_than_one_process_is_refused(monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(MinitrainError, match=rf"^WORLD_SIZE is {size}; minitrain trains in one process: torchrun"):
        world_from_environment()


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
    assert choose_device("cuda", World(local_rank=1)) == torch.device("cuda", 1)
