"""Which process this is, the group that it belongs to, and what its processes tell each other.

torchrun starts the processes, or `launch` does from Python; torch.distributed moves the numbers, by gloo between
CPUs and by NCCL between GPUs. One process is the same code with nobody to talk to.

A failure is shown once: the first process that fails leaves word in the store that brought the group together, and
the others, who find it or lose touch, end without a word of their own.
"""

import gc
import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from itertools import count
from threading import Thread

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from minitrain.errors import MinitrainError, PeerError

# What gloo, NCCL and the store say when somebody is gone or silent.
_LOST = re.compile(r"gloo|nccl|connection|broken pipe|timed out|timeout|pair clos|socket", re.IGNORECASE)
FAILURE = "failure"  # the key under which the first process that fails leaves its rank
_groups = count()  # of this process, one after the other: what one left in the store is nothing to the next


@dataclass(frozen=True, kw_only=True)
class World:
    """The place of this process: rank of size in all, local_rank on its node, which is the node-th.

    timeout: seconds to wait for each other. store: where they leave each other word; None for a single one.
    """

    rank: int = 0
    local_rank: int = 0
    size: int = 1
    node: int = 0
    timeout: float = field(default=math.inf, compare=False)
    store: dist.Store | None = field(default=None, compare=False, repr=False)

    @property
    def is_main(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Add up a tensor over all processes, in place; each gets the same bits."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def all_gather(self, tensor: Tensor) -> Tensor:
        """(size, ...): the tensors of all processes, of one shape and dtype, by rank; each process gets all."""
        rows = torch.zeros(self.size, *tensor.shape, dtype=tensor.dtype)
        rows[self.rank] = tensor
        return self.all_reduce(rows)

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Fill a tensor, in place, with that of rank 0."""
        if self.size > 1:
            dist.broadcast(tensor, 0)
        return tensor

    def broadcast_text(self, key: str, text: str) -> str:
        """What rank 0 has to say, in all processes. key: new in every call."""
        if self.store is None:
            return text
        if self.is_main:
            self.store.set(key, text)
        return self._word(key, f"waiting for the {key} of rank 0").decode()

    def barrier(self, where: str) -> None:
        """Go on when all processes are here."""
        with self.naming_lost_peers(where):
            self.all_reduce(torch.zeros(()))

    @contextmanager
    def naming_lost_peers(self, where: str) -> Iterator[None]:
        """Around what talks to other processes: raises PeerError, saying where, when one of them is missing."""
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
        """Let the first process of each node go ahead, and the others when it is done: they find its files.

        However long it takes, they wait; that it fails, they hear. what: names the work, once a group.
        """
        done = f"{what} {self.node}"
        if self.store is not None and self.local_rank > 0:
            self._word(done, what, math.inf)
        yield
        if self.store is not None and self.local_rank == 0:
            self.store.set(done, "done")

    def check_agreement(self, facts: Mapping[str, object]) -> None:
        """Raise MinitrainError, naming rank and field, unless all processes bring the same facts."""
        if self.store is None:
            return
        mine = {name: str(fact) for name, fact in facts.items()}
        self.store.set(f"facts {self.rank}", json.dumps(mine))
        where = "comparing the processes' flags, data and versions"
        first, *others = [json.loads(self._word(f"facts {rank}", where)) for rank in range(self.size)]
        for rank, other in enumerate(others, start=1):
            for name in sorted(first.keys() | other.keys()):
                if first.get(name) != other.get(name):
                    raise MinitrainError(
                        f"rank {rank} has {name} {other.get(name)}, rank 0 has {first.get(name)}: "
                        "all processes of a run need the same flags, data and versions"
                    )

    def _word(self, key: str, where: str, patience: float | None = None) -> bytes:
        """What another process left in the store, once it is there.

        patience: seconds; by default the timeout. Raises PeerError where one failed instead, or says nothing.
        """
        assert self.store is not None
        deadline = time.monotonic() + (self.timeout if patience is None else patience)
        with self.naming_lost_peers(where):
            while not self.store.check([key]):
                if self.store.check([FAILURE]):
                    raise PeerError(f"{where}: another process failed")
                if time.monotonic() > deadline:
                    raise PeerError(f"{where}: rank {self.rank} has no answer from another process")
                time.sleep(0.05)
            return self.store.get(key)


def world_from_environment() -> World:
    """Read the place of this process from the variables that torchrun sets; without them, one process.

    Raises MinitrainError naming the variable that is missing or no number.
    """
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
    """Join the processes that torchrun started, and leave them at the end: `with process_group() as world:`.

    device: as of `choose_device`. timeout: seconds to wait for each other, here and in every exchange.
    Raises MinitrainError where they do not come together. Of several processes that fail inside, the first raises
    its own error and the others PeerError.
    """
    world = world_from_environment()
    if world.size == 1:
        yield world
        return
    own = not dist.is_initialized()
    # torchrun keeps the store when it starts the processes again.
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
            time.sleep(1.0)  # torchrun ends all when one has ended: the first one has something to say before
            raise PeerError(f"rank {world.rank}: another process failed") from error
        if isinstance(error, PeerError):
            raise PeerError(
                f"{error}. It left no word: it was killed, as for want of memory, or is cut off, or hangs longer "
                f"than --ddp_timeout ({timeout:g} s)",
                alone=True,
            ) from error
        raise
    finally:
        if own:
            # DistributedDataParallel is in cycles, which keep threads of the group: one that wants to run while
            # Python shuts down aborts the process.
            gc.collect()
            dist.destroy_process_group()


def _join(world: World, device: torch.device, timeout: float, name: str) -> dist.Store:
    """Bring the processes together. Returns where they leave each other word, under keys of this group alone."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    patience = timedelta(seconds=timeout)
    try:
        # A second group that met in the same place would find the addresses of the first one's processes there.
        store = dist.PrefixStore(name, _meeting_place(patience))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=world.rank,
            world_size=world.size,
            timeout=patience,
            device_id=device if device.type == "cuda" else None,
        )
    except (RuntimeError, ValueError) as error:
        raise MinitrainError(
            f"rank {world.rank} cannot join the other {world.size - 1} processes at {os.environ['MASTER_ADDR']}:"
            f"{os.environ['MASTER_PORT']} within {timeout:g} s ({str(error).splitlines()[0]}): check that the "
            "address is that of rank 0's machine, the port free there and open to the others, and all were started"
        ) from error
    return store


@cache
def _meeting_place(patience: timedelta) -> dist.Store:
    """The store of the processes that were started together, found once: its variables stay as they are."""
    store: dist.Store = next(dist.rendezvous("env://", timeout=patience))[0]
    return store


def _is_first_failure(world: World) -> bool:
    """Leave word that this process failed; whether it is the first to do so, as far as one can know."""
    store, rank, first = world.store, str(world.rank), [True]
    assert store is not None

    def ask() -> None:
        with suppress(RuntimeError):  # the store is gone with the process that held it
            first[0] = store.compare_set(FAILURE, "", rank) == rank.encode()

    # Over a wire that is cut no answer comes, and the store would wait for it for ever.
    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(5.0)
    return first[0]


def choose_device(name: str, world: World) -> torch.device:
    """The device of a process: `cpu`, `cuda` (the process's own GPU), or `auto`, a GPU where there is one.

    Raises MinitrainError where a GPU is asked for and there is none, or fewer than processes on the node.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise MinitrainError("--device cuda: PyTorch sees no GPU here; use --device cpu, or install a CUDA build")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if world.local_rank >= torch.cuda.device_count():
        raise MinitrainError(
            f"local rank {world.local_rank} has no GPU: this machine has {torch.cuda.device_count()}; start as "
            "many processes as there are GPUs, or pass --device cpu"
        )
    return torch.device("cuda", world.local_rank)


def ddp(model: nn.Module, world: World) -> nn.Module:
    """The model so wrapped that a backward pass averages gradients over all processes, or itself for one process.

    The processes start from the weights of rank 0. Call it when it is settled which gradients are sparse.
    """
    if world.size == 1:
        return model
    with world.naming_lost_peers("comparing the processes' models"):
        return DistributedDataParallel(model)


@contextmanager
def sync_gradients(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Whether the backward pass inside exchanges gradients; those of passes that do not are added up before."""
    if wanted or not isinstance(model, DistributedDataParallel):
        yield
    else:
        with model.no_sync():
            yield
