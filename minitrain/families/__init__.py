"""The families that minitrain knows: one file each, one row each here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minitrain.errors import MinitrainError, shown
from minitrain.families.albert import ALBERT
from minitrain.families.bert import BERT
from minitrain.families.deberta_v2 import DEBERTA_V2
from minitrain.families.distilbert import DISTILBERT
from minitrain.families.electra import ELECTRA
from minitrain.families.family import Family
from minitrain.families.modernbert import MODERNBERT
from minitrain.families.mpnet import MPNET
from minitrain.families.roberta import CAMEMBERT, ROBERTA, XLM_ROBERTA

FAMILIES: dict[str, Family] = {
    "albert": ALBERT,
    "bert": BERT,
    "camembert": CAMEMBERT,
    "deberta-v2": DEBERTA_V2,
    "distilbert": DISTILBERT,
    "electra": ELECTRA,
    "mpnet": MPNET,
    "modernbert": MODERNBERT,
    "roberta": ROBERTA,
    "xlm-roberta": XLM_ROBERTA,
}


def family_of(raw: Mapping[str, Any], path: Path) -> Family:
    """The family that a parsed `config.json` names.

    Raises MinitrainError naming the file and the families there are.
    """
    name = raw.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise MinitrainError(
            f"{path}: 'model_type' is {shown(name)}; minitrain knows {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[name]


__all__ = ["FAMILIES", "Family", "family_of"]
