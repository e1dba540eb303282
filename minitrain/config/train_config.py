"""`TrainConfig`: every setting of a training run, with its default, bounds and help text.

Settings that Trainer has too (transformers 5.23, training_args.py) have its names; docs/differences.md lists the
defaults that differ. `flags.py` derives the command line from the
fields. `TRAINER` and `ACCELERATE` define `--match_trainer` and `--match_accelerate`. Nothing here imports torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minitrain.config.data_config import SAMPLES, DataConfig
from minitrain.config.options import Bounds, flag
from minitrain.errors import MinitrainError

ARITHMETICS = ("fast", "reference")
# In bf16, oneDNN generates code for each length: fewer lengths take a quarter less time and half the memory. CUDA
# graphs are also recorded for each length.
LENGTH_MULTIPLE = 8
SAMPLERS = ("bucket", "random", "global_rng")
DROPOUT_RNGS = ("process", "example")
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

# Defaults of the settings that a match decides.
DEFAULTS: dict[str, Any] = {
    "sample": "random",
    "kernels": "fast",
    "sampler": "bucket",
    "eval_order": "length",
    "per_device_eval_batch_size": 32,
    "dataloader_rng": False,
    "reseed": True,
    "accumulation": "mean",
    "decay_all": False,
    "optim": "adamw_torch_fused",
    "max_grad_norm": 1.0,
    "dataloader_drop_last": False,
    "standardize_targets": True,
}
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


def setting(name: str, help: str, choices: tuple[str, ...] | None = None, bounds: Bounds | None = None) -> Any:
    """A field whose default is in `DEFAULTS`, or decided by a match."""
    return flag(None, help, choices, bounds=bounds, shown=DEFAULTS[name])


@dataclass(frozen=True, kw_only=True)
class TrainConfig(DataConfig):
    """The settings of a training run. Each field is a command-line flag of the same name.

    Fields of `DEFAULTS` that are not passed get their value at construction, from the match or from `DEFAULTS`.
    `dataclasses.replace` keeps these values, so pass `match_trainer` at construction.

    >>> TrainConfig(learning_rate=3e-5).sampler, TrainConfig(match_trainer=True).sampler
    ('bucket', 'random')
    """

    sample: str = setting("sample", "examples that --max_*_samples keeps; first in a match", SAMPLES)
    # model
    model: str = flag("google-bert/bert-base-uncased", "Hub id, local folder, or 'demo' (embedded MiniLM)")
    model_revision: str | None = flag(None, "branch, tag or commit of a model on the Hub")
    max_length: int | None = flag(None, "tokens to keep; by default the model's maximum", bounds=(1, None))
    pad_to_multiple_of: int | None = flag(
        None, "pad to a multiple of this length; by default 8 in bf16 or compiled", bounds=(1, None)
    )
    new_head: bool = flag(False, "replace a trained head, e.g. one with other labels, by a new one")
    hidden_dropout_prob: float | None = flag(None, "overrides the model's", bounds=(0.0, 1.0))
    attention_probs_dropout_prob: float | None = flag(None, "overrides the model's", bounds=(0.0, 1.0))
    classifier_dropout: float | None = flag(None, "overrides the model's", bounds=(0.0, 1.0))
    # optimization
    per_device_train_batch_size: int = flag(8, "examples per forward pass and process", bounds=(1, None))
    gradient_accumulation_steps: int = flag(1, "forward passes per optimizer step", bounds=(1, None))
    num_train_epochs: float = flag(3.0, "passes over the training data")
    max_steps: int = flag(-1, "optimizer steps; if positive, overrides --num_train_epochs")
    learning_rate: float = flag(5e-5, "peak learning rate of AdamW", bounds=(0.0, None))
    lr_scheduler_type: str = flag(
        "linear", "learning rate schedule after warm-up", ("linear", "cosine", "constant", "constant_with_warmup")
    )
    warmup_steps: float = flag(0, "steps of warm-up, or a fraction of all steps if below 1", bounds=(0, None))
    weight_decay: float = flag(0.0, "weight decay of AdamW", bounds=(0.0, None))
    decay_all: bool = setting("decay_all", "decay biases and layer norms too, not only matrices")
    adam_beta1: float = flag(0.9, "decay rate of AdamW's first moment", bounds=(0.0, 0.9999999))
    adam_beta2: float = flag(0.999, "decay rate of AdamW's second moment", bounds=(0.0, 0.9999999))
    adam_epsilon: float = flag(1e-8, "added to AdamW's denominator", bounds=(0.0, None))
    max_grad_norm: float = setting("max_grad_norm", "clip the gradient norm to this; 0: never", bounds=(0.0, None))
    label_smoothing_factor: float = flag(0.0, "label smoothing of the cross-entropy", bounds=(0.0, 0.9999999))
    standardize_targets: bool = setting("standardize_targets", "scale regression targets to mean 0, deviation 1")
    accumulation: str = setting(
        "accumulation", "a step's loss: mean over examples, or sum of micro-batches' means", ("mean", "sum")
    )
    optim: str = setting("optim", "implementation of AdamW", ("adamw_torch_fused", "adamw_torch"))
    sampler: str = setting(
        "sampler", "order of examples: similar lengths together, random, or drawn from torch's global RNG", SAMPLERS
    )
    dataloader_drop_last: bool = setting("dataloader_drop_last", "drop the incomplete last batch of an epoch")
    data_seed: int | None = flag(None, "seed of the order; by default --seed", bounds=(0, 2**63 - 1))
    bf16: bool = flag(False, "compute in bfloat16 (autocast); weights stay float32")
    device: str = flag("auto", "auto: a GPU if there is one", ("auto", "cpu", "cuda"))
    cuda_graphs: bool = flag(True, "on a GPU, record a step for each length and replay it")
    torch_compile: bool = flag(False, "compile the model: for long runs on a GPU with large batches")
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
    load_best_model_at_end: bool = flag(False, "save the model of the best evaluation, not the last")
    metric_for_best_model: str | None = flag(None, "metric that compares evaluations; by default the first")
    greater_is_better: bool | None = flag(None, "by default false for losses and errors, else true")
    early_stopping_patience: int | None = flag(
        None, "evaluations without improvement to stop after", bounds=(1, None)
    )
    logging_steps: int | None = flag(None, "steps per log line; by default 1% of the run", bounds=(1, None))
    profile: bool = flag(False, "print where the time of a step goes, at the end")
    output_dir: str | None = flag(None, "folder of the run; by default runs/<data>-<model>")
    overwrite_output_dir: bool = flag(False, "replace an earlier run in that folder")
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
        super().__post_init__()
        if self.do_eval is None:
            object.__setattr__(self, "do_eval", self.eval_strategy != "no")
        _check_combinations(self)


def _check_combinations(config: TrainConfig) -> None:
    """Raise MinitrainError for settings that do not go together."""
    evaluates = config.eval_strategy != "no"
    if config.max_steps <= 0 and not 0 < config.num_train_epochs < math.inf:
        raise MinitrainError(
            f"--num_train_epochs is {config.num_train_epochs}; expected a number above 0, or --max_steps"
        )
    if evaluates and not config.do_eval:
        raise MinitrainError("--do_eval false needs --eval_strategy no")
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
    if config.torch_compile and (config.match_trainer or config.match_accelerate):
        raise MinitrainError("--torch_compile changes the last bits, which a match keeps: pass one of the two")
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
    few_lengths = config.bf16 and config.kernels == "fast" or config.torch_compile
    if few_lengths and config.pad_to_multiple_of is None:
        object.__setattr__(config, "pad_to_multiple_of", LENGTH_MULTIPLE)
