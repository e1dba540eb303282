"""The Hub refuses, is busy, drops connections, lies, or is not there. Faults 55 to 63, against a Hub on 127.0.0.1.

Each case is a fresh process, which knows the Hub's address and its cache from its start.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hub_repositories import BERT, GLUE, GLUE_COMMIT, MRPC_SPLITS, NEEDED, bert, glue
from hub_server import COMMIT, Fault, Hub, Repository, nobody, serve

from minitrain.errors import MinitrainError
from minitrain.storage import download
from minitrain.storage.hub_datasets import _data_files

ROOT = Path(__file__).parents[2]
WAY_OUT = "`--model demo --dataset demo`, or `--model demo` with files of your own, needs no network"
REMEDY = "set HF_TOKEN or run `hf auth login`"  # where there is no token
TOKEN = "hf_neverToBeSeenAnywhere"
NAMES = {"model": BERT, "dataset": GLUE}
COMMITS = {"model": COMMIT, "dataset": GLUE_COMMIT}
MRPC = [f"mrpc/{split}-00000-of-00001.parquet" for split in MRPC_SPLITS]
LARGE = {"model": "model.safetensors", "dataset": MRPC[0]}  # of each kind a file of Git LFS
both_kinds = pytest.mark.parametrize("kind", ["model", "dataset"])

ASK = """
import json, sys, time
from minitrain.storage import download
from minitrain.storage.hub import resolve_model
from minitrain.data.tables.load import load_tables
kind, name, revision = sys.argv[1], sys.argv[2], sys.argv[3] or None
download.WAITS = tuple(wait * float(sys.argv[4]) for wait in download.WAITS)
__import__({"model": "huggingface_hub", "dataset": "datasets"}[kind])  # what that costs is not what is measured
started = time.perf_counter()
try:
    if kind == "model":
        found = {"folder": str(resolve_model(name, revision))}
    else:
        tables = load_tables(name, "mrpc", revision)
        found = {"rows": {split: len(table) for split, table in tables.items()}}
        found |= {"commit": tables["train"].commit, "first": tables["train"].column("sentence1")[0]}
except ValueError as error:
    found = {"error": f"{type(error).__name__}: {error}"}
print(json.dumps(found | {"seconds": time.perf_counter() - started}))
"""


@dataclass(frozen=True)
class Answer:
    """What came of asking for a model or dataset: its facts or its error, seconds, and standard error."""

    facts: dict[str, Any]
    stderr: str

    @property
    def error(self) -> str:
        assert "error" in self.facts, self.facts
        return str(self.facts["error"])

    def is_good(self, kind: str) -> bool:
        assert "error" not in self.facts, self.facts["error"]
        if kind == "dataset":
            return bool(self.facts["rows"] == MRPC_SPLITS and self.facts["commit"] == GLUE_COMMIT)
        folder = Path(self.facts["folder"])
        same = [path.read_bytes() == REPOSITORIES["model"].commits[COMMIT][path.name] for path in folder.iterdir()]
        return folder.name == COMMIT and {path.name for path in folder.iterdir()} == NEEDED and all(same)


REPOSITORIES = {"model": bert(), "dataset": glue()}


def environment(home: Path, url: str, **variables: str) -> dict[str, str]:
    unwanted = ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_ENDPOINT", "RANK", "WORLD_SIZE")
    outside = {name: value for name, value in os.environ.items() if name not in unwanted}
    own = {"HF_HOME": str(home), "HF_ENDPOINT": url, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    return outside | own | variables


def ask(
    kind: str,
    home: Path,
    url: str,
    name: str | None = None,
    revision: str = "",
    waits: float = 0.1,
    **variables: str,
) -> Answer:
    """Ask for a model or dataset in a process. waits: for a busy Hub, as a share of what users wait."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, kind, name or NAMES[kind], revision, str(waits)],
        env=environment(home, url, **variables),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return Answer(json.loads(done.stdout), done.stderr)


def train(
    home: Path, url: str, out: Path, *flags: str, processes: int = 1, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The main command, with no flags about model and data."""
    many = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    words = [
        str(ROOT / "scripts/train.py"),
        "--max_steps",
        "4",
        "--output_dir",
        str(out),
        "--report",
        "false",
        *flags,
    ]
    return subprocess.run(
        [sys.executable, *many, *words],
        env=environment(home, url, **variables),
        capture_output=True,
        text=True,
        timeout=180,
    )


def outcome(out: Path) -> tuple[dict[str, Any], list[float]]:
    """What a run says of itself, and the loss of each step."""
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return results, [line["loss"] for line in lines if line["event"] == "step"]


def warnings_in(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if "warning" in line.lower() or "cache" in line.lower()]


# --- 55: refused ---


@pytest.mark.fault(55)
@both_kinds
@pytest.mark.parametrize("token", [None, "hf_another"])
def test_what_is_hidden_is_named_with_what_a_token_would_do(tmp_path: Path, kind: str, token: str | None) -> None:
    hidden = Repository(NAMES[kind], REPOSITORIES[kind].commits, kind, REPOSITORIES[kind].revisions, private=True)
    with serve(hidden, token=TOKEN) as hub:
        refused = ask(kind, tmp_path, hub.url, **({"HF_TOKEN": token} if token else {}))
        statuses = {request.status for request in hub.requests if request.path.startswith("/api/")}
        assert (404 if token else 401) in statuses, "nothing was refused"
        assert ask(kind, tmp_path, hub.url, HF_TOKEN=TOKEN).is_good(kind)
    what = {"model": "config.json", "dataset": "the dataset's mrpc"}[kind]
    expected = f"HubError: {NAMES[kind]}: {what} not found: no such {kind} on the Hub, or it is private (HTTP "
    assert refused.error.startswith(expected + ("404" if token else "401"))
    remedy = "use a token that may read it" if token else REMEDY
    assert refused.error.endswith(f"check the name; for a private one {remedy}")


@pytest.mark.fault(55)
@both_kinds
@pytest.mark.parametrize("token", [None, "hf_another"])
def test_what_is_gated_is_named_with_where_to_ask(tmp_path: Path, kind: str, token: str | None) -> None:
    gated = Repository(NAMES[kind], REPOSITORIES[kind].commits, kind, REPOSITORIES[kind].revisions, gated=True)
    with serve(gated, token=TOKEN) as hub:
        refused = ask(kind, tmp_path, hub.url, **({"HF_TOKEN": token} if token else {}))
        assert (403 if token else 401) in {request.status for request in hub.requests}, "nothing was refused"
        assert ask(kind, tmp_path, hub.url, HF_TOKEN=TOKEN).is_good(kind)
    file = {"model": "config.json", "dataset": "README.md"}[kind]
    remedy = "use a token that may read it" if token else REMEDY
    assert refused.error == (
        f"HubError: {NAMES[kind]}: {file} is gated; ask for access on the repository's page, and {remedy}"
    )


@pytest.mark.fault(55)
@both_kinds
@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "", "the Hub refuses {file} (HTTP 403); {remedy}"),
        (401, "", "the Hub refuses {file} (HTTP 401); {remedy}"),
        (404, "EntryNotFound", "has no file {file}, which minitrain needs; check the name"),
    ],
)
def test_one_file_that_is_refused_is_named(tmp_path: Path, kind: str, status: int, code: str, said: str) -> None:
    fault = Fault(rf"/resolve/.*{LARGE[kind]}$", status=status, headers={"X-Error-Code": code})
    with serve(REPOSITORIES[kind], faults=(fault,)) as hub:
        refused = ask(kind, tmp_path, hub.url)
    assert fault.injected > 0
    assert refused.error == f"HubError: {NAMES[kind]}: {said.format(file=LARGE[kind], remedy=REMEDY)}"


# --- 56: busy ---

BUSY = {
    "model": (
        Fault("GET /api/models/", 1, 503),
        Fault("HEAD .*config.json", 1, 503),
        Fault("GET .*vocab.txt", 1, 429, {"Retry-After": "1"}),
        Fault("GET /lfs/.*safetensors", 2, 503),
    ),
    "dataset": (
        Fault("GET /api/datasets/nyu-mll/glue$", 1, 429, {"Retry-After": "1"}),
        Fault("GET /api/datasets/.*/revision/", 1, 500),
        Fault("GET /api/datasets/.*/tree/", 1, 503),
        Fault("HEAD .*README.md", 1, 503),
        Fault("GET /lfs/.*validation", 2, 503),
    ),
}


@pytest.mark.fault(56)
@both_kinds
def test_a_busy_hub_is_asked_again(tmp_path: Path, kind: str) -> None:
    with serve(REPOSITORIES[kind], faults=BUSY[kind]) as hub:
        assert ask(kind, tmp_path, hub.url).is_good(kind)
    assert [fault.injected for fault in BUSY[kind]] == [fault.times for fault in BUSY[kind]]


@pytest.mark.fault(56)
@both_kinds
def test_a_hub_that_stays_busy_is_asked_a_few_times_only(tmp_path: Path, kind: str) -> None:
    fault = Fault("GET /api/(models|datasets)/", status=503)
    with serve(REPOSITORIES[kind], faults=(fault,)) as hub:
        answer = ask(kind, tmp_path, hub.url, waits=1)
    assert fault.injected == 4 and 6 < answer.facts["seconds"] < 20
    assert answer.error.startswith(f"HubError: {NAMES[kind]}: the Hub keeps answering HTTP 503 for ")
    assert answer.error.endswith(f"try later; {WAY_OUT}")


# --- 57: dropped ---


@pytest.mark.fault(57)
def test_a_file_whose_connection_drops_is_gone_on_with(tmp_path: Path) -> None:
    # The library writes ten megabytes at a time: what is less begins anew.
    content = os.urandom(1 << 20) * 24
    files = {"config.json": b"{}", "model.safetensors": content}
    fault = Fault("GET /lfs/", 1, cut=True)
    with serve(Repository("org/large", {COMMIT: files}), faults=(fault,)) as hub:
        answer = ask("model", tmp_path, hub.url, "org/large")
        ranges = [request.range for request in hub.requests if "/lfs/" in request.path]
    assert fault.injected == 1
    assert ranges == [None, f"bytes={10 << 20}-"]
    assert (Path(answer.facts["folder"]) / "model.safetensors").read_bytes() == content


@pytest.mark.fault(57)
@both_kinds
def test_drops_everywhere_leave_no_trace(tmp_path: Path, kind: str) -> None:
    faults = tuple(Fault(f"GET .*{name}", 1, cut=True) for name in (LARGE[kind], "config.json|README.md"))
    with serve(REPOSITORIES[kind], faults=faults) as hub:
        assert ask(kind, tmp_path, hub.url).is_good(kind)
    assert [fault.injected for fault in faults] == [1, 1]


@pytest.mark.fault(57)
def test_a_download_that_never_succeeds_ends_in_a_message_and_leaves_no_half_model(tmp_path: Path) -> None:
    fault = Fault("GET /lfs/", cut=True)
    with serve(bert(), faults=(fault,)) as hub:
        answer = ask("model", tmp_path, hub.url)
    assert fault.injected > 1
    assert answer.error.startswith(f"HubError: {BERT}: model.safetensors is not in the cache and the Hub cannot be")
    assert WAY_OUT in answer.error
    later = ask("model", tmp_path, nobody())
    assert later.error.startswith(f"HubError: {BERT}: config.json is not in the cache"), "half a model was taken"


# --- 58: wrong content ---


@pytest.mark.fault(58)
@both_kinds
def test_wrong_content_of_the_right_size_is_found_and_removed(tmp_path: Path, kind: str) -> None:
    fault = Fault(f"GET /lfs/.*{LARGE[kind]}", 1, wrong=True)
    with serve(REPOSITORIES[kind], faults=(fault,)) as hub:
        answer = ask(kind, tmp_path, hub.url)
        assert fault.injected == 1
        assert f"{NAMES[kind]}: {LARGE[kind]} came with sha256 " in answer.error
        digest = answer.error.split("the Hub says ")[1].split(":")[0]
        assert answer.error.endswith("changed on its way and has been removed; run again, or from another network")
        left = [path.name for path in tmp_path.rglob("*")]
        assert digest not in left and Path(LARGE[kind]).name not in left
        assert not [name for name in left if name.endswith(".arrow")]  # nothing was made from it
        assert ask(kind, tmp_path, hub.url).is_good(kind)


# --- 59: an outage with a cache ---


@pytest.mark.fault(59)
@both_kinds
@pytest.mark.parametrize("how", ["nobody there", "unknown host", "HTTP 503", "HTTP 401", "half-way"])
def test_an_outage_is_bridged_by_the_cache_with_one_warning(tmp_path: Path, kind: str, how: str) -> None:
    with serve(REPOSITORIES[kind]) as hub:
        assert ask(kind, tmp_path, hub.url).is_good(kind)
    fault = Fault(
        "GET /lfs/" if how == "half-way" else ".*",
        status=401 if how == "HTTP 401" else 503,
        headers={"X-Error-Code": "RepoNotFound"} if how == "HTTP 401" else {},
    )
    newer = {"model": bert("a" * 40, seed=1), "dataset": glue("a" * 40, seed=1)}[kind]
    with serve(newer if how == "half-way" else REPOSITORIES[kind], faults=(fault,)) as hub:
        url = {"nobody there": nobody(), "unknown host": "http://hub.invalid"}.get(how, hub.url)
        answer = ask(kind, tmp_path, url)
    assert answer.is_good(kind)
    if url == hub.url:
        assert fault.injected > 0
    said = [
        line for line in warnings_in(answer.stderr) if "HTTP Error" not in line
    ]  # retries have lines of their own
    assert len(said) == 1, answer.stderr
    assert f"{NAMES[kind]}: the Hub " in said[0] or "not found: no such" in said[0]
    assert said[0].endswith(f"; using commit {COMMITS[kind]} from the cache")


@pytest.mark.fault(59)
@both_kinds
def test_who_asked_to_be_offline_is_not_warned(tmp_path: Path, kind: str) -> None:
    with serve(REPOSITORIES[kind]) as hub:
        assert ask(kind, tmp_path, hub.url).is_good(kind)
        asked = len(hub.requests)
        answer = ask(kind, tmp_path, hub.url, HF_HUB_OFFLINE="1")
        assert len(hub.requests) == asked
    assert answer.is_good(kind) and warnings_in(answer.stderr) == []


# --- 60: offline without a cache ---


@pytest.mark.fault(60)
@both_kinds
@pytest.mark.parametrize("how", ["asked to", "nobody there", "unknown host"])
def test_without_network_and_cache_it_is_said_at_once(tmp_path: Path, kind: str, how: str) -> None:
    url = "http://hub.invalid" if how == "unknown host" else nobody()  # RFC 6761: resolves nowhere
    answer = ask(kind, tmp_path, url, **({"HF_HUB_OFFLINE": "1"} if how == "asked to" else {}))
    what = {"model": "config.json", "dataset": "the dataset's mrpc"}[kind]
    start = f"HubError: {NAMES[kind]}: {what} is not in the cache and the Hub cannot be reached ("
    assert answer.error.startswith(start) and WAY_OUT in answer.error
    # The libraries' own retries take some twenty seconds a file.
    assert answer.facts["seconds"] < 3


# --- 61: several processes ---


@pytest.mark.fault(61)
def test_processes_of_a_node_download_each_file_once(tmp_path: Path) -> None:
    with serve(bert(), glue(), token=TOKEN) as hub:
        own = {"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
        done = train(tmp_path, hub.url, tmp_path / "out", "--push_to_hub", "me/mrpc", processes=2, **own)
        assert done.returncode == 0, done.stderr
        weights = hub.repositories["model", "me/mrpc"].files["model.safetensors"]
        assert weights == (tmp_path / "out/model.safetensors").read_bytes()
        assert len(hub.commits) == 1, "not only the main process uploaded"
        asked = [request for request in hub.requests if request.path.startswith(f"/api/models/{BERT}")]
        assert len(asked) == 2, "the second process did not take part"
        assert sorted(hub.downloads()) == sorted([*NEEDED, "README.md", *MRPC])
    results, _ = outcome(tmp_path / "out")
    assert results["steps"] == 4


@pytest.mark.fault(61)
def test_a_download_that_fails_ends_all_processes_with_one_message(tmp_path: Path) -> None:
    fault = Fault("/resolve/.*model.safetensors", status=403)
    with serve(bert(), glue(), faults=(fault,)) as hub:
        done = train(tmp_path, hub.url, tmp_path / "out", processes=2)
    assert fault.injected == 1  # of the process that went ahead
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("train.py: ")]
    assert said == [f"train.py: {BERT}: the Hub refuses model.safetensors (HTTP 403); {REMEDY}"]


# --- 62: names that leave their folder ---


@pytest.mark.fault(62)
@both_kinds
@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "model-/../../../../x.safetensors",
        "/tmp/x.parquet",
        "C:\\x.parquet",
        "mrpc\\..\\..\\x",
    ],
)
def test_a_name_that_leaves_its_folder_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    good = REPOSITORIES[kind]
    commit = COMMITS[kind]
    bad = Repository(good.name, {commit: {**good.commits[commit], name: b"evil"}}, kind, good.revisions)
    with serve(bad) as hub:
        answer = ask(kind, tmp_path / "home", hub.url)
        assert any(request.path.startswith("/api/") and request.status == 200 for request in hub.requests)
        assert hub.downloads() == []
    assert answer.error == (
        f"MinitrainError: {good.name}: lists the file {name!r}, a name that leaves its folder: nothing is "
        "downloaded; do not trust this repository"
    )
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.fault(62)
@pytest.mark.parametrize("path", ["{tmp_path}/x.parquet", "../../x.parquet", "hf://datasets/org/other/x.parquet"])
def test_a_card_that_names_files_elsewhere_is_refused(tmp_path: Path, path: str) -> None:
    good = REPOSITORIES["dataset"]
    files = dict(good.commits[GLUE_COMMIT])
    (tmp_path / "x.parquet").write_bytes(files[MRPC[0]])
    named = path.format(tmp_path=tmp_path).encode()
    files["README.md"] = files["README.md"].replace(b"path: mrpc/train-*", b"path: " + named)
    assert named in files["README.md"]
    other = Repository("org/other", {COMMIT: {"x.parquet": files[MRPC[0]]}}, "dataset")
    with serve(Repository(GLUE, {GLUE_COMMIT: files}, "dataset", good.revisions), other) as hub:
        answer = ask("dataset", tmp_path, hub.url)
        assert hub.downloads() == ["README.md"]
    assert answer.error.startswith(f"MinitrainError: --dataset {GLUE} mrpc: ")
    assert len(answer.error) < 300


@pytest.mark.fault(62)
def test_data_files_are_the_repositorys_own_whatever_datasets_finds() -> None:
    repository = download.Repository(name=GLUE, kind="dataset")
    inside = f"hf://datasets/{GLUE}@{GLUE_COMMIT}/"

    def names(*addresses: str) -> list[str]:
        builder = SimpleNamespace(config=SimpleNamespace(data_files={"train": list(addresses)}))
        return _data_files(builder, repository, GLUE_COMMIT, None, lambda card, files: None)

    assert names(f"{inside}mrpc/a.parquet", f"{inside}b.csv") == ["mrpc/a.parquet", "b.csv"]
    for address in ("/etc/passwd", "hf://datasets/org/other@main/x.csv", f"hf://datasets/{GLUE}@main/x.csv"):
        with pytest.raises(MinitrainError, match=f"{GLUE}: its README.md names '{address}', a file outside of"):
            names(f"{inside}b.csv", address)
    with pytest.raises(MinitrainError, match="a name that leaves its folder"):
        names(f"{inside}../b.csv")


# --- 63: the token ---


@pytest.mark.fault(63)
def test_a_token_is_sent_to_the_hub_and_seen_nowhere(tmp_path: Path) -> None:
    model, data = bert(), glue()
    model.private = data.private = True
    flags = ("--save_strategy", "steps", "--save_steps", "2", "--logging_steps", "1", "--eval_strategy", "no")
    with serve(model, data, token=TOKEN) as hub:
        done = train(tmp_path / "home", hub.url, tmp_path / "out", *flags, HF_TOKEN=TOKEN)
        assert done.returncode == 0, done.stderr
        sent = {
            request.host.partition(":")[0] for request in hub.requests if request.authorization == f"Bearer {TOKEN}"
        }
        assert sent == {"127.0.0.1"}, "the storage's host is another, and has no business with it"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"results.json", "log.jsonl", "state.json"} <= {path.name for path in files}
    assert [path for path in files if TOKEN.encode() in path.read_bytes()] == []
    assert TOKEN not in done.stdout + done.stderr


@pytest.mark.fault(63)
@both_kinds
@pytest.mark.parametrize("fault", ["hidden", "gated", "wrong", "no header"])
def test_no_error_shows_the_token(tmp_path: Path, kind: str, fault: str) -> None:
    good = REPOSITORIES[kind]
    hidden, gated = fault == "hidden", fault == "gated"
    token = f"{TOKEN}\u00e9" if fault == "no header" else TOKEN  # HTTP has no way to send this
    faults = (Fault("GET /lfs/", 1, wrong=True),) if fault == "wrong" else ()
    with serve(Repository(good.name, good.commits, kind, good.revisions, hidden, gated), faults=faults) as hub:
        answer = ask(kind, tmp_path, hub.url, HF_TOKEN=token)
        sent = any(request.authorization == f"Bearer {TOKEN}" for request in hub.requests)
        assert sent == (fault != "no header")
    assert NAMES[kind] in answer.error
    assert TOKEN not in json.dumps(answer.facts) + answer.stderr


# --- The main command, and revisions ---


@pytest.fixture(scope="module")
def main_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Hub]:
    """The cache, the run's folder and the Hub after the main command, which had nothing in the cache."""
    home, out = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("runs") / "out"
    with serve(bert(), glue()) as hub:
        done = train(home, hub.url, out)
        assert done.returncode == 0, done.stderr
    return home, out, hub


def test_the_main_command_trains_on_what_the_hub_has(main_run: tuple[Path, Path, Hub]) -> None:
    _, out, hub = main_run
    assert sorted(hub.downloads()) == sorted([*NEEDED, "README.md", *MRPC])  # each once, no pickle, no other subset
    results, losses = outcome(out)
    assert (results["model"], results["model_commit"]) == (BERT, COMMIT)
    assert (results["dataset"], results["subset"], results["dataset_commit"]) == (GLUE, "mrpc", GLUE_COMMIT)
    assert results["labels"] == ["not_equivalent", "equivalent"]
    assert set(results["results"]) == {"validation", "test"}
    assert results["steps"] == 4 and losses


@pytest.mark.fault(59)
@pytest.mark.parametrize("processes", [1, 2])
def test_the_main_command_survives_an_outage(
    tmp_path: Path, main_run: tuple[Path, Path, Hub], processes: int
) -> None:
    home, out, _ = main_run
    done = train(home, nobody(), tmp_path / "out", processes=processes)
    assert done.returncode == 0, done.stderr
    said = warnings_in(done.stderr)
    # In either order: the data may be read by a process of its own.
    assert {line.rpartition("using commit ")[2] for line in said} == {
        f"{COMMIT} from the cache",
        f"{GLUE_COMMIT} from the cache",
    }
    assert len(said) == 2
    if processes == 1:
        assert outcome(tmp_path / "out")[1] == outcome(out)[1]


def test_a_run_is_of_the_revisions_that_are_asked_for(tmp_path: Path) -> None:
    commits = {"model": ("1" * 40, "2" * 40), "dataset": ("3" * 40, "4" * 40)}
    both = []
    for kind, make in (("model", bert), ("dataset", glue)):
        first, second = commits[kind]
        repository = make(first)
        repository.commits |= make(second, seed=1).commits
        repository.revisions = {"v1": first, "main": second, "refs/pr/1": second}
        both.append(repository)
    with serve(*both) as hub:
        for asked, expected in ((None, 1), ("v1", 0), ("refs/pr/1", 1), ("first commit", 0)):
            flags = [] if asked is None else [f"--{kind}_revision={asked}" for kind in commits]
            if asked == "first commit":
                flags = [f"--{kind}_revision={commits[kind][0]}" for kind in commits]
            done = train(tmp_path, hub.url, tmp_path / str(asked), *flags)
            assert done.returncode == 0, done.stderr
            results, _ = outcome(tmp_path / str(asked))
            assert [results[f"{kind}_commit"] for kind in commits] == [pair[expected] for pair in commits.values()]
        for kind, name in NAMES.items():
            said = ask(kind, tmp_path, hub.url, revision="v9").error
            assert said.startswith(f"HubError: {name}: the Hub has no revision 'v9' of it; pass a branch, tag or")
            assert said.endswith(f"as --{kind}_revision")
    # Without the Hub, what is used is the revision that was asked for, or nothing.
    for kind, (first, second) in commits.items():
        for asked, commit in (("v1", first), ("main", second), (first, first)):
            answer = ask(kind, tmp_path, nobody(), revision=asked)
            found = answer.facts.get("commit") or answer.facts.get("folder") or answer.error
            assert found.endswith(commit) or f"{NAMES[kind]}: " in found and "not in the cache" in found
        assert "not in the cache" in ask(kind, tmp_path, nobody(), revision="v2").error
