"""Random masks for dropout, 16 bits an element, from the process's random stream or from one of each example's own.

PyTorch's generator on the CPU is sequential, and a Bernoulli draw takes 24 to 53 bits of it an element; this takes
16, drawn 64 at a time.

With a stream of each example's own, its masks are a function of (seed, step, row, layer): whichever process and
forward pass it falls to, and however long its company, it meets the same dropout. A stream is drawn from in the
order of the layers, as often as the example has tokens, so that padding takes nothing from it.

Source: Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 15.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from hashlib import blake2b

import torch
from torch import Tensor

# Which dimensions of what is dropped are positions: of (B, H), (B, L, H) and (B, N, Q, L).
_POSITIONS: dict[int, tuple[int, ...]] = {2: (), 3: (1,), 4: (2, 3)}


class ExampleStreams:
    """One random stream for each example of a batch, for one forward pass.

    seed: of the run. step: optimizer steps done. rows: of the training data, one an example. lengths: tokens of
    each, without padding. padding_side: "right" or "left", where the padding of an example stands.
    """

    def __init__(
        self, seed: int, step: int, rows: Sequence[int], lengths: Sequence[int], padding_side: str = "right"
    ) -> None:
        self.lengths, self.padding_side = lengths, padding_side
        self.generators = [torch.Generator().manual_seed(_key(seed, step, row)) for row in rows]

    def bits(self, shape: Sequence[int]) -> Tensor:
        """Random int16 of a shape that begins with B; zeros where an example is padding."""
        bits = torch.zeros(tuple(shape), dtype=torch.int16)
        for part, generator, length in zip(bits, self.generators, self.lengths, strict=True):
            for dimension in _POSITIONS[len(shape)]:
                real = min(length, shape[dimension])
                start = shape[dimension] - real if self.padding_side == "left" else 0
                part = part.narrow(dimension - 1, start, real)
            part.copy_(_bits(part.shape, generator))
        return bits


def _key(seed: int, step: int, row: int) -> int:
    """A seed far from those of neighbours. (PyTorch's generator on the CPU uses 32 bits of it.)"""
    return int.from_bytes(blake2b(f"{seed} {step} {row}".encode(), digest_size=8).digest(), "little", signed=True)


_STREAMS: ContextVar[ExampleStreams | None] = ContextVar("streams", default=None)


@contextmanager
def drawing_from(streams: ExampleStreams | None) -> Iterator[None]:
    """Draw the masks inside from these streams; None for the process's own."""
    token = _STREAMS.set(streams)
    try:
        yield
    finally:
        _STREAMS.reset(token)


def dropout_from_bits(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout that decides each element by 16 random bits.

    The probability is p rounded to 1/65536, and the scale is exact for the rounded one, so the mean of x is kept.
    """
    if not training or p == 0.0:
        return x
    if is_half(x.dtype):
        kept, scale = keep_mask(x.shape, p, x.dtype)
        return x * kept * scale  # a number multiplies in float32, a mask that holds it has it rounded
    return x * draw_mask(x.shape, p, x.dtype)


def is_half(dtype: torch.dtype) -> bool:
    """Whether a scale such as 1/0.9 must not be stored in it: in bfloat16 that is 1.109375, and the mean 0.9984."""
    return dtype in (torch.bfloat16, torch.float16)


def draw_mask(shape: Sequence[int], p: float, dtype: torch.dtype) -> Tensor:
    """0 with probability p, else what keeps the mean."""
    kept, scale = keep_mask(shape, p, dtype)
    return kept.mul_(scale)


def keep_mask(shape: Sequence[int], p: float, dtype: torch.dtype) -> tuple[Tensor, float]:
    """0 with probability p, else 1; and the factor that keeps the mean."""
    threshold = round(p * 65536)
    if threshold == 65536:
        return torch.zeros(tuple(shape), dtype=dtype), 1.0
    streams = _STREAMS.get()
    bits = _bits(shape) if streams is None else streams.bits(shape)
    # Compared into floats at once: a boolean mask would have to be converted, which takes longer than the drawing.
    kept = torch.empty(tuple(shape), dtype=dtype)
    torch.ge(bits, threshold - 32768, out=kept)
    return kept, 65536 / (65536 - threshold)


def _bits(shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
    """Random int16 from a generator, by default the global one."""
    size = torch.Size(shape).numel()
    words = torch.empty((size + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    return words.view(torch.int16)[:size].view(tuple(shape))
