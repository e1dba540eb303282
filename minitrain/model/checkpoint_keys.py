"""Whose each key of a checkpoint is: the encoder's, the head's or a stranger's, and what stands before all of them.

Names in, names out: `weights.py` reads the tensors. A model that was wrapped when it was saved (torch.compile,
DataParallel, Lightning) has one prefix before all its keys; the heads of other tasks, the weights of a loss and the
buffers of older versions are keys that a classifier does not need.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from minitrain.errors import MinitrainError, listed, literal, python_command
from minitrain.model.encoder_config import EncoderConfig
from minitrain.model.families import FAMILIES, Family

# Heads of these classes have the keys that a sequence classifier's has, in some family: only `architectures` tells.
OTHER_TASKS = ("ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")
# Keys that change no output, whatever the family: buffers of older versions, the counters of a profiler (thop), the
# class weights of a loss.
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
    """The keys of a checkpoint's files, read as one family's.

    prefix: what stands before all keys, such as "module."; "" mostly. bare: whether the encoder's own prefix
    ("bert.") is missing, as where an encoder was saved without a head.
    """

    family: Family
    keys: Collection[str]
    prefix: str
    bare: bool

    def reference_name(self, key: str) -> str | None:
        """The name of today in a model with a head, for a key that may be old; None for one without the prefix.

        With BERT and "module.": module.embeddings.LayerNorm.gamma -> bert.embeddings.LayerNorm.weight
        """
        if not key.startswith(self.prefix):
            return None
        key = key.removeprefix(self.prefix)
        if key.endswith(".gamma"):  # TensorFlow's names, in checkpoints of 2018 and 2019
            key = key.removesuffix("gamma") + "weight"
        elif key.endswith(".beta"):
            key = key.removesuffix("beta") + "bias"
        return self.family.prefix + key if self.bare and self._is_bare(key) else key

    def _is_bare(self, key: str) -> bool:
        start = self.family.prefix
        tops = {
            theirs.removeprefix(start).split(".")[0]
            for theirs, _ in self.family.renames
            if theirs.startswith(start)
        }
        return key.split(".")[0] in tops

    def in_encoder(self, key: str) -> bool:
        """Whether a key belongs to the encoder, so that ignoring it would compute something else."""
        name = self.reference_name(key)
        return (
            name is not None and name.startswith(self.family.prefix) and not name.startswith(self._head_modules())
        )

    def in_head(self, key: str) -> bool:
        """Whether a key is one of the head's modules, pooler included."""
        return (self.reference_name(key) or "").startswith(self._head_modules())

    def _head_modules(self) -> tuple[str, ...]:
        return tuple(f"{theirs}." for theirs, ours in self.family.renames if ours.startswith("head."))

    def has_head(self, config: EncoderConfig) -> bool:
        """Whether the files hold a trained head of a sequence classifier: all its matrices, and no other task's."""
        if config.architecture is not None and config.architecture.endswith(OTHER_TASKS):
            return False
        names = {self.reference_name(key) for key in self.keys}
        return all(f"{module}weight" in names for module in self._head_modules())

    def is_harmless(self, key: str) -> bool:
        """Whether a key that no parameter takes is one that many checkpoints hold, and nothing depends on."""
        name = key.removeprefix(self.prefix)
        return any(re.fullmatch(pattern, name) for pattern in (*self.family.ignored, *HARMLESS))


def map_keys(keys: Iterable[str], family: Family) -> KeyMap:
    """Find what stands before the encoder's keys.

    Raises MinitrainError where there is more than one encoder to choose from, with how to take one.
    """
    keys = dict.fromkeys(keys)
    for module in ("encoder.embeddings.word", "encoder.embeddings.norm"):
        (whole,) = (f"{theirs}." for theirs, ours in family.renames if ours == module)
        whole_keys, bare_keys = _before(keys, whole), _before(keys, whole.removeprefix(family.prefix))
        # "module." and "module.bert." both stand before module.bert.embeddings...: the shorter has the head too.
        bare_keys -= {prefix + family.prefix for prefix in whole_keys}
        if found := whole_keys | bare_keys:
            prefix = "" if "" in found else _only(found)
            _check_family(prefix, family)
            return KeyMap(family, keys, prefix, bare=prefix not in whole_keys)
    return KeyMap(family, keys, "", bare=False)


def _before(keys: Iterable[str], module: str) -> set[str]:
    """What stands before a module's weight in those keys that hold it."""
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
    """Raise MinitrainError where the prefix is another family's own: one's layers fit into the other."""
    end = f"{prefix.rstrip('.').rpartition('.')[2]}."
    others = [name for name, other in FAMILIES.items() if other.prefix == end]
    if not others or end == "model.":  # ModernBERT's, which wrappers use too
        return
    other = end[:-1] if end[:-1] in others else others[0]
    start, own = literal(prefix), literal(prefix.removesuffix(end) + family.prefix)
    renamed = rewrite_command(f"({own} + k.removeprefix({start}) if k.startswith({start}) else k): v")
    raise MinitrainError(
        f"the keys stand behind {prefix!r}, as a {other}'s do, and config.json says {family.model_type}: make "
        f"'model_type' {other} if the weights are; or, if they are a {family.model_type}'s by another name, "
        f"rename them, with (in their folder){renamed}"
    )


def rewrite_command(entry: str, condition: str = "", file: str = "model.safetensors") -> str:
    """A command that rewrites a file where it is run. entry, condition: Python, of a key k and its value v."""
    kept = f"{{{entry} for k, v in w.items(){f' if {condition}' if condition else ''}}}"
    return python_command(
        "from safetensors.torch import load_file, save_file; "
        f"w = {{k: v.clone() for k, v in load_file({literal(file)}).items()}}; "
        f'save_file({kept}, {literal(file)}, metadata={{"format": "pt"}})'
    )
