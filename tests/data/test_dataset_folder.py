"""A folder as on the Hub: the same values as by --train_file, and files in the splits that a person means."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from test_tables import contents, put, write

from minitrain.config.read_options import ReadOptions
from minitrain.config.train_config import TrainConfig
from minitrain.data.load import load_splits
from minitrain.data.splits import choose_splits, read_tables
from minitrain.data.tables.load import _check_files, load_tables, read_file
from minitrain.data.tables.parquet_rows import arrow_table
from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.errors import MinitrainError
from minitrain.storage.download import Repository
from minitrain.storage.hub_datasets import _data_files

CELLS = ["None", "null", "NA", "nan", "N/A", "007", "1e3", "True", "", "  ", "2020-01-01 00:00:00", "-", "1.0", "x"]
ROWS = {"text": CELLS, "label": [str(i % 2) for i in range(len(CELLS))]}


def folder_of(path: Path, names: dict[str, str]) -> str:
    for name, content in names.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        put(path / name, content)
    return str(path)


def csv_of(rows: dict[str, list[Any]], delimiter: str = ",") -> str:
    lines = zip(*([name, *values] for name, values in rows.items()), strict=True)
    return "".join(delimiter.join(map(str, line)) + "\n" for line in lines)


SMALL = csv_of({"text": ["a", "b"], "label": [0, 1]})


@pytest.mark.parametrize("kind", [".csv", ".tsv", ".jsonl", ".json"])
def test_a_folder_and_its_file_hold_the_same_values(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"train{kind}"
    if kind == ".json":
        put(path, json.dumps([dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)]))
    else:
        write(path, ROWS)
    folder, file = load_tables(str(tmp_path))["train"], read_file(path)
    assert contents(folder) == contents(file) == ROWS
    assert folder.untyped == file.untyped and folder.notes == (f"train: train{kind}",)


def test_what_datasets_has_cached_of_a_folder_changes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", ROWS)
    datasets.load_dataset(str(tmp_path))
    assert contents(load_tables(str(tmp_path))["train"]) == contents(read_file(path)) == ROWS


def test_empty_and_odd_json_values_are_the_same_by_folder(tmp_path: Path) -> None:
    rows = [
        {"text": "x", "label": True, "n": None},
        {"text": "2020-01-01 00:00:00", "label": False, "n": {"a": [1]}},
    ]
    path = put(tmp_path / "train.jsonl", "\n".join(map(json.dumps, rows)))
    assert contents(load_tables(str(tmp_path))["train"]) == contents(read_file(path))


def test_a_file_of_a_folder_is_named_in_errors_and_read_as_the_flags_say(tmp_path: Path) -> None:
    latin = folder_of(tmp_path / "latin", {"train.csv": ""})
    put(tmp_path / "latin" / "train.csv", "text;label\ncaf\xe9;0\nb;1\n".encode("latin-1"))
    with pytest.raises(MinitrainError, match=r"train\.csv, line 2: is not UTF-8"):
        load_tables(latin)
    splits = load_splits(latin, encoding="latin-1", delimiter=";", tokenizer=load_tokenizer("demo"))
    assert len(splits.train) == 2


def card(body: str) -> str:
    return f"---\nconfigs:\n- config_name: default\n{body}  data_files:\n  - split: train\n    path: a.csv\n---\n"


def test_what_the_card_declares_is_heeded(tmp_path: Path) -> None:
    semicolons = csv_of(ROWS, ";")
    folder = folder_of(tmp_path / "sep", {"README.md": card('  sep: ";"\n'), "a.csv": semicolons})
    table = load_tables(folder)["train"]
    assert contents(table) == ROWS and table.notes == ()
    names = card("  column_names: [text, label]\n  header: null\n")
    folder = folder_of(tmp_path / "names", {"README.md": names, "a.csv": "x,0\ny,1\n"})
    assert contents(load_tables(folder)["train"]) == {"text": ["x", "y"], "label": [0, 1]}  # by `datasets`


def test_declared_classes_go_on_being_known(tmp_path: Path) -> None:
    features = "dataset_info:\n  features:\n  - name: text\n    dtype: string\n  - name: label\n    dtype:\n"
    names = "      class_label:\n        names:\n          '0': neg\n          '1': pos\n"
    folder = folder_of(tmp_path, {"README.md": f"---\n{features}{names}---\n", "train.csv": SMALL})
    assert load_tables(folder)["train"].class_names == {"label": ("neg", "pos")}


@pytest.mark.parametrize(
    ("files", "train", "validation"),
    [
        (["train.csv", "train_dev.csv"], "train.csv", "train_dev.csv"),
        (["train.csv", "dev-train.csv", "test.csv"], "train.csv", None),
        (["TRAIN.csv", "DEV.csv"], "TRAIN.csv", "DEV.csv"),
        (["Train.csv", "Test.csv"], "Train.csv", None),
        (["trainset.csv", "testset.csv"], "trainset.csv", None),
        (["train.csv", "dev.jsonl"], "train.csv", "dev.jsonl"),
        (["train.csv.gz", "dev.jsonl"], "train.csv.gz", "dev.jsonl"),
        (["train/a.csv", "validation/b.jsonl"], "train/a.csv", "validation/b.jsonl"),
        (["mytrain.csv", "mydev.csv"], "mytrain.csv", "mydev.csv"),
        (["reviewsTrain.csv", "reviewsTest.csv"], "reviewsTrain.csv", None),
        (["train.csv", "eval.csv", "test.csv"], "train.csv", "eval.csv"),
    ],
)
def test_names_that_datasets_takes_otherwise_than_meant_are_an_error(
    tmp_path: Path, files: list[str], train: str, validation: str | None
) -> None:
    folder_of(tmp_path, {name: '{"text": "a", "label": 0}' if "json" in name else SMALL for name in files})
    with pytest.raises(MinitrainError, match=f"--dataset {tmp_path}: ") as caught:
        load_tables(str(tmp_path))
    way = str(caught.value).split("\n  ")[1]
    assert f"--train_file {tmp_path / train}" in way
    assert validation is None or f"--eval_file {tmp_path / validation}" in way


@pytest.mark.parametrize(
    ("files", "notes"),
    [
        (["train.csv", "test.csv"], {"train": "train: train.csv", "test": "test: test.csv"}),
        (["data/train/a.csv", "data/train/b.csv"], {"train": "train: data/train/a.csv, data/train/b.csv"}),
        ([f"train-{i}.csv" for i in range(5)], {"train": "train: train-0.csv ... train-4.csv (5 files)"}),
        (["contest.csv", "values.csv"], {"train": "train: contest.csv, values.csv"}),
    ],
)
def test_which_file_is_in_which_split_is_said(tmp_path: Path, files: list[str], notes: dict[str, str]) -> None:
    tables = load_tables(folder_of(tmp_path, dict.fromkeys(files, SMALL)))
    assert {name: table.notes[0] for name, table in tables.items()} == notes
    assert len(tables["train"]) == 2 * sum("test" not in name or "contest" in name for name in files)


def test_a_file_in_no_split_is_said(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"train.csv": SMALL, "more.csv": SMALL})
    splits = load_splits(folder, tokenizer=load_tokenizer("demo"))
    assert splits.notes == ["train: train.csv", "in no split by its name: more.csv"]


@pytest.mark.parametrize("name", ["more/rows.csv.gz", "data/holdout.csv", "contest.csv"])
def test_a_file_in_no_split_is_said_wherever_it_is(tmp_path: Path, name: str) -> None:
    first = "data/train.csv" if name.startswith("data") else "train.csv"
    folder = folder_of(tmp_path, {first: SMALL, name: SMALL, ".hidden.csv": SMALL})
    assert load_tables(folder)["train"].notes == (f"train: {first}", f"in no split by its name: {name}")


def test_files_without_a_split_for_training_are_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"data/train.csv": SMALL, "test/train.csv": SMALL})
    with pytest.raises(MinitrainError) as caught:
        load_splits(folder, tokenizer=load_tokenizer("demo"))
    assert str(caught.value).endswith(
        "has no split 'train'; it has test; test: test/train.csv; in no split by its name: data/train.csv; pass "
        "--train_file FILE"
    )


def test_a_file_called_eval_is_said_to_be_the_test_split(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"train.csv": SMALL, "eval.csv": SMALL})
    splits = load_splits(folder, tokenizer=load_tokenizer("demo"))
    assert list(splits.test) == ["test"] and "eval.csv is scored once, after training" in " ".join(splits.notes)
    config = TrainConfig(model="demo", dataset=folder)
    with pytest.raises(
        MinitrainError, match="no evaluation data: the splits are train, test; pass --eval_fraction"
    ):
        choose_splits(config, read_tables(config), None)


def test_flags_come_before_what_the_card_declares(tmp_path: Path) -> None:
    tabs = card('  sep: "\\t"\n')
    quotes = folder_of(tmp_path / "quotes", {"README.md": tabs, "a.csv": 'text\tlabel\n"x\t0\ny"\t1\n'})
    latin = folder_of(tmp_path / "latin", {"README.md": tabs, "a.csv": ""})
    put(tmp_path / "latin" / "a.csv", "text\tlabel\ncaf\xe9\t0\n".encode("latin-1"))
    signs = folder_of(tmp_path / "signs", {"README.md": tabs, "a.csv": "text;label\nx;0\n"})
    for folder, options, texts in (
        (quotes, {"quoting": "none"}, ['"x', 'y"']), (latin, {"encoding": "latin-1"}, ["caf\xe9"]),
        (signs, {"delimiter": ";"}, ["x"]),
    ):  # fmt: skip
        assert list(load_tables(folder, options=ReadOptions(**options))["train"].column("text")) == texts


def test_flags_that_datasets_would_not_heed_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"README.md": card("  skiprows: 1\n"), "a.csv": f"title\n{SMALL}"})
    assert contents(load_tables(folder)["train"]) == {"text": ["a", "b"], "label": [0, 1]}
    for source, why in (
        (folder, f"--dataset {folder} is read by `datasets`"),
        *((name, f"--dataset {name} is not") for name in ("user/reviews", "demo")),
    ):
        with pytest.raises(MinitrainError, match=f"^--quoting none: .*{why}"):
            load_tables(source, options=ReadOptions(quoting="none"))


def test_the_real_splits_of_a_card_have_no_notes(glue: Path) -> None:
    assert [table.notes for table in load_tables(str(glue), "mrpc").values()] == [(), (), ()]


def test_a_cell_that_datasets_reads_as_missing_is_explained(tmp_path: Path) -> None:
    """As of a dataset of the Hub, whose files pass through pandas."""
    path = write(
        tmp_path / "a.csv", {"text": ["x", "NA", "z"], "label": ["None", "no", "yes"], "n": ["", "1", "2"]}
    )
    table = arrow_table("user/data, split train", datasets.Dataset.from_csv(str(path)), from_text=True)
    for name, row in (("text", 2), ("label", 1)):
        with pytest.raises(
            MinitrainError, match=rf"split train, row {row}, column '{name}': is None; .*--train_file"
        ):
            table.column(name)
    assert contents(table)["n"][1:] == [1.0, 2.0]


def test_a_repository_of_the_hub_has_the_same_traps() -> None:
    inside = "hf://datasets/user/data@abc/"
    files = {"train": [f"{inside}train.csv", f"{inside}train_dev.csv"], "validation": [f"{inside}train_dev.csv"]}
    builder = SimpleNamespace(config=SimpleNamespace(data_files=files))
    with pytest.raises(MinitrainError, match=r"user/data: train_dev\.csv would be in two splits") as caught:
        repository = Repository(name="user/data", kind="dataset")
        _data_files(builder, repository, "abc", None, partial(_check_files, "user/data"))
    assert "--train_file train.csv --eval_file train_dev.csv" in str(caught.value)
