"""Saving the state of a run and restoring it.

A resumed run has the bits of one that never stopped: a checkpoint holds weights, moments, random states and the
step, and the order of the rows is a function of seed and epoch.
"""

import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from signal import Signals
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from minitrain.config.train_config import TrainConfig
from minitrain.distributed.signals import StopRequests
from minitrain.distributed.world import World
from minitrain.errors import Stopped
from minitrain.kernels.matmul import choose_matmul, chosen_matmul
from minitrain.kernels.precision import compute_dtype, device_of, device_random_state, set_device_random_state
from minitrain.run.resume_checks import check_data, check_resumable, check_settings, other_machine
from minitrain.run.run_folder import CHECKPOINTS
from minitrain.storage.checkpoint import (
    Checkpoint,
    load_checkpoint,
    newest_checkpoint,
    rotate,
    save_checkpoint,
    set_aside,
)
from minitrain.training.loss_scale import LossScale
from minitrain.training.metrics import OF_POSITIVE
from minitrain.training.setup import Best, global_batch
from minitrain.training.step import TrainState

# Metrics whose values depend on a setting: with another one the best value so far does not count.
DEPENDS_ON = {
    **dict.fromkeys(OF_POSITIVE, ("positive_label",)),
    "loss": ("label_smoothing_factor", "class_weights"),
}
BEST_FIELDS = ("name", "greater_is_better", "value", "step", "epoch", "evaluations_since")


class Checkpointer:
    """Saves and restores the state of one run.

    Args:
        folder: Of the run.
        data: Computes what identifies its data, tokenizer and labels, by name.
        log: Prints a line.
        on_restore: Called with the step at which a run resumes; 0 if there is no checkpoint yet.
        stop: Signals that ask the run to stop.
        loss: The name of the user's loss function, if the run has one.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        data: Callable[[], Mapping[str, str]],
        world: World,
        log: Callable[[str], None],
        on_restore: Callable[[int], None],
        stop: StopRequests | None = None,
        loss: str | None = None,
    ) -> None:
        self.folder, self.config, self.data, self.world = folder / CHECKPOINTS, config, cache(data), world
        self.log, self.on_restore, self.stop, self.loss = log, on_restore, stop, loss
        self.saved_step: int | None = None  # the newest

    def restore(self, state: TrainState, best: Best, total_steps: int) -> None:
        """Restore the checkpoint that `--resume` asks for, if there is one yet.

        Args:
            total_steps: Of the run that is asked for now.

        Raises:
            MinitrainError: The checkpoint is damaged, or of other data or settings, or replaces a finished run.
        """
        if self.config.resume is None:
            return
        checkpoint = self._broadcast(self._find(total_steps) if self.world.is_main else None)
        if checkpoint is None:
            self.on_restore(0)
            return
        saved, tensors, own = checkpoint.facts, checkpoint.tensors, self._identity()
        check_data(saved["data"], own["data"])
        check_settings(saved, own, self.config.resume_changed, self.log)
        choose_matmul(saved.get("products", {}))  # a busy machine may choose otherwise, with other last bits
        device = device_of(state.model)
        if note := other_machine(saved.get("machine", {}), machine(device)):
            self.log(note)
        state.model.load_state_dict({name: tensor.to(device) for name, tensor in tensors["model"].items()})
        state.optimizer.load_state_dict(dict(tensors["optimizer"]))
        state.step, state.epoch, self.saved_step = saved["step"], saved["epoch"], saved["step"]
        if state.loss_scale is not None and (scale := saved.get("loss_scale")):
            state.loss_scale = LossScale(**scale)
        self._restore_best(best, checkpoint, device)
        self._restore_random(state, tensors["random"], device)
        self.on_restore(state.step)
        if self.world.is_main:
            set_aside(self.folder, state.step, self.log)
        origin = self.folder if self.config.resume == "newest" else self.config.resume
        self.log(f"resumed  at step {state.step}, from {origin}")

    def _restore_best(self, best: Best, checkpoint: Checkpoint, device: torch.device) -> None:
        """Restore the best evaluation so far if it still counts, and its weights if the run ends with them."""
        saved, weights = checkpoint.facts["best"], checkpoint.tensors.get("best", {})
        saved_config = checkpoint.facts["config"]
        if (saved["name"], saved["greater_is_better"]) != (best.name, best.greater_is_better):
            return
        why = ""
        depends = DEPENDS_ON.get(best.name, ())
        if other := [name for name in depends if saved_config.get(name) != getattr(self.config, name)]:
            why = f"--{other[0]} is another"
        elif best.name == "loss" and checkpoint.facts.get("loss_function") != self.loss:
            why = "the loss function is another"
        elif self.config.load_best_model_at_end and saved["value"] is not None and not weights:
            why = f"the checkpoint lacks its weights ({saved['value']:.4f} at step {saved['step']})"
        if why:
            self.log(f"changed  the best {best.name} so far does not count, as {why}; later ones are compared")
            return
        for name, value in saved.items():
            setattr(best, name, value)
        if self.config.load_best_model_at_end:
            best.weights = {name: tensor.to(device) for name, tensor in weights.items()}

    def _restore_random(self, state: TrainState, saved: Mapping[str, Tensor], device: torch.device) -> None:
        # Clones: torch 2.13 reads a state from the start of the memory of all rows, and crashes.
        rank, epoch = self.world.rank, saved["epoch"]
        state.epoch_random = epoch[min(rank, len(epoch) - 1)].clone()
        if len(saved["now"]) != self.world.size:  # another number of processes: new streams
            torch.manual_seed(self.config.seed + rank + 1_000_003 * state.step)
            return
        torch.set_rng_state(saved["now"][rank].clone())
        if device.type in saved:
            set_device_random_state(device, saved[device.type][rank].clone())

    def after_step(
        self, state: TrainState, best: Best, *, epoch_ended: bool, done: bool, wait: Callable[[], None]
    ) -> None:
        """Save if a checkpoint is due; save and raise Stopped if a signal asked any process to stop."""
        if self._is_due(state.step, epoch_ended, done):
            wait()
            self.save(state, best)
        if self.stop is None:
            return
        with self.world.naming_lost_peers(f"after step {state.step}"):
            number = self.stop.agreed(self.world)
        if number:
            wait()
            self.save(state, best)
            self.world.barrier("leaving")  # torchrun ends all processes once one has left: the main one saves first
            raise Stopped(
                f"stopped by {Signals(number).name} after step {state.step}; saved in {self.folder}, and --resume "
                "continues from there",
                number,
            )

    def _is_due(self, step: int, epoch_ended: bool, done: bool) -> bool:
        """Whether to save after this step; the last one too, as Trainer does: more steps can follow from there."""
        strategy, interval = self.config.save_strategy, self.config.save_steps
        if strategy == "no":
            return False
        return done or (epoch_ended if strategy == "epoch" else step % (interval or 1) == 0)

    def save(self, state: TrainState, best: Best) -> None:
        """Save a checkpoint, then delete what `save_total_limit` leaves no room for. Called in every process."""
        if self.saved_step == state.step:
            return
        device = device_of(state.model)
        random = {"now": torch.get_rng_state(), "epoch": state.epoch_random}
        if (on_device := device_random_state(device)) is not None:
            random[device.type] = on_device
        with self.world.naming_lost_peers(f"saving after step {state.step}"):
            gathered = {name: self.world.all_gather(tensor) for name, tensor in random.items()}
        tensors: dict[str, Mapping[str, Tensor]] = {
            "random": gathered,
            "model": state.model.state_dict(),
            "optimizer": state.optimizer.state_dict(),
        }
        if best.weights:
            tensors["best"] = best.weights
        facts = {
            "step": state.step,
            "epoch": state.epoch,
            **({"loss_scale": asdict(state.loss_scale)} if state.loss_scale else {}),
            "best": {name: getattr(best, name) for name in BEST_FIELDS},
            **self._identity(),
            "products": chosen_matmul(compute_dtype(self.config)),
            "machine": machine(device),
        }
        if self.world.is_main:
            save_checkpoint(self.folder, Checkpoint(tensors=tensors, facts=facts))
            rotate(self.folder, self.config.save_total_limit, best.step)
        self.saved_step = state.step

    def _find(self, total_steps: int) -> Checkpoint | None:
        asked = self.config.resume or ""
        found = newest_checkpoint(self.folder, self.log) if asked == "newest" else load_checkpoint(Path(asked))
        check_resumable(self.folder.parent, found, self.config, total_steps)
        return found

    def _identity(self) -> dict[str, Any]:
        """What a resumed run is compared by."""
        return {
            "global_batch": global_batch(self.config, self.world.size),
            "processes": self.world.size,
            "config": asdict(self.config),
            "loss_function": self.loss,
            "data": dict(self.data()),
            "versions": {name: version(name) for name in ("minitrain", "torch")}
            | {"python": platform.python_version()},
        }

    def _broadcast(self, checkpoint: Checkpoint | None) -> Checkpoint | None:
        """The checkpoint of rank 0, in all processes: its folder may be on one node only."""
        if self.world.size == 1:
            return checkpoint
        files: dict[str, Tensor] = {}
        facts = None
        if checkpoint is not None:
            files = {name: _packed(tensors) for name, tensors in checkpoint.tensors.items()}
            facts = {"facts": dict(checkpoint.facts), "sizes": {name: len(file) for name, file in files.items()}}
        facts = json.loads(self.world.broadcast_text("checkpoint", json.dumps(facts)))
        if facts is None:
            return None
        received = {
            name: self.world.broadcast(files[name] if files else torch.empty(size, dtype=torch.uint8))
            for name, size in facts["sizes"].items()
        }
        if checkpoint is not None:
            return checkpoint
        tensors = {name: load(file.numpy().tobytes()) for name, file in received.items()}
        return Checkpoint(tensors=tensors, facts=facts["facts"])


def _packed(tensors: Mapping[str, Tensor]) -> Tensor:
    """Named tensors as the bytes of a safetensors file, uint8."""
    return torch.frombuffer(bytearray(save({n: t.contiguous() for n, t in tensors.items()})), dtype=torch.uint8)


def machine(device: torch.device) -> dict[str, str]:
    """The parts of this machine and process that decide last bits."""
    return {
        "threads": str(torch.get_num_threads()),
        "CPU": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "device": device.type if device.type != "cuda" else torch.cuda.get_device_name(device),
    }
