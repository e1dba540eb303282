"""How many steps a run has, and in what order it takes the training rows: what its configuration comes to."""

import math
from dataclasses import dataclass, replace

from minitrain.config.train_config import TrainConfig
from minitrain.data.dataset import Split
from minitrain.data.sampler import BucketBatchSampler, GlobalRngBatchSampler, RandomBatchSampler, count_steps
from minitrain.errors import MinitrainError

Sampler = BucketBatchSampler | RandomBatchSampler | GlobalRngBatchSampler


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The arithmetic of a run: optimizer steps an epoch, in all, and of warm-up."""

    steps_per_epoch: int
    total_steps: int
    warmup_steps: int


def plan(config: TrainConfig, examples: int, processes: int = 1) -> Plan:
    """Count steps as Trainer does (5.23): a short last batch, and a short last accumulation, make a step."""
    per_epoch = count_steps(
        examples,
        config.per_device_train_batch_size,
        config.dataloader_drop_last,
        _passes(config, processes),
        processes,
    )
    total = config.max_steps if config.max_steps > 0 else math.ceil(config.num_train_epochs * per_epoch)
    warmup = config.warmup_steps
    return Plan(
        steps_per_epoch=per_epoch,
        total_steps=total,
        warmup_steps=int(warmup) if warmup >= 1 else math.ceil(total * warmup),
    )


def make_sampler(config: TrainConfig, train: Split, processes: int = 1) -> Sampler:
    """The order of the training rows, as the configuration says; `data_seed`, where given, stands for `seed`.

    It gives the rows of a whole optimizer step, over all processes, at a time.
    """
    seed = config.seed if config.data_seed is None else config.data_seed
    batch_size, drop_last = config.per_device_train_batch_size, config.dataloader_drop_last
    passes = _passes(config, processes)
    if config.sampler == "bucket":
        return BucketBatchSampler(train.lengths, batch_size, seed, drop_last, passes, processes)
    if config.sampler == "random":
        return RandomBatchSampler(len(train), batch_size, seed, drop_last, passes, processes)
    return GlobalRngBatchSampler(len(train), batch_size, drop_last, passes)


def _passes(config: TrainConfig, processes: int) -> int:
    """Forward passes an optimizer step, over all processes."""
    return config.gradient_accumulation_steps * processes


def global_batch(config: TrainConfig, processes: int) -> int:
    """Examples an optimizer step, in all processes and forward passes."""
    return config.per_device_train_batch_size * _passes(config, processes)


def with_per_device_batch_size(config: TrainConfig, processes: int) -> TrainConfig:
    """The configuration with the batch size of one process in it, where it names that of all.

    Raises MinitrainError where so many processes cannot share it evenly, with the numbers that can, and for a
    reference's arithmetic in more than one process.
    """
    if processes > 1 and (config.match_trainer or config.match_accelerate):
        name = "match_trainer" if config.match_trainer else "match_accelerate"
        raise MinitrainError(f"--{name} compares one process with one: start one, not {processes}")
    if processes > 1 and config.sampler == "global_rng":
        raise MinitrainError("--sampler global_rng follows the random stream of one process: start one")
    if config.global_batch_size is None:
        return config
    whole, passes = config.global_batch_size, _passes(config, processes)
    if whole % passes:
        able = [n for n in range(1, whole + 1) if whole % (n * config.gradient_accumulation_steps) == 0]
        raise MinitrainError(
            f"--global_batch_size {whole} cannot be shared evenly by {processes} processes in "
            f"{config.gradient_accumulation_steps} passes each; numbers of processes that can: "
            f"{', '.join(map(str, able)) or 'none, with so many passes'}"
        )
    return replace(config, per_device_train_batch_size=whole // passes)
