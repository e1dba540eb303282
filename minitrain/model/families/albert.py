"""ALBERT (Lan et al. 2019, arXiv 1909.11942): BERT whose layers share their weights, with narrow embeddings.

After transformers 5.23 models/albert/modeling_albert.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from minitrain.errors import MinitrainError
from minitrain.model.encoder_config import MOST_LAYERS, EncoderConfig, choice, probability, size
from minitrain.model.families.bert import CONFIG_KEYS, BertEmbeddings, BertHead, Family
from minitrain.model.layers import ACTIVATIONS, Attention, Context, FeedForward, apply_chunking


@dataclass(frozen=True, kw_only=True)
class AlbertConfig(EncoderConfig):
    """Neighbouring layers share weights in `num_groups` groups; each layer is `group_size` blocks.

    A linear layer projects the embeddings from `embedding_size` to the hidden size.
    """

    hidden_act: str = choice("gelu_new", ACTIVATIONS)
    hidden_dropout_prob: float = probability(0.0)
    attention_probs_dropout_prob: float = probability(0.0)
    classifier_dropout: float | None = probability(0.1)
    embedding_size: int = size(128)
    num_groups: int = size(1, largest=MOST_LAYERS)
    group_size: int = size(1, largest=MOST_LAYERS)

    def validate(self, keys: Mapping[str, str]) -> None:
        if self.num_groups > self.num_layers:
            raise MinitrainError(
                f"{keys['num_groups']!r} is {self.num_groups}, {keys['num_layers']!r} {self.num_layers}; "
                "a group has at least one layer"
            )
        if self.num_layers * self.group_size > MOST_LAYERS:
            raise MinitrainError(
                f"{keys['num_layers']!r} is {self.num_layers}, {keys['group_size']!r} {self.group_size}; "
                f"their product may be {MOST_LAYERS} at most"
            )
        super().validate(keys)


class AlbertBlock(nn.Module):
    """BERT's block without dropout after the feed-forward: (B, L, H) -> (B, L, H) or (B, Q, H).

    Its last norm is registered first, as in the reference.
    """

    def __init__(self, config: AlbertConfig, number: int) -> None:
        super().__init__()
        self.dropout, self.chunk_size = config.hidden_dropout_prob, config.chunk_size
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = Attention(config.hidden_size, config.num_heads, config.attention_probs_dropout_prob)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config.hidden_size, config.intermediate_size, config.hidden_act)

    def forward(self, x: Tensor, context: Context, queries: int | None = None) -> Tensor:
        mixed = self.attention(x, context, queries)
        x = self.attention_norm(context.kernels.dropout_add(x[:, :queries], mixed, self.dropout, self.training))
        wide = apply_chunking(lambda part: self.feed_forward(part, context), x, self.chunk_size)
        return self.feed_forward_norm(wide + x)


def _embeddings(config: AlbertConfig) -> BertEmbeddings:
    return BertEmbeddings(config, config.embedding_size, projected=True)


def _block_key(config: AlbertConfig, number: int) -> str:
    group, inner = divmod(number, config.group_size)
    return f"{group}.albert_layers.{inner}"


def _layer_order(config: AlbertConfig) -> list[int]:
    # In floats, as in the reference: when they round down, a layer belongs to the group before.
    groups = [int(layer / (config.num_layers / config.num_groups)) for layer in range(config.num_layers)]
    return [group * config.group_size + inner for group in groups for inner in range(config.group_size)]


_BLOCK = "albert.encoder.albert_layer_groups.{i}."

ALBERT = Family(
    model_type="albert",
    architecture="AlbertForSequenceClassification",
    prefix="albert.",
    config=AlbertConfig,
    config_keys=CONFIG_KEYS
    | {
        "classifier_dropout": "classifier_dropout_prob",
        "num_groups": "num_hidden_groups",
        "group_size": "inner_group_num",
    },
    key_map=(
        ("albert.embeddings.word_embeddings", "encoder.embeddings.word"),
        ("albert.embeddings.position_embeddings", "encoder.embeddings.position"),
        ("albert.embeddings.token_type_embeddings", "encoder.embeddings.token_type"),
        ("albert.embeddings.LayerNorm", "encoder.embeddings.norm"),
        ("albert.encoder.embedding_hidden_mapping_in", "encoder.embeddings.projection"),
        (_BLOCK + "full_layer_layer_norm", "encoder.blocks.{i}.feed_forward_norm"),
        (_BLOCK + "attention.query", "encoder.blocks.{i}.attention.query"),
        (_BLOCK + "attention.key", "encoder.blocks.{i}.attention.key"),
        (_BLOCK + "attention.value", "encoder.blocks.{i}.attention.value"),
        (_BLOCK + "attention.dense", "encoder.blocks.{i}.attention.output"),
        (_BLOCK + "attention.LayerNorm", "encoder.blocks.{i}.attention_norm"),
        (_BLOCK + "ffn", "encoder.blocks.{i}.feed_forward.intermediate"),
        (_BLOCK + "ffn_output", "encoder.blocks.{i}.feed_forward.output"),
        ("albert.pooler", "head.pooler"),
        ("classifier", "head.output"),
    ),
    ignored=(r"(predictions|sop_classifier)\..*",),  # the heads of pretraining
    embeddings=_embeddings,
    block=AlbertBlock,
    block_key=_block_key,
    layer_order=_layer_order,
    head=BertHead,
)
