"""The output of frozen layers, computed once for each row and kept on disk: steps compute only what is above.

Frozen layers without dropout give a row the same hidden states in every epoch. Each row keeps those of its own
tokens; a batch pads them with zeros, which the mask hides. When the whole encoder is frozen and the head reads the
first position alone, only that is kept. Every process keeps all rows, since it may get any of them.

Not here: masks and relative positions, which are computed anew for each batch.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn

from minitrain.config.train_config import TrainConfig
from minitrain.data.batch import Batch, collate
from minitrain.data.dataset import Split
from minitrain.data.progress import progress
from minitrain.data.sampler import batches_by_length
from minitrain.errors import MinitrainError
from minitrain.kernels.precision import autocast, compute_dtype, device_of, explain_oom
from minitrain.kernels.prepack import unchanged_weights
from minitrain.model.classifier import SequenceClassifier
from minitrain.model.freezing import frozen_layers
from minitrain.model.layers import Context, padding_mask
from minitrain.storage.scratch import check_room, scratch
from minitrain.training.step import TrainState


@dataclass(frozen=True)
class KeptBatch(Batch):
    """A batch with hidden_states, (B, L, H) or (B, 1, H): the output of the frozen layers."""

    hidden_states: Tensor | None = None

    @property
    def inputs(self) -> dict[str, Tensor]:
        """The arguments of `UpperLayers`."""
        assert self.hidden_states is not None
        return super().inputs | {"hidden_states": self.hidden_states}


class UpperLayers(nn.Module):
    """What is above the frozen layers: kept hidden states -> logits (B, C)."""

    def __init__(self, model: SequenceClassifier) -> None:
        super().__init__()
        self.model, self.kept_layers = model, frozen_layers(model.encoder)

    @property
    def first_only(self) -> bool:
        """Whether only the first position of the states is read."""
        return self.kept_layers == len(self.model.encoder.layer_order) and bool(self.model.head.cls_only)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        hidden_states: Tensor | None = None,
    ) -> Tensor:
        """Logits; without hidden_states, of the whole model."""
        model, encoder = self.model, self.model.encoder
        if hidden_states is None:
            logits: Tensor = model(input_ids, attention_mask, token_type_ids)
            return logits
        x, numbers = hidden_states, encoder.layer_order[self.kept_layers :]
        if numbers:
            context = _context(model, x, attention_mask)
            for number in numbers[:-1]:
                x = encoder.blocks[number](x, context)
            x = encoder.blocks[numbers[-1]](x, context, 1 if model.cls_only else None)
        x = x if encoder.final is None else encoder.final(x)
        logits = model.head(x, attention_mask, encoder.kernels)
        return logits

    def lower(self, batch: Batch) -> Tensor:
        """What is to keep of a batch: (B, L, H), or (B, 1, H) with `first_only`."""
        model, encoder = self.model, self.model.encoder
        x = encoder.embeddings(batch.input_ids, batch.token_type_ids, batch.attention_mask, encoder.kernels)
        context = _context(model, x, batch.attention_mask)
        for number in encoder.layer_order[: self.kept_layers]:
            x = encoder.blocks[number](x, context)
        return x[:, :1] if self.first_only else x


def _context(model: SequenceClassifier, x: Tensor, attention_mask: Tensor | None) -> Context:
    encoder = model.encoder
    shared = None if encoder.shared is None else encoder.shared(x, attention_mask, encoder.kernels)
    return Context(mask=padding_mask(attention_mask), kernels=encoder.kernels, shared=shared)


class KeptStates:
    """The hidden states of a split, (tokens, H), and the layers above them."""

    def __init__(self, model: UpperLayers, split: Split) -> None:
        self.model = model
        self.lengths = [1] * len(split) if model.first_only else split.lengths
        self.ends = list(accumulate(self.lengths))
        self.states = torch.empty(0)

    def compute(self, batch: Batch, rows: Sequence[int]) -> None:
        """Keep the states of a batch. The first one decides whether they are float32 or bfloat16."""
        states = self.model.lower(batch).cpu()
        if not len(self.states):
            size = self.ends[-1], states.size(-1)
            buffer = scratch(size[0] * size[1] * states.element_size())
            self.states = torch.frombuffer(buffer, dtype=states.dtype).view(size)
        for state, row in zip(states, rows, strict=True):
            self._of(row).copy_(state[: self.lengths[row]])

    def attach(self, batch: Batch, rows: Sequence[int]) -> KeptBatch:
        """The batch with the states of its rows, and zeros at padding."""
        length = 1 if self.model.first_only else batch.input_ids.size(1)
        states = self.states.new_zeros(len(rows), length, self.states.size(1))
        for place, row in zip(states, rows, strict=True):
            place[: self.lengths[row]] = self._of(row)
        return KeptBatch(
            batch.input_ids, batch.attention_mask, batch.token_type_ids, batch.labels, hidden_states=states
        )

    def _of(self, row: int) -> Tensor:
        return self.states[self.ends[row] - self.lengths[row] : self.ends[row]]


def keep_activations(
    state: TrainState,
    train: Split,
    splits: Mapping[str, Split],
    config: TrainConfig,
    pad_token_id: int | None = None,
) -> tuple[Split, dict[str, Split]]:
    """Compute the output of the frozen layers for each row; returns the splits with it."""
    check_keepable(state.model, [train, *splits.values()])
    upper = state.parallel if isinstance(state.parallel, UpperLayers) else UpperLayers(state.model)
    found = []
    for name, split in (("train", train), *splits.items()):
        with progress(f"frozen layers, {name}", len(split), silent=not state.world.is_main) as add:
            kept = copy.copy(split)
            kept.kept = _kept(upper, split, config, pad_token_id, add)
            found.append(kept)
    return found[0], dict(zip(splits, found[1:], strict=True))


def _kept(
    upper: UpperLayers,
    split: Split,
    config: TrainConfig,
    pad_token_id: int | None,
    on_rows: Callable[[int], object],
) -> KeptStates:
    kept, device = KeptStates(upper, split), device_of(upper)
    pad = split.pad_token_id if pad_token_id is None else pad_token_id
    batches = batches_by_length(split.lengths, config.per_device_eval_batch_size)
    was_training = upper.model.training
    upper.model.eval()
    with torch.no_grad(), unchanged_weights(len(batches)), autocast(device, compute_dtype(config)):
        for rows in batches:
            batch = collate([split[row] for row in rows], pad, config.pad_to_multiple_of)
            with explain_oom(batch.input_ids.shape, "frozen layers", "lower --per_device_eval_batch_size"):
                kept.compute(batch.to(device), rows)
            on_rows(len(rows))
    upper.model.train(was_training)
    return kept


def bytes_to_keep(model: SequenceClassifier, splits: Sequence[Split]) -> int:
    """The size of the hidden states of the splits, as float32."""
    upper = UpperLayers(model)
    tokens = sum(len(split) if upper.first_only else sum(split.lengths) for split in splits)
    return tokens * model.config.hidden_size * 4


def check_keepable(model: SequenceClassifier, splits: Sequence[Split]) -> None:
    """Raise MinitrainError if a row's hidden states depend on its batch, or the disk has no room for them."""
    if any(split.padding_side == "left" for split in splits):
        raise MinitrainError(
            "--keep_activations: the tokenizer pads on the left, where padding moves the positions of a text; set "
            '"padding_side": "right" in tokenizer_config.json, or leave out --keep_activations'
        )
    check_room(bytes_to_keep(model, splits))
