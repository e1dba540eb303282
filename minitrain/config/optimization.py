"""`OptimizationConfig`: the settings of a run's model, optimizer and steps; `TrainConfig` adds the rest."""

from dataclasses import dataclass
from typing import Any

from minitrain.config.class_weights import read_class_weights
from minitrain.config.data_config import SAMPLES, DataConfig
from minitrain.config.options import Bounds, flag

ARITHMETICS = ("fast", "reference")
# In bf16, oneDNN generates code for each length: fewer lengths take a quarter less time and half the memory. CUDA
# graphs are also recorded for each length.
LENGTH_MULTIPLE = 8
SAMPLERS = ("bucket", "random", "global_rng")
DEVICES = ("auto", "cpu", "cuda", "mps")
DROPOUT_RNGS = ("process", "example")

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


def setting(name: str, help: str, choices: tuple[str, ...] | None = None, bounds: Bounds | None = None) -> Any:
    """A field whose default is in `DEFAULTS`, or decided by a match."""
    return flag(None, help, choices, bounds=bounds, shown=DEFAULTS[name])


@dataclass(frozen=True, kw_only=True)
class OptimizationConfig(DataConfig):
    """Data, model, optimizer and device of a run. Each field is a flag."""

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
    layerwise_lr_decay: float = flag(
        1.0, "learning rate of a layer as a share of that of the layer above it", bounds=(0.01, 1.0)
    )
    head_learning_rate: float | None = flag(
        None, "peak learning rate of the head; by default --learning_rate", bounds=(0.0, None)
    )
    freeze: str | int | None = flag(
        None, "do not train: embeddings, encoder (all but the head), or the embeddings and the N lowest layers"
    )
    frozen_dropout: bool | None = flag(
        None, "dropout in frozen layers; by default true, or false with --keep_activations"
    )
    keep_activations: bool = flag(False, "compute the output of the frozen layers once and keep it on disk")
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
    class_weights: dict[str, float] | str | None = flag(
        None, "weights of the classes in the loss: balanced, or name=weight,..., or a .json file"
    )
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
    gradient_checkpointing: bool = flag(
        False, "compute each block again in the backward pass: less memory, a third more time, the same bits"
    )
    bf16: bool = flag(False, "compute in bfloat16 (autocast); weights stay float32")
    fp16: bool = flag(False, "compute in float16 (autocast) with a loss scale; weights stay float32")
    device: str = flag("auto", "auto: an NVIDIA GPU if there is one; mps: Apple's", DEVICES)
    cuda_graphs: bool = flag(True, "on a GPU, record a step for each length and replay it")
    torch_compile: bool = flag(False, "compile the model: for long runs on a GPU with large batches")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "class_weights", read_class_weights(self.class_weights))
