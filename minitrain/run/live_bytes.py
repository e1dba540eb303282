"""The bytes that a step or an evaluation holds at once, for any batch and length, from two small passes of each.

Every operation, forward and backward, shows the storages that it makes, and a weak reference tells when each is
freed. How a storage grows with rows B and length L follows from its sizes in passes of two shapes.
"""

import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from minitrain.config.train_config import TrainConfig
from minitrain.kernels.matmul import chosen_matmul
from minitrain.kernels.precision import autocast, compute_dtype, device_of, explain_oom
from minitrain.kernels.prepack import ONEDNN_LAYOUT_FROM, CastWeights, casting, unchanged_weights
from minitrain.kernels.recompute import recompute_blocks
from minitrain.model.classifier import SequenceClassifier
from minitrain.training.kept_activations import UpperLayers

Shape = tuple[int, int]  # rows B, tokens of each L
# Powers of B and L. With two thirds of the rows and three times the length no two of them grow alike.
POWERS = (0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)
REMEDY = "this is before step 1: a smaller --model is needed, or a machine with more memory"


class Timeline(TorchDispatchMode):
    """Watches the operations inside: `with Timeline(known) as seen:`, without the storages of `known` tensors.

    Attributes:
        sizes: Bytes of each storage that was made, in order.
        events: The number of each storage when it is made, and ~number when it is freed.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.events: list[int] = []
        self._alive = {each.untyped_storage()._cdata: -1 for each in known}  # number by address
        self._kept: set[int] = set()
        self._references: dict[int, Any] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch asks; True would import torch._dynamo, which takes seconds."""
        return False

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, tuple | list) else (out,):
            if isinstance(each, Tensor):
                for part in _with_storage(each):
                    self._see(part.untyped_storage())
                if each.layout == torch._mkldnn:  # type: ignore[attr-defined]
                    self._add(each.numel() * each.element_size())
        return out

    def keep(self, tensor: Tensor) -> None:
        """Count a tensor as never freed."""
        self._kept.update(self._alive.get(part.untyped_storage()._cdata, -1) for part in _with_storage(tensor))

    def _see(self, storage: torch.UntypedStorage) -> None:
        if (place := storage._cdata) not in self._alive and storage.nbytes():
            self._alive[place] = number = self._add(storage.nbytes())
            self._references[number] = weakref.ref(storage, lambda _: self._free(place, number))

    def _add(self, size: int) -> int:
        number = len(self.sizes)
        self.sizes.append(size)
        self.events.append(number)
        return number

    def _free(self, place: int, number: int) -> None:
        del self._alive[place]
        if number not in self._kept:
            self.events.append(~number)


def _with_storage(tensor: Tensor) -> Sequence[Tensor]:
    """The tensors that have storages: two of a sparse one, none in oneDNN's layout."""
    if tensor.is_sparse:
        return tensor._indices(), tensor._values()
    return (tensor,) if tensor.layout == torch.strided else ()


def peak_bytes(shapes: Sequence[Shape], seen: Sequence[Timeline], shape: Shape) -> float:
    """The most bytes at once in a pass of `shape`, from passes of two shapes."""
    growth, factors = _logs(*shapes), _logs(shapes[1], shape)
    sizes = []
    for old, new in zip(seen[0].sizes, seen[1].sizes, strict=True):
        found = math.log(new / old)
        powers = min(POWERS, key=lambda each: abs(_dot(each, growth) - found))
        sizes.append(new * math.exp(_dot(powers, factors)))
    now = most = 0.0
    for event in seen[1].events:
        now += sizes[event] if event >= 0 else -sizes[~event]
        most = max(most, now)
    return most


def _logs(old: Shape, new: Shape) -> list[float]:
    return [math.log(after / before) for before, after in zip(old, new, strict=True)]


def _dot(powers: Iterable[int], logs: Iterable[float]) -> float:
    return sum(power * each for power, each in zip(powers, logs, strict=True))


def step_bytes(model: SequenceClassifier, config: TrainConfig, shape: Shape) -> float:
    """Of the forward and backward pass of a micro-batch, with the gradients unless they are added to others.

    NaN if passes of two lengths do not make as many tensors, so that nothing follows for a third.
    """
    cast = compute_dtype(config) != torch.float32 and config.kernels == "fast"
    adds = config.gradient_accumulation_steps > 1  # to gradients that are there already

    def run(seen: Timeline, inputs: dict[str, Tensor]) -> None:
        def drop(parameter: Tensor) -> None:
            if not adds and parameter.grad is not None:
                seen.keep(parameter.grad)
            parameter.grad = None

        hooks = [each.register_post_accumulate_grad_hook(drop) for each in model.parameters() if each.requires_grad]
        weights = CastWeights() if cast else None
        upper = UpperLayers(model) if config.keep_activations else model
        try:
            with casting(weights) if weights else nullcontext():
                with autocast(device_of(model), compute_dtype(config)):
                    logits = upper(**inputs)
                logits.float().sum().backward()
        finally:
            for hook in hooks:
                hook.remove()

    with _as_in_training(model, config):
        return _measured(model, config, shape, run)


def evaluation_bytes(model: SequenceClassifier, config: TrainConfig, shape: Shape) -> float:
    """Of a forward pass of an evaluation, the weights it prepares among them."""

    def run(seen: Timeline, inputs: dict[str, Tensor]) -> None:
        with (
            torch.no_grad(),
            unchanged_weights(ONEDNN_LAYOUT_FROM),
            autocast(device_of(model), compute_dtype(config)),
        ):
            model(**{name: inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids")})

    was = model.training
    model.eval()
    try:
        return _measured(model, config, shape, run)
    finally:
        model.train(was)


def _measured(
    model: SequenceClassifier, config: TrainConfig, shape: Shape, run: Callable[[Timeline, dict[str, Tensor]], None]
) -> float:
    def watched(rows: int, length: int) -> Timeline:
        inputs = _inputs(model, config, rows, length)
        with (
            explain_oom(torch.Size((rows, length)), "the estimate of the memory", REMEDY),
            Timeline([*model.parameters(), *model.buffers(), *inputs.values()]) as seen,
            _whole_positions(model),
        ):
            run(seen, inputs)
        return seen

    # Of 16 bits some kernels pad the length to a multiple of 16.
    length = min(12 if compute_dtype(config) == torch.float32 else 48, model.encoder.max_length)
    shapes = [(3, max(1, length // 3)), (2, length)]  # of one row some layouts are others
    chosen_matmul(compute_dtype(config))  # else they are timed inside
    found = [watched(*each) for each in shapes]
    if len(found[0].sizes) != len(found[1].sizes):  # the first one made what is made once
        found[0] = watched(*shapes[0])
    if len(found[0].sizes) != len(found[1].sizes):
        return math.nan
    return peak_bytes(shapes, found, shape)


@contextmanager
def _whole_positions(model: SequenceClassifier) -> Iterator[None]:
    """Without `chunk_size_feed_forward`, of which the number of chunks depends on the length: an upper bound."""
    sizes: dict[Any, Any] = {
        block: block.chunk_size for block in model.encoder.blocks if getattr(block, "chunk_size", 0)
    }
    for block in sizes:
        block.chunk_size = 0
    try:
        yield
    finally:
        for block, size in sizes.items():
            block.chunk_size = size


def _inputs(model: SequenceClassifier, config: TrainConfig, rows: int, length: int) -> dict[str, Tensor]:
    device = device_of(model)
    padding = model.encoder.word_embeddings.padding_idx  # which gets no gradient
    ids = torch.full((rows, length), 0 if padding == 1 else 1, dtype=torch.int64, device=device)
    mask = torch.ones_like(ids)
    mask[:, -1] = 0
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    if config.keep_activations:
        upper = UpperLayers(model)
        states = 1 if upper.first_only else length
        inputs["hidden_states"] = torch.zeros((rows, states, model.config.hidden_size), device=device)
    return inputs


@contextmanager
def _as_in_training(model: SequenceClassifier, config: TrainConfig) -> Iterator[None]:
    """As `make_state` has it, without a trace: no random number is drawn."""
    device, was, words = device_of(model), model.training, model.encoder.word_embeddings
    sparse, words.sparse = words.sparse, config.kernels == "fast" and device.type == "cpu"
    if config.gradient_checkpointing:
        recompute_blocks(model.encoder.blocks)
    model.train()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        model.train(was)
        words.sparse = sparse
        if config.gradient_checkpointing:
            for block in model.encoder.blocks:
                del block.forward
