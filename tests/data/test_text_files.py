"""From bytes to lines: compression, encodings, and files that are something else."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
from test_tables import contents, error_of, put

from minitrain.config.read_options import ReadOptions
from minitrain.data import progress
from minitrain.data.tables.load import read_file
from minitrain.errors import MinitrainError

CSV = "text,label\nhello,0\nbye,1\n"
HELLO = {"text": ["hello", "bye"], "label": ["0", "1"]}
PACKERS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("suffix", PACKERS)
def test_compressed_files_are_read_as_what_they_hold(tmp_path: Path, suffix: str) -> None:
    pack = PACKERS[suffix]
    assert contents(read_file(put(tmp_path / f"a.csv{suffix}", pack(CSV.encode())))) == HELLO
    assert contents(read_file(put(tmp_path / f"a.tsv{suffix}", pack(CSV.replace(",", "\t").encode())))) == HELLO
    for kind in (".json", ".jsonl", ".ndjson"):
        assert contents(read_file(put(tmp_path / f"a{kind}{suffix}", pack(b'{"text": "x"}')))) == {"text": ["x"]}


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_broken_archive_is_named(tmp_path: Path, suffix: str) -> None:
    packed = PACKERS[suffix](CSV.encode() * 500)
    assert "is cut short or damaged" in error_of(put(tmp_path / f"a.csv{suffix}", packed[:-20]))
    middle = packed[:20] + bytes(30) + packed[50:]
    assert "is cut short or damaged" in error_of(put(tmp_path / f"b.csv{suffix}", middle))
    message = error_of(put(tmp_path / f"c.csv{suffix}", CSV))
    assert f"is not compressed as its name says; take {suffix} off its name" in message


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (gzip.compress(CSV.encode(), mtime=0), "put .gz behind its name"),
        (bz2.compress(CSV.encode()), "put .bz2 behind its name"),
        (lzma.compress(CSV.encode()), "put .xz behind its name"),
        (b"PK\x03\x04\x14\0\0\0", "a zip archive or an Excel workbook"),
        (b"PAR1\x15\0\x15", "name it .parquet"),
        (b"<!DOCTYPE html>\n<html>", "a web page, not a table"),
        (b"version https://git-lfs.github.com/spec/v1\n", "run git lfs pull"),
    ],
)
def test_a_file_of_another_kind_is_recognised(tmp_path: Path, start: bytes, what: str) -> None:
    assert what in error_of(put(tmp_path / "a.csv", start))
    assert what in error_of(put(tmp_path / "a.jsonl", start))


def test_columns_called_like_the_mark_of_an_archive_are_columns(tmp_path: Path) -> None:
    assert contents(read_file(put(tmp_path / "a.csv", "PK,BZh\n1,2\n"))) == {"PK": ["1"], "BZh": ["2"]}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_wide_encodings_are_recognised_and_read_when_they_are_named(tmp_path: Path, encoding: str) -> None:
    path = put(tmp_path / "a.csv", CSV.encode(encoding))
    assert f"a.csv, line 1: is not UTF-8 but {encoding.upper()}; pass --encoding {encoding}" in error_of(path)
    assert contents(read_file(path, options=ReadOptions(encoding=encoding))) == HELLO


def test_latin_1_is_named_in_the_error_and_read_when_it_is_named(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", "text,label\nna\xefve caf\xe9,0\n".encode("latin-1"))
    assert "a.csv, line 2: is not UTF-8; save it as UTF-8, or say what it is: --encoding latin-1" in error_of(path)
    for name in ("latin-1", "ISO-8859-1", "cp1252"):
        assert contents(read_file(path, options=ReadOptions(encoding=name)))["text"] == ["na\xefve caf\xe9"]


def test_a_byte_order_mark_is_no_text_in_any_encoding(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", ("\ufeff" + CSV).encode("utf-16-le"))
    assert contents(read_file(path, options=ReadOptions(encoding="utf-16-le"))) == HELLO
    path = put(tmp_path / "b.csv", "\ufeff" + CSV)
    assert contents(read_file(path, options=ReadOptions(encoding="UTF8"))) == HELLO
    with pytest.raises(MinitrainError, match="b.csv: begins with the mark of UTF-8; leave out --encoding latin-1"):
        read_file(path, options=ReadOptions(encoding="latin-1"))


@pytest.mark.parametrize(("encoding", "line"), [("cp1252", ", line 2"), ("utf-16", ""), ("ascii", ", line 2")])
def test_bytes_that_another_encoding_has_not_are_named(tmp_path: Path, encoding: str, line: str) -> None:
    path = put(tmp_path / "a.csv", b"text,label\n\x81a,0\n")
    with pytest.raises(MinitrainError, match=rf"a\.csv{line}: is not {encoding} .*pass another"):
        read_file(path, options=ReadOptions(encoding=encoding))


@pytest.mark.parametrize("encoding", ["latin-99", "hex", "rot13", "a\0b"])
def test_what_is_no_encoding_of_text_is_refused(encoding: str) -> None:
    with pytest.raises(
        MinitrainError, match="--encoding is empty|Python has no such text encoding; e.g. utf-8, latin-1"
    ):
        ReadOptions(encoding=encoding)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_end_in_any_way(tmp_path: Path, end: str) -> None:
    assert contents(read_file(put(tmp_path / "a.csv", CSV.replace("\n", end)))) == HELLO
    assert contents(read_file(put(tmp_path / "a.jsonl", f'{{"a": 1}}{end}{{"a": 2}}{end}'))) == {"a": [1, 2]}


def test_long_reading_says_how_far_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    path = put(tmp_path / "a.csv", "text,label\n" + "hello,0\n" * 200_000)
    assert len(read_file(path)) == 200_000
    said = capsys.readouterr().err
    assert f"reading {path}: " in said and "bytes, " in said and "%" in said
    monkeypatch.setenv("RANK", "1")  # another process says it
    read_file(path)
    assert capsys.readouterr().err == ""
