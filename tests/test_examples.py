"""The minimal loop beside `fit`; the course's chapter as a user runs it: on the embedded data, and on real MRPC."""

import importlib.util
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from in_process import Done
from in_process import script as script

from minitrain import TrainConfig, fit, load_classifier, load_splits, load_tokenizer
from minitrain.training.evaluation import Evaluation
from minitrain.training.loop import StepLog

ROOT = Path(__file__).parent.parent
Script = Callable[..., Done]


def course_loop(script: Script, *flags: str) -> str:
    done = script("examples/course_loop.py", "--model", "demo", "--max_steps", "3", *flags)
    assert done.returncode == 0, done.stderr
    assert "3/3" in done.stderr  # the progress bar of the loop
    return done.stdout


def assert_scores(out: str, rows: int) -> None:
    assert f"predictions: ({rows}, 2)" in out
    scores = re.search(r"\{'accuracy': ([\d.]+), 'f1': ([\d.]+)\}\n$", out)
    assert scores is not None
    assert 0.3 < float(scores[1]) < 1.0 and 0.0 <= float(scores[2]) < 1.0


def test_course_runs_on_what_is_embedded(script: Script) -> None:
    out = course_loop(script, "--dataset", "demo")
    assert re.search(r"^loss of one batch of two sentences: 0\.\d{4}$", out, re.MULTILINE)
    assert "validation    1000 rows, columns text, label" in out
    assert_scores(out, 1000)


def test_course_on_mrpc_shows_the_numbers_of_the_course(script: Script, glue: Path) -> None:
    out = course_loop(script, "--dataset", str(glue), "--subset", "mrpc")
    sizes = dict(
        re.findall(r"^(train|validation|test) +(\d+) rows, columns sentence1, sentence2, label", out, re.M)
    )
    assert sizes == {"train": "3668", "validation": "408", "test": "1725"}
    assert "lengths of the first eight: [50, 59, 47, 67, 59, 50, 62, 32]" in out
    assert "collated: (8, 67)" in out
    assert_scores(out, 408)


def test_the_minimal_loop_has_the_bits_of_fit() -> None:
    spec = importlib.util.spec_from_file_location("minimal", ROOT / "examples/minimal.py")
    assert spec is not None and spec.loader is not None
    minimal = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(minimal)
    minimal.load_splits = few_rows = partial(load_splits, max_train_samples=64, max_eval_samples=20)
    model, losses, accuracy = minimal.train("demo", "demo", max_steps=6)

    config = TrainConfig(max_steps=6, kernels="reference", device="cpu")
    splits = few_rows("demo", tokenizer=load_tokenizer("demo"))
    torch.manual_seed(config.seed)
    ours, recorder = load_classifier("demo", label_names=splits.labels.names, kernels="reference"), Recorder()
    fit(ours, splits.train, splits.evaluation, config, observer=recorder)
    assert recorder.losses == losses and len(losses) == 6
    assert recorder.accuracy == accuracy
    for mine, theirs in zip(ours.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


class Recorder:
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_step(self, log: StepLog) -> None:
        self.losses.append(log.loss)

    def on_evaluation(self, step: int, epoch: float, results: dict[str, Evaluation], is_best: bool) -> None:
        self.accuracy = results["validation"].metrics["accuracy"]
