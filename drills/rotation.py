"""Replace the credentials of both stores under load: the database's without a restart, those of Redis pod by pod."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

import psycopg
import redis

from drills.load import Load
from drills.stack import RunningStack, value
from rates_app.settings import Settings
from rates_app.store.roles import role_name, set_login

if TYPE_CHECKING:
    from pathlib import Path

    from drills.report import Report

PROMISE = "Credentials rotated"
LOGINS = ("rates_serving_1", "rates_serving_2")


def run(folder: Path, report: Report, *, short: bool) -> None:
    """Let two logins of the database alternate twice, then exchange the password of Redis."""
    with RunningStack(folder, short=short) as stack:
        admin_url = stack.cluster.primary.admin_url
        file = folder / "pg_service.conf"
        addresses = {"primary": stack.settings.database_url_of("serving")}
        addresses["replica"] = stack.cluster.serving_replica_url
        passwords = {LOGINS[0]: str(urlsplit(addresses["primary"]).password)}
        _write(file, addresses, LOGINS[0], passwords[LOGINS[0]])
        stack.settings = Settings.model_validate(
            {
                **stack.settings.model_dump(),
                "serving_database_url": "postgresql://?service=primary",
                "replica_urls": "postgresql://?service=replica",
            }
        )
        stack.environment["PGSERVICEFILE"] = str(file)
        _replace_pods(stack, report)
        processes = [pod.process.pid for pod in stack.pods]
        with Load(stack) as load:
            report.breaks("the rotation begins")
            for previous, login in (LOGINS, LOGINS[::-1]):
                passwords[login] = secrets.token_urlsafe(24)
                with psycopg.connect(stack.cluster.url) as owner:
                    set_login(owner, "serving", login, passwords[login])
                _write(file, addresses, login, passwords[login])
                report.log(f"{login} has another password, and the pods' file names it")
                load.wait_for_progress()
                # What the next rotation does to the other login, and more: its sessions end, too.
                with psycopg.connect(stack.cluster.url) as owner:
                    set_login(owner, "serving", previous, secrets.token_urlsafe(24))
                with psycopg.connect(admin_url, autocommit=True) as admin:
                    admin.execute(
                        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s", (previous,)
                    )
                report.log(f"the password of {previous} is no longer valid, and its sessions have ended")
                load.wait_for_progress()
                report.expect(
                    f"sessions that are not of {login}",
                    0,
                    value(admin_url, f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{previous}'"),
                )
                report.expect_true(
                    f"the service uses {login}",
                    value(admin_url, f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{login}'") > 0,
                )
            report.expect("pods that were restarted", 0, _ended(stack, processes))
            _exchange_redis_password(stack, report, load)
            report.recovered("the old credentials are revoked")
            load.wait_for_progress()
        load.report(report)
        report.rows_lost = load.rows_lost(stack.settings.database_url.get_secret_value())
        report.expect("rows lost", 0, report.rows_lost)
        report.expect_true("the first password is refused", _refused(addresses["primary"]))
        report.expect_true("the old password of Redis is refused", _redis_refuses(stack.redis.url))
        report.expect(
            "tables that belong to a login and not to its role",
            0,
            value(
                admin_url,
                "SELECT count(*) FROM pg_class JOIN pg_roles ON pg_roles.oid = relowner "
                f"WHERE rolname LIKE '{role_name('serving')}_%'",
            ),
        )


def _write(file: Path, addresses: dict[str, str], user: str, password: str) -> None:
    """Write libpq's file of services, which every new connection reads, in one step."""
    sections = []
    for name, address in addresses.items():
        url = urlsplit(address)
        hosts = [host.rpartition(":") for host in url.netloc.rpartition("@")[2].split(",")]
        entries = {
            "host": ",".join(host for host, _, _ in hosts),
            "port": ",".join(port for _, _, port in hosts),
            "dbname": url.path[1:],
            "user": user,
            "password": password,
            **dict(parse_qsl(url.query)),
        }
        sections.append(f"[{name}]\n" + "".join(f"{key}={entry}\n" for key, entry in entries.items()))
    building = file.with_suffix(".new")
    building.touch(mode=0o600)
    building.write_text("\n".join(sections))
    building.replace(file)


def _replace_pods(stack: RunningStack, report: Report) -> None:
    for number, pod in enumerate(list(stack.pods)):
        stack.pods[number] = stack.start_pod()  # in one step, as an endpoint replaces another
        pod.terminate()
        report.log(f"pod {number + 1} is replaced")


def _ended(stack: RunningStack, processes: list[int]) -> int:
    return sum(
        pod.process.poll() is not None or pod.process.pid != process
        for pod, process in zip(stack.pods, processes, strict=True)
    )


def _exchange_redis_password(stack: RunningStack, report: Report, load: Load) -> None:
    """Add a second password, give it to new pods, and remove the first."""
    word = secrets.token_urlsafe(24)
    old = urlsplit(stack.redis.url)
    url = old._replace(netloc=f":{word}@{old.hostname}:{old.port}").geturl()
    with redis.Redis.from_url(stack.redis.url) as client:
        client.acl_setuser("default", enabled=True, passwords=[f"+{word}"])
    report.log("Redis has a second password")
    stack.settings = Settings.model_validate({**stack.settings.model_dump(), "redis_url": url})
    load.wait_for_progress()
    _replace_pods(stack, report)
    with redis.Redis.from_url(url) as client:
        client.acl_setuser("default", enabled=True, passwords=[f"-{old.password}"])


def _refused(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError as error:
        return "password authentication failed" in str(error)
    return False


def _redis_refuses(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        try:
            client.ping()
        except redis.AuthenticationError:
            return True
    return False
