"""Rotate the passwords of the database, in the four steps of a rotation function of Secrets Manager.

It uses both strategies of the Secrets Manager User Guide. The master user changes its own password (single user). Each
role of the service has two logins that alternate (alternating users): the password of the login in use stays valid
until the next rotation. So clients that have read the previous version of a secret continue to work.

The function connects as the master user, and creates roles and logins that are missing. `rates migrate` grants the
privileges of the roles. A role is the name of a login without its number, as in `rates_app/store/roles.py`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from pg8000.exceptions import DatabaseError
from pg8000.native import Connection, identifier, literal

if TYPE_CHECKING:
    from collections.abc import Iterator

Login = dict[str, str]

#: Certificates of the authorities that may certify the database.
AUTHORITIES = Path(__file__).with_name("rds-ca.pem")
TIMEOUT_SECONDS = 10
SCRAM_ITERATIONS = 4096
INVALID_PASSWORD = "28P01"  # noqa: S105 - an error code of PostgreSQL

OWNER = "rates_owner"
#: Memberships that the owner passes on to operators.
OPERATOR_MEMBERSHIPS = ("pg_monitor", "pg_signal_backend")


def handle(event: dict[str, str], _context: Any) -> None:
    """Carry out one step of a rotation.

    Args:
        event: ``Step``, ``SecretId`` and ``ClientRequestToken``, as the Secrets Manager User Guide describes them.

    Raises:
        ValueError: The step is none of the four, or the version is not in rotation.
        pg8000.exceptions.Error: The database is unreachable or refused; Secrets Manager tries again.
    """
    secrets = boto3.client("secretsmanager")
    step, secret, token = event["Step"], event["SecretId"], event["ClientRequestToken"]
    stages = secrets.describe_secret(SecretId=secret)["VersionIdsToStages"].get(token)
    if stages is None:
        raise ValueError(f"version {token} of the secret is not in rotation")
    if "AWSCURRENT" in stages:
        return
    if step == "createSecret":
        _create(secrets, secret, token)
    elif step == "setSecret":
        _set(secrets, _pending(secrets, secret, token))
    elif step == "testSecret":
        _connect(_pending(secrets, secret, token)).close()
    elif step == "finishSecret":
        _finish(secrets, secret, token)
    else:
        raise ValueError(
            f"unknown step {step!r}; Secrets Manager calls createSecret, setSecret, testSecret, finishSecret"
        )


def _create(secrets: Any, secret: str, token: str) -> None:
    """Store the next login, unless an earlier attempt has."""
    try:
        _pending(secrets, secret, token)
    except secrets.exceptions.ResourceNotFoundException:
        current = _read(secrets, secret, "AWSCURRENT")
        password = secrets.get_random_password(PasswordLength=48, ExcludePunctuation=True)["RandomPassword"]
        following = current | {
            "username": _alternate(current["username"]),
            "password": password,
            "host": os.environ["ADDRESS"],
            "replicas": os.environ["REPLICAS"],
        }
        secrets.put_secret_value(
            SecretId=secret,
            ClientRequestToken=token,
            SecretString=json.dumps(following),
            VersionStages=["AWSPENDING"],
        )


def _alternate(username: str) -> str:
    """Return the other login of a role. The master user, whose name has no number, has no other."""
    role, _, number = username.rpartition("_")
    return {"1": f"{role}_2", "2": f"{role}_1"}.get(number, username)


def _set(secrets: Any, login: Login) -> None:
    """Set the password in the database, for a login that may not exist yet."""
    user = identifier(login["username"])
    verifier = literal(scram_verifier(login["password"], os.urandom(16)))
    with _master(secrets) as connection:
        connection.run("BEGIN")
        # Rotations of several secrets run at the same time, and create the same roles.
        connection.run("SELECT pg_advisory_xact_lock(hashtext('rates login rotation'))")
        if login["username"] != connection.run("SELECT current_user")[0][0]:
            role = login["username"].rpartition("_")[0]
            _create_role(connection, login["dbname"], role)
            if not _exists(connection, login["username"]):
                connection.run(f"CREATE ROLE {user} LOGIN IN ROLE {identifier(role)}")
                # What a session creates belongs to the role, so that the role's other login can use it.
                connection.run(f"ALTER ROLE {user} SET role = {identifier(role)}")
        # The server gets a verifier only, so no log of statements contains the password.
        connection.run(f"ALTER ROLE {user} PASSWORD {verifier}")
        connection.run("COMMIT")


def _create_role(connection: Connection, database: str, role: str) -> None:
    """Create the owner of the database and the role of a login, if they are missing."""
    owner = identifier(OWNER)
    if not _exists(connection, OWNER):
        connection.run(f"CREATE ROLE {owner} NOLOGIN CREATEROLE")
        connection.run(f"GRANT {owner} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE")
        connection.run(f"GRANT {', '.join(OPERATOR_MEMBERSHIPS)} TO {owner} WITH ADMIN OPTION")
        connection.run(f"ALTER DATABASE {identifier(database)} OWNER TO {owner}")
    if role == OWNER:
        return
    if not _exists(connection, role):
        connection.run(f"CREATE ROLE {identifier(role)} NOLOGIN")
    # Migrations, which run as the owner, give privileges and tables to the role.
    connection.run(f"GRANT {identifier(role)} TO {owner} WITH ADMIN OPTION")


def _exists(connection: Connection, role: str) -> bool:
    return bool(connection.run("SELECT 1 FROM pg_roles WHERE rolname = :role", role=role))


def _finish(secrets: Any, secret: str, token: str) -> None:
    """Make the new version current, first in the standby region: its replica has the new login already."""
    if follower := json.loads(os.environ["FOLLOWERS"]).get(secret):
        elsewhere = boto3.client("secretsmanager", region_name=follower.split(":")[3])
        login = _pending(secrets, secret, token)
        theirs = _read(elsewhere, follower, "AWSCURRENT")
        value = theirs | {key: login[key] for key in ("username", "password")}
        elsewhere.put_secret_value(SecretId=follower, ClientRequestToken=token, SecretString=json.dumps(value))
    versions = secrets.describe_secret(SecretId=secret)["VersionIdsToStages"]
    current = next(version for version, stages in versions.items() if "AWSCURRENT" in stages)
    secrets.update_secret_version_stage(
        SecretId=secret, VersionStage="AWSCURRENT", MoveToVersionId=token, RemoveFromVersionId=current
    )


def _master(secrets: Any) -> Connection:
    """Connect as the master user, whose password may be in rotation, too."""
    candidates = _master_logins(secrets)
    login = next(candidates)
    while True:
        try:
            return _connect(login)
        except DatabaseError as error:
            following = next(candidates, None)
            if following is None or error.args[0]["C"] != INVALID_PASSWORD:
                raise
            login = following


def _master_logins(secrets: Any) -> Iterator[Login]:
    secret = os.environ["MASTER_SECRET"]
    yield _read(secrets, secret, "AWSCURRENT")
    try:
        yield _read(secrets, secret, "AWSPENDING")
    except secrets.exceptions.ResourceNotFoundException:
        return


def _connect(login: Login) -> Connection:
    return Connection(
        login["username"],
        host=os.environ["ADDRESS"],
        port=int(login["port"]),
        database=login["dbname"],
        password=login["password"],
        timeout=TIMEOUT_SECONDS,
        ssl_context=ssl.create_default_context(cafile=str(AUTHORITIES)),
        application_name="rates-rotation",
    )


def _read(secrets: Any, secret: str, stage: str) -> Login:
    login: Login = json.loads(secrets.get_secret_value(SecretId=secret, VersionStage=stage)["SecretString"])
    return login


def _pending(secrets: Any, secret: str, token: str) -> Login:
    """Return the login of the version in rotation."""
    value = secrets.get_secret_value(SecretId=secret, VersionId=token, VersionStage="AWSPENDING")["SecretString"]
    login: Login = json.loads(value)
    return login


def scram_verifier(password: str, salt: bytes) -> str:
    """Return what PostgreSQL stores of a password (RFC 5803).

    Args:
        password: Letters and digits, which need no normalisation.
        salt: Random bytes.
    """
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, SCRAM_ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    parts = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return "SCRAM-SHA-256${}:{}${}:{}".format(SCRAM_ITERATIONS, *parts)
