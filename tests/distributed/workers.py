"""What the processes of a launch do in these tests: functions that every process imports."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minitrain.config.train_config import TrainConfig
from minitrain.data.batch import collate
from minitrain.data.labels.ids import Labels
from minitrain.data.load import tokenize
from minitrain.data.sampler import rank_micro_batches
from minitrain.data.tables.table import Table
from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.distributed.world import process_group
from minitrain.kernels.dropout import ExampleStreams
from minitrain.model.weights import load_classifier
from minitrain.run.main import train
from minitrain.training.evaluation import predict
from minitrain.training.loop import fit
from minitrain.training.setup import make_state
from minitrain.training.step import StepSettings, train_step


def weighted_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Class 1 counts five times."""
    weights = torch.tensor([1.0, 5.0])
    return F.cross_entropy(logits, labels, weights, reduction="sum"), weights[labels].sum()


def train_runs(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Whole runs, one after the other: of each what it returned, with the loss of every step."""
    torch.set_num_threads(1)
    found = []
    for flags in runs:
        size = int(os.environ["WORLD_SIZE"])
        out = Path(flags["output_dir"]) / f"of-{size}"
        flags = flags | {"output_dir": str(out), "logging_steps": 1, "report": False}
        own = flags.pop("own_loss", False)
        results = train(TrainConfig(**flags), loss=weighted_loss if own else None)
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        steps = [line for line in lines if line["event"] == "step"]
        found.append({**results, "losses": [step["loss"] for step in steps]})
    return found


def in_turn(work: list[tuple[Callable[..., Any], tuple[Any, ...]]]) -> list[Any]:
    """What each function returns: starting processes takes longer than these."""
    return [function(*arguments) for function, arguments in work]


def gradients(folder: str, texts: list[str], labels: list[int], streams: bool) -> list[dict[str, Tensor]]:
    """The gradients of one global batch of all texts, shared by all processes, in one pass each, two and four."""
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(folder)
    table = Table(source="a test", columns={"text": texts, "label": labels}, class_names={})
    split = tokenize(table, tokenizer, ("text",), "label", Labels(names=("no", "yes")))
    order = sorted(range(len(split)), key=lambda row: split.lengths[row])
    found = []
    with process_group("cpu") as world:
        for passes in (1, 2, 4):
            torch.manual_seed(42)
            state = make_state(load_classifier(folder, 2), TrainConfig(), world)
            state.model.train(streams)
            own = rank_micro_batches(order, len(order) // (world.size * passes), world.rank, world.size)
            assert len(own) == passes
            drawn = [ExampleStreams(7, 0, rows, [split.lengths[row] for row in rows]) for rows in own]
            # The gradients of the step are looked at, and not used.
            state.optimizer.step = state.optimizer.zero_grad = lambda *_, **__: None  # type: ignore[method-assign,assignment]
            result = train_step(
                state,
                [collate([split[row] for row in rows], tokenizer.pad_token_id) for rows in own],
                0.0,
                StepSettings(max_grad_norm=0.0),
                rows=order,
                streams=drawn if streams else (),
            )
            named = dict(state.model.named_parameters())
            found.append(
                {name: tensor.grad.to_dense() for name, tensor in named.items() if tensor.grad is not None}
            )
            assert found[-1].keys() == named.keys()
            found[-1]["loss"] = torch.tensor(result.loss)
    return found


def gradients_with_and_without_dropout(
    folder: str, texts: list[str], labels: list[int]
) -> dict[bool, list[dict[str, Tensor]]]:
    """`gradients`, by whether dropout was drawn for each example."""
    return {streams: gradients(folder, texts, labels, streams) for streams in (False, True)}


def logits(folder: str, batches: list[list[str]]) -> list[Tensor]:
    """What a random classifier makes of each list of texts, scored together."""
    torch.set_num_threads(1)
    found = []
    with process_group("cpu") as world:
        for texts in batches:
            table = Table(source="a test", columns={"text": texts}, class_names={})
            split = tokenize(table, load_tokenizer(folder), ("text",))
            torch.manual_seed(42)
            found.append(predict(load_classifier(folder, 2), split, batch_size=4, world=world))
    return found


def fit_with_own_metrics(folder: str, fails: bool) -> dict[str, Any]:
    """Two evaluations of a model that does not learn, with a function and an observer of the user's."""
    torch.set_num_threads(1)
    called, observed, values = [], [], []

    def own(eval_preds: Any) -> dict[str, Any]:
        if fails:
            raise ZeroDivisionError("not today")
        called.append(1)
        logits, labels = eval_preds
        return {"shape": logits.size + len(labels), "calls": len(called), "mean": logits.mean()}

    class Counts:
        def on_evaluation(self, *_: Any) -> None:
            observed.append(1)

    class Keeps:
        def on_step(self, *_: Any) -> None:
            pass

        def on_evaluation(self, step: int, epoch: float, results: dict[str, Any], is_best: bool) -> None:
            values.append(results["validation"].values)

    texts = ["a good film", "the plot was dull", "music", "a story of the actor and the scene", "bad", "good"]
    table = Table(source="a test", columns={"text": texts, "label": [1, 0, 1, 0, 0, 1]}, class_names={})
    split = tokenize(table, load_tokenizer(folder), ("text",), "label", Labels(names=("no", "yes")))
    config = TrainConfig(
        learning_rate=0.0,
        num_train_epochs=2,
        global_batch_size=6,
        metrics=("accuracy", "roc_auc", "average_precision"),
        metric_for_best_model="calls",
    )
    with process_group("cpu", 60.0) as world:
        torch.manual_seed(0)
        model = load_classifier(folder, 2)
        own_parts: dict[str, Any] = {"observer": Keeps(), "observers": [Counts()], "compute_metrics": own}
        _, best = fit(model, split, {"validation": split}, config, world=world, **own_parts)
    return {"values": values, "called": len(called), "observed": len(observed), "best": best.value}
