"""What a run says: `log.jsonl` line by line, the tables against scikit-learn, the interval against scipy."""

import fcntl
import json
import math
import os
import pty
import random
import select
import struct
import termios
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import binomtest  # type: ignore[import-untyped]
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support  # type: ignore[import-untyped]

from minitrain.run.intervals import interval
from minitrain.run.report import Console, class_table, duration, finite_values, result_lines
from minitrain.storage.files import json_text
from minitrain.training.evaluation import Evaluation
from minitrain.training.loop import StepLog
from minitrain.training.metrics import Confusion

STEP_KEYS = {"event", "step", "epoch", "loss", "grad_norm", "learning_rate", "examples_per_second", "padding"}


def step_log(step: int, **values: Any) -> StepLog:
    fields = {"epoch": step / 10, "loss": 1 / step, "grad_norm": 2.0, "learning_rate": step / 2**20}
    shared = {"examples": 8, "padding": 0.25, "seconds": 0.5, "shapes": ((8, 16),)}
    return StepLog(step=step, **(fields | shared | values))


def evaluation(loss: float = 0.5, **metrics: float) -> Evaluation:
    return Evaluation(loss=loss, metrics=metrics, confusion=None, examples=10, seconds=0.0)


def read_log(directory: Path) -> list[dict[str, Any]]:
    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    text = (directory / "log.jsonl.part").read_text(encoding="utf-8")
    return [json.loads(line, parse_constant=no_constant) for line in text.splitlines()]


def logged(directory: Path, total_steps: int, logging_steps: int | None) -> list[dict[str, Any]]:
    console = Console(directory, total_steps, logging_steps)
    for step in range(1, total_steps + 1):
        console.on_step(step_log(step))
    console.close()
    return read_log(directory)


def test_every_logged_step_is_one_object(tmp_path: Path) -> None:
    records = logged(tmp_path, 5, 1)
    assert [set(record) for record in records] == [STEP_KEYS] * 5
    assert records[2] == {
        "event": "step",
        "step": 3,
        "epoch": 0.3,
        "loss": 1 / 3,
        "grad_norm": 2.0,
        "learning_rate": 3 / 2**20,
        "examples_per_second": 16.0,
        "padding": 0.25,
    }


def test_line_sums_up_the_steps_since_the_last_one(tmp_path: Path) -> None:
    records = logged(tmp_path, 11, 4)
    assert [record["step"] for record in records] == [1, 4, 8, 11]
    assert records[1]["loss"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3)
    assert records[3]["loss"] == pytest.approx((1 / 9 + 1 / 10 + 1 / 11) / 3)
    assert [record["learning_rate"] for record in records] == [step / 2**20 for step in (1, 4, 8, 11)]
    assert {record["examples_per_second"] for record in records} == {16.0}


@pytest.mark.parametrize(("total", "lines"), [(1, 1), (60, 60), (100, 100), (250, 126), (1377, 107), (10_000, 101)])
def test_run_has_about_a_hundred_lines_by_default(tmp_path: Path, total: int, lines: int) -> None:
    assert len(logged(tmp_path, total, None)) == lines


def test_evaluation_is_one_object_a_split_with_null_for_nan(tmp_path: Path) -> None:
    console = Console(tmp_path, 8, None)
    results = {"validation": evaluation(pearson=math.nan, mse=math.inf), "validation_2": evaluation(0.75, mse=1.5)}
    console.on_evaluation(4, 0.5, results, True)
    console.close()
    assert read_log(tmp_path) == [
        {
            "event": "evaluation",
            "step": 4,
            "epoch": 0.5,
            "split": "validation",
            "loss": 0.5,
            "pearson": None,
            "mse": None,
        },
        {"event": "evaluation", "step": 4, "epoch": 0.5, "split": "validation_2", "loss": 0.75, "mse": 1.5},
    ]


def test_log_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    console = Console(tmp_path, 8, 1)
    console.on_step(step_log(1))
    assert [record["step"] for record in read_log(tmp_path)] == [1]
    console.close()


def test_lines_are_printed_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(tmp_path, 2, None)
    console.on_step(step_log(1))
    console.on_evaluation(1, 0.5, {"validation": evaluation(accuracy=0.5), "other": evaluation(accuracy=0.9)}, True)
    console.on_step(step_log(2))
    console.on_evaluation(
        2, 1.0, {"validation": evaluation(accuracy=0.4), "other": evaluation(accuracy=0.9)}, False
    )
    console.close()
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith("step     1/2  epoch 0.10  loss 1.0000  grad 2.00  lr 9.54e-07  16 ex/s  pad 25.0%")
    assert lines[1].split() == ["evaluation", "loss", "accuracy"]
    assert lines[2].split() == ["validation,", "epoch", "0.50", "0.5000", "0.5000", "*", "best"]
    assert [line.split()[0] for line in lines[3:]] == ["other,", "step", "validation,", "other,"]
    assert out.count("best") == 1


def test_bar_moves_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))  # rows, columns, pixels
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        assert terminal.isatty()
        console = Console(tmp_path, 2, None)
        console.on_step(step_log(1))
        console.on_step(step_log(2))
        console.close()
        seen = ""
        while "\n" not in seen:  # one read gives what has arrived, which may be a part
            assert select.select([ours], [], [], 10)[0]
            seen += os.read(ours, 100_000).decode()
    os.close(ours)
    assert "2/2" in seen and "100%" in seen
    assert "loss 2.0000" in seen or "loss 1.0000" in seen
    assert capsys.readouterr().out == ""  # the bar says it all
    assert len(read_log(tmp_path)) == 2


def test_evaluations_are_no_training_time(tmp_path: Path) -> None:
    console = Console(tmp_path, 8, None)
    slow = Evaluation(loss=0.5, metrics={}, confusion=None, examples=10, seconds=1000.0)
    before = console.training_seconds()
    console.on_evaluation(1, 0.5, {"validation": slow}, False)
    assert console.training_seconds() < before - 999
    console.close()


@pytest.mark.parametrize(
    ("hits", "count"), [(0, 1), (1, 1), (0, 50), (50, 50), (25, 50), (350, 408), (1, 10_000), (866, 1000)]
)
def test_interval_is_wilsons(hits: int, count: int) -> None:
    expected = binomtest(hits, count).proportion_ci(confidence_level=0.95, method="wilson")
    low, high = interval(hits / count, count)
    # Float64 in another order of operations; scipy's bounds are clipped to [0, 1], ours miss them by a rounding.
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_result_lines_set_accuracy_beside_its_interval_and_the_baseline() -> None:
    result = Evaluation(
        loss=0.3, metrics={"accuracy": 0.866, "f1": 0.9}, confusion=None, examples=1000, seconds=0.0
    )
    low, high = binomtest(866, 1000).proportion_ci(method="wilson")
    lines = result_lines("validation", result, 0.6838)
    assert lines[0] == "validation (1000 examples)"
    assert [line.split()[0] for line in lines[1:]] == ["loss", "accuracy", "f1"]
    assert f"0.8660   95% interval {low:.4f} to {high:.4f}; always the majority class: 0.6838" in lines[2]
    assert "majority" not in "".join(result_lines("validation", result, None))


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_class_table_is_that_of_scikit_learn(classes: int) -> None:
    draw = random.Random(classes)
    true = [draw.randrange(classes) for _ in range(200)]
    # The last class is never predicted, so that its precision is 0/0.
    predicted = [label if draw.random() < 0.6 else draw.randrange(classes) for label in true]
    predicted = [0 if label == classes - 1 else label for label in predicted]
    confusion = Confusion(classes)
    confusion.update(torch.tensor(predicted), torch.tensor(true))
    names = [f"a longer name of class {i}" for i in range(classes)]
    result = Evaluation(loss=0.5, metrics={}, confusion=confusion, examples=200, seconds=0.0)
    lines = [line.removeprefix("  ") for line in class_table(result, names)[1:]]
    table = precision_recall_fscore_support(true, predicted, labels=range(classes), zero_division=0.0)
    for i, name in enumerate(names):
        numbers = [f"{column[i]:.4f}" for column in table[:3]] + [str(table[3][i])]
        assert lines[1 + i].startswith(name) and lines[1 + i].removeprefix(name).split() == numbers
    matrix = confusion_matrix(true, predicted, labels=range(classes))
    for name, line, counts in zip(names, lines[-classes:], matrix.tolist(), strict=True):
        assert line.removeprefix(name).split() == [str(count) for count in counts]
    assert len({len(line) for line in lines[: classes + 1]}) == 1
    assert len({len(line) for line in lines[classes + 2 :]}) == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59.4, "59s"), (59.6, "1m00s"), (75.0, "1m15s"), (600.0, "10m00s"), (3725.0, "62m05s")],
)
def test_duration_reads_as_minutes_and_seconds(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_results_are_valid_json_without_nan() -> None:
    values = finite_values(evaluation(0.5, pearson=math.nan, spearmanr=-0.25))
    assert values == {"examples": 10, "loss": 0.5, "pearson": None, "spearmanr": -0.25}
    assert json.loads(json_text(values)) == values


def test_wide_values_keep_a_blank_between_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As mean squares of prices have."""
    console = Console(tmp_path, 1, None)
    values = {"pearson": 0.91, "spearmanr": -0.25, "mse": 2340337.0, "r2": -36.7134}
    result = Evaluation(loss=2340336.75, metrics=values, confusion=None, examples=3, seconds=0.0)
    console.on_evaluation(1, 1.0, {"validation": result}, False)
    console.close()
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert row[3:] == ["2.3403e+06", "0.9100", "-0.2500", "2.3403e+06", "-36.7134"]
