"""Rotates the database's password: the four steps that Secrets Manager calls a rotation function with.

The password is set through the RDS API, so the function needs no driver and no way into the network. Connections
that are open stay open; new ones need the new secret.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any
from urllib.parse import urlsplit

import boto3

POLL_SECONDS = 5


def handle(event: dict[str, str], context: Any) -> None:
    """Carry out one step of a rotation.

    Args:
        event: ``Step``, ``SecretId`` and ``ClientRequestToken``, as the Secrets Manager User Guide describes them.
        context: Lambda's context, which has the remaining time.

    Raises:
        ValueError: The step is none of the four, or the version is not in rotation.
        TimeoutError: The database did not take the password in the time that was left; Secrets Manager tries again.
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
        boto3.client("rds").modify_db_instance(
            DBInstanceIdentifier=os.environ["DATABASE"],
            MasterUserPassword=_password(secrets, secret, token),
            ApplyImmediately=True,
        )
    elif step == "testSecret":
        _wait(context)
    elif step == "finishSecret":
        _finish(secrets, secret, token)
    else:
        raise ValueError(
            f"unknown step {step!r}; Secrets Manager calls createSecret, setSecret, testSecret, finishSecret"
        )


def _create(secrets: Any, secret: str, token: str) -> None:
    """Store the next addresses under a new password, unless an earlier attempt has."""
    try:
        secrets.get_secret_value(SecretId=secret, VersionId=token, VersionStage="AWSPENDING")
    except secrets.exceptions.ResourceNotFoundException:
        password = secrets.get_random_password(PasswordLength=48, ExcludePunctuation=True)["RandomPassword"]
        current = json.loads(secrets.get_secret_value(SecretId=secret, VersionStage="AWSCURRENT")["SecretString"])
        value = {
            "RATES_DATABASE_URL": _url(current, password, os.environ["ADDRESS"]),
            "RATES_REPLICA_URLS": ",".join(
                _url(current, password, address) for address in os.environ["REPLICAS"].split(",") if address
            ),
        }
        secrets.put_secret_value(
            SecretId=secret, ClientRequestToken=token, SecretString=json.dumps(value), VersionStages=["AWSPENDING"]
        )


def _wait(context: Any) -> None:
    """Wait until RDS has applied the password; it lists it as pending until then."""
    rds = boto3.client("rds")
    while True:
        instance = rds.describe_db_instances(DBInstanceIdentifier=os.environ["DATABASE"])["DBInstances"][0]
        applied = "MasterUserPassword" not in instance.get("PendingModifiedValues", {})
        if applied and instance["DBInstanceStatus"] == "available":
            return
        if context.get_remaining_time_in_millis() < 2 * POLL_SECONDS * 1000:
            raise TimeoutError(f"{os.environ['DATABASE']} has not taken the password yet; the next attempt waits on")
        time.sleep(POLL_SECONDS)


def _finish(secrets: Any, secret: str, token: str) -> None:
    """Make the new version current, first in the standby region: its replica has taken the password over already."""
    if follower := os.environ["FOLLOWER_SECRET"]:
        elsewhere = boto3.client("secretsmanager", region_name=follower.split(":")[3])
        theirs = json.loads(elsewhere.get_secret_value(SecretId=follower)["SecretString"])
        password = _password(secrets, secret, token)
        value = {
            key: ",".join(_url(theirs, password, urlsplit(url).hostname or "") for url in urls.split(",") if url)
            for key, urls in theirs.items()
        }
        elsewhere.put_secret_value(SecretId=follower, ClientRequestToken=token, SecretString=json.dumps(value))
    versions = secrets.describe_secret(SecretId=secret)["VersionIdsToStages"]
    current = next(version for version, stages in versions.items() if "AWSCURRENT" in stages)
    secrets.update_secret_version_stage(
        SecretId=secret, VersionStage="AWSCURRENT", MoveToVersionId=token, RemoveFromVersionId=current
    )


def _password(secrets: Any, secret: str, token: str) -> str:
    """The password of the version in rotation."""
    value = secrets.get_secret_value(SecretId=secret, VersionId=token, VersionStage="AWSPENDING")["SecretString"]
    return str(urlsplit(json.loads(value)["RATES_DATABASE_URL"]).password)


def _url(secret: dict[str, str], password: str, address: str) -> str:
    """The secret's database URL with another password and host."""
    url = urlsplit(secret["RATES_DATABASE_URL"])
    return url._replace(netloc=f"{url.username}:{password}@{address}:{url.port}").geturl()
