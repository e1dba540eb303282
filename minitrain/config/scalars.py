"""Numbers of numpy and torch as plain Python ones, without importing either."""

from types import NoneType
from typing import Any


def plain(value: Any) -> Any:
    """`np.int64(3)`, `torch.tensor(3)` or `np.array([3])` -> 3; anything else unchanged."""
    if not callable(getattr(value, "item", None)):
        return value
    size = value.numel() if callable(getattr(value, "numel", None)) else getattr(value, "size", None)
    return value.item() if size == 1 else value


def plain_scalar(value: Any) -> Any:
    """As `plain`, except that an array of one element stays an array."""
    if type(value) in (str, int, float, bool, NoneType):
        return value
    return plain(value) if getattr(value, "ndim", None) == 0 else value
