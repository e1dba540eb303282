"""The kinds of tokenizers that transformers 5 builds anew from a vocabulary, and what each of them fixes.

Normalizer, pre-tokenizer and template come from the kind, whatever `tokenizer.json` says; vocabulary, merges,
SentencePiece's table of characters and added tokens come from the file. No file is read here.

Source: transformers 5.23.0, models/*/tokenization_*.py.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokenizers import Regex, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

# What tokenizer_config.json may say; the first value is the default.
Choices = Mapping[str, tuple[Any, ...]]
NORMALIZER_CHOICES: Choices = {
    "do_lower_case": (True, False),
    "tokenize_chinese_chars": (True, False),
    "strip_accents": (None, True, False),  # None: strip them when lower-casing
}
PREFIX_CHOICES: Choices = {"add_prefix_space": (True, False)}

AS_IT_IS = (
    'if these files are as published, "tokenizer_class": "PreTrainedTokenizerFast" and "pad_token" in '
    "tokenizer_config.json take tokenizer.json as it is"
)
INPUT_NAMES = ("input_ids", "token_type_ids", "attention_mask")
WITHOUT_TYPE_IDS = ("input_ids", "attention_mask")


class Unfit(ValueError):
    """Files do not fit their class, though they may be as published; with the way out."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, kw_only=True)
class TokenizerFamily:
    """What a tokenizer class fixes unless the folder says otherwise.

    Args:
        build: (tokenizer.json, settings and special tokens by role) -> the `tokenizers` object, without template.
        model: The type of model that tokenizer.json must have.
        special_tokens: Role -> token.
        template: Of a pair, with roles for tokens; a single text has its first three items.
        keeps_template: Whether the template of tokenizer.json is used instead.
        vocabulary_files: Read if there is no tokenizer.json.
        sentencepiece: The file from which only transformers makes a tokenizer.json.
        extra: Special tokens without a role, if the vocabulary has them.
    """

    build: Callable[[Mapping[str, Any], Mapping[str, Any]], Backend]
    model: str
    special_tokens: Mapping[str, str]
    template: str
    choices: Choices
    keeps_template: bool = False
    model_input_names: tuple[str, ...] = WITHOUT_TYPE_IDS
    vocabulary_files: tuple[str, ...] = ()
    sentencepiece: str | None = None
    extra: tuple[str, ...] = ()


def word_pieces(saved: Mapping[str, Any], settings: Mapping[str, Any]) -> Backend:
    """BERT's: words split at spaces and punctuation, then into the longest pieces in the vocabulary."""
    backend = Backend(WordPiece(saved["model"]["vocab"], unk_token=settings["unk_token"]))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings["tokenize_chinese_chars"],
        strip_accents=settings["strip_accents"],
        lowercase=settings["do_lower_case"],
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend


def byte_pairs(saved: Mapping[str, Any], settings: Mapping[str, Any]) -> Backend:
    """RoBERTa's, after GPT-2: merged pairs of bytes, with the space before a word; nothing is unknown."""
    vocabulary, merges = _vocabulary_and_merges(saved)
    if len(set(vocabulary.values())) < len(vocabulary):  # one of the two would be lost when it is saved
        raise Unfit("two tokens of the vocabulary have the same id", "give each its own id there")
    backend = Backend(BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix=""))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=settings["add_prefix_space"])
    backend.decoder = decoders.ByteLevel()
    return backend


def herbert_pairs(saved: Mapping[str, Any], settings: Mapping[str, Any]) -> Backend:
    """HerBERT's: BERT's words with case and accents, merged pairs of characters, the end of a word marked."""
    vocabulary, merges = _vocabulary_and_merges(saved)
    ids = [vocabulary.get(settings[role]) for role in ("cls_token", "sep_token")]
    if ids != [0, 2]:  # the reference writes these ids into its template, whatever the tokens' own are
        raise Unfit(
            f"the ids of {settings['cls_token']} and {settings['sep_token']} are {ids}, expected 0 and 2", AS_IT_IS
        )
    backend = Backend(BPE(vocabulary, merges, unk_token=settings["unk_token"], end_of_word_suffix="</w>"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.BPEDecoder(suffix="</w>")
    return backend


def _vocabulary_and_merges(saved: Mapping[str, Any]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    merges = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in saved["model"]["merges"]]
    return saved["model"]["vocab"], merges


def xlm_roberta_pieces(saved: Mapping[str, Any], settings: Mapping[str, Any]) -> Backend:
    """XLM-RoBERTa's: SentencePiece's own normalizer, and the unknown token always at id 3."""
    return _unigram(saved, settings, 3, _charsmap(saved))


def camembert_pieces(saved: Mapping[str, Any], settings: Mapping[str, Any]) -> Backend:
    """CamemBERT's: as XLM-RoBERTa's, with the unknown token looked up."""
    pieces = [piece for piece, _ in saved["model"]["vocab"]]
    unknown = settings["unk_token"]
    return _unigram(saved, settings, pieces.index(unknown) if unknown in pieces else 0, _charsmap(saved))


def albert_pieces(saved: Mapping[str, Any], settings: Mapping[str, Any]) -> Backend:
    """ALBERT's: quotation marks unified, accents and case dropped if so set; the unknown token at id 1."""
    steps: list[Normalizer] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not settings["keep_accents"]:
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if settings["do_lower_case"]:
        steps.append(normalizers.Lowercase())
    return _unigram(saved, settings, 1, [*steps, *_charsmap(saved)])


def deberta_v2_pieces(saved: Mapping[str, Any], settings: Mapping[str, Any]) -> Backend:
    """DeBERTa-v2's and v3's: runs of spaces joined and NFC instead of SentencePiece's normalizer."""
    pieces, unknown = [tuple(piece) for piece in saved["model"]["vocab"]], settings["unk_token"]
    if (unknown, 0.0) not in pieces:  # the reference would take id 1, which in these vocabularies is [CLS]
        raise Unfit(
            f"the unk_token {unknown!r} is not in the vocabulary with a score of 0",
            'name the one that is, as "unk_token" in tokenizer_config.json',
        )
    steps: list[Normalizer] = [normalizers.Lowercase()] if settings["do_lower_case"] else []
    steps += [normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "), normalizers.NFC()]
    steps.append(normalizers.Strip(left=False, right=True))
    splits = [pre_tokenizers.Punctuation("isolated")] if settings["split_by_punct"] else []
    return _unigram(saved, settings, pieces.index((unknown, 0.0)), steps, splits, no_prefix="first")


def _unigram(
    saved: Mapping[str, Any],
    settings: Mapping[str, Any],
    unk_id: int,
    steps: list[Normalizer],
    splits: Sequence[PreTokenizer] = (pre_tokenizers.WhitespaceSplit(),),
    no_prefix: str = "never",
) -> Backend:
    """The likeliest pieces of a text by their scores; a space is written ▁.

    steps: Of the normalizer. splits: Of the pre-tokenizer. no_prefix: Metaspace's scheme without add_prefix_space.
    """
    pieces = [(piece, score) for piece, score in saved["model"]["vocab"]]
    backend = Backend(Unigram(pieces, unk_id=unk_id, byte_fallback=False))
    if steps:
        backend.normalizer = normalizers.Sequence(steps)
    prefix = "always" if settings["add_prefix_space"] else no_prefix
    spaces = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=prefix)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*splits, spaces])
    backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme=prefix)
    return backend


def _charsmap(saved: Mapping[str, Any]) -> list[Normalizer]:
    """SentencePiece's table of character replacements, the first in tokenizer.json, if any."""
    whole = saved.get("normalizer") or {}
    for step in whole.get("normalizers", [whole]):
        if step.get("type") == "Precompiled":
            return [normalizers.Precompiled(base64.b64decode(step["precompiled_charsmap"]))]
    return []


BERT_TOKENS = dict(unk_token="[UNK]", sep_token="[SEP]", pad_token="[PAD]", cls_token="[CLS]", mask_token="[MASK]")
ROBERTA_TOKENS = dict(unk_token="<unk>", sep_token="</s>", pad_token="<pad>", cls_token="<s>", mask_token="<mask>")
ENDS = {"bos_token": "<s>", "eos_token": "</s>"}

BERT = TokenizerFamily(
    build=word_pieces,
    model="WordPiece",
    special_tokens=BERT_TOKENS,
    template="{cls_token}:0 $A:0 {sep_token}:0 $B:1 {sep_token}:1",
    choices=NORMALIZER_CHOICES,
    model_input_names=INPUT_NAMES,
    vocabulary_files=("vocab.txt",),
)
ROBERTA = TokenizerFamily(
    build=byte_pairs,
    model="BPE",
    special_tokens=ROBERTA_TOKENS | ENDS,
    template="{cls_token}:0 $A:0 {sep_token}:0 {sep_token}:0 $B:0 {sep_token}:0",
    choices={"add_prefix_space": (False, True)},
    vocabulary_files=("vocab.json", "merges.txt"),
)
MPNET = replace(
    ROBERTA,
    build=word_pieces,
    model="WordPiece",
    special_tokens=ROBERTA_TOKENS | ENDS | {"unk_token": "[UNK]"},
    choices=NORMALIZER_CHOICES,
    vocabulary_files=("vocab.txt",),
)
XLM_ROBERTA = replace(
    ROBERTA,
    build=xlm_roberta_pieces,
    model="Unigram",
    template="{bos_token}:0 $A:0 {eos_token}:0 {eos_token}:0 $B:0 {eos_token}:0",
    choices=PREFIX_CHOICES,
    vocabulary_files=(),
    sentencepiece="sentencepiece.bpe.model",
)
CAMEMBERT = replace(XLM_ROBERTA, build=camembert_pieces, extra=("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"))
DEBERTA_V2 = replace(
    BERT,
    build=deberta_v2_pieces,
    model="Unigram",
    special_tokens=BERT_TOKENS | {"bos_token": "[CLS]", "eos_token": "[SEP]"},
    choices={"do_lower_case": (False, True), "split_by_punct": (False, True), **PREFIX_CHOICES},
    vocabulary_files=(),
    sentencepiece="spm.model",
)
ALBERT = replace(
    DEBERTA_V2,
    build=albert_pieces,
    special_tokens={**DEBERTA_V2.special_tokens, "unk_token": "<unk>", "pad_token": "<pad>"},
    choices={"do_lower_case": (True, False), "keep_accents": (False, True), **PREFIX_CHOICES},
    keeps_template=True,
    model_input_names=WITHOUT_TYPE_IDS,
    sentencepiece="spiece.model",
)
# As BERT's, but the first token has type 2, for which a model with two types has no embedding.
FUNNEL = replace(
    BERT,
    special_tokens=ROBERTA_TOKENS | ENDS | {"sep_token": "<sep>", "cls_token": "<cls>"},
    template="{cls_token}:2 $A:0 {sep_token}:0 $B:1 {sep_token}:1",
    model_input_names=WITHOUT_TYPE_IDS,
)
DEBERTA = replace(
    ROBERTA,
    special_tokens=BERT_TOKENS | {"bos_token": "[CLS]", "eos_token": "[SEP]"},
    model_input_names=INPUT_NAMES,
)
HERBERT = replace(
    ROBERTA,
    build=herbert_pairs,
    special_tokens=ROBERTA_TOKENS,
    template="{cls_token}:0 $A:0 {sep_token}:0 $B:1 {sep_token}:1",
    choices={},
)

# Names without "Tokenizer".
_CLASSES = (
    (ALBERT, "Albert"),
    (BERT, "Bert ConvBert DPRContextEncoder DPRQuestionEncoder Electra LayoutLM Lxmert MobileBert SqueezeBert"),
    (replace(BERT, model_input_names=WITHOUT_TYPE_IDS), "DPRReader DistilBert"),
    (CAMEMBERT, "Camembert"),
    (DEBERTA, "Deberta"),
    (DEBERTA_V2, "DebertaV2"),
    (FUNNEL, "Funnel"),
    (HERBERT, "Herbert"),
    (MPNET, "MPNet"),
    (ROBERTA, "Bart LED Longformer Mvp Roberta"),
    (XLM_ROBERTA, "XLMRoberta"),
)
FAMILIES = {f"{name}Tokenizer": family for family, names in _CLASSES for name in names.split()}


def family_of(name: str) -> TokenizerFamily | None:
    """How a class is built; None if tokenizer.json is used as it is."""
    return FAMILIES.get(name.removesuffix("Fast"))
