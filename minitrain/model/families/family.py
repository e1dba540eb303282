"""A family of checkpoints, described by values and a few small functions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor, nn

from minitrain.model.encoder_config import EncoderConfig


def init_normal(name: str, parameter: Tensor, config: EncoderConfig) -> None:
    """Initialise a new parameter as most of transformers 5.23 does: normal (0, initializer_range), biases 0."""
    if name.endswith("bias"):
        parameter.zero_()
    else:
        parameter.normal_(0.0, config.initializer_range)


@dataclass(frozen=True, kw_only=True)
class Family:
    """How to read, build and write one kind of checkpoint.

    Args:
        model_type: The value in config.json.
        architecture: The reference's class name, written to `architectures`.
        prefix: Stands before the encoder's keys in checkpoints with a head; others leave it out.
        config: The family's configuration class.
        config_keys: Our field -> the key in config.json, for those that differ.
        absent: Our fields that the family's config.json does not have.
        normalize_config: A parsed config.json -> one with the keys of `config_names`, if versions of it differ.
        key_map: (the reference's module, our module); `{i}` is the number of a block.
        block_key: (config, number of a block) -> what replaces `{i}` in the reference's module.
        ignored: Regular expressions of keys that a file may hold and a classifier does not need.

        embeddings: config -> module (input_ids, token_type_ids, attention_mask or None, kernels) -> (B, L, H);
            its table of words is called `word`.
        block: (config, number) -> module (x, context, queries) -> (B, L, H) or (B, Q, H).
        layer_order: config -> the number of the block for each layer; ALBERT's layers share blocks.
        per_forward: config -> module (x, attention_mask or None, kernels); its output is `context.shared`.
        final_norm: config -> module (B, L, H) -> (B, L, H) after the last block.
        head: config -> module (x, attention_mask or None, kernels) -> (B, C). Its last layer is called `output`;
            `cls_only` says that it reads the first position alone.
        head_first: Whether the head is registered before the encoder.
        init_parameter: (name, parameter, config); initialises a parameter that the checkpoint lacks.
    """

    model_type: str
    architecture: str
    prefix: str
    config_keys: dict[str, str]
    key_map: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]
    embeddings: Callable[[Any], nn.Module]
    block: Callable[[Any, int], nn.Module]
    head: Callable[[Any], nn.Module]
    config: type[EncoderConfig] = EncoderConfig
    absent: tuple[str, ...] = ()
    normalize_config: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda raw: raw
    block_key: Callable[[Any, int], str] = lambda config, number: str(number)
    layer_order: Callable[[Any], list[int]] = lambda config: list(range(config.num_layers))
    per_forward: Callable[[Any], nn.Module] | None = None
    final_norm: Callable[[Any], nn.Module] | None = None
    head_first: bool = False
    init_parameter: Callable[[str, Tensor, Any], None] = init_normal

    @property
    def config_names(self) -> dict[str, str]:
        """Our field -> the key in config.json, for all that are read from there."""
        names = [spec.name for spec in fields(self.config) if spec.metadata and spec.name not in self.absent]
        return {name: self.config_keys.get(name, name) for name in names}
