"""Tokens kept on disk: the same as in memory, whole or not there, and of no other text."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from minitrain.data.dataset import Split
from minitrain.data.examples import flatten
from minitrain.data.load import CHUNK, tokenize
from minitrain.data.tables.table import Table
from minitrain.data.tokenizer.tokenizer import Encoded, Example, Tokenizer, load_tokenizer
from minitrain.errors import MinitrainError
from minitrain.storage import token_cache
from minitrain.storage.token_cache import CHECKSUM, Tokens, cache_folder, cached, fingerprint

ROWS = 2 * CHUNK + 3  # three chunks


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer("demo")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINITRAIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def table(last: str = "the end") -> Table:
    first = [f"row {i} " * (i % 7) for i in range(ROWS)]
    columns: dict[str, list[Any]] = {"a": first, "b": [*(f"{i}" for i in range(ROWS - 1)), last]}
    return Table(source="table", columns=columns, class_names={})


def split(tokenizer: Tokenizer, rows: Table, cache: bool = True, max_length: int = 12) -> Split:
    return tokenize(rows, tokenizer, ("a", "b"), max_length=max_length, cache=cache)


def assert_same(ours: Split, theirs: Split) -> None:
    assert [ours[row] for row in range(ROWS)] == [theirs[row] for row in range(ROWS)]
    assert (ours.truncated, ours.blank, ours.lengths) == (theirs.truncated, theirs.blank, theirs.lengths)


def refuse_to_encode(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("tokenized again")

    monkeypatch.setattr(Tokenizer, "encode", refuse)


def test_tokens_from_the_disk_are_those_in_memory(
    tokenizer: Tokenizer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = split(tokenizer, table(), cache=False)
    assert plain.truncated > 0 and plain.blank > 0 and not folder.exists()
    assert_same(split(tokenizer, table()), plain)
    (entry,) = folder.iterdir()  # nothing half-written stands beside it
    assert entry.is_file()
    refuse_to_encode(monkeypatch)
    assert_same(split(tokenizer, table()), plain)


def test_other_texts_lengths_columns_and_tokenizers_are_other_entries(tokenizer: Tokenizer, folder: Path) -> None:
    other = load_tokenizer("demo")
    other.backend.add_tokens(["row"])
    split(tokenizer, table())
    split(tokenizer, table("The end"))
    split(tokenizer, table(), max_length=13)
    tokenize(table(), tokenizer, ("b", "a"), max_length=12, cache=True)
    tokenize(table(), tokenizer, ("a",), max_length=12, cache=True)
    split(other, table())
    assert len(list(folder.iterdir())) == 6


def test_where_one_text_ends_is_part_of_the_fingerprint() -> None:
    assert fingerprint("", [["ab", "c"]]) != fingerprint("", [["a", "bc"]])
    assert fingerprint("", [["a"], ["b"]]) != fingerprint("", [["b"], ["a"]])
    assert fingerprint("1", [["a"]]) != fingerprint("2", [["a"]])


@pytest.mark.parametrize("place", [0, CHECKSUM.size, -1], ids=["checksum", "sizes", "arrays"])
@pytest.mark.parametrize("damage", ["gone", "cut", "flipped", "zero", "empty"])
def test_a_damaged_entry_is_made_anew(tokenizer: Tokenizer, folder: Path, place: int, damage: str) -> None:
    expected = split(tokenizer, table())
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    broken = bytearray(whole)
    broken[place] ^= 1
    file.unlink()  # another file from here on: `expected` has this one mapped
    contents = {"cut": whole[: place or 4], "flipped": bytes(broken), "zero": bytes(CHECKSUM.size), "empty": b""}
    if damage != "gone":
        file.write_bytes(contents[damage])
    assert_same(split(tokenizer, table()), expected)
    assert file.read_bytes() == whole


def test_a_tokenization_that_fails_leaves_nothing_behind(tokenizer: Tokenizer, folder: Path) -> None:
    with pytest.raises(MinitrainError, match="row 2003, column 'b'"):
        split(tokenizer, table("\ud800"))
    assert not folder.exists() or not list(folder.iterdir())
    with pytest.raises(MinitrainError, match="row 2003, column 'b'"):
        split(tokenizer, table(7))  # type: ignore[arg-type]


def test_a_tokenization_that_dies_leaves_nothing_behind(
    tokenizer: Tokenizer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Tokenizer.encode, []

    def encode(self: Tokenizer, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Tokenizer, "encode", encode)
    with pytest.raises(KeyboardInterrupt):
        split(tokenizer, table())
    assert len(calls) == 2 and not list(folder.iterdir())


@pytest.mark.parametrize("why", ["a file", "below a device"])
def test_without_a_place_to_write_tokens_stay_in_memory(
    tokenizer: Tokenizer, folder: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "a file":
        folder.write_text("in the way")
    else:
        monkeypatch.setenv("MINITRAIN_CACHE", "/dev/full/cache")
    assert_same(split(tokenizer, table()), split(tokenizer, table(), cache=False))


def test_two_runs_that_write_the_same_entry_get_the_same_tokens(folder: Path) -> None:
    """The other run writes the whole entry while this one is still at its first chunk."""
    chunk = flatten(Encoded([Example(input_ids=[101, 7, 102], token_type_ids=[0, 0, 0])]))
    theirs: list[Tokens] = []

    def slow() -> Iterator[Tokens]:
        theirs.append(cached("entry", [chunk]))
        yield chunk

    ours = cached("entry", slow())
    assert ours.input_ids.tolist() == theirs[0].input_ids.tolist() == [101, 7, 102]
    assert [entry.name for entry in folder.iterdir()] == ["entry"]


def test_runs_that_start_at_once_all_get_their_tokens(tmp_path: Path) -> None:
    """Three processes over forty entries, side by side from the first moment."""
    code = """
import sys, time
from pathlib import Path
from minitrain.storage.token_cache import cached
from minitrain.data.examples import flatten
from minitrain.data.tokenizer.tokenizer import Encoded, Example

chunk = flatten(Encoded([Example(input_ids=[101, 7, 102], token_type_ids=[0, 0, 0])]))
print("ready", flush=True)
sys.stdin.readline()
for i in range(40):
    assert cached(f"entry-{i}", [chunk]).input_ids.tolist() == [101, 7, 102]
"""
    environment = os.environ | {"MINITRAIN_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes) for _ in range(3)]
    for run in runs:
        assert run.stdout is not None and run.stdout.readline() == "ready\n"
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("go\n")
        run.stdin.flush()
    assert [run.communicate()[0] for run in runs] == ["", "", ""]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(f"entry-{i}" for i in range(40))


def test_a_user_without_a_home_keeps_tokens_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(self: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")  # as for a user that passwd does not know

    for name in ("MINITRAIN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "expanduser", nowhere)
    assert cache_folder() is None


def test_a_full_disk_is_no_error(tokenizer: Tokenizer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def write(path: Path, chunks: object) -> None:
        written.append(path)
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(token_cache, "_write", write)
    assert_same(split(tokenizer, table()), split(tokenizer, table(), cache=False))
    assert written and not list(folder.iterdir())


def test_the_folder_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINITRAIN_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("MINITRAIN_CACHE", "~/tokens")
    assert cache_folder() == Path.home() / "tokens"
    monkeypatch.setenv("MINITRAIN_CACHE", "")
    assert cache_folder() is None
    monkeypatch.delenv("MINITRAIN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "minitrain"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/minitrain"


def test_tokens_are_mapped_and_not_read_into_memory(folder: Path) -> None:
    """100 MB of ids: the memory of a process that opens them grows by the pages it looks at."""
    ids = torch.arange(25_000_000, dtype=torch.int32).numpy()
    few = torch.zeros(1000, dtype=torch.uint8).numpy()
    entry = cached("entry", [Tokens(memoryview(ids), memoryview(few), memoryview(ids[:10]))]).entry
    assert entry is not None
    code = """
import re, sys
from pathlib import Path
from minitrain.storage.token_cache import _open

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

before = resident()
tokens = _open(Path(sys.argv[1]))
assert tokens.input_ids[24_999_999] == 24_999_999
print(resident() - before)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("reads /proc, which this system has not")
    done = subprocess.run([sys.executable, "-c", code, entry], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20_000  # kB
