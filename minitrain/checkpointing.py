"""When a run saves what it would go on from, what that is, and how a later run takes it up.

A run that was taken up goes on to the same bits as one that never stopped: weights, moments, random streams and the
place in the order of the rows are all there is to it, and the order itself is a function of seed and epoch.
"""

import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minitrain.best import Best
from minitrain.checkpoint import Checkpoint, load_checkpoint, newest_checkpoint, rotate, save_checkpoint, set_aside
from minitrain.config import TrainConfig
from minitrain.distributed import World
from minitrain.errors import MinitrainError
from minitrain.evaluation import device_of, dtype_of_products
from minitrain.place import CHECKPOINTS
from minitrain.products import choose_products, chosen_products
from minitrain.step import TrainState

# What may differ between a run and the one that takes it up: it changes no float of the training.
FREE = {
    "output_dir",
    "overwrite_output_dir",
    "resume",
    "resume_changed",
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "logging_steps",
    "profile",
    "do_eval",
    "ddp_timeout",
    "per_device_train_batch_size",  # these three are compared by their product with the number of processes
    "gradient_accumulation_steps",
    "global_batch_size",
}


class Checkpointer:
    """Saves the state of one run, and puts it back.

    folder: of the run. data: finds what tells its data, tokenizer and labels from others, by name. tell: says a
    line. on_restore: is told the step from which a run goes on that was asked to; 0 where there was nothing yet.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        data: Callable[[], Mapping[str, str]],
        world: World,
        tell: Callable[[str], None],
        on_restore: Callable[[int], None],
    ) -> None:
        self.folder, self.config, self.data, self.world = folder / CHECKPOINTS, config, cache(data), world
        self.tell, self.on_restore = tell, on_restore
        self.saved_step: int | None = None  # the newest

    def restore(self, state: TrainState, best: Best) -> Tensor | None:
        """Take up what `--resume` asks for; None where there is nothing yet, or nothing is asked.

        Returns the random state in which the epoch began, for `fit` to find its order again. Raises MinitrainError
        for a checkpoint that is damaged, of other data, or of other settings, with old and new.
        """
        if self.config.resume is None:
            return None
        checkpoint = self._shared(self._found() if self.world.is_main else None)
        if checkpoint is None:
            self.on_restore(0)
            return None
        own = self._facts()
        check_data(checkpoint.facts["data"], own["data"])
        check_settings(checkpoint.facts, own, self.config.resume_changed, self.tell)
        facts, tensors = checkpoint.facts, checkpoint.tensors
        choose_products(facts.get("products", {}))  # a machine that is busy with other things may choose otherwise
        device = device_of(state.model)
        state.model.load_state_dict({name: tensor.to(device) for name, tensor in tensors["model"].items()})
        state.optimizer.load_state_dict(dict(tensors["optimizer"]))
        state.step, state.epoch, self.saved_step = facts["step"], facts["epoch"], facts["step"]
        saved = facts["best"]
        if (saved["name"], saved["greater_is_better"]) == (best.name, best.greater_is_better):
            for name, value in saved.items():
                setattr(best, name, value)
            if self.config.load_best_model_at_end:
                best.weights = {name: tensor.to(device) for name, tensor in tensors.get("best", {}).items()}
        self._restore_random(tensors["random"], device)
        self.on_restore(state.step)
        if self.world.is_main:
            set_aside(self.folder, state.step, self.tell)
        origin = self.folder if self.config.resume == "newest" else self.config.resume
        self.tell(f"resumed  at step {state.step}, from {origin}")
        epoch = tensors["random"]["epoch"]
        return epoch[min(self.world.rank, len(epoch) - 1)].clone()

    def is_due(self, step: int, epoch_ended: bool) -> bool:
        """Whether the strategy says to save after this step."""
        strategy, interval = self.config.save_strategy, self.config.save_steps
        return (strategy == "epoch" and epoch_ended) or (strategy == "steps" and step % (interval or 1) == 0)

    def save(self, state: TrainState, best: Best) -> None:
        """Save, and delete what the limit leaves no room for. Every process calls this; the first one writes.

        Raises MinitrainError where that fails.
        """
        if self.saved_step == state.step:
            return
        device = device_of(state.model)
        random = {"now": torch.get_rng_state(), "epoch": state.epoch_random}
        if device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(device)
        tensors: dict[str, Mapping[str, Tensor]] = {
            "random": {name: self.world.gather(tensor) for name, tensor in random.items()},
            "model": state.model.state_dict(),
            "optimizer": state.optimizer.state_dict(),
        }
        if best.weights:
            tensors["best"] = best.weights
        kept = ("name", "greater_is_better", "value", "step", "epoch", "evaluations_since")
        facts = {
            "step": state.step,
            "epoch": state.epoch,
            "best": {name: getattr(best, name) for name in kept},
            **self._facts(),
            "products": chosen_products(dtype_of_products(self.config.bf16)),
        }
        if self.world.is_main:
            save_checkpoint(self.folder, Checkpoint(tensors=tensors, facts=facts))
            rotate(self.folder, self.config.save_total_limit, best.step)
        self.saved_step = state.step

    def _found(self) -> Checkpoint | None:
        if self.config.resume == "newest":
            return newest_checkpoint(self.folder, self.tell)
        return load_checkpoint(Path(self.config.resume or ""))

    def _facts(self) -> dict[str, Any]:
        config = self.config
        passes = config.gradient_accumulation_steps * self.world.size
        return {
            "global_batch": config.per_device_train_batch_size * passes,
            "processes": self.world.size,
            "config": asdict(config),
            "data": dict(self.data()),
            "versions": {name: version(name) for name in ("minitrain", "torch")}
            | {"python": platform.python_version()},
        }

    def _shared(self, checkpoint: Checkpoint | None) -> Checkpoint | None:
        """What the first process read, in all: the folder may be on its node alone."""
        if self.world.size == 1:
            return checkpoint
        table: dict[str, Any] = {}
        if checkpoint is not None:
            shapes = {
                file: {name: (str(t.dtype).removeprefix("torch."), list(t.shape)) for name, t in group.items()}
                for file, group in checkpoint.tensors.items()
            }
            table = {"facts": dict(checkpoint.facts), "shapes": shapes}
        table = json.loads(self.world.tell_all("checkpoint", json.dumps(table)))
        if not table:
            return None
        tensors: dict[str, dict[str, Tensor]] = {}
        for file, group in table["shapes"].items():
            tensors[file] = {}
            for name, (dtype, shape) in group.items():
                own = None if checkpoint is None else checkpoint.tensors[file][name].contiguous()
                empty = torch.empty(shape, dtype=getattr(torch, dtype)) if own is None else own
                tensors[file][name] = self.world.broadcast(empty)
        return Checkpoint(tensors=tensors, facts=table["facts"])

    def _restore_random(self, saved: Mapping[str, Tensor], device: torch.device) -> None:
        rank = self.world.rank
        if len(saved["now"]) != self.world.size:  # other processes, other streams
            torch.manual_seed(self.config.seed + rank + 1_000_003 * (self.saved_step or 0))
            return
        # A copy: torch 2.13 reads the state from where the memory of all rows begins, and crashes.
        torch.set_rng_state(saved["now"][rank].clone())
        if device.type == "cuda" and "cuda" in saved:
            torch.cuda.set_rng_state(saved["cuda"][rank].clone(), device)


def check_data(old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """Raise MinitrainError naming the first of a run's data that are others than those of its checkpoint."""
    for name, value in new.items():
        if (before := old.get(name)) != value:
            raise MinitrainError(
                f"--resume: the checkpoint is of {name} {before}, this run has {value}; resume with what it was "
                "trained on, or start another run with another --output_dir"
            )


def check_settings(
    old: Mapping[str, Any], new: Mapping[str, Any], changed: bool, tell: Callable[[str], None]
) -> None:
    """Raise MinitrainError listing the settings that differ, unless that is wanted.

    old, new: "config", and "global_batch" where the number of processes is known.
    """
    settings = [(name, old["config"].get(name), value) for name, value in new["config"].items() if name not in FREE]
    if "global_batch" in old:
        settings.append(("examples a step, in all processes", old["global_batch"], new["global_batch"]))
    plain = [(name, before, json.loads(json.dumps(value))) for name, before, value in settings]
    differing = [f"{name}: {before} -> {value}" for name, before, value in plain if before != value]
    if not differing:
        return
    if not changed:
        raise MinitrainError(
            f"--resume: the run was trained with other settings: {'; '.join(differing)}. Give the same ones, or "
            "pass --resume_changed to go on with the new ones"
        )
    tell(f"changed  {'; '.join(differing)}")
