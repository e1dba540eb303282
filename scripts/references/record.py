"""The record that each side of a comparison keeps of its run.

Numbers are saved to `numbers.json` and tensors to `tensors.safetensors`; `steps.jsonl` grows during the run.
Tensors have the reference's names: `logits`, `gradients/NAME`, `weights/NAME`, `tokens/SPLIT`, `lengths/SPLIT`,
`predictions/SPLIT`.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass
class Record:
    """One side's run; `folder` exists already."""

    folder: Path
    steps: list[dict[str, float]] = field(default_factory=list)  # loss, grad_norm, learning_rate
    batches: list[str] = field(default_factory=list)  # digest of the inputs of each forward pass in training ...
    evaluation_batches: list[str] = field(default_factory=list)  # ... and in evaluations
    evaluations: list[dict[str, Any]] = field(default_factory=list)  # step, split, loss and metrics
    tensors: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    def step(self, loss: float, grad_norm: float, learning_rate: float) -> None:
        """Add an optimizer step, and write it at once: the parent process follows the file."""
        self.steps.append({"loss": loss, "grad_norm": grad_norm, "learning_rate": learning_rate})
        with (self.folder / "steps.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.steps[-1]) + "\n")

    def watch(self, model: nn.Module) -> None:
        """Digest the inputs of every forward pass from now on."""

        def see(module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
            (self.batches if module.training else self.evaluation_batches).append(digest(kwargs))

        model.register_forward_pre_hook(see, with_kwargs=True)

    def first_batch(
        self,
        model: nn.Module,
        forward: Callable[[], tuple[Tensor, Tensor]],
        autocast: AbstractContextManager[None],
        names: Mapping[str, str] | None = None,
    ) -> None:
        """Record one batch's logits and its loss's gradients (frozen weights have none), without dropout.

        `forward` returns logits and mean loss; `names` maps the reference's parameter names to the model's.
        """
        model.eval()
        with autocast:
            logits, loss = forward()
        loss.backward()
        self.tensors["logits"] = logits.detach().clone()
        parameters = dict(model.named_parameters())
        for name, own in (names or {name: name for name in parameters}).items():
            if (gradient := parameters[own].grad) is None:
                assert not parameters[own].requires_grad, name
                continue
            self.tensors[f"gradients/{name}"] = gradient
            parameters[own].grad = None

    def tokens(self, split: str, input_ids: Iterable[list[int]], type_ids: Iterable[list[int]]) -> None:
        """Record token ids and type ids of a split, concatenated, and the length of each row."""
        ids, types = [torch.tensor(row) for row in input_ids], [torch.tensor(row) for row in type_ids]
        self.tensors[f"tokens/{split}"] = torch.stack((torch.cat(ids), torch.cat(types))).int()  # (2, tokens)
        self.tensors[f"lengths/{split}"] = torch.tensor([len(row) for row in ids])

    def rows_of(self, split: str) -> list[bytes]:
        """What `tokens` recorded, one value per row."""
        rows = self.tensors[f"tokens/{split}"].split(self.tensors[f"lengths/{split}"].tolist(), dim=1)
        return [row.contiguous().numpy().tobytes() for row in rows]

    def save(self) -> None:
        """Write the record; `numbers.json` comes last, so it means a complete record."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        save_file(tensors, self.folder / "tensors.safetensors")
        numbers = {
            "steps": self.steps,
            "batches": self.batches,
            "evaluation_batches": self.evaluation_batches,
            "evaluations": self.evaluations,
            "seconds": self.seconds,
        }
        (self.folder / "numbers.json").write_text(json.dumps(numbers), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Record":
        """Read what `save` wrote."""
        numbers = json.loads((folder / "numbers.json").read_text(encoding="utf-8"))
        return cls(folder=folder, tensors=load_file(folder / "tensors.safetensors"), **numbers)


def digest(inputs: Mapping[str, Any]) -> str:
    """A hash of a batch: values and shapes of its three inputs; missing token types count as 0."""
    sha = hashlib.sha256()
    for name in INPUTS:
        tensor = inputs[name] if name in inputs else torch.zeros_like(inputs["input_ids"])
        sha.update(f"{name}{tuple(tensor.shape)}".encode())
        sha.update(tensor.cpu().long().numpy().tobytes())
    return sha.hexdigest()
