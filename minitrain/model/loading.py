"""Copies a checkpoint's tensors into a model and accounts for every key.

A parameter is loaded, or new if it is the head's. A key is used, or ignored if neither the encoder nor a trained
head needs it; any other key is an error with a way out.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minitrain.errors import MinitrainError, listed, literal, python_command, shown
from minitrain.model.encoder_config import EncoderConfig
from minitrain.model.families import FAMILIES
from minitrain.model.families.bert import Family
from minitrain.storage.safetensors_io import checked, read_tensors, tensor_keys, weight_files

# In some families their heads have the keys of a sequence classifier's: only `architectures` tells them apart.
OTHER_TASKS = ("ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")
# Keys that change no output in any family: buffers of older versions, counters of a profiler (thop), class weights.
HARMLESS = (
    r"(.*\.)?(position|token_type)_ids",
    r".*\.rotary_emb\.(\w+_)?inv_freq",
    r"(.*\.)?total_(ops|params)",
    r"(.*\.)?(loss|loss_fct|loss_fn|loss_function|criterion|ce_loss|bce_loss)\.(pos_)?weight",
    r"(.*\.)?(class|label|pos)_weights?",
)
ADAPTER = re.compile(r"\.(lora_(A|B|embedding_A|embedding_B)|base_layer|modules_to_save)\.")


@dataclass(frozen=True)
class KeyMap:
    """The keys of a checkpoint, read as one family's.

    Args:
        prefix: Stands before all keys, such as "module."; mostly "".
        bare: The encoder's own prefix ("bert.") is missing, because the encoder was saved without a head.
    """

    family: Family
    keys: Collection[str]
    prefix: str
    bare: bool

    def reference_name(self, key: str) -> str | None:
        """The key's name in today's reference model with a head; None for a key without the prefix.

        For BERT and "module.": module.embeddings.LayerNorm.gamma -> bert.embeddings.LayerNorm.weight
        """
        if not key.startswith(self.prefix):
            return None
        key = key.removeprefix(self.prefix)
        if key.endswith(".gamma"):  # TensorFlow's names, in checkpoints of 2018 and 2019
            key = key.removesuffix("gamma") + "weight"
        elif key.endswith(".beta"):
            key = key.removesuffix("beta") + "bias"
        if not self.bare:
            return key
        start = self.family.prefix
        inside = {
            name.removeprefix(start).split(".")[0] for name, _ in self.family.key_map if name.startswith(start)
        }
        return start + key if key.split(".")[0] in inside else key

    def in_encoder(self, key: str) -> bool:
        """Whether the key belongs to the encoder, so that ignoring it would change the output."""
        name = self.reference_name(key) or ""
        return name.startswith(self.family.prefix) and not name.startswith(self._head_modules())

    def in_head(self, key: str) -> bool:
        """Whether the key belongs to the head, pooler included."""
        return (self.reference_name(key) or "").startswith(self._head_modules())

    def _head_modules(self) -> tuple[str, ...]:
        return tuple(f"{theirs}." for theirs, ours in self.family.key_map if ours.startswith("head."))

    def has_head(self, config: EncoderConfig) -> bool:
        """Whether the files hold a sequence classifier's head: all its matrices, and not another task's."""
        if config.architecture is not None and config.architecture.endswith(OTHER_TASKS):
            return False
        names = {self.reference_name(key) for key in self.keys}
        return all(f"{module}weight" in names for module in self._head_modules())

    def is_harmless(self, key: str) -> bool:
        """Whether the key is common in checkpoints and changes no output."""
        name = key.removeprefix(self.prefix)
        return any(re.fullmatch(pattern, name) for pattern in (*self.family.ignored, *HARMLESS))


def map_keys(keys: Iterable[str], family: Family) -> KeyMap:
    """Find the prefix of the encoder's keys. Raises MinitrainError if there is more than one encoder."""
    keys = dict.fromkeys(keys)
    for module in ("encoder.embeddings.word", "encoder.embeddings.norm"):
        (whole,) = (f"{theirs}." for theirs, ours in family.key_map if ours == module)
        whole_keys, bare_keys = _before(keys, whole), _before(keys, whole.removeprefix(family.prefix))
        # "module." and "module.bert." both stand before module.bert.embeddings...: the shorter has the head too.
        bare_keys -= {prefix + family.prefix for prefix in whole_keys}
        if found := whole_keys | bare_keys:
            prefix = "" if "" in found else _only(found)
            _check_family(prefix, family)
            return KeyMap(family, keys, prefix, bare=prefix not in whole_keys)
    return KeyMap(family, keys, "", bare=False)


def _before(keys: Iterable[str], module: str) -> set[str]:
    """The prefixes of the keys that are a module's weight."""
    pattern = re.compile(rf"(|.*\.){re.escape(module)}(weight|gamma)")
    return {match[1] for key in keys if (match := pattern.fullmatch(key))}


def _only(prefixes: set[str]) -> str:
    if len(prefixes) > 1:
        one = literal(sorted(prefixes)[0])
        raise MinitrainError(
            f"the weights hold {len(prefixes)} encoders, behind {listed(map(repr, sorted(prefixes)))}: keep one, "
            f"with (in their folder){rewrite_command(f'k.removeprefix({one}): v', f'k.startswith({one})')}"
        )
    return next(iter(prefixes))


def _check_family(prefix: str, family: Family) -> None:
    """Raise MinitrainError if the prefix is another family's, whose layers would fit in."""
    end = f"{prefix.rstrip('.').rpartition('.')[2]}."
    others = [name for name, other in FAMILIES.items() if other.prefix == end]
    if not others or end == "model.":  # ModernBERT's, which wrappers use too
        return
    other = end[:-1] if end[:-1] in others else others[0]
    start, own = literal(prefix), literal(prefix.removesuffix(end) + family.prefix)
    renamed = rewrite_command(f"({own} + k.removeprefix({start}) if k.startswith({start}) else k): v")
    raise MinitrainError(
        f"the keys stand behind {shown(prefix)}, as a {other}'s do, and config.json says {family.model_type}: make "
        f"'model_type' {other} if the weights are; or, if they are a {family.model_type}'s by another name, "
        f"rename them, with (in their folder){renamed}"
    )


def rewrite_command(entry: str, condition: str = "", file: str = "model.safetensors") -> str:
    """A command that rewrites a file; entry and condition are Python about a key k and its value v."""
    kept = f"{{{entry} for k, v in w.items(){f' if {condition}' if condition else ''}}}"
    return python_command(
        "from safetensors.torch import load_file, save_file; "
        f"w = {{k: v.clone() for k, v in load_file({literal(file)}).items()}}; "
        f'save_file({kept}, {literal(file)}, metadata={{"format": "pt"}})'
    )


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
        prefix = f" from behind {shown(self.prefix)}" if self.prefix else ""
        among = "among them " if len(self.unusual) < len(self.ignored) else ""
        ignored = f" ({among}{listed(_shortened(self.unusual, 6))})" if self.unusual else ""
        new = f"{len(self.new)} new ({listed(self.new)})" if self.new else "none new"
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
