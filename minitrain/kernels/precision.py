"""Where a model computes, in which precision, and what to say when the memory runs out.

Weights stay float32. With bf16 or fp16, autocast computes matrix products in 16 bits and what needs the range in
float32.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from minitrain.errors import MinitrainError


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's parameters."""
    return next(model.parameters()).device


class Precision(Protocol):
    """What a configuration and the settings of a step or an evaluation say of it."""

    @property
    def bf16(self) -> bool: ...

    @property
    def fp16(self) -> bool: ...


def compute_dtype(config: Precision) -> torch.dtype:
    """The dtype of matrix products under `autocast`."""
    return torch.bfloat16 if config.bf16 else torch.float16 if config.fp16 else torch.float32


def precision_name(config: Precision) -> str:
    """bf16, fp16 or fp32."""
    return "bf16" if config.bf16 else "fp16" if config.fp16 else "fp32"


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """This dtype for the operations that tolerate it, as in Trainer; no change with float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def check_precision(config: Precision, device: torch.device, capability: tuple[int, int] | None = None) -> None:
    """Raise MinitrainError for bfloat16 on an NVIDIA GPU that emulates it, slower than float32.

    `torch.cuda.is_bf16_supported` counts emulation as support. Units for bfloat16 came with compute capability 8.0:
    P100 has 6.0, V100 7.0, T4 7.5.

    Args:
        capability: Of the GPU; by default that of the device.
    """
    if not config.bf16 or device.type != "cuda" or torch.version.hip is not None:
        return
    major, minor = capability or torch.cuda.get_device_capability(device)
    if major < 8:
        raise MinitrainError(
            f"--bf16: this GPU has compute capability {major}.{minor} and emulates bfloat16, slower than float32; "
            "8.0 or more is needed. Pass --fp16 instead"
        )


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
