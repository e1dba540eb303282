"""The configuration of an encoder and its head, read from `config.json` and checked before any weight is read.

Nothing is guessed: a size that is missing, negative or huge is an error that names the key. `read_config` in
`weights.py` adds the file.
"""

import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar

from minitrain.config.problem_types import MOST_LABELS, MULTI_LABEL, PROBLEM_TYPES, REGRESSION
from minitrain.errors import MinitrainError, shown
from minitrain.model.layers import ACTIVATIONS

LARGEST_SIZE = 2**24  # of one dimension, larger than any encoder's
MOST_LAYERS = 256  # each is built before its weights are read, which takes a few milliseconds

# ---- fields of a configuration, each with the values that it accepts ---------------------------------------------


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _field(default: Any, accepts: Callable[[Any], bool], expected: str) -> Any:
    return field(default=default, metadata={"accepts": accepts, "expected": expected})


def size(default: Any = MISSING, smallest: int = 1, largest: int = LARGEST_SIZE) -> Any:
    """A count; without a default it must be in config.json."""
    return _field(
        default,
        lambda value: _is_whole(value) and smallest <= value <= largest,
        f"an integer from {smallest} to {largest}",
    )


def probability(default: float | None) -> Any:
    """A dropout probability."""
    return _field(default, lambda value: _is_number(value) and 0.0 <= value <= 1.0, "a probability from 0 to 1")


def positive(default: float) -> Any:
    """A positive finite number."""
    return _field(
        default, lambda value: _is_number(value) and 0 < value <= sys.float_info.max, "a positive finite number"
    )


def token_id(default: int | None) -> Any:
    """A token id; None if config.json says null."""
    return _field(default, lambda value: _is_whole(value) and value >= 0, "a token id, an integer from 0")


def choice(default: str, among: Collection[str]) -> Any:
    """One of several names."""
    return _field(default, lambda value: isinstance(value, str) and value in among, f"one of {', '.join(among)}")


def choices(default: tuple[str, ...], among: Collection[str]) -> Any:
    """Any of several names."""
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
    """The sizes of an encoder and its head, in minitrain's names; `Family.config_names` has those of config.json.

    The defaults are BERT's; a family with others, or with more fields, has a subclass.

    Args:
        pad_token_id: This embedding gets no gradient; None for no such embedding.
        chunk_size: Positions that a feed-forward layer takes at once, 0 for all.
        label_names: None if the checkpoint does not name its classes.
        head_fault: Why a trained head cannot be used; a new one can.
        architecture: The class that saved the checkpoint.
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
    num_labels: int = 2
    label_names: tuple[str, ...] | None = None
    problem_type: str | None = None
    head_fault: str | None = None
    architecture: str | None = None

    UNSUPPORTED: ClassVar[tuple[str, ...]] = ("is_decoder", "add_cross_attention")  # keys that must not be true

    @property
    def is_regression(self) -> bool:
        """Whether the head predicts a score, as a single output does unless it is one of several labels a text."""
        return self.problem_type == REGRESSION or (self.num_labels == 1 and not self.is_multi_label)

    @property
    def is_multi_label(self) -> bool:
        """Whether a text has any number of the labels, each with a probability of its own."""
        return self.problem_type == MULTI_LABEL

    @property
    def max_length(self) -> int:
        """The most tokens of a text, special ones included."""
        return self.max_position_embeddings

    @property
    def feed_forward_products(self) -> int:
        """Matrices of hidden by intermediate size in a feed-forward layer, for counting operations."""
        return 2

    def validate(self, keys: Mapping[str, str]) -> None:
        """Raise MinitrainError if fields contradict each other; `keys` has the name of each in config.json."""
        if self.hidden_size % self.num_heads:
            raise MinitrainError(
                f"{keys['hidden_size']!r} is {self.hidden_size}, which {keys['num_heads']!r} = {self.num_heads} "
                "does not divide; the heads share the hidden size evenly"
            )
        if self.pad_token_id is not None and self.pad_token_id >= self.vocab_size:
            raise MinitrainError(
                f"'pad_token_id' is {self.pad_token_id}, outside the vocabulary of {self.vocab_size}"
            )


def encoder_config(raw: Mapping[str, Any], names: Mapping[str, str], kind: type[EncoderConfig]) -> EncoderConfig:
    """Build and check a configuration from a parsed `config.json`.

    Args:
        raw: What config.json holds.
        names: Our field -> the key in config.json; a key that is missing keeps our default.
        kind: The family's class.

    Raises:
        MinitrainError: A key is missing, has a value that is not accepted, or contradicts another.
    """
    values: dict[str, Any] = {"model_type": raw["model_type"]}
    for spec in fields(kind):
        key = names.get(spec.name)
        if key is None:
            continue
        if raw.get(key) is None:
            if spec.default is MISSING:
                raise MinitrainError(f"has no {key!r}, which a {raw['model_type']} checkpoint needs")
            if key in raw and spec.name == "pad_token_id":
                values[spec.name] = None  # to the reference null is no padding id, while a missing key is 0
        elif not spec.metadata["accepts"](raw[key]):
            raise MinitrainError(f"{key!r} is {shown(raw[key])}; expected {spec.metadata['expected']}")
        else:
            values[spec.name] = raw[key]
    for key in kind.UNSUPPORTED:
        if raw.get(key):
            raise MinitrainError(f"{key!r} is {shown(raw[key])}, which minitrain does not support")
    config = kind(**values | _labels(raw))
    config.validate(names)
    return config


def _labels(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the head: the number of labels, their names in order, and what is wrong with them."""
    fault = None
    problem = raw.get("problem_type")
    if problem is not None and problem not in PROBLEM_TYPES:
        fault = (
            f"'problem_type' is {shown(problem)}; minitrain trains {', '.join(PROBLEM_TYPES)}: put one of them "
            "there, or train a new head with --new_head"
        )
    names, wrong = _label_names(raw.get("id2label"))
    if names is None:
        count = raw.get("num_labels", 2)
        if not (_is_whole(count) and 0 < count <= MOST_LABELS):
            raise MinitrainError(f"'num_labels' is {shown(count)}; expected an integer from 1 to {MOST_LABELS}")
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
    """`id2label` -> the names in order of their ids, or None; and what is wrong with the table, or None.

    Ids count from 0 or 1; names may be numbers; the table may be a list.
    """
    if isinstance(table, list):
        table = {str(i): name for i, name in enumerate(table)}
    if table is None or table == {}:
        return None, None
    wrong = (
        f"'id2label' is {shown(table)}; expected a name for each class, counted from 0: write "
        '{"0": "no", "1": "yes"}, or train a new head with --new_head'
    )
    if not isinstance(table, dict) or len(table) > MOST_LABELS or not all(map(_is_label, table.items())):
        return None, wrong
    names = {int(key): str(value) for key, value in table.items()}
    first = min(names)
    if first > 1 or sorted(names) != [*range(first, first + len(table))]:
        return None, wrong
    return tuple(names[i] for i in sorted(names)), None


def _is_label(entry: tuple[str, Any]) -> bool:
    return re.fullmatch(r"\d{1,9}", entry[0], re.ASCII) is not None and isinstance(entry[1], str | int | float)
