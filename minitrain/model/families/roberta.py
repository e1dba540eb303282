"""RoBERTa (Liu et al. 2019, arXiv 1907.11692) and its kin: BERT with positions counted from the padding id.

XLM-RoBERTa (Conneau et al. 2019, arXiv 1911.02116) and CamemBERT (Martin et al. 2019, arXiv 1911.03894) are the
same model with other vocabularies. After transformers 5.23 models/roberta/modeling_roberta.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from minitrain.kernels.reference import Kernels
from minitrain.model.encoder_config import EncoderConfig, token_id
from minitrain.model.families.bert import CONFIG_NAMES, modules
from minitrain.model.families.common import DenseHead, positions_after, post_norm_block
from minitrain.model.families.family import Family


@dataclass(frozen=True, kw_only=True)
class RobertaConfig(EncoderConfig):
    """Of 514 positions, 512 are usable: they are counted from the padding id, which is 1."""

    pad_token_id: int | None = token_id(1)

    @property
    def max_length(self) -> int:
        assert self.pad_token_id is not None
        return self.max_position_embeddings - self.pad_token_id - 1

    def inconsistency(self, keys: Mapping[str, str]) -> str | None:
        if self.pad_token_id is None:
            return "'pad_token_id' is null; positions are counted from it, so it has to be a token id"
        if self.max_length < 1:
            return (
                f"'max_position_embeddings' is {self.max_position_embeddings}; positions are counted from "
                f"'pad_token_id' + 1 = {self.pad_token_id + 1}, so there is room for none"
            )
        return super().inconsistency(keys)


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


def _head(config: RobertaConfig) -> DenseHead:
    return DenseHead(config, torch.tanh)


ROBERTA = Family(
    model_type="roberta",
    architecture="RobertaForSequenceClassification",
    prefix="roberta.",
    config=RobertaConfig,
    config_names=CONFIG_NAMES,
    renames=(*modules("roberta."), ("classifier.dense", "head.dense"), ("classifier.out_proj", "head.output")),
    # The head of pretraining, a pooler that no head reads, and buffers that older versions of transformers saved.
    ignored=(r"lm_head\..*", r"(roberta\.)?pooler\..*", r"(roberta\.)?embeddings\.(position|token_type)_ids"),
    embeddings=RobertaEmbeddings,
    block=post_norm_block,
    head=_head,
)
XLM_ROBERTA = replace(
    ROBERTA, model_type="xlm-roberta", architecture="XLMRobertaForSequenceClassification", head_first=True
)
CAMEMBERT = replace(
    ROBERTA, model_type="camembert", architecture="CamembertForSequenceClassification", head_first=True
)
