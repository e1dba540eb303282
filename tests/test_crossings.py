"""Where two features of data meet: several files, nested fields, maps, scores of any scale; what is said."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
from sklearn.metrics import r2_score  # type: ignore[import-untyped]
from test_json_rows import way_out_of
from test_loop import reviews
from test_predict import predicted as predicted
from test_tables import contents, error_of, put

from minitrain.config.inference_config import EvaluateConfig, PredictConfig
from minitrain.config.train_config import TrainConfig
from minitrain.data.dataset import Splits
from minitrain.data.load import load_splits
from minitrain.data.tables.load import read_file
from minitrain.data.tokenizer.tokenizer import Tokenizer
from minitrain.errors import MinitrainError
from minitrain.run import predict as predict_module
from minitrain.run.evaluate import evaluate_run
from minitrain.run.main import train
from minitrain.run.predict import predict_run

Predict = Callable[..., str]


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def nested_rows(count: int) -> list[dict[str, Any]]:
    texts, labels = reviews(count)
    return [
        {"review": {"title": text, "body": "the film"}, "meta": {"good": label == 1}}
        for text, label in zip(texts, labels, strict=True)
    ]


def trained(model: Path, folder: Path, **options: Any) -> Path:
    train(TrainConfig(model=str(model), output_dir=str(folder / "run"), max_steps=1, **options))
    return folder / "run"


@pytest.fixture(scope="module")
def nested(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two fields inside of others, joined, whose labels are booleans there."""
    folder = tmp_path_factory.mktemp("nested")
    columns: dict[str, Any] = {"text_columns": ("review.title", "review.body"), "label_column": "meta.good"}
    file = put(folder / "a.jsonl", lines(nested_rows(20)))
    return trained(model, folder, train_file=str(file), eval_fraction=0.3, join=" ", **columns)


@pytest.fixture(scope="module")
def words(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on numbers that a map names."""
    folder = tmp_path_factory.mktemp("words")
    texts, labels = reviews(20)
    file = put(folder / "a.csv", pandas.DataFrame({"text": texts, "label": labels}).to_csv(index=False))
    return trained(model, folder, train_file=str(file), eval_fraction=0.3, label_map={"0": "bad", "1": "good"})


def error_in(splits: Callable[[], Splits] | Callable[[], Any]) -> str:
    with pytest.raises(MinitrainError) as caught:
        splits()
    return str(caught.value)


# ---- files


def test_quoted_headers_show_their_delimiter_where_no_column_is_named(tmp_path: Path) -> None:
    table = read_file(put(tmp_path / "a.csv", '"text";"label"\n"a, b";"1"\n"c;d";"0"\n'))
    assert contents(table) == {"text": ["a, b", "c;d"], "label": ["1", "0"]}
    assert "delimiter ';'" in table.notes[0]


def test_a_title_above_the_header_is_named(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", "My export\ntext,label\na,1\nb,0\n")
    assert "row 1 (line 2): 2 fields, the header has 1 (['My export']); take out what stands above" in error_of(
        path
    )


def test_no_number_is_no_class_beside_a_file_without_types(tmp_path: Path, tokenizer: Tokenizer) -> None:
    typed = put(tmp_path / "b.jsonl", '{"text": "x", "label": "no"}\n{"text": "x", "label": NaN}\n')
    files = (str(put(tmp_path / "a.csv", "text,label\na,yes\nb,no\n")), str(typed))
    message = error_in(lambda: load_splits(train_file=files, tokenizer=tokenizer))
    assert "b.jsonl, row 2, column 'label': is NaN, no value" in message


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ("text,label\né,1\n".encode("utf-16"), "line 1: is not UTF-8 but UTF-16; pass --encoding utf-16"),
        (b"PK\x03\x04\x00\x00\xff", "its content is a zip archive"),
        (b"<!DOCTYPE html><html>", "its content is a web page"),
        (gzip.compress(b"text,label\na,1\n"), "is compressed twice; take one off: gzip -d"),
    ],
    ids=["utf-16", "zip", "html", "gzip"],
)
def test_what_is_compressed_is_recognised_too(tmp_path: Path, inside: bytes, said: str) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(inside))
    assert said in error_of(path)


@pytest.mark.parametrize("orient", ["split", "index", "columns"])
def test_every_table_that_pandas_writes_as_json_has_a_command(tmp_path: Path, orient: Any) -> None:
    frame = pandas.DataFrame({"text": ["a", "b", "c"], "code": ["007", "1", "2"]})
    path = tmp_path / "a.json"
    frame.to_json(path, orient=orient)
    assert "a.json: holds columns" in error_of(path)
    way_out_of(path)
    assert contents(read_file(tmp_path / "rows.jsonl")) == frame.to_dict("list")


# ---- labels


def test_labels_in_the_text_are_refused(tmp_path: Path, tokenizer: Tokenizer, words: Path) -> None:
    rows = {"text": ["a", "b"], "label": [0, 1]}
    options: dict[str, Any] = {"text_columns": ("text",), "label_column": "text", "tokenizer": tokenizer}
    assert "--text_columns text: 'text' is the column of the labels" in error_in(
        lambda: load_splits(rows, **options)
    )
    scored = EvaluateConfig(run=str(words), eval_file=str(words / "predictions.jsonl"), label_column="text")
    assert "--text_columns text: 'text' is the column of the labels" in error_in(lambda: evaluate_run(scored))


@pytest.mark.parametrize("test", ["rows", "dataset", "blank"])
def test_test_labels_are_not_hidden_by_how_they_are_named(tokenizer: Tokenizer, test: str) -> None:
    datasets = pytest.importorskip("datasets")
    rows = nested_rows(6)
    columns: dict[str, Any] = {"text_columns": ("review.title",), "label_column": "meta.good"}
    held = datasets.Dataset.from_list(rows) if test == "dataset" else rows
    if test == "blank":
        rows, held, columns = [{"text": "a", "label": i} for i in (0, 1)], [{"text": "b", "label ": 1}], {}
    splits = load_splits(train=rows, test=held, tokenizer=tokenizer, **columns)
    assert splits.test["test"].labels is not None and "hidden" not in " ".join(splits.notes)
    assert splits.test["test"].labels.tolist() == ([1] if test == "blank" else [0, 1] * 3)


def test_a_split_that_no_run_uses_is_said(tokenizer: Tokenizer) -> None:
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    splits = load_splits({"train": rows, "dev": rows}, tokenizer=tokenizer)
    assert list(splits.all) == ["train"]
    assert "split dev: 2 rows, not used; scored splits are called validation or test" in splits.notes


def test_a_number_beside_names_of_a_map_is_its_class_in_every_format(tmp_path: Path, tokenizer: Tokenizer) -> None:
    labels, found = [0.0, 1.0, 2.0, 0.5], []
    for holder in ([{"text": "x", "label": label} for label in labels], None):
        file = put(tmp_path / "a.csv", "text,label\n" + "".join(f"x,{label}\n" for label in labels))
        data = {"train_file": str(file)} if holder is None else {"train": holder}
        splits = load_splits(tokenizer=tokenizer, label_map={"0": "no"}, **data)
        assert splits.train.labels is not None
        found.append((splits.labels.names, splits.train.labels.tolist()))
    assert found[0] == found[1] == (("0.5", "1", "2", "no"), [3, 1, 2, 0])


def test_a_number_that_the_map_of_a_run_lacks_has_a_way_out_that_names_it(tmp_path: Path, words: Path) -> None:
    file = str(put(tmp_path / "a.csv", "text,label\ngood,1\nbad,0\nbad,2\n"))
    message = error_in(lambda: evaluate_run(EvaluateConfig(run=str(words), eval_file=file)))
    assert "a.csv, row 3" in message and message.endswith("say which class: --label_map 2=NAME")
    mapped = evaluate_run(EvaluateConfig(run=str(words), eval_file=file, label_map={"2": "bad"}))
    assert mapped["a.csv"].examples == 3


# ---- predictions


def write_parts(folder: Path, last: Any) -> str:
    texts, _ = reviews(40)
    put(folder / "1.jsonl", lines([{"text": text} for text in texts]))
    put(folder / "2.jsonl", lines([{"text": "good"}, {"text": last}]))
    return f"{folder}/*.jsonl"


def test_a_bad_row_of_several_inputs_has_its_number_in_its_file(tmp_path: Path, words: Path) -> None:
    config = PredictConfig(run=str(words), input=write_parts(tmp_path, None))
    assert f"{tmp_path}/2.jsonl, row 2, column 'text'" in error_in(lambda: predict_run(config))


def test_several_inputs_are_resumable(tmp_path: Path, words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_module, "WINDOWS", (1,))
    flags: dict[str, Any] = {"run": str(words), "input": write_parts(tmp_path, "bad")}
    flags |= {"output": str(tmp_path / "out.csv"), "per_device_eval_batch_size": 8}
    predict_run(PredictConfig(**flags))
    whole = (tmp_path / "out.csv").read_text()
    assert len(whole.splitlines()) == 43
    (tmp_path / "out.csv").unlink()
    with pytest.MonkeyPatch.context() as patch:
        real, left = predict_module.predict, [3]

        def stop(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return real(*args, **options)

        patch.setattr(predict_module, "predict", stop)
        with pytest.raises(KeyboardInterrupt):
            predict_run(PredictConfig(**flags))
    predict_run(PredictConfig(**flags, resume=True))
    assert (tmp_path / "out.csv").read_text() == whole


def test_several_inputs_keep_the_columns_of_each(tmp_path: Path, words: Path, predicted: Predict) -> None:
    put(tmp_path / "a.csv", "text\nalone\n")
    put(tmp_path / "b.csv", "id, text\n007,hi\n")
    put(tmp_path / "c.jsonl", '{"text": "x", "id": 4, "more": {"k": [1, null]}}\n')
    files = ",".join(str(tmp_path / name) for name in ("a.csv", "b.csv", "c.jsonl"))
    records = [json.loads(line) for line in predicted(words, input=files).splitlines()]
    kept = [{key: value for key, value in record.items() if key in ("text", "id", "more")} for record in records]
    assert kept == [
        {"text": "alone"}, {"text": "hi", "id": "007"}, {"text": "x", "id": "4", "more": {"k": [1, None]}}
    ]  # fmt: skip
    with pytest.raises(MinitrainError, match="a.csv: has no column 'id'; it has text$"):
        predicted(words, input=files, text_columns=("id",))


def test_an_input_without_rows_has_no_hint_at_columns(tmp_path: Path, words: Path) -> None:
    message = error_in(
        lambda: predict_run(PredictConfig(run=str(words), input=str(put(tmp_path / "a.csv", "text\n"))))
    )
    assert message == f"{tmp_path}/a.csv: has no rows; expected at least one"


def test_no_output_replaces_what_is_read(tmp_path: Path) -> None:
    one, two = (str(put(tmp_path / name, "text,label\na,1\n")) for name in ("a.csv", "b.csv"))
    for files in (f"{one},{two}", f"{tmp_path}/*.csv"):
        with pytest.raises(MinitrainError, match=r"b\.csv: is the --input too, by one of its files; name another"):
            PredictConfig(run="x", input=files, output=two)
    for flag in ("output", "json"):
        with pytest.raises(MinitrainError, match=f"--{flag} {one}: is the --eval_file itself; name another file"):
            EvaluateConfig(
                run="x", eval_file=one, **{flag: one, "output_format": "csv" if flag == "output" else None}
            )


def test_lines_with_texts_inside_of_fields_are_answered_as_in_a_file(
    nested: Path, predicted: Predict, tmp_path: Path
) -> None:
    file = put(tmp_path / "a.jsonl", lines(nested_rows(5)))
    from_file = predicted(nested, input=str(file))
    assert predicted(nested, file.read_text()) == from_file and len(from_file.splitlines()) == 5
    # In CSV too, whose columns the first line settles.
    table = predicted(nested, file.read_text(), output_format="csv", keep_columns=("none",)).splitlines()
    assert table[0].startswith("review.title,review.body,label,") and len(table) == 6
    with pytest.raises(MinitrainError, match=r"line 2, field 'review.body': expected a text, got no such field"):
        predicted(nested, file.read_text().splitlines()[0] + '\n{"review": {"title": "a"}}\n')


# ---- scores


def score_file(folder: Path, scores: list[float]) -> str:
    texts, _ = reviews(len(scores))
    return str(put(folder / "s.csv", pandas.DataFrame({"text": texts, "label": scores}).to_csv(index=False)))


def test_one_row_to_evaluate_scores_on_is_enough(model: Path, tmp_path: Path) -> None:
    (tmp_path / "eval").mkdir()
    files = {"train_file": score_file(tmp_path, [1.5, 2.5, 4.0]), "eval_file": score_file(tmp_path / "eval", [1.5])}
    run = trained(model, tmp_path, **files)
    values = json.loads((run / "results.json").read_text())["results"]["validation"]
    assert (values["pearson"], values["spearmanr"], values["r2"]) == (None, None, None)
    (record,) = map(json.loads, (run / "predictions.jsonl").read_text().splitlines())
    assert values["mae"] == pytest.approx(abs(record["prediction"] - 1.5))


def test_scores_too_large_for_their_square_are_trained_on_and_saved(model: Path, tmp_path: Path) -> None:
    run = trained(model, tmp_path, train_file=score_file(tmp_path, [1e22, -3e22, 2e22, 2.5]), eval_fraction=0.5)
    facts = json.loads((run / "results.json").read_text())
    assert facts["results"]["validation"]["mse"] is None and facts["baseline"]["validation"]["rmse"] is None
    assert facts["results"]["validation"]["mae"] > 1e21


def test_scores_of_held_back_rows_are_those_of_scikit_learn(model: Path, tmp_path: Path) -> None:
    run = trained(
        model, tmp_path, train_file=score_file(tmp_path, [100 + 37.5 * i for i in range(20)]), eval_fraction=0.3
    )
    found = evaluate_run(EvaluateConfig(run=str(run)))["validation"].metrics
    records = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    oracle = r2_score([r["label"] for r in records], [r["prediction"] for r in records])
    assert found["r2"] == pytest.approx(oracle, abs=1e-5)
    for wrong in ({"label_map": {"1": "a"}}, {"positive_label": "a"}):
        message = error_in(lambda w=wrong: evaluate_run(EvaluateConfig(run=str(run), **w)))  # type: ignore[misc]
        assert "scores" in message and message.endswith("leave it out")


@pytest.mark.parametrize(
    "scores",
    [["0,5", "1,5", "3,25"], ["12%", "7 %", "3%"], ["$12", "$7.50", "$1,200"], ["1.000,50 €", "2 €", "3 €"]],
)
def test_numbers_as_people_write_them_are_said_to_be_classes(
    tmp_path: Path, tokenizer: Tokenizer, scores: list[str]
) -> None:
    file = str(put(tmp_path / "a.csv", "text;label\n" + "".join(f"Good, very;{score}\n" for score in scores * 2)))
    splits = load_splits(train_file=file, tokenizer=tokenizer)
    (note,) = [note for note in splits.notes if "write scores as 0.5" in note]
    assert "is the name of a class here" in note and "several labels" not in " ".join(splits.notes)
    message = error_in(lambda: load_splits(train_file=file, problem_type="regression", tokenizer=tokenizer))
    assert f"a.csv, row 1, column 'label': the label is '{scores[0]}'" in message and "write it as 0.5" in message


@pytest.mark.parametrize(
    "names", [["1", "2", "3"], ["a1", "2", "3"], ["+1", "-1", "+1"], ["1,2", "x", "y"], ["1.2.3", "1.2.4", "2.0"]]
)
def test_names_that_are_no_scores_are_not(tmp_path: Path, tokenizer: Tokenizer, names: list[str]) -> None:
    file = str(put(tmp_path / "a.tsv", "text\tlabel\n" + "".join(f"x\t{name}\n" for name in names)))
    assert "write scores as" not in " ".join(load_splits(train_file=file, tokenizer=tokenizer).notes)


def test_a_relative_name_that_is_not_there_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MinitrainError, match=f"^a.csv: no such file in {tmp_path}$"):
        read_file("a.csv")


@pytest.mark.parametrize("spelled", ["true", "TRUE", "True"])
def test_truths_of_a_file_with_types_are_those_of_the_file_without(
    tmp_path: Path, tokenizer: Tokenizer, spelled: str
) -> None:
    false = {"true": "false", "TRUE": "FALSE", "True": "False"}[spelled]
    csv, typed = (
        f"text,label\na,{spelled}\nb,{false}\n",
        lines([{"text": "x", "label": value} for value in (True, False)]),
    )
    files = (str(put(tmp_path / "a.csv", csv)), str(put(tmp_path / "b.jsonl", typed)))
    splits = load_splits(train_file=files, tokenizer=tokenizer)
    assert splits.train.labels is not None
    assert (splits.labels.names, splits.train.labels.tolist()) == ((false, spelled), [1, 0, 1, 0])


def test_a_map_of_numbers_onto_numbers_is_not_applied_to_its_own_predictions(model: Path, tmp_path: Path) -> None:
    texts, labels = reviews(24, classes=3)
    file = put(tmp_path / "a.csv", pandas.DataFrame({"text": texts, "label": labels}).to_csv(index=False))
    stars = {"0": "1", "1": "2", "2": "3"}
    run = trained(model, tmp_path, train_file=str(file), eval_fraction=0.3, label_map=stars)
    found = evaluate_run(EvaluateConfig(run=str(run), eval_file=str(run / "predictions.jsonl")))
    again = evaluate_run(EvaluateConfig(run=str(run)))
    assert found["predictions.jsonl"].metrics == again["validation"].metrics


def test_columns_that_a_scored_file_lacks_are_named_with_the_flags(tmp_path: Path, words: Path) -> None:
    file = str(put(tmp_path / "a.csv", "body,label\na,1\nb,0\n"))
    message = error_in(lambda: evaluate_run(EvaluateConfig(run=str(words), eval_file=file)))
    assert "a.csv: has no column 'text'; it has body, label. " in message
    assert "was trained on text, label: pass --text_columns and --label_column if the file" in message
    assert (
        evaluate_run(EvaluateConfig(run=str(words), eval_file=file, text_columns=("body",)))["a.csv"].examples == 2
    )


def test_scores_in_quotes_are_said_to_be_text(tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = str(put(tmp_path / "a.jsonl", lines([{"text": "a", "label": "1.5"}, {"text": "b", "label": "2"}])))
    message = error_in(lambda: load_splits(train_file=file, problem_type="regression", tokenizer=tokenizer))
    assert "row 1, column 'label': the label is '1.5' (str)" in message and message.endswith("without quotes")


def test_a_folder_is_no_file_and_a_pattern_names_its_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert f"{tmp_path}/data: is a folder; pass it as --dataset" in error_in(lambda: read_file(tmp_path / "data"))
    message = error_in(lambda: read_file(f"{tmp_path}/data/*.csv"))
    assert message.endswith(f"no file fits this pattern; `ls {tmp_path}/data` shows what there is")


def test_a_score_that_is_missing_is_not_to_be_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    files = [
        str(put(tmp_path / name, f"text,label\nx,{score}\ny,2.5\n"))
        for name, score in (("a.csv", 1.5), ("b.csv", ""))
    ]
    message = error_in(lambda: load_splits(train_file=files[0], eval_file=files[1], tokenizer=tokenizer))
    assert message.endswith(
        "b.csv, row 1, column 'label': the label is '' (str); expected a finite number, as "
        "regression needs; the row has no label: leave it out, or fill it in"
    )
