"""The commands of docs/data.md do what the page says, on small files of the names in it."""

import json
import shlex
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from test_loop import write_tiny_model

from minitrain.config.inference_config import EvaluateConfig, PredictConfig
from minitrain.config.train_config import TrainConfig
from minitrain.data.load import tokenize_splits
from minitrain.data.splits import choose_splits, read_tables
from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.run.evaluate import evaluate_run
from minitrain.run.flags import parse
from minitrain.run.main import train
from minitrain.run.predict import predict_run

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/data.md").read_text(encoding="utf-8")
LINES = [line for part in PAGE.split("```bash\n")[1:] for line in part.split("```")[0].splitlines()]
COMMANDS = [line for line in LINES if line.startswith("python scripts/train.py ")]
USES = [line for line in LINES if line.startswith(("python scripts/predict.py ", "python scripts/evaluate.py "))]
TAGS = ("toxic", "insult")
ROWS = [(f"text {i}", ("bad", "good")[i % 2]) for i in range(10)]


def table(first: str, second: str, delimiter: str, quote: str = "") -> str:
    return f"{first}{delimiter}{second}\n" + "".join(f"{quote}{a}{delimiter}{b}\n" for a, b in ROWS)


def test_the_table_of_rare_positives_says_what_the_result_file_says() -> None:
    result = json.loads((ROOT / "benchmarks/imbalance.json").read_text(encoding="utf-8"))
    assert result["share"] == 0.03
    for title, split in (("3% positives", "validation"), ("50% positives", "validation_all")):
        kinds = [result[split]["macro_f1"][kind] for kind in ("without", "balanced")]
        assert all(len(kind["by_seed"]) == 5 for kind in kinds)
        cells = " | ".join(f"{kind['mean']:.4f} ± {kind['deviation']:.4f}" for kind in kinds)
        assert f"| {title} | {cells} |\n" in PAGE


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
    (folder / "words.csv").write_text(table("text", "label", ","))
    (folder / "numbers.csv").write_text("text,label\na fine text,0\na poor text,1\n")
    (folder / "mails.csv").write_text(
        "subject,body,notes,label\n" + "".join(f"re,{text},,{label}\n" for text, label in ROWS)
    )
    (folder / "prices.csv").write_text(
        "text,label\n" + "".join(f"{text},{100.5 + i}\n" for i, (text, _) in enumerate(ROWS))
    )
    (folder / "new.csv").write_text("id,text\n7,a text\n8,another\n")
    tagged = [
        (text, [tag for i, tag in enumerate(TAGS) if row % 4 in (i, 2)]) for row, (text, _) in enumerate(ROWS)
    ]
    for name, rows in (
        ("comments", [{"text": text, "tags": tags} for text, tags in tagged]),
        ("vectors", [{"text": text, "label": [int(tag in tags) for tag in TAGS]} for text, tags in tagged]),
    ):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "comments.csv").write_text("text,tags\n" + "".join(f'{a},"{", ".join(b)}"\n' for a, b in tagged))
    columns = [f"{text},{int('toxic' in tags)},{int('insult' in tags)}\n" for text, tags in tagged]
    (folder / "columns.csv").write_text("".join(["text,toxic,insult\n", *columns]))
    write_tiny_model(folder / "tiny")
    trained = TrainConfig(
        model=str(folder / "tiny"),
        train_file=str(folder / "reviews.csv"),
        eval_fraction=0.2,
        max_steps=1,
        output_dir=str(folder / "runs/mine"),
        device="cpu",
    )
    train(trained)
    return folder


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) >= 18 and len(USES) >= 5


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_reads_its_rows(command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    config = parse(TrainConfig, "", shlex.split(command)[2:])
    texts = choose_splits(config, read_tables(config), None)
    splits = tokenize_splits(texts, load_tokenizer("demo"), config.max_length, config.long_text_options)
    assert (splits.train.windows is not None) == (config.long_texts == "windows")
    several = isinstance(config.train_file, str) and ("," in config.train_file or "*" in config.train_file)
    rows = 20 if several else 8 if config.eval_fraction else 10
    assert len(splits.train) == min(rows, config.max_train_samples or rows)
    several = any(name in command for name in ("comments", "columns.csv", "vectors"))
    names: tuple[str, ...] | None = None if config.problem_type == "regression" else ("bad", "good")
    if several:
        names = TAGS if config.label_map or config.label_columns else TAGS[::-1]
    assert (splits.labels.names, splits.labels.multi_label) == (names, several)
    assert splits.train.blank == 0


@pytest.mark.parametrize("command", USES)
def test_a_command_of_the_page_uses_what_was_trained(
    command: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    script, *flags = shlex.split(command)[1:]
    if script.endswith("predict.py"):
        predict_run(parse(PredictConfig, "", flags, positional=("run",)))
        assert Path(flags[flags.index("--output") + 1]).is_file()
        return
    scored = evaluate_run(parse(EvaluateConfig, "", flags, positional=("run",)))
    assert scored["validation"].examples == 2  # those that the run held back


def test_the_python_of_the_page_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    names: dict[str, Any] = {}
    for block in PAGE.split("```python\n")[1:]:
        exec(block.split("```")[0], names)
    assert (place / "runs/focal/model.safetensors").is_file()
    assert names["logits"].shape == (2, 2) and len(names["splits"].evaluation["validation"]) == 4
