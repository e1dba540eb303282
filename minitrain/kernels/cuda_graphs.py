"""Optimizer steps as CUDA graphs: one for each shape of batch, recorded when the shape first occurs, then replayed.

A GPU finishes a small kernel before Python launches the next one, so a step of a few hundred tokens takes as long
as Python takes. A graph launches all kernels of a step at once, from the embeddings to AdamW.

A graph holds kernels and addresses, not numbers: batch and learning rate are copied to where the recording read
them. Random numbers continue as without a graph, since PyTorch passes the state of the stream to each replay.
Nothing inside may ask the device for a number; so a loss that is not finite skips its update, and all that follow,
by a flag that stays on the device.

Source: CUDA C++ Programming Guide, "CUDA Graphs"; `torch.cuda.graph`, torch 2.13.
"""

from collections.abc import Callable, Hashable
from typing import Any, Protocol

import torch
from torch import Tensor


class Batch(Protocol):
    """The part of a batch that a recording needs."""

    @property
    def input_ids(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor | None: ...
    def to(self, device: torch.device) -> Any: ...


# (batch, learning rate, found_inf) -> (2,) loss and gradient norm, all on the device. found_inf: 0-dim, 1 once a
# loss or norm was not finite.
Compute = Callable[[Any, Tensor, Tensor], Tensor]


class StepGraphs:
    """The recorded steps of one training, by the shape of their batch."""

    def __init__(self, device: torch.device) -> None:
        self._learning_rate, self._found_inf = (torch.zeros((), device=device) for _ in range(2))
        self._pool: Any = None  # memory that all graphs share: one is replayed at a time
        self._recorded: dict[Hashable, tuple[Any, Tensor, Callable[[], None]]] = {}

    def launch(
        self, batch: Batch, learning_rate: float, compute: Compute, settings: Hashable
    ) -> Callable[[], tuple[float, float]]:
        """Launch a step and return what waits for its loss and norm.

        settings: All that decides about `compute` besides its arguments.
        """
        assert batch.labels is not None
        key = batch.input_ids.shape, batch.labels.dtype, settings
        if key not in self._recorded:
            static = batch.to(self._found_inf.device)
            work = self._record(lambda: compute(static, self._learning_rate, self._found_inf))
            self._recorded[key] = static, *work
        static, outcome, replay = self._recorded[key]
        static.fill(batch)
        self._learning_rate.fill_(learning_rate)
        replay()
        return _reader(outcome)

    def reset_found_inf(self) -> None:
        """Update again, after the caller has learned of the step that was not finite."""
        self._found_inf.zero_()

    def _record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """The tensor that a replay writes its outcome to, and the replay."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            outcome = work()
        self._pool = graph.pool()
        return outcome, graph.replay


def _reader(outcome: Tensor) -> Callable[[], tuple[float, float]]:
    """Copy a result on its way, before a later step overwrites it; the function returned waits for the copy."""
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
