"""Explain why a folder or repository is not a whole model, from its file names, and how to get a model from it.

People pass an adapter, a folder of checkpoints, an export to another format, or the folder above the right one.
"""

import re
import shlex
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open

from minitrain.errors import MinitrainError, listed, literal, python_command, shown
from minitrain.storage.files import read_json

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth")
PICKLE_ENDINGS = (".bin", ".pt", ".pth", ".ckpt")
NO_WEIGHTS = ("training_args.bin", "optimizer.", "scheduler.", "rng_state", "scaler.", "adapter_", "openvino_")
SENTENCEPIECES = ("spm.model", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
ADAPTERS = {  # peft's task type -> its class
    "SEQ_CLS": "AutoPeftModelForSequenceClassification",
    "TOKEN_CLS": "AutoPeftModelForTokenClassification",
    "QUESTION_ANS": "AutoPeftModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoPeftModelForFeatureExtraction",
}
HEADS = ("classifier.weight", "classifier.out_proj.weight")  # the last matrix of a classifier
EXPORTS = {  # file name ending -> format
    ".onnx": "ONNX",
    "openvino_model.xml": "OpenVINO",
    "openvino_model.bin": "OpenVINO",
    ".h5": "TensorFlow",
    ".ckpt.index": "TensorFlow",
    ".msgpack": "Flax",
    ".gguf": "llama.cpp",
    ".mlmodel": "Core ML",
    ".mlpackage": "Core ML",
    ".tflite": "TensorFlow Lite",
    ".ot": "rust-bert",
}


def convert(pickle: str) -> str:
    """How to convert a pickle, or the shards its index names, to safetensors: the end of a message."""
    files = 'sorted(glob.glob("pytorch_model-*.bin"))' if pickle.endswith(".index.json") else f"[{literal(pickle)}]"
    return "convert it if you trust its source, in its folder, with" + python_command(
        "import glob, torch; from safetensors.torch import save_file; "
        f'w = {{k: v for f in {files} for k, v in torch.load(f, map_location="cpu", weights_only=True).items()}}; '
        'save_file({k: v.clone() for k, v in w.get("state_dict", w).items()}, "model.safetensors", '
        'metadata={"format": "pt"})'
    )


def _convert_with_tokenizer(directory: Path) -> str:
    """How to convert a pickle and a sentencepiece model, as DeBERTa and ALBERT are published."""
    classes = _settings(directory / "config.json").get("architectures")
    whole = isinstance(classes, list) and str(classes[:1]).endswith("ForSequenceClassification']")
    old, new = literal(str(directory)), literal(f"{directory}-converted")
    return (
        "convert it, and its sentencepiece model, which is not read either, with transformers, sentencepiece and "
        f"protobuf installed, and pass --model {directory}-converted"
    ) + python_command(
        f"from transformers import {'AutoModelForSequenceClassification' if whole else 'AutoModel'} as M, "
        f"AutoTokenizer as T; M.from_pretrained({old}).save_pretrained({new}); "
        f"T.from_pretrained({old}).save_pretrained({new})"
    )


def _settings(path: Path) -> dict[str, Any]:
    """A JSON file, or {} if it cannot be read."""
    with suppress(MinitrainError):
        return read_json(path, infinite=True)
    return {}


def what_it_holds(directory: Path) -> str:
    """The message for a folder without config.json or weights: what it is, and what to pass instead."""
    names = set(_names(directory))
    place = f"{directory}: "
    if "adapter_config.json" in names:
        return place + _adapter(str(directory), f"{directory}-merged", directory)
    if (run := _own_run(directory, names)) is not None:
        return place + run
    if models := _models_in(names):
        return place + _models_inside(directory, models)
    if "config.json" not in names and not names.isdisjoint(WEIGHTS):
        return f"{place}holds no config.json, which says what the weights are: get it from where they came from"
    if (pickle := _pickle_in(names)) is not None:
        both = "config.json" in names and "tokenizer.json" not in names and not names.isdisjoint(SENTENCEPIECES)
        remedy = _convert_with_tokenizer(directory) if both else convert(pickle)
        return f"{directory / pickle}: is a pickle, which is never opened; {remedy}"
    return place + _other_weights(names)


def what_a_repository_holds(name: str, names: Collection[str]) -> str | None:
    """The message for a repository of the Hub, by its file names; None if it can be loaded."""
    local = name.rpartition("/")[2]
    if "config.json" in names and any(file in names for file in WEIGHTS):
        return None
    if "adapter_config.json" in names:
        return f"{name}: {_adapter(name, f'{local}-merged')}"
    if models := _models_in(names):
        inside = shlex.quote(f"{models[0]}/*")
        return (
            f"{name}: its model is in a folder: get it, with\n  hf download {name} --include {inside} "
            f"--local-dir {local}\nand pass --model {local}/{models[0]}"
        )
    if "config.json" not in names:
        return f"{name}: has no file config.json, which minitrain needs"
    if (pickle := _pickle_in(names)) is not None:
        return (
            f"{name}: holds its weights as a pickle ({pickle}), which is never opened; get it (hf download {name} "
            f"--local-dir {local}), {convert(pickle)}\nand pass --model {local}"
        )
    return f"{name}: {_other_weights(names)}"


def _pickle_in(names: Collection[str]) -> str | None:
    """A file of pickled weights, preferably of a usual name."""
    usual = [name for name in PICKLES if name in names]
    others = sorted(n for n in names if n.endswith(PICKLE_ENDINGS) and not n.startswith(NO_WEIGHTS))
    return next((name for name in [*usual, *others] if "/" not in name), None)


def _other_weights(names: Collection[str]) -> str:
    """The message for a folder with neither loadable safetensors nor a pickle."""
    others = sorted(n for n in names if n.endswith(".safetensors") and "/" not in n and "adapter" not in n)
    if others:
        return (
            f"holds no model.safetensors, but {listed(others)}: if that is all of the weights, call it "
            f"model.safetensors (mv {shlex.quote(others[0])} model.safetensors)"
        )
    formats = sorted({kind for n in names for end, kind in EXPORTS.items() if n.endswith(end)})
    if formats:
        return (
            f"holds weights for {' and '.join(formats)} alone, which cannot be trained here: pass the model that "
            "they were made from, with its model.safetensors"
        )
    top = sorted(n for n in names if "/" not in n)
    holds = f"it holds {listed(top)}" if top else "it holds no file"
    return f"is no model: expected config.json, model.safetensors and the tokenizer's files; {holds}"


def _names(directory: Path) -> Iterator[str]:
    """The files of a folder, its subfolders, and the models in a Hub cache: a, a/b, ..."""
    for pattern in ("*", "*/*", "snapshots/*/*", "models--*/snapshots/*/*"):
        with suppress(OSError):  # no permission
            for path in directory.glob(pattern):
                if path.is_file() and not path.name.startswith("."):
                    yield path.relative_to(directory).as_posix()


def _models_in(names: Collection[str]) -> list[str]:
    """The subfolders that hold a model, checkpoint-90 before checkpoint-500."""
    folders = {name.removesuffix("/config.json") for name in names if name.endswith("/config.json")}
    models = [f for f in folders if any(f"{f}/{weights}" in names for weights in (*WEIGHTS, *PICKLES))]
    return sorted(
        models, key=lambda f: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+$)", f)]
    )


def _adapter(model: str, merged: str, folder: Path | None = None) -> str:
    """The message for an adapter; a local `folder` tells its base model and its task."""
    settings = _settings(folder / "adapter_config.json") if folder else {}
    base, task = settings.get("base_model_name_or_path"), str(settings.get("task_type"))
    base = base if isinstance(base, str) else None
    classes = _classes_of(folder / "adapter_model.safetensors") if folder and task == "SEQ_CLS" else None
    options = f", num_labels={classes}" if classes else ""
    command = python_command(
        f"from peft import {ADAPTERS.get(task, ADAPTERS['SEQ_CLS'])} as M; "
        "from transformers import AutoTokenizer as T; "
        f"M.from_pretrained({literal(model)}{options}).merge_and_unload().save_pretrained({literal(merged)}); "
        f"T.from_pretrained({literal(base or model)}).save_pretrained({literal(merged)})"
    )
    of = f" of {shown(base)}" if base else ""
    return (
        f"holds an adapter{of} (adapter_config.json), no whole model: merge the two, "
        f"with peft and transformers installed, and pass --model {merged}{command}"
    )


def _classes_of(file: Path) -> int | None:
    """The number of classes of an adapter's head, which peft must be told."""
    with suppress(OSError, SafetensorError, IndexError), safe_open(file, framework="np") as opened:
        heads = [key for key in opened.keys() if key.endswith(HEADS)]  # noqa: SIM118 - it is no mapping
        return int(opened.get_slice(heads[0]).get_shape()[0]) if heads else None
    return None


def _own_run(directory: Path, names: Collection[str]) -> str | None:
    """The message for minitrain's own folders: an interrupted run, its checkpoints, or one of them."""
    steps = sorted(n.split("/")[0] for n in names if re.fullmatch(r"step-\d+/state\.json", n))
    saved = sorted(path.name for path in (directory / "checkpoints").glob("step-*") if path.is_dir())
    if "runs.json" in names:
        kept = [name for name in _models_in(names) if "/" not in name]
        way = f"pass one of {listed(kept)}" if kept else "--keep_folds keeps them; or train once on all rows"
        return f"holds the runs of --folds or --seeds, {'not a model itself' if kept else 'without models'}: {way}"
    if steps:
        run, what = directory.absolute().parent, f"holds checkpoints of a run, the newest {steps[-1]}"
    elif {"state.json", "manifest.json"} <= set(names):
        run, what = directory.absolute().parent.parent, "is a checkpoint of a run"
    elif saved or "log.jsonl.part" in names:
        at = f", at {saved[-1]}" if saved else ""
        run, what = directory, f"holds a run that was interrupted before it was saved{at}"
    else:
        return None
    if (run / "config.json").exists():
        return f"{what}, which --resume continues; the model of the run is --model {run}"
    return (
        f"{what}, which --resume continues, and no model yet: repeat the command of that run with --resume, and "
        f"pass --model {run} when it is finished"
    )


def _models_inside(directory: Path, models: list[str]) -> str:
    """The message for a folder whose subfolders are models."""
    if "snapshots/" in models[0]:
        found = re.search(r"models--([^/]+)", f"{directory.absolute().name}/{models[0]}")
        hub_id = f" {found[1].replace('--', '/', 1)}, or --model" if found else ""
        return f"is of the Hub's cache: pass --model{hub_id} {directory / models[0]}"
    if all(re.fullmatch(r"checkpoint-\d+", name) for name in models):
        newest = directory / models[-1]
        best = PurePosixPath(str(_settings(newest / "trainer_state.json").get("best_model_checkpoint"))).name
        chosen = f"; by its own score the best is {best}" if best in models[:-1] else ""
        count = f"{len(models)} checkpoints" if len(models) > 1 else "a checkpoint"
        return f"holds {count} and no model beside them: pass the newest, --model {newest}{chosen}"
    others = f", or another of {listed(models)}" if len(models) > 1 else ""
    return f"holds no model itself, but one in a folder: pass --model {directory / models[0]}{others}"
