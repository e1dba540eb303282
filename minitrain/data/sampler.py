"""The order of examples: which rows make up each optimizer step, and how a step is cut into micro-batches.

The order is a pure function of (seed, epoch), so that every process computes the same one and a resumed run can
start at any step. (`GlobalRngBatchSampler` is the exception: it draws from the global random generator.) Tensors
are made in `batch.py`.
"""

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from minitrain.data.windows import WindowRows
from minitrain.errors import MinitrainError

Batches = list[list[int]]  # row numbers from 0
POOL = 20  # steps sorted by length together: leaves 3% of padding on MRPC at batch 8, and batches stay mixed


class RandomBatchSampler:
    """Batches in random order, equal to Trainer's for the same seed (transformers 5.23, RandomSampler).

    Args:
        count: Number of examples.
        batch_size: Examples per micro-batch.
        seed: Of all epochs.
        drop_last: Leave out the examples that fill no batch in every process, as accelerate does.
        micro_batches: Per optimizer step, over all processes. `batches` gives the rows of a whole step, and
            `rank_micro_batches` cuts them up.
        processes: That train together.

    Raises:
        MinitrainError: No examples, a batch size below 1, or `drop_last` leaves no batch.

    >>> sampler = RandomBatchSampler(5, batch_size=2, seed=42)
    >>> sampler.batches(0), len(sampler)
    ([[2, 4], [3, 0], [1]], 3)
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int = 42,
        drop_last: bool = False,
        micro_batches: int = 1,
        processes: int = 1,
    ) -> None:
        self._steps = count_steps(count, batch_size, drop_last, micro_batches, processes)
        self.seed, self.step_size = seed, batch_size * micro_batches
        unit = batch_size * processes if drop_last else 1
        self.count, self.kept = count, count - count % unit

    def __len__(self) -> int:
        """Steps per epoch."""
        return self._steps

    def batches(self, epoch: int) -> Batches:
        """The row numbers of each step of an epoch."""
        return _cut(self._order(self.seed + epoch), self.step_size)

    def _order(self, seed: int) -> Tensor:
        return _permutation(self.count, seed)[: self.kept]


class GlobalRngBatchSampler(RandomBatchSampler):
    """Batches in random order, with a seed drawn from the global generator at each call of `batches`.

    This is what a DataLoader with `shuffle=True` and no generator does (torch 2.13, RandomSampler), and so
    accelerate's examples: an epoch's order depends on everything drawn before it, dropout included.
    """

    def __init__(self, count: int, batch_size: int, drop_last: bool = False, micro_batches: int = 1) -> None:
        super().__init__(count, batch_size, drop_last=drop_last, micro_batches=micro_batches)

    def batches(self, epoch: int) -> Batches:
        """New batches at each call, whatever the epoch."""
        return _cut(self._order(draw_seed()), self.step_size)


class BucketBatchSampler(RandomBatchSampler):
    """Batches of examples of similar length, so that there is little padding, in random order.

    The epoch's random order is cut into pools of `POOL` steps, each pool is sorted by length and cut into batches,
    and the batches are shuffled. Batches differ in every epoch, and no example is favoured for its length.

    Args:
        lengths: Tokens of each example. The other arguments are those of RandomBatchSampler.

    >>> BucketBatchSampler([9, 3, 8, 4], batch_size=2).batches(0)
    [[1, 3], [2, 0]]
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int = 42,
        drop_last: bool = False,
        micro_batches: int = 1,
        processes: int = 1,
    ) -> None:
        super().__init__(len(lengths), batch_size, seed, drop_last, micro_batches, processes)
        self.lengths = torch.as_tensor(lengths)

    def batches(self, epoch: int) -> Batches:
        """The row numbers of each step of an epoch."""
        order = self._order(self.seed + epoch)  # what is dropped is dropped before sorting, whatever its length
        lengths = self.lengths[order]
        pool = torch.arange(len(order)) // (self.step_size * POOL)
        # One stable sort for all pools: by pool first, then by length.
        rows = order[(pool * (int(lengths.max()) + 1) + lengths).argsort(stable=True)]
        batches = _cut(rows, self.step_size)
        return [batches[i] for i in _permutation(len(batches), self.seed + epoch).tolist()]


def rank_micro_batches(rows: Sequence[int], batch_size: int, rank: int = 0, size: int = 1) -> list[list[int]]:
    """Cut the rows of an optimizer step into the micro-batches that one process computes.

    Each of `size` processes takes every size-th batch: those computed at the same time are neighbours, to which
    the bucket sampler gives similar lengths. In a short step some processes have fewer batches, or none.

    >>> rank_micro_batches([5, 3, 8, 1, 9, 2, 7], batch_size=2, rank=0, size=2)
    [[5, 3], [9, 2]]
    >>> rank_micro_batches([5, 3, 8, 1, 9, 2, 7], batch_size=2, rank=1, size=2)
    [[8, 1], [7]]
    """
    starts = range(rank * batch_size, len(rows), size * batch_size)
    return [list(rows[start : start + batch_size]) for start in starts]


def batches_by_length(lengths: Sequence[int], batch_size: int) -> Batches:
    """Row numbers in batches for evaluation, longest first, so that a batch too large for memory fails at once."""
    _check(len(lengths), batch_size)
    return _cut(torch.as_tensor(lengths).argsort(descending=True, stable=True), batch_size)


def batches_by_row(count: int, batch_size: int) -> Batches:
    """Row numbers in batches, in order, as Trainer evaluates them."""
    _check(count, batch_size)
    return _cut(torch.arange(count), batch_size)


def padding_share(
    lengths: Sequence[int], batches: Sequence[Sequence[int]], windows: WindowRows | None = None
) -> float:
    """The share of positions, 0 to 1, that is padding in these batches.

    Args:
        windows: Those of the rows, if the rows are cut into windows.

    >>> padding_share([3, 1, 2], [[0, 1], [2]])
    0.25
    """
    if windows is not None:
        lengths, batches = windows.lengths, [windows.of(batch) for batch in batches]
    positions = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    return 1.0 - sum(lengths[row] for batch in batches for row in batch) / positions


def count_steps(count: int, batch_size: int, drop_last: bool, micro_batches: int = 1, processes: int = 1) -> int:
    """Optimizer steps per epoch. Raises MinitrainError if there are none; arguments as of RandomBatchSampler."""
    _check(count, batch_size)
    if drop_last and count < batch_size * processes:
        each = f" in each of {processes} processes" if processes > 1 else ""
        raise MinitrainError(
            f"drop_last leaves no batch: {count} examples are fewer than a batch of {batch_size}{each}"
        )
    batches = count // (batch_size * processes) * processes if drop_last else -(-count // batch_size)
    return -(-batches // micro_batches)


def draw_seed() -> int:
    """Draw from the global generator what a DataLoader draws when iteration starts."""
    return int(torch.empty((), dtype=torch.int64).random_().item())


def _permutation(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _cut(rows: Tensor, size: int) -> Batches:
    numbers = rows.tolist()
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def _check(count: int, batch_size: int) -> None:
    for name, number in (("number of examples", count), ("batch size", batch_size)):
        if not isinstance(number, Integral) or isinstance(number, bool):
            raise MinitrainError(f"the {name} is {number!r} ({type(number).__name__}); expected an integer")
    if count < 1:
        raise MinitrainError("there are no examples to make batches of")
    if batch_size < 1:
        raise MinitrainError(f"the batch size is {batch_size}; expected 1 or more")
