"""`torch.compile` for the blocks of a model, in training: small operations become one kernel.

That spares a GPU the way to its memory and back; on a CPU the fast kernels are faster than compiled ones. Not
compiled: embeddings and head, clipping and AdamW, and evaluations.
"""

import warnings
from collections.abc import Callable, Iterable
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from minitrain.errors import MinitrainError, cut
from minitrain.kernels.precision import autocast, device_of


def check_compilable(kernels: str, device: torch.device) -> None:
    """Raise MinitrainError if compiled code would replace faster kernels."""
    if kernels == "fast" and device.type == "cpu":
        raise MinitrainError(
            "--torch_compile is for a GPU; on a CPU the fast kernels are faster than compiled ones: leave it out, "
            "or pass --kernels reference too"
        )


def compile_blocks(blocks: Iterable[nn.Module], **options: Any) -> None:
    """Compile the forward of each block in place, for all lengths. Blocks alike share the compiled code.

    What is compiled is the function of the class, bound to each block: a deep copy of the model then computes with
    its own weights, while the copy of a compiled bound method would compute with those of the original.

    Args:
        options: Of `torch.compile`.
    """
    compiled: dict[type, Callable[..., Tensor]] = {}
    for block in blocks:
        kind = type(block)
        if kind not in compiled:
            compiled[kind] = torch.compile(kind.forward, dynamic=True, **options)
        block.forward = MethodType(partial(_forward, compiled[kind], kind.forward), block)


def _forward(compiled: Callable[..., Tensor], plain: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    return (compiled if torch.is_grad_enabled() else plain)(*args, **kwargs)


def try_compile(
    model: nn.Module, blocks: Iterable[nn.Module], length: int, dtype: torch.dtype = torch.float32
) -> None:
    """Compile the blocks of a model now, or warn and leave them as they are, for example without a C++ compiler."""
    compile_blocks(blocks)
    try:
        dry_run(model, length, dtype)
    except RuntimeError as error:
        reason = cut(next(filter(str.strip, str(error).splitlines()), type(error).__name__))
        warnings.warn(f"--torch_compile: not compiled, since it failed: {reason}", stacklevel=2)
        for block in blocks:
            del block.forward


def dry_run(module: nn.Module, length: int, dtype: torch.dtype = torch.float32) -> None:
    """Run a forward and a backward pass that leave no gradient and draw no random number.

    The compiler takes sizes or arguments that are equal here for always equal: hence 2 rows of another length, and
    three tensors. Most batches have padding, and a CPU drops a mask that is all ones: hence the mask.
    """
    device = device_of(module)
    ids, mask, types = (torch.zeros((2, length), dtype=torch.int64, device=device) for _ in range(3))
    mask[:, :-1] = 1
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            with autocast(device, dtype):
                logits = module(input_ids=ids, attention_mask=mask, token_type_ids=types)
            (logits.sum() * 0.0).backward()
        finally:
            for parameter in module.parameters():
                parameter.grad = None
