"""The log of the running service: bounded, traceable by request id, without secrets or personal data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest

from drills.pod import START_SECONDS, Pod, environment_of
from drills.waiting import wait_until
from rates_app.store.tokens import create_token

if TYPE_CHECKING:
    from rates_app.settings import Settings
    from tests.fixtures.service import Publisher

ROOT = Path(__file__).parents[3]
QUESTION = {"date_from": "2021-01-01", "date_to": "2021-01-02", "orig_code": "CNSGH", "dest_code": "NLRTM"}
#: No process listens there.
NOWHERE = "127.0.0.1:1"


def events(output: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output]


@pytest.mark.usefixtures("publisher")
def test_a_burst_is_sampled_and_every_request_is_counted(settings: Settings) -> None:
    server = Pod({**environment_of(settings), "RATES_WORKERS": "1", "RATES_LOG_REQUESTS_PER_SECOND": "5"})
    try:
        server.wait_until_ready()
        with httpx.Client(base_url=server.url) as client, ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: client.get("/rates", params=QUESTION).status_code, range(400)))
            time.sleep(1.1)  # the first line of the next second has the number of skipped lines
            answers.append(client.get("/rates", params=QUESTION).status_code)
    finally:
        server.terminate()
    assert answers == [200] * 401
    logged = [event for event in events(server.output) if event["event"] == "request"]
    assert len(logged) + sum(event.get("skipped", 0) for event in logged) == 401
    times = [datetime.fromisoformat(event["timestamp"]) for event in logged]
    assert len(logged) <= 5 * ((times[-1] - times[0]).total_seconds() + 2)
    assert len(logged) < 401
    page = (ROOT / "docs" / "observability.md").read_text()
    listed = page.partition("| `request` | ")[2].partition(" |")[0].split(", ")
    assert {name for event in logged for name in event} <= {"timestamp", "level", "event", *listed}


def test_logs_contain_neither_clients_nor_credentials(settings: Settings, publisher: Publisher) -> None:
    with psycopg.connect(publisher.url) as connection:
        token = create_token(connection, "supplier", ["batches:write"], None)
    server = Pod(
        {
            **environment_of(settings),
            "RATES_REDIS_URL": f"redis://:s3cret-of-redis@{NOWHERE}/0",
            "RATES_TRUSTED_PROXIES": "1",
            "RATES_LOG_LEVEL": "debug",
        }
    )
    private = {"X-Forwarded-For": "203.0.113.77", "Cookie": "session=s3cret-cookie", "User-Agent": "Jane/1"}
    try:
        server.wait_until_ready()
        with httpx.Client(base_url=server.url, headers=private) as client:
            assert client.get("/rates", params=QUESTION).status_code == 200
            assert client.get("/v1/locations", params={"q": "jane.doe@example.com"}).status_code == 200
            for given, status in ((token, 202), (f"{token}x", 401)):
                headers = {"Authorization": f"Bearer {given}", "Content-Type": "text/csv"}
                body = b"orig_code,dest_code,day,price\nCNGGZ,EETLL,2021-01-01,987654\n"
                assert client.post("/v1/batches?name=a.csv", content=body, headers=headers).status_code == status
    finally:
        server.terminate()
    output = "".join(server.output)
    password = psycopg.conninfo.conninfo_to_dict(settings.database_url_of("serving"))["password"]
    for secret in (password, "s3cret", token, "jane.doe", "Jane/1", "203.0.113.77", "orig_code", "987654"):
        assert str(secret) not in output
    requests = [event for event in events(server.output) if event["event"] == "request"]
    assert {event["client"] for event in requests} >= {"203.0.113.0/24"}
    assert "redis_unreachable" in {event["event"] for event in events(server.output)}


@pytest.mark.usefixtures("publisher")
def test_errors_of_a_request_have_its_id_and_no_password(settings: Settings) -> None:
    wrong = psycopg.conninfo.conninfo_to_dict(settings.database_url_of("serving"))
    url = f"postgresql://{wrong['user']}:wr0ng-password@{wrong['host']}:{wrong['port']}/{wrong['dbname']}"
    server = Pod(
        {
            **environment_of(settings),
            "RATES_SERVING_DATABASE_URL": url,
            "RATES_REPLICA_URLS": "",
            "RATES_LOG_LEVEL": "debug",
        }
    )
    try:
        wait_until(
            lambda: httpx.get(f"{server.url}/healthz"),
            seconds=START_SECONDS,
            pause=0.05,
            ignore=(httpx.TransportError,),
        )
        answer = httpx.get(f"{server.url}/rates", params=QUESTION, timeout=30)
    finally:
        server.terminate()
    assert answer.status_code == 503
    of_request = {
        event["event"] for event in events(server.output) if event.get("request_id") == answer.headers["X-Request-ID"]
    }
    assert of_request >= {"request_not_served", "request"}
    assert "wr0ng-password" not in "".join(server.output)


def test_errors_of_targets_contain_no_secret() -> None:
    secrets = {
        "RATES_NOTIFY_SMTP_URL": f"smtp://rates:s3cret-mail@{NOWHERE}",
        "RATES_NOTIFY_EMAIL_FROM": "rates@example.com",
        "RATES_NOTIFY_EMAIL_TO": "jane.doe@example.com",
        "RATES_NOTIFY_GITHUB_URL": f"http://{NOWHERE}",
        "RATES_NOTIFY_GITHUB_TOKEN": "s3cret-github",
        "RATES_NOTIFY_GITHUB_REPOSITORY": "acme/ops",
    }
    program = """
import structlog
from rates_app.notify.alert import NotDelivered
from rates_app.notify.github import GitHub
from rates_app.notify.settings import NotifySettings
from rates_app.ops.logs import configure_logs
from rates_app.settings import ProcessSettings
from tests.fixtures.targets import FIRING, NOW
from tests.integration.notify.test_targets import message
configure_logs(ProcessSettings())
settings = NotifySettings()
for call in (lambda: settings.target().send([FIRING], NOW), lambda: GitHub(settings).take(message(FIRING, "firing"))):
    try:
        call()
    except NotDelivered:
        structlog.get_logger().exception("not_delivered")
"""
    environment = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), "RATES_LOG_LEVEL": "debug", **secrets}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    output = done.stdout + done.stderr
    assert output.count('"not_delivered"') == 2, output
    assert "s3cret" not in output
    assert "jane.doe" not in output
