"""Numbers of numpy and torch as Python's own, without importing either."""

from typing import Any


def plain(value: Any) -> Any:
    """One number in whatever box, `np.int64(3)`, `torch.tensor(3)`, as Python's; anything else as it is."""
    if not callable(getattr(value, "item", None)):
        return value
    size = value.numel() if callable(getattr(value, "numel", None)) else getattr(value, "size", None)
    return value.item() if size == 1 else value
