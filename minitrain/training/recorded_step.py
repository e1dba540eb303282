"""`train_step` for a GPU: recorded as a CUDA graph for each shape of batch, then replayed.

A GPU finishes a small kernel before Python launches the next one, so a step of a few hundred tokens takes as long
as Python takes. A graph launches all kernels of a step at once, from the embeddings to AdamW. It holds kernels and
addresses, not numbers: batch and learning rate are copied to where the recording read them. Random numbers
continue as without a graph, since PyTorch passes the state of the stream to each replay.

Loss and norm are read late: the GPU has its next step before Python waits for the numbers of the last one. Nothing
inside may ask the device for a number; so a loss that is not finite skips its update, and all that follow, by a
flag on the device, until Python has read of it.

Source: CUDA C++ Programming Guide, "CUDA Graphs"; `torch.cuda.graph`, torch 2.13.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from minitrain.data.batch import Batch
from minitrain.errors import MinitrainError
from minitrain.kernels.dropout import ExampleStreams
from minitrain.kernels.precision import autocast, compute_dtype, explain_oom
from minitrain.kernels.prepack import casting
from minitrain.training import step as plain
from minitrain.training.step import StepResult, StepSettings, TrainState

# (the batch that is replayed, the (2,) loss and gradient norm that a replay writes, the replay)
Recording = tuple[Batch, Tensor, Callable[[], None]]


class RecordedStep:
    """Called as `train_step`, in one process and with one micro-batch."""

    def __init__(self, device: torch.device) -> None:
        self.device, self._warm = device, False
        self._rates, self._found_inf = torch.zeros(0, device=device), torch.zeros((), device=device)
        self._pool: Any = None  # memory that all graphs share: one is replayed at a time
        self._recorded: dict[Any, Recording] = {}

    def __call__(
        self,
        state: TrainState,
        micro_batches: Sequence[Batch],
        learning_rate: float | list[float],
        settings: StepSettings,
        *,
        rows: Sequence[int] = (),
        streams: Sequence[ExampleStreams] = (),
    ) -> "StepResult | PendingResult":
        """Launch a step and do not wait for it. The first is not recorded, as it sets up libraries and moments."""
        if not self._warm:
            result = plain.train_step(state, micro_batches, learning_rate, settings, rows=rows, streams=streams)
            groups = len(learning_rate) if isinstance(learning_rate, list) else 1
            self._rates, self._warm = self._rates.new_zeros(groups), True
            return result
        [batch] = micro_batches
        assert batch.labels is not None
        key = batch.input_ids.shape, batch.labels.dtype, settings
        with explain_oom(batch.input_ids.shape, "training", plain.OOM_ADVICE):
            if key not in self._recorded:
                static = batch.to(self.device)
                self._recorded[key] = static, *self._record(lambda: self._compute(state, static, settings))
            static, outcome, replay = self._recorded[key]
            static.fill(batch)
            if isinstance(learning_rate, list):
                self._rates.copy_(torch.tensor(learning_rate))
            else:
                self._rates.fill_(learning_rate)
            replay()
        state.step += 1
        return PendingResult(outcome, partial(self._check, state, state.step, rows))

    def _record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """The tensor that a replay writes its outcome to, and the replay."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            outcome = work()
        self._pool = graph.pool()
        return outcome, graph.replay

    def _compute(self, state: TrainState, batch: Batch, settings: StepSettings) -> Tensor:
        """The lines of `train_step` without a number that Python would wait for."""
        with casting(state.cast) if state.cast else nullcontext():
            with autocast(self.device, compute_dtype(settings)):
                logits = state.parallel(**batch.inputs)
            loss, _ = plain.share_of_loss(logits, batch, None, settings)
            loss.backward()
        norm, grad_scale = plain.clip(state.model, settings)
        outcome = torch.stack([loss.detach().float(), norm])
        self._found_inf.copy_(torch.maximum(self._found_inf, (~outcome.isfinite()).any()))
        rates = list(self._rates.unbind())
        lr = rates if len(rates) > 1 else rates[0]
        state.optimizer.step(lr, grad_scale=grad_scale, found_inf=self._found_inf)
        state.optimizer.zero_grad()
        return outcome

    def _check(self, state: TrainState, step: int, rows: Sequence[int], result: StepResult) -> None:
        try:
            plain.checked_finite(result, step, rows)
        except MinitrainError:
            self._found_inf.zero_()  # the caller may continue
            state.step = step - 1
            raise


class PendingResult:
    """The result of a step that the GPU may still be computing."""

    def __init__(self, outcome: Tensor, check: Callable[[StepResult], None]) -> None:
        on_gpu, self._check = outcome.device.type == "cuda", check
        # Copied at once, before a later step overwrites it.
        self._host = torch.empty(outcome.shape, dtype=outcome.dtype, pin_memory=on_gpu)
        self._host.copy_(outcome, non_blocking=True)
        self._done = torch.cuda.Event() if on_gpu else None
        if self._done is not None:
            self._done.record()

    def read(self) -> StepResult:
        """Wait for the step. Raises MinitrainError as `train_step` does; then the step is taken back."""
        if self._done is not None:
            self._done.synchronize()
        result = StepResult(*self._host.tolist())
        self._check(result)
        return result
