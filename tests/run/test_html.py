"""report.html: its numbers are those of the run's files, and a browser shows it whole at any width."""

import json
import random
import re
import shlex
import shutil
from collections.abc import Iterator
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support
from test_loop import write_tiny_model

from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.run.flags import parse
from minitrain.run.html import write as write_module
from minitrain.run.html.axes import thinned
from minitrain.run.html.markup import rounded
from minitrain.run.html.reproduce import train_command
from minitrain.run.html.write import write_report
from minitrain.run.main import train

HOSTILE = [
    "<script>alert(1)</script><img src=http://example.com/a.png onerror=alert(1)>",
    "שלום עולם, זה טקסט מימין לשמאל",
    "w" * 3000,
    "\x1b[31mred \u202e\u2066reversed \x07",
    "</style></table></html> & 'quoted' \"twice\" $x^2$",
    "Z" + "\u0335\u0321\u034e" * 40 + " 日本語 👨‍👩‍👧 نمی‌خواهم",
]
NAMES = ["<b>bold</b> | pipe", "عربي \u202eevil"]
WORDS = ["good", "bad", "fine", "poor", "film", "plot", "actor", "scene", "love", "hate", "dull", "bright"]
KINDS = ("two", "many", "labels", "scores", "folds", "none")


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def sentence(draw: random.Random) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(draw.randint(3, 12)))


def data_of(kind: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    draw = random.Random(kind)
    texts = [sentence(draw) for _ in range(120)]
    if kind == "two":
        rows = [
            {
                "te<xt>": f"{text} {draw.choice(HOSTILE)}",
                "body": draw.choice(HOSTILE),
                "label": NAMES["good" in text],
            }
            for text in texts
        ]
        return rows, {"text_columns": ("te<xt>", "body"), "label_column": "label", "calibrate": True}
    if kind == "many":
        return [{"text": t, "label": f"class {row % 24} of a rather long name"} for row, t in enumerate(texts)], {}
    if kind == "labels":
        rows = [{"text": t, "tags": [w for w in WORDS[:4] if w in t and draw.random() < 0.9]} for t in texts]
        return rows, {"label_column": "tags"}
    if kind == "scores":
        return [{"text": t, "label": t.count("good") + draw.random() - 0.5} for t in texts], {}
    rows = [{"text": t, "label": ("ham", "spam")["good" in t]} for t in texts]
    return rows, {"eval_strategy": "no"} if kind == "none" else {"folds": 2, "eval_fraction": 0.0}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each kind, and its report."""
    place = tmp_path_factory.mktemp("reports")
    write_tiny_model(place / "tiny")
    common: dict[str, Any] = {"learning_rate": 3e-3, "num_train_epochs": 3, "eval_fraction": 0.4, "report": True}
    for kind in KINDS:
        rows, own = data_of(kind)
        file = write(place / f"{kind}.jsonl", rows)
        flags = common | own | {"model": str(place / "tiny"), "train_file": file, "output_dir": str(place / kind)}
        train(TrainConfig(**flags))
    return place


class Page(HTMLParser):
    """The numbers of a page, by their path, with what is shown; the words, headings and ids."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.numbers: list[tuple[tuple[Any, ...], float, str]] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self.open: tuple[tuple[Any, ...], float] | None = None
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        values = dict(attributes)
        self.tags.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        if tag == "data":
            self.open = tuple(json.loads(values["data-path"])), json.loads(values["value"])

    def handle_data(self, data: str) -> None:
        self.words += data
        if self.open is not None:
            self.numbers.append((*self.open, data))
            self.open = None


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def in_log(folder: Path, path: tuple[Any, ...]) -> float:
    lines = records(folder / "log.jsonl")
    steps = [line for line in lines if line["event"] == "step"]
    if path == ("lines",):
        return len(steps)
    if path == ("above", "max_grad_norm"):
        return sum(step["grad_norm"] > 1.0 for step in steps)
    if path[0] in ("loss", "learning_rate"):
        values = [step[path[0]] for step in steps]
        return {"min": min(values), "max": max(values), 0: values[0], -1: values[-1]}[path[1]]
    split, metric, _ = path
    return [line for line in lines if line["event"] == "evaluation" and line["split"] == split][-1][metric]


def of_predictions(rows: list[dict[str, Any]], path: tuple[Any, ...]) -> float:
    """A number of the page that is no result: scikit-learn's, from the rows of a split."""
    true, given = ([row[key] for row in rows] for key in ("label", "prediction"))
    kind, *keys = path
    if kind in ("rows", "dots"):
        return len(rows)
    if kind == "mean residual":
        return sum(p - t for t, p in zip(true, given, strict=True)) / len(rows)
    if kind in ("errors", "uncertain"):
        return extreme_rows(rows, kind)[keys[0]]
    names = list(rows[0]["probabilities"])
    if kind == "confusion":
        return int(confusion_matrix(true, given, labels=names)[names.index(keys[0]), names.index(keys[1])])
    if kind == "class":
        found = precision_recall_fscore_support(true, given, labels=[keys[0]], zero_division=0.0)
        return dict(zip(("precision", "recall", "f1", "examples"), (v[0] for v in found), strict=True))[keys[1]]
    if kind == "ece":
        return calibration_error(rows)
    curve = f1_curve(tuple(decisions(rows, names)))
    if kind == "f1 at one half":
        return curve[0.5]
    best = max(curve, key=lambda t: (curve[t], -abs(t - 0.5)))
    return {"f1": curve[best], "threshold": best}[keys[0]]


@lru_cache
def f1_curve(pairs: tuple[tuple[float, bool], ...]) -> dict[float, float]:
    return {t / 100: f1_score([y for _, y in pairs], [p >= t / 100 for p, _ in pairs]) for t in range(101)}


def decisions(rows: list[dict[str, Any]], names: list[str]) -> list[tuple[float, bool]]:
    if isinstance(rows[0]["label"], list):
        return [(row["probabilities"][name], name in row["label"]) for row in rows for name in names]
    return [(row["probabilities"][names[1]], row["label"] == names[1]) for row in rows]


def calibration_error(rows: list[dict[str, Any]]) -> float:
    """Guo et al. 2017 in a few lines: bins ((m - 1)/15, m/15]."""
    names = list(rows[0]["probabilities"])
    if isinstance(rows[0]["label"], list):
        sure = [(max(p, 1 - p), (p >= 0.5) == y) for p, y in decisions(rows, names)]
    else:
        sure = [(row["probability"], row["label"] == row["prediction"]) for row in rows]
    bins = [[(c, r) for c, r in sure if m / 15 < c <= (m + 1) / 15] for m in range(15)]
    return sum(abs(sum(r - c for c, r in part)) for part in bins) / len(sure)


def extreme_rows(rows: list[dict[str, Any]], kind: str) -> list[float]:
    if not isinstance(rows[0]["label"], str | list):
        return sorted((row["prediction"] - row["label"] for row in rows), key=abs, reverse=True)[:20]
    if isinstance(rows[0]["label"], str):
        kept = [row["probability"] for row in rows if kind == "uncertain" or row["label"] != row["prediction"]]
        return sorted(kept, reverse=kind == "errors")[:20]
    found = []
    for row in rows:
        every = row["probabilities"].items()
        kept = [
            p for name, p in every if kind == "uncertain" or (name in row["label"]) != (name in row["prediction"])
        ]
        if kept:
            found.append((min if kind == "uncertain" else max)(kept, key=lambda p: abs(p - 0.5)))
    return sorted(found, key=lambda p: abs(p - 0.5), reverse=kind == "errors")[:20]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_every_number_is_that_of_the_files(place: Path, kind: str) -> None:
    folder = place / kind
    page = Page(folder / "report.html")
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    predictions = folder / "predictions.jsonl"
    rows = records(predictions) if predictions.exists() else []
    asked = set()
    for (file, *path), value, shown in page.numbers:
        if file == "results":
            expected: Any = results
            for key in path:
                expected = expected[key]
        elif file == "log":
            expected = in_log(folder, tuple(path))
        else:
            assert file == "predictions"
            expected = pytest.approx(of_predictions(rows, tuple(path[1:])), rel=1e-12)
        assert value == expected, path
        assert shown.replace(",", "") in (
            rounded(value).replace(",", ""),
            f"{value:g}",
            *(f"{value:.{n}f}" for n in range(3)),
        )
        asked.add((file, path[0] if file == "results" else path[-1]))
    assert len(page.numbers) > {"none": 15, "folds": 60, "scores": 60}.get(kind, 100)
    whole = {("results", "results"), ("results", "config")}
    assert kind in ("none", "folds") or whole | {("log", "min"), ("predictions", 0)} <= asked


@pytest.mark.parametrize("kind", KINDS)
def test_page_needs_no_script_no_file_and_has_no_id_twice(place: Path, kind: str) -> None:
    page = Page(place / kind / "report.html")
    assert len(page.ids) == len(set(page.ids))
    assert not {"script", "img", "link", "iframe", "b", "metadata"} & set(page.tags)
    assert set(re.findall(r"https?://[^\s<\"']*", re.sub(r"<[^>]*>", "", page.source))) <= {
        "http://example.com/a.png"  # the text of a user
    }
    assert not re.findall(r"<[^>]*\b(?:src|href)=[\"']?([^\"'#])", page.source)
    assert set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", page.source)) <= set(page.ids)
    assert not set(page.words) & set("\x1b\x07\u202e\u2066")


def test_the_first_sentence_has_the_result_its_interval_the_baseline_and_the_best_epoch(place: Path) -> None:
    words = Page(place / "two/report.html").words
    lead = next(line for line in words.splitlines() if line.startswith("On 48 validation examples"))
    number = r"\d\.\d{4}"
    assert re.fullmatch(
        rf"On 48 validation examples accuracy is {number} \(95% interval {number} to {number}\); the best constant "
        rf"prediction gets {number}\. The best evaluation of validation is that of epoch \d\.00 \(step \d+\), "
        rf"accuracy {number}; (these weights|the weights of the last step) are saved\.",
        lead,
    )


def test_curves_come_before_the_facts_of_the_run(place: Path) -> None:
    source = Page(place / "two/report.html").source
    assert source.index("<h2>Training</h2>") < source.index("<h2>The run</h2>")


def test_metrics_of_a_regression_have_no_empty_column(place: Path) -> None:
    heads = re.search(r"Metrics of .*?</thead>", Page(place / "scores/report.html").source, re.DOTALL)
    assert heads is not None and "value" in heads[0] and "95% interval" not in heads[0]


def test_the_same_run_gives_the_same_bytes_whatever_style_the_user_has(place: Path) -> None:
    import matplotlib

    before = (place / "labels/report.html").read_bytes()
    with matplotlib.rc_context({"text.usetex": True, "lines.marker": "x", "font.size": 30}):
        write_report(place / "labels")
        assert matplotlib.rcParams["font.size"] == 30
    assert (place / "labels/report.html").read_bytes() == before


@pytest.mark.parametrize("kind", ["two", "labels"])
def test_the_page_does_not_depend_on_how_many_rows_are_read_at_once(
    place: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (place / kind / "report.html").read_bytes()
    monkeypatch.setattr("minitrain.run.html.scored.CHUNK", 7)
    assert write_report(place / kind).read_bytes() == before


def test_a_long_log_is_thinned_and_its_peak_stays(place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(place / "none", run)
    step = {"event": "step", "grad_norm": 1.0, "learning_rate": 1e-5}
    lines = [step | {"step": i, "epoch": i / 9999, "loss": 40.0 if i == 4321 else i % 7} for i in range(10_000)]
    write(run / "log.jsonl", [*lines, step | {"step": 10_000, "epoch": 1.0, "loss": None}])
    after = Page(write_report(run))
    assert len(after.source) < len(Page(place / "none/report.html").source) + 60_000
    xs, ys = thinned([line["epoch"] for line in lines], [line["loss"] for line in lines])
    assert len(xs) <= 402 and max(ys) == 40.0 and (xs[0], xs[-1]) == (0.0, 1.0)
    assert (("log", "lines"), 10_001, "10,001") in after.numbers


def test_a_run_of_an_earlier_version_has_a_report_without_what_it_lacks(place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(place / "two", run)
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    for key in ("data", "intervals", "calibration", "weights", "parameters"):
        del results[key]
    del results["config"]["report"]
    (run / "results.json").write_text(json.dumps(results), encoding="utf-8")
    (run / "log.jsonl").unlink()
    page = Page(write_report(run))
    shown = {path[:2] for path, _, _ in page.numbers}
    assert ("interval", "validation") in shown and ("results", "data") not in shown
    assert "There is no log.jsonl." in page.words


def test_predictions_of_another_run_and_damaged_ones_are_refused(place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(place / "scores", run)
    lines = (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    for said, content in {
        "holds 47 rows of validation, results.json says 48": lines[1:],
        "line 3: is not valid JSON": [*lines[:2], lines[2][:9] + "\n", *lines[3:]],
        "lines 1 to 48: are not all as train.py writes them": [*lines[:-1], '{"row": 48}\n'],
    }.items():
        (run / "predictions.jsonl").write_text("".join(content), encoding="utf-8")
        with pytest.raises(MinitrainError, match=said):
            write_report(run)
    with pytest.raises(MinitrainError, match="holds no finished run"):
        write_report(place)


def settings(place: Path, out: Path, **flags: Any) -> TrainConfig:
    files = {"model": str(place / "tiny"), "train_file": str(place / "many.jsonl"), "output_dir": str(out)}
    return TrainConfig(**files | {"max_steps": 1, "eval_strategy": "no"} | flags)


def test_a_report_that_fails_loses_no_run_and_can_be_tried_again(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from matplotlib.figure import Figure

    run = tmp_path / "run"
    run.mkdir()
    (run / "report.html").write_text("of an earlier run")
    with monkeypatch.context() as broken:
        broken.setattr(Figure, "savefig", lambda *_, **__: 1 / 0)
        train(settings(place, run, report=True))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("WARNING  no report (ZeroDivisionError: ") and f"scripts/report.py {run} tries" in last
    assert (run / "results.json").exists() and not (run / "report.html").exists()
    assert write_report(run) == run / "report.html"
    train(settings(place, run, report=False, overwrite_output_dir=True))
    assert not (run / "report.html").exists()


def test_without_matplotlib_a_report_is_refused_before_the_training(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_module, "find_spec", lambda name: None)
    with pytest.raises(MinitrainError, match=r"--report: .*pip install --editable '\.\[report\]'"):
        train(settings(place, tmp_path / "run", report=True))
    assert not (tmp_path / "run").exists()
    train(settings(place, tmp_path / "run"))
    assert (tmp_path / "run/results.json").exists() and not (tmp_path / "run/report.html").exists()
    with pytest.raises(MinitrainError, match="pip install matplotlib"):
        write_report(tmp_path / "run")


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_of_the_page_gives_the_same_settings(place: Path, kind: str) -> None:
    config = json.loads((place / kind / "results.json").read_text(encoding="utf-8"))["config"]
    _, script, *words = shlex.split(train_command(config))
    again = parse(TrainConfig, "", words)
    assert script == "scripts/train.py" and json.loads(json.dumps(vars(again))) == config


# --- In a browser ---

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OVERFLOWING = """() => [...document.querySelectorAll('body *')].filter(
    e => !e.closest('.scroll *') && !e.closest('svg *') && e.getBoundingClientRect().right > innerWidth + 0.5
).map(e => e.outerHTML.slice(0, 80))"""
COVERED = """() => [...document.querySelectorAll('svg')].flatMap(svg => {
    const all = [...svg.querySelectorAll('text')].map(e => [e.textContent, e.getBoundingClientRect()]);
    const outer = svg.getBoundingClientRect(), found = [];
    all.forEach(([text, box], i) => {
        if (box.left < outer.left - 1 || box.right > outer.right + 1) found.push(text + ' is cut');
        all.slice(0, i).forEach(([other, its]) => {
            const across = Math.min(box.right, its.right) - Math.max(box.left, its.left);
            const down = Math.min(box.bottom, its.bottom) - Math.max(box.top, its.top);
            if (across > 0.5 && down > 1) found.push(text + ' covers ' + other);
        });
    });
    return found;
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright and Chromium to open pages")
    with sync_api.sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"needs Chromium to open pages: {str(error).splitlines()[0]}")
        yield started
        started.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_browser_shows_the_whole_page_at_every_width(place: Path, browser: Any, kind: str) -> None:
    page, said, asked = browser.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    address = (place / kind / "report.html").as_uri()
    page.goto(address)
    for width in (375, 768, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(OVERFLOWING) == [] and page.evaluate(COVERED) == []
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 700, "height": 1000})  # A4 less its margins
    assert page.evaluate("document.documentElement.scrollWidth") == 700
    page.emulate_media(media="screen")
    papers = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        papers.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        lines = page.evaluate(
            "[...document.querySelectorAll('svg path')].map(getComputedStyle).map(its => its.stroke + its.fill)"
        )
        assert len(set(lines)) > 2 and not any("10, 0, " in line for line in lines)  # no placeholder is left
    assert papers == ["rgb(255, 255, 255)", "rgb(22, 24, 28)"]
    assert said == [] and asked == [address]
    page.close()
