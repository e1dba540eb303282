"""The families that minitrain supports: a file and a row for each."""

from collections.abc import Mapping
from typing import Any

from minitrain.errors import MinitrainError, shown
from minitrain.model.encoder_config import EncoderConfig
from minitrain.model.families.albert import ALBERT
from minitrain.model.families.bert import BERT, Family
from minitrain.model.families.deberta_v2 import DEBERTA_V2
from minitrain.model.families.distilbert import DISTILBERT
from minitrain.model.families.electra import ELECTRA
from minitrain.model.families.modernbert import MODERNBERT
from minitrain.model.families.mpnet import MPNET
from minitrain.model.families.roberta import CAMEMBERT, ROBERTA, XLM_ROBERTA

_ALL = ALBERT, BERT, CAMEMBERT, DEBERTA_V2, DISTILBERT, ELECTRA, MPNET, MODERNBERT, ROBERTA, XLM_ROBERTA
FAMILIES: dict[str, Family] = {family.model_type: family for family in _ALL}


def family_of(raw: Mapping[str, Any]) -> Family:
    """The family that a parsed `config.json` names. Raises MinitrainError with the known ones."""
    name, known = raw.get("model_type"), ", ".join(sorted(FAMILIES))
    if name is None:
        likely = _likely(raw)
        raise MinitrainError(
            f"has no 'model_type', which names the kind of model; if it is a {likely}, add the line "
            f'"model_type": "{likely}",  (minitrain knows {known})'
        )
    if not isinstance(name, str) or name not in FAMILIES:
        raise MinitrainError(f"'model_type' is {shown(name)}; minitrain knows {known}")
    return FAMILIES[name]


def check_type_ids(config: EncoderConfig, highest: int, where: str = "") -> None:
    """Raise MinitrainError, beginning with `where`, if a token type has no embedding."""
    reads_types = "type_vocab_size" in FAMILIES[config.model_type].config_names and config.type_vocab_size > 0
    if reads_types and highest >= config.type_vocab_size:
        raise MinitrainError(
            f"{where}the tokenizer gives token types up to {highest}, as of the second text of a pair, but the "
            f"model's type_vocab_size (config.json) is {config.type_vocab_size}; to give every token the type 0, "
            'put "model_input_names": ["input_ids", "attention_mask"] into tokenizer_config.json'
        )


# Keys of config.json that only one family has.
_OWN_KEYS = {
    "dim": "distilbert",
    "num_hidden_groups": "albert",
    "pos_att_type": "deberta-v2",
    "global_attn_every_n_layers": "modernbert",
    "relative_attention_num_buckets": "mpnet",
    "embedding_size": "electra",
}


def _likely(raw: Mapping[str, Any]) -> str:
    """The most likely family of a config.json without model_type."""
    classes = raw.get("architectures")
    for name in classes if isinstance(classes, list) else []:
        for family in FAMILIES.values():
            if str(name).startswith(family.architecture.removesuffix("ForSequenceClassification")):
                return family.model_type
    found = next((family for key, family in _OWN_KEYS.items() if key in raw), None)
    return found or ("roberta" if raw.get("type_vocab_size") == 1 else "bert")
