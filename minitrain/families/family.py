"""What a family of checkpoints is: values and three small functions, no behaviour of its own."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from minitrain.encoder_config import EncoderConfig


@dataclass(frozen=True, kw_only=True)
class Family:
    """How to read, build and write one kind of checkpoint.

    model_type: the config's value. architecture: the reference's class name, written to `architectures`.
    prefix: what the reference puts before the encoder's keys when there is a head; files come with or without.
    config_names: our field -> the config's key.
    renames: (the reference's module, our module), `{i}` standing for the number of a layer.
    ignored: regular expressions of keys that files may hold and a classifier does not need.
    embeddings, block, head: build the three parts of a model; the head's last layer is called `output`.
    """

    model_type: str
    architecture: str
    prefix: str
    config_names: dict[str, str]
    renames: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]
    embeddings: Callable[[EncoderConfig], nn.Module]
    block: Callable[[EncoderConfig], nn.Module]
    head: Callable[[EncoderConfig], nn.Module]
