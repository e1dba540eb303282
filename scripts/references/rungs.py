"""The Hugging Face course's training loop, changed one setting at a time until every loss is Trainer's.

The loop is that of chapter 3, "A full training loop", with Accelerate
(https://huggingface.co/learn/llm-course/chapter3/4). Its schedule is Trainer's; each rung below changes one setting
that is not. A rung is a run of minitrain, so each change is a flag.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from minitrain.config.train_config import TrainConfig
from minitrain.run.output_file import check_writable, write_json
from minitrain.run.prepare import prepare
from minitrain.run.report import say
from minitrain.training.loop import StepLog, fit
from references.side_by_side import train_sides

EPOCHS = 2  # so that one evaluation lies between two steps

# The course's loop as our settings. It sets no seed; 0 stands for any.
COURSE: dict[str, Any] = {
    "kernels": "reference",  # the same model, transformers' own
    "seed": 0,
    "reseed": False,
    "sampler": "global_rng",
    "dataloader_rng": True,
    "eval_strategy": "no",
    "learning_rate": 3e-5,
    "max_grad_norm": 0.0,
    "weight_decay": 0.01,
    "decay_all": True,
    "optim": "adamw_torch",
}

# The change, and the settings that make it.
RUNGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("the course's loop: no seed, torch's AdamW with its decay", {}),
    ("a seed, before the new head is drawn", {"seed": 42}),
    ("the seed set again, after the head is drawn", {"reseed": True}),
    ("each epoch's order from a separate generator", {"sampler": "random"}),
    ("Trainer's learning rate", {"learning_rate": 5e-5}),
    ("gradients clipped to a norm of 1", {"max_grad_norm": 1.0}),
    ("an evaluation per epoch: its loader draws a random number", {"eval_strategy": "epoch"}),
    ("biases and layer norms without weight decay", {"decay_all": False}),
    ("no weight decay at all", {"weight_decay": 0.0}),
    ("the fused kernel of AdamW", {"optim": "adamw_torch_fused"}),
)


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A rung's mean loss, the steps that equal Trainer's, and the largest difference of a loss in nats."""

    change: str
    flags: str
    mean_loss: float
    equal: int
    steps: int
    largest_difference: float


class Losses:
    """The observer that keeps the losses."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_step(self, log: StepLog) -> None:
        self.values.append(log.loss)

    def on_evaluation(self, *_: Any) -> None:
        pass


def climb(model: str, dataset: str | None, subset: str | None, examples: int, path: str | None = None) -> bool:
    """Print a line per rung and write them to `path`; return whether the last has all of Trainer's losses."""
    check_writable(path)
    torch.set_num_threads(1)  # as Trainer's side: more threads round sums differently
    data = {"model": model, "dataset": dataset, "subset": subset}
    size = {"num_train_epochs": EPOCHS, "max_train_samples": examples, "max_eval_samples": 40, "sample": "first"}
    say(f"{'what changes':<64}{'mean loss':>12}{'equal steps':>14}{'largest gap':>14}")
    rungs = []
    for rung in measure(data | size):
        equal = f"{rung.equal} of {rung.steps}"
        say(f"{rung.change:<64}{rung.mean_loss:>12.6f}{equal:>14}{rung.largest_difference:>14.1e}")
        rungs.append(rung)
    reached = rungs[-1].equal == rungs[-1].steps
    say("\nevery loss is Trainer's, bit for bit" if reached else "\nthe last rung is NOT Trainer's run")
    write_json(path, {"all_equal": reached, **data, "rungs": [asdict(rung) for rung in rungs]})
    return reached


def measure(settings: dict[str, Any]) -> Iterator[Rung]:
    """Train every rung and compare it with a single run of Trainer."""
    target = _losses_of_trainer(TrainConfig(**settings, match_trainer=True))
    so_far = COURSE | settings
    for change, step in RUNGS:
        so_far |= step
        losses = _losses(so_far)
        gaps = [abs(a - b) for a, b in zip(losses, target, strict=True)]
        yield Rung(
            change=change,
            flags=" ".join(f"--{name} {value}" for name, value in (step or COURSE).items()),
            mean_loss=sum(losses) / len(losses),
            equal=gaps.count(0.0),
            steps=len(gaps),
            largest_difference=max(gaps),
        )


def _losses_of_trainer(config: TrainConfig) -> list[float]:
    with tempfile.TemporaryDirectory() as scratch:
        [record] = train_sides(config, ["Trainer"], 1, Path(scratch))
    return [step["loss"] for step in record.steps]


def _losses(settings: dict[str, Any]) -> list[float]:
    losses = Losses()
    with tempfile.TemporaryDirectory() as scratch:
        prepared = prepare(TrainConfig(**settings, output_dir=f"{scratch}/run"))
        evaluation = prepared.splits.evaluation if prepared.config.eval_strategy != "no" else {}
        fit(
            prepared.model,
            prepared.splits.train,
            evaluation,
            prepared.config,
            new_metric=prepared.new_metric,
            observer=losses,
            pad_token_id=prepared.tokenizer.pad_token_id,
        )
    return losses.values
