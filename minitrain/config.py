"""The two configurations: what a checkpoint is (EncoderConfig) and what a run does (TrainConfig).

Both are frozen and hold plain values; nothing here imports torch, so `--help` answers at once. EncoderConfig
checks what a `config.json` says before any weight is read. TrainConfig carries Trainer's names and defaults
(transformers 5.23 training_args.py) and is the one source of the command line (`flags.py`).
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from minitrain.errors import MinitrainError

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")
PROBLEM_TYPES = ("single_label_classification", "regression")
LARGEST_SIZE = 2**24  # of one dimension: beyond every encoder there is


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The shape of an encoder and its head, in minitrain's names; a family translates to the checkpoint's.

    Sizes are counts; dropouts are probabilities of zeroing an element. `label_names` is None when the
    checkpoint never named its classes.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    num_labels: int = 2
    label_names: tuple[str, ...] | None = None
    problem_type: str | None = None


SIZES = (
    "vocab_size",
    "hidden_size",
    "num_layers",
    "num_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "num_labels",
)
PROBABILITIES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")


def encoder_config(raw: Mapping[str, Any], names: Mapping[str, str], path: Path) -> EncoderConfig:
    """Build and check an EncoderConfig from a parsed `config.json`.

    `names` maps our field names to the family's keys; what a family leaves out keeps our default.
    Raises MinitrainError naming the file, the key as the file has it, what was got and what was expected.
    """
    values: dict[str, Any] = {"model_type": raw["model_type"]}
    for spec in fields(EncoderConfig):
        key = names.get(spec.name)
        if key is None:
            continue
        if raw.get(key) is None:
            if spec.default is MISSING:
                raise MinitrainError(f"{path}: has no {key!r}, which a {raw['model_type']} checkpoint needs")
            continue
        values[spec.name] = _checked(spec.name, raw[key], f"{path}: {key!r}")
    values |= _labels(raw, path)
    config = EncoderConfig(**values)
    _check_whole(config, names, path)
    return config


def _checked(name: str, value: Any, where: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in SIZES:
        if not (isinstance(value, int) and number and 0 < value <= LARGEST_SIZE):
            raise MinitrainError(f"{where} is {value!r}; expected an integer from 1 to {LARGEST_SIZE}")
    elif name in PROBABILITIES:
        if not (number and 0.0 <= value <= 1.0):
            raise MinitrainError(f"{where} is {value!r}; expected a probability from 0 to 1")
    elif name in ("layer_norm_eps", "initializer_range"):
        if not (number and math.isfinite(value) and value > 0):
            raise MinitrainError(f"{where} is {value!r}; expected a positive finite number")
    elif name == "pad_token_id":
        if not (isinstance(value, int) and number and value >= 0):
            raise MinitrainError(f"{where} is {value!r}; expected a token id, an integer from 0")
    elif name == "hidden_act" and value not in ACTIVATIONS:
        raise MinitrainError(f"{where} is {value!r}; expected one of {', '.join(ACTIVATIONS)}")
    return value


def _labels(raw: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """`id2label` (string keys, as the Hub stores it) -> the number of labels and their names in order."""
    problem = raw.get("problem_type")
    if problem is not None and problem not in PROBLEM_TYPES:
        raise MinitrainError(
            f"{path}: 'problem_type' is {problem!r}; minitrain trains {' and '.join(PROBLEM_TYPES)}"
        )
    names = raw.get("id2label")
    if names is None:
        count = raw.get("num_labels", 2)
        return {"num_labels": _checked("num_labels", count, f"{path}: 'num_labels'"), "problem_type": problem}
    ids = [str(i) for i in range(len(names))] if isinstance(names, dict) else []
    if not names or sorted(names) != sorted(ids) or not all(isinstance(name, str) for name in names.values()):
        raise MinitrainError(f"{path}: 'id2label' is {str(names)[:200]}; expected ids 0, 1, ... with names")
    return {
        "num_labels": len(names),
        "label_names": tuple(names[i] for i in ids),
        "problem_type": problem,
    }


def _check_whole(config: EncoderConfig, names: Mapping[str, str], path: Path) -> None:
    if config.hidden_size % config.num_heads:
        raise MinitrainError(
            f"{path}: {names['hidden_size']!r} is {config.hidden_size}, which {names['num_heads']!r} = "
            f"{config.num_heads} does not divide; the heads share the hidden size evenly"
        )
    if config.pad_token_id >= config.vocab_size:
        raise MinitrainError(
            f"{path}: 'pad_token_id' is {config.pad_token_id}, outside the vocabulary of {config.vocab_size}"
        )


def flag(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    """A field with what its command-line flag needs (`flags.py`)."""
    return field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run: data, model, optimization, evaluation. Each field is a command-line flag of the same name."""

    # model and data
    model: str = flag("google-bert/bert-base-uncased", "Hub id, local folder, or 'demo' (embedded MiniLM)")
    dataset: str = flag("nyu-mll/glue", "Hub id, local folder, or 'demo' (embedded movie reviews)")
    subset: str | None = flag(None, "configuration of the dataset, e.g. a GLUE task (mrpc for nyu-mll/glue)")
    train_file: str | None = flag(None, "own training data: .csv, .tsv, .jsonl or .parquet")
    eval_file: str | None = flag(None, "own evaluation data, same columns")
    test_file: str | None = flag(None, "own test data, scored once, after training")
    text_columns: tuple[str, ...] | None = flag(None, "one column, or two (a pair), separated by a comma")
    label_column: str | None = flag(None, "column of the labels; 'label' where nothing is said")
    eval_fraction: float = flag(0.0, "share of the training data to hold back for evaluation")
    problem_type: str | None = flag(None, "what the labels are; by default as the data says", PROBLEM_TYPES)
    max_length: int | None = flag(None, "tokens kept of a text or pair; by default all that the model takes")
    pad_to_multiple_of: int | None = flag(None, "pad batches to a multiple of this length")
    max_train_samples: int | None = flag(None, "use only the first so many training examples")
    max_eval_samples: int | None = flag(None, "use only the first so many evaluation examples")
    new_head: bool = flag(False, "replace a trained head of another size or other labels by a new one")
    hidden_dropout_prob: float | None = flag(None, "overrides the checkpoint's")
    attention_probs_dropout_prob: float | None = flag(None, "overrides the checkpoint's")
    classifier_dropout: float | None = flag(None, "overrides the checkpoint's")
    # optimization
    per_device_train_batch_size: int = flag(8, "examples a forward pass")
    gradient_accumulation_steps: int = flag(1, "forward passes an optimizer step")
    num_train_epochs: float = flag(3.0, "passes over the training data")
    max_steps: int = flag(-1, "optimizer steps; overrides the epochs when positive")
    learning_rate: float = flag(5e-5, "peak learning rate of AdamW")
    lr_scheduler_type: str = flag(
        "linear", "learning rate after warm-up", ("linear", "cosine", "constant", "constant_with_warmup")
    )
    warmup_steps: float = flag(0, "steps of warm-up, or a share of all steps when below 1")
    weight_decay: float = flag(0.0, "AdamW's, never on biases or layer norms")
    adam_beta1: float = flag(0.9, "AdamW's first moment")
    adam_beta2: float = flag(0.999, "AdamW's second moment")
    adam_epsilon: float = flag(1e-8, "AdamW's denominator")
    max_grad_norm: float = flag(1.0, "clip the gradient's norm to this; 0 to leave it")
    label_smoothing_factor: float = flag(0.0, "share of the target spread over all classes")
    optim: str = flag("adamw_torch_fused", "kernel of AdamW", ("adamw_torch_fused", "adamw_torch"))
    sampler: str = flag("bucket", "batches of like lengths, or in random order", ("bucket", "random"))
    seed: int = flag(42, "of the head, dropout and the order of examples")
    data_seed: int | None = flag(None, "of the order of examples, where it shall differ from --seed")
    bf16: bool = flag(False, "compute in bfloat16 (autocast); weights stay float32")
    device: str = flag("auto", "auto takes a GPU where there is one", ("auto", "cpu", "cuda"))
    kernels: str = flag(
        "fast", "fast: same function, faster; reference: bit for bit as transformers", ("fast", "reference")
    )
    # evaluation and output
    eval_strategy: str = flag("epoch", "when to evaluate", ("epoch", "steps", "no"))
    eval_steps: int | None = flag(None, "optimizer steps between evaluations with --eval_strategy steps")
    per_device_eval_batch_size: int = flag(8, "examples a forward pass of an evaluation")
    load_best_model_at_end: bool = flag(False, "save the best evaluated model rather than the last")
    metric_for_best_model: str | None = flag(None, "by default the first metric of the task")
    greater_is_better: bool | None = flag(None, "by default true for all but losses")
    early_stopping_patience: int | None = flag(None, "stop after so many evaluations without a better one")
    logging_steps: int | None = flag(None, "optimizer steps between log lines; by default 1% of the run")
    output_dir: str | None = flag(None, "folder of the run; by default runs/<data>-<model>")
    overwrite_output_dir: bool = flag(False, "replace an earlier run in that folder")
