"""parity.py and ladder.py: every kind of difference is seen and named, and a difference ends with status 1."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import Done
from in_process import script as script
from references import check_libraries, layers, reference, rungs, side_by_side
from references.record import Record
from references.trainer import arguments
from test_loop import write_tiny_model
from test_main import named_reviews, write_csv
from test_scripts import command
from transformers import Trainer

from minitrain.config.train_config import TrainConfig
from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.errors import MinitrainError
from minitrain.kernels.fast import FAST
from minitrain.kernels.reference import REFERENCE
from minitrain.model.weights import load_classifier, save_classifier
from minitrain.run.prepare import PreparedRun, prepare

Break = Callable[[PreparedRun], Any]


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tiny model and two small files, as settings of a run."""
    folder = tmp_path_factory.mktemp("data")
    for name, count in (("train", 20), ("eval", 9)):
        write_csv(folder / f"{name}.csv", *named_reviews(count, seed=len(name)))
    files = {f"{name}_file": str(folder / f"{name}.csv") for name in ("train", "eval")}
    return {"model": str(write_tiny_model(folder / "tiny")), "device": "cpu", **files}


def words(flags: dict[str, Any], *more: Any) -> list[Any]:
    return [word for name, value in flags.items() for word in (f"--{name}", value)] + [*more]


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """What a side of three steps and one evaluation leaves."""
    return Record(
        folder=tmp_path,
        steps=[{"loss": 0.7, "grad_norm": 1.5, "learning_rate": 5e-5} for _ in range(3)],
        batches=["a", "b", "c"],
        evaluation_batches=["d", "e"],
        evaluations=[{"step": 3, "split": "validation", "loss": 0.6, "accuracy": 0.5}],
        tensors={
            "tokens/train": torch.tensor([[101, 102, 101], [0, 0, 0]], dtype=torch.int32),
            "lengths/train": torch.tensor([2, 1]),
            "logits": torch.zeros(2, 2),
            "gradients/w": torch.ones(3),
            "predictions/validation": torch.zeros(4, 2),
            "weights/w": torch.ones(3),
        },
    )


def counts(mine: Record, theirs: Record) -> dict[str, side_by_side.Comparison]:
    return {each.what: each for each in side_by_side.compare_records(mine, theirs)}


def test_record_comes_back_as_it_was_written(record: Record) -> None:
    record.step(0.1, 0.2, 0.3)
    record.save()
    read = Record.load(record.folder)
    assert read.steps == record.steps and len(read.steps) == 4
    assert (record.folder / "steps.jsonl").read_text(encoding="utf-8").count("\n") == 1
    assert all(each.equal == each.total for each in side_by_side.compare_records(read, record))


@pytest.mark.parametrize(
    ("change", "what", "equal", "total", "gap"),
    [
        (lambda r: r.steps[1].update(loss=0.7 + 1e-9), "loss of each step", 2, 3, 1e-9),
        (lambda r: r.steps[2].update(grad_norm=2.0), "gradient norm of each step", 2, 3, 0.5),
        (lambda r: r.steps[0].update(learning_rate=4e-5), "learning rate of each step", 2, 3, 1e-5),
        (lambda r: r.steps.pop(), "loss of each step", 2, 3, None),
        (lambda r: r.steps.append(r.steps[0]), "loss of each step", 3, 4, None),
        (lambda r: r.batches.reverse(), "batches", 1, 3, None),
        (lambda r: r.evaluation_batches.pop(), "evaluation batches", 1, 2, None),
        (lambda r: r.evaluations[0].update(loss=0.5), "evaluation: loss", 0, 1, 0.1),
        (lambda r: r.evaluations[0].update(accuracy=0.75), "evaluation: accuracy", 0, 1, 0.25),
        (lambda r: r.evaluations[0].update(step=2), "evaluation: loss", 0, 1, None),
        (lambda r: r.evaluations[0].pop("accuracy"), "evaluation: accuracy", 0, 1, None),
        (lambda r: r.tensors["tokens/train"][0, 1].add_(1), "token ids, train", 1, 2, None),
        (lambda r: r.tensors["tokens/train"][1, 2].add_(1), "token ids, train", 1, 2, None),
        (lambda r: r.tensors["lengths/train"].copy_(torch.tensor([1, 2])), "token ids, train", 0, 2, None),
        (lambda r: r.tensors["logits"][1, 0].add_(0.5), "logits of the first batch", 1, 2, 0.5),
        (lambda r: r.tensors["logits"][0, 1].add_(1e-30), "logits of the first batch", 1, 2, 1e-30),
        (lambda r: r.tensors["logits"][0].mul_(-1.0), "logits of the first batch", 1, 2, 0.0),
        (lambda r: r.tensors["gradients/w"][0].add_(2.0), "gradients of the first batch", 0, 1, 2.0),
        (lambda r: r.tensors["predictions/validation"][3, 1].add_(0.5), "predictions, validation", 3, 4, 0.5),
        (lambda r: r.tensors["weights/w"][2].sub_(0.25), "final weights", 0, 1, 0.25),
        (lambda r: r.tensors.pop("weights/w"), "final weights", 0, 1, None),
        (lambda r: r.tensors["logits"].fill_(float("nan")), "logits of the first batch", 0, 2, None),
    ],
)
def test_every_kind_of_difference_is_counted(
    record: Record, change: Callable[[Record], Any], what: str, equal: int, total: int, gap: float | None
) -> None:
    other = deepcopy(record)
    change(other)
    found = counts(other, record)
    assert (found[what].equal, found[what].total) == (equal, total)
    assert found[what].largest_difference == (gap if gap is None else pytest.approx(gap))
    assert found[what].first_difference is not None
    alike = {name for name, each in found.items() if each.equal == each.total}
    assert len(found) - len(alike) <= 3  # a missing step shows in all three of its values


def test_table_says_how_many_and_where_first(record: Record) -> None:
    other = deepcopy(record)
    other.steps[1]["loss"] = 0.75
    lines = side_by_side.table(list(side_by_side.compare_records(other, record)))
    assert lines[0].split() == ["bit-equal", "first", "other", "largest", "gap"]
    assert any(line.split() == ["loss", "of", "each", "step", "2", "of", "3", "2", "5.0e-02"] for line in lines)
    assert any(line.split() == ["batches", "3", "of", "3", "-", "0"] for line in lines)


def test_difference_is_told_as_such(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = deepcopy(record)
    other.steps[0]["loss"] = 0.5
    monkeypatch.setattr(side_by_side, "train_sides", lambda *_: [other, record])
    path = tmp_path / "result.json"
    assert not side_by_side.run(TrainConfig(model="demo", dataset="demo", match_trainer=True, seed=7), 1, str(path))
    assert "NOT all equal" in capsys.readouterr().out
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["all_equal"] is False and result["steps"] == 3
    assert result["flags"] == {"model": "demo", "dataset": "demo", "seed": 7}
    losses = next(each for each in result["comparisons"] if each["what"] == "loss of each step")
    assert losses["equal"] == 2 and losses["first_difference"] == 1


def scaled_attention(q: Any, k: Any, v: Any, mask: Any, p: float) -> Any:
    return REFERENCE.attention(q * 1.001, k, v, mask, p)


def fast_dropout(parts: PreparedRun) -> None:
    parts.model.encoder.kernels = replace(REFERENCE, dropout=FAST.dropout)


def other_attention(parts: PreparedRun) -> None:
    parts.model.encoder.kernels = replace(REFERENCE, attention=scaled_attention)


def other_word(parts: PreparedRun) -> None:
    with torch.no_grad():
        parts.model.get_parameter("encoder.embeddings.word.weight").mul_(1.001)


BREAKS: dict[str, tuple[Break, str]] = {
    "words": (other_word, "forward, bert.embeddings.word_embeddings"),
    "dropout": (
        fast_dropout,
        "forward, on the way into bert.encoder.layer.0.attention.self.query: dropout after the embeddings",
    ),
    "attention": (
        other_attention,
        "forward, on the way into bert.encoder.layer.0.attention.output.dense: attention: scores, mask, softmax, "
        "dropout, product with the values",
    ),
    "activation": (
        lambda parts: setattr(parts.model.encoder.blocks[1].feed_forward, "activation", torch.relu),
        "forward, on the way into bert.encoder.layer.1.output.dense: the activation",
    ),
    "layer norm": (
        lambda parts: setattr(parts.model.encoder.blocks[1].attention_norm, "eps", 1e-3),
        "forward, bert.encoder.layer.1.attention.output.LayerNorm",
    ),
    "gradient": (
        lambda parts: parts.model.get_parameter("head.output.weight").register_hook(lambda g: g * 1.001),
        "backward, the gradient of classifier.weight",
    ),
    "nothing": (lambda parts: None, ""),
}


@pytest.fixture
def both(flags: dict[str, Any], tmp_path: Path) -> Iterator[tuple[PreparedRun, Callable[[], layers.Step]]]:
    """Our side, and a function that takes the reference's step on the same batch."""
    config = TrainConfig(**flags, match_trainer=True, output_dir=str(tmp_path / "run"))
    theirs = reference.prepare(config, Record(tmp_path))
    trainer = Trainer(theirs.model, arguments(config, str(tmp_path), use_cpu=True), eval_dataset=theirs.evaluation)
    parts = prepare(config)
    rows = layers.rows_of_the_first_step(parts)
    modules = layers.modules_of(parts.model)
    yield parts, lambda: layers.their_step(config, theirs, trainer, modules, rows)


@pytest.mark.parametrize("kind", BREAKS)
def test_first_operation_that_differs_is_named(both: Any, kind: str) -> None:
    parts, their_step = both
    change, expected = BREAKS[kind]
    change(parts)
    modules = layers.modules_of(parts.model)
    mine, theirs = layers.our_step(parts, modules), their_step()
    assert (layers.first_difference(mine, theirs, modules) or "") == expected
    assert len(theirs.forward) == 2 * len(modules) + 1 and len(theirs.backward) == len(modules)
    found = list(layers.compare_steps(mine, theirs))
    assert all(each.equal == each.total for each in found) == (expected == "")


def test_optimizer_and_norm_that_differ_are_named(both: Any) -> None:
    parts, their_step = both
    modules = layers.modules_of(parts.model)
    other = replace(parts, config=replace(parts.config, adam_epsilon=1e-3))
    mine, theirs = layers.our_step(other, modules), their_step()
    found = layers.first_difference(mine, theirs, modules)
    assert found == "the optimizer's update of bert.embeddings.word_embeddings.weight"
    assert layers.first_difference(replace(mine, norm=0.5), theirs, modules) == "the gradient norm"
    assert layers.first_difference(replace(mine, loss=0.5), theirs, modules) == "the loss"


def test_script_compares_and_writes(flags: dict[str, Any], tmp_path: Path) -> None:
    done = command("parity", *words(flags, "--max_steps", 4, "--json", tmp_path / "result.json"))
    assert done.returncode == 0, done.stderr
    assert re.search(r"^loss of each step +4 of 4 +- +0$", done.stdout, re.MULTILINE)
    assert done.stdout.endswith("all equal, bit for bit\n")
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert result["all_equal"] is True and result["reference"] == "Trainer" and result["steps"] == 4
    assert result["flags"]["max_steps"] == 4 and result["versions"]["transformers"] == "5.23.0"
    assert {each["what"] for each in result["comparisons"]} >= {"batches", "final weights", "evaluation: loss"}


def test_script_walks_through_the_layers(
    script: Callable[..., Done], flags: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/results.json").write_text("{}")  # an earlier run's folder is no concern of a comparison
    done = script(
        "scripts/parity.py",
        *words(flags, "--layers", "--json", tmp_path / "layers.json", "--output_dir", tmp_path / "run"),
    )
    assert done.returncode == 0, done.stderr
    assert "no operation differs" in done.stdout
    assert json.loads((tmp_path / "layers.json").read_text(encoding="utf-8"))["first_difference"] is None


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (["--sampler", "bucket"], 2, "--match_trainer means --sampler random, not bucket: drop one of the two"),
        (["--kernels", "fast"], 2, "--match_trainer means --kernels reference, not fast"),
        (["--match_accelerate", "--max_grad_norm", "1"], 2, "means --max_grad_norm 0.0, not 1"),
        (["--match_accelerate", "--match_trainer"], 2, "name two references: pass one"),
        (["--match_accelerate", "--layers"], 2, "--layers walks through one pass of Trainer's model"),
        (["--label_smoothing_factor", "0.1", "--layers"], 2, "drop --match_accelerate, --label_smoothing_factor"),
        (["--match_accelerate", "--num_train_epochs", "1.5"], 2, "evaluates after whole epochs"),
        (["--load_best_model_at_end"], 2, "drop --load_best_model_at_end"),
        (["--threads", "0"], 2, "--threads is 0; expected 1 or more"),
        (["--text_columns", "stars"], 1, "stars"),
        (["--json", "/dev/null/result.json"], 1, "--json /dev/null/result.json: cannot be written"),
    ],
)
def test_wrong_flags_are_answered_without_a_traceback(
    script: Callable[..., Done], flags: dict[str, Any], more: list[str], status: int, message: str
) -> None:
    done = script("scripts/parity.py", *words(flags, *more))
    assert done.returncode == status
    assert message in done.stderr and "Traceback" not in done.stderr
    if message == "stars":
        assert re.search(r"^parity.py: the side of (minitrain|Trainer) failed; see above$", done.stderr, re.M)


def test_new_head_that_transformers_would_not_draw_is_no_comparison(flags: dict[str, Any], tmp_path: Path) -> None:
    tiny = Path(flags["model"])
    save_classifier(load_classifier(tiny, label_names=("x", "y")), load_tokenizer(tiny), tmp_path)
    config = TrainConfig(**flags | {"model": str(tmp_path)}, match_trainer=True, new_head=True)
    with pytest.raises(MinitrainError, match="transformers keeps it then"):
        reference.prepare(config, Record(tmp_path))


def test_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("references.NEEDED", ("transformers", "no_such_library"))
    with pytest.raises(MinitrainError, match="no_such_library cannot be found: `make test` installs"):
        check_libraries()


@pytest.mark.parametrize("script", ["parity", "ladder"])
def test_help_needs_no_torch(script: str) -> None:
    folder = Path(__file__).parent.parent / "scripts"
    code = (
        "import atexit, runpy, sys; atexit.register(lambda: print('torch' in sys.modules)); "
        f"sys.argv = ['x', '--help']; sys.path.insert(0, {str(folder)!r}); "
        f"runpy.run_path({str(folder / script)!r} + '.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=60)
    assert done.stdout.endswith("False\n") and "--json" in done.stdout


def test_ladder_ends_where_trainer_is(flags: dict[str, Any], tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", *named_reviews(64))
    longer = flags | {"train_file": str(tmp_path / "train.csv"), "num_train_epochs": 2}
    *lower, last = rungs.measure(longer)
    assert last.equal == last.steps == 16 and last.largest_difference == 0.0
    assert lower[0].mean_loss != last.mean_loss and 0.1 < last.mean_loss < 1.0
    assert len(lower) == len(rungs.RUNGS) - 1
    assert all(rung.equal < rung.steps for rung in lower[:-1])
    assert lower[0].largest_difference > 1e-2 > lower[-1].largest_difference
    settled = dict(rungs.COURSE)
    for _, step in rungs.RUNGS:
        settled |= step
    top, trainers = vars(TrainConfig(**settled)), vars(TrainConfig(match_trainer=True))
    others = {name for name in top if top[name] != trainers[name]}
    # These move no loss of a single batch; targets are of regression, and these rows have classes.
    unmoved = {
        "match_trainer",
        "eval_order",
        "per_device_eval_batch_size",
        "accumulation",
        "standardize_targets",
    }
    assert others == unmoved | {"sample"}


def test_ladder_prints_a_line_a_rung(flags: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    made = [
        rungs.Rung(change="the start", flags="", mean_loss=0.75, equal=0, steps=4, largest_difference=0.25),
        rungs.Rung(change="one thing", flags="--seed 42", mean_loss=0.5, equal=3, steps=4, largest_difference=1e-7),
    ]
    threads = []
    monkeypatch.setattr(rungs, "measure", lambda settings: iter(made))
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    assert not rungs.climb("demo", "demo", None, 8)
    out = capsys.readouterr().out
    assert re.search(r"^the start +0\.750000 +0 of 4 +2\.5e-01$", out, re.MULTILINE) and "NOT Trainer's run" in out
    made.append(replace(made[1], equal=4, largest_difference=0.0))
    assert rungs.climb("demo", "demo", None, 8)
    assert threads == [1, 1]  # as Trainer's side: more threads add up in another order
