"""x"""

from minitrain.config import TrainConfig


def walk(config: TrainConfig, threads: int = 1, path: str | None = None) -> bool:
    """x"""
    return True
