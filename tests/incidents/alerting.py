"""A real Prometheus and Alertmanager with prod's rules and routes at a multiple of their speed, and recipients."""

from __future__ import annotations

import json
import re
import threading
import time
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import yaml

from rates_app.local.server import free_port
from tests.charts.rendering import applications
from tests.charts.test_monitoring import groups
from tests.charts.tools import program
from tests.incidents.process import RehearsedProgram
from tests.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

#: A minute of a rule or route lasts two seconds. Thresholds of values are those of prod.
SPEED = 30

#: How long the topic of the heartbeat is silent before CloudWatch's alarm begins, in minutes of prod.
HEARTBEAT_MINUTES = 15

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_WINDOW = re.compile(r"(?<=\[)(\d+)([smhd])(?=\])|(?<=offset )(\d+)([smhd])\b")


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


class MonitoringServer(RehearsedProgram):
    """Prometheus or Alertmanager.

    Args:
        name: ``prometheus`` or ``alertmanager``.
        folder: For its files; its configuration is there.
        address: Host and port.
        options: Further options.
    """

    def __init__(self, name: str, folder: Path, address: str, *options: str) -> None:
        self.url = f"http://{address}"
        data = "storage.path" if name == "alertmanager" else "storage.tsdb.path"
        own = (f"--config.file={folder / name}.yaml", f"--{data}={folder / name}", f"--web.listen-address={address}")
        super().__init__([program(name), *own, *options], folder / f"{name}.log", f"{self.url}/-/ready")


class Target(NamedTuple):
    """What Prometheus scrapes, with the labels that a monitor sets in the cluster."""

    url: str
    path: str
    namespace: str
    service: str
    pod: str


class Alerting:
    """Prometheus and Alertmanager, and what they have notified.

    Args:
        prometheus: The process of Prometheus.
        alertmanager: That of Alertmanager.
        notices: Every notification, the oldest first.
        down: Roles whose metrics do not respond, and recipients that refuse every message.
    """

    def __init__(
        self, prometheus: MonitoringServer, alertmanager: MonitoringServer, notices: list[Notice], down: set[str]
    ) -> None:
        self.url = prometheus.url
        self.alertmanager_url = alertmanager.url
        self._prometheus = prometheus
        self._alertmanager = alertmanager
        self._down = down
        self.notices = notices

    def firing(self) -> set[str]:
        """Return the names of the alerts that are pending or fire, without the one that always does."""
        answer = httpx.get(f"{self.url}/api/v1/alerts", timeout=30).raise_for_status().json()
        return {alert["labels"]["alertname"] for alert in answer["data"]["alerts"]} - {"Watchdog"}

    def targets(self) -> set[str]:
        """Return the health of all targets."""
        answer = httpx.get(f"{self.url}/api/v1/targets", timeout=30).raise_for_status().json()
        return {target["health"] for target in answer["data"]["activeTargets"]}

    def log(self) -> str:
        """Return Alertmanager's log."""
        return self._alertmanager.log()

    @contextmanager
    def role_down(self, role: str) -> Iterator[None]:
        """Let the stand-in of a role, ``watcher``, not respond, or that of a recipient, ``pager``, refuse messages."""
        self._down.add(role)
        try:
            yield
        finally:
            self._down.remove(role)

    @contextmanager
    def prometheus_down(self) -> Iterator[None]:
        """Stop Prometheus, and start it again."""
        with self._prometheus.stopped():
            yield

    @contextmanager
    def alertmanager_down(self) -> Iterator[None]:
        """Stop Alertmanager, and start it again."""
        with self._alertmanager.stopped():
            yield


def _watch_heartbeat(notices: list[Notice], done: threading.Event) -> None:
    """Stand in for CloudWatch's alarm on the topic of the heartbeat, which pages and writes to the topic critical."""
    began, alarmed = time.monotonic(), False
    while not done.wait(0.2):
        last = max((notice.at for notice in notices if notice.recipient == "heartbeat"), default=began)
        silent = time.monotonic() - last > HEARTBEAT_MINUTES * 60 / SPEED
        if silent != alarmed:
            alarmed = silent
            text = "Prometheus or Alertmanager is silent: its alerts would not be delivered."
            notices.extend(Notice(who, "heartbeat", silent, text, time.monotonic()) for who in ("critical", "pager"))


@contextmanager
def alerting(folder: Path, targets: Sequence[Target]) -> Iterator[Alerting]:
    """Run Prometheus and Alertmanager within the context.

    Args:
        folder: For their files.
        targets: What Prometheus scrapes besides Alertmanager and the stand-in of the watcher.
    """
    notices: list[Notice] = []
    down: set[str] = set()

    class Recipients(BaseHTTPRequestHandler):
        """The pager, the topics, and the metrics of roles that need a cluster."""

        def do_GET(self) -> None:
            self._answer(503 if self.path.strip("/") in down else 200)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            recipient = self.path.strip("/")
            now = time.monotonic()
            if recipient in down:
                self._answer(400)
                return
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
        monitoring = ("monitoring", "kube-prometheus-stack-alertmanager", "alertmanager")
        scraped = [
            *targets,
            Target(recipients, "/watcher", "rates", "rates-watcher-metrics", "rates-watcher"),
            Target(f"http://{alertmanager}", "/metrics", *monitoring),
        ]
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(_scrapes(alertmanager, scraped)))
        programs = [
            MonitoringServer("alertmanager", folder, alertmanager, "--cluster.listen-address="),
            # A resolved alert, and one whose Prometheus has stopped, ends as fast as everything else.
            MonitoringServer(
                "prometheus", folder, prometheus, "--query.lookback-delta=10s", "--rules.alert.resend-delay=2s"
            ),
        ]
        for each in programs:
            running.enter_context(each.running())
        done = threading.Event()
        watch = threading.Thread(target=_watch_heartbeat, args=(notices, done))
        watch.start()
        running.callback(watch.join)
        running.callback(done.set)
        yield Alerting(programs[1], programs[0], notices, down)


def _scrapes(alertmanager: str, targets: Sequence[Target]) -> dict[str, Any]:
    """Return Prometheus' configuration: the labels are those of the cluster's monitors."""
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [
            {
                "job_name": "rates",
                # As the monitors of kube-state-metrics and of Argo do: their metrics name namespaces and pods.
                "honor_labels": True,
                # The small disk is where a pod's data would be.
                "metric_relabel_configs": [
                    {
                        "source_labels": ["mountpoint"],
                        "regex": ".+",
                        "target_label": "mountpoint",
                        "replacement": "/data",
                    }
                ],
                "static_configs": [
                    {
                        "targets": [target.url.removeprefix("http://")],
                        "labels": {
                            "__metrics_path__": target.path,
                            "namespace": target.namespace,
                            "service": target.service,
                            "pod": target.pod,
                            "instance": target.pod,
                        },
                    }
                    for target in targets
                ],
            }
        ],
    }
