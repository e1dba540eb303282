"""Optimizer steps as CUDA graphs: one for each shape of batch, recorded when a shape is first met, then replayed.

A GPU is done with a small kernel sooner than Python launches the next: a step of a few hundred tokens then takes as
long as Python takes. A graph launches all kernels of a step at once, from the embeddings to AdamW, and Python has
time to make the next batch and to read the loss of the one before.

What is recorded is the work and the places in memory, not the numbers: a batch and a learning rate are copied to
where the recording has them. Random numbers go on as they would without (PyTorch tells each replay where the stream
is). Nothing inside may ask the device for a number; a loss that is not finite therefore skips the update of its
step, and of all that follow, by a number that stays on the device.

Source: CUDA C++ Programming Guide, "CUDA Graphs"; `torch.cuda.graph`, torch 2.13.
"""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from minitrain.data.batch import Batch

# (batch, learning rate, skip) -> (2,) loss and gradient norm: one step, all of it on the device. skip: 0-dim, 1
# once a loss or norm was not finite.
Compute = Callable[[Batch, Tensor, Tensor], Tensor]
Read = Callable[[], tuple[float, float]]


class StepGraphs:
    """The recorded steps of one training, by the shape of their batch."""

    def __init__(self, device: torch.device) -> None:
        self.warm = False  # whether a step was done without: libraries and moments are set up in the first
        self._learning_rate, self._skip = (torch.zeros((), device=device) for _ in range(2))
        self._pool: Any = None  # of memory, which all of them share: one is replayed at a time
        self._recorded: dict[Hashable, tuple[Batch, Tensor, Callable[[], None]]] = {}

    def launch(self, batch: Batch, learning_rate: float, compute: Compute, settings: Hashable) -> Read:
        """Hand a step to the device, and go on; what it returns waits for loss and norm.

        settings: all that decides about `compute` besides its arguments.
        """
        assert batch.labels is not None
        key = batch.input_ids.shape, batch.labels.dtype, settings
        if key not in self._recorded:
            place = batch.to(self._skip.device)
            self._recorded[key] = place, *self._record(lambda: compute(place, self._learning_rate, self._skip))
        place, outcome, replay = self._recorded[key]
        place.fill(batch)
        self._learning_rate.fill_(learning_rate)
        replay()
        return _reader(outcome)

    def forgive(self) -> None:
        """Update again: whoever was told of the broken step may have mended what broke it."""
        self._skip.zero_()

    def _record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """Where a replay leaves what the work returns, and what replays it."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            outcome = work()
        self._pool = graph.pool()
        return outcome, graph.replay


def _reader(outcome: Tensor) -> Read:
    """Two numbers of a step that is under way, as they will be when it is done, whatever follows it."""
    on_gpu = outcome.device.type == "cuda"
    host = torch.empty(outcome.shape, dtype=outcome.dtype, pin_memory=on_gpu).copy_(outcome, non_blocking=True)
    done = torch.cuda.Event() if on_gpu else None
    if done is not None:
        done.record()

    def read() -> tuple[float, float]:
        if done is not None:
            done.synchronize()
        loss, norm = host.tolist()
        return loss, norm

    return read
