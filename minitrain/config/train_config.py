"""`TrainConfig`: every setting of a training run, with its default, bounds and help text.

Settings that Trainer has too (transformers 5.23, training_args.py) have its names; docs/differences.md lists the
defaults that differ. `run/flags.py` derives the command line from the fields. `TRAINER` and `ACCELERATE` define
`--match_trainer` and `--match_accelerate`. Nothing here imports torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minitrain.config.freezing import check_freezing, has_layer_rates
from minitrain.config.optimization import (
    ARITHMETICS,
    DEFAULTS,
    DROPOUT_RNGS,
    LENGTH_MULTIPLE,
    OptimizationConfig,
    setting,
)
from minitrain.config.options import flag
from minitrain.config.push_config import check_push
from minitrain.config.report_to import check_report_to
from minitrain.config.several_runs import check_several_runs, seeds_as_numbers, seeds_as_text
from minitrain.errors import MinitrainError

STRATEGIES = ("epoch", "steps", "no")
# Names in version 0.1.0, whose checkpoints and results can still be read.
FORMER_NAMES = {
    "loader_draws": "dataloader_rng",
    "restart_stream": "reseed",
    "accumulated_loss": "accumulation",
    "decay": "decay_all",
    "dropout_stream": "dropout_rng",
}
_FORMER_VALUES = {("decay_all", "matrices"): False, ("decay_all", "all"): True, ("sampler", "stream"): "global_rng"}

# --match_trainer: the settings that give the floats of Trainer (transformers 5.23).
TRAINER: dict[str, Any] = {
    "kernels": "reference",
    "sampler": "random",
    "eval_order": "rows",
    "dataloader_rng": True,
    "reseed": True,
    "accumulation": "sum",
    "decay_all": False,
    "dataloader_drop_last": False,  # Trainer's also drops rows of evaluations
    "standardize_targets": False,
}
# --match_accelerate: the settings of the loop in accelerate 1.15's examples/nlp_example.py.
ACCELERATE: dict[str, Any] = {
    "kernels": "reference",
    "sampler": "global_rng",
    "eval_order": "rows",
    "dataloader_rng": True,
    "reseed": False,
    "accumulation": "mean",
    "decay_all": True,
    "optim": "adamw_torch",
    "max_grad_norm": 0.0,
    "dataloader_drop_last": True,
    "standardize_targets": False,
    "label_smoothing_factor": 0.0,
    "gradient_accumulation_steps": 1,  # with more, the example steps after the first micro-batch
}
# The references' defaults, which a match uses but does not require.
IN_A_MATCH: dict[str, Any] = {"per_device_eval_batch_size": 8, "sample": "first"}


@dataclass(frozen=True, kw_only=True)
class TrainConfig(OptimizationConfig):
    """The settings of a training run. Each field is a command-line flag of the same name.

    Fields of `DEFAULTS` that are not passed get their value at construction, from the match or from `DEFAULTS`.
    `dataclasses.replace` keeps these values, so pass `match_trainer` at construction.

    >>> TrainConfig(learning_rate=3e-5).sampler, TrainConfig(match_trainer=True).sampler
    ('bucket', 'random')
    """

    # several processes
    global_batch_size: int | None = flag(
        None, "examples per step in all processes; decides per_device_train_batch_size", bounds=(1, None)
    )
    dropout_rng: str = flag(
        "process", "random stream of dropout: one per process, or one per example", DROPOUT_RNGS
    )
    ddp_timeout: float = flag(600.0, "seconds to wait for another process", bounds=(1.0, None))
    # the same floats as a reference: two flags that decide many settings, and settings of no other use
    match_trainer: bool = flag(False, "on the CPU, the same floats as transformers' Trainer with these flags")
    match_accelerate: bool = flag(False, "on the CPU, the same floats as the loop of accelerate's example")
    kernels: str = setting("kernels", "fast: same function, faster; reference: bits of transformers", ARITHMETICS)
    dataloader_rng: bool = setting("dataloader_rng", "draw a number per epoch and evaluation, as a DataLoader does")
    reseed: bool = setting("reseed", "seed the global generator again after drawing the head")
    # several runs of one command
    folds: int | None = flag(
        None, "train this many times, each time on all but one part of the rows", bounds=(2, None)
    )
    seeds: tuple[Any, ...] | None = flag(
        None, "train once with each of these seeds, e.g. 42,1,2; with --folds each fold"
    )
    keep_folds: bool = flag(False, "keep the models of --folds and --seeds, not only results and predictions")
    # evaluation and output
    eval_strategy: str = flag("epoch", "when to evaluate", STRATEGIES)
    do_eval: bool | None = flag(None, "evaluate after training; by default unless --eval_strategy no")
    eval_steps: int | None = flag(None, "optimizer steps between evaluations", bounds=(1, None))
    eval_order: str = setting("eval_order", "evaluate in order of length, or of rows", ("length", "rows"))
    per_device_eval_batch_size: int = setting(
        "per_device_eval_batch_size",
        "examples per forward pass of an evaluation; 8 in a match, as in the references",
        bounds=(1, None),
    )
    metrics: tuple[str, ...] | None = flag(
        None, "metrics of each evaluation, in this order: accuracy,macro_f1,roc_auc; default: as suits the labels"
    )
    load_best_model_at_end: bool = flag(False, "save the model of the best evaluation, not the last")
    metric_for_best_model: str | None = flag(None, "metric that compares evaluations; by default the first")
    greater_is_better: bool | None = flag(None, "by default false for losses and errors, else true")
    early_stopping_patience: int | None = flag(
        None, "evaluations without improvement to stop after", bounds=(1, None)
    )
    calibrate: bool = flag(False, "fit temperature and thresholds on the evaluation split, for --calibrated")
    logging_steps: int | None = flag(None, "steps per log line; by default 1% of the run", bounds=(1, None))
    profile: bool = flag(False, "print where the time of a step goes, at the end")
    output_dir: str | None = flag(None, "folder of the run; by default runs/<data>-<model>")
    overwrite_output_dir: bool = flag(False, "replace an earlier run in that folder")
    # reports, trackers and the Hub
    report: bool | None = flag(None, "write report.html at the end; by default if matplotlib is installed")
    push_to_hub: str | None = flag(None, "upload the saved model to this repository: OWNER/NAME", bare="true")
    hub_private: bool = flag(False, "nobody else may see that repository")
    card_examples: int | None = flag(
        None, "evaluation texts in the model card; default: 3 of the demo or a Hub dataset, else 0", bounds=(0, 20)
    )
    report_to: tuple[str, ...] | None = flag(
        None, "trackers of every log line: tensorboard,trackio,wandb,mlflow, or all that are installed"
    )
    run_name: str | None = flag(None, "name of the run in trackers; by default its folder's")
    project: str | None = flag(
        None, "its project in trackers, or experiment; by default huggingface, in MLflow Default"
    )
    # checkpoints
    save_strategy: str = flag("no", "when to save a checkpoint; Ctrl-C and SIGTERM save one too", STRATEGIES)
    save_steps: int | None = flag(None, "optimizer steps between checkpoints", bounds=(1, None))
    save_total_limit: int | None = flag(None, "newest checkpoints to keep, beside the best", bounds=(1, None))
    resume: str | None = flag(
        None, "continue from this checkpoint, or from the newest complete one of the run", bare="newest"
    )
    resume_changed: bool = flag(False, "resume with settings that differ from the checkpoint's")

    def __post_init__(self) -> None:
        _settle(self)
        object.__setattr__(self, "seeds", seeds_as_text(self.seeds))
        super().__post_init__()
        object.__setattr__(self, "seeds", seeds_as_numbers(self.seeds))
        if self.do_eval is None:
            object.__setattr__(self, "do_eval", self.eval_strategy != "no" or self.has_several_runs)
        check_freezing(self)
        check_several_runs(self)
        check_push(self)
        check_report_to(self)
        _check_combinations(self)

    @property
    def has_several_runs(self) -> bool:
        """Whether one command trains several times."""
        return self.folds is not None or self.seeds is not None


def _check_combinations(config: TrainConfig) -> None:
    """Raise MinitrainError for settings that do not go together."""
    evaluates = config.eval_strategy != "no"
    if config.max_steps <= 0 and not 0 < config.num_train_epochs < math.inf:
        raise MinitrainError(
            f"--num_train_epochs is {config.num_train_epochs}; expected a number above 0, or --max_steps"
        )
    if evaluates and not config.do_eval:
        raise MinitrainError("--do_eval false needs --eval_strategy no")
    if config.calibrate and not config.do_eval:
        raise MinitrainError("--calibrate is fitted on the last evaluation: pass --do_eval, or leave it out")
    if (config.eval_strategy == "steps") != (config.eval_steps is not None):
        raise MinitrainError("--eval_strategy steps needs --eval_steps N, which goes with no other strategy")
    if (config.save_strategy == "steps") != (config.save_steps is not None):
        raise MinitrainError("--save_strategy steps and --save_steps N go together: pass both or neither")
    if config.resume is not None and config.overwrite_output_dir:
        raise MinitrainError("--resume continues a run, --overwrite_output_dir replaces it: pass one")
    if (config.load_best_model_at_end or config.early_stopping_patience is not None) and not evaluates:
        raise MinitrainError(
            "--load_best_model_at_end and --early_stopping_patience compare evaluations: "
            "pass --eval_strategy epoch or steps"
        )
    if config.lr_scheduler_type == "constant" and config.warmup_steps:
        raise MinitrainError("--lr_scheduler_type constant has no warm-up: pass constant_with_warmup")
    if config.sampler == "global_rng" and config.data_seed is not None:
        raise MinitrainError("--data_seed has no effect with --sampler global_rng: pass --seed alone")
    if config.dropout_rng == "example" and config.kernels != "fast":
        raise MinitrainError(f"--dropout_rng example needs --kernels fast, not {config.kernels}")
    if config.bf16 and config.fp16:
        raise MinitrainError("--bf16 and --fp16 name two precisions: pass one")
    if config.torch_compile and config.gradient_checkpointing:
        raise MinitrainError(
            "--torch_compile and --gradient_checkpointing both replace the blocks of the model: pass one of the two"
        )
    if config.match_trainer or config.match_accelerate:
        _check_match(config)


def _check_match(config: TrainConfig) -> None:
    """Raise MinitrainError for settings that the reference of a match does not have."""
    if config.long_texts == "windows":
        raise MinitrainError("--long_texts windows: the references have no windows to match; pass head or tail")
    if config.torch_compile:
        raise MinitrainError("--torch_compile changes the last bits, which a match keeps: pass one of the two")
    if not config.frozen_dropout:
        raise MinitrainError(
            "--keep_activations and --frozen_dropout false have no dropout in frozen layers, where the references "
            "have it: drop them, or the match"
        )
    if config.match_accelerate and (config.freeze is not None or has_layer_rates(config)):
        raise MinitrainError(
            "--match_accelerate: the example trains all layers at one rate: drop --freeze, --layerwise_lr_decay "
            "and --head_learning_rate, or pass --match_trainer"
        )
    if config.match_accelerate and config.class_weights is not None:
        raise MinitrainError(
            "--match_accelerate: the example has no class weights; --match_trainer compares with them"
        )
    if config.fp16:
        raise MinitrainError("--fp16: a match is with a run on the CPU, where accelerate has no fp16: pass --bf16")
    if config.match_accelerate and config.bf16 and config.pad_to_multiple_of != 8:
        raise MinitrainError("--match_accelerate: in bf16 the example pads to 8; pass --pad_to_multiple_of 8")


def with_todays_names(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Saved settings under today's names and values.

    >>> with_todays_names({"decay": "all", "seed": 42})
    {'decay_all': True, 'seed': 42}
    """
    renamed = {FORMER_NAMES.get(name, name): value for name, value in saved.items()}
    for (name, former), value in _FORMER_VALUES.items():
        if renamed.get(name) == former:
            renamed[name] = value
    return renamed


def _settle(config: TrainConfig) -> None:
    """Fill in the settings of `DEFAULTS` that were not passed, and refuse those that break a match."""
    if config.match_trainer and config.match_accelerate:
        raise MinitrainError("--match_trainer and --match_accelerate name two references: pass one")
    match = "match_trainer" if config.match_trainer else "match_accelerate" if config.match_accelerate else None
    decided = {"match_trainer": TRAINER, "match_accelerate": ACCELERATE, None: {}}[match]
    for name, value in (DEFAULTS | decided | (IN_A_MATCH if match else {})).items():
        asked = getattr(config, name)
        if asked is None:
            object.__setattr__(config, name, value)
        elif name in decided and asked != value:
            raise MinitrainError(f"--{match} means --{name} {value}, not {asked}: drop one of the two")
    few_lengths = (config.bf16 or config.fp16) and config.kernels == "fast" or config.torch_compile
    if few_lengths and config.pad_to_multiple_of is None:
        object.__setattr__(config, "pad_to_multiple_of", LENGTH_MULTIPLE)
