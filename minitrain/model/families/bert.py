"""BERT (Devlin et al. 2018, arXiv 1810.04805), after transformers 5.23 models/bert/modeling_bert.py.

All of BERT but `layers.py`: embeddings, pooler and classifier, the keys of config.json and of the weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from minitrain.kernels.reference import Activation, Kernels
from minitrain.model.encoder_config import EncoderConfig
from minitrain.model.layers import Attention, Block


def init_normal(name: str, parameter: Tensor, config: EncoderConfig) -> None:
    """Initialise a new parameter as most of transformers 5.23 does: normal (0, initializer_range), biases 0."""
    if name.endswith("bias"):
        parameter.zero_()
    else:
        parameter.normal_(0.0, config.initializer_range)


@dataclass(frozen=True, kw_only=True)
class Family:
    """How to read, build and write one kind of checkpoint.

    Args:
        model_type: The value in config.json.
        architecture: The reference's class name, written to `architectures`.
        prefix: Stands before the encoder's keys in checkpoints with a head; others leave it out.
        config: The family's configuration class.
        config_keys: Our field -> the key in config.json, for those that differ.
        absent: Our fields that the family's config.json does not have.
        normalize_config: A parsed config.json -> one with the keys of `config_names`, if versions of it differ.
        key_map: (the reference's module, our module); `{i}` is the number of a block.
        block_key: (config, number of a block) -> what replaces `{i}` in the reference's module.
        ignored: Regular expressions of keys that a file may hold and a classifier does not need.

        embeddings: config -> module (input_ids, token_type_ids, attention_mask or None, kernels) -> (B, L, H);
            its table of words is called `word`.
        block: (config, number) -> module (x, context, queries) -> (B, L, H) or (B, Q, H).
        layer_order: config -> the number of the block for each layer; ALBERT's layers share blocks.
        per_forward: config -> module (x, attention_mask or None, kernels); its output is `context.shared`.
        final_norm: config -> module (B, L, H) -> (B, L, H) after the last block.
        head: config -> module (x, attention_mask or None, kernels) -> (B, C). Its last layer is called `output`;
            `cls_only` says that it reads the first position alone.
        head_first: Whether the head is registered before the encoder.
        init_parameter: (name, parameter, config); initialises a parameter that the checkpoint lacks.
    """

    model_type: str
    architecture: str
    prefix: str
    config_keys: dict[str, str]
    key_map: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]
    embeddings: Callable[[Any], nn.Module]
    block: Callable[[Any, int], nn.Module]
    head: Callable[[Any], nn.Module]
    config: type[EncoderConfig] = EncoderConfig
    absent: tuple[str, ...] = ()
    normalize_config: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda raw: raw
    block_key: Callable[[Any, int], str] = lambda config, number: str(number)
    layer_order: Callable[[Any], list[int]] = lambda config: list(range(config.num_layers))
    per_forward: Callable[[Any], nn.Module] | None = None
    final_norm: Callable[[Any], nn.Module] | None = None
    head_first: bool = False
    init_parameter: Callable[[str, Tensor, Any], None] = init_normal

    @property
    def config_names(self) -> dict[str, str]:
        """Our field -> the key in config.json, for all that are read from there."""
        names = [spec.name for spec in fields(self.config) if spec.metadata and spec.name not in self.absent]
        return {name: self.config_keys.get(name, name) for name in names}


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
        # (word + type) + position: another order of the sums gives other last bits.
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


def bert_block(config: EncoderConfig, number: int, kind: type[Attention] = Attention) -> Block:
    """One of BERT's blocks, which are all alike."""
    return post_norm_block(config, kind(config.hidden_size, config.num_heads, config.attention_probs_dropout_prob))


class BertHead(nn.Module):
    """A hidden layer on [CLS], in BERT called the pooler, then the classifier: (B, L, H) -> (B, C).

    `input_dropout` comes before the hidden layer; None for the same as after it.
    """

    cls_only = True

    def __init__(
        self,
        config: EncoderConfig,
        activation: Activation = torch.tanh,
        input_dropout: float | None = 0.0,
        name: str = "pooler",
    ) -> None:
        super().__init__()
        self.name, self.activation = name, activation
        own = config.classifier_dropout
        self.dropout = config.hidden_dropout_prob if own is None else own
        self.input_dropout = self.dropout if input_dropout is None else input_dropout
        self.add_module(name, nn.Linear(config.hidden_size, config.hidden_size))
        self.output = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, x: Tensor, attention_mask: Tensor | None, kernels: Kernels) -> Tensor:
        x = kernels.dropout(x[:, 0], self.input_dropout, self.training)  # (B, H)
        x = self.activation(getattr(self, self.name)(x))
        return self.output(kernels.dropout(x, self.dropout, self.training))


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
