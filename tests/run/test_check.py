"""check.py on clean rows, and on the same rows with one fault planted in them."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from in_process import Done, script  # noqa: F401
from test_tables import write

from minitrain.config.check_config import FINDINGS, CheckConfig
from minitrain.data.tables.demo import demo_reviews
from minitrain.errors import MinitrainError
from minitrain.run.check import check_data
from minitrain.run.flags import parse

Rows = dict[str, list[Any]]
NAMES = ("bad", "good")


def reviews(start: int, count: int) -> Rows:
    """Rows of the embedded reviews: real texts of at least eight words, in which nothing is to be found."""
    table = demo_reviews()["train"]
    pairs = [
        (text, NAMES[label])
        for text, label in zip(table.columns["text"], table.columns["label"], strict=True)
        if len(text.split()) >= 8
    ]
    chosen = pairs[start : start + count]
    return {"text": [text for text, _ in chosen], "label": [label for _, label in chosen]}


TRAIN, EVALUATION = reviews(0, 400), reviews(400, 150)
Found = set[tuple[str, int]]  # split and row, from 1


def edited(rows: Rows, column: str, values: dict[int, Any]) -> Rows:
    """The rows with other values in a column, by row from 1."""
    return rows | {column: [values.get(i, value) for i, value in enumerate(rows[column], 1)]}


def with_row(rows: Rows, text: str, label: str) -> Rows:
    return {"text": [*rows["text"], text], "label": [*rows["label"], label]}


def opposite(rows: Rows, row: int) -> str:
    return NAMES[rows["label"][row - 1] == "bad"]


def another_word(text: str) -> str:
    words = text.split()
    words[len(words) // 2] = "xylophone"
    return " ".join(words)


def in_all(rows: Rows, change: Callable[[str, str], str]) -> Rows:
    return rows | {"text": [change(text, label) for text, label in zip(rows["text"], rows["label"], strict=True)]}


def found_rows(report: dict[str, Any], name: str) -> Found:
    examples = [each["examples"] for each in report["findings"] if each["name"] == name]
    return {(row["split"], row["row"]) for rows in examples for row in rows}


def check(folder: Path, train: Rows, evaluation: Rows | None = None, kind: str = "csv", **flags: Any) -> Any:
    file = write(folder / f"train.{kind}", train)
    if evaluation is not None:
        flags["eval_file"] = str(write(folder / f"eval.{kind}", evaluation))
    return check_data(CheckConfig(data=str(file), show=10_000, **flags))


def names_of(report: dict[str, Any]) -> list[str]:
    return [finding["name"] for finding in report["findings"]]


LONG = next(i for i, text in enumerate(TRAIN["text"], 1) if len(text.split()) == 14)
BY_LABEL = sorted(range(400), key=lambda i: TRAIN["label"][i])
GOOD = {("train", i) for i, label in enumerate(TRAIN["label"], 1) if label == "good"}
OTHER_NAME = [re.search(rf"\b{opposite(TRAIN, i)}\b", TRAIN["text"][i - 1], re.IGNORECASE) for i in range(1, 401)]
NAMED_ONCE = {("train", i) for i, other in enumerate(OTHER_NAME, 1) if other is None}
EVERY = {("train", i) for i in range(1, 401)}
EVERY_OTHER = {("validation", i) for i in range(1, 151)}
CHINESE = "这部电影的故事很好演员也很不错我非常喜欢"

# Name of the finding: the training rows, the evaluation rows, and the rows that must be found.
PLANTED: dict[str, tuple[Rows, Rows, Found]] = {
    "missing_text": (edited(TRAIN, "text", {3: None, 9: 7}), EVALUATION, {("train", 3), ("train", 9)}),
    "missing_label": (edited(TRAIN, "label", {5: None}), edited(EVALUATION, "label", {2: ""}),
                      {("train", 5), ("validation", 2)}),
    "unusable_labels": (edited(TRAIN, "label", {11: 1}), EVALUATION, {("train", 11)}),
    "unknown_label": (TRAIN, edited(EVALUATION, "label", {7: "Good", 8: "great"}),
                      {("validation", 7), ("validation", 8)}),
    "label_in_text": (in_all(TRAIN, "{0} This one is {1}.".format), EVALUATION, NAMED_ONCE),
    "telling_word": (in_all(TRAIN, lambda text, label: text + " :)" * (label == "good")), EVALUATION, GOOD),
    "telling_length": (in_all(TRAIN, lambda text, label: f"{text} {text[::-1]}" * 9 if label == "good" else text),
                       EVALUATION, EVERY),
    "telling_column": (TRAIN | {"site": ["ab"[label == "good"] for label in TRAIN["label"]]}, EVALUATION, EVERY),
    "split_overlap": (TRAIN, with_row(EVALUATION, TRAIN["text"][4].upper(), TRAIN["label"][4]),
                      {("validation", 151)}),
    "near_split_overlap": (TRAIN, with_row(EVALUATION, another_word(TRAIN["text"][LONG - 1]), "bad"),
                           {("validation", 151)}),
    "conflicting_labels": (with_row(TRAIN, f" {TRAIN['text'][0]}", opposite(TRAIN, 1)), EVALUATION,
                           {("train", 1), ("train", 401)}),
    "duplicates": (with_row(TRAIN, TRAIN["text"][6], TRAIN["label"][6]), EVALUATION, {("train", 401)}),
    "near_duplicates": (with_row(TRAIN, another_word(TRAIN["text"][LONG - 1]), "bad"), EVALUATION,
                        {("train", 401)}),
    "label_spelling": (edited(TRAIN, "label", {1: "good ", 2: "Bad"}), EVALUATION, {("train", 1), ("train", 2)}),
    "rare_class": (edited(TRAIN, "label", {1: "so-so", 2: "so-so"}), EVALUATION, {("train", 1), ("train", 2)}),
    "label_drift": (TRAIN, EVALUATION | {"label": ["good"] * 120 + ["bad"] * 30}, EVERY_OTHER),
    "length_drift": (TRAIN, EVALUATION | {"text": [text[:40] for text in EVALUATION["text"]]}, EVERY_OTHER),
    "sorted_labels": ({name: [values[i] for i in BY_LABEL] for name, values in TRAIN.items()}, EVALUATION, EVERY),
    "blank_text": (edited(TRAIN, "text", {4: ""}), edited(EVALUATION, "text", {1: " \t"}),
                   {("train", 4), ("validation", 1)}),
    "one_word_text": (edited(TRAIN, "text", {8: "none"}), EVALUATION, {("train", 8)}),
    "wrong_encoding": (edited(TRAIN, "text", {6: "A fine fiancÃ©e in a cafÃ© of the old town by night"}),
                       EVALUATION, {("train", 6)}),
    "other_script": (edited(TRAIN, "text", {2: CHINESE}), EVALUATION, {("train", 2)}),
    "truncated": (edited(TRAIN, "text", {i: f"{TRAIN['text'][i]} {TRAIN['text'][i + 1]}" * 4 for i in range(1, 9)}),
                  EVALUATION, {("train", i) for i in range(1, 9)}),
    "unknown_tokens": (edited(TRAIN, "text", {2: "☃ 🀄 " * 200}), EVALUATION, {("train", 2)}),
}  # fmt: skip


def test_nothing_is_found_in_clean_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = check(tmp_path, TRAIN, EVALUATION, model="demo")
    assert report["findings"] == [] and report["left_out"] == []
    assert report["labels"] == {name: TRAIN["label"].count(name) for name in NAMES}
    assert "nothing found" in capsys.readouterr().out


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_with_its_rows(name: str, tmp_path: Path) -> None:
    train, evaluation, expected = PLANTED[name]
    flags: dict[str, Any] = {"model": "demo", "max_length": 100} if name in ("truncated", "unknown_tokens") else {}
    flags |= {"text_columns": ("text",)} if len(train) > 2 else {}
    report = check(tmp_path, train, evaluation, "jsonl", **flags)
    assert found_rows(report, name) == expected
    others = {other for other in names_of(report) if other != name}
    besides = {  # what the same rows are, too
        "conflicting_labels": {"duplicates"},
        "label_spelling": {"rare_class"},
        "telling_length": {"length_drift"},
        "label_in_text": {"length_drift"},
        "truncated": {"near_duplicates"},
        "unknown_tokens": {"truncated"},
    }
    assert others <= besides.get(name, set())
    (finding,) = (each for each in report["findings"] if each["name"] == name)
    assert finding["count"] == len(expected) and finding["severity"] == FINDINGS[name][0]
    assert all(finding[part] for part in ("what", "effect", "way_out"))


def test_every_finding_is_planted_somewhere() -> None:
    assert {*PLANTED, "swapped_pairs"} == set(FINDINGS)


PAIRS = {"first": TRAIN["text"][:200], "second": TRAIN["text"][200:], "label": TRAIN["label"][:200]}
BOTH = ("first", "second")


def test_pairs_are_looked_at_in_both_orders(tmp_path: Path) -> None:
    first, second = PAIRS["first"], PAIRS["second"]
    rows = {"first": [*first, second[4], first[9]], "second": [*second, first[4], second[9]]}
    rows |= {"label": [*PAIRS["label"], PAIRS["label"][4], opposite(PAIRS, 10)]}
    near = {"first": [*rows["first"], another_word(second[11])], "second": [*rows["second"], first[11]]}
    report = check(tmp_path, near | {"label": [*rows["label"], "bad"]}, text_columns=BOTH)
    assert found_rows(report, "swapped_pairs") == {("train", 201)}
    assert found_rows(report, "duplicates") == {("train", 202)}
    assert found_rows(report, "conflicting_labels") == {("train", 10), ("train", 202)}
    assert found_rows(report, "near_duplicates") == {("train", 203)}
    assert names_of(check(tmp_path, PAIRS, text_columns=BOTH)) == []


def test_scores_far_apart_are_a_conflict_and_near_ones_are_none(tmp_path: Path) -> None:
    scores = [(i * 37 % 100) / 20 for i in range(400)]
    rows = TRAIN | {"label": scores}
    rows = {"text": [*rows["text"], *rows["text"][:2]], "label": [*scores, scores[0] + 0.1, scores[1] + 2.5]}
    report = check(tmp_path, rows, EVALUATION | {"label": [3 + i / 500 for i in range(150)]})
    assert found_rows(report, "conflicting_labels") == {("train", 2), ("train", 402)}
    assert names_of(report) == ["conflicting_labels", "duplicates", "label_drift"]
    report = check(tmp_path, edited(rows, "label", {5: "3,5"}), problem_type="regression")
    assert found_rows(report, "unusable_labels") == {("train", 5)}
    assert "a decimal point" in report["findings"][0]["what"]
    in_order = {"text": rows["text"][:400], "label": sorted(scores)}
    assert names_of(check(tmp_path, in_order)) == ["sorted_labels"]


@pytest.mark.parametrize("written", ["lists", "columns", "texts"])
def test_several_labels_a_row(written: str, tmp_path: Path) -> None:
    names = ("toxic", "insult", "threat")
    sets = [[name for k, name in enumerate(names[:2]) if (i * 7 + k) % 3 == 0] for i in range(400)]
    sets[17] = ["threat"]
    rows: Rows = {"text": [*TRAIN["text"], TRAIN["text"][3]]}
    sets.append(["toxic", "insult"])
    flags: dict[str, Any] = {}
    if written == "lists":
        rows["label"] = sets
    elif written == "texts":
        rows["label"], flags = [", ".join(each) for each in sets], {"label_separator": ","}
    else:
        rows |= {name: [int(name in each) for each in sets] for name in names}
        rows["toxic"][30], flags = "perhaps", {"label_columns": names, "text_columns": ("text",)}
    report = check(tmp_path, rows, kind="jsonl", **flags)
    assert found_rows(report, "conflicting_labels") == {("train", 4), ("train", 401)}
    assert found_rows(report, "rare_class") == {("train", 18)}
    assert found_rows(report, "unusable_labels") == ({("train", 31)} if written == "columns" else set())
    assert report["labels"]["threat"] == 1


def test_data_without_labels_are_checked_too(tmp_path: Path) -> None:
    report = check(tmp_path, {"text": [*TRAIN["text"], TRAIN["text"][0]]})
    assert names_of(report) == ["duplicates"] and report["labels"] is None
    assert "no column 'label'" in report["left_out"][0]
    with pytest.raises(MinitrainError, match="has no column 'topic'; it has text"):
        check(tmp_path, {"text": TRAIN["text"]}, label_column="topic")
    with pytest.raises(MinitrainError, match="did you mean 'text'"):
        check(tmp_path, TRAIN, text_columns=("texts",))
    empty = check(tmp_path, TRAIN | {"label": [""] * 400})
    assert "no training row has one" in empty["left_out"][0] and names_of(empty) == ["missing_label"]


def test_the_rows_of_eval_fraction_are_those_of_a_run(tmp_path: Path) -> None:
    rows = with_row(TRAIN, TRAIN["text"][0], TRAIN["label"][0])
    file = str(write(tmp_path / "all.csv", rows))
    report = check_data(CheckConfig(data=file, eval_fraction=0.25))
    assert report["splits"] == {"train": 301, "validation": 100}
    broken = str(
        write(tmp_path / "broken.csv", edited(rows, "text", {7: ""}) | {"label": ["x", *rows["label"][1:]]})
    )
    assert check_data(CheckConfig(data=broken, eval_fraction=0.25))["splits"] == {"train": 301, "validation": 100}
    lines = write(tmp_path / "lines.jsonl", edited(rows, "text", {7: None}))
    report = check_data(CheckConfig(data=str(lines), eval_fraction=0.25))
    assert report["splits"] == {"train": 401} and "--eval_fraction is not drawn" in report["left_out"][0]


def test_ugly_names_and_texts_stay_on_their_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = ("a|b", "<b>x</b>", "two\nlines", "\u05d0\u05d1", "up\x1b[A")
    rows = {"text": [f"{text} \x07\x1b[2J" for text in TRAIN["text"]], "label": [odd[i % 5] for i in range(400)]}
    rows = {name: [*values, values[0]] for name, values in rows.items()}
    report = check(tmp_path, edited(rows, "text", {3: "w" * 200_000, 4: "\0", 5: "\u202e" * 30}))
    assert {"duplicates"} <= set(names_of(report))
    out = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\0", "\u202e"} & set(out) and max(map(len, out.splitlines())) < 400


def test_the_command_takes_a_file_a_folder_or_a_dataset(
    tmp_path: Path,
    script: Callable[..., Done],  # noqa: F811
) -> None:
    (tmp_path / "folder").mkdir()
    file = write(tmp_path / "folder/train.csv", edited(TRAIN, "text", {2: " "}))
    first = script("scripts/check.py", file)
    assert first.returncode == 0 and "blank_text" in first.stdout and first.stderr == ""
    assert first.stdout.splitlines()[0].startswith("data      train 400 rows; text in 'text'")
    assert "blank_text" in script("scripts/check.py", tmp_path / "folder").stdout
    assert "blank_text" in script("scripts/check.py", "--train_file", file, "--show", "0").stdout
    output = tmp_path / "found.json"
    for fail_on, status in (("blank_text", 1), ("any", 1), ("error", 0), ("duplicates,missing_text", 0)):
        done = script("scripts/check.py", file, "--fail_on", fail_on, "--json", output)
        assert done.returncode == status
        assert done.stderr == (f"check.py: --fail_on {fail_on}: found blank_text\n" if status else "")
    (finding,) = json.loads(output.read_text())["findings"]
    assert finding["examples"] == [
        {"split": "train", "source": str(file), "row": 2, "texts": [" "], "label": TRAIN["label"][1]}
    ]
    assert (finding["count"], finding["of"], finding["by_split"]) == (1, 400, {"train": 1})
    wrong = script("scripts/check.py", file, "--fail_on", "typo")
    assert wrong.returncode == 2 and "--fail_on typo: expected any, error, or of missing_text" in wrong.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.csv", "--dataset", "demo"], "a.csv: --dataset and --train_file name other data"),
        (["a.csv", "--max_length", "8"], "pass --model NAME too"),
        (["a.csv", "--max_train_samples", "8"], "check.py looks at all rows"),
        (["--eval_file", "a.csv", "--dataset_revision", "x", "--train_file", "b.csv"], "has no revision"),
        (["a.csv", "b.csv"], "'b.csv' belongs to no flag"),
        (["nowhere.csv"], "nowhere.csv: no such file"),
        (["demo", "--subset", "x"], "only a dataset on the Hub or in a folder"),
    ],
)
def test_what_cannot_be_checked_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((MinitrainError, SystemExit)) as caught:
        check_data(parse(CheckConfig, "", words, positional=("data",)))
    assert said in str(caught.value) + capsys.readouterr().err


def test_the_output_is_none_of_the_files_that_are_read(tmp_path: Path) -> None:
    file = str(write(tmp_path / "a.jsonl", TRAIN))
    with pytest.raises(MinitrainError, match="is a file of the data"):
        CheckConfig(data=file, json=file)


def test_help_lists_every_finding(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(CheckConfig, "", ["--help"], positional=("data",))
    text = " ".join(capsys.readouterr().out.split())
    assert all(name in text for name in FINDINGS)


def test_labels_that_number_the_rows_are_named_below_the_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(tmp_path, TRAIN | {"label": [f"id {i}" for i in range(400)]})
    assert "400 classes in 400 rows: does 'label' number the rows?" in capsys.readouterr().out


@pytest.mark.parametrize("codec", ["cp1252", "latin-1"])
def test_the_advised_codec_mends_a_text_in_a_wrong_encoding(codec: str, tmp_path: Path) -> None:
    right = "It is Iraq\u2019s interim government that the old town waits for"
    wrong = right.encode().decode(codec)
    (finding,) = check(tmp_path, edited(TRAIN, "text", {6: wrong}))["findings"]
    advised = re.search(r"encode\('(.+?)'\)", finding["way_out"])
    assert advised is not None and wrong.encode(advised[1]).decode() == right


def test_the_command_that_drops_repeated_rows_runs_as_it_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    report = check(tmp_path, with_row(TRAIN, TRAIN["text"][6], TRAIN["label"][6]))
    (finding,) = report["findings"]
    compile(shlex.split(finding["way_out"].splitlines()[-1])[-1], "way out", "exec")
