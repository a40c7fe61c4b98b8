"""Servers of notification targets, and notifications for tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from aiosmtpd.handlers import Message

from rates_app.notify.notification import Notification, Severity, State

if TYPE_CHECKING:
    from email.message import Message as ReceivedMessage


@dataclass
class Desk:
    """A chat, a pager and two trackers behind one address, with the requests that they got and their state."""

    url: str = ""
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)  # responses to send first, instead of accepting the request
    tickets: dict[str, dict[str, Any]] = field(default_factory=dict)

    def bodies(self, method: str, path: str) -> list[Any]:
        return [body for m, p, body in self.requests if (m, p) == (method, path)]

    def handle(self, method: str, target: str, body: Any) -> tuple[int, Any]:
        path = urlsplit(target).path
        question = parse_qs(urlsplit(target).query)
        self.requests.append((method, path, body))
        if self.statuses and (status := self.statuses.pop(0)):
            return status, {"message": f"configured to return {status}"}
        if path == "/chat":
            return 200, "ok"
        if path == "/v2/enqueue":
            return 202, {"status": "success", "dedup_key": body["dedup_key"]}
        if path.startswith("/rest/"):
            return self._jira(method, path.split("/")[4:], question, body)
        return self._github(method, path, question, body)

    def _jira(  # noqa: PLR0911 - one answer a page
        self, method: str, parts: list[str], question: dict[str, list[str]], body: Any
    ) -> tuple[int, Any]:
        match method, parts:
            case "GET", ["serverInfo"]:
                return 200, {"versionNumbers": [9, 12, 0], "deploymentType": "Server"}
            case "GET", ["field"]:
                return 200, []
            case "GET", ["search"]:
                jql = question["jql"][0]
                found = [t for t in self.tickets.values() if t["open"] and t["fields"]["labels"][2] in jql]
                return 200, {"startAt": 0, "maxResults": 10, "total": len(found), "issues": found}
            case "POST", ["issue"]:
                key = f"OPS-{len(self.tickets) + 1}"
                self.tickets[key] = {"id": key, "key": key, "open": True, "fields": body["fields"]}
                return 201, self.tickets[key]
            case "GET", ["issue", key]:
                return 200, self.tickets[key]
            case "POST", ["issue", _, "comment"]:
                return 201, {"id": "1", "body": body["body"]}
            case "GET", ["issue", _, "transitions"]:
                return 200, {"transitions": [{"id": "31", "name": "Done"}]}
            case "POST", ["issue", key, "transitions"]:
                self.tickets[key]["open"] = False
                return 204, None
        return 404, {"message": "no such page"}

    def _github(self, method: str, path: str, question: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        match method, path.split("/")[1:]:
            case "GET", ["repos", _, _, "issues"]:
                return 200, [t for t in self.tickets.values() if t["open"] and question["labels"][0] in t["labels"]]
            case "POST", ["repos", owner, name, "issues"]:
                number = len(self.tickets) + 1
                address = f"{self.url}/repos/{owner}/{name}/issues/{number}"
                ticket = {**body, "number": number, "url": address, "open": True}
                self.tickets[str(number)] = ticket
                return 201, {k: v for k, v in ticket.items() if k != "labels"}
            case "POST", ["repos", _, _, "issues", _, "comments"]:
                return 201, {"id": 1}
            case "PATCH", ["repos", _, _, "issues", number]:
                self.tickets[number]["open"] = body["state"] == "open"
                return 200, {"number": int(number)}
        return 404, {"message": "no such page"}


class Inbox(Message):
    """Stores e-mails; refuses the recipient ``nobody`` with 550."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[ReceivedMessage] = []

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802
        if address.startswith("nobody@"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    def handle_message(self, message: ReceivedMessage) -> None:
        self.messages.append(message)


@dataclass
class MailServer:
    url: str
    inbox: Inbox


FIRING = Notification(
    key="prod/rates/rates-app/crash-loop",
    state=State.FIRING,
    severity=Severity.CRITICAL,
    title="rates/rates-app: a container keeps crashing (prod)",
    summary="It is restarted with growing pauses.",
    facts={"namespace": "rates", "pod": "rates-app-<1>"},
    excerpt="Traceback & more\nValueError: <bad>",
    runbook="https://runbooks.example/pod-crash-loop.md",
    started_at=datetime(2026, 11, 24, 3, 0, tzinfo=UTC),
)
RESOLVED = FIRING.model_copy(update={"state": State.RESOLVED, "ended_at": datetime(2026, 11, 24, 3, 30, tzinfo=UTC)})
