"""DeBERTa v2 (He et al. 2020, arXiv 2006.03654) and v3 (2021, arXiv 2111.09543): attention that knows distances.

After transformers 5.23 models/deberta_v2/modeling_deberta_v2.py. The attention is in `disentangled.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minitrain.kernels.reference import Kernels
from minitrain.model.encoder_config import (
    ACTIVATIONS,
    EncoderConfig,
    choice,
    choices,
    positive,
    probability,
    size,
    switch,
)
from minitrain.model.families.bert import CONFIG_NAMES
from minitrain.model.families.disentangled import KINDS, DisentangledAttention, Distances, bucketed
from minitrain.model.families.family import Family
from minitrain.model.layers import ACTIVATIONS as FUNCTIONS
from minitrain.model.layers import Block, Context


@dataclass(frozen=True, kw_only=True)
class DebertaV2Config(EncoderConfig):
    """What DeBERTa has beside BERT's, under the names of the config; None for a size that follows from BERT's.

    max_relative_positions: the farthest distance; max_position_embeddings where it is not positive.
    position_buckets: vectors for the distances to one side, half of them for one distance each, the others shared
    by the far ones; where it is not positive, each distance has its own. share_att_key: the projections of keys and
    queries serve the distances too. conv_kernel_size: 0 for no convolution.
    """

    type_vocab_size: int = size(0, smallest=0)
    layer_norm_eps: float = positive(1e-7)
    relative_attention: bool = switch(False)
    max_relative_positions: int = size(-1, smallest=-1)
    position_buckets: int = size(-1, smallest=-1)
    pos_att_type: tuple[str, ...] = choices((), among=KINDS)
    share_att_key: bool = switch(False)
    norm_rel_ebd: str = choice("none", ("none", "layer_norm"))
    position_biased_input: bool = switch(True)
    embedding_size: int | None = size(None)
    attention_head_size: int | None = size(None)
    conv_kernel_size: int = size(0, smallest=0)
    conv_groups: int = size(1)
    conv_act: str = choice("tanh", ACTIVATIONS)
    pooler_hidden_size: int | None = size(None)
    pooler_dropout: float = probability(0.0)
    pooler_hidden_act: str = choice("gelu", ACTIVATIONS)

    @property
    def width(self) -> int:
        """Of the embeddings."""
        return self.embedding_size or self.hidden_size

    @property
    def farthest(self) -> int:
        """The distance from which on all are one."""
        return self.max_relative_positions if self.max_relative_positions > 0 else self.max_position_embeddings

    @property
    def span(self) -> int:
        """Distances to one side that have a vector of their own."""
        return self.position_buckets if self.position_buckets > 0 else self.farthest

    def inconsistency(self, keys: Mapping[str, str]) -> str | None:
        if (wrong := super().inconsistency(keys)) is not None:
            return wrong
        head_size = self.hidden_size // self.num_heads
        for key, got, expected in (
            ("attention_head_size", self.attention_head_size, head_size),
            ("pooler_hidden_size", self.pooler_hidden_size, self.hidden_size),
        ):
            if got not in (None, expected):
                return f"{key!r} is {got}; with its hidden size and heads the model needs {expected}"
        if self.position_buckets == 1:
            return "'position_buckets' is 1; expected at least 2, or -1 for a vector for each distance"
        if self.conv_kernel_size > 0 and self.conv_kernel_size % 2 == 0:
            return (
                f"'conv_kernel_size' is {self.conv_kernel_size}; expected an odd one, which keeps the length, or 0"
            )
        if self.hidden_size % self.conv_groups:
            return f"'conv_groups' is {self.conv_groups}, which does not divide the hidden size {self.hidden_size}"
        return None


def _translate(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """`pos_att_type` as a tuple, of a list or of "p2c|c2p": the Hub has both.

    The reference looks for c2p and p2c, in lower case where it is a list. "p2p", "none" and "" say nothing to it.
    """
    types = raw.get("pos_att_type")
    if isinstance(types, str):
        types = [name.strip() for name in types.lower().split("|")]
    if isinstance(types, list):
        types = tuple(name for name in types if not _is_no_kind(name))
    return {**raw, "pos_att_type": types}


def _is_no_kind(name: Any) -> bool:
    return isinstance(name, str) and name not in KINDS and name.lower() in (*KINDS, "p2p", "none", "")


class DebertaV2Embeddings(nn.Module):
    """Word embeddings, with positions and types if there are any, normalised, 0 at padding: (B, L) -> (B, L, H)."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        width = config.width
        self.dropout = config.hidden_dropout_prob
        self.word = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        positions, types = config.max_position_embeddings, config.type_vocab_size
        self.position = nn.Embedding(positions, width) if config.position_biased_input else None
        self.token_type = nn.Embedding(types, width) if types else None
        projected = width != config.hidden_size
        self.projection = nn.Linear(width, config.hidden_size, bias=False) if projected else None
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor | None, kernels: Kernels
    ) -> Tensor:
        x = self.word(input_ids)
        if self.position is not None:
            x = x + self.position(torch.arange(input_ids.size(1), device=input_ids.device)[None])
        if self.token_type is not None:
            x = x + self.token_type(token_type_ids)
        if self.projection is not None:
            x = kernels.linear(x, self.projection)[0]
        x = self.norm(x)
        if attention_mask is not None:
            x = x * attention_mask.bool()[:, :, None]
        return kernels.dropout(x, self.dropout, self.training)


class ConvLayer(nn.Module):
    """A convolution over the embeddings, added to what the first block makes of them."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        self.dropout = config.hidden_dropout_prob
        self.activation = FUNCTIONS[config.conv_act]
        kernel, hidden = config.conv_kernel_size, config.hidden_size
        self.conv = nn.Conv1d(hidden, hidden, kernel, padding=kernel // 2, groups=config.conv_groups)
        self.norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)

    def forward(self, embedded: Tensor, x: Tensor, context: Context) -> Tensor:
        """embedded: (B, L, H). x: (B, queries, H), the first so many positions. Returns (B, queries, H)."""
        out = self.conv(embedded.transpose(1, 2).contiguous()).transpose(1, 2).contiguous()[:, : x.size(1)]
        real = None if context.mask is None else context.mask[:, 0, 0, : x.size(1), None]  # (B, queries, 1)
        if real is not None:
            out = out.masked_fill(~real, 0.0)
        out = self.activation(context.kernels.dropout(out, self.dropout, self.training))
        x = self.norm(x + out)
        return x if real is None else x * real


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What the blocks of one forward pass share: the distances, None without them, and the convolution."""

    distances: Distances | None
    conv: ConvLayer | None


class DebertaV2Shared(nn.Module):
    """Owns the vectors of the distances, their LayerNorm, and the convolution after the first block."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        self.span, self.buckets, self.farthest = config.span, config.position_buckets, config.farthest
        self.vectors = nn.Embedding(2 * config.span, config.hidden_size) if config.relative_attention else None
        normed = config.norm_rel_ebd == "layer_norm"
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if normed else None
        self.conv = ConvLayer(config) if config.conv_kernel_size else None

    def forward(self, x: Tensor, attention_mask: Tensor | None, kernels: Kernels) -> Shared:
        if self.vectors is None:
            return Shared(distances=None, conv=self.conv)
        places = torch.arange(x.size(1), device=x.device)
        distances = places[:, None] - places
        if self.buckets > 0:
            distances = bucketed(distances, self.buckets, self.farthest)
        index = torch.clamp(distances + self.span, 0, 2 * self.span - 1)
        vectors, index = kernels.used_rows(self.vectors.weight, index)
        if self.norm is not None:
            vectors = self.norm(vectors)
        return Shared(distances=Distances(vectors=vectors, index=index), conv=self.conv)


class ConvBlock(Block):
    """The first block of a model with a convolution."""

    def forward(self, x: Tensor, context: Context, queries: int | None = None) -> Tensor:
        mixed = super().forward(x, context, queries)
        out: Tensor = context.shared.conv(x, mixed, context)
        return out


def _block(config: DebertaV2Config, number: int) -> Block:
    kind = ConvBlock if config.conv_kernel_size and number == 0 else Block
    return kind(
        attention=DisentangledAttention(
            config.hidden_size,
            config.num_heads,
            dropout=config.attention_probs_dropout_prob,
            vector_dropout=config.hidden_dropout_prob,
            kinds=config.pos_att_type,
            own_projections=config.relative_attention and not config.share_att_key,
        ),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        activation=config.hidden_act,
        attention_output_dropout=config.hidden_dropout_prob,
        feed_forward_dropout=config.hidden_dropout_prob,
        layer_norm_eps=config.layer_norm_eps,
    )


class DebertaV2Head(nn.Module):
    """The pooler, a hidden layer on [CLS] with dropout before it, then the classifier: (B, L, H) -> (B, C)."""

    cls_only = True

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        own = config.classifier_dropout
        self.dropout = config.hidden_dropout_prob if own is None else own
        self.pooler_dropout = config.pooler_dropout
        self.activation = FUNCTIONS[config.pooler_hidden_act]
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, x: Tensor, attention_mask: Tensor | None, kernels: Kernels) -> Tensor:
        x = kernels.dropout(x[:, 0], self.pooler_dropout, self.training)
        x = self.activation(self.pooler(x))
        return self.output(kernels.dropout(x, self.dropout, self.training))


DEBERTA_V2 = Family(
    model_type="deberta-v2",
    architecture="DebertaV2ForSequenceClassification",
    prefix="deberta.",
    config=DebertaV2Config,
    # The fields that BERT has not are called as the config's keys.
    config_names={ours: theirs for ours, theirs in CONFIG_NAMES.items() if ours != "chunk_size"}
    | {name: name for name in DebertaV2Config.__annotations__}
    | {"classifier_dropout": "cls_dropout"},
    translate=_translate,
    renames=(
        ("deberta.embeddings.word_embeddings", "encoder.embeddings.word"),
        ("deberta.embeddings.position_embeddings", "encoder.embeddings.position"),
        ("deberta.embeddings.token_type_embeddings", "encoder.embeddings.token_type"),
        ("deberta.embeddings.embed_proj", "encoder.embeddings.projection"),
        ("deberta.embeddings.LayerNorm", "encoder.embeddings.norm"),
        ("deberta.encoder.layer.{i}.attention.self.query_proj", "encoder.blocks.{i}.attention.query"),
        ("deberta.encoder.layer.{i}.attention.self.key_proj", "encoder.blocks.{i}.attention.key"),
        ("deberta.encoder.layer.{i}.attention.self.value_proj", "encoder.blocks.{i}.attention.value"),
        ("deberta.encoder.layer.{i}.attention.self.pos_key_proj", "encoder.blocks.{i}.attention.distance_key"),
        ("deberta.encoder.layer.{i}.attention.self.pos_query_proj", "encoder.blocks.{i}.attention.distance_query"),
        ("deberta.encoder.layer.{i}.attention.output.dense", "encoder.blocks.{i}.attention.output"),
        ("deberta.encoder.layer.{i}.attention.output.LayerNorm", "encoder.blocks.{i}.attention_norm"),
        ("deberta.encoder.layer.{i}.intermediate.dense", "encoder.blocks.{i}.feed_forward.intermediate"),
        ("deberta.encoder.layer.{i}.output.dense", "encoder.blocks.{i}.feed_forward.output"),
        ("deberta.encoder.layer.{i}.output.LayerNorm", "encoder.blocks.{i}.feed_forward_norm"),
        ("deberta.encoder.rel_embeddings", "encoder.shared.vectors"),
        ("deberta.encoder.LayerNorm", "encoder.shared.norm"),
        ("deberta.encoder.conv.conv", "encoder.shared.conv.conv"),
        ("deberta.encoder.conv.LayerNorm", "encoder.shared.conv.norm"),
        ("pooler.dense", "head.pooler"),
        ("classifier", "head.output"),
    ),
    # The heads of pretraining, and positions that older checkpoints hold where the model reads none.
    ignored=(
        r"(cls|lm_predictions|mask_predictions)\..*",
        r"(deberta\.)?embeddings\.position_(ids|embeddings\..*)",
    ),
    embeddings=DebertaV2Embeddings,
    block=_block,
    shared=DebertaV2Shared,
    head=DebertaV2Head,
)
