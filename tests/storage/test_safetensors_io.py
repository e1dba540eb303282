"""Reading safetensors: what is no safe and whole file is an error that names it, and no pickle ever runs."""

import io
import json
import os
import pickle
import re
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from minitrain.errors import MinitrainError
from minitrain.storage.safetensors_io import LARGEST_HEADER, checked, read_tensors, weight_files

fuzz = settings(
    max_examples=int(os.environ.get("MINITRAIN_FUZZ_EXAMPLES", "300")),
    deadline=None,
    database=None,
    print_blob=True,
)
TENSORS = {"b": torch.arange(6.0).view(2, 3), "a": torch.randn(5), "half": torch.ones(3, dtype=torch.float16)}
ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


class Canary:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def raw_file(path: Path, header: str | dict[str, Any], data: bytes = b"") -> Path:
    """A file in the format of safetensors, with whatever header."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode("utf-8", "surrogateescape")
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def read(path: Path) -> dict[str, Tensor]:
    return dict(read_tensors(path))


def assert_refused(path: Path, *parts: str) -> None:
    with pytest.raises(MinitrainError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: "), str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_tensors_come_back_with_their_bits_and_dtypes(tmp_path: Path) -> None:
    path = tmp_path / "naïve ünïcode.safetensors"
    save_file(TENSORS, path)
    loaded = read(path)
    assert set(loaded) == set(TENSORS)
    assert all(torch.equal(loaded[key], TENSORS[key]) for key in TENSORS)
    assert loaded["half"].dtype == torch.float16


@pytest.mark.parametrize("length", [60, 640, 896, 1152, 1408, 65536 + 640, 0x4B50])
def test_a_header_whose_length_looks_like_another_format_is_read(length: int, tmp_path: Path) -> None:
    """The first bytes of a file are the length of its header: 640 is how a pickle begins, 60 is "<"."""
    header = json.dumps({"a": ENTRY}, separators=(",", ":"))
    path = raw_file(tmp_path / "model.safetensors", header.ljust(length), struct.pack("<f", 2.5))
    start = path.read_bytes()[:2]
    assert start in (b"<\0", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")
    assert read(path)["a"].tolist() == [2.5]


@pytest.mark.fault(36)
@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 100, -1, -20])
def test_a_truncated_file_is_refused(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    assert len(path.read_bytes()) < len(whole)
    assert_refused(path, "is not a valid safetensors file", "download it again")


BROKEN: dict[str, tuple[str | dict[str, Any], int]] = {
    "overlap": ({"a": ENTRY, "b": ENTRY | {"data_offsets": [2, 6]}}, 6),
    "hole": ({"a": ENTRY, "b": ENTRY | {"data_offsets": [8, 12]}}, 12),
    "data that nothing names": ({"a": ENTRY}, 8),
    "overflow": ({"a": ENTRY | {"shape": [2**64 - 1, 4]}}, 4),
    "negative size": ({"a": ENTRY | {"shape": [-1]}}, 4),
    "shape larger than its data": ({"a": ENTRY | {"shape": [2]}}, 4),
    "backward offsets": ({"a": ENTRY | {"data_offsets": [4, 0]}}, 4),
    "unknown dtype": ({"a": ENTRY | {"dtype": "X9"}}, 4),
    "dtype that torch has not": ({"a": ENTRY | {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}, 3),
    "deep JSON": ('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", 0),
    "no JSON": ("{not json}", 0),
    "no object": ("[1, 2, 3]", 0),
    "metadata of another type": ({"__metadata__": {"format": 3}, "a": ENTRY}, 4),
    "a key twice": (f'{{"a":{json.dumps(ENTRY)},"a":{json.dumps(ENTRY)}}}', 4),
    "a key of an entry twice": ('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"shape":[1]}}', 4),
    "an empty name": ({"": ENTRY}, 4),
    "a shape without data": ({"a": ENTRY | {"shape": [2**40, 0], "data_offsets": [0, 0]}}, 0),
    "a shape beyond torch's integers": ({"a": ENTRY | {"shape": [2**64 - 1, 0], "data_offsets": [0, 0]}}, 0),
    "a hundred thousand dimensions": ({"a": ENTRY | {"shape": [1] * 100_000}}, 4),
    "a list for an entry": ({"a": ["F32", [1], [0, 4]]}, 4),
    "a field too many": ({"a": ENTRY | {"stride": [1]}}, 4),
    "a fraction for a size": ({"a": ENTRY | {"shape": [1.0]}}, 4),
    "true for a size": ({"a": ENTRY | {"shape": [True]}}, 4),
    "offsets beyond 64 bits": ({"a": ENTRY | {"data_offsets": [2**64, 2**64 + 4]}}, 4),
    "not a number": ('{"__metadata__":{"a":NaN}}', 0),
    "half of a surrogate pair": (f'{{"\\ud800":{json.dumps(ENTRY)}}}', 4),
    "no UTF-8": (f'{{"\udcff":{json.dumps(ENTRY)}}}', 4),
}


@pytest.mark.fault(36, 37)
@pytest.mark.parametrize("name", BROKEN)
def test_a_malformed_file_is_refused(name: str, tmp_path: Path) -> None:
    header, size = BROKEN[name]
    assert_refused(
        raw_file(tmp_path / "model.safetensors", header, b"\0" * size), "is not a valid safetensors file"
    )


@pytest.mark.parametrize("name", ["a key twice", "an empty name", "a shape without data", "a field too many"])
def test_the_library_alone_would_take_some_of_them(name: str, tmp_path: Path) -> None:
    header, size = BROKEN[name]
    path = raw_file(tmp_path / "model.safetensors", header, b"\0" * size)
    with safe_open(path, framework="pt") as opened:
        assert len([opened.get_tensor(key) for key in opened.keys()]) == 1  # noqa: SIM118


def test_a_header_larger_than_any_encoders_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = raw_file(tmp_path / "model.safetensors", "{" + " " * LARGEST_HEADER + "}")
    assert_refused(path, "is not a valid safetensors file", f"at most {LARGEST_HEADER} are read")


def test_a_file_without_tensors_is_read(tmp_path: Path) -> None:
    assert read(raw_file(tmp_path / "model.safetensors", "{}")) == {}


@pytest.mark.fault(36)
@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**40, 100_000_001])
def test_a_header_length_beyond_the_file_is_refused(length: int, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b'{"a":1}')
    assert_refused(path, "is not a valid safetensors file")


@pytest.mark.fault(40)
def test_a_git_lfs_pointer_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 90868376\n")
    assert_refused(path, "is a Git LFS pointer", "git lfs pull")


@pytest.mark.fault(40)
@pytest.mark.parametrize("page", ["<!DOCTYPE html><html>", "\n  <html>", "<?xml version='1.0'?>", "<script>{}"])
def test_a_web_page_is_recognised(page: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text(page)
    assert_refused(path, "is a web page")


@pytest.mark.fault(42)
@pytest.mark.parametrize("how", ["zip", "legacy", 2, 3, 4, 5])
def test_a_pickle_under_another_name_is_refused_and_never_runs(how: str | int, tmp_path: Path) -> None:
    path, ran = tmp_path / "model.safetensors", tmp_path / "ran"
    if isinstance(how, int):
        path.write_bytes(pickle.dumps(Canary(ran), protocol=how))
    else:
        torch.save({"a": Canary(ran)}, path, _use_new_zipfile_serialization=how == "zip")
    assert_refused(path, "is a pickle under another name", "torch.load(f, ", "weights_only=True)")
    assert not ran.exists()
    if isinstance(how, int):
        pickle.loads(path.read_bytes()).close()
    else:
        torch.load(io.BytesIO(path.read_bytes()), weights_only=False)["a"].close()
    assert ran.exists()  # the canary is alive


@pytest.mark.parametrize("protocol", [0, 1])
def test_a_pickle_of_the_first_protocols_is_refused_and_never_runs(protocol: int, tmp_path: Path) -> None:
    path, ran = tmp_path / "model.safetensors", tmp_path / "ran"
    path.write_bytes(pickle.dumps(Canary(ran), protocol=protocol))
    assert_refused(path, "is not a valid safetensors file")
    assert not ran.exists()
    pickle.loads(path.read_bytes()).close()
    assert ran.exists()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none.safetensors", "No such file")
    assert_refused(tmp_path, "Is a directory")


@fuzz
@given(content=st.binary(max_size=200), framed=st.booleans())
def test_any_bytes_are_read_or_are_our_own_error_that_names_the_file(
    content: bytes, framed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.safetensors"
    path.write_bytes(struct.pack("<Q", len(content)) + content if framed else content)
    try:
        read(path)
    except MinitrainError as error:
        assert str(error).startswith(f"{path}: ")


@fuzz
@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_header_is_read_or_is_our_own_error(
    position: int, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    save_file(TENSORS, path)
    content = bytearray(path.read_bytes())
    content[position % (8 + struct.unpack("<Q", content[:8])[0])] ^= 1 << bit
    path.write_bytes(content)
    try:
        read(path)
    except MinitrainError as error:
        assert str(error).startswith(f"{path}: ")


# Which files hold the weights


def index(folder: Path, table: Any) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": table}))
    return path


def test_one_file_is_taken_before_shards_and_shards_are_taken_once_each(tmp_path: Path) -> None:
    for name in ("model-1.safetensors", "model-2.safetensors"):
        save_file({"a": torch.ones(1)}, tmp_path / name)
    index(tmp_path, {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"})
    assert weight_files(tmp_path) == [tmp_path / "model-1.safetensors", tmp_path / "model-2.safetensors"]
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    assert weight_files(tmp_path) == [tmp_path / "model.safetensors"]


@pytest.mark.fault(41)
@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors", "/etc/model.safetensors", "sub/model.safetensors", "./model.safetensors",
        "..\\model.safetensors", "C:\\model.safetensors", "model.safetensors/", "model.safetensors\x00.bin",
        "model.bin", "..", ".", "",
    ],
)  # fmt: skip
def test_a_shard_outside_the_folder_or_of_another_kind_is_refused_before_it_is_opened(
    name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for lure in (tmp_path / "model.safetensors", folder / "model.bin"):
        lure.write_bytes(b"never opened")
    (folder / "sub").mkdir()
    (folder / "sub" / "model.safetensors").write_bytes(b"never opened")
    path = index(folder, {"a": name})
    with pytest.raises(MinitrainError) as caught:
        weight_files(folder)
    assert str(caught.value).startswith(f"{path}: names the shard {name!r}; expected a .safetensors file beside it")


def test_a_shard_whose_name_no_folder_can_hold_is_not_there(tmp_path: Path) -> None:
    path = index(tmp_path, {"a": "x" * 300 + ".safetensors"})
    with pytest.raises(OSError):
        (tmp_path / ("x" * 300)).is_file()
    with pytest.raises(MinitrainError, match=re.escape(f"{path}: names the shard 'xxx")) as caught:
        weight_files(tmp_path)
    assert "which is missing" in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.fault(41)
def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "model-1.safetensors")
    path = index(tmp_path, {"a": "model-1.safetensors", "b": "model-2.safetensors"})
    with pytest.raises(
        MinitrainError, match=re.escape(f"{path}: names the shard 'model-2.safetensors', which is missing")
    ):
        weight_files(tmp_path)


@pytest.mark.parametrize("table", [None, {}, [], "model.safetensors", {"a": 1}, {"a": None}])
def test_an_index_without_a_table_is_refused(table: Any, tmp_path: Path) -> None:
    path = index(tmp_path, table)
    with pytest.raises(MinitrainError, match=re.escape(f"{path}: 'weight_map' is missing or does not map")):
        weight_files(tmp_path)


@pytest.mark.fault(42)
@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth"])
def test_a_folder_of_pickles_is_refused_with_the_way_to_convert_them(name: str, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / name).write_bytes(pickle.dumps(Canary(ran)))
    with pytest.raises(MinitrainError) as caught:
        weight_files(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / name}: is a pickle") and "weights_only=True" in str(
        caught.value
    )
    assert not ran.exists()


def test_a_folder_without_weights_is_named_with_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(
        MinitrainError, match=re.escape(f"{tmp_path}: is no model: expected config.json, model.safetensors")
    ):
        weight_files(tmp_path)


# One tensor against one parameter


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float32])
def test_every_float_becomes_float32(dtype: torch.dtype) -> None:
    tensor = torch.randn(4, 3).to(dtype)
    loaded = checked(Path("f"), "key", tensor, torch.Size((4, 3)))
    assert loaded.dtype == torch.float32 and torch.equal(loaded, tensor.float())


@pytest.mark.fault(38)
def test_a_wrong_shape_names_key_expected_and_found() -> None:
    with pytest.raises(MinitrainError, match=r"f: 'key' has shape \(3, 4\); config\.json makes it \(4, 3\)"):
        checked(Path("f"), "key", torch.ones(3, 4), torch.Size((4, 3)))


@pytest.mark.fault(38)
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn, torch.complex64])
def test_a_wrong_dtype_names_key_expected_and_found(dtype: torch.dtype) -> None:
    found = str(dtype).removeprefix("torch.")
    with pytest.raises(
        MinitrainError, match=rf"f: 'key' is {found}; expected float32, float16, bfloat16 or float64"
    ):
        checked(Path("f"), "key", torch.ones(3).to(dtype), torch.Size((3,)))


@pytest.mark.fault(32)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_names_the_key(value: float) -> None:
    tensor = torch.ones(100)
    tensor[57] = value
    with pytest.raises(MinitrainError, match="f: 'key' holds NaN or infinity"):
        checked(Path("f"), "key", tensor, torch.Size((100,)))


def test_a_float64_beyond_float32_is_no_finite_number() -> None:
    with pytest.raises(MinitrainError, match="holds NaN or infinity"):
        checked(Path("f"), "key", torch.full((2,), 1e300, dtype=torch.float64), torch.Size((2,)))
