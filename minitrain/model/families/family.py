"""What a family of checkpoints is: values and a few small functions, no behaviour of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from minitrain.model.encoder_config import EncoderConfig


def one_each(config: EncoderConfig) -> list[int]:
    """Every layer has a block of its own."""
    return list(range(config.num_layers))


def by_number(config: EncoderConfig, number: int) -> str:
    """The reference's keys have a block's number as it is."""
    return str(number)


def draw(name: str, parameter: Tensor, config: EncoderConfig) -> None:
    """A new parameter as most of transformers 5.23 draws it: weights normal (0, initializer_range), biases 0."""
    if name.endswith("bias"):
        parameter.zero_()
    else:
        parameter.normal_(0.0, config.initializer_range)


@dataclass(frozen=True, kw_only=True)
class Family:
    """How to read, build and write one kind of checkpoint.

    model_type: the config's value. architecture: the reference's class name, written to `architectures`.
    prefix: what the reference puts before the encoder's keys when there is a head; files come with or without.
    config_names: our field -> the config's key. config: the kind of configuration, with the family's own fields.
    translate: a parsed config.json -> one with the keys of `config_names`, where versions of it differ; its errors
        name the field, `read_config` adds the file.
    renames: (the reference's module, our module), `{i}` standing for the number of a block.
    block_key: (config, number of a block) -> what stands for `{i}` in the reference's module.
    ignored: regular expressions of keys that files may hold and a classifier does not need.

    The parts of a model, in the order of registration, which is the reference's:
    embeddings: module (input_ids, token_type_ids, attention_mask or None, kernels) -> (B, L, H); its table of words
        is called `word`.
    block: (config, its number) -> module (x, context, queries) -> (B, L, H), or (B, queries, H).
    layers: the blocks that x passes through, by number: each of them once, unless weights are shared.
    shared: module (x, attention_mask or None, kernels) -> what all blocks find as `context.shared`; None for none.
    final: module (B, L, H) -> (B, L, H) after the last block; None for none.
    head: module (x, attention_mask or None, kernels) -> (B, C); its last layer is called `output`; where
        `cls_only` is true, it reads the first position alone. head_first: whether it comes before the encoder.

    initialise: draws a parameter, given by name, that a checkpoint does not have.
    """

    model_type: str
    architecture: str
    prefix: str
    config_names: dict[str, str]
    renames: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]
    embeddings: Callable[[Any], nn.Module]
    block: Callable[[Any, int], nn.Module]
    head: Callable[[Any], nn.Module]
    config: type[EncoderConfig] = EncoderConfig
    block_key: Callable[[Any, int], str] = by_number
    translate: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda raw: raw
    layers: Callable[[Any], list[int]] = one_each
    shared: Callable[[Any], nn.Module] | None = None
    final: Callable[[Any], nn.Module] | None = None
    head_first: bool = False
    initialise: Callable[[str, Tensor, Any], None] = draw
