"""Tensors out of a folder of safetensors, one by one, each checked before it is handed on.

Only safetensors are opened: a pickle can run code, so it is refused with the way to convert it (`folders.py`). The
library's own errors name no file; these do. Format: https://github.com/huggingface/safetensors, version 0.5 and
later.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from minitrain.errors import MinitrainError, shown
from minitrain.storage.files import read_json, strict_json
from minitrain.storage.model_folder import convert, what_it_holds

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# Bytes an element, of what a file may hold: a tensor that no model here uses may have any of them.
BYTES = {
    **{"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E5M2": 1, "F8_E4M3": 1, "C64": 8, "BOOL": 1},
    **{"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1},
}
LARGEST_HEADER = 2**22  # bytes, of some 30,000 tensors: more than any encoder has, and parsed within a second
MOST_DIMENSIONS = 16


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint: model.safetensors, or the shards its index names.

    Raises MinitrainError when there is none, naming the folder, or when the index points outside of it.
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
        raise MinitrainError(f"{index}: 'weight_map' is missing or is no table from keys to file names")
    files = []
    for name in sorted(set(table.values())):
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise MinitrainError(f"{index}: names the shard {shown(name)}; expected a .safetensors file beside it")
        if not os.path.isfile(index.parent / name):  # Path.is_file raises for a name too long
            raise MinitrainError(f"{index}: names the shard {shown(name)}, which is not there; download it too")
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
    try:
        with file.open("rb") as raw:
            _check_start(file, raw.read(64))
            raw.seek(0)
            _check_header(raw)
        with safe_open(file, framework="pt") as opened:
            yield opened
    except OSError as error:
        raise MinitrainError(f"{file}: cannot be read ({error.strerror or error})") from error
    except (SafetensorError, _Malformed) as error:
        raise MinitrainError(f"{file}: is no valid safetensors file ({error}); download it again") from error


def _check_start(file: Path, start: bytes) -> None:
    """Recognise what is often found in place of weights."""
    if start[4:9] == b"\0\0\0\0{":
        return  # a length of 8 bytes, then a JSON object; a length of 640 would look like a pickle below
    if start.startswith(b"version https://git-lfs"):
        raise MinitrainError(f"{file}: is a Git LFS pointer, not the weights; run `git lfs pull` in its folder")
    if start.lstrip()[:1] == b"<":
        raise MinitrainError(f"{file}: is a web page, not the weights; download the file itself")
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        raise MinitrainError(f"{file}: is a pickle under another name, which is never opened; {convert(file.name)}")


class _Malformed(ValueError):
    """What is wrong with a header."""


def _check_header(raw: BinaryIO) -> None:
    """Check all that a header says before the library believes it, which takes a key twice and a shape of 2^40 x 0.

    The tensors must lie end to end and fill the file, each as large as its shape. Raises _Malformed.
    """
    size = os.fstat(raw.fileno()).st_size
    length = int.from_bytes(raw.read(8), "little")
    if not 2 <= length <= min(size - 8, LARGEST_HEADER):
        raise _Malformed(f"a header of {length} bytes, in a file of {size}; at most {LARGEST_HEADER} are read")
    try:
        header = strict_json(raw.read(length))
    except ValueError as error:
        raise _Malformed(f"its header {error}") from error
    if not isinstance(header, dict):
        raise _Malformed(f"its header is {shown(header)}, expected a table of tensors")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _Malformed(f"its metadata is {shown(metadata)}, expected texts by name")
    end = 0
    for start, stop, key in sorted((*_extent(key, entry), key) for key, entry in header.items()):
        if start != end:
            raise _Malformed(f"{shown(key)} begins at byte {start}, where the tensor before it ends at {end}")
        end = stop
    if end != size - 8 - length:
        raise _Malformed(f"its tensors take {end} bytes, it holds {size - 8 - length}")


def _extent(key: str, entry: Any) -> tuple[int, int]:
    """Where a tensor begins and ends in the data, checked against its dtype and shape."""
    if not key:
        raise _Malformed("the name of a tensor is ''")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _Malformed(f"{shown(key)} is {shown(entry)}, expected dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BYTES:
        raise _Malformed(f"{shown(key)} has dtype {shown(dtype)}, expected one of {', '.join(BYTES)}")
    if not _are_sizes(shape, 1) or len(shape) > MOST_DIMENSIONS:
        raise _Malformed(f"{shown(key)} has shape {shown(shape)}, expected a few positive integers")
    if not _are_sizes(offsets, 0) or len(offsets) != 2:
        raise _Malformed(f"{shown(key)} has data_offsets {shown(offsets)}, expected where it begins and ends")
    start, stop = offsets
    if stop - start != math.prod(shape) * BYTES[dtype]:
        raise _Malformed(f"{shown(key)} has {stop - start} bytes, not those of shape {shown(shape)} in {dtype}")
    return start, stop


def _are_sizes(value: Any, smallest: int) -> bool:
    return isinstance(value, list) and all(type(size) is int and smallest <= size < 2**63 for size in value)


def checked(file: Path, key: str, tensor: Tensor, shape: torch.Size, remedy: str = "") -> Tensor:
    """`tensor` as float32 when it can stand for a parameter of this shape. remedy: for one of another shape.

    Raises MinitrainError naming file, key, what was expected and what was found: shape, dtype, NaN or infinity.
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
    # NaN goes through to both ends, and no mask of the tensor's size is made.
    if tensor.numel() and not all(bool(end.isfinite()) for end in tensor.aminmax()):
        raise MinitrainError(f"{file}: {shown(key)} holds NaN or infinity; this checkpoint is broken, take another")
    return tensor
