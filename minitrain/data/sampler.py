"""Which examples stand together in a batch; `collating.py` makes its padded tensors.

The order is a pure function of (seed, epoch): no hidden state, no draw from the global generator, so that any
process can compute it and skip to any batch. Every example appears exactly once an epoch, but for a short last
batch that `drop_last` leaves out. (`GlobalRngBatchSampler` is the exception: its order is the random stream's.)
"""

from collections.abc import Sequence
from numbers import Integral
from typing import overload

import torch
from torch import Tensor

from minitrain.data.batch import Batch as Batch  # a batch and its maker are known by this module's name
from minitrain.data.batch import collate as collate
from minitrain.errors import MinitrainError

POOL = 20  # batches sorted by length together: leaves 3% of padding on MRPC at batch 8, and keeps company mixed


class Batches(Sequence[list[int]]):
    """The batches of an epoch, each a list of row numbers counted from 0, made when it is asked for.

    rows: (N,) int64, the batches laid end to end. size: rows a batch; the last may be short. order: (batches,) in
    which order to give them; None for as they lie.
    """

    def __init__(self, rows: Tensor, size: int, order: Tensor | None = None) -> None:
        self._rows, self._size, self._order = rows, size, order

    def __len__(self) -> int:
        return -(-len(self._rows) // self._size)

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...
    def __getitem__(self, index: int | slice) -> list[int] | list[list[int]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        place = range(len(self))[index] if self._order is None else int(self._order[index])
        rows: list[int] = self._rows[place * self._size : (place + 1) * self._size].tolist()
        return rows

    def shuffled(self, seed: int) -> "Batches":
        """The same batches in a random order."""
        return Batches(self._rows, self._size, _permutation(len(self), seed))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as of a list


def _permutation(count: int, seed: int) -> Tensor:
    """A random order of range(count), from a generator of its own."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


class RandomBatchSampler:
    """Batches of examples in random order, in Trainer's order for the same seed (5.23, RandomSampler).

    count: number of examples. batch_size: examples a batch; the last one may be short, and is left out with
    drop_last. seed: of all epochs. passes: batches an optimizer step, over all processes: they are given as one,
    for `rank_micro_batches` to cut up. processes: with drop_last each has a full batch in every pass, as in
    accelerate.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int = 42,
        drop_last: bool = False,
        passes: int = 1,
        processes: int = 1,
    ) -> None:
        self.count, self.batch_size, self.seed, self.drop_last = count, batch_size, seed, drop_last
        self.passes, self.unit = passes, batch_size * processes if drop_last else 1
        self._length = count_steps(count, batch_size, drop_last, passes, processes)

    def __len__(self) -> int:
        return self._length

    def batches(self, epoch: int) -> Batches:
        """The epoch's batches, each a list of row numbers counted from 0."""
        return _cut(_permutation(self.count, self.seed + epoch), self.batch_size * self.passes, self.unit)


class GlobalRngBatchSampler:
    """Batches in random order, the seed of each epoch's drawn from the global random stream.

    What a DataLoader with `shuffle=True` and no generator does (torch 2.13 RandomSampler), and the examples of
    accelerate with it: the order of an epoch depends on all that was drawn before it, dropout included.

    count, batch_size, drop_last, passes: as of RandomBatchSampler.
    """

    def __init__(self, count: int, batch_size: int, drop_last: bool = False, passes: int = 1) -> None:
        self.count, self.batch_size, self.drop_last, self.passes = count, batch_size, drop_last, passes
        self.unit = batch_size if drop_last else 1
        self._length = count_steps(count, batch_size, drop_last, passes)

    def __len__(self) -> int:
        return self._length

    def batches(self, epoch: int) -> Batches:
        """New batches at each call, whatever the epoch; draws one number from the global stream."""
        return _cut(_permutation(self.count, draw_seed()), self.batch_size * self.passes, self.unit)


class BucketBatchSampler:
    """Batches of examples of like length, so that little is padding, in random order.

    The epoch's random order is cut into pools of `POOL` batches, each pool sorted by length and cut into batches,
    and the batches shuffled: company changes every epoch, and no example is ever favoured by its length.

    lengths: tokens of each example. batch_size: examples a batch; one of them may be short, and is left out with
    drop_last. seed: of all epochs. passes, processes: as of RandomBatchSampler; the batches of a step are of like
    lengths too.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int = 42,
        drop_last: bool = False,
        passes: int = 1,
        processes: int = 1,
    ) -> None:
        self.lengths = torch.as_tensor(lengths)
        self.batch_size, self.seed, self.drop_last, self.passes = batch_size, seed, drop_last, passes
        self.unit = batch_size * processes if drop_last else 1
        self._length = count_steps(len(lengths), batch_size, drop_last, passes, processes)

    def __len__(self) -> int:
        return self._length

    def batches(self, epoch: int) -> Batches:
        """The epoch's batches, each a list of row numbers counted from 0."""
        order = _permutation(len(self.lengths), self.seed + epoch)
        order = order[: len(order) - len(order) % self.unit]  # before the sorting: it puts the longest at the end
        lengths = self.lengths[order]
        size = self.batch_size * self.passes
        pool = torch.arange(len(order)) // (size * POOL)
        # One stable sort for all pools: by pool first, then by length.
        rows = order[(pool * (int(lengths.max()) + 1) + lengths).argsort(stable=True)]
        return Batches(rows, size).shuffled(self.seed + epoch)


def rank_micro_batches(rows: Sequence[int], batch_size: int, rank: int = 0, size: int = 1) -> list[list[int]]:
    """The batches that one process of `size` computes of an optimizer step's rows, pass by pass.

    Of the rows cut into batches, it takes every size-th: in one pass all processes have neighbours, which the
    bucket sampler gives like lengths. Of a short step some have fewer batches than others, or none.
    """
    starts = range(rank * batch_size, len(rows), size * batch_size)
    return [list(rows[start : start + batch_size]) for start in starts]


def batches_by_length(lengths: Sequence[int], batch_size: int) -> Batches:
    """Row numbers, longest first, in batches: for evaluation, where order does not matter but memory does.

    The longest batch comes first, so that one too large for the memory fails at once.
    """
    _check(len(lengths), batch_size)
    return _cut(torch.as_tensor(lengths).argsort(descending=True, stable=True), batch_size)


def batches_by_row(count: int, batch_size: int) -> Batches:
    """Row numbers as they lie, in batches: each with the company that Trainer evaluates it in."""
    _check(count, batch_size)
    return _cut(torch.arange(count), batch_size)


def padding_share(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """The share of positions that is padding when these batches are collated, from 0 to 1."""
    positions = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    return 1.0 - sum(lengths[row] for batch in batches for row in batch) / positions


def count_steps(count: int, batch_size: int, drop_last: bool, passes: int = 1, processes: int = 1) -> int:
    """Optimizer steps an epoch, of so many batches each. Raises MinitrainError where there would be none."""
    _check(count, batch_size)
    if drop_last and count < batch_size * processes:
        each = f" in each of {processes} processes" if processes > 1 else ""
        raise MinitrainError(
            f"drop_last leaves no batch: {count} examples are fewer than a batch of {batch_size}{each}"
        )
    batches = count // (batch_size * processes) * processes if drop_last else -(-count // batch_size)
    return -(-batches // passes)


def draw_seed() -> int:
    """A number from the global random stream, as PyTorch draws one whenever a DataLoader starts a pass."""
    return int(torch.empty((), dtype=torch.int64).random_().item())


def _cut(rows: Tensor, size: int, unit: int = 1) -> Batches:
    """Batches of so many rows; of the last one, which may be short, a multiple of `unit` is kept."""
    return Batches(rows[: len(rows) - len(rows) % unit], size)


def _check(count: int, batch_size: int) -> None:
    for name, number in (("number of examples", count), ("batch size", batch_size)):
        if not isinstance(number, Integral) or isinstance(number, bool):
            raise MinitrainError(f"the {name} is {number!r} ({type(number).__name__}); expected an integer")
    if count < 1:
        raise MinitrainError("there are no examples to make batches of")
    if batch_size < 1:
        raise MinitrainError(f"the batch size is {batch_size}; expected 1 or more")
