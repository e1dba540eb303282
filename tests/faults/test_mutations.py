"""Whatever is in a file, it is read or refused by name: no other exception, no crash, no hang, nothing is run.

Hypothesis spoils healthy files (`mutations.py` and what builds on it); another process reads them (`probe.py`), in
which time and memory are measured, and whose end would be seen here. Faults 36 to 47 and 51 to 54.
MINITRAIN_MUTATIONS is the number of examples of each kind.
"""

import contextlib
import difflib
import io
import json
import os
import pickle
import re
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st
from mutations import Draw, Mutant, pickles
from parity.reference import save_checkpoint
from probe import HANG
from safetensors.torch import load_file, save_file
from spoilt_models import INDEX, WEIGHTS, config, shards, weights
from spoilt_rows import LABELS, as_jsonl, as_parquet, rows
from spoilt_tokenizers import TOKENS, tokenizer
from transformers import BertTokenizer

EXAMPLES = int(os.environ.get("MINITRAIN_MUTATIONS", "300"))
SECONDS, BYTES = 2.0, 500e6  # that an example may take
LONGEST_MESSAGE = 3000
PROBE = Path(__file__).parent / "probe.py"
KINDS: dict[str, Callable[[Draw, Path], Mutant]] = {
    "weights": weights, "shards": shards, "config": config, "tokenizer": tokenizer, "rows": rows
}  # fmt: skip
# What is wrong with a whole file of rows, and not with one of them.
OF_THE_FILE = (
    "no rows",
    "no column",
    "two classes",
    "the header",
    "--text_columns",
    "parquet",
    "No such",
    "is empty",
    "both called",
    "has no field",
    "behind its name",
    "as its name says",
    "cut short or damaged",
    "git lfs",
    "web page",
    "mark of UTF-8",
    "name it .parquet",
    "Excel workbook",
    "an Arrow file",
)


HEALTHY_ROWS: dict[str, Any] = {"spoilt": "eval_file", "healthy": "counted.jsonl", "name": "counted.parquet"}
HEALTHY_ROWS |= {"problem_type": None, "text_columns": None}


class Probe:
    """The process that reads; a new one after it has died."""

    def __init__(self, folder: Path, hang: float = HANG) -> None:
        self.folder, self.hang = folder, hang
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        environment = os.environ | {
            "HF_DATASETS_CACHE": str(self.folder / "cache"), "HF_HUB_OFFLINE": "1", "MINITRAIN_CACHE": "",
            "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path),
        }  # fmt: skip
        with (self.folder / "stderr").open("w") as errors:
            return subprocess.Popen(
                [sys.executable, "-W", "error", "-X", "faulthandler", str(PROBE), str(self.hang)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True,
            )  # fmt: skip

    def __call__(self, kind: str, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
        if self.process is None:
            self.process = self.start()
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps([kind, str(folder), options]) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if line:
            return dict(json.loads(line))
        code = self.process.wait()
        self.stop()
        errors = (self.folder / "stderr").read_text(errors="replace")[-3000:]
        return {
            "outcome": f"died with {code} (-14: after {self.hang} s)",
            "message": errors,
            "seconds": 0,
            "growth": 0,
        }

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()  # which closes the pipes
            self.process = None


@dataclass
class Tally:
    """What came of the examples of a kind."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, str] = (0.0, "")  # seconds, and of what
    largest: tuple[float, str] = (0.0, "")  # MB

    def add(self, mutant: Mutant, answer: dict[str, Any]) -> None:
        self.outcomes[answer["outcome"]] += 1
        what = f"{mutant.done} {mutant.options.get('name', '')}"
        self.slowest = max(self.slowest, (answer["seconds"], what))
        self.largest = max(self.largest, (answer["growth"] / 1e6, what))

    def share(self, outcome: str) -> float:
        return self.outcomes[outcome] / max(1, self.outcomes.total())


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probe]:
    process = Probe(tmp_path_factory.mktemp("probe"))
    yield process
    process.stop()


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, a tokenizer and files of rows; and code that nobody is to run."""
    folder = tmp_path_factory.mktemp("healthy")
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12, "max_position_embeddings": 16}
    save_checkpoint(folder, vocab_size=32, **sizes)
    settings = json.loads((folder / "config.json").read_text())
    settings["auto_map"] = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}
    (folder / "config.json").write_text(json.dumps(settings))
    for name in ("evil", "conftest", "__init__", "modeling_evil"):
        (folder / f"{name}.py").write_text(f"open({str(folder / 'ran')!r}, 'w').close()\n")
    BertTokenizer(vocab={token: i for i, token in enumerate(TOKENS)}).save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in TOKENS), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text('{"sep_token": {"content": "[SEP]"}, "cls_token": "[CLS]"}')
    (folder / "added_tokens.json").write_text('{"yy": 15}')
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 12}
    settings |= {
        "model_input_names": ["input_ids", "token_type_ids"],
        "auto_map": {"AutoTokenizer": ["evil.Evil", None]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    for name, labels in LABELS.items():
        columns = {"text": ["the dog", "a fox", "a dog"], "label": [labels[i % len(labels)] for i in range(3)]}
        (folder / f"{name}.jsonl").write_bytes(as_jsonl(columns))
        (folder / f"{name}.parquet").write_bytes(as_parquet(columns) or b"")
    return folder


@pytest.fixture(scope="module")
def sharded(healthy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same checkpoint in two files."""
    folder = tmp_path_factory.mktemp("sharded")
    tensors = load_file(healthy / WEIGHTS)
    halves = {key: f"model-{1 + i % 2}.safetensors" for i, key in enumerate(sorted(tensors))}
    for name in set(halves.values()):
        save_file({key: tensors[key] for key in halves if halves[key] == name}, folder / name)
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": halves}))
    shutil.copy(healthy / "config.json", folder)
    return folder


def check(kind: str, mutant: Mutant, folder: Path, answer: dict[str, Any]) -> None:
    """Everything that has to hold, whatever was in the files."""
    message = answer["message"]
    assert answer["outcome"] in ("accepted", "rejected"), message
    assert answer["seconds"] < SECONDS and answer["growth"] < BYTES
    assert not (mutant.fatal and answer["outcome"] == "accepted"), "has to be refused"
    if answer["outcome"] == "rejected":
        # What the probe's own texts and length are found fault with: a healthy tokenizer takes them.
        of_the_call = message.startswith(("--max_length is", "input, row"))
        assert (str(folder) in message or of_the_call) and len(message) < LONGEST_MESSAGE
        message.encode("utf-8")
        if kind == "rows":
            check_rows(mutant, folder / mutant.options["name"], message)


def check_rows(mutant: Mutant, file: Path, message: str) -> None:
    """The file is named, and the row where one is to blame: the spoilt one, or a later one where the first is."""
    assert str(file) in message
    if any(part in message for part in OF_THE_FILE):
        return
    found = re.search(r"(row|line) (\d+)", message)
    assert found is not None
    if mutant.rows is not None and found[1] == "row" and 1 not in mutant.rows:
        assert int(found[2]) in mutant.rows, mutant.rows


def put(folder: Path, base: Path, names: set[str], files: dict[str, bytes | None]) -> None:
    """Write the files (None: take it away), and those of `names` that are not among them as they are in `base`."""
    names |= set(files)
    for name in names:
        healthy = (base / name).read_bytes() if (base / name).exists() else None
        content = files.get(name, healthy)
        if content is None:
            (folder / name).unlink(missing_ok=True)
        else:
            (folder / name).write_bytes(content)


def changes(base: Path, mutant: Mutant) -> str:
    """Where the files differ from the healthy ones, as a reader of a failure wants it."""
    lines = []
    for name, content in mutant.files.items():
        before = (base / name).read_bytes() if (base / name).exists() else b""
        with contextlib.suppress(ValueError, RecursionError):
            before, content = (json.dumps(json.loads(text), indent=1).encode() for text in (before, content or b""))
        old, new = (str(text)[2:-1].split("\\n") for text in (before, content))
        lines += [f"{name}: {line[:200]}" for line in difflib.unified_diff(old, new, n=0, lineterm="")][:20]
    return "\n".join(lines)


@pytest.mark.fault(36, 37, 41, 43, 46, 51, 53)
@pytest.mark.parametrize("kind", KINDS)
def test_a_spoilt_file_is_read_or_refused_by_name(
    kind: str, probe: Probe, healthy: Path, sharded: Path, tmp_path: Path
) -> None:
    base, tally = sharded if kind == "shards" else healthy, Tally()
    folder, names = tmp_path / "spoilt", set[str]()
    shutil.copytree(base, folder)
    first = probe(kind, folder, HEALTHY_ROWS if kind == "rows" else {})
    assert first["outcome"] == "accepted", first["message"]  # and all that is imported once is there

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, print_blob=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(mutant=st.composite(lambda draw: KINDS[kind](draw, base))())
    def every_one(mutant: Mutant) -> None:
        put(folder, base, names, mutant.files)
        answer = probe(kind, folder, mutant.options)
        if answer["seconds"] > SECONDS:  # a busy machine is no fault
            answer = probe(kind, folder, mutant.options)
        tally.add(mutant, answer)
        event(f"{kind}: {answer['outcome']}")
        note(str(answer))
        note(changes(base, mutant))
        check(kind, mutant, folder, answer)
        assert not (base / "ran").exists(), "code in a file was run"

    every_one()
    print(f"\n{kind}: {dict(tally.outcomes)}, slowest {tally.slowest}, largest {tally.largest}")
    # Most of the ways to spoil a file are known to be refused, or to be taken: both have to come up.
    assert tally.share("accepted") > 0.1 and tally.share("rejected") > 0.1


@pytest.mark.parametrize(
    ("how", "seen"),
    [("hang", "died with -14"), ("crash", "died with -6"), ("grow", "accepted"), ("raise", "raised")],
)
def test_what_no_file_may_do_is_seen(how: str, seen: str, tmp_path: Path) -> None:
    probe = Probe(tmp_path, hang=5)
    answer = probe("broken", tmp_path, {"how": how})
    probe.stop()
    assert answer["outcome"].startswith(seen)
    with pytest.raises(AssertionError):
        check("broken", Mutant(), tmp_path, answer)


def test_the_canaries_are_alive(healthy: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    assert len(pickles(ran)) == 7 and not ran.exists()
    for content in pickles(ran):
        if content.startswith(b"PK"):
            torch.load(io.BytesIO(content), weights_only=False)["a"].close()
        else:
            pickle.loads(content).close()
        ran.unlink()  # it is there
    runpy.run_path(str(healthy / "evil.py"))
    (healthy / "ran").unlink()
