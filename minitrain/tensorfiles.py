"""Tensors out of a folder of safetensors, one by one, each checked before it is handed on.

Only safetensors are opened: a pickle can run code, so it is refused with the way to convert it. The library's own
errors name no file; these do. Format: https://github.com/huggingface/safetensors, version 0.5 and later.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from minitrain.errors import MinitrainError
from minitrain.files import read_json

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth")
CONVERT = (
    "convert it where you trust its source: torch.load(..., weights_only=True), then "
    "safetensors.torch.save_file(..., 'model.safetensors', metadata={'format': 'pt'})"
)


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint: model.safetensors, or the shards its index names.

    Raises MinitrainError when there is none, naming the folder, or when the index points outside of it.
    """
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        return _shards(index)
    for name in PICKLES:
        if (directory / name).exists():
            raise MinitrainError(f"{directory / name}: is a pickle, which is never opened; {CONVERT}")
    raise MinitrainError(f"{directory}: holds no model.safetensors and no model.safetensors.index.json")


def _shards(index: Path) -> list[Path]:
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise MinitrainError(f"{index}: 'weight_map' is missing or is no table from keys to file names")
    files = []
    for name in sorted(set(table.values())):
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise MinitrainError(f"{index}: names the shard {name!r}; expected a .safetensors file beside it")
        if not (index.parent / name).is_file():
            raise MinitrainError(f"{index}: names the shard {name!r}, which is not there; download it too")
        files.append(index.parent / name)
    return files


def read_tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield (key, tensor) of one file, in the file's order, on the CPU, as the file's dtype.

    Raises MinitrainError naming the file (and key) for what is no safetensors file: a Git LFS pointer, a web page,
    a renamed pickle, a truncated download.
    """
    with _opened(file) as opened:
        for key in opened.keys():  # noqa: SIM118 - it is no mapping
            yield key, opened.get_tensor(key)


def tensor_keys(file: Path) -> list[str]:
    """The keys of one file, without its tensors. Raises MinitrainError as `read_tensors` does."""
    with _opened(file) as opened:
        return list(opened.keys())


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    _check_start(file)
    try:
        with safe_open(file, framework="pt") as opened:
            yield opened
    except (SafetensorError, OSError) as error:
        raise MinitrainError(f"{file}: is no valid safetensors file ({error}); download it again") from error


def _check_start(file: Path) -> None:
    try:
        with file.open("rb") as opened:
            start = opened.read(64)
    except OSError as error:
        raise MinitrainError(f"{file}: cannot be read ({error.strerror or error})") from error
    if start[4:9] == b"\0\0\0\0{":
        return  # a length of 8 bytes, then a JSON object; a length of 640 would look like a pickle below
    if start.startswith(b"version https://git-lfs"):
        raise MinitrainError(f"{file}: is a Git LFS pointer, not the weights; run `git lfs pull` in its folder")
    if start.lstrip()[:1] == b"<":
        raise MinitrainError(f"{file}: is a web page, not the weights; download the file itself")
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        raise MinitrainError(f"{file}: is a pickle under another name, which is never opened; {CONVERT}")


def checked(file: Path, key: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    """`tensor` as float32 when it can stand for a parameter of this shape.

    Raises MinitrainError naming file, key, what was expected and what was found: shape, dtype, NaN or infinity.
    """
    if tensor.shape != shape:
        raise MinitrainError(
            f"{file}: {key!r} has shape {tuple(tensor.shape)}; config.json makes it {tuple(shape)}"
        )
    if tensor.dtype not in FLOATS:
        found = str(tensor.dtype).removeprefix("torch.")
        raise MinitrainError(f"{file}: {key!r} is {found}; expected float32, float16, bfloat16 or float64")
    tensor = tensor.to(torch.float32)
    # NaN goes through to both ends, and no mask of the tensor's size is made.
    if tensor.numel() and not all(bool(end.isfinite()) for end in tensor.aminmax()):
        raise MinitrainError(f"{file}: {key!r} holds NaN or infinity; this checkpoint is broken, take another")
    return tensor
