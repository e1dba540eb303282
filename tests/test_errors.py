"""What messages show: enough to find the place, and nothing that floods or breaks a terminal."""

import json
from pathlib import Path

import pytest
from safetensors import SafetensorError, safe_open

from minitrain.config.label_map import as_flag
from minitrain.errors import MinitrainError, listed, python_command, shown
from minitrain.storage.safetensors_io import tensor_keys

LONG = {
    "text": "x" * 10**6,
    "number": 10**4000,
    "lists": [[["a" * 500] * 500] * 500] * 500,
    "table": {str(number): number for number in range(999)},
}


@pytest.mark.parametrize("kind", LONG)
def test_a_long_value_is_shown_short(kind: str) -> None:
    text = shown(LONG[kind])
    assert len(text) <= 300 and "..." in text


def test_what_another_library_says_is_cut_short(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": "x" * 10**5}).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(SafetensorError, match="x{1000}"):
        safe_open(file, framework="pt")
    with pytest.raises(MinitrainError, match=r"\(Error .*x\.\.\.x.* at line 1 column \d+\); download") as error:
        tensor_keys(file)
    assert len(str(error.value)) < len(str(file)) + 400


def test_a_value_deeper_than_repr_goes_is_shown() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(RecursionError):
        repr(deep)
    assert shown(deep) == "[[[[...]]]]"


def test_a_command_or_map_too_long_for_a_message_is_left_out() -> None:
    assert python_command("print(1)") == "\n  python -c 'print(1)'"
    assert "too long for a command" in python_command(f"print({'x' * 1000!r})")
    assert as_flag({"x" * 1000: "a"}) == "--label_map FILE.json"


def test_names_are_listed_up_to_twenty_and_short() -> None:
    assert listed(["text", "label"]) == "text, label"
    assert listed(str(i) for i in range(21)) == ", ".join(map(str, range(20))) + " ..."
    assert len(listed(["x" * 10**6])) == 100
    assert listed(["\ud800"]) == r"\ud800"
