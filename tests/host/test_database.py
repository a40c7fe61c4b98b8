"""A healthy database node: one server on the loopback address, with private files."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testinfra.host import Host

    from tests.host.conftest import Node


def test_one_server_runs_on_the_folder_and_not_as_root(host: Host, database: Node) -> None:
    server = host.process.get(pid=database.pid(host))
    assert server.comm == "postgres"
    assert server.user == database.owner
    assert server.user != "root"
    assert str(database.folder / "data") in server.args
    others = [one for one in host.process.filter(comm="postgres") if str(database.folder / "data") in one.args]
    assert [one.pid for one in others] == [server.pid]


def test_it_has_the_helpers_of_its_role(host: Host, database: Node) -> None:
    helpers = " ".join(one.args for one in host.process.filter(ppid=database.pid(host)))
    assert "checkpointer" in helpers
    assert ("walreceiver" in helpers) == (database.folder.name == "replica")
    assert ("walsender" in helpers) == (database.folder.name == "primary")


def test_it_listens_on_the_loopback_address_alone(host: Host, database: Node) -> None:
    assert host.socket(f"tcp://127.0.0.1:{database.port}").is_listening
    assert not host.socket(f"tcp://0.0.0.0:{database.port}").is_listening


def test_its_files_are_private(host: Host, database: Node) -> None:
    data = host.file(str(database.folder / "data"))
    assert data.is_directory
    assert (data.user, data.mode) == (database.owner, 0o700)
    for name in ("postgresql.conf", "pg_hba.conf", "postmaster.pid"):
        file = host.file(str(database.folder / "data" / name))
        assert (file.user, file.mode) == (database.owner, 0o600), name


def test_a_login_needs_a_password(host: Host, database: Node) -> None:
    rules = host.file(str(database.folder / "data" / "pg_hba.conf")).content_string.splitlines()
    assert {rule.split()[-1] for rule in rules if rule.strip()} == {"scram-sha-256"}
    assert host.file(str(database.folder / "data" / "postgresql.conf")).contains(
        "password_encryption = 'scram-sha-256'"
    )


def test_its_version_is_one_that_the_service_supports(host: Host, database: Node) -> None:
    assert int(host.file(str(database.folder / "data" / "PG_VERSION")).content_string) >= 16


def test_its_log_has_no_panic(host: Host, database: Node) -> None:
    assert not host.file(str(database.folder / "server.log")).contains("PANIC:")
