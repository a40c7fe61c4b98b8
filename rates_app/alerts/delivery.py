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

from rates_app.alerts.attempts import CLAIM, CONCURRENT_NOTICES, MAX_ATTEMPTS
from rates_app.alerts.confirmation import claim_confirmations, enter_addresses, record_confirmation
from rates_app.alerts.evaluation import evaluate_alerts
from rates_app.alerts.mail import link_of, send_confirmation, send_notice
from rates_app.alerts.targets import ReceiverGone, post
from rates_app.notify.alert import NotDelivered
from rates_app.ops.text import printable
from rates_app.store.connections import connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from rates_app.alerts.confirmation import ClaimedConfirmation
    from rates_app.alerts.model import Channel
    from rates_app.settings import Settings
    from rates_app.store.databases import Connection

log = structlog.get_logger()

NOTICES = Counter(
    "rates_lane_alert_notices", "Attempts at notices of lane alerts by channel and result.", ["channel", "result"]
)

#: A pass claims no further messages of a kind after this, so that lanes are compared again, notices of webhooks do not
#: wait for a mail server that does not respond, and neither does a shutdown.
MAX_KIND_SECONDS = 15.0
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
    site: str | None
    token: bytes | None


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
                enter_addresses(connection)
                _cancel(connection)
                self._confirm(connection, time.monotonic() + MAX_KIND_SECONDS)
                self._deliver(connection, time.monotonic() + MAX_KIND_SECONDS)
        except psycopg.Error as error:
            log.warning("lane_alerts_not_checked", error=str(error).strip().partition("\n")[0])

    def _confirm(self, connection: Connection, deadline: float) -> None:
        """Send confirmation messages until none is due, or until the pass has taken long."""
        while time.monotonic() < deadline and (claimed := claim_confirmations(connection)):
            with ThreadPoolExecutor(CONCURRENT_NOTICES, "confirmation") as threads:
                errors = list(threads.map(self._ask, claimed))
            for message, error in zip(claimed, errors, strict=True):
                record_confirmation(connection, message, error)

    def _ask(self, message: ClaimedConfirmation) -> NotDelivered | None:
        return _attempt(lambda: send_confirmation(self._settings, message), owner=message.owner)

    def _deliver(self, connection: Connection, deadline: float) -> None:
        """Send notices until none is due, or until the pass has taken long."""
        while time.monotonic() < deadline and (claimed := _claim(connection)):
            with ThreadPoolExecutor(CONCURRENT_NOTICES, "notice") as threads:
                errors = list(threads.map(self._send, claimed))
            for notice, error in zip(claimed, errors, strict=True):
                _record(connection, notice, error)

    def _send(self, notice: _Claimed) -> NotDelivered | None:
        send = self._email if notice.channel == "email" else self._post
        return _attempt(lambda: send(notice), notice_id=notice.id)

    def _email(self, notice: _Claimed) -> None:
        assert notice.site is not None  # noqa: S101 - the state of the alert depends on the address
        assert notice.token is not None  # noqa: S101 - likewise
        unsubscribe = link_of(notice.site, "unsubscribe", notice.token)
        send_notice(self._settings, notice.target, notice.id, orjson.loads(notice.body), unsubscribe)

    def _post(self, notice: _Claimed) -> None:
        settings = self._settings
        assert notice.secret is not None  # noqa: S101 - a constraint of the table
        now = datetime.now(UTC)
        headers = {
            "webhook-id": notice.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(notice.secret).sign(notice.id, now, notice.body),
        }
        post(
            notice.target,
            notice.body.encode(),
            headers,
            seconds=settings.alerts_timeout_seconds,
            allow_loopback=settings.alerts_allow_loopback,
        )


def _attempt(
    send: Callable[[], None], *, notice_id: str | None = None, owner: str | None = None
) -> NotDelivered | None:
    """Send a message, and return why it was not accepted.

    A receiver chooses some of the text, for example by an invalid status line. PostgreSQL stores no NUL, and a terminal
    that lists lane alerts must not obey it.
    """
    try:
        send()
    except ReceiverGone as error:
        return error
    except NotDelivered as error:
        return NotDelivered(printable(error))
    except Exception as error:
        log.exception("notice_failed", notice_id=notice_id, owner=owner)
        return NotDelivered(type(error).__name__)
    return None


def _cancel(connection: Connection) -> None:
    """Give up the notices of lane alerts that are not active any more."""
    rows = connection.execute(
        """
        UPDATE lane_alert_notices notice
        SET state = 'failed', ended_at = clock_timestamp(), error = 'the lane alert is ' || alert.state
        FROM lane_alert_states alert
        WHERE alert.alert_id = notice.alert_id AND notice.state = 'pending' AND alert.state <> 'active'
        RETURNING notice.alert_id, notice.id::text, alert.state
        """
    )
    for alert_id, notice_id, state in rows:
        log.info("notice_cancelled", alert_id=alert_id, notice_id=notice_id, state=state)


def _claim(connection: Connection) -> list[_Claimed]:
    """Count an attempt for each of some due notices of active lane alerts, and return them.

    The owners take turns, so that one with many slow receivers does not delay the notices of the others.
    """
    rows = connection.execute(
        """
        UPDATE lane_alert_notices notice SET attempts = notice.attempts + 1, next_attempt_at =
            clock_timestamp() + least(%(first)s * power(3, notice.attempts), %(most)s) * interval '1 second'
        FROM lane_alerts LEFT JOIN lane_alert_addresses entered
            ON channel = 'email' AND entered.owner = lane_alerts.owner AND address = lower(target)
        WHERE lane_alerts.id = notice.alert_id AND notice.id IN (
            SELECT due.id FROM lane_alert_notices due JOIN (
                SELECT waiting.id, row_number() OVER (PARTITION BY owner ORDER BY next_attempt_at) AS turn
                FROM lane_alert_notices waiting
                JOIN lane_alert_states alert USING (alert_id)
                JOIN lane_alerts ON lane_alerts.id = alert_id
                WHERE waiting.state = 'pending' AND next_attempt_at <= clock_timestamp() AND alert.state = 'active'
            ) turns USING (id)
            WHERE due.state = 'pending' AND next_attempt_at <= clock_timestamp()
            ORDER BY turn, next_attempt_at LIMIT %(limit)s FOR UPDATE OF due SKIP LOCKED
        )
        RETURNING notice.id::text, alert_id, body, notice.attempts, channel, target, secret, site, token
        """,
        CLAIM,
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
