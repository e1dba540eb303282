"""What a configuration comes to: how many steps, at which learning rates, in which order of the rows."""

import math
from dataclasses import dataclass, replace

from minitrain.config.train_config import TrainConfig
from minitrain.data.dataset import Split
from minitrain.data.sampler import BucketBatchSampler, GlobalRngBatchSampler, RandomBatchSampler, count_steps
from minitrain.errors import MinitrainError
from minitrain.training.schedules import SCHEDULES

Sampler = BucketBatchSampler | RandomBatchSampler | GlobalRngBatchSampler


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The optimizer steps of a run."""

    config: TrainConfig
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int

    def learning_rate(self, step: int) -> float:
        """Of the step after so many."""
        schedule = SCHEDULES[self.config.lr_scheduler_type]
        return self.config.learning_rate * schedule(step, self.total_steps, self.warmup_steps)

    def evaluates_after(self, step: int) -> bool:
        """Whether to evaluate when so many steps are done."""
        if self.config.eval_strategy == "no":
            return False
        interval = self.steps_per_epoch if self.config.eval_strategy == "epoch" else self.config.eval_steps
        assert interval is not None  # checked by the configuration
        return step >= self.total_steps or step % interval == 0


def plan(config: TrainConfig, examples: int, processes: int = 1) -> Plan:
    """Count steps as Trainer 5.23 does: a short last batch, and a short last accumulation, make a step."""
    per_epoch = count_steps(
        examples,
        config.per_device_train_batch_size,
        config.dataloader_drop_last,
        _micro_batches(config, processes),
        processes,
    )
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
