"""The keys of a checkpoint: which belong to the encoder, which to the head, which can be ignored.

Names only: `loading.py` reads the tensors. A model that was saved wrapped (torch.compile, DataParallel, Lightning)
has one prefix before all its keys. A classifier does not need other tasks' heads, the weights of a loss or old
buffers.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from minitrain.errors import MinitrainError, listed, literal, python_command
from minitrain.model.encoder_config import EncoderConfig
from minitrain.model.families import FAMILIES
from minitrain.model.families.family import Family

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
        start = self.family.prefix
        inside = {
            name.removeprefix(start).split(".")[0] for name, _ in self.family.key_map if name.startswith(start)
        }
        return start + key if self.bare and key.split(".")[0] in inside else key

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
        f"the keys stand behind {prefix!r}, as a {other}'s do, and config.json says {family.model_type}: make "
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
