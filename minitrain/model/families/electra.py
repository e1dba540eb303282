"""ELECTRA (Clark et al. 2020, arXiv 2003.10555): BERT whose embeddings may be narrower, with a head of its own.

After transformers 5.23 models/electra/modeling_electra.py.
"""

from dataclasses import dataclass

import torch.nn.functional as F

from minitrain.model.encoder_config import EncoderConfig, size
from minitrain.model.families.bert import CONFIG_NAMES, modules
from minitrain.model.families.common import DenseHead, SummedEmbeddings, post_norm_block
from minitrain.model.families.family import Family


@dataclass(frozen=True, kw_only=True)
class ElectraConfig(EncoderConfig):
    """embedding_size: of the three embeddings; a linear layer leads to the hidden size where that is another."""

    embedding_size: int = size(128)


def _embeddings(config: ElectraConfig) -> SummedEmbeddings:
    return SummedEmbeddings(config, config.embedding_size, projected=config.embedding_size != config.hidden_size)


def _head(config: ElectraConfig) -> DenseHead:
    return DenseHead(config, F.gelu)


ELECTRA = Family(
    model_type="electra",
    architecture="ElectraForSequenceClassification",
    prefix="electra.",
    config=ElectraConfig,
    config_names=CONFIG_NAMES | {"embedding_size": "embedding_size"},
    renames=(
        *modules("electra."),
        ("electra.embeddings_project", "encoder.embeddings.projection"),
        ("classifier.dense", "head.dense"),
        ("classifier.out_proj", "head.output"),
    ),
    # The heads of pretraining (of discriminator and generator), and buffers that older versions saved.
    ignored=(
        r"discriminator_predictions\..*",
        r"generator_(predictions|lm_head)\..*",
        r"(electra\.)?embeddings\.(position|token_type)_ids",
    ),
    embeddings=_embeddings,
    block=post_norm_block,
    head=_head,
)
