"""The commands of docs/report.md do what the page says, section by section, on small files of the names in it."""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hub_online import online as online
from hub_server import Hub
from in_process import Done
from in_process import script as script
from test_loop import write_tiny_model
from test_main import named_reviews, write_csv

from minitrain.config.compare_config import CompareConfig
from minitrain.config.inference_config import EvaluateConfig
from minitrain.config.train_config import TrainConfig
from minitrain.run.compare.comparison import compare_runs
from minitrain.run.evaluate import evaluate_run
from minitrain.run.flags import parse
from minitrain.run.main import train

PAGE = (Path(__file__).parents[1] / "docs/report.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def commands(section: str) -> list[list[str]]:
    """The words of the lines in its bash blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", SECTIONS[section], re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines]


def test_the_report_of_a_saved_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Callable[..., Done]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_model(tmp_path / "tiny")
    write_csv(tmp_path / "train.csv", *named_reviews(20))
    train(TrainConfig(model="tiny", train_file="train.csv", eval_fraction=0.4, output_dir="runs/demo", max_steps=1))
    [[_, name, *words]] = commands("The report")
    done = script(name, *words)
    assert (done.returncode, done.stdout) == (0, "report: runs/demo/report.html\n"), done.stderr
    assert (tmp_path / "runs/demo/report.html").stat().st_size > 20_000
    said = "report.py: runs/none: no such folder; give the --output_dir of a run\n"
    assert script(name, "runs/none").stderr == said


@pytest.mark.filterwarnings("ignore:.* is 0/0")  # a few steps of a random model
def test_the_commands_that_compare_runs_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_model(tmp_path / "tiny")
    found = []
    for _, name, *flags in commands("Compare runs"):
        if name == "scripts/train.py":
            flags[flags.index("--model") + 1] = str(tmp_path / "tiny")
            # the demo's rows, and few of them
            short = ["--device", "cpu", "--max_steps", "2", "--max_train_samples", "20", "--max_eval_samples", "30"]
            train(parse(TrainConfig, "", [*flags, *short]))
        elif name == "scripts/evaluate.py":
            evaluate_run(parse(EvaluateConfig, "", [*flags, "--max_eval_samples", "30"], positional=("run",)))
        else:
            config = parse(CompareConfig, "", [*flags, "--resamples", "100"], positional=("runs",))
            found.append(compare_runs(config)["comparisons"][0])
    assert (tmp_path / "comparison.json").is_file()
    rows, seeds, files = found
    assert [split["rows"] for split in rows["splits"]] == [30, 30]
    assert {split["runs"]["loss"]["pairs"] for split in seeds["splits"]} == {3}
    assert list(files["splits"][0]["metrics"]) == ["accuracy", "macro_f1", "roc_auc"]


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_a_run_is_uploaded_as_the_page_says(
    online: Callable[..., Hub],
    place: Path,
    tmp_path: Path,
    script: Callable[..., Done],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = online()
    text = SECTIONS["The model card and the Hub"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.csv").write_bytes((place / "train.csv").read_bytes())
    (_, *trained), (_, *pushed) = commands("The model card and the Hub")
    done = script(*trained, "--model", place / "tiny", "--max_steps", "2", "--card_examples", "3")
    assert done.returncode == 0, done.stderr
    first = dict(hub.repositories["model", "me/reviews"].files)
    assert all(f"`{name}`" in text for name in first if name in ("README.md", "results.json"))
    assert not {"predictions.jsonl", "log.jsonl"} & first.keys()
    assert json.loads(first["results.json"])["config"]["train_file"] == "reviews.csv"
    assert b"## Examples" in first["README.md"]
    done = script(*pushed)
    assert done.returncode == 0, done.stderr
    assert hub.repositories["model", "me/reviews"].files == first and len(hub.commits) == 1


def test_the_commands_of_trackers_show_runs_by_their_folders(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trackio.sqlite_storage
    import trackio.utils
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trackio.utils, "TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr(trackio.sqlite_storage, "TRACKIO_DIR", tmp_path / "trackio")
    lines = commands("Trackers")
    flags = [words[words.index("scripts/train.py") + 1 :] for words in lines if "scripts/train.py" in words]
    asked = [parse(TrainConfig, "", words) for words in flags]
    assert [config.report_to for config in asked] == [("tensorboard", "trackio"), ("wandb",), ("mlflow",)]
    small = {"model": str(place / "tiny"), "max_train_samples": 8, "max_eval_samples": 4, "max_steps": 1}
    train(replace(asked[0], **small, device="cpu"))
    assert ["tensorboard", "--logdir", "runs"] in lines
    assert set(EventMultiplexer().AddRunsFromDirectory("runs").Reload().Runs()) == {"demo"}
    assert ["trackio", "show", "--project", "huggingface"] in lines
    assert [run.name for run in trackio.Api().runs("huggingface")] == ["demo"]
