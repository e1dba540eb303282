"""docs/check.md, "Labels that are probably wrong": its commands run, its snippet drops and relabels rows."""

import csv
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from in_process import Done
from in_process import script as script
from test_loop import write_tiny_model

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/check.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## Labels that are probably wrong\n")[1].split("\n## ")[0]
COMMANDS = [
    shlex.split(line) for part in re.findall(r"```bash\n(.*?)```", SECTION, re.DOTALL) for line in part.splitlines()
]
[SNIPPET] = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_commands_run_and_the_snippet_drops_and_relabels_those_rows(
    script: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_model(tmp_path / "demo")
    texts = [f"a {('poor', 'fine')[i % 2]} film,\nnumber {i}" for i in range(40)]
    labels = ["NA" if i % 2 else "1" for i in range(40)]  # which pandas would read as something else
    with (tmp_path / "my.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "text", "topic"), *zip(range(40), texts, labels, strict=True)])
    for _, name, *flags in COMMANDS:
        flags = [str(tmp_path / "demo") if flag == "demo" else flag for flag in flags]
        short = ["--max_steps", "2", "--device", "cpu"] if name == "scripts/train.py" else []
        done = script(name, *flags, *short)
        assert done.returncode == 0, done.stderr
        assert "labels that are probably wrong: " in done.stdout
    # Two steps teach nothing: the rows to mend are written by hand.
    errors = [{"row": 3, "label": "1", "suggested": "NA"}, {"row": 40, "label": "NA", "suggested": "1"}]
    for wrong in (errors, []):
        (tmp_path / "runs/mine/label_errors.jsonl").write_text("".join(json.dumps(e) + "\n" for e in wrong))
        exec(SNIPPET, {})
        rows, numbers = read(tmp_path / "my.csv"), [error["row"] for error in wrong]
        assert read(tmp_path / "dropped.csv") == [row for i, row in enumerate(rows, 1) if i not in numbers]
        for error in wrong:
            rows[error["row"] - 1]["topic"] = error["suggested"]
        assert read(tmp_path / "relabelled.csv") == rows


def test_the_table_says_what_the_benchmark_found() -> None:
    facts = json.loads((ROOT / "benchmarks/label_noise.json").read_text(encoding="utf-8"))
    assert facts["same_rows_as_cleanlab"]
    for name, own in facts["ways"].items():
        assert f"| {name} | {own['listed']} | {own['recall']:.3f} | {own['precision']:.3f} |\n" in SECTION
