"""Over several processes the user's function runs in one, and all agree; if it raises, all end."""

from pathlib import Path
from typing import Any

import pytest
from workers import fit_with_own_metrics

from minitrain.distributed.launcher import launch
from minitrain.errors import MinitrainError


def test_own_metrics_and_ranks_agree_in_all_processes(place: Path) -> None:
    alone = fit_with_own_metrics(str(place / "tiny"), False)
    ranks: list[dict[str, Any]] = launch(fit_with_own_metrics, (str(place / "tiny"), False), 2)
    assert alone["values"] == ranks[0]["values"] == ranks[1]["values"]  # at a learning rate of 0
    assert {"roc_auc", "average_precision", "shape", "calls"} <= alone["values"][0].keys()
    assert [rank["called"] for rank in (alone, *ranks)] == [2, 2, 0]
    assert [rank["observed"] for rank in (alone, *ranks)] == [2, 2, 0]
    assert {rank["best"] for rank in (alone, *ranks)} == {2.0}


def test_an_exception_in_one_process_ends_all_with_its_message(place: Path) -> None:
    with pytest.raises(MinitrainError, match="compute_metrics, your function, raised ZeroDivisionError: not today"):
        launch(fit_with_own_metrics, (str(place / "tiny"), True), 2)
