"""ELECTRA (Clark et al. 2020, arXiv 2003.10555): BERT with narrower embeddings and another head.

After transformers 5.23 models/electra/modeling_electra.py.
"""

from dataclasses import dataclass

import torch.nn.functional as F

from minitrain.model.encoder_config import EncoderConfig, size
from minitrain.model.families.bert import CONFIG_NAMES, BertEmbeddings, bert_block, bert_key_map
from minitrain.model.families.family import Family
from minitrain.model.families.roberta import DenseHead


@dataclass(frozen=True, kw_only=True)
class ElectraConfig(EncoderConfig):
    """A linear layer projects the embeddings to the hidden size if their size is another."""

    embedding_size: int = size(128)


def _embeddings(config: ElectraConfig) -> BertEmbeddings:
    return BertEmbeddings(config, config.embedding_size, projected=config.embedding_size != config.hidden_size)


def _head(config: ElectraConfig) -> DenseHead:
    return DenseHead(config, F.gelu)


ELECTRA = Family(
    model_type="electra",
    architecture="ElectraForSequenceClassification",
    prefix="electra.",
    config=ElectraConfig,
    config_names=CONFIG_NAMES | {"embedding_size": "embedding_size"},
    key_map=(
        *bert_key_map("electra."),
        ("electra.embeddings_project", "encoder.embeddings.projection"),
        ("classifier.dense", "head.dense"),
        ("classifier.out_proj", "head.output"),
    ),
    # The heads of pretraining, of the discriminator and of the generator.
    ignored=(r"discriminator_predictions\..*", r"generator_(predictions|lm_head)\..*"),
    embeddings=_embeddings,
    block=bert_block,
    head=_head,
)
