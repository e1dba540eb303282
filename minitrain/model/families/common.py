"""What more than one family has: embeddings that are sums, the block of BERT, a head with one hidden layer."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from minitrain.kernels.reference import Kernels
from minitrain.model.encoder_config import EncoderConfig
from minitrain.model.layers import Attention, Block


class SummedEmbeddings(nn.Module):
    """Word, type and position embeddings, summed and normalised: ids (B, L) -> (B, L, H), as BERT has them.

    size: of the embeddings, where it is not the hidden size. projected: whether a linear layer leads to that.
    """

    def __init__(self, config: EncoderConfig, size: int | None = None, projected: bool = False) -> None:
        super().__init__()
        size = size or config.hidden_size
        self.dropout = config.hidden_dropout_prob
        self.word = nn.Embedding(config.vocab_size, size, padding_idx=config.pad_token_id)
        self.position = nn.Embedding(config.max_position_embeddings, size)
        self.token_type = nn.Embedding(config.type_vocab_size, size)
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.projection = nn.Linear(size, config.hidden_size) if projected else None

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor | None, kernels: Kernels
    ) -> Tensor:
        positions = torch.arange(input_ids.size(1), device=input_ids.device)[None]  # (1, L)
        # (word + type) + position: another order of the two sums gives other last bits.
        x = self.word(input_ids) + self.token_type(token_type_ids) + self.position(positions)
        x = kernels.dropout(self.norm(x), self.dropout, self.training)
        return x if self.projection is None else kernels.linear(x, self.projection)[0]


def positions_after(pad_token_id: int, input_ids: Tensor) -> Tensor:
    """(B, L) -> (B, L): real tokens are counted from pad_token_id + 1, padding stays there (fairseq's way).

    A padding id among the real tokens is not counted either.
    """
    real = input_ids.ne(pad_token_id).long()
    return real.cumsum(1) * real + pad_token_id


def post_norm_block(config: EncoderConfig, number: int) -> Block:
    """A block as Devlin et al. have it; all of them are alike."""
    return Block(
        attention=Attention(config.hidden_size, config.num_heads, config.attention_probs_dropout_prob),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        activation=config.hidden_act,
        attention_output_dropout=config.hidden_dropout_prob,
        feed_forward_dropout=config.hidden_dropout_prob,
        layer_norm_eps=config.layer_norm_eps,
        chunk_size=config.chunk_size,
    )


class DenseHead(nn.Module):
    """A hidden layer on [CLS], with dropout before and after it, then the classifier: (B, L, H) -> (B, C)."""

    cls_only = True

    def __init__(self, config: EncoderConfig, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        own = config.classifier_dropout
        self.dropout = config.hidden_dropout_prob if own is None else own
        self.activation = activation
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, x: Tensor, attention_mask: Tensor | None, kernels: Kernels) -> Tensor:
        x = kernels.dropout(x[:, 0], self.dropout, self.training)
        x = self.activation(self.dense(x))
        return self.output(kernels.dropout(x, self.dropout, self.training))
