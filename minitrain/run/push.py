"""Upload a saved run to the Hub: the model, its card and its results, no texts.

predictions.jsonl has the texts of the evaluation data and log.jsonl every step: both stay, as do checkpoints.
"""

import json
import os
import shlex
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from minitrain.config.push_config import PushConfig
from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.run.run_folder import CALIBRATION, RESULTS, RUNS, read_results
from minitrain.storage.files import json_text
from minitrain.storage.hub import MODEL_FILES
from minitrain.storage.model_folder import what_it_holds
from minitrain.storage.push import UploadError, check_upload, upload

CARD = "README.md"
HERE = '"path/to/this/folder"'  # in the card, what the name in the Hub replaces
UPLOADED = (*MODEL_FILES, CALIBRATION, CARD, RESULTS)


def push_run(config: PushConfig) -> None:
    """Upload the run that `config` names, and say what was uploaded.

    Raises:
        MinitrainError: The folder holds no model, or the Hub does not take it.
    """
    directory = Path(config.run)
    if not (directory / "config.json").is_file():
        raise MinitrainError(_without_model(directory, config.name))
    push(directory, config.name, config.private, print)


def _without_model(directory: Path, name: str) -> str:
    if (directory / RUNS).is_file():
        models = sorted(path.parent.name for path in directory.glob("*/config.json"))
        one = f"upload one of them: {push_command(directory / models[0], name, False)}" if models else ""
        way = one or "pass --keep_folds to keep their models, and upload one of them"
        return f"{directory}: holds several runs, of --folds or --seeds; {way}"
    if directory.is_dir():
        return what_it_holds(directory).replace("--model ", "")
    return f"{directory}: no such folder; give one that train.py saved"


def check_push_of(config: TrainConfig) -> None:
    """Check what `--push_to_hub` needs, before the training.

    Raises:
        MinitrainError: It would fail at the end.
    """
    if config.push_to_hub is None:
        return
    try:
        check_upload(config.push_to_hub, config.hub_private)
    except UploadError as error:
        later = push_command("RUN", config.push_to_hub, config.hub_private)
        way = f"Or leave it out, and upload the saved run later: {later}"
        raise UploadError(f"--push_to_hub {error}. {way}") from error
    except MinitrainError as error:
        raise MinitrainError(f"--push_to_hub {error}") from error


def push_after_training(directory: Path, config: TrainConfig, log: Callable[[str], object]) -> None:
    """Upload the run that was just saved, if `--push_to_hub` asks for it.

    Raises:
        UploadError: The Hub does not take it; says that the run is saved, and what tries again.
    """
    if config.push_to_hub is None:
        return
    try:
        push(directory, config.push_to_hub, config.hub_private, log)
    except UploadError as error:
        again = push_command(directory, config.push_to_hub, config.hub_private)
        raise UploadError(f"{error}\nThe run is saved in {directory}. To upload it: {again}") from error


def push_command(directory: Path | str, name: str, private: bool) -> str:
    """The command that uploads a saved run."""
    return f"python scripts/push.py {shlex.quote(str(directory))} {name}{' --private' if private else ''}"


def push(directory: Path, name: str, private: bool, log: Callable[[str], object]) -> None:
    """Upload the files of a saved run in one commit, and log their names and the commit's address."""
    full_name = check_upload(name, private)
    files = files_to_upload(directory, full_name)
    log(f"upload   {', '.join(sorted(files))} to {full_name}")
    log(f"uploaded {upload(full_name, files, 'Upload a model trained with minitrain', private, log)}")


def files_to_upload(directory: Path, name: str) -> dict[str, Path | bytes]:
    """The files of a saved run that are published; results.json without the folders of this machine."""
    names = sorted(path.name for path in directory.iterdir() if path.is_file())
    files: dict[str, Path | bytes] = {
        file: directory / file for file in names if any(fnmatch(file, pattern) for pattern in UPLOADED)
    }
    if CARD in files:
        card = (directory / CARD).read_text(encoding="utf-8")
        files[CARD] = card.replace(HERE, json.dumps(name)).encode()
    if RESULTS in files:
        files[RESULTS] = json_text(without_folders(read_results(directory))).encode()
    return files


def without_folders(results: dict[str, Any]) -> dict[str, Any]:
    """The contents of `results.json` with files of this machine by their names alone."""
    published = dict(results)
    for key in ("model", "dataset"):
        if key in results:
            published[key] = local_name(results[key])
    if isinstance(results.get("config"), dict):
        published["config"] = {key: local_name(value) for key, value in results["config"].items()}
    return published


def local_name(value: Any) -> Any:
    """A path of this machine, or each of a list, without its folders; anything else unchanged.

    >>> local_name("/home/me/reviews.csv"), local_name("google-bert/bert-base-cased"), local_name(0.5)
    ('reviews.csv', 'google-bert/bert-base-cased', 0.5)
    """
    if isinstance(value, list | tuple):
        return [local_name(each) for each in value]
    is_path = isinstance(value, str) and (os.path.isabs(value) or os.path.exists(value))
    return os.path.basename(value.rstrip("/")) if is_path else value
