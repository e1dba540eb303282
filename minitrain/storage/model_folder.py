"""What a folder is that is no whole model, told from the names of its files, and the way from it to a model.

People pass what they have: an adapter, a folder of checkpoints, an export to another format, a folder above the
right one. Nothing is opened but small JSON files.
"""

import json
import re
import shlex
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from minitrain.errors import MinitrainError, listed, literal, python_command, shown
from minitrain.storage.files import read_json

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth")
NO_WEIGHTS = ("training_args.bin", "optimizer.", "scheduler.", "rng_state", "scaler.", "adapter_", "openvino_")
SENTENCEPIECES = ("spm.model", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
ADAPTERS = {  # peft's task type -> its class
    "SEQ_CLS": "AutoPeftModelForSequenceClassification",
    "TOKEN_CLS": "AutoPeftModelForTokenClassification",
    "QUESTION_ANS": "AutoPeftModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoPeftModelForFeatureExtraction",
}
HEADS = ("classifier.weight", "classifier.out_proj.weight")  # the last matrix of a classifier
EXPORTS = {  # how the names of files end -> whose they are
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
    """How to make safetensors of a pickle, or of the shards that its index names: what to say after a semicolon."""
    files = 'sorted(glob.glob("pytorch_model-*.bin"))' if pickle.endswith(".index.json") else f"[{literal(pickle)}]"
    return "convert it where you trust its source, in its folder, with" + python_command(
        "import glob, torch; from safetensors.torch import save_file; "
        f'w = {{k: v for f in {files} for k, v in torch.load(f, map_location="cpu", weights_only=True).items()}}; '
        'save_file({k: v.clone() for k, v in w.get("state_dict", w).items()}, "model.safetensors", '
        'metadata={"format": "pt"})'
    )


def _convert_both(directory: Path) -> str:
    """The same where the tokenizer has to be converted too: a folder as DeBERTa's or ALBERT's are published."""
    classes: Any = None
    with suppress(MinitrainError):
        classes = read_json(directory / "config.json").get("architectures")
    whole = isinstance(classes, list) and str(classes[:1]).endswith("ForSequenceClassification']")
    old, new = literal(str(directory)), literal(f"{directory}-converted")
    return (
        f"convert it, and its sentencepiece model, which is not read either, with transformers, sentencepiece and "
        f"protobuf installed, and pass --model {directory}-converted"
    ) + python_command(
        f"from transformers import {'AutoModelForSequenceClassification' if whole else 'AutoModel'} as M, "
        f"AutoTokenizer as T; M.from_pretrained({old}).save_pretrained({new}); "
        f"T.from_pretrained({old}).save_pretrained({new})"
    )


def what_it_holds(directory: Path) -> str:
    """A message for a folder without config.json or without weights: what it is, and what to pass instead."""
    names = set(_names(directory))
    place = f"{directory}: "
    if "adapter_config.json" in names:
        return place + _adapter(str(directory), f"{directory}-merged", directory)
    if (step := _own_checkpoint(directory, names)) is not None:
        return place + step
    models = models_in(names)
    if models:
        return place + _models_inside(directory, names, models)
    if "config.json" not in names and not names.isdisjoint(WEIGHTS):
        return f"{place}holds no config.json, which says what the weights are: get it from where they came from"
    if (pickle := _pickle_in(names)) is not None:
        both = "tokenizer.json" not in names and not names.isdisjoint(SENTENCEPIECES)
        remedy = _convert_both(directory) if both and "config.json" in names else convert(pickle)
        return f"{directory / pickle}: is a pickle, which is never opened; {remedy}"
    return place + _other_weights(names)


def what_a_repository_holds(name: str, names: Collection[str]) -> str | None:
    """The same for a repository of the Hub, by the names of its files; None for one that can be loaded."""
    local = name.rpartition("/")[2]
    if "adapter_config.json" in names and not _can_be_loaded(names):
        return f"{name}: {_adapter(name, f'{local}-merged')}"
    if _can_be_loaded(names):
        return None
    if models := models_in(names):
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


def _can_be_loaded(names: Collection[str]) -> bool:
    return "config.json" in names and any(name in names for name in WEIGHTS)


def _pickle_in(names: Collection[str]) -> str | None:
    """The file of weights that are no safetensors, by the usual names, or by any that ends so."""
    usual = [name for name in PICKLES if name in names]
    others = sorted(
        n for n in names if n.endswith((".bin", ".pt", ".pth", ".ckpt")) and not n.startswith(NO_WEIGHTS)
    )
    return next((name for name in [*usual, *others] if "/" not in name), None)


def _other_weights(names: Collection[str]) -> str:
    """What to say of files without safetensors to load, and without a pickle."""
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


def models_in(names: Collection[str]) -> list[str]:
    """The folders below that hold a model, checkpoint-90 before checkpoint-500."""
    return sorted({name.rpartition("/")[0] for name in names if _is_model(name, names)}, key=_by_number)


def _names(directory: Path) -> Iterator[str]:
    """The files of a folder, of the folders in it, and of the models in a cache of the Hub: a, a/b, ..."""
    for pattern in ("*", "*/*", "snapshots/*/*", "models--*/snapshots/*/*"):
        try:
            for path in directory.glob(pattern):
                if path.is_file() and not path.name.startswith("."):
                    yield path.relative_to(directory).as_posix()
        except OSError:  # not ours to read
            continue


def _is_model(name: str, names: Collection[str]) -> bool:
    """Whether a file is the config.json of a model in a folder below."""
    folder, _, file = name.rpartition("/")
    return bool(folder) and file == "config.json" and any(f"{folder}/{n}" in names for n in (*WEIGHTS, *PICKLES))


def _by_number(name: str) -> tuple[str, int]:
    """checkpoint-90 before checkpoint-500."""
    found = re.search(r"\d+$", name)
    return (name[: found.start()], int(found[0])) if found else (name, 0)


def _adapter(model: str, merged: str, folder: Path | None = None) -> str:
    """folder: the adapter's, which says of what base and for what task it is; None where it is not here."""
    settings: dict[str, Any] = {}
    with suppress(MinitrainError):
        settings = read_json(folder / "adapter_config.json") if folder else {}
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
    """How many classes the head in an adapter's file has, which peft has to be told."""
    try:
        with file.open("rb") as opened:
            header = json.loads(opened.read(min(int.from_bytes(opened.read(8), "little"), 2**22)))
        return next((int(v["shape"][0]) for k, v in header.items() if k.endswith(HEADS)), None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return None


def _own_checkpoint(directory: Path, names: Collection[str]) -> str | None:
    """Of a run of minitrain: its folder before it was saved, its checkpoints, or one of them."""
    steps = sorted(n.split("/")[0] for n in names if re.fullmatch(r"step-\d+/state\.json", n))
    run = directory if "log.jsonl.part" in names else None
    if steps:
        run, what = directory.absolute().parent, f"holds checkpoints of a run, the newest {steps[-1]}"
    elif {"state.json", "manifest.json"} <= set(names):
        run, what = directory.absolute().parent.parent, "is a checkpoint of a run"
    elif run is None:
        saved = sorted(path.name for path in (directory / "checkpoints").glob("step-*") if path.is_dir())
        if not saved:
            return None
        run, what = directory, f"holds a run that was interrupted before it was saved, at {saved[-1]}"
    else:
        what = "holds a run that was interrupted before it was saved"
    if (run / "config.json").exists():
        return f"{what}, from which --resume goes on; the model of the run is --model {run}"
    return (
        f"{what}, from which --resume goes on, no model yet: give the command of that run again with --resume, and "
        f"pass --model {run} when it is finished"
    )


def _models_inside(directory: Path, names: Collection[str], models: list[str]) -> str:
    """Name the model in a folder of models."""
    if "snapshots/" in models[0]:
        found = re.search(r"models--([^/]+)", f"{directory.absolute().name}/{models[0]}")
        hub_id = f" {found[1].replace('--', '/', 1)}, or --model" if found else ""
        return f"is of the Hub's cache: pass --model{hub_id} {directory / models[0]}"
    if all(re.fullmatch(r"checkpoint-\d+", name) for name in models):
        best = _best_checkpoint(directory / models[-1])
        chosen = f"; by its own score the best is {best}" if best in models and best != models[-1] else ""
        count = f"{len(models)} checkpoints" if len(models) > 1 else "a checkpoint"
        return f"holds {count} and no model beside them: pass the newest, --model {directory / models[-1]}{chosen}"
    if "modules.json" in names and len(models) == 1:
        return f"is of sentence-transformers, with its encoder in a folder: pass --model {directory / models[0]}"
    others = f", or another of {listed(models)}" if len(models) > 1 else ""
    return f"holds no model itself, but one in a folder: pass --model {directory / models[0]}{others}"


def _best_checkpoint(newest: Path) -> str | None:
    """The name of the checkpoint that Trainer found best, as the newest one remembers it."""
    try:
        best = json.loads((newest / "trainer_state.json").read_text(encoding="utf-8")).get("best_model_checkpoint")
    except (OSError, ValueError, AttributeError):
        return None
    return PurePosixPath(best).name if isinstance(best, str) else None
