"""Every flag of a run: its default, help, choices and bounds. Imports no torch."""

from typing import Any

from minitrain import public_name


def __getattr__(name: str) -> Any:
    return public_name(name, __name__)
