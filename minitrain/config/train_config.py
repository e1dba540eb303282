"""What a run does, as the user says it: training, evaluating, predicting.

Frozen plain values with Trainer's names and defaults (transformers 5.23 training_args.py), and the one source of
the command line (`flags.py`). Nothing here imports torch, so that `--help` and a wrong flag answer at once.
What `--match_trainer` and `--match_accelerate` mean stands in `TRAINER` and `ACCELERATE`, and nowhere else.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minitrain.config.data_config import SAMPLES, DataConfig
from minitrain.config.options import Bounds, flag
from minitrain.errors import MinitrainError

ARITHMETICS = ("fast", "reference")
# In bf16 oneDNN generates code for each length: with fewer it takes a quarter less time, half the memory. Recorded
# steps, too, are one a length.
LENGTH_MULTIPLE = 8
SAMPLERS = ("bucket", "random", "global_rng")
DROPOUT_RNGS = ("process", "example")
STRATEGIES = ("epoch", "steps", "no")
# What version 0.1.0 calls these settings. Its checkpoints and results are read with today's names.
FORMER_NAMES = {
    "loader_draws": "dataloader_rng",
    "restart_stream": "reseed",
    "accumulated_loss": "accumulation",
    "decay": "decay_all",
    "dropout_stream": "dropout_rng",
}
_FORMER_VALUES = {("decay_all", "matrices"): False, ("decay_all", "all"): True, ("sampler", "stream"): "global_rng"}

# What these settings are where no flag decides.
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
# What --match_trainer makes them: those that decide whether a run has the floats of transformers 5.23's Trainer.
TRAINER: dict[str, Any] = {
    "kernels": "reference",
    "sampler": "random",
    "eval_order": "rows",
    "dataloader_rng": True,
    "reseed": True,
    "accumulation": "sum",
    "decay_all": False,
    "dataloader_drop_last": False,  # Trainer's leaves rows out of evaluations too
    "standardize_targets": False,
}
# What --match_accelerate makes them, after the loop of accelerate 1.15's examples/nlp_example.py.
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
    "gradient_accumulation_steps": 1,  # with more, the example's first step follows a single forward pass
}
# What both mean where no flag decides, though others are possible: the references' defaults.
IN_A_MATCH: dict[str, Any] = {"per_device_eval_batch_size": 8, "sample": "first"}


def setting(name: str, help: str, choices: tuple[str, ...] | None = None, bounds: Bounds | None = None) -> Any:
    """A field of `DEFAULTS`, which is settled when the configuration is made."""
    return flag(None, help, choices, bounds=bounds, shown=DEFAULTS[name])


@dataclass(frozen=True, kw_only=True)
class TrainConfig(DataConfig):
    """One run: data, model, optimization, evaluation. Each field is a command-line flag of the same name.

    Fields of `DEFAULTS` that are not given are settled at once, as the match has them or by default. To match, ask
    for it when the configuration is made: `dataclasses.replace` hands on what was settled.
    """

    sample: str = setting("sample", "which of them: drawn by --seed, or the first, as in a match", SAMPLES)
    # model
    model: str = flag("google-bert/bert-base-uncased", "Hub id, local folder, or 'demo' (embedded MiniLM)")
    model_revision: str | None = flag(None, "branch, tag or commit of a model of the Hub")
    max_length: int | None = flag(
        None, "tokens kept of a text or pair; by default all that the model takes", bounds=(1, None)
    )
    pad_to_multiple_of: int | None = flag(
        None, "pad to a multiple of this length; 8 in bf16 or compiled", bounds=(1, None)
    )
    new_head: bool = flag(False, "replace a trained head of another size or other labels by a new one")
    hidden_dropout_prob: float | None = flag(None, "overrides the checkpoint's", bounds=(0.0, 1.0))
    attention_probs_dropout_prob: float | None = flag(None, "overrides the checkpoint's", bounds=(0.0, 1.0))
    classifier_dropout: float | None = flag(None, "overrides the checkpoint's", bounds=(0.0, 1.0))
    # optimization
    per_device_train_batch_size: int = flag(8, "examples a forward pass", bounds=(1, None))
    gradient_accumulation_steps: int = flag(1, "forward passes an optimizer step", bounds=(1, None))
    num_train_epochs: float = flag(3.0, "passes over the training data")
    max_steps: int = flag(-1, "optimizer steps; overrides the epochs when positive")
    learning_rate: float = flag(5e-5, "peak learning rate of AdamW", bounds=(0.0, None))
    lr_scheduler_type: str = flag(
        "linear", "learning rate after warm-up", ("linear", "cosine", "constant", "constant_with_warmup")
    )
    warmup_steps: float = flag(0, "steps of warm-up, or a share of all steps when below 1", bounds=(0, None))
    weight_decay: float = flag(0.0, "AdamW's", bounds=(0.0, None))
    decay_all: bool = setting("decay_all", "decay biases and layer norms too, not the matrices alone")
    adam_beta1: float = flag(0.9, "AdamW's first moment", bounds=(0.0, 0.9999999))
    adam_beta2: float = flag(0.999, "AdamW's second moment", bounds=(0.0, 0.9999999))
    adam_epsilon: float = flag(1e-8, "AdamW's denominator", bounds=(0.0, None))
    max_grad_norm: float = setting(
        "max_grad_norm", "clip the gradient's norm to this; 0 to leave it", bounds=(0.0, None)
    )
    label_smoothing_factor: float = flag(
        0.0, "share of the target spread over all classes", bounds=(0.0, 0.9999999)
    )
    standardize_targets: bool = setting(
        "standardize_targets", "of regression: train on standard scores, answer on the scale of the data"
    )
    accumulation: str = setting(
        "accumulation", "of a step: mean over its examples, or sum of its passes' means", ("mean", "sum")
    )
    optim: str = setting("optim", "kernel of AdamW", ("adamw_torch_fused", "adamw_torch"))
    sampler: str = setting(
        "sampler", "batches of like lengths, in random order, or in the random stream's order", SAMPLERS
    )
    dataloader_drop_last: bool = setting("dataloader_drop_last", "leave out the short last batch of an epoch")
    data_seed: int | None = flag(
        None, "of the order of examples, where it shall differ from --seed", bounds=(0, 2**63 - 1)
    )
    bf16: bool = flag(False, "compute in bfloat16 (autocast); weights stay float32")
    device: str = flag("auto", "auto takes a GPU where there is one", ("auto", "cpu", "cuda"))
    cuda_graphs: bool = flag(True, "on a GPU record steps, one a length, and replay them")
    torch_compile: bool = flag(False, "compile a step's passes: for long runs on a GPU with large batches")
    # several processes
    global_batch_size: int | None = flag(
        None, "examples a step in all processes and passes; decides per_device_train_batch_size", bounds=(1, None)
    )
    dropout_rng: str = flag(
        "process",
        "dropout of an example: drawn from its process's stream, or from one of its own, however work is shared",
        DROPOUT_RNGS,
    )
    ddp_timeout: float = flag(600.0, "seconds that processes wait for each other", bounds=(1.0, None))
    # the same floats as a reference: two flags that decide many settings, and those that are of no other use
    match_trainer: bool = flag(False, "on the CPU, every float as transformers' Trainer has it with these flags")
    match_accelerate: bool = flag(False, "on the CPU, every float as the loop of accelerate's example has it")
    kernels: str = setting("kernels", "fast: same function, faster; reference: as transformers' bits", ARITHMETICS)
    dataloader_rng: bool = setting("dataloader_rng", "draw once an epoch and an evaluation, as a DataLoader does")
    reseed: bool = setting("reseed", "restart the random stream once the head is drawn")
    # evaluation and output
    eval_strategy: str = flag("epoch", "when to evaluate", STRATEGIES)
    do_eval: bool | None = flag(None, "score the evaluation data after training; false with --eval_strategy no")
    eval_steps: int | None = flag(
        None, "optimizer steps between evaluations with --eval_strategy steps", bounds=(1, None)
    )
    eval_order: str = setting("eval_order", "evaluate like lengths together, or row by row", ("length", "rows"))
    per_device_eval_batch_size: int = setting(
        "per_device_eval_batch_size",
        "examples a forward pass of an evaluation; 8 in a match, as in the references",
        bounds=(1, None),
    )
    load_best_model_at_end: bool = flag(False, "save the best evaluated model rather than the last")
    metric_for_best_model: str | None = flag(None, "by default the first metric of the task")
    greater_is_better: bool | None = flag(None, "by default true for all but losses")
    early_stopping_patience: int | None = flag(
        None, "stop after so many evaluations without a better one", bounds=(1, None)
    )
    logging_steps: int | None = flag(
        None, "optimizer steps between log lines; by default 1% of the run", bounds=(1, None)
    )
    profile: bool = flag(False, "say where the time of a step goes, at the end")
    output_dir: str | None = flag(None, "folder of the run; by default runs/<data>-<model>")
    overwrite_output_dir: bool = flag(False, "replace an earlier run in that folder")
    # going on after an interruption
    save_strategy: str = flag("no", "when to save a checkpoint; a signal to stop saves one too", STRATEGIES)
    save_steps: int | None = flag(
        None, "optimizer steps between checkpoints with --save_strategy steps", bounds=(1, None)
    )
    save_total_limit: int | None = flag(
        None, "checkpoints to keep: the newest so many, and the best", bounds=(1, None)
    )
    resume: str | None = flag(
        None, "go on from a checkpoint's folder, or from the newest whole one of the run", bare="newest"
    )
    resume_changed: bool = flag(False, "resume although settings differ from the checkpoint's")

    def __post_init__(self) -> None:
        _settle(self)
        super().__post_init__()
        if self.max_steps <= 0 and not 0 < self.num_train_epochs < math.inf:
            raise MinitrainError(
                f"--num_train_epochs is {self.num_train_epochs}; expected a number above 0, or --max_steps"
            )
        if self.do_eval is None:
            object.__setattr__(self, "do_eval", self.eval_strategy != "no")
        if not self.do_eval and self.eval_strategy != "no":
            raise MinitrainError("--do_eval false scores nothing: pass --eval_strategy no with it")
        if self.eval_strategy == "steps" and self.eval_steps is None:
            raise MinitrainError("--eval_strategy steps needs --eval_steps N")
        if self.eval_strategy != "steps" and self.eval_steps is not None:
            raise MinitrainError(f"--eval_steps goes with --eval_strategy steps, not {self.eval_strategy}")
        if (self.save_strategy == "steps") != (self.save_steps is not None):
            raise MinitrainError("--save_strategy steps and --save_steps N go together: pass both or neither")
        if self.resume is not None and self.overwrite_output_dir:
            raise MinitrainError("--resume goes on with a run, --overwrite_output_dir replaces it: pass one")
        watched = self.load_best_model_at_end or self.early_stopping_patience is not None
        if watched and self.eval_strategy == "no":
            raise MinitrainError(
                "--load_best_model_at_end and --early_stopping_patience compare evaluations: "
                "pass --eval_strategy epoch or steps"
            )
        if self.lr_scheduler_type == "constant" and self.warmup_steps:
            raise MinitrainError("--lr_scheduler_type constant has no warm-up: pass constant_with_warmup")
        if self.sampler == "global_rng" and self.data_seed is not None:
            raise MinitrainError("--data_seed has no say where the order is the random stream's: pass --seed alone")
        if self.dropout_rng == "example" and self.kernels != "fast":
            raise MinitrainError(f"--dropout_rng example goes with --kernels fast, not {self.kernels}")
        if self.torch_compile and (self.match_trainer or self.match_accelerate):
            raise MinitrainError("--torch_compile changes last bits, which a match is about: pass one of the two")
        if self.match_accelerate and self.bf16 and self.pad_to_multiple_of != 8:
            raise MinitrainError("--match_accelerate: in bf16 the example pads so; pass --pad_to_multiple_of 8")


def with_todays_names(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a run has saved, under the names and values of today.

    >>> with_todays_names({"decay": "all", "seed": 42})
    {'decay_all': True, 'seed': 42}
    """
    renamed = {FORMER_NAMES.get(name, name): value for name, value in saved.items()}
    former = {name: (name, value) for name, value in renamed.items() if name in ("decay_all", "sampler")}
    return renamed | {name: _FORMER_VALUES.get(key, key[1]) for name, key in former.items()}


def _settle(config: TrainConfig) -> None:
    """Give every setting that no flag decides its value. Raises MinitrainError for one that breaks a match."""
    if config.match_trainer and config.match_accelerate:
        raise MinitrainError("--match_trainer and --match_accelerate name two references: pass one")
    match = "match_trainer" if config.match_trainer else "match_accelerate" if config.match_accelerate else None
    decided = {"match_trainer": TRAINER, "match_accelerate": ACCELERATE, None: {}}[match]
    defaults = DEFAULTS | decided | (IN_A_MATCH if match else {})
    for name, value in defaults.items():
        asked = getattr(config, name)
        if asked is None:
            object.__setattr__(config, name, value)
        elif name in decided and asked != value:
            raise MinitrainError(f"--{match} means --{name} {value}, not {asked}: drop one of the two")
    few_lengths = config.bf16 and config.kernels == "fast" or config.torch_compile
    if few_lengths and config.pad_to_multiple_of is None:
        object.__setattr__(config, "pad_to_multiple_of", LENGTH_MULTIPLE)
