"""AdamW's moments for only those rows of an embedding that ever had a gradient.

A batch uses a few hundred of 30,000 word vectors. A row whose gradients were all zero has zero moments, and AdamW
leaves it as it is, weight decay aside. So only rows with a gradient need moments, memory and time, and the result
equals that of the whole matrix. After its first gradient a row is updated at every step: its moments decay slowly.

torch's SparseAdam is a different function: it freezes the moments of rows that a step does not use.
"""

import torch
from torch import Tensor


class SparseMoments:
    """Moments of K of V rows, in the order of the rows' first gradients.

    The buffers have V rows, but the system gives memory to written pages only, so that usage grows with K.
    """

    def __init__(self, parameter: Tensor, rows: Tensor) -> None:
        """Start with zero moments of (K,) distinct rows of a (V, ...) parameter."""
        self.count = 0  # K
        self._position = torch.full((len(parameter),), -1, device=parameter.device)  # (V,) row -> 0..K-1, or -1
        self._rows = torch.empty_like(self._position)  # its inverse
        self._weight, self._gradient, self._exp_avg, self._exp_avg_sq = (
            torch.empty_like(parameter, requires_grad=False) for _ in range(4)
        )
        self._nonzero = self._position[:0]  # positions of the last gradient's rows
        self._add(rows.to(parameter.device))

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

    def tensors(self) -> dict[str, Tensor]:
        """All that must be saved, live."""
        return {"rows": self.rows, "exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}

    def _add(self, new: Tensor) -> None:
        end = self.count + len(new)
        self._rows[self.count : end] = new
        self._position[new] = torch.arange(self.count, end, device=new.device)
        for each in (self._gradient, self._exp_avg, self._exp_avg_sq):
            each[self.count : end] = 0.0
        self.count = end
