"""--folds and --seeds: each run is the plain run of its rows and seed, bit for bit, also when resumed."""

import csv
import json
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_loop import write_tiny_model
from test_main import named_reviews, read_results, write_csv

from minitrain.config.inference_config import EvaluateConfig
from minitrain.config.train_config import TrainConfig
from minitrain.data.folds import assign_folds
from minitrain.errors import MinitrainError
from minitrain.run import folds as folds_module
from minitrain.run import main as main_module
from minitrain.run.evaluate import evaluate_run
from minitrain.run.main import train

STEPS: dict[str, Any] = {"max_steps": 4, "learning_rate": 3e-3, "eval_strategy": "steps", "eval_steps": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_tiny_model(folder / "tiny")
    texts, labels = named_reviews(60, classes=3)
    rows = [["text", "label", "patient"]]
    rows += [[text, label, f"p{row // 4}"] for row, (text, label) in enumerate(zip(texts, labels, strict=True))]
    with (folder / "train.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    write_csv(folder / "test.csv", *named_reviews(21, seed=2, classes=3))
    write_csv(folder / "scores.csv", texts, [0.5 + len(text) for text in texts])
    return folder


def flags(place: Path, out: Path, **more: Any) -> TrainConfig:
    files = {"model": str(place / "tiny"), "train_file": str(place / "train.csv"), "output_dir": str(out)}
    return TrainConfig(**files | STEPS | {"text_columns": ("text",)} | more)


@pytest.fixture(scope="module")
def folded(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Three folds whose models are kept, with a test file."""
    out = tmp_path_factory.mktemp("runs") / "folds"
    return out, train(flags(place, out, folds=3, keep_folds=True, test_file=str(place / "test.csv")))


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rows_of(place: Path) -> list[list[str]]:
    with (place / "train.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def files_of_fold(place: Path, folder: Path, folds: int, fold: int) -> dict[str, Any]:
    """Files with the rows of a fold, counted from 0, and with all others, as flags of a plain run."""
    rows = rows_of(place)
    assigned = assign_folds([["awful", "lovely", "so-so"].index(label) for _, label, _ in rows], folds, 42)
    for kind, kept in (("train", False), ("eval", True)):
        part = [row for row, its in zip(rows, assigned, strict=True) if (its == fold) == kept]
        write_csv(folder / f"{kind}.csv", [row[0] for row in part], [row[1] for row in part])
    return {"train_file": str(folder / "train.csv"), "eval_file": str(folder / "eval.csv")}


def test_a_fold_is_the_plain_run_of_its_rows(
    place: Path, folded: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, _ = folded
    files = files_of_fold(place, tmp_path, folds=3, fold=1)
    plain = train(flags(place, tmp_path / "plain", **files, test_file=str(place / "test.csv")))
    fold = read_results(out / "fold-2")
    assert (out / "fold-2/model.safetensors").read_bytes() == (tmp_path / "plain/model.safetensors").read_bytes()
    assert fold["results"]["held-out"] == plain["results"]["validation"]
    assert fold["results"]["test"] == plain["results"]["test"]
    ours = [r for r in records(out / "predictions.jsonl") if r["fold"] == 2]
    theirs = [r for r in records(tmp_path / "plain/predictions.jsonl") if r["split"] == "validation"]
    names = ("text", "label", "prediction", "probability", "probabilities")
    assert [[r[name] for name in names] for r in ours] == [[r[name] for name in names] for r in theirs]


def test_every_row_is_predicted_once_in_the_order_of_the_data(
    place: Path, folded: tuple[Path, dict[str, Any]]
) -> None:
    out, _ = folded
    found, rows = records(out / "predictions.jsonl"), rows_of(place)
    assert [r["row"] for r in found] == list(range(1, 61))
    assert [(r["text"], r["label"]) for r in found] == [(text, label) for text, label, _ in rows]
    assert list(found[0]) == ["fold", "row", "text", "label", "prediction", "probability", "probabilities"]
    assert {r["fold"] for r in found} == {1, 2, 3}


def test_metrics_are_means_and_sample_deviations_over_the_runs(
    folded: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    out, returned = folded
    results = read_results(out)
    assert results == json.loads(json.dumps(returned))
    card = (out / "README.md").read_text(encoding="utf-8")
    assert list(results["results"]) == ["held-out", "test"]
    for split, metrics in results["results"].items():
        assert list(metrics) == ["loss", "accuracy", "macro_f1"]
        for name, summary in metrics.items():
            values = [read_results(out / f"fold-{i}")["results"][split][name] for i in (1, 2, 3)]
            assert [run["results"][split][name] for run in results["runs"]] == values
            assert summary == {"mean": statistics.fmean(values), "sd": statistics.stdev(values)}
            assert f"| {split} | {name} | {summary['mean']:.4f} ± {summary['sd']:.4f} |" in card


def test_f1_names_its_class_and_a_fold_its_held_out_rows(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, labels = named_reviews(40)
    write_csv(tmp_path / "train.csv", texts, [label.replace("lovely", "a|b") for label in labels])
    made = flags(place, tmp_path / "out", train_file=str(tmp_path / "train.csv"), test_file=None)
    assert (
        train(replace(made, folds=2, keep_folds=True, max_steps=1, positive_label="a|b"))["positive_label"] == "a|b"
    )
    assert "\n  f1 of 'a|b' " in capsys.readouterr().out
    assert r"| held-out | f1 of 'a\|b' |" in (tmp_path / "out/README.md").read_text(encoding="utf-8")
    for split in (None, "held-out"):
        with pytest.raises(
            MinitrainError, match="pass --eval_file; the rows held out for it are scored in its pred"
        ):
            evaluate_run(EvaluateConfig(run=str(tmp_path / "out/fold-1"), split=split))
    evaluate_run(EvaluateConfig(run=str(tmp_path / "out/fold-1"), eval_file=str(tmp_path / "train.csv")))
    assert "was trained on most of these rows" in capsys.readouterr().err


def test_a_seed_is_the_plain_run_of_that_seed(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"eval_file": str(place / "test.csv")}
    out = train(flags(place, tmp_path / "seeds", seeds=(3, 4), keep_folds=True, **more))
    assert "validation, mean ± standard deviation of 2 runs" in capsys.readouterr().out
    plain = train(flags(place, tmp_path / "plain", seed=4, **more))
    assert (tmp_path / "seeds/seed-4/model.safetensors").read_bytes() == (
        tmp_path / "plain/model.safetensors"
    ).read_bytes()
    assert out["runs"][1]["results"] == plain["results"]
    assert [(run["name"], run["seed"], run["fold"]) for run in out["runs"]] == [
        ("seed-3", 3, None),
        ("seed-4", 4, None),
    ]


def test_seeds_share_the_rows_that_are_held_back(place: Path, tmp_path: Path) -> None:
    more: dict[str, Any] = {"eval_fraction": 0.25, "max_train_samples": 30}
    train(flags(place, tmp_path / "seeds", seeds=(3, 4), seed=5, **more))
    plain = train(flags(place, tmp_path / "plain", seed=5, **more))
    rows = [
        [r["row"] for r in records(tmp_path / f"{name}/predictions.jsonl")] for name in ("seeds/seed-3", "plain")
    ]
    assert rows[0] == rows[1] == [r["row"] for r in records(tmp_path / "seeds/seed-4/predictions.jsonl")]
    assert plain["results"]["validation"]["examples"] == 15


def test_only_results_and_predictions_stay_and_each_seed_deals_anew(place: Path, tmp_path: Path) -> None:
    results = train(
        flags(place, tmp_path / "runs", folds=2, seeds=(0, 1), group_column="patient", save_strategy="epoch")
    )
    names = [run["name"] for run in results["runs"]]
    assert names == ["seed-0-fold-1", "seed-0-fold-2", "seed-1-fold-1", "seed-1-fold-2"]
    for name in names:
        there = {path.name for path in (tmp_path / "runs" / name).iterdir()}
        assert there == {"results.json", "predictions.jsonl", "log.jsonl"}
    found = records(tmp_path / "runs/predictions.jsonl")
    assert [(r["seed"], r["row"]) for r in found] == [(seed, row) for seed in (0, 1) for row in range(1, 61)]
    patients = [patient for _, _, patient in rows_of(place)] * 2
    for seed in (0, 1):
        own = [(p, r["fold"]) for p, r in zip(patients, found, strict=True) if r["seed"] == seed]
        assert len(set(own)) == len({patient for patient, _ in own}) == 15  # each patient in one fold
    assert [r["fold"] for r in found[:60]] != [r["fold"] for r in found[60:]]
    with pytest.raises(MinitrainError, match="holds the runs of --folds or --seeds, without models: --keep_folds"):
        evaluate_run(EvaluateConfig(run=str(tmp_path / "runs")))


def test_scores_data_in_memory_and_one_seed(place: Path, tmp_path: Path) -> None:
    texts, _ = named_reviews(30)
    data = [{"text": text, "label": 0.5 + len(text), "patient": len(text) % 7} for text in texts]
    made = TrainConfig(
        model=str(place / "tiny"), output_dir=str(tmp_path / "runs"), folds=2, group_column="patient", **STEPS
    )
    results = train(made, data=data)
    assert results["results"]["held-out"]["rmse"]["sd"] > 0
    assert [r["label"] for r in records(tmp_path / "runs/predictions.jsonl")] == [row["label"] for row in data]
    alone = replace(
        made, folds=None, group_column=None, seeds=(9,), eval_fraction=0.2, output_dir=str(tmp_path / "one")
    )
    assert train(alone, data=data)["results"]["validation"]["loss"]["sd"] is None


# ---- interrupted


def stop_in_run(monkeypatch: pytest.MonkeyPatch, number: int, step: int) -> None:
    """Let the process be killed in a run (counted from 1) after a step."""
    real, runs = main_module.train_loop, []

    def killed(*words: Any, after_step: Any, **more: Any) -> None:
        runs.append(1)

        def after(state: Any, *rest: Any, **options: Any) -> None:
            after_step(state, *rest, **options)
            if len(runs) == number and state.step == step:
                raise KeyboardInterrupt

        real(*words, after_step=after, **more)

    monkeypatch.setattr(main_module, "train_loop", killed)


@pytest.mark.parametrize("saving", [{}, {"save_strategy": "steps", "save_steps": 1}])
def test_a_command_that_is_resumed_in_the_third_fold_ends_with_the_same_bits(
    place: Path,
    folded: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    saving: dict[str, Any],
) -> None:
    whole, expected = folded
    made = flags(place, tmp_path / "folds", folds=3, keep_folds=True, test_file=str(place / "test.csv"), **saving)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_in_run(patch, 3, 2)
        train(made)
    first = (tmp_path / "folds/fold-1/results.json").stat().st_mtime_ns
    capsys.readouterr()
    found = train(replace(made, resume="newest"))
    out = capsys.readouterr().out
    assert out.count("there is nothing to resume") == 2  # the first two are not trained again
    assert ("resumed  at step 2" in out) == bool(saving)
    assert (tmp_path / "folds/fold-1/results.json").stat().st_mtime_ns == first
    assert found["results"] == expected["results"]
    for name in (
        "predictions.jsonl",
        *(f"fold-{i}/{file}" for i in (1, 2, 3) for file in ("model.safetensors", "predictions.jsonl")),
    ):
        assert (tmp_path / "folds" / name).read_bytes() == (whole / name).read_bytes(), name
    before = {path: path.read_bytes() for path in (tmp_path / "folds").rglob("*") if path.is_file()}
    assert train(replace(made, resume="newest")) == found  # finished: nothing is done
    assert {path: path.read_bytes() for path in (tmp_path / "folds").rglob("*") if path.is_file()} == before


def test_a_run_killed_while_it_saved_is_trained_again(
    place: Path, folded: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    whole, expected = folded
    shutil.copytree(whole, tmp_path / "folds")
    for name in ("results.json", "predictions.jsonl", "README.md", "fold-3/results.json"):
        (tmp_path / "folds" / name).unlink()
    made = flags(place, tmp_path / "folds", folds=3, keep_folds=True, test_file=str(place / "test.csv"))
    assert train(replace(made, resume="newest"))["results"] == expected["results"]


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "folds": ({"folds": 4}, "folds: 3 -> 4"),
    "seeds": ({"seeds": (42, 1)}, r"seeds: None -> \[42, 1\]"),
    "groups": ({"group_column": "patient"}, "group_column: None -> patient"),
    "a setting": ({"learning_rate": 1e-3}, "learning_rate: 0.003 -> 0.001"),
    "data": ({"test_file": None}, "test_file: .*test.csv -> None"),
    "one run": (
        {"folds": None, "keep_folds": False, "eval_fraction": 0.2},
        "holds the runs of a command with --folds",
    ),
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_folds_or_settings_are_not_resumed(
    place: Path, folded: tuple[Path, dict[str, Any]], other: str
) -> None:
    out, _ = folded
    change, message = OTHERS[other]
    asked = {"folds": 3, "keep_folds": True, "test_file": str(place / "test.csv"), "resume": "newest"}
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(MinitrainError, match=message):
        train(flags(place, out, **asked | change))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_other_rows_are_not_resumed(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = shutil.copy(place / "train.csv", tmp_path / "train.csv")
    made = flags(place, tmp_path / "folds", folds=3, train_file=str(data))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_in_run(patch, 2, 1)
        train(made)
    text = Path(data).read_text(encoding="utf-8")
    Path(data).write_text(text.replace("lovely", "so-so", 1), encoding="utf-8")
    with pytest.raises(
        MinitrainError, match=r"were started with the train data \w+, 60 rows, now it is \w+, 60 rows"
    ):
        train(replace(made, resume="newest"))


# ---- folders of another kind


def test_folds_and_a_single_run_do_not_share_a_folder(
    place: Path, folded: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    single = flags(place, tmp_path / "run", eval_strategy="no", eval_steps=None)
    train(single)
    several = flags(place, tmp_path / "run", folds=2)
    with pytest.raises(MinitrainError, match="holds a run already"):
        train(several)
    with pytest.raises(MinitrainError, match="holds a single run, not those of --folds or --seeds"):
        train(replace(several, resume="newest"))
    train(replace(several, overwrite_output_dir=True))
    assert not {path.name for path in (tmp_path / "run").iterdir()} & {
        "model.safetensors",
        "config.json",
        "log.jsonl",
    }
    with pytest.raises(MinitrainError, match="holds the runs of a command with --folds or --seeds; pass --resume"):
        train(single)
    train(replace(single, overwrite_output_dir=True))
    assert not {path.name for path in (tmp_path / "run").iterdir()} & {"runs.json", "fold-1", "fold-2"}


# ---- what is refused


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "one fold": ({"folds": 1}, "--folds is 1; expected at least 2"),
    "a seed twice": ({"seeds": (1, 2, "1")}, "--seeds: 1 is named twice"),
    "no number": ({"seeds": ("1", "x")}, "--seeds: 'x' is no seed; expected whole numbers"),
    "a fraction": ({"seeds": (1.5,)}, "--seeds: '1.5' is no seed"),
    "a negative seed": ({"seeds": (-1,)}, "--seeds: '-1' is no seed"),
    "too large": ({"seeds": (2**63,)}, "is no seed"),
    "no seeds": ({"seeds": ()}, "--seeds is empty"),
    "groups without folds": ({"group_column": "patient"}, "pass --folds 5"),
    "keep without folds": ({"keep_folds": True}, "--keep_folds keeps the models of --folds or --seeds"),
    "a fraction too": ({"folds": 3, "eval_fraction": 0.1}, "--eval_fraction some of them: pass one of the two"),
    "no evaluation": (
        {"folds": 3, "eval_strategy": "no", "eval_steps": None, "do_eval": False},
        "leave out --do_eval",
    ),
    "a checkpoint": ({"folds": 3, "resume": "runs/x/checkpoints/step-1"}, "is a checkpoint of one run"),
    "changed": ({"seeds": (1, 2), "resume": "newest", "resume_changed": True}, "all runs need the same settings"),
    "calibration": ({"folds": 3, "calibrate": True}, "--calibrate is for models that are kept: pass --keep_folds"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_do_not_go_together_are_refused(place: Path, tmp_path: Path, case: str) -> None:
    change, message = REFUSED[case]
    with pytest.raises(MinitrainError, match=message):
        flags(place, tmp_path, **change)


DATA: dict[str, tuple[dict[str, Any], str]] = {
    "a rare class": ({"folds": 21}, r"--folds 21: class '\S+' has 20 rows, .*pass --folds 20"),
    "few groups": ({"folds": 16, "group_column": "patient"}, "--group_column makes 15 groups, .*pass --folds 15"),
    "no such column": ({"folds": 3, "group_column": "person"}, "has no column 'person'"),
    "nothing to compare": ({"seeds": (1,), "eval_strategy": "no", "eval_steps": None}, "there is nothing to score"),
}


@pytest.mark.parametrize("case", DATA)
def test_data_that_give_no_folds_are_refused_and_nothing_is_written(place: Path, tmp_path: Path, case: str) -> None:
    change, message = DATA[case]
    with pytest.raises(MinitrainError, match=message):
        train(flags(place, tmp_path / "runs", **change))
    assert not (tmp_path / "runs").exists()


def test_a_seed_may_be_a_number_of_numpy_and_a_list() -> None:
    import numpy

    made = TrainConfig(seeds=[numpy.int64(3), 4])
    assert made.seeds == (3, 4) and replace(made, seed=1).seeds == (3, 4)
    assert folds_module.runs_of(made)[1].name == "seed-4"


def test_windows_of_long_texts_are_dealt_with_their_text(place: Path, tmp_path: Path) -> None:
    long = {"long_texts": "windows", "max_length": 8, "stride": 2, "max_steps": 2, "eval_steps": 1}
    train(flags(place, tmp_path / "runs", folds=2, **long))
    found = records(tmp_path / "runs/predictions.jsonl")
    assert [r["row"] for r in found] == list(range(1, 61))
    files = files_of_fold(place, tmp_path, folds=2, fold=0)
    plain = train(flags(place, tmp_path / "plain", **files, **long))
    assert read_results(tmp_path / "runs/fold-1")["results"]["held-out"] == plain["results"]["validation"]
