"""A hub on the loopback: as much of the Hugging Face Hub's interface as huggingface_hub uses for models."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOKEN = "hf_loopback"


class Hub:
    """repos: by name, the files of each commit; heads: by (name, branch), the newest commit."""

    def __init__(self, port: int):
        self.url = f"http://127.0.0.1:{port}"
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.heads: dict[tuple[str, str], str] = {}
        self.objects: dict[str, bytes] = {}  # of LFS, by SHA-256
        self.calls: list[str] = []
        self.private: set[str] = set()

    def commit(self, repo: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Adds files to a branch; the new commit."""
        commits = self.repos.setdefault(repo, {})
        whole = commits.get(self.heads.get((repo, branch), ""), {}) | files
        name = hashlib.sha1(repr((repo, len(commits), sorted(whole.items()))).encode()).hexdigest()
        commits[name], self.heads[repo, branch] = whole, name
        return name

    def share(self, repo: str, folder: Path) -> str:
        return self.commit(repo, {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()})

    def resolved(self, repo: str, revision: str) -> str | None:
        return self.heads.get((repo, revision)) or (revision if revision in self.repos.get(repo, {}) else None)


@contextmanager
def serving() -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub = Hub(server.server_address[1])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status: int = 200, body: object = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refused(self, status: int, code: str = "", message: str = "no") -> None:
        self.answer(status, {"error": message}, **({"X-Error-Code": code} if code else {}), X_Error_Message=message)

    def route(self) -> None:
        hub, path = self.server.hub, [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.calls.append(f"{self.command} {urlsplit(self.path).path}")
        if path[0] == "lfs":
            hub.objects[path[1]] = body
            return self.answer()
        if path[0] != "api":
            return self.download(hub, path) if "resolve" in path else self.batch(hub, path, json.loads(body))
        return self.asked(hub, path, body)

    def asked(self, hub: Hub, path: list[str], body: bytes) -> None:
        if path[1] == "validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if self.command == "POST" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refused(401)
        if path[1:3] == ["repos", "create"]:
            return self.create(hub, json.loads(body))
        repo, rest = "/".join(path[2:4]), path[4:]
        if repo not in hub.repos:
            return self.refused(404, "RepoNotFound")
        if self.command == "GET":
            return self.info(hub, repo, rest[1] if rest else "main")
        if rest[0] == "branch":
            hub.heads[repo, rest[1]] = hub.heads[repo, "main"]
            return self.answer(200, {})
        if rest[0] == "preupload":
            modes = [
                {
                    "path": f["path"],
                    "shouldIgnore": False,
                    "uploadMode": "lfs" if f["path"].endswith("tensors") else "regular",
                }
                for f in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": modes})
        return self.commit(hub, repo, rest[1], body)

    do_GET = do_HEAD = do_POST = do_PUT = route

    def create(self, hub: Hub, asked: dict) -> None:
        repo = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] == "someone-else":
            return self.refused(403)
        if repo in hub.repos:
            return self.answer(409, {"error": "You already created this model repo", "url": f"{hub.url}/{repo}"})
        hub.commit(repo, {".gitattributes": b""})
        hub.private |= {repo} if asked.get("private") or asked.get("visibility") == "private" else set()
        return self.answer(200, {"url": f"{hub.url}/{repo}"})

    def info(self, hub: Hub, repo: str, revision: str) -> None:
        commit = hub.resolved(repo, revision)
        if commit is None:
            return self.refused(404, "RevisionNotFound")
        files = [{"rfilename": name} for name in hub.repos[repo][commit]]
        return self.answer(
            200, {"id": repo, "modelId": repo, "sha": commit, "siblings": files, "private": False, "tags": []}
        )

    def download(self, hub: Hub, path: list[str]) -> None:
        repo, revision, name = "/".join(path[:2]), path[3], "/".join(path[4:])
        commit = hub.resolved(repo, revision)
        content = hub.repos.get(repo, {}).get(commit, {}).get(name)
        if content is None:
            return self.refused(404, "EntryNotFound" if commit else "RepoNotFound")
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        etag = hashlib.sha256(content).hexdigest() if name.endswith("tensors") else blob
        return self.answer(200, content, ETag=f'"{etag}"', X_Repo_Commit=commit, Accept_Ranges="bytes")

    def batch(self, hub: Hub, path: list[str], asked: dict) -> None:
        """Where LFS's objects are uploaded to."""
        objects = [
            {**one, "actions": {"upload": {"href": f"{hub.url}/lfs/{one['oid']}", "header": {}}}}
            for one in asked["objects"]
        ]
        return self.answer(200, {"transfer": "basic", "objects": objects})

    def commit(self, hub: Hub, repo: str, branch: str, body: bytes) -> None:
        files = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = hub.objects[value["oid"]]
        name = hub.commit(repo, files, branch)
        return self.answer(200, {"commitUrl": f"{hub.url}/{repo}/commit/{name}", "commitOid": name, "success": True})
