"""`--report_to`: each record of `log.jsonl` also goes to the trackers of the run.

A tracker that fails is dropped with a warning, and the run goes on. A resumed run continues in the same place: what
a tracker has of later steps is taken back if it can, and is not sent again if it cannot. One that may have lost
records, as the run was killed, starts over and gets the whole log.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from minitrain.config.report_to import trackers_of
from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError, cut
from minitrain.run.prepare import PreparedRun
from minitrain.run.run_folder import RUNS, TRACKERS, logged_lines
from minitrain.run.trackers import KINDS, TrackedRun, Tracker
from minitrain.storage.files import json_text, read_json, write_whole

Record = Mapping[str, Any]  # a line of `log.jsonl`


class Trackers:
    """The trackers of a run; none if it reports to none, or in a process other than the main one.

    A context: the trackers are closed when the block ends, and told of the error that ends it.
    """

    def __init__(self, run: PreparedRun, say: Callable[[str], None], is_main: bool) -> None:
        self.config, self.directory, self.say, self.is_main = run.config, run.directory, say, is_main
        self.splits = list(run.splits.evaluation)
        self.open: dict[str, Tracker] = {}
        self.sent: dict[str, set[tuple[Any, ...]]] = {}  # records that a tracker has and cannot forget

    def before(self, resume_from: Callable[[int], None]) -> Callable[[int], None]:
        """Start the trackers at the step of a resumed run, before the log of later steps is cut off."""

        def start_and_resume(step: int) -> None:
            self.start(step)
            resume_from(step)

        return start_and_resume

    def start(self, step: int) -> None:
        """Open the trackers of a run that begins, or is resumed at this step; they get the log up to there."""
        file = self.directory / TRACKERS
        names = trackers_of(self.config.report_to) if self.is_main else []
        if not names and not (self.is_main and file.exists()):
            return
        earlier: dict[str, Any] = {}
        with suppress(MinitrainError):  # a damaged file: new runs in all trackers
            earlier = read_json(file) if file.exists() else {}
        records = [] if self.config.resume is None else [json.loads(line) for line in logged_lines(self.directory)]
        run = tracked_run(self.config, self.directory, step)
        for name in names:
            with self._guarded(name):
                self._open(name, run, earlier.get(name), records)
        self._remember()  # and forget the others, which will lack what comes now
        for number, (name, tracker) in enumerate(self.open.items()):
            self.say(f"{'' if number else 'trackers':<9}{name}: {tracker.place}")

    def _open(self, name: str, run: TrackedRun, earlier: Any, records: Sequence[Record]) -> None:
        kind, same = KINDS[name], isinstance(earlier, dict) and earlier.get("project") == run.project
        known = earlier.get("id") if same else None
        later = {_key(record) for record in records if record["step"] > run.step}
        whole = same and (earlier.get("closed") or kind.writes_through)
        continues = whole and not (later and kind.starts_over)
        run = replace(run, earlier=known) if continues else replace(run, replaced=known)
        tracker = self.open[name] = kind(run)
        continued = run.earlier is not None and tracker.id == run.earlier
        self.sent[name] = later if continued and not kind.rewinds else set()
        for record in records:
            if not continued and record["step"] <= run.step:
                self._send(tracker, record)

    def log(self, record: Record) -> None:
        """Send a line of `log.jsonl`."""
        for name, tracker in list(self.open.items()):
            if _key(record) not in self.sent[name]:
                with self._guarded(name):
                    self._send(tracker, record)

    def final(self, results: Mapping[str, Mapping[str, Any]], step: int) -> None:
        """Send the results of the test splits as test/loss, and of the others unless they were sent while training.

        Args:
            results: By split, as in `results.json`.
        """
        tests = [name for name in results if name not in self.splits]
        values: dict[str, float] = {}
        for split, own in results.items():
            scores = {name: value for name, value in own.items() if name != "examples"}
            if split in tests:
                values |= _prefixed(scores, "test", split, tests)
            elif self.config.eval_strategy == "no":
                values |= _prefixed(scores, "eval", split, self.splits)
        for name, tracker in list(self.open.items()) if values else ():
            with self._guarded(name):
                tracker.log(values, step)

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        for name, tracker in list(self.open.items()):
            with self._guarded(name):
                tracker.finish(error)
        if self.open:
            self._remember(closed=True)

    def _send(self, tracker: Tracker, record: Record) -> None:
        rest = {name: value for name, value in record.items() if name not in ("event", "step", "split", "epoch")}
        if record["event"] == "evaluation":
            rest = _prefixed(rest, "eval", record["split"], self.splits)
        values = {name: value for name, value in {**rest, "epoch": record["epoch"]}.items() if value is not None}
        tracker.log(values, record["step"])

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """Drop a tracker that fails, with a warning: it must not end a run of hours."""
        try:
            yield
        except (Exception, SystemExit) as error:
            if (tracker := self.open.pop(name, None)) is not None:
                with suppress(Exception, SystemExit):
                    tracker.finish(error)
            self._remember()  # a resumed run starts another one, and sends all records again
            reason = cut(" ".join(str(error).split()) or type(error).__name__)
            self.say(f"WARNING  --report_to {name}: dropped, the run goes on without it ({reason})")

    def _remember(self, closed: bool = False) -> None:
        entry = {"project": self.config.project, "closed": closed}
        known = {name: {**entry, "id": tracker.id} for name, tracker in self.open.items()}
        with suppress(OSError, MinitrainError):  # the log, which is in the same folder, says what is wrong with it
            write_whole(self.directory / TRACKERS, json_text(known))


def tracked_run(config: TrainConfig, directory: Path, step: int) -> TrackedRun:
    """The name, group and settings of the run of a folder."""
    folder = directory.resolve()
    several = folder.parent / RUNS
    name, group = config.run_name or folder.name, None
    if several.is_file() and folder.name in read_json(several).get("runs", []):
        group = config.run_name or folder.parent.name
        name = f"{group}-{folder.name}"
    settings: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return TrackedRun(
        directory=directory, name=name, group=group, project=config.project, settings=settings, step=step
    )


def _key(record: Record) -> tuple[Any, ...]:
    return record["event"], record["step"], record.get("split")


def _prefixed(values: Record, prefix: str, split: str, splits: Sequence[str]) -> dict[str, Any]:
    """As Trainer names them: {"loss": 0.5} -> {"eval_loss": 0.5}, with several splits {"eval_NAME_loss": 0.5}."""
    start = f"{prefix}_{split}_" if len(splits) > 1 else f"{prefix}_"
    return {start + name: value for name, value in values.items() if value is not None}
