"""Disentangled attention (He et al. 2020, arXiv 2006.03654): what a token is and how far away are scored apart.

Beside the product of two contents there is one of a content with the vector of a distance. After transformers 5.23
models/deberta_v2/modeling_deberta_v2.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn

from minitrain.model.layers import Context

C2P, P2C = KINDS = ("c2p", "p2c")  # the content that meets the distance: of the query, of the key


def bucketed(distances: Tensor, buckets: int, farthest: int) -> Tensor:
    """Distances up to half of `buckets` as they are, from there on by their logarithm: int64 of any shape.

    With 8 buckets and 24 as the farthest: -23 -9 -4 -1 0 3 5 9 -> -7 -6 -4 -1 0 3 5 6.
    """
    middle = buckets // 2
    # Steps and dtypes are the reference's: another rounding may put a distance into another bucket.
    size = distances.abs().clamp(min=middle - 1)
    steps = torch.log(size / middle) / torch.log(torch.tensor((farthest - 1) / middle)) * (middle - 1)
    far = torch.ceil(steps) + middle
    return torch.where(size <= middle, distances, far * distances.sign()).long()


@dataclass(frozen=True, kw_only=True)
class Distances:
    """What all layers share: the vectors (S, H) of the distances, and the number (L, L) of the vector that
    belongs to a query (row) and a key (column)."""

    vectors: Tensor
    index: Tensor


class DisentangledAttention(nn.Module):
    """Multi-head self-attention and its output projection: (B, L, H) -> (B, L, H).

    It finds `distances` in `context.shared`; None for no scores of distances.
    vector_dropout: of the distances' vectors. kinds: of the scores with distances, some of "c2p" and "p2c".
    own_projections: whether the vectors have their own; else they go through those of keys and queries.
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
        # Each kind adds its variance to the scores; the reference counts the kinds even without distances.
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
        # A tensor, not a number: under autocast the reference rounds it to the dtype of what it divides.
        scale = torch.tensor(float(self.variance)).sqrt().to(q.dtype)
        scores = self._heads(torch.bmm(q, k.transpose(1, 2) / scale))  # (B, N, queries, L)
        if distances is not None:
            # (c2p + p2c) + contents: another order of the sums gives other last bits.
            scores = reduce(torch.add, [*self._distance_scores(q, k, scale, context), scores])
        if context.mask is not None:
            # Padding may look nowhere, which makes it look everywhere alike.
            may_look = context.mask & context.mask.transpose(2, 3)[:, :, :queries]
            scores = scores.masked_fill(~may_look, torch.finfo(q.dtype).min)
        weights = kernels.dropout(scores.softmax(dim=-1), self.dropout, self.training)
        mixed = self._heads(torch.bmm(weights.flatten(0, 1), v))
        return kernels.linear(mixed.transpose(1, 2).flatten(2), self.output)[0]

    def _distance_scores(self, q: Tensor, k: Tensor, scale: Tensor, context: Context) -> list[Tensor]:
        """Of each kind, (B, N, queries, L)."""
        kernels, distances = context.kernels, context.shared.distances
        vectors = kernels.dropout(distances.vectors, self.vector_dropout, self.training)
        if not self.kinds:
            return []
        layers = {C2P: self.distance_key or self.key, P2C: self.distance_query or self.query}
        # vectors[None]: without dropout too, gradients are summed in a layer first, then over the layers.
        tables = kernels.linear(vectors[None], *(layers[kind] for kind in self.kinds))
        index = distances.index[: q.size(1)]  # (queries, L)
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
