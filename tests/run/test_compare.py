"""compare.py: runs trained here, and folders with rows made up for what such a run seldom has."""

import json
import math
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import Done
from in_process import script as script
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar  # type: ignore[import-untyped]
from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped]
from test_main import named_reviews, read_results, write_csv

from minitrain.config.compare_config import CompareConfig
from minitrain.config.inference_config import EvaluateConfig
from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.run.compare.comparison import compare_runs
from minitrain.run.evaluate import evaluate_run
from minitrain.run.flags import parse
from minitrain.run.main import train

Row = dict[str, Any]


def compare(*runs: Path, **flags: Any) -> dict[str, Any]:
    return compare_runs(CompareConfig(runs=tuple(map(str, runs)), **{"resamples": 100} | flags))


def only_split(found: dict[str, Any], other: int = 0) -> dict[str, Any]:
    [split] = found["comparisons"][other]["splits"]
    return dict(split)


def class_rows(predictions: str, labels: str, names: str = "ab", sure: Sequence[float] = ()) -> list[Row]:
    """Rows of predictions.jsonl from one letter each."""
    shares = sure or [0.75] * len(labels)
    rest = len(names) - 1
    return [
        {
            "row": number,
            "text": f"text {number}",
            "label": label,
            "prediction": predicted,
            "probability": share,
            "probabilities": {name: share if name == predicted else (1 - share) / rest for name in names},
        }
        for number, (predicted, label, share) in enumerate(zip(predictions, labels, shares, strict=True), 1)
    ]


def write_run(folder: Path, rows: list[Row], values: dict[str, Any] | None = None, **more: Any) -> Path:
    """A finished run as an old version might have left it: its results say little."""
    folder.mkdir()
    results = {"results": {"validation": {"examples": len(rows), **(values or {})}}, **more}
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def runs(place: Path) -> Path:
    """A folder with two runs, two commands with folds, one with seeds, and a run that was never evaluated."""
    write_csv(place / "eval.csv", *named_reviews(40, seed=1))
    shared: dict[str, Any] = {"model": str(place / "tiny"), "train_file": str(place / "train.csv"), "device": "cpu"}
    shared |= {"max_steps": 3, "learning_rate": 3e-3}
    held: dict[str, Any] = {"eval_file": str(place / "eval.csv")}
    for name, flags in {
        "a": held,
        "b": held | {"learning_rate": 1e-3, "max_steps": 12, "metrics": ("f1", "roc_auc"), "report": False},
        "folds": {"folds": 3},
        "more": {"folds": 3, "learning_rate": 1e-3},
        "seeds": held | {"seeds": (1, 2)},
        "silent": {"eval_strategy": "no"},
    }.items():
        train(TrainConfig(**shared | flags, output_dir=str(place / "runs" / name)))
    return place / "runs"


@pytest.mark.filterwarnings("ignore:.* is 0/0")
def test_two_runs_have_the_metrics_of_their_results_and_mcnemars_test(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compare(runs / "a", runs / "b", json=str(tmp_path / "found.json"))
    printed = capsys.readouterr().out
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8")) == json.loads(json.dumps(found))
    assert found["settings"] == {
        "learning_rate": [3e-3, 1e-3],
        "max_steps": [3, 12],
        "metrics": [None, ["f1", "roc_auc"]],
    }
    split = only_split(found)
    saved = [read_results(runs / name)["results"]["validation"] for name in "ab"]
    assert (split["rows"], split["only"], split["notes"]) == (40, [0, 0], [])
    assert list(split["metrics"]) == ["accuracy", "f1", "roc_auc"] and list(split["saved"]) == ["loss"]
    assert split["metrics"]["f1"]["values"] == [one["f1"] for one in saved]
    assert split["metrics"]["roc_auc"]["values"][1] == pytest.approx(saved[1]["roc_auc"], abs=1e-12)
    files = [(runs / name / "predictions.jsonl").read_text(encoding="utf-8") for name in "ab"]
    rows = [[json.loads(line) for line in text.splitlines()] for text in files]
    right = [[row["label"] == row["prediction"] for row in one] for one in rows]
    apart = [sum(a and not b for a, b in zip(*pair, strict=True)) for pair in (right, right[::-1])]
    accuracy = split["metrics"]["accuracy"]
    assert accuracy["values"] == [saved[0]["accuracy"], sum(right[1]) / 40]
    assert accuracy["p_value"] == pytest.approx(
        mcnemar([[0, apart[0]], [apart[1], 0]], exact=sum(apart) < 25).pvalue
    )
    assert [won["count"] for won in split["won"]] == apart
    assert re.search(rf"\n    accuracy +{saved[0]['accuracy']:.4f} \(", printed)
    assert "Another seed moves a metric too" in printed


def test_the_conclusion_says_who_is_better_by_how_much_or_that_the_rows_show_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = "ab" * 20
    first = write_run(tmp_path / "first", class_rows("a" * 40, labels))
    second = write_run(tmp_path / "second", class_rows(labels[:36] + "aaaa", labels))
    third = write_run(tmp_path / "third", class_rows("b" + "a" * 39, labels))
    compare(first, second)
    said = capsys.readouterr().out
    assert re.search(
        r"second is better by 0\.4500 accuracy \(95% interval 0\.\d+ to 0\.\d+, McNemar p under 0", said
    )
    compare(second, first)
    assert re.search(
        r"second is better by 0\.4500 accuracy \(95% interval 0\.\d+ to 0\.\d+", capsys.readouterr().out
    )
    compare(first, third)
    said = capsys.readouterr().out
    assert "no difference that 40 rows can show: first is ahead by 0.0250 accuracy" in said and "p = 1.00)" in said


def test_rows_are_paired_by_their_number_in_any_order_and_others_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, others = class_rows("aabba", "ababa"), class_rows("abaab", "ababa")
    first = write_run(tmp_path / "first", rows[:4])
    second = write_run(tmp_path / "second", others[::-1])
    split = only_split(compare(first, second))
    assert (split["rows"], split["only"]) == (4, [0, 1])
    assert split["metrics"]["accuracy"]["values"] == [0.5, 0.75]
    assert "4 rows in both, 1 more in second are left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change, said",
    [
        ({"text": "another"}, "row 3 of validation has another 'text' in"),
        ({"label": "b"}, "row 3 of validation is 'a' in"),
    ],
)
def test_runs_on_other_data_are_not_tested_but_stand_side_by_side(
    change: Row, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, others = class_rows("aabba", "ababa"), class_rows("abaab", "ababa")
    others[2] |= change
    first = write_run(tmp_path / "first", rows, {"accuracy": 0.4})
    second = write_run(tmp_path / "second", others, {"accuracy": 0.6})
    split = only_split(compare(first, second))
    assert split["metrics"] == {} and split["saved"] == {"accuracy": [0.4, 0.6]}
    assert len(split["notes"]) == 1 and said in split["notes"][0]
    printed = capsys.readouterr().out
    assert said in printed and "0.4000 (0.1176 to 0.7693)" in printed and "better" not in printed


def test_classes_in_another_order_are_the_same_classes(tmp_path: Path) -> None:
    sure = [0.51 + i / 100 for i in range(40)]
    first = write_run(
        tmp_path / "first", class_rows("abab" * 10, "abba" * 10, "ab", sure), {"roc_auc": 0.5, "f1": 0.5}
    )
    second = write_run(tmp_path / "second", class_rows("abab" * 10, "abba" * 10, "ba", sure))
    metrics = only_split(compare(first, second))["metrics"]
    assert all(metric["difference"] == 0 and metric["p_value"] == 1 for metric in metrics.values())
    assert list(metrics) == ["roc_auc", "f1", "accuracy"]


def test_the_texts_that_one_alone_gets_right_begin_with_the_others_surest_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_run(tmp_path / "first", class_rows("aaaaaa", "aaaabb"))
    sure = [0.6, 0.9, 0.7, 0.9, 0.8, 0.7]
    rows = class_rows("bbbabb", "aaaabb", sure=sure)
    for row in rows:
        row["text"] = "<b>\x1b[2J\u202eevil\n" + "x" * 1000
    for run, own in ((first, class_rows("aaaaaa", "aaaabb")), (tmp_path / "second", rows)):
        own = [row | {"text": rows[0]["text"]} for row in own]
        if run == first:
            (run / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
        else:
            write_run(run, own)
    won = only_split(compare(first, tmp_path / "second", show=2))["won"]
    assert [one["count"] for one in won] == [3, 2]
    assert [row["row"] for row in won[0]["rows"]] == [2, 3]
    assert [row["certainty"] for row in won[0]["rows"]] == [0.9, 0.7]
    assert won[0]["rows"][0]["predictions"] == ["a", "b"] and won[0]["rows"][0]["texts"]["text"] == rows[0]["text"]
    printed = capsys.readouterr().out
    assert r"text: <b>\x1b[2J\u202eevil\nxxx" in printed and printed.count("x" * 200) == 0
    assert "row 2, a: first says a, second says b (second certain to 0.90)" in printed
    assert compare(first, tmp_path / "second", show=0)["comparisons"][0]["splits"][0]["won"][0]["rows"] == []


@pytest.mark.filterwarnings("ignore:average_precision is set to 0.0")
def test_several_labels_a_text_are_right_if_all_are(tmp_path: Path) -> None:
    def rows(*answers: str) -> list[Row]:
        return [
            {"row": i, "text": "t", "label": [*"ab"], "prediction": [*answer], "probabilities": shares(answer)}
            for i, answer in enumerate(answers, 1)
        ]

    def shares(answer: str) -> dict[str, float]:
        return {name: 0.8 if name in answer else 0.3 for name in "abc"}

    first = write_run(tmp_path / "first", rows("ba", "ab", "abc", ""), {"macro_f1": 0.5, "average_precision": 0.5})
    second = write_run(tmp_path / "second", rows("a", "ab", "ab", "ab"))
    split = only_split(compare(first, second))
    assert split["metrics"]["subset_accuracy"]["values"] == [0.5, 0.75]
    assert split["metrics"]["subset_accuracy"]["test"] == "McNemar, exact"
    assert list(split["metrics"]) == ["macro_f1", "average_precision", "subset_accuracy"]
    assert [won["count"] for won in split["won"]] == [1, 2]
    assert split["won"][0]["rows"][0]["certainty"] == pytest.approx(0.7)  # b, which second gives 0.3


def test_scores_are_compared_by_their_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def rows(errors: list[float]) -> list[Row]:
        return [
            {"row": i, "text": f"t{i}", "label": float(i), "prediction": i + e} for i, e in enumerate(errors, 1)
        ]

    first = write_run(tmp_path / "first", rows([0.5, -0.5, 0.1, 2.0]), {"mae": 0.775, "pearson": 0.9})
    second = write_run(tmp_path / "second", rows([0.0, 1.5, 0.1, 0.5]))
    split = only_split(compare(first, second))
    mae = split["metrics"]["mae"]
    assert mae["values"] == pytest.approx([0.775, 0.525]) and mae["lower_is_better"]
    assert [[row["row"] for row in won["rows"]] for won in split["won"]] == [[2], [4, 1]]
    assert split["won"][1]["rows"][0]["certainty"] == pytest.approx(1.5)
    printed = capsys.readouterr().out
    assert "2 rows where second is nearer to the score" in printed
    assert "no difference that 4 rows can show: second is ahead by 0.2500 mae" in printed
    assert "4 rows are few" in printed


def test_p_values_of_several_runs_are_corrected_as_statsmodels_does(tmp_path: Path) -> None:
    labels = "ab" * 30
    draw = np.random.default_rng(0)
    folders = []
    for name, share in (("one", 0.6), ("two", 0.8), ("three", 0.75), ("four", 0.6)):
        answers = "".join(label if draw.random() < share else "ba"[label == "b"] for label in labels)
        folders.append(write_run(tmp_path / name, class_rows(answers, labels), {"accuracy": 0.5, "f1": 0.5}))
    found = compare(*folders)
    for name in ("accuracy", "f1"):
        metrics = [only_split(found, other)["metrics"][name] for other in range(3)]
        corrected = multipletests([metric["p_value"] for metric in metrics], method="holm")[1]
        assert [metric["p_holm"] for metric in metrics] == pytest.approx(corrected.tolist())


def test_folds_are_compared_by_rows_and_by_their_means(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = only_split(compare(runs / "folds", runs / "more"))
    assert (split["split"], split["rows"]) == ("held-out", 64)  # each row by the model that did not see it
    both = [read_results(runs / name) for name in ("folds", "more")]
    losses = [[run["results"]["held-out"]["loss"] for run in one["runs"]] for one in both]
    differences = np.subtract(losses[1], losses[0])
    found = split["runs"]["loss"]
    assert found["means"] == pytest.approx([one["results"]["held-out"]["loss"]["mean"] for one in both])
    t = differences.mean() / math.sqrt((1 / 3 + 1 / 2) * differences.var(ddof=1))
    assert found["p_value"] == pytest.approx(2 * stats.t.sf(abs(t), 2), rel=1e-9)
    assert "paired t corrected for folds, 2 degrees of freedom" in capsys.readouterr().out


def test_runs_that_are_no_pairs_are_named(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = read_results(runs / "folds")
    results["config"]["seed"] = 7  # assigns rows to folds otherwise
    write_run(tmp_path / "other", []).joinpath("results.json").write_text(json.dumps(results))
    [comparison] = compare(runs / "folds", tmp_path / "other")["comparisons"]
    assert comparison["splits"][0]["runs"] == {}
    assert "--seed differs (42 and 7), so runs of one name have other rows" in capsys.readouterr().out


def test_a_metric_without_a_value_is_not_what_the_conclusion_is_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"row": i, "text": "t", "label": float(i % 7), "prediction": i % 5 - 0.5} for i in range(1, 41)]
    first = write_run(
        tmp_path / "first", [row | {"prediction": 3.0} for row in rows], {"pearson": None, "mse": 4.0}
    )
    with pytest.warns(UserWarning, match="pearson is NaN: all 40 predictions are 3.0"):
        split = only_split(compare(first, write_run(tmp_path / "second", rows)))
    assert split["metrics"]["pearson"]["values"][0] is None and split["metrics"]["pearson"]["p_value"] is None
    assert split["headline"] == "mse"
    printed = capsys.readouterr().out
    assert (
        re.search(r"first is better by \d\.\d+ mse \(95% interval \d", printed) and "is ahead by nan" not in printed
    )


def test_runs_that_read_other_columns_are_compared_by_files_that_hold_both(
    runs: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, labels = named_reviews(40, seed=1)
    rows = [
        {"title": f"title {i}", "text": text, "label": label}
        for i, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    (tmp_path / "both.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    other = write_run(
        tmp_path / "other",
        [
            row | {"row": 1, "prediction": "awful", "probabilities": {"awful": 1.0, "lovely": 0.0}, "title": "t"}
            for row in [{"label": "awful"}]
        ],
    )
    [note] = only_split(compare(runs / "a", other))["notes"]
    flags = re.search(r"(--keep_columns .+?),", note).group(1)  # type: ignore[union-attr]
    monkeypatch.chdir(tmp_path)
    for name, column in (("a", "text"), ("b", "title")):
        words = f"{runs / name} --eval_file both.jsonl --text_columns {column} --device cpu {flags}"
        evaluate_run(parse(EvaluateConfig, "", shlex.split(words), positional=("run",)))
        Path("rows.jsonl").rename(f"{name}.jsonl")
    assert only_split(compare(Path("a.jsonl"), Path("b.jsonl")))["rows"] == 40


def test_seeds_name_a_run_whose_rows_can_be_compared(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare(runs / "seeds", runs / "a")
    [named] = re.findall(r"compare (\S+) for rows", capsys.readouterr().out)
    assert only_split(compare(Path(named), runs / "a"))["rows"] == 40


def test_a_run_without_rows_says_how_to_make_them(
    runs: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(runs)
    [comparison] = compare(Path("silent"), Path("a"))["comparisons"]
    [note] = comparison["notes"]
    for name in ("silent", "a"):
        command = re.search("`(.+)`", note).group(1).replace("silent", name)  # type: ignore[union-attr]
        flags = shlex.split(command.replace("DATA", str(place / "eval.csv")))[2:]
        evaluate_run(parse(EvaluateConfig, "", [*flags, "--device", "cpu"], positional=("run",)))
    found = only_split(compare(Path("silent.jsonl"), Path("a.jsonl")))
    assert (found["split"], found["rows"], list(found["metrics"])) == ("rows", 40, ["accuracy", "f1"])
    beside = only_split(compare(Path("a"), Path("a.jsonl")))  # the rows that the run scored itself
    assert beside["metrics"]["accuracy"]["p_value"] == 1.0 and beside["rows"] == 40
    assert list(found["won"][0]["rows"][0]["texts"] if found["won"][0]["rows"] else {"text": 0}) == ["text"]


def test_a_saved_value_that_the_rows_do_not_have_is_pointed_out(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", class_rows("abab", "abba"), {"accuracy": 0.9})
    second = write_run(tmp_path / "second", class_rows("abab", "abba"), {"accuracy": 0.5})
    [note, few] = only_split(compare(first, second))["notes"]
    assert note == f"{first}: accuracy is 0.9000 in results.json, 0.5000 by the saved rows; the rows are compared"


def test_f1_of_another_class_is_not_compared(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / name, class_rows("abab", "abba"), {"f1": 0.5, "accuracy": 0.5}, positive_label=name)
        for name in "ab"
    ]
    split = only_split(compare(*folders))
    assert list(split["metrics"]) == ["accuracy"] and split["saved"] == {"f1": [0.5, 0.5]}
    assert "f1: not compared, each run is about another class" in split["notes"]


def test_names_of_classes_keep_to_their_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = class_rows("aab", "abb")
    text = json.dumps(rows).replace('"a"', r'"<i>|\n\u202e"')
    folders = [write_run(tmp_path / name, json.loads(text), {"f1": 0.5}) for name in ("one", "two")]
    compare(*folders)
    wrong = class_rows("bab", "abb")
    compare(
        folders[0], write_run(tmp_path / "three", json.loads(json.dumps(wrong).replace('"a"', r'"<i>|\n\u202e"')))
    )
    printed = capsys.readouterr().out
    assert "\u202e" not in printed and r"row 1, <i>|\n\u202e: one says <i>|\n\u202e, three says b" in printed


BAD = {
    "no json": ("{", "line 1: is not valid JSON"),
    "no row": ('{"text": "t"}', "line 1: expected a row with label and prediction"),
    "no object": ("[1]", "line 1: expected a row with label and prediction"),
    "unknown class": (
        json.dumps(class_rows("a", "a")[0] | {"label": "c"}),
        "line 1: expected a row with label and prediction",
    ),
    "twice": (
        "\n".join([json.dumps(class_rows("a", "a")[0])] * 2),
        "line 2: row 1 of validation is there a second time",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_holds_no_scored_rows_is_refused_with_its_line(name: str, tmp_path: Path) -> None:
    content, said = BAD[name]
    folder = write_run(tmp_path / "run", class_rows("a", "a"))
    (folder / "predictions.jsonl").write_text(content)
    with pytest.raises(MinitrainError, match=re.escape(said)):
        compare(folder, write_run(tmp_path / "other", class_rows("a", "a")))


def test_the_command_takes_runs_before_flags(tmp_path: Path, script: Callable[..., Done]) -> None:
    first = write_run(tmp_path / "first", class_rows("abab", "abba"))
    second = write_run(tmp_path / "second", class_rows("abba", "abba"))
    done = script("scripts/compare.py", first, second, "--show", 1, "--resamples", 100)
    assert (done.returncode, done.stderr) == (0, "") and "second against first" in done.stdout
    done = script("scripts/compare.py", first, "--show", 1, second)
    assert done.returncode == 2 and "belongs to no flag; give all RUNS before the flags" in done.stderr
    done = script("scripts/compare.py", first, tmp_path / "missing")
    assert (done.returncode, done.stdout) == (1, "") and "is no folder and no file" in done.stderr


def test_what_is_no_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", class_rows("a", "a"))
    with pytest.raises(MinitrainError, match="missing: is no folder and no file; give the folder of a run"):
        compare(run, tmp_path / "missing")
    with pytest.raises(MinitrainError, match="holds no finished run"):
        compare(run, tmp_path)
    with pytest.raises(MinitrainError, match="got 1 run"):
        compare(run)
    with pytest.raises(MinitrainError, match="given twice"):
        compare(run, Path(f"{run}/../run"))
    with pytest.raises(MinitrainError, match="did you mean macro_f1"):
        compare(run, write_run(tmp_path / "other", class_rows("a", "a", "abc")), metrics=("f1",))
    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MinitrainError, match="one process, not 2"):
        compare(run, tmp_path / "other")
