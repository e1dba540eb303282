"""The table of faults and bad input: each row is a behaviour owed to users, and a test that bears its number.

The tests stand where their subject is tested and are marked `fault(row)`; `make faults` runs them all. Each injects
its fault for real and asserts that it did. CLOSEST says what stands for a fault that cannot be had here.
"""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

ROWS = {
    # storage
    1: "SIGKILL at a random step: the rerun resumes, final weights bitwise those of a run without it",
    2: "SIGKILL while writing: only ever a temporary folder is left, never chosen, swept later",
    3: "SIGKILL while rotating: no pointer file trusted, the old goes after the new verifies, best and last stay",
    4: "power loss: files and folder forced to the disk, renamed, the parent forced",
    5: "full disk: the old checkpoint kept, nothing of the new one, path and room named",
    6: "read-only output folder: fails before anything is downloaded",
    7: "two runs in one folder: the second stops, naming host and process id",
    8: "truncation or a flipped bit: the file is named, resume falls back loudly, an explicit path is an error",
    9: "mistyped resume path: an error, never a fresh start",
    10: "a file replaced while it is used: tensors are copies, files never written in place",
    11: "paths beyond ASCII, umask: work, and files are not left at 0600",
    # resume
    12: "resume at every step: bitwise equal",
    13: "another number of processes: same order of examples, loss within tolerance",
    14: "a global batch that processes cannot share evenly: the numbers that can are listed",
    15: "changed settings: old -> new, and on only when told to",
    16: "changed dataset, tokenizer or label names: an error",
    17: "a finished run: says so, status 0",
    18: "a newer format of checkpoint: both versions named",
    # signals and processes
    19: "SIGTERM or SIGINT: the step is finished, saved, status 143 or 130",
    20: "SIGTERM to one rank: all stop at the same step",
    21: "a second signal, or one during a save: the old checkpoint is intact",
    22: "a rank killed: the others fail fast, naming the step",
    23: "a hung rank: a configurable timeout",
    24: "one rank raises: shown once, no hang",
    25: "bad rendezvous, busy port, missing variables: address and timeout named",
    26: "ranks disagree on arguments, data or versions: rank and field named",
    27: "checkpoint on the first node alone: broadcast",
    28: "fewer examples than processes: no hang, exact metrics",
    29: "one example in the last batch: exact weighting",
    30: "the tokenizers' warning about forks: absent",
    # numbers
    31: "NaN or infinite loss or gradient: stopped before the step, which is named with its rows",
    32: "NaN in the weights: the tensor named",
    33: "exploding gradients: clipped, the raw norm logged",
    34: "out of memory: batch x length stated, a smaller batch with accumulation suggested",
    35: "a class absent: F1 0.0, one warning",
    # model files
    36: "safetensors with a bad header length, overlap, hole, truncation, deep JSON: refused with the path",
    37: "duplicate keys, empty names, shapes of 2^40 x 0: refused",
    38: "wrong shape or dtype: key, expected, found; half precision loaded as float32",
    39: "missing keys: only of the head; extra keys: those of an allowlist",
    40: "a Git LFS pointer or a web page instead of weights: said so",
    41: "a shard index with ../, an absolute path or a missing shard: refused before opening",
    42: "pickle only, or a pickle renamed: refused with how to convert, nothing in it ever runs",
    43: "config: unknown model_type, sizes, activation, dropout: the field named",
    44: "NaN or Infinity in the config: refused",
    45: "auto_map, *.py in the repository: nothing is ever imported",
    46: "a bad tokenizer.json, missing special tokens: the path named",
    47: "token ids beyond the model's vocabulary: an error on the id",
    # data
    48: "more tokens than fit: truncated, and how many counted",
    49: "max_length below the special tokens + 1: an error",
    50: "empty or blank text: special tokens only, counted",
    51: "None, NaN, numbers, bytes, lone surrogates as text: row, column, type",
    52: "NUL, right-to-left, emoji, a word of 200,000 characters: the ids of the reference",
    53: "labels that are none: row and range; strings get a saved map",
    54: "missing column, empty split, a single class: the columns there are",
    # the Hub
    55: "404, 401, 403: repository, file, and what a token would do",
    56: "503 or 429, then good: asked again",
    57: "a connection dropped inside a file: resumed",
    58: "wrong content of the right size: the sha256 is compared",
    59: "an outage with a cache: used, with one warning naming the commit",
    60: "offline without a cache: at once, naming the file and the demo",
    61: "many ranks: one download a node, its error reaches all",
    62: "a file name that leaves its folder: refused",
    63: "a token: never in a log, a checkpoint or an error",
}
CLOSEST = {
    4: "power cannot be cut here: the order of forcing, renaming and forcing is watched instead",
}


def marked() -> dict[int, list[str]]:
    """The tests that bear each number, read from the syntax trees."""
    found = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for mark in getattr(node, "decorator_list", ()):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                    for row in mark.args:
                        assert isinstance(node, ast.FunctionDef) and isinstance(row, ast.Constant)
                        found[row.value].append(f"{path.relative_to(TESTS)}::{node.name}")
    return dict(found)


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_a_test(row: int) -> None:
    assert marked().get(row), f"row {row}, {ROWS[row]!r}, has no test marked fault({row})"


def test_no_test_bears_a_number_that_there_is_not() -> None:
    assert set(marked()) == set(ROWS) >= set(CLOSEST)
