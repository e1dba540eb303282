"""What the processes of `test_launcher.py` do; every process imports this file, so it imports little."""

import gc
import os
import signal
import weakref
from typing import Any

import torch

from minitrain.distributed.world import ddp, process_group
from minitrain.errors import Stopped


def place_and_sum(values: torch.Tensor) -> dict[str, Any]:
    with process_group("cpu") as world:
        total = world.all_reduce(values * (world.rank + 1))
        return {"rank": world.rank, "size": world.size, "total": total, "threads": torch.get_num_threads()}


def fail_on(rank: int) -> None:
    with process_group("cpu") as world:
        if world.rank == rank:
            raise ZeroDivisionError(f"rank {rank} divides")
        world.barrier("a meeting that rank never comes to")


def kill_on(rank: int) -> None:
    with process_group("cpu") as world:
        if world.rank == rank:
            os.kill(os.getpid(), signal.SIGKILL)
        world.barrier("a meeting that rank never comes to")


class Unsendable(Exception):
    """An error that does not survive the way to another process."""

    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = (item for item in ())


def fail_unsendably() -> None:
    raise Unsendable


class Picky(Exception):
    """An error that goes out whole and cannot be put together again."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def fail_pickily() -> None:
    raise Picky("two", "words")


def be_interrupted() -> None:
    raise Stopped("stopped by SIGTERM after step 3", signal.SIGTERM)


def three_groups() -> list[int]:
    ranks = []
    for _ in range(3):
        with process_group("cpu") as world:
            ranks.append(int(world.all_reduce(torch.tensor(1))))
            group, model = weakref.ref(torch.distributed.group.WORLD), ddp(torch.nn.Linear(2, 2), world)
        del model  # which outlives its group, and must not be what frees it
        gc.collect()
        assert group() is not None
    return ranks
