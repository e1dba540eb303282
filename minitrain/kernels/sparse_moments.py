"""The rows of an embedding that ever had a gradient, and AdamW's moments of those rows alone.

A batch uses a few hundred of 30,000 word vectors. The others have a gradient of zero, and a row that never had
another one has moments of zero: AdamW would leave it where it is, weight decay aside. So only the rows ever
touched need moments, memory and time, and the result is that of the whole matrix. A row once touched moves at
every step, as it should: its moments fade, they do not vanish.

torch's SparseAdam is another function: it freezes the moments of a row that a step does not use.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from minitrain.errors import MinitrainError


class SparseMoments:
    """Moments of K rows out of V, gathered in the order in which the rows were first touched.

    Buffers hold all V rows, but memory that was never written is not there: it grows with K.
    """

    def __init__(self, parameter: Tensor) -> None:
        """parameter: (V, ...), of which a gradient touches some rows."""
        self.count = 0  # K
        self.place = torch.full((len(parameter),), -1, device=parameter.device)  # (V,) row -> 0..K-1, -1 for none
        self._rows = torch.empty_like(self.place)  # and back
        self._weight, self._gradient, self._exp_avg, self._exp_avg_sq = (
            torch.empty_like(parameter, requires_grad=False) for _ in range(4)
        )
        self._written = self.place[:0]  # where the gradient's rows last stood

    @property
    def rows(self) -> Tensor:
        """(K,) int64: the rows ever touched."""
        return self._rows[: self.count]

    @property
    def exp_avg(self) -> Tensor:
        """(K, ...): first moments."""
        return self._exp_avg[: self.count]

    @property
    def exp_avg_sq(self) -> Tensor:
        """(K, ...): second moments."""
        return self._exp_avg_sq[: self.count]

    def gather(self, parameter: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The touched rows of parameter and gradient, (K, ...) each, those of this gradient among them.

        gradient: (V, ...), sparse in its first dimension, or dense, which touches every row.
        """
        if gradient.is_sparse:
            gradient = gradient.coalesce()
            rows, values = gradient.indices()[0], gradient.values()
        else:
            rows, values = torch.arange(len(parameter), device=parameter.device), gradient
        self._add(rows[self.place[rows] < 0])
        weight, dense = self._weight[: self.count], self._gradient[: self.count]
        torch.index_select(parameter, 0, self.rows, out=weight)
        dense.index_fill_(0, self._written, 0.0)  # the rows of the gradient before; all others are zero
        self._written = self.place[rows]
        dense.index_copy_(0, self._written, values)
        return weight, dense

    def scatter(self, parameter: Tensor) -> None:
        """Put what `gather` gave, updated in place, where it came from."""
        parameter.index_copy_(0, self.rows, self._weight[: self.count])

    def saved(self, name: str) -> dict[str, Tensor]:
        """`{name}.rows`, `{name}.exp_avg` and `{name}.exp_avg_sq`, live."""
        return {f"{name}.{kind}": getattr(self, kind) for kind in ("rows", "exp_avg", "exp_avg_sq")}

    def load(self, state: Mapping[str, Tensor], name: str) -> None:
        """Take over `{name}.rows`, `{name}.exp_avg` and `{name}.exp_avg_sq`.

        Raises MinitrainError for rows that are not there, or twice, or moments of another shape.
        """
        rows = state[f"{name}.rows"]
        valid = rows.ndim == 1 and rows.dtype == torch.int64 and len(rows.unique()) == len(rows)
        if not valid or not all(0 <= row < len(self.place) for row in rows.tolist()):
            raise MinitrainError(
                f"optimizer state: '{name}.rows' must name each row once, as int64 from 0 to "
                f"{len(self.place) - 1}; the state is of another model or damaged"
            )
        self._add(rows.to(self.place.device))
        for kind, own in (("exp_avg", self.exp_avg), ("exp_avg_sq", self.exp_avg_sq)):
            own.copy_(checked(state, f"{name}.{kind}", own))

    def _add(self, new: Tensor) -> None:
        end = self.count + len(new)
        self._rows[self.count : end] = new
        self.place[new] = torch.arange(self.count, end, device=new.device)
        for each in (self._gradient, self._exp_avg, self._exp_avg_sq):
            each[self.count : end] = 0.0
        self.count = end


def checked(state: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """A tensor of a saved optimizer state. Raises MinitrainError where it is none, or has not the shape needed."""
    if not isinstance(state[name], Tensor):
        raise MinitrainError(
            f"optimizer state: {name!r} is a {type(state[name]).__name__}, expected a tensor, as state_dict gives"
        )
    if state[name].shape != like.shape:
        raise MinitrainError(
            f"optimizer state: {name!r} has shape {tuple(state[name].shape)}, its parameter needs "
            f"{tuple(like.shape)}; the state is of another model"
        )
    return state[name]
