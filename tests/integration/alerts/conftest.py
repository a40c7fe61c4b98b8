"""A receiver of webhooks, and the service with alerts for two consumers and an operator."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from pydantic import SecretStr

from rates_app.alerts.delivery import AlertPass
from rates_app.application import create_app
from rates_app.store.tokens import create_token
from tests.serving import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from email.message import Message as ReceivedMessage

    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

    from rates_app.settings import Settings
    from tests.fixtures.service import Publisher
    from tests.fixtures.targets import MailServer

Headers = dict[str, str]


@dataclass
class Receiver:
    """Takes webhooks. It responds with ``statuses`` first, then with 204, each after ``before_response``."""

    url: str = ""
    requests: list[tuple[Headers, str]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    before_response: Callable[[], None] = lambda: None

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.requests]

    def notices(self) -> list[Any]:
        return [json.loads(body)["data"] for _, body in self.requests]


def signature(secret: str, headers: Headers, body: str) -> str:
    """Sign as the specification of Standard Webhooks says, without the library that the service uses."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body}"
    return "v1," + base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()


def text_of(message: ReceivedMessage) -> str:
    content = message.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content.decode()


def links_in(message: ReceivedMessage) -> dict[str, str]:
    """Return the links of an e-mail to pages of addresses, without the host, by what they do."""
    return {
        action: path for path, action in re.findall(r"http://localhost(/alerts/(\w+)\?token=\w+)", text_of(message))
    }


def is_recent(headers: Headers) -> bool:
    return abs(datetime.now(UTC).timestamp() - int(headers["webhook-timestamp"])) < 300


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    state = Receiver()

    class WebhookHandler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            state.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
            state.before_response()
            self.send_response(state.statuses.pop(0) if state.statuses else 204)
            self.send_header("Location", f"{state.url}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    with serving(WebhookHandler) as state.url:
        yield state


@pytest.fixture
def alert_settings(settings: Settings, mail_server: MailServer) -> Settings:
    """Settings that permit the receiver, which is on this machine, and name the mail server."""
    return settings.model_copy(
        update={
            "allowed_hosts": ("localhost",),
            "alerts_allow_loopback": True,
            "alerts_timeout_seconds": 5.0,
            "alerts_email_from": "rates@rates.example",
            "alerts_smtp_url": SecretStr(mail_server.url),
        }
    )


@pytest.fixture
def client(alert_settings: Settings, publisher: Publisher) -> Iterator[FlaskClient]:
    del publisher
    application = create_app(alert_settings)
    yield application.test_client()
    application.extensions["rates"].close()


@pytest.fixture
def tokens(publisher: Publisher) -> dict[str, Headers]:
    """Headers with tokens: two consumers, an operator, and a supplier without the scope."""
    scopes = {"operator": "operator", "acme": "alerts:write", "other": "alerts:write", "supplier": "batches:write"}
    with psycopg.connect(publisher.url) as connection:
        return {
            name: {"Authorization": f"Bearer {create_token(connection, name, [scope])}"}
            for name, scope in scopes.items()
        }


@dataclass
class AlertBench:
    """A lane with prices, the alerts of a consumer on it, and their receiver."""

    client: FlaskClient
    tokens: dict[str, Headers]
    publisher: Publisher
    receiver: Receiver
    settings: Settings

    def create(self, *, token: str = "acme", **members: Any) -> Any:
        """Create a lane alert of the token's owner that goes to the receiver, unless the members say otherwise."""
        body = {
            "origin": "cnsgh",
            "destination": "SEGOT",
            "condition": "above",
            "threshold": 1500,
            "webhook": f"{self.receiver.url}/hook?key=1",
            **members,
        }
        answer = self.client.post("/v1/alerts", json=body, headers=self.tokens[token])
        assert answer.status_code == 201, answer.text
        return answer.json

    def create_email(self, **members: Any) -> Any:
        """Create a lane alert of acme by e-mail, whose address is not confirmed."""
        return self.create(webhook=None, **{"email": "buyer@acme.example", **members})

    def publish(self, day: int, usd: int) -> None:
        self.publisher.publish([("CNSGH", "SEGOT", date(2021, 1, day), usd * 100)] * 3)

    def run(self, **settings: Any) -> None:
        AlertPass(self.settings.model_copy(update=settings)).run()

    def listed(self) -> list[Any]:
        answer: Any = self.client.get("/v1/alerts", headers=self.tokens["acme"]).json
        return list(answer["alerts"])

    def execute(self, statement: str) -> list[Any]:
        """Execute a statement as the owner of the schema, and return its rows."""
        with psycopg.connect(self.publisher.url) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def make_due(self) -> None:
        """Let the time until the next attempt pass."""
        self.execute("UPDATE lane_alert_notices SET next_attempt_at = clock_timestamp()")
        self.execute("UPDATE lane_alert_addresses SET next_attempt_at = clock_timestamp()")

    def confirm(self, message: ReceivedMessage) -> None:
        """Press the button on the page behind the link of a confirmation message."""
        assert self.press(links_in(message)["confirm"]).status_code == 200

    def press(self, path: str, **request: Any) -> TestResponse:
        """Send the form of a page, as its button and mail programs do (RFC 8058)."""
        return self.client.post(path, **{"data": {"List-Unsubscribe": "One-Click"}, **request})


@pytest.fixture
def bench(
    client: FlaskClient,
    tokens: dict[str, Headers],
    publisher: Publisher,
    receiver: Receiver,
    alert_settings: Settings,
) -> AlertBench:
    return AlertBench(client, tokens, publisher, receiver, alert_settings)
