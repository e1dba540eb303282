"""The count of operations against PyTorch's own, and the screen that --profile ends with."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from parity.reference import make_inputs, make_labels, our_loss, save_checkpoint
from test_loop import write_tiny_model
from test_main import named_reviews, write_csv
from torch.utils.flop_counter import FlopCounterMode

from minitrain.config.train_config import TrainConfig
from minitrain.kernels import matmul
from minitrain.kernels.matmul import MATMULS
from minitrain.model.freezing import freeze_layers
from minitrain.model.weights import load_classifier
from minitrain.run.main import train
from minitrain.run.profile import PHASES, matrix_ceiling, profile_lines, training_flops

# Layers so wide that embeddings and head, which are left out, are next to nothing.
WIDE = {"hidden_size": 128, "intermediate_size": 512}


@pytest.mark.parametrize("kernels", ["fast", "reference"])
@pytest.mark.parametrize(
    ("family", "shape"),
    [
        ("bert", {"num_hidden_layers": 3}),
        ("albert", {"num_hidden_layers": 3, "num_hidden_groups": 2, "inner_group_num": 2, "embedding_size": 8}),
        ("mpnet", {"num_hidden_layers": 3}),
        ("modernbert", {"num_hidden_layers": 3, "classifier_pooling": "mean"}),
        # Its queries of the last layer are counted as the few that are used, while all are made.
        ("modernbert", {"num_hidden_layers": 6}),
    ],
)
def test_operations_are_those_that_pytorch_counts(
    tmp_path: Path, kernels: str, family: str, shape: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its counter does not know oneDNN's product, which some processors would choose.
    monkeypatch.setattr(matmul, "fastest_matmul", lambda name, dtype: MATMULS[name][0])
    save_checkpoint(tmp_path, family, **WIDE, **shape)
    inputs = make_inputs(type("Config", (), {"vocab_size": 99, "pad_token_id": 0, "type_vocab_size": 2}))
    model = load_classifier(tmp_path, kernels=kernels).train()
    with FlopCounterMode(display=False) as counter:
        our_loss(model(**inputs), make_labels(2, 5)).backward()
    rows, length = inputs["input_ids"].shape
    ours = training_flops(model, rows, length)
    assert abs(ours / counter.get_total_flops() - 1) < 0.02


def test_frozen_layers_have_no_backward_and_kept_ones_no_forward(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, num_hidden_layers=3, **WIDE)
    model = load_classifier(tmp_path, kernels="reference")
    whole = training_flops(model, 4, 16)
    for layers in (1, 2, 3):
        freeze_layers(model, layers)
        assert training_flops(model, 4, 16) == pytest.approx(whole * (1 - layers / 3 * 2 / 3))
        assert training_flops(model, 4, 16, kept=True) == pytest.approx(whole * (1 - layers / 3))


def test_the_ceiling_is_a_rate_that_a_product_reaches() -> None:
    rate = matrix_ceiling(torch.float32, torch.device("cpu"), size=256)
    assert 1e8 < rate < 1e14


def test_the_screen_adds_up() -> None:
    totals = {
        "data": 1.0,
        "forward": 2.0,
        "backward": 4.0,
        "clip": 0.5,
        "optimizer": 1.5,
        "step": 10.0,
        "steps": 10,
        "flops": 5e9,
    }
    lines = profile_lines(totals, ceiling=2e9, dtype="fp32")
    assert [line.split() for line in lines[1:-1]] == [
        ["data", "100.0", "ms", "10.0%"],
        ["forward", "200.0", "ms", "20.0%"],
        ["backward", "400.0", "ms", "40.0%"],
        ["clip", "50.0", "ms", "5.0%"],
        ["optimizer", "150.0", "ms", "15.0%"],
        ["the", "rest", "100.0", "ms", "10.0%"],
        ["step", "1000.0", "ms", "100.0%"],
    ]
    assert "0.5 GFLOP" in lines[-1] and "25% of the 2" in lines[-1]


def test_profile_says_where_the_time_of_a_run_went(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_csv(tmp_path / "train.csv", *named_reviews(20))
    train(
        TrainConfig(
            model=str(write_tiny_model(tmp_path / "tiny")),
            train_file=str(tmp_path / "train.csv"),
            eval_strategy="no",
            max_steps=5,
            gradient_accumulation_steps=2,
            profile=True,
            output_dir=str(tmp_path / "run"),
            device="cpu",
        )
    )
    screen = capsys.readouterr().out.split("where the time of a step goes, over 5 steps\n")[1].splitlines()
    milliseconds = {
        match[1]: float(match[2]) for line in screen if (match := re.match(r"  (\w[\w ]*?) +([\d.]+) ms", line))
    }
    assert milliseconds.keys() == {*PHASES, "the rest", "step"}
    assert all(milliseconds[phase] > 0 for phase in ("forward", "backward", "optimizer"))
    parts = sum(value for name, value in milliseconds.items() if name != "step")
    assert abs(parts - milliseconds["step"]) < 0.1 * len(milliseconds)  # each is rounded to a tenth
