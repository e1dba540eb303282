"""Load and save checkpoints in the Hub's layout, under the names of transformers.

Loading accounts for every parameter and every key of the files (`loading.py`); whatever does
not fit is an error.
"""

import os
import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from minitrain.config.label_map import as_flag
from minitrain.config.problem_types import CLASSIFICATION, REGRESSION
from minitrain.errors import MinitrainError, shown
from minitrain.model.classifier import Encoder, SequenceClassifier
from minitrain.model.encoder_config import EncoderConfig, encoder_config
from minitrain.model.families import FAMILIES, family_of
from minitrain.model.loading import KeyMap, LoadReport, fill, read_keys
from minitrain.storage.files import json_text, read_json, whole_files
from minitrain.storage.hub import resolve_model
from minitrain.storage.model_folder import what_it_holds

# Without this in config.json, sentence-transformers' CrossEncoder applies a sigmoid to a single output.
SCORES_AS_THEY_ARE = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}

Model = TypeVar("Model", Encoder, SequenceClassifier)


class Saves(Protocol):
    """Writes its files into a folder, as a Tokenizer does."""

    def save(self, directory: Path) -> None: ...


def read_config(directory: Path) -> EncoderConfig:
    """Read and check config.json. Raises MinitrainError with file and key."""
    path = directory / "config.json"
    if not os.path.exists(path):  # Path.exists raises for a folder without permission
        raise MinitrainError(what_it_holds(directory))
    raw = read_json(path)
    try:
        family = family_of(raw)
        return encoder_config(family.normalize_config(raw), family.config_names, family.config)
    except MinitrainError as error:
        raise MinitrainError(f"{path}: {error}") from error


def load_encoder(name_or_dir: str | Path, *, kernels: str = "fast") -> Encoder:
    """Load the encoder without pooler or head, in evaluation mode on the CPU, float32.

    Args:
        name_or_dir: A Hub id, a local folder, or "demo"; any head in it is ignored.
        kernels: "fast" or "reference".

    Raises:
        MinitrainError: The checkpoint is not an encoder's of a known family, or is damaged.
    """
    directory = resolve_model(name_or_dir)
    config = read_config(directory)
    keys = read_keys(directory, FAMILIES[config.model_type])
    return _build(lambda: Encoder(config, kernels), directory, keys, keeps_head=False)[0]


def load_classifier(
    name_or_dir: str | Path,
    num_labels: int | None = None,
    *,
    label_names: tuple[str, ...] | None = None,
    problem_type: str | None = None,
    new_head: bool = False,
    kernels: str = "fast",
    hidden_dropout_prob: float | None = None,
    attention_probs_dropout_prob: float | None = None,
    classifier_dropout: float | None = None,
) -> SequenceClassifier:
    """Load an encoder with a classification head, in evaluation mode on the CPU, float32.

    A checkpoint without a head, or with another task's, gets a new one, drawn from torch's global generator as
    transformers 5.23 draws it.

    Args:
        name_or_dir: A Hub id, a local folder, or "demo".
        num_labels: The data's, as `label_names`; None for the checkpoint's.
        new_head: Replace a trained head.
        hidden_dropout_prob: Overrides the checkpoint's, as the other dropouts do.

    Raises:
        MinitrainError: The head and the data disagree, or the checkpoint is damaged.
    """
    dropouts = {
        "hidden_dropout_prob": hidden_dropout_prob,
        "attention_probs_dropout_prob": attention_probs_dropout_prob,
        "classifier_dropout": classifier_dropout,
    }
    changes: dict[str, Any] = {name: value for name, value in dropouts.items() if value is not None}
    _check_arguments(num_labels, label_names, changes)
    directory = resolve_model(name_or_dir)
    own = read_config(directory)
    config = _with_labels(replace(own, **changes), num_labels, label_names, problem_type)
    keys = read_keys(directory, FAMILIES[own.model_type])
    keeps_head = not new_head and keys.has_head(own)
    if keeps_head:
        _check_usable(own, directory)
        _check_head(own, config, directory)
    elif own.head_fault is not None and num_labels is None and label_names is None:
        raise MinitrainError(f"{directory / 'config.json'}: {own.head_fault}; or say how many labels: num_labels=2")
    model, report = _build(lambda: SequenceClassifier(config, kernels), directory, keys, keeps_head)
    model.load_report = report
    return model


def _check_arguments(num_labels: int | None, label_names: tuple[str, ...] | None, dropouts: dict[str, Any]) -> None:
    count = num_labels if label_names is None else len(label_names)
    if count is not None and (count < 1 or num_labels not in (None, count)):
        raise MinitrainError(
            f"num_labels is {num_labels}, label_names {label_names}: expected as many names, at least 1"
        )
    for name, value in dropouts.items():
        if not 0.0 <= value <= 1.0:
            raise MinitrainError(f"{name} is {value}; expected a probability from 0 to 1")


def _with_labels(
    config: EncoderConfig, num_labels: int | None, label_names: tuple[str, ...] | None, problem_type: str | None
) -> EncoderConfig:
    count, old_count = num_labels if label_names is None else len(label_names), config.num_labels
    if count is not None and (label_names is not None or count != old_count):
        config = replace(config, num_labels=count, label_names=label_names)
    if problem_type is not None or config.num_labels != old_count:
        config = replace(config, problem_type=problem_type)  # the old one says nothing about another size
    return config


def trained_labels(directory: Path) -> tuple[str, ...] | None:
    """The class names of the checkpoint's head, by default LABEL_0 and so on; None if it has no classifier's head.

    Raises:
        MinitrainError: The labels are faulty, or of a kind that is not trained here.
    """
    config = read_config(directory)
    if not read_keys(directory, FAMILIES[config.model_type]).has_head(config):
        return None
    _check_usable(config, directory)
    return names_or_default(config)


def _check_usable(config: EncoderConfig, directory: Path) -> None:
    if config.head_fault is not None:
        raise MinitrainError(f"{directory / 'config.json'}: {config.head_fault}")


def names_or_default(config: EncoderConfig) -> tuple[str, ...]:
    """The class names; unnamed classes are called as in transformers."""
    return config.label_names or tuple(f"LABEL_{i}" for i in range(config.num_labels))


def _check_head(own: EncoderConfig, wanted: EncoderConfig, directory: Path) -> None:
    if (
        own.problem_type is not None
        and wanted.problem_type is not None
        and own.is_multi_label != wanted.is_multi_label
    ):
        raise MinitrainError(
            f"{directory}: the trained head is of {own.problem_type}, the data of {wanted.problem_type}: drop the "
            "head with --new_head, or pass the head's as --problem_type with data of that kind"
        )
    if own.num_labels != wanted.num_labels:
        raise MinitrainError(
            f"{directory}: the trained head has {own.num_labels} labels {shown(names_or_default(own))}, "
            f"the data has {wanted.num_labels} {shown(names_or_default(wanted))}: "
            "drop the head with --new_head, or give data with its labels"
        )
    unnamed = own.label_names is None or all(re.fullmatch(r"LABEL_\d+", name) for name in own.label_names)
    if not unnamed and wanted.label_names is not None and own.label_names != wanted.label_names:
        pairs = dict(list(zip(wanted.label_names, own.label_names or (), strict=True))[:20])
        way = f"say which is which, as in {as_flag(pairs)} (or in another order)"
        raise MinitrainError(
            f"{directory}: the trained head's labels are {shown(own.label_names)}, "
            f"the data's {shown(wanted.label_names)}: drop the head with --new_head, or "
            f"{way if len(set(own.label_names or ())) == own.num_labels else 'give data with its labels'}"
        )


def reference_names(model: Encoder | SequenceClassifier) -> dict[str, str]:
    """The reference's key -> our parameter's name, in the order of registration."""
    family, config = FAMILIES[model.config.model_type], model.config
    modules = {
        ours.replace("{i}", str(i)): theirs.replace("{i}", family.block_key(config, i))
        for theirs, ours in family.key_map
        for i in range(max(family.layer_order(config)) + 1)
    }
    prefix = "encoder." if isinstance(model, Encoder) else ""
    table = {}
    for name, _ in model.named_parameters():
        module, leaf = f"{prefix}{name}".rsplit(".", 1)
        table[f"{modules[module]}.{leaf}"] = name
    return table


class _SkipInit(TorchFunctionMode):
    """Skips the random initialisation of modules, because every parameter is filled afterwards.

    The meta device would do it too, but imports sympy, which takes a second.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        skipped = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)
        if func in skipped or func in (Tensor.normal_, Tensor.uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _build(make: Callable[[], Model], directory: Path, keys: KeyMap, keeps_head: bool) -> tuple[Model, LoadReport]:
    """Make the model, fill it from the files, and initialise what is new."""
    try:
        with _SkipInit():
            model = make()
    except RuntimeError as error:  # more likely a mistyped size than a small machine
        raise MinitrainError(
            f"{directory / 'config.json'}: its model does not fit into memory; check the sizes that it gives"
        ) from error
    report = fill(model, reference_names(model), keys, directory, keeps_head)
    with torch.no_grad():
        for name in report.new:
            keys.family.init_parameter(name, model.get_parameter(name), model.config)
    return model.eval(), report


def save_classifier(model: SequenceClassifier, tokenizer: Saves, directory: str | Path) -> None:
    """Write model and tokenizer so that transformers, its `pipeline` and `load_classifier` load them.

    Files are written beside the folder and moved in whole, config.json last: a folder with one is complete. Weights
    are float32.
    """
    directory = Path(directory)
    state = model.state_dict()
    tensors = {
        theirs: state[ours].to("cpu", torch.float32).contiguous() for theirs, ours in reference_names(model).items()
    }
    with whole_files(directory, last="config.json") as folder:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        tokenizer.save(folder)
        (folder / "config.json").write_text(json_text(config_json(model.config)), encoding="utf-8")


def config_json(config: EncoderConfig) -> dict[str, Any]:
    """The `config.json` of a classifier."""
    family = FAMILIES[config.model_type]
    labels = names_or_default(config)
    defaults = {spec.name: spec.default for spec in fields(config)}
    values = {theirs: (getattr(config, ours), defaults[ours]) for ours, theirs in family.config_names.items()}
    return {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        # Sizes that are None are left out: the reference takes null for a value.
        **{key: value for key, (value, default) in values.items() if value is not None or default is not None},
        "dtype": "float32",
        "id2label": {str(i): name for i, name in enumerate(labels)},
        "label2id": {name: i for i, name in enumerate(labels)},
        "problem_type": config.problem_type or (REGRESSION if config.num_labels == 1 else CLASSIFICATION),
        **(SCORES_AS_THEY_ARE if config.is_regression else {}),
    }
