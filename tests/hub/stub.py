"""A Hugging Face hub on this machine: its HTTP interface, as far as models need it; of a data set,
what its newest commit is.

`huggingface_hub` itself is the real one; only what is at the other end of the line is small.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


@dataclass
class Hub:
    """Repositories by name: revisions by name, each the commit and its files."""

    address: str = ""
    repositories: dict[str, dict[str, Files]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    private: dict[str, bool] = field(default_factory=dict)
    tokens: list[str | None] = field(default_factory=list)

    def put(self, repository: str, folder: Path, revision: str = "main") -> None:
        """Put a folder there as a revision."""
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        self.repositories.setdefault(repository, {})[revision] = files


def commit_of(files: Files) -> str:
    digest = hashlib.sha1()
    for name in sorted(files):
        digest.update(name.encode() + files[name])
    return digest.hexdigest()


@contextmanager
def serving() -> Iterator[Hub]:
    """The hub, while it can be reached."""
    hub = Hub()

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def reply(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def json(self, content: object, status: int = 200) -> None:
            self.reply(status, json.dumps(content).encode(), Content_Type="application/json")

        def missing(self, code: str) -> None:
            self.reply(404, b"{}", X_Error_Code=code, X_Error_Message=f"{code} at this hub")

        def files(self, repository: str, revision: str) -> tuple[str, Files] | None:
            revisions = hub.repositories[repository]
            for files in [revisions[revision]] if revision in revisions else revisions.values():
                if revision in (commit_of(files), *revisions):
                    return commit_of(files), files
            return None

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            hub.tokens.append(self.headers.get("Authorization"))
            parts = path.strip("/").split("/")
            about = parts[:2] in (["api", "models"], ["api", "datasets"])
            repository = "/".join(parts[2:4] if about else parts[:2])
            if repository not in hub.repositories:
                return self.missing("RepoNotFound")
            revision = parts[5] if about and len(parts) > 5 else "main" if about else parts[3]
            found = self.files(repository, revision)
            if found is None:
                return self.missing("RevisionNotFound")
            commit, files = found
            if about and "tree" in parts:
                entries = [
                    {"type": "file", "path": name, "size": len(data), "oid": blob(data)}
                    for name, data in files.items()
                ]
                return self.json(entries)
            if about:
                siblings = [{"rfilename": name} for name in files]
                return self.json({"id": repository, "sha": commit, "siblings": siblings})
            name = "/".join(parts[4:])
            if name not in files:
                return self.missing("EntryNotFound")
            data = files[name]
            return self.reply(200, data, ETag=f'"{blob(data)}"', X_Repo_Commit=commit)

        do_HEAD = do_GET

        def do_POST(self) -> None:
            path = unquote(urlsplit(self.path).path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hub.asked.append(f"POST {path}")
            token = self.headers.get("Authorization")
            hub.tokens.append(token)
            if token != "Bearer hf_secret":
                return self.reply(401, b'{"error": "Invalid username or password."}')
            if path == "/api/validate-yaml":
                return self.json({"errors": [], "warnings": []})
            if path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}"
                hub.repositories.setdefault(name, {"main": {}})
                hub.private[name] = (
                    bool(asked.get("private")) or asked.get("visibility") == "private"
                )
                return self.json({"url": f"{hub.address}/{name}", "id": name, "name": name})
            repository = "/".join(path.split("/")[3:5])
            if "/preupload/" in path:
                files = json.loads(body)["files"]
                answer = [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in files
                ]
                return self.json({"files": answer})
            if "/commit/" in path:
                files = hub.repositories[repository]["main"] = dict(
                    hub.repositories[repository]["main"]
                )
                for line in body.splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        content = entry["value"]["content"]
                        files[entry["value"]["path"]] = base64.b64decode(content)
                url = f"{hub.address}/{repository}/commit/{commit_of(files)}"
                return self.json({"success": True, "commitOid": commit_of(files), "commitUrl": url})
            return self.json({"error": path}, 404)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
