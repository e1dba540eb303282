"""DistilBERT (Sanh et al. 2019, arXiv 1910.01108): BERT without token types and pooler, under other names.

After transformers 5.23 models/distilbert/modeling_distilbert.py.
"""

from dataclasses import dataclass
from functools import partial

import torch

from minitrain.model.encoder_config import EncoderConfig, probability
from minitrain.model.families.bert import BertEmbeddings, Family, bert_block
from minitrain.model.families.roberta import DenseHead
from minitrain.model.layers import Block


@dataclass(frozen=True, kw_only=True)
class DistilBertConfig(EncoderConfig):
    """There are no token types."""

    classifier_dropout: float | None = probability(0.2)
    type_vocab_size: int = 0


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
    absent=("layer_norm_eps",),
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
    embeddings=BertEmbeddings,
    block=_block,
    head=partial(DenseHead, activation=torch.relu, input_dropout=0.0),
)
