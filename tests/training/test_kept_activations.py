"""Kept hidden states: the same training as without keeping, and the frozen layers computed once."""

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.reference import REFERENCES, save_checkpoint
from test_freezing import LAYERS
from test_loop import Recorder, write_tiny_model
from test_main import named_reviews, write_csv
from workers import train_runs

from minitrain.config.train_config import TrainConfig
from minitrain.data.examples import as_split
from minitrain.data.tokenizer.tokenizer import Example
from minitrain.distributed.launcher import launch
from minitrain.errors import MinitrainError
from minitrain.model.weights import load_classifier
from minitrain.run.main import train
from minitrain.storage.scratch import check_room, scratch
from minitrain.training.kept_activations import bytes_to_keep
from minitrain.training.loop import fit

GROUPS = {"num_hidden_groups": 3, "inner_group_num": 2}
MORE: dict[str, dict[str, Any]] = {"albert": GROUPS, "deberta-v2": {"conv_kernel_size": 3}}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for the hidden states."""
    monkeypatch.setenv("MINITRAIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def examples(count: int, vocabulary: int, seed: int = 0) -> list[Example]:
    """Rows of 2 to 19 random ids, neither of them padding."""
    draw = random.Random(seed)
    rows = [[draw.randrange(5, vocabulary) for _ in range(draw.randint(2, 19))] for _ in range(count)]
    return [Example(ids, [0] * len(ids), row % 2) for row, ids in enumerate(rows)]


def trained(folder: Path, **flags: Any) -> Recorder:
    torch.manual_seed(0)
    model = load_classifier(folder, 2, kernels=flags.get("kernels", "fast"))
    recorder = Recorder(model)
    config = TrainConfig(
        **{"learning_rate": 3e-3, "weight_decay": 0.01, "num_train_epochs": 2, "per_device_eval_batch_size": 5}
        | flags
    )
    rows = examples(26, 99), {"validation": examples(9, 99, seed=1)}
    fit(model, *rows, config, observer=recorder, pad_token_id=model.config.pad_token_id)
    return recorder


def assert_same_run(folder: Path, tolerance: float = 1e-6, **flags: Any) -> None:
    kept, plain = trained(folder, keep_activations=True, **flags), trained(folder, frozen_dropout=False, **flags)
    assert kept.losses == pytest.approx(plain.losses, abs=tolerance)
    assert kept.evaluated("loss") == pytest.approx(plain.evaluated("loss"), abs=tolerance)
    assert len(set(kept.losses)) == len(kept.losses) > 3 and len(kept.evaluations) == 2


@pytest.mark.parametrize("family", REFERENCES)
def test_losses_of_every_family_are_those_without_keeping(tmp_path: Path, family: str) -> None:
    save_checkpoint(tmp_path, family, **{LAYERS.get(family, "num_hidden_layers"): 3} | MORE.get(family, {}))
    assert_same_run(tmp_path, freeze=2)


KINDS: dict[str, dict[str, Any]] = {
    "all layers": {"freeze": "encoder"},
    "reference kernels": {"freeze": 1, "kernels": "reference"},
    "all layers, reference kernels": {"freeze": 2, "kernels": "reference", "optim": "adamw_torch"},
    "accumulation, rates by layer": {"freeze": 1, "gradient_accumulation_steps": 2, "layerwise_lr_decay": 0.8},
    "padded to a multiple": {"freeze": 1, "pad_to_multiple_of": 8},
    "random stream of each example": {"freeze": 1, "dropout_rng": "example"},
    "the best of the evaluations": {"freeze": 1, "load_best_model_at_end": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_without_keeping(tmp_path: Path, kind: str) -> None:
    save_checkpoint(tmp_path)
    assert_same_run(tmp_path, **KINDS[kind])


def test_in_bf16_the_losses_are_as_close_as_bf16_is(tmp_path: Path) -> None:
    """The frozen layers see other batches, whose products oneDNN may sum in another order, and round to 8 bits."""
    save_checkpoint(tmp_path)
    assert_same_run(tmp_path, tolerance=2e-2, freeze=1, bf16=True)


def test_a_head_that_reads_all_positions_gets_them(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "modernbert", classifier_pooling="mean")
    assert_same_run(tmp_path, freeze="encoder")


def test_without_a_cache_folder_the_states_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINITRAIN_CACHE", "")
    save_checkpoint(tmp_path)
    assert_same_run(tmp_path, freeze=1)


def test_frozen_layers_are_computed_once_for_each_row(tmp_path: Path, cache: Path) -> None:
    save_checkpoint(tmp_path)
    model = load_classifier(tmp_path, 2)
    seen: list[int] = []
    for module in (model.encoder.embeddings, model.encoder.blocks[0]):
        module.register_forward_hook(lambda *args: seen.append(len(args[2])))
    upper: list[int] = []
    model.encoder.blocks[1].register_forward_hook(lambda *args: upper.append(len(args[2])))
    config = TrainConfig(freeze=1, keep_activations=True, num_train_epochs=3)
    fit(model, examples(26, 99), {"validation": examples(9, 99)}, config, pad_token_id=0)
    assert sum(seen) == 2 * (26 + 9) and sum(upper) == 3 * (26 + 9)
    assert list(cache.iterdir()) == []  # the file never had a name


def test_only_the_first_position_is_kept_where_the_head_reads_no_other(tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    split = as_split(examples(26, 99))
    for freeze, positions in ((1, sum(split.lengths)), ("encoder", 26)):
        model = load_classifier(tmp_path, 2)
        fit(model, split, {}, TrainConfig(freeze=freeze, keep_activations=True, eval_strategy="no", max_steps=1))
        assert bytes_to_keep(model, [split]) == positions * 32 * 4


def test_left_padding_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    split = as_split(examples(26, 99))
    split.padding_side = "left"
    config = TrainConfig(freeze=1, keep_activations=True, eval_strategy="no")
    with pytest.raises(MinitrainError, match="pads on the left"):
        fit(load_classifier(tmp_path, 2), split, {}, config)


def test_a_disk_without_room_is_an_error_with_a_way_out(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for reserve in (scratch, check_room):
        with pytest.raises(
            MinitrainError, match=r"cache: --keep_activations needs 1000000000.00 GB there, .* free"
        ):
            reserve(10**18)
    monkeypatch.setenv("MINITRAIN_CACHE", "/proc/nowhere")
    with pytest.raises(MinitrainError, match="/proc/nowhere: .*MINITRAIN_CACHE=/somewhere"):
        scratch(10)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_tiny_model(folder / "tiny")
    write_csv(folder / "train.csv", *named_reviews(32))
    write_csv(folder / "eval.csv", *named_reviews(9, seed=1))
    return folder


def flags_of(place: Path, **more: Any) -> dict[str, Any]:
    files = {f"{name}_file": str(place / f"{name}.csv") for name in ("train", "eval")}
    return {"model": str(place / "tiny"), **files, "learning_rate": 3e-3, "num_train_epochs": 2} | more


def test_two_processes_train_as_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = flags_of(place, output_dir=str(place / "kept"), global_batch_size=8, freeze=1, keep_activations=True)
    kept |= {"dropout_rng": "example", "layerwise_lr_decay": 0.9}
    [two], [other] = launch(train_runs, ([kept],), 2)
    monkeypatch.setenv("WORLD_SIZE", "1")  # which `train_runs` puts into the name of its folder
    plain = kept | {"keep_activations": False, "frozen_dropout": False, "output_dir": str(place / "plain")}
    for one in train_runs([kept, plain]):
        assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
        assert two["results"]["validation"] | {"loss": 0} == one["results"]["validation"] | {"loss": 0}
    assert other["results"] == two["results"]


def test_run_says_what_it_trains_and_keeps(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = {"freeze": 1, "keep_activations": True, "layerwise_lr_decay": 0.5, "output_dir": str(tmp_path / "run")}
    results = train(TrainConfig(**flags_of(place, **more, max_steps=2)))
    out = capsys.readouterr().out
    assert "M parameters; frozen: the embeddings and the lowest of 2 layers, without dropout" in out
    assert f"keeping  0.00 GB of frozen layers' output in {os.environ['MINITRAIN_CACHE']}: " in out
    assert "rates    layers 0.0015, head 0.003" in out
    model = load_classifier(tmp_path / "run")
    assert results["parameters"]["all"] == sum(p.numel() for p in model.parameters())
    assert 0 < results["parameters"]["trained"] < results["parameters"]["all"]
    assert json.loads((tmp_path / "run/results.json").read_text())["config"]["freeze"] == "1"
    start = load_classifier(place / "tiny", 2).state_dict()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, start[name])}
    assert moved and not [name for name in moved if name.startswith(("encoder.embeddings", "encoder.blocks.0"))]


def test_resuming_with_another_freeze_is_refused_even_if_changes_are_allowed(place: Path, tmp_path: Path) -> None:
    run = flags_of(place, output_dir=str(tmp_path / "run"), save_strategy="epoch")
    train(TrainConfig(**run, freeze=1))
    again = run | {"resume": "newest", "num_train_epochs": 3}
    with pytest.raises(MinitrainError, match="other settings: .*freeze: 1 -> None"):
        train(TrainConfig(**again))
    for other in ({}, {"freeze": "encoder"}, {"freeze": 1, "layerwise_lr_decay": 0.9}):
        with pytest.raises(MinitrainError, match="moments in the checkpoint are of other parameters or groups"):
            train(TrainConfig(**again, **other, resume_changed=True))
    assert train(TrainConfig(**again, freeze=1, resume_changed=True))["steps"] == 12
