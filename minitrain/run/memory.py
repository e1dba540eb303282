"""An estimate of a run's peak memory, before its first step, and a refusal where the run cannot fit.

What a pass keeps is found by running it: three forward passes of one short text give the bytes for any batch and
length, whatever the family, kernels and precision. The rest is counted from parameters. On a CPU the estimate is of
the whole process, on a GPU of PyTorch's tensors.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from minitrain.config.optimization import LENGTH_MULTIPLE
from minitrain.config.train_config import TrainConfig
from minitrain.data.dataset import Split
from minitrain.errors import MinitrainError
from minitrain.kernels.precision import autocast, compute_dtype
from minitrain.model.classifier import SequenceClassifier
from minitrain.run.peak_memory import peak_memory_mb
from minitrain.run.prepare import PreparedRun
from minitrain.training.setup import plan

MARGIN = 0.15  # share by which a run may differ from its estimate
LIMIT = "MINITRAIN_MEMORY_LIMIT"  # environment variable: bytes to assume instead of what the system says is free
SAMPLE = 2_000_000  # tokens whose ids are counted
# Freed tensors of one size leave holes that others do not fill; with gradient checkpointing glibc returns them.
HOLES = 0.1
LIBRARIES = 40e6  # code and buffers of libraries that a first step touches


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Bytes at the peak, by what they hold. `program`: what the process holds now, beside the weights."""

    program: float
    weights: float
    gradients: float
    moments: float
    activations: float

    @property
    def total(self) -> float:
        """Weights and moments all the time; gradients replace activations block by block."""
        return self.program + self.weights + self.moments + max(self.gradients, self.activations)

    def line(self) -> str:
        """For the header of a run."""
        parts = ", ".join(
            f"{name} {getattr(self, name) / 1e6:.0f}"
            for name in ("weights", "gradients", "moments", "activations", "program")
        )
        return f"memory   about {self.total / 1e6:.0f} MB at the peak ({parts})"


def estimate(run: PreparedRun, processes: int = 1, batch_size: int | None = None) -> Estimate:
    """The peak of one process of a run that is prepared; the model's random stream and gradients are as before.

    Args:
        batch_size: Examples of a forward pass, if not the run's.
    """
    config, model, device = run.config, run.model, run.device
    rows = batch_size or config.per_device_train_batch_size
    on_cpu = device.type == "cpu"
    parameters = [each for each in model.parameters() if each.requires_grad]
    weights = _bytes(model.parameters())
    dense = _bytes(parameters)
    sparse = 0.0
    if config.kernels == "fast" and on_cpu and model.encoder.word_embeddings.weight.requires_grad:
        words = model.encoder.word_embeddings.weight
        share = _used_rows(run.splits.train, config, processes, len(words)) / len(words)
        dense -= _bytes([words])
        sparse = 4 * share * _bytes([words])  # both moments, and the rows that AdamW gathers
    length = _padded(max(run.splits.train.lengths), config, model)
    kept = _kept_bytes(model, rows, length, config)
    copies = (
        weights / 2 if compute_dtype(config) != torch.float32 and config.kernels == "fast" else 0.0
    )  # the weights in bfloat16
    copies += weights if config.load_best_model_at_end else 0.0
    if processes > 1:
        copies += dense  # DistributedDataParallel's buckets
    holes = HOLES * (dense + kept) if on_cpu and not config.gradient_checkpointing else 0.0
    return Estimate(
        program=(max(0.0, _resident() - weights) + LIBRARIES if on_cpu else 0.0) + copies + holes,
        weights=weights,
        gradients=dense + _one_block(model),
        moments=2 * dense + sparse,
        activations=kept,
    )


def check_fits(found: Estimate, run: PreparedRun, processes: int = 1) -> list[str]:
    """Lines for the header: the estimate, and a warning if the memory may be too small.

    Raises:
        MinitrainError: It is too small even if the estimate is `MARGIN` too high; names what fits.
    """
    free = available(run.device)
    if free is None:
        return [found.line()]
    free += _resident() if run.device.type == "cpu" else 0.0  # what this process has already
    line = f"{found.line()}; {free / 1e6:.0f} MB for this process"
    if found.total <= free:
        return [line]
    said = f"the run takes about {found.total / 1e6:.0f} MB, and there are {free / 1e6:.0f} MB for this process"
    if found.total * (1 - MARGIN) <= free:
        return [line, f"         {said}: {_way_out(run, processes, free)}"]
    raise MinitrainError(f"out of memory before step 1: {said}; {_way_out(run, processes, free)}")


def _way_out(run: PreparedRun, processes: int, free: float) -> str:
    """Flags with which the run fits, as far as the estimate knows."""
    config = run.config
    size, passes = config.per_device_train_batch_size, config.gradient_accumulation_steps
    checkpointed = replace(run, config=replace(config, gradient_checkpointing=True, torch_compile=False))
    may_checkpoint = not config.gradient_checkpointing and not config.torch_compile
    if may_checkpoint and estimate(checkpointed, processes).total <= free:
        return "pass --gradient_checkpointing, which gives the same bits"
    for smaller in (each for each in range(size - 1, 0, -1) if size % each == 0):
        if estimate(run, processes, smaller).total <= free:
            flags = f"--gradient_accumulation_steps {passes * size // smaller}"
            return f"pass --per_device_train_batch_size {smaller} {flags}, which is the same step in smaller passes"
    return "a smaller --model or --max_length is needed, or a machine with more memory"


def available(device: torch.device) -> float | None:
    """Bytes that are free for this process, by the system, the container or the GPU; None if nobody says."""
    if named := os.environ.get(LIMIT):
        return float(named) - (_resident() if device.type == "cpu" else 0.0)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    if device.type != "cpu":
        return None
    limits = [*_meminfo(), *_cgroup(Path("/sys/fs/cgroup"))]
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes that torchrun started on this machine
    return min(limits) / here if limits else None


def _meminfo() -> Iterator[float]:
    file = Path("/proc/meminfo")
    for line in file.read_text().splitlines() if file.exists() else []:
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _cgroup(folder: Path) -> Iterator[float]:
    """What a container's limit leaves, by version 2 and 1 of cgroups; cached files can be dropped."""
    for limit, usage, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            most = int((folder / limit).read_text())
            used = int((folder / usage).read_text())
            stat = (folder / limit).with_name("memory.stat").read_text().split()
        except (OSError, ValueError):  # no limit: "max"
            continue
        free = dict(zip(stat[::2], stat[1::2], strict=False))
        yield most - used + int(free.get(cached, 0))


def _bytes(tensors: Iterable[Tensor]) -> float:
    return float(sum(each.numel() * each.element_size() for each in tensors))


def _one_block(model: SequenceClassifier) -> float:
    """The largest gradient, which exists twice for a moment."""
    return max(_bytes([each]) for each in model.encoder.blocks.parameters())


def _resident() -> float:
    """The resident set size now; on a system without /proc, the largest so far."""
    file = Path("/proc/self/statm")
    if file.exists():
        return float(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return peak_memory_mb() * 1e6


def _padded(length: int, config: TrainConfig, model: SequenceClassifier) -> int:
    multiple = config.pad_to_multiple_of or 1
    return min(-(-length // multiple) * multiple, model.encoder.max_length)


def _used_rows(train: Split, config: TrainConfig, processes: int, words: int) -> int:
    """Different token ids that the steps of the run meet; Heaps' law beyond the sample."""
    rows = plan(config, len(train), processes).total_steps * config.per_device_train_batch_size
    rows = min(len(train), rows * config.gradient_accumulation_steps * processes)
    met = max(1, sum(train.lengths) * rows // len(train))
    seen = train.different_ids(min(met, SAMPLE))
    return min(words, int(seen * max(1.0, met / SAMPLE) ** 0.5))


def _kept_bytes(model: SequenceClassifier, rows: int, length: int, config: TrainConfig) -> float:
    """What the forward pass of a step keeps for the backward pass, and the largest tensors beside it."""
    longest = min(4 * LENGTH_MULTIPLE, model.encoder.max_length)
    sizes = [max(1, longest // 4), max(1, longest // 2), longest]
    with _dry(model, config):
        found = [_kept_by(model, size, compute_dtype(config)) for size in sizes]
    powers = torch.tensor([[1.0, size, size * size] for size in sizes], dtype=torch.float64)
    curve = torch.linalg.lstsq(powers, torch.tensor(found, dtype=torch.float64), driver="gelsd").solution
    fixed, linear, square = curve.tolist()
    whole = max(0.0, fixed) + rows * (linear * length + max(0.0, square) * length**2)
    half = compute_dtype(config) != torch.float32
    layers, width = len(model.encoder.layer_order), model.config.hidden_size
    element = 2 if half else 4
    beside = 3 * rows * length * model.config.intermediate_size * element  # output and gradient of the widest layer
    if not config.gradient_checkpointing:
        return whole + beside
    return layers * rows * length * width * element + whole / layers + beside


def _kept_by(model: SequenceClassifier, length: int, dtype: torch.dtype) -> int:
    """Bytes that the forward pass of one text keeps; a storage that several operations keep counts once."""
    kept: dict[int, int] = {}
    own = {each.untyped_storage().data_ptr() for each in model.parameters()}

    def pack(each: Tensor) -> Tensor:
        if (place := each.untyped_storage().data_ptr()) not in own:
            kept[place] = each.untyped_storage().nbytes()
        return each.detach()  # an output that its own node keeps would never be freed

    device = next(model.parameters()).device
    ids, mask = (torch.ones((1, length), dtype=torch.int64, device=device) for _ in range(2))
    mask[:, -1] = 0
    with saved_tensors_hooks(pack, lambda each: each), autocast(device, dtype):
        logits = model(input_ids=ids, attention_mask=mask)  # holds what is kept until all of it is counted
    del logits
    return sum(kept.values())


@contextmanager
def _dry(model: SequenceClassifier, config: TrainConfig) -> Iterator[None]:
    """Train mode without a trace: no random number is drawn."""
    was, device = model.training, next(model.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        model.train()
        try:
            yield
        finally:
            model.train(was)
