"""The model card as the Hub's own library reads it back, and as a Markdown parser shows it."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from markdown_it import MarkdownIt
from statsmodels.stats.proportion import proportion_confint
from test_loop import write_tiny_model
from test_main import named_reviews, write_csv

from minitrain.config.train_config import TrainConfig
from minitrain.data.labels.ids import Labels
from minitrain.run.card_tables import LOGGED, thinned
from minitrain.run.intervals import metric_interval
from minitrain.run.main import train
from minitrain.run.markdown import escaped
from minitrain.run.model_card import Card, model_card
from minitrain.training.confusion import Confusion
from minitrain.training.evaluation import Evaluation

UGLY = ("a|b", "`code`", "line\nbreak", "<b>html</b>", "---", "\u202eright to left", "*stars* _x_ [a](b) &amp; \\|")


def evaluation(counts: list[list[int]] | None = None, **metrics: float) -> Evaluation:
    confusion = None
    if counts is not None:
        confusion = Confusion(len(counts))
        confusion.counts = torch.tensor(counts)
    examples = 10 if counts is None else sum(map(sum, counts))
    return Evaluation(loss=0.5, metrics=metrics, confusion=confusion, examples=examples, seconds=0.0)


def text_of(
    results: dict[str, Evaluation],
    names: tuple[str, ...] | None = ("no", "yes"),
    positive: int = 1,
    known: dict[str, Any] | None = None,
    log: list[dict[str, Any]] | None = None,
    examples: list[dict[str, Any]] | None = None,
    title: str = "a-run",
    **flags: Any,
) -> str:
    config = TrainConfig(**flags)
    made = Card(
        title=title,
        config=config,
        labels=Labels(names=names, positive=positive),
        results={"steps": 12, "config": asdict(config), "text_columns": ["text"], **(known or {})},
        final=results,
        log=log or [],
        examples=examples or [],
    )
    return model_card(made)


def card_of(results: dict[str, Evaluation], *args: Any, **flags: Any) -> ModelCard:
    return ModelCard(text_of(results, *args, **flags))


def eval_results(card: ModelCard) -> list[EvalResult]:
    assert isinstance(card.data, ModelCardData)
    return list(card.data.eval_results or [])


class _Page(HTMLParser):
    """The cells of all tables, the headings, and every tag."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.headings: list[str] = []
        self.tags: set[str] = set()
        self.into: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.into = self.tables[-1][-1]
            self.into.append("")
        elif tag in ("h1", "h2", "h3"):
            self.into = self.headings
            self.into.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "h1", "h2", "h3"):
            self.into = None

    def handle_data(self, data: str) -> None:
        if self.into is not None:
            self.into[-1] += data


def page(text: str) -> _Page:
    """A card as it is shown, without its metadata."""
    found = _Page()
    found.feed(MarkdownIt("commonmark").enable("table").render(ModelCard(text).text))
    return found


def tables(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    for heads, *rows in page(text).tables:
        assert all(len(row) == len(heads) for row in rows)
        yield heads, rows


def test_card_holds_every_metric_of_every_split() -> None:
    results = {
        "validation_matched": evaluation(accuracy=0.75, f1=0.5),
        "validation_mismatched": evaluation(accuracy=0.7, f1=0.4),
    }
    found = eval_results(card_of(results, dataset="nyu-mll/glue", subset="mnli"))
    assert {(r.dataset_split, r.metric_type, r.metric_value) for r in found} == {
        ("validation_matched", "accuracy", 0.75),
        ("validation_matched", "f1", 0.5),
        ("validation_mismatched", "accuracy", 0.7),
        ("validation_mismatched", "f1", 0.4),
    }
    assert {(r.task_type, r.dataset_type, r.dataset_config) for r in found} == {
        ("text-classification", "nyu-mll/glue", "mnli")
    }


def test_card_names_model_library_task_and_metrics() -> None:
    card = card_of({"validation": evaluation(accuracy=0.5)}, model="google-bert/bert-base-uncased")
    data = card.data.to_dict()
    assert data["base_model"] == "google-bert/bert-base-uncased"
    assert (data["library_name"], data["pipeline_tag"]) == ("transformers", "text-classification")
    assert data["metrics"] == ["accuracy"] and "minitrain" in data["tags"]
    assert [entry["name"] for entry in data["model-index"]] == ["a-run"]


def test_nan_is_no_result() -> None:
    found = eval_results(card_of({"validation": evaluation(pearson=math.nan, mse=0.5)}, names=None))
    assert [(r.metric_type, r.metric_value) for r in found] == [("mse", 0.5)]


def test_run_without_evaluation_has_a_card_too() -> None:
    card = card_of({})
    assert eval_results(card) == []
    assert "12 steps" in card.text and "It was not evaluated." in card.text


def test_first_sentence_is_about_the_test_split_as_in_the_report() -> None:
    text = text_of({"validation": evaluation(accuracy=0.75), "test": evaluation(accuracy=0.5)})
    assert "**accuracy 0.5000 on test**" in text and "**accuracy 0.7500 on validation**" not in text


def test_text_says_how_it_was_trained() -> None:
    flags: dict[str, Any] = {"learning_rate": 3e-5, "gradient_accumulation_steps": 4, "seed": 7}
    text = " ".join(card_of({"validation": evaluation(f1=0.5)}, **flags).text.split())
    assert "12 steps, learning rate 3e-05, batch size 32, seed 7" in text
    assert (
        "- seed: 7 - gradient_accumulation_steps: 4 - learning_rate: 3e-05" in text and "weight_decay" not in text
    )
    assert "Labels: no, yes; F1 is of yes." in text
    assert "Labels: no, yes." in card_of({"validation": evaluation(accuracy=0.5)}).text  # without F1, not whose
    assert "Labels: a score." in card_of({"validation": evaluation(mse=0.5)}, names=None).text


@pytest.mark.parametrize("name", ["my: data #1.csv", "'quoted' \"twice\".csv", "größe – данные.jsonl", "---.csv"])
def test_awkward_file_names_survive_the_front_matter(name: str) -> None:
    card = card_of({"validation": evaluation(accuracy=0.5)}, train_file=f"/home/me/secret/{name}")
    assert [r.dataset_type for r in eval_results(card)] == [name]
    assert card.text.strip().startswith("# a-run")
    assert "secret" not in str(card)  # folders of this machine are nobody else's business


@pytest.mark.parametrize(("positive", "name"), [(0, "no"), (1, "yes")])
def test_card_says_which_class_f1_is_of(positive: int, name: str) -> None:
    card = card_of({"validation": evaluation(accuracy=0.75, f1=0.5)}, positive=positive)
    assert f"F1 is of {name}." in card.text
    assert {(r.metric_type, r.metric_name) for r in eval_results(card)} == {
        ("accuracy", None),
        ("f1", f"F1 of {name}"),
    }


def test_names_of_classes_cannot_break_the_card() -> None:
    names = ("a\n---\nb: *x", "\x1b[31mred\u202e")
    text = text_of({"validation": evaluation([[1, 0], [0, 1]], f1=0.5)}, names=names)
    shown = [r"a\n---\nb: *x", r"\x1b[31mred\u202e"]
    assert f"Labels: {shown[0]}, {shown[1]}; F1 is of {shown[1]}." in MarkdownIt().render(text).replace("<em>", "")
    assert [r.metric_name for r in eval_results(ModelCard(text))] == [f"F1 of {shown[1]}"]
    many = card_of({"validation": evaluation(macro_f1=0.5)}, names=tuple(f"c{i}" for i in range(500)))
    assert "c99 and 400 more." in many.text


def test_ugly_names_and_texts_stay_in_their_cells() -> None:
    counts = torch.arange(len(UGLY) ** 2).view(len(UGLY), -1).tolist()
    shown = [name.replace("\n", r"\n").replace("\u202e", r"\u202e") for name in UGLY]
    facts = {"examples": 3, "median_length": 4, "longest": 9, "truncated": 1, "blank": 0, "unknown": 1}
    data = {"a|split": {**facts, "text_tokens": 8, "labels": dict(zip(UGLY, range(7), strict=True))}}
    rows = [{"te|xt": f"{name} <script>", "label": name, "prediction": name, "probability": 0.5} for name in UGLY]
    text = text_of(
        {"a|split": evaluation(counts, accuracy=0.5)},
        names=UGLY,
        known={"text_columns": ["te|xt"], "data": data},
        examples=rows,
        title="# a | <run>",
        join=" <i>|`",
    )
    read = page(text)
    assert not read.tags & {"b", "script", "em", "a", "hr", "i"} and read.headings[0] == "# a | <run>"
    metrics, classes, confusion, examples, splits, labels = tables(text)
    assert [row[0] for row in classes[1]] == shown
    assert confusion == (
        ["true / predicted", *shown],
        [[name, *map(str, row)] for name, row in zip(shown, counts, strict=True)],
    )
    assert [row[1] for row in examples[1]] == [row[2] for row in examples[1]] == shown
    assert examples[0][0] == "te|xt" and examples[1][2][0] == "line break <script>"
    assert splits[1] == [["a|split", "3", "4", "9", "1", "0", "12.5%"]]
    assert labels[1] == [[name, str(count)] for count, name in enumerate(shown)]
    assert metrics[1][1][:2] == ["accuracy", "0.5000"]


def test_confusion_is_shown_for_up_to_twenty_classes() -> None:
    for classes, shown in ((20, True), (21, False), (150, False)):
        counts = torch.eye(classes, dtype=torch.int64).tolist()
        text = text_of({"validation": evaluation(counts, accuracy=1.0)}, tuple(f"c{i}" for i in range(classes)))
        assert ("Confusion matrix" in text) == shown
        rows = next(rows for heads, rows in tables(text) if heads[0] == "class")
        assert len(rows) == min(classes, 100) and ("and 50 more" in text) == (classes == 150)


def test_log_marks_the_best_evaluation_and_is_thinned() -> None:
    log: list[dict[str, Any]] = []
    for step in range(1, 101):
        log.append({"event": "step", "step": step, "epoch": step / 10, "loss": step / 100})
        found = {"split": "validation", "loss": 1 / step, "accuracy": step / 200}
        log.append({"event": "evaluation", "step": step, "epoch": step / 10, **found})
    text = text_of({}, log=log, known={"best": {"step": 43, "epoch": 4.3, "accuracy": 0.215}, "saved": "best"})
    (heads, rows), *_ = tables(text)
    assert heads == ["epoch", "step", "training loss", "evaluation loss", "evaluation accuracy"]
    assert LOGGED <= len(rows) <= LOGGED + 1 and (rows[0][1], rows[-1][1]) == ("1", "100")
    assert ["4.30", "43", "0.4300", "0.0233", "0.2150"] in rows and "| **43** |" in text and "**44**" not in text
    assert "The model of the best evaluation is saved." in text
    (heads, rows), *_ = tables(text_of({}, log=[line for line in log if line["event"] == "step"]))
    assert heads == ["epoch", "step", "training loss"] and len(rows) == LOGGED
    assert thinned(range(1000), LOGGED)[-1] == 999


def test_intervals_of_shares_are_wilsons() -> None:
    result = evaluation([[50, 7], [12, 31]], accuracy=0.81)
    for name, hits, of in (("accuracy", 81, 100), ("precision", 31, 38), ("recall", 31, 43)):
        assert metric_interval(name, result) == pytest.approx(proportion_confint(hits, of, method="wilson"))
    assert metric_interval("recall", result, positive=0) == pytest.approx(
        proportion_confint(50, 57, method="wilson")
    )
    assert metric_interval("macro_f1", result) is None and metric_interval("loss", result) is None
    assert metric_interval("f1", evaluation([[5, 0], [0, 0]])) is None  # 0/0


def test_interval_of_f1_covers_the_true_one() -> None:
    draw, cells = numpy.random.default_rng(0), numpy.array([0.60, 0.10, 0.08, 0.22])
    true = 2 * 0.22 / (2 * 0.22 + 0.18)
    covered = []
    for counts in draw.multinomial(200, cells, size=1000):
        low, high = metric_interval("f1", evaluation(counts.reshape(2, 2).tolist())) or (1, 0)
        covered.append(low <= true <= high)
    assert numpy.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_licence_languages_and_base_are_those_of_other_cards_or_left_out(tmp_path: Path) -> None:
    model, data = tmp_path / "model", tmp_path / "data"
    result = {"validation": evaluation(accuracy=0.5)}
    for folder in (model, data):
        folder.mkdir()
    flags = {"model": str(model), "dataset": str(data)}
    for spoilt in ("", "# no metadata", "---\nlicense: [a\n---\n", "---\nlicense: 3\nlanguage: 4\n---\n"):
        for folder in (model, data):
            (folder / "README.md").write_text(spoilt, encoding="utf-8")
        named = card_of(result, **flags).data.to_dict()
        assert not named.keys() & {"license", "language", "base_model", "datasets"}, spoilt
    (model / "README.md").write_text(
        "---\nlicense: other\nlicense_name: mine\nlicense_link: LICENSE\nbase_model: org/base\nlanguage: de\n---\n"
    )
    (data / "README.md").write_text("---\nlicense: gpl\nlanguage:\n- en\n- fr\n---\n")
    named = card_of(result, **flags).data.to_dict()
    assert (named["license"], named["license_name"], named["license_link"]) == ("other", "mine", "LICENSE")
    assert named["language"] == ["en", "fr"] and named["base_model"] == "org/base" and "datasets" not in named
    demo = card_of(result, model="demo", dataset="demo").data.to_dict()
    assert (demo["license"], demo["language"]) == ("apache-2.0", ["en"])
    of_hub = card_of(result, dataset="org/data", known={"dataset_commit": "a" * 40})
    assert of_hub.data.to_dict()["datasets"] == ["org/data"]
    assert [r.dataset_revision for r in eval_results(of_hub)] == ["a" * 40]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    write_tiny_model(folder / "tiny")
    write_csv(folder / "train.csv", *named_reviews(40))
    write_csv(folder / "eval.csv", *named_reviews(21, seed=1))
    files = {"train_file": str(folder / "train.csv"), "eval_file": str(folder / "eval.csv")}
    train(TrainConfig(**files, model=str(folder / "tiny"), output_dir=str(folder / "run"), card_examples=4))  # type: ignore[arg-type]
    return folder / "run"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_card_of_a_run_says_what_its_files_say(run: Path) -> None:
    text = (run / "README.md").read_text(encoding="utf-8")
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    metrics, classes, confusion, examples, log, splits, labels = tables(text)
    values = results["results"]["validation"]
    assert [row[:2] for row in metrics[1]] == [
        ["loss", f"{values['loss']:.4f}"],
        ["accuracy", f"{values['accuracy']:.4f}"],
        ["f1 of 'lovely'", f"{values['f1']:.4f}"],
    ]
    assert metrics[1][1][3] == f"{results['baseline']['validation']:.4f}"
    records = lines(run / "predictions.jsonl")
    pairs = [(record["label"], record["prediction"]) for record in records]
    names = ["awful", "lovely"]
    assert confusion[1] == [[true, *(str(pairs.count((true, other))) for other in names)] for true in names]
    assert [row[-1] for row in classes[1]] == [str(sum(pair[0] == name for pair in pairs)) for name in names]
    shown = {(r["text"], r["label"], r["prediction"], f"{r['probability']:.4f}") for r in records}
    assert len(examples[1]) == 4 and {tuple(row) for row in examples[1]} <= shown
    assert {row[1] for row in examples[1]} == {*names}
    evaluations = [line for line in lines(run / "log.jsonl") if line["event"] == "evaluation"]
    assert [row[1] for row in log[1]] == [str(line["step"]) for line in evaluations]
    assert [row[3] for row in log[1]] == [f"{line['loss']:.4f}" for line in evaluations]
    facts = results["data"]
    assert [row[:3] for row in splits[1]] == [
        [name, str(of["examples"]), str(of["median_length"])] for name, of in facts.items()
    ]
    assert labels[1] == [[name, *(str(of["labels"][name]) for of in facts.values())] for name in names]
    assert f"- hardware: {escaped(results['hardware']['device'], 100)}, 1 thread\n" in text
    assert str(run.parent) not in text


def test_the_code_of_the_card_gives_the_predictions_of_the_run(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (run / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[0]
    record = lines(run / "predictions.jsonl")[0]
    code = code.replace("path/to/this/folder", str(run)).replace('"a text"', json.dumps(record["text"]))
    exec(code, {})
    assert (
        f"{{'label': '{record['prediction']}', 'score': {record['probability']:.4f}"[:-2] in capsys.readouterr().out
    )


def test_texts_of_own_files_are_shown_only_if_asked_for(run: Path, tmp_path: Path) -> None:
    files = {name: str(run.parent / f"{name.split('_')[0]}.csv") for name in ("train_file", "eval_file")}
    flags: dict[str, Any] = {"model": str(run.parent / "tiny"), "max_steps": 1, **files}
    train(TrainConfig(output_dir=str(tmp_path / "out"), **flags))
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "## Examples" not in card and "## Examples" in (run / "README.md").read_text(encoding="utf-8")
    texts = [record["text"] for record in lines(tmp_path / "out/predictions.jsonl")]
    assert not [text for text in texts if text in card and len(text.split()) > 2]
