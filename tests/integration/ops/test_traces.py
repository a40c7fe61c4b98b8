"""One setting turns traces on: a collector on loopback gets a request's SQL, and a batch's steps."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from drills.pod import Served, environment_of
from tests.integration.api.conftest import publisher, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from rates_app.settings import Settings
    from tests.integration.api.conftest import Publisher

__all__ = ["publisher", "settings"]  # fixtures

SAMPLE = Path(__file__).parents[3] / "sample_data" / "prices-2021-01.csv.gz"


class Collector:
    """What was sent, span by span."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[tuple[str, Span]] = []

    def tree(self, service: str, root: str) -> set[str]:
        """Name the spans that have a root of a name above them."""
        spans = [span for name, span in self.spans if name == service]
        children = defaultdict(list)
        for span in spans:
            children[span.parent_span_id].append(span)
        found: set[str] = set()
        todo = [span for span in spans if span.name == root and not span.parent_span_id]
        while todo:
            below = children[todo.pop().span_id]
            found |= {span.name for span in below}
            todo += below
        return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    collected = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
                for scope in resource.scope_spans:
                    collected.spans += [(service, span) for span in scope.spans]
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collected.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield collected
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("publisher")
def test_a_request_is_traced_to_its_sql(settings: Settings, collector: Collector) -> None:
    server = Served({**environment_of(settings), "RATES_TRACES_URL": collector.url})
    try:
        server.wait_until_ready()
        question = {"date_from": "2021-01-01", "date_to": "2021-01-02", "orig_code": "CNSGH", "dest_code": "NLRTM"}
        assert httpx.get(f"{server.url}/rates", params=question).status_code == 200
    finally:
        server.terminate()
    assert collector.tree("rates-serve", "GET /rates") >= {"SELECT"}
    assert not [span.name for _, span in collector.spans if "readyz" in span.name]
    password = settings.database_url.get_secret_value().split(":")[2].split("@")[0]
    assert password not in str(collector.spans)


def test_a_batch_is_traced_through_its_steps(settings: Settings, publisher: Publisher, collector: Collector) -> None:
    environment = {"PATH": os.defpath, **environment_of(settings), "RATES_TRACES_URL": collector.url}
    subprocess.run(
        [sys.executable, "-c", "from rates_app.cli import main; main()", "ingest", str(SAMPLE)],
        env=environment,
        check=True,
        timeout=120,
    )
    assert collector.tree("rates-ingest", "ingest") >= {"stage", "verify", "publish", "SELECT", "UPDATE"}
    (root,) = [span for _, span in collector.spans if span.name == "ingest"]
    assert [a.value.int_value for a in root.attributes if a.key == "rates.batch_id"] == [1]


def test_nothing_is_sent_unless_asked_for(settings: Settings, publisher: Publisher, collector: Collector) -> None:
    environment = {"PATH": os.defpath, **environment_of(settings)}
    program = (
        "import sys; from rates_app.cli import main; sys.argv = ['rates', 'batches'];\n"
        "try: main()\nfinally: assert not [m for m in sys.modules if m.startswith('opentelemetry.exporter')]"
    )
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)
    assert collector.spans == []
