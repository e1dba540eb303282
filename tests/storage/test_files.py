"""Small files: strict reading, and writing that leaves either the old file or the new one."""

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minitrain.errors import MinitrainError
from minitrain.storage.files import json_text, read_json, sha256_of, whole_files, write_whole


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


@pytest.fixture(params=[0o022, 0o027, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_json_that_was_written_is_read_back(tmp_path: Path) -> None:
    value = {"text": "naïve 中文 😀 \x00 \u202e", "nested": {"b": [1, 2.5, None, True], "a": {}}, "1": 1e-12}
    path = tmp_path / "naïve ünïcode.json"
    write_whole(path, json_text(value))
    assert read_json(path) == value and list(read_json(path)) == list(value)
    assert "naïve 中文 😀" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{"a": NaN}', "it holds NaN"),
        (b'{"a": [1, {"b": Infinity}]}', "it holds Infinity"),
        (b'{"a": -Infinity}', "it holds -Infinity"),
        (b'{"a": 1, "a": 1}', "it holds the key 'a' twice"),
        (b'{"a": "\\ud800"}', "half of a surrogate pair"),
        (b'{"a\\uDFFF": 1}', "half of a surrogate pair"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "it holds the key 'b' twice"),
        (b"[1, 2]", "expected a JSON object, got list"),
        (b"null", "expected a JSON object, got NoneType"),
        (b"", "not valid JSON"),
        (b'{"a": 1', "not valid JSON"),
        (b"<!DOCTYPE html>", "not valid JSON"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b"\xff\xfe{\x00}\x00", "not valid JSON"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_what_is_no_strict_json_object_is_an_error_that_names_the_file(
    content: bytes, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(MinitrainError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: ") and complaint in str(caught.value)


def test_a_whole_surrogate_pair_is_a_character(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"a": "\\uD83D\\ude00", "b": "\\\\ud800"}')
    assert read_json(tmp_path / "a.json") == {"a": "\U0001f600", "b": "\\ud800"}


def test_a_key_that_stands_twice_among_a_million_is_found_at_once(tmp_path: Path) -> None:
    keys = [str(number) for number in range(10**6)]
    (tmp_path / "a.json").write_text("{" + ",".join(f'"{key}":1' for key in [*keys, keys[-1]]) + "}")
    start = time.perf_counter()
    with pytest.raises(MinitrainError, match="the key '999999' twice"):
        read_json(tmp_path / "a.json")
    assert time.perf_counter() - start < 10  # it takes half a second; a search for each key would take hours


def test_a_missing_file_and_a_folder_cannot_be_read_and_are_named(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.json", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(MinitrainError, match=reason) as caught:
            read_json(path)
        assert str(path) in str(caught.value)


def test_numbers_that_json_has_not_are_never_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text({"loss": float("nan")})


def test_a_block_that_raises_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("old")
    before = tree(tmp_path)
    with pytest.raises(RuntimeError, match="stopped"), whole_files(tmp_path, last="config.json") as folder:
        (folder / "config.json").write_text("new")
        (folder / "other.txt").write_text("new")
        assert len(tree(tmp_path)) == 4  # the fault comes in the middle of writing
        raise RuntimeError("stopped")
    assert tree(tmp_path) == before


def test_a_text_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new \ud800")
    assert tree(tmp_path) == {"note.txt": b"old"}
    write_whole(path, "new")
    assert tree(tmp_path) == {"note.txt": b"new"}


def test_a_reader_sees_the_old_file_until_the_block_ends(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.txt", "old")
    with whole_files(tmp_path) as folder:
        (folder / "a.txt").write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
    assert tree(tmp_path) == {"a.txt": b"new"}


@pytest.mark.parametrize("blocker", ["a.bin", "model.safetensors", "z.txt"])
def test_the_last_file_moves_after_all_others(blocker: str, tmp_path: Path) -> None:
    """A folder in the way of one file stops the moves there: config.json has not come yet, whatever the name."""
    (tmp_path / blocker / "in the way").mkdir(parents=True)
    with pytest.raises(OSError), whole_files(tmp_path, last="config.json") as folder:
        for name in ("z.txt", "config.json", "a.bin", "model.safetensors"):
            (folder / name).write_text("new")
    assert (tmp_path / blocker).is_dir() and not (tmp_path / "config.json").exists()
    assert not list(tmp_path.glob(".writing-*"))


def test_files_have_the_mode_that_the_umask_gives(umask: int, tmp_path: Path) -> None:
    with whole_files(tmp_path) as folder:
        for name, mode in (("private", 0o600), ("open", 0o666)):
            (folder / name).touch()
            (folder / name).chmod(mode)
    for name in ("private", "open"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "b" / "c.json", json.dumps({}))
    assert tree(tmp_path) == {"a": None, "a/b": None, "a/b/c.json": b"{}"}


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_the_digest_of_a_file_is_that_of_its_content(size: int, tmp_path: Path) -> None:
    content = os.urandom(size)
    (tmp_path / "a.bin").write_bytes(content)
    assert sha256_of(tmp_path / "a.bin") == hashlib.sha256(content).hexdigest()
