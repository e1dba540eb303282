"""--push_to_hub and scripts/push.py, against a Hub on 127.0.0.1."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hub_online import TOKEN
from hub_online import online as online
from hub_server import Fault, Hub
from in_process import Done
from in_process import script as script

from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.model.weights import load_classifier
from minitrain.run.main import train
from minitrain.run.push import files_to_upload, local_name

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
MODEL = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def config(place: Path, out: Path, **flags: Any) -> TrainConfig:
    files: dict[str, Any] = {"model": str(place / "tiny"), "train_file": str(place / "train.csv")}
    return TrainConfig(**files, eval_fraction=0.25, max_steps=2, output_dir=str(out), **flags)


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    train(config(place, place / "run"))
    return place / "run"


def test_a_run_uploads_model_card_and_results_but_no_texts(
    online: Callable[..., Hub], place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = online()
    out = tmp_path / "out"
    train(config(place, out, push_to_hub="me/reviews", hub_private=True, save_strategy="epoch", calibrate=True))
    said = capsys.readouterr().out
    repository = hub.repositories["model", "me/reviews"]
    assert repository.private and len(hub.commits) == 1
    assert set(repository.files) >= {*MODEL, "README.md", "results.json", "calibration.json"}
    assert not set(repository.files) & {"predictions.jsonl", "log.jsonl", "checkpoints"}
    for name, content in repository.files.items():
        if name not in ("README.md", "results.json"):
            assert content == (out / name).read_bytes(), name
    assert f"upload   {', '.join(sorted(repository.files))} to me/reviews\nuploaded {hub.url}/me/reviews/" in said
    card, results = repository.files["README.md"].decode(), json.loads(repository.files["results.json"])
    assert 'pipeline("text-classification", "me/reviews")' in card
    assert results["config"]["train_file"] == results["dataset"] == "train.csv"
    everything = b"".join(content for name, content in repository.files.items() if name != "model.safetensors")
    assert str(place).encode() not in everything and str(tmp_path).encode() not in everything
    assert TOKEN.encode() not in everything
    texts = [json.loads(line)["text"] for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert not [text for text in texts if len(text.split()) > 3 and text.encode() in everything]
    for name, content in repository.files.items():
        (tmp_path / "down").mkdir(exist_ok=True)
        (tmp_path / "down" / name).write_bytes(content)
    load_classifier(tmp_path / "down")


def test_an_upload_that_fails_keeps_the_run_and_names_the_command_that_tries_again(
    online: Callable[..., Hub], place: Path, tmp_path: Path, script: Callable[..., Done]
) -> None:
    hub = online(faults=(Fault("/commit/", 4, 503),))
    out = tmp_path / "out"
    with pytest.raises(MinitrainError) as raised:
        train(config(place, out, push_to_hub="reviews"))
    assert str(raised.value) == (
        f"me/reviews: nothing was uploaded: the Hub answers HTTP 503\nThe run is saved in {out}. To upload it: "
        f"python scripts/push.py {out} reviews"
    )
    assert {"results.json", "log.jsonl", "model.safetensors"} <= {path.name for path in out.iterdir()}
    words = str(raised.value).rsplit("python ", 1)[1].split()
    done = script(*words)
    assert done.returncode == 0, done.stderr
    assert hub.repositories["model", "me/reviews"].files.keys() == files_to_upload(out, "me/reviews").keys()
    assert len(hub.uploaded) == 1  # the weights had arrived


def test_what_would_fail_at_the_end_fails_before_the_training(
    online: Callable[..., Hub], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = online()
    for name, why in (
        ("me/reviews", "may only read"),
        ("a--b", "no name"),
        ("x/reviews", "expected one of me, team"),
    ):
        hub.role = "read" if name == "me/reviews" else "write"
        with pytest.raises(MinitrainError, match=f"^--push_to_hub '?{name}.*{why}"):
            train(config(place, tmp_path / "out", push_to_hub=name))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        MinitrainError, match="HF_HUB_OFFLINE.*upload the saved run later: python scripts/push.py RUN"
    ):
        train(config(place, tmp_path / "out", push_to_hub="me/reviews"))
    assert not (tmp_path / "out").exists()


def test_flags_that_do_not_go_together_are_refused() -> None:
    for flags, said in (
        ({"hub_private": True}, "--hub_private is about --push_to_hub OWNER/NAME"),
        (
            {"push_to_hub": True},
            "--push_to_hub is true; it takes a repository of the Hub: --push_to_hub OWNER/NAME",
        ),
        ({"push_to_hub": "me/x", "folds": 3}, "--keep_folds instead.*python scripts/push.py RUN/fold-1 me/x"),
        ({"push_to_hub": "me/x", "seeds": (7, 8), "folds": 3}, "RUN/seed-7-fold-1 me/x"),
    ):
        with pytest.raises(MinitrainError, match=said):
            TrainConfig(**flags)  # type: ignore[arg-type]
    assert TrainConfig(push_to_hub=False).push_to_hub is None  # type: ignore[arg-type]


def test_trainers_flags_are_answered(script: Callable[..., Done]) -> None:
    for words, said in (
        (("--push_to_hub",), "--push_to_hub is true; it takes a repository of the Hub"),
        (("--hub_model_id", "me/x"), "here it is called --push_to_hub"),
        (("--hub_private_repo",), "here it is called --hub_private"),
        (("--hub_strategy", "end"), "--push_to_hub OWNER/NAME uploads once, at the end of the run"),
        (("--hub_token", "x"), "set HF_TOKEN in the environment, or run hf auth login"),
    ):
        done = script("scripts/train.py", *words)
        assert done.returncode == 2 and said in done.stderr


def test_a_finished_run_names_the_command_that_uploads_it(
    place: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(replace(config(place, run), resume="newest", push_to_hub="me/x", hub_private=True, card_examples=2))
    assert f"to upload it: python scripts/push.py {run} me/x --private\n" in capsys.readouterr().out


def test_push_refuses_what_is_no_saved_model(
    online: Callable[..., Hub], place: Path, run: Path, tmp_path: Path, script: Callable[..., Done]
) -> None:
    hub = online()

    def refused(folder: Path) -> str:
        done = script("scripts/push.py", folder, "me/x")
        assert done.returncode == 1 and hub.repositories == {}
        return done.stderr

    assert "no such folder; give one that train.py saved" in refused(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    assert f"push.py: {tmp_path / 'empty'}: " in refused(tmp_path / "empty")
    several = tmp_path / "several"
    several.mkdir()
    (several / "runs.json").write_text('{"runs": ["seed-1"]}')
    assert "holds several runs, of --folds or --seeds; pass --keep_folds to keep" in refused(several)
    shutil.copytree(run, several / "seed-1")
    assert f"upload one of them: python scripts/push.py {several}/seed-1 me/x" in refused(several)
    done = script("scripts/push.py", several / "seed-1", "me/x", "--private")
    assert done.returncode == 0 and hub.repositories["model", "me/x"].private


def test_paths_of_this_machine_lose_their_folders_and_names_of_the_hub_stay(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    assert local_name([str(tmp_path / "a.csv"), "/gone/b.csv"]) == ["a.csv", "b.csv"]
    assert [local_name(value) for value in ("org/name", None, True, 3, "epoch")] == [
        "org/name",
        None,
        True,
        3,
        "epoch",
    ]
