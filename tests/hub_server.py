"""A Hub on 127.0.0.1: as much of its protocol as huggingface_hub and datasets need, what is to go wrong with it,
and what it was asked.

Models and datasets, each a history of commits with branches and tags on them. Small files come from the Hub itself
with the git object id as ETag; large ones (weights, parquet) are Git LFS's: the Hub tells digest and size in
X-Linked-Etag and X-Linked-Size and sends on to another host, here `localhost`, which gives ranges of them.

Set `HF_ENDPOINT` to its `url` in the environment of a fresh process; huggingface_hub reads it when it is imported.
"""

import hashlib
import json
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import parse_qs, quote, unquote, urlsplit

from hub_uploads import Uploads

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin", ".h5", ".onnx", ".parquet")  # what goes through Git LFS
ALWAYS = 1_000_000


@dataclass
class Repository:
    """kind: model or dataset. commits: files by name, of each commit. revisions: branches and tags, to commits.

    private: hidden from all without the Hub's `token`. gated: seen by all, read with that token only.
    """

    name: str
    commits: dict[str, Mapping[str, bytes]]
    kind: str = "model"
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    private: bool = False
    gated: bool = False

    @property
    def files(self) -> Mapping[str, bytes]:
        """Those of the main branch."""
        return self.commits[self.revisions["main"]]


@dataclass
class Fault:
    """What goes wrong with the first `times` requests like "GET /org/tiny/resolve/..." that match `where`.

    status, headers: of the answer in place of the right one. cut: the connection drops half-way through the
    content. late: the connection drops after the work, before the answer. wrong: other content of the same size.
    injected: how often it went wrong.
    """

    where: str
    times: int = ALWAYS
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    late: bool = False
    wrong: bool = False
    injected: int = 0


@dataclass(frozen=True)
class Request:
    """One that arrived, and the status of its answer."""

    method: str
    path: str
    authorization: str | None
    range: str | None
    host: str
    status: int


class Hub(ThreadingHTTPServer):
    """Serves repositories. token: the only one that is valid. requests: in the order of their answers.

    role: what the token may do. uploaded: contents that came through Git LFS. commits: the titles of those made.
    """

    daemon_threads = True

    def __init__(self, *repositories: Repository, faults: tuple[Fault, ...] = (), token: str = "hf_valid") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = {(repository.kind, repository.name): repository for repository in repositories}
        self.faults, self.token, self.lock = list(faults), token, Lock()
        self.requests: list[Request] = []
        self.role, self.uploaded, self.commits = "write", list[bytes](), list[str]()
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.storage = f"http://localhost:{self.server_port}/lfs"  # another host, as the Hub's is

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of connections that were cut on purpose."""

    def fault_of(self, line: str) -> Fault | None:
        """The fault that a request meets, counted."""
        with self.lock:
            for fault in self.faults:
                if fault.injected < fault.times and re.search(fault.where, line):
                    fault.injected += 1
                    return fault
        return None

    def downloads(self) -> list[str]:
        """The names of the files whose content was sent, whole or from somewhere on, in order."""
        sent = [request for request in self.requests if request.method == "GET" and request.status in (200, 206)]
        paths = [request.path for request in sent if "/resolve/" in request.path or "/lfs/" in request.path]
        return [unquote(re.sub(r".*/(resolve|lfs)/[^/]+/", "", path)) for path in paths]


class _Handler(Uploads):
    server: Hub

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        fault = self.server.fault_of(f"{self.command} {unquote(path)}")
        self.cut, self.wrong = (fault.cut, fault.wrong) if fault else (False, False)
        self.late = fault is not None and fault.late
        body = b"" if self.command in ("GET", "HEAD") else self.body(self.cut)
        if body is None:
            self.close_connection = True
            return None
        if fault and fault.status:
            return self.answer(b"", fault.status, fault.headers)
        if self.take(path, body):
            return None
        if found := re.fullmatch(r"/lfs/([0-9a-f]{64})/.*", path):
            return self.answer(self.large_files()[found[1]])
        found = re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/(.+))?", path)
        if found:
            kind, name, what, rest = found.groups(default="")
        elif found := re.fullmatch(r"/(?:(dataset)s/)?([^/]+/[^/]+)/resolve/(.+)", path):
            kind, name, what, rest = found[1] or "model", found[2], "resolve", found[3]
        else:
            return self.answer(b"", 404)
        repository = self.server.repositories.get((kind, name))
        if repository is None or repository.private and not self.may_read():
            # The Hub does not tell one from the other: 401 without a token, 404 with one.
            status = 404 if self.headers["Authorization"] else 401
            return self.answer(b"", status, {"X-Error-Code": "RepoNotFound"})
        revision, _, rest = rest.partition("/")
        revision = unquote(revision) or "main"
        commit = repository.revisions.get(revision, revision)
        if commit not in repository.commits:
            return self.answer(b"", 404, {"X-Error-Code": "RevisionNotFound"})
        files = repository.commits[commit]
        if what == "resolve":
            self.resolve(repository, commit, unquote(rest))
        elif what == "tree":
            self.json(_tree(files, unquote(rest)))
        elif what == "paths-info":
            asked = parse_qs(body.decode())["paths"]
            self.json([row for row in _tree(files, "") if row["path"] in asked])
        else:
            siblings = [{"rfilename": file} for file in files]
            flags = {"gated": repository.gated, "private": repository.private}
            self.json({"id": name, "sha": commit, "siblings": siblings, **flags})

    do_HEAD = do_POST = do_PUT = do_GET

    def may_read(self) -> bool:
        return bool(self.headers["Authorization"] == f"Bearer {self.server.token}")

    def large_files(self) -> dict[str, bytes]:
        """By sha256."""
        commits = [files for each in self.server.repositories.values() for files in each.commits.values()]
        every = [body for files in commits for body in files.values()]
        return {hashlib.sha256(body).hexdigest(): body for body in [*every, *self.server.uploaded]}

    def resolve(self, repository: Repository, commit: str, name: str) -> None:
        head = {"X-Repo-Commit": commit}
        if repository.gated and not self.may_read():
            return self.answer(b"", 403 if self.headers["Authorization"] else 401, {"X-Error-Code": "GatedRepo"})
        if name not in repository.commits[commit]:
            return self.answer(b"", 404, {"X-Error-Code": "EntryNotFound", **head})
        body = repository.commits[commit][name]
        if not name.endswith(LARGE):
            return self.answer(body, headers={"ETag": f'"{_git_id(body)}"', **head})
        digest = hashlib.sha256(body).hexdigest()
        place = {"Location": f"{self.server.storage}/{digest}/{quote(name)}"}
        self.answer(b"", 302, {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(body)), **place, **head})

    def json(self, value: object) -> None:
        self.answer(json.dumps(value).encode(), headers={"Content-Type": "application/json"})

    def answer(self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        more = dict(headers or {})
        if asked and status == 200:
            start, end = int(asked[1]), int(asked[2] or len(body) - 1)
            status, more["Content-Range"] = 206, f"bytes {start}-{end}/{len(body)}"
            body = body[start : end + 1]
        if self.wrong:
            body = bytes(255 - byte for byte in body)
        if self.late:
            self.close_connection = True
            return
        token, host = self.headers["Authorization"], self.headers["Host"]
        self.server.requests.append(Request(self.command, self.path, token, self.headers["Range"], host, status))
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **more}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if self.cut else body)
        self.close_connection = self.close_connection or self.cut

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the tests' standard error."""


def _git_id(body: bytes) -> str:
    """What git calls a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


def _tree(files: Mapping[str, bytes], folder: str) -> list[dict[str, object]]:
    """A folder's files and folders, at any depth."""
    rows: list[dict[str, object]] = []
    for name, body in files.items():
        if folder and not name.startswith(f"{folder}/"):
            continue
        rows.append({"type": "file", "path": name, "size": len(body), "oid": _git_id(body)})
        if name.endswith(LARGE):
            digest = hashlib.sha256(body).hexdigest()
            rows[-1]["lfs"] = {"oid": digest, "size": len(body), "pointerSize": 134}
    parents = {name.rpartition("/")[0] for name in files} - {"", folder}
    return rows + [
        {"type": "directory", "path": name, "size": 0, "oid": _git_id(name.encode())} for name in parents
    ]


@contextmanager
def serve(*repositories: Repository, faults: tuple[Fault, ...] = (), token: str = "hf_valid") -> Iterator[Hub]:
    """A running Hub, shut down at the end of the block."""
    hub = Hub(*repositories, faults=faults, token=token)
    thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


def nobody() -> str:
    """An address where nothing listens, as on a machine without a network."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"
