"""Each role of the database can do its work, and PostgreSQL refuses everything else."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from drills.pod import environment_of
from rates_app.batches.model import Terms
from rates_app.batches.pipeline import engine, publish
from rates_app.batches.pipeline.housekeep import housekeep
from rates_app.cache.redis import Redis
from rates_app.local.server import HOST
from rates_app.rates.warm import warmer
from rates_app.store.migrate import migrate
from rates_app.store.roles import PRIVILEGES, ROLES, RoleError, role_name, set_login

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from rates_app.local.postgres import PostgresPair
    from rates_app.settings import DatabaseRole, Settings
    from tests.fixtures.service import Publisher
    from tests.fixtures.stores import MigratedDatabase

RATES = Path(sys.executable).with_name("rates")
DELIVERY = "orig_code,dest_code,day,price\nCNSGH,SEGOT,2021-01-05,{price}\n"


def connect(settings: Settings, role: DatabaseRole) -> psycopg.Connection:
    return psycopg.connect(settings.database_url_of(role), autocommit=True)


def run(settings: Settings, *arguments: str) -> str:
    """Run a command with the logins of the roles only."""
    environment = {**os.environ, **environment_of(settings), "RATES_DATABASE_URL": "postgresql://127.0.0.1:1/none"}
    done = subprocess.run([RATES, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def delivery(tmp_path: Path) -> Path:
    file = tmp_path / "prices.csv"
    file.write_text(DELIVERY.format(price=100))
    return file


@pytest.mark.usefixtures("publisher")
def test_sessions_have_their_role_and_not_the_login(settings: Settings) -> None:
    for role in ROLES:
        with connect(settings, role) as connection:
            row = connection.execute("SELECT current_user::text, session_user::text").fetchone()
        assert row == (role_name(role), f"{role_name(role)}_1")


def test_every_relation_states_who_may_use_it(database: MigratedDatabase) -> None:
    with psycopg.connect(database.url) as connection:
        rows = connection.execute(
            """
            SELECT relname FROM pg_class
            WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'S')
              AND NOT (relkind = 'S' AND EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'i'))
            """  # an identity column's sequence has the privileges of its table
        ).fetchall()
    assert {name for (name,) in rows} == set(PRIVILEGES)


@pytest.mark.usefixtures("publisher")
def test_ingest_stages_publishes_and_cleans_up(settings: Settings, delivery: Path) -> None:
    first, _ = engine.ingest(settings, str(delivery))
    delivery.write_text(DELIVERY.format(price=200))
    second, _ = engine.ingest(settings, str(delivery), terms=Terms(replaces=first.id))
    assert (first.state, second.state) == ("published", "published")
    assert housekeep(settings) is not None
    with psycopg.connect(settings.database_url.get_secret_value()) as owner:
        rows = owner.execute("SELECT batch_id, price_cents FROM delivered").fetchall()
        owners = owner.execute(
            "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'staging'::regnamespace"
        ).fetchall()
    assert rows == [(second.id, 20000)]
    assert owners == [("rates_ingest",)]


@pytest.mark.usefixtures("publisher")
def test_the_other_login_of_a_role_continues_where_the_first_stopped(settings: Settings, cluster: PostgresPair) -> None:
    url, name = settings.database_url.get_secret_value(), f"rates_ingest_{secrets.token_hex(4)}"
    with psycopg.connect(url) as owner:
        set_login(owner, "ingest", name, "secret")
    with connect(settings, "ingest") as first:
        first.execute("CREATE TABLE staging.b1_s1 (LIKE segments INCLUDING STORAGE)")
    database = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    other = f"postgresql://{name}:secret@{HOST}:{cluster.primary.port}/{database}"
    with psycopg.connect(other, autocommit=True) as second:
        second.execute("ALTER TABLE segments ATTACH PARTITION staging.b1_s1 FOR VALUES IN (1)")
        second.execute("DROP TABLE staging.b1_s1")
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_serving_answers_takes_deliveries_and_withdraws(
    client: FlaskClient, publisher: Publisher, settings: Settings
) -> None:
    batch = publisher.publish([("CNSGH", "SEGOT", date(2021, 1, 5), 10000)] * 3)
    question = "/rates?date_from=2021-01-05&date_to=2021-01-05&orig_code=CNSGH&dest_code=SEGOT"
    assert client.get(question).get_json()["rates"][0]["price"] == 100.0
    secret = run(settings, "token", "create", "acme", "--scope", "operator").strip()
    headers = {"Authorization": f"Bearer {secret}", "Idempotency-Key": "1"}
    delivered = client.post("/v1/batches?name=prices.csv", headers=headers, data=DELIVERY.format(price=1))
    assert delivered.status_code == 202, delivered.text
    assert client.delete(f"/v1/batches/{batch}", headers=headers).get_json()["state"] == "withdrawn"
    assert client.get(question).get_json()["rates"][0]["price"] is None
    assert client.put("/v1/profiles/acme", headers=headers, json={"date_order": "dmy"}).status_code == 200
    assert client.delete("/v1/profiles/acme", headers=headers).status_code == 204
    assert client.put("/v1/schedules/acme", headers=headers, json={"by": "08:00"}).status_code == 200
    assert client.delete("/v1/schedules/acme", headers=headers).status_code == 204


def test_serving_decides_on_held_batches(settings: Settings, publisher: Publisher, delivery: Path) -> None:
    del publisher
    held = []
    for price in (1, 2):
        delivery.write_text(DELIVERY.format(price=price).replace("2021", "2028"))
        batch, _ = engine.ingest(settings, str(delivery))
        assert batch.state == "held"
        held.append(batch.id)
    with psycopg.connect(settings.database_url_of("serving")) as connection:
        assert publish.publish(connection, held[0], warmer(Redis(settings)), by="test").state == "published"
        assert publish.refuse_held(connection, held[1], by="test", reason="test").state == "refused"


def test_operators_run_their_commands(settings: Settings, publisher: Publisher, delivery: Path, tmp_path: Path) -> None:
    batch = publisher.publish([("CNSGH", "SEGOT", date(2021, 1, 5), 10000)])
    delivery.write_text(DELIVERY.format(price=1).replace("2021", "2028"))
    held, _ = engine.ingest(settings, str(delivery))
    run(settings, "publish", str(held.id), "--yes")
    run(settings, "withdraw", str(batch), "--yes")
    run(settings, "batches", str(batch))
    run(settings, "rejects", str(batch))
    run(settings, "token", "create", "acme", "--scope", "batches:write")
    run(settings, "token", "list")
    run(settings, "token", "revoke", "acme")
    run(settings, "profile", "list")
    run(settings, "schedule", "set", "acme", "--by", "08:00")
    run(settings, "schedule", "list")
    run(settings, "schedule", "delete", "acme")
    ports = tmp_path / "ports.csv"
    ports.write_text("code,name,parent_slug\nCNSGH,Shanghai,north_europe_main\n")
    regions = tmp_path / "regions.csv"
    regions.write_text("slug,name,parent_slug\nnorth_europe_main,North Europe Main,\n")
    run(settings, "locations", str(ports), str(regions))  # the parent has changed, so all rollups are rebuilt
    with connect(settings, "operator") as connection, connect(settings, "serving") as served:
        row = connection.execute(
            "SELECT query FROM pg_stat_activity WHERE pid = %s", (served.info.backend_pid,)
        ).fetchone()
        assert row is not None
        assert "privilege" not in row[0]
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", (served.info.backend_pid,))
        with pytest.raises(psycopg.OperationalError):
            served.execute("SELECT 1")


REFUSED: list[tuple[DatabaseRole, str]] = [
    # The role serving reads published prices only, and only the role ingest writes prices.
    ("serving", "SELECT FROM rollups"),
    ("serving", "SELECT FROM segments"),
    ("serving", "SELECT FROM delivered"),
    ("serving", "DELETE FROM rollups"),
    ("serving", "INSERT INTO batch_lanes VALUES (1, 1, 1, 1, '{}')"),
    ("serving", "INSERT INTO batches (name, state) VALUES ('a', 'published')"),
    ("serving", "UPDATE batches SET supplier = 'other'"),
    ("serving", "DELETE FROM batches"),
    ("serving", "DELETE FROM rejects"),
    ("serving", "UPDATE locations SET name = 'x'"),
    ("serving", "CREATE TABLE staging.x ()"),
    # Tokens come from operators alone.
    ("serving", "INSERT INTO tokens (name, supplier, hash, scopes) VALUES ('a', 'a', sha256('a'), '{operator}')"),
    ("serving", "UPDATE tokens SET scopes = '{operator}'"),
    ("ingest", "SELECT FROM tokens"),
    ("ingest", "UPDATE locations SET name = 'x'"),
    ("ingest", "DELETE FROM location_ancestors"),
    ("ingest", "DELETE FROM batches"),
    ("ingest", "UPDATE cache_leases SET expires_at = now()"),
    ("ingest", "UPDATE supplier_profiles SET profile = '{}'"),
    ("ingest", "DELETE FROM supplier_schedules"),
    ("ingest", "UPDATE alembic_version SET version_num = '0'"),
    ("serving", "SELECT FROM alembic_version"),
    ("ingest", "DROP TABLE rollups"),
    ("operator", "UPDATE batches SET supplier = 'other'"),
    ("operator", "UPDATE rollups SET count = 1"),
    ("operator", "DELETE FROM segments"),
    ("operator", "UPDATE alembic_version SET version_num = '0'"),
    ("operator", "CREATE TABLE staging.x ()"),
    ("operator", "ALTER TABLE segments ADD COLUMN x integer"),
    *(
        (role, statement)
        for role in ROLES
        for statement in (
            "CREATE TABLE public.x ()",
            "CREATE SCHEMA x",
            "CREATE ROLE x",
            "ALTER ROLE rates PASSWORD 'x'",
            "SET ROLE rates",
            "SELECT pg_read_file('/etc/passwd')",
            "COPY locations TO PROGRAM 'true'",
            "ALTER TABLE batches ADD COLUMN x integer",
            "DROP TABLE locations",
            "TRUNCATE batches CASCADE",
            "SELECT rolpassword FROM pg_authid",
        )
    ),
]


@pytest.mark.usefixtures("publisher")
@pytest.mark.parametrize("role", ROLES)
def test_everything_else_is_refused(settings: Settings, role: DatabaseRole) -> None:
    with connect(settings, role) as connection:
        for statement in [text for refused, text in REFUSED if refused == role]:
            try:
                connection.execute(statement)
            except psycopg.errors.InsufficientPrivilege:
                continue
            pytest.fail(f"{role} may {statement}")


@pytest.mark.usefixtures("publisher")
def test_only_operators_end_the_sessions_of_others(settings: Settings) -> None:
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as owner:
        pid = owner.info.backend_pid
        for role in ("serving", "ingest"):
            with connect(settings, role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("SELECT pg_cancel_backend(%s)", (pid,))
        owner.execute("SELECT 1")
        with connect(settings, "operator") as connection:
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        with pytest.raises(psycopg.OperationalError):
            owner.execute("SELECT 1")


def test_a_repeated_migration_restores_the_privileges(database: MigratedDatabase) -> None:
    with psycopg.connect(database.url) as owner:
        owner.execute("GRANT SELECT ON rollups TO rates_serving")
        owner.execute("REVOKE SELECT ON tokens FROM rates_serving")
        owner.execute("CREATE TABLE staging.b1_s1 (LIKE segments INCLUDING STORAGE)")  # as an earlier version did
    assert migrate(database.url)
    with (
        psycopg.connect(database.role_urls["serving_database_url"]) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="temporary tables"),
    ):
        connection.execute("CREATE TEMPORARY TABLE x ()")
    with psycopg.connect(database.url) as owner:
        query = "SELECT has_table_privilege('rates_serving', %s, 'SELECT')"
        assert owner.execute(query, ("rollups",)).fetchone() == (False,)
        assert owner.execute(query, ("tokens",)).fetchone() == (True,)
        row = owner.execute("SELECT relowner::regrole::text FROM pg_class WHERE relname = 'b1_s1'").fetchone()
    assert row == ("rates_ingest",)


def test_an_owner_that_may_not_create_roles_works_with_one_login(cluster: PostgresPair, worker_id: str) -> None:
    name = sql.Identifier(f"simple_{worker_id}")
    with psycopg.connect(cluster.primary.admin_url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'simple'").format(name))
        admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, name))
        url = f"postgresql://simple_{worker_id}:simple@{HOST}:{cluster.primary.port}/simple_{worker_id}"
        try:
            assert not migrate(url)
            with psycopg.connect(url) as connection:
                assert connection.execute("SELECT number FROM generation").fetchone() == (1,)
                with pytest.raises(RoleError, match=r"rates migrate|may not set the password"):
                    set_login(connection, "serving", f"simple_{worker_id}_login", "x")
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
            admin.execute(sql.SQL("DROP ROLE {}").format(name))


def test_a_login_gets_another_password_and_keeps_its_sessions(
    database: MigratedDatabase, cluster: PostgresPair
) -> None:
    name = f"rates_serving_{secrets.token_hex(4)}"
    dbname = psycopg.conninfo.conninfo_to_dict(database.url)["dbname"]
    environment = {**os.environ, "RATES_DATABASE_URL": database.url}

    def login() -> str:
        done = subprocess.run(
            [RATES, "login", "serving", name], env=environment, capture_output=True, text=True, check=True
        )
        return f"postgresql://{name}:{done.stdout.strip()}@{HOST}:{cluster.primary.port}/{dbname}"

    first = login()
    with psycopg.connect(first) as session:
        second = login()
        with psycopg.connect(second) as connection:
            assert connection.execute("SELECT current_user::text").fetchone() == ("rates_serving",)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(first)
        session.execute("SELECT FROM generation")
    with psycopg.connect(database.url, autocommit=True) as owner:
        with pytest.raises(RoleError, match="no login of rates_ingest"):
            set_login(owner, "ingest", name, "x")
        owner.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
