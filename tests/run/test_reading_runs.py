"""A run on files as people have them: trained on, written down, scored and labelled again."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_tables import put

from minitrain.config.inference_config import EvaluateConfig, PredictConfig
from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.run.evaluate import evaluate_run
from minitrain.run.main import train
from minitrain.run.predict import predict_run
from minitrain.run.saved_run import load_run

READING = {"delimiter": ";", "encoding": "latin-1"}
SPAM = [("ham", "caf\xe9 at nine"), ("spam", "win \xa3100"), ("ham", "see you"), ("spam", "call now")]


def latin(path: Path, rows: list[tuple[str, str]]) -> str:
    content = "v1; v2;;\n" + "".join(f"{label};{text};;\n" for label, text in rows)
    return str(put(path, content.encode("latin-1")))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on two files of semicolons in Latin-1, whose columns are half without a name."""
    folder = tmp_path_factory.mktemp("reading")
    train(
        TrainConfig(
            model="demo", train_file=(latin(folder / "a.csv", SPAM[:2]), latin(folder / "b.csv", SPAM[2:])),
            eval_file=latin(folder / "eval.csv", SPAM[:3]), label_column="v1", max_steps=1, max_length=16,
            output_dir=str(folder / "run"), **READING,
        )  # type: ignore[arg-type]
    )  # fmt: skip
    return folder / "run"


def test_results_and_card_name_every_file(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    names = [str(run.parent / name) for name in ("a.csv", "b.csv")]
    assert results["dataset"] == results["config"]["train_file"] == names
    assert results["text_columns"] == ["v2"]
    card = (run / "README.md").read_text()
    assert "fine-tuned on `a.csv, b.csv`" in card and str(run.parent) not in card  # it may be published


@pytest.mark.parametrize(
    ("entry", "value", "expected"),
    [("config", "x", "dict"), ("text_columns", "text", "list"), ("max_length", "9", "int"), ("join", 1, "str")],
)
def test_an_entry_of_another_type_in_results_is_named(
    run: Path, tmp_path: Path, entry: str, value: Any, expected: str
) -> None:
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run/results.json"
    results = json.loads(path.read_text()) | {entry: value}
    path.write_text(json.dumps(results))
    with pytest.raises(MinitrainError, match=rf"results\.json: '{entry}' is .*, expected {expected} as train\.py"):
        evaluate_run(EvaluateConfig(run=str(tmp_path / "run")))
    path.unlink()  # the way out
    assert load_run(EvaluateConfig(run=str(tmp_path / "run"))).run_info == {}


def test_a_run_is_scored_on_its_own_files_as_it_read_them(run: Path) -> None:
    (result,) = evaluate_run(EvaluateConfig(run=str(run))).values()
    saved = json.loads((run / "results.json").read_text())["results"]["validation"]
    assert result.metrics["accuracy"] == pytest.approx(saved["accuracy"])
    (trained,) = evaluate_run(EvaluateConfig(run=str(run), split="train")).items()
    assert trained[0] == "a.csv and 1 more"


def test_other_files_are_scored_as_the_flags_say(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = latin(tmp_path / "new.csv", SPAM)
    with pytest.raises(MinitrainError, match=r"new\.csv, line 2: is not UTF-8.*--encoding latin-1"):
        evaluate_run(EvaluateConfig(run=str(run), eval_file=path))
    evaluate_run(EvaluateConfig(run=str(run), eval_file=path, encoding="latin-1"))
    assert f"{path}: delimiter ';', as its header shows" in capsys.readouterr().err


@pytest.mark.parametrize("column", [None, (" v2",), ("v2",)])
def test_texts_of_such_a_file_are_labelled(
    run: Path, tmp_path: Path, column: tuple[str, ...] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = latin(tmp_path / "new.csv", SPAM)
    predict_run(PredictConfig(run=str(run), input=path, text_columns=column, **READING))  # type: ignore[arg-type]
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(record["v1"], record["v2"]) for record in records] == SPAM
