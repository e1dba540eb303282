"""The half of the tests' Hub that takes uploads, as huggingface_hub 2.4 makes them over plain HTTP.

Small files come inside the commit. Large ones come before it through Git LFS: the client asks where to put them,
and the Hub leaves out what it holds. Not here: hf_xet's storage, which HF_HUB_DISABLE_XET=1 leaves out.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hub_server import Hub

USER, TEAM = "me", "team"  # whose the token is, and an organization of theirs


class Uploads(BaseHTTPRequestHandler):
    """Answers requests that write. `uploaded` and `commits` of the Hub say what arrived."""

    server: Hub

    def take(self, path: str, body: bytes) -> bool:
        """Answer a request about uploads; False if it is about something else."""
        if path == "/api/whoami-v2":
            self.whoami()
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path == "/api/validate-yaml":
            refused = "refused:" in json.loads(body)["content"]  # no key that the Hub knows
            errors = [{"message": "refused"}] if refused else []
            self.answer(json.dumps({"errors": errors, "warnings": []}).encode(), 400 if refused else 200)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            self.preupload(found[1], json.loads(body))
        elif found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self.batch(json.loads(body))
        elif self.command == "PUT" and (found := re.fullmatch(r"/lfs/([0-9a-f]{64})", path)):
            self.put(found[1], body)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            self.commit(found[1], [json.loads(line) for line in body.splitlines()])
        else:
            return False
        return True

    def body(self, cut: bool) -> bytes | None:
        """The content of the request; None, half-way through it, if the connection is to be cut."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            return self.chunks(cut)
        size = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(size // 2 if cut else size)
        return None if cut else content

    def chunks(self, cut: bool) -> bytes | None:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
            if cut:
                return None
        self.rfile.readline()
        return b"".join(parts)

    def may_write(self, owner: str) -> bool:
        return self.may_read() and self.server.role == "write" and owner.lower() in (USER, TEAM)

    def whoami(self) -> None:
        if not self.may_read():
            return self.answer(b"", 401)
        orgs, role = [{"name": TEAM}], {"accessToken": {"role": self.server.role}}
        self.json({"type": "user", "name": USER, "orgs": orgs, "auth": role})

    def create(self, asked: dict[str, Any]) -> None:
        from hub_server import COMMIT, Repository

        name = f"{asked['organization'] or USER}/{asked['name']}"
        url = {"url": f"{self.server.url}/{name}"}
        if not self.may_write(name.split("/")[0]):
            return self.answer(b"", 403 if self.may_read() else 401)
        if ("model", name) in self.server.repositories:
            return self.answer(json.dumps(url).encode(), 409, {"Content-Type": "application/json"})
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.server.repositories["model", name] = Repository(name, {COMMIT: {}}, private=private)
        self.json(url)

    def preupload(self, name: str, asked: dict[str, Any]) -> None:
        from hub_server import LARGE, _git_id

        files = self.server.repositories["model", name].files
        ignored = files.get(".gitignore", b"").decode().splitlines()
        answers = []
        for file in asked["files"]:
            large, before = file["path"].endswith(LARGE), files.get(file["path"])
            oid = None if before is None else hashlib.sha256(before).hexdigest() if large else _git_id(before)
            mode = "lfs" if large else "regular"
            answers.append(
                {"path": file["path"], "uploadMode": mode, "oid": oid, "shouldIgnore": file["path"] in ignored}
            )
        self.json({"files": answers})

    def batch(self, asked: dict[str, Any]) -> None:
        held, objects = self.large_files(), []
        for each in asked["objects"]:
            upload = {"upload": {"href": f"{self.server.storage}/{each['oid']}"}}
            objects.append(each if each["oid"] in held else {**each, "actions": upload})
        self.json({"transfer": "basic", "objects": objects})

    def put(self, digest: str, body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != digest:
            return self.answer(b"the content has another digest", 400)
        self.server.uploaded.append(body)
        self.answer(b"")

    def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        if not self.may_write(name.split("/")[0]):
            return self.answer(b"", 403)
        repository, held = self.server.repositories["model", name], self.large_files()
        files = dict(repository.files)
        for line in lines[1:]:
            value = line["value"]
            content = held[value["oid"]] if line["key"] == "lfsFile" else base64.b64decode(value["content"])
            files[value["path"]] = content
        commit = hashlib.sha1(json.dumps(lines).encode()).hexdigest()
        repository.commits[commit] = files
        repository.revisions["main"] = commit
        self.server.commits.append(lines[0]["value"]["summary"])
        self.json({"commitUrl": f"{self.server.url}/{name}/commit/{commit}", "commitOid": commit})
