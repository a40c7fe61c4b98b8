"""Replace the credentials of both stores under load, pod by pod."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
import redis
from psycopg import sql

from drills.load import Load
from drills.stack import RunningStack, value
from rates_app.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from drills.report import Report

PROMISE = "Credentials rotated"
NEXT = "rates_next"


def run(folder: Path, report: Report, *, short: bool) -> None:
    """Add new credentials to the old ones, replace the pods one by one, then revoke the old ones."""
    with RunningStack(folder, short=short) as stack:
        admin_url = stack.cluster.primary.admin_url
        with Load(stack) as load:
            password, word = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
            report.breaks("the rotation begins")
            with psycopg.connect(admin_url, autocommit=True) as admin:
                admin.execute(
                    sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE rates").format(sql.Identifier(NEXT), password)
                )
                # The new login owns nothing: objects that it creates belong to the common role.
                admin.execute(sql.SQL("ALTER ROLE {} SET role = 'rates'").format(sql.Identifier(NEXT)))
            with redis.Redis.from_url(stack.redis.url) as client:
                client.acl_setuser("default", enabled=True, passwords=[f"+{word}"])
            report.log("PostgreSQL has a second login for the service, Redis a second password")

            old = stack.settings
            stack.settings = Settings.model_validate(
                {
                    **old.model_dump(),
                    "database_url": _with(old.database_url.get_secret_value(), NEXT, password),
                    "replica_urls": [_with(url.get_secret_value(), NEXT, password) for url in old.replica_urls],
                    "redis_url": _with(stack.redis.url, "", word),
                }
            )
            load.wait_for_progress()
            for number, pod in enumerate(list(stack.pods)):
                stack.pods[number] = stack.start_pod()  # in one step, as an endpoint replaces another
                pod.terminate()
                report.log(f"pod {number + 1} is replaced")
            with psycopg.connect(admin_url, autocommit=True) as admin:
                users = admin.execute(
                    "SELECT count(*) FROM pg_stat_activity "
                    "WHERE usename = 'rates' AND application_name LIKE 'rates-local%'"
                ).fetchone()
                admin.execute("ALTER ROLE rates NOLOGIN")
                admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rates'")
            with redis.Redis.from_url(_with(stack.redis.url, "", word)) as client:
                client.acl_setuser("default", enabled=True, passwords=[f"-{urlsplit(stack.redis.url).password}"])
            report.recovered("the old credentials are revoked")
            load.wait_for_progress()
        load.report(report)
        report.rows_lost = load.rows_lost(stack.settings.database_url.get_secret_value())
        report.expect("rows lost", 0, report.rows_lost)
        assert users is not None
        report.expect("pods that used the old login at its end", 0, users[0])
        report.expect_true("the old login is refused", _refused(stack.cluster.primary.url))
        report.expect_true("the old password of Redis is refused", _redis_refuses(stack.redis.url))
        report.expect(
            "tables that belong to the new login",
            0,
            value(admin_url, f"SELECT count(*) FROM pg_class WHERE relowner = '{NEXT}'::regrole"),
        )


def _with(url: str, user: str, password: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{user}:{password}@{parts.netloc.rpartition('@')[2]}").geturl()


def _refused(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError as error:
        return "not permitted to log in" in str(error)
    return False


def _redis_refuses(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        try:
            client.ping()
        except redis.AuthenticationError:
            return True
    return False
