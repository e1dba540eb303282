"""AdamW's moments for only those rows of an embedding that ever had a gradient.

A batch uses a few hundred of 30,000 word vectors. A row whose gradients were all zero has zero moments, and AdamW
leaves it as it is, weight decay aside. So only rows with a gradient need moments, memory and time, and the result
equals that of the whole matrix. After its first gradient a row is updated at every step: its moments decay slowly.

torch's SparseAdam is a different function: it freezes the moments of rows that a step does not use.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from minitrain.errors import MinitrainError


class SparseMoments:
    """Moments of K of V rows, in the order of the rows' first gradients.

    The buffers have V rows, but the system gives memory to written pages only, so that usage grows with K.
    """

    def __init__(self, parameter: Tensor) -> None:
        """Start without rows; `parameter` is (V, ...)."""
        self.count = 0  # K
        self._position = torch.full((len(parameter),), -1, device=parameter.device)  # (V,) row -> 0..K-1, or -1
        self._rows = torch.empty_like(self._position)  # its inverse
        self._weight, self._gradient, self._exp_avg, self._exp_avg_sq = (
            torch.empty_like(parameter, requires_grad=False) for _ in range(4)
        )
        self._nonzero = self._position[:0]  # positions of the last gradient's rows

    @property
    def rows(self) -> Tensor:
        """(K,) int64: the rows that have moments."""
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
        """Copy the K rows of parameter and gradient, (K, ...) each; the gradient's own rows are added first.

        Args:
            gradient: (V, ...), sparse in its first dimension, or dense, which adds all rows.
        """
        if gradient.is_sparse:
            gradient = gradient.coalesce()
            rows, values = gradient.indices()[0], gradient.values()
        else:
            rows, values = torch.arange(len(parameter), device=parameter.device), gradient
        self._add(rows[self._position[rows] < 0])
        weight, dense = self._weight[: self.count], self._gradient[: self.count]
        torch.index_select(parameter, 0, self.rows, out=weight)
        dense.index_fill_(0, self._nonzero, 0.0)
        self._nonzero = self._position[rows]
        dense.index_copy_(0, self._nonzero, values)
        return weight, dense

    def scatter(self, parameter: Tensor) -> None:
        """Copy the rows that `gather` returned, updated in place since, back into the parameter."""
        parameter.index_copy_(0, self.rows, self._weight[: self.count])

    def saved(self, name: str) -> dict[str, Tensor]:
        """`{name}.rows`, `{name}.exp_avg` and `{name}.exp_avg_sq`, live."""
        return {f"{name}.{kind}": getattr(self, kind) for kind in ("rows", "exp_avg", "exp_avg_sq")}

    def load(self, state: Mapping[str, Tensor], name: str) -> None:
        """Load what `saved` returned. Raises MinitrainError for invalid rows, or moments of another shape."""
        rows, size = state[f"{name}.rows"], len(self._position)
        valid = rows.ndim == 1 and rows.dtype == torch.int64 and len(rows.unique()) == len(rows)
        if not valid or not all(0 <= row < size for row in rows.tolist()):
            raise MinitrainError(
                f"optimizer state: '{name}.rows' must name each row once, as int64 from 0 to {size - 1}; the state "
                "is of another model or damaged"
            )
        self._add(rows.to(self._position.device))
        for kind, own in (("exp_avg", self.exp_avg), ("exp_avg_sq", self.exp_avg_sq)):
            own.copy_(state_tensor(state, f"{name}.{kind}", own))

    def _add(self, new: Tensor) -> None:
        end = self.count + len(new)
        self._rows[self.count : end] = new
        self._position[new] = torch.arange(self.count, end, device=new.device)
        for each in (self._gradient, self._exp_avg, self._exp_avg_sq):
            each[self.count : end] = 0.0
        self.count = end


def state_tensor(state: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """`state[name]`. Raises MinitrainError if it is not a tensor of the shape of `like`."""
    value = state[name]
    if not isinstance(value, Tensor):
        raise MinitrainError(
            f"optimizer state: {name!r} is a {type(value).__name__}, expected a tensor, as state_dict returns"
        )
    if value.shape != like.shape:
        raise MinitrainError(
            f"optimizer state: {name!r} has shape {tuple(value.shape)}, its parameter needs {tuple(like.shape)}; "
            "the state is of another model"
        )
    return value
