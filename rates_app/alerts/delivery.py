"""Deliver notices: claim those that are due, send each once, and record the result.

A notice is claimed by a commit before it is sent, which also sets the time of the next attempt. So a process that ends
in between neither loses the notice nor repeats it immediately. Its receiver gets the same ``webhook-id`` again.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import orjson
import psycopg
import structlog
from prometheus_client import Counter
from standardwebhooks import Webhook

from rates_app.alerts.evaluation import evaluate_alerts
from rates_app.alerts.mail import send_email
from rates_app.alerts.targets import ReceiverGone, post
from rates_app.notify.alert import NotDelivered
from rates_app.store.connections import connect

if TYPE_CHECKING:
    from rates_app.alerts.model import Channel
    from rates_app.settings import Settings
    from rates_app.store.databases import Connection

log = structlog.get_logger()

NOTICES = Counter(
    "rates_lane_alert_notices", "Attempts at notices of lane alerts by channel and result.", ["channel", "result"]
)

#: Attempts at a notice: with the delays below, within 18 hours.
MAX_ATTEMPTS = 8
FIRST_DELAY_SECONDS = 60
MAX_DELAY_SECONDS = 12 * 60 * 60

#: Notices that are sent at a time. A receiver that does not respond holds one place until the timeout.
CONCURRENT_NOTICES = 8

#: A pass claims no further notices after this, so that lanes are compared again and a shutdown does not wait.
MAX_PASS_SECONDS = 30.0
#: Seconds between two passes.
PASS_SECONDS = 5.0


class _Claimed(NamedTuple):
    id: str
    alert_id: int
    body: str
    attempts: int
    channel: Channel
    target: str
    secret: str | None


class AlertPass:
    """Compares lane alerts and delivers their notices.

    Args:
        settings: The primary, the mail server and the timeout.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def run(self) -> None:
        """Make one pass. A failure of the database is logged: the next pass repeats what was not recorded."""
        try:
            with connect(
                self._settings.database_url_of("ingest"),
                "rates-alerts",
                autocommit=True,
                statement_seconds=self._settings.query_timeout_seconds,
            ) as connection:
                evaluate_alerts(connection)
                self._deliver(connection)
        except psycopg.Error as error:
            log.warning("lane_alerts_not_checked", error=str(error).strip().partition("\n")[0])

    def _deliver(self, connection: Connection) -> None:
        """Send notices until none is due, or until the pass has taken long."""
        deadline = time.monotonic() + MAX_PASS_SECONDS
        while time.monotonic() < deadline and (claimed := _claim(connection)):
            with ThreadPoolExecutor(CONCURRENT_NOTICES, "notice") as threads:
                errors = list(threads.map(self._send, claimed))
            for notice, error in zip(claimed, errors, strict=True):
                _record(connection, notice, error)

    def _send(self, notice: _Claimed) -> NotDelivered | None:
        """Send a notice, and return why it was not accepted."""
        settings = self._settings
        try:
            if notice.channel == "email":
                send_email(settings, notice.target, notice.id, orjson.loads(notice.body))
                return None
            assert notice.secret is not None  # noqa: S101 - a constraint of the table
            now = datetime.now(UTC)
            signature = Webhook(notice.secret).sign(notice.id, now, notice.body)
            headers = {
                "webhook-id": notice.id,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": signature,
            }
            post(
                notice.target,
                notice.body.encode(),
                headers,
                seconds=settings.alerts_timeout_seconds,
                allow_loopback=settings.alerts_allow_loopback,
            )
        except NotDelivered as error:
            return error
        except Exception as error:
            log.exception("notice_failed", notice_id=notice.id)
            return NotDelivered(type(error).__name__)
        return None


def _claim(connection: Connection) -> list[_Claimed]:
    """Count an attempt for each of some due notices, and return them."""
    rows = connection.execute(
        """
        UPDATE lane_alert_notices notice SET attempts = attempts + 1, next_attempt_at =
            clock_timestamp() + least(%(first)s * power(3, attempts), %(most)s) * interval '1 second'
        FROM lane_alerts
        WHERE lane_alerts.id = notice.alert_id AND notice.id IN (
            SELECT id FROM lane_alert_notices
            WHERE state = 'pending' AND next_attempt_at <= clock_timestamp()
            ORDER BY next_attempt_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
        )
        RETURNING notice.id::text, alert_id, body, attempts, channel, target, secret
        """,
        {"first": FIRST_DELAY_SECONDS, "most": MAX_DELAY_SECONDS, "limit": CONCURRENT_NOTICES},
    )
    return [_Claimed(*row) for row in rows]


def _record(connection: Connection, notice: _Claimed, error: NotDelivered | None) -> None:
    """Record the result of an attempt."""
    given_up = error is not None and (notice.attempts >= MAX_ATTEMPTS or isinstance(error, ReceiverGone))
    state = "delivered" if error is None else "failed" if given_up else "pending"
    connection.execute(
        """
        UPDATE lane_alert_notices
        SET state = %(state)s, error = %(error)s,
            ended_at = CASE WHEN %(state)s <> 'pending' THEN clock_timestamp() END
        WHERE id = %(id)s
        """,
        {"state": state, "error": None if error is None else str(error)[:300], "id": notice.id},
    )
    NOTICES.labels(notice.channel, "retried" if state == "pending" else state).inc()
    if error is None:
        log.info(
            "notice_delivered",
            alert_id=notice.alert_id,
            notice_id=notice.id,
            attempt=notice.attempts,
            channel=notice.channel,
        )
        return
    log.warning(  # without the reason, which may contain an e-mail address
        "notice_not_delivered",
        alert_id=notice.alert_id,
        notice_id=notice.id,
        attempt=notice.attempts,
        channel=notice.channel,
        given_up=given_up,
    )
