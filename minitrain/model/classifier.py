"""The encoder and the classifier on top of it, blind to the family they come from.

No loss in here: `loss.py` has it. No loading either: `weights.py` does.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from minitrain.errors import MinitrainError
from minitrain.kernels import get_kernels
from minitrain.model.encoder_config import EncoderConfig, no_such_type
from minitrain.model.families import FAMILIES, reads_types
from minitrain.model.layers import Context, attention_context


def run_block(block: nn.Module, x: Tensor, context: Context, queries: int | None = None) -> Tensor:
    """(B, L, H) -> (B, L, H), or (B, queries, H): what an encoder does with each of its blocks."""
    return cast(Tensor, block(x, context, queries))


def _out_of_range(config: EncoderConfig, input_ids: Tensor, token_type_ids: Tensor) -> Exception:
    """What to say where an id has no row in its table."""
    types = int(token_type_ids.max())
    if reads_types(config) and types >= config.type_vocab_size:
        return MinitrainError(no_such_type(types, config))
    if (highest := int(input_ids.max())) >= config.vocab_size:
        return MinitrainError(
            f"a batch has the token id {highest}, the model has embeddings for ids up to {config.vocab_size - 1}: "
            "take the tokenizer that belongs to it"
        )
    return IndexError(f"token ids from {int(input_ids.min())}, type ids from {int(token_type_ids.min())}")


class Encoder(nn.Module):
    """Token ids -> hidden states of the last layer.

    `kernels` is "fast" or "reference" (`kernels.py`).
    """

    def __init__(self, config: EncoderConfig, kernels: str = "fast") -> None:
        super().__init__()
        family = FAMILIES[config.model_type]
        self.config = config
        self.kernels = get_kernels(kernels)
        self.embeddings = family.embeddings(config)
        self.layers = family.layers(config)
        self.blocks = nn.ModuleList([family.block(config, number) for number in range(max(self.layers) + 1)])
        self.shared = family.shared(config) if family.shared else None
        self.final = family.final(config) if family.final else None
        self.run_block: Callable[..., Tensor] = run_block  # or the same as compiled code (`compiling.py`)

    @property
    def word_embeddings(self) -> nn.Embedding:
        """The table of word vectors, (V, H); `sparse = True` gives it gradients of the rows in use alone."""
        return cast(nn.Embedding, self.embeddings.word)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        cls_only: bool = False,
    ) -> Tensor:
        """Encode a padded batch.

        input_ids: (B, L) int64. attention_mask: (B, L), non-zero at real tokens; None when all are real.
        token_type_ids: (B, L) int64, 0 for the first text and 1 for the second; None for all 0.
        cls_only: of the last layer, compute only the first position: all that a classifier reads.
        Returns (B, L, H) float, or (B, 1, H). Raises MinitrainError when L exceeds the model's positions.
        """
        length, longest = input_ids.size(1), self.config.max_length
        if length > longest:
            raise MinitrainError(
                f"a batch is {length} tokens long, the model has {longest} positions: "
                f"truncate with max_length={longest}"
            )
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        try:
            x = self.embeddings(input_ids, token_type_ids, attention_mask, self.kernels)
        except IndexError as error:
            raise _out_of_range(self.config, input_ids, token_type_ids) from error
        shared = self.shared(x, attention_mask, self.kernels) if self.shared is not None else None
        context = attention_context(attention_mask, self.kernels, shared)
        *others, last = (self.blocks[number] for number in self.layers)
        for block in others:
            x = self.run_block(block, x, context)
        x = self.run_block(last, x, context, 1 if cls_only else None)
        return cast(Tensor, x if self.final is None else self.final(x))


class SequenceClassifier(nn.Module):
    """An encoder and a head: token ids -> one row of logits a sequence (one number for regression)."""

    encoder: Encoder
    head: nn.Module

    def __init__(self, config: EncoderConfig, kernels: str = "fast") -> None:
        super().__init__()
        self.config = config
        family = FAMILIES[config.model_type]
        parts = {"encoder": Encoder(config, kernels), "head": family.head(config)}
        for name in ("head", "encoder") if family.head_first else ("encoder", "head"):
            self.add_module(name, parts[name])

    @property
    def cls_only(self) -> bool:
        """Whether the last layer computes its first position alone: all that the head reads."""
        return self.encoder.kernels.cls_only and cast(bool, self.head.cls_only)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Arguments as `Encoder.forward`. Returns logits (B, C), before any softmax."""
        x = self.encoder(input_ids, attention_mask, token_type_ids, cls_only=self.cls_only)
        return cast(Tensor, self.head(x, attention_mask, self.encoder.kernels))
