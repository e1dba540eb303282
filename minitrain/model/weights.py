"""Checkpoints in the Hub's layout: strict loading with a report, saving under the reference's names.

Every parameter is accounted for: loaded, or new because a head may be; every key of the file too: used, or ignored
because no part of the encoder and of a trained head needs it (`checkpoint_keys.py`). Anything else is an error.
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
from minitrain.model.families import FAMILIES, Family, family_of
from minitrain.model.loading import LoadReport as LoadReport
from minitrain.model.loading import fill, key_map
from minitrain.storage.files import json_text, read_json, whole_files
from minitrain.storage.hub import resolve_model
from minitrain.storage.model_folder import what_it_holds

# sentence-transformers' CrossEncoder puts one output through a sigmoid unless this is in config.json.
SCORES_AS_THEY_ARE = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}

Model = TypeVar("Model", Encoder, SequenceClassifier)


class Saves(Protocol):
    """Whatever can write its files into a folder, such as a Tokenizer."""

    def save(self, directory: Path) -> None: ...


def read_config(directory: Path) -> EncoderConfig:
    """The checked configuration of a local checkpoint. Raises MinitrainError naming file and field."""
    path = directory / "config.json"
    if not os.path.exists(path):  # Path.exists raises for a folder that is not ours to read
        raise MinitrainError(what_it_holds(directory))
    raw = read_json(path)
    family = family_of(raw, path)
    try:
        translated = family.translate(raw)
    except MinitrainError as error:
        raise MinitrainError(f"{path}: {error}") from error
    return encoder_config(translated, family.config_names, path, family.config)


def load_encoder(name_or_dir: str | Path, *, kernels: str = "fast") -> Encoder:
    """Load the encoder alone, without pooler or head, in evaluation mode on the CPU, float32.

    Whatever head the checkpoint has is left where it is: of a classifier, of another task, of pretraining.
    name_or_dir: a Hub id, a local folder, or "demo". Raises MinitrainError naming what does not fit.
    """
    directory = resolve_model(name_or_dir)
    config = read_config(directory)
    encoder, _ = _build(lambda: Encoder(config, kernels), directory, "encoder.", new_head=False)
    return encoder


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

    A checkpoint without a head, or with another task's, gets a new one, drawn from torch's global generator: normal
    with the config's `initializer_range`, bias 0, as transformers 5.23 does. name_or_dir: a Hub id, a local folder,
    or "demo".
    num_labels, label_names: of the data, by default the checkpoint's. new_head: replace a head that is there.
    The dropouts are probabilities; None keeps the checkpoint's.
    Raises MinitrainError where the head and the data disagree, naming both.
    """
    return load_classifier_with_report(
        name_or_dir,
        num_labels,
        label_names=label_names,
        problem_type=problem_type,
        new_head=new_head,
        kernels=kernels,
        hidden_dropout_prob=hidden_dropout_prob,
        attention_probs_dropout_prob=attention_probs_dropout_prob,
        classifier_dropout=classifier_dropout,
    )[0]


def load_classifier_with_report(
    name_or_dir: str | Path,
    num_labels: int | None,
    *,
    label_names: tuple[str, ...] | None,
    problem_type: str | None,
    new_head: bool,
    kernels: str,
    **dropouts: Any,
) -> tuple[SequenceClassifier, LoadReport]:
    """`load_classifier`, and what became of each key."""
    count = num_labels if label_names is None else len(label_names)
    if count is not None and (count < 1 or num_labels not in (None, count)):
        raise MinitrainError(
            f"num_labels is {num_labels}, label_names {label_names}: expected as many names, at least 1"
        )
    for name, value in dropouts.items():
        if value is not None and not 0.0 <= value <= 1.0:
            raise MinitrainError(f"{name} is {value}; expected a probability from 0 to 1")
    directory = resolve_model(name_or_dir)
    own = read_config(directory)
    config: EncoderConfig = replace(own, **{name: value for name, value in dropouts.items() if value is not None})
    if count is not None and (label_names is not None or count != own.num_labels):
        config = replace(config, num_labels=count, label_names=label_names)
    if problem_type is not None or config.num_labels != own.num_labels:
        config = replace(config, problem_type=problem_type)  # the old head's says nothing of another size
    if not new_head and trained_labels(directory) is not None:
        _check_head(own, config, directory)
    elif own.head_fault is not None and count is None:
        raise MinitrainError(f"{directory / 'config.json'}: {own.head_fault}; or say how many labels: num_labels=2")
    return _build(lambda: SequenceClassifier(config, kernels), directory, "", new_head)


def trained_labels(directory: Path) -> tuple[str, ...] | None:
    """The class names of the trained head in the checkpoint's files, LABEL_0 and so on where it has no names.

    None when the files hold no head, or that of another task, whatever config.json says. Raises MinitrainError
    where the head's labels cannot be told, or are of a kind that is not trained here.
    """
    config = read_config(directory)
    if not key_map(directory, FAMILIES[config.model_type]).has_head(config):
        return None
    if config.head_fault is not None:
        raise MinitrainError(f"{directory / 'config.json'}: {config.head_fault}")
    return names_or_default(config)


def names_or_default(config: EncoderConfig) -> tuple[str, ...]:
    """The class names, or those that transformers gives to unnamed classes."""
    return config.label_names or tuple(f"LABEL_{i}" for i in range(config.num_labels))


def _check_head(own: EncoderConfig, wanted: EncoderConfig, directory: Path) -> None:
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


def reference_names(family: Family, config: EncoderConfig, model: nn.Module, ours_prefix: str) -> dict[str, str]:
    """The reference's key -> our parameter's name, in the order of registration."""
    modules = {
        ours.replace("{i}", str(i)): theirs.replace("{i}", family.block_key(config, i))
        for theirs, ours in family.renames
        for i in range(max(family.layers(config)) + 1)
    }
    table = {}
    for name, _ in model.named_parameters():
        module, leaf = f"{ours_prefix}{name}".rsplit(".", 1)
        table[f"{modules[module]}.{leaf}"] = name
    return table


class _SkipInit(TorchFunctionMode):
    """Skips the random initialisation that modules begin with: every parameter is filled afterwards, and no number
    may be drawn for nothing. (The meta device would do too, but loads sympy for it, which takes a second.)"""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        skipped = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)
        if func in skipped or func in (Tensor.normal_, Tensor.uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _build(
    make: Callable[[], Model], directory: Path, ours_prefix: str, new_head: bool
) -> tuple[Model, LoadReport]:
    """Make the model without drawing a number, fill it from the files, draw what is new."""
    try:
        with _SkipInit():
            model = make()
    except RuntimeError as error:  # a size that is a typing error, more likely than a machine that is too small
        raise MinitrainError(
            f"{directory / 'config.json'}: its model does not fit into memory; check the sizes that it gives"
        ) from error
    family = FAMILIES[model.config.model_type]
    names = reference_names(family, model.config, model, ours_prefix)
    report = fill(model, names, family, directory, new_head)
    with torch.no_grad():
        for name in report.new:
            family.initialise(name, model.get_parameter(name), model.config)
    return model.eval(), report


def save_classifier(model: SequenceClassifier, tokenizer: Saves, directory: str | Path) -> None:
    """Write model and tokenizer so that transformers, its `pipeline` and this library load them.

    The folder is made; files are written beside it first and moved in whole, config.json last, so that a folder
    with a config.json is complete. Weights are float32 under the reference's names, metadata `format: pt`.
    """
    directory = Path(directory)
    family = FAMILIES[model.config.model_type]
    names = reference_names(family, model.config, model, "")
    state = model.state_dict()
    tensors = {theirs: state[ours].detach().to("cpu", torch.float32).contiguous() for theirs, ours in names.items()}
    with whole_files(directory, last="config.json") as folder:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        tokenizer.save(folder)
        (folder / "config.json").write_text(json_text(config_json(model.config)), encoding="utf-8")


def config_json(config: EncoderConfig) -> dict[str, Any]:
    """The `config.json` of a classifier, with the reference's keys."""
    family = FAMILIES[config.model_type]
    labels = names_or_default(config)
    defaults = {spec.name: spec.default for spec in fields(config)}
    values = {theirs: (getattr(config, ours), defaults[ours]) for ours, theirs in family.config_names.items()}
    return {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        # What is None unless it is given is left out: null is no size, for the reference.
        **{key: value for key, (value, default) in values.items() if value is not None or default is not None},
        "dtype": "float32",
        "id2label": {str(i): name for i, name in enumerate(labels)},
        "label2id": {name: i for i, name in enumerate(labels)},
        "problem_type": config.problem_type or (REGRESSION if config.num_labels == 1 else CLASSIFICATION),
        **(SCORES_AS_THEY_ARE if config.is_regression else {}),
    }
