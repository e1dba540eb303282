"""DistilBERT (Sanh et al. 2019, arXiv 1910.01108): BERT without token types and pooler, under other names.

After transformers 5.23 models/distilbert/modeling_distilbert.py.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from minitrain.kernels.reference import Kernels
from minitrain.model.encoder_config import EncoderConfig, probability
from minitrain.model.families.bert import bert_block
from minitrain.model.families.family import Family
from minitrain.model.families.roberta import DenseHead
from minitrain.model.layers import Block


@dataclass(frozen=True, kw_only=True)
class DistilBertConfig(EncoderConfig):
    """The default of the head's dropout differs from BERT's."""

    classifier_dropout: float | None = probability(0.2)


class DistilBertEmbeddings(nn.Module):
    """Word and position embeddings, summed and normalised: ids (B, L) -> (B, L, H)."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.dropout = config.hidden_dropout_prob
        self.word = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor | None, kernels: Kernels
    ) -> Tensor:
        positions = torch.arange(input_ids.size(1), device=input_ids.device)[None]  # (1, L)
        x = self.word(input_ids) + self.position(positions)
        return kernels.dropout(self.norm(x), self.dropout, self.training)


def _block(config: DistilBertConfig, number: int) -> Block:
    block = bert_block(config, number)
    block.attention_output_dropout = 0.0
    return block


DISTILBERT = Family(
    model_type="distilbert",
    architecture="DistilBertForSequenceClassification",
    prefix="distilbert.",
    config=DistilBertConfig,
    config_keys={
        "hidden_size": "dim",
        "num_layers": "n_layers",
        "num_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "classifier_dropout": "seq_classif_dropout",
        "chunk_size": "chunk_size_feed_forward",
    },
    absent=("type_vocab_size", "layer_norm_eps"),
    key_map=(
        ("distilbert.embeddings.word_embeddings", "encoder.embeddings.word"),
        ("distilbert.embeddings.position_embeddings", "encoder.embeddings.position"),
        ("distilbert.embeddings.LayerNorm", "encoder.embeddings.norm"),
        ("distilbert.transformer.layer.{i}.attention.q_lin", "encoder.blocks.{i}.attention.query"),
        ("distilbert.transformer.layer.{i}.attention.k_lin", "encoder.blocks.{i}.attention.key"),
        ("distilbert.transformer.layer.{i}.attention.v_lin", "encoder.blocks.{i}.attention.value"),
        ("distilbert.transformer.layer.{i}.attention.out_lin", "encoder.blocks.{i}.attention.output"),
        ("distilbert.transformer.layer.{i}.sa_layer_norm", "encoder.blocks.{i}.attention_norm"),
        ("distilbert.transformer.layer.{i}.ffn.lin1", "encoder.blocks.{i}.feed_forward.intermediate"),
        ("distilbert.transformer.layer.{i}.ffn.lin2", "encoder.blocks.{i}.feed_forward.output"),
        ("distilbert.transformer.layer.{i}.output_layer_norm", "encoder.blocks.{i}.feed_forward_norm"),
        ("pre_classifier", "head.dense"),
        ("classifier", "head.output"),
    ),
    ignored=(r"vocab_(transform|layer_norm|projector)\..*",),  # the head of pretraining
    embeddings=DistilBertEmbeddings,
    block=_block,
    head=partial(DenseHead, activation=torch.relu, input_dropout=0.0),
)
