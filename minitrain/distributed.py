"""Which process this is, and which device it computes on: torchrun's environment, or one process without it.

minitrain trains in one process; a larger world is refused rather than trained wrongly.
"""

import os
from dataclasses import dataclass

import torch

from minitrain.errors import MinitrainError


@dataclass(frozen=True, kw_only=True)
class World:
    """This process's place: `rank` of `size` overall, `local_rank` on this machine."""

    rank: int = 0
    local_rank: int = 0
    size: int = 1


def world_from_environment() -> World:
    """Read RANK, LOCAL_RANK and WORLD_SIZE as torchrun sets them; without them, one process.

    Raises MinitrainError naming the variable that is no number, and for more than one process.
    """
    world = World(rank=_number("RANK", 0), local_rank=_number("LOCAL_RANK", 0), size=_number("WORLD_SIZE", 1))
    if world.size != 1:
        raise MinitrainError(
            f"WORLD_SIZE is {world.size}; minitrain trains in one process: torchrun --nnodes=1 --nproc_per_node=1"
        )
    return world


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    if not text.isdecimal():
        raise MinitrainError(f"the environment variable {variable} is {text!r}; torchrun sets it to a number")
    return int(text)


def choose_device(name: str, world: World) -> torch.device:
    """The device of a process: `cpu`, `cuda` (the process's own GPU), or `auto`, a GPU where there is one.

    Raises MinitrainError where a GPU is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise MinitrainError("--device cuda: PyTorch sees no GPU here; use --device cpu, or install a CUDA build")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", world.local_rank)
