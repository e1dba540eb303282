"""Gradient checkpointing: the backward pass computes each block again, instead of keeping what the block computed.

Kept for each block are its input and the states of its random streams, so that dropout draws the same masks again.
The graph is that of the first pass, so gradients add up in the same order: losses and gradients keep their bits.

Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174. Not here:
`torch.utils.checkpoint`, which imports torch._dynamo (a second and 100 MB) and knows nothing of our own streams.
"""

import ctypes
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from minitrain.kernels.dropout import current_streams, drawing_from
from minitrain.kernels.precision import device_random_state, set_device_random_state
from minitrain.kernels.prepack import current_weights, using

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of glibc's malloc.h


def recompute_blocks(blocks: Iterable[nn.Module]) -> None:
    """Make each block forget what it computes in training, in place; evaluations are as before."""
    for block in blocks:
        # The function of the class, bound to the block: a deep copy then computes with its own weights.
        block.forward = MethodType(partial(_forward, type(block).forward), block)


def return_freed_memory() -> None:
    """Make glibc return tensors of 1 MB or more to the system when they are freed, from now on in this process.

    By default it keeps what is freed, up to 32 MB a tensor: gradients and activations of other sizes then do not
    fit into the holes, which takes 300 MB of BERT base. Costs a page fault for each 4 KB of a new tensor.
    """
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 1 << 20)


def _forward(plain: Callable[..., Tensor], block: nn.Module, x: Tensor, *args: Any) -> Tensor:
    if not (torch.is_grad_enabled() and block.training):
        return plain(block, x, *args)
    again, kept = _again(partial(plain, block), x, args), dict[int, Tensor]()
    numbers = iter(range(1 << 62))

    def unpack(number: int) -> Tensor:
        if number not in kept:
            kept.update(enumerate(again()))
        return kept.pop(number)  # used once, so its memory is free as soon as the backward pass has passed it

    with saved_tensors_hooks(lambda _: next(numbers), unpack):
        return plain(block, x, *args)


def _again(function: Callable[..., Tensor], x: Tensor, args: tuple[Any, ...]) -> Callable[[], list[Tensor]]:
    """What a second call of the function, computing as one would now, keeps for its backward pass, in order."""
    replayed = _replaying(x.device)

    def again() -> list[Tensor]:
        kept: list[Tensor] = []
        # Detached: what is kept must not hold the graph of this second call.
        with torch.enable_grad(), replayed(), saved_tensors_hooks(lambda each: kept.append(each.detach()), _unused):
            function(x.detach().requires_grad_(x.requires_grad), *args)
        return kept

    return again


def _unused(_: Any) -> Tensor:
    raise AssertionError("the graph of a second call has no backward pass")


def _replaying(device: torch.device) -> Callable[[], AbstractContextManager[None]]:
    """A context in which dropout, autocast and cast weights are as now.

    A GPU's backward pass runs in a thread of its own, which sees none of the blocks around this call.
    """
    streams, weights, kind, random = current_streams(), current_weights(), device.type, _random_states(device)
    states = [] if streams is None else [each.get_state() for each in streams.generators]
    dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
    cached = torch.is_autocast_cache_enabled()

    @contextmanager
    def replayed() -> Iterator[None]:
        now, states_now = (
            _random_states(device),
            [each.get_state() for each in streams.generators] if streams else [],
        )
        _set_random_states(device, random)
        if streams is not None:
            streams.set_states(states)
        try:
            with (
                torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=cached),
                nullcontext() if weights is None else using(weights),
                nullcontext() if streams is None else drawing_from(streams),
            ):
                yield
        finally:
            _set_random_states(device, now)
            if streams is not None:
                streams.set_states(states_now)

    return replayed


def _random_states(device: torch.device) -> list[Tensor]:
    """Of the CPU, and of the device if that has its own generator."""
    on_device = device_random_state(device)
    return [torch.get_rng_state(), *([] if on_device is None else [on_device])]


def _set_random_states(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        set_device_random_state(device, states[1])
