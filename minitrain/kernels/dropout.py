"""Dropout masks from 16 random bits an element, of the process's generator or of one generator an example.

PyTorch's CPU generator is sequential and uses 24 to 53 bits for a Bernoulli draw; here one 64-bit draw serves four
elements.

With a generator for each example, its masks are a function of (seed, step, row, layer): the same in any process,
micro-batch and padding. Source: Srivastava et al. 2014, "Dropout", JMLR 15.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from hashlib import blake2b

import torch
from torch import Tensor

# The dimensions that are positions, by the number of dimensions: (B, H), (B, L, H), (B, N, Q, L).
_POSITIONS: dict[int, tuple[int, ...]] = {2: (), 3: (1,), 4: (2, 3)}


class ExampleStreams:
    """One generator for each example of a batch, for one forward pass.

    Args:
        seed: The run's.
        step: Optimizer steps done.
        rows: Row in the training data of each example; or a name, as for the windows of a long text.
        lengths: Tokens of each example without padding, which draws nothing.
        padding_side: "right" or "left".
    """

    def __init__(
        self, seed: int, step: int, rows: Sequence[int | str], lengths: Sequence[int], padding_side: str = "right"
    ) -> None:
        self.lengths, self.padding_side = lengths, padding_side
        self.generators = [torch.Generator().manual_seed(_seed(seed, step, row)) for row in rows]

    def set_states(self, states: Sequence[Tensor]) -> None:
        """Continue from other states of the generators, one for each."""
        for generator, state in zip(self.generators, states, strict=True):
            generator.set_state(state)

    def bits(self, shape: Sequence[int]) -> Tensor:
        """Random int16 of a shape that begins with B; zeros at padding."""
        bits = torch.zeros(tuple(shape), dtype=torch.int16)
        for part, generator, length in zip(bits, self.generators, self.lengths, strict=True):
            for dimension in _POSITIONS[len(shape)]:
                real = min(length, shape[dimension])
                start = shape[dimension] - real if self.padding_side == "left" else 0
                part = part.narrow(dimension - 1, start, real)
            part.copy_(_bits(part.shape, generator))
        return bits


def _seed(seed: int, step: int, row: int | str) -> int:
    """Hashed, because PyTorch's CPU generator uses 32 bits of it: neighbours must differ in these."""
    return int.from_bytes(blake2b(f"{seed} {step} {row}".encode(), digest_size=8).digest(), "little", signed=True)


_STREAMS: ContextVar[ExampleStreams | None] = ContextVar("streams", default=None)


def current_streams() -> ExampleStreams | None:
    """Those of the block around this call."""
    return _STREAMS.get()


@contextmanager
def drawing_from(streams: ExampleStreams) -> Iterator[None]:
    """Draw the masks inside from these streams instead of the process's generator."""
    token = _STREAMS.set(streams)
    try:
        yield
    finally:
        _STREAMS.reset(token)


def dropout_from_bits(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout with p rounded to 1/65536; the scale is exact for the rounded p, so the mean of x is kept."""
    if not training or p == 0.0:
        return x
    mask, scale = keep_mask(x.shape, p, x.dtype)
    # In half precision a mask cannot hold the scale exactly, but a multiplication by a number is in float32.
    return x * mask * scale if is_half(x.dtype) else x * mask.mul_(scale)


def is_half(dtype: torch.dtype) -> bool:
    """bfloat16 or float16, in which 1/0.9 is not exact enough."""
    return dtype in (torch.bfloat16, torch.float16)


def keep_mask(shape: Sequence[int], p: float, dtype: torch.dtype) -> tuple[Tensor, float]:
    """A mask that is 0 with probability p, else 1, and the scale that keeps the mean."""
    threshold = round(p * 65536)
    if threshold == 65536:
        return torch.zeros(tuple(shape), dtype=dtype), 1.0
    streams = _STREAMS.get()
    bits = _bits(shape) if streams is None else streams.bits(shape)
    # Compared straight into floats: converting a boolean mask takes longer than the drawing.
    mask = torch.empty(tuple(shape), dtype=dtype)
    torch.ge(bits, threshold - 32768, out=mask)
    return mask, 65536 / (65536 - threshold)


def _bits(shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
    """Random int16."""
    size = torch.Size(shape).numel()
    words = torch.empty((size + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    return words.view(torch.int16)[:size].view(tuple(shape))
