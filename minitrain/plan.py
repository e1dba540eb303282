"""How many steps a run has, and in what order it takes the training rows: what its configuration comes to."""

import math
from dataclasses import dataclass

from minitrain.batching import BucketBatchSampler, RandomBatchSampler, StreamBatchSampler, count_batches
from minitrain.config import TrainConfig
from minitrain.data import Split

Sampler = BucketBatchSampler | RandomBatchSampler | StreamBatchSampler


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The arithmetic of a run: optimizer steps an epoch, in all, and of warm-up."""

    steps_per_epoch: int
    total_steps: int
    warmup_steps: int


def plan(config: TrainConfig, examples: int) -> Plan:
    """Count steps as Trainer does (5.23): a short last batch, and a short last accumulation, make a step."""
    batches = count_batches(examples, config.per_device_train_batch_size, config.dataloader_drop_last)
    per_epoch = math.ceil(batches / config.gradient_accumulation_steps)
    total = config.max_steps if config.max_steps > 0 else math.ceil(config.num_train_epochs * per_epoch)
    warmup = config.warmup_steps
    return Plan(
        steps_per_epoch=per_epoch,
        total_steps=total,
        warmup_steps=int(warmup) if warmup >= 1 else math.ceil(total * warmup),
    )


def make_sampler(config: TrainConfig, train: Split) -> Sampler:
    """The order of the training rows, as the configuration says; `data_seed`, where given, stands for `seed`."""
    seed = config.seed if config.data_seed is None else config.data_seed
    batch_size, drop_last = config.per_device_train_batch_size, config.dataloader_drop_last
    if config.sampler == "bucket":
        return BucketBatchSampler(train.lengths, batch_size, seed, drop_last)
    if config.sampler == "random":
        return RandomBatchSampler(len(train), batch_size, seed, drop_last)
    return StreamBatchSampler(len(train), batch_size, drop_last)
