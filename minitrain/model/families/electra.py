"""ELECTRA (Clark et al. 2020, arXiv 2003.10555): BERT with narrower embeddings and another head.

After transformers 5.23 models/electra/modeling_electra.py.
"""

from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F

from minitrain.model.encoder_config import EncoderConfig, size
from minitrain.model.families.bert import CONFIG_KEYS, BertEmbeddings, Family, bert_block, bert_key_map
from minitrain.model.families.roberta import DenseHead


@dataclass(frozen=True, kw_only=True)
class ElectraConfig(EncoderConfig):
    """A linear layer projects the embeddings to the hidden size if their size is another."""

    embedding_size: int = size(128)


def _embeddings(config: ElectraConfig) -> BertEmbeddings:
    return BertEmbeddings(config, config.embedding_size, projected=config.embedding_size != config.hidden_size)


ELECTRA = Family(
    model_type="electra",
    architecture="ElectraForSequenceClassification",
    prefix="electra.",
    config=ElectraConfig,
    config_keys=CONFIG_KEYS,
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
    head=partial(DenseHead, activation=F.gelu),
)
