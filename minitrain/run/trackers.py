"""TensorBoard, trackio, Weights & Biases and MLflow, each as one class with `log` and `finish`.

The names are Trainer's (transformers 5.23, integrations/integration_utils.py), and so are the defaults; the
trackers read their own environment variables. Nothing is imported before a run reports to it. Not here: what is
sent when, and what happens if a tracker fails (`run/tracking.py`).
"""

import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

from minitrain.run.run_folder import EVENTS, event_files
from minitrain.storage.files import json_text

PROJECT = "huggingface"  # Trainer's default


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """What a tracker is told of the run."""

    directory: Path
    name: str
    group: str | None  # of the runs of --folds and --seeds
    project: str | None
    settings: Mapping[str, Any]
    step: int  # the last one that a resumed run keeps; 0 at the start
    earlier: str | None = None  # what the tracker called this run before it was resumed, and is to continue
    replaced: str | None = None  # the same, if the tracker starts over


class Tracker(Protocol):
    """One tracker."""

    id: str  # by which a resumed run finds it again
    place: str  # where a user finds it
    writes_through: bool  # whether nothing that it got is lost if the process is killed
    rewinds: bool  # whether it can forget what came after `TrackedRun.step`
    starts_over: bool  # whether it can forget all

    def __init__(self, run: TrackedRun) -> None:
        """Open it. Raises what it likes: the run goes on without it."""

    def log(self, values: dict[str, float], step: int) -> None:
        """Take values by Trainer's names before they are rewritten: loss, eval_accuracy."""

    def finish(self, error: BaseException | None) -> None:
        """Close. error: What ended the run early."""


def rewrite_logs(values: Mapping[str, float]) -> dict[str, float]:
    """Trainer's names in all trackers but MLflow.

    >>> rewrite_logs({"loss": 0.5, "eval_accuracy": 0.75, "test_loss": 0.25})
    {'train/loss': 0.5, 'eval/accuracy': 0.75, 'test/loss': 0.25}
    """
    parts = ("eval_", "test_")
    return {
        name.replace("_", "/", 1) if name.startswith(parts) else f"train/{name}": value
        for name, value in values.items()
    }


class TensorBoard:
    """Event files in the run's folder: `tensorboard --logdir runs` names runs by their folders."""

    writes_through, rewinds, starts_over = True, True, False

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Readers forget the steps from purge_step on that they read in earlier files.
        purge = None if run.earlier is None else run.step + 1
        for path in event_files(run.directory) if run.earlier is None else ():
            path.unlink()
        self.id, self.place = "events", str(run.directory)
        self.writer: Any = SummaryWriter(self.place, purge_step=purge, filename_suffix=EVENTS)
        if run.earlier is None:
            self.writer.add_text("args", json_text(run.settings))

    def log(self, values: dict[str, float], step: int) -> None:
        for name, value in rewrite_logs(values).items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()  # what a killed run has logged is there

    def finish(self, error: BaseException | None) -> None:
        self.writer.close()


class Trackio:
    """A run of a project in trackio's database on this machine, or in TRACKIO_SPACE_ID."""

    writes_through, rewinds, starts_over = False, False, True

    def __init__(self, run: TrackedRun) -> None:
        with redirect_stdout(StringIO()):
            import trackio
            from trackio.sqlite_storage import SQLiteStorage

            project = run.project or PROJECT
            # trackio resumes the newest run of a name, which may be another one.
            newest = None
            if run.earlier is not None:
                newest = SQLiteStorage.get_latest_run_record_by_name(project, run.name)
            continues = newest is not None and newest["id"] == run.earlier
            known = {run.earlier, run.replaced} - {None}
            for one in () if continues or not known else trackio.Api().runs(project):
                if one.id in known:
                    one.delete()
            self.run: Any = trackio.init(
                project=project,
                name=run.name,
                group=run.group,
                config=dict(run.settings),
                resume="must" if continues else "never",
                embed=False,
            )
        self.module, self.id, self.place = trackio, self.run.id, f"project {project}, run {run.name}"

    def log(self, values: dict[str, float], step: int) -> None:
        self.run.log({**rewrite_logs(values), "train/global_step": step}, step=step)

    def finish(self, error: BaseException | None) -> None:
        with redirect_stdout(StringIO()):
            self.module.finish()


class Wandb:
    """A run of Weights & Biases: WANDB_MODE, WANDB_PROJECT and the others of its variables are heard."""

    writes_through, rewinds, starts_over = False, False, False

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        self.is_own = wandb.run is None  # else the user's, as in a sweep
        with open(os.devnull) as nothing, _stdin(nothing):  # without a login it would ask, and wait for an answer
            self.run: Any = wandb.run or wandb.init(
                project=run.project or os.environ.get("WANDB_PROJECT", PROJECT),
                name=run.name,
                group=run.group,
                id=run.earlier,
                resume=None if run.earlier is None else "allow",
                settings=wandb.Settings(silent=True),
            )
        self.run.config.update(dict(run.settings), allow_val_change=True)
        self.run.define_metric("train/global_step")
        self.run.define_metric("*", step_metric="train/global_step", step_sync=True)
        self.id = self.run.id
        self.place = f"wandb sync {Path(self.run.dir).parent}" if self.run.offline else str(self.run.url)

    def log(self, values: dict[str, float], step: int) -> None:
        self.run.log({**rewrite_logs(values), "train/global_step": step})

    def finish(self, error: BaseException | None) -> None:
        if self.is_own:
            self.run.finish(exit_code=0 if error is None else 1)


@contextmanager
def _stdin(file: Any) -> Iterator[None]:
    before, sys.stdin = sys.stdin, file
    try:
        yield
    finally:
        sys.stdin = before


class Mlflow:
    """A run in MLFLOW_TRACKING_URI; the names are not rewritten, as in Trainer: loss, eval_accuracy."""

    writes_through, rewinds, starts_over = True, False, False

    def __init__(self, run: TrackedRun) -> None:
        # By default a server that is down holds up every call for four minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        import mlflow
        from mlflow.entities import Param

        self.mlflow, self.client, active = mlflow, mlflow.MlflowClient(), mlflow.active_run()
        self.is_own = active is None  # else the user's
        if active is None:
            tags = None if run.group is None else {"group": run.group}
            experiment = None if run.project is None else self._experiment(run.project)
            active = mlflow.start_run(run.earlier, experiment_id=experiment, run_name=run.name, tags=tags)
        self.id = active.info.run_id
        self.place = f"{mlflow.get_tracking_uri()}, run {self.id}"
        params = [Param(name, str(value)[:500]) for name, value in run.settings.items()]
        for first in range(0, len(params) if run.earlier is None else 0, 100):  # as many as it takes at once
            self.client.log_batch(self.id, params=params[first : first + 100])

    def _experiment(self, name: str) -> str:
        """The id of an experiment; mlflow.set_experiment would choose it for what this process does later, too."""
        known = self.client.get_experiment_by_name(name)
        return str(self.client.create_experiment(name) if known is None else known.experiment_id)

    def log(self, values: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        named = {re.sub(r"[^0-9A-Za-z_\-\. :/]", "_", name): value for name, value in values.items()}
        self.client.log_batch(self.id, [Metric(name, float(value), now, step) for name, value in named.items()])

    def finish(self, error: BaseException | None) -> None:
        if self.is_own:
            failed = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            self.mlflow.end_run("FINISHED" if error is None else failed)


KINDS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": Wandb,
    "mlflow": Mlflow,
}
