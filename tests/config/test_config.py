"""Defaults against transformers', and what contradicts itself."""

import json
import math
import re
from dataclasses import FrozenInstanceError, asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from minitrain.config.inference_config import EvaluateConfig, PredictConfig
from minitrain.config.long_texts import OF_WINDOWS
from minitrain.config.train_config import ACCELERATE, TRAINER, TrainConfig
from minitrain.errors import MinitrainError

CONFIGS = (TrainConfig, EvaluateConfig, PredictConfig)
BOUNDS = {spec.name: spec.metadata["bounds"] for spec in fields(TrainConfig) if spec.metadata["bounds"]}

# Where minitrain chose another default than the Trainer, on purpose: ours, theirs.
DELIBERATE = {
    "eval_strategy": ("epoch", "no"),  # a run that is never scored tells a newcomer nothing
    "do_eval": (True, False),  # with Trainer, too, it follows from the strategy
    "ddp_timeout": (600.0, 1800),  # half an hour is long to look at a hung process
    "save_strategy": ("no", "steps"),  # three times the size of a model, where one minute is all there is to lose
    "save_steps": (None, 500),
    "gradient_checkpointing": (False, None),  # unset means off
    "push_to_hub": (None, False),  # here it takes the name, hub_model_id there
    "logging_steps": (None, 500),  # 1% of the run: on MRPC 500 steps are more than an epoch
    "report_to": (None, "none"),  # the same
    "project": (None, "huggingface"),  # the same, but WANDB_PROJECT and MLFLOW_EXPERIMENT_NAME are heard
}


def defaults(config: type[Any]) -> dict[str, Any]:
    """What a field is where nothing is passed; TrainConfig decides some of its settings by itself."""
    made = config() if config is TrainConfig else None
    return {spec.name: spec.default if made is None else getattr(made, spec.name) for spec in fields(config)}


def test_the_shared_defaults_are_trainers() -> None:
    ours, theirs = defaults(TrainConfig), defaults(transformers.TrainingArguments)
    # An evaluation has the same result in larger batches, sooner; in a match its last bits are Trainer's too.
    assert ours.pop("per_device_eval_batch_size") == 32
    assert TrainConfig(match_trainer=True).per_device_eval_batch_size == theirs["per_device_eval_batch_size"]
    shared = ours.keys() & theirs.keys()
    assert shared >= {
        "learning_rate",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "weight_decay",
        "max_grad_norm",
        "num_train_epochs",
        "max_steps",
        "lr_scheduler_type",
        "warmup_steps",
        "label_smoothing_factor",
        "optim",
        "seed",
        "data_seed",
        "bf16",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "eval_strategy",
        "eval_steps",
        "load_best_model_at_end",
        "metric_for_best_model",
        "greater_is_better",
        "logging_steps",
        "output_dir",
    }
    differing = {name: (ours[name], theirs[name]) for name in shared if ours[name] != theirs[name]}
    assert differing == DELIBERATE


def test_the_choices_are_values_that_trainer_knows_too() -> None:
    choices = {spec.name: spec.metadata["choices"] for spec in fields(TrainConfig)}
    assert set(choices["lr_scheduler_type"]) <= {value.value for value in transformers.SchedulerType}
    assert set(choices["optim"]) <= {value.value for value in transformers.training_args.OptimizerNames}
    assert set(choices["eval_strategy"]) == {value.value for value in transformers.IntervalStrategy}


@pytest.mark.parametrize("config", CONFIGS)
def test_a_configuration_is_frozen_and_keyword_only(config: type[Any]) -> None:
    made = config() if config is TrainConfig else config(run="folder")
    with pytest.raises(FrozenInstanceError):
        made.device = "cpu"
    with pytest.raises(TypeError):
        config("folder")


@pytest.mark.parametrize("config", CONFIGS)
def test_every_flag_has_help_and_a_default_among_its_choices(config: type[Any]) -> None:
    for spec in fields(config):
        assert spec.metadata["help"], spec.name
        choices = spec.metadata["choices"]
        assert choices is None or spec.default is None or spec.default in choices, spec.name


@pytest.mark.parametrize("config", CONFIGS)
def test_every_number_has_bounds(config: type[Any]) -> None:
    """Those of a dict are checked where it is read."""
    kinds = {spec: str(spec.type) for spec in fields(config) if "dict" not in str(spec.type)}
    numbers = {spec.name: spec for spec, kind in kinds.items() if "int" in kind or "float" in kind}
    # --freeze is text too. The others are looked at together: epochs do not matter where there are steps, and steps
    # of -1 are none.
    assert [n for n, s in numbers.items() if s.metadata["bounds"] is None] == [
        name for name in numbers if name in ("num_train_epochs", "max_steps", "freeze")
    ]


@pytest.mark.parametrize("name", BOUNDS)
def test_a_number_out_of_its_bounds_is_an_error_with_its_flag(name: str) -> None:
    lowest, highest = BOUNDS[name]
    assert lowest is not None
    config: Any = TrainConfig
    outside = [lowest - 1, math.nan, math.inf, -math.inf, 10**400] + ([] if highest is None else [highest * 1.01])
    for value in outside:
        with pytest.raises(MinitrainError, match=f"--{name} is .*; expected (at least {lowest}|an integer)"):
            config(**{name: value})
    needed = {f"{name[:4]}_strategy": "steps"} if name in ("eval_steps", "save_steps") else {}
    needed |= {"long_texts": "windows"} if name in OF_WINDOWS else {}
    for value in [lowest] if highest is None else [lowest, highest]:
        assert getattr(config(**{name: value}, **needed), name) == value


@pytest.mark.parametrize("name", ["max_length", "max_eval_samples", "per_device_eval_batch_size"])
@pytest.mark.parametrize("config", [EvaluateConfig, PredictConfig])
def test_evaluation_and_prediction_check_their_numbers_too(config: type[Any], name: str) -> None:
    if name in defaults(config):
        with pytest.raises(MinitrainError, match=f"--{name} is 0; expected at least 1"):
            config(run="folder", **{name: 0})


@pytest.mark.parametrize("epochs", [0.0, -1.0, math.nan, math.inf])
def test_a_run_has_epochs_or_steps(epochs: float) -> None:
    with pytest.raises(
        MinitrainError, match=r"--num_train_epochs is .*; expected a number above 0, or --max_steps"
    ):
        TrainConfig(num_train_epochs=epochs)
    assert TrainConfig(num_train_epochs=epochs, max_steps=5).max_steps == 5
    assert TrainConfig(num_train_epochs=0.1).num_train_epochs == 0.1


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        ({"eval_strategy": "steps"}, ["--eval_strategy steps", "--eval_steps N"]),
        ({"eval_strategy": "no", "load_best_model_at_end": True}, ["--load_best_model_at_end", "--eval_strategy"]),
        ({"eval_strategy": "no", "early_stopping_patience": 2}, ["--early_stopping_patience", "--eval_strategy"]),
        ({"lr_scheduler_type": "constant", "warmup_steps": 10}, ["--lr_scheduler_type", "constant_with_warmup"]),
        ({"do_eval": False}, ["--do_eval false", "--eval_strategy no"]),
        ({"eval_steps": 10}, ["--eval_steps", "--eval_strategy steps"]),
        ({"dataset": "demo", "train_file": "a.csv"}, ["--dataset", "--train_file"]),
        ({"dataset": "demo", "subset": "mrpc"}, ["--subset mrpc"]),
        ({"train_file": "a.csv", "subset": "mrpc"}, ["--subset mrpc"]),
        ({"train_file": "a.csv", "dataset_revision": "v1"}, ["--dataset_revision", "--train_file"]),
        ({"match_trainer": True, "match_accelerate": True}, ["--match_trainer and --match_accelerate", "pass one"]),
        ({"sampler": "global_rng", "data_seed": 3}, ["--data_seed", "pass --seed alone"]),
        ({"match_accelerate": True, "data_seed": 3}, ["--data_seed", "pass --seed alone"]),
        ({"match_accelerate": True, "bf16": True}, ["--match_accelerate", "--pad_to_multiple_of 8"]),
        ({"sampler": "foo"}, ["--sampler is 'foo'", "bucket, random"]),
        ({"text_columns": "text"}, ["--text_columns is 'text' (str)", "expected names, as a tuple of text"]),
        ({"text_columns": ("a", "b", "c")}, ["--text_columns a,b,c: expected one or two columns", "--join ' '"]),
    ],
)
def test_a_contradiction_names_its_flags(settings: dict[str, Any], flags: list[str]) -> None:
    with pytest.raises(MinitrainError) as caught:
        TrainConfig(**settings)
    assert all(part in str(caught.value) for part in flags)


@pytest.mark.parametrize(("match", "decided"), [("match_trainer", TRAINER), ("match_accelerate", ACCELERATE)])
def test_match_decides_its_settings_and_no_other(match: str, decided: dict[str, Any]) -> None:
    plain, matched = vars(TrainConfig()), vars(TrainConfig(**{match: True}))
    assert {name: matched[name] for name in decided} == decided
    assert {name for name in plain if plain[name] != matched[name]} <= {
        match,
        "per_device_eval_batch_size",
        "sample",
        *decided,
    }
    again = replace(TrainConfig(**{match: True}), seed=7)
    assert vars(again) == matched | {"seed": 7}


@pytest.mark.parametrize(("match", "decided"), [("match_trainer", TRAINER), ("match_accelerate", ACCELERATE)])
def test_setting_that_breaks_a_match_is_refused(match: str, decided: dict[str, Any]) -> None:
    others = {"kernels": "fast", "sampler": "bucket", "eval_order": "length", "dataloader_rng": False}
    others |= {"accumulation": "sum" if decided["accumulation"] == "mean" else "mean"}
    others |= {"reseed": not decided["reseed"], "optim": "adamw_torch_fused", "max_grad_norm": 1.0}
    others |= {"decay_all": not decided["decay_all"], "label_smoothing_factor": 0.1}
    others |= {"standardize_targets": True}
    others |= {"dataloader_drop_last": not decided["dataloader_drop_last"], "gradient_accumulation_steps": 2}
    for name, value in decided.items():
        assert vars(TrainConfig(**{match: True, name: value}))[name] == value
        expected = f"--{match} means --{name} {value}, not {others[name]}: drop one of the two"
        with pytest.raises(MinitrainError, match=re.escape(expected)):
            TrainConfig(**{match: True, name: others[name]})


def test_replaced_configuration_keeps_what_was_settled() -> None:
    assert replace(TrainConfig(), dataset="demo").dataset == "demo"
    assert replace(TrainConfig(), train_file="a.csv").train_file == "a.csv"
    assert replace(TrainConfig(match_trainer=True), seed=3).kernels == "reference"
    assert replace(TrainConfig(match_trainer=True), match_trainer=False).sampler == "random"
    with pytest.raises(MinitrainError, match="--match_trainer means --kernels reference, not fast"):
        replace(TrainConfig(), match_trainer=True)


def test_what_only_looks_like_a_contradiction_is_accepted() -> None:
    TrainConfig(eval_strategy="steps", eval_steps=10, load_best_model_at_end=True, early_stopping_patience=1)
    TrainConfig(eval_strategy="no", load_best_model_at_end=False)
    TrainConfig(lr_scheduler_type="constant_with_warmup", warmup_steps=0.1)
    TrainConfig(text_columns=("a", "b"))
    TrainConfig(text_columns=("a", "b", "c"), join=" ")
    TrainConfig(eval_strategy="no", do_eval=True)


def test_evaluation_takes_one_set_of_data() -> None:
    with pytest.raises(MinitrainError, match="--dataset and --eval_file name two sets of data: pass one"):
        EvaluateConfig(run="folder", dataset="demo", eval_file="own.csv")
    with pytest.raises(MinitrainError, match="--split .* --eval_file has none"):
        EvaluateConfig(run="folder", split="test", eval_file="own.csv")
    for config in (EvaluateConfig, PredictConfig):
        with pytest.raises(MinitrainError, match="--text_columns is 'abc' .str.; expected names, as a tuple"):
            config(run="folder", text_columns="abc")  # type: ignore[arg-type]


# --- Types, where a configuration is made in Python ---


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("num_train_epochs", "3", r"--num_train_epochs is '3' \(str\); expected a number"),
        ("max_steps", "5", r"--max_steps is '5' \(str\); expected an integer"),
        ("max_steps", 5.0, r"--max_steps is 5.0 \(float\); expected an integer"),
        ("seed", True, r"--seed is True \(bool\); expected an integer"),
        ("learning_rate", None, r"--learning_rate is None \(NoneType\); expected a number$"),
        ("learning_rate", [1e-3], r"expected a number$"),
        ("learning_rate", True, r"--learning_rate is True"),
        ("eval_steps", "4", r"expected an integer or None"),
        ("bf16", "false", r"--bf16 is 'false' \(str\); expected True or False"),
        ("bf16", 1, "expected True or False"),
        ("match_trainer", "no", "--match_trainer is 'no'"),
        ("model", 5, r"--model is 5 \(int\); expected text"),
        ("model", None, r"--model is None .* expected text$"),
        ("output_dir", b"run", r"--output_dir is b'run' \(bytes\); expected text or None"),
        ("eval_strategy", 3, "--eval_strategy is 3"),
        ("text_columns", 5, "--text_columns is 5 .*; expected names, as a tuple of text or None"),
        ("text_columns", ("a", 5), r"--text_columns is \('a', 5\)"),
        ("learning_rate", np.array([1e-3, 2e-3]), r"--learning_rate is array"),
    ],
)
def test_value_of_a_wrong_type_is_named_with_its_field(field: str, value: Any, said: str) -> None:
    with pytest.raises(MinitrainError, match=said):
        TrainConfig(**{field: value})


def test_every_field_refuses_what_it_cannot_hold() -> None:
    for config in (TrainConfig, EvaluateConfig, PredictConfig):
        run = {} if config is TrainConfig else {"run": "folder"}
        for spec in fields(config):
            with pytest.raises(MinitrainError, match=f"--{spec.name} is <object"):
                config(**(run | {spec.name: object()}))


def test_numbers_of_numpy_and_torch_paths_and_lists_are_taken_as_pythons(tmp_path: Path) -> None:
    config = TrainConfig(
        learning_rate=np.float32(0.5),
        num_train_epochs=np.int64(2),
        seed=np.int32(7),
        warmup_steps=torch.tensor(0.25),  # type: ignore[arg-type]
        bf16=np.bool_(True),  # type: ignore[arg-type]
        model=tmp_path,  # type: ignore[arg-type]
        text_columns=["a", "b"],  # type: ignore[arg-type]
    )
    same = TrainConfig(
        learning_rate=0.5,
        num_train_epochs=2,
        seed=7,
        warmup_steps=0.25,
        bf16=True,
        model=str(tmp_path),
        text_columns=("a", "b"),
    )
    assert config == same and json.dumps(asdict(config)) == json.dumps(asdict(same))
    assert type(TrainConfig(num_train_epochs=3).num_train_epochs) is int  # as it was given


def test_true_is_a_flag_without_its_value() -> None:
    """As Trainer's train(resume_from_checkpoint=True)."""
    assert TrainConfig(resume=True).resume == "newest"  # type: ignore[arg-type]
    assert TrainConfig(resume=False).resume is None  # type: ignore[arg-type]


@pytest.mark.parametrize("config", CONFIGS)
def test_an_empty_value_is_no_value(config: type[Any]) -> None:
    """As of a variable of the shell that is not set: --output_dir "" would fill the folder that one stands in."""
    needed = {} if config is TrainConfig else {"run": "runs/mine"}
    for spec in fields(config):
        hint = str(spec.type)
        if "str" not in hint or spec.name in ("join", "positive_label") or spec.metadata["choices"]:
            continue
        with pytest.raises(MinitrainError, match=f"--{spec.name} is empty"):
            config(**(needed | {spec.name: ("",) if "tuple" in hint else ""}))
