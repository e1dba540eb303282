"""BERT (Devlin et al. 2018, arXiv 1810.04805), after transformers 5.23 models/bert/modeling_bert.py."""

import torch
from torch import Tensor, nn

from minitrain.kernels.reference import Kernels
from minitrain.model.encoder_config import EncoderConfig
from minitrain.model.families.common import SummedEmbeddings, post_norm_block
from minitrain.model.families.family import Family


class BertHead(nn.Module):
    """The pooler, tanh of a projection of [CLS], then the classifier: (B, L, H) -> (B, C)."""

    cls_only = True

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        own = config.classifier_dropout
        self.dropout = config.hidden_dropout_prob if own is None else own
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, x: Tensor, attention_mask: Tensor | None, kernels: Kernels) -> Tensor:
        pooled = torch.tanh(self.pooler(x[:, 0]))
        return self.output(kernels.dropout(pooled, self.dropout, self.training))


# Our fields and the config's keys, which most families have from BERT.
CONFIG_NAMES = {
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
    "chunk_size": "chunk_size_feed_forward",
}
# The encoder's modules, without the prefix, which several families have from BERT.
MODULES = (
    ("embeddings.word_embeddings", "encoder.embeddings.word"),
    ("embeddings.position_embeddings", "encoder.embeddings.position"),
    ("embeddings.token_type_embeddings", "encoder.embeddings.token_type"),
    ("embeddings.LayerNorm", "encoder.embeddings.norm"),
    ("encoder.layer.{i}.attention.self.query", "encoder.blocks.{i}.attention.query"),
    ("encoder.layer.{i}.attention.self.key", "encoder.blocks.{i}.attention.key"),
    ("encoder.layer.{i}.attention.self.value", "encoder.blocks.{i}.attention.value"),
    ("encoder.layer.{i}.attention.output.dense", "encoder.blocks.{i}.attention.output"),
    ("encoder.layer.{i}.attention.output.LayerNorm", "encoder.blocks.{i}.attention_norm"),
    ("encoder.layer.{i}.intermediate.dense", "encoder.blocks.{i}.feed_forward.intermediate"),
    ("encoder.layer.{i}.output.dense", "encoder.blocks.{i}.feed_forward.output"),
    ("encoder.layer.{i}.output.LayerNorm", "encoder.blocks.{i}.feed_forward_norm"),
)


def modules(prefix: str) -> tuple[tuple[str, str], ...]:
    """The renames of an encoder whose keys are BERT's behind another prefix."""
    return tuple((prefix + theirs, ours) for theirs, ours in MODULES)


BERT = Family(
    model_type="bert",
    architecture="BertForSequenceClassification",
    prefix="bert.",
    config_names=CONFIG_NAMES,
    renames=(*modules("bert."), ("bert.pooler.dense", "head.pooler"), ("classifier", "head.output")),
    # The pretraining heads, and buffers that older versions of transformers saved.
    ignored=(r"cls\..*", r"(bert\.)?embeddings\.position_ids", r"(bert\.)?embeddings\.token_type_ids"),
    embeddings=SummedEmbeddings,
    block=post_norm_block,
    head=BertHead,
)
