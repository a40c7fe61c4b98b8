"""The Secrets of the roles, filled in as the External Secrets Operator does, open the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from rates_app.settings import Settings
from rates_app.store.connections import connect
from rates_app.store.roles import set_login

from .rendering import REQUIRED, RenderError, fill, of_kind, render, stack, the

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fixtures.stores import MigratedDatabase

ROOTS = "rates_app/store/rds-ca.pem"
LOGIN = {
    "engine": "postgres",
    "host": "primary.test",
    "port": "5432",
    "dbname": "rates",
    "replicas": "one.test,two.test",
    "username": "rates_serving_1",
    "password": "first",
    "RATES_REDIS_URL": "rediss://rates-serving:word@cache.test:6379/0",
    "RATES_CACHE_KEY": "key",
}


def secret(role: str, login: dict[str, str]) -> dict[str, str]:
    """Return the data of a role's Secret. The operator's functions are those of Helm, without Helm's own."""
    name = "rates-app" if role == "serving" else f"rates-app-{role}"
    manifest = the(render("rates-app", REQUIRED["rates-app"]), "ExternalSecret", name)
    data: dict[str, str] = fill(manifest["spec"]["target"]["template"]["data"], login)
    return data


def test_addresses_are_settings_without_a_login() -> None:
    data = secret("serving", LOGIN)
    given = {key.removeprefix("RATES_").lower(): value for key, value in data.items() if key.startswith("RATES_")}
    settings = Settings.model_validate(given)
    assert settings.database_url.get_secret_value() == "postgresql://primary.test:5432/rates"
    assert [url.get_secret_value() for url in settings.replica_urls] == [
        "postgresql://one.test:5432/rates",
        "postgresql://two.test:5432/rates",
    ]
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == LOGIN["RATES_REDIS_URL"]
    assert secret("serving", LOGIN | {"replicas": ""})["RATES_REPLICA_URLS"] == ""


def test_every_role_verifies_the_server() -> None:
    for role in ("owner", "serving", "ingest", "operator"):
        data = secret(role, LOGIN)
        assert data["PGSSLMODE"] == "verify-full"
        assert data["PGSSLROOTCERT"].endswith(f"/site-packages/{ROOTS}")
        assert "sslmode" not in data["RATES_DATABASE_URL"]
        assert ("RATES_REDIS_URL" in data) == (role != "owner")


def test_a_secret_before_the_first_rotation_is_an_error() -> None:
    with pytest.raises(RenderError, match="the first rotation creates it"):
        secret("serving", LOGIN | {"password": ""})


def test_servers_read_the_login_for_each_connection(
    database: MigratedDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a pod: the kubelet replaces the file, and the process keeps its environment."""
    server = conninfo_to_dict(database.url)
    address = {key: str(server[name]) for key, name in {"host": "host", "port": "port", "dbname": "dbname"}.items()}
    logins = {f"rates_serving_{database.url.rpartition('_')[2]}_{number}": f"word{number}" for number in (1, 2)}
    with psycopg.connect(database.url) as owner:
        for name, password in logins.items():
            set_login(owner, "serving", name, password)
    (container,) = of_kind(stack("prod", "rates-app"), "Rollout")[0]["spec"]["template"]["spec"]["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    monkeypatch.setenv("PGSERVICE", environment["PGSERVICE"])
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "pg_service.conf"))
    # The server of the tests has no TLS; the environment has the login of the pod's start.
    monkeypatch.setenv("PGSSLMODE", "disable")
    monkeypatch.setenv("PGUSER", "of-the-start")
    url = ""
    for name, password in logins.items():
        data = secret("serving", LOGIN | address | {"username": name, "password": password})
        (tmp_path / "pg_service.conf").write_text(data["pg_service.conf"])
        url = url or data["RATES_DATABASE_URL"]
        with connect(url, "test") as connection:
            row = connection.execute("SELECT session_user::text, current_user::text").fetchone()
        assert row == (name, "rates_serving")


def mounts(template: dict[str, Any]) -> dict[str, str]:
    """Return the Secrets that a pod mounts, by the folder."""
    (container,) = template["spec"]["containers"]
    folders = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    return {folders[one["name"]]: one["secret"]["secretName"] for one in template["spec"]["volumes"] if "secret" in one}


def test_pods_that_outlive_a_rotation_mount_the_login() -> None:
    server = of_kind(stack("prod", "rates-app"), "Rollout")[0]["spec"]["template"]
    dispatcher = the(stack("prod", "spark-ingest"), "Deployment", "rates-dispatcher")["spec"]["template"]
    for template, name in ((server, "rates-app"), (dispatcher, "rates-app-ingest")):
        assert mounts(template) == {"/etc/rates-login": name}
        environment = {one["name"]: one["value"] for one in template["spec"]["containers"][0]["env"]}
        assert environment["PGSERVICEFILE"] == "/etc/rates-login/pg_service.conf"


def test_one_secret_for_all_processes_mounts_nothing() -> None:
    manifests = render("rates-app", REQUIRED["rates-app"], {"secrets": {"existing": "mine"}})
    template = the(manifests, "Deployment")["spec"]["template"]
    assert mounts(template) == {}
    assert template["spec"]["containers"][0]["envFrom"] == [{"secretRef": {"name": "mine"}}]
    assert of_kind(manifests, "CronJob") == []
