"""Labels that are probably wrong, after --folds and by label_errors.py: the rows, the file and the console."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import write_tiny_model
from test_main import named_reviews, read_results, write_csv

from minitrain.config.label_errors_config import LabelErrorsConfig
from minitrain.config.train_config import TrainConfig
from minitrain.distributed.world import World
from minitrain.errors import MinitrainError
from minitrain.run.label_errors import label_errors_of_run, search_folds
from minitrain.run.main import train
from minitrain.training.label_errors import find_label_errors

PLANTED = (3, 17, 40, 58)  # rows, from 1
ENOUGH: dict[str, Any] = {
    "num_train_epochs": 6,
    "per_device_train_batch_size": 4,
    "warmup_steps": 8,
    "eval_strategy": "no",
    "do_eval": True,
}
UGLY = "<b>\nfine | \x1b[2J\u202eright to left"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with 80 reviews: two classes, four labels exchanged; and scores."""
    folder = tmp_path_factory.mktemp("place")
    write_tiny_model(folder / "tiny")
    texts, labels = named_reviews(80)
    names = {"lovely": "a|b", "awful": "<i>c</i>"}
    named = [names[label] for label in labels]
    for row in PLANTED:
        named[row - 1] = names["awful" if labels[row - 1] == "lovely" else "lovely"]
    texts[PLANTED[2] - 1] = f"{UGLY} {texts[PLANTED[2] - 1]}"
    with (folder / "train.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("fold", "label"), *zip(texts, named, strict=True)])
    write_csv(folder / "scores.csv", texts[:20], [0.5 + len(text) for text in texts[:20]])
    return folder


def flags(place: Path, out: Path, **more: Any) -> TrainConfig:
    made: dict[str, Any] = {"model": str(place / "tiny"), "train_file": str(place / "train.csv")}
    made |= {"text_columns": ("fold",), "learning_rate": 2e-3, "output_dir": str(out)}
    return TrainConfig(**made | more)


@pytest.fixture(scope="module")
def folded(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("runs") / "folds"
    return out, train(flags(place, out, folds=2, seeds=(0, 1), **ENOUGH))


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_planted_labels_are_found_with_the_label_that_they_should_have(
    folded: tuple[Path, dict[str, Any]],
) -> None:
    out, results = folded
    found = records(out / "label_errors.jsonl")
    assert len({record["row"] for record in found} & {*PLANTED}) >= 3
    assert {(record["label"], record["suggested"]) for record in found} <= {
        ("a|b", "<i>c</i>"),
        ("<i>c</i>", "a|b"),
    }
    assert [record["score"] for record in found] == sorted(record["score"] for record in found)
    assert list(found[0]) == ["row", "input_fold", "label", "suggested", "score"]
    assert [record["row"] for record in found if record["input_fold"].startswith(UGLY)] == [PLANTED[2]]
    facts = read_results(out)["label_errors"]
    assert facts == results["label_errors"]
    assert (facts["count"], facts["rows"], facts["share"]) == (len(found), 80, len(found) / 80)
    assert facts["estimated_share"] == sum(pair["share"] for pair in facts["pairs"]) > 0


def test_probabilities_are_means_over_seeds(folded: tuple[Path, dict[str, Any]]) -> None:
    out, _ = folded
    rows = records(out / "predictions.jsonl")
    assert {row["fold"] for row in rows} == {1, 2}
    pairs = [list(row["probabilities"].values()) for row in rows]
    mean = torch.tensor(pairs, dtype=torch.float64).view(2, 80, 2).mean(0)
    names = list(rows[0]["probabilities"])
    labels = torch.tensor([names.index(row["label"]) for row in rows[:80]])
    expected = find_label_errors(labels, mean).nonzero()[:, 0] + 1
    found = records(out / "label_errors.jsonl")
    assert sorted(record["row"] for record in found) == expected.tolist()
    own = mean[torch.arange(80), labels].tolist()  # of two classes the score is the probability of the label
    assert [record["score"] for record in found] == pytest.approx([own[r["row"] - 1] for r in found], abs=1e-15)


def test_the_command_finds_the_same_rows_later(
    folded: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, results = folded
    run = tmp_path / "saved"
    shutil.copytree(out, run)
    (run / "label_errors.jsonl").unlink()
    assert label_errors_of_run(LabelErrorsConfig(run=str(run), show=20)) == results["label_errors"]
    assert (run / "label_errors.jsonl").read_bytes() == (out / "label_errors.jsonl").read_bytes()
    said = capsys.readouterr().out
    count = results["label_errors"]["count"]
    assert (
        f"labels that are probably wrong: {count} of 80 held-out rows ({count / 80:.1%}), worst first in {run}"
        in said
    )
    lines = said.splitlines()
    assert [line.split()[:4] for line in lines[3:]][0] == ["score", "row", "label", "suggested"]
    assert len(lines) == 4 + min(20, count) + 1
    assert r"<b>\n" in said and "\x1b" not in said and "\u202e" not in said
    for top, table in ((1, 2), (0, -1)):
        label_errors_of_run(LabelErrorsConfig(run=str(run), show=top))
        assert len(capsys.readouterr().out.splitlines()) == 3 + table + 1


def test_rows_of_an_evaluation_are_searched_by_split(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in (("eval", 2), ("test", 3)):
        texts, labels = named_reviews(20, seed=seed)
        with (tmp_path / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            pairs = zip(texts, [{"lovely": "a|b"}.get(label, "<i>c</i>") for label in labels], strict=True)
            csv.writer(file).writerows([("fold", "label"), *pairs])
    files = {f"{name}_file": str(tmp_path / f"{name}.csv") for name in ("eval", "test")}
    run = tmp_path / "run"
    run.mkdir()
    (run / "label_errors.jsonl").write_text("of an earlier run\n")
    results = train(flags(place, run, **files, max_steps=2, overwrite_output_dir=True))
    assert "label_errors" not in results and not (run / "label_errors.jsonl").exists()
    capsys.readouterr()
    output = tmp_path / "new" / "rows.jsonl"
    label_errors_of_run(LabelErrorsConfig(run=str(run)))
    assert "of 20 validation and 20 test rows" in capsys.readouterr().out
    assert label_errors_of_run(LabelErrorsConfig(run=str(run), split="test", output=str(output)))["rows"] == 20
    assert {record["split"] for record in records(output)} <= {"test"}
    with pytest.raises(MinitrainError, match="--split x: .*predicted no such rows; it has validation, test"):
        label_errors_of_run(LabelErrorsConfig(run=str(run), split="x"))


def test_scores_have_no_label_errors(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = {"train_file": str(place / "scores.csv"), "text_columns": ("text",), "max_steps": 1}
    results = train(flags(place, tmp_path / "run", **scores, folds=2))
    assert "label_errors" not in results and not (tmp_path / "run/label_errors.jsonl").exists()
    assert "probably wrong" not in capsys.readouterr().out
    with pytest.raises(MinitrainError, match="line 1: has no probabilities of classes"):
        label_errors_of_run(LabelErrorsConfig(run=str(tmp_path / "run")))


# ---- folders written by hand


def saved(folder: Path, rows: list[dict[str, Any]], results: dict[str, Any] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if results is not None:
        (folder / "results.json").write_text(json.dumps(results))
    return folder


def row(number: int, label: Any, **probabilities: float) -> dict[str, Any]:
    rest = {"prediction": label, "probability": 0.5, "probabilities": probabilities}
    return {"file": "ugly.csv", "row": number, "score": f"text {number}", "label": label, **rest}


def test_of_several_labels_those_too_many_and_missing_are_exchanged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sure = {"x": 0.99, "y": 0.01}
    rows = [row(i, ["x"], **sure) for i in range(1, 11)] + [row(i, ["y"], x=0.01, y=0.99) for i in range(11, 21)]
    rows += [row(21, ["y"], **sure), row(22, [], **sure)]
    facts = label_errors_of_run(LabelErrorsConfig(run=str(saved(tmp_path / "run", rows))))
    found = records(tmp_path / "run/label_errors.jsonl")
    assert [(r["row"], r["label"], r["suggested"]) for r in found] == [(21, ["y"], ["x"]), (22, [], ["x"])]
    assert facts["pairs"][0] == {"label": None, "suggested": "x", "share": 2 / 22}
    assert facts["estimated_share"] == pytest.approx(3 / 44)
    said = capsys.readouterr().out
    assert "doubts 6.8% of all labels: 'x' is missing in 2, 'y' is too many in 1 rows\n" in said
    assert "  0.0100  ugly.csv, 21  y      x          text 21\n" in said and "so many" not in said


def test_many_of_them_cast_doubt_on_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row(i, "xy"[i % 2], x=0.3 + i % 2 / 10, y=0.7 - i % 2 / 10) for i in range(10)]
    facts = label_errors_of_run(LabelErrorsConfig(run=str(saved(tmp_path / "run", rows))))
    assert facts["share"] > 0.2 and "so many are seldom wrong" in capsys.readouterr().out


def test_a_run_without_wrong_labels_leaves_an_empty_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row(1, "x", x=0.9, y=0.1), row(2, "y", x=0.1, y=0.9)]
    label_errors_of_run(LabelErrorsConfig(run=str(saved(tmp_path / "run", rows))))
    assert (tmp_path / "run/label_errors.jsonl").read_text() == ""
    assert capsys.readouterr().out == "labels that are probably wrong: none of 2 evaluation rows\n\n"


def test_runs_of_seeds_alone_are_averaged(tmp_path: Path) -> None:
    for seed, x in ((1, 0.9), (2, 0.7)):
        rows = [row(i, "x", x=x, y=1 - x) for i in (1, 2, 3)] + [row(i, "y", x=1 - x, y=x) for i in (4, 5, 6)]
        saved(tmp_path / f"seed-{seed}", [*rows, row(7, "x", x=1 - x, y=x)])
    (tmp_path / "runs.json").write_text('{"runs": ["seed-1", "seed-2"], "config": {"seeds": [1, 2]}}')
    assert label_errors_of_run(LabelErrorsConfig(run=str(tmp_path)))["rows"] == 7
    (found,) = records(tmp_path / "label_errors.jsonl")
    assert (found["row"], found["input_score"], found["score"]) == (7, "text 7", pytest.approx(0.2))
    (tmp_path / "seed-2/predictions.jsonl").unlink()
    with pytest.raises(MinitrainError, match="not all of its runs are trained"):
        label_errors_of_run(LabelErrorsConfig(run=str(tmp_path)))


NAN = float("nan")
DAMAGED: dict[str, tuple[list[Any], str]] = {
    "no rows": ([], "predictions.jsonl: holds no rows"),
    "other classes": ([row(1, "x", x=1.0), row(2, "y", y=1.0)], "line 2: the classes are y, before they were x"),
    "no such class": ([row(1, "z", x=1.0, y=0.0)], "line 1: the label is 'z'; expected one of x, y"),
    "one and several": ([row(1, ["x"], x=1.0), row(2, "x", x=1.0)], r"line 2: the label is 'x', the first \['x'\]"),
    "no object": ([[1]], "line 1: is no JSON object"),
    "a text": ([row(1, "x", x="0.5", y=0.5)], "line 1: "),  # type: ignore[arg-type]
    "diverged": ([row(1, "x", x=NAN, y=NAN)], "2 probabilities are not numbers.*smaller --learning_rate"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_predictions_that_cannot_be_judged_are_named(tmp_path: Path, case: str) -> None:
    rows, said = DAMAGED[case]
    saved(tmp_path / "run", rows)
    with pytest.raises(MinitrainError, match=said):
        label_errors_of_run(LabelErrorsConfig(run=str(tmp_path / "run")))
    assert not (tmp_path / "run/label_errors.jsonl").exists()
    facts, lines = search_folds(tmp_path / "run", World(), True)
    assert facts == {} and lines[0].startswith("labels are not searched for errors: ")


def test_files_that_cannot_be_read_or_written_are_refused(
    folded: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, _ = folded
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(MinitrainError, match="holds no predictions.jsonl; give the folder of a run with --folds"):
        label_errors_of_run(LabelErrorsConfig(run=str(tmp_path)))
    with pytest.raises(MinitrainError, match="none: is no folder; give one that train.py saved"):
        label_errors_of_run(LabelErrorsConfig(run=str(tmp_path / "none")))
    with pytest.raises(MinitrainError, match=r"--output \S+: cannot be written \(\S*it is a folder"):
        label_errors_of_run(LabelErrorsConfig(run=str(out), output=str(tmp_path / "a.jsonl")))
    with pytest.raises(MinitrainError, match="holds the predictions themselves"):
        label_errors_of_run(LabelErrorsConfig(run=str(out), output=str(out / "predictions.jsonl")))
    with pytest.raises(MinitrainError, match="name a file that ends with .jsonl"):
        LabelErrorsConfig(run=str(out), output="rows.csv")
    broken = saved(tmp_path / "cut", [row(1, "x", x=1.0)])
    text = (broken / "predictions.jsonl").read_text()
    (broken / "predictions.jsonl").write_text(text * 2 + text[:20])
    with pytest.raises(MinitrainError, match="line 3: is not valid JSON"):
        label_errors_of_run(LabelErrorsConfig(run=str(broken)))
    lacking = saved(tmp_path / "seeds", [row(1, "x", x=1.0)])
    (lacking / "runs.json").write_text('{"config": {"folds": 2, "seeds": [0, 1]}}')
    with pytest.raises(MinitrainError, match="does not hold the same rows for each of the 2 seeds"):
        label_errors_of_run(LabelErrorsConfig(run=str(lacking)))


def test_a_run_that_was_scored_on_its_training_file_is_warned_of(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"train_file": str(place / "train.csv"), "eval_file": str(place / "train.csv"), "test_file": "gone/*.csv"}
    run = saved(tmp_path / "run", [row(i, "x", x=0.9, y=0.1) for i in range(3)], {"config": own})
    label_errors_of_run(LabelErrorsConfig(run=str(run)))
    assert "WARNING  --eval_file was trained on, too" in capsys.readouterr().err
