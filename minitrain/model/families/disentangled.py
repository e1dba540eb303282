"""Disentangled attention (He et al. 2020, arXiv 2006.03654): content and relative position have separate vectors.

The scores are content with content, plus content with position. After transformers 5.23
models/deberta_v2/modeling_deberta_v2.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn

from minitrain.model.layers import Context

C2P, P2C = KINDS = ("c2p", "p2c")  # scores of position with the query's content, with the key's content


def log_buckets(distances: Tensor, buckets: int, farthest: int) -> Tensor:
    """Keep distances up to half of `buckets`, and bucket larger ones by their logarithm.

    >>> log_buckets(torch.tensor([-23, -9, -4, -1, 0, 3, 5, 9]), 8, 24).tolist()
    [-7, -6, -4, -1, 0, 3, 5, 6]
    """
    middle = buckets // 2
    # In the reference's steps and dtypes: rounding decides the bucket of a distance on the edge of two.
    size = distances.abs().clamp(min=middle - 1)
    steps = torch.log(size / middle) / torch.log(torch.tensor((farthest - 1) / middle)) * (middle - 1)
    far = torch.ceil(steps) + middle
    return torch.where(size <= middle, distances, far * distances.sign()).long()


@dataclass(frozen=True, kw_only=True)
class Distances:
    """Relative positions for all layers: vectors (S, H), and which of them belongs to a query and a key, (L, L)."""

    vectors: Tensor
    index: Tensor


class DisentangledAttention(nn.Module):
    """Multi-head self-attention and its output projection: (B, L, H) -> (B, L, H).

    Args:
        kinds: Which scores with positions are added: "c2p", "p2c". None without `context.shared.distances`.
        own_projections: Whether position vectors have projections, or use those of keys and queries.
        vector_dropout: Dropout of the position vectors.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        dropout: float,
        vector_dropout: float,
        kinds: Sequence[str],
        own_projections: bool,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout, self.vector_dropout = dropout, vector_dropout
        self.kinds = [kind for kind in KINDS if kind in kinds]
        # Each kind adds to the variance of the scores; the reference counts the kinds even without distances.
        self.variance = hidden_size // num_heads * (1 + len(self.kinds))
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        own = self.kinds if own_projections else ()
        self.distance_key = nn.Linear(hidden_size, hidden_size) if C2P in own else None
        self.distance_query = nn.Linear(hidden_size, hidden_size) if P2C in own else None
        self.output = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, context: Context, queries: int | None = None) -> Tensor:
        kernels, distances = context.kernels, context.shared.distances
        if queries is None:
            q, k, v = kernels.linear(x, self.query, self.key, self.value)
        else:
            (q,), (k, v) = kernels.linear(x[:, :queries], self.query), kernels.linear(x, self.key, self.value)
        q, k, v = self._split(q), self._split(k), self._split(v)
        # A tensor, because under autocast the reference rounds it to the dtype of what it divides.
        scale = torch.tensor(float(self.variance)).sqrt().to(q.dtype)
        scores = self._heads(torch.bmm(q, k.transpose(1, 2) / scale))  # (B, N, Q, L)
        if distances is not None:
            # (c2p + p2c) + content: another order of the sums gives other last bits.
            scores = reduce(torch.add, [*self._distance_scores(q, k, scale, context), scores])
        if context.mask is not None:
            # Padding may attend to nothing, so its weights are all equal.
            may_look = context.mask & context.mask.transpose(2, 3)[:, :, :queries]
            scores = scores.masked_fill(~may_look, torch.finfo(q.dtype).min)
        weights = kernels.dropout(scores.softmax(dim=-1), self.dropout, self.training)
        mixed = self._heads(torch.bmm(weights.flatten(0, 1), v))
        return kernels.linear(mixed.transpose(1, 2).flatten(2), self.output)[0]

    def _distance_scores(self, q: Tensor, k: Tensor, scale: Tensor, context: Context) -> list[Tensor]:
        """The scores of each kind, (B, N, Q, L)."""
        kernels, distances = context.kernels, context.shared.distances
        vectors = kernels.dropout(distances.vectors, self.vector_dropout, self.training)
        if not self.kinds:
            return []
        layers = {C2P: self.distance_key or self.key, P2C: self.distance_query or self.query}
        # vectors[None]: autograd then sums within a layer first, then over the layers, as in the reference.
        tables = kernels.linear(vectors[None], *(layers[kind] for kind in self.kinds))
        index = distances.index[: q.size(1)]  # (Q, L)
        scores = []
        for kind, table in zip(self.kinds, map(self._split, tables), strict=True):  # (N, S, D)
            if kind == C2P:
                scores.append(kernels.relative_scores(q, table, index, scale))
            else:
                scores.append(kernels.relative_scores(k, table, index.T, scale).transpose(2, 3))
        return scores

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, H) -> (B N, L, D)"""
        return x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2).flatten(0, 1)

    def _heads(self, x: Tensor) -> Tensor:
        """(B N, ...) -> (B, N, ...)"""
        return x.unflatten(0, (-1, self.num_heads))
