"""benchmark.py on a tiny model: every side runs, every figure is there, and what is wrong is said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from in_process import Done
from in_process import script as script
from references import race, speed
from test_loop import write_tiny_model
from test_main import named_reviews, write_csv
from test_scripts import command

from minitrain.errors import MinitrainError

KEYS = {
    "train_fp32_ratio",
    "train_bf16_ratio",
    "train_bf16_ratio_vs_best",
    "evaluate_ratio",
    "evaluate_bf16_ratio_vs_best",
    "predict_ratio",
    "startup_ratio",
    "memory_ratio",
    "ceiling_share",
    "ceiling_share_bf16",
}


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """A tiny model and a folder laid out as a dataset."""
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "data").mkdir()
    for name, count in (("train", 40), ("validation", 9)):
        write_csv(folder / f"data/{name}.csv", *named_reviews(count, seed=len(name)))
    words = {"model": write_tiny_model(folder / "tiny"), "dataset": folder / "data", "threads": 1}
    return [word for name, value in words.items() for word in (f"--{name}", value)]


def test_every_side_runs_and_every_ratio_is_written(flags: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    done = command("benchmark", *flags, "--steps", 4, "--warmup", 1, "--rounds", 1, "--json", path)
    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result.keys() >= KEYS and all(result[key] > 0 for key in KEYS)
    (measured,) = result["rounds"]
    assert list(measured) == list(speed.SIDES)
    for side in ("ours-fp32", "ours-bf16", "trainer", "trainer-best"):
        assert measured[side]["startup_seconds"] > 0 and 0.5 < measured[side]["loss"] < 1.0
        assert measured[side]["training_seconds"] > 0

    def ratio(ours: str, theirs: str, what: str) -> float:
        return measured[ours][what] / measured[theirs][what]  # type: ignore[no-any-return]

    train, evaluate, predict = (f"{what}_examples_per_second" for what in ("train", "evaluate", "predict"))
    assert result["train_fp32_ratio"] == ratio("ours-fp32", "trainer", train)
    assert result["train_bf16_ratio"] == ratio("ours-bf16", "trainer", train)
    assert result["train_bf16_ratio_vs_best"] == ratio("ours-bf16", "trainer-best", train)
    assert result["evaluate_ratio"] == ratio("ours-fp32", "trainer", evaluate)
    assert result["evaluate_bf16_ratio"] == ratio("ours-bf16", "trainer", evaluate)
    assert result["evaluate_bf16_ratio_vs_best"] == ratio("ours-bf16", "trainer-best", evaluate)
    assert result["predict_ratio"] == ratio("ours-fp32", "pipeline", predict)
    assert result["predict_bf16_ratio"] == ratio("ours-bf16", "pipeline", predict)
    assert result["startup_ratio"] == ratio("ours-fp32", "trainer", "startup_seconds")
    assert result["memory_ratio"] == ratio("ours-fp32", "trainer", "train_peak_memory_mb")
    for name in KEYS:
        assert f"\n{name} " in done.stdout


def test_without_bf16_the_sides_and_ratios_in_fp32_are_left(
    flags: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(race.__file__).parent.parent)
    from benchmark import BenchmarkConfig

    measured = {
        "train_examples_per_second": 2.0,
        "evaluate_examples_per_second": 3.0,
        "predict_examples_per_second": 4.0,
        "startup_seconds": 1.0,
        "train_peak_memory_mb": 5.0,
        "ceiling_share": 0.5,
        "loss": 0.6,
    }
    asked: list[str] = []
    monkeypatch.setattr(race, "_measure", lambda side, config: asked.append(side) or measured)
    path = tmp_path / "result.json"
    race.run(BenchmarkConfig(rounds=1, fp32_only=True, json=str(path)))
    result = json.loads(path.read_text(encoding="utf-8"))
    assert asked == ["ours-fp32", "trainer", "pipeline"]
    assert result["train_fp32_ratio"] == 1.0 and result["ceiling_share"] == 0.5
    assert not [name for name in result if "bf16" in name]


def test_growth_runs_on_every_size(flags: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "GROWTH", (20, 60))
    monkeypatch.syspath_prepend(Path(race.__file__).parent.parent)
    path = tmp_path / "growth.json"
    from benchmark import BenchmarkConfig

    config = BenchmarkConfig(
        model=str(flags[1]), dataset=str(flags[3]), threads=1, steps=3, warmup=0, rounds=1, json=str(path)
    )
    race.run_growth(config)
    result = json.loads(path.read_text(encoding="utf-8"))
    assert list(result["medians"]) == ["20", "60"]
    for memory in ("private_memory_mb", "reading_memory_mb"):  # of the run, and of the process that reads for it
        assert all(each[memory] > 50 for each in result["medians"].values())
    assert all(0 < result[f"slowest_to_fastest_{what}"] <= 1 for what in ("examples", "work"))


def test_sides_that_come_to_another_loss_are_refused() -> None:
    same = {"ours-fp32": {"loss": 0.60}, "trainer": {"loss": 0.63}, "pipeline": {"speed": 1.0}}
    race.check_losses([same])
    with pytest.raises(MinitrainError, match="ours-fp32 0.6000, trainer 0.6600"):
        race.check_losses([{**same, "trainer": {"loss": 0.66}}])


def test_a_side_that_fails_is_named_with_what_it_said(
    script: Callable[..., Done], flags: list[Any], tmp_path: Path
) -> None:
    done = script(
        "scripts/benchmark.py", "--model", tmp_path, *flags[2:], "--quick", "--json", tmp_path / "result.json"
    )
    assert done.returncode == 1 and "the side ours-fp32 failed" in done.stderr
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", 5, "--warmup", 4], "--warmup is 4"),
        (["--rounds", 0], "--rounds is 0"),
        (["--json", "/dev/null/result.json"], "--json /dev/null/result.json"),
    ],
)
def test_wrong_flags_are_refused_before_anything_runs(
    script: Callable[..., Done], words: list[Any], said: str
) -> None:
    done = script("scripts/benchmark.py", *words)
    assert done.returncode and said in done.stderr
