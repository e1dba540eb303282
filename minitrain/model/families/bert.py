"""BERT (Devlin et al. 2018, arXiv 1810.04805), after transformers 5.23 models/bert/modeling_bert.py.

All of BERT but `layers.py`: embeddings, pooler and classifier, the keys of config.json and of the weights.
"""

import torch
from torch import Tensor, nn

from minitrain.kernels.reference import Kernels
from minitrain.model.encoder_config import EncoderConfig
from minitrain.model.families.family import Family
from minitrain.model.layers import Attention, Block


class BertEmbeddings(nn.Module):
    """Word, type and position embeddings, summed and normalised: ids (B, L) -> (B, L, H).

    ELECTRA's and ALBERT's have another `size`, from which a linear layer projects to H if `projected`. Families
    without token types have a `type_vocab_size` of 0.
    """

    def __init__(self, config: EncoderConfig, size: int | None = None, projected: bool = False) -> None:
        super().__init__()
        size = size or config.hidden_size
        self.dropout = config.hidden_dropout_prob
        self.word = nn.Embedding(config.vocab_size, size, padding_idx=config.pad_token_id)
        self.position = nn.Embedding(config.max_position_embeddings, size)
        self.token_type = nn.Embedding(config.type_vocab_size, size) if config.type_vocab_size else None
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.projection = nn.Linear(size, config.hidden_size) if projected else None

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor | None, kernels: Kernels
    ) -> Tensor:
        x = self.word(input_ids)  # (B, L, size)
        if self.token_type is not None:
            x = x + self.token_type(token_type_ids)
        x = x + self.position(self.positions(input_ids))
        x = kernels.dropout(self.norm(x), self.dropout, self.training)
        return x if self.projection is None else kernels.linear(x, self.projection)[0]

    def positions(self, input_ids: Tensor) -> Tensor:
        """0 to L - 1, (1, L)."""
        return torch.arange(input_ids.size(1), device=input_ids.device)[None]


def post_norm_block(config: EncoderConfig, attention: nn.Module, kind: type[Block] = Block) -> Block:
    """BERT's block around any attention."""
    return kind(
        attention=attention,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        activation=config.hidden_act,
        attention_output_dropout=config.hidden_dropout_prob,
        feed_forward_dropout=config.hidden_dropout_prob,
        layer_norm_eps=config.layer_norm_eps,
        chunk_size=config.chunk_size,
    )


def bert_block(config: EncoderConfig, number: int) -> Block:
    """One of BERT's blocks, which are all alike."""
    attention = Attention(config.hidden_size, config.num_heads, config.attention_probs_dropout_prob)
    return post_norm_block(config, attention)


class BertHead(nn.Module):
    """The pooler, a linear layer with tanh on [CLS], then the classifier: (B, L, H) -> (B, C)."""

    cls_only = True

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        own = config.classifier_dropout
        self.dropout = config.hidden_dropout_prob if own is None else own
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, x: Tensor, attention_mask: Tensor | None, kernels: Kernels) -> Tensor:
        pooled = torch.tanh(self.pooler(x[:, 0]))  # (B, H)
        return self.output(kernels.dropout(pooled, self.dropout, self.training))


# Our fields whose keys in config.json differ.
CONFIG_KEYS = {
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "chunk_size": "chunk_size_feed_forward",
}


def bert_key_map(prefix: str) -> tuple[tuple[str, str], ...]:
    """The modules of an encoder with BERT's keys behind a prefix: (the reference's, ours)."""
    layer, block = f"{prefix}encoder.layer.{{i}}", "encoder.blocks.{i}"
    return (
        (f"{prefix}embeddings.word_embeddings", "encoder.embeddings.word"),
        (f"{prefix}embeddings.position_embeddings", "encoder.embeddings.position"),
        (f"{prefix}embeddings.token_type_embeddings", "encoder.embeddings.token_type"),
        (f"{prefix}embeddings.LayerNorm", "encoder.embeddings.norm"),
        (f"{layer}.attention.self.query", f"{block}.attention.query"),
        (f"{layer}.attention.self.key", f"{block}.attention.key"),
        (f"{layer}.attention.self.value", f"{block}.attention.value"),
        (f"{layer}.attention.output.dense", f"{block}.attention.output"),
        (f"{layer}.attention.output.LayerNorm", f"{block}.attention_norm"),
        (f"{layer}.intermediate.dense", f"{block}.feed_forward.intermediate"),
        (f"{layer}.output.dense", f"{block}.feed_forward.output"),
        (f"{layer}.output.LayerNorm", f"{block}.feed_forward_norm"),
    )


BERT = Family(
    model_type="bert",
    architecture="BertForSequenceClassification",
    prefix="bert.",
    config_keys=CONFIG_KEYS,
    key_map=(*bert_key_map("bert."), ("bert.pooler.dense", "head.pooler"), ("classifier", "head.output")),
    ignored=(r"cls\..*",),  # the heads of pretraining
    embeddings=BertEmbeddings,
    block=bert_block,
    head=BertHead,
)
