"""Measure good clients during attacks: ``python -m benchmarks.slow_clients``.

For each server and each sort of bad connection, 10,000 of them are opened within 20 s, while good clients send 100
requests per second. The control is this service while the same connections go to another process: its p99 shows what
the attack costs the machine, whichever server it reaches. ``--record`` writes the table into docs/performance.md.
Servers that are not installed are left out: ``apt install haproxy``, ``uv pip install granian==2.8.9``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psycopg

from benchmarks.slow_clients.attack import SORTS
from benchmarks.slow_clients.good import PATIENCE_SECONDS, Latencies, measure
from benchmarks.stores import sample_stores
from docs.tables import format_row, format_table, replace_table
from drills.pod import START_SECONDS, environment_of
from drills.waiting import wait_until
from rates_app.local.server import free_port
from rates_app.store.tokens import create_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "performance.md"
HOT = "/rates?date_from=2021-01-01&date_to=2021-01-31&orig_code=CNGGZ&dest_code=EETLL"
APPLICATION = "benchmarks.slow_clients.application:app"
WORKERS, THREADS = "2", "8"
#: The row of the control.
CONTROL = "ours, attack on a neighbour"
#: Between two measurements, until the server has closed the attack's connections.
SETTLE_SECONDS = 3.0
#: HAProxy as its manual proposes it against slow clients, in front of gunicorn.
HAPROXY = """
global
  maxconn 8000
defaults
  mode http
  timeout connect 2s
  timeout client 10s
  timeout server 30s
  timeout http-request 10s
  option http-buffer-request
frontend public
  bind 127.0.0.1:{port}
  default_backend pods
backend pods
  server pod 127.0.0.1:{behind} maxconn 16
"""


def ours(port: int, _: Path) -> list[list[str]]:
    """Return the command of the service."""
    return [[sys.executable, "-c", "from rates_app.serve import serve; serve()"]]


def gthread(port: int, _: Path) -> list[list[str]]:
    """Return the command of gunicorn with its own threaded worker."""
    options = ["--worker-class=gthread", f"--workers={WORKERS}", f"--threads={THREADS}", f"--bind=127.0.0.1:{port}"]
    return [[sys.executable, "-m", "gunicorn", *options, APPLICATION]]


def granian(port: int, _: Path) -> list[list[str]]:
    """Return the command of granian, with as many processes and threads."""
    options = ["--interface=wsgi", f"--workers={WORKERS}", f"--blocking-threads={THREADS}", f"--port={port}"]
    return [[sys.executable, "-m", "granian", *options, APPLICATION]]


def haproxy(port: int, folder: Path) -> list[list[str]]:
    """Return the commands of HAProxy and of gunicorn behind it."""
    behind = free_port()
    configuration = folder / "haproxy.cfg"
    configuration.write_text(HAPROXY.format(port=port, behind=behind))
    return [*gthread(behind, folder), ["haproxy", "-db", "-f", str(configuration)]]


SERVERS: dict[str, Callable[[int, Path], list[list[str]]]] = {
    "ours": ours,
    "gunicorn, threads": gthread,
    "granian": granian,
    "HAProxy and gunicorn": haproxy,
}


def installed(name: str) -> bool:
    """Return whether a server is installed."""
    if name == "granian":
        return find_spec("granian") is not None
    return name != "HAProxy and gunicorn" or shutil.which("haproxy") is not None


@contextmanager
def running(name: str, folder: Path, environment: dict[str, str]) -> Iterator[int]:
    """Run a server while the context is active and yield its port."""
    port = free_port()
    environment = {**environment, "PATH": os.environ["PATH"], "RATES_HOST": "127.0.0.1", "RATES_PORT": str(port)}
    environment |= {"RATES_OPERATIONS_PORT": str(free_port()), "RATES_DRAIN_SECONDS": "0"}
    environment |= {"RATES_WORKERS": WORKERS, "RATES_THREADS": THREADS, "RATES_GRACE_SECONDS": "1"}
    log_path = folder / f"{port}.log"
    with ExitStack() as stack:
        log = stack.enter_context(log_path.open("wb"))
        for command in SERVERS[name](port, folder):
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=ROOT)
            stack.callback(process.wait, 60)
            stack.callback(process.terminate)
        wait_until(
            lambda: httpx.get(f"http://127.0.0.1:{port}{HOT}").status_code == 200,
            seconds=START_SECONDS,
            pause=0.1,
            describe=log_path.read_text,
            ignore=(httpx.TransportError,),
        )
        yield port


@dataclass(frozen=True)
class ClientLoad:
    """Good and bad clients of each measurement."""

    seconds: float
    connections: int
    #: Good requests per second.
    rate: float
    #: A supplier's token, for uploads.
    token: str


def under(load: ClientLoad, port: int, sort: str | None, attacked: int | None = None) -> Latencies:
    """Measure good clients of a port, during an attack on it, or on the port ``attacked``, if a sort is given."""
    attacker = None
    if sort is not None:
        options = [str(attacked or port), sort, str(load.connections), str(load.seconds)]
        command = [sys.executable, "-m", "benchmarks.slow_clients.attack", *options]
        attacker = subprocess.Popen(
            command, env={**os.environ, "ATTACK_TOKEN": load.token}, cwd=ROOT, stdout=subprocess.PIPE
        )
    try:
        found = asyncio.run(measure(port, HOT, load.seconds, load.rate))
    finally:
        if attacker is not None:
            attacker.wait(load.seconds + 60)
            assert attacker.stdout is not None
            print(f"  {sort}: {int(attacker.stdout.read()):,} connections opened", file=sys.stderr)
            attacker.stdout.close()
    time.sleep(SETTLE_SECONDS)
    return found


@contextmanager
def neighbour(folder: Path) -> Iterator[int]:
    """Run a process that accepts connections and does nothing with them, and yield its port."""
    port = free_port()
    with (folder / f"{port}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.slow_clients.neighbour", str(port)], stdout=log, stderr=log, cwd=ROOT
        )
        try:
            wait_until(
                lambda: socket.create_connection(("127.0.0.1", port)).close() is None,
                seconds=START_SECONDS,
                pause=0.1,
                ignore=(OSError,),
            )
            yield port
        finally:
            process.terminate()
            process.wait(60)


def row(name: str, without: Latencies, during: list[Latencies]) -> str:
    """Format a server's measurements."""
    return format_row([name, f"{without.percentile(0.99):.1f}", *(cell(found, without) for found in during)])


def cell(found: Latencies, without: Latencies) -> str:
    """Format a measurement: p99, its ratio to that without an attack, and failures if there are any."""
    p99 = found.percentile(0.99)
    failed = f", {found.failed / len(found.milliseconds):.0%} failed" if found.failed else ""
    shown = f"over {PATIENCE_SECONDS * 1000:.0f}" if p99 >= PATIENCE_SECONDS * 1000 else f"{p99:.1f}"
    return f"{shown} ({p99 / without.percentile(0.99):.1f}){failed}"


def main() -> None:
    """Measure all servers and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="length of each measurement")
    parser.add_argument("--connections", type=int, default=10_000, help="bad connections in that time")
    parser.add_argument("--rate", type=float, default=100, help="good requests per second")
    parser.add_argument("--server", action="append", choices=SERVERS, help="measure this server only; repeatable")
    parser.add_argument("--sort", action="append", choices=SORTS, help="only this sort of bad connection; repeatable")
    parser.add_argument("--record", action="store_true", help="write the table into docs/performance.md")
    arguments = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < arguments.connections + 1000:
        sys.exit(f"At most {hard} files may be open (now {soft}): raise it, 'ulimit -Hn', or give fewer --connections")
    sorts = arguments.sort or list(SORTS)
    rows = []
    with sample_stores() as settings:
        with psycopg.connect(settings.database_url.get_secret_value()) as connection:
            token = create_token(connection, "supplier", ["batches:write"])
        load = ClientLoad(arguments.seconds, arguments.connections, arguments.rate, token)
        environment = environment_of(settings) | {"RATES_RATE_LIMIT": "1000000000/minute"}
        for name in arguments.server or SERVERS:
            if not installed(name):
                print(f"{name} is not installed; it is left out", file=sys.stderr)
                continue
            with running(name, settings.data_dir, environment) as port:
                print(name, file=sys.stderr)
                without, *during = [under(load, port, sort) for sort in (None, *sorts)]
                rows.append(row(name, without, during))
                if name == "ours":
                    with neighbour(settings.data_dir) as other:
                        rows.append(row(CONTROL, without, [under(load, port, sort, other) for sort in sorts]))
            print(rows[-1], file=sys.stderr)
    table = format_table(["server", "without", *sorts], rows, range(1, len(sorts) + 2))
    print(table)
    if arguments.record:
        PAGE.write_text(replace_table(PAGE.read_text(), "slow-clients", table))


if __name__ == "__main__":
    main()
