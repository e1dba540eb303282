"""RoBERTa (Liu et al. 2019, arXiv 1907.11692): BERT with positions counted from the padding id, and another head.

XLM-RoBERTa (Conneau et al. 2019, arXiv 1911.02116) and CamemBERT (Martin et al. 2019, arXiv 1911.03894) are the
same model with other vocabularies. After transformers 5.23 models/roberta/modeling_roberta.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from minitrain.errors import MinitrainError
from minitrain.model.encoder_config import EncoderConfig, token_id
from minitrain.model.families.bert import CONFIG_KEYS, BertEmbeddings, BertHead, Family, bert_block, bert_key_map


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


class OffsetEmbeddings(BertEmbeddings):
    """BERT's embeddings, with positions counted from the padding id as in fairseq."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__(config)
        assert config.pad_token_id is not None
        self.position.padding_idx = self.pad_token_id = config.pad_token_id

    def positions(self, input_ids: Tensor) -> Tensor:
        """Tokens count from pad_token_id + 1, every padding id is at pad_token_id: (B, L)."""
        real = input_ids.ne(self.pad_token_id).long()
        return real.cumsum(1) * real + self.pad_token_id


class RobertaEmbeddings(OffsetEmbeddings):
    """With positions registered last, as in the reference."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__(config)
        position = self.position
        del self.position
        self.position = position


# With dropout before the hidden layer too.
DenseHead = partial(BertHead, name="dense", input_dropout=None)

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
