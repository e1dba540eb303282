"""What a training starts from: its state, plain or recorded steps, their plan and order, and the best so far."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count

import torch
from torch import Tensor

from minitrain.config.optimization import LENGTH_MULTIPLE
from minitrain.config.train_config import TrainConfig
from minitrain.data.dataset import Split
from minitrain.data.sampler import (
    BucketBatchSampler,
    GlobalRngBatchSampler,
    RandomBatchSampler,
    count_steps,
    rank_micro_batches,
)
from minitrain.distributed.world import World, ddp
from minitrain.errors import MinitrainError
from minitrain.kernels.compile import check_compilable, dry_run, try_compile
from minitrain.kernels.matmul import choose_matmul, chosen_matmul
from minitrain.kernels.precision import compute_dtype, device_of
from minitrain.kernels.prepack import CastWeights
from minitrain.kernels.recompute import recompute_blocks, return_freed_memory
from minitrain.model.classifier import SequenceClassifier
from minitrain.model.freezing import freeze_layers
from minitrain.training.evaluation import Evaluation
from minitrain.training.kept_activations import UpperLayers
from minitrain.training.layer_rates import optimizer_groups
from minitrain.training.loss import Loss
from minitrain.training.loss_scale import LossScale
from minitrain.training.metrics import OF_POSITIVE, Metric, metric_names
from minitrain.training.optim import AdamW
from minitrain.training.recorded_step import PendingResult, RecordedStep
from minitrain.training.schedules import SCHEDULES
from minitrain.training.step import StepResult, StepSettings, TrainState, train_step

Step = Callable[..., StepResult | PendingResult]  # called as `train_step`
_states = count()  # made in this process: each agrees on its kernels under its own key


def make_state(model: SequenceClassifier, config: TrainConfig, world: World | None = None) -> TrainState:
    """Make the state of a training at step 0, and start the random stream from `config.seed` plus the rank.

    With fast kernels on a CPU the word embeddings get sparse gradients, which torch's own optimizers do not take;
    `model.encoder.word_embeddings.sparse = False` makes them dense again.
    """
    world, device = world or World(), device_of(model)
    if config.reseed or world.size > 1:
        torch.manual_seed(config.seed + world.rank)
    # Sparse spares zeroing, measuring and applying a gradient of 30,000 rows. A GPU coalesces too slowly for it.
    model.encoder.word_embeddings.sparse = config.kernels == "fast" and device.type == "cpu"
    freeze_layers(model, config.freeze, bool(config.frozen_dropout))
    if config.dropout_rng == "example":
        _check_streams(model)
    optimizer = AdamW(
        optimizer_groups(model, config),
        weight_decay=config.weight_decay,
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=config.optim == "adamw_torch_fused",
    )
    length = min(LENGTH_MULTIPLE, model.config.max_length)
    if config.torch_compile:
        check_compilable(config.kernels, device)
        try_compile(model, model.encoder.blocks, length, compute_dtype(config))
    if config.gradient_checkpointing:
        recompute_blocks(model.encoder.blocks)
        return_freed_memory()
    parallel = ddp(UpperLayers(model) if config.keep_activations else model, world)
    if world.size > 1:
        chosen = json.dumps(chosen_matmul(compute_dtype(config)))
        choose_matmul(json.loads(world.broadcast_text(f"products {next(_states)}", chosen)))
        # After its first backward pass DistributedDataParallel arranges the gradients anew, which for three or more
        # processes changes the last bit of their sum. With a pass before, no step of a run is that first one, and a
        # resumed run has the bits of one that never stopped.
        dry_run(parallel, length, compute_dtype(config))
    return TrainState(
        model=model,
        optimizer=optimizer,
        parallel=parallel,
        epoch_random=torch.get_rng_state(),
        world=world,
        loss_scale=LossScale() if config.fp16 else None,
        cast=CastWeights() if compute_dtype(config) != torch.float32 and config.kernels == "fast" else None,
    )


def _check_streams(model: SequenceClassifier) -> None:
    """Raise MinitrainError if examples share a part of the model that dropout draws for."""
    quiet = {part for top in model.encoder.without_dropout for part in top.modules()}
    drops = any(getattr(part, "vector_dropout", 0.0) for part in model.modules() if part not in quiet)
    if drops and getattr(model.encoder.shared, "vectors", None) is not None:
        raise MinitrainError(
            f"--dropout_rng example: {model.config.model_type} also drops parts of its position vectors, which all "
            "examples of a batch share; pass --hidden_dropout_prob 0 too, or leave --dropout_rng out"
        )


def is_recordable(config: TrainConfig, device: torch.device, processes: int = 1, loss: Loss | None = None) -> bool:
    """Whether a GPU can record the steps: fast kernels, one process, one micro-batch a step, no profile, own loss.

    A graph cannot hold the exchange between processes, nor the numbers that a loss function of the user returns; a
    profile waits for the device between the phases, gradient checkpointing moves the random stream back, and Python
    chooses the loss scale of fp16.
    """
    if loss is not None and loss.function is not None:
        return False
    fast = StepSettings.of(config).fused_clip
    one_batch = config.gradient_accumulation_steps == 1 and processes == 1
    fast = fast and not (config.profile or config.gradient_checkpointing or config.fp16)
    return config.cuda_graphs and device.type == "cuda" and fast and one_batch


def choose_step(
    config: TrainConfig, device: torch.device, processes: int, windows: bool = False, loss: Loss | None = None
) -> Step:
    """`train_step`, or the same recorded by the GPU. windows: Batches have any number of rows, too many shapes."""
    recordable = not windows and is_recordable(config, device, processes, loss)
    return RecordedStep(device) if recordable else train_step


Sampler = BucketBatchSampler | RandomBatchSampler | GlobalRngBatchSampler


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The optimizer steps of a run."""

    config: TrainConfig
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int

    def learning_rate(self, step: int, base: float | None = None) -> float:
        """The learning rate of the step after `step` steps. base: At its peak; by default `learning_rate`."""
        schedule = SCHEDULES[self.config.lr_scheduler_type]
        base = self.config.learning_rate if base is None else base
        return base * schedule(step, self.total_steps, self.warmup_steps)

    def rates(self, state: TrainState) -> float | list[float]:
        """The learning rate of the state's next step, or of each group of its optimizer if they have their own."""
        groups = state.optimizer.param_groups
        if "base_lr" not in groups[0]:
            return self.learning_rate(state.step)
        return [self.learning_rate(state.step, group["base_lr"]) for group in groups]

    def evaluates_after(self, step: int) -> bool:
        """Whether to evaluate after `step` steps."""
        if self.config.eval_strategy == "no":
            return False
        interval = self.steps_per_epoch if self.config.eval_strategy == "epoch" else self.config.eval_steps
        assert interval is not None  # checked by the configuration
        return step >= self.total_steps or step % interval == 0


def plan(config: TrainConfig, examples: int, processes: int = 1) -> Plan:
    """Count steps as Trainer 5.23 does: a short last batch, and a short last accumulation, make a step."""
    batch_size, drop_last = config.per_device_train_batch_size, config.dataloader_drop_last
    per_epoch = count_steps(examples, batch_size, drop_last, _micro_batches(config, processes), processes)
    total = config.max_steps if config.max_steps > 0 else math.ceil(config.num_train_epochs * per_epoch)
    warmup = config.warmup_steps
    return Plan(
        config=config,
        steps_per_epoch=per_epoch,
        total_steps=total,
        warmup_steps=int(warmup) if warmup >= 1 else math.ceil(total * warmup),
    )


def make_sampler(config: TrainConfig, train: Split, processes: int = 1) -> Sampler:
    """Make the sampler of the configuration: it gives the rows of a whole optimizer step, over all processes."""
    seed = config.seed if config.data_seed is None else config.data_seed
    batch_size, drop_last = config.per_device_train_batch_size, config.dataloader_drop_last
    micro_batches = _micro_batches(config, processes)
    if config.sampler == "bucket":
        return BucketBatchSampler(train.lengths, batch_size, seed, drop_last, micro_batches, processes)
    if config.sampler == "random":
        return RandomBatchSampler(len(train), batch_size, seed, drop_last, micro_batches, processes)
    return GlobalRngBatchSampler(len(train), batch_size, drop_last, micro_batches)


def first_micro_batches(
    config: TrainConfig, train: Split, processes: int = 1, steps: int | None = None
) -> list[list[int]]:
    """The rows of each micro-batch of the first epoch, or of its first steps; no random number is drawn."""
    with torch.random.fork_rng(devices=()):  # --sampler global_rng draws from the global generator
        batches = make_sampler(config, train, processes).batches(0)[:steps]
    return [rows for step in batches for rows in rank_micro_batches(step, config.per_device_train_batch_size)]


def _micro_batches(config: TrainConfig, processes: int) -> int:
    """Of an optimizer step, over all processes."""
    return config.gradient_accumulation_steps * processes


def global_batch(config: TrainConfig, processes: int) -> int:
    """Examples of an optimizer step, in all processes and micro-batches."""
    return config.per_device_train_batch_size * _micro_batches(config, processes)


def with_per_device_batch_size(config: TrainConfig, processes: int) -> TrainConfig:
    """Derive `per_device_train_batch_size` from `global_batch_size`, if that is given.

    Raises:
        MinitrainError: The processes cannot share it evenly (the message lists numbers that can), or a reference's
            arithmetic is asked for in more than one process.
    """
    if processes > 1 and (config.match_trainer or config.match_accelerate):
        name = "match_trainer" if config.match_trainer else "match_accelerate"
        raise MinitrainError(f"--{name} compares one process with one: start one, not {processes}")
    if processes > 1 and config.sampler == "global_rng":
        raise MinitrainError("--sampler global_rng follows the random stream of one process: start one")
    if config.global_batch_size is None:
        return config
    size, micro_batches = config.global_batch_size, _micro_batches(config, processes)
    if size % micro_batches:
        able = [n for n in range(1, size + 1) if size % (n * config.gradient_accumulation_steps) == 0]
        raise MinitrainError(
            f"--global_batch_size {size} cannot be shared evenly by {processes} processes with "
            f"{config.gradient_accumulation_steps} micro-batches each; numbers of processes that can: "
            f"{', '.join(map(str, able)) or 'none, with so many micro-batches'}"
        )
    return replace(config, per_device_train_batch_size=size // micro_batches)


LOWER_IS_BETTER = ("loss", "mse", "rmse", "mae", "hamming_loss")


@dataclass
class Best:
    """The best evaluation so far, by one value of the first evaluation split."""

    name: str
    greater_is_better: bool
    value: float | None = None
    step: int = 0
    epoch: float = 0.0
    weights: dict[str, Tensor] = field(default_factory=dict)
    evaluations_since: int = 0

    def improves(self, value: float) -> bool:
        """Whether `value` is better than the best so far; NaN never is."""
        if self.value is None:
            return not math.isnan(value)
        return value > self.value if self.greater_is_better else value < self.value

    def remember(
        self, results: Mapping[str, Evaluation], model: SequenceClassifier, step: int, epoch: float, weights: bool
    ) -> bool:
        """Compare the evaluations of a step; keep those that are the best, with a copy of the weights if asked."""
        values = next(iter(results.values())).values
        if self.name not in values:  # it was not known before what compute_metrics returns
            raise MinitrainError(f"--metric_for_best_model {self.name}: expected {', '.join(values)}")
        value = values[self.name]
        if not self.improves(value):
            self.evaluations_since += 1
            return False
        self.value, self.step, self.epoch, self.evaluations_since = value, step, epoch, 0
        if weights:
            self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        return True


def best_by(config: TrainConfig, metric: Metric) -> Best:
    """Make the comparison that the configuration asks for.

    Raises:
        MinitrainError: `metric` has no such value (the message lists them), or none that is about `positive_label`.
    """
    name = (config.metric_for_best_model or metric.names[0]).removeprefix("eval_")
    names = ", ".join(metric.names)
    if name not in ("loss", *metric.names) and metric.user_metrics is None:
        fits = name in metric_names(metric.num_classes, metric.multi_label)
        way = f"; --metrics {','.join((*metric.names, name))} computes it too" if fits else ""
        raise MinitrainError(f"--metric_for_best_model {name}: expected loss, {names}{way}")
    if config.positive_label is not None and not {*OF_POSITIVE} & {*metric.names}:
        way = f"add one of --metrics {','.join(OF_POSITIVE)}" if metric.num_classes == 2 else "leave it out"
        raise MinitrainError(
            f"--positive_label {config.positive_label}: f1 is not among {names}, nor another of one class; {way}"
        )
    greater = config.greater_is_better
    if greater is None:  # a user's metric is a loss if it is called so, as in Trainer
        greater = name not in LOWER_IS_BETTER and not name.endswith("loss")
    return Best(name=name, greater_is_better=greater)
