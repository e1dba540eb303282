"""The training step and the loop against a hand-written loop, transformers' Trainer, and what a run promises."""

import math
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    get_scheduler,
)
from transformers.trainer_pt_utils import LabelSmoother

from minitrain.config.train_config import TrainConfig
from minitrain.data.batch import Batch, collate
from minitrain.data.dataset import Split
from minitrain.data.labels.ids import Labels
from minitrain.data.load import tokenize
from minitrain.data.tables.load import load_tables
from minitrain.data.tables.table import Table
from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.errors import MinitrainError
from minitrain.model.classifier import SequenceClassifier
from minitrain.model.weights import load_classifier
from minitrain.training.evaluation import Evaluation, evaluate
from minitrain.training.loop import StepLog, fit
from minitrain.training.metrics import Metric, metric_for
from minitrain.training.param_groups import decay_groups
from minitrain.training.setup import Best, make_sampler, make_state, plan
from minitrain.training.step import StepSettings, TrainState, train_step

NEUTRAL = ["the", "a", "film", "plot", "actor", "scene", "was", "is", "of", "and", "story", "with", "music", "in"]
GOOD, BAD = ["great", "good", "superb"], ["bad", "dull", "awful"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *NEUTRAL, *GOOD, *BAD, "!", "."]
NO_DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def write_tiny_model(folder: Path, **config: Any) -> Path:
    """A random BERT of 2 layers and hidden size 32 without a head, and its tokenizer, as transformers saves it."""
    sizes: dict[str, Any] = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "initializer_range": 0.1,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(BertConfig(**(sizes | config))).save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCABULARY), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}', encoding="utf-8")
    return folder


def reviews(count: int, seed: int = 0, classes: int = 2) -> tuple[list[str], list[int]]:
    """Texts of 2 to 20 words, every other one of them bad (class 0), good (class 1) or neutral (class 2)."""
    draw = random.Random(seed)
    texts, labels = [], []
    for row in range(count):
        label = row % classes
        kinds = ((BAD, GOOD, NEUTRAL)[label], NEUTRAL)
        texts.append(" ".join(draw.choice(kinds[i % 2]) for i in range(draw.randint(2, 20))))
        labels.append(label)
    return texts, labels


def split_of(model: Path, texts: list[str], labels: list[int] | list[float]) -> Split:
    table = Table(source="rows", columns={"text": texts, "label": labels}, class_names={})
    names = tuple(f"LABEL_{label}" for label in sorted(set(labels))) if isinstance(labels[0], int) else None
    return tokenize(table, load_tokenizer(model), ("text",), "label", Labels(names=names))


@dataclass
class Recorder:
    """Keeps what it is shown, and the weights after each step."""

    model: SequenceClassifier
    steps: list[StepLog] = field(default_factory=list)
    weights: list[dict[str, Tensor]] = field(default_factory=list)
    evaluations: list[tuple[int, float, dict[str, Evaluation], bool]] = field(default_factory=list)

    def on_step(self, log: StepLog) -> None:
        self.steps.append(log)
        self.weights.append(weights_of(self.model))

    def on_evaluation(self, step: int, epoch: float, results: dict[str, Evaluation], is_best: bool) -> None:
        self.evaluations.append((step, epoch, results, is_best))

    @property
    def losses(self) -> list[float]:
        return [log.loss for log in self.steps]

    def evaluated(self, name: str) -> list[float]:
        return [results["validation"].values[name] for _, _, results, _ in self.evaluations]


def weights_of(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@dataclass
class Bench:
    """A tiny model with 64 training rows and 22 to evaluate on, ready to be fitted."""

    folder: Path
    train: Split
    validation: Split

    def fit(self, *, num_labels: int = 2, **flags: Any) -> tuple[Recorder, TrainState, Best]:
        config = TrainConfig(**({"learning_rate": 3e-3, "per_device_train_batch_size": 8} | flags))
        torch.manual_seed(config.seed)
        model = load_classifier(
            self.folder,
            num_labels,
            kernels=config.kernels,
            hidden_dropout_prob=config.hidden_dropout_prob,
            attention_probs_dropout_prob=config.attention_probs_dropout_prob,
        )
        recorder = Recorder(model)
        classes = None if num_labels == 1 else num_labels
        state, best = fit(
            model,
            self.train,
            {"validation": self.validation},
            config,
            new_metric=lambda: metric_for(None, classes),
            observer=recorder,
        )
        return recorder, state, best


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = write_tiny_model(tmp_path_factory.mktemp("tiny"))
    return Bench(folder, split_of(folder, *reviews(64)), split_of(folder, *reviews(22, seed=1)))


@pytest.fixture(scope="module")
def worsening(bench: Bench) -> Bench:
    """Evaluates on reviews with the opposite labels: the better the model learns, the worse it is scored."""
    texts, labels = reviews(22, seed=1)
    return Bench(bench.folder, bench.train, split_of(bench.folder, texts, [1 - label for label in labels]))


def rows_of(split: Split, rows: range) -> Batch:
    return collate([split[row] for row in rows])


UNCLIPPED = StepSettings(max_grad_norm=0.0)


def gradients_kept(model: SequenceClassifier) -> TrainState:
    """A state whose steps leave the gradients to be looked at, and the weights as they are."""
    state = make_state(model, TrainConfig(kernels="reference"))
    state.optimizer.step = state.optimizer.zero_grad = lambda *_, **__: None  # type: ignore[method-assign,assignment]
    return state


CUTS = {"16x1": [1] * 16, "8x2": [2] * 8, "4x4": [4] * 4, "5+5+6": [5, 5, 6]}


def assert_cuts_do_not_matter(model: SequenceClassifier, split: Split, cuts: list[list[int]]) -> None:
    state = gradients_kept(model.eval())  # dropout off: its draws do depend on the cut
    whole_loss = train_step(state, [rows_of(split, range(16))], 0.0, UNCLIPPED).loss
    whole = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert len(whole) == len(list(model.parameters()))
    for sizes in cuts:
        starts = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
        parts = [rows_of(split, range(a, b)) for a, b in zip(starts, starts[1:], strict=False)]
        assert len({part.input_ids.size(1) for part in parts}) > 1  # so that padding differs from part to part
        model.zero_grad()
        loss = train_step(state, parts, 0.0, UNCLIPPED).loss
        assert loss == pytest.approx(whole_loss, abs=1e-6)  # sums of float32 in another order
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            scale = max(1.0, whole[name].abs().max().item())  # 1e-6 is eight roundings of the largest
            torch.testing.assert_close(parameter.grad, whole[name], rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("cut", CUTS)
def test_gradient_does_not_depend_on_how_a_global_batch_is_cut(bench: Bench, cut: str) -> None:
    torch.manual_seed(0)
    assert_cuts_do_not_matter(load_classifier(bench.folder, 2), bench.train, [CUTS[cut]])


def test_gradient_of_real_pairs_does_not_depend_on_the_cut(demo_model: Path, glue: Path) -> None:
    table = load_tables(str(glue), "mrpc")["train"].select(range(16))
    labels = Labels(names=("not_equivalent", "equivalent"))
    split = tokenize(table, load_tokenizer(demo_model), ("sentence1", "sentence2"), "label", labels)
    assert len(set(split.lengths)) > 5
    torch.manual_seed(0)
    assert_cuts_do_not_matter(load_classifier(demo_model, 2), split, list(CUTS.values()))


def test_accumulation_trains_as_a_larger_batch_does(bench: Bench) -> None:
    flags: dict[str, Any] = {"sampler": "random", "num_train_epochs": 1, **NO_DROPOUT}
    whole, *_ = bench.fit(per_device_train_batch_size=16, **flags)
    cut, *_ = bench.fit(per_device_train_batch_size=4, gradient_accumulation_steps=4, **flags)
    assert [log.step for log in cut.steps] == [1, 2, 3, 4]
    assert [log.examples for log in cut.steps] == [16] * 4
    # Float32 sums in another order, which Adam's division by small second moments magnifies.
    assert cut.losses == pytest.approx(whole.losses, abs=1e-4)
    assert cut.steps[0].grad_norm == pytest.approx(whole.steps[0].grad_norm, rel=1e-5)


def hand_written_loop(
    bench: Bench, config: TrainConfig, fused: bool
) -> tuple[list[float], list[float], dict[str, Tensor]]:
    """Losses, gradient norms and final parameters of a loop over a transformers model, without our code."""
    torch.manual_seed(config.seed)
    model = AutoModelForSequenceClassification.from_pretrained(bench.folder, num_labels=2, dtype=torch.float32)
    pad = DataCollatorWithPadding(AutoTokenizer.from_pretrained(bench.folder))
    named = dict(model.named_parameters())
    plain = [name for name in named if "bias" in name or "LayerNorm" in name]
    groups = [
        {"params": [p for name, p in named.items() if name not in plain], "weight_decay": config.weight_decay},
        {"params": [named[name] for name in plain], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=fused, foreach=False)
    total = int(config.num_train_epochs) * math.ceil(len(bench.train) / 8)
    schedule = get_scheduler("linear", optimizer, int(config.warmup_steps), total)
    losses, norms = [], []
    torch.manual_seed(config.seed)
    model.train()
    for epoch in range(int(config.num_train_epochs)):
        order = torch.randperm(len(bench.train), generator=torch.Generator().manual_seed(config.seed + epoch))
        for rows in order.split(8):
            examples = [bench.train[row] for row in rows.tolist()]
            batch = pad(
                [{"input_ids": e.input_ids, "token_type_ids": e.token_type_ids, "label": e.label} for e in examples]
            )
            loss = model(**batch).loss
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
            losses.append(loss.item())
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return losses, norms, named


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_torch"])
def test_run_has_the_bits_of_a_hand_written_loop_over_transformers(bench: Bench, optim: str) -> None:
    flags: dict[str, Any] = {
        "kernels": "reference",
        "sampler": "random",
        "optim": optim,
        "num_train_epochs": 3.0,
        "learning_rate": 1e-3,
        "warmup_steps": 4,
        "weight_decay": 0.01,
        "eval_strategy": "no",
    }
    ours, *_ = bench.fit(**flags)
    losses, norms, named = hand_written_loop(bench, TrainConfig(**flags), optim == "adamw_torch_fused")
    assert len(losses) == 24 and max(norms) > 1.0  # clipping did something
    assert ours.losses == losses
    assert [log.grad_norm for log in ours.steps] == norms
    for mine, (name, theirs) in zip(ours.model.parameters(), named.items(), strict=True):
        assert torch.equal(mine, theirs), name


def trainer_of(bench: Bench, folder: Path, rows: list[int], **arguments: Any) -> Trainer:
    model = AutoModelForSequenceClassification.from_pretrained(
        bench.folder, num_labels=2, dtype=torch.float32, **NO_DROPOUT
    )
    examples = [bench.train[row] for row in rows]
    data: Any = [{"input_ids": e.input_ids, "token_type_ids": e.token_type_ids, "label": e.label} for e in examples]
    fixed: dict[str, Any] = {"use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True}
    settings = TrainingArguments(str(folder), dataloader_pin_memory=False, **fixed, **arguments)
    collator = DataCollatorWithPadding(AutoTokenizer.from_pretrained(bench.folder))
    return Trainer(model, settings, train_dataset=data, data_collator=collator)


def test_run_without_dropout_ends_with_the_weights_of_the_trainer(bench: Bench, tmp_path: Path) -> None:
    flags: dict[str, Any] = {
        "num_train_epochs": 2.0,
        "learning_rate": 1e-3,
        "weight_decay": 0.01,
        "warmup_steps": 3,
    }
    ours, *_ = bench.fit(kernels="reference", sampler="random", eval_strategy="no", **NO_DROPOUT, **flags)
    torch.manual_seed(42)
    trainer = trainer_of(bench, tmp_path, list(range(64)), **flags)
    trainer.train()
    assert trainer.model is not None
    for mine, (name, theirs) in zip(ours.model.parameters(), trainer.model.named_parameters(), strict=True):
        assert torch.equal(mine, theirs), name


@pytest.mark.parametrize(
    ("examples", "flags"),
    [
        (64, {}),
        (61, {}),
        (61, {"gradient_accumulation_steps": 3}),
        (5, {"gradient_accumulation_steps": 4}),
        (61, {"num_train_epochs": 0.4}),
        (61, {"num_train_epochs": 1.7, "gradient_accumulation_steps": 3}),
        (61, {"max_steps": 5, "gradient_accumulation_steps": 2}),
        (33, {"per_device_train_batch_size": 32, "warmup_steps": 0.1}),
        (61, {"warmup_steps": 7}),
        (61, {"warmup_steps": 0.55, "num_train_epochs": 1.1}),
    ],
)
def test_steps_are_counted_as_the_trainer_counts_them(
    bench: Bench, tmp_path: Path, examples: int, flags: dict[str, Any]
) -> None:
    ours = plan(TrainConfig(**flags), examples)
    trainer = trainer_of(bench, tmp_path, list(range(examples)), **flags)
    _, per_epoch, _, _, _, _, total = trainer.set_initial_training_values(
        trainer.args, trainer.get_train_dataloader()
    )
    assert (ours.steps_per_epoch, ours.total_steps) == (per_epoch, total)
    assert ours.warmup_steps == trainer.args.get_warmup_steps(total)


def test_odd_run_takes_the_steps_and_learning_rates_of_the_trainer(bench: Bench, tmp_path: Path) -> None:
    flags: dict[str, Any] = {"num_train_epochs": 1.6, "gradient_accumulation_steps": 3, "warmup_steps": 2}
    trainer = trainer_of(bench, tmp_path, list(range(61)), logging_steps=1, **flags)
    trainer.train()
    logged = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    odd = Bench(bench.folder, split_of(bench.folder, *reviews(61)), bench.validation)
    recorder, state, _ = odd.fit(eval_strategy="no", sampler="random", learning_rate=5e-5, **flags)
    assert [log.learning_rate for log in recorder.steps] == logged
    assert state.step == trainer.state.global_step == 5
    assert [log.examples for log in recorder.steps] == [24, 24, 13, 24, 24]


@pytest.mark.parametrize("warmup", [0, 3, 0.25])
@pytest.mark.parametrize("name", ["linear", "cosine", "constant", "constant_with_warmup"])
def test_learning_rate_of_each_step_is_that_of_get_scheduler(bench: Bench, name: str, warmup: float) -> None:
    if name == "constant" and warmup:
        with pytest.raises(MinitrainError, match="constant_with_warmup"):
            TrainConfig(lr_scheduler_type=name, warmup_steps=warmup)
        return
    recorder, *_ = bench.fit(lr_scheduler_type=name, warmup_steps=warmup, max_steps=12, eval_strategy="no")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=3e-3)
    schedule = get_scheduler(name, optimizer, 3 if warmup else 0, 12)
    expected = []
    for _ in range(12):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert [log.learning_rate for log in recorder.steps] == expected


@pytest.mark.fault(31)
def test_nan_weight_stops_the_step_before_the_update(bench: Bench) -> None:
    model = load_classifier(bench.folder, 2).train()
    state = make_state(model, TrainConfig())
    with torch.no_grad():
        model.head.get_parameter("output.weight")[0, 0] = math.nan
    before = weights_of(model)
    with pytest.raises(MinitrainError, match=r"^step 1: the loss is nan.*from 1: 4, 8, 1\. Lower --learning_rate"):
        train_step(state, [rows_of(bench.train, range(3))], 1e-3, StepSettings(), rows=[3, 7, 0])
    assert all(torch.equal(before[name].nan_to_num(7.0), p.nan_to_num(7.0)) for name, p in model.named_parameters())
    assert state.step == 0


@pytest.mark.fault(31)
def test_infinite_gradient_of_a_finite_loss_stops_too(bench: Bench) -> None:
    model = load_classifier(bench.folder, 2).train()
    state = make_state(model, TrainConfig())
    infected = model.head.get_parameter("output.bias").register_hook(lambda gradient: gradient * math.inf)
    before = weights_of(model)
    with pytest.raises(MinitrainError, match=r"the loss is \d\.\d+, the gradient norm (inf|nan)"):
        train_step(state, [rows_of(bench.train, range(3))], 1e-3, StepSettings())
    assert same(before, weights_of(model))
    infected.remove()
    state.optimizer.zero_grad()
    train_step(state, [rows_of(bench.train, range(3))], 1e-3, StepSettings())
    assert state.step == 1 and not same(before, weights_of(model))


TOO_LARGE = """
import resource, sys
import torch
from minitrain import load_classifier
from minitrain.data.batch import Batch
from minitrain.config.train_config import TrainConfig
from minitrain.training.setup import make_state
from minitrain.training.step import StepSettings, train_step

model = load_classifier(sys.argv[1], 2)
state = make_state(model, TrainConfig())
ones = torch.ones(40_000, 60, dtype=torch.int64)
batch = Batch(ones, ones, torch.zeros_like(ones), torch.zeros(40_000, dtype=torch.int64))
status = dict(line.split(":") for line in open("/proc/self/status"))
size = int(status["VmSize"].split()[0]) * 1024 + 500_000_000
resource.setrlimit(resource.RLIMIT_AS, (size, size))
train_step(state, [batch], 1e-3, StepSettings())
"""


@pytest.mark.fault(34)
def test_too_little_memory_names_the_batch_and_the_way_out(bench: Bench) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TOO_LARGE, str(bench.folder)], capture_output=True, encoding="utf-8", timeout=120
    )
    assert "can't allocate memory" in done.stderr or "bad_alloc" in done.stderr, "memory sufficed"
    assert "MinitrainError: training: out of memory with 40000 x 60 tokens (batch x length): lower" in done.stderr


@pytest.mark.fault(31)
def test_huge_learning_rate_ends_the_run_naming_step_and_rows(bench: Bench) -> None:
    seen: list[Recorder] = []
    config = TrainConfig(learning_rate=1e30, max_grad_norm=0.0, eval_strategy="no")
    model = load_classifier(bench.folder, 2)
    seen.append(Recorder(model))
    with pytest.raises(MinitrainError) as caught:
        fit(model, bench.train, {}, config, new_metric=lambda: metric_for(None, 2), observer=seen[0])
    done = len(seen[0].steps)
    assert 1 <= done < 24  # something was trained, and not all
    rows = make_sampler(config, bench.train).batches(0)[done]
    assert str(caught.value).startswith(f"step {done + 1}: the loss is ")
    assert f"counted from 1: {', '.join(str(row + 1) for row in rows)}." in str(caught.value)
    assert same(weights_of(model), seen[0].weights[-1])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"eval_strategy": "epoch", "num_train_epochs": 2.5}, [8, 16, 20]),
        ({"eval_strategy": "epoch", "num_train_epochs": 2.0}, [8, 16]),
        ({"eval_strategy": "epoch", "max_steps": 3}, [3]),
        ({"eval_strategy": "steps", "eval_steps": 5, "max_steps": 10}, [5, 10]),
        ({"eval_strategy": "steps", "eval_steps": 6, "max_steps": 20}, [6, 12, 18, 20]),
        ({"eval_strategy": "steps", "eval_steps": 99, "max_steps": 4}, [4]),
        ({"eval_strategy": "no", "max_steps": 10}, []),
    ],
)
def test_evaluations_happen_when_the_strategy_says(bench: Bench, flags: Any, expected: list[int]) -> None:
    recorder, state, _ = bench.fit(**flags)
    assert [step for step, *_ in recorder.evaluations] == expected
    assert [epoch for _, epoch, *_ in recorder.evaluations] == [step / 8 for step in expected]
    assert state.step == recorder.steps[-1].step == len(recorder.steps)
    assert not expected or expected[-1] == state.step


@pytest.mark.parametrize("kernels", ["fast", "reference"])
def test_evaluating_does_not_change_the_training(bench: Bench, kernels: str) -> None:
    without, *_ = bench.fit(eval_strategy="no", max_steps=12, kernels=kernels)
    often, *_ = bench.fit(eval_strategy="steps", eval_steps=1, max_steps=12, kernels=kernels)
    assert len(often.evaluations) == 12
    assert often.losses == without.losses
    assert same(weights_of(often.model), weights_of(without.model))


def test_same_seed_gives_the_same_weights_and_another_seed_others(bench: Bench) -> None:
    runs = [bench.fit(max_steps=10, eval_strategy="no", seed=seed)[0] for seed in (3, 3, 4)]
    assert same(weights_of(runs[0].model), weights_of(runs[1].model))
    assert runs[0].losses == runs[1].losses
    assert not same(weights_of(runs[0].model), weights_of(runs[2].model))


def test_data_seed_changes_the_order_alone(bench: Bench) -> None:
    flags: dict[str, Any] = {"max_steps": 8, "eval_strategy": "no", "sampler": "random"}
    plain, moved = bench.fit(**flags)[0], bench.fit(data_seed=1, **flags)[0]
    assert plain.losses != moved.losses
    assert bench.fit(data_seed=42, **flags)[0].losses == plain.losses


@pytest.mark.parametrize("sampler", ["bucket", "random"])
def test_every_row_is_trained_on_once_an_epoch(bench: Bench, sampler: str) -> None:
    recorder, *_ = bench.fit(num_train_epochs=1, sampler=sampler, eval_strategy="no")
    assert sum(log.examples for log in recorder.steps) == 64
    order = make_sampler(TrainConfig(sampler=sampler), bench.train).batches(0)
    assert sorted(row for batch in order for row in batch) == list(range(64))
    padding = sum(log.padding for log in recorder.steps) / 8
    assert 0.0 < padding < 0.5


def test_training_learns(bench: Bench) -> None:
    recorder, *_ = bench.fit(num_train_epochs=6)
    assert recorder.evaluated("accuracy")[-1] >= 0.9  # the class is one word of a text of 2 to 20
    assert recorder.evaluated("loss")[-1] < recorder.evaluated("loss")[0]


def test_regression_learns_a_score(bench: Bench) -> None:
    texts, labels = reviews(64)
    others, theirs = reviews(22, seed=1)
    scores = Bench(
        bench.folder,
        split_of(bench.folder, texts, [4.0 * label + 0.5 for label in labels]),
        split_of(bench.folder, others, [4.0 * label + 0.5 for label in theirs]),
    )
    recorder, *_ = scores.fit(num_labels=1, num_train_epochs=8)
    assert set(recorder.evaluations[-1][2]["validation"].metrics) == {
        "pearson",
        "spearmanr",
        "mse",
        "rmse",
        "mae",
        "r2",
    }
    assert recorder.evaluated("mse")[-1] == pytest.approx(recorder.evaluated("loss")[-1], rel=1e-5)  # float32 sum
    assert recorder.evaluated("mse")[-1] < 2.0  # a constant would have 4, the variance
    assert recorder.evaluated("pearson")[-1] > 0.7


def test_best_model_ends_the_run_when_it_is_asked_for(worsening: Bench) -> None:
    recorder, state, best = worsening.fit(num_train_epochs=4, load_best_model_at_end=True)
    accuracies = recorder.evaluated("accuracy")
    assert min(accuracies) < accuracies[0] == max(accuracies)  # the metric did get worse
    assert (best.name, best.value, best.step, best.epoch) == ("accuracy", accuracies[0], 8, 1.0)
    assert state.step == 32
    assert same(weights_of(recorder.model), recorder.weights[7])
    assert not same(weights_of(recorder.model), recorder.weights[-1])
    again = evaluate(recorder.model, worsening.validation, metric_for(None, 2))
    assert again.values == recorder.evaluations[0][2]["validation"].values
    assert [is_best for *_, is_best in recorder.evaluations] == [True, False, False, False]


def test_last_model_ends_the_run_otherwise(worsening: Bench) -> None:
    recorder, _, best = worsening.fit(num_train_epochs=4)
    assert best.step == 8 and not best.weights
    assert same(weights_of(recorder.model), recorder.weights[-1])


@pytest.mark.parametrize("patience", [1, 2])
def test_early_stopping_stops_after_so_many_evaluations_without_a_better_one(
    worsening: Bench, patience: int
) -> None:
    recorder, state, best = worsening.fit(
        num_train_epochs=10, early_stopping_patience=patience, metric_for_best_model="eval_loss"
    )
    losses = recorder.evaluated("loss")
    assert losses == sorted(losses) and len(losses) == 1 + patience
    assert (best.step, state.step) == (8, 8 * (1 + patience))


def test_loss_is_better_when_it_is_less(bench: Bench) -> None:
    recorder, _, best = bench.fit(num_train_epochs=3, metric_for_best_model="loss", load_best_model_at_end=True)
    losses = recorder.evaluated("loss")
    assert losses[0] > min(losses)  # a maximum would be another one
    assert best.value == min(losses) and not best.greater_is_better


def test_greater_is_better_overrides_what_the_metric_suggests(bench: Bench) -> None:
    flags: dict[str, Any] = {"num_train_epochs": 3, "metric_for_best_model": "loss"}
    recorder, _, best = bench.fit(greater_is_better=True, **flags)
    assert best.value == max(recorder.evaluated("loss")) > min(recorder.evaluated("loss"))


@pytest.mark.parametrize(
    ("value", "offered", "greater", "improves"),
    [
        (None, math.nan, True, False),
        (None, 0.0, True, True),
        (0.5, math.nan, True, False),
        (0.5, math.nan, False, False),
        (0.5, 0.5, True, False),
        (0.5, 0.5, False, False),
        (0.5, 0.4, False, True),
        (0.5, 0.6, True, True),
    ],
)
def test_best_is_only_replaced_by_a_better_number(
    value: float | None, offered: float, greater: bool, improves: bool
) -> None:
    assert Best(name="accuracy", greater_is_better=greater, value=value).improves(offered) is improves


def test_unknown_metric_for_best_model_is_answered_with_those_there_are(bench: Bench) -> None:
    with pytest.raises(MinitrainError, match="--metric_for_best_model bleu: expected loss, accuracy, f1"):
        bench.fit(metric_for_best_model="bleu")


def test_evaluation_without_data_is_refused(bench: Bench) -> None:
    config = TrainConfig(max_steps=1)
    model = load_classifier(bench.folder, 2)
    before = weights_of(model)
    with pytest.raises(MinitrainError, match="eval_strategy"):
        fit(model, bench.train, {}, config, new_metric=lambda: metric_for(None, 2), observer=Recorder(model))
    assert same(before, weights_of(model))


def test_bf16_trains_in_bfloat16_and_keeps_float32_weights(bench: Bench) -> None:
    flags: dict[str, Any] = {"num_train_epochs": 2, "eval_strategy": "epoch", **NO_DROPOUT}
    half, full = bench.fit(bf16=True, **flags)[0], bench.fit(**flags)[0]
    assert half.losses != full.losses  # it was really another arithmetic
    assert half.losses[0] == pytest.approx(full.losses[0], rel=0.05)  # bfloat16 keeps 8 bits
    assert all(math.isfinite(loss) for loss in half.losses)
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}


def test_label_smoothing_is_that_of_the_trainer_in_training_and_evaluation(bench: Bench) -> None:
    flags: dict[str, Any] = {"max_steps": 1, "label_smoothing_factor": 0.2, **NO_DROPOUT}
    recorder, *_ = bench.fit(**flags)
    torch.manual_seed(42)
    model = AutoModelForSequenceClassification.from_pretrained(bench.folder, num_labels=2, dtype=torch.float32)
    model.eval()
    batch = collate([bench.train[row] for row in make_sampler(TrainConfig(), bench.train).batches(0)[0]])
    with torch.no_grad():
        logits = model(**batch.inputs).logits
    smoothed = LabelSmoother(0.2)({"logits": logits}, batch.labels).item()
    plain = torch.nn.functional.cross_entropy(logits, batch.labels).item()  # type: ignore[arg-type]
    assert recorder.losses[0] == pytest.approx(smoothed, abs=1e-6) != pytest.approx(plain, abs=1e-3)
    smooth = evaluate(recorder.model, bench.validation, metric_for(None, 2), label_smoothing=0.2)
    assert recorder.evaluated("loss") == [smooth.loss]
    assert smooth.loss != evaluate(recorder.model, bench.validation, metric_for(None, 2)).loss


def test_optimizer_has_the_groups_and_numbers_of_the_configuration(bench: Bench) -> None:
    model = load_classifier(bench.folder, 2)
    config = TrainConfig(weight_decay=0.1, adam_beta1=0.8, adam_beta2=0.95, adam_epsilon=1e-6, optim="adamw_torch")
    optimizer = make_state(model, config).optimizer
    decay_of = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    decays = {name: decay_of[p] for name, p in model.named_parameters()}
    assert decays == {name: 0.0 if "bias" in name or "norm" in name else 0.1 for name in decays}
    assert set(decays.values()) == {0.0, 0.1}
    for group in optimizer.param_groups:
        assert (group["betas"], group["eps"], group["fused"]) == ((0.8, 0.95), 1e-6, False)
    assert all(group["fused"] for group in make_state(model, TrainConfig()).optimizer.param_groups)
    assert [len(group["params"]) for group in decay_groups(model, 0.1)] == [17, 24]


@pytest.mark.fault(33)
@pytest.mark.parametrize(("limit", "clipped"), [(0.0, False), (1e9, False), (1e-3, True)])
def test_gradient_norm_is_reported_before_clipping(bench: Bench, limit: float, clipped: bool) -> None:
    def step(max_grad_norm: float) -> tuple[float, dict[str, Tensor]]:
        torch.manual_seed(0)
        model = load_classifier(bench.folder, 2)  # evaluation mode: no dropout
        # A large epsilon makes the update shrink with the gradient, as Adam's otherwise does not.
        state = make_state(model, TrainConfig(adam_epsilon=1.0))
        _, norm = train_step(
            state, [rows_of(bench.train, range(8))], 1e-3, StepSettings(max_grad_norm=max_grad_norm)
        )
        return norm, weights_of(model)

    norm, weights = step(limit)
    unclipped_norm, unclipped = step(0.0)
    assert norm == unclipped_norm > 1e-3
    assert same(weights, unclipped) is not clipped


def test_gradients_that_adamw_divides_are_clipped_ones(bench: Bench) -> None:
    def state(**flags: Any) -> TrainState:
        torch.manual_seed(0)
        model = load_classifier(bench.folder, 2)  # as above; and weights decay, and word vectors are sparse
        return make_state(model, TrainConfig(adam_epsilon=1.0, weight_decay=0.1, **flags))

    def is_fused(**flags: Any) -> bool:
        return StepSettings.of(TrainConfig(**flags)).fused_clip

    assert is_fused() and not is_fused(kernels="reference") and not is_fused(optim="adamw_torch")
    late, before, norms = state(), state(), []
    for first in range(0, 64, 8):
        batch = rows_of(bench.train, range(first, first + 8))
        ours, expected = (
            train_step(each, [batch], 0.1, StepSettings(max_grad_norm=0.35, fused_clip=each is late))
            for each in (late, before)
        )
        assert ours == pytest.approx(expected, rel=1e-5)  # a division, not a product
        norms.append(expected[1])
    assert min(norms) < 0.35 < max(norms)  # some were clipped
    for name, weight in weights_of(before.model).items():
        assert torch.allclose(late.model.get_parameter(name), weight, atol=1e-6), name


def test_weights_cast_once_a_step_are_those_of_every_pass(bench: Bench) -> None:
    def state() -> TrainState:
        torch.manual_seed(0)
        return make_state(load_classifier(bench.folder, 2), TrainConfig(bf16=True))

    once, each_time = state(), state()
    each_time.cast = None
    for first in range(0, 64, 16):
        batches = [rows_of(bench.train, range(row, row + 8)) for row in (first, first + 8)]
        ours, expected = (train_step(each, batches, 1e-2, StepSettings(bf16=True)) for each in (once, each_time))
        assert ours == expected
        assert same(weights_of(once.model), weights_of(each_time.model))
    assert once.cast is not None and len(once.cast._parts) > 0


def test_gradients_are_gone_after_a_step(bench: Bench) -> None:
    model = load_classifier(bench.folder, 2)
    train_step(make_state(model, TrainConfig()), [rows_of(bench.train, range(8))], 1e-3, StepSettings())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_metric_is_made_afresh_for_each_evaluation(bench: Bench) -> None:
    made: list[Metric] = []

    def new_metric() -> Metric:
        made.append(metric_for(None, 2))
        return made[-1]

    model = load_classifier(bench.folder, 2)
    recorder = Recorder(model)
    config = TrainConfig(max_steps=3, eval_strategy="steps", eval_steps=1)
    factory: Callable[[], Metric] = new_metric
    fit(model, bench.train, {"validation": bench.validation}, config, new_metric=factory, observer=recorder)
    counts = [metric.confusion.counts.sum().item() for metric in made if metric.confusion is not None]
    assert sorted(counts) == [0, 22, 22, 22]  # the first only told its names
