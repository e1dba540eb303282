"""A small random checkpoint, made by transformers, loaded by both sides, and compared bit for bit.

A family is a row of `REFERENCES`; every comparison here takes any row. Our side always loads through the library's
own path, `load_classifier`, with reference kernels.
"""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from references.reference import copied
from torch import Tensor, nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    CamembertConfig,
    CamembertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from minitrain.model.classifier import SequenceClassifier
from minitrain.model.weights import load_classifier, reference_names
from minitrain.training.loss import cross_entropy, mean_squared_error
from minitrain.training.optim import AdamW

Inputs = dict[str, Tensor]
PAD = 0  # the id in `small`; a test may give another


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A family's classes in transformers, and a config of theirs that is small and has dropout everywhere."""

    config: type[Any]
    model: type[Any]
    small: dict[str, Any]


SMALL = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.2,
    "pad_token_id": PAD,
}
# Positions of RoBERTa and its kin are counted from the padding id, and the first one is of no use.
SMALL_ROBERTA = SMALL | {"max_position_embeddings": 26, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
REFERENCES = {
    "bert": Reference(config=BertConfig, model=BertForSequenceClassification, small=SMALL),
    "roberta": Reference(config=RobertaConfig, model=RobertaForSequenceClassification, small=SMALL_ROBERTA),
    "xlm-roberta": Reference(
        config=XLMRobertaConfig, model=XLMRobertaForSequenceClassification, small=SMALL_ROBERTA
    ),
    "camembert": Reference(config=CamembertConfig, model=CamembertForSequenceClassification, small=SMALL_ROBERTA),
    "deberta-v2": Reference(
        config=DebertaV2Config,
        model=DebertaV2ForSequenceClassification,
        # As deberta-v3-base is, but for a few near distances and token types.
        small=SMALL
        | {
            "type_vocab_size": 2,
            "relative_attention": True,
            "max_relative_positions": -1,
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "cls_dropout": 0.3,
        },
    ),
    "distilbert": Reference(
        config=DistilBertConfig,
        model=DistilBertForSequenceClassification,
        small={
            "vocab_size": 99,
            "dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 48,
            "max_position_embeddings": 24,
            "dropout": 0.1,
            "attention_dropout": 0.2,
            "seq_classif_dropout": 0.3,
            "pad_token_id": PAD,
        },
    ),
    "electra": Reference(
        config=ElectraConfig, model=ElectraForSequenceClassification, small=SMALL | {"embedding_size": 12}
    ),
    "mpnet": Reference(config=MPNetConfig, model=MPNetForSequenceClassification, small=SMALL_ROBERTA),
    "albert": Reference(
        config=AlbertConfig, model=AlbertForSequenceClassification, small=SMALL | {"embedding_size": 12}
    ),
    "modernbert": Reference(
        config=ModernBertConfig,
        model=ModernBertForSequenceClassification,
        # A global and a local layer, whose window is shorter than most batches.
        small={key: SMALL[key] for key in SMALL if not key.endswith("_prob")}
        | {
            "embedding_dropout": 0.1,
            "mlp_dropout": 0.1,
            "attention_dropout": 0.2,
            "classifier_dropout": 0.3,
            "local_attention": 8,
            "bos_token_id": None,
            "eos_token_id": None,
        },
    ),
}


@dataclass(frozen=True)
class Twins:
    """The same checkpoint, loaded by transformers and by us."""

    theirs: nn.Module
    ours: SequenceClassifier

    @property
    def config(self) -> Any:
        return self.theirs.config

    def taken(self, inputs: Inputs) -> Inputs:
        """Those of the inputs that the reference's model takes: token types are for some families only."""
        names = inspect.signature(self.theirs.forward).parameters
        return {name: tensor for name, tensor in inputs.items() if name in names}


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Move every parameter off its initial value: biases of 0 and gains of 1 would hide a swap of two of them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def save_checkpoint(folder: Path, family: str = "bert", **config: Any) -> Any:
    """Save a random checkpoint of the family, its small config changed by `config`, and return the model."""
    reference = REFERENCES[family]
    torch.manual_seed(0)
    model = reference.model(reference.config(**reference.small | config))
    randomise(model)
    model.save_pretrained(folder)
    return model


def load_reference(folder: Path, **config: Any) -> Any:
    """The folder as transformers loads it: float32, its default attention, evaluation mode; but see `copied`."""
    return copied(AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, **config))


def load_twins(folder: Path, **config: Any) -> Twins:
    """Both models from one folder; `config` goes to both, as in `num_labels=3`."""
    return Twins(load_reference(folder, **config), load_classifier(folder, kernels="reference", **config))


def make_twins(folder: Path, family: str = "bert", **config: Any) -> Twins:
    """Save a random checkpoint and load it on both sides."""
    save_checkpoint(folder, family, **config)
    return load_twins(folder)


def make_inputs(config: Any, *, rows: int = 5, length: int = 17, padded: bool = True, pair: bool = True) -> Inputs:
    """A batch of random ids; padded rows get shorter and shorter, pairs have two token types where there are two.

    The padding id also stands among the real tokens: its embedding takes part, but gets no gradient.
    """
    generator = torch.Generator().manual_seed(rows * length)
    ids = torch.randint(0, config.vocab_size, (rows, length), generator=generator)
    ids[:, length // 2] = config.pad_token_id or 0
    mask, types = torch.ones_like(ids), torch.zeros_like(ids)
    for row in range(rows):
        real = max(1, length - row * 3) if padded else length
        mask[row, real:] = 0
        ids[row, real:] = config.pad_token_id or 0
        if pair:
            types[row, real // 2 : real] = max(0, getattr(config, "type_vocab_size", 1) - 1)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def padded_left(inputs: Inputs) -> Inputs:
    """The same rows, each with its padding before its tokens."""
    padding = (inputs["attention_mask"] == 0).sum(1).tolist()
    return {
        name: torch.stack([row.roll(count) for row, count in zip(tensor, padding, strict=True)])
        for name, tensor in inputs.items()
    }


def make_labels(num_labels: int, rows: int) -> Tensor:
    """Classes, or scores for a head with one output."""
    return torch.arange(rows) % num_labels if num_labels > 1 else torch.linspace(-1.0, 1.0, rows)


def our_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over the examples, as the head of the reference takes it."""
    total, count = (cross_entropy if logits.size(1) > 1 else mean_squared_error)(logits, labels)
    return total / count


def assert_same_logits(twins: Twins, inputs: Inputs) -> None:
    """Evaluation mode, bit for bit, and not by being NaN or all equal."""
    twins.theirs.eval()
    twins.ours.eval()
    with torch.no_grad():
        expected, logits = twins.theirs(**twins.taken(inputs)).logits, twins.ours(**inputs)
    assert torch.equal(logits, expected)
    assert torch.isfinite(logits).all() and len(logits.unique()) > 1


def assert_same_training_step(twins: Twins, inputs: Inputs, seed: int = 7) -> None:
    """Dropout from the same seed: logits, every gradient and the parameters after one AdamW step, bit for bit.

    Parameters are paired by order, so the order of registration is compared too.
    """
    labels = make_labels(twins.config.num_labels, len(inputs["input_ids"]))
    twins.theirs.train()
    twins.ours.train()
    torch.manual_seed(seed)
    output = twins.theirs(**twins.taken(inputs), labels=labels)
    output.loss.backward()
    torch.manual_seed(seed)
    logits = twins.ours(**inputs)
    our_loss(logits, labels).backward()
    # DeBERTa's forward, given scores to learn, drops the dimension of the one class.
    assert torch.equal(logits, output.logits.view_as(logits))
    assert_same_gradients(twins)
    torch.optim.AdamW(twins.theirs.parameters(), lr=1e-3, weight_decay=0.01, fused=True).step()
    AdamW(twins.ours.parameters(), lr=1e-3, weight_decay=0.01, fused=True).step()
    for (name, theirs), ours in zip(twins.theirs.named_parameters(), twins.ours.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def assert_same_gradients(twins: Twins) -> None:
    """Every parameter's gradient, bit for bit, and not by being NaN or 0 all over."""
    for (name, theirs), ours in zip(twins.theirs.named_parameters(), twins.ours.parameters(), strict=True):
        assert theirs.grad is not None and ours.grad is not None, name
        assert torch.equal(ours.grad, theirs.grad), name
        assert torch.isfinite(ours.grad).all(), name
    assert all(p.grad is not None and bool(p.grad.any()) for p in twins.ours.head.parameters())


def assert_same_order(twins: Twins) -> None:
    """Our parameters, under the reference's names, stand in the reference's order with its shapes."""
    ours = twins.ours
    table = reference_names(ours)
    shapes = [(name, parameter.shape) for name, parameter in twins.theirs.named_parameters()]
    assert [(name, ours.get_parameter(own).shape) for name, own in table.items()] == shapes
    assert list(table.values()) == [name for name, _ in ours.named_parameters()]
