"""The operations of a model in two arithmetics: the plain PyTorch ones and the same function computed faster."""

from typing import Any

from minitrain import public_name


def __getattr__(name: str) -> Any:
    return public_name(name, __name__)
