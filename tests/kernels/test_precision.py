"""Which precision a device gets, and which devices there are."""

import pytest
import torch

from minitrain.config.inference_config import PredictConfig
from minitrain.config.train_config import TrainConfig
from minitrain.distributed.device import choose_device
from minitrain.distributed.world import World
from minitrain.errors import MinitrainError
from minitrain.kernels.precision import autocast, check_precision, compute_dtype

CUDA = torch.device("cuda")


@pytest.mark.parametrize(
    ("name", "capability", "refused"),
    [("P100", (6, 0), True), ("V100", (7, 0), True), ("T4", (7, 5), True), ("A100", (8, 0), False)]
    + [("L4", (8, 9), False), ("H200", (9, 0), False)],
)
def test_bf16_is_refused_where_a_gpu_emulates_it(name: str, capability: tuple[int, int], refused: bool) -> None:
    for config in (TrainConfig(bf16=True), PredictConfig(run="run", bf16=True)):
        if refused:
            with pytest.raises(MinitrainError, match=rf"capability {capability[0]}\.{capability[1]} .*--fp16"):
                check_precision(config, CUDA, capability)
        else:
            check_precision(config, CUDA, capability)
    check_precision(TrainConfig(fp16=True), CUDA, capability)
    check_precision(TrainConfig(bf16=True), torch.device("cpu"), capability)


def test_each_precision_has_its_dtype() -> None:
    for flags, dtype in (({}, torch.float32), ({"bf16": True}, torch.bfloat16), ({"fp16": True}, torch.float16)):
        config = TrainConfig(**flags)  # type: ignore[arg-type]
        assert compute_dtype(config) == dtype
        with autocast(torch.device("cpu"), compute_dtype(config)):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has one")
def test_an_apple_gpu_is_refused_where_there_is_none() -> None:
    with pytest.raises(MinitrainError, match="no Apple GPU here; use --device cpu"):
        choose_device("mps", World())


def test_processes_do_not_share_an_apple_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("mps", World()) == torch.device("mps")
    with pytest.raises(MinitrainError, match="2 processes cannot share it"):
        choose_device("mps", World(size=2))
