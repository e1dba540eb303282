"""Copies a checkpoint's tensors into a model and accounts for every key.

A parameter is loaded, or new if it is the head's. A key is used, or ignored if neither the encoder nor a trained
head needs it; any other key is an error with a way out.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minitrain.errors import MinitrainError, literal, shown
from minitrain.model.checkpoint_keys import ADAPTER, KeyMap, map_keys, rewrite_command
from minitrain.model.families.family import Family
from minitrain.storage.safetensors_io import checked, read_tensors, tensor_keys, weight_files

# The output of a masked language model's head, mostly tied to the word embeddings.
DECODERS = ("decoder.weight", "vocab_projector.weight", "generator_lm_head.weight")

LONGEST_KEY = 200  # in a command of a message


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What was done with each key.

    Args:
        loaded: Keys of the files that were copied.
        ignored: Keys of the files that were not.
        new: Parameters of the model that were initialised at random.
        unusual: Ignored keys that are rare in checkpoints, such as another task's head.
        prefix: Stood before all keys and was left out, such as "module.".
    """

    loaded: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    unusual: list[str] = field(default_factory=list)
    prefix: str = ""

    def facts(self) -> dict[str, Any]:
        """The entry in `results.json`."""
        return {
            "loaded": len(self.loaded),
            "prefix": self.prefix,
            "ignored": _shortened(self.ignored),
            "new": _shortened(self.new),
        }

    def line(self) -> str:
        """As in a run's header: 37 loaded, 2 ignored (qa_outputs.weight, qa_outputs.bias), 2 new (...)."""
        prefix = f" from behind {self.prefix!r}" if self.prefix else ""
        among = "among them " if len(self.unusual) < len(self.ignored) else ""
        ignored = f" ({among}{', '.join(_shortened(self.unusual, 6))})" if self.unusual else ""
        new = f"{len(self.new)} new ({', '.join(self.new)})" if self.new else "none new"
        return f"{len(self.loaded)} loaded{prefix}, {len(self.ignored)} ignored{ignored}, {new}"


def _shortened(names: list[str], most: int = 100) -> list[str]:
    return names if len(names) <= most else [*names[: most - 1], f"and {len(names) - most + 1} more"]


def read_keys(directory: Path, family: Family) -> KeyMap:
    """The keys of a folder's weights. Raises MinitrainError with the folder, or the file that cannot be read."""
    try:
        return map_keys((key for file in weight_files(directory) for key in tensor_keys(file)), family)
    except MinitrainError as error:
        if str(error).startswith(str(directory)):
            raise
        raise MinitrainError(f"{directory}: {error}") from error


def fill(model: nn.Module, names: dict[str, str], keys: KeyMap, directory: Path, keeps_head: bool) -> LoadReport:
    """Copy the tensors of a checkpoint into a model.

    Args:
        model: Its parameters are overwritten.
        names: The reference's key -> our parameter.
        keys: The keys of the checkpoint.
        directory: The checkpoint.
        keeps_head: The checkpoint's head is used.

    Raises:
        MinitrainError: A tensor does not fit, or a key is missing, superfluous or twice there.
    """
    parameters = dict(model.named_parameters())
    loaded: dict[str, str] = {}  # our name -> the file's key
    ignored: list[str] = []
    for file in weight_files(directory):
        for key, tensor in read_tensors(file):
            ours = _parameter(key, keys, names)
            if ours is None:
                _check_needless(file, key, tensor, keys, keeps_head)
            if ours is None or not keeps_head and not _fits_new_head(ours, tensor, parameters[ours]):
                ignored.append(key)
                continue
            if ours in loaded:
                raise MinitrainError(
                    f"{file}: {shown(key)} and {shown(loaded[ours])} are the same parameter: take one "
                    + _out_of(file, key)
                )
            remedy = "; --new_head leaves it out and trains a new one" if ours.startswith("head.") else ""
            with torch.no_grad():
                parameters[ours].copy_(checked(file, key, tensor, parameters[ours].shape, remedy))
            loaded[ours] = key
    new = [name for name in parameters if name not in loaded]
    missing = [theirs for theirs, ours in names.items() if ours in new and not ours.startswith("head.")]
    if missing:
        raise MinitrainError(_lack(directory, missing, keys, names))
    unusual = [key for key in ignored if not keys.is_harmless(key)]
    return LoadReport(loaded=list(loaded.values()), ignored=ignored, new=new, unusual=unusual, prefix=keys.prefix)


def _parameter(key: str, keys: KeyMap, names: dict[str, str]) -> str | None:
    name = keys.reference_name(key)
    return None if name is None else names.get(name) or names.get(keys.family.prefix + name)


def _fits_new_head(ours: str, tensor: Tensor, parameter: nn.Parameter) -> bool:
    """Whether the tensor is kept beside a new head: not its output, nor parts of another shape."""
    return not ours.startswith("head.output.") and (not ours.startswith("head.") or tensor.shape == parameter.shape)


def _check_needless(file: Path, key: str, tensor: Tensor, keys: KeyMap, keeps_head: bool) -> None:
    """Raise MinitrainError if ignoring the key may change the output of the encoder or of a kept head."""
    if keys.is_harmless(key) or (keys.in_head(key) and not keeps_head):
        return
    inside = keys.in_encoder(key)
    if not inside and (not keeps_head or not tensor.is_floating_point()):  # integers are counters, not weights
        return
    take_out = f"take it {_out_of(file, key)}"
    if ADAPTER.search(key):
        remedy = (
            "it belongs to a low-rank adapter; merge it first, with merge_and_unload() of peft, and save the model"
        )
    elif inside:
        remedy = f"take weights and config.json of the same model; or, if it does without that key, {take_out}"
    else:
        remedy = f"--new_head ignores it and trains a new head; or, if the trained head does without it, {take_out}"
    raise MinitrainError(
        f"{file}: holds {shown(key)}, which no {keys.family.architecture} of this config.json has: {remedy}"
    )


def _out_of(file: Path, key: str) -> str:
    if len(key) > LONGEST_KEY:
        return "out of the file"
    return f"out, with (in its folder){rewrite_command('k: v', f'k != {literal(key)}', file.name)}"


def _lack(directory: Path, missing: list[str], keys: KeyMap, names: dict[str, str]) -> str:
    """The error message for an encoder with missing keys."""
    behind = f" (behind {keys.prefix!r})" if keys.prefix else ""
    message = (
        f"{directory}: the weights lack {len(missing)} keys of the encoder{behind}, the first {missing[0]!r}; "
    )
    decoder = next((key for key in keys.keys if key.endswith(DECODERS)), None)
    if decoder is not None and [names[key] for key in missing] == ["encoder.embeddings.word.weight"]:
        renamed = rewrite_command(f"({literal(missing[0])} if k == {literal(decoder)} else k): v")
        return (
            f"{message}they hold {decoder!r}, the same tensor where the two were tied, as they mostly are: give it "
            f"the encoder's name, with (in its folder){renamed}"
        )
    return f"{message}only a head may be missing: take weights and config.json of the same model"
