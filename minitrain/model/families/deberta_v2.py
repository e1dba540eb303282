"""DeBERTa v2 (He et al. 2020, arXiv 2006.03654) and v3 (2021, arXiv 2111.09543): disentangled attention.

After transformers 5.23 models/deberta_v2/modeling_deberta_v2.py. The attention is in `disentangled.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minitrain.errors import MinitrainError
from minitrain.kernels.reference import Kernels
from minitrain.model.encoder_config import EncoderConfig, choice, choices, positive, probability, size, switch
from minitrain.model.families.bert import CONFIG_KEYS, BertHead, Family, bert_key_map, post_norm_block
from minitrain.model.families.disentangled import KINDS, DisentangledAttention, Distances, log_buckets
from minitrain.model.layers import ACTIVATIONS, Block, Context


@dataclass(frozen=True, kw_only=True)
class DebertaV2Config(EncoderConfig):
    """Fields have the names of config.json; sizes that are None follow from the others.

    max_relative_positions: The largest distance; -1 for max_position_embeddings.
    position_buckets: Vectors for the distances to one side; -1 for a vector for each distance.
    share_att_key: Position vectors use the projections of keys and queries.
    conv_kernel_size: 0 for no convolution.
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
    def farthest(self) -> int:
        """Larger distances count as this one."""
        return self.max_relative_positions if self.max_relative_positions > 0 else self.max_position_embeddings

    @property
    def span(self) -> int:
        """Vectors for the distances to one side."""
        return self.position_buckets if self.position_buckets > 0 else self.farthest

    def validate(self, keys: Mapping[str, str]) -> None:
        super().validate(keys)
        head_size = self.hidden_size // self.num_heads
        for key, got, expected in (
            ("attention_head_size", self.attention_head_size, head_size),
            ("pooler_hidden_size", self.pooler_hidden_size, self.hidden_size),
        ):
            if got not in (None, expected):
                raise MinitrainError(f"{key!r} is {got}; with its hidden size and heads the model needs {expected}")
        if self.position_buckets == 1:
            raise MinitrainError(
                "'position_buckets' is 1; expected at least 2, or -1 for a vector for each distance"
            )
        if self.conv_kernel_size > 0 and self.conv_kernel_size % 2 == 0:
            raise MinitrainError(
                f"'conv_kernel_size' is {self.conv_kernel_size}; expected an odd one, which keeps the length, or 0"
            )
        if self.hidden_size % self.conv_groups:
            raise MinitrainError(
                f"'conv_groups' is {self.conv_groups}, which does not divide the hidden size {self.hidden_size}"
            )


def _normalize_config(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Make `pos_att_type` a tuple: on the Hub it is a list or "p2c|c2p".

    The reference looks for c2p and p2c, in a list only in lower case, and ignores "p2p", "none" and "".
    """
    types = raw.get("pos_att_type")
    if isinstance(types, str):
        types = [name.strip() for name in types.lower().split("|")]
    if isinstance(types, list):
        types = tuple(name for name in types if not _is_ignored_kind(name))
    return {**raw, "pos_att_type": types}


def _is_ignored_kind(name: Any) -> bool:
    return isinstance(name, str) and name not in KINDS and name.lower() in (*KINDS, "p2p", "none", "")


class DebertaV2Embeddings(nn.Module):
    """Word embeddings, plus positions and types if any, normalised, 0 at padding: (B, L) -> (B, L, H)."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        width = config.embedding_size or config.hidden_size
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
    """A convolution over the embeddings, added to the output of the first block."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        self.dropout = config.hidden_dropout_prob
        self.activation = ACTIVATIONS[config.conv_act]
        kernel, hidden = config.conv_kernel_size, config.hidden_size
        self.conv = nn.Conv1d(hidden, hidden, kernel, padding=kernel // 2, groups=config.conv_groups)
        self.norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)

    def forward(self, embedded: Tensor, x: Tensor, context: Context) -> Tensor:
        """embedded (B, L, H), x (B, Q, H) -> (B, Q, H)."""
        out = self.conv(embedded.transpose(1, 2).contiguous()).transpose(1, 2).contiguous()[:, : x.size(1)]
        real = None if context.mask is None else context.mask[:, 0, 0, : x.size(1), None]  # (B, Q, 1)
        if real is not None:
            out = out.masked_fill(~real, 0.0)
        out = self.activation(context.kernels.dropout(out, self.dropout, self.training))
        x = self.norm(x + out)
        return x if real is None else x * real


@dataclass(frozen=True, kw_only=True)
class Shared:
    """For all blocks of one forward pass: relative positions and the convolution, if the model has them."""

    distances: Distances | None
    conv: ConvLayer | None


class DebertaV2Shared(nn.Module):
    """Owns the position vectors, their LayerNorm, and the convolution of the first block."""

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
            distances = log_buckets(distances, self.buckets, self.farthest)
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
    attention = DisentangledAttention(
        config.hidden_size,
        config.num_heads,
        dropout=config.attention_probs_dropout_prob,
        vector_dropout=config.hidden_dropout_prob,
        kinds=config.pos_att_type,
        own_projections=config.relative_attention and not config.share_att_key,
    )
    return post_norm_block(config, attention, ConvBlock if config.conv_kernel_size and number == 0 else Block)


def _head(config: DebertaV2Config) -> BertHead:
    return BertHead(config, ACTIVATIONS[config.pooler_hidden_act], config.pooler_dropout)


_BERT_KEYS = bert_key_map("deberta.")
_PROJECTIONS = (".query", ".key", ".value")

DEBERTA_V2 = Family(
    model_type="deberta-v2",
    architecture="DebertaV2ForSequenceClassification",
    prefix="deberta.",
    config=DebertaV2Config,
    config_keys=CONFIG_KEYS | {"classifier_dropout": "cls_dropout"},
    absent=("chunk_size",),
    normalize_config=_normalize_config,
    key_map=(
        *((f"{theirs}_proj" if theirs.endswith(_PROJECTIONS) else theirs, ours) for theirs, ours in _BERT_KEYS),
        ("deberta.embeddings.embed_proj", "encoder.embeddings.projection"),
        ("deberta.encoder.layer.{i}.attention.self.pos_key_proj", "encoder.blocks.{i}.attention.distance_key"),
        ("deberta.encoder.layer.{i}.attention.self.pos_query_proj", "encoder.blocks.{i}.attention.distance_query"),
        ("deberta.encoder.rel_embeddings", "encoder.shared.vectors"),
        ("deberta.encoder.LayerNorm", "encoder.shared.norm"),
        ("deberta.encoder.conv.conv", "encoder.shared.conv.conv"),
        ("deberta.encoder.conv.LayerNorm", "encoder.shared.conv.norm"),
        ("pooler.dense", "head.pooler"),
        ("classifier", "head.output"),
    ),
    # The heads of pretraining, and positions that older checkpoints hold though the model reads none.
    ignored=(r"(cls|lm_predictions|mask_predictions)\..*", r"(deberta\.)?embeddings\.position_embeddings\..*"),
    embeddings=DebertaV2Embeddings,
    block=_block,
    per_forward=DebertaV2Shared,
    head=_head,
)
