"""Which layer a parameter belongs to, and freezing the lowest ones: no gradient, no update, on demand no dropout.

Levels count from the bottom: the embeddings are 0, the blocks 1 to n, the head n + 1. Layers that share a block, as
ALBERT's, are one level. Relative positions that all layers read belong to the embeddings, a norm after the last
block to that block, DeBERTa's convolution to the first block, BERT's pooler to the head.

Source of the levels: `get_num_layer_for_vit` of BEiT (Bao et al. 2021, arXiv 2106.08254).
"""

from collections.abc import Iterator

from torch import nn

from minitrain.config.freezing import EMBEDDINGS, ENCODER
from minitrain.errors import MinitrainError
from minitrain.model.classifier import Encoder, SequenceClassifier


def head_level(model: SequenceClassifier) -> int:
    """The highest level, n + 1."""
    return len(model.encoder.blocks) + 1


def levels(model: SequenceClassifier) -> Iterator[tuple[int, str, nn.Parameter]]:
    """(level, name, parameter) of every parameter, in registration order."""
    for name, parameter in model.named_parameters():
        yield _level(name, head_level(model)), name, parameter


def _level(name: str, head: int) -> int:
    """encoder.blocks.3.attention.query.weight -> 4"""
    part, *rest = name.split(".")
    if part == "head":
        return head
    if rest[0] == "blocks":
        return int(rest[1]) + 1
    if rest[0] == "final":
        return head - 1
    return 1 if rest[:2] == ["shared", "conv"] else 0


def frozen_level(model: SequenceClassifier, freeze: str | int) -> int:
    """The highest level that `--freeze` freezes. Raises MinitrainError if the model has fewer layers."""
    blocks = len(model.encoder.blocks)
    if freeze in (EMBEDDINGS, ENCODER):
        return 0 if freeze == EMBEDDINGS else blocks
    if int(freeze) > blocks:
        layers = len(model.encoder.layer_order)
        have = (
            f"{layers} layers" if layers == blocks else f"{blocks} sets of weights, which its {layers} layers share"
        )
        raise MinitrainError(f"--freeze {freeze}: the model has {have}; --freeze encoder freezes all of it")
    return int(freeze)


def freeze_layers(model: SequenceClassifier, freeze: str | int | None, dropout: bool = True) -> None:
    """Freeze what `--freeze` names, and undo an earlier call.

    Args:
        dropout: Whether the frozen part still drops out in training, as frozen modules of torch do.
    """
    encoder = model.encoder
    for parameter in encoder.frozen:
        parameter.requires_grad_(True)
    encoder.frozen, encoder.without_dropout = (), ()
    if freeze is not None:
        highest = frozen_level(model, freeze)
        encoder.frozen = tuple(
            parameter for level, _, parameter in levels(model) if level <= highest and parameter.requires_grad
        )
        for parameter in encoder.frozen:
            parameter.requires_grad_(False)
        if not dropout:
            shared = [encoder.shared] if encoder.shared is not None and highest > 0 else []  # DeBERTa's convolution
            encoder.without_dropout = encoder.embeddings, *encoder.blocks[:highest], *shared
    encoder.train(encoder.training)


def frozen_layers(encoder: Encoder) -> int:
    """How many of the lowest layers, in the order in which they are computed, have only frozen parameters."""
    for layer, number in enumerate(encoder.layer_order):
        if any(parameter.requires_grad for parameter in encoder.blocks[number].parameters()):
            return layer
    return len(encoder.layer_order)


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """The numbers of parameters that are trained, and of all."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)
