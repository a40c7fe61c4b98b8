"""A Kubernetes API for lists and watches, over real HTTP: versions, pages, bookmarks, 410 Gone, broken connections.

It follows "Efficient detection of changes" in Kubernetes' API concepts, with objects that a test
sets or replays from a recording.
"""

from __future__ import annotations

import copy
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from pathlib import Path

LIST = re.compile(
    r"/(?:api/v1|apis/sparkoperator.k8s.io/v1beta2)(?:/namespaces/(?P<namespace>[^/]+))?/(?P<kind>pods|sparkapplications)$"
)
LOG = re.compile(r"/api/v1/namespaces/(?P<namespace>[^/]+)/pods/(?P<pod>[^/]+)/log$")
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class FakeCluster:
    """The cluster's state, which tests change."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.version = 100
        self.oldest = 0  # watches from older versions get 410 Gone
        self.objects: dict[str, dict[str, Any]] = {"pods": {}, "sparkapplications": {}}
        self.absent: set[str] = set()  # kinds without a CRD
        self.events: list[tuple[int, str, str, Any]] = []
        self.connections = 0  # incremented to break all open watches
        self.half_line = False
        self.allowed = {("", "pods", ""), ("sparkoperator.k8s.io", "sparkapplications", "")}
        self.logs: dict[tuple[str, str], str] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.open_watches = 0

    def change(self, kind: str, event: str, found: Any) -> None:
        with self.changed:
            self.version += 1
            found = copy.deepcopy(found)
            found["metadata"]["resourceVersion"] = str(self.version)
            if event == "DELETED":
                self.objects[kind].pop(found["metadata"]["uid"], None)
            else:
                self.objects[kind][found["metadata"]["uid"]] = found
            self.events.append((self.version, kind, event, found))
            self.changed.notify_all()

    def bookmark(self) -> None:
        with self.changed:
            self.version += 1
            for kind in self.objects:
                self.events.append(
                    (self.version, kind, "BOOKMARK", {"metadata": {"resourceVersion": str(self.version)}})
                )
            self.changed.notify_all()

    def compact(self) -> None:
        """Expire old versions, so that clients must list again."""
        with self.changed:
            self.version += 1
            self.oldest = self.version
            self.events.clear()

    def break_connections(self, *, half_line: bool = False) -> None:
        with self.changed:
            self.half_line = half_line
            self.connections += 1
            self.changed.notify_all()

    def replay(self, recording: Path) -> None:
        for line in recording.read_text().splitlines():
            record = json.loads(line)
            self.change(record["kind"], record["type"], record["object"])

    def watches(self, kind: str) -> list[str]:
        """Return the versions from which watches of a kind began."""
        return [q["resourceVersion"] for _, path, q in self.requests if path.endswith(kind) and q.get("watch")]

    def lists(self, kind: str) -> int:
        return sum(path.endswith(kind) and not q.get("watch") for _, path, q in self.requests)


class ClusterHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: FakeCluster

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        question = {name: values[0] for name, values in parse_qs(parts.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.cluster.requests.append((self.command, parts.path, question))
        if parts.path == REVIEWS:
            self._review(json.loads(body))
        elif (found := LIST.match(parts.path)) and found["kind"] not in self.cluster.absent:
            if question.get("watch"):
                self._watch(found["kind"], found["namespace"], int(question["resourceVersion"]))
            else:
                self._list(found["kind"], found["namespace"], question)
        elif found := LOG.match(parts.path):
            text = self.cluster.logs.get((found["pod"], question.get("previous", "false").lower()))
            self._send(200 if text else 400, text or {"kind": "Status", "message": "no such log"})
        else:
            self._send(404, {"kind": "Status", "message": self.path})

    do_GET = do_POST = _answer  # noqa: N815 - the base class's names

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    def _send(self, status: int, body: Any) -> None:
        text = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _review(self, review: Any) -> None:
        wanted = review["spec"]["resourceAttributes"]
        key = (wanted.get("group", ""), wanted["resource"], wanted.get("namespace", ""))
        self._send(201, {**review, "status": {"allowed": key in self.cluster.allowed}})

    def _list(self, kind: str, namespace: str | None, question: dict[str, str]) -> None:
        with self.cluster.changed:
            items = [o for o in self.cluster.objects[kind].values() if namespace in {None, o["metadata"]["namespace"]}]
            version = self.cluster.version
        start, limit = int(question.get("continue", 0)), int(question["limit"])
        metadata = {"resourceVersion": str(version)}
        if start + limit < len(items):
            metadata["continue"] = str(start + limit)
        self._send(200, {"kind": "List", "metadata": metadata, "items": items[start : start + limit]})

    def _watch(self, kind: str, namespace: str | None, version: int) -> None:
        cluster = self.cluster
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with cluster.changed:
            connection = cluster.connections
            cluster.open_watches += 1
        try:
            self._stream(kind, namespace, version, connection)
        except OSError:
            pass  # the watcher has disconnected
        finally:
            with cluster.changed:
                cluster.open_watches -= 1
            self.close_connection = True

    def _stream(self, kind: str, namespace: str | None, version: int, connection: int) -> None:
        cluster = self.cluster
        while True:
            with cluster.changed:
                gone = version < cluster.oldest
                new = [event for event in cluster.events if event[0] > version and event[1] == kind]
                if not new and not gone and cluster.connections == connection:
                    cluster.changed.wait(timeout=1)
                    continue
                broken, half = cluster.connections != connection, cluster.half_line
            if gone:
                status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
                self._chunk(json.dumps({"type": "ERROR", "object": status}) + "\n")
                self.wfile.write(b"0\r\n\r\n")
                return
            for number, _, event, found in new:
                if namespace in {None, found["metadata"].get("namespace")} or event == "BOOKMARK":
                    self._chunk(json.dumps({"type": event, "object": found}) + "\n")
                version = number
            if broken:
                if half:
                    self._chunk('{"type": "MODIFIED", "object": {"metada')
                return  # without the final chunk of the response

    def _chunk(self, text: str) -> None:
        self.wfile.write(f"{len(text.encode()):x}\r\n{text}\r\n".encode())
        self.wfile.flush()


def serve(cluster: FakeCluster) -> ThreadingHTTPServer:
    """Serve the cluster on a free port of loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("ClusterHandler", (ClusterHandler,), {"cluster": cluster}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
