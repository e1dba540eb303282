"""Where a model computes, in which precision, and what to say when the memory runs out.

Weights stay float32. With bf16, autocast computes matrix products in bfloat16 and what needs the range in float32.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from minitrain.errors import MinitrainError


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's parameters."""
    return next(model.parameters()).device


def autocast(device: torch.device, bf16: bool) -> AbstractContextManager[None]:
    """bfloat16 for the operations that tolerate it, as Trainer's `bf16=True` computes; no change without bf16."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)


def compute_dtype(bf16: bool) -> torch.dtype:
    """The dtype of matrix products under `autocast`."""
    return torch.bfloat16 if bf16 else torch.float32


def device_random_state(device: torch.device) -> Tensor | None:
    """The state of the device's own generator; None for a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else None


def set_device_random_state(device: torch.device, state: Tensor) -> None:
    """Restore what `device_random_state` returned."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.mps.set_rng_state(state)


@contextmanager
def explain_oom(shape: torch.Size, where: str, remedy: str) -> Iterator[None]:
    """Turn an out-of-memory error into a MinitrainError with the shape (B, L) of the batch and the remedy."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        short = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
        if not short:
            raise
        rows, length = shape
        raise MinitrainError(
            f"{where}: out of memory with {rows} x {length} tokens (batch x length): {remedy}"
        ) from error
