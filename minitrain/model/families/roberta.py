"""RoBERTa (Liu et al. 2019, arXiv 1907.11692): BERT with positions counted from the padding id, and another head.

XLM-RoBERTa (Conneau et al. 2019, arXiv 1911.02116) and CamemBERT (Martin et al. 2019, arXiv 1911.03894) are the
same model with other vocabularies. After transformers 5.23 models/roberta/modeling_roberta.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from minitrain.errors import MinitrainError
from minitrain.kernels.reference import Kernels
from minitrain.model.encoder_config import EncoderConfig, token_id
from minitrain.model.families.bert import CONFIG_KEYS, bert_block, bert_key_map
from minitrain.model.families.family import Family


@dataclass(frozen=True, kw_only=True)
class RobertaConfig(EncoderConfig):
    """Of 514 positions, 512 are usable: they are counted from the padding id, which is 1."""

    pad_token_id: int | None = token_id(1)

    @property
    def max_length(self) -> int:
        assert self.pad_token_id is not None
        return self.max_position_embeddings - self.pad_token_id - 1

    def validate(self, keys: Mapping[str, str]) -> None:
        if self.pad_token_id is None:
            raise MinitrainError("'pad_token_id' is null; expected a token id, from which positions are counted")
        if self.max_length < 1:
            raise MinitrainError(
                f"'max_position_embeddings' is {self.max_position_embeddings}; positions are counted from "
                f"'pad_token_id' + 1 = {self.pad_token_id + 1}, so there is room for none"
            )
        super().validate(keys)


def positions_after(pad_token_id: int, input_ids: Tensor) -> Tensor:
    """Positions (B, L) as fairseq counts them: tokens from pad_token_id + 1, every padding id pad_token_id."""
    real = input_ids.ne(pad_token_id).long()
    return real.cumsum(1) * real + pad_token_id


class RobertaEmbeddings(nn.Module):
    """Word, type and position embeddings, summed and normalised: ids (B, L) -> (B, L, H)."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        assert config.pad_token_id is not None
        self.pad_token_id = config.pad_token_id
        self.dropout = config.hidden_dropout_prob
        self.word = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.position = nn.Embedding(
            config.max_position_embeddings, config.hidden_size, padding_idx=config.pad_token_id
        )

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor | None, kernels: Kernels
    ) -> Tensor:
        positions = self.position(positions_after(self.pad_token_id, input_ids))
        x = self.word(input_ids) + self.token_type(token_type_ids) + positions
        return kernels.dropout(self.norm(x), self.dropout, self.training)


class DenseHead(nn.Module):
    """A hidden layer on [CLS], with dropout before and after it, then the classifier: (B, L, H) -> (B, C)."""

    cls_only = True

    def __init__(
        self,
        config: EncoderConfig,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        input_dropout: float | None = None,
    ) -> None:
        super().__init__()
        own = config.classifier_dropout
        self.dropout = config.hidden_dropout_prob if own is None else own
        self.input_dropout = self.dropout if input_dropout is None else input_dropout
        self.activation = activation
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, x: Tensor, attention_mask: Tensor | None, kernels: Kernels) -> Tensor:
        x = kernels.dropout(x[:, 0], self.input_dropout, self.training)  # (B, H)
        x = self.activation(self.dense(x))
        return self.output(kernels.dropout(x, self.dropout, self.training))


ROBERTA = Family(
    model_type="roberta",
    architecture="RobertaForSequenceClassification",
    prefix="roberta.",
    config=RobertaConfig,
    config_keys=CONFIG_KEYS,
    key_map=(*bert_key_map("roberta."), ("classifier.dense", "head.dense"), ("classifier.out_proj", "head.output")),
    ignored=(r"lm_head\..*", r"(roberta\.)?pooler\..*"),  # the head of pretraining; a pooler that no head reads
    embeddings=RobertaEmbeddings,
    block=bert_block,
    head=DenseHead,
)
XLM_ROBERTA = replace(
    ROBERTA, model_type="xlm-roberta", architecture="XLMRobertaForSequenceClassification", head_first=True
)
CAMEMBERT = replace(
    ROBERTA, model_type="camembert", architecture="CamembertForSequenceClassification", head_first=True
)
