"""--class_weights as a flag, a dict and a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from minitrain.config.class_weights import as_flag, read_class_weights
from minitrain.config.train_config import TrainConfig
from minitrain.errors import MinitrainError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ("balanced", "balanced"),
        ("urgent=4,other=1", {"urgent": 4.0, "other": 1.0}),
        (' "a, b" = 0.5 , "c=d"=2e3', {"a, b": 0.5, "c=d": 2000.0}),
        ('{"x": 1, "y": "2.5"}', {"x": 1.0, "y": 2.5}),
        ({0: 1, "1": 3.5}, {"0": 1.0, "1": 3.5}),
    ],
)
def test_weights_are_read_in_every_form(given: Any, expected: Any) -> None:
    assert TrainConfig(class_weights=given).class_weights == expected


def test_weights_are_read_from_a_file_and_kept_by_value(tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    path.write_text(json.dumps({"no": 1, "yes": 30}), encoding="utf-8")
    assert TrainConfig(class_weights=path).class_weights == {"no": 1.0, "yes": 30.0}


def test_the_flag_that_a_message_prints_is_read_back() -> None:
    weights = {"a, b": 0.5, " c": 2.0, 'd"': 3.0}
    assert read_class_weights(as_flag(weights).removeprefix("--class_weights ")) == weights


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("balance", r"--class_weights balance: expected balanced, or name=weight"),
        ("a=1,b", r"--class_weights a=1,b: expected balanced"),
        ("a=1,a=2", r"names 'a' twice"),
        ("a=zero", r"weight of 'a' is 'zero'; expected a finite number above 0"),
        ("a=0", r"weight of 'a' is '0'.*leave out its rows"),
        ("a=-1", r"weight of 'a' is '-1'"),
        ("a=inf", r"weight of 'a' is 'inf'"),
        ("a=nan", r"weight of 'a' is 'nan'"),
        ({"a": True}, r"weight of 'a' is True"),
        ({"a": None}, r"weight of 'a' is None"),
        ({"a": 10**400}, r"weight of 'a' is 1000"),
        ({("a",): 1}, r"\('a',\) is no name of a class"),
        ({}, r"is empty"),
        ("[1, 2]", r"--class_weights \[1, 2\]: expected balanced"),
        ("nowhere.json", r"--class_weights nowhere.json: cannot be read"),
        ('{"a": 1', r"is not valid JSON .*write \{\"name\": weight"),
        ([1.0, 2.0], r"--class_weights is \[1.0, 2.0\] \(list\)"),
    ],
)
def test_what_is_no_weight_of_a_name_is_refused(given: Any, message: str) -> None:
    with pytest.raises(MinitrainError, match=message):
        TrainConfig(class_weights=given)
