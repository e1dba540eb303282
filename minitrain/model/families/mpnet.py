"""MPNet (Song et al. 2020, arXiv 2004.09297): RoBERTa without token types, with attention by distance.

A number for each head and distance, the same in all layers, is added to the scores, as in Raffel et al. 2019 (arXiv
1910.10683). After transformers 5.23 models/mpnet/modeling_mpnet.py.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minitrain.kernels.reference import Kernels
from minitrain.model.encoder_config import size
from minitrain.model.families.bert import CONFIG_NAMES
from minitrain.model.families.common import DenseHead, positions_after
from minitrain.model.families.family import Family
from minitrain.model.families.roberta import RobertaConfig
from minitrain.model.layers import Attention, Block, Context

PAD = 1  # in the reference, whatever a config says
BUCKETS = 32  # likewise: half of them for the tokens before, half for those after
EXACT = 8  # distances with a bucket of their own; the others share, the farther the more
FARTHEST = 128  # from here on, all share the last


@dataclass(frozen=True, kw_only=True)
class MPNetConfig(RobertaConfig):
    """num_buckets: rows of the table of distances; those after the 32nd are of no use."""

    num_buckets: int = size(BUCKETS, smallest=BUCKETS)

    def inconsistency(self, keys: Mapping[str, str]) -> str | None:
        if self.pad_token_id != PAD:
            return f"'pad_token_id' is {self.pad_token_id}; expected {PAD}, from which MPNet counts its positions"
        return super().inconsistency(keys)


class MPNetEmbeddings(nn.Module):
    """Word and position embeddings, summed and normalised: ids (B, L) -> (B, L, H)."""

    def __init__(self, config: MPNetConfig) -> None:
        super().__init__()
        self.dropout = config.hidden_dropout_prob
        self.word = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=PAD)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size, padding_idx=PAD)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor | None, kernels: Kernels
    ) -> Tensor:
        x = self.word(input_ids) + self.position(positions_after(PAD, input_ids))
        return kernels.dropout(self.norm(x), self.dropout, self.training)


def distance_buckets(length: int, device: torch.device | None = None) -> Tensor:
    """(L, L) int64: the bucket of each query's distance to each key, 0 to 15 looking back and 16 to 31 ahead."""
    positions = torch.arange(length, device=device)
    ahead = positions[None, :] - positions[:, None]
    distance = ahead.abs()
    sharing = BUCKETS // 2 - EXACT
    # In the reference's order: another one would put a distance on the edge of two buckets into the other.
    logarithm = torch.log(distance.clamp(min=EXACT) / EXACT) / math.log(FARTHEST / EXACT)
    shared = EXACT + (logarithm * sharing).long()
    back = torch.where(distance < EXACT, distance, shared.clamp(max=BUCKETS // 2 - 1))
    return back + (ahead > 0) * (BUCKETS // 2)


class DistanceBias(nn.Module):
    """What every layer adds to the scores: (B, N, L, L), the same for each text."""

    def __init__(self, config: MPNetConfig) -> None:
        super().__init__()
        self.table = nn.Embedding(config.num_buckets, config.num_heads)

    def forward(self, x: Tensor, attention_mask: Tensor | None, kernels: Kernels) -> Tensor:
        bias = self.table(distance_buckets(x.size(1), x.device)).permute(2, 0, 1)  # (N, L, L)
        # Each text has its copy, so that gradients are summed over the layers first, and then over the texts.
        return bias.expand(len(x), -1, -1, -1).contiguous()


class BiasedAttention(Attention):
    """Attention with `context.shared`, (B, N, L, L), added to its scores."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """Written out as the reference has it, which PyTorch's fused attention would give other last bits."""
        bias = context.shared[:, :, : q.size(2)]
        scores = q @ k.transpose(2, 3) / math.sqrt(q.size(3))  # (B, N, queries, L)
        scores += bias  # in place, which under autocast keeps the dtype of the scores
        if context.mask is not None:
            scores = scores + torch.where(context.mask, bias.new_zeros(()), torch.finfo(bias.dtype).min)
        return context.kernels.dropout(scores.softmax(dim=-1), self.dropout, self.training) @ v


def _block(config: MPNetConfig, number: int) -> Block:
    return Block(
        attention=BiasedAttention(config.hidden_size, config.num_heads, config.attention_probs_dropout_prob),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        activation=config.hidden_act,
        attention_output_dropout=config.hidden_dropout_prob,
        feed_forward_dropout=config.hidden_dropout_prob,
        layer_norm_eps=config.layer_norm_eps,
    )


def _head(config: MPNetConfig) -> DenseHead:
    return DenseHead(config, torch.tanh)


_ABSENT = ("type_vocab_size", "classifier_dropout", "chunk_size")
_BLOCK = "mpnet.encoder.layer.{i}."

MPNET = Family(
    model_type="mpnet",
    architecture="MPNetForSequenceClassification",
    prefix="mpnet.",
    config=MPNetConfig,
    config_names={ours: theirs for ours, theirs in CONFIG_NAMES.items() if ours not in _ABSENT}
    | {"num_buckets": "relative_attention_num_buckets"},
    renames=(
        ("mpnet.embeddings.word_embeddings", "encoder.embeddings.word"),
        ("mpnet.embeddings.position_embeddings", "encoder.embeddings.position"),
        ("mpnet.embeddings.LayerNorm", "encoder.embeddings.norm"),
        (_BLOCK + "attention.attn.q", "encoder.blocks.{i}.attention.query"),
        (_BLOCK + "attention.attn.k", "encoder.blocks.{i}.attention.key"),
        (_BLOCK + "attention.attn.v", "encoder.blocks.{i}.attention.value"),
        (_BLOCK + "attention.attn.o", "encoder.blocks.{i}.attention.output"),
        (_BLOCK + "attention.LayerNorm", "encoder.blocks.{i}.attention_norm"),
        (_BLOCK + "intermediate.dense", "encoder.blocks.{i}.feed_forward.intermediate"),
        (_BLOCK + "output.dense", "encoder.blocks.{i}.feed_forward.output"),
        (_BLOCK + "output.LayerNorm", "encoder.blocks.{i}.feed_forward_norm"),
        ("mpnet.encoder.relative_attention_bias", "encoder.shared.table"),
        ("classifier.dense", "head.dense"),
        ("classifier.out_proj", "head.output"),
    ),
    # The head of pretraining, a pooler that no head reads, and a buffer that older versions of transformers saved.
    ignored=(r"lm_head\..*", r"(mpnet\.)?pooler\..*", r"(mpnet\.)?embeddings\.position_ids"),
    embeddings=MPNetEmbeddings,
    block=_block,
    shared=DistanceBias,
    head=_head,
)
