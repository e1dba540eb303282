"""What values the flags of a configuration may have: numbers in their ranges, choices, columns of text."""

import sys
from dataclasses import fields
from typing import Any

from minitrain.errors import MinitrainError
from minitrain.field_types import check_types

# Lowest value allowed, highest, for every flag that is a number; None is no bound.
RANGES: dict[str, tuple[float | None, float | None]] = {
    "per_device_train_batch_size": (1, None),
    "per_device_eval_batch_size": (1, None),
    "gradient_accumulation_steps": (1, None),
    "learning_rate": (0.0, None),
    "warmup_steps": (0, None),
    "weight_decay": (0.0, None),
    "adam_beta1": (0.0, 0.9999999),
    "adam_beta2": (0.0, 0.9999999),
    "adam_epsilon": (0.0, None),
    "max_grad_norm": (0.0, None),
    "label_smoothing_factor": (0.0, 0.9999999),
    "hidden_dropout_prob": (0.0, 1.0),
    "attention_probs_dropout_prob": (0.0, 1.0),
    "classifier_dropout": (0.0, 1.0),
    "eval_fraction": (0.0, 1.0),
    "seed": (0, 2**63 - 1),
    "data_seed": (0, 2**63 - 1),
    "max_length": (1, None),
    "pad_to_multiple_of": (1, None),
    "max_train_samples": (1, None),
    "max_eval_samples": (1, None),
    "eval_steps": (1, None),
    "logging_steps": (1, None),
    "save_steps": (1, None),
    "save_total_limit": (1, None),
    "early_stopping_patience": (1, None),
    "global_batch_size": (1, None),
    "ddp_timeout": (1.0, None),
}


def check_flags(config: Any) -> None:
    """Raise MinitrainError naming the flag whose number is out of its range, whose value is no choice, or whose
    columns are too many; what the three configurations have in common.

    The command line sees to choices by itself; a configuration made in Python passes here.
    """
    check_types(config)
    for spec in fields(config):
        value, choices = getattr(config, spec.name), spec.metadata["choices"]
        if choices is not None and value is not None and value not in choices:
            raise MinitrainError(f"--{spec.name} is {value!r}; expected one of {', '.join(choices)}")
    for name, (lowest, highest) in RANGES.items():
        value = getattr(config, name, None)
        if value is None:
            continue
        # Written so that NaN fails, and so that an int too large for a float does not raise.
        if not (lowest or 0) <= value <= (sys.float_info.max if highest is None else highest):
            upper = "" if highest is None else f" and at most {highest}"
            raise MinitrainError(f"--{name} is {value}; expected at least {lowest}{upper}")
    if config.text_columns is not None:
        check_columns(config.text_columns)


def check_columns(columns: tuple[str, ...]) -> None:
    """Raise MinitrainError unless there are one or two columns of text."""
    if isinstance(columns, str) or len(columns) > 2:
        shown = columns if isinstance(columns, str) else ",".join(columns)
        raise MinitrainError(f"--text_columns {shown}: expected one column, or two for pairs, as a tuple")
