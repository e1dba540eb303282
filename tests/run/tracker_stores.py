"""What the trackers' own stores hold, by their own readers: each value as (step, value), by its name."""

import struct
from collections import defaultdict
from pathlib import Path
from typing import Any

History = dict[str, list[tuple[int, float]]]
BLOCK = 32768


def read_tensorboard(folder: Path) -> History:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def read_trackio(project: str, name: str) -> History:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = [one for one in trackio.Api().runs(project) if one.name == name]
    history: History = defaultdict(list)
    for row in SQLiteStorage.get_logs(project, name, run_id=run.id):
        step = row.pop("step")
        del row["timestamp"]
        assert row.pop("train/global_step") == step
        for tag, value in row.items():
            history[tag].append((step, value))
    return history


def wandb_records(folder: Path) -> list[Any]:
    """The records of the file of an offline run: LevelDB's log format, after a head of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("run-*.wandb")
    content, place, part, records = file.read_bytes(), 7, b"", []
    assert content.startswith(b":W&B")
    while place < len(content):
        if BLOCK - place % BLOCK < 7:  # too short for a head
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        part += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            records.append(Record.FromString(part))
            part = b""
    return records


def read_wandb(*folders: Path) -> History:
    import json

    history: History = defaultdict(list)
    for folder in folders:
        for record in wandb_records(folder):
            if record.WhichOneof("record_type") != "history":
                continue
            items = {"/".join(one.nested_key) or one.key: json.loads(one.value_json) for one in record.history.item}
            step = items.pop("train/global_step")
            for tag, value in items.items():
                if not tag.startswith("_"):
                    history[tag].append((step, value))
    return history


def read_mlflow(run_id: str) -> History:
    from mlflow import MlflowClient

    client = MlflowClient()
    tags = client.get_run(run_id).data.metrics
    return {tag: [(one.step, one.value) for one in client.get_metric_history(run_id, tag)] for tag in tags}
