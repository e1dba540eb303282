"""A Hub of one repository on 127.0.0.1: as much of its protocol as a download needs, and what it was asked for.

Set `HF_ENDPOINT` to its `url` in the environment of a fresh process; huggingface_hub reads it when it is imported.
"""

import hashlib
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves `files` as the model `repository`.

    cuts: file -> how many times its connection is cut half-way. refusal: status and error code of every answer
    about the repository, where it is not to be had.
    """

    daemon_threads = True

    def __init__(
        self,
        repository: str,
        files: Mapping[str, bytes],
        cuts: Mapping[str, int] | None = None,
        refusal: tuple[int, str] | None = None,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repository, self.files, self.cuts, self.refusal = repository, dict(files), dict(cuts or {}), refusal
        self.asked: list[str] = []  # "GET config.json", in the order of arrival
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of connections that were cut on purpose."""


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        path, files = self.path.split("?")[0], self.server.files
        api, resolve = f"/api/models/{self.server.repository}", f"/{self.server.repository}/resolve/"
        if path == "/":
            self._answer(b"")
        elif self.server.refusal is not None and self.server.repository in path:
            self._answer(b"", self.server.refusal[0], {"X-Error-Code": self.server.refusal[1]})
        elif path in (api, f"{api}/revision/main"):
            siblings = [{"rfilename": name} for name in files]
            self._answer(_json({"id": self.server.repository, "sha": COMMIT, "siblings": siblings}))
        elif path == f"{api}/tree/{COMMIT}":
            rows = [{"type": "file", "path": n, "size": len(b), "oid": _oid(b)} for n, b in files.items()]
            self._answer(_json(rows))
        elif path.startswith(resolve):
            self._file(path.removeprefix(resolve).partition("/")[2])
        else:
            self._answer(b"", 404, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _file(self, name: str) -> None:
        self.server.asked.append(f"{self.command} {name}")
        if name not in self.server.files:
            return self._answer(b"", 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        body = self.server.files[name]
        headers = {"ETag": f'"{_oid(body)}"', "X-Repo-Commit": COMMIT}
        start = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
        cut = self.command == "GET" and self.server.cuts.get(name, 0) > 0
        if cut:
            self.server.cuts[name] -= 1
        self._answer(body[start:], 206 if start else 200, headers, cut)

    def _answer(
        self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None, cut: bool = False
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = self.close_connection or cut

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the tests' standard error."""


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _oid(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


@contextmanager
def serve(
    repository: str,
    files: Mapping[str, bytes],
    cuts: Mapping[str, int] | None = None,
    refusal: tuple[int, str] | None = None,
) -> Iterator[Hub]:
    """A running Hub, shut down at the end of the block."""
    hub = Hub(repository, files, cuts, refusal)
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
