"""BERT (Devlin et al. 2018, arXiv 1810.04805), after transformers 5.23 models/bert/modeling_bert.py."""

import torch
from torch import Tensor, nn

from minitrain.encoder_config import EncoderConfig
from minitrain.families.family import Family
from minitrain.kernels import Kernels
from minitrain.layers import Block


class BertEmbeddings(nn.Module):
    """Word, position and type embeddings, summed and normalised: ids (B, L) -> (B, L, H)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dropout = config.hidden_dropout_prob
        self.word = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, kernels: Kernels) -> Tensor:
        positions = torch.arange(input_ids.size(1), device=input_ids.device)[None]  # (1, L)
        # (word + type) + position: another order of the two sums gives other last bits.
        x = self.word(input_ids) + self.token_type(token_type_ids) + self.position(positions)
        return kernels.dropout(self.norm(x), self.dropout, self.training)


class BertHead(nn.Module):
    """The pooler, tanh of a projection of [CLS], then the classifier: (B, L, H) -> (B, C)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        own = config.classifier_dropout
        self.dropout = config.hidden_dropout_prob if own is None else own
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, x: Tensor, kernels: Kernels) -> Tensor:
        pooled = torch.tanh(self.pooler(x[:, 0]))
        return self.output(kernels.dropout(pooled, self.dropout, self.training))


def _block(config: EncoderConfig) -> Block:
    return Block(
        hidden_size=config.hidden_size,
        num_heads=config.num_heads,
        intermediate_size=config.intermediate_size,
        activation=config.hidden_act,
        hidden_dropout=config.hidden_dropout_prob,
        attention_dropout=config.attention_probs_dropout_prob,
        layer_norm_eps=config.layer_norm_eps,
    )


BERT = Family(
    model_type="bert",
    architecture="BertForSequenceClassification",
    prefix="bert.",
    config_names={
        "vocab_size": "vocab_size",
        "hidden_size": "hidden_size",
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "intermediate_size": "intermediate_size",
        "hidden_act": "hidden_act",
        "hidden_dropout_prob": "hidden_dropout_prob",
        "attention_probs_dropout_prob": "attention_probs_dropout_prob",
        "classifier_dropout": "classifier_dropout",
        "max_position_embeddings": "max_position_embeddings",
        "type_vocab_size": "type_vocab_size",
        "initializer_range": "initializer_range",
        "layer_norm_eps": "layer_norm_eps",
        "pad_token_id": "pad_token_id",
    },
    renames=(
        ("bert.embeddings.word_embeddings", "encoder.embeddings.word"),
        ("bert.embeddings.position_embeddings", "encoder.embeddings.position"),
        ("bert.embeddings.token_type_embeddings", "encoder.embeddings.token_type"),
        ("bert.embeddings.LayerNorm", "encoder.embeddings.norm"),
        ("bert.encoder.layer.{i}.attention.self.query", "encoder.blocks.{i}.attention.query"),
        ("bert.encoder.layer.{i}.attention.self.key", "encoder.blocks.{i}.attention.key"),
        ("bert.encoder.layer.{i}.attention.self.value", "encoder.blocks.{i}.attention.value"),
        ("bert.encoder.layer.{i}.attention.output.dense", "encoder.blocks.{i}.attention.output"),
        ("bert.encoder.layer.{i}.attention.output.LayerNorm", "encoder.blocks.{i}.attention_norm"),
        ("bert.encoder.layer.{i}.intermediate.dense", "encoder.blocks.{i}.feed_forward.intermediate"),
        ("bert.encoder.layer.{i}.output.dense", "encoder.blocks.{i}.feed_forward.output"),
        ("bert.encoder.layer.{i}.output.LayerNorm", "encoder.blocks.{i}.feed_forward_norm"),
        ("bert.pooler.dense", "head.pooler"),
        ("classifier", "head.output"),
    ),
    # The pretraining heads, and buffers that older versions of transformers saved.
    ignored=(r"cls\..*", r"(bert\.)?embeddings\.position_ids", r"(bert\.)?embeddings\.token_type_ids"),
    embeddings=BertEmbeddings,
    block=_block,
    head=BertHead,
)
