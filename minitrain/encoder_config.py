"""What a checkpoint is: the shape of its encoder and head, read from `config.json` and checked before any weight.

Nothing is guessed: a size that is missing, negative or huge is an error that names the file and the key.
"""

import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from minitrain.errors import MinitrainError

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")
CLASSIFICATION, REGRESSION = PROBLEM_TYPES = ("single_label_classification", "regression")
LARGEST_SIZE = 2**24  # of one dimension: beyond every encoder there is
MOST_LAYERS = 1024  # each is made before its weights are looked for


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The shape of an encoder and its head, in minitrain's names; a family translates to the checkpoint's.

    Sizes are counts; dropouts are probabilities of zeroing an element. `label_names` is None when the
    checkpoint never named its classes, `pad_token_id` when no embedding is kept from learning.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    num_labels: int = 2
    label_names: tuple[str, ...] | None = None
    problem_type: str | None = None

    @property
    def is_regression(self) -> bool:
        """Whether the head gives a score; one output alone is one, whatever the checkpoint calls it."""
        return self.problem_type == REGRESSION or self.num_labels == 1


SIZES = (
    "vocab_size",
    "hidden_size",
    "num_layers",
    "num_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "num_labels",
)
PROBABILITIES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")


def encoder_config(raw: Mapping[str, Any], names: Mapping[str, str], path: Path) -> EncoderConfig:
    """Build and check an EncoderConfig from a parsed `config.json`.

    `names` maps our field names to the family's keys; what a family leaves out keeps our default.
    Raises MinitrainError naming the file, the key as the file has it, what was got and what was expected.
    """
    values: dict[str, Any] = {"model_type": raw["model_type"]}
    for spec in fields(EncoderConfig):
        key = names.get(spec.name)
        if key is None:
            continue
        if raw.get(key) is None:
            if spec.default is MISSING:
                raise MinitrainError(f"{path}: has no {key!r}, which a {raw['model_type']} checkpoint needs")
            if key in raw and spec.name == "pad_token_id":
                values[spec.name] = None  # in the reference null is no padding id, only an absent key is 0
            continue
        values[spec.name] = _checked(spec.name, raw[key], f"{path}: {key!r}")
    for key in ("is_decoder", "add_cross_attention"):
        if raw.get(key):
            raise MinitrainError(f"{path}: {key!r} is {raw[key]!r}; minitrain trains encoders alone")
    values |= _labels(raw, path)
    config = EncoderConfig(**values)
    _check_whole(config, names, path)
    return config


def _checked(name: str, value: Any, where: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in SIZES:
        largest = MOST_LAYERS if name == "num_layers" else LARGEST_SIZE
        if not (isinstance(value, int) and number and 0 < value <= largest):
            raise MinitrainError(f"{where} is {value!r}; expected an integer from 1 to {largest}")
    elif name in PROBABILITIES:
        if not (number and 0.0 <= value <= 1.0):
            raise MinitrainError(f"{where} is {value!r}; expected a probability from 0 to 1")
    elif name in ("layer_norm_eps", "initializer_range"):
        if not (number and 0 < value <= sys.float_info.max):
            raise MinitrainError(f"{where} is {value!r}; expected a positive finite number")
    elif name == "pad_token_id":
        if not (isinstance(value, int) and number and value >= 0):
            raise MinitrainError(f"{where} is {value!r}; expected a token id, an integer from 0")
    elif name == "hidden_act" and value not in ACTIVATIONS:
        raise MinitrainError(f"{where} is {value!r}; expected one of {', '.join(ACTIVATIONS)}")
    return value


def _labels(raw: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """`id2label` (string keys, as the Hub stores it) -> the number of labels and their names in order."""
    problem = raw.get("problem_type")
    if problem is not None and problem not in PROBLEM_TYPES:
        raise MinitrainError(
            f"{path}: 'problem_type' is {problem!r}; minitrain trains {' and '.join(PROBLEM_TYPES)}"
        )
    names = raw.get("id2label")
    if names is None:
        count = raw.get("num_labels", 2)
        return {"num_labels": _checked("num_labels", count, f"{path}: 'num_labels'"), "problem_type": problem}
    ids = [str(i) for i in range(len(names))] if isinstance(names, dict) else []
    if not ids or set(names) != set(ids) or not all(isinstance(name, str) for name in names.values()):
        raise MinitrainError(f"{path}: 'id2label' is {str(names)[:200]}; expected ids 0, 1, ... with names")
    return {
        "num_labels": len(names),
        "label_names": tuple(names[i] for i in ids),
        "problem_type": problem,
    }


def _check_whole(config: EncoderConfig, names: Mapping[str, str], path: Path) -> None:
    if config.hidden_size % config.num_heads:
        raise MinitrainError(
            f"{path}: {names['hidden_size']!r} is {config.hidden_size}, which {names['num_heads']!r} = "
            f"{config.num_heads} does not divide; the heads share the hidden size evenly"
        )
    if config.pad_token_id is not None and config.pad_token_id >= config.vocab_size:
        raise MinitrainError(
            f"{path}: 'pad_token_id' is {config.pad_token_id}, outside the vocabulary of {config.vocab_size}"
        )
