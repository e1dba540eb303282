"""What docs/differences.md says, each shown on the reference itself and on minitrain."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from mlflow import MlflowClient
from references.reference import copied
from safetensors.torch import load_file, save_file
from sklearn.metrics import accuracy_score
from test_loop import NO_DROPOUT, Bench, Recorder, reviews, rows_of, split_of, write_tiny_model
from torch.utils.data import DataLoader
from tracker_stores import read_tensorboard
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    get_scheduler,
)
from transformers.integrations import MLflowCallback, TensorBoardCallback

from minitrain.config.long_texts import LongTexts
from minitrain.config.optimization import DEFAULTS
from minitrain.config.train_config import ACCELERATE, TRAINER, TrainConfig
from minitrain.data.batch import collate
from minitrain.data.dataset import Split
from minitrain.data.labels.ids import Labels
from minitrain.data.load import tokenize
from minitrain.data.tokenizer.tokenizer import load_tokenizer
from minitrain.distributed.launcher import launch
from minitrain.distributed.world import process_group
from minitrain.errors import MinitrainError
from minitrain.kernels import get_kernels
from minitrain.model.weights import load_classifier, save_classifier
from minitrain.run.main import train
from minitrain.training.evaluation import evaluate
from minitrain.training.loop import fit
from minitrain.training.loss import cross_entropy, loss_of
from minitrain.training.metrics import GlueMetric, metric_for
from minitrain.training.schedules import linear_schedule
from minitrain.training.setup import make_sampler, make_state
from minitrain.training.step import StepSettings, train_step

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs/differences.md").read_text(encoding="utf-8")
WHOLE: dict[str, Any] = {"per_device_train_batch_size": 8}
PAIRED: dict[str, Any] = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A tiny model without dropout: losses do not depend on the random stream."""
    folder = write_tiny_model(tmp_path_factory.mktemp("still"), **NO_DROPOUT)
    return Bench(folder, split_of(folder, *reviews(64)), split_of(folder, *reviews(22, seed=1)))


@pytest.fixture(scope="module")
def restless(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A tiny model with dropout."""
    folder = write_tiny_model(tmp_path_factory.mktemp("restless"))
    return Bench(folder, split_of(folder, *reviews(64)), split_of(folder, *reviews(22, seed=1)))


def rows_for_transformers(split: Split) -> list[dict[str, Any]]:
    return [
        {"input_ids": e.input_ids, "token_type_ids": e.token_type_ids, "label": e.label}
        for e in (split[row] for row in range(len(split)))
    ]


def trainer_of(bench: Bench, folder: Path, *callbacks: TrainerCallback, **flags: Any) -> Trainer:
    torch.manual_seed(42)
    model = AutoModelForSequenceClassification.from_pretrained(bench.folder, num_labels=2, dtype=torch.float32)
    fixed: dict[str, Any] = {"use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True}
    settings = TrainingArguments(str(folder), dataloader_pin_memory=False, logging_steps=1, **fixed, **flags)
    data: Any = [rows_for_transformers(split) for split in (bench.train, bench.validation)]
    pad = DataCollatorWithPadding(AutoTokenizer.from_pretrained(bench.folder))
    return Trainer(
        model, settings, data_collator=pad, train_dataset=data[0], eval_dataset=data[1], callbacks=[*callbacks]
    )


def logged(trainer: Trainer, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def losses_of_trainer(bench: Bench, folder: Path, **flags: Any) -> list[float]:
    trainer = trainer_of(bench, folder, **flags)
    trainer.train()
    return logged(trainer, "loss")


def test_every_difference_names_its_tests_and_every_test_is_named() -> None:
    named = set(re.findall(r"`(test_\w+)`", DOCUMENT))
    here = {name for name in globals() if name.startswith("test_")}
    assert named == here - {
        "test_every_difference_names_its_tests_and_every_test_is_named",
        "test_table_of_settings_is_what_the_configuration_decides",
    }
    sections = DOCUMENT.split("\n## ")[1:]
    assert len(sections) > 10
    assert [text.splitlines()[0] for text in sections if "`test_" not in text] == ["How to match"]


def test_table_of_settings_is_what_the_configuration_decides() -> None:
    shown = {
        cells[0].strip("`-"): cells[1:4]
        for line in DOCUMENT.splitlines()
        if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 5 and line.startswith("| `--")
    }
    assert shown.keys() == DEFAULTS.keys() | ACCELERATE.keys()
    plain = TrainConfig()
    for name, cells in shown.items():
        decided = (TRAINER.get(name, "as asked"), ACCELERATE.get(name, "as asked"))
        assert cells == [str(value) for value in (getattr(plain, name), *decided)], name


def test_loss_and_gradient_of_an_accumulated_step(still: Bench, tmp_path: Path) -> None:
    flags: dict[str, Any] = {"max_steps": 1, "learning_rate": 1e-3}
    whole = trainer_of(still, tmp_path, per_device_train_batch_size=8, **flags)
    halves = trainer_of(still, tmp_path, **PAIRED, **flags)
    whole.train()
    halves.train()
    for name in ("loss", "grad_norm"):
        assert logged(halves, name)[0] == pytest.approx(2 * logged(whole, name)[0], rel=1e-5)
    ours = [still.fit(sampler="random", **cut, **flags)[0] for cut in ({"per_device_train_batch_size": 8}, PAIRED)]
    assert ours[1].steps[0].loss == pytest.approx(ours[0].steps[0].loss, rel=1e-5)
    assert ours[1].steps[0].grad_norm == pytest.approx(ours[0].steps[0].grad_norm, rel=1e-5)
    summed, *_ = still.fit(sampler="random", accumulation="sum", **PAIRED, **flags)
    assert summed.steps[0].loss == pytest.approx(logged(halves, "loss")[0], rel=1e-6)


def test_the_documented_subclass_for_class_weights_depends_on_how_a_step_is_cut(
    still: Bench, tmp_path: Path
) -> None:
    class Weighted(Trainer):
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            loss = torch.nn.CrossEntropyLoss(weight=torch.tensor([0.3, 5.1]))(outputs.logits, labels)
            return (loss, outputs) if return_outputs else loss

    flags: dict[str, Any] = {"max_steps": 1, "learning_rate": 1e-3}
    theirs, ours = [], []
    for cut, scaled in (({"per_device_train_batch_size": 8}, None), (PAIRED, None), (PAIRED, False)):
        trainer = trainer_of(still, tmp_path, **cut, **flags)
        trainer.__class__ = Weighted
        trainer.loss_is_scaled_for_ga = scaled
        trainer.train()
        theirs.append(logged(trainer, "loss")[0])
        weights = {"class_weights": {"LABEL_0": 0.3, "LABEL_1": 5.1}}
        ours.append(still.fit(sampler="random", **cut, **flags, **weights)[0].losses[0])
    whole, summed, averaged = theirs
    assert ours == pytest.approx([whole] * 3, rel=1e-5)
    assert summed == pytest.approx(2 * averaged, rel=1e-6)  # no division, or a plain mean of weighted means
    assert abs(averaged / whole - 1) > 1e-3


def test_accumulation_is_right_in_trainer_when_labels_are_smoothed(still: Bench, tmp_path: Path) -> None:
    flags: dict[str, Any] = {"max_steps": 1, "learning_rate": 1e-3, "label_smoothing_factor": 0.1}
    losses = [
        losses_of_trainer(still, tmp_path, **cut, **flags)[0]
        for cut in ({"per_device_train_batch_size": 8}, PAIRED)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for setting in ("mean", "sum"):
        ours, *_ = still.fit(sampler="random", accumulation=setting, **PAIRED, **flags)
        assert ours.steps[0].loss == pytest.approx(losses[0], rel=1e-5)


def test_evaluation_and_the_training_that_follows(restless: Bench, tmp_path: Path) -> None:
    flags: dict[str, Any] = {"max_steps": 8, "learning_rate": 1e-3}
    often: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 4}
    theirs = losses_of_trainer(restless, tmp_path, **flags)
    evaluated = losses_of_trainer(restless, tmp_path, **flags, **often)
    assert evaluated[:4] == theirs[:4] and all(a != b for a, b in zip(evaluated[4:], theirs[4:], strict=True))

    ours = [restless.fit(**flags, **when)[0].losses for when in ({"eval_strategy": "no"}, often)]
    assert ours[0] == ours[1]
    matching = [
        restless.fit(match_trainer=True, **flags, **when)[0].losses for when in ({"eval_strategy": "no"}, often)
    ]
    assert matching == [theirs, evaluated]


def test_windows_that_trainer_counts_one_by_one(still: Bench, tmp_path: Path) -> None:
    texts, labels = reviews(22)
    reference = AutoTokenizer.from_pretrained(still.folder)
    cut: dict[str, Any] = {"truncation": True, "max_length": 10, "stride": 3, "return_overflowing_tokens": True}
    encoded = reference(texts, **cut)
    documents = encoded.pop("overflow_to_sample_mapping")
    rows = [
        {name: values[i] for name, values in encoded.items()} | {"label": labels[document]}
        for i, document in enumerate(documents)
    ]
    trainer = trainer_of(still, tmp_path)
    found = trainer.predict(rows)  # type: ignore[arg-type]
    assert len(found.predictions) == len(rows) > len(texts)
    windows = LongTexts(long_texts="windows", stride=3)
    table = {"text": texts, "label": labels}
    names = Labels(names=("no", "yes"))
    columns: Any = (load_tokenizer(still.folder), ("text",), "label", names)
    split = tokenize(table, *columns, max_length=10, long_texts=windows)
    torch.manual_seed(42)
    ours = evaluate(load_classifier(still.folder, 2), split, metric_for(None, 2))
    theirs = torch.from_numpy(found.predictions)
    pooled = torch.stack([theirs[torch.tensor(documents) == row].mean(0) for row in range(len(texts))])
    assert torch.allclose(ours.logits, pooled, atol=1e-6) and ours.examples == len(texts)
    loss = torch.nn.functional.cross_entropy(pooled, torch.tensor(labels)).item()
    assert ours.loss == pytest.approx(loss, abs=1e-6)
    assert abs(found.metrics["test_loss"] - loss) > 1e-3


@pytest.fixture(scope="module")
def in_two_processes(still: Bench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """One step of Trainer, one evaluation of 5 rows, and one of accelerate's schedule, under torchrun."""
    scratch = tmp_path_factory.mktemp("two")
    rows = {"train": rows_for_transformers(still.train), "validation": rows_for_transformers(still.validation)[:5]}
    (scratch / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    script = [str(ROOT / "tests/two_processes.py"), str(still.folder), str(scratch), str(scratch / "rows.json")]
    done = subprocess.run(
        [sys.executable, *launcher, *script],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"processes"')))
    assert found["processes"] == 2
    return found


def first_step(bench: Bench) -> tuple[float, float]:
    """Loss and gradient norm of a step of 8 rows, in however many processes this runs."""
    torch.set_num_threads(1)
    with process_group("cpu") as world:
        torch.manual_seed(42)
        recorder = Recorder(load_classifier(bench.folder, 2, kernels="reference"))
        rows = {"per_device_train_batch_size": 8 // world.size, "max_steps": 1, "learning_rate": 0.0}
        config = TrainConfig(kernels="reference", sampler="random", eval_strategy="no", **rows)
        fit(recorder.model, bench.train, {}, config, observer=recorder, world=world)
    return recorder.steps[0].loss, recorder.steps[0].grad_norm


def test_loss_and_gradient_over_processes(still: Bench, in_two_processes: dict[str, float], tmp_path: Path) -> None:
    alone = trainer_of(still, tmp_path, per_device_train_batch_size=8, max_steps=1, learning_rate=0.0)
    alone.train()
    for name in ("loss", "grad_norm"):
        assert in_two_processes[name] == pytest.approx(2 * logged(alone, name)[0], rel=1e-5)
    for ours in launch(first_step, (still,), 2):
        assert ours == pytest.approx([logged(alone, name)[0] for name in ("loss", "grad_norm")], rel=1e-5)


def test_evaluation_loss_over_processes(still: Bench, in_two_processes: dict[str, float]) -> None:
    torch.manual_seed(42)
    model = load_classifier(still.folder, 2, kernels="reference")
    rows = [still.validation[row] for row in range(5)]
    with torch.inference_mode():
        parts = [collate(rows[start : start + 2]) for start in (0, 2, 4)]
        means = [
            torch.nn.functional.cross_entropy(model(**part.inputs), part.labels).item()  # type: ignore[arg-type]
            for part in parts
        ]
        padded = collate([rows[4], rows[0]])  # what the first process gets for its second batch
        repeated = torch.nn.functional.cross_entropy(model(**padded.inputs), padded.labels).item()  # type: ignore
    true, with_repeated = ((2 * means[0] + 2 * means[1] + last) / 5 for last in (means[2], repeated))
    assert in_two_processes["eval_loss"] == pytest.approx(2 * with_repeated, rel=1e-6)
    assert with_repeated != pytest.approx(true, rel=1e-4)
    texts, labels = reviews(22, seed=1)
    five = split_of(still.folder, texts[:5], labels[:5])
    assert evaluate(model, five, metric_for(None, 2), batch_size=2).loss == pytest.approx(true, rel=1e-6)


def test_schedule_over_processes(in_two_processes: dict[str, float]) -> None:
    assert in_two_processes["learning_rate_after_one_step"] == pytest.approx(0.8)
    assert linear_schedule(step=1, total_steps=10) == 0.9


def test_hidden_labels() -> None:
    predictions, hidden = [0, 1, 1, 0], [-1, -1, -1, -1]
    assert accuracy_score(hidden, predictions) == 0.0  # evaluate's glue metric, which calls it: no word said
    with pytest.raises(MinitrainError, match=r"labels\[0\] is -1; class ids go from 0 to 1"):
        GlueMetric("sst2").update(predictions, hidden)


def test_labels_that_say_ignore_me(still: Bench) -> None:
    """The way out that the refusal names has the bits of the reference."""
    model = AutoModelForSequenceClassification.from_pretrained(still.folder, num_labels=2, dtype=torch.float32)
    ids, labels = torch.arange(2, 22).view(5, 4), torch.tensor([0, -100, 1, 1, -100])
    theirs = model.eval()(input_ids=ids, labels=labels)
    with pytest.raises(MinitrainError, match=r"labels\[1\] is -100; .*kept = labels != -100, then logits\[kept\]"):
        cross_entropy(theirs.logits, labels)
    kept = labels != -100
    loss, count = cross_entropy(theirs.logits[kept], labels[kept])
    assert (loss / count).item() == theirs.loss.item() and count == 3


def test_rows_that_drop_last_leaves_unscored(still: Bench, tmp_path: Path) -> None:
    flags: dict[str, Any] = {"dataloader_drop_last": True, "per_device_train_batch_size": 6, "num_train_epochs": 1}
    theirs = trainer_of(still, tmp_path, **flags)
    theirs.train()
    assert theirs.state.global_step == 10  # 64 rows: four are left out, as asked
    predicted: Any = theirs.predict(theirs.eval_dataset).predictions  # type: ignore[arg-type]
    assert len(still.validation) == 22 and len(predicted) == 16
    recorder, state, _ = still.fit(**flags)
    assert state.step == 10
    assert recorder.evaluations[0][2]["validation"].examples == 22
    with pytest.raises(MinitrainError, match="--match_trainer means --dataloader_drop_last False"):
        TrainConfig(match_trainer=True, dataloader_drop_last=True)


def test_dropout_in_bfloat16() -> None:
    torch.manual_seed(0)
    x = (torch.rand(1000, 1000) + 0.5).bfloat16()
    kept_mean = {}
    for name in ("reference", "fast"):
        dropped = get_kernels(name).dropout(x, 0.1, True).double()
        kept_mean[name] = (dropped.sum() / (x.double() * (dropped != 0)).sum()).item() * 0.9
    assert kept_mean["reference"] == pytest.approx(0.9984, abs=6e-4)
    assert kept_mean["fast"] == pytest.approx(1.0, abs=1e-4)


class _Spoil(TrainerCallback):
    """Breaks a weight after the third step, as a diverging run does."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            with torch.no_grad():
                kwargs["model"].classifier.weight[0, 0] = math.nan


def test_loss_that_is_no_number(still: Bench, tmp_path: Path) -> None:
    trainer = trainer_of(still, tmp_path, _Spoil(), max_steps=6, eval_strategy="steps", eval_steps=6)
    trainer.train()
    assert trainer.state.global_step == 6
    losses = logged(trainer, "loss")
    assert all(math.isfinite(loss) for loss in losses) and losses[3:] == [0.0] * 3
    assert trainer.model is not None
    assert any(parameter.isnan().any() for parameter in trainer.model.parameters())

    torch.manual_seed(42)
    model = load_classifier(still.folder, 2)
    with torch.no_grad():
        model.head.get_parameter("output.weight")[0, 0] = math.nan
    state = make_state(model, TrainConfig())
    with pytest.raises(MinitrainError, match="^step 1: the loss is nan"):
        train_step(state, [rows_of(still.train, range(8))], 1e-3, StepSettings())
    assert state.step == 0


def test_evaluation_losses_that_are_no_numbers(still: Bench, tmp_path: Path) -> None:
    token = still.validation[0].input_ids[1]
    spoiled = [row for row in range(22) if token in still.validation[row].input_ids]
    assert 0 < len(spoiled) < 22
    theirs = trainer_of(still, tmp_path, per_device_eval_batch_size=1)
    ours = load_classifier(still.folder, 2)
    with torch.no_grad():
        theirs.model.get_parameter("bert.embeddings.word_embeddings.weight")[token] = math.nan  # type: ignore
        ours.get_parameter("encoder.embeddings.word.weight")[token] = math.nan
    assert math.isfinite(theirs.evaluate()["eval_loss"])
    with pytest.raises(MinitrainError, match=f"^row {spoiled[0] + 1}: the model's output is NaN"):
        evaluate(ours, still.validation, metric_for(None, 2))


def test_integers_as_several_labels(still: Bench) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(
        still.folder, num_labels=2, problem_type="multi_label_classification", dtype=torch.float32
    )
    rows = [still.train[row] for row in range(3)]
    integers = [[0, 1], [1, 1], [0, 0]]
    batch = collate([replace(row, label=label) for row, label in zip(rows, integers, strict=True)])
    with pytest.raises(RuntimeError, match="can't be cast to the desired output type Long"):
        model(**batch.inputs, labels=torch.tensor(integers))
    expected = model(**batch.inputs, labels=torch.tensor(integers).float())
    assert batch.labels is not None
    total, count = loss_of(expected.logits, batch.labels)
    assert torch.equal((total / count).float(), expected.loss)


def test_head_trained_for_other_labels(still: Bench, tmp_path: Path) -> None:
    torch.manual_seed(3)
    trained = load_classifier(still.folder, label_names=("cat", "dog"))
    save_classifier(trained, load_tokenizer(still.folder), tmp_path)
    weight = trained.head.get_parameter("output.weight")
    theirs = AutoModelForSequenceClassification.from_pretrained(
        tmp_path, id2label={0: "bad", 1: "good"}, ignore_mismatched_sizes=True
    )
    assert torch.equal(theirs.classifier.weight, weight) and theirs.config.id2label == {0: "bad", 1: "good"}
    with pytest.raises(MinitrainError, match="cat.*new_head"):
        load_classifier(tmp_path, label_names=("bad", "good"))
    anew = load_classifier(tmp_path, label_names=("bad", "good"), new_head=True)
    assert not torch.equal(anew.head.get_parameter("output.weight"), weight)


def test_warm_up_of_a_constant_rate() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    assert get_scheduler("constant", optimizer, num_warmup_steps=10).get_last_lr() == [1.0]
    with pytest.raises(MinitrainError, match="constant has no warm-up: pass constant_with_warmup"):
        TrainConfig(lr_scheduler_type="constant", warmup_steps=10)


def test_first_update_of_accelerates_example() -> None:
    accelerator = Accelerator(cpu=True)
    weight = torch.nn.Parameter(torch.zeros(()))
    optimizer, loader = accelerator.prepare(
        torch.optim.SGD([weight], lr=1.0), DataLoader(torch.tensor([1.0, 10.0, 100.0, 1000.0]), batch_size=1)
    )
    updates, before = [], 0.0
    for step, batch in enumerate(loader):
        accelerator.backward(-(weight * batch).sum() / 2)
        if step % 2 == 0:  # the example's line, for two batches a step
            optimizer.step()
            optimizer.zero_grad()
            updates.append(weight.item() - before)
            before = weight.item()
    assert updates == [0.5, 55.0]  # the first from one batch; the last batch never counts
    with pytest.raises(MinitrainError, match="--match_accelerate means --gradient_accumulation_steps 1, not 2"):
        TrainConfig(match_accelerate=True, gradient_accumulation_steps=2)


def test_epochs_of_an_accumulated_run(still: Bench, tmp_path: Path) -> None:
    flags: dict[str, Any] = {"num_train_epochs": 1, "gradient_accumulation_steps": 3}
    theirs = trainer_of(still, tmp_path, **flags)
    theirs.train()
    epochs = [entry["epoch"] for entry in theirs.state.log_history if "loss" in entry]
    assert epochs == pytest.approx([3 / 8, 6 / 8, 1.0])  # of 8 batches
    recorder, *_ = still.fit(**flags)
    assert [log.epoch for log in recorder.steps] == [1 / 3, 2 / 3, 1.0]


def test_weights_in_a_mapped_file(still: Bench, tmp_path: Path) -> None:
    tensors = load_file(still.folder / "model.safetensors")
    batch = collate([still.validation[0]])
    odd, ours, copies = [], [], []
    for padding in ("", "12345678"):
        folder = tmp_path / f"model{padding}"
        shutil.copytree(still.folder, folder)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt", "padding": padding})
        torch.manual_seed(0)  # of the new head
        reference = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        odd.append(any(parameter.data_ptr() % 16 for parameter in reference.parameters()))
        assert not any(parameter.data_ptr() % 64 for parameter in copied(reference).parameters())
        copies.append(reference(**batch.inputs).logits)
        torch.manual_seed(0)
        model = load_classifier(folder, kernels="reference")
        assert not any(parameter.data_ptr() % 64 for parameter in model.parameters())
        ours.append(model(**batch.inputs))
    assert any(odd)
    assert all(torch.equal(logits, ours[0]) for logits in (ours[1], *copies))


def test_defaults_of_evaluation_and_logging(still: Bench, tmp_path: Path) -> None:
    theirs = TrainingArguments(str(tmp_path))
    assert (theirs.eval_strategy, theirs.logging_steps) == ("no", 500)
    ours = TrainConfig()
    assert (ours.eval_strategy, ours.logging_steps) == ("epoch", None)


def test_arithmetic_and_order_by_default(restless: Bench, tmp_path: Path) -> None:
    theirs = trainer_of(restless, tmp_path)
    first: Any = next(iter(theirs.get_train_dataloader()))
    orders = [make_sampler(TrainConfig(sampler=name), restless.train).batches(0) for name in ("random", "bucket")]
    in_random, in_buckets = (collate([restless.train[row] for row in order[0]]) for order in orders)
    assert torch.equal(first["input_ids"], in_random.input_ids)
    assert not torch.equal(first["input_ids"], in_buckets.input_ids)
    rows = [sorted(row for batch in order for row in batch) for order in orders]
    assert rows[0] == rows[1] == [*range(64)] and TrainConfig().sampler == "bucket"

    torch.manual_seed(42)
    ours = load_classifier(restless.folder, 2, kernels=TrainConfig().kernels)
    with torch.inference_mode():
        expected = theirs.model.eval()(**in_random.inputs).logits  # type: ignore[union-attr]
        # A sum in another order, relative to logits of size 1.
        torch.testing.assert_close(ours.eval()(**in_random.inputs), expected, rtol=1e-5, atol=1e-5)
        drawn = []
        for model in (theirs.model.train(), ours.train()):  # type: ignore[union-attr]
            torch.manual_seed(0)
            output = model(**in_random.inputs)
            drawn.append(getattr(output, "logits", output))
    assert not torch.allclose(drawn[0], drawn[1], rtol=1e-2)  # the same seed, other masks


def test_own_metrics_stand_beside_the_built_in_ones(still: Bench, tmp_path: Path) -> None:
    def own(eval_preds: Any) -> dict[str, float]:
        logits, labels = eval_preds
        return {"accuracy": float(accuracy_score(labels, logits.argmax(-1))), "f1": -1.0, "margin": logits.max()}

    trainer = trainer_of(still, tmp_path)
    trainer.compute_metrics = own
    theirs = trainer.evaluate()
    names = [name for name in theirs if name.startswith("eval_") and "second" not in name and "time" not in name]
    assert sorted(names) == ["eval_accuracy", "eval_f1", "eval_loss", "eval_margin"]

    torch.manual_seed(42)
    recorder = Recorder(load_classifier(still.folder, 2, kernels="reference"))
    config = TrainConfig(match_trainer=True, learning_rate=0.0, max_steps=1)
    evaluation = {"validation": still.validation}
    fit(recorder.model, still.train, evaluation, config, observer=recorder, compute_metrics=own)
    [ours] = [results["validation"].values for _, _, results, _ in recorder.evaluations]
    assert ours == {name: theirs[f"eval_{name}"] for name in ours}
    assert list(ours) == ["loss", "accuracy", "f1", "margin"]
    fit(recorder.model, still.train, evaluation, config, observer=recorder)
    built_in = recorder.evaluations[-1][2]["validation"].values
    assert list(built_in) == ["loss", "accuracy", "f1"] and built_in["f1"] != -1.0


SPEEDS = ("runtime", "samples_per_second", "steps_per_second", "total_flos", "train_loss")


@pytest.mark.parametrize("names", [("validation",), ("validation_a", "validation_b")])
def test_names_in_trackers(
    names: tuple[str, ...], still: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "theirs"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    trackers: Any = TensorBoardCallback(), MLflowCallback()
    steps: dict[str, Any] = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2}
    trainer = trainer_of(still, tmp_path, *trackers, **steps)
    trainer.compute_metrics = lambda found: {"accuracy": (found.predictions.argmax(-1) == found.label_ids).mean()}
    if len(names) > 1:
        rows: Any = trainer.eval_dataset
        trainer.eval_dataset = dict.fromkeys(names, rows)
    trainer.train()
    (run,) = MlflowClient().search_runs(["0"])
    texts, labels = reviews(22, seed=1)
    table = {"text": texts, "label": [("awful", "lovely")[label] for label in labels]}
    config = TrainConfig(
        model=str(still.folder),
        output_dir=str(tmp_path / "ours"),
        report_to=("tensorboard", "mlflow"),
        metrics=("accuracy",),
        logging_steps=1,
        device="cpu",
        **steps,
    )
    train(config, data=dict.fromkeys(("train", *names), table))
    own = json.loads((tmp_path / "ours/trackers.json").read_text(encoding="utf-8"))["mlflow"]["id"]
    found = {
        "mlflow": [set(MlflowClient().get_run(id).data.metrics) for id in (own, run.info.run_id)],
        "tensorboard": [set(read_tensorboard(tmp_path / whose)) for whose in ("ours", "theirs")],
    }
    for tracker, start in (("mlflow", ""), ("tensorboard", "train/")):
        ours, theirs = found[tracker]
        shared = {name for name in theirs if not name.endswith(SPEEDS)}
        assert ours - shared == {f"{start}examples_per_second", f"{start}padding"}
        assert shared <= ours and len(shared) == 4 + 2 * len(names)
