"""Forward and backward passes of the blocks as compiled code: once for all lengths, by `torch.compile`.

Compiled, small operations become one kernel, which spares a GPU the way to its memory and back. On a CPU the fast
kernels are quicker than what the compiler makes.

The blocks of a model are alike, and the compiler is given one after the other: it does its work once, not twelve
times. Not compiled: embeddings and head, clipping and AdamW, and evaluations.
"""

import warnings
from typing import Any, cast

import torch
from torch import Tensor, nn

from minitrain.config.train_config import LENGTH_MULTIPLE, TrainConfig
from minitrain.errors import MinitrainError
from minitrain.model.classifier import SequenceClassifier, run_block
from minitrain.training.evaluation import autocast, device_of


def check_compilable(config: TrainConfig, device: torch.device) -> None:
    """Raise MinitrainError where compiled code would take the place of quicker one."""
    if config.torch_compile and config.kernels == "fast" and device.type == "cpu":
        raise MinitrainError(
            "--torch_compile is for a GPU; on a CPU the fast kernels are quicker than what it makes of the plain "
            "ones: leave it out, or pass --kernels reference too"
        )


class CompiledBlocks(nn.Module):
    """A classifier that computes the same, by compiled code for its blocks; called by itself, it does as before.

    options: of `torch.compile`.
    """

    def __init__(self, model: SequenceClassifier, **options: Any) -> None:
        super().__init__()
        self.model = model
        self._run_block = torch.compile(run_block, dynamic=True, **options)

    def forward(self, **inputs: Tensor) -> Tensor:
        """Arguments and result as the classifier's."""
        encoder = self.model.encoder
        encoder.run_block = self._run_block
        try:
            return cast(Tensor, self.model(**inputs))
        finally:
            encoder.run_block = run_block


def compiled(model: SequenceClassifier, *, bf16: bool = False) -> nn.Module:
    """The model with compiled passes, sharing its parameters; with a warning the model itself, where that fails.

    bf16: whether passes will be under autocast. It is compiled here and now, for all lengths, so that what is
    missing, such as a C++ compiler, shows before the first step.
    """
    module = CompiledBlocks(model)
    try:
        dry_run(module, model.config.max_length, bf16)
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        warnings.warn(f"--torch_compile: goes on without, since it failed: {reason}", stacklevel=2)
        return model
    return module


def dry_run(module: nn.Module, max_length: int, bf16: bool = False) -> None:
    """A forward and a backward pass that leave no trace: no gradient, no random number drawn.

    The compiler takes what is alike here, two sizes or two arguments, for alike at all times: hence a size that is
    not the other one, three tensors, and a length as `pad_to_multiple_of` makes them.
    """
    device = device_of(module)
    shape = 2, min(LENGTH_MULTIPLE, max_length)
    ids, mask, types = (torch.zeros(shape, dtype=torch.int64, device=device) for _ in range(3))
    mask[:, :-1] = 1  # as most batches have it: a CPU does without a mask where nothing is padding
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            with autocast(device, bf16):
                logits = module(input_ids=ids, attention_mask=mask, token_type_ids=types)
            (logits.sum() * 0.0).backward()
        finally:
            for parameter in module.parameters():
                parameter.grad = None
