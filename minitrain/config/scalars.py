"""Numbers of numpy and torch as plain Python ones, without importing either."""

from typing import Any


def plain(value: Any) -> Any:
    """`np.int64(3)`, `torch.tensor(3)` or `np.array([3])` -> 3; anything else unchanged."""
    if not callable(getattr(value, "item", None)):
        return value
    size = value.numel() if callable(getattr(value, "numel", None)) else getattr(value, "size", None)
    return value.item() if size == 1 else value
