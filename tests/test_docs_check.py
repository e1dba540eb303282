"""What docs/check.md says of check.py: its commands run, its table names every finding, its figures are found."""

import json
import os
import re
import shlex
from pathlib import Path

import pytest

from minitrain.config.check_config import FINDINGS, CheckConfig
from minitrain.data.tables.demo import demo_reviews
from minitrain.run.check import check_data
from minitrain.run.flags import parse

PAGE = (Path(__file__).parents[1] / "docs" / "check.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = re.findall(r"^python scripts/check\.py (.+)$", SECTIONS["Before training"], re.MULTILINE)
GLUE = os.environ.get("MINITRAIN_GLUE_DIR")


def cells(section: str) -> list[list[str]]:
    lines = [line for line in SECTIONS[section].splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = demo_reviews()["train"]
    rows = [{"text": text, "label": str(label)} for text, label in zip(*table.columns.values(), strict=True)][:60]
    monkeypatch.chdir(tmp_path)
    for name, part in (("reviews", rows[:40]), ("later", rows[40:])):
        lines = "".join(f"{json.dumps(row['text'])},{row['label']}\n" for row in part if '"' not in row["text"])
        Path(f"{name}.csv").write_text(f"text,label\n{lines}")
    pairs = [{"first": row["text"], "second": row["text"][::-1], "label": row["label"]} for row in rows]
    Path("pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    assert len(COMMANDS) == 4
    for command in COMMANDS[:3]:  # the last is run below
        check_data(parse(CheckConfig, "", shlex.split(command), positional=("data",)))
    assert set(json.loads(Path("found.json").read_text())) >= {"findings", "tokens", "splits"}


def test_the_table_names_every_finding() -> None:
    assert {name for row in cells("Before training") for name in re.findall(r"`(\w+)`", row[0])} == set(FINDINGS)


@pytest.mark.parametrize("data", ["demo", "MRPC", "STS-B"])
def test_the_figures_of_real_data_are_found(data: str) -> None:
    if data != "demo" and GLUE is None:
        pytest.skip("MINITRAIN_GLUE_DIR names no folder of GLUE")
    subset = {"MRPC": "mrpc", "STS-B": "stsb"}.get(data)
    report = check_data(CheckConfig(data="demo" if subset is None else GLUE, subset=subset, show=1000))
    said = {name.strip("`"): (rows, text) for of, name, rows, text in cells("On real data") if of == data}
    assert set(said) == {finding["name"] for finding in report["findings"]}
    for finding in report["findings"]:
        rows, text = said[finding["name"]]
        assert rows in (str(finding["count"]), "validation")  # a whole split
        listed = re.match(r"validation ((?:\d+, )+\d+)", text)
        if listed is not None:
            assert [int(row) for row in listed[1].split(", ")] == [row["row"] for row in finding["examples"]]
