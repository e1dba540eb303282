"""The process group: rank and size of this process, collectives, and who reports a failure.

torchrun or `launch` starts the processes; torch.distributed connects them, by gloo on CPUs and NCCL on GPUs. A
single process runs the same code without a group.

A failure is reported once: the first process that fails sets a key in the group's store, the others end silently.
"""

import atexit
import gc
import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from itertools import count
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from minitrain.distributed.device import choose_device
from minitrain.errors import MinitrainError, PeerError

# Matches the errors of gloo, NCCL and the store when another process is gone or does not answer.
_LOST = re.compile(r"gloo|nccl|connection|broken pipe|timed out|timeout|pair clos|socket", re.IGNORECASE)
FAILURE = "failure"  # the key that holds the rank of the first process that failed
_groups = count()  # numbers the groups of this process, whose keys share one store
_ended: list[Any] = []  # groups that are freed when the next one begins, or the process ends
atexit.register(_ended.clear)


@dataclass(frozen=True, kw_only=True)
class World:
    """This process's place in the group, under torchrun's names: by default a single process.

    Attributes:
        node: torchrun's GROUP_RANK.
        timeout: Seconds to wait for another process.
        store: The group's key-value store; None for a single process.
    """

    rank: int = 0
    local_rank: int = 0
    size: int = 1
    node: int = 0
    timeout: float = field(default=math.inf, compare=False)
    store: dist.Store | None = field(default=None, compare=False, repr=False)

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes files."""
        return self.rank == 0

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place; each gets the same bits."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Stack the tensors of all processes, of one shape and dtype, by rank: (size, ...)."""
        rows = torch.zeros(self.size, *tensor.shape, dtype=tensor.dtype)
        rows[self.rank] = tensor
        return self.all_reduce(rows)

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Overwrite a tensor with rank 0's."""
        if self.size > 1:
            dist.broadcast(tensor, 0)
        return tensor

    def broadcast_text(self, key: str, text: str) -> str:
        """Return rank 0's text in all processes. `key` must differ from call to call."""
        if self.store is None:
            return text
        if self.is_main:
            self.store.set(key, text)
        return self._wait_for(key, f"waiting for the {key} of rank 0").decode()

    def barrier(self, where: str) -> None:
        """Wait until all processes arrive; `where` is named if one does not."""
        with self.naming_lost_peers(where):
            self.all_reduce(torch.zeros(()))

    @contextmanager
    def naming_lost_peers(self, where: str) -> Iterator[None]:
        """Raise PeerError, naming `where`, if a collective inside fails because another process is gone."""
        try:
            yield
        except RuntimeError as error:
            if self.size > 1 and not isinstance(error, MinitrainError) and _LOST.search(str(error)):
                reason = str(error).splitlines()[0]
                raise PeerError(
                    f"{where}: rank {self.rank} has no answer from another process ({reason})"
                ) from error
            raise

    @contextmanager
    def local_main_first(self, what: str) -> Iterator[None]:
        """Run the block in the first process of each node, then in the others, which find its files.

        The others wait without a timeout, but end if another process fails. `what` must differ from block to block.
        """
        done = f"{what} {self.node}"
        if self.store is not None and self.local_rank > 0:
            self._wait_for(done, what, math.inf)
        yield
        if self.store is not None and self.local_rank == 0:
            self.store.set(done, "done")

    def check_agreement(self, facts: Mapping[str, object]) -> None:
        """Raise MinitrainError, naming rank and field, unless all processes have the same facts."""
        if self.store is None:
            return
        mine = {name: str(fact) for name, fact in facts.items()}
        self.store.set(f"facts {self.rank}", json.dumps(mine))
        where = "comparing the processes' flags, data and versions"
        first, *others = [json.loads(self._wait_for(f"facts {rank}", where)) for rank in range(self.size)]
        for rank, other in enumerate(others, start=1):
            for name in sorted(first.keys() | other.keys()):
                if first.get(name) != other.get(name):
                    raise MinitrainError(
                        f"rank {rank} has {name} {other.get(name)}, rank 0 has {first.get(name)}: "
                        "all processes of a run need the same flags, data and versions"
                    )

    def _wait_for(self, key: str, where: str, timeout: float | None = None) -> bytes:
        """Wait for another process to set a key. Raises PeerError if one fails or the time is up."""
        assert self.store is not None
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        with self.naming_lost_peers(where):
            while not self.store.check([key]):
                if self.store.check([FAILURE]):
                    raise PeerError(f"{where}: another process failed")
                if time.monotonic() > deadline:
                    raise PeerError(f"{where}: rank {self.rank} has no answer from another process")
                time.sleep(0.05)
            return self.store.get(key)


def world_from_environment() -> World:
    """Read the variables that torchrun sets. Raises MinitrainError for one that is missing or not a number."""
    world = World(
        rank=_number("RANK", 0),
        local_rank=_number("LOCAL_RANK", 0),
        size=_number("WORLD_SIZE", 1),
        node=_number("GROUP_RANK", 0),
    )
    if world.rank >= world.size:
        raise MinitrainError(f"RANK is {world.rank} and WORLD_SIZE {world.size}; ranks count from 0 to one less")
    if world.size > 1:
        for variable in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            if variable not in os.environ:
                raise MinitrainError(
                    f"WORLD_SIZE is {world.size}, but the environment variable {variable} is missing: start with "
                    "torchrun, which sets them all"
                )
    return world


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    if not text.isdecimal():
        raise MinitrainError(f"the environment variable {variable} is {text!r}; torchrun sets it to a number")
    return int(text)


@contextmanager
def process_group(device: str = "auto", timeout: float = 600.0) -> Iterator[World]:
    """Join the processes that torchrun or `launch` started: `with process_group() as world:`.

    Args:
        device: As for `choose_device`.
        timeout: Seconds to wait for another process, here and in every collective.

    Raises:
        MinitrainError: The processes cannot connect.
        PeerError: Another process failed first; that one raises its own error.
    """
    world = world_from_environment()
    if world.size == 1:
        yield world
        return
    own = not dist.is_initialized()
    # torchrun keeps the store and its keys when it restarts.
    name = f"minitrain {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')} {next(_groups)}"
    if own:
        store = _join(world, choose_device(device, world), timeout, name)
    else:
        store = dist.PrefixStore(name, dist.distributed_c10d._get_default_store())
    world = replace(world, store=store, timeout=timeout)
    try:
        yield world
    except Exception as error:
        if not _is_first_failure(world):
            time.sleep(1.0)  # torchrun kills all when one ends, and the first must print its error before
            raise PeerError(f"rank {world.rank}: another process failed") from error
        if world.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            time.sleep(1.0)  # the store ends with this process, and the others must learn from it who failed first
        if isinstance(error, PeerError):
            raise PeerError(
                f"{error}. It left no message: it was killed (out of memory?), is cut off, or hangs longer than "
                f"--ddp_timeout ({timeout:g} s)",
                alone=True,
            ) from error
        raise
    finally:
        if own:
            # Reference cycles of DistributedDataParallel keep the group's threads alive; one that runs while Python
            # shuts down aborts the process.
            gc.collect()
            # The last to hold the group must not be a DistributedDataParallel: it would free it with Python's lock
            # held, for which gloo's thread may wait with the group's. Python lets go of its own lock first.
            _ended.append(dist.group.WORLD)
            dist.destroy_process_group()


def _join(world: World, device: torch.device, timeout: float, name: str) -> dist.Store:
    """Connect the processes and return the store, whose keys carry the group's name as a prefix."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    limit = timedelta(seconds=timeout)
    _ended.clear()
    try:
        # Without the prefix, a second group would find the addresses of the first group's processes in the store.
        store = dist.PrefixStore(name, _shared_store(limit))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=world.rank,
            world_size=world.size,
            timeout=limit,
            device_id=device if device.type == "cuda" else None,
        )
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise MinitrainError(
            f"rank {world.rank} cannot join the other {world.size - 1} processes at {place} within {timeout:g} s "
            f"({str(error).splitlines()[0]}): check that the address is that of rank 0's machine, the port free "
            "there and open to the others, and all were started"
        ) from error
    return store


@cache
def _shared_store(limit: timedelta) -> dist.Store:
    """The store at MASTER_ADDR and MASTER_PORT; cached, because rank 0 can open the port only once."""
    store: dist.Store = next(dist.rendezvous("env://", timeout=limit))[0]
    return store


def _is_first_failure(world: World) -> bool:
    """Record the failure of this process; whether it is the first, as far as the store answers."""
    store, rank, first = world.store, str(world.rank), [True]
    assert store is not None

    def ask() -> None:
        with suppress(RuntimeError):  # the store is gone with the process that held it
            first[0] = store.compare_set(FAILURE, "", rank) == rank.encode()

    # If the network is cut, compare_set never returns.
    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(5.0)
    return first[0]


def ddp(model: nn.Module, world: World) -> nn.Module:
    """Wrap the model in DistributedDataParallel, which averages gradients; a single process gets it unwrapped.

    All processes get rank 0's weights. Call it after choosing which embeddings have sparse gradients.
    """
    if world.size == 1:
        return model
    with world.naming_lost_peers("comparing the processes' models"):
        return DistributedDataParallel(model)


def sync_gradients(model: nn.Module, wanted: bool) -> AbstractContextManager[None]:
    """Choose whether the backward pass inside averages gradients over the processes, or only accumulates them."""
    return nullcontext() if wanted or not isinstance(model, DistributedDataParallel) else model.no_sync()
