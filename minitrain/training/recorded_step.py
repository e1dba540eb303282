"""`train_step` for a GPU that records it as a CUDA graph for each shape of batch, and replays it.

Loss and norm are read late: the GPU has its next step before Python waits for the numbers of the last one. A step
that is not finite therefore blocks, on the device, its own update and those after it, until it is read.
"""

from collections.abc import Callable, Sequence
from functools import cached_property, partial

import torch
from torch import Tensor

from minitrain.data.batch import Batch
from minitrain.errors import MinitrainError
from minitrain.kernels.cuda_graphs import StepGraphs
from minitrain.kernels.dropout import ExampleStreams
from minitrain.kernels.precision import autocast, device_of, explain_oom
from minitrain.kernels.prepack import casting
from minitrain.training.step import (
    SMALLER_BATCHES,
    StepResult,
    StepSettings,
    TrainState,
    check_finite,
    clip,
    share_of_loss,
    train_step,
)


class PendingResult:
    """A `StepResult` that the GPU may still be computing: reading `loss` or `grad_norm` waits for it.

    Raises MinitrainError as `train_step` does, and then takes the step back.
    """

    def __init__(self, wait: Callable[[], tuple[float, float]], check: Callable[[StepResult], None]) -> None:
        self._wait, self._check = wait, check

    @cached_property
    def _result(self) -> StepResult:
        result = StepResult(*self._wait())
        self._check(result)
        return result

    @property
    def loss(self) -> float:
        return self._result.loss

    @property
    def grad_norm(self) -> float:
        return self._result.grad_norm


class RecordedStep:
    """Takes a step as `train_step` does, in one process and of one micro-batch."""

    def __init__(self, device: torch.device) -> None:
        self.graphs = StepGraphs(device)
        self._warm = False

    def __call__(
        self,
        state: TrainState,
        micro_batches: Sequence[Batch],
        learning_rate: float,
        settings: StepSettings,
        *,
        rows: Sequence[int] = (),
        streams: Sequence[ExampleStreams] = (),
    ) -> StepResult | PendingResult:
        """Launch a step and do not wait for it. The first is not recorded, as it sets up libraries and moments."""
        if not self._warm:
            result = train_step(state, micro_batches, learning_rate, settings, rows=rows, streams=streams)
            self._warm = True
            return result
        [batch] = micro_batches
        with explain_oom(batch.input_ids.shape, "training", SMALLER_BATCHES):
            wait = self.graphs.launch(batch, learning_rate, partial(capturable_step, state, settings), settings)
        state.step += 1
        return PendingResult(wait, partial(self._check, state, state.step, rows))

    def _check(self, state: TrainState, step: int, rows: Sequence[int], result: StepResult) -> None:
        try:
            check_finite(result, step, rows)
        except MinitrainError:
            self.graphs.reset_found_inf()
            state.step = step - 1
            raise


def capturable_step(
    state: TrainState, settings: StepSettings, batch: Batch, learning_rate: Tensor, found_inf: Tensor
) -> Tensor:
    """Compute a step without any number that Python would wait for: (2,) loss and gradient norm before clipping.

    learning_rate, found_inf: 0-dim. found_inf becomes 1 if loss or norm are not finite; then nothing is updated.
    """
    with casting(state.cast):
        with autocast(device_of(state.model), settings.bf16):
            logits = state.parallel(**batch.inputs)
        loss = share_of_loss(logits, batch.labels, len(batch), settings)
        loss.backward()
    norm, grad_scale = clip(state.model, settings)
    outcome = torch.stack([loss.detach().float(), norm])
    found_inf.copy_(torch.maximum(found_inf, (~outcome.isfinite()).any()))
    state.optimizer.step(learning_rate, grad_scale=grad_scale, found_inf=found_inf)
    state.optimizer.zero_grad()
    return outcome
