"""A real Prometheus and Alertmanager with prod's rules and routes at a multiple of their speed, and recipients."""

from __future__ import annotations

import json
import re
import subprocess
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import yaml

from drills import waiting
from rates_app.local.server import free_port
from tests.charts.rendering import applications
from tests.charts.test_monitoring import groups
from tests.charts.tools import program
from tests.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

#: A minute of a rule or route lasts two seconds. Thresholds of values are those of prod.
SPEED = 30

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_WINDOW = re.compile(r"(?<=\[)(\d+)([smhd])(?=\])|(?<=offset )(\d+)([smhd])\b")

wait_until = partial(waiting.wait_until, seconds=120, pause=0.2)


class Notice(NamedTuple):
    """A notification as its recipient gets it."""

    recipient: str
    """``pager``, ``critical``, ``warning``, ``info`` or ``heartbeat``; all but the first are e-mails or tickets."""
    alert: str
    firing: bool
    text: str
    at: float


def scaled(duration: str) -> str:
    """Return a duration of Prometheus divided by :data:`SPEED`, such as ``5m`` as ``10000ms``."""
    return f"{int(duration[:-1]) * _UNITS[duration[-1]] * 1000 // SPEED}ms"


def scaled_rules(rule_groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return groups of rules with shorter windows, offsets and waiting times."""
    made: list[dict[str, Any]] = json.loads(json.dumps(rule_groups))
    for rule in (rule for group in made for rule in group["rules"]):
        rule["expr"] = _WINDOW.sub(lambda found: scaled(found[0]), rule["expr"])
        rule |= {name: scaled(rule[name]) for name in ("for", "keep_firing_for") if name in rule}
    return made


def scaled_routes(config: dict[str, Any], url: str, folder: Path) -> dict[str, Any]:
    """Return Alertmanager's configuration with shorter pauses, and a stand-in for each service that it calls."""
    made: dict[str, Any] = json.loads(json.dumps(config))
    for route in (made["route"], *made["route"]["routes"]):
        pauses = ("group_wait", "group_interval", "repeat_interval")
        # Alertmanager's clock has whole seconds.
        route |= {name: f"{max(1, round(int(scaled(route[name])[:-2]) / 1000))}s" for name in pauses if name in route}
    for receiver in made["receivers"]:
        if receiver.pop("sns_configs", None):
            receiver["webhook_configs"] = [{"url": f"{url}/{receiver['name']}"}]
        for pager in receiver.get("pagerduty_configs", []):
            (folder / "key").write_text("the-key")
            pager |= {"routing_key_file": str(folder / "key"), "url": f"{url}/pager"}
    return made


class Alerting:
    """Prometheus and Alertmanager, and what they have notified.

    Args:
        prometheus: Address of Prometheus.
        notices: Every notification, the oldest first.
    """

    def __init__(self, prometheus: str, notices: list[Notice]) -> None:
        self._prometheus = prometheus
        self.notices = notices

    def firing(self) -> set[str]:
        """Return the names of the alerts that are pending or fire, without the one that always does."""
        answer = httpx.get(f"{self._prometheus}/api/v1/alerts", timeout=30).raise_for_status().json()
        return {alert["labels"]["alertname"] for alert in answer["data"]["alerts"]} - {"Watchdog"}

    def targets(self) -> set[str]:
        """Return the health of all targets."""
        answer = httpx.get(f"{self._prometheus}/api/v1/targets", timeout=30).raise_for_status().json()
        return {target["health"] for target in answer["data"]["activeTargets"]}


@contextmanager
def alerting(folder: Path, pods: Sequence[str]) -> Iterator[Alerting]:
    """Run Prometheus and Alertmanager within the context.

    Args:
        folder: For their files.
        pods: Addresses of the pods' metrics.
    """
    notices: list[Notice] = []

    class Recipients(BaseHTTPRequestHandler):
        """The pager, the topics, and the metrics of roles that need a cluster."""

        def do_GET(self) -> None:
            self._answer(200)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            recipient = self.path.strip("/")
            now = time.monotonic()
            if recipient == "pager":
                text = body.get("payload", {}).get("summary", "")
                firing = body["event_action"] == "trigger"
                name = re.search(r'alertname="(\w+)"', body.get("dedup_key", ""))
                notices.append(Notice("pager", name[1] if name else text.split()[1].strip(":"), firing, text, now))
                self._answer(202, b'{"status": "success"}')
                return
            for alert in body["alerts"]:
                text = f"{alert['annotations']['summary']}: {alert['annotations']['description']}"
                firing = alert["status"] == "firing"
                notices.append(Notice(recipient, alert["labels"]["alertname"], firing, text, now))
            self._answer(200)

        def _answer(self, status: int, body: bytes = b"") -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - the base class's name

    with serving(Recipients) as recipients, ExitStack() as running:
        prometheus, alertmanager = (f"127.0.0.1:{free_port()}" for _ in range(2))
        values = applications("prod")["kube-prometheus-stack"]["spec"]["source"]["helm"]["valuesObject"]
        routes = scaled_routes(values["alertmanager"]["config"], recipients, folder)
        (folder / "alertmanager.yaml").write_text(yaml.safe_dump(routes))
        (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": scaled_rules(groups())}))
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(_scrapes(alertmanager, pods, recipients)))
        for name, options in (
            ("alertmanager", [f"--web.listen-address={alertmanager}", "--cluster.listen-address="]),
            ("prometheus", [f"--web.listen-address={prometheus}", "--query.lookback-delta=10s"]),
        ):
            running.enter_context(_process(name, folder, options))
        for address in (alertmanager, prometheus):
            wait_until(
                partial(_ready, f"http://{address}/-/ready"),
                describe=lambda: [path.read_text()[-2000:] for path in folder.glob("*.log")],
                ignore=(httpx.TransportError,),
            )
        yield Alerting(f"http://{prometheus}", notices)


def _ready(url: str) -> bool:
    return httpx.get(url).is_success


def _scrapes(alertmanager: str, pods: Sequence[str], stand_in: str) -> dict[str, Any]:
    """Return Prometheus' configuration: the labels are those of the cluster's monitors."""
    targets = [(url, "rates-app-metrics", f"rates-app-{number}") for number, url in enumerate(pods)]
    targets += [(stand_in, f"rates-{role}-metrics", f"rates-{role}") for role in ("dispatcher", "watcher")]
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [
            {
                "job_name": "rates",
                "static_configs": [
                    {
                        "targets": [url.removeprefix("http://")],
                        "labels": {"namespace": "rates", "service": service, "pod": pod},
                    }
                    for url, service, pod in targets
                ],
            }
        ],
    }


@contextmanager
def _process(name: str, folder: Path, options: list[str]) -> Iterator[None]:
    data = "storage.path" if name == "alertmanager" else "storage.tsdb.path"
    command = [program(name), f"--config.file={folder / name}.yaml", f"--{data}={folder / name}", *options]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)
