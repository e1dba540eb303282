"""Which device a process computes on."""

from typing import Protocol

import torch

from minitrain.errors import MinitrainError


class Rank(Protocol):
    """A process's place among those of its machine: a `World`."""

    @property
    def local_rank(self) -> int: ...
    @property
    def size(self) -> int: ...


def choose_device(name: str, world: Rank) -> torch.device:
    """The device for `cpu`, `cuda` (the GPU of this local rank), `mps` or `auto` (a GPU if PyTorch sees one)."""
    if name == "mps" and (world.size > 1 or not torch.backends.mps.is_available()):
        why = f"{world.size} processes cannot share it" if world.size > 1 else "PyTorch sees no Apple GPU here"
        raise MinitrainError(f"--device mps: {why}; use --device cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise MinitrainError("--device cuda: PyTorch sees no GPU here; use --device cpu, or install a CUDA build")
    if name in ("cpu", "mps") or not torch.cuda.is_available():
        return torch.device("mps" if name == "mps" else "cpu")
    if world.local_rank >= torch.cuda.device_count():
        raise MinitrainError(
            f"local rank {world.local_rank} has no GPU: this machine has {torch.cuda.device_count()}; start as "
            "many processes as there are GPUs, or pass --device cpu"
        )
    return torch.device("cuda", world.local_rank)
