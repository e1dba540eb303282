"""What a checkpoint is: the shape of its encoder and head, read from `config.json` and checked before any weight.

Nothing is guessed: a size that is missing, negative or huge is an error that names the file and the key.
"""

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from minitrain.config.problem_types import MOST_LABELS, MULTI_LABEL, PROBLEM_TYPES, REGRESSION
from minitrain.errors import MinitrainError, shown

# All that transformers 5.23 has under a name, but for those with parameters (prelu, xielu).
ACTIVATIONS = (
    *("gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_python_tanh"),
    *("gelu_pytorch_tanh", "hardswish", "laplace", "leaky_relu", "linear", "mish", "quick_gelu", "relu", "relu2"),
    *("relu6", "sigmoid", "silu", "sqrtsoftplus", "swish", "tanh"),
)
LARGEST_SIZE = 2**24  # of one dimension: beyond every encoder there is
MOST_LAYERS = 256  # each is made before its weights are looked for, which takes a few milliseconds

# ---- fields, each with what its value may be: a family's own configuration declares its fields with these --------


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _field(default: Any, accepts: Callable[[Any], bool], expected: str) -> Any:
    return field(default=default, metadata={"accepts": accepts, "expected": expected})


def size(default: Any = MISSING, smallest: int = 1, largest: int = LARGEST_SIZE) -> Any:
    """A count; without a default, a checkpoint has to give it."""
    return _field(
        default,
        lambda value: _is_whole(value) and smallest <= value <= largest,
        f"an integer from {smallest} to {largest}",
    )


def probability(default: float | None) -> Any:
    """A dropout: how often an element is zeroed."""
    return _field(default, lambda value: _is_number(value) and 0.0 <= value <= 1.0, "a probability from 0 to 1")


def positive(default: float) -> Any:
    """A positive finite number."""
    return _field(
        default, lambda value: _is_number(value) and 0 < value <= sys.float_info.max, "a positive finite number"
    )


def token_id(default: int | None) -> Any:
    """The id of a token, or None where the config says null."""
    return _field(default, lambda value: _is_whole(value) and value >= 0, "a token id, an integer from 0")


def choice(default: str, among: tuple[str, ...]) -> Any:
    """One of some names."""
    return _field(default, lambda value: value in among, f"one of {', '.join(among)}")


def choices(default: tuple[str, ...], among: tuple[str, ...]) -> Any:
    """Any number of some names."""
    return _field(
        default,
        lambda value: isinstance(value, tuple) and all(name in among for name in value),
        f"a list of any of {', '.join(among)}",
    )


def switch(default: bool) -> Any:
    """True or false."""
    return _field(default, lambda value: isinstance(value, bool), "true or false")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The shape of an encoder and its head, in minitrain's names; a family translates to the checkpoint's.

    Sizes are counts; dropouts are probabilities of zeroing an element. `label_names` is None when the
    checkpoint never named its classes, `pad_token_id` when no embedding is kept from learning. `head_fault` says
    why a trained head cannot be used; a new one does not mind. `architecture` is the class that saved the
    checkpoint. `chunk_size` is how many positions a feed-forward layer takes at once, 0 for all. The defaults are
    BERT's; a family with others, or with more fields, has a subclass.
    """

    model_type: str
    vocab_size: int = size()
    hidden_size: int = size()
    num_layers: int = size(largest=MOST_LAYERS)
    num_heads: int = size()
    intermediate_size: int = size()
    hidden_act: str = choice("gelu", ACTIVATIONS)
    hidden_dropout_prob: float = probability(0.1)
    attention_probs_dropout_prob: float = probability(0.1)
    classifier_dropout: float | None = probability(None)
    max_position_embeddings: int = size(512)
    type_vocab_size: int = size(2)
    initializer_range: float = positive(0.02)
    layer_norm_eps: float = positive(1e-12)
    pad_token_id: int | None = token_id(0)
    chunk_size: int = size(0, smallest=-LARGEST_SIZE)
    num_labels: int = size(2, largest=MOST_LABELS)
    label_names: tuple[str, ...] | None = None
    problem_type: str | None = None
    head_fault: str | None = None
    architecture: str | None = None

    UNSUPPORTED: ClassVar[tuple[str, ...]] = ("is_decoder", "add_cross_attention")  # keys that must not be true

    @property
    def is_regression(self) -> bool:
        """Whether the head gives a score; one output alone is one, whatever the checkpoint calls it."""
        return self.problem_type == REGRESSION or self.num_labels == 1

    @property
    def max_length(self) -> int:
        """Tokens that a text may have, special ones included."""
        return self.max_position_embeddings

    @property
    def feed_forward_products(self) -> int:
        """Products of hidden size by intermediate size in a feed-forward layer; a wider one counts as several."""
        return 2

    def inconsistency(self, keys: Mapping[str, str]) -> str | None:
        """What does not go together, in the file's keys (by our field), or None."""
        if self.hidden_size % self.num_heads:
            return (
                f"{keys['hidden_size']!r} is {self.hidden_size}, which {keys['num_heads']!r} = {self.num_heads} "
                "does not divide; the heads share the hidden size evenly"
            )
        if self.pad_token_id is not None and self.pad_token_id >= self.vocab_size:
            return f"'pad_token_id' is {self.pad_token_id}, outside the vocabulary of {self.vocab_size}"
        return None


def no_such_type(highest: int, config: EncoderConfig) -> str:
    """What to say of token type ids up to `highest` where the model has no embedding for them."""
    return (
        f"the tokenizer gives token types up to {highest}, as of the second text of a pair, but the model's "
        f"type_vocab_size (config.json) is {config.type_vocab_size}; to give every token the type 0, "
        'put "model_input_names": ["input_ids", "attention_mask"] into tokenizer_config.json'
    )


def encoder_config(
    raw: Mapping[str, Any], names: Mapping[str, str], path: Path, kind: type[EncoderConfig] = EncoderConfig
) -> EncoderConfig:
    """Build and check an EncoderConfig, or a family's kind of it, from a parsed `config.json`.

    `names` maps our field names to the family's keys; what a family leaves out keeps our default.
    Raises MinitrainError naming the file, the key as the file has it, what was got and what was expected.
    """
    values: dict[str, Any] = {"model_type": raw["model_type"]}
    for spec in fields(kind):
        key = names.get(spec.name)
        if key is None:
            continue
        if raw.get(key) is None:
            if spec.default is MISSING:
                raise MinitrainError(f"{path}: has no {key!r}, which a {raw['model_type']} checkpoint needs")
            if key in raw and spec.name == "pad_token_id":
                values[spec.name] = None  # in the reference null is no padding id, only an absent key is 0
            continue
        if not spec.metadata["accepts"](raw[key]):
            raise MinitrainError(f"{path}: {key!r} is {shown(raw[key])}; expected {spec.metadata['expected']}")
        values[spec.name] = raw[key]
    for key in kind.UNSUPPORTED:
        if raw.get(key):
            raise MinitrainError(f"{path}: {key!r} is {shown(raw[key])}, which minitrain does not support")
    config = kind(**values | _labels(raw, path))
    if (wrong := config.inconsistency(names)) is not None:
        raise MinitrainError(f"{path}: {wrong}")
    return config


def _labels(raw: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What config.json says of the head: how many labels, their names in order, and what is wrong with them."""
    fault = None
    problem = raw.get("problem_type")
    if problem == MULTI_LABEL:
        fault = (
            f"'problem_type' is {MULTI_LABEL!r}: minitrain neither trains nor applies a head of several labels a "
            "text; --new_head trains a new one on this encoder, and the pipeline of transformers applies this one"
        )
    elif problem is not None and problem not in PROBLEM_TYPES:
        fault = (
            f"'problem_type' is {shown(problem)}; minitrain trains {' and '.join(PROBLEM_TYPES)}: put one of them "
            "there, or train a new head with --new_head"
        )
    names, wrong = _label_names(raw.get("id2label"))
    if names is None:
        count = raw.get("num_labels", 2)
        if not (_is_whole(count) and 0 < count <= MOST_LABELS):
            raise MinitrainError(
                f"{path}: 'num_labels' is {shown(count)}; expected an integer from 1 to {MOST_LABELS}"
            )
    architectures = raw.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    return {
        "num_labels": count if names is None else len(names),
        "label_names": names,
        "problem_type": None if fault else problem,
        "head_fault": fault or wrong,
        "architecture": first if isinstance(first, str) else None,
    }


def _label_names(table: Any) -> tuple[tuple[str, ...] | None, str | None]:
    """`id2label` -> the names in order of their ids, None where there are none; and what is wrong with it.

    Ids are counted from 0, or from 1 as some people do; names may be numbers, and may be a list.
    """
    if isinstance(table, list):
        table = {str(i): name for i, name in enumerate(table)}
    if table is None or table == {}:
        return None, None
    wrong = (
        f"'id2label' is {shown(table)}; expected a name for each class, counted from 0: write "
        '{"0": "no", "1": "yes"}, or train a new head with --new_head'
    )
    if not isinstance(table, dict) or len(table) > MOST_LABELS:
        return None, wrong
    if not all(
        re.fullmatch(r"\d{1,9}", key, re.ASCII) and isinstance(v, str | int | float) for key, v in table.items()
    ):
        return None, wrong
    names = {int(key): str(value) for key, value in table.items()}
    first = min(names)
    if first > 1 or sorted(names) != [*range(first, first + len(table))]:
        return None, wrong
    return tuple(names[i] for i in sorted(names)), None
