"""The rotation function with a real PostgreSQL behind TLS, and Secrets Manager in moto."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import boto3
import psycopg
import pytest
from components.credentials import DRIVER, ROLES
from components.function import package_files
from lambdas.rotation import handler
from moto import mock_aws

from rates_app.local.postgres import PostgresServer
from rates_app.local.server import HOST
from rates_app.store.migrate import migrate
from tests.fixtures.stores import create_folder
from tests.fixtures.tls import tls_in_front
from tests.infra.archives import assert_importable
from tests.infra.rotations import STEPS, announce, take_step

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.xdist_group("rotation")

HERE, THERE = "us-east-1", "us-west-2"
FOLLOWING_HOST = "second"


class Rotations(NamedTuple):
    """A database as RDS creates it, and its secrets as Pulumi does: those of the region, and their followers."""

    server: PostgresServer
    secrets: Any
    followers: Any
    arns: dict[str, str]

    def begin(self, user: str, number: int) -> str:
        """Announce a version without a value, and return its token."""
        return announce(self.secrets, self.arns[user], number)

    def step(self, name: str, user: str, token: str) -> None:
        take_step(name, self.arns[user], token)

    def rotate(self, user: str, number: int) -> str:
        """Rotate a secret, and return the URL with the new login."""
        token = self.begin(user, number)
        for name in STEPS:
            self.step(name, user, token)
        return self.url(user)

    def current(self, user: str) -> dict[str, str]:
        value: dict[str, str] = json.loads(
            self.secrets.get_secret_value(SecretId=self.arns[user], VersionStage="AWSCURRENT")["SecretString"]
        )
        return value

    def url(self, user: str) -> str:
        login = self.current(user)
        return f"postgresql://{login['username']}:{quote(login['password'])}@{HOST}:{self.server.port}/rates"


@pytest.fixture(scope="module")
def server(servers_folder: Path) -> Iterator[PostgresServer]:
    """A server whose user ``rates`` has the rights of RDS's master user, without any role of the service."""
    server = PostgresServer(create_folder(servers_folder) / "primary", fast=True)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def rotations(server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rotations]:
    password = psycopg.conninfo.conninfo_to_dict(server.url)["password"]
    with psycopg.connect(server.admin_url, autocommit=True) as admin:
        admin.execute(psycopg.sql.SQL("ALTER ROLE rates PASSWORD {}").format(password))
    with mock_aws(), tls_in_front(tmp_path, server.port) as front:
        monkeypatch.setenv("AWS_DEFAULT_REGION", HERE)
        secrets, followers = boto3.client("secretsmanager"), boto3.client("secretsmanager", region_name=THERE)
        arns, followed = {}, {}
        for user in ("master", *ROLES):
            login = {
                "engine": "postgres",
                "host": HOST,
                "port": str(front.port),
                "dbname": "rates",
                "replicas": "",
                "username": "rates" if user == "master" else f"rates_{user}_2",
                "password": password if user == "master" else "",
            }
            arns[user] = secrets.create_secret(Name=user, SecretString=json.dumps(login))["ARN"]
            there = json.dumps(login | {"host": FOLLOWING_HOST})
            followed[arns[user]] = followers.create_secret(Name=user, SecretString=there)["ARN"]
        for name, value in {
            "ADDRESS": HOST,
            "REPLICAS": "replica-1,replica-2",
            "MASTER_SECRET": arns["master"],
            "FOLLOWERS": json.dumps(followed),
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(handler, "AUTHORITIES", front.right)
        yield Rotations(server, secrets, followers, arns)


def user_of(connection: psycopg.Connection[Any]) -> tuple[str, str]:
    row = connection.execute("SELECT session_user::text, current_user::text").fetchone()
    assert row is not None
    return row[0], row[1]


def test_the_previous_login_works_until_the_next_rotation(rotations: Rotations) -> None:
    first = rotations.rotate("serving", 1)
    with psycopg.connect(first, autocommit=True) as long_lived:
        assert user_of(long_lived) == ("rates_serving_1", "rates_serving")
        second = rotations.rotate("serving", 2)
        # A pod that has not read the new version yet opens another connection.
        for url, login in ((first, "rates_serving_1"), (second, "rates_serving_2")):
            with psycopg.connect(url) as connection:
                assert user_of(connection) == (login, "rates_serving")
        third = rotations.rotate("serving", 3)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(first)
        for url, login in ((second, "rates_serving_2"), (third, "rates_serving_1")):
            with psycopg.connect(url) as connection:
                assert user_of(connection) == (login, "rates_serving")
        assert user_of(long_lived) == ("rates_serving_1", "rates_serving")


def test_migrations_run_as_an_owner_that_alternates_too(rotations: Rotations) -> None:
    urls = {role: rotations.rotate(role, 1) for role in ROLES}
    assert migrate(urls["owner"])
    with psycopg.connect(urls["serving"]) as serving:
        assert serving.execute("SELECT count(*) FROM visible_rollups").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            serving.execute("INSERT INTO tokens (name) VALUES ('x')")
    with psycopg.connect(urls["ingest"]) as ingest:
        ingest.execute("CREATE TABLE staging.attempt (price int)")
    with psycopg.connect(urls["operator"]) as operator:
        assert operator.execute("SELECT pg_has_role('pg_monitor', 'USAGE')").fetchone() == (True,)
    # The other login of the owner continues with what the first has created.
    assert migrate(rotations.rotate("owner", 2))
    with psycopg.connect(rotations.url("owner")) as owner:
        owners = owner.execute(
            "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace IN "
            "('public'::regnamespace, 'staging'::regnamespace) ORDER BY 1"
        ).fetchall()
        rights = owner.execute("SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname = current_user").fetchone()
    assert owners == [("rates_ingest",), ("rates_owner",)]
    assert rights == (False, True)


def test_the_master_user_keeps_its_name_and_rotations_overlap(rotations: Rotations) -> None:
    token = rotations.begin("master", 1)
    for name in STEPS[:2]:
        rotations.step(name, "master", token)
    # The master's new password is valid already, but not current.
    with psycopg.connect(rotations.rotate("operator", 1)) as connection:
        assert user_of(connection)[1] == "rates_operator"
    for name in (*STEPS, *STEPS):
        rotations.step(name, "master", token)
    with psycopg.connect(rotations.url("master")) as connection:
        assert user_of(connection) == ("rates", "rates")


def test_the_other_region_gets_the_login_and_keeps_its_address(rotations: Rotations) -> None:
    token = rotations.begin("ingest", 1)
    for name in STEPS[:3]:
        rotations.step(name, "ingest", token)
    assert rotations.current("ingest")["password"] == ""
    rotations.step("finishSecret", "ingest", token)
    here = rotations.current("ingest")
    there = json.loads(rotations.followers.get_secret_value(SecretId="ingest")["SecretString"])
    assert (there["username"], there["password"]) == ("rates_ingest_1", here["password"])
    assert (there["host"], there["replicas"]) == (FOLLOWING_HOST, "")
    assert (here["host"], here["replicas"]) == (HOST, "replica-1,replica-2")
    assert len(here["password"]) == 48
    assert here["password"].isalnum()


def test_steps_may_be_repeated_and_one_region_is_enough(rotations: Rotations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLLOWERS", "{}")
    token = rotations.begin("serving", 7)
    rotations.step("createSecret", "serving", token)
    before = rotations.secrets.get_secret_value(SecretId=rotations.arns["serving"], VersionStage="AWSPENDING")
    for name in (*STEPS, *STEPS):
        rotations.step(name, "serving", token)
    assert rotations.current("serving") == json.loads(before["SecretString"])


def test_a_server_of_another_authority_gets_no_password(rotations: Rotations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "AUTHORITIES", handler.AUTHORITIES.with_name("wrong"))
    token = rotations.begin("serving", 8)
    rotations.step("createSecret", "serving", token)
    with pytest.raises(Exception, match="certificate verify failed"):
        rotations.step("setSecret", "serving", token)


@pytest.mark.parametrize(("step", "token"), [("cleanSecret", 9), ("createSecret", 0)])
def test_calls_that_secrets_manager_never_makes_are_refused(rotations: Rotations, step: str, token: int) -> None:
    known = rotations.begin("serving", 9)
    with pytest.raises(ValueError, match=r"unknown step|not in rotation"):
        rotations.step(step, "serving", known if token else "no-such-version")


def test_the_archive_contains_what_the_function_imports(tmp_path: Path) -> None:
    assert_importable(tmp_path, {"handler.py": Path(handler.__file__), **package_files(*DRIVER)})
