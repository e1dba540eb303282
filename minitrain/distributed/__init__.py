"""Several processes that train together."""

from typing import Any

from minitrain import public_name


def __getattr__(name: str) -> Any:
    return public_name(name, __name__)
