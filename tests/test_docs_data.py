"""The commands of docs/data.md do what the page says, on small files of the names in it."""

import json
import shlex
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from minitrain.config import TrainConfig
from minitrain.data import tokenize_rows
from minitrain.flags import parse
from minitrain.rows import chosen_rows, tables_of
from minitrain.tokenizer import load_tokenizer

PAGE = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
BLOCKS = [part.split("```")[0] for part in PAGE.split("```bash\n")[1:]]
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("python scripts/train.py ")]
ROWS = [(f"text {i}", ("bad", "good")[i % 2]) for i in range(10)]


def table(first: str, second: str, delimiter: str, quote: str = "") -> str:
    return f"{first}{delimiter}{second}\n" + "".join(f"{quote}{a}{delimiter}{b}\n" for a, b in ROWS)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name in ("parts", "folder"):
        (folder / name).mkdir()
    for name in ("reviews.csv", "january.csv", "parts/a.csv", "parts/b.csv", "folder/train.csv"):
        (folder / name).write_text(table("text", "label", ","))
    lines = [{"text": text, "label": label} for text, label in ROWS]
    nested = [{"review": {"text": text}, "meta": {"stars": label}} for text, label in ROWS]
    for name, rows in (("february.jsonl", lines), ("nested.jsonl", nested)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(lines), folder / "more.parquet")
    (folder / "european.csv").write_text(table("text", "label", ";", "\xe9"), encoding="latin-1")
    (folder / "plain.tsv").write_text(table("text", "label", "\t", '"'))
    spam = "v1,v2,,,\n" + "".join(f"{label},{text} \xa3,,,\n" for text, label in ROWS)
    (folder / "spam.csv").write_text(spam, encoding="latin-1")
    (folder / "commas.csv").write_text(table('"title, body"', "label", ","))
    return folder


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) >= 9


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_reads_its_rows(command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    config = parse(TrainConfig, "", shlex.split(command)[2:])
    splits = tokenize_rows(chosen_rows(config, tables_of(config), None), load_tokenizer("demo"))
    several = isinstance(config.train_file, str) and ("," in config.train_file or "*" in config.train_file)
    assert len(splits.train) == (20 if several else 8 if config.eval_fraction else 10)
    assert splits.labels.names == ("bad", "good") and splits.train.blank == 0
