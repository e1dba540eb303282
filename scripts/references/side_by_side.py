"""Run both sides, compare their records bit for bit, and report the result as a table and JSON."""

import math
import multiprocessing
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from importlib.metadata import version
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minitrain.config.read_options import files_shown
from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError
from minitrain.run.output_file import check_writable, write_json
from minitrain.run.report import duration, say
from references.record import Record

LIBRARIES = ("minitrain", "torch", "transformers", "accelerate", "tokenizers", "scikit-learn", "scipy")
# Modules, imported in the side's own process alone: transformers takes seconds to import.
SIDES = {
    "minitrain": "references.ours",
    "Trainer": "references.trainer",
    "accelerate": "references.accelerate_loop",
}
SECONDS_BETWEEN_REPORTS = 30.0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How many values of one kind are equal, the first that differs (from 1), and the largest difference.

    The difference is None if two values cannot be subtracted or one is missing.
    """

    what: str
    equal: int
    total: int
    first_difference: int | None = None
    largest_difference: float | None = 0.0


def run(config: TrainConfig, threads: int = 1, path: str | None = None) -> bool:
    """Run both sides of `config`, print the comparison and write it to `path`; return whether all is equal."""
    name = "accelerate" if config.match_accelerate else "Trainer"
    check_writable(path)
    say(_title(config, name, threads))
    with tempfile.TemporaryDirectory() as scratch:
        mine, theirs = train_sides(config, ("minitrain", name), threads, Path(scratch))
        comparisons = list(compare_records(mine, theirs))
    all_equal = all(comparison.equal == comparison.total for comparison in comparisons)
    for line in table(comparisons):
        say(line)
    say(f"\n{len(theirs.steps)} steps; {name} {duration(theirs.seconds)}, minitrain {duration(mine.seconds)}")
    say("all equal, bit for bit" if all_equal else "NOT all equal")
    facts = {
        "all_equal": all_equal,
        "reference": name,
        "steps": len(theirs.steps),
        "flags": _flags(config),
        "comparisons": [asdict(comparison) for comparison in comparisons],
        "seconds": {"minitrain": mine.seconds, name: theirs.seconds},
        "threads": threads,
        "versions": {"python": platform.python_version(), **{each: version(each) for each in LIBRARIES}},
        "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
    }
    write_json(path, facts)
    return all_equal


def _flags(config: TrainConfig) -> dict[str, Any]:
    """The settings that differ from the defaults and from what the match sets."""
    default = TrainConfig(match_trainer=config.match_trainer, match_accelerate=config.match_accelerate)
    settings = {spec.name: getattr(config, spec.name) for spec in fields(TrainConfig)}
    return {name: value for name, value in settings.items() if value != getattr(default, name)}


def _title(config: TrainConfig, name: str, threads: int) -> str:
    data = files_shown(config.train_file) or "/".join(filter(None, (config.dataset, config.subset)))
    library = "transformers" if name == "Trainer" else "accelerate"
    return (
        f"minitrain {version('minitrain')} beside {name} ({library} {version(library)}), torch {torch.__version__}"
        f", {threads} thread{'s' if threads > 1 else ''} a side\n{config.model} on {data}, seed {config.seed}\n"
    )


def train_sides(config: TrainConfig, sides: Sequence[str], threads: int, scratch: Path) -> list[Record]:
    """Run each side in its own process, all at once, and return their records.

    Raises:
        MinitrainError: A side failed and printed its error; the others were stopped.
    """
    os.environ.update(OMP_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="false")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # Trainer would split a batch over all GPUs
    settings = {spec.name: getattr(config, spec.name) for spec in fields(TrainConfig)}
    context = multiprocessing.get_context("spawn")
    running: dict[str, BaseProcess] = {}
    for name in sides:
        (scratch / name).mkdir()
        plain = TrainConfig(**settings | {"output_dir": str(scratch / name / "run")})
        running[name] = context.Process(target=_train_side, args=(name, plain, scratch / name), name=name)
        running[name].start()
    try:
        _wait(running, scratch)
    finally:
        for process in running.values():
            process.terminate()
            process.join()
    return [Record.load(scratch / name) for name in sides]


def _train_side(name: str, config: TrainConfig, folder: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and terminates this process
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    try:
        import_module(SIDES[name]).run(config, folder)
    except MinitrainError as error:
        sys.exit(str(error))


def _wait(running: dict[str, BaseProcess], scratch: Path) -> None:
    """Wait until all are done or one has failed; report the steps now and then."""
    told = time.monotonic()
    while any(process.exitcode is None for process in running.values()):
        failed = [name for name, process in running.items() if process.exitcode]
        if failed:
            break
        time.sleep(0.05)
        if time.monotonic() - told > SECONDS_BETWEEN_REPORTS:
            told = time.monotonic()
            done = ", ".join(f"{name} {_steps(scratch / name)}" for name in running)
            print(f"steps done: {done}", file=sys.stderr, flush=True)
    for name, process in running.items():
        if process.exitcode:
            raise MinitrainError(f"the side of {name} failed; see above")


def _steps(folder: Path) -> int:
    path = folder / "steps.jsonl"
    return path.read_text(encoding="utf-8").count("\n") if path.exists() else 0


def compare_records(mine: Record, theirs: Record) -> Iterator[Comparison]:
    """Compare every kind of value that the reference has, in the order of a run."""
    for name in _names(theirs, "tokens/"):
        yield of_values(f"token ids, {name}", *(side.rows_of(name) for side in (mine, theirs)))
    yield of_tensors("logits of the first batch", list(mine.tensors["logits"]), list(theirs.tensors["logits"]))
    yield _of_groups("gradients of the first batch", "gradients/", mine, theirs)
    yield of_values("batches", mine.batches, theirs.batches)
    for key, what in (("loss", "loss"), ("grad_norm", "gradient norm"), ("learning_rate", "learning rate")):
        yield of_values(f"{what} of each step", [s[key] for s in mine.steps], [s[key] for s in theirs.steps])
    if theirs.evaluations:
        yield of_values("evaluation batches", mine.evaluation_batches, theirs.evaluation_batches)
    for key in dict.fromkeys(key for each in theirs.evaluations for key in each if key not in ("step", "split")):
        pairs = [[(e["step"], e["split"], e.get(key)) for e in side.evaluations] for side in (mine, theirs)]
        yield of_values(f"evaluation: {key}", *pairs)
    for name in _names(theirs, "predictions/"):
        yield of_tensors(f"predictions, {name}", *(list(s.tensors[f"predictions/{name}"]) for s in (mine, theirs)))
    yield _of_groups("final weights", "weights/", mine, theirs)


def _names(record: Record, prefix: str) -> list[str]:
    """Names of the tensors with `prefix`, without it; training data first."""
    names = [name.removeprefix(prefix) for name in record.tensors if name.startswith(prefix)]
    return sorted(names, key=lambda name: name != "train")


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same shape, dtype and bytes: 0.0 is not -0.0."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(*(x.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for x in (a, b)))


def _of_groups(what: str, prefix: str, mine: Record, theirs: Record) -> Comparison:
    names = [f"{prefix}{name}" for name in _names(theirs, prefix)]
    return of_tensors(
        what, [mine.tensors[n] for n in names if n in mine.tensors], [theirs.tensors[n] for n in names]
    )


def of_tensors(what: str, mine: Sequence[Tensor], theirs: Sequence[Tensor]) -> Comparison:
    """Compare pairs of tensors bit for bit."""
    pairs = list(zip(mine, theirs, strict=False))
    same = [same_bits(a, b) for a, b in pairs]
    gaps = [0.0 if equal else _largest_gap(a, b) for equal, (a, b) in zip(same, pairs, strict=True)]
    return _counted(what, same, gaps, max(len(mine), len(theirs)))


def _largest_gap(mine: Tensor, theirs: Tensor) -> float:
    return (mine.double() - theirs.double()).abs().max().item() if mine.shape == theirs.shape else math.inf


def of_values(what: str, mine: Sequence[Any], theirs: Sequence[Any]) -> Comparison:
    """Compare pairs of Python values."""
    same = [a == b for a, b in zip(mine, theirs, strict=False)]  # no float of a run is -0.0
    gaps = [_gap(a, b) for a, b in zip(mine, theirs, strict=False)]
    return _counted(what, same, gaps, max(len(mine), len(theirs)))


def _gap(mine: Any, theirs: Any) -> float:
    """The difference of two values; infinity if they cannot be subtracted."""
    if mine == theirs:
        return 0.0
    if isinstance(mine, tuple) and isinstance(theirs, tuple) and mine[:2] == theirs[:2]:  # of an evaluation
        mine, theirs = mine[-1], theirs[-1]
    return abs(mine - theirs) if isinstance(mine, float) and isinstance(theirs, float) else math.inf


def _counted(what: str, same: list[bool], gaps: list[float], total: int) -> Comparison:
    """Count equal values; one that a side lacks is not equal."""
    assert total > 0, f"nothing to compare: {what}"
    whole = same + [False] * (total - len(same))
    first = None if all(whole) else whole.index(False) + 1
    known = total == len(same) and all(math.isfinite(gap) for gap in gaps)
    largest = max(gaps) if known else None
    return Comparison(what=what, equal=sum(whole), total=total, first_difference=first, largest_difference=largest)


def table(comparisons: Sequence[Comparison]) -> list[str]:
    """The printed table: a line per kind of value."""
    width = max(len(comparison.what) for comparison in comparisons) + 2
    lines = [f"{'':<{width}}{'bit-equal':>16}{'first other':>14}{'largest gap':>14}"]
    for each in comparisons:
        count = f"{each.equal} of {each.total}"
        first = "-" if each.first_difference is None else str(each.first_difference)
        gap = "0" if each.equal == each.total else "-"
        gap = f"{each.largest_difference:.1e}" if each.largest_difference else gap
        lines.append(f"{each.what:<{width}}{count:>16}{first:>14}{gap:>14}")
    return lines
