"""One training step of both models, operation by operation: names the first that differs.

Hooks record the input, the output and the output's gradient of every module with parameters. An operation between
two modules (dropout, attention, residual, activation) shows in the input of the next one.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from minitrain.config.train_config import TrainConfig
from minitrain.data.batch import collate
from minitrain.kernels.precision import autocast, compute_dtype, device_of
from minitrain.model.classifier import SequenceClassifier
from minitrain.model.weights import reference_names
from minitrain.run.output_file import check_writable, write_json
from minitrain.run.prepare import PreparedRun, prepare
from minitrain.run.report import say
from minitrain.training.clipping import clip_grad_norm
from minitrain.training.loss import loss_of
from minitrain.training.setup import make_sampler, make_state
from references import reference
from references.record import Record
from references.side_by_side import Comparison, of_tensors, of_values, same_bits, table
from references.trainer import arguments

# The operation before a module of ours, by the end of its name. The other modules take an output directly.
BEFORE = {
    "embeddings.norm": "the sum of word, type and position embeddings",
    "attention.query": "dropout after the embeddings",
    "attention.output": "attention: scores, mask, softmax, dropout, product with the values",
    "attention_norm": "dropout of the attention's output, and the residual",
    "feed_forward.output": "the activation",
    "feed_forward_norm": "dropout of the feed-forward's output, and the residual",
    "head.pooler": "the first token's hidden state",
    "head.output": "the head's activation and dropout",
}


@dataclass
class Step:
    """The values of one training step in order, by the reference's names."""

    forward: dict[str, Tensor] = field(default_factory=dict)  # "NAME input", "NAME output"; then the logits
    backward: dict[str, Tensor] = field(default_factory=dict)  # gradients of the outputs
    gradients: dict[str, Tensor] = field(default_factory=dict)  # of the parameters
    weights: dict[str, Tensor] = field(default_factory=dict)  # after the step
    loss: float = 0.0
    norm: float = 0.0

    def watch(self, model: nn.Module, modules: Mapping[str, str]) -> None:
        """Record the next pass; `modules` maps the reference's names to the model's."""
        for name, own in modules.items():
            model.get_submodule(own).register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Any:
        def see(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self.forward[f"{name} input"], self.forward[f"{name} output"] = inputs[0].detach(), output.detach()
            output.register_hook(lambda gradient: self.backward.__setitem__(name, gradient.detach()))

        return see

    def end(self, model: nn.Module, parameters: Mapping[str, str], logits: Tensor, loss: Tensor) -> None:
        """Run the backward pass; `parameters` maps the reference's names to the model's."""
        self.forward["logits"], self.loss = logits.detach(), loss.item()
        loss.backward()
        for name, own in parameters.items():
            gradient = model.get_parameter(own).grad
            assert gradient is not None, name
            self.gradients[name] = gradient.clone()


def walk(config: TrainConfig, threads: int = 1, path: str | None = None) -> bool:
    """Compare one training step on the run's first batch; return whether all is equal."""
    check_writable(path)
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as scratch:
        theirs = reference.prepare(config, Record(Path(scratch)))
        settings = arguments(config, scratch, use_cpu=theirs.device.type == "cpu")
        trainer = Trainer(theirs.model, settings, train_dataset=theirs.train, eval_dataset=theirs.evaluation)
        prepared = prepare(replace(config, output_dir=f"{scratch}/run"))
    modules = modules_of(prepared.model)
    mine = our_step(prepared, modules)
    other = their_step(config, theirs, trainer, modules, rows_of_the_first_step(prepared))
    comparisons = list(compare_steps(mine, other))
    for line in table(comparisons):
        say(line)
    found = first_difference(mine, other, modules)
    say(f"\nfirst operation that differs: {found}" if found else "\nno operation differs")
    all_equal = all(each.equal == each.total for each in comparisons)
    assert all_equal == (found is None)
    rows = [asdict(each) for each in comparisons]
    write_json(path, {"all_equal": all_equal, "first_difference": found, "comparisons": rows})
    return all_equal


def modules_of(model: SequenceClassifier) -> dict[str, str]:
    """Map the reference's names to ours, for every module that owns parameters."""
    names = reference_names(model)
    return {theirs.rpartition(".")[0]: ours.rpartition(".")[0] for theirs, ours in names.items()}


def rows_of_the_first_step(prepared: PreparedRun) -> list[int]:
    """The rows of the first batch of the first epoch."""
    with torch.random.fork_rng(devices=()):
        return make_sampler(prepared.config, prepared.splits.train).batches(0)[0]


def our_step(prepared: PreparedRun, modules: Mapping[str, str]) -> Step:
    """A training step of minitrain, with dropout."""
    step, config, model, tokenizer = Step(), prepared.config, prepared.model.train(), prepared.tokenizer
    device = device_of(model)
    examples = [prepared.splits.train[row] for row in rows_of_the_first_step(prepared)]
    batch = collate(
        examples, tokenizer.pad_token_id, config.pad_to_multiple_of, padding_side=tokenizer.padding_side
    ).to(device)
    assert batch.labels is not None
    names = reference_names(model)
    step.watch(model, modules)
    torch.manual_seed(config.seed)
    with autocast(device, compute_dtype(config)):
        logits = model(**batch.inputs)
    total, count = loss_of(logits, batch.labels)
    step.end(model, names, logits, total / count)
    state = make_state(model, config)
    step.norm = clip_grad_norm(model.parameters(), config.max_grad_norm).item()
    state.optimizer.step()
    step.weights = {name: model.get_parameter(own).detach() for name, own in names.items()}
    return step


def their_step(
    config: TrainConfig, theirs: reference.Reference, trainer: Trainer, modules: Mapping[str, str], rows: list[int]
) -> Step:
    """The same step of the reference, with Trainer's optimizer."""
    step, model = Step(), theirs.model.train()
    batch: Any = theirs.collator([theirs.train[row] for row in rows])
    parameters = {name: name for name, _ in model.named_parameters()}
    step.watch(model, {name: name for name in modules})
    torch.manual_seed(config.seed)
    with autocast(theirs.device, compute_dtype(config)):
        output = model(**batch.to(theirs.device))
    step.end(model, parameters, output.logits, output.loss)
    optimizer = trainer.create_optimizer()
    step.norm = nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm or float("inf")).item()
    optimizer.step()
    step.weights = {name: model.get_parameter(name).detach() for name in parameters}
    return step


def compare_steps(mine: Step, theirs: Step) -> Iterator[Comparison]:
    """Compare the values of a step, in order."""
    yield _of_dicts("modules' inputs and outputs, and the logits", mine.forward, theirs.forward)
    yield of_values("loss", [mine.loss], [theirs.loss])
    yield _of_dicts("gradients of modules' outputs", mine.backward, theirs.backward)
    yield _of_dicts("gradients of parameters", mine.gradients, theirs.gradients)
    yield of_values("gradient norm", [mine.norm], [theirs.norm])
    yield _of_dicts("weights after the step", mine.weights, theirs.weights)


def _of_dicts(what: str, mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> Comparison:
    return of_tensors(what, [mine[name] for name in theirs if name in mine], list(theirs.values()))


def first_difference(mine: Step, theirs: Step, modules: Mapping[str, str]) -> str | None:
    """Name the operation that made the first difference; None if all is equal."""
    for point, expected in theirs.forward.items():
        if not same_bits(mine.forward[point], expected):
            name, _, side = point.partition(" ")
            if side != "input":
                return f"forward, {name}"
            before = next((text for end, text in BEFORE.items() if modules[name].endswith(end)), "the step before")
            return f"forward, on the way into {name}: {before}"
    if mine.loss != theirs.loss:
        return "the loss"
    for name, expected in theirs.backward.items():
        if not same_bits(mine.backward[name], expected):
            return f"backward, what follows {name}"
    for name, expected in reversed(theirs.gradients.items()):
        if not same_bits(mine.gradients[name], expected):
            return f"backward, the gradient of {name}"
    if mine.norm != theirs.norm:
        return "the gradient norm"
    for name, expected in theirs.weights.items():
        if not same_bits(mine.weights[name], expected):
            return f"the optimizer's update of {name}"
    return None
