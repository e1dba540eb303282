"""Trackers hold what log.jsonl holds, after a kill too; and none of them ends a run, or waits for an answer."""

import json
import os
import pty
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_main import named_reviews, read_log, write_csv
from tracker_stores import History, read_mlflow, read_tensorboard, read_trackio, read_wandb, wandb_records

from minitrain.config.report_to import PACKAGES, trackers_of
from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.run.main import train

ALL = tuple(PACKAGES)
ONCE: dict[str, Any] = {"max_steps": 1, "eval_strategy": "no", "eval_steps": None}
KILLED = """
import json, os, signal, sys
from minitrain.config.train_config import TrainConfig
from minitrain.run.main import train

class Killer:
    def on_step(self, log):
        if log.step == 9:
            os.kill(os.getpid(), signal.SIGKILL)

train(TrainConfig(**json.loads(sys.argv[1])), observers=[Killer()])
"""


@pytest.fixture(scope="module", autouse=True)
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for everything that trackers write; nothing is sent anywhere."""
    folder = tmp_path_factory.mktemp("stores")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TRACKIO_DIR", str(folder / "trackio"))
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("MLFLOW_TRACKING_URI", f"file://{folder}/mlruns")
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        import trackio.sqlite_storage
        import trackio.utils

        patch.setattr(trackio.utils, "TRACKIO_DIR", folder / "trackio")
        patch.setattr(trackio.sqlite_storage, "TRACKIO_DIR", folder / "trackio")
        yield folder


def flags(place: Path, out: Path, **more: Any) -> dict[str, Any]:
    fixed: dict[str, Any] = {
        "model": str(place / "tiny"),
        "train_file": str(place / "train.csv"),
        "eval_file": str(place / "eval.csv"),
        "test_file": str(place / "test.csv"),
        "output_dir": str(out),
        "per_device_train_batch_size": 8,
        "max_steps": 12,
        "eval_strategy": "steps",
        "eval_steps": 4,
        "logging_steps": 2,
        "device": "cpu",
    }
    return fixed | more


@pytest.fixture(scope="module", autouse=True)
def files(place: Path) -> None:
    write_csv(place / "eval.csv", *named_reviews(16, seed=1))
    write_csv(place / "test.csv", *named_reviews(16, seed=2))


def expected(out: Path, tracker: str) -> History:
    """By name, what the log of the run holds, and at its end the test split's results."""
    history: History = defaultdict(list)
    for record in read_log(out):
        step, evaluation = record.pop("step"), record.pop("event") == "evaluation"
        record.pop("split", None)
        for name, value in record.items():
            plain = f"eval_{name}" if evaluation and name != "epoch" else name
            tag = f"eval/{name}" if evaluation and name != "epoch" else f"train/{name}"
            history[plain if tracker == "mlflow" else tag].append((step, value))
    for name, value in json.loads((out / "results.json").read_text())["results"]["test"].items():
        if name != "examples":
            history[f"test{'_' if tracker == 'mlflow' else '/'}{name}"].append((12, value))
    return history


def read_back(tracker: str, out: Path, stores: Path) -> History:
    if tracker == "tensorboard":
        return read_tensorboard(out)
    known = json.loads((out / "trackers.json").read_text())[tracker]["id"]
    if tracker == "trackio":
        return read_trackio("huggingface", out.name)
    if tracker == "mlflow":
        return read_mlflow(known)
    return read_wandb(*sorted(stores.glob(f"wandb/offline-run-*-{known}")))


def float32(history: History) -> History:
    """TensorBoard keeps so many bits."""
    return {tag: [(step, float(np.float32(value))) for step, value in points] for tag, points in history.items()}


@pytest.fixture(scope="module")
def tracked(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of the same run with all trackers, and with none."""
    folder = tmp_path_factory.mktemp("tracked")
    train(TrainConfig(**flags(place, folder / "all", report_to=ALL)))
    train(TrainConfig(**flags(place, folder / "none", report_to=("none",))))
    return folder / "all", folder / "none"


@pytest.fixture(scope="module")
def resumed(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was killed in step 9 and resumed from step 5."""
    out = tmp_path_factory.mktemp("resumed") / "killed"
    asked = flags(place, out, report_to=ALL, save_strategy="steps", save_steps=5)
    # A child of a process that used wandb shares its service, which holds on to the run of a killed one.
    own = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    command = [sys.executable, "-c", KILLED, json.dumps(asked)]
    done = subprocess.run(command, env=own, capture_output=True, timeout=120)
    assert done.returncode == -9 and [record["step"] for record in read_log(out / "log.jsonl.part")][-1] == 8, (
        done.stderr
    )
    train(TrainConfig(**asked, resume="newest"))
    return out


@pytest.mark.parametrize("tracker", ALL)
def test_every_scalar_read_back_equals_the_log(tracker: str, tracked: tuple[Path, Path], stores: Path) -> None:
    found, logged = read_back(tracker, tracked[0], stores), expected(tracked[0], tracker)
    assert found == (float32(logged) if tracker == "tensorboard" else logged)
    assert len(found) >= 11 and all(found.values())


def test_a_tracked_run_has_the_bits_of_one_that_is_not(tracked: tuple[Path, Path]) -> None:
    with_all, with_none = tracked
    for name in ("model.safetensors", "predictions.jsonl"):
        assert (with_all / name).read_bytes() == (with_none / name).read_bytes()
    assert not (with_none / "trackers.json").exists()


@pytest.mark.parametrize("tracker", ALL)
def test_settings_are_where_the_tracker_has_a_place_for_them(
    tracker: str, tracked: tuple[Path, Path], stores: Path
) -> None:
    out = tracked[0]
    known = json.loads((out / "trackers.json").read_text())[tracker]["id"]
    if tracker == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(out)).Reload()
        text = events.Tensors("args/text_summary")[0].tensor_proto.string_val[0]
        found = json.loads(text)["learning_rate"]
    elif tracker == "trackio":
        import trackio

        (run,) = [one for one in trackio.Api().runs("huggingface") if one.id == known]
        found = run.config["learning_rate"] if run.config else None
    elif tracker == "mlflow":
        from mlflow import MlflowClient

        run = MlflowClient().get_run(known)
        assert run.info.status == "FINISHED" and run.info.run_name == "all"
        found = float(run.data.params["learning_rate"])
    else:
        (folder,) = stores.glob(f"wandb/offline-run-*-{known}")
        updates = [one.run.config.update for one in wandb_records(folder) if one.HasField("run")]
        updates += [one.config.update for one in wandb_records(folder) if one.HasField("config")]
        pairs = {one.key or one.nested_key[0]: one.value_json for update in updates for one in update}
        found = json.loads(pairs["learning_rate"])
    assert found == TrainConfig().learning_rate


@pytest.mark.parametrize("tracker", ALL)
def test_after_a_kill_and_resume_the_history_equals_the_log(tracker: str, resumed: Path, stores: Path) -> None:
    found, logged = read_back(tracker, resumed, stores), expected(resumed, tracker)
    if tracker == "mlflow":  # it has what came after the checkpoint already, with other times
        assert steps_of(found) == steps_of(logged) and found["learning_rate"] == logged["learning_rate"]
        return
    assert found == (float32(logged) if tracker == "tensorboard" else logged)
    assert [step for step, _ in logged["train/loss"]] == [1, 2, 4, 6, 8, 10, 12]


def steps_of(history: History) -> dict[str, list[int]]:
    return {tag: [step for step, _ in points] for tag, points in history.items()}


def test_a_run_that_ended_in_an_error_is_continued_and_nothing_is_sent_twice(
    place: Path, tmp_path: Path, stores: Path
) -> None:
    out = tmp_path / "failed"
    asked = flags(place, out, report_to=ALL, save_strategy="steps", save_steps=3)
    with pytest.raises(MinitrainError, match="Breaker"):
        train(TrainConfig(**asked), observers=[Breaker(error=RuntimeError("x"), step=5)])
    ids = [{tracker: known["id"] for tracker, known in json.loads((out / "trackers.json").read_text()).items()}]
    time.sleep(1.1)  # wandb names the folders of a run by the second
    train(TrainConfig(**asked, resume="newest"))
    ids.append({tracker: known["id"] for tracker, known in json.loads((out / "trackers.json").read_text()).items()})
    changed = {tracker for tracker in ALL if ids[0][tracker] != ids[1][tracker]}
    assert changed == {"trackio"}  # it cannot forget a part
    for tracker in ALL:
        found, logged = read_back(tracker, out, stores), expected(out, tracker)
        if tracker in ("wandb", "mlflow"):
            assert steps_of(found) == steps_of(logged), tracker
        else:
            assert found == (float32(logged) if tracker == "tensorboard" else logged), tracker


def test_a_tracker_that_joins_at_a_resumption_gets_the_whole_log(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = flags(place, tmp_path / "late", save_strategy="steps", save_steps=2)
    train(TrainConfig(**asked | {"max_steps": 2, "report_to": ("tensorboard",)}))
    train(TrainConfig(**asked | {"max_steps": 6}, resume="newest", resume_changed=True))
    train(TrainConfig(**asked, resume="newest", resume_changed=True, report_to=("tensorboard",)))
    assert read_tensorboard(tmp_path / "late") == float32(expected(tmp_path / "late", "tensorboard"))
    assert f"trackers tensorboard: {tmp_path / 'late'}\n" in capsys.readouterr().out


def test_a_replaced_run_leaves_no_curves_and_files_of_others_stay(place: Path, tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.1.of.another").write_bytes(b"")
    asked = flags(place, tmp_path, **ONCE | {"max_steps": 2}, report_to=("tensorboard",))
    for _ in range(2):
        train(TrainConfig(**asked, overwrite_output_dir=True))
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2
    assert [step for step, _ in read_tensorboard(tmp_path)["train/loss"]] == [1, 2]
    assert [step for step, _ in read_tensorboard(tmp_path)["test/accuracy"]] == [2]


def test_what_is_not_finite_is_left_out_and_any_name_is_taken(place: Path, tmp_path: Path) -> None:
    asked = flags(place, tmp_path, max_steps=4, report_to=("tensorboard", "mlflow"))
    train(TrainConfig(**asked), compute_metrics=lambda found: {"odd": float("nan"), "F1|<b>\n@1": 0.25})
    found = read_tensorboard(tmp_path)
    assert found["eval/F1|<b>\n@1"] == [(4, 0.25)] and "eval/odd" not in found
    history = read_mlflow(json.loads((tmp_path / "trackers.json").read_text())["mlflow"]["id"])
    assert history["eval_F1__b___1"] == [(4, 0.25)] and "eval_odd" not in history


def test_a_run_of_the_users_own_is_used_and_left_open(place: Path, tmp_path: Path) -> None:
    import mlflow
    import wandb

    with mlflow.start_run() as active, wandb.init(project="own", settings=wandb.Settings(silent=True)) as own:
        train(TrainConfig(**flags(place, tmp_path, report_to=("wandb", "mlflow")) | ONCE))
        known = json.loads((tmp_path / "trackers.json").read_text())
        assert (known["wandb"]["id"], known["mlflow"]["id"]) == (own.id, active.info.run_id)
        assert mlflow.active_run() is not None and wandb.run is own
    assert wandb.run is None and "train/loss" in read_wandb(Path(own.dir).parent)


class Breaker:
    """Ruins MLflow's store, or the run, in the middle."""

    def __init__(self, stores: Path | None = None, error: BaseException | None = None, step: int = 3) -> None:
        self.stores, self.error, self.step = stores, error, step

    def on_step(self, log: Any) -> None:
        if log.step == self.step and self.stores is not None:
            (self.stores / "mlruns").rename(self.stores / "gone")
            (self.stores / "mlruns").write_text("no folder")
        if log.step == self.step and self.error is not None:
            raise self.error


def test_failing_trackers_end_no_run_and_change_none_of_its_bits(
    place: Path,
    tmp_path: Path,
    tracked: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    (tmp_path / "wandb").write_text("no folder")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    asked = flags(place, tmp_path / "run", report_to=("wandb", "mlflow", "tensorboard"))
    train(TrainConfig(**asked), observers=[Breaker(stores=tmp_path)])
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("WARNING")]
    assert len([line for line in said if "--report_to mlflow: dropped, the run goes on without it (" in line]) == 1
    assert (tmp_path / "run/model.safetensors").read_bytes() == (tracked[1] / "model.safetensors").read_bytes()
    assert read_tensorboard(tmp_path / "run") == float32(expected(tmp_path / "run", "tensorboard"))
    assert "mlflow" not in json.loads((tmp_path / "run/trackers.json").read_text())


def test_a_server_that_is_down_costs_a_warning(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    train(TrainConfig(**flags(place, tmp_path, **ONCE, report_to=("mlflow",))))
    assert (
        "WARNING  --report_to mlflow: dropped, the run goes on without it (API request" in capsys.readouterr().out
    )
    assert (tmp_path / "results.json").exists()


@pytest.mark.parametrize("error, status", [(RuntimeError("x"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_a_run_that_ends_early_is_marked_so(place: Path, tmp_path: Path, error: BaseException, status: str) -> None:
    from mlflow import MlflowClient

    with pytest.raises((MinitrainError, KeyboardInterrupt)):
        train(
            TrainConfig(**flags(place, tmp_path, report_to=("mlflow",), run_name="early", project="ends")),
            observers=[Breaker(error=error)],
        )
    run = MlflowClient().get_run(json.loads((tmp_path / "trackers.json").read_text())["mlflow"]["id"])
    assert (run.info.status, run.info.run_name) == (status, "early")
    assert run.data.metrics["loss"] == read_log(tmp_path / "log.jsonl.part")[-1]["loss"]


def test_the_project_of_a_run_is_not_that_of_the_next(place: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    experiments = []
    for name, more in (("first", {"project": "one"}), ("again", {"project": "one"}), ("next", {})):
        train(TrainConfig(**flags(place, tmp_path / name, **ONCE, report_to=("mlflow",), **more)))
        run = MlflowClient().get_run(json.loads((tmp_path / name / "trackers.json").read_text())["mlflow"]["id"])
        experiments.append(MlflowClient().get_experiment(run.info.experiment_id).name)
    assert experiments == ["one", "one", "Default"]


def test_wandb_without_a_login_asks_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    wandb.teardown()  # it keeps the settings of its first run
    keyboard, terminal = pty.openpty()
    os.write(keyboard, b"3\n")  # do not visualize my results
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("HOME", str(tmp_path))
    with (
        open(terminal, "r+b", buffering=0) as both,
        open(os.dup(terminal)) as stdin,
        open(os.dup(terminal), "w") as err,
    ):
        assert both.isatty() and stdin.isatty() and err.isatty()
        monkeypatch.setattr(sys, "stdin", stdin)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", err)
            train(TrainConfig(**flags(place, tmp_path / "run", **ONCE, report_to=("wandb",))))
    os.close(keyboard)
    wandb.teardown()
    assert "WARNING  --report_to wandb: dropped" in (said := capsys.readouterr().out)
    assert "No API key configured" in said


def test_folds_are_runs_of_one_group(place: Path, tmp_path: Path) -> None:
    import trackio

    out = tmp_path / "crossed"
    asked = flags(place, out, max_steps=2, eval_strategy="epoch", eval_steps=None, eval_file=None, folds=2)
    train(TrainConfig(**asked, report_to=("tensorboard", "trackio"), project="folds"))
    runs = {one.name: one.config["_Group"] for one in trackio.Api().runs("folds") if one.config}
    assert runs == {"crossed-fold-1": "crossed", "crossed-fold-2": "crossed"}
    for fold in ("fold-1", "fold-2"):
        assert read_tensorboard(out / fold)["train/loss"][-1][0] == 2
        assert {path.suffix for path in (out / fold).iterdir()} == {".json", ".jsonl", ".minitrain"}


@pytest.mark.parametrize(
    "asked, said",
    [
        (
            ("tensorbord",),
            "'tensorbord' is no tracker; expected one or more of tensorboard, trackio, wandb, mlflow",
        ),
        (("all", "wandb"), "all stands alone"),
        (("wandb", "wandb"), "names a tracker twice"),
    ],
)
def test_names_that_are_no_trackers_are_refused(asked: tuple[str, ...], said: str) -> None:
    with pytest.raises(MinitrainError, match=said):
        TrainConfig(report_to=asked)


def test_a_tracker_that_is_not_installed_is_refused_before_the_training(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trackers_of(("all",)) == list(ALL) and trackers_of(("none",)) == trackers_of(None) == []
    for name in ALL:
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "wandb").mkdir()  # what wandb writes beside a script looks like a package
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    assert trackers_of(("all",)) == []
    with pytest.raises(
        MinitrainError, match="--report_to wandb: the package wandb is not installed; run pip install"
    ):
        train(TrainConfig(**flags(place, tmp_path / "run", report_to=("wandb",))))
    assert not (tmp_path / "run").exists()
