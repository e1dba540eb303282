"""Predictions keep what came in, come as they are made, and go on where they were interrupted."""

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas
import pytest
from datasets import Dataset
from test_loop import reviews, write_tiny_model
from test_main import config, named_reviews, write_csv

from minitrain.config.inference_config import EvaluateConfig, PredictConfig
from minitrain.data import progress as progress_module
from minitrain.data.tables.load import read_file
from minitrain.errors import MinitrainError, Stopped
from minitrain.run import output_file
from minitrain.run import predict as predict_module
from minitrain.run.evaluate import evaluate_run
from minitrain.run.main import train
from minitrain.run.predict import predict_run

SCRIPTS = Path(__file__).parents[2] / "scripts"
Predict = Callable[..., str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs single, pairs and scores."""
    folder = tmp_path_factory.mktemp("runs")
    write_tiny_model(folder / "tiny")
    for name, count in (("train", 40), ("eval", 12)):
        texts, labels = named_reviews(count, seed=len(name))
        write_csv(folder / f"{name}.csv", texts, labels)
        rows = [{"a": text, "b": "the film", "label": label} for text, label in zip(texts, labels, strict=True)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        write_csv(folder / f"{name}-scores.csv", texts, [0.5 + len(text) for text in texts])
    pairs: dict[str, Any] = {"text_columns": ("a", "b")}
    for name, ending, flags in (("single", ".csv", {}), ("pairs", ".jsonl", pairs), ("scores", "-scores.csv", {})):
        files = {f"{kind}_file": str(folder / f"{kind}{ending}") for kind in ("train", "eval")}
        train(config(folder / "tiny", folder, folder / name, max_steps=2, **files, **flags))
    return folder


@pytest.fixture
def predicted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Predict:
    """Feeds standard input, and returns standard output."""

    def predict(run: Path, text: str | bytes = b"", **flags: Any) -> str:
        raw = text.encode() if isinstance(text, str) else text
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw)))
        capsys.readouterr()
        predict_run(PredictConfig(run=str(run), **flags))
        return capsys.readouterr().out

    return predict


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of two batches."""
    monkeypatch.setattr(predict_module, "WINDOWS", (2,))


def records_of(text: str) -> list[dict[str, Any]]:
    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return [json.loads(line, parse_constant=no_constant) for line in text.splitlines()]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# ---- what is kept


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        return write_jsonl(path, rows)
    if path.suffix == ".parquet":
        Dataset.from_list(rows).to_parquet(path)
        return path
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="," if path.suffix == ".csv" else "\t")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_other_columns_come_back_beside_the_text_in_the_order_of_the_input(
    folder: Path, predicted: Predict, tmp_path: Path, kind: str
) -> None:
    rows = [{"id": f"x{i}", "text": text, "topic": 'a "b",\n c'} for i, text in enumerate(reviews(9)[0])]
    text = predicted(folder / "single", input=str(write_table(tmp_path / f"new.{kind}", rows)))
    records = records_of(text)
    assert [{name: record[name] for name in ("id", "text", "topic")} for record in records] == rows
    assert list(records[0]) == ["id", "text", "topic", "label", "probability", "probabilities"]


def test_values_of_parquet_are_written_as_json_has_them(folder: Path, predicted: Predict, tmp_path: Path) -> None:
    values: dict[str, list[Any]] = {
        "text": ["good", "bad"],
        "when": [datetime(2024, 2, 29, 1, 2, 3), None],
        "day": [date(2024, 2, 29), None],
        "long": [timedelta(hours=1), None],
        "price": [Decimal("1.10"), None],
        "raw": [b"\xff\x00", None],
        "nested": [[{"a": 1.5}], []],
        "float": [float("nan"), float("inf")],
        "flag": [True, None],
        "count": [2**60, None],
    }
    pandas.DataFrame(values).to_parquet(tmp_path / "new.parquet")
    first, second = records_of(predicted(folder / "single", input=str(tmp_path / "new.parquet")))
    expected = {
        "when": "2024-02-29T01:02:03",
        "day": "2024-02-29",
        "long": "1:00:00",
        "price": "1.10",
        "raw": "/wA=",
        "nested": [{"a": 1.5}],
        "float": None,
        "flag": True,
        "count": 2**60,
    }
    assert {name: first[name] for name in expected} == expected
    assert {name: second[name] for name in expected} == dict.fromkeys(expected) | {"nested": []}


def test_fields_that_only_some_lines_have_stay_with_those(folder: Path, predicted: Predict, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": "good", "id": 1}, {"meta": {"a": None}, "text": "bad"}, {"text": "a"}]
    path = write_jsonl(tmp_path / "new.jsonl", rows)
    made = ["label", "probability", "probabilities"]
    for text in (
        predicted(folder / "single", input=str(path)),
        predicted(folder / "single", path.read_bytes()),  # and from standard input
    ):
        records = records_of(text)
        assert [set(record) - set(made) for record in records] == [set(row) for row in rows]
        assert records[1]["meta"] == {"a": None}


def test_columns_that_have_the_name_of_an_output_are_told_apart(
    folder: Path, predicted: Predict, tmp_path: Path
) -> None:
    row = {"text": "good", "label": "L", "input_label": "I", "score": "S", "probability_awful": "P"}
    path = write_table(tmp_path / "new.csv", [row])
    (record,) = records_of(predicted(folder / "single", input=str(path)))
    assert {record["input_label"], record["input_input_label"], record["input_score"]} == {"L", "I", "S"}
    assert record["input_input_label"] == "L" and record["probability_awful"] == "P"
    (flat,) = csv.DictReader(io.StringIO(predicted(folder / "single", input=str(path), output_format="csv")))
    assert (flat["input_input_label"], flat["input_label"], flat["input_probability_awful"]) == ("L", "I", "P")
    assert float(flat["probability_awful"]) == record["probabilities"]["awful"]


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        (None, ["id", "text", "short"]),
        (("all",), ["id", "text", "body", "short"]),
        (("none",), ["text"]),
        (("short", "id"), ["id", "text", "short"]),
    ],
)
def test_keep_columns_says_what_is_kept(
    folder: Path, predicted: Predict, tmp_path: Path, asked: tuple[str, ...] | None, kept: list[str]
) -> None:
    row = {"id": "1", "text": "good film " * 60, "body": "x" * 501, "short": "y" * 500}
    path = write_table(tmp_path / "new.csv", [row | {"body": "z"}, row])
    records = records_of(predicted(folder / "single", input=str(path), keep_columns=asked))
    assert [list(record)[:-3] for record in records] == [kept, kept]


def test_a_column_that_is_left_out_is_named_and_one_that_is_not_there_too(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_table(tmp_path / "new.csv", [{"text": "good", "body": "x" * 501}])
    flags: dict[str, Any] = {"run": str(folder / "single"), "input": str(path)}
    predict_run(PredictConfig(**flags))
    assert "left out body, of more than 500 characters; --keep_columns all" in capsys.readouterr().err
    with pytest.raises(
        MinitrainError, match=r"--keep_columns id: .*new\.csv has no column 'id'; it has text, body"
    ):
        predict_run(PredictConfig(keep_columns=("id",), **flags))


# ---- formats


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".csv.gz", ".tsv.gz"])
def test_csv_is_read_back_to_the_same_values_by_us_and_by_pandas(
    folder: Path, predicted: Predict, tmp_path: Path, ending: str
) -> None:
    notes = ['a "quoted" word', "two\nlines", "tab\there", "a, b;c", "=1+1", "  blanks ", "größe 🎬", "", "007"]
    rows = [{"note": note, "text": text} for note, text in zip(notes, reviews(9)[0], strict=True)]
    path = write_jsonl(tmp_path / "new.jsonl", rows)
    output = tmp_path / f"out{ending}"
    predict_run(PredictConfig(run=str(folder / "single"), input=str(path), output=str(output)))
    expected = records_of(predicted(folder / "single", input=str(path)))
    separator = "," if ".csv" in ending else "\t"
    table = pandas.read_csv(output, sep=separator, dtype={"note": str}, keep_default_na=False)
    assert list(table) == ["note", "text", "label", "probability", "probability_awful", "probability_lovely"]
    plain = tmp_path / f"plain{ending.removesuffix('.gz')}"
    plain.write_bytes(gzip.decompress(output.read_bytes()) if ending.endswith(".gz") else output.read_bytes())
    ours = read_file(plain)
    for i, record in enumerate(expected):
        for name in ("note", "text", "label"):
            assert table[name][i] == ours.column(name)[i] == record[name]
        assert table["probability"][i] == float(ours.column("probability")[i]) == record["probability"]
        assert table["probability_lovely"][i] == record["probabilities"]["lovely"]


def test_the_same_rows_compressed_are_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    flags = {"run": str(folder / "single"), "input": str(folder / "eval.csv")}
    for name in ("a.jsonl.gz", "b.jsonl.gz", "c.jsonl"):
        predict_run(PredictConfig(output=str(tmp_path / name), **flags))
    first, second, plain = ((tmp_path / name).read_bytes() for name in ("a.jsonl.gz", "b.jsonl.gz", "c.jsonl"))
    assert first == second and gzip.decompress(first) == plain


def test_scores_are_one_column(folder: Path, predicted: Predict) -> None:
    text = predicted(folder / "scores", "good film\nbad\n", output_format="tsv")
    assert text.splitlines()[0] == "text\tscore" and len(text.splitlines()) == 3


def test_half_of_a_surrogate_pair_in_a_kept_column_is_written_escaped(folder: Path, predicted: Predict) -> None:
    line = b'{"text": "good", "x": "\\ud800"}\n'
    assert records_of(predicted(folder / "single", line))[0]["x"] == "\ud800"
    assert predicted(folder / "single", line, output_format="csv").splitlines()[1].startswith("good,\\ud800,")


@pytest.mark.parametrize("name", ["out.json", "out.parquet", "out", "out.xlsx", "out.gz", "out.jsonl.zip"])
def test_an_ending_that_names_no_format_is_an_error_before_any_work(name: str) -> None:
    for kind in (PredictConfig, EvaluateConfig):
        with pytest.raises(MinitrainError, match=rf"--output {name}: .*\.jsonl, \.csv or \.tsv.*--output_format"):
            kind(run="/nowhere", output=name)
        assert kind(run="/nowhere", output=name, output_format="csv").format == "csv"


# ---- lines


def test_a_line_is_answered_while_the_pipe_stays_open(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, str(SCRIPTS / "predict.py"), str(folder / "single")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        output = io.BufferedReader(process.stdout)  # type: ignore[type-var]
        watchdog = threading.Timer(60, process.kill)  # ends a wait for an answer that never comes
        watchdog.start()
        for text in ("good film", "bad plot", "größe"):
            process.stdin.write(f"{text}\n".encode())
            assert json.loads(output.readline())["text"] == text
        process.stdin.write(b"no line feed")
        process.stdin.close()
        assert json.loads(output.read())["text"] == "no line feed"
        assert process.wait() == 0
        said = process.stderr.read().splitlines()
        assert len(said) == 1 and b"unknown to the tokenizer" in said[0]
        watchdog.cancel()


@pytest.mark.parametrize(
    ("lines", "flags", "message"),
    [
        (
            '{"txt": "good"}\n',
            {},
            r"line 1, field 'text': expected a text, got no such field; .* has txt: name .*--text_columns",
        ),
        ('good\n{"text": "good"}\n', {}, r"line 2: is a JSON object with text, and line 1 is plain text"),
        ('{"text": "good"}\nbad\n', {}, r"line 2: is not valid JSON .*--input_format text"),
        ('{"text": "good"}\n[1]\n', {}, r"line 2: expected a JSON object, got \[1\]"),
        ('{"text": "good"}\n\n{"text": 7}\n', {}, r"line 3, field 'text': expected a text, got 7 \(int\)"),
        ('{"text": "good"}\n{"txt": "a"}\n', {}, r"line 2, field 'text': expected a text, got no such field"),
        (
            "good\n",
            {"text_columns": ("text",)},
            r"line 1: expected a JSON object with text, as --text_columns asks",
        ),
        ('{"text": "good", }\n', {"text_columns": ("text",)}, r"line 1: is not valid JSON \(.*column 18"),
        ("id,text,x\n1,a,b\n", {}, r"line 1: is the header of a table \(id, text, x\)"),
        ("good\n", {"keep_columns": ("id",)}, r"--keep_columns id: standard input has no column 'id'; it has text"),
        (
            '{"text": "a"}\n{"text": "b", "c": 1}\n',
            {"output_format": "csv"},
            r"line 2: has the field 'c', which the first row lacks.*--output_format jsonl",
        ),
    ],
)
def test_lines_are_never_misread_in_silence(
    folder: Path, predicted: Predict, lines: str, flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(MinitrainError, match=f"^(standard input, )?{message}"):
        predicted(folder / "single", lines, **flags)


def test_the_ways_out_of_these_errors_work(folder: Path, predicted: Predict) -> None:
    single = folder / "single"
    (record,) = records_of(predicted(single, '{"txt": "good"}\n', text_columns=("txt",)))
    assert record["txt"] == "good"
    (same,) = records_of(predicted(single, '\n{"txt": "good"}\n', text_columns=("txt",)))
    assert same == record
    braces = ['{"text": "good"}', "{not JSON", "{}", "id,text"]
    records = records_of(predicted(single, "\n".join(braces), input_format="text"))
    assert [record["text"] for record in records] == braces
    assert records_of(predicted(single, "{smile} good, text\n"))[0]["text"] == "{smile} good, text"


def test_json_lines_of_pairs_are_read_by_the_columns_of_the_run(folder: Path, predicted: Predict) -> None:
    (record,) = records_of(predicted(folder / "pairs", '{"id": 1, "b": "film", "a": "good"}\n'))
    (same,) = records_of(predicted(folder / "pairs", "good\tfilm\n"))
    assert record["id"] == 1 and record["probabilities"] == same["probabilities"]


def test_rows_before_a_line_that_is_wrong_are_answered(
    folder: Path, predicted: Predict, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lines = "good\tfilm\nbad\tplot\nno pair\ngood\tplot\n"
    with pytest.raises(MinitrainError, match="line 3: expected two texts with a tab between them, got 'no pair'"):
        predicted(folder / "pairs", lines)
    assert [record["text"] for record in records_of(capsys.readouterr().out)] == ["good", "bad"]
    with pytest.raises(MinitrainError, match="line 3: "):
        predicted(folder / "pairs", lines, output=str(tmp_path / "out.jsonl"))
    assert capsys.readouterr().err.endswith("out.jsonl.part: holds the first 2 rows\n")
    assert {path.name for path in tmp_path.iterdir()} == {"out.jsonl.part"}
    (tmp_path / "pairs.txt").write_text(lines, encoding="utf-8")
    with pytest.raises(MinitrainError, match=r"pairs\.txt, line 3: "):  # a file is checked before the work
        predicted(folder / "pairs", input=str(tmp_path / "pairs.txt"))
    assert capsys.readouterr().out == ""


def test_lines_of_a_named_pipe_and_of_a_fast_one_come_in_order(
    folder: Path, predicted: Predict, small_windows: None, tmp_path: Path
) -> None:
    texts = reviews(50, seed=2)[0]
    (tmp_path / "new.txt").write_text("\n".join(texts), encoding="utf-8")
    script = f'"$0" "$1" "$2" --input <(cat {tmp_path}/new.txt) --per_device_eval_batch_size 4'
    words = [sys.executable, str(SCRIPTS / "predict.py"), str(folder / "single")]
    done = subprocess.run(["bash", "-c", script, *words], capture_output=True, encoding="utf-8")
    assert done.stderr == "" and [record["text"] for record in records_of(done.stdout)] == texts
    piped = records_of(predicted(folder / "single", "\n".join(texts), per_device_eval_batch_size=4))
    assert [record["text"] for record in piped] == texts


# ---- files that grow


class Stop(Exception):
    """Instead of a kill, which would end the tests too."""


@pytest.fixture
def stops_after(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Has the prediction end in the midst of a later window."""
    real = predict_module.predict
    left = [1000]

    def predict(*words: Any, **flags: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Stop
        return real(*words, **flags)

    monkeypatch.setattr(predict_module, "predict", predict)

    def stop_after(windows: int) -> None:
        left[0] = windows

    yield stop_after


def flags_of_long(folder: Path, tmp_path: Path, ending: str) -> dict[str, Any]:
    rows = [{"id": i, "text": text, "note": "two\nlines"} for i, text in enumerate(reviews(43, seed=6)[0])]
    new = write_jsonl(tmp_path / "new.jsonl", rows)
    output = str(tmp_path / f"out{ending}")
    return {
        "run": str(folder / "single"),
        "input": str(new),
        "output": output,
        "per_device_eval_batch_size": 4,
        "keep_columns": ("id", "note"),
    }


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".jsonl.gz"])
def test_a_resumed_prediction_has_the_bits_of_one_that_was_not_interrupted(
    folder: Path,
    tmp_path: Path,
    small_windows: None,
    stops_after: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
    ending: str,
) -> None:
    flags = flags_of_long(folder, tmp_path, ending)
    whole = tmp_path / f"whole{ending}"
    predict_run(PredictConfig(**flags | {"output": str(whole)}))
    output, part = Path(flags["output"]), Path(flags["output"] + ".part")
    stops_after(3)
    with pytest.raises(Stop):
        predict_run(PredictConfig(**flags))
    assert "holds the first 24 rows; the same command with --resume continues" in capsys.readouterr().err
    assert not output.exists()
    plain = gzip.decompress(whole.read_bytes()) if ending.endswith(".gz") else whole.read_bytes()
    assert plain.startswith(part.read_bytes()) and part.read_bytes().endswith(b"\n")
    with part.open("ab") as file:
        file.write(b'{"id": 24, "te')  # as a kill in the midst of writing leaves it
    stops_after(1)
    with pytest.raises(Stop):  # and once more
        predict_run(PredictConfig(resume=True, **flags))
    stops_after(1000)
    predict_run(PredictConfig(resume=True, **flags))
    assert output.read_bytes() == whole.read_bytes()
    assert "resuming after 32 rows" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"new.jsonl", output.name, whole.name}
    predict_run(PredictConfig(resume=True, **flags))
    assert "is complete" in capsys.readouterr().err


def test_what_an_interrupted_prediction_holds_is_neither_lost_nor_mixed(
    folder: Path, tmp_path: Path, small_windows: None, stops_after: Callable[[int], None]
) -> None:
    flags = flags_of_long(folder, tmp_path, ".jsonl")
    stops_after(2)
    with pytest.raises(Stop):
        predict_run(PredictConfig(**flags))
    stops_after(1000)
    part = Path(flags["output"] + ".part")
    held = part.read_bytes()
    with pytest.raises(MinitrainError, match=r"out\.jsonl\.part: holds the first 16 rows .*pass --resume"):
        predict_run(PredictConfig(**flags))
    changed = {"per_device_eval_batch_size": 8, "max_length": 9, "run": str(folder / "pairs")}
    for name, value in changed.items():
        shown = f"--{name}" if name != "run" else "model.safetensors in the run"
        with pytest.raises(MinitrainError, match=f"was started with .*another {shown}"):
            predict_run(PredictConfig(resume=True, **flags | {name: value}))
    new = Path(flags["input"])
    new.write_text(new.read_text(encoding="utf-8") + '{"text": "more"}\n', encoding="utf-8")
    with pytest.raises(MinitrainError, match="was started with another --input; .*delete out.jsonl.part.json"):
        predict_run(PredictConfig(resume=True, **flags))
    assert part.read_bytes() == held
    Path(f"{part}.json").unlink()  # the way out that is named
    predict_run(PredictConfig(**flags))
    assert len(records_of(Path(flags["output"]).read_text(encoding="utf-8"))) == 44


def test_rows_that_somebody_changed_are_not_gone_on_with(
    folder: Path, tmp_path: Path, small_windows: None, stops_after: Callable[[int], None]
) -> None:
    flags = flags_of_long(folder, tmp_path, ".csv")
    stops_after(2)
    with pytest.raises(Stop):
        predict_run(PredictConfig(**flags))
    part = Path(flags["output"] + ".part")
    part.write_bytes(part.read_bytes().replace(b"lovely", b"LOVELY", 1))
    with pytest.raises(MinitrainError, match="was changed since"):
        predict_run(PredictConfig(resume=True, **flags))


def test_sigterm_leaves_whole_rows_and_names_them(
    folder: Path, tmp_path: Path, small_windows: None, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, before = flags_of_long(folder, tmp_path, ".jsonl"), signal.getsignal(signal.SIGTERM)
    real = predict_module.predict

    def predict(model: Any, split: Any, **words: Any) -> Any:
        if words["first_row"] > 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(model, split, **words)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped) as stopped:
        patch.setattr(predict_module, "predict", predict)
        predict_run(PredictConfig(**flags))
    assert stopped.value.signal == signal.SIGTERM and signal.getsignal(signal.SIGTERM) is before
    assert "holds the first 8 rows; the same command with --resume" in capsys.readouterr().err


def test_two_predictions_do_not_write_one_file(folder: Path, tmp_path: Path) -> None:
    flags = flags_of_long(folder, tmp_path, ".jsonl")
    with (
        output_file.output_file(flags["output"]),
        pytest.raises(MinitrainError, match="another process is writing it"),
    ):
        predict_run(PredictConfig(**flags))


def test_a_killed_prediction_goes_on_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    texts = reviews(1000, seed=8)[0]
    write_jsonl(tmp_path / "new.jsonl", [{"text": text} for text in texts])
    flags = [str(folder / "single"), "--input", str(tmp_path / "new.jsonl"), "--per_device_eval_batch_size", "1"]
    command = [sys.executable, str(SCRIPTS / "predict.py"), *flags]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # as here
    with subprocess.Popen([*command, "--output", str(tmp_path / "out.jsonl")], env=one_thread) as process:
        while not (tmp_path / "out.jsonl.part.json").exists() and process.poll() is None:
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -9  # it was not done
    again: dict[str, Any] = {"input": str(tmp_path / "new.jsonl"), "per_device_eval_batch_size": 1}
    for name, resume in (("out", True), ("whole", False)):
        output = str(tmp_path / f"{name}.jsonl")
        predict_run(PredictConfig(run=str(folder / "single"), output=output, resume=resume, **again))
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_memory_is_not_that_of_all_rows(folder: Path, tmp_path: Path, small_windows: None) -> None:
    """No window's tokens or logits outlive it: the largest that `predict` sees is a window."""
    flags = flags_of_long(folder, tmp_path, ".jsonl")
    sizes: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        real = predict_module.predict
        patch.setattr(
            predict_module, "predict", lambda m, split, **kw: sizes.append(len(split)) or real(m, split, **kw)
        )
        predict_run(PredictConfig(**flags))
    assert sizes == [8, 8, 8, 8, 8, 3]


# ---- errors


def test_a_resume_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MinitrainError, match="--resume continues a file: pass its --output"):
        PredictConfig(run="x", input="x.csv", resume=True)
    with pytest.raises(MinitrainError, match="--resume needs an --input that can be read again"):
        PredictConfig(run="x", output="x.csv", resume=True)
    (tmp_path / "new.csv").write_text("text\ngood\n", encoding="utf-8")
    with pytest.raises(MinitrainError, match="is the --input itself; name another file"):
        PredictConfig(run="x", input=str(tmp_path / "new.csv"), output=str(tmp_path / "new.csv"))


def test_columns_that_do_not_fit_the_run_are_named(folder: Path, predicted: Predict, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "new.csv", ["good"], ["x"], header=("a", "c"))
    with pytest.raises(MinitrainError, match=r"has no column 'b'; it has a, c. .* was trained on a, b: pass"):
        predicted(folder / "pairs", input=str(path))
    with pytest.raises(MinitrainError, match=r"--text_columns a: .*trained on pairs of texts \(a, b\); name two"):
        predicted(folder / "pairs", input=str(path), text_columns=("a",))
    with pytest.raises(MinitrainError, match=r"--text_columns a,c: .*trained on single texts \(text\); name one"):
        predicted(folder / "single", input=str(path), text_columns=("a", "c"))
    with pytest.raises(MinitrainError, match=rf"--input {tmp_path}: is a folder; .*new\.csv"):
        predicted(folder / "single", input=str(tmp_path))


@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_a_closed_stream_is_an_error_without_a_traceback(folder: Path, closed: str) -> None:
    words = [sys.executable, str(SCRIPTS / "predict.py"), str(folder / "single")]
    feed = "" if closed == "<&-" else "echo good | "
    done = subprocess.run(["bash", "-c", f'{feed}"$0" "$1" "$2" {closed}', *words], capture_output=True, text=True)
    assert done.returncode == 1 and "is closed; pass --" in done.stderr and "Traceback" not in done.stderr


# ---- scored rows, progress


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_scored_rows_are_written_with_their_true_labels(folder: Path, tmp_path: Path, ending: str) -> None:
    output = tmp_path / f"rows.{ending}"
    (result,) = evaluate_run(EvaluateConfig(run=str(folder / "single"), output=str(output))).values()
    text = output.read_text(encoding="utf-8")
    rows: list[Any] = records_of(text) if ending == "jsonl" else list(csv.DictReader(io.StringIO(text)))
    source = read_file(folder / "eval.csv")
    assert [row["text"] for row in rows] == source.column("text")
    assert [row["true_label"] for row in rows] == [row["input_label"] for row in rows] == source.column("label")
    right = sum(row["label"] == row["true_label"] for row in rows) / len(rows)
    assert right == result.metrics["accuracy"]


def test_scored_rows_of_a_regression_have_scores(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "rows.jsonl"
    evaluate_run(EvaluateConfig(run=str(folder / "scores"), output=str(output)))
    source = read_file(folder / "eval-scores.csv")
    rows = records_of(output.read_text(encoding="utf-8"))
    assert [row["true_label"] for row in rows] == [float(value) for value in source.column("label")]
    assert all(isinstance(row["score"], float) for row in rows)


def test_scored_rows_of_several_splits_name_theirs(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "data"
    source.mkdir()
    splits = ("train", "validation_matched", "validation_mismatched")
    for name in splits:
        write_csv(source / f"{name}.csv", *named_reviews(4, seed=len(name)))
    lines = "".join(f"  - split: {name}\n    path: {name}.csv\n" for name in splits)
    text = f"---\nconfigs:\n- config_name: default\n  data_files:\n{lines}---\n"
    (source / "README.md").write_text(text, encoding="utf-8")
    output = tmp_path / "rows.csv"
    evaluate_run(EvaluateConfig(run=str(folder / "single"), dataset=str(source), output=str(output)))
    rows = list(csv.DictReader(io.StringIO(output.read_text(encoding="utf-8"))))
    assert [row["split"] for row in rows] == [name for name in splits[1:] for _ in range(4)]
    assert {row["true_label"] for row in rows} == {"awful", "lovely"}


def test_scored_rows_are_nothing_without_an_output() -> None:
    with pytest.raises(MinitrainError, match="--keep_columns is about the rows written by --output: pass --output"):
        EvaluateConfig(run="x", keep_columns=("all",))


def test_long_work_says_how_far_it_is(
    folder: Path, tmp_path: Path, small_windows: None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(progress_module, "SILENCE", 0.0)
    flags = flags_of_long(folder, tmp_path, ".jsonl")
    predict_run(PredictConfig(**flags))
    assert f"labelling {flags['input']}: 43 rows, 100%\n" in capsys.readouterr().err
    evaluate_run(EvaluateConfig(run=str(folder / "single")))
    err = capsys.readouterr().err
    assert "evaluating eval.csv: 12 rows, 100%\n" in err and f"tokenizing {folder}/eval.csv: 12 rows" in err
    train(config(folder / "tiny", folder, tmp_path / "run", max_steps=1))
    err = capsys.readouterr().err
    assert f"tokenizing {folder}/train.csv: 40 rows, 100%\n" in err
    assert err.count("evaluating validation: 12 rows, 100%\n") == 2  # after the epoch, and at the end


def test_blank_and_cut_texts_are_counted(folder: Path, predicted: Predict, capsys: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"good\n\n" + b"good " * 99)))
        predict_run(PredictConfig(run=str(folder / "single"), max_length=8))
    assert capsys.readouterr().err == (
        "standard input: 1 of 3 texts is longer than 8 tokens; head keeps 6% of their tokens\n"
        "standard input: 1 of 3 rows have a text with nothing in it\n"
    )


def test_a_prediction_that_cannot_be_leaves_no_folder(folder: Path, predicted: Predict, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(MinitrainError, match="has no texts"):
        predicted(folder / "single", input=str(tmp_path / "empty.txt"), output=str(tmp_path / "a/b/out.jsonl"))
    assert [path.name for path in tmp_path.iterdir()] == ["empty.txt"]


def test_a_table_without_rows_is_not_said_to_lack_a_column(
    folder: Path, predicted: Predict, tmp_path: Path
) -> None:
    (tmp_path / "empty.csv").write_text("text,label\n")
    with pytest.raises(MinitrainError, match="has no rows; expected at least one$"):
        predicted(folder / "single", input=str(tmp_path / "empty.csv"))


@pytest.mark.parametrize(
    ("text", "warned"),
    [("the film is good and great \U0001f600", False), ("\u597d\u597d", True), ("good \U0001f600 " * 10, True)],
)
def test_a_single_emoji_is_no_sign_of_a_wrong_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, text: str, warned: bool
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{text}\n".encode())))
    predict_run(PredictConfig(run=str(folder / "single")))
    assert ("are unknown to the tokenizer" in capsys.readouterr().err) == warned


PRETTY = ['[\n {"text": "good"}\n]', '{\n "text": "good"\n}', '[{"text": "good"}]', '[ {"text": "good"} ]']


@pytest.mark.parametrize("text", PRETTY)
def test_json_over_several_lines_is_not_labelled_line_by_line(folder: Path, predicted: Predict, text: str) -> None:
    with pytest.raises(MinitrainError, match="line 1: is the start of JSON that spans several lines"):
        predicted(folder / "single", f"{text}\n")
    assert len(records_of(predicted(folder / "single", f"{text}\n", input_format="text"))) == len(text.split("\n"))


def test_fields_inside_of_others_are_read_from_lines_as_from_a_file(
    folder: Path, predicted: Predict, tmp_path: Path
) -> None:
    rows = [{"post": {"title": "good"}, "id": 1}, {"post": {"title": "bad"}, "id": 2}]
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    asked = {"text_columns": ("post.title",)}
    from_lines = records_of(predicted(folder / "single", file.read_text(), **asked))
    assert from_lines == records_of(predicted(folder / "single", input=str(file), **asked))
    assert [row["post.title"] for row in from_lines] == ["good", "bad"]
    with pytest.raises(MinitrainError, match="line 2, field 'post.title': expected a text, got no such field"):
        predicted(folder / "single", '{"post": {"title": "good"}}\n{"post": 1}\n', **asked)
