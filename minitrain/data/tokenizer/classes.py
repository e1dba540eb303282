"""The tokenizer classes of transformers 5 by name: which are built anew, and what to say of those that are not.

A class in `FAMILIES` is built from its vocabulary and gives the ids of `AutoTokenizer`. Any other takes
`tokenizer.json` as it is, which `AutoTokenizer` does too, but for those in REBUILT_ELSEWHERE and IN_PYTHON.

Source: transformers 5.23.0, models/auto/tokenization_auto.py.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from minitrain.data.tokenizer.families import (
    ALBERT,
    BERT,
    CAMEMBERT,
    DEBERTA,
    DEBERTA_V2,
    FUNNEL,
    HERBERT,
    MPNET,
    ROBERTA,
    WITHOUT_TYPE_IDS,
    XLM_ROBERTA,
    TokenizerFamily,
)

UNTYPED_BERT = replace(BERT, model_input_names=WITHOUT_TYPE_IDS)
FAMILIES = {
    "AlbertTokenizer": ALBERT,
    "BartTokenizer": ROBERTA,
    "BertTokenizer": BERT,
    "CamembertTokenizer": CAMEMBERT,
    "ConvBertTokenizer": BERT,
    "DPRContextEncoderTokenizer": BERT,
    "DPRQuestionEncoderTokenizer": BERT,
    "DPRReaderTokenizer": UNTYPED_BERT,
    "DebertaTokenizer": DEBERTA,
    "DebertaV2Tokenizer": DEBERTA_V2,
    "DistilBertTokenizer": UNTYPED_BERT,
    "ElectraTokenizer": BERT,
    "FunnelTokenizer": FUNNEL,
    "HerbertTokenizer": HERBERT,
    "LEDTokenizer": ROBERTA,
    "LayoutLMTokenizer": BERT,
    "LongformerTokenizer": ROBERTA,
    "LxmertTokenizer": BERT,
    "MPNetTokenizer": MPNET,
    "MobileBertTokenizer": BERT,
    "MvpTokenizer": ROBERTA,
    "RobertaTokenizer": ROBERTA,
    "SqueezeBertTokenizer": BERT,
    "XLMRobertaTokenizer": XLM_ROBERTA,
}
AS_IT_STANDS = "TokenizersBackend"
SAVED_AS = "PreTrainedTokenizerFast"  # the same by the name that transformers 4 knows too

# Names without their "Tokenizer". Built anew by transformers, but not here: ids may differ where tokenizer.json
# says otherwise than the class.
REBUILT_ELSEWHERE = """
Barthez BigBird Blenderbot CLIP CodeGen CodeLlama Cohere Cpm Esmc FNet GPT2 GPTNeoX Gemma Lasr LayoutLMv2
LayoutLMv3 LayoutXLM Llama Luke MBart MBart50 MarkupLM Nllb Nougat OpenAIGPT Pegasus Qwen2 Qwen3_5 Reformer
RemBert RoFormer SeamlessM4T Siglip2 Splinter T5 Udop VideoPrism Whisper XGLM XLNet
"""
# Written in Python, some around sentencepiece: transformers does not look at a tokenizer.json.
IN_PYTHON = """
Bartpho BertGeneration BertJapanese BertTokenizerLegacy Bertweet BioGpt BlenderbotSmall ByT5 CTRL Canine Clvp
CpmAnt Dia Esm FSMT Flaubert GPTNeoXJapanese GPTSw3 M2M100 MLuke Marian Mgpstr MyT5 PLBart Perceiver Phobert
ProphetNet RoCBert Siglip Speech2Text SpeechT5 Tapas Tipsv2 Vits Wav2Vec2CTC Wav2Vec2PhonemeCTC XLM
"""

# Those that pad on the left where no file names a side.
PADS_LEFT = "CodeLlama Cohere Gemma Llama Siglip2 XLNet"

# The class by the model_type of config.json, for a folder that names none.
CLASS_OF = {
    "albert": "AlbertTokenizer",
    "camembert": "CamembertTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
    "modernbert": AS_IT_STANDS,  # and whatever class its folder names
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}
DEFAULT_CLASS = "BertTokenizer"
WORD_PIECES = "vocab.txt"
VOCABULARIES = (WORD_PIECES, "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")


def class_for(named: Any, model_type: Any) -> Any:
    """The class that counts: the one a folder names (None where it does not), or that of its kind of model."""
    usual = CLASS_OF.get(model_type, DEFAULT_CLASS) if isinstance(model_type, str) else DEFAULT_CLASS
    return usual if usual == AS_IT_STANDS else named or usual


def family_of(name: str) -> TokenizerFamily | None:
    """What a class is built by; None where tokenizer.json is taken as it is."""
    return FAMILIES.get(name.removesuffix("Fast"))


def as_it_is_note(name: str, saved: Mapping[str, Any]) -> str | None:
    """What to say of a tokenizer.json that is taken as it is, where transformers does not."""
    short = _short(name)
    if short == "Llama" and _is_byte_level(saved):  # taken as it is there too
        return None
    if short in REBUILT_ELSEWHERE.split():
        other = f"transformers 5 builds {name} anew, which"
    elif short in IN_PYTHON.split():
        other = f"transformers' {name} is Python code that does not read it, and"
    else:
        return None
    return f"tokenizer.json is taken as it is, and saved so; {other} may give other ids or type ids"


def usual_sides(name: str, saved: Mapping[str, Any]) -> dict[str, Any]:
    """The padding_side of a class where no file names one, if it is not the usual one."""
    left = _short(name) in PADS_LEFT.split() and not (_short(name) == "Llama" and _is_byte_level(saved))
    return {"padding_side": "left"} if left else {}


def _short(name: str) -> str:
    return name.removesuffix("Fast").removesuffix("Tokenizer")


def _is_byte_level(saved: Mapping[str, Any]) -> bool:
    return "'ByteLevel'" in str(saved.get("pre_tokenizer"))


def way_out(name: str, directory: Path) -> str:
    """What helps somebody whose folder has none of the files that a class is read from."""
    family, short = family_of(name), _short(name)
    if family is not None and family.sentencepiece and (directory / family.sentencepiece).exists():
        return (
            f"{family.sentencepiece} is not read. Convert it once, with transformers, sentencepiece and protobuf "
            "installed: AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER), then put config.json and "
            "the weights into FOLDER too"
        )
    if short in IN_PYTHON.split():
        return (
            f"{name} is Python code in transformers, which has no fast one, so that save_pretrained writes no "
            "tokenizer.json either. What works: a tokenizer.json that somebody made for this model, with "
            '"tokenizer_class": "PreTrainedTokenizerFast" in tokenizer_config.json, or a model of the language '
            "that comes with one, as FacebookAI/xlm-roberta-base does for a hundred languages"
        )
    if short in REBUILT_ELSEWHERE.split() and any((directory / file).exists() for file in VOCABULARIES):
        return (
            "make it once, with transformers installed: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    if (directory / WORD_PIECES).exists():
        return (
            f"{WORD_PIECES} is there, which that class does not read: if it lists word pieces, as that of Chinese "
            'ALBERTs does, set "tokenizer_class": "BertTokenizer" in tokenizer_config.json'
        )
    return "get the files of the tokenizer from where the model came from"
