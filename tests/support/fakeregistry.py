"""A registry in this process, which can behave like several real ones, and misbehave on demand."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import secrets
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.zoo import Layout
from transfer.model import OCI_INDEX

BLOB = re.compile(r"/v2/(.+)/blobs/(sha(?:256|512):[0-9a-f]+)")
UPLOADS = re.compile(r"/v2/(.+)/blobs/uploads/([0-9a-f]*)")
MANIFEST = re.compile(r"/v2/(.+)/manifests/([^/]+)")
REFERRERS = re.compile(r"/v2/(.+)/referrers/(sha256:[0-9a-f]+)")
TAGS = re.compile(r"/v2/(.+)/tags/list")


@dataclass
class Personality:
    """What real registries differ in: dist28 forgets an upload that was cut, dist31 keeps what arrived."""

    keeps_uploads: bool = True
    relative: bool = False
    page: int = 0
    whole_indexes: bool = False
    users: dict[str, str] = field(default_factory=dict)
    bearer: bool = False
    token_life: int = 60
    referrers: bool = False
    most: int = 0
    tells_digest: bool = True
    deletes: bool = True


PERSONALITIES: dict[str, Callable[[], Personality]] = {
    "dist28": lambda: Personality(keeps_uploads=False, whole_indexes=True),
    "dist31": lambda: Personality(relative=True, page=2),
    "quiet": lambda: Personality(tells_digest=False),
    "nginx": lambda: Personality(most=20_000),
    "zot": lambda: Personality(referrers=True, page=1),
    "token": lambda: Personality(users={"ann": "secret"}, bearer=True),
    "basic": lambda: Personality(users={"ann": "secret"}),
}


@dataclass
class Fault:
    """Something that goes wrong `times` often with requests whose method and path match."""

    method: str
    path: str
    how: str
    times: int = 1
    at: int = 0


class FakeRegistry:
    """Repositories in memory. `asked` has every request; `sent` and `received` count the bytes of blobs."""

    def __init__(self, like: Personality | None = None) -> None:
        self.like = like or Personality()
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.uploads: dict[str, bytearray] = {}
        self.faults: list[Fault] = []
        self.asked: list[tuple[str, str]] = []
        self.authorizations: list[str] = []
        self.tokens: set[str] = set()
        self.sent = self.received = 0
        self.lock = threading.Lock()
        self.host = ""

    def hold(self, layout: Layout, repository: Callable[[str], tuple[str, str]]) -> None:
        """Take the images of a layout; `repository` says where a name goes, and its tag."""
        for entry in layout.entries:
            name, tag = repository(entry["annotations"]["org.opencontainers.image.ref.name"])
            self._take(layout, name, entry["digest"], entry["mediaType"])
            self.manifests[name, tag] = (entry["mediaType"], layout.blobs[entry["digest"]])

    def _take(self, layout: Layout, name: str, digest: str, kind: str) -> None:
        data = layout.blobs.get(digest)
        if data is None:
            return
        value = json.loads(data) if b'"schemaVersion"' in data[:200] or data[:1] == b"{" else {}
        if "manifest" in kind or "index" in kind:
            self.manifests[name, digest] = (kind, data)
            for child in value.get("manifests", []):
                self._take(layout, name, child["digest"], child["mediaType"])
            for each in [*value.get("layers", []), *([value["config"]] if "config" in value else [])]:
                if each["digest"] in layout.blobs:
                    self.blobs[name, each["digest"]] = layout.blobs[each["digest"]]

    def names(self) -> dict[str, str]:
        """Every tagged name here and its digest."""
        return {
            f"{name}:{tag}": "sha256:" + hashlib.sha256(data).hexdigest()
            for (name, tag), (_, data) in self.manifests.items()
            if ":" not in tag
        }

    @contextlib.contextmanager
    def running(self) -> Iterator[FakeRegistry]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        server.daemon_threads = True
        # a line that is reset loses what the kernel holds: little, so that what came is about what was sent
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        self.host = f"127.0.0.1:{server.server_address[1]}"
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for each in self.faults:
                if each.method == method and re.search(each.path, path) and each.times:
                    each.times -= 1
                    return each
        return None


def _handler(registry: FakeRegistry) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - a class made for one registry
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            return

        def answer(self, status: int, data: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), value)
            if "Content_Length" not in headers:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                with contextlib.suppress(OSError):  # who asked may be gone
                    self.wfile.write(data)

        def error(self, status: int, code: str, **headers: str) -> None:
            body = json.dumps({"errors": [{"code": code, "message": code.lower().replace("_", " ")}]}).encode()
            self.answer(status, body, **headers)

        def may(self) -> bool:
            """Whether the credentials will do; a 401 is sent otherwise."""
            like = registry.like
            given = self.headers.get("Authorization", "")
            registry.authorizations.append(given)
            if not like.users:
                return True
            if like.bearer:
                if given.removeprefix("Bearer ") in registry.tokens:
                    return True
                realm = f'Bearer realm="http://{registry.host}/token?x=1",service="fake, registry"'
                self.error(401, "UNAUTHORIZED", WWW_Authenticate=realm)
                return False
            if self.knows(given):
                return True
            self.error(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="fake"')
            return False

        def knows(self, given: str) -> bool:
            with contextlib.suppress(ValueError):
                user, _, password = base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")
                return registry.like.users.get(user) == password
            return False

        def token(self) -> None:
            if not self.knows(self.headers.get("Authorization", "")):
                self.error(401, "DENIED")
                return
            made = secrets.token_hex(8)
            registry.tokens.add(made)
            self.answer(200, json.dumps({"access_token": made, "expires_in": registry.like.token_life}).encode())

        def handle_it(self) -> None:
            path = urllib.parse.unquote(self.path.partition("?")[0])
            query = urllib.parse.parse_qs(self.path.partition("?")[2])
            registry.asked.append((self.command, path))
            if path == "/token":
                self.token()
                return
            fault = registry.fault(self.command, path)
            if fault and fault.how in ("429", "503", "500"):
                self.error(int(fault.how), "TOOMANYREQUESTS", Retry_After="0")
                return
            if fault and fault.how == "401":
                registry.tokens.clear()
            if not self.may():
                return
            if path == "/v2/":
                self.answer(200, b"{}")
            elif match := TAGS.fullmatch(path):
                self.tags(match[1], query)
            elif (match := REFERRERS.fullmatch(path)) and registry.like.referrers:
                self.referrers(match[1], match[2], query)
            elif match := UPLOADS.fullmatch(path):
                self.upload(match[1], match[2], query, fault)
            elif match := MANIFEST.fullmatch(path):
                self.manifest(match[1], match[2])
            elif match := BLOB.fullmatch(path):
                self.blob(match[1], match[2], fault)
            elif path == "/v2/_catalog":
                names = sorted({name for name, _ in registry.manifests})
                self.answer(200, json.dumps({"repositories": names}).encode())
            else:
                self.error(404, "NAME_UNKNOWN")

        def tags(self, name: str, query: dict[str, list[str]]) -> None:
            all_tags = sorted(tag for each, tag in registry.manifests if each == name and ":" not in tag)
            if not all_tags:
                self.error(404, "NAME_UNKNOWN")
                return
            after = query.get("last", [""])[0]
            rest = [tag for tag in all_tags if tag > after]
            page = rest[: registry.like.page or len(rest)]
            more = {"Link": f'</v2/{name}/tags/list?last={page[-1]}>; rel="next"'} if len(page) < len(rest) else {}
            self.answer(200, json.dumps({"name": name, "tags": page}).encode(), **more)

        def referrers(self, name: str, digest: str, query: dict[str, list[str]]) -> None:
            found = []
            for (each, reference), (kind, data) in sorted(registry.manifests.items()):
                subject = json.loads(data).get("subject", {}).get("digest")
                if each == name and reference.startswith("sha256:") and subject == digest:
                    found.append({"mediaType": kind, "digest": reference, "size": len(data)})
            after = int(query.get("at", ["0"])[0])
            page = found[after : after + (registry.like.page or 99)]
            more = {}
            if after + len(page) < len(found):
                more = {"Link": f'</v2/{name}/referrers/{digest}?at={after + len(page)}>; rel="next"'}
            index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": page}
            self.answer(200, json.dumps(index).encode(), Content_Type=OCI_INDEX, **more)

        def manifest(self, name: str, reference: str) -> None:
            if self.command == "PUT":
                data = self.rfile.read(int(self.headers["Content-Length"]))
                self.put_manifest(name, reference, data)
                return
            found = registry.manifests.get((name, reference))
            if found and self.command == "DELETE":
                if not registry.like.deletes:
                    self.error(405, "UNSUPPORTED")
                    return
                del registry.manifests[name, reference]
                self.answer(202)
                return
            if found is None:
                self.error(404, "MANIFEST_UNKNOWN")
                return
            digest = "sha256:" + hashlib.sha256(found[1]).hexdigest()
            told = {"Docker_Content_Digest": digest} if registry.like.tells_digest else {}
            self.answer(200, found[1], Content_Type=found[0], Content_Length=str(len(found[1])), **told)

        def put_manifest(self, name: str, reference: str, data: bytes) -> None:
            value = json.loads(data)
            wanted = [*value.get("layers", []), *([value["config"]] if "config" in value else [])]
            lacking = [each for each in wanted if (name, each["digest"]) not in registry.blobs]
            if registry.like.whole_indexes:
                lacking += [c for c in value.get("manifests", []) if (name, c["digest"]) not in registry.manifests]
            if lacking:
                self.error(400, "MANIFEST_BLOB_UNKNOWN")
                return
            digest = "sha256:" + hashlib.sha256(data).hexdigest()
            if ":" in reference and reference != digest:
                self.error(400, "DIGEST_INVALID")
                return
            registry.manifests[name, digest] = registry.manifests[name, reference] = (
                self.headers["Content-Type"],
                data,
            )
            self.answer(201, Docker_Content_Digest=digest, Location=f"/v2/{name}/manifests/{digest}")

        def blob(self, name: str, digest: str, fault: Fault | None) -> None:
            data = registry.blobs.get((name, digest))
            if data is None:
                self.error(404, "BLOB_UNKNOWN")
                return
            if fault and fault.how == "wrong":
                data = data[:-1] + bytes([data[-1] ^ 1])
            if fault and fault.how == "elsewhere":
                self.answer(307, Location=f"file:///etc/passwd?{digest}")
                return
            start = 0
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if asked and not (fault and fault.how == "no range"):
                start = int(asked[1])
            body = data[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if fault and fault.how == "cut":
                body = body[: fault.at]
            registry.sent += len(body)
            self.wfile.write(body)
            if fault and fault.how == "cut":
                self.close_connection = True
                self.connection.close()

        def upload(self, name: str, number: str, query: dict[str, list[str]], fault: Fault | None) -> None:
            if self.command == "POST":
                source, digest = query.get("from", [""])[0], query.get("mount", [""])[0]
                if (source, digest) in registry.blobs:
                    registry.blobs[name, digest] = registry.blobs[source, digest]
                    self.answer(201, Location=f"/v2/{name}/blobs/{digest}")
                    return
                number = secrets.token_hex(8)
                registry.uploads[number] = bytearray()
                self.answer(202, Location=self.place(name, number), Range="0-0")
                return
            kept = registry.uploads.get(number)
            if kept is None:
                self.error(404, "BLOB_UPLOAD_INVALID")
                return
            if self.command == "GET":
                end = f"0-{max(0, len(kept) - 1)}"
                self.answer(204, Location=self.place(name, number), Range=end)
                return
            self.take(name, number, kept, query, fault)

        def received(self, size: int) -> bytes:
            try:
                return self.rfile.read1(size)
            except OSError:  # the line was cut
                return b""

        def place(self, name: str, number: str) -> str:
            path = f"/v2/{name}/blobs/uploads/{number}?state=x"
            return path if registry.like.relative else f"http://{registry.host}{path}"

        def take(
            self, name: str, number: str, kept: bytearray, query: dict[str, list[str]], fault: Fault | None
        ) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            if registry.like.most and length > registry.like.most:
                self.close_connection = True
                self.answer(413, b"<html>too large</html>", Connection="close")
                return
            start = re.match(r"(\d+)-", self.headers.get("Content-Range", ""))
            if start and int(start[1]) != len(kept):
                self.error(416, "RANGE_INVALID")
                return
            limit = min(fault.at, length) if fault and fault.how == "cut" else length
            while limit > 0 and (data := self.received(min(limit, 1 << 16))):
                kept += data
                registry.received += len(data)
                limit -= len(data)
            if limit or (fault and fault.how == "cut"):
                if not registry.like.keeps_uploads:
                    registry.uploads.pop(number, None)
                self.close_connection = True
                self.connection.close()
                return
            if self.command == "PATCH":
                end = f"0-{max(0, len(kept) - 1)}"
                self.answer(202, Location=self.place(name, number), Range=end)
                return
            digest = query.get("digest", [""])[0]
            if "sha256:" + hashlib.sha256(kept).hexdigest() != digest:
                self.error(400, "DIGEST_INVALID")
                return
            registry.blobs[name, digest] = bytes(kept)
            del registry.uploads[number]
            self.answer(201, Location=f"/v2/{name}/blobs/{digest}")

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = handle_it  # noqa: N815

    return Handler
