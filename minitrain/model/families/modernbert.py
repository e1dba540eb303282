"""ModernBERT (Warner et al. 2024, arXiv 2412.13663): rotary positions, local attention, gated layers, pre-norm.

After transformers 5.23 models/modernbert/modeling_modernbert.py. Padding is masked as in other families, not
removed from the batch, and a local layer computes all scores and masks those outside its window.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minitrain.errors import MinitrainError
from minitrain.kernels.reference import Kernels
from minitrain.model.encoder_config import EncoderConfig, choice, positive, probability, size, switch, token_id
from minitrain.model.families.bert import Family, init_normal
from minitrain.model.layers import ACTIVATIONS, Context, GatedFeedForward, apply_rotary_emb, padding_mask


@dataclass(frozen=True, kw_only=True)
class ModernBertConfig(EncoderConfig):
    """Every n-th layer from the first is global; in the others a token sees `local_attention` / 2 to each side."""

    hidden_dropout_prob: float = probability(0.0)
    attention_probs_dropout_prob: float = probability(0.0)
    embedding_dropout: float = probability(0.0)
    classifier_dropout: float | None = probability(0.0)
    max_position_embeddings: int = size(8192)
    layer_norm_eps: float = positive(1e-5)
    pad_token_id: int | None = token_id(50283)
    global_attn_every_n_layers: int = size(3)
    local_attention: int = size(128)
    global_rope_theta: float = positive(160_000.0)
    local_rope_theta: float = positive(10_000.0)
    norm_bias: bool = switch(False)
    attention_bias: bool = switch(False)
    mlp_bias: bool = switch(False)
    classifier_bias: bool = switch(False)
    classifier_activation: str = choice("gelu", ACTIVATIONS)
    classifier_pooling: str = choice("cls", ("cls", "mean"))
    initializer_cutoff_factor: float = positive(2.0)

    @property
    def head_size(self) -> int:
        """D."""
        return self.hidden_size // self.num_heads

    @property
    def feed_forward_products(self) -> int:
        return 3  # the first is twice as wide

    def validate(self, keys: Mapping[str, str]) -> None:
        super().validate(keys)
        if self.head_size % 2:
            raise MinitrainError(
                f"'hidden_size' / 'num_attention_heads' is {self.head_size}; "
                "it must be even, because rotary positions rotate pairs of coordinates"
            )


# ---- config.json: what transformers 5 writes -> the form on the Hub ---------------------------------------------

FULL, SLIDING = "full_attention", "sliding_attention"


def _normalize_config(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """`layer_types` -> global_attn_every_n_layers, `rope_parameters` -> the two thetas."""
    changes: dict[str, Any] = {}
    if raw.get("layer_types") is not None:
        changes["global_attn_every_n_layers"] = _spacing(raw["layer_types"], raw.get("num_hidden_layers"))
    if raw.get("rope_scaling") is not None:
        raise MinitrainError(f"'rope_scaling' is {str(raw['rope_scaling'])[:200]}; expected null: no scaling")
    ropes = _unscaled(raw.get("rope_parameters"))
    for kind, ours in ((FULL, "global_rope_theta"), (SLIDING, "local_rope_theta")):
        rope = _unscaled(ropes.get(kind))
        if "rope_theta" in rope:
            changes[ours] = rope["rope_theta"]
    return {**raw, **changes}


def _unscaled(rope: Any) -> dict[str, Any]:
    """The parameters of all layers or of one kind, empty if null."""
    rope = {} if rope is None else rope
    if not isinstance(rope, dict) or rope.get("rope_type", rope.get("type", "default")) != "default":
        raise MinitrainError(f"'rope_parameters' has {str(rope)[:200]}; expected 'rope_type': 'default'")
    return rope


def _spacing(types: Any, num_layers: Any) -> int:
    """[full, sliding, sliding, full, ...] -> 3, the distance of full layers; or all layers if only one is full."""
    if isinstance(types, list) and types and len(types) == num_layers:
        n = types.index(FULL, 1) if FULL in types[1:] else len(types)
        if types == [SLIDING if number % n else FULL for number in range(len(types))]:
            return n
    raise MinitrainError(
        f"'layer_types' is {str(types)[:200]}; expected {FULL!r} for the first and every n-th layer after it, "
        f"{SLIDING!r} for the others of 'num_hidden_layers' = {num_layers!r}"
    )


# ---- what the blocks share: positions and masks -----------------------------------------------------------------


@dataclass(frozen=True)
class LayerInputs:
    """Rotary angles and mask for the layers of one kind."""

    cos: Tensor  # (L, 1, D)
    sin: Tensor
    mask: Tensor | None  # (B, 1, L or 1, L) bool, True where a query may look; None for everywhere


class ModernBertPerForward(nn.Module):
    """Computes the inputs of the "global" and the "local" layers, once a forward pass."""

    frequencies: Tensor

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.reach = config.local_attention // 2
        exponents = (torch.arange(0, config.head_size, 2).float() / config.head_size).repeat(2)  # (D,)
        thetas = config.global_rope_theta, config.local_rope_theta
        frequencies = torch.stack([1.0 / float(theta) ** exponents for theta in thetas])  # (2, D)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, x: Tensor, attention_mask: Tensor | None, kernels: Kernels) -> dict[str, LayerInputs]:
        positions = torch.arange(x.size(1), device=x.device)
        angles = positions[:, None, None].float() * self.frequencies[:, None, None]  # (2, L, 1, D)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        real = padding_mask(attention_mask)
        return {
            "global": LayerInputs(cos[0], sin[0], real),
            "local": LayerInputs(cos[1], sin[1], self._local_mask(positions, real, len(x))),
        }

    def _local_mask(self, positions: Tensor, real: Tensor | None, batch: int) -> Tensor | None:
        """(B, 1, L, L) or None."""
        # One token more is still all visible, but there the reference has a mask of only True, with which a GPU
        # uses another kernel.
        if real is None and len(positions) < self.reach:
            return None
        near = (positions[:, None] - positions).abs() <= self.reach
        return near.expand(batch, 1, -1, -1) if real is None else near & real


class ModernBertEmbeddings(nn.Module):
    """Word embeddings, normalised: ids (B, L) -> (B, L, H). No token types; positions are in the attention."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.dropout = config.embedding_dropout
        self.word = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.norm = _norm(config)

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor | None, kernels: Kernels
    ) -> Tensor:
        return kernels.dropout(self.norm(self.word(input_ids)), self.dropout, self.training)


class RotaryAttention(nn.Module):
    """Multi-head self-attention with rotary positions, "global" or "local": (B, L, H) -> (B, L, H)."""

    def __init__(self, config: ModernBertConfig, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.num_heads = config.num_heads
        self.dropout = config.attention_probs_dropout_prob
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.attention_bias)
        self.output = nn.Linear(config.hidden_size, config.hidden_size, bias=config.attention_bias)

    def forward(self, x: Tensor, context: Context, queries: int | None = None) -> Tensor:
        kernels, layer = context.kernels, context.shared[self.kind]
        # Computes all queries even if few are needed: a small part of one layer's work.
        (qkv,) = kernels.linear(x, self.qkv)
        q, k, v = qkv.view(*x.shape[:2], 3, self.num_heads, -1).unbind(2)  # (B, L, N, D) each
        q = apply_rotary_emb(q[:, :queries], layer.cos[:queries], layer.sin[:queries])
        k = apply_rotary_emb(k, layer.cos, layer.sin)
        mask = None if layer.mask is None else layer.mask[:, :, :queries]
        dropout_p = self.dropout if self.training else 0.0
        mixed = kernels.attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask, dropout_p)
        return kernels.linear(mixed.transpose(1, 2).flatten(2), self.output)[0]


class ModernBertBlock(nn.Module):
    """Attention, then feed-forward, each with a LayerNorm before and a residual: (B, L, H) -> (B, Q, H)."""

    def __init__(self, config: ModernBertConfig, number: int) -> None:
        super().__init__()
        self.dropout = config.attention_probs_dropout_prob  # of attention's output too
        self.attention_norm = _norm(config) if number else nn.Identity()  # the embeddings are normalised already
        self.attention = RotaryAttention(
            config, "local" if number % config.global_attn_every_n_layers else "global"
        )
        self.feed_forward_norm = _norm(config)
        sizes = config.hidden_size, config.intermediate_size
        self.feed_forward = GatedFeedForward(*sizes, config.hidden_act, config.hidden_dropout_prob, config.mlp_bias)

    def forward(self, x: Tensor, context: Context, queries: int | None = None) -> Tensor:
        mixed = self.attention(self.attention_norm(x), context, queries)
        x = context.kernels.dropout_add(x[:, :queries], mixed, self.dropout, self.training)
        return x + self.feed_forward(self.feed_forward_norm(x), context)


class ModernBertHead(nn.Module):
    """A hidden layer on [CLS] or on the mean of the real tokens, normalised; then the classifier: -> (B, C)."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        assert config.classifier_dropout is not None
        self.cls_only = config.classifier_pooling == "cls"
        self.dropout = config.classifier_dropout
        self.activation = ACTIVATIONS[config.classifier_activation]
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=config.classifier_bias)
        self.norm = _norm(config)
        self.output = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, x: Tensor, attention_mask: Tensor | None, kernels: Kernels) -> Tensor:
        pooled = x[:, 0] if self.cls_only else _mean(x, attention_mask)
        pooled = self.norm(self.activation(self.dense(pooled)))
        return self.output(kernels.dropout(pooled, self.dropout, self.training))


def _mean(x: Tensor, attention_mask: Tensor | None) -> Tensor:
    """The mean of the real tokens: (B, L, H) -> (B, H)."""
    if attention_mask is None:
        return x.sum(1) / x.size(1)
    real = attention_mask.bool()
    return (x * real[..., None]).sum(1) / real.sum(1, keepdim=True)


def _norm(config: ModernBertConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, bias=config.norm_bias)


def _init_parameter(name: str, parameter: Tensor, config: ModernBertConfig) -> None:
    """Initialise a new parameter of the head as transformers 5.23 does: truncated normal."""
    if name == "head.norm.weight":
        parameter.fill_(1.0)
        return
    init_normal(name, parameter, config)  # the reference draws a matrix twice, which moves the generator
    if name.endswith("weight"):
        scale = config.initializer_range / math.sqrt(2.0 * config.num_layers)
        std = config.hidden_size**-0.5 if name == "head.output.weight" else scale
        cutoff = config.initializer_cutoff_factor * std
        nn.init.trunc_normal_(parameter, std=std, a=-cutoff, b=cutoff)


MODERNBERT = Family(
    model_type="modernbert",
    architecture="ModernBertForSequenceClassification",
    prefix="model.",
    config=ModernBertConfig,
    config_keys={
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "hidden_act": "hidden_activation",
        "hidden_dropout_prob": "mlp_dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "layer_norm_eps": "norm_eps",
    },
    absent=("type_vocab_size", "chunk_size"),
    normalize_config=_normalize_config,
    key_map=(
        ("model.embeddings.tok_embeddings", "encoder.embeddings.word"),
        ("model.embeddings.norm", "encoder.embeddings.norm"),
        ("model.layers.{i}.attn_norm", "encoder.blocks.{i}.attention_norm"),
        ("model.layers.{i}.attn.Wqkv", "encoder.blocks.{i}.attention.qkv"),
        ("model.layers.{i}.attn.Wo", "encoder.blocks.{i}.attention.output"),
        ("model.layers.{i}.mlp_norm", "encoder.blocks.{i}.feed_forward_norm"),
        ("model.layers.{i}.mlp.Wi", "encoder.blocks.{i}.feed_forward.intermediate"),
        ("model.layers.{i}.mlp.Wo", "encoder.blocks.{i}.feed_forward.output"),
        ("model.final_norm", "encoder.final"),
        ("head.dense", "head.dense"),
        ("head.norm", "head.norm"),
        ("classifier", "head.output"),
    ),
    ignored=(r"decoder\..*",),  # of the head of pretraining, whose hidden layer the classifier keeps
    embeddings=ModernBertEmbeddings,
    per_forward=ModernBertPerForward,
    block=ModernBertBlock,
    final_norm=_norm,
    head=ModernBertHead,
    init_parameter=_init_parameter,
)
