"""MPNet (Song et al. 2020, arXiv 2004.09297): RoBERTa without token types, with a relative position bias.

A learned number for each head and bucket of distances is added to the scores of all layers, as in Raffel et al.
2019 (arXiv 1910.10683). After transformers 5.23 models/mpnet/modeling_mpnet.py.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from minitrain.errors import MinitrainError
from minitrain.kernels.reference import Kernels
from minitrain.model.encoder_config import size
from minitrain.model.families.bert import CONFIG_KEYS, Family, bert_block
from minitrain.model.families.roberta import DenseHead, OffsetEmbeddings, RobertaConfig
from minitrain.model.layers import Attention, Context

# Constants in the reference, whatever config.json says.
PAD = 1
BUCKETS = 32  # half of them for the tokens before, half for those after
EXACT = 8  # smaller distances have a bucket each; larger ones share buckets, by their logarithm
FARTHEST = 128  # from here on all share the last bucket


@dataclass(frozen=True, kw_only=True)
class MPNetConfig(RobertaConfig):
    """The table may have more than 32 buckets; only 32 are used."""

    type_vocab_size: int = 0
    num_buckets: int = size(BUCKETS, smallest=BUCKETS)

    def validate(self, keys: Mapping[str, str]) -> None:
        if self.pad_token_id != PAD:
            raise MinitrainError(
                f"'pad_token_id' is {self.pad_token_id}; expected {PAD}, from which MPNet counts positions"
            )
        super().validate(keys)


def relative_position_buckets(length: int, device: torch.device | None = None) -> Tensor:
    """The bucket of each query's distance to each key, (L, L): 0 to 15 before it, 16 to 31 after it."""
    positions = torch.arange(length, device=device)
    ahead = positions[None, :] - positions[:, None]
    distance = ahead.abs()
    sharing = BUCKETS // 2 - EXACT
    # In the reference's order of operations: rounding decides the bucket of a distance on the edge of two.
    logarithm = torch.log(distance.clamp(min=EXACT) / EXACT) / math.log(FARTHEST / EXACT)
    shared = EXACT + (logarithm * sharing).long()
    back = torch.where(distance < EXACT, distance, shared.clamp(max=BUCKETS // 2 - 1))
    return back + (ahead > 0) * (BUCKETS // 2)


class RelativePositionBias(nn.Module):
    """The bias of the attention scores, (B, N, L, L), the same for each text."""

    def __init__(self, config: MPNetConfig) -> None:
        super().__init__()
        self.table = nn.Embedding(config.num_buckets, config.num_heads)

    def forward(self, x: Tensor, attention_mask: Tensor | None, kernels: Kernels) -> Tensor:
        bias = self.table(relative_position_buckets(x.size(1), x.device)).permute(2, 0, 1)  # (N, L, L)
        # A copy for each text, so that autograd sums over the layers first and then over the texts.
        return bias.expand(len(x), -1, -1, -1).contiguous()


class BiasedAttention(Attention):
    """Attention with `context.shared`, (B, N, L, L), added to its scores."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """In the reference's steps: PyTorch's fused attention gives other last bits."""
        bias = context.shared[:, :, : q.size(2)]
        scores = q @ k.transpose(2, 3) / math.sqrt(q.size(3))  # (B, N, Q, L)
        scores += bias  # in place keeps the dtype of the scores under autocast
        if context.mask is not None:
            scores = scores + torch.where(context.mask, bias.new_zeros(()), torch.finfo(bias.dtype).min)
        return context.kernels.dropout(scores.softmax(dim=-1), self.dropout, self.training) @ v


_BLOCK = "mpnet.encoder.layer.{i}."

MPNET = Family(
    model_type="mpnet",
    architecture="MPNetForSequenceClassification",
    prefix="mpnet.",
    config=MPNetConfig,
    config_keys=CONFIG_KEYS | {"num_buckets": "relative_attention_num_buckets"},
    absent=("classifier_dropout", "chunk_size"),
    key_map=(
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
    ignored=(r"lm_head\..*", r"(mpnet\.)?pooler\..*"),  # the head of pretraining; a pooler that no head reads
    embeddings=OffsetEmbeddings,
    block=partial(bert_block, kind=BiasedAttention),
    per_forward=RelativePositionBias,
    head=DenseHead,
)
