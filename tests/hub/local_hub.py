"""A Hub on this machine, in memory: what `push_to_hub`, `from_pretrained` and `load_dataset` ask of huggingface.co."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_localHubSecretToken"


@dataclass
class Commit:
    files: dict[str, bytes]
    message: str = "initial commit"
    oid: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        names = [f"{name}{hashlib.sha1(content).hexdigest()}" for name, content in sorted(self.files.items())]
        self.oid = self.oid or hashlib.sha1(f"{self.message}{names}".encode()).hexdigest()


@dataclass
class Repository:
    private: bool
    branches: dict[str, list[Commit]] = field(default_factory=lambda: {"main": [Commit({".gitattributes": b""})]})
    pull_requests: int = 0
    gated: bool = False

    def commit_at(self, revision: str) -> Commit | None:
        if revision in self.branches:
            return self.branches[revision][-1]
        return next((one for many in self.branches.values() for one in many if one.oid == revision), None)


@dataclass
class Fault:
    """What happens to the next so many requests whose path holds `where`: a status, or a connection that drops."""

    where: str
    status: int | None
    times: int = 1_000
    message: str = "the server's own words"


class LocalHub:
    """`with LocalHub() as hub:` serves at `hub.url`."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}  # of models by their names, of data sets with "datasets/" before
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        self.user: dict[str, Any] = {"name": "me", "type": "user", "orgs": []}
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "LocalHub":
        Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def add_dataset(self, repo_id: str, files: dict[str, bytes], gated: bool = False) -> Repository:
        repository = Repository(private=False, branches={"main": [Commit(files)]}, gated=gated)
        self.repositories[f"datasets/{repo_id}"] = repository
        return repository

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        commit = self.repositories[repo_id].commit_at(revision)
        assert commit is not None
        return commit.files

    def fault_of(self, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.where in path and fault.times > 0:
                fault.times -= 1
                return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Tests read `hub.requests`; nothing is printed."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.hub.requests.append(f"{self.command} {path}")
        self.hub.tokens.add(self.headers.get("Authorization"))
        fault = self.hub.fault_of(path)
        if fault is not None and fault.status is None:
            self.rfile.read(min(1000, int(self.headers.get("Content-Length", 0))))
            self.close_connection = True
            self.connection.close()
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if fault is not None:
            self._send(fault.status, {"error": fault.message})
            return
        for pattern, respond in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found:
                respond(self, body, parse_qs(url.query), *found.groups())
                return
        self._send(404, {"error": "no such endpoint"})

    def _send(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _missing(self, what: str) -> None:
        self._send(404, {"error": f"{what} not found"}, {"X-Error-Code": f"{what}NotFound"})

    def who_am_i(self, body: bytes, query: dict[str, list[str]]) -> None:
        self._send(200, self.hub.user)

    def create_repo(self, body: bytes, query: dict[str, list[str]]) -> None:
        asked = json.loads(body)
        repo_id = f"{asked.get('organization') or 'me'}/{asked['name']}"
        is_new = repo_id not in self.hub.repositories
        if is_new:
            private = asked.get("visibility") == "private" or asked.get("private") is True
            self.hub.repositories[repo_id] = Repository(private)
        answer = {"url": f"{self.hub.url}/{repo_id}", "id": repo_id}
        self._send(200 if is_new else 409, answer)

    def validate_yaml(self, body: bytes, query: dict[str, list[str]]) -> None:
        assert json.loads(body)["content"].startswith("---\n")
        self._send(200, {"errors": [], "warnings": []})

    def info(self, body: bytes, query: dict[str, list[str]], repo_id: str, revision: str | None) -> None:
        repository = self.hub.repositories.get(repo_id)
        commit = repository and repository.commit_at(revision or "main")
        if repository is None or commit is None:
            self._missing("Repo" if repository is None else "Revision")
            return
        siblings = [{"rfilename": name, "size": len(content)} for name, content in commit.files.items()]
        self._send(200, {"id": repo_id, "sha": commit.oid, "private": repository.private, "siblings": siblings})

    def tree(self, body: bytes, query: dict[str, list[str]], repo_id: str, revision: str) -> None:
        repository, folder = self.hub.repositories[repo_id], ""
        commit = repository.commit_at(revision)
        if commit is None:  # a folder of a revision is asked for; the name of a branch may hold a slash as well
            revision, _, folder = revision.partition("/")
            commit = repository.commit_at(revision)
        inside = f"{folder}/" if folder else ""
        names = [name for name in commit.files if name.startswith(inside)] if commit else []
        if not names:
            self._missing("Entry")
            return
        recursive = query.get("recursive") == ["true"]
        folders = {inside + name.removeprefix(inside).split("/")[0] for name in names} - {*names}
        files = [name for name in names if recursive or "/" not in name.removeprefix(inside)]
        entries = [entry_of(name, commit.files[name]) for name in files]
        self._send(200, entries + [folder_entry(name) for name in sorted(folders)])

    def paths_info(self, body: bytes, query: dict[str, list[str]], repo_id: str, revision: str) -> None:
        commit = self.hub.repositories[repo_id].commit_at(revision)
        asked = parse_qs(body.decode()).get("paths", []) if not body.startswith(b"{") else json.loads(body)["paths"]
        files = {} if commit is None else commit.files
        folders = {name.rpartition("/")[0] for name in files} - {""}
        found = [entry_of(name, files[name]) for name in asked if name in files]
        found += [folder_entry(name) for name in asked if name in folders]
        self._send(200, found)

    def branch(self, body: bytes, query: dict[str, list[str]], repo_id: str, name: str) -> None:
        branches = self.hub.repositories[repo_id].branches
        is_new = name not in branches
        branches.setdefault(name, list(branches["main"]))
        self._send(200 if is_new else 409, {})

    def preupload(self, body: bytes, query: dict[str, list[str]], repo_id: str, revision: str) -> None:
        # "regular" for every file: then neither LFS nor Xet is needed.
        files = [
            {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
            for file in json.loads(body)["files"]
        ]
        self._send(200, {"files": files})

    def commit(self, body: bytes, query: dict[str, list[str]], repo_id: str, revision: str) -> None:
        repository = self.hub.repositories[repo_id]
        parent = repository.commit_at(revision)
        lines = [json.loads(line) for line in body.splitlines()]
        header = lines[0]["value"]
        if parent is None:
            self._missing("Revision")
            return
        if header.get("parentCommit") not in (None, parent.oid):
            self._send(412, {"error": "The branch has moved since."})
            return
        files = dict(parent.files)
        for line in lines[1:]:
            if line["key"] == "deletedFile":
                del files[line["value"]["path"]]
            else:
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        made = Commit(files, header["summary"], description=header.get("description", ""))
        answer = {"commitOid": made.oid, "commitUrl": f"{self.hub.url}/{repo_id}/commit/{made.oid}"}
        if "create_pr" in query:
            repository.pull_requests += 1
            number = repository.pull_requests
            repository.branches[f"refs/pr/{number}"] = [*repository.branches[revision], made]
            answer["pullRequestUrl"] = f"{self.hub.url}/{repo_id}/discussions/{number}"
        else:
            repository.branches[revision].append(made)
        self._send(200, answer)

    def resolve(self, body: bytes, query: dict[str, list[str]], repo_id: str, revision: str, name: str) -> None:
        repository = self.hub.repositories.get(repo_id)
        commit = repository and repository.commit_at(revision)
        if commit is None:
            self._missing("Repo" if repository is None else "Revision")
            return
        if repository.gated:
            self._send(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
            return
        if name not in commit.files:
            self._missing("Entry")
            return
        content = commit.files[name]
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        headers = {"ETag": etag, "X-Repo-Commit": commit.oid, "X-Linked-Size": str(len(content))}
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if part is None:
            self._send(200, content, headers)
            return
        first, last = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._send(206, content[first : last + 1], headers)


def entry_of(name: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


def folder_entry(name: str) -> dict[str, Any]:
    return {"type": "directory", "path": name, "oid": "0" * 40}


_REPO = r"([^/]+/[^/]+)"
_DATASET = r"(datasets/[^/]+/[^/]+)"
_ROUTES = [
    (r"/api/whoami-v2", _Handler.who_am_i),
    (r"/api/repos/create", _Handler.create_repo),
    (r"/api/validate-yaml", _Handler.validate_yaml),
    (rf"/api/models/{_REPO}/preupload/(.+)", _Handler.preupload),
    (rf"/api/models/{_REPO}/commit/(.+)", _Handler.commit),
    (rf"/api/models/{_REPO}/branch/(.+)", _Handler.branch),
    (rf"/api/models/{_REPO}/tree/(.+)", _Handler.tree),
    (rf"/api/models/{_REPO}(?:/revision/(.+))?", _Handler.info),
    (rf"/api/{_DATASET}/tree/(.+)", _Handler.tree),
    (rf"/api/{_DATASET}/paths-info/(.+)", _Handler.paths_info),
    (rf"/api/{_DATASET}(?:/revision/(.+))?", _Handler.info),
    (rf"/{_DATASET}/resolve/([^/]+)/(.+)", _Handler.resolve),
    (rf"/{_REPO}/resolve/(refs/pr/\d+|[^/]+)/(.+)", _Handler.resolve),
]
