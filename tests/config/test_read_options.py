"""Which files a flag names: one, several, patterns; mixed kinds; and what is said of their rows."""

import json
from pathlib import Path

import pytest
from test_tables import contents, put, write

from minitrain.config.read_options import files_of, read_options
from minitrain.config.train_config import TrainConfig
from minitrain.data.load import load_splits
from minitrain.data.tables.load import read_file
from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.errors import MinitrainError
from minitrain.run.flags import parse
from minitrain.run.run_folder import output_path

BOTH = {"text": ["a", "b", "c"], "label": ["0", "1", "1"]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "one.csv", {"text": ["a", "b"], "label": [0, 1]})
    write(tmp_path / "two.csv", {"label": [1], "text": ["c"]})
    return tmp_path


@pytest.mark.parametrize(
    "flag", ["one.csv,two.csv", "one.csv, two.csv", '["one.csv", "two.csv"]', "*.csv", "o*.csv,two.csv"]
)
def test_several_files_are_one_table_in_order(folder: Path, flag: str) -> None:
    config = parse(TrainConfig, "", ["--model", "demo", "--train_file", flag])
    assert config.train_file is not None
    table = read_file(config.train_file, ["text", "label"], read_options(config))
    assert contents(table) == BOTH and table.files == (("one.csv", 2), ("two.csv", 1))
    assert output_path(config) == Path("runs") / ("files-demo" if flag == "*.csv" else "one+1-demo")


def test_python_takes_paths_and_tuples(folder: Path) -> None:
    for files in (("one.csv", "two.csv"), [Path("one.csv"), folder / "two.csv"]):
        config = TrainConfig(train_file=files)  # type: ignore[arg-type]
        assert isinstance(config.train_file, tuple) and all(type(name) is str for name in config.train_file)
        assert contents(read_file(config.train_file)) == BOTH
        assert TrainConfig(**json.loads(json.dumps({"train_file": config.train_file}))) == config
    assert TrainConfig(train_file=Path("one.csv")).train_file == "one.csv"  # type: ignore[arg-type]


def test_a_file_whose_own_name_has_a_comma_or_a_star_is_that_file(folder: Path) -> None:
    write(folder / "one.csv,two.csv", {"text": ["x"]})
    write(folder / "*.csv", {"text": ["y"]})
    assert files_of("one.csv,two.csv") == ("one.csv,two.csv",) and files_of("*.csv") == ("*.csv",)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("one.csv,gone.csv", "gone.csv: no such file"),
        ("gone/*.csv", r"gone/\*.csv: no file fits this pattern"),
        (",", "names no file"),
        (("one.csv", "other.jsonl"), "other.jsonl: has no column 'label'; it has text, x"),
    ],
)
def test_what_is_wrong_with_one_of_several_names_it(
    folder: Path, files: str | tuple[str, ...], message: str
) -> None:
    put(folder / "other.jsonl", '{"text": "x", "x": 1}\n')
    with pytest.raises(MinitrainError, match=message):
        read_file(files).column("label")


def test_a_bad_value_is_named_by_the_row_of_its_own_file(folder: Path) -> None:
    put(folder / "a.jsonl", '{"text": "x", "label": 0}\n{"text": "y", "label": 1}\n')
    put(folder / "b.jsonl", '{"text": "x", "label": 0}\n{"text": null, "label": 1}\n')
    for fraction in (0.0, 0.5):
        with pytest.raises(MinitrainError, match=r"b\.jsonl, row 2, column 'text'"):
            load_splits(train_file=("a.jsonl", "b.jsonl"), eval_fraction=fraction, tokenizer=load_tokenizer("demo"))


def test_files_of_different_kinds_are_read_as_the_one_without_types(folder: Path) -> None:
    put(folder / "three.jsonl", '{"text": "d", "label": 1}\n{"text": "e", "label": "0"}\n')
    write(folder / "four.parquet", {"text": ["f"], "label": [0]})
    table = read_file("one.csv,three.jsonl,four.parquet")
    assert contents(table) == {"text": ["a", "b", "d", "e", "f"], "label": ["0", "1", "1", "0", "0"]}
    assert [table.where(row) for row in (1, 2, 4)] == [
        "one.csv, row 2",
        "three.jsonl, row 1",
        "four.parquet, row 1",
    ]
    put(folder / "five.jsonl", '{"text": "d", "label": null}\n')
    with pytest.raises(MinitrainError, match=r"five\.jsonl, row 1, column 'label': is NoneType; beside a file"):
        read_file("one.csv,five.jsonl").column("label")


def test_rows_keep_their_numbers_when_some_are_chosen(folder: Path) -> None:
    table = read_file("one.csv,two.csv")
    assert [table.select([2, 1]).where(row) for row in (0, 1)] == ["two.csv, row 1", "one.csv, row 2"]
    assert [part for part in table.pieces(1)] == [
        ("one.csv", 1, slice(0, 1)),
        ("one.csv", 2, slice(1, 2)),
        ("two.csv", 1, slice(2, 3)),
    ]


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("data/reviews.csv", "reviews"),
        ("data/reviews.jsonl.gz", "reviews"),
        ("data/v1.2.csv", "v1.2"),
        ("data/*.csv", "data"),
        ("a.csv,b.csv,c.csv", "a+2"),
    ],
)
def test_the_folder_of_a_run_is_called_after_its_files(flag: str, name: str) -> None:
    assert (
        output_path(parse(TrainConfig, "", ["--model", "demo", "--train_file", flag]))
        == Path("runs") / f"{name}-demo"
    )


def test_names_of_columns_may_have_commas_as_a_json_list() -> None:
    config = parse(TrainConfig, "", ["--text_columns", '["a, b", " c"]', "--label_column", "d, e"])
    assert (config.text_columns, config.label_column) == (("a, b", " c"), "d, e")
    assert parse(TrainConfig, "", ["--text_columns", "a, b"]).text_columns == ("a", "b")


@pytest.mark.parametrize("value", ['["a"', '["a", 1]', '["", "b"]'])
def test_a_json_list_that_is_none_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(TrainConfig, "", ["--text_columns", value])
    assert """write '["a, b", "c"]'""" in capsys.readouterr().err


@pytest.mark.parametrize("named", ["{0}/*.csv,{0}/a.csv", "{0}/a.csv,{0}/../{1}/a.csv", ("{0}/a.csv", "{0}/*.csv")])
def test_a_file_that_is_named_twice_is_an_error(tmp_path: Path, named: str | tuple[str, ...]) -> None:
    for name in "ab":
        (tmp_path / f"{name}.csv").touch()
    parts = [part.format(tmp_path, tmp_path.name) for part in ((named,) if isinstance(named, str) else named)]
    with pytest.raises(MinitrainError, match=r"a.csv: is named twice, and its rows would count twice"):
        files_of(parts[0] if isinstance(named, str) else parts)
    assert len(files_of(f"{tmp_path}/*.csv")) == 2
