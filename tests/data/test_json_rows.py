"""JSON as people have it: lines, lists, lists inside of an object, nested fields, fields that come and go."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_tables import contents, error_of, put, write

from minitrain.data.load import load_splits
from minitrain.data.tables.load import read_file
from minitrain.data.tables.table import ABSENT
from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.errors import MinitrainError

ROWS: list[dict[str, Any]] = [{"text": f"say {i}", "label": i % 2} for i in range(5)]
COLUMNS = {"text": [row["text"] for row in ROWS], "label": [row["label"] for row in ROWS]}


@pytest.mark.parametrize("kind", [".json", ".jsonl", ".ndjson"])
@pytest.mark.parametrize(
    "content",
    [
        "".join(json.dumps(row) + "\n" for row in ROWS),
        "\n\n" + "\n".join(map(json.dumps, ROWS)),
        json.dumps(ROWS),
        json.dumps(ROWS, indent=1),
        "\n".join(json.dumps(row, indent=2) for row in ROWS),
        "".join(map(json.dumps, ROWS)),
        "\r".join(map(json.dumps, ROWS)),
    ],
    ids=["lines", "blank lines", "list", "pretty list", "pretty objects", "one line", "CR"],
)
def test_lines_and_lists_are_the_same_rows(tmp_path: Path, kind: str, content: str) -> None:
    table = read_file(put(tmp_path / f"a{kind}", content))
    assert contents(table) == COLUMNS and not table.notes


@pytest.mark.parametrize("indent", [None, 1])
def test_the_only_list_of_objects_is_the_rows_and_that_is_said(tmp_path: Path, indent: int | None) -> None:
    content = json.dumps({"version": "1", "tags": ["a"], "data": ROWS}, indent=indent)
    table = read_file(put(tmp_path / "a.json", content))
    assert contents(table) == COLUMNS
    assert table.notes == (f"{tmp_path / 'a.json'}: the rows are its list 'data'",)


def test_one_object_that_has_what_is_asked_for_is_a_row(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", json.dumps({"text": "x", "spans": [{"start": 1}]}))
    for others in (False, True):
        assert read_file(path, ["text"], others=others).columns["text"] == ["x"]


def way_out_of(path: Path) -> None:
    """Run the command that the error names, in the folder of the file."""
    python, *words = shlex.split(error_of(path).split("\n  ")[1])
    assert python == "python"
    subprocess.run([sys.executable, *words], cwd=path.parent, check=True)


def test_columns_instead_of_rows_are_an_error_whose_command_mends_it(tmp_path: Path) -> None:
    for columns in (COLUMNS, {name: dict(enumerate(values)) for name, values in COLUMNS.items()}):
        path = put(tmp_path / "a.json", json.dumps(columns))
        assert "a.json: holds columns (text, label), not rows" in error_of(path)
        way_out_of(path)
        assert contents(read_file(tmp_path / "rows.jsonl")) == COLUMNS


def test_several_lists_are_an_error_whose_command_takes_one_out(tmp_path: Path) -> None:
    path = put(tmp_path / "a.json", json.dumps({"train": ROWS, "test": ROWS[:1]}))
    assert "a.json: holds several lists of objects, train, test" in error_of(path)
    way_out_of(path)
    assert contents(read_file(tmp_path / "train.json")) == COLUMNS


def test_names_in_a_file_are_no_shell_code_in_the_command(tmp_path: Path) -> None:
    path = put(tmp_path / "it's.json", json.dumps({"$(touch ran)": ROWS, "b": ROWS}))
    subprocess.run(error_of(path).split("\n  ")[1].replace("python", sys.executable, 1), shell=True, cwd=tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"it's.json", "$(touch ran).json"}
    way_out_of(put(tmp_path / "it's columns.json", json.dumps(COLUMNS)))
    assert contents(read_file(tmp_path / "rows.jsonl")) == COLUMNS


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("[1, 2]", ["row 1: expected a JSON object, got int"]),
        ('{"a": 1}\n{"a": 2}{"a": 3}\n', ["line 2: is not valid JSON (Extra data", "one object a line"]),
        ('{\n "a": 1,\n}\n', ["line 3: is not valid JSON"]),
        ("\u00a0\n{\n}\n", ["line 1: is not valid JSON"]),
        ('[{"a": 1}]\n\u00a0\n', ["line 2: is not valid JSON"]),
        ('{"a": \n{"a": 1}\n', ["line 1: is not valid JSON"]),
        ('[{"a": 1},\n {"a": }]', ["line 2: is not valid JSON"]),
        ('["x", 0]\n["y", 1]\n', ["line 1: expected a JSON object, got list"]),
        ("[]", ["has no rows"]),
        ("{}", ["has no rows"]),
    ],
)
def test_what_is_no_row_is_named_with_its_line(tmp_path: Path, content: str, parts: list[str]) -> None:
    message = error_of(put(tmp_path / "a.json", content))
    assert all(part in message for part in parts), message


# --- Fields ---


def test_values_that_nobody_asks_for_are_let_be(tmp_path: Path) -> None:
    odd = [1, 0.5, True, None, [1, {"a": 2}], {"b": [None]}, float("nan")]
    lines = "".join(json.dumps({"text": "x", "label": i % 2, "odd": value}) + "\n" for i, value in enumerate(odd))
    path = put(tmp_path / "a.jsonl", lines)
    assert contents(read_file(path, ["text", "label"])) == {"text": ["x"] * 7, "label": [0, 1, 0, 1, 0, 1, 0]}
    splits = load_splits(train_file=str(path), tokenizer=load_tokenizer("demo"))
    assert splits.text_columns == ("text",) and len(splits.train) == 7


def test_a_field_that_some_rows_lack_is_missed_by_who_asks_for_it(tmp_path: Path) -> None:
    lines = [{"text": "x", "label": 0}, {"text": "y", "label": 1, "note": "late"}, {"text": "z"}]
    path = put(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)))
    table = read_file(path)
    assert list(table.column("text")) == ["x", "y", "z"]
    assert table.columns["note"] == [ABSENT, "late", ABSENT]
    for name, message in (
        ("label", "line 3: has no field 'label'; it has text"),
        ("note", "line 1: has no field 'note', which line 2 has"),
    ):
        with pytest.raises(MinitrainError, match=message):
            table.column(name)
    with pytest.raises(MinitrainError, match="line 3: has no field 'label'; it has text"):
        load_splits(train_file=str(path), tokenizer=load_tokenizer("demo"))
    assert "line 3: has no field 'label'" in error_of(path, ["text", "label"])


def test_of_two_fields_of_one_name_the_last_counts_as_in_json(tmp_path: Path) -> None:
    line = '{"text": "x", "label": 0, "label": 1}'
    assert contents(read_file(put(tmp_path / "a.jsonl", line))) == {
        "text": ["x"],
        "label": [json.loads(line)["label"]],
    }


def nested(tmp_path: Path, kind: str) -> Path:
    rows = [
        {"id": i, "review": {"title": "t", "text": row["text"]}, "meta": {"stars": row["label"]}}
        for i, row in enumerate(ROWS)
    ]
    if kind == ".parquet":
        return write(tmp_path / "a.parquet", {name: [row[name] for row in rows] for name in rows[0]})
    return put(tmp_path / f"a{kind}", json.dumps(rows) if kind == ".json" else "\n".join(map(json.dumps, rows)))


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".parquet"])
def test_a_field_inside_of_a_field_is_named_with_a_dot(tmp_path: Path, kind: str) -> None:
    path = nested(tmp_path, kind)
    table = read_file(path, ["review.text", "meta.stars"])
    assert {name: list(table.column(name)) for name in ("review.text", "meta.stars")} == {
        "review.text": COLUMNS["text"],
        "meta.stars": COLUMNS["label"],
    }
    for columns in (("review.text",), None):
        splits = load_splits(
            train_file=str(path), test_file=str(path), tokenizer=load_tokenizer("demo"),
            text_columns=columns or ("review.title",), label_column="meta.stars",
        )  # fmt: skip
        assert [splits.test["test"][row].label for row in range(5)] == COLUMNS["label"]
    with pytest.raises(MinitrainError, match=r"has no field .*txt.*text"):
        read_file(path, ["review.txt"])


def test_a_field_whose_own_name_has_a_dot_comes_first(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", '{"r": {"t": "inside"}, "r.t": "own"}')
    assert list(read_file(path).column("r.t")) == list(read_file(path, ["r.t"]).column("r.t")) == ["own"]


def test_a_row_without_the_outer_field_is_named(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", '{"r": {"t": "x"}}\n{"r": null}\n')
    assert "line 2: has no field 'r.t'; it has r" in error_of(path, ["r.t"])
    with pytest.raises(MinitrainError, match="row 2: the column 'r' has no field 't' inside; it holds NoneType"):
        read_file(path).column("r.t")


def test_blanks_around_the_name_of_a_field_are_no_part_of_it(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", '{"text ": "x", " label": 1}\n')
    assert contents(read_file(path)) == {"text": ["x"], "label": [1]}
    assert list(read_file(path, ["text", "label"]).column("label")) == [1]
