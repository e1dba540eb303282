"""The operations of a model: plain PyTorch (`reference.py`), or the same functions computed faster (`fast.py`)."""

from minitrain.errors import MinitrainError
from minitrain.kernels.reference import REFERENCE, Kernels


def get_kernels(name: str) -> Kernels:
    """The kernels that `--kernels` names: "reference" or "fast"."""
    if name == "reference":
        return REFERENCE
    if name != "fast":
        raise MinitrainError(f"kernels is {name!r}; expected 'reference' or 'fast'")
    from minitrain.kernels.fast import FAST  # imported when used: the reference needs none of it

    return FAST
