from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import psycopg
import pytest

from drills.waiting import wait_until
from rates_app.local.account import account, run
from rates_app.local.postgres import PostgresServer
from rates_app.local.redis import RedisServer
from rates_app.local.server import HOST, free_port, port_is_free, wait_until_ended

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RATES = Path(sysconfig.get_path("scripts")) / "rates"
SECONDS = 120
QUESTION = {"date_from": "2021-01-01", "date_to": "2021-01-01", "orig_code": "CNSGH", "dest_code": "north_europe_main"}


def service_port() -> int:
    """Return a free port with a free next one, for the operations server."""
    return next(port for port in iter(free_port, None) if port_is_free(port + 1))


class Dev:
    """One run of ``rates dev``."""

    def __init__(
        self, folder: Path, prefix: Sequence[str] = (), *, port: int | None = None, options: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self.output = folder.with_suffix(".output")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RATES_")}
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [*prefix, RATES, "dev", "--data", folder, "--port", str(port or service_port()), *options],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=environment,
            )

    def wait_for(self, pattern: str) -> str:
        def search() -> re.Match[str] | None:
            assert self.process.poll() is None, self.output.read_text()
            return re.search(pattern, self.output.read_text())

        found = wait_until(search, seconds=SECONDS, pause=0.05, describe=self.output.read_text)
        assert found is not None
        return found[1]

    @property
    def url(self) -> str:
        return self.wait_for(r"Page +(http://\S+)/\n")

    def answer(self) -> object:
        return httpx.get(f"{self.url}/rates", params=QUESTION).raise_for_status().json()

    def batches(self) -> int:
        with psycopg.connect(PostgresServer(self.folder / "postgres" / "primary").url) as connection:
            row = connection.execute("SELECT count(*) FROM batches WHERE state = 'published'").fetchone()
        assert row is not None
        return int(row[0])

    def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


def family(data: Path) -> list[psutil.Process]:
    """Find the processes that use a folder: servers by their command line, the service by its settings."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "environ"])
        if any(f"{data}/" in part for part in process.info["cmdline"] or ())
        or (process.info["environ"] or {}).get("RATES_DATA_DIR") == str(data)
    ]


@pytest.fixture
def data(folder: Path) -> Iterator[Path]:
    """A folder for ``rates dev``. Remaining processes of a failed test are stopped."""
    data = folder / "data"
    yield data
    for process in family(data):
        process.kill()


@pytest.mark.slow
def test_it_serves_the_sample_stops_completely_and_starts_again(data: Path) -> None:
    first = Dev(data)
    expected = {"rates": [{"count": 24, "day": "2021-01-01", "price": pytest.approx(1111.92, abs=0.01)}]}
    assert first.answer() == expected
    assert httpx.get(f"{first.url}/readyz").status_code == 200
    assert stat.S_IMODE((data / "env").stat().st_mode) == 0o600
    # other commands find it with its env file
    listed = subprocess.run(
        ["sh", "-c", f". {data}/env && rates batches"],
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert "published" in listed.stdout
    second = subprocess.run([RATES, "dev", "--data", data], capture_output=True, text=True, check=False, cwd="/")
    assert second.returncode == 1
    assert f"already running on {data}: {first.url} (process {first.process.pid})" in second.stderr
    started = family(data)
    assert len(started) >= 6
    assert first.stop(signal.SIGTERM) == 0
    assert wait_until_ended(started, 0), started
    assert not family(data)

    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        again = Dev(data, port=port)
        assert again.answer() == expected
        assert f"Port {port} is in use" in again.output.read_text()
        assert again.batches() == 1
        assert again.stop(signal.SIGINT) == 0
    assert not family(data)


def test_after_a_kill_the_next_start_stops_the_old_servers(data: Path) -> None:
    port = service_port()
    killed = Dev(data, port=port)
    url, answer = killed.url, killed.answer()
    left = family(data)
    assert killed.stop(signal.SIGKILL) == -signal.SIGKILL
    assert not wait_until_ended(left, 0)
    again = Dev(data, port=port)
    assert again.url == url
    assert again.answer() == answer
    assert wait_until_ended(left, SECONDS), "a process of the killed run is still there"
    assert again.batches() == 1
    assert again.stop(signal.SIGTERM) == 0
    assert not family(data)


@pytest.mark.parametrize("step", ["Start PostgreSQL", "Migrate the database"])
def test_it_stops_completely_during_its_start(data: Path, step: str) -> None:
    dev = Dev(data)
    dev.wait_for(rf"(✓ {step})")
    assert dev.stop(signal.SIGTERM) == 0
    assert "Page" not in dev.output.read_text()
    assert not family(data)


def test_it_stops_completely_with_an_error_when_the_service_dies(data: Path) -> None:
    dev = Dev(data)
    assert dev.url
    children = psutil.Process(dev.process.pid).children()
    (service,) = (child for child in children if "rates_app.serve" in child.cmdline())
    service.kill()
    assert dev.process.wait(SECONDS) == 1
    assert "the service exited unexpectedly with code -9" in dev.output.read_text()
    assert not family(data)


def test_it_restarts_dead_stores_and_archives_for_backups(data: Path) -> None:
    dev = Dev(data, options=["--archive"])
    answer = dev.answer()
    primary = PostgresServer(data / "postgres" / "primary")
    replica = PostgresServer(data / "postgres" / "replica", primary=primary)
    redis = RedisServer(data / "redis")
    for server in (redis, replica, primary):
        port = server.port
        server.kill()
        dev.wait_for(rf"({server.name} has been restarted)")
        assert server.is_running()
        assert server.port == port
    assert dev.answer() == answer
    taken = subprocess.run(
        ["sh", "-c", f". {data}/env && {RATES} backup && {RATES} backup verify"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert taken.returncode == 0, taken.stderr
    assert "is complete, and" in taken.stdout
    assert "does not archive" not in taken.stderr
    assert dev.stop(signal.SIGTERM) == 0
    assert not family(data)


def test_it_stops_completely_with_an_error_when_a_store_keeps_dying(data: Path) -> None:
    dev = Dev(data)
    assert dev.url
    primary = PostgresServer(data / "postgres" / "primary")
    (primary.data / "PG_VERSION").write_text("9.6\n")
    primary.kill()
    dev.wait_for(r"(attempt 2)")
    assert "by PostgreSQL version 9.6" in dev.output.read_text()
    assert dev.process.wait(SECONDS) == 1
    assert "PostgreSQL has exited 4 times and is not restarted again" in dev.output.read_text()
    assert not family(data)


def test_it_stops_completely_after_its_folder_was_removed(data: Path) -> None:
    dev = Dev(data)
    assert dev.url
    for _ in range(3):  # the dispatcher scans the folders and creates missing ones
        shutil.rmtree(data, ignore_errors=True)
    assert dev.stop(signal.SIGTERM) == 0
    assert not family(data)


@pytest.mark.skipif(account() is None, reason="the other tests run it as an ordinary user already")
def test_an_ordinary_user_can_run_it(data: Path) -> None:
    owner = account()
    assert owner is not None
    os.chown(data.parent, owner.pw_uid, owner.pw_gid)
    drop = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
    if run(["test", "-x", sys.executable]).returncode:
        # Other users may not be permitted to read root's interpreter: grant this user read access only.
        drop += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    dev = Dev(data, drop)
    assert dev.answer()
    assert {process.uids().effective for process in family(data)} == {owner.pw_uid}
    assert dev.stop(signal.SIGTERM) == 0
    assert not family(data)
