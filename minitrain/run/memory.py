"""An estimate of a run's peak memory, before its first step, and a refusal where the run cannot fit.

What a step and an evaluation hold at once is found by running small ones (`live_bytes.py`), whatever the family,
kernels and precision. The rest is counted from parameters. On a CPU the estimate is of the whole process, on a GPU
of PyTorch's tensors.
"""

import ctypes
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minitrain.config.train_config import TrainConfig
from minitrain.data.dataset import Split
from minitrain.errors import MinitrainError
from minitrain.kernels.precision import compute_dtype
from minitrain.model.classifier import SequenceClassifier
from minitrain.run.live_bytes import Shape, evaluation_bytes, step_bytes
from minitrain.run.peak_memory import peak_memory_mb
from minitrain.run.prepare import PreparedRun
from minitrain.storage.token_cache import cache_folder
from minitrain.training.kept_activations import bytes_to_keep
from minitrain.training.setup import first_micro_batches, plan

MARGIN = 0.15  # share by which a run may differ from its estimate
LIMIT = "MINITRAIN_MEMORY_LIMIT"  # environment variable: bytes of each process, instead of what the system says
SAMPLE = 2_000_000  # tokens whose ids are counted
# Freed tensors of a step leave holes that other sizes do not fill; with gradient checkpointing glibc returns them.
HOLES = 0.25
LIBRARIES = 30e6  # code and buffers of libraries that a first step touches
DISTRIBUTED = 90e6  # the same of DistributedDataParallel


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Bytes at the peak, by what they hold.

    Attributes:
        program: What the process holds now, beside the weights, and copies of weights and gradients.
        step: Activations and gradients of a step, at its peak.
        evaluation: The same of an evaluation, which has no gradients.
        on_disk: Kept activations, which the system drops from memory when it needs the room.
        before: The peak so far: to load a model takes its weights twice.
    """

    program: float
    weights: float
    moments: float
    step: float
    evaluation: float = 0.0
    on_disk: float = 0.0
    before: float = 0.0

    @property
    def needed(self) -> float:
        """What must fit."""
        return self.program + self.weights + self.moments + max(self.step, self.evaluation)

    @property
    def total(self) -> float:
        """What the system will say that the process took."""
        return max(self.needed + self.on_disk, self.before)

    def line(self) -> str:
        """For the header of a run."""
        parts = {"weights": self.weights, "moments": self.moments, "a step": self.step}
        parts |= {"an evaluation": self.evaluation, "kept on disk": self.on_disk, "the program": self.program}
        said = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in parts.items() if size)
        return f"memory   about {self.total / 1e6:.0f} MB at the peak ({said})"


def estimate(run: PreparedRun, processes: int = 1) -> Estimate:
    """The peak of one process of a run that is prepared; the model's random stream and gradients are as before."""
    config, model, device = run.config, run.model, run.device
    on_cpu = device.type == "cpu"
    weights = _bytes(model.parameters())
    dense = _bytes(each for each in model.parameters() if each.requires_grad)
    sparse = 0.0
    words = model.encoder.word_embeddings.weight
    shape = _step_shape(run, processes)
    accumulated = 0.0
    if config.kernels == "fast" and on_cpu and words.requires_grad:
        share = _used_rows(run.splits.train, config, processes, len(words)) / len(words)
        dense -= _bytes([words])
        sparse = 4 * share * _bytes([words])  # both moments, and the rows that AdamW gathers
        accumulated = config.gradient_accumulation_steps * shape[0] * shape[1] * words.size(1) * 4
    step = step_bytes(model, config, shape)
    if config.gradient_accumulation_steps > 1:
        step += dense + accumulated
    if config.optim == "adamw_torch":  # which computes with whole matrices
        largest = float(max(each.nbytes for each in model.parameters() if each.requires_grad))
        step = max(step, dense + accumulated + 2 * largest)
    evaluation = _evaluation(run, shape)
    in_memory = cache_folder() is None
    copies = _kept(run) if in_memory else 0.0
    copies += weights if config.load_best_model_at_end else 0.0
    if processes > 1:
        copies += dense + (DISTRIBUTED if on_cpu else 0.0)  # its buckets
    _return_free_memory()
    if on_cpu and not config.gradient_checkpointing:
        step, evaluation = step * (1 + HOLES), evaluation * (1 + HOLES / 2)  # of which the tensors are larger
    return Estimate(
        program=(max(0.0, _resident() - weights) + LIBRARIES if on_cpu else 0.0) + copies,
        weights=weights,
        moments=2 * dense + sparse,
        step=step,
        evaluation=evaluation,
        on_disk=0.0 if in_memory else _kept(run),
        before=peak_memory_mb() * 1e6 if on_cpu else 0.0,
    )


def check_fits(found: Estimate, run: PreparedRun, processes: int = 1) -> list[str]:
    """Lines for the header: the estimate, and a warning if the memory may be too small.

    Raises:
        MinitrainError: It is too small even if the estimate is `MARGIN` too high; names what fits.
    """
    free = available(run.device)
    if math.isnan(found.needed):
        return ["memory   not estimated: this model makes other tensors for other lengths"]
    if free is None:
        return [found.line()]
    free += _resident() if run.device.type == "cpu" else 0.0  # what this process has already
    line = f"{found.line()}; {free / 1e6:.0f} MB for this process"
    if found.needed <= free:
        return [line]
    said = f"the run takes about {found.needed / 1e6:.0f} MB, and there are {free / 1e6:.0f} MB for this process"
    if found.needed * (1 - MARGIN) <= free or run.config.torch_compile:  # which keeps less than is estimated
        return [line, f"         {said}: {_way_out(run, processes, free)}"]
    raise MinitrainError(f"out of memory before step 1: {said}; {_way_out(run, processes, free)}")


def _way_out(run: PreparedRun, processes: int, free: float) -> str:
    """Flags with which the run fits, even if their estimate is `MARGIN` too low."""
    free /= 1 + MARGIN

    def changed(**changes: Any) -> PreparedRun:
        return replace(run, config=replace(run.config, **changes))

    for changes, flag, why in _smaller_steps(run.config):
        size = run.config.per_device_eval_batch_size
        found = estimate(changed(**changes), processes)
        while found.needed > free and found.evaluation > found.step and size > 1:
            size //= 2
            found = estimate(changed(per_device_eval_batch_size=size, **changes), processes)
        if size < run.config.per_device_eval_batch_size:
            flag += f" --per_device_eval_batch_size {size}"
        if found.needed <= free and flag:
            return f"pass{flag}{why}"
    return "a smaller --model or --max_length is needed, or a machine with more memory"


def _smaller_steps(config: TrainConfig) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Changes of the settings, their flags, and what they keep; the cheapest first."""
    may_checkpoint = not config.gradient_checkpointing and not config.torch_compile
    again: list[tuple[dict[str, Any], str]] = [({"gradient_checkpointing": True}, " --gradient_checkpointing")]
    yield {}, "", ""
    if may_checkpoint:
        yield *again[0], ", which gives the same bits"
    if config.match_accelerate:  # whose example accumulates nothing
        return
    size, passes = config.per_device_train_batch_size, config.gradient_accumulation_steps
    for more, flag in [({}, ""), *(again if may_checkpoint else [])]:
        for smaller in (each for each in range(size - 1, 0, -1) if size % each == 0):
            change = {
                "per_device_train_batch_size": smaller,
                "gradient_accumulation_steps": passes * size // smaller,
            }
            flags = "".join(f" --{name} {value}" for name, value in change.items())
            yield change | more, flags + flag, ", which is the same step in smaller passes"


def available(device: torch.device) -> float | None:
    """Bytes that are free for this process, by the system, the container or the GPU; None if nobody says."""
    if named := os.environ.get(LIMIT):
        limit = math.nan
        with suppress(ValueError):
            limit = float(named)
        if not limit > 0:
            raise MinitrainError(f"{LIMIT}={named}: expected a number of bytes, such as 8e9")
        return limit - (_resident() if device.type == "cpu" else 0.0)
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


def _return_free_memory() -> None:
    """Return what is freed to the system, as of an earlier fold: the run would use it again."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


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


def _step_shape(run: PreparedRun, processes: int) -> Shape:
    """Rows and length of the largest micro-batch."""
    config, train = run.config, run.splits.train
    windows = train.window_rows
    if windows is None:
        rows = min(config.per_device_train_batch_size, len(train))
        return rows, _padded(max(train.lengths), config, run.model)
    rows = max(len(windows.of(batch)) for batch in first_micro_batches(config, train, processes))
    return rows, _padded(max(windows.lengths), config, run.model)


def _evaluation(run: PreparedRun, step: Shape) -> float:
    """The bytes of a forward pass of the evaluations, or of what is computed to be kept; 0 if a step takes more."""
    config, splits = run.config, list(run.splits.scored.values())
    passes = [split.window_rows or split for split in splits + [run.splits.train] * config.keep_activations]
    if not passes:
        return 0.0
    rows = min(config.per_device_eval_batch_size, max(map(len, passes)))
    length = _padded(max(max(each.lengths) for each in passes), config, run.model)
    if rows <= step[0] and length <= step[1] and not config.keep_activations:
        return 0.0
    cast = 0.0
    if compute_dtype(config) != torch.float32 and config.kernels == "fast":  # those of the steps
        layers = (each for each in run.model.encoder.blocks.modules() if isinstance(each, nn.Linear))
        cast = sum(_bytes(each.parameters()) for each in layers) / 2
    return cast + evaluation_bytes(run.model, config, (rows, length))


def _kept(run: PreparedRun) -> float:
    """The bytes of kept activations, which are in the memory of the CPU or on disk."""
    if not run.config.keep_activations or run.device.type != "cpu":
        return 0.0
    return float(bytes_to_keep(run.model, [run.splits.train, *run.splits.evaluation.values()]))
