"""Forward and backward passes as compiled code: one graph for all lengths, by `torch.compile`.

A GPU is done with a small kernel sooner than Python launches the next: a step of a few hundred tokens then takes as
long as Python takes. Compiled, small operations become one kernel; and a CUDA graph, recorded for each length that
occurs, launches all kernels of a pass at once. On a CPU the fast kernels are quicker than what the compiler makes.

Not compiled: clipping and AdamW, a few launches each, and evaluations, whose batches are large.
"""

import warnings
from typing import cast

import torch
from torch import nn

from minitrain.config import LENGTH_MULTIPLE, TrainConfig
from minitrain.errors import MinitrainError
from minitrain.evaluation import autocast, device_of
from minitrain.model import SequenceClassifier


def check_compilable(config: TrainConfig, device: torch.device) -> None:
    """Raise MinitrainError where compiled code would take the place of quicker one."""
    if config.torch_compile and config.kernels == "fast" and device.type == "cpu":
        raise MinitrainError(
            "--torch_compile is for a GPU; on a CPU the fast kernels are quicker than what it makes of the plain "
            "ones: leave it out, or pass --kernels reference too"
        )


def records_graphs(device: torch.device, passes: int, processes: int) -> bool:
    """Whether CUDA graphs can carry a step: on a GPU, with one forward pass, in one process.

    The next pass writes where a graph's gradients lie, so that they must be used up by then; and the exchange
    between processes is not part of a graph.
    """
    return device.type == "cuda" and passes == 1 and processes == 1


def compiled(model: SequenceClassifier, *, graphs: bool, bf16: bool = False) -> nn.Module:
    """The model with compiled passes, sharing its parameters; with a warning the model itself, where that fails.

    graphs: record CUDA graphs. bf16: whether passes will be under autocast. It is compiled here and now, for all
    lengths, so that what is missing, such as a C++ compiler, shows before the first step.
    """
    mode = "reduce-overhead" if graphs else "default"
    module = cast(nn.Module, torch.compile(model, dynamic=True, mode=mode))
    try:
        pass_for_nothing(module, model.config.max_length, bf16)
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        warnings.warn(f"--torch_compile: goes on without, since it failed: {reason}", stacklevel=2)
        return model
    return module


def pass_for_nothing(module: nn.Module, max_length: int, bf16: bool = False) -> None:
    """A forward and a backward pass that leave no trace: no gradient, no random number drawn.

    The compiler takes what is alike here, two sizes or two arguments, for alike at all times: hence a size that is
    not the other one, three tensors, and a length as `pad_to_multiple_of` makes them.
    """
    device = device_of(module)
    shape = 2, min(LENGTH_MULTIPLE, max_length)
    ids, mask, types = (torch.zeros(shape, dtype=torch.int64, device=device) for _ in range(3))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            with autocast(device, bf16):
                logits = module(input_ids=ids, attention_mask=mask + 1, token_type_ids=types)
            (logits.sum() * 0.0).backward()
        finally:
            for parameter in module.parameters():
                parameter.grad = None
