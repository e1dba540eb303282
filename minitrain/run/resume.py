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

from minitrain.config.train_config import TrainConfig
from minitrain.distributed.world import World
from minitrain.kernels.matmul import choose_matmul, chosen_matmul
from minitrain.run.resume_checks import check_data, check_goes_on, check_settings, other_machine
from minitrain.run.run_folder import CHECKPOINTS
from minitrain.storage.checkpoint import (
    Checkpoint,
    load_checkpoint,
    newest_checkpoint,
    rotate,
    save_checkpoint,
    set_aside,
)
from minitrain.training.best import Best
from minitrain.training.evaluation import compute_dtype, device_of
from minitrain.training.plan import global_batch
from minitrain.training.step import TrainState

CHANGES = {"f1": "positive_label", "loss": "label_smoothing_factor"}  # metrics, and what makes others of them


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

    def restore(self, state: TrainState, best: Best, total_steps: int) -> Tensor | None:
        """Take up what `--resume` asks for; None where there is nothing yet, or nothing is asked.

        Returns the random state in which the epoch began, for `fit` to find its order again. Raises MinitrainError
        for a checkpoint that is damaged, of other data, or of other settings, with old and new, and where it would
        replace a finished run. total_steps: of the run as it is asked for.
        """
        if self.config.resume is None:
            return None
        checkpoint = self._shared(self._found(total_steps) if self.world.is_main else None)
        if checkpoint is None:
            self.on_restore(0)
            return None
        own = self._facts()
        check_data(checkpoint.facts["data"], own["data"])
        check_settings(checkpoint.facts, own, self.config.resume_changed, self.tell)
        facts, tensors = checkpoint.facts, checkpoint.tensors
        choose_matmul(facts.get("products", {}))  # a machine that is busy with other things may choose otherwise
        device = device_of(state.model)
        if note := other_machine(facts.get("machine", {}), machine(device)):
            self.tell(note)
        state.model.load_state_dict({name: tensor.to(device) for name, tensor in tensors["model"].items()})
        state.optimizer.load_state_dict(dict(tensors["optimizer"]))
        state.step, state.epoch, self.saved_step = facts["step"], facts["epoch"], facts["step"]
        self._restore_best(best, facts["best"], tensors.get("best", {}), device, facts["config"])
        self._restore_random(tensors["random"], device)
        self.on_restore(state.step)
        if self.world.is_main:
            set_aside(self.folder, state.step, self.tell)
        origin = self.folder if self.config.resume == "newest" else self.config.resume
        self.tell(f"resumed  at step {state.step}, from {origin}")
        epoch = tensors["random"]["epoch"]
        return epoch[min(self.world.rank, len(epoch) - 1)].clone()

    def _restore_best(
        self,
        best: Best,
        saved: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        device: torch.device,
        before: Mapping[str, Any],
    ) -> None:
        """Take up the best evaluation so far where it is by the same value, with its weights where they count.

        before: the configuration that it was found with.
        """
        if (saved["name"], saved["greater_is_better"]) != (best.name, best.greater_is_better):
            return
        if (setting := CHANGES.get(best.name)) and before.get(setting) != getattr(self.config, setting):
            self.tell(
                f"changed  the best {best.name} so far does not count, as --{setting} is another: later ones "
                "are compared"
            )
            return
        if self.config.load_best_model_at_end and saved["value"] is not None and not weights:
            self.tell(
                f"changed  the best evaluation so far ({saved['name']} {saved['value']:.4f}, step {saved['step']}) "
                "does not count, since the checkpoint has not its weights: those from here on are compared"
            )
            return
        for name, value in saved.items():
            setattr(best, name, value)
        if self.config.load_best_model_at_end:
            best.weights = {name: tensor.to(device) for name, tensor in weights.items()}

    def is_due(self, step: int, epoch_ended: bool, done: bool) -> bool:
        """Whether the strategy says to save after this step: also after the last, as Trainer does.

        From there a finished run goes on when more of it is asked for.
        """
        strategy, interval = self.config.save_strategy, self.config.save_steps
        if strategy == "no":
            return False
        return done or (epoch_ended if strategy == "epoch" else step % (interval or 1) == 0)

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
            "random": {name: self.world.all_gather(tensor) for name, tensor in random.items()},
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
            "products": chosen_matmul(compute_dtype(self.config.bf16)),
            "machine": machine(device),
        }
        if self.world.is_main:
            save_checkpoint(self.folder, Checkpoint(tensors=tensors, facts=facts))
            rotate(self.folder, self.config.save_total_limit, best.step)
        self.saved_step = state.step

    def _found(self, total_steps: int) -> Checkpoint | None:
        if self.config.resume == "newest":
            found = newest_checkpoint(self.folder, self.tell)
        else:
            found = load_checkpoint(Path(self.config.resume or ""))
        check_goes_on(self.folder.parent, found, self.config, total_steps)
        return found

    def _facts(self) -> dict[str, Any]:
        config = self.config
        return {
            "global_batch": global_batch(config, self.world.size),
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
        table = json.loads(self.world.broadcast_text("checkpoint", json.dumps(table)))
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


def machine(device: torch.device) -> dict[str, str]:
    """What of this machine and process decides last bits, besides the run's settings."""
    return {
        "threads": str(torch.get_num_threads()),
        "CPU": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "device": device.type if device.type == "cpu" else torch.cuda.get_device_name(device),
    }
