"""The rotation function, step by step, with Secrets Manager and RDS in moto."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import boto3
import pytest
from lambdas.rotation import handler
from moto import mock_aws

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")
NEXT = "11111111-2222-3333-4444-555555555555"


class Context(NamedTuple):
    """Lambda's context, as far as the function reads it."""

    millis: int

    def get_remaining_time_in_millis(self) -> int:
        return self.millis


class Rotating(NamedTuple):
    """Two secrets of one database, the first with a version in rotation."""

    secrets: Any
    followers: Any
    secret: str
    follower: str

    def step(self, name: str, millis: int = 60_000) -> None:
        handler.handle({"Step": name, "SecretId": self.secret, "ClientRequestToken": NEXT}, Context(millis))

    @staticmethod
    def _read(client: Any, secret: str) -> str:
        return str(client.get_secret_value(SecretId=secret, VersionStage="AWSCURRENT")["SecretString"])

    def current(self) -> dict[str, str]:
        value: dict[str, str] = json.loads(self._read(self.secrets, self.secret))
        return value

    def followed(self) -> dict[str, str]:
        value: dict[str, str] = json.loads(self._read(self.followers, self.follower))
        return value


def _value(*hosts: str) -> str:
    first, *rest = (f"postgresql://rates:old@{host}:5432/rates?sslmode=require" for host in hosts)
    return json.dumps({"RATES_DATABASE_URL": first, "RATES_REPLICA_URLS": ",".join(rest)})


@pytest.fixture
def rotating(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rotating]:
    with mock_aws():
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        secrets, followers = boto3.client("secretsmanager"), boto3.client("secretsmanager", region_name="us-west-2")
        secret = secrets.create_secret(Name="database", SecretString=_value("first", "gone"))["ARN"]
        follower = followers.create_secret(Name="standby", SecretString=_value("second"))["ARN"]
        boto3.client("rds").create_db_instance(
            DBInstanceIdentifier="rates-database",
            DBInstanceClass="db.t4g.medium",
            Engine="postgres",
            MasterUsername="rates",
            MasterUserPassword="old-password",
            AllocatedStorage=20,
        )
        for name, value in {
            "DATABASE": "rates-database",
            "ADDRESS": "first",
            "REPLICAS": "replica-1,replica-2",
            "FOLLOWER_SECRET": follower,
        }.items():
            monkeypatch.setenv(name, value)
        # Secrets Manager creates the pending version, then calls the function.
        secrets.put_secret_value(
            SecretId=secret, ClientRequestToken=NEXT, SecretString="{}", VersionStages=["AWSPENDING"]
        )
        _forget_value(secrets, secret)
        yield Rotating(secrets, followers, secret, follower)


def _forget_value(secrets: Any, secret: str) -> None:
    """Take the placeholder's value away: the service itself announces a version without one."""
    from moto.secretsmanager.models import secretsmanager_backends  # noqa: PLC0415 - moto offers no call for it

    backend = secretsmanager_backends["123456789012"]["us-east-1"]
    version = backend.secrets[secret].versions[NEXT]
    version.pop("secret_string", None)


def test_a_rotation_changes_the_password_everywhere(rotating: Rotating, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    real: Any = boto3.client

    def spying(service: str, **options: Any) -> Any:
        client: Any = real(service, **options)
        if service == "rds":
            client.meta.events.register(
                "provide-client-params.rds.ModifyDBInstance",
                lambda params, **_: given.append(params["MasterUserPassword"]),
            )
        return client

    monkeypatch.setattr(boto3, "client", spying)
    for name in STEPS:
        rotating.step(name)
    current = rotating.current()
    url = urlsplit(current["RATES_DATABASE_URL"])
    assert (url.username, url.hostname, url.port, url.path, url.query) == (
        "rates",
        "first",
        5432,
        "/rates",
        "sslmode=require",
    )
    assert url.password is not None
    assert url.password.isalnum()
    assert len(url.password) == 48
    assert given == [url.password]
    replicas = [urlsplit(replica) for replica in current["RATES_REPLICA_URLS"].split(",")]
    assert [(replica.hostname, replica.password) for replica in replicas] == [
        ("replica-1", url.password),
        ("replica-2", url.password),
    ]
    followed = rotating.followed()
    assert urlsplit(followed["RATES_DATABASE_URL"])[1] == f"rates:{url.password}@second:5432"
    assert followed["RATES_REPLICA_URLS"] == ""


def test_the_old_password_is_current_until_the_last_step(rotating: Rotating) -> None:
    for name in STEPS[:3]:
        rotating.step(name)
    assert ":old@" in rotating.current()["RATES_DATABASE_URL"]
    assert ":old@" in rotating.followed()["RATES_DATABASE_URL"]


def test_steps_may_be_repeated(rotating: Rotating) -> None:
    rotating.step("createSecret")
    before = rotating.secrets.get_secret_value(SecretId=rotating.secret, VersionStage="AWSPENDING")["SecretString"]
    rotating.step("createSecret")
    after = rotating.secrets.get_secret_value(SecretId=rotating.secret, VersionStage="AWSPENDING")["SecretString"]
    assert before == after
    for name in (*STEPS[1:], *STEPS):
        rotating.step(name)
    assert rotating.current() == json.loads(after)


def test_no_standby_is_no_error(rotating: Rotating, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLLOWER_SECRET", "")
    for name in STEPS:
        rotating.step(name)
    assert ":old@" in rotating.followed()["RATES_DATABASE_URL"]


def test_a_slow_database_is_retried(rotating: Rotating, monkeypatch: pytest.MonkeyPatch) -> None:
    states = [{"DBInstanceStatus": "modifying", "PendingModifiedValues": {"MasterUserPassword": "****"}}]

    class DatabaseInRotation:
        def describe_db_instances(self, **_: str) -> dict[str, list[dict[str, Any]]]:
            return {"DBInstances": states}

    real: Any = boto3.client
    monkeypatch.setattr(
        boto3, "client", lambda service, **o: DatabaseInRotation() if service == "rds" else real(service, **o)
    )
    with pytest.raises(TimeoutError, match="has not taken the password yet"):
        rotating.step("testSecret", millis=1_000)


@pytest.mark.parametrize(("step", "token"), [("cleanSecret", NEXT), ("createSecret", "no-such-version")])
def test_calls_that_secrets_manager_never_makes_are_refused(rotating: Rotating, step: str, token: str) -> None:
    with pytest.raises(ValueError, match=r"unknown step|not in rotation"):
        handler.handle({"Step": step, "SecretId": rotating.secret, "ClientRequestToken": token}, Context(60_000))
