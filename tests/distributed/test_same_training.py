"""However many processes train, it is the same training: order, losses, gradients, metrics and predictions."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import reviews, write_tiny_model
from test_main import named_reviews, write_csv
from workers import gradients_with_and_without_dropout, in_turn, logits, train_runs

from minitrain.distributed.launcher import launch

SIZES = (29, 31, 5)  # two global batches of 12 and 5 more, or 7 more; less than one
COUNTS = (1, 3, 29)  # fewer than processes, as many, and not a multiple
WINDOWS: dict[str, Any] = {"long_texts": "windows", "max_length": 12}
# The same loss twice: a function whose counts are known after the forward pass, and a weight for each class.
WEIGHTED: tuple[dict[str, Any], ...] = ({"own_loss": True}, {"class_weights": {"lovely": 5.0, "awful": 1.0}})
DROPOUT: dict[str, dict[str, Any]] = {
    "off": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0},
    "of each example": {"dropout_rng": "example"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_tiny_model(folder / "tiny")
    for size in SIZES:
        write_csv(folder / f"train-{size}.csv", *named_reviews(size))
    write_csv(folder / "eval.csv", *named_reviews(21, seed=1))
    for name, count in (("several", 29), ("several-eval", 21)):
        texts = reviews(count, seed=count)[0]
        found = [[word for word in ("great", "dull", "plot") if word in text.split()] for text in texts]
        write_csv(folder / f"{name}.csv", texts, list(map(",".join, found)))
    return folder


@pytest.fixture(scope="module")
def found(place: Path) -> dict[int, list[list[Any]]]:
    """By number of processes: of each rank, what runs, gradients and predictions came to."""
    kinds = [(f"train-{size}", "eval", {}) for size in SIZES]
    several = ("several", "several-eval", {"label_separator": ","})
    flags: list[dict[str, Any]] = [
        {
            "model": str(place / "tiny"),
            "train_file": str(place / f"{train}.csv"),
            "eval_file": str(place / f"{evaluation}.csv"),
            "output_dir": str(place / f"{train}-{name}-{len(options)}"),
            "global_batch_size": 12,
            "learning_rate": 3e-3,
            "num_train_epochs": 2,
            **dropout,
            **options,
        }
        for train, evaluation, options in [*kinds, ("train-29", "eval", WINDOWS), several]
        for name, dropout in DROPOUT.items()
    ]
    for one, loss in zip(flags[:2], WEIGHTED, strict=True):
        flags.append(one | loss | {"output_dir": f"{one['output_dir']}-weighted"})
    work: list[tuple[Any, tuple[Any, ...]]] = [
        (train_runs, (flags,)),
        (gradients_with_and_without_dropout, (str(place / "tiny"), *reviews(24))),
        (logits, (str(place / "tiny"), [reviews(count)[0] for count in COUNTS])),
    ]
    few: list[tuple[Any, tuple[Any, ...]]] = [(train_runs, (flags[:2],))]  # four share two cores
    return {n: launch(in_turn, (work if n < 4 else few,), n) for n in (1, 2, 3, 4)}


@pytest.mark.fault(28, 29)
def test_losses_and_metrics_do_not_depend_on_the_number_of_processes(
    found: dict[int, list[list[Any]]],
) -> None:
    runs = {processes: [rank[0] for rank in ranks] for processes, ranks in found.items()}
    [alone] = runs.pop(1)
    assert list(runs) == [2, 3, 4]
    for processes, ranks in runs.items():
        assert len(ranks[0]) == (2 if processes == 4 else 12)
        for expected, run in zip(alone[: len(ranks[0])], ranks[0], strict=True):
            assert run["config"]["per_device_train_batch_size"] == 12 // processes
            assert run["losses"] == pytest.approx(expected["losses"], abs=1e-5)
            assert len(run["losses"]) == run["steps"] == expected["steps"]
            ours, theirs = run["results"]["validation"], expected["results"]["validation"]
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
            assert {**ours, "loss": None} == {**theirs, "loss": None}  # counts, so exactly
        for rank in ranks[1:]:
            assert [run["results"] for run in rank] == [run["results"] for run in ranks[0]]
    assert abs(alone[0]["losses"][0] - alone[-2]["losses"][0]) > 1e-2  # the weights were there
    # Dropout was there, where it was asked for, and the losses moved.
    for without, with_dropout in zip(alone[::2], alone[1::2], strict=True):
        assert len(set(without["losses"])) == len(without["losses"])
        assert max(abs(a - b) for a, b in zip(without["losses"], with_dropout["losses"], strict=True)) > 1e-3


@pytest.mark.parametrize("streams", [False, True], ids=["without dropout", "dropout of each example"])
def test_gradient_of_a_global_batch_does_not_depend_on_its_cuts(
    found: dict[int, list[list[Any]]], streams: bool
) -> None:
    """One, two and four passes of each rank of one, two and three processes."""
    first, *others = [cut for n in (1, 2, 3) for rank in found[n] for cut in rank[1][streams]]
    assert len(others) == (1 + 2 + 3) * 3 - 1
    for cut in others:
        for name, whole in first.items():
            assert torch.allclose(cut[name], whole, rtol=1e-6, atol=1e-6), name


def test_predictions_come_in_the_order_of_the_rows_bit_for_bit(found: dict[int, list[list[Any]]]) -> None:
    [(*_, alone)] = found[1]
    for *_, ranks in found[3]:
        for count, predicted, expected in zip(COUNTS, ranks, alone, strict=True):
            assert torch.equal(predicted, expected)
            assert expected.isfinite().all() and len(expected.unique()) > count
