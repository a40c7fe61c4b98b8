"""Rotate a secret of moto's Secrets Manager, which calls no function by itself."""

from __future__ import annotations

from typing import Any

from lambdas.rotation import handler
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.secretsmanager.models import secretsmanager_backends

STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")


def announce(secrets: Any, arn: str, number: int) -> str:
    """Announce a version without a value, as Secrets Manager does.

    Args:
        secrets: The client.
        arn: The secret.
        number: Number of the version.

    Returns:
        Its token.
    """
    token = f"11111111-2222-3333-4444-{number:012}"
    secrets.put_secret_value(SecretId=arn, ClientRequestToken=token, SecretString="{}", VersionStages=["AWSPENDING"])
    backend = secretsmanager_backends[DEFAULT_ACCOUNT_ID][arn.split(":")[3]]
    backend.secrets[arn].versions[token].pop("secret_string")
    return token


def take_step(name: str, arn: str, token: str) -> None:
    """Invoke the function for a step."""
    handler.handle({"Step": name, "SecretId": arn, "ClientRequestToken": token}, None)
