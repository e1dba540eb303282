"""Read tensors from a folder of safetensors one by one, each checked before it is returned.

Only safetensors are opened: a pickle can run code, so it is refused with the way to convert it (`model_folder.py`).
Unlike the library's own errors, these name the file.

Format: https://github.com/huggingface/safetensors, 0.5 and later.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from minitrain.errors import MinitrainError, cut, shown
from minitrain.storage.files import read_json, strict_json
from minitrain.storage.model_folder import convert, what_it_holds

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
LARGEST_HEADER = 2**22  # bytes; enough for 30,000 tensors, more than any encoder has, and parsed within a second
MOST_DIMENSIONS = 16


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint: model.safetensors, or the shards that its index names.

    Raises MinitrainError naming the folder if there are none, or the index if it points outside of the folder.
    """
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        return _shards(index)
    raise MinitrainError(what_it_holds(directory))


def _shards(index: Path) -> list[Path]:
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise MinitrainError(f"{index}: 'weight_map' is missing or does not map keys to file names")
    files = []
    for name in sorted(set(table.values())):
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise MinitrainError(f"{index}: names the shard {shown(name)}; expected a .safetensors file beside it")
        if not os.path.isfile(index.parent / name):  # Path.is_file raises if a name is too long
            raise MinitrainError(f"{index}: names the shard {shown(name)}, which is missing; download it too")
        files.append(index.parent / name)
    return files


def read_tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield (key, tensor) in the file's order, on the CPU, in the file's dtype.

    Raises MinitrainError naming the file if it is not valid safetensors: a Git LFS pointer, a web page, a renamed
    pickle, a truncated download.
    """
    with _opened(file) as opened:
        for key in opened.keys():  # noqa: SIM118 - it is no mapping
            yield key, opened.get_tensor(key)


def tensor_keys(file: Path) -> list[str]:
    """The keys of one file. Raises MinitrainError as `read_tensors` does."""
    with _opened(file) as opened:
        return list(opened.keys())


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with file.open("rb") as raw:
            _check_start(file, raw.read(64))
            raw.seek(0)
            _check_header(raw)
        with safe_open(file, framework="pt") as opened:
            yield opened
    except OSError as error:
        raise MinitrainError(f"{file}: cannot be read ({error.strerror or error})") from error
    except SafetensorError as error:
        what = f"is not a valid safetensors file ({cut(error)}); download it again"
        raise MinitrainError(f"{file}: {what}") from error


def _check_start(file: Path, start: bytes) -> None:
    """Recognise what is often found in place of weights."""
    if start[4:9] == b"\0\0\0\0{":
        return  # an 8-byte length, then a JSON object; a length of 640 would look like a pickle below
    if start.startswith(b"version https://git-lfs"):
        raise MinitrainError(f"{file}: is a Git LFS pointer, not the weights; run `git lfs pull` in its folder")
    if start.lstrip()[:1] == b"<":
        raise MinitrainError(f"{file}: is a web page, not the weights; download the file itself")
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        raise MinitrainError(f"{file}: is a pickle under another name, which is never opened; {convert(file.name)}")


def _check_header(raw: BinaryIO) -> None:
    """Refuse headers that the library accepts: repeated keys, unknown fields, and shapes of no data as 2^40 x 0.

    The library itself checks that the tensors fill the file end to end, each as large as its shape and dtype.
    """
    size = os.fstat(raw.fileno()).st_size
    length = int.from_bytes(raw.read(8), "little")
    if not 2 <= length <= min(size - 8, LARGEST_HEADER):
        raise SafetensorError(f"a header of {length} bytes, in a file of {size}; at most {LARGEST_HEADER} are read")
    try:
        header = strict_json(raw.read(length))
    except ValueError as error:
        raise SafetensorError(f"its header {error}") from error
    if not isinstance(header, dict):
        raise SafetensorError(f"its header is {shown(header)}, expected a table of tensors")
    header.pop("__metadata__", None)
    for key, entry in header.items():
        if not key or not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise SafetensorError(f"{shown(key)} is {shown(entry)}, expected dtype, shape and data_offsets")
        shape = entry["shape"]
        sizes = isinstance(shape, list) and all(type(size) is int and 1 <= size < 2**63 for size in shape)
        if not sizes or len(shape) > MOST_DIMENSIONS:
            raise SafetensorError(f"{shown(key)} has shape {shown(shape)}, expected a few positive integers")


def checked(file: Path, key: str, tensor: Tensor, shape: torch.Size, remedy: str = "") -> Tensor:
    """The tensor as float32, if it fits a parameter of this shape.

    Raises MinitrainError naming file, key, what was expected and what was found: shape (with `remedy`), dtype, NaN.
    """
    if tensor.shape != shape:
        raise MinitrainError(
            f"{file}: {shown(key)} has shape {tuple(tensor.shape)}; config.json makes it {tuple(shape)}"
            + (remedy or ": take weights and config.json of the same model")
        )
    if tensor.dtype not in FLOATS:
        found = str(tensor.dtype).removeprefix("torch.")
        raise MinitrainError(f"{file}: {shown(key)} is {found}; expected float32, float16, bfloat16 or float64")
    tensor = tensor.to(torch.float32)
    # aminmax passes NaN on, and allocates no mask of the tensor's size.
    if tensor.numel() and not all(bool(end.isfinite()) for end in tensor.aminmax()):
        raise MinitrainError(f"{file}: {shown(key)} holds NaN or infinity; this checkpoint is broken, take another")
    return tensor
