"""The encoder and the classifier on top of it, for every family.

The loss is in `training/loss.py`, loading in `weights.py`. Shapes as in `layers.py`.
"""

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from minitrain.errors import MinitrainError
from minitrain.kernels import get_kernels
from minitrain.model.encoder_config import EncoderConfig
from minitrain.model.families import FAMILIES, check_type_ids
from minitrain.model.layers import Context, padding_mask

if TYPE_CHECKING:
    from minitrain.model.loading import LoadReport


class Encoder(nn.Module):
    """Token ids -> hidden states of the last layer. `kernels` is "fast" or "reference"."""

    def __init__(self, config: EncoderConfig, kernels: str = "fast") -> None:
        super().__init__()
        family = FAMILIES[config.model_type]
        self.config, self.max_length = config, config.max_length
        self.kernels = get_kernels(kernels)
        self.embeddings = family.embeddings(config)
        self.layer_order = family.layer_order(config)
        self.blocks = nn.ModuleList([family.block(config, number) for number in range(max(self.layer_order) + 1)])
        # The names `shared` and `final` stand in the checkpoints of runs.
        self.shared = family.per_forward(config) if family.per_forward else None
        self.final = family.final_norm(config) if family.final_norm else None
        # Set by `freezing.py`: parameters that it froze, and modules that stay in evaluation mode.
        self.frozen: tuple[nn.Parameter, ...] = ()
        self.without_dropout: tuple[nn.Module, ...] = ()

    def train(self, mode: bool = True) -> "Encoder":
        """As torch's, except that `without_dropout` stays in evaluation mode."""
        super().train(mode)
        for module in self.without_dropout:
            module.eval()
        return self

    @property
    def word_embeddings(self) -> nn.Embedding:
        """The word embeddings, (V, H); with `sparse = True` their gradient has only the rows that were read."""
        return cast(nn.Embedding, self.embeddings.word)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        cls_only: bool = False,
    ) -> Tensor:
        """Encode a padded batch.

        Args:
            input_ids: (B, L) int64.
            attention_mask: (B, L), non-zero at real tokens; None if all are.
            token_type_ids: (B, L) int64, 1 in the second text; None for all 0.
            cls_only: Compute only the first position of the last layer.

        Returns:
            (B, L, H), or (B, 1, H) with `cls_only`.

        Raises:
            MinitrainError: L exceeds the model's positions, or an id has no embedding.
        """
        if input_ids.size(1) > self.max_length:
            raise MinitrainError(
                f"a batch is {input_ids.size(1)} tokens long, the model has {self.max_length} positions: "
                f"truncate with max_length={self.max_length}"
            )
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        try:
            x = self.embeddings(input_ids, token_type_ids, attention_mask, self.kernels)  # (B, L, H)
        except IndexError as error:
            raise _out_of_range(self.config, input_ids, token_type_ids) from error
        shared = None if self.shared is None else self.shared(x, attention_mask, self.kernels)
        context = Context(mask=padding_mask(attention_mask), kernels=self.kernels, shared=shared)
        *others, last = (self.blocks[number] for number in self.layer_order)
        for block in others:
            x = block(x, context)
        x = last(x, context, 1 if cls_only else None)
        return x if self.final is None else cast(Tensor, self.final(x))


def _out_of_range(config: EncoderConfig, input_ids: Tensor, token_type_ids: Tensor) -> Exception:
    """The error for an id that has no embedding."""
    check_type_ids(config, int(token_type_ids.max()))
    if (highest := int(input_ids.max())) >= config.vocab_size:
        return MinitrainError(
            f"a batch has the token id {highest}, the model has embeddings for ids up to {config.vocab_size - 1}: "
            "use the model's own tokenizer"
        )
    return IndexError(f"token ids from {int(input_ids.min())}, type ids from {int(token_type_ids.min())}")


class SequenceClassifier(nn.Module):
    """An encoder and a head: token ids (B, L) -> logits (B, C), where C is 1 for regression."""

    encoder: Encoder
    head: nn.Module
    load_report: "LoadReport"  # set by `load_classifier`

    def __init__(self, config: EncoderConfig, kernels: str = "fast") -> None:
        super().__init__()
        self.config = config
        family = FAMILIES[config.model_type]
        parts = {"encoder": Encoder(config, kernels), "head": family.head(config)}
        for name in ("head", "encoder") if family.head_first else ("encoder", "head"):
            self.add_module(name, parts[name])

    @property
    def cls_only(self) -> bool:
        """Whether the last layer computes only its first position, because the head reads no other."""
        return self.encoder.kernels.cls_only and cast(bool, self.head.cls_only)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Logits (B, C), before any softmax; arguments as in `Encoder.forward`."""
        x = self.encoder(input_ids, attention_mask, token_type_ids, cls_only=self.cls_only)
        return cast(Tensor, self.head(x, attention_mask, self.encoder.kernels))
