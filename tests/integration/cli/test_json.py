"""Commands that read print JSON with `--json` and nothing else on standard output; progress never tears logs apart."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import typer
from typer.testing import CliRunner

from drills.pod import environment_of
from rates_app.batches.formats.profile import parse_profile
from rates_app.batches.ledger.profiles import set_profile
from rates_app.batches.ledger.schedules import Schedule, set_schedule
from rates_app.batches.pipeline import engine
from rates_app.cli import app
from rates_app.store.tokens import create_token
from rates_app.watch.log_search import Hit, SearchResult

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.testing import FlaskClient

    from rates_app.settings import Settings
    from tests.fixtures.service import Publisher

#: Commands that run, change or verify something: their result is what they do, and their exit status.
ACTING = {
    *("serve", "dev", "dispatch", "housekeep", "watch-pods", "migrate", "login", "epoch", "locations", "generate"),
    *("ingest", "publish", "refuse", "withdraw", "restore", "notify test"),
    *("token create", "token revoke", "profile set", "profile delete", "schedule set", "schedule delete"),
    *("backup verify", "backup archive", "alert add", "alert confirm", "alert remove"),
}
#: Commands that ask a running service. Their own tests read their JSON: tests/integration/doctor/test_probe.py.
ASKING = {"probe"}
#: Arguments of commands that read, and the members of the object that each prints; None for a line per object.
READING: dict[str, list[tuple[list[str], set[str] | None]]] = {
    "batches": [([], {"batches"}), (["1"], {"id", "state", "progress", "next_step", "total"})],
    "rejects": [(["2"], None)],
    "rate": [(["CNSGH", "NOOSL"], {"origin", "destination", "currency", "rates"})],
    "token list": [([], {"tokens"})],
    "profile show": [(["acme"], {"date_order", "decimal"})],
    "profile list": [([], {"profiles"})],
    "schedule list": [([], {"schedules"})],
    "alert list": [([], {"alerts"})],
    "backup list": [([], {"backups"})],
    "search-logs": [(["--group", "application"], {"lines", "complete"})],
    "review": [([], {"days", "suppliers"})],
    "doctor": [([], {"ledger", "deliveries"})],
    "runbook": [([], {"runbooks"}), (["replica-lag"], {"name", "title", "meaning", "text"})],
    "settings": [([], {"settings"})],
}


def leaves(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that can run, with its words."""
    for name, each in getattr(command, "commands", {}).items():
        yield from leaves(each, f"{path} {name}".strip())
    if not hasattr(command, "commands"):
        yield path, command


COMMANDS = dict(leaves(typer.main.get_command(app)))


@pytest.fixture
def filled(settings: Settings, publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A stack with a published batch, a refused one, a token, a profile, a schedule and a found log line."""
    publisher.publish([("CNSGH", "NOOSL", date(2021, 1, 5), cents) for cents in (100_000, 110_000, 120_000)])
    bad = tmp_path / "bad.csv"
    bad.write_text("orig_code,dest_code,day,price\nNOWHR,NOOSL,2021-01-05,1\n")
    assert engine.ingest(settings, str(bad))[0].state == "refused"
    with psycopg.connect(publisher.url) as connection:
        create_token(connection, "acme", ["batches:write"], datetime.now(UTC) + timedelta(days=1))
        set_profile(connection, "acme", parse_profile(["decimal=,"]))
        set_schedule(connection, "acme", Schedule(by="08:00"))
    (tmp_path / "backups").mkdir()
    hit = Hit(datetime.now(UTC), None, "application", "pod", "line")
    monkeypatch.setattr("rates_app.watch.log_search.search", lambda *_, **__: SearchResult([hit], True, 1))
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RATES_BACKUP_URL", str(tmp_path / "backups"))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    return settings


@pytest.mark.usefixtures("roomy_disk")
def test_every_command_that_reads_prints_json(filled: Settings, client: FlaskClient) -> None:
    assert COMMANDS.keys() == ACTING | ASKING | READING.keys(), "state of a new command whether it reads"
    assert all(any("--json" in option.opts for option in COMMANDS[name].params) for name in ASKING)
    assert not [name for name in ACTING if any("--json" in option.opts for option in COMMANDS[name].params)]
    printed: dict[str, Any] = {}
    for name, runs in READING.items():
        for arguments, members in runs:
            done = CliRunner().invoke(app, [*name.split(), *arguments, "--json"], catch_exceptions=False)
            assert done.exit_code == 0, (name, done.output)
            lines = [json.loads(line) for line in done.stdout.splitlines()]
            assert lines, name
            if members is not None:
                assert len(lines) == 1, name
                assert members <= lines[0].keys(), name
            printed[" ".join([name, *arguments])] = lines
    for command, path in {
        "batches": "/v1/batches",
        "batches 1": "/v1/batches/1",
        "schedule list": "/v1/schedules",
        "rate CNSGH NOOSL": "/v1/rates?origin=CNSGH&destination=NOOSL",
    }.items():
        answer: Any = client.get(path).json
        answer.pop("next", None)
        assert printed[command] == [answer], command
    rejects: Any = client.get("/v1/batches/2/rejects").json
    assert printed["rejects 2"] == rejects["rejects"]
    assert [(each["name"], each["scopes"]) for each in printed["token list"][0]["tokens"]] == [
        ("acme", ["batches:write"])
    ]
    assert printed["profile list"][0]["profiles"][0]["profile"] == printed["profile show acme"][0]
    assert filled.data_dir.exists()


@pytest.mark.usefixtures("publisher")
@pytest.mark.parametrize("log_format", ["json", None])
def test_a_terminal_gets_a_progress_bar_or_json_logs(
    settings: Settings, tmp_path: Path, log_format: str | None
) -> None:
    file = tmp_path / "prices.csv"
    file.write_text("orig_code,dest_code,day,price\nCNSGH,NOOSL,2021-01-05,1000\n")
    environment = {**os.environ, **environment_of(settings), "TERM": "xterm", "COLUMNS": "200"}
    environment |= {"RATES_LOG_FORMAT": log_format} if log_format else {}
    terminal, of_command = pty.openpty()
    run = subprocess.Popen(
        [Path(sys.executable).with_name("rates"), "ingest", str(file)],
        env=environment, stdout=subprocess.PIPE, stderr=of_command,
    )  # fmt: skip
    os.close(of_command)
    shown = b""
    try:
        while part := os.read(terminal, 65536):
            shown += part
    except OSError:  # the end of a terminal
        pass
    os.close(terminal)
    assert run.stdout is not None
    assert run.stdout.read() == b"Batch 1 is published: 1 price, generation 3.\n"
    assert run.wait() == 0
    lines = [line for line in shown.decode().splitlines() if line.strip()]
    assert any("batch_ended" in line for line in lines)
    if log_format:
        assert all(json.loads(line)["event"] for line in lines)
    else:
        assert "━" in shown.decode()
        assert not any("{" in line for line in lines)
