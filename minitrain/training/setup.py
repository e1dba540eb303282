"""What a training starts from: optimizer, compiled or distributed model, random stream, and the kind of step."""

import json
from collections.abc import Callable
from itertools import count

import torch

from minitrain.config.train_config import LENGTH_MULTIPLE, TrainConfig
from minitrain.distributed.world import World, ddp
from minitrain.kernels.compile import check_compilable, dry_run, try_compile
from minitrain.kernels.matmul import choose_matmul, chosen_matmul
from minitrain.kernels.precision import compute_dtype, device_of
from minitrain.kernels.prepack import CastWeights
from minitrain.model.classifier import SequenceClassifier
from minitrain.training.optim import AdamW
from minitrain.training.param_groups import decay_groups
from minitrain.training.recorded_step import PendingResult, RecordedStep
from minitrain.training.step import StepResult, TrainState, train_step

Step = Callable[..., StepResult | PendingResult]  # called as `train_step`
_states = count()  # made in this process: each agrees on its kernels under a key of its own


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
    optimizer = AdamW(
        model.parameters() if config.decay_all else decay_groups(model, config.weight_decay),
        weight_decay=config.weight_decay,
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=config.optim == "adamw_torch_fused",
    )
    length = min(LENGTH_MULTIPLE, model.config.max_length)
    if config.torch_compile:
        check_compilable(config.kernels, device)
        try_compile(model, model.encoder.blocks, length, config.bf16)
    parallel = ddp(model, world)
    if world.size > 1:
        chosen = json.dumps(chosen_matmul(compute_dtype(config.bf16)))
        choose_matmul(json.loads(world.broadcast_text(f"products {next(_states)}", chosen)))
        # After its first backward pass DistributedDataParallel arranges the gradients anew, which for three or more
        # processes changes the last bit of their sum. With a pass before, no step of a run is that first one, and a
        # resumed run has the bits of one that never stopped.
        dry_run(parallel, length, config.bf16)
    return TrainState(
        model=model,
        optimizer=optimizer,
        parallel=parallel,
        epoch_random=torch.get_rng_state(),
        world=world,
        cast=CastWeights() if config.bf16 and config.kernels == "fast" else None,
    )


def is_recordable(config: TrainConfig, device: torch.device, processes: int = 1) -> bool:
    """Whether a GPU can record the steps: fast kernels, one process, one micro-batch a step, no profile.

    A graph cannot hold the exchange between processes, and a profile waits for the device between the phases.
    """
    fast = config.kernels == "fast" and config.optim == "adamw_torch_fused"
    one_batch = config.gradient_accumulation_steps == 1 and processes == 1 and not config.profile
    return config.cuda_graphs and device.type == "cuda" and fast and one_batch


def choose_step(config: TrainConfig, device: torch.device, processes: int) -> Step:
    """`train_step`, or the same recorded by the GPU."""
    return RecordedStep(device) if is_recordable(config, device, processes) else train_step
