"""The sides that `parity.py` and `ladder.py` compare: minitrain, transformers' Trainer, accelerate's example."""

import importlib.util

from minitrain.errors import MinitrainError

NEEDED = ("transformers", "accelerate", "scipy", "sklearn")


def check_libraries() -> None:
    """Raise MinitrainError if a reference library is not installed; imports none of them."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MinitrainError(
            f"this compares with other libraries, and {', '.join(missing)} cannot be found: `make test` installs "
            "all of them, and so does pip install --editable '.[test]'"
        )
