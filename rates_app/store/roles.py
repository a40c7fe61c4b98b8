"""Roles of the database: who may do what, and the logins that have a role.

Only migrations need the owner of the schema. Three roles without a login hold the privileges: ``serving`` (``rates
serve``), ``ingest`` (everything that stages and publishes) and ``operator`` (people). Each login is a member of one
role, and its sessions take that role immediately. So two logins can alternate when passwords are rotated, and the
tables that one creates belong to the role. docs/decisions/0096-database-roles.md has the reasons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import psycopg
import structlog
from psycopg import sql

from rates_app.settings import DatabaseRole
from rates_app.store.connections import connect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rates_app.store.databases import Connection

log = structlog.get_logger()

ROLES: tuple[DatabaseRole, ...] = get_args(DatabaseRole)

#: Roles of PostgreSQL that let operators see all sessions, and end them.
_OPERATOR_MEMBERSHIPS = ("pg_monitor", "pg_signal_backend")

#: The state of a batch, without its content: what a person or a supplier changes by a decision.
_DECISION = (
    "state, failure, superseded, rejected, replaced_by, generation, decided_by, "
    "started_at, verified_at, published_at, ended_at"
)
#: The columns of a batch that are known when its delivery arrives.
_DELIVERY = (
    "name, supplier, content_hash, size_bytes, format, compression, superseded, max_rejected_rows, expected_rows, "
    "expected_total_cents, replaces, check_only, deadline"
)

#: The columns of a lane alert without its secret.
_LANE_ALERT = (
    "id, owner, origin, destination, condition, threshold, days, channel, target, created_at, met, epoch, generation"
)

#: The columns of an address of lane alerts without the token in its links.
_ALERT_ADDRESS = (
    "owner, address, state, token_hash, messages, attempts, next_attempt_at, sent_at, expires_at, error, created_at"
)

#: Privileges on each table, view and sequence of the schema ``public``. A relation that is missing here is refused to
#: every role, and by a test. The service reads views of published prices only.
PRIVILEGES: dict[str, dict[DatabaseRole, str]] = {
    # `rates doctor` in the dispatcher's pod compares it with the code's.
    "alembic_version": {"ingest": "SELECT", "operator": "SELECT"},
    "batch_lanes": {"ingest": "SELECT, INSERT, DELETE", "operator": "SELECT, INSERT, DELETE"},
    "batch_slots": {
        "serving": "SELECT",
        "ingest": "SELECT, INSERT, UPDATE",
        "operator": "SELECT, INSERT, UPDATE",
    },
    "batches": {
        "serving": f"SELECT, INSERT ({_DELIVERY}), UPDATE ({_DECISION})",
        "ingest": "SELECT, INSERT, UPDATE",
        "operator": f"SELECT, UPDATE ({_DECISION})",
    },
    "cache_leases": {
        "serving": "SELECT, INSERT, UPDATE, DELETE",
        "ingest": "SELECT, DELETE",
        "operator": "SELECT, DELETE",
    },
    "delivered": {"operator": "SELECT"},
    "deliveries": {"serving": "SELECT, INSERT, UPDATE (content_hash)", "operator": "SELECT"},
    "delivery_attempts": {"ingest": "SELECT, INSERT, UPDATE, DELETE", "operator": "SELECT"},
    "generation": {"serving": "SELECT, UPDATE", "ingest": "SELECT, UPDATE", "operator": "SELECT, UPDATE"},
    "generations": {"serving": "USAGE", "ingest": "USAGE", "operator": "SELECT, USAGE"},
    "lane_alert_addresses": {
        "serving": f"SELECT ({_ALERT_ADDRESS}), INSERT (owner, address, site), "
        "UPDATE (state, messages, attempts, next_attempt_at, error)",
        "ingest": "SELECT, INSERT (owner, address, site), DELETE, "
        "UPDATE (messages, attempts, next_attempt_at, sent_at, expires_at, error)",
        "operator": f"SELECT ({_ALERT_ADDRESS}), INSERT (owner, address, site), "
        "UPDATE (messages, attempts, next_attempt_at, error)",
    },
    "lane_alert_notices": {
        "serving": "SELECT",
        "ingest": "SELECT, INSERT, UPDATE, DELETE",
        "operator": "SELECT",
    },
    "lane_alert_states": {"serving": "SELECT", "ingest": "SELECT", "operator": "SELECT"},
    "lane_alerts": {
        "serving": f"SELECT ({_LANE_ALERT}), INSERT, DELETE",
        "ingest": "SELECT, UPDATE (met, epoch, generation)",
        "operator": f"SELECT ({_LANE_ALERT}), INSERT, DELETE",
    },
    "lane_versions": {
        "serving": "SELECT, INSERT, UPDATE",
        "ingest": "SELECT, INSERT, UPDATE",
        "operator": "SELECT, INSERT, UPDATE",
    },
    # MAINTAIN permits LOCK TABLE: the tree must not change while prices are added up along it.
    "location_ancestors": {
        "serving": "SELECT",
        "ingest": "SELECT, MAINTAIN",
        "operator": "SELECT, INSERT, DELETE",
    },
    "locations": {"serving": "SELECT", "ingest": "SELECT", "operator": "SELECT, INSERT, UPDATE"},
    "rejects": {"serving": "SELECT", "ingest": "SELECT, INSERT, DELETE", "operator": "SELECT"},
    "rolled_up": {"ingest": "SELECT, INSERT, DELETE", "operator": "SELECT"},
    "rollups": {"ingest": "SELECT, INSERT, DELETE", "operator": "SELECT, INSERT, DELETE"},
    # Attaching a partition is reserved to the owner of a table, so this one belongs to the role that does.
    "segments": {"operator": "SELECT"},
    "slices": {"serving": "SELECT", "ingest": "SELECT, INSERT, UPDATE", "operator": "SELECT"},
    "supplier_profiles": {
        "serving": "SELECT, INSERT, UPDATE, DELETE",
        "ingest": "SELECT",
        "operator": "SELECT, INSERT, UPDATE, DELETE",
    },
    "supplier_schedules": {
        "serving": "SELECT, INSERT, UPDATE, DELETE",
        "ingest": "SELECT",
        "operator": "SELECT, INSERT, UPDATE, DELETE",
    },
    "tokens": {"serving": "SELECT", "operator": "SELECT, INSERT, DELETE"},
    "visible_lanes": {"serving": "SELECT", "ingest": "SELECT", "operator": "SELECT"},
    "visible_rollups": {"serving": "SELECT", "ingest": "SELECT", "operator": "SELECT"},
}


class RoleError(Exception):
    """A role or a login cannot be created; the message says why, and what to do."""


def role_name(role: DatabaseRole) -> str:
    """Return the name of a role in the database."""
    return f"rates_{role}"


def _identifier(role: DatabaseRole) -> sql.Identifier:
    return sql.Identifier(role_name(role))


def grant_privileges(url: str) -> bool:
    """Give each role its privileges, and take away those that it had before. May be repeated.

    Roles that are missing are created if the owner may do so. A database whose owner may not works with one login.

    Args:
        url: The primary, with the login of the schema's owner.

    Returns:
        Whether the roles exist.

    Raises:
        psycopg.Error: The database refused or is unreachable; nothing has changed.
    """
    # In one transaction, so that no session loses a privilege between REVOKE and GRANT.
    with connect(url, "rates-roles") as connection:
        if not _create_roles(connection):
            return False
        _refuse_temporary_tables(connection)
        _grant_staging(connection)
        for relation, privileges in PRIVILEGES.items():
            _grant_relation(connection, relation, privileges)
    return True


def _create_roles(connection: Connection) -> bool:
    """Create missing roles, and return whether all exist."""
    missing = [role for role in ROLES if not _exists(connection, role_name(role))]
    if missing and not _may_create(connection):
        return False
    # Roles are shared by all databases of a server, and may belong to another owner.
    if not all(_may_become(connection, role) for role in ROLES if role not in missing):
        return False
    for role in missing:
        try:
            with connection.transaction():
                connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(_identifier(role)))
        except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
            continue  # the migration of another database has just created it
        # The owner alters what belongs to the role.
        connection.execute(sql.SQL("GRANT {} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE").format(_identifier(role)))
    for membership in _OPERATOR_MEMBERSHIPS:
        row = connection.execute(
            "SELECT pg_has_role(%s, %s, 'MEMBER'), pg_has_role(%s, 'USAGE WITH ADMIN OPTION')",
            (role_name("operator"), membership, membership),
        ).fetchone()
        assert row is not None  # noqa: S101 - a query without FROM has one row
        member, may_grant = row
        if member:
            continue
        if may_grant:
            connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(membership), _identifier("operator")))
        else:
            log.warning("database_role_incomplete", role=role_name("operator"), missing=membership)
    return True


def _exists(connection: Connection, name: str) -> bool:
    return connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (name,)).fetchone() is not None


def _may_create(connection: Connection) -> bool:
    row = connection.execute("SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    return row == (True,)


def _may_become(connection: Connection, role: DatabaseRole) -> bool:
    return connection.execute("SELECT pg_has_role(%s, 'SET')", (role_name(role),)).fetchone() == (True,)


def _refuse_temporary_tables(connection: Connection) -> None:
    """Refuse temporary tables, which could fill the disk. Other logins, such as that of backups, may still connect."""
    row = connection.execute("SELECT current_database()").fetchone()
    assert row is not None  # noqa: S101 - a query without FROM has one row
    connection.execute(sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(sql.Identifier(row[0])))


def _grant_staging(connection: Connection) -> None:
    """Give the staged tables to the ingest: those of today, and with default privileges those of every later batch."""
    ingest, operator = _identifier("ingest"), _identifier("operator")
    connection.execute(sql.SQL("GRANT USAGE, CREATE ON SCHEMA staging TO {}").format(ingest))
    connection.execute(sql.SQL("GRANT USAGE ON SCHEMA staging TO {}").format(operator))
    connection.execute(
        sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA staging GRANT SELECT ON TABLES TO {}").format(
            ingest, operator
        )
    )
    others = connection.execute(
        """
        SELECT relnamespace::regnamespace::text, relname FROM pg_class
        WHERE relkind IN ('r', 'p') AND relowner <> %s::regrole
          AND (relnamespace = 'staging'::regnamespace OR oid = 'segments'::regclass)
        """,
        (role_name("ingest"),),
    ).fetchall()
    # The new owner of a table needs the right to create one in its schema.
    connection.execute(sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(ingest))
    for schema, name in others:
        table = sql.Identifier(schema, name)
        connection.execute(sql.SQL("ALTER TABLE {} OWNER TO {}").format(table, ingest))
        connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(table, operator))
    connection.execute(sql.SQL("REVOKE CREATE ON SCHEMA public FROM {}").format(ingest))


def _grant_relation(connection: Connection, relation: str, privileges: Mapping[DatabaseRole, str]) -> None:
    row = connection.execute(
        "SELECT relkind, relowner = %s::regrole FROM pg_class WHERE oid = %s::regclass",
        (role_name("ingest"), f"public.{relation}"),
    ).fetchone()
    assert row is not None  # noqa: S101 - regclass refuses an unknown relation
    kind, of_ingest = row
    table = sql.SQL("SEQUENCE {}" if kind == "S" else "TABLE {}").format(sql.Identifier("public", relation))
    for role in ROLES:
        if not (of_ingest and role == "ingest"):  # an owner keeps what it has
            connection.execute(sql.SQL("REVOKE ALL ON {} FROM {}").format(table, _identifier(role)))
        if granted := privileges.get(role):
            # Constants of this module.
            connection.execute(sql.SQL("GRANT {} ON {} TO {}").format(sql.SQL(granted), table, _identifier(role)))


def set_login(connection: Connection, role: DatabaseRole, name: str, password: str) -> None:
    """Create a login that has a role, or give it another password.

    Its open sessions continue; new ones need the new password.

    Args:
        connection: A connection to the primary with a login that may create roles, inside a transaction.
        role: The role.
        name: The login's name.
        password: Its password. The server gets a verifier only, so no log of statements contains it.

    Raises:
        RoleError: The role does not exist, the login has another role, or this login may not do that.
    """
    group = role_name(role)
    if not _exists(connection, group):
        raise RoleError(f"the role {group} does not exist: run 'rates migrate' with a login that may create roles")
    verifier = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
    login = sql.Identifier(name)
    try:
        if not _exists(connection, name):
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}").format(login, verifier, _identifier(role))
            )
            # Objects that a session creates belong to the role, so that the role's other login can use them.
            connection.execute(sql.SQL("ALTER ROLE {} SET role = {}").format(login, group))
            return
        row = connection.execute("SELECT pg_has_role(%s, %s, 'MEMBER')", (name, group)).fetchone()
        if row != (True,):
            raise RoleError(f"{name} exists already and is no login of {group}: choose another name")
        connection.execute(sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(login, verifier))
    except psycopg.errors.InsufficientPrivilege as error:
        raise RoleError(
            f"this login may not set the password of {name} ({error.diag.message_primary}): "
            "use the one that ran 'rates migrate'"
        ) from error
